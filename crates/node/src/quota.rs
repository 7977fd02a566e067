//! How much an owner may have: bytes in the files of their repos, and repos.
//!
//! Quotas are facts of the accounts' log, so that every process knows them (R18). What is used is
//! counted from the index, and only for owners with a quota: all files of all revisions, each
//! once for each repo that has it, as if there were no dedup. A repo's count is kept until its log
//! goes on.
//!
//! It is asked before anything is sent, and again when a commit would become visible; in between
//! lies what a client has sent and not committed, which counts for nobody. In one process commits
//! of one owner are let through one by one, so that two do not both take the last room. What others
//! committed through other processes counts as soon as this one has read it, within a minute.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ballast_format::id::RepoId;
use ballast_format::log::{AccountChange, Owner, Quota, TokenRole};
use ballast_format::name::Namespace;
use ballast_format::object::ObjectKind;
use ballast_store::index::Table;
use ballast_store::index::schema::{self, FileRow, ObjectRow};
use ballast_store::keyspace::LogId;
use quick_cache::sync::Cache;
use tokio::sync::OwnedMutexGuard;

use crate::access::{Caller, Repo};
use crate::account::{check_admin, confirm_admin};
use crate::error::{Error, Result};
use crate::hub::Hub;
use crate::state::catalogue::CatalogueState;
use crate::state::ledger::New;
use crate::state::repo::NewPack;

/// Rows that are read at once.
const ROWS: usize = 1000;
/// Repos whose count is kept; beyond it all are counted again.
const MOST_COUNTS: usize = 100_000;
/// Owners whose commits are known to be waiting for each other.
const KEPT_TURNS: usize = 10_000;

/// What a quota is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// Bytes in files.
    Bytes,
    /// Repos.
    Repos,
}

impl fmt::Display for Measure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bytes => "bytes",
            Self::Repos => "repos",
        })
    }
}

/// What an owner has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes in all files of all revisions of all their repos.
    pub bytes: u64,
    /// Repos.
    pub repos: u64,
}

/// An owner with what they may have and what they have.
#[derive(Clone, Debug)]
pub struct QuotaView {
    /// Their name.
    pub name: Namespace,
    /// Who.
    pub owner: Owner,
    /// What they may have.
    pub quota: Quota,
    /// What they have.
    pub usage: Usage,
}

/// What to change of a quota: absent stays as it is, nothing inside is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QuotaChange {
    /// Of the bytes.
    pub bytes: Option<Option<u64>>,
    /// Of the repos.
    pub repos: Option<Option<u64>>,
}

/// What was counted, and whose turn it is.
pub(crate) struct Quotas {
    counts: Mutex<Counts>,
    turns: Cache<Owner, Arc<tokio::sync::Mutex<()>>>,
}

#[derive(Default)]
struct Counts {
    /// The index that they are of.
    generation: u64,
    /// Drawn for each count that begins, so that one that something happened to is not kept.
    drawn: u64,
    by_repo: HashMap<RepoId, Count>,
}

struct Count {
    number: u64,
    /// Nothing: somebody is counting.
    bytes: Option<u64>,
}

impl Quotas {
    pub(crate) fn new() -> Self {
        Self { counts: Mutex::default(), turns: Cache::new(KEPT_TURNS) }
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The index has more of this log.
    pub(crate) fn went_on(&self, log: &LogId) {
        if let LogId::Repo(id) = log {
            self.counts().by_repo.remove(id);
        }
    }

    /// What is known of a repo, or the number of a count that begins now.
    fn known(&self, id: RepoId, generation: u64) -> std::result::Result<u64, u64> {
        let mut counts = self.counts();
        if counts.generation != generation || counts.by_repo.len() >= MOST_COUNTS {
            counts.by_repo.clear();
            counts.generation = generation;
        }
        if let Some(bytes) = counts.by_repo.get(&id).and_then(|count| count.bytes) {
            return Ok(bytes);
        }
        counts.drawn += 1;
        let number = counts.drawn;
        counts.by_repo.insert(id, Count { number, bytes: None });
        Err(number)
    }

    /// Keeps a count, unless something happened to the repo or its index since it began.
    fn keep(&self, id: RepoId, number: u64, bytes: u64) {
        let mut counts = self.counts();
        if let Some(count) = counts.by_repo.get_mut(&id).filter(|count| count.number == number) {
            count.bytes = Some(bytes);
        }
    }

    async fn turn(&self, owner: Owner) -> OwnedMutexGuard<()> {
        let new = || Ok::<_, std::convert::Infallible>(Arc::default());
        let turn = match self.turns.get_or_insert_with(&owner, new) {
            Ok(turn) => turn,
            Err(never) => match never {},
        };
        turn.lock_owned().await
    }
}

impl Hub {
    /// Changes how much an owner may have; only administrators may. What is there stays, even if it
    /// is more.
    pub async fn set_quota(&self, caller: &Caller, name: &str, change: QuotaChange) -> Result<()> {
        check_admin(caller)?;
        let (_, owner) = self.owner_of_name(name)?;
        self.accounts
            .append(self, New::by(caller.user_id()), |state| {
                confirm_admin(state, caller)?;
                let now = state.quota(&owner);
                let bytes = change.bytes.unwrap_or(now.bytes);
                let quota = Quota { bytes, repos: change.repos.unwrap_or(now.repos) };
                let is_new = quota != now;
                Ok(is_new.then_some(AccountChange::QuotaSet { owner, quota }).into_iter().collect())
            })
            .await
    }

    /// What an owner may have and has. For administrators, for the user, and for members.
    pub async fn quota_of(&self, caller: &Caller, name: &str) -> Result<QuotaView> {
        let by = caller.user()?;
        let found = self.owner_of_name(name);
        let is_theirs = match &found {
            Ok((_, Owner::User(id))) => *id == by.user,
            Ok((_, Owner::Org(id))) => {
                self.accounts.read(|state| state.role(id, &by.user)).is_some()
            }
            Err(_) => false,
        };
        // A token for some repos says nothing about the others.
        let may_all = !matches!(by.role, TokenRole::FineGrained { .. });
        if !(caller.is_admin() || is_theirs && may_all) {
            return Err(Error::denied(format!("you may not see what `{name}` has")));
        }
        let (name, owner) = found?;
        let quota = self.accounts.read(|state| state.quota(&owner));
        let repos = self.catalogue.read(|state| state.count_in(&name)) as u64;
        let usage = Usage { bytes: self.bytes_in(&name).await?, repos };
        Ok(QuotaView { name, owner, quota, usage })
    }

    fn owner_of_name(&self, name: &str) -> Result<(Namespace, Owner)> {
        let missing = || Error::NotFound { what: format!("the user or organisation `{name}`") };
        let parsed = Namespace::parse(name).map_err(|_| missing())?;
        let found =
            self.accounts.read(|state| Some((state.spelled(&parsed)?, state.owner(&parsed)?)));
        found.ok_or_else(missing)
    }

    /// Refuses what is more than the owner of a repo may have. Asked before it is sent.
    pub async fn check_room(&self, repo: &Repo, more: u64) -> Result<()> {
        self.check_room_in(repo.name().namespace(), more).await
    }

    /// The same for what goes to a namespace.
    pub(crate) async fn check_room_in(&self, namespace: &Namespace, more: u64) -> Result<()> {
        let Some((_, limit)) = self.limit_of_bytes(namespace) else { return Ok(()) };
        let used = self.bytes_in(namespace).await?;
        if used.saturating_add(more) <= limit {
            return Ok(());
        }
        Err(exceeded(namespace, Measure::Bytes, (used, more, limit)))
    }

    /// Refuses one more repo than the namespace may have, as the catalogue knows it.
    pub(crate) fn check_one_more_repo(
        &self,
        state: &CatalogueState,
        namespace: &Namespace,
    ) -> Result<()> {
        let quota =
            self.accounts.read(|accounts| Some(accounts.quota(&accounts.owner(namespace)?)));
        let Some(limit) = quota.and_then(|quota| quota.repos) else { return Ok(()) };
        let used = state.count_in(namespace) as u64;
        if used < limit {
            return Ok(());
        }
        Err(exceeded(namespace, Measure::Repos, (used, 1, limit)))
    }

    /// Refuses packs that bring more than the repo's owner may have. Until what is returned is
    /// dropped, nothing else of this owner is let through here.
    pub(crate) async fn take_room(
        &self,
        repo: &Repo,
        packs: &[NewPack],
    ) -> Result<Option<OwnedMutexGuard<()>>> {
        let namespace = repo.name().namespace();
        let Some((owner, _)) = self.limit_of_bytes(namespace) else { return Ok(None) };
        let turn = self.quotas.turn(owner).await;
        let more = self.new_bytes(repo.id(), packs).await?;
        if more > 0 {
            self.check_room_in(namespace, more).await?;
        }
        Ok(Some(turn))
    }

    fn limit_of_bytes(&self, namespace: &Namespace) -> Option<(Owner, u64)> {
        self.accounts.read(|state| {
            let owner = state.owner(namespace)?;
            Some((owner, state.quota(&owner).bytes?))
        })
    }

    /// Bytes in all files of all revisions of all repos of a namespace.
    async fn bytes_in(&self, namespace: &Namespace) -> Result<u64> {
        let mut bytes = 0_u64;
        for id in self.catalogue.read(|state| state.in_namespace(namespace)) {
            bytes = bytes.saturating_add(self.bytes_of(id).await?);
        }
        Ok(bytes)
    }

    /// The same of one repo.
    pub(crate) async fn bytes_of(&self, id: RepoId) -> Result<u64> {
        if !self.index().is_whole() {
            // What it has is not all known yet; a log that is damaged says what it can.
            match self.state_of(id).await {
                Err(error) if !error.is_corrupt() => return Err(error),
                _ => {}
            }
        }
        let number = match self.quotas.known(id, self.index().generation()) {
            Ok(bytes) => return Ok(bytes),
            Err(number) => number,
        };
        let mut bytes = 0_u64;
        for table in [Table::File, Table::Object] {
            let mut after: Option<Vec<u8>> = None;
            loop {
                let rows = self.index().scan(table, id.as_bytes(), after.as_deref(), ROWS).await?;
                for (_, row) in &rows {
                    bytes = bytes.saturating_add(bytes_of_row(table, row)?);
                }
                if rows.len() < ROWS {
                    break;
                }
                after = rows.into_iter().next_back().map(|(key, _)| key);
            }
        }
        self.quotas.keep(id, number, bytes);
        Ok(bytes)
    }

    /// Bytes in those files of these packs that the repo does not have.
    async fn new_bytes(&self, repo: RepoId, packs: &[NewPack]) -> Result<u64> {
        let mut seen = HashSet::new();
        let (mut files, mut objects) = (Vec::new(), Vec::new());
        for directory in packs.iter().map(|pack| &pack.directory) {
            for link in &directory.links {
                files.push((schema::file_key(&repo, &link.sha256), link.size));
            }
            for object in &directory.objects {
                if object.kind == ObjectKind::Blob && object.pointer.is_none() {
                    objects.push((schema::object_key(&repo, &object.id), object.length));
                }
            }
        }
        let mut bytes = 0_u64;
        for (table, items) in [(Table::File, files), (Table::Object, objects)] {
            for items in items.chunks(ROWS) {
                let keys = items.iter().map(|(key, _)| key.clone()).collect();
                let rows = self.index().get_many(table, keys).await?;
                for ((key, size), row) in items.iter().zip(rows) {
                    if row.is_none() && seen.insert(key.clone()) {
                        bytes = bytes.saturating_add(*size);
                    }
                }
            }
        }
        Ok(bytes)
    }
}

/// What a row counts: large files, and blobs that do not stand for one.
fn bytes_of_row(table: Table, row: &[u8]) -> Result<u64> {
    if table == Table::File {
        return Ok(FileRow::decode(row)?.size);
    }
    let row = ObjectRow::decode(row)?;
    let is_file = row.kind == ObjectKind::Blob && row.pointer.is_none();
    Ok(if is_file { row.length } else { 0 })
}

fn exceeded(owner: &Namespace, measure: Measure, (used, more, limit): (u64, u64, u64)) -> Error {
    Error::QuotaExceeded { owner: owner.to_string(), measure, used, more, limit }
}

#[cfg(test)]
mod tests;
