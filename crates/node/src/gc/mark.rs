//! Mark: what is reachable, read from the truth and from nothing else.
//!
//! Logs and packs are read from the store, manifests are checked against their checksum and name.
//! What is damaged stops the collection: nothing is deleted on the word of a log that can't be
//! read.

use std::collections::HashSet;

use ballast_format::hash::{PackHash, ShardHash, XorbHash};
use ballast_format::id::RepoId;
use ballast_format::log::RepoChange;
use ballast_format::manifest::ManifestId;
use ballast_store::keyspace::{CopyKind, CopyName, Key, Leased, LogId};
use ballast_store::pin::pins;
use ballast_store::reflog::{Log, Tail};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use crate::error::Result;
use crate::hub::Hub;
use crate::state::catalogue::CatalogueState;
use crate::state::ledger::Damage;
use crate::state::rows;

/// Repos whose logs are read at the same time.
const REPOS_AT_ONCE: usize = 16;
/// Pins count so much longer than they say, as clocks differ.
const CLOCK_MARGIN_MS: u64 = 24 * 60 * 60 * 1000;

/// What something refers to.
#[derive(Debug, Default)]
pub(super) struct Marked {
    xorbs: HashSet<XorbHash>,
    shards: HashSet<ShardHash>,
    packs: HashSet<PackHash>,
}

impl Marked {
    /// Whether something refers to what this copy holds.
    pub(super) fn holds(&self, copy: &CopyName) -> bool {
        match copy.kind {
            CopyKind::Xorb => self.xorbs.contains(&XorbHash::from_bytes(copy.hash)),
            CopyKind::Shard => self.shards.contains(&ShardHash::from_bytes(copy.hash)),
            CopyKind::Pack => self.packs.contains(&PackHash::from_bytes(copy.hash)),
        }
    }
}

/// What one repo refers to.
#[derive(Default)]
struct OfRepo {
    packs: Vec<PackHash>,
    manifests: HashSet<ManifestId>,
}

impl Hub {
    /// Everything that is reachable at this moment.
    pub(super) async fn mark(&self) -> Result<Marked> {
        let mut marked = Marked::default();
        self.catalogue.look(self, Damage::Stops).await?;
        let repos = self.catalogue.read(CatalogueState::repo_ids);
        let mut read =
            stream::iter(repos).map(|repo| self.mark_repo(repo)).buffer_unordered(REPOS_AT_ONCE);
        while let Some(of_repo) = read.try_next().await? {
            marked.packs.extend(of_repo.packs);
            for id in of_repo.manifests {
                self.mark_manifest(&id, &mut marked).await?;
            }
        }
        self.mark_pins(&mut marked).await?;
        Ok(marked)
    }

    /// A repo's log, from its first entry on.
    async fn mark_repo(&self, repo: RepoId) -> Result<OfRepo> {
        let log = Log::new(self.store().clone(), LogId::Repo(repo));
        let (mut tail, mut found) = (Tail::EMPTY, OfRepo::default());
        loop {
            let page = log.read_after::<RepoChange>(&tail).await?;
            let Some(last) = page.last() else { break };
            tail = last.tail;
            for change in page.iter().flat_map(|stored| &stored.entry.changes) {
                if let RepoChange::PackAdded { pack } = change {
                    found.packs.push(*pack);
                }
            }
        }
        for pack in &found.packs {
            let (_, directory) = rows::find_pack(self, repo, *pack).await?;
            let links = directory.links.iter().filter(|link| link.size > 0);
            found.manifests.extend(links.map(ballast_format::pack::FileLink::manifest));
        }
        Ok(found)
    }

    async fn mark_manifest(&self, id: &ManifestId, marked: &mut Marked) -> Result<()> {
        let manifest = self.needed_manifest(id).await?;
        marked.shards.insert(id.shard);
        marked.xorbs.extend(manifest.terms.iter().map(|term| term.xorb));
        Ok(())
    }

    /// Pins protect what was sent, promised or registered, and is not yet named by a log.
    async fn mark_pins(&self, marked: &mut Marked) -> Result<()> {
        let now = self.env().now_ms();
        let mut pins = pins(self.store());
        while let Some(pin) = pins.try_next().await? {
            if pin.until_ms.saturating_add(CLOCK_MARGIN_MS) <= now {
                continue;
            }
            match pin.leased {
                Leased::Sent(xorb) | Leased::Told(xorb) => drop(marked.xorbs.insert(xorb)),
                Leased::Registered(shard) => self.mark_registered(shard, marked).await?,
            }
        }
        Ok(())
    }

    /// What was registered lately may be committed at any moment.
    async fn mark_registered(&self, shard: ShardHash, marked: &mut Marked) -> Result<()> {
        let copies = self.store().copies(CopyKind::Shard, *shard.as_bytes()).await?;
        let Some(Key::Copy(copy)) = copies.first().map(|listed| listed.key) else {
            // The pin came, and its object did not.
            return Ok(());
        };
        for file in crate::upload::rows::files_of(self, &copy).await? {
            self.mark_manifest(&ManifestId { file, shard }, marked).await?;
        }
        marked.shards.insert(shard);
        Ok(())
    }
}
