//! The way out: name → resolve → reconstruct → ranges.
//!
//! Chunks are hashed the first time they are read after a start, before any byte of them goes out
//! (R4); clients do not check what they get.

use std::pin::Pin;
use std::sync::Arc;

use ballast_format::hash::{ObjectHash, XorbHash};
use ballast_format::id::RepoId;
use ballast_format::manifest::{Manifest, ManifestId};
use ballast_format::object::{Commit, Tree};
use ballast_format::xorb::XorbFooter;
use bytes::Bytes;
use futures_util::Stream;
use quick_cache::Weighter;
use quick_cache::sync::Cache;

use crate::error::Result;
use crate::hub::HubSettings;

mod compare;
mod copies;
mod diff;
pub(crate) mod flow;
mod footers;
mod history;
mod listing;
mod manifests;
mod objects;
pub(crate) mod piece;
mod reconstruct;
pub(crate) mod resolve;
mod stream;
#[cfg(test)]
mod tests;
mod tree;
pub(crate) mod walk;

pub use ballast_store::keyspace::CopyName;
pub use compare::PathChange;
pub use history::CommitView;
pub use listing::Page;
pub use reconstruct::{Fetch, Reconstruction};
pub use resolve::Resolved;
pub use tree::{Content, ItemKind, LargeFile, TreeItem};

/// Bytes on their way, piece by piece.
pub type ByteStream = Pin<Box<dyn Stream<Item = Result<Bytes>> + Send>>;

/// Commits of which it is kept how many came before them.
const KEPT_COUNTS: usize = 50_000;
/// Xorbs whose places are kept.
const KEPT_PLACES: usize = 100_000;
/// Copies whose chunks were found sound since the start.
const KEPT_SOUND: usize = 100_000;

/// What downloads keep in memory, each within a bound.
pub(crate) struct Caches {
    pub(crate) footers: Cache<CopyName, Arc<XorbFooter>, Weigh>,
    pub(crate) manifests: Cache<ManifestId, Arc<Manifest>, Weigh>,
    pub(crate) large_manifests: manifests::LargeManifests,
    pub(crate) trees: Cache<(RepoId, ObjectHash), Arc<Tree>, Weigh>,
    pub(crate) commits: Cache<(RepoId, ObjectHash), Arc<Commit>, Weigh>,
    pub(crate) items: Cache<tree::ItemKey, Arc<TreeItem>, Weigh>,
    /// How many commits there are from one back.
    pub(crate) counts: Cache<(RepoId, ObjectHash), u64>,
    /// Which commit last touched a path, seen from another.
    pub(crate) touched: Cache<history::Touched, ObjectHash, Weigh>,
    pub(crate) places: Cache<XorbHash, CopyName>,
    pub(crate) sound: Cache<CopyName, Arc<footers::Sound>>,
    pub(crate) decoders: piece::Decoders,
    /// What everything that is on its way out may hold.
    pub(crate) flow: Arc<flow::Flow>,
    /// The same for answers about chunks, which are whole in memory until they are sent.
    pub(crate) answers: Arc<flow::Flow>,
}

/// Weighs what is kept by the memory that it takes.
#[derive(Clone)]
pub(crate) struct Weigh;

impl Weighter<CopyName, Arc<XorbFooter>> for Weigh {
    fn weight(&self, _: &CopyName, footer: &Arc<XorbFooter>) -> u64 {
        footer.memory_bytes() as u64
    }
}

impl Weighter<ManifestId, Arc<Manifest>> for Weigh {
    fn weight(&self, _: &ManifestId, manifest: &Arc<Manifest>) -> u64 {
        manifest.memory_bytes() as u64
    }
}

impl Weighter<(RepoId, ObjectHash), Arc<Tree>> for Weigh {
    fn weight(&self, _: &(RepoId, ObjectHash), tree: &Arc<Tree>) -> u64 {
        let entry = |entry: &ballast_format::object::TreeEntry| entry.name.len() as u64 + 64;
        64 + tree.entries.iter().map(entry).sum::<u64>()
    }
}

impl Weighter<(RepoId, ObjectHash), Arc<Commit>> for Weigh {
    fn weight(&self, _: &(RepoId, ObjectHash), commit: &Arc<Commit>) -> u64 {
        let names = [&commit.author, &commit.committer].map(|who| who.name.len() + who.email.len());
        let text = commit.message.len() + names.iter().sum::<usize>() + 20 * commit.parents.len();
        (size_of::<Commit>() + text + 100) as u64
    }
}

impl Weighter<tree::ItemKey, Arc<TreeItem>> for Weigh {
    fn weight(&self, key: &tree::ItemKey, item: &Arc<TreeItem>) -> u64 {
        key.weight(item)
    }
}

impl Weighter<history::Touched, ObjectHash> for Weigh {
    fn weight(&self, (.., path): &history::Touched, _: &ObjectHash) -> u64 {
        (size_of::<history::Touched>() + path.len() + 50) as u64
    }
}

impl Caches {
    /// A manifest by which some repo read a file is of less use from now on, and may go.
    pub(crate) fn forget_manifest(&self, id: &ManifestId) {
        self.manifests.remove(id);
        self.large_manifests.let_go();
    }

    pub(crate) fn new(settings: &HubSettings) -> Self {
        let bytes = settings.cache_bytes;
        Self {
            footers: Cache::with_weighter(4096, bytes / 2, Weigh),
            manifests: Cache::with_weighter(4096, bytes / 4, Weigh),
            large_manifests: manifests::LargeManifests::new(),
            trees: Cache::with_weighter(4096, bytes / 4, Weigh),
            commits: Cache::with_weighter(4096, bytes / 8, Weigh),
            items: Cache::with_weighter(4096, bytes / 8, Weigh),
            counts: Cache::new(KEPT_COUNTS),
            touched: Cache::with_weighter(4096, bytes / 32, Weigh),
            places: Cache::new(KEPT_PLACES),
            sound: Cache::new(KEPT_SOUND),
            decoders: piece::Decoders::default(),
            flow: flow::Flow::new(),
            answers: flow::Flow::new(),
        }
    }
}
