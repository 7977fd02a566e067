//! When to stop: the two signals by which a terminal and a service manager ask.

use anyhow::{Context as _, Result};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Both signals, listened for from the moment this exists.
pub(crate) struct Shutdown {
    interrupt: Signal,
    terminate: Signal,
}

impl Shutdown {
    /// Starts listening, so that a signal during start-up is not lost.
    pub(crate) fn listen() -> Result<Self> {
        let interrupt = signal(SignalKind::interrupt()).context("listening for SIGINT")?;
        let terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
        Ok(Self { interrupt, terminate })
    }

    /// Resolves when the process is asked to stop.
    pub(crate) async fn requested(mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => tracing::info!("interrupted; finishing what is begun"),
            _ = self.terminate.recv() => tracing::info!("told to stop; finishing what is begun"),
        }
    }
}
