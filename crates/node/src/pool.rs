//! The bounded blocking pool: hashing, chunking and compression of more than one chunk run here.
//!
//! Jobs wait in a queue of the pool's own. Were it a lock that each caller waits for, one that has
//! been handed the lock and is not looked at, because whoever has its future waits for another job,
//! would hold up all others.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use crate::error::{Error, Result};

/// Threads for work that would hold up an async thread, so many at once and no more.
#[derive(Clone, Debug)]
pub struct Pool {
    /// None: there are no threads.
    workers: Option<Arc<Workers>>,
}

type Job = Box<dyn FnOnce() + Send>;

struct Workers {
    threads: usize,
    jobs: Mutex<Jobs>,
}

#[derive(Default)]
struct Jobs {
    /// As many as there are callers who wait, and those who gave up lately.
    waiting: VecDeque<Job>,
    running: usize,
}

impl std::fmt::Debug for Workers {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Workers({})", self.threads)
    }
}

impl Pool {
    /// A pool that runs `threads` jobs at once. With 0 there are no threads: each job runs where it
    /// is asked for. For simulations, which must not depend on when a thread runs.
    pub fn new(threads: usize) -> Self {
        let workers = || Arc::new(Workers { threads, jobs: Mutex::default() });
        Self { workers: (threads > 0).then(workers) }
    }

    /// Runs a job, when those before it have run. A job that was started runs to its end even if
    /// nobody waits for it any more; one that was not is left out then.
    pub async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T> {
        let Some(workers) = &self.workers else {
            return Ok(job());
        };
        let (tell, told) = oneshot::channel();
        workers.add(Box::new(move || {
            if !tell.is_closed() {
                // Whoever asked may have given up meanwhile.
                let _ = tell.send(job());
            }
        }));
        told.await.map_err(|_| Error::internal("a job stopped"))
    }
}

impl Workers {
    fn add(self: &Arc<Self>, job: Job) {
        let mut jobs = self.jobs();
        jobs.waiting.push_back(job);
        if jobs.running == self.threads {
            return;
        }
        jobs.running += 1;
        drop(jobs);
        let workers = Arc::clone(self);
        #[expect(clippy::disallowed_methods, reason = "this is the bounded pool")]
        drop(tokio::task::spawn_blocking(move || workers.work()));
    }

    /// Runs jobs until there are none.
    fn work(&self) {
        while let Some(job) = self.next() {
            // It was said on standard error; whoever waits for the job hears that it stopped.
            let _ = catch_unwind(AssertUnwindSafe(job));
        }
    }

    fn next(&self) -> Option<Job> {
        let mut jobs = self.jobs();
        let job = jobs.waiting.pop_front();
        if job.is_none() {
            jobs.running -= 1;
        }
        job
    }

    fn jobs(&self) -> MutexGuard<'_, Jobs> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;

    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn who_waits_and_is_not_looked_at_holds_nobody_up() -> Result<()> {
        let pool = Pool::new(1);
        let (go, gate) = sync_channel::<()>(1);
        let mut first = Box::pin(pool.run(move || gate.recv().is_ok()));
        assert!(first.as_mut().now_or_never().is_none());
        let mut second = Box::pin(pool.run(|| 2));
        assert!(second.as_mut().now_or_never().is_none());
        let mut given_up = Box::pin(pool.run::<()>(|| panic!("nobody wants it")));
        assert!(given_up.as_mut().now_or_never().is_none());
        drop(given_up);
        let third = pool.run(|| 3);
        go.send(()).expect("the first waits for it");
        assert_eq!(third.await?, 3);
        assert_eq!((first.await?, second.await?), (true, 2));
        Ok(())
    }

    #[tokio::test]
    async fn a_job_that_panics_is_an_error_and_others_go_on() {
        let pool = Pool::new(1);
        assert!(pool.run::<()>(|| panic!("on purpose")).await.is_err());
        assert_eq!(pool.run(|| 1).await.ok(), Some(1));
    }
}
