//! The background: scans what commits brought, and goes round all repos for what is missing.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use ballast_format::hash::ObjectHash;
use ballast_format::id::RepoId;

use crate::access::Repo;
use crate::download::TreeItem;
use crate::error::Result;
use crate::hub::Hub;
use crate::worker::Worker;

/// Files that are looked at in one piece of work, so that a stop does not wait.
const FILES_AT_ONCE: usize = 50;
/// How often all repos are looked at.
const ROUND_EVERY: Duration = Duration::from_mins(10);
/// Repos of a round that are looked at in one piece of work.
const REPOS_AT_ONCE: usize = 50;

/// Scans what was not scanned by the rules of today.
#[derive(Default)]
pub(crate) struct ScanWorker {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Files of the commit that is under way.
    files: Vec<(Repo, TreeItem)>,
    /// Repos that this round has yet to look at.
    round: Vec<Repo>,
    /// When the next round may begin, by the monotonic clock.
    next: Duration,
    /// Of each repo, the last commit of `main` that was looked at.
    seen: HashMap<RepoId, ObjectHash>,
}

#[async_trait]
impl Worker for ScanWorker {
    fn name(&self) -> &'static str {
        "scan"
    }

    fn pause(&self) -> Duration {
        Duration::from_millis(500)
    }

    async fn work(&self, hub: &Hub) {
        let Ok(hub) = hub.strong() else { return };
        let stopping = hub.runner().stopping();
        if let Err(error) = self.fill(&hub).await {
            tracing::debug!(%error, "a commit is not scanned yet");
        }
        for _ in 0..FILES_AT_ONCE {
            let Some((repo, item)) = self.with(|state| state.files.pop()) else { return };
            let scanned = tokio::select! {
                biased;
                () = stopping.cancelled() => return,
                scanned = hub.scan(&repo, &item) => scanned,
            };
            match scanned {
                Ok(scan) if scan.status > super::Status::Caution => {
                    let (name, path, status) = (repo.name(), &item.path, scan.status.as_str());
                    let found = scan.summary();
                    tracing::info!(repo = %name, path, status, found, "a file is not safe to load");
                }
                Ok(_) => {}
                Err(error) => {
                    // It is asked for again in a round after the next start, or when it is read.
                    let (name, path) = (repo.name(), &item.path);
                    tracing::debug!(repo = %name, path, %error, "a file could not be scanned");
                }
            }
        }
    }
}

impl ScanWorker {
    fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Finds files to scan, if none are left.
    async fn fill(&self, hub: &Hub) -> Result<()> {
        if self.with(|state| !state.files.is_empty()) {
            return Ok(());
        }
        if let Some((repo, commit)) = hub.scanning.next() {
            return self.add(hub, &repo, commit).await;
        }
        let now = hub.env().monotonic();
        self.with(|state| {
            if state.round.is_empty() && now >= state.next {
                let repos = hub.records(|_| true);
                state.seen.retain(|id, _| repos.iter().any(|record| record.id == *id));
                state.round = repos.into_iter().map(|record| Repo { record }).collect();
                state.next = now + ROUND_EVERY;
            }
        });
        for _ in 0..REPOS_AT_ONCE {
            let Some(repo) = self.with(|state| state.round.pop()) else { return Ok(()) };
            let Some(main) = hub.repo_state(&repo).await?.main() else { continue };
            if self.with(|state| state.seen.insert(repo.id(), main)) == Some(main) {
                continue;
            }
            self.add(hub, &repo, main).await?;
            if self.with(|state| !state.files.is_empty()) {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Adds the files of a commit that were not scanned.
    async fn add(&self, hub: &Hub, repo: &Repo, commit: ObjectHash) -> Result<()> {
        let mut items = hub.siblings(repo, commit).await?;
        let all = items.len();
        items.retain(TreeItem::is_here);
        if items.len() < all {
            // What a mirror has not brought yet is looked at in a later round.
            self.with(|state| state.seen.remove(&repo.id()));
        }
        let known = hub.known_scans(&items).await?;
        let missing = items.into_iter().zip(known).filter(|(_, known)| known.is_none());
        let files: Vec<_> = missing.map(|(item, _)| (repo.clone(), item)).collect();
        self.with(|state| state.files.extend(files));
        Ok(())
    }
}
