//! A file on its way: written once, read by many while it grows.
//!
//! What is written last is kept in memory for a moment, so that those who keep pace read no disk.
//! The end of the file is held back from clients until all of it was verified: whoever has a whole
//! file has the right one. A spool that was left behind is read through the hash again and goes on
//! where it ended.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use ballast_format::hash::Sha256;
use ballast_format::id::RepoId;
use ballast_node::error::{Error, Result};
use ballast_node::hub::Hub;
use ballast_node::upload::Growing;
use bytes::Bytes;
use sha2::Digest as _;
use tokio::sync::watch;

/// What clients do not get before all is verified.
const HELD_BYTES: u64 = 64 << 10;
/// What of a spool is kept in memory.
const RECENT_BYTES: usize = 4 << 20;
/// Bytes that are read from the disk at once. Each reader has one such piece, but each of malloc's
/// arenas (8 a core) comes to hold as much as all readers together ever had from it.
const PIECE_BYTES: u64 = 256 << 10;
/// A spool that nobody asked for in so long is taken away.
const KEPT_FOR: Duration = Duration::from_hours(7 * 24);
/// How spools are called.
pub(super) const ENDING: &str = "part";

/// How far a spool is.
#[derive(Clone, Debug)]
pub(super) struct Progress {
    /// Bytes that are in it.
    pub(super) written: u64,
    /// Bytes that clients may have.
    pub(super) released: u64,
    /// Why nothing more comes; nothing while more may come, or all is there.
    pub(super) failed: Option<Error>,
}

/// A file on its way.
pub(super) struct Spool {
    file: Arc<File>,
    path: PathBuf,
    size: u64,
    progress: watch::Sender<Progress>,
    recent: Mutex<Recent>,
    growing: Arc<Growing>,
}

#[derive(Default)]
struct Recent {
    start: u64,
    pieces: VecDeque<Bytes>,
    bytes: usize,
}

impl Recent {
    fn push(&mut self, piece: Bytes) {
        self.bytes += piece.len();
        self.pieces.push_back(piece);
        while self.bytes > RECENT_BYTES
            && let Some(oldest) = self.pieces.pop_front()
        {
            self.bytes -= oldest.len();
            self.start += oldest.len() as u64;
        }
    }

    /// The rest of the piece that has the byte at this place.
    fn at(&self, place: u64) -> Option<Bytes> {
        let mut skip = usize::try_from(place.checked_sub(self.start)?).ok()?;
        for piece in &self.pieces {
            if skip < piece.len() {
                return Some(piece.slice(skip..));
            }
            skip -= piece.len();
        }
        None
    }
}

impl Spool {
    /// Where in the folder a file of a repo is on its way.
    pub(super) fn path(folder: &Path, repo: RepoId, sha256: &Sha256) -> PathBuf {
        folder.join(format!("{repo}-{sha256}.{ENDING}"))
    }

    /// Opens the spool of a file of `size` bytes; what is there from before is kept.
    pub(super) async fn open(hub: &Hub, path: PathBuf, size: u64) -> Result<Arc<Self>> {
        let opened = path.clone();
        let open = move || -> std::io::Result<File> {
            if let Some(folder) = opened.parent() {
                std::fs::create_dir_all(folder)?;
            }
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .open(&opened)?;
            if file.metadata()?.len() > size {
                file.set_len(0)?;
            }
            Ok(file)
        };
        let file = hub.pool().run(open).await?.map_err(|error| on_disk(&error))?;
        let progress = Progress { written: 0, released: 0, failed: None };
        let (progress, _) = watch::channel(progress);
        let file = Arc::new(file);
        let (recent, growing) = (Mutex::default(), Arc::default());
        Ok(Arc::new(Self { file, path, size, progress, recent, growing }))
    }

    /// What the store has made of it so far.
    pub(super) fn growing(&self) -> &Arc<Growing> {
        &self.growing
    }

    /// How long the file will be.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// How far it is, to wait for more.
    pub(super) fn watch(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    /// Nothing more comes.
    pub(super) fn fail(&self, error: Error) {
        self.progress.send_modify(|progress| progress.failed = Some(error));
    }

    /// All of it is there and is what it must be.
    pub(super) fn release(&self) {
        self.progress.send_modify(|progress| progress.released = self.size);
    }

    /// Whether that was said.
    pub(super) fn is_verified(&self) -> bool {
        self.progress.borrow().released == self.size
    }

    /// Takes the file away; those who read it go on.
    pub(super) async fn remove(&self, hub: &Hub) -> Result<()> {
        let path = self.path.clone();
        let removed = hub.pool().run(move || std::fs::remove_file(path)).await?;
        match removed {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(on_disk(&error)),
            _ => Ok(()),
        }
    }

    /// Some of the bytes from `start` on, which are there up to `end`.
    pub(super) async fn read(&self, hub: &Hub, start: u64, end: u64) -> Result<Bytes> {
        if let Some(mut piece) = self.recent().at(start) {
            piece.truncate(usize::try_from(end - start).unwrap_or(usize::MAX));
            return Ok(piece);
        }
        let length = usize::try_from((end - start).min(PIECE_BYTES)).unwrap_or(0);
        let file = Arc::clone(&self.file);
        let read = move || -> std::io::Result<Bytes> {
            let mut piece = vec![0; length];
            file.read_exact_at(&mut piece, start)?;
            Ok(Bytes::from(piece))
        };
        hub.pool().run(read).await?.map_err(|error| on_disk(&error))
    }

    fn advance(&self, written: u64) {
        let released = written.min(self.size.saturating_sub(HELD_BYTES));
        self.progress.send_modify(|progress| {
            progress.written = written;
            progress.released = released.max(progress.released);
        });
    }

    fn recent(&self) -> MutexGuard<'_, Recent> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The one who fills a spool.
pub(super) struct Filler {
    spool: Arc<Spool>,
    sha256: sha2::Sha256,
    at: u64,
}

impl Filler {
    /// Stands behind what is there from before, which is hashed again.
    pub(super) async fn resume(hub: &Hub, spool: &Arc<Spool>) -> Result<Self> {
        let file = Arc::clone(&spool.file);
        let length = hub.pool().run(move || file.metadata().map(|about| about.len())).await?;
        let length = length.map_err(|error| on_disk(&error))?;
        let mut filler = Self { spool: Arc::clone(spool), sha256: sha2::Sha256::new(), at: 0 };
        while filler.at < length {
            let (file, at) = (Arc::clone(&spool.file), filler.at);
            let bytes = usize::try_from((length - at).min(PIECE_BYTES)).unwrap_or(0);
            let mut sha256 = filler.sha256;
            let job = move || -> std::io::Result<sha2::Sha256> {
                let mut piece = vec![0; bytes];
                file.read_exact_at(&mut piece, at)?;
                sha256.update(&piece);
                Ok(sha256)
            };
            filler.sha256 = hub.pool().run(job).await?.map_err(|error| on_disk(&error))?;
            filler.at += bytes as u64;
            spool.advance(filler.at);
        }
        spool.recent().start = length;
        Ok(filler)
    }

    /// Where the next byte goes.
    pub(super) fn at(&self) -> u64 {
        self.at
    }

    /// Appends these pieces.
    pub(super) async fn write(self, hub: &Hub, pieces: Vec<Bytes>) -> Result<Self> {
        let Self { spool, mut sha256, mut at } = self;
        let length: u64 = pieces.iter().map(|piece| piece.len() as u64).sum();
        if at + length > spool.size {
            return Err(Error::invalid("more bytes come than were said"));
        }
        let job = move || -> std::io::Result<(Self, Vec<Bytes>)> {
            for piece in &pieces {
                spool.file.write_all_at(piece, at)?;
                sha256.update(piece);
                at += piece.len() as u64;
            }
            Ok((Self { spool, sha256, at }, pieces))
        };
        let (filler, pieces) = hub.pool().run(job).await?.map_err(|error| on_disk(&error))?;
        let mut recent = filler.spool.recent();
        for piece in pieces {
            recent.push(piece);
        }
        drop(recent);
        filler.spool.advance(filler.at);
        Ok(filler)
    }

    /// The SHA-256 of all that came.
    pub(super) fn finish(self) -> Sha256 {
        Sha256::from_bytes(self.sha256.finalize().into())
    }
}

/// Takes away spools that nobody asked for in a long time.
pub(super) fn sweep(folder: &Path, now_ms: u64) -> Result<()> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(on_disk(&error)),
    };
    for entry in entries {
        let entry = entry.map_err(|error| on_disk(&error))?;
        let changed = entry.metadata().and_then(|about| about.modified());
        let changed = changed.map_err(|error| on_disk(&error))?;
        let changed = changed.duration_since(UNIX_EPOCH).unwrap_or_default();
        let is_old = changed + KEPT_FOR < Duration::from_millis(now_ms);
        if is_old && entry.path().extension().is_some_and(|ending| ending == ENDING) {
            std::fs::remove_file(entry.path()).map_err(|error| on_disk(&error))?;
        }
    }
    Ok(())
}

pub(super) fn on_disk(error: &std::io::Error) -> Error {
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Error::Full,
        _ => Error::internal(format!("a file on its way: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_last_is_in_memory_and_what_came_before_is_not() {
        let mut recent = Recent { start: 10, ..Recent::default() };
        recent.push(Bytes::from_static(b"abc"));
        recent.push(Bytes::from_static(b"de"));
        assert_eq!(recent.at(9), None);
        assert_eq!(recent.at(11).as_deref(), Some(&b"bc"[..]));
        assert_eq!(recent.at(14).as_deref(), Some(&b"e"[..]));
        assert_eq!(recent.at(15), None);
        recent.push(Bytes::from(vec![7; RECENT_BYTES]));
        assert_eq!((recent.start, recent.at(14)), (15, None));
        assert_eq!(recent.at(15).map(|piece| piece.len()), Some(RECENT_BYTES));
    }

    #[test]
    fn old_spools_go_and_nothing_else_does() -> std::io::Result<()> {
        let folder = tempfile::tempdir()?;
        let now_ms = || {
            let about = std::fs::metadata(folder.path().join("a.part")).expect("it is there");
            let changed = about.modified().expect("this system tells");
            u64::try_from(changed.duration_since(UNIX_EPOCH).expect("later").as_millis())
                .expect("small")
        };
        for name in ["a.part", "b.txt"] {
            std::fs::write(folder.path().join(name), "x")?;
        }
        let kept_ms = u64::try_from(KEPT_FOR.as_millis()).expect("small");
        sweep(folder.path(), now_ms() + kept_ms - 1000).expect("it is a folder");
        assert!(folder.path().join("a.part").exists());
        sweep(folder.path(), now_ms() + kept_ms + 1000).expect("it is a folder");
        assert!(!folder.path().join("a.part").exists());
        assert!(folder.path().join("b.txt").exists());
        sweep(&folder.path().join("none"), 0).expect("there is nothing to do");
        Ok(())
    }
}
