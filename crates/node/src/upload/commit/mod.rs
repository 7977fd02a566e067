//! Commits: operations on paths, written as packs, and visible with one log entry.
//!
//! Contents and trees are durable before the entry names them (Invariant 5); until then nobody
//! finds any of it (Invariant 11). Of several commits on one parent the log lets one through (R3).

mod attributes;
mod draft;
mod files;
mod folder;
mod import;
mod judge;
mod large;
mod preupload;
mod spool;
mod squash;
#[cfg(test)]
mod tests;
mod write;

use std::sync::Arc;

use ballast_format::id::RepoId;
use tokio::sync::{Mutex, MutexGuard, Semaphore};

pub use draft::{CommitHeader, Committed, Draft};
pub use files::StoredFile;
pub use import::{Import, UpstreamFacts};
pub use preupload::{Asked, Verdict};

/// What the first commit of a repo holds.
const ATTRIBUTES_PATH: &str = ".gitattributes";

/// Regular files may have so many bytes; what is larger is a large file.
pub const MAX_REGULAR_BYTES: u64 = 10 << 20;

/// Memory in which all drafts together hold contents before these are written, in KiB. A draft that
/// finds none left writes earlier.
const BUFFER_KIB: usize = 64 << 10;
const TURNS: usize = 64;

/// What commits of this process share. Nothing is right only because of it: it saves memory, and
/// work that would be thrown away.
pub(crate) struct Commits {
    buffers: Arc<Semaphore>,
    turns: Box<[Mutex<()>]>,
}

impl Commits {
    pub(crate) fn new() -> Self {
        let turns = (0..TURNS).map(|_| Mutex::new(())).collect();
        Self { buffers: Arc::new(Semaphore::new(BUFFER_KIB)), turns }
    }

    /// Who commits to the same repo waits here, instead of writing a pack for nothing. First come,
    /// first served.
    async fn turn(&self, repo: RepoId) -> MutexGuard<'_, ()> {
        let place = usize::from(repo.as_bytes()[0]) % TURNS;
        self.turns[place].lock().await
    }
}
