//! A repo's state: its refs and pull requests, folded from its log.

use std::collections::BTreeMap;
use std::sync::Arc;

use ballast_format::hash::{ObjectHash, PackHash};
use ballast_format::id::{OperationId, RepoId, UserId};
use ballast_format::log::{Entry, PullRequestStatus, RepoChange};
use ballast_format::name::RefName;
use ballast_format::pack::PackDirectory;
use ballast_store::index::Batch;
use ballast_store::keyspace::{CopyName, LogId};
use quick_cache::sync::Cache;

use super::ledger::{Ledger, State};
use super::rows;
use crate::access::Repo;
use crate::error::{Error, Result};
use crate::hub::Hub;

/// Repos whose state is kept in memory.
const KEPT_REPOS: usize = 4096;

/// A pull request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pull {
    /// Its number; the first is 1.
    pub number: u32,
    /// Its title.
    pub title: String,
    /// What its author says about it.
    pub description: String,
    /// Who opened it.
    pub author: UserId,
    /// Where it stands.
    pub status: PullRequestStatus,
    /// When it was opened, in unix milliseconds.
    pub created_ms: u64,
    /// What was said about it.
    pub comments: Vec<Comment>,
}

/// Something that was said about a pull request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Comment {
    /// Its own name.
    pub id: OperationId,
    /// Who said it.
    pub author: UserId,
    /// What.
    pub text: String,
    /// When, in unix milliseconds.
    pub time_ms: u64,
}

/// A repo's refs and pull requests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RepoState {
    /// Where each ref points.
    pub refs: BTreeMap<RefName, ObjectHash>,
    /// The pull requests.
    pub pulls: BTreeMap<u32, Pull>,
    /// When a ref last moved, in unix milliseconds.
    pub changed_ms: u64,
    /// How many entries its log has.
    pub entries: u64,
}

impl RepoState {
    /// Where `main` is; nothing before the first commit.
    pub fn main(&self) -> Option<ObjectHash> {
        self.refs.get(&RefName::main()).copied()
    }

    /// The number that the next pull request gets.
    pub fn next_pull(&self) -> u32 {
        self.pulls.last_key_value().map_or(1, |(number, _)| number + 1)
    }

    fn apply_change(&mut self, change: &RepoChange, time_ms: u64) {
        match change {
            RepoChange::RefSet { name, new, .. } => {
                self.refs.insert(name.clone(), *new);
                self.changed_ms = time_ms;
            }
            RepoChange::RefDeleted { name, .. } => {
                self.refs.remove(name);
                self.changed_ms = time_ms;
            }
            RepoChange::PackAdded { .. } => {}
            RepoChange::PullRequestOpened { number, title, description, author } => {
                let pull = Pull {
                    number: *number,
                    title: title.clone(),
                    description: description.clone(),
                    author: *author,
                    status: PullRequestStatus::Draft,
                    created_ms: time_ms,
                    comments: Vec::new(),
                };
                self.pulls.insert(*number, pull);
            }
            RepoChange::PullRequestStatus { number, status } => {
                if let Some(pull) = self.pulls.get_mut(number) {
                    pull.status = *status;
                }
            }
            RepoChange::Comment { number, id, author, text } => {
                if let Some(pull) = self.pulls.get_mut(number) {
                    let text = text.clone();
                    pull.comments.push(Comment { id: *id, author: *author, text, time_ms });
                }
            }
        }
    }
}

/// The state behind a pointer: readers take it with them.
#[derive(Default)]
pub(crate) struct Shared(Arc<RepoState>);

impl State for Shared {
    type Change = RepoChange;

    fn apply(&mut self, entry: &Entry<RepoChange>) {
        let state = Arc::make_mut(&mut self.0);
        state.entries += 1;
        for change in &entry.changes {
            state.apply_change(change, entry.time_ms);
        }
    }

    fn packs(changes: &[RepoChange]) -> Vec<PackHash> {
        let pack = |change: &RepoChange| match change {
            RepoChange::PackAdded { pack } => Some(*pack),
            _ => None,
        };
        changes.iter().filter_map(pack).collect()
    }
}

/// The repos whose state is in memory.
pub(crate) struct RepoStates {
    kept: Cache<RepoId, Arc<Ledger<Shared>>>,
}

impl RepoStates {
    pub(crate) fn new() -> Self {
        Self { kept: Cache::new(KEPT_REPOS) }
    }

    fn ledger(&self, hub: &Hub, id: RepoId) -> Arc<Ledger<Shared>> {
        let new = || Ok::<_, Error>(Arc::new(Ledger::new(hub.store(), LogId::Repo(id))));
        let found = self.kept.get_or_insert_with(&id, new);
        found.unwrap_or_else(|_| Arc::new(Ledger::new(hub.store(), LogId::Repo(id))))
    }
}

/// A pack that was written and is not yet named by the log.
#[derive(Clone, Debug)]
pub struct NewPack {
    /// The stored copy.
    pub copy: CopyName,
    /// What is in it.
    pub directory: Arc<PackDirectory>,
}

impl Hub {
    /// A repo's state, as fresh as the settings want it.
    pub async fn repo_state(&self, repo: &Repo) -> Result<Arc<RepoState>> {
        self.state_of(repo.id()).await
    }

    pub(crate) async fn state_of(&self, id: RepoId) -> Result<Arc<RepoState>> {
        let ledger = self.repos.ledger(self, id);
        ledger.refresh(self).await?;
        Ok(ledger.read(|state| Arc::clone(&state.0)))
    }

    /// Appends to a repo's log what the rule says about its newest state; the state afterwards.
    /// The packs must be durable: they and what they hold become the repo's with this entry
    /// (Invariant 5).
    pub async fn append_repo(
        &self,
        repo: &Repo,
        author: Option<UserId>,
        packs: &[NewPack],
        mut rule: impl FnMut(&RepoState) -> Result<Vec<RepoChange>>,
    ) -> Result<Arc<RepoState>> {
        let id = repo.id();
        let mut batch = Batch::new();
        for pack in packs {
            batch.extend(rows::of_pack(self, id, &pack.copy, &pack.directory).await?);
        }
        let ledger = self.repos.ledger(self, id);
        ledger
            .append(self, author, batch, |state| {
                if self.catalogue.read(|catalogue| catalogue.by_id(&id)).is_none() {
                    return Err(Error::RepoNotFound);
                }
                let changes = rule(&state.0)?;
                if changes.is_empty() {
                    return Ok(changes);
                }
                let added = |pack: &NewPack| RepoChange::PackAdded { pack: pack.directory.hash };
                Ok(packs.iter().map(added).chain(changes).collect())
            })
            .await?;
        Ok(ledger.read(|state| Arc::clone(&state.0)))
    }
}

impl Hub {
    /// What follows from a new commit on `main`: the facts by which the repo is found.
    pub(crate) async fn main_moved(self: &Arc<Self>, repo: &Repo) {
        tracing::debug!(repo = %repo.name(), "main moved");
    }
}
