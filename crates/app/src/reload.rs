//! What is read again while the hub runs: the certificate, by itself or on SIGHUP. Settings are
//! read at a start.
//!
//! The signal never ends the hub, whether or not there is something to read: service managers and
//! terminals send it to whatever they know.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use ballast_gateway::tls::Tls;
use ballast_store::env::SharedEnv;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::certificate::Certificate;
use crate::config::TlsConfig;

/// How often the certificate's files are looked at.
const LOOK: Duration = Duration::from_secs(5);

/// Listens for the signal from the moment this exists.
pub(crate) struct Reload {
    hangups: Signal,
    certificate: Option<Certificate>,
}

impl Reload {
    /// Reads what there is for the first time.
    pub(crate) async fn open(files: &TlsConfig) -> Result<Self> {
        let hangups = signal(SignalKind::hangup()).context("listening for SIGHUP")?;
        Ok(Self { hangups, certificate: Certificate::open(files).await? })
    }

    /// What new connections get; `None` if the hub speaks plain HTTP.
    pub(crate) fn tls(&self) -> Option<Arc<Tls>> {
        self.certificate.as_ref().map(Certificate::tls)
    }

    /// Keeps everything up to date for as long as this is polled.
    pub(crate) async fn keep(mut self, env: SharedEnv) -> Infallible {
        loop {
            let is_told = tokio::select! {
                told = self.hangups.recv() => told.is_some(),
                () = env.sleep(LOOK) => false,
            };
            match &mut self.certificate {
                Some(certificate) => certificate.look(is_told).await,
                None if is_told => {
                    tracing::info!("SIGHUP: there is no certificate to read again");
                }
                None => {}
            }
        }
    }
}
