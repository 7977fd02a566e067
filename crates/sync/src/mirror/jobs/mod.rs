//! Jobs: repos that are brought from the upstream whole, and again when they have changed.
//!
//! What a job is lies in the store, so that every process of a hub knows it and a crash loses
//! nothing. A job runs until all that it names is here; what came before a failure is not fetched
//! again.

mod live;
mod members;
mod plan;
mod run;
mod spec;
mod store;
#[cfg(test)]
mod tests;
mod worker;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ballast_format::id::{JobId, OperationId, TokenId, UserId};
use ballast_format::log::TokenRole;
use ballast_format::mirror_job::{JobClaim, JobRun, MirrorJob};
use ballast_node::access::{Caller, UserCaller};
use ballast_node::error::{Error, Result};
use ballast_node::hub::Hub;
use ballast_store::env::random_bytes;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use self::live::Live;
use super::pull::Mirror;
use super::upstream::{self, Patience, Upstream};

pub use self::live::Progress;
pub use self::members::{Member, members_of_set};
pub use self::plan::RepoPlan;
pub use self::run::{Event, Hear};
pub use self::spec::{Wish, address_of};
pub use self::store::StoredJob;
pub use self::worker::{JobWorker, SweepJobs};

/// How long a claim keeps others from running a job; a run that lasts longer claims it anew.
const CLAIM_MS: u64 = 5 * 60 * 1000;
/// When a run that lasts claims its job anew.
const RENEW: Duration = Duration::from_mins(2);
/// How long after a run that was not complete the next one begins.
const RETRY_MS: u64 = 60 * 1000;

/// What came of the wish to run a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ran {
    /// It ran to its end.
    Ended(JobRun),
    /// Somebody else is running it, or has removed it.
    Elsewhere,
    /// It was told to stop; what came stays.
    Stopped,
}

/// The jobs of a hub.
pub struct Jobs {
    mirror: Arc<Mirror>,
    patient: Upstream,
    running: Mutex<HashMap<JobId, Live>>,
}

impl Jobs {
    /// Jobs that bring what this mirror's upstream has.
    pub fn new(mirror: Arc<Mirror>) -> Arc<Self> {
        let patient = mirror.upstream().with_patience(Patience::JOB);
        Arc::new(Self { mirror, patient, running: Mutex::default() })
    }

    /// All jobs.
    pub async fn list(&self, hub: &Hub) -> Result<Vec<StoredJob>> {
        store::all(hub).await
    }

    /// How far the runs of this process are.
    pub fn progress(&self, job: JobId) -> Option<Progress> {
        self.running().get(&job).map(Live::progress)
    }

    /// What a job would bring, repo by repo, as fast as they are taken.
    pub async fn plan(
        &self,
        hub: &Arc<Hub>,
        wish: &Wish,
        plans: mpsc::Sender<RepoPlan>,
    ) -> Result<()> {
        let job = wish.to_job(hub.env().now_ms())?;
        for there in plan::targets(self.mirror.upstream(), &job).await? {
            let plan = plan::plan_repo(hub, self.mirror.upstream(), &job, &there).await?;
            if plans.send(plan).await.is_err() {
                break;
            }
        }
        Ok(())
    }

    /// Adds a job; the hub runs it soon.
    pub async fn add(&self, hub: &Hub, wish: &Wish) -> Result<StoredJob> {
        store::add(hub, wish.to_job(hub.env().now_ms())?).await
    }

    /// Removes a job; what it has brought stays.
    pub async fn remove(&self, hub: &Hub, id: JobId) -> Result<()> {
        let job = self.find(hub, id).await?;
        let remove = |job: &mut MirrorJob| {
            job.is_removed = true;
            true
        };
        store::change(hub, &job, remove).await.map(drop)
    }

    /// A job by its id.
    pub async fn find(&self, hub: &Hub, id: JobId) -> Result<StoredJob> {
        let found = self.list(hub).await?.into_iter().find(|stored| stored.id == id);
        found.ok_or_else(|| Error::NotFound { what: format!("the mirror job `{id}`") })
    }

    /// Runs a job to its end, unless somebody else is running it or it is told to stop.
    pub async fn run(
        &self,
        hub: &Arc<Hub>,
        stored: &StoredJob,
        stop: &CancellationToken,
        hear: Hear<'_>,
    ) -> Result<Ran> {
        let run = OperationId::from_bytes(random_bytes(hub.env().as_ref()));
        let Some(mut claimed) = claim(hub, stored, run).await? else { return Ok(Ran::Elsewhere) };
        let live = Live::new(hub.env());
        self.running().insert(stored.id, live.clone());
        let _entered = Entered { jobs: self, id: stored.id };
        let job = claimed.job.clone();
        let mut work = Box::pin(self.run_once(hub, &job, &live, hear));
        let ended = loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break None,
                ended = &mut work => break Some(ended),
                () = hub.env().sleep(RENEW) => {}
            }
            match claim(hub, &claimed, run).await {
                Ok(Some(renewed)) => claimed = renewed,
                Ok(None) => return Ok(Ran::Elsewhere),
                Err(error) => tracing::debug!(%error, "a claim could not be renewed"),
            }
        };
        drop(work);
        let note = |job: &mut MirrorJob| {
            if job.claim.is_some_and(|claim| claim.run == run) {
                job.claim = None;
            }
            if ended.is_some() {
                job.last.clone_from(&ended);
            }
            true
        };
        store::change(hub, &claimed, note).await?;
        Ok(ended.map_or(Ran::Stopped, Ran::Ended))
    }

    fn running(&self) -> MutexGuard<'_, HashMap<JobId, Live>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes the note of a run away, however it ends.
struct Entered<'a> {
    jobs: &'a Jobs,
    id: JobId,
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        self.jobs.running().remove(&self.id);
    }
}

/// Claims a job for a run; nothing if another has it, or it was removed.
async fn claim(hub: &Hub, stored: &StoredJob, run: OperationId) -> Result<Option<StoredJob>> {
    let now = hub.env().now_ms();
    let take = |job: &mut MirrorJob| {
        let is_taken = job.claim.is_some_and(|c| c.run != run && c.until_ms > now);
        job.claim = Some(JobClaim { run, until_ms: now + CLAIM_MS });
        !is_taken
    };
    store::change(hub, stored, take).await
}

/// Whether a job is to be run now.
fn is_due(job: &MirrorJob, now_ms: u64) -> bool {
    if job.is_removed || job.claim.is_some_and(|claim| claim.until_ms > now_ms) {
        return false;
    }
    match &job.last {
        None => true,
        Some(last) if !last.is_complete => now_ms >= last.ended_ms.saturating_add(RETRY_MS),
        Some(_) if job.every_seconds == 0 => false,
        Some(last) => {
            now_ms >= last.ended_ms.saturating_add(job.every_seconds.saturating_mul(1000))
        }
    }
}

/// A caller who may read every mirror: jobs work for the hub itself.
fn administrator() -> Caller {
    Caller::User(Arc::new(UserCaller {
        user: UserId::from_bytes([0; 16]),
        name: "mirror".to_owned(),
        admin: true,
        token: TokenId::from_bytes([0; 16]),
        role: TokenRole::Write,
        expires_ms: None,
    }))
}

/// A failure of the upstream, as a run takes it: a few pass, others do not.
fn again(error: upstream::Error) -> Error {
    match error {
        upstream::Error::RateLimited { retry_after } => {
            Error::Upstream { reason: error.to_string(), retry_seconds: retry_after.as_secs() }
        }
        error if error.may_pass() => {
            Error::Upstream { reason: error.to_string(), retry_seconds: 5 }
        }
        other => Error::denied(other.to_string()),
    }
}
