//! The logs of a hub that is copied: read first, up to an entry each, and written last.

use std::collections::{HashMap, HashSet};

use ballast_format::hash::{EntryHash, PackHash};
use ballast_format::id::RepoId;
use ballast_format::log::{AccountChange, AuditChange, CatalogueChange, Change, RepoChange};
use ballast_format::manifest::ManifestId;
use ballast_format::pack::FileLink;
use ballast_store::keyspace::{Key, LogId, Prefix};
use ballast_store::objects::Store;
use ballast_store::reflog::{Log, Stored, Tail};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::{Copied, put_same};
use crate::error::{Error, Result};
use crate::hub::Hub;
use crate::state::catalogue::CatalogueState;
use crate::state::ledger::Damage;
use crate::state::rows;

/// Logs that are read or written at the same time.
const AT_ONCE: usize = 8;

/// The logs as they were at one moment, and what they lead to.
pub(super) struct Snapshot {
    catalogue: Until,
    accounts: Until,
    audit: Until,
    /// The living repos.
    pub(super) repos: Vec<(RepoId, Until)>,
    pub(super) packs: HashSet<PackHash>,
    pub(super) manifests: HashSet<ManifestId>,
}

/// How far a log was read.
#[derive(Clone, Copy)]
pub(super) struct Until {
    tail: Tail,
    /// Whether what comes behind is damaged.
    is_cut: bool,
}

impl Until {
    fn end(tail: Tail) -> Self {
        Self { tail, is_cut: false }
    }
}

/// What a repo's log leads to.
struct OfRepo {
    until: Until,
    packs: Vec<PackHash>,
    manifests: Vec<ManifestId>,
    unsound: Vec<String>,
}

impl Hub {
    /// Reads all logs. What a log refers to in another is read after it: owners and authors last.
    pub(super) async fn snapshot(&self, copied: &mut Copied) -> Result<Snapshot> {
        self.audit.look(self, Damage::Stops).await?;
        let audit = Until::end(self.audit.tail());
        self.catalogue.look(self, Damage::Stops).await?;
        let mut snapshot = Snapshot {
            catalogue: Until::end(self.catalogue.tail()),
            accounts: Until::end(Tail::EMPTY),
            audit,
            repos: Vec::new(),
            packs: HashSet::new(),
            manifests: HashSet::new(),
        };
        let repos = self.catalogue.read(CatalogueState::repo_ids);
        let read = |id| async move { Ok::<_, Error>((id, self.read_repo(id).await?)) };
        let mut read = stream::iter(repos).map(read).buffer_unordered(AT_ONCE);
        while let Some((id, of_repo)) = read.try_next().await? {
            snapshot.repos.push((id, of_repo.until));
            snapshot.packs.extend(of_repo.packs);
            snapshot.manifests.extend(of_repo.manifests);
            copied.unsound.extend(of_repo.unsound);
        }
        drop(read);
        self.accounts.look(self, Damage::Stops).await?;
        snapshot.accounts = Until::end(self.accounts.tail());
        Ok(snapshot)
    }

    async fn read_repo(&self, repo: RepoId) -> Result<OfRepo> {
        let log = self.log_of(LogId::Repo(repo));
        let until = Until::end(Tail::EMPTY);
        let (packs, manifests, unsound) = (Vec::new(), Vec::new(), Vec::new());
        let mut found = OfRepo { until, packs, manifests, unsound };
        loop {
            let page = match log.read_after::<RepoChange>(&found.until.tail).await {
                Ok(page) => page,
                Err(error) if error.kind() == ballast_format::ErrorKind::Corrupt => {
                    found.unsound.push(error.to_string());
                    found.until.is_cut = true;
                    // Those in front of the damage, one by one.
                    follower(&log, &found.until.tail).await.into_iter().collect()
                }
                Err(error) => return Err(error.into()),
            };
            let Some(last) = page.last() else { break };
            found.until.tail = last.tail;
            for change in page.iter().flat_map(|stored| &stored.entry.changes) {
                if let RepoChange::PackAdded { pack } = change {
                    found.packs.push(*pack);
                }
            }
        }
        for pack in &found.packs {
            match rows::find_pack(self, repo, *pack).await {
                Ok((_, directory)) => {
                    let links = directory.links.iter().filter(|link| link.size > 0);
                    found.manifests.extend(links.map(FileLink::manifest));
                }
                Err(error) if error.is_corrupt() => found.unsound.push(error.to_string()),
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }

    /// Writes the logs, those last that name the others.
    pub(super) async fn copy_logs(
        &self,
        to: &Store,
        snapshot: &Snapshot,
        copied: &mut Copied,
    ) -> Result<()> {
        let known = newest_entries(to).await?;
        let known_of = |id: LogId| known.get(&id).copied().unwrap_or(0);
        let mut repos = stream::iter(snapshot.repos.iter().copied())
            .map(|(id, until)| {
                let id = LogId::Repo(id);
                self.copy_log::<RepoChange>(to, id, until, known_of(id))
            })
            .buffer_unordered(AT_ONCE);
        while let Some(entries) = repos.try_next().await? {
            copied.entries += entries;
        }
        drop(repos);
        let (id, until) = (LogId::Accounts, snapshot.accounts);
        copied.entries += self.copy_log::<AccountChange>(to, id, until, known_of(id)).await?;
        let (id, until) = (LogId::Catalogue, snapshot.catalogue);
        copied.entries += self.copy_log::<CatalogueChange>(to, id, until, known_of(id)).await?;
        let (id, until) = (LogId::Audit, snapshot.audit);
        copied.entries += self.copy_log::<AuditChange>(to, id, until, known_of(id)).await?;
        Ok(())
    }

    /// Copies what is new of a log; how many entries that is. `known`: the newest that is there.
    async fn copy_log<C: Change>(
        &self,
        to: &Store,
        id: LogId,
        until: Until,
        known: u64,
    ) -> Result<u64> {
        let log = self.log_of(id);
        let last = until.tail.number;
        if known > last && until.is_cut {
            // The copy was made before the damage.
            return Ok(0);
        }
        // From the newest that both have: if that differs, so does the history.
        let mut previous: Option<EntryHash> = None;
        for number in known.clamp(1, last.max(1))..=last {
            let key = log.key(number);
            let gone = || Error::corrupt(format!("`{key}` is gone"));
            let stored = log.read::<C>(number).await?.ok_or_else(gone)?;
            if previous.is_some_and(|previous| previous != stored.entry.previous) {
                return Err(Error::corrupt(format!("`{key}` does not follow the one before it")));
            }
            previous = Some(stored.tail.hash);
            put_same(to, &key, stored.bytes).await?;
        }
        if previous.is_some_and(|hash| hash != until.tail.hash) {
            return Err(Error::corrupt(format!("`{}` changes", Key::LogEntry(id, last))));
        }
        if known > last {
            return Err(Error::Conflict {
                reason: format!(
                    "the destination has more of `{id}` than the hub: it went its own way; use \
                     another place"
                ),
            });
        }
        Ok(last - known)
    }
}

/// The entry behind a tail, if it is sound.
async fn follower(log: &Log, tail: &Tail) -> Option<Stored<RepoChange>> {
    let stored = log.read::<RepoChange>(tail.number + 1).await.ok()??;
    (stored.entry.previous == tail.hash).then_some(stored)
}

/// The number of the newest entry of each log in a store, as a listing has it.
async fn newest_entries(store: &Store) -> Result<HashMap<LogId, u64>> {
    let mut newest: HashMap<LogId, u64> = HashMap::new();
    let mut listed = store.list(&Prefix::Logs);
    while let Some(listed) = listed.try_next().await? {
        if let Key::LogEntry(id, number) = listed.key {
            let known = newest.entry(id).or_default();
            *known = number.max(*known);
        }
    }
    Ok(newest)
}
