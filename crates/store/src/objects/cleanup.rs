//! What is left to do after a writer was dropped.
//!
//! A dropped future can't wait, and a remote store keeps the parts of a write until it is told that
//! the write was given up. So that is told in the background, by tasks that the store owns. What a
//! process leaves when it dies is for the bucket's lifecycle rule (`docs/operating/s3.md`).

use std::future::Future;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::runtime::Handle;
use tokio::task::JoinSet;

/// How many may be under way at once: more than uploads that one process takes. What is beyond is
/// left to the lifecycle rule.
const MOST: usize = 1024;

/// Tasks that end with the store, at the latest.
#[derive(Debug, Default)]
pub(super) struct Cleanups {
    tasks: Mutex<JoinSet<()>>,
}

impl Cleanups {
    /// Begins a cleanup, if there is a runtime to run it.
    pub(super) fn begin(&self, cleanup: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.tasks();
        while tasks.try_join_next().is_some() {}
        match Handle::try_current() {
            Ok(runtime) if tasks.len() < MOST => {
                tasks.spawn_on(cleanup, &runtime);
            }
            _ => tracing::debug!("a dropped write is not cleaned up"),
        }
    }

    /// Waits for those that have begun.
    pub(super) async fn finish(&self) {
        let mut tasks = std::mem::take(&mut *self.tasks());
        while tasks.join_next().await.is_some() {}
    }

    fn tasks(&self) -> MutexGuard<'_, JoinSet<()>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
