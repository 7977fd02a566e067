//! The certificate while the hub runs: read again when its files change, or on SIGHUP.
//!
//! Connections go on with what they have. What can't be used is an error in the log, once, and
//! the certificate before it stays.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use ballast_gateway::tls::Tls;

use crate::config::TlsConfig;

/// What shows that a file is another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    size: u64,
    changed: (i64, i64),
}

/// What both files were at one look; `None` for one that is not there.
type Look = [Option<Stamp>; 2];

/// A certificate, and where it came from.
pub(crate) struct Certificate {
    files: TlsConfig,
    tls: Arc<Tls>,
    tried: Look,
    last: Look,
}

impl Certificate {
    /// Reads it; `None` if the hub speaks plain HTTP.
    pub(crate) async fn open(files: &TlsConfig) -> Result<Option<Self>> {
        if !files.is_on() {
            return Ok(None);
        }
        // Before they are read: what changes in between is seen later.
        let tried = look(files).await;
        let tls = Arc::new(files.open()?);
        Ok(Some(Self { files: files.clone(), tls, tried, last: tried }))
    }

    /// What new connections get.
    pub(crate) fn tls(&self) -> Arc<Tls> {
        Arc::clone(&self.tls)
    }

    /// Looks at the files, and reads them if somebody says so, or once they are others and have
    /// been the same twice, so that both are new.
    pub(crate) async fn look(&mut self, is_told: bool) {
        let now = look(&self.files).await;
        if is_told || (now != self.tried && now == self.last) {
            self.tried = now;
            self.renew();
        }
        self.last = now;
    }

    fn renew(&self) {
        let renewed = self.files.read().and_then(|(certificate, key)| {
            let replaced = self.tls.replace(certificate.as_bytes(), key.as_bytes());
            replaced.with_context(|| self.files.which())
        });
        match renewed {
            Ok(()) => tracing::info!("new connections get the certificate that was read now"),
            Err(error) => {
                let error = format!("{error:#}");
                tracing::error!(error, "the new certificate is not used; the one before it stays");
            }
        }
    }
}

async fn look(files: &TlsConfig) -> Look {
    [stamp(&files.certificate).await, stamp(&files.key).await]
}

async fn stamp(path: &Path) -> Option<Stamp> {
    let found = tokio::fs::metadata(path).await.ok()?;
    let changed = (found.mtime(), found.mtime_nsec());
    Some(Stamp { inode: found.ino(), size: found.size(), changed })
}
