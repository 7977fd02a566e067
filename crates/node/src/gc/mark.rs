//! Mark: what is reachable, read from the truth and from nothing else.
//!
//! Logs and packs are read from the store, manifests are checked against their checksum and name.
//! What is damaged stops the collection: nothing is deleted on the word of a log that can't be
//! read.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use ballast_format::hash::{PackHash, Sha256, ShardHash, XorbHash};
use ballast_format::id::RepoId;
use ballast_format::log::RepoChange;
use ballast_format::manifest::{ManifestId, Term};
use ballast_store::keyspace::{CopyKind, CopyName, Key, Leased, LogId};
use ballast_store::pin::pins;
use ballast_store::reflog::Tail;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use crate::broken::{Step, is_left_out};
use crate::error::Result;
use crate::hub::Hub;
use crate::pace::Pace;
use crate::state::catalogue::CatalogueState;
use crate::state::ledger::Damage;
use crate::state::rows;

/// Repos whose logs are read at the same time.
const REPOS_AT_ONCE: usize = 16;
/// Packs and manifests of one repo that are read at the same time.
const READ_AT_ONCE: usize = 4;
/// Pins count so much longer than they say, as clocks differ.
const CLOCK_MARGIN_MS: u64 = 24 * 60 * 60 * 1000;

/// More than a xorb has: a client may refer to any of its chunks.
const ALL: u64 = u64::MAX;

/// What something refers to.
#[derive(Debug, Default)]
pub(super) struct Marked {
    /// With the bytes of the terms that name it: what is alive is no more than these.
    xorbs: HashMap<XorbHash, u64>,
    shards: HashSet<ShardHash>,
    packs: HashSet<PackHash>,
}

impl Marked {
    /// Whether something refers to what this copy holds.
    pub(super) fn holds(&self, copy: &CopyName) -> bool {
        match copy.kind {
            CopyKind::Xorb => self.live(&XorbHash::from_bytes(copy.hash)).is_some(),
            CopyKind::Shard => self.shards.contains(&ShardHash::from_bytes(copy.hash)),
            CopyKind::Pack => self.packs.contains(&PackHash::from_bytes(copy.hash)),
        }
    }
}

impl Marked {
    /// How many bytes of a xorb are alive, uncompressed; no more than these.
    pub(super) fn live(&self, xorb: &XorbHash) -> Option<u64> {
        self.xorbs.get(xorb).copied()
    }

    fn add(&mut self, term: &Term, bytes: u64) {
        let live = self.xorbs.entry(term.xorb).or_default();
        *live = live.saturating_add(bytes);
    }
}

/// What several readers mark together: it grows as they read, and they keep nothing.
struct Marking {
    marked: Mutex<Marked>,
    /// They have one together.
    pace: Pace,
}

impl Marking {
    fn marked(&self) -> MutexGuard<'_, Marked> {
        self.marked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Hub {
    /// Everything that is reachable at this moment.
    pub(super) async fn mark(&self) -> Result<Marked> {
        let marking = Marking { marked: Mutex::default(), pace: self.settings().gc.pace() };
        self.catalogue.look(self, Damage::Stops).await?;
        let repos = self.catalogue.read(CatalogueState::repo_ids);
        stream::iter(repos)
            .map(|repo| self.mark_repo(repo, &marking))
            .buffer_unordered(REPOS_AT_ONCE)
            .try_collect::<()>()
            .await?;
        if !is_left_out(Step::Pins) {
            self.mark_pins(&marking).await?;
        }
        Ok(marking.marked.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    async fn mark_repo(&self, repo: RepoId, marking: &Marking) -> Result<()> {
        match self.try_mark_repo(repo, marking).await {
            // While we slept, it was deleted, and another collector was through with it.
            Err(error) if error.is_corrupt() && self.is_deleted(repo).await? => Ok(()),
            marked => marked,
        }
    }

    /// Whether a repo is deleted by now.
    async fn is_deleted(&self, repo: RepoId) -> Result<bool> {
        self.catalogue.look(self, Damage::Stops).await?;
        Ok(self.catalogue.read(|state| state.by_id(&repo)).is_none())
    }

    async fn try_mark_repo(&self, repo: RepoId, marking: &Marking) -> Result<()> {
        let packs = self.packs_of(repo).await?;
        marking.pace.wait(self.env().as_ref(), packs.len() as u64 * rows::LIKELY_TAIL).await;
        let manifests = self.manifests_of(repo, &packs).await?;
        marking.marked().packs.extend(packs);
        stream::iter(manifests.into_values())
            .map(|id| self.mark_manifest(id, marking, |term| u64::from(term.length)))
            .buffer_unordered(READ_AT_ONCE)
            .try_collect::<()>()
            .await
    }

    /// The packs that a repo's log names, from its first entry on.
    pub(crate) async fn packs_of(&self, repo: RepoId) -> Result<Vec<PackHash>> {
        let log = self.log_of(LogId::Repo(repo));
        let (mut tail, mut packs) = (Tail::EMPTY, Vec::new());
        loop {
            let page = log.read_after::<RepoChange>(&tail).await?;
            let Some(last) = page.last() else { return Ok(packs) };
            tail = last.tail;
            let pack = |change: &RepoChange| match change {
                RepoChange::PackAdded { pack } => Some(*pack),
                _ => None,
            };
            packs.extend(page.iter().flat_map(|stored| &stored.entry.changes).filter_map(pack));
        }
    }

    /// By which manifest a repo with these packs reads each of its large files: the last link
    /// counts. In the same order each time.
    pub(crate) async fn manifests_of(
        &self,
        repo: RepoId,
        packs: &[PackHash],
    ) -> Result<BTreeMap<Sha256, ManifestId>> {
        let mut manifests = BTreeMap::new();
        let mut directories = stream::iter(packs.to_vec())
            .map(|pack| rows::find_pack(self, repo, pack))
            .buffered(READ_AT_ONCE);
        while let Some((_, directory)) = directories.try_next().await? {
            let links = directory.links.iter().filter(|link| link.size > 0);
            manifests.extend(links.map(|link| (link.sha256, link.manifest())));
        }
        Ok(manifests)
    }

    async fn mark_manifest(
        &self,
        id: ManifestId,
        marking: &Marking,
        live: fn(&Term) -> u64,
    ) -> Result<()> {
        let manifest = self.needed_manifest(&id).await?;
        marking.pace.wait(self.env().as_ref(), manifest.memory_bytes() as u64).await;
        let mut marked = marking.marked();
        marked.shards.insert(id.shard);
        manifest.terms.iter().for_each(|term| marked.add(term, live(term)));
        Ok(())
    }

    /// Pins protect what was sent, promised or registered, and is not yet named by a log.
    async fn mark_pins(&self, marking: &Marking) -> Result<()> {
        let now = self.env().now_ms();
        let mut pins = pins(self.store());
        while let Some(pin) = pins.try_next().await? {
            if pin.until_ms.saturating_add(CLOCK_MARGIN_MS) <= now {
                continue;
            }
            match pin.leased {
                Leased::Sent(xorb) | Leased::Told(xorb) => {
                    marking.marked().xorbs.insert(xorb, ALL);
                }
                Leased::Registered(shard) => self.mark_registered(shard, marking).await?,
            }
        }
        Ok(())
    }

    /// What was registered lately may be committed at any moment.
    async fn mark_registered(&self, shard: ShardHash, marking: &Marking) -> Result<()> {
        let copies = self.store().copies(CopyKind::Shard, *shard.as_bytes()).await?;
        let Some(Key::Copy(copy)) = copies.first().map(|listed| listed.key) else {
            // The pin came, and its object did not.
            return Ok(());
        };
        for file in crate::upload::rows::files_of(self, &copy).await? {
            self.mark_manifest(ManifestId { file, shard }, marking, |_| ALL).await?;
        }
        marking.marked().shards.insert(shard);
        Ok(())
    }
}
