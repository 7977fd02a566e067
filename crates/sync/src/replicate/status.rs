//! How far a region is with the repos that it follows.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use ballast_format::id::RepoId;
use ballast_format::name::RegionName;

use super::home::Progress;

/// How far one repo is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RepoStatus {
    /// By which replication it comes, if by any now.
    pub by: Option<RegionName>,
    /// The number of the last entry that the home has.
    pub tail: u64,
    /// The number of the last entry that has arrived.
    pub known: u64,
    /// When the first entry was written that is not here, in unix milliseconds.
    pub behind_since_ms: Option<u64>,
    /// Bytes of chunks that are known to be missing.
    pub missing: u64,
    /// Bytes of chunks that came, since this process began.
    pub fetched: u64,
    /// Bytes of chunks that were here anyhow, since this process began.
    pub saved: u64,
    /// Why it does not go on, if it does not.
    pub problem: Option<String>,
}

impl RepoStatus {
    /// As the home hears it; `now_ms` is the clock.
    pub fn progress(&self, now_ms: u64) -> Progress {
        let behind = self.behind_since_ms.map_or(0, |since| now_ms.saturating_sub(since) / 1000);
        Progress {
            lag_entries: self.tail.saturating_sub(self.known),
            lag_bytes: self.missing,
            lag_seconds: behind,
            fetched: self.fetched,
            saved: self.saved,
        }
    }
}

/// How far everything is that comes from one region.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// The region's own name, once it was heard.
    pub region: Option<RegionName>,
    /// When it was last heard of, in unix milliseconds.
    pub heard_ms: Option<u64>,
    /// Why it can't be asked, if it can't.
    pub problem: Option<String>,
    /// The repos.
    pub repos: BTreeMap<RepoId, RepoStatus>,
}

/// A status that is being written.
#[derive(Debug, Default)]
pub(super) struct Board(Mutex<Status>);

impl Board {
    fn lock(&self) -> MutexGuard<'_, Status> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn status(&self) -> Status {
        self.lock().clone()
    }

    pub(super) fn change(&self, change: impl FnOnce(&mut Status)) {
        change(&mut self.lock());
    }

    /// Notes why a repo does not go on, or that it does.
    pub(super) fn note(&self, id: RepoId, problem: Option<String>) {
        let mut status = self.lock();
        match (status.repos.get_mut(&id), problem) {
            (Some(repo), problem) => repo.problem = problem,
            (None, None) => {}
            (None, problem) => {
                status.repos.insert(id, RepoStatus { problem, ..RepoStatus::default() });
            }
        }
    }

    pub(super) fn change_repo(&self, id: RepoId, change: impl FnOnce(&mut RepoStatus)) {
        change(self.lock().repos.entry(id).or_default());
    }
}
