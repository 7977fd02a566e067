//! What a node keeps: plain files by their SHA-256, and what each is made of.
//!
//! A file is looked up by its SHA-256, or by a xorb of which it has chunks: so a peer can be given
//! what it asks for, and a new file takes from the old ones what they share. A file on its way has
//! all its room from the beginning and is filled out of order. The cache keeps within its cap by
//! taking away what was used longest ago; what is pinned or in use stays.
//!
//! Of a file that nobody uses only its terms are in memory. What else is to be known of it is read
//! when it is opened. Layout on the disk: `docs/formats/cached-file.md`.
//!
//! This fetches nothing, and knows no repos.

mod bits;
mod file;
mod filling;
mod folder;
pub(super) mod permits;
mod reader;
mod source;
mod xorbs;

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use ballast_format::cached_file::CachedHead;
use ballast_format::hash::{Sha256, XorbHash};
use ballast_node::error::{Error, Result};
use ballast_node::pool::Pool;
use ballast_store::env::SharedEnv;

pub use self::bits::Bits;
pub use self::file::{OpenFile, READ_BYTES, Read, Stage, Wants};
pub use self::filling::{Begun, Filling};
use self::folder::{Folder, Found};
use self::permits::Permits;
pub use self::permits::{CheckPermit, Permitted};
pub use self::source::CacheSource;
use self::xorbs::Xorbs;

/// Files that stay open although nobody uses them, as the next request is often for the same.
const KEPT: usize = 4;
/// How much of what these are made of may stay in memory, besides the latest.
const KEPT_BYTES: usize = 8 << 20;
/// How old the time of a file's last use may be on the disk.
const TOUCH_MS: u64 = 60_000;

/// What a cache may be told.
#[derive(Clone, Debug)]
pub struct CacheSettings {
    /// Where it is.
    pub folder: PathBuf,
    /// How many bytes of files it may have.
    pub cap_bytes: u64,
}

/// How full a cache is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fill {
    /// Files.
    pub files: u64,
    /// Bytes that they have, or will have.
    pub bytes: u64,
    /// Bytes that they may have.
    pub cap_bytes: u64,
    /// Files that were taken away to make room, since the start.
    pub evicted: u64,
}

/// A file, as it is listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its SHA-256.
    pub sha256: Sha256,
    /// Its size in bytes.
    pub size: u64,
    /// Whether all of it is here.
    pub is_whole: bool,
    /// Whether it is kept from being evicted.
    pub is_pinned: bool,
    /// When it was last used, in unix milliseconds.
    pub used_ms: u64,
}

/// The cache of a node.
pub struct Cache {
    folder: Arc<Folder>,
    cap_bytes: u64,
    pool: Pool,
    env: SharedEnv,
    state: Mutex<State>,
    /// What is changed on the disk is changed by one at a time.
    turn: tokio::sync::Mutex<()>,
    permits: Permits,
}

#[derive(Default)]
struct State {
    files: HashMap<Sha256, Entry>,
    xorbs: Xorbs,
    bytes: u64,
    evicted: u64,
    generation: u64,
    kept: Vec<Arc<OpenFile>>,
}

struct Entry {
    head: Arc<CachedHead>,
    is_whole: bool,
    is_pinned: bool,
    used_ms: u64,
    touched_ms: u64,
    open: Weak<OpenFile>,
}

impl Cache {
    /// Opens the cache in a folder. `check` tells what a permit allows (`cluster::permit`).
    pub async fn open(
        settings: CacheSettings,
        pool: Pool,
        env: SharedEnv,
        check: CheckPermit,
    ) -> Result<Arc<Self>> {
        let path = settings.folder;
        let opened = move || {
            let folder = Folder::open(&path)?;
            let found = folder.scan()?;
            Ok::<_, Error>((folder, found))
        };
        let (folder, found) = pool.run(opened).await??;
        let mut state = State::default();
        for found in found {
            state.add(found);
        }
        let cache = Self {
            folder: Arc::new(folder),
            cap_bytes: settings.cap_bytes,
            pool,
            env,
            state: Mutex::new(state),
            turn: tokio::sync::Mutex::default(),
            permits: Permits::new(check),
        };
        // The cap may be smaller than it was.
        cache.make_room(0).await?;
        Ok(Arc::new(cache))
    }

    /// How full it is.
    pub fn fill(&self) -> Fill {
        let state = self.state();
        let (files, bytes, evicted) = (state.files.len() as u64, state.bytes, state.evicted);
        Fill { files, bytes, cap_bytes: self.cap_bytes, evicted }
    }

    /// What is in it.
    pub fn list(&self) -> Vec<Listed> {
        let state = self.state();
        let listed = state.files.iter().map(|(sha256, entry)| {
            let Entry { is_whole, is_pinned, used_ms, .. } = *entry;
            Listed { sha256: *sha256, size: entry.head.size, is_whole, is_pinned, used_ms }
        });
        listed.collect()
    }

    /// Grows with each change of [`names`](Self::names).
    pub fn generation(&self) -> u64 {
        self.state().generation
    }

    /// The files that are whole, and the xorbs of which there are chunks.
    pub fn names(&self) -> (HashSet<Sha256>, HashSet<XorbHash>) {
        let state = self.state();
        let whole = state.files.iter().filter(|(_, entry)| entry.is_whole);
        (whole.map(|(sha256, _)| *sha256).collect(), state.xorbs.names().copied().collect())
    }

    /// Whether all of a file is here.
    pub fn is_whole(&self, sha256: &Sha256) -> bool {
        self.state().files.get(sha256).is_some_and(|entry| entry.is_whole)
    }

    /// Where a whole file is on the disk, to be linked or copied; it is in use as long as it is
    /// held.
    pub async fn path_of(&self, sha256: &Sha256) -> Result<Option<(PathBuf, Arc<OpenFile>)>> {
        let open = self.file(sha256).await?.filter(|_| self.is_whole(sha256));
        Ok(open.map(|open| (self.folder.whole(sha256), open)))
    }

    /// A file, to be read; nothing if it is not here, not even in part.
    pub async fn file(&self, sha256: &Sha256) -> Result<Option<Arc<OpenFile>>> {
        if let Some(open) = self.opened(sha256) {
            return Ok(Some(open));
        }
        let _turn = self.turn.lock().await;
        self.load(sha256).await
    }

    /// The same, by whoever has the turn.
    async fn load(&self, sha256: &Sha256) -> Result<Option<Arc<OpenFile>>> {
        if let Some(open) = self.opened(sha256) {
            return Ok(Some(open));
        }
        let Some(is_whole) = self.state().files.get(sha256).map(|entry| entry.is_whole) else {
            return Ok(None);
        };
        let (folder, name) = (Arc::clone(&self.folder), *sha256);
        let loaded = self.pool.run(move || {
            let about = folder.chunks(&name)?;
            let content = folder.content(&name, is_whole)?;
            let count = about.head.chunk_count();
            let claimed = if is_whole { Bits::all(count) } else { folder.held(&about) };
            let stage = if is_whole { Stage::Whole } else { Stage::Resting(None) };
            Ok(OpenFile::new(about, content, claimed, stage))
        });
        match loaded.await? {
            Ok(open) => {
                self.keep(&open);
                self.touch(sha256).await;
                Ok(Some(open))
            }
            Err(Error::Full) => Err(Error::Full),
            Err(error) => {
                tracing::warn!(file = %sha256, %error, "taken out of the cache");
                self.take_away(sha256).await?;
                Ok(None)
            }
        }
    }

    fn opened(&self, sha256: &Sha256) -> Option<Arc<OpenFile>> {
        let now_ms = self.env.now_ms();
        let mut state = self.state();
        let entry = state.files.get_mut(sha256)?;
        entry.used_ms = now_ms;
        entry.open.upgrade()
    }

    fn keep(&self, open: &Arc<OpenFile>) {
        let mut state = self.state();
        if let Some(entry) = state.files.get_mut(&open.sha256()) {
            entry.open = Arc::downgrade(open);
        }
        state.kept.insert(0, Arc::clone(open));
        let (mut files, mut bytes) = (0, 0);
        state.kept.retain(|kept| {
            files += 1;
            bytes += kept.about.memory_bytes();
            files == 1 || (files <= KEPT && bytes <= KEPT_BYTES)
        });
    }

    /// Lets go of what is kept only in case somebody asks for it. Once in a while, by whoever runs
    /// the node: then an idle node holds little.
    pub fn let_go(&self) {
        let kept = std::mem::take(&mut self.state().kept);
        drop(kept);
    }

    /// Writes down that a file was used, if that was not done lately.
    async fn touch(&self, sha256: &Sha256) {
        let now_ms = self.env.now_ms();
        let is_old = {
            let mut state = self.state();
            let Some(entry) = state.files.get_mut(sha256) else { return };
            entry.used_ms = now_ms;
            let is_old = entry.touched_ms.abs_diff(now_ms) > TOUCH_MS;
            if is_old {
                entry.touched_ms = now_ms;
            }
            is_old
        };
        if !is_old {
            return;
        }
        let (folder, name) = (Arc::clone(&self.folder), *sha256);
        let touched = self.pool.run(move || folder.touch(&name, now_ms)).await;
        if let Ok(Err(error)) | Err(error) = touched {
            tracing::debug!(file = %sha256, %error, "its last use is not written down");
        }
    }

    /// Keeps a file from being evicted, or no longer; whether it is here.
    pub async fn pin(&self, sha256: &Sha256, pinned: bool) -> Result<bool> {
        let _turn = self.turn.lock().await;
        if !self.state().files.contains_key(sha256) {
            return Ok(false);
        }
        let (folder, name) = (Arc::clone(&self.folder), *sha256);
        self.pool.run(move || folder.pin(&name, pinned)).await??;
        if let Some(entry) = self.state().files.get_mut(sha256) {
            entry.is_pinned = pinned;
        }
        Ok(true)
    }

    /// Takes a file away, if nobody uses it; whether it did.
    pub async fn remove(&self, sha256: &Sha256) -> Result<bool> {
        let _turn = self.turn.lock().await;
        self.let_go();
        let is_free = |entry: &Entry| entry.open.strong_count() == 0;
        if !self.state().files.get(sha256).is_some_and(is_free) {
            return Ok(false);
        }
        self.take_away(sha256).await?;
        Ok(true)
    }

    async fn take_away(&self, sha256: &Sha256) -> Result<()> {
        self.state().take_out(sha256);
        let (folder, name) = (Arc::clone(&self.folder), *sha256);
        self.pool.run(move || folder.remove(&name)).await?
    }

    /// The disk gave back wrong bytes for some of a file's chunks: they are fetched again.
    async fn damaged(&self, file: &Arc<OpenFile>) {
        let _turn = self.turn.lock().await;
        let (sha256, count) = (file.sha256(), file.about.head.chunk_count());
        let is_whole = self.is_whole(&sha256);
        tracing::warn!(file = %sha256, "the cache's disk damaged chunks: they are fetched again");
        if !is_whole {
            return;
        }
        let (folder, claims) = (Arc::clone(&self.folder), file.claims());
        let demoted = self.pool.run(move || folder.demote(&sha256, count, &claims)).await;
        let mut state = self.state();
        state.generation += 1;
        match demoted {
            Ok(Ok(true)) => {
                if let Some(entry) = state.files.get_mut(&sha256) {
                    entry.is_whole = false;
                    // It was opened to be read only.
                    entry.open = Weak::new();
                }
                state.kept.retain(|kept| !Arc::ptr_eq(kept, file));
            }
            Ok(Ok(false)) => state.take_out(&sha256),
            Ok(Err(error)) | Err(error) => {
                tracing::error!(file = %sha256, %error, "a damaged file stays in the cache");
            }
        }
        drop(state);
        file.set_stage(Stage::Resting(None));
    }

    /// Makes room for so many bytes more.
    async fn make_room(&self, bytes: u64) -> Result<()> {
        let victims = self.state().victims(bytes, self.cap_bytes);
        let Some(victims) = victims else {
            let fill = self.fill();
            tracing::warn!(
                bytes,
                used = fill.bytes,
                cap = fill.cap_bytes,
                "the cache has no room: all that is in it is pinned or in use"
            );
            return Err(Error::Full);
        };
        self.delete(victims).await
    }

    async fn delete(&self, victims: Vec<Sha256>) -> Result<()> {
        for sha256 in victims {
            tracing::debug!(file = %sha256, "evicted");
            let (folder, name) = (Arc::clone(&self.folder), sha256);
            self.pool.run(move || folder.remove(&name)).await??;
        }
        Ok(())
    }

    /// The files that have chunks of a xorb.
    fn with_xorb(&self, xorb: &XorbHash) -> Vec<Sha256> {
        let state = self.state();
        state.xorbs.files_of(xorb).map(|head| head.sha256).collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn add(&mut self, found: Found) {
        let Found { head, is_whole, is_pinned, used_ms } = found;
        let (sha256, head) = (head.sha256, Arc::new(head));
        self.bytes += head.size;
        self.generation += 1;
        self.xorbs.add(&head);
        let open = Weak::new();
        let entry = Entry { head, is_whole, is_pinned, used_ms, touched_ms: used_ms, open };
        self.files.insert(sha256, entry);
    }

    fn take_out(&mut self, sha256: &Sha256) {
        if let Some(entry) = self.files.remove(sha256) {
            self.bytes -= entry.head.size;
            self.generation += 1;
            self.xorbs.remove(&entry.head);
        }
        self.kept.retain(|kept| kept.sha256() != *sha256);
    }

    /// Takes out what was used longest ago, until there is room for so many bytes; nothing, and
    /// nothing is taken out, if that can't be.
    fn victims(&mut self, bytes: u64, cap_bytes: u64) -> Option<Vec<Sha256>> {
        let over = (self.bytes + bytes).saturating_sub(cap_bytes);
        if over == 0 {
            return Some(Vec::new());
        }
        self.kept.clear();
        let is_free = |entry: &Entry| !entry.is_pinned && entry.open.strong_count() == 0;
        let free = self.files.iter().filter(|(_, entry)| is_free(entry));
        let mut free: Vec<_> = free.map(|(sha256, entry)| (entry.used_ms, *sha256)).collect();
        free.sort_unstable();
        let (mut gained, mut victims) = (0, Vec::new());
        for (_, sha256) in free {
            if gained >= over {
                break;
            }
            gained += self.files.get(&sha256).map_or(0, |entry| entry.head.size);
            victims.push(sha256);
        }
        if gained < over {
            return None;
        }
        for sha256 in &victims {
            self.take_out(sha256);
        }
        self.evicted += victims.len() as u64;
        Some(victims)
    }
}

#[cfg(test)]
mod tests;
