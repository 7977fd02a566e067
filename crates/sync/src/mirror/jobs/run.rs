//! A run of a job: each repo planned, its revision brought, then its files.
//!
//! A failure of one file or repo does not keep the others from coming. What came stays, so that the
//! next run goes on where this one ended, in the middle of a file too.

use std::sync::Arc;
use std::time::Duration;

use ballast_format::hash::ObjectHash;
use ballast_format::mirror_job::{JobRun, MirrorJob};
use ballast_node::access::Repo;
use ballast_node::error::{Error, Result};
use ballast_node::hub::Hub;
use ballast_node::origin::Wanted;
use futures_util::{StreamExt as _, stream};

use super::live::Live;
use super::plan::{RepoPlan, here, plan_repo, targets};
use super::spec::Selection;
use super::{Jobs, administrator};
use crate::mirror::{rules, upstream};

/// Files of one repo that are brought at the same time.
const FILES_AT_ONCE: usize = 4;
/// How often one thing is tried in one run, with all waits together some minutes.
const TRIES: u32 = 12;
/// How long to wait for a hub that has too much to do.
const BUSY_WAIT: Duration = Duration::from_secs(5);
/// The longest wait between two tries.
const LONGEST_WAIT: Duration = Duration::from_mins(1);
/// The longest list of what went wrong.
const MAX_MESSAGE: usize = 2000;

/// What a run tells while it goes on.
#[derive(Clone, Debug)]
pub enum Event {
    /// What will be brought of a repo.
    Planned(RepoPlan),
    /// A file is here.
    File {
        /// The repo.
        repo: String,
        /// The file.
        path: String,
        /// Its size in bytes.
        bytes: u64,
    },
    /// A file does not come: a rule of the policy denies it.
    Refused {
        /// The repo.
        repo: String,
        /// The file.
        path: String,
        /// Which rule, and why.
        reason: String,
    },
    /// A repo is here, with all files that may come.
    Repo {
        /// The repo.
        repo: String,
    },
    /// Something could not be brought.
    Failed {
        /// The repo, and the file if it is one.
        what: String,
        /// Why.
        reason: String,
    },
}

/// Whoever wants to know; it must not wait.
pub type Hear<'a> = &'a (dyn Fn(Event) + Send + Sync);

/// What came of a run so far.
#[derive(Default)]
struct Sum {
    repos: u64,
    files: u64,
    failures: Vec<String>,
}

impl Sum {
    fn fail(&mut self, hear: Hear<'_>, what: String, error: &Error) {
        let reason = error.to_string();
        self.failures.push(format!("`{what}`: {reason}"));
        hear(Event::Failed { what, reason });
    }
}

impl Jobs {
    /// Runs a job once, to its end.
    pub(super) async fn run_once(
        &self,
        hub: &Arc<Hub>,
        job: &MirrorJob,
        live: &Live,
        hear: Hear<'_>,
    ) -> JobRun {
        let mut sum = Sum::default();
        match self.targets_of(hub, job).await {
            Ok(repos) if repos.is_empty() => {
                let none = Error::invalid("the pattern stands for no repo");
                sum.fail(hear, super::address_of(job), &none);
            }
            Ok(repos) => {
                for there in repos {
                    sum.repos += 1;
                    if let Err(error) = self.run_repo(hub, job, &there, live, hear, &mut sum).await
                    {
                        sum.fail(hear, there.to_string(), &error);
                    }
                }
            }
            Err(error) => sum.fail(hear, super::address_of(job), &error),
        }
        let message = sum.failures.join("; ");
        JobRun {
            ended_ms: hub.env().now_ms(),
            is_complete: sum.failures.is_empty(),
            repos: sum.repos,
            files: sum.files,
            fetched_bytes: live.fetched_bytes(),
            message: message.chars().take(MAX_MESSAGE).collect(),
        }
    }

    async fn run_repo(
        &self,
        hub: &Arc<Hub>,
        job: &MirrorJob,
        there: &upstream::Repo,
        live: &Live,
        hear: Hear<'_>,
        sum: &mut Sum,
    ) -> Result<()> {
        let mut again = Again::new(hub);
        let plan = loop {
            match plan_repo(hub, &self.patient, job, there).await {
                Ok(plan) => break plan,
                Err(error) => again.rest(error).await?,
            }
        };
        live.plan(&plan);
        hear(Event::Planned(plan));
        let mut again = Again::new(hub);
        let (repo, commit) = loop {
            match self.revision_of(hub, job, there).await {
                Ok(found) => break found,
                Err(error) => again.rest(error).await?,
            }
        };
        let selection = Selection::of(job)?;
        let items = hub.siblings(&repo, commit).await?;
        let chosen: Vec<_> = items.iter().filter(|item| selection.has(&item.path)).collect();
        sum.files += chosen.len() as u64;
        let wanted = chosen.iter().filter_map(|item| Wanted::of(item));
        let mut allowed = Vec::new();
        for wanted in wanted {
            match rules::may_fetch(hub, &repo, &wanted) {
                Ok(()) => allowed.push(wanted),
                Err(error) => {
                    let (repo, path) = (there.to_string(), wanted.path);
                    hear(Event::Refused { repo, path, reason: error.to_string() });
                }
            }
        }
        // Made one by one: they begin when their turn comes.
        let mut files = Vec::with_capacity(allowed.len());
        for wanted in allowed {
            files.push(self.bring(hub, &repo, wanted, live));
        }
        let mut coming = stream::iter(files).buffer_unordered(FILES_AT_ONCE);
        let mut whole = true;
        while let Some((wanted, brought)) = coming.next().await {
            let (path, bytes) = (wanted.path, wanted.size);
            match brought {
                Ok(()) => hear(Event::File { repo: there.to_string(), path, bytes }),
                Err(error) => {
                    whole = false;
                    sum.fail(hear, format!("{there}/{path}"), &error);
                }
            }
        }
        if whole {
            hear(Event::Repo { repo: there.to_string() });
        }
        Ok(())
    }

    /// The mirror here, and the commit that the job's revision is, which is here then.
    async fn revision_of(
        &self,
        hub: &Arc<Hub>,
        job: &MirrorJob,
        there: &upstream::Repo,
    ) -> Result<(Repo, ObjectHash)> {
        let repo = self.repo_of(hub, there).await?;
        let commit = hub.resolve(&repo, &job.revision).await?.commit;
        Ok((repo, commit))
    }

    /// The mirror here, made now if there is none.
    async fn repo_of(&self, hub: &Arc<Hub>, there: &upstream::Repo) -> Result<Repo> {
        if let Some(repo) = here(hub, there)? {
            return Ok(repo);
        }
        let found = hub.repo_or_bring(&administrator(), there.kind, &there.name).await;
        found.map_err(|error| match error {
            Error::RepoNotFound => Error::denied(format!(
                "`{there}` cannot be made here: its namespace is somebody's of this hub"
            )),
            other => other,
        })
    }

    async fn bring(
        &self,
        hub: &Arc<Hub>,
        repo: &Repo,
        wanted: Wanted,
        live: &Live,
    ) -> (Wanted, Result<()>) {
        let file = live.file(repo.name(), &wanted);
        let told = |bytes| file.reached(bytes);
        let mut again = Again::new(hub);
        loop {
            let error = match self.mirror.bring_file_telling(hub, repo, &wanted, &told).await {
                Ok(()) => {
                    file.done();
                    return (wanted, Ok(()));
                }
                Err(error) => error,
            };
            if let Err(error) = again.rest(error).await {
                return (wanted, Err(error));
            }
        }
    }

    async fn targets_of(&self, hub: &Hub, job: &MirrorJob) -> Result<Vec<upstream::Repo>> {
        let mut again = Again::new(hub);
        loop {
            match targets(&self.patient, job).await {
                Ok(repos) => return Ok(repos),
                Err(error) => again.rest(error).await?,
            }
        }
    }
}

/// Tries of one thing.
struct Again<'a> {
    hub: &'a Hub,
    tried: u32,
}

impl<'a> Again<'a> {
    fn new(hub: &'a Hub) -> Self {
        Self { hub, tried: 1 }
    }

    /// Waits before the next try; gives the error back if it does not pass, or came too often.
    async fn rest(&mut self, error: Error) -> Result<()> {
        let wait = match &error {
            Error::Upstream { retry_seconds, .. } => Duration::from_secs((*retry_seconds).max(1)),
            Error::Busy { .. } => BUSY_WAIT,
            _ => return Err(error),
        };
        if self.tried == TRIES {
            return Err(error);
        }
        self.tried += 1;
        self.hub.env().sleep(wait.min(LONGEST_WAIT)).await;
        Ok(())
    }
}
