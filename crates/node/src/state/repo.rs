//! A repo's state: its refs and pull requests, folded from its log.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use ballast_format::hash::{ObjectHash, PackHash};
use ballast_format::id::{OperationId, RepoId, UserId};
use ballast_format::log::{Entry, Head, PullRequestStatus, RepoChange};
use ballast_format::name::RefName;
use ballast_format::pack::PackDirectory;
use ballast_store::index::Batch;
use ballast_store::keyspace::{CopyName, LogId};
use ballast_store::reflog::Tail;
use quick_cache::Weighter;
use quick_cache::sync::Cache;

use super::homing::{Away, Standing};
use super::ledger::{Damage, Ledger, New, State};
use super::rows;
use crate::access::Repo;
use crate::error::{Error, Result};
use crate::hub::Hub;

/// Repos whose state is likely to be kept in memory, and what all of them may take.
const KEPT_REPOS: usize = 16 * 1024;
const KEPT_BYTES: u64 = 24 << 20;
/// What a ledger takes beside its state, and what is around each ref and each text.
const LEDGER_BYTES: usize = 800;
const ROW_BYTES: usize = 100;

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

/// Where a repo's home went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moved {
    /// Where to.
    pub to: Away,
    /// The term of what is written there.
    pub term: u64,
}

/// A repo's refs and pull requests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RepoState {
    /// Where each ref points.
    pub refs: BTreeMap<RefName, ObjectHash>,
    /// The pull requests.
    pub pulls: BTreeMap<u32, Pull>,
    /// When a ref last moved, in unix milliseconds; 0 before the first commit.
    pub changed_ms: u64,
    /// How many entries its log has.
    pub entries: u64,
    /// Where its log says that its home went last.
    pub home: Option<Moved>,
    /// Memory that all of it takes, about.
    bytes: usize,
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

    /// Memory that it takes, about.
    pub fn memory_bytes(&self) -> usize {
        self.bytes
    }

    fn apply_change(&mut self, change: &RepoChange, time_ms: u64) {
        match change {
            RepoChange::RefSet { name, new, .. } => {
                if self.refs.insert(name.clone(), *new).is_none() {
                    self.bytes += ROW_BYTES + name.as_str().len();
                }
                self.changed_ms = time_ms;
            }
            RepoChange::RefDeleted { name, .. } => {
                if self.refs.remove(name).is_some() {
                    self.bytes -= ROW_BYTES + name.as_str().len();
                }
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
                self.bytes += 2 * ROW_BYTES + title.len() + description.len();
                self.pulls.insert(*number, pull);
            }
            RepoChange::PullRequestStatus { number, status } => {
                if let Some(pull) = self.pulls.get_mut(number) {
                    pull.status = *status;
                }
            }
            RepoChange::Comment { number, id, author, text } => {
                if let Some(pull) = self.pulls.get_mut(number) {
                    let comment = Comment { id: *id, author: *author, text: text.clone(), time_ms };
                    pull.comments.push(comment);
                    self.bytes += ROW_BYTES + text.len();
                }
            }
            RepoChange::HomeMoved { home, address, term } => {
                let to = Away { region: home.clone(), address: address.clone() };
                self.home = Some(Moved { to, term: *term });
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

    fn standing(&self, hub: &Hub, id: LogId) -> Standing {
        let LogId::Repo(id) = id else { return Standing::HERE };
        let homing = hub.homing(id);
        match (homing.away, &self.0.home) {
            (Some(away), _) => Standing::Away(away),
            // It was moved, and the catalogue does not know yet.
            (None, Some(moved)) if moved.term > homing.term => Standing::Away(moved.to.clone()),
            (None, _) => Standing::Home { term: homing.term, epoch: homing.epoch },
        }
    }

    fn known(hub: &Hub, id: LogId) -> Head {
        match id {
            LogId::Repo(id) => hub.homing(id).known,
            LogId::Catalogue | LogId::Accounts | LogId::Audit => Head::NOTHING,
        }
    }

    async fn forget(hub: &Hub, id: LogId) -> Result<()> {
        match id {
            LogId::Repo(id) => rows::forget(hub, id).await,
            LogId::Catalogue | LogId::Accounts | LogId::Audit => Ok(()),
        }
    }
}

/// A repo's log with its state.
type RepoLedger = Ledger<Shared>;

/// The repos whose state is in memory.
///
/// A repo has one ledger as long as anybody holds it, whatever the cache does: an append through
/// one would not be seen by readers of another.
pub(crate) struct RepoStates {
    kept: Cache<RepoId, Kept, Weigh>,
    living: Mutex<Living>,
    /// Entries that were read from the store so far.
    learnt: AtomicU64,
}

#[derive(Clone)]
struct Kept {
    ledger: Arc<RepoLedger>,
    bytes: usize,
}

#[derive(Clone)]
struct Weigh;

impl Weighter<RepoId, Kept> for Weigh {
    fn weight(&self, _: &RepoId, kept: &Kept) -> u64 {
        (LEDGER_BYTES + kept.bytes) as u64
    }
}

#[derive(Default)]
struct Living {
    ledgers: HashMap<RepoId, Weak<RepoLedger>>,
    /// At this many those that nobody holds are forgotten.
    sweep_at: usize,
}

impl Living {
    fn get_or_make(&mut self, id: RepoId) -> Arc<RepoLedger> {
        if let Some(ledger) = self.ledgers.get(&id).and_then(Weak::upgrade) {
            return ledger;
        }
        if self.ledgers.len() >= self.sweep_at {
            self.ledgers.retain(|_, ledger| ledger.strong_count() > 0);
            self.sweep_at = 1024.max(2 * self.ledgers.len());
        }
        let ledger = Arc::new(Ledger::new(LogId::Repo(id)));
        self.ledgers.insert(id, Arc::downgrade(&ledger));
        ledger
    }
}

impl RepoStates {
    pub(crate) fn new() -> Self {
        let kept = Cache::with_weighter(KEPT_REPOS, KEPT_BYTES, Weigh);
        Self { kept, living: Mutex::default(), learnt: AtomicU64::new(0) }
    }

    /// How many entries of all logs were read from the store so far.
    pub(crate) fn learnt(&self) -> u64 {
        self.learnt.load(Ordering::Relaxed)
    }

    /// So many more were.
    pub(super) fn learn(&self, entries: usize) {
        self.learnt.fetch_add(entries as u64, Ordering::Relaxed);
    }

    fn ledger(&self, id: RepoId) -> Arc<RepoLedger> {
        if let Some(kept) = self.kept.get(&id) {
            return kept.ledger;
        }
        let mut living = self.living.lock().unwrap_or_else(PoisonError::into_inner);
        let ledger = living.get_or_make(id);
        drop(living);
        self.keep(id, &ledger, 0);
        ledger
    }

    /// Puts a ledger into the cache anew where it has become much larger or smaller.
    fn weigh(&self, id: RepoId, ledger: &Arc<RepoLedger>, state: &RepoState) {
        let bytes = state.memory_bytes();
        let known = self.kept.peek(&id).map_or(0, |kept| kept.bytes);
        if known.abs_diff(bytes) > LEDGER_BYTES {
            self.keep(id, ledger, bytes);
        }
    }

    /// Lets go of a repo, as the cache may at any moment.
    #[cfg(test)]
    pub(super) fn forget(&self, id: RepoId) {
        self.kept.remove(&id);
    }

    fn keep(&self, id: RepoId, ledger: &Arc<RepoLedger>, bytes: usize) {
        let ledger = Arc::clone(ledger);
        self.kept.insert(id, Kept { ledger, bytes });
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
    /// A repo's state, as fresh as the settings want it. A repo that was left without its first
    /// commit gets it now.
    pub async fn repo_state(&self, repo: &Repo) -> Result<Arc<RepoState>> {
        let state = self.state_of(repo.id()).await?;
        if state.changed_ms == 0 {
            return self.complete(repo.clone()).await;
        }
        Ok(state)
    }

    pub(crate) async fn state_of(&self, id: RepoId) -> Result<Arc<RepoState>> {
        let ledger = self.repos.ledger(id);
        ledger.refresh(self).await?;
        Ok(self.look_at(id, &ledger))
    }

    /// A repo's state as it is at this moment, whatever others write.
    pub(crate) async fn newest_state(&self, id: RepoId) -> Result<Arc<RepoState>> {
        let ledger = self.repos.ledger(id);
        ledger.renew(self).await?;
        Ok(self.look_at(id, &ledger))
    }

    /// How far a repo's log is here, and whether it grows here.
    pub(crate) async fn place_of(&self, id: RepoId) -> Result<(Tail, Standing)> {
        let ledger = self.repos.ledger(id);
        ledger.refresh(self).await?;
        Ok((ledger.tail(), ledger.read(|state| state.standing(self, LogId::Repo(id)))))
    }

    /// Reads a repo's log into an empty index, even if packs are damaged.
    pub(crate) async fn restore_state(&self, id: RepoId) -> Result<()> {
        let ledger = self.repos.ledger(id);
        ledger.look(self, Damage::IsReported).await?;
        self.look_at(id, &ledger);
        Ok(())
    }

    /// Makes sure that a repo's log has an entry of this gc epoch or a later one.
    pub(crate) async fn fence_repo(&self, id: RepoId, epoch: u64) -> Result<()> {
        self.repos.ledger(id).fence(self, epoch).await
    }

    fn look_at(&self, id: RepoId, ledger: &Arc<RepoLedger>) -> Arc<RepoState> {
        let state = ledger.read(|state| Arc::clone(&state.0));
        self.repos.weigh(id, ledger, &state);
        state
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
        self.append_packs(repo.id(), author, packs, |state| {
            let changes = rule(state)?;
            Ok((!changes.is_empty()).then_some(changes))
        })
        .await
    }

    /// The same where packs alone are a change: links to large files that the repo has.
    pub(crate) async fn append_packs(
        &self,
        id: RepoId,
        author: Option<UserId>,
        packs: &[NewPack],
        mut rule: impl FnMut(&RepoState) -> Result<Option<Vec<RepoChange>>>,
    ) -> Result<Arc<RepoState>> {
        let mut batch = Batch::new();
        for pack in packs {
            let (copy, directory) = (&pack.copy, &pack.directory);
            batch.extend(rows::of_pack(self, id, copy, directory, Damage::Stops).await?);
        }
        let ledger = self.repos.ledger(id);
        ledger
            .append(self, New { author, rows: batch, packs }, |state| {
                if self.catalogue.read(|catalogue| catalogue.by_id(&id)).is_none() {
                    return Err(Error::RepoNotFound);
                }
                let Some(changes) = rule(&state.0)? else { return Ok(Vec::new()) };
                let added = |pack: &NewPack| RepoChange::PackAdded { pack: pack.directory.hash };
                Ok(packs.iter().map(added).chain(changes).collect())
            })
            .await?;
        Ok(self.look_at(id, &ledger))
    }
}
