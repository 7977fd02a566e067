//! The bounded blocking pool: hashing, chunking and compression of more than one chunk run here.

use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::error::{Error, Result};

/// Threads for work that would hold up an async thread, so many at once and no more.
#[derive(Clone, Debug)]
pub struct Pool {
    /// None: there are no threads.
    slots: Option<Arc<Semaphore>>,
}

impl Pool {
    /// A pool that runs `threads` jobs at once. With 0 there are no threads: each job runs where it
    /// is asked for. For simulations, which must not depend on when a thread runs.
    pub fn new(threads: usize) -> Self {
        let slots = (threads > 0).then(|| Arc::new(Semaphore::new(threads)));
        Self { slots }
    }

    /// Runs a job, after waiting for a free slot. A job that was started runs to its end even if
    /// nobody waits for it any more.
    pub async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T> {
        let Some(slots) = &self.slots else {
            return Ok(job());
        };
        let slot = Arc::clone(slots).acquire_owned().await;
        let slot = slot.map_err(|_| Error::Busy { reason: "shutting down".to_owned() })?;
        #[expect(clippy::disallowed_methods, reason = "this is the bounded pool")]
        let running = tokio::task::spawn_blocking(move || {
            let _slot = slot;
            job()
        });
        running.await.map_err(|error| Error::internal(format!("a job stopped: {error}")))
    }
}
