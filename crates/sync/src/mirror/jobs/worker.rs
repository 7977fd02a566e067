//! Runs the jobs that are due, and takes away what they leave.

use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use ballast_node::hub::Hub;
use ballast_node::worker::Worker;

use super::{Event, Jobs, Ran, address_of, is_due, store};

/// How often jobs are looked at.
const PAUSE: Duration = Duration::from_secs(15);

/// Runs jobs, one after another.
pub struct JobWorker {
    jobs: Arc<Jobs>,
    hub: Weak<Hub>,
}

impl JobWorker {
    /// A worker for these jobs, of this hub.
    pub fn new(jobs: Arc<Jobs>, hub: &Arc<Hub>) -> Self {
        Self { jobs, hub: Arc::downgrade(hub) }
    }
}

#[async_trait]
impl Worker for JobWorker {
    fn name(&self) -> &'static str {
        "mirror jobs"
    }

    fn pause(&self) -> Duration {
        PAUSE
    }

    async fn work(&self, _: &Hub) {
        let Some(hub) = self.hub.upgrade() else { return };
        let jobs = match store::all(&hub).await {
            Ok(jobs) => jobs,
            Err(error) => {
                tracing::warn!(%error, "mirror jobs could not be read");
                return;
            }
        };
        let stopping = hub.runner().stopping();
        for stored in jobs {
            if !is_due(&stored.job, hub.env().now_ms()) {
                continue;
            }
            let job = address_of(&stored.job);
            tracing::info!(job, "a mirror job begins");
            let hear = |event| {
                if let Event::Failed { what, reason } = event {
                    tracing::info!(what, reason, "a mirror job could not bring it");
                }
            };
            let ran = self.jobs.run(&hub, &stored, &stopping, &hear).await;
            match ran {
                Ok(Ran::Stopped) => return,
                Ok(Ran::Elsewhere) => {}
                Ok(Ran::Ended(run)) => {
                    let (complete, bytes) = (run.is_complete, run.fetched_bytes);
                    tracing::info!(job, complete, bytes, "a mirror job ended");
                }
                Err(error) => tracing::warn!(job, %error, "a mirror job could not run"),
            }
        }
    }
}

/// Takes away versions of jobs that count no more.
#[derive(Clone, Copy, Debug)]
pub struct SweepJobs;

#[async_trait]
impl Worker for SweepJobs {
    fn name(&self) -> &'static str {
        "sweep mirror jobs"
    }

    fn pause(&self) -> Duration {
        Duration::from_hours(6)
    }

    async fn work(&self, hub: &Hub) {
        match store::sweep(hub).await {
            Ok(0) => {}
            Ok(swept) => tracing::debug!(swept, "took away old versions of mirror jobs"),
            Err(error) => tracing::warn!(%error, "old versions of mirror jobs stay for now"),
        }
    }
}
