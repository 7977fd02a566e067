//! The way out: name → resolve → reconstruct → ranges.
//!
//! Chunks are hashed the first time they are read after a start, before any byte of them goes out
//! (R4); clients do not check what they get.

use std::pin::Pin;
use std::sync::Arc;

use ballast_format::hash::{FileHash, ObjectHash, XorbHash};
use ballast_format::id::RepoId;
use ballast_format::manifest::Manifest;
use ballast_format::object::Tree;
use ballast_format::xorb::XorbFooter;
use bytes::Bytes;
use futures_util::Stream;
use quick_cache::Weighter;
use quick_cache::sync::Cache;

use crate::error::Result;
use crate::hub::HubSettings;

mod footers;
mod history;
mod objects;
mod reconstruct;
mod resolve;
mod stream;
mod tree;

pub use ballast_store::keyspace::CopyName;
pub use history::{CommitView, PathChange};
pub use reconstruct::{Fetch, Reconstruction};
pub use resolve::Resolved;
pub use tree::{ItemKind, LargeFile, Page, TreeItem};

/// Bytes on their way, piece by piece.
pub type ByteStream = Pin<Box<dyn Stream<Item = Result<Bytes>> + Send>>;

/// Paths whose items are kept.
const KEPT_ITEMS: usize = 50_000;
/// Xorbs whose places are kept.
const KEPT_PLACES: usize = 100_000;
/// Copies whose chunks were found sound since the start.
const KEPT_SOUND: usize = 100_000;

/// What downloads keep in memory, each within a bound.
pub(crate) struct Caches {
    pub(crate) footers: Cache<CopyName, Arc<XorbFooter>, Weigh>,
    pub(crate) manifests: Cache<FileHash, Arc<Manifest>, Weigh>,
    pub(crate) trees: Cache<(RepoId, ObjectHash), Arc<Tree>, Weigh>,
    pub(crate) commits: history::Commits,
    pub(crate) items: Cache<(RepoId, ObjectHash, String), Arc<TreeItem>>,
    pub(crate) places: Cache<XorbHash, CopyName>,
    pub(crate) sound: Cache<CopyName, Arc<footers::Sound>>,
}

/// Weighs what is kept by the memory that it takes.
#[derive(Clone)]
pub(crate) struct Weigh;

impl Weighter<CopyName, Arc<XorbFooter>> for Weigh {
    fn weight(&self, _: &CopyName, footer: &Arc<XorbFooter>) -> u64 {
        footer.memory_bytes() as u64
    }
}

impl Weighter<FileHash, Arc<Manifest>> for Weigh {
    fn weight(&self, _: &FileHash, manifest: &Arc<Manifest>) -> u64 {
        manifest.memory_bytes() as u64
    }
}

impl Weighter<(RepoId, ObjectHash), Arc<Tree>> for Weigh {
    fn weight(&self, _: &(RepoId, ObjectHash), tree: &Arc<Tree>) -> u64 {
        let entry = |entry: &ballast_format::object::TreeEntry| entry.name.len() as u64 + 64;
        64 + tree.entries.iter().map(entry).sum::<u64>()
    }
}

impl Caches {
    pub(crate) fn new(settings: &HubSettings) -> Self {
        let bytes = settings.cache_bytes;
        Self {
            footers: Cache::with_weighter(4096, bytes / 2, Weigh),
            manifests: Cache::with_weighter(4096, bytes / 4, Weigh),
            trees: Cache::with_weighter(4096, bytes / 4, Weigh),
            commits: Cache::new(history::KEPT_COMMITS),
            items: Cache::new(KEPT_ITEMS),
            places: Cache::new(KEPT_PLACES),
            sound: Cache::new(KEPT_SOUND),
        }
    }
}
