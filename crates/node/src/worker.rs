//! Tasks: the only place that spawns, so that each has a name, an owner and an end.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use ballast_store::env::Env;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::hub::Hub;

/// A background job: does a piece of work, again and again.
#[async_trait]
pub trait Worker: Send + Sync + 'static {
    /// What logs call it.
    fn name(&self) -> &'static str;

    /// How long to rest between two pieces.
    fn pause(&self) -> Duration;

    /// One piece of work. It logs what goes wrong itself, and is asked again after the pause.
    async fn work(&self, hub: &Hub);
}

/// Owns every task of the process.
#[derive(Clone, Debug, Default)]
pub struct Runner {
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Runner {
    /// A runner with nothing to do.
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts a task. It should end soon after [`stopping`](Self::stopping) says so.
    pub fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        drop(self.tasks.spawn(task));
        tracing::trace!(task = name, running = self.tasks.len(), "started");
    }

    /// Starts a background job on a hub; it ends when the runner stops or the hub is gone.
    pub fn start(&self, hub: &Arc<Hub>, worker: impl Worker) {
        let (hub, stop) = (Arc::downgrade(hub), self.stop.clone());
        let env = hub.upgrade().map(|hub| Arc::clone(hub.env()));
        let Some(env) = env else { return };
        self.spawn(worker.name(), async move {
            loop {
                tokio::select! {
                    biased;
                    () = stop.cancelled() => return,
                    () = env.sleep(worker.pause()) => {}
                }
                let Some(hub) = hub.upgrade() else { return };
                worker.work(&hub).await;
            }
        });
    }

    /// Resolves when tasks should come to an end.
    pub fn stopping(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Asks all tasks to end and waits until they have, or so long; whether they have.
    pub async fn stop(&self, env: &dyn Env, patience: Duration) -> bool {
        self.stop.cancel();
        self.tasks.close();
        tokio::select! {
            biased;
            () = self.tasks.wait() => true,
            () = env.sleep(patience) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use ballast_testkit::clock::SimEnv;

    use super::*;

    #[tokio::test]
    async fn stopping_waits_for_tasks_that_end_when_asked() {
        let (runner, env) = (Runner::new(), SimEnv::new(1));
        let (stopping, (sent, mut received)) = (runner.stopping(), tokio::sync::mpsc::channel(1));
        runner.spawn("polite", async move {
            stopping.cancelled().await;
            sent.send(()).await.expect("somebody listens");
        });
        assert!(runner.stop(env.as_ref(), Duration::from_secs(1)).await);
        assert!(received.recv().await.is_some());
    }

    #[tokio::test]
    async fn stopping_gives_up_on_tasks_that_never_end() {
        let (runner, env) = (Runner::new(), SimEnv::hasty(1));
        runner.spawn("stubborn", std::future::pending());
        assert!(!runner.stop(env.as_ref(), Duration::from_secs(1)).await);
    }
}
