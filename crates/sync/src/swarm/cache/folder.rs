//! The folder of a cache: how its files are called, and what happens to them on the disk.
//!
//! Everything here blocks and runs on the pool. Which file may go is for others to decide.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use ballast_format::cached_file::{CachedFile, CachedHead, FRONT_BYTES, HeldChunks, KeptPass};
use ballast_format::hash::Sha256;
use ballast_node::error::{Error, Result};

use super::bits::Bits;

/// What stands beside a file, or for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Whole,
    Part,
    Chunks,
    Held,
    Pass,
    Pin,
}

/// In the order in which they are taken away: what a file is made of last, so that after a crash
/// the rest is still known.
const KINDS: [Kind; 6] = [Kind::Whole, Kind::Part, Kind::Held, Kind::Pass, Kind::Pin, Kind::Chunks];

impl Kind {
    fn ending(self) -> &'static str {
        match self {
            Self::Whole => "",
            Self::Part => ".part",
            Self::Chunks => ".chunks",
            Self::Held => ".held",
            Self::Pass => ".pass",
            Self::Pin => ".pin",
        }
    }
}

/// A file that was found at a start.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) head: CachedHead,
    pub(super) is_whole: bool,
    pub(super) is_pinned: bool,
    pub(super) used_ms: u64,
}

/// The folder.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    /// Locked as long as it is open.
    _lock: File,
}

impl Folder {
    /// Makes the folder, if there is none, and keeps other processes out.
    pub(super) fn open(path: &Path) -> Result<Self> {
        fs::create_dir_all(path).map_err(|error| on_disk(path, &error))?;
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false);
        let lock = options.open(path.join("lock")).map_err(|error| on_disk(path, &error))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), _lock: lock }),
            Err(TryLockError::WouldBlock) => {
                let path = path.display();
                Err(Error::invalid(format!(
                    "another process has the cache in `{path}`\nhint: stop it, or set another \
                     folder"
                )))
            }
            Err(TryLockError::Error(error)) => Err(on_disk(path, &error)),
        }
    }

    fn name(&self, sha256: &Sha256, kind: Kind) -> PathBuf {
        self.path.join(format!("{sha256}{}", kind.ending()))
    }

    /// Where a whole file is.
    pub(super) fn whole(&self, sha256: &Sha256) -> PathBuf {
        self.name(sha256, Kind::Whole)
    }

    /// What is here, reading only the heads. What can't be of use is taken away; names that no
    /// cache gives are left alone.
    pub(super) fn scan(&self) -> Result<Vec<Found>> {
        let failed = |error: io::Error| on_disk(&self.path, &error);
        let (mut found, mut others) = (Vec::new(), Vec::new());
        for entry in fs::read_dir(&self.path).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            let Some(name) = name.to_str() else { continue };
            match parse(name) {
                Some((sha256, Kind::Chunks)) => match self.look_at(&sha256) {
                    Ok(about) => found.push(about),
                    Err(error) => {
                        tracing::warn!(file = %sha256, %error, "taken out of the cache");
                        self.remove(&sha256)?;
                    }
                },
                Some((sha256, _)) => others.push(sha256),
                None if name.strip_suffix(".new").and_then(parse).is_some() => {
                    fs::remove_file(self.path.join(name)).map_err(failed)?;
                }
                None => {}
            }
        }
        let known: HashSet<Sha256> = found.iter().map(|found| found.head.sha256).collect();
        others.retain(|sha256| !known.contains(sha256));
        others.iter().try_for_each(|sha256| self.remove(sha256))?;
        Ok(found)
    }

    fn look_at(&self, sha256: &Sha256) -> Result<Found> {
        let path = self.name(sha256, Kind::Chunks);
        let failed = |error: io::Error| on_disk(&path, &error);
        let mut file = File::open(&path).map_err(failed)?;
        let about = file.metadata().map_err(failed)?;
        let mut bytes = vec![0; FRONT_BYTES];
        file.read_exact(&mut bytes).map_err(failed)?;
        let length = CachedHead::length(&bytes)?;
        if length as u64 > about.len() {
            return Err(Error::corrupt(format!("`{}` is cut short", path.display())));
        }
        bytes.resize(length, 0);
        file.read_exact(&mut bytes[FRONT_BYTES..]).map_err(failed)?;
        let head = CachedHead::decode(&bytes)?;
        let is_whole = self.name(sha256, Kind::Whole).exists();
        let content = self.name(sha256, if is_whole { Kind::Whole } else { Kind::Part });
        let size = fs::metadata(&content).map_err(|error| on_disk(&content, &error))?.len();
        if head.sha256 != *sha256 || size != head.size {
            return Err(Error::corrupt(format!("`{}` is of another file", path.display())));
        }
        let used = about.modified().ok().and_then(|used| used.duration_since(UNIX_EPOCH).ok());
        let used_ms = used.and_then(|used| u64::try_from(used.as_millis()).ok()).unwrap_or(0);
        let is_pinned = self.name(sha256, Kind::Pin).exists();
        Ok(Found { head, is_whole, is_pinned, used_ms })
    }

    /// What a file is made of.
    pub(super) fn chunks(&self, sha256: &Sha256) -> Result<CachedFile> {
        let path = self.name(sha256, Kind::Chunks);
        let bytes = fs::read(&path).map_err(|error| on_disk(&path, &error))?;
        let damaged = |error| Error::corrupt(format!("`{}`: {error}", path.display()));
        CachedFile::decode(&bytes).map_err(damaged)
    }

    /// Which chunks of a file on its way may be here; none, if that can't be told.
    pub(super) fn held(&self, about: &CachedFile) -> Bits {
        let (sha256, count) = (about.head.sha256, about.head.chunk_count());
        let held = fs::read(self.name(&sha256, Kind::Held));
        let held = held.ok().and_then(|bytes| HeldChunks::decode(&bytes).ok());
        let held = held.filter(|held| held.sha256 == sha256 && held.count == count);
        held.map_or_else(|| Bits::none(count), |held| Bits::from_bytes(count, &held.bits))
    }

    /// Writes down which chunks of a file on its way are here.
    pub(super) fn write_held(&self, sha256: Sha256, count: u32, bits: &Bits) -> Result<()> {
        let held = HeldChunks { sha256, count, bits: bits.to_bytes() }.encode()?;
        Self::write(&self.name(&sha256, Kind::Held), &held)
    }

    /// What may be shown of a file on its way; nothing, if that can't be told.
    pub(super) fn pass(&self, sha256: &Sha256) -> Option<KeptPass> {
        let bytes = fs::read(self.name(sha256, Kind::Pass)).ok()?;
        KeptPass::decode(&bytes).ok().filter(|pass| pass.sha256 == *sha256)
    }

    /// Writes down what may be shown of a file on its way.
    pub(super) fn write_pass(&self, pass: &KeptPass) -> Result<()> {
        Self::write(&self.name(&pass.sha256, Kind::Pass), &pass.encode()?)
    }

    /// The bytes of a file: only to read if it is whole.
    pub(super) fn content(&self, sha256: &Sha256, is_whole: bool) -> Result<File> {
        let path = self.name(sha256, if is_whole { Kind::Whole } else { Kind::Part });
        let file = OpenOptions::new().read(true).write(!is_whole).open(&path);
        file.map_err(|error| on_disk(&path, &error))
    }

    /// Begins a file: all its room is taken at once.
    pub(super) fn begin(&self, about: &CachedFile, now_ms: u64) -> Result<()> {
        let sha256 = &about.head.sha256;
        let begun = self.try_begin(about, now_ms);
        if begun.is_err() {
            self.remove(sha256)?;
        }
        begun
    }

    fn try_begin(&self, about: &CachedFile, now_ms: u64) -> Result<()> {
        let path = self.name(&about.head.sha256, Kind::Part);
        let failed = |error: io::Error| on_disk(&path, &error);
        Self::write(&self.name(&about.head.sha256, Kind::Chunks), &about.encode()?)?;
        self.touch(&about.head.sha256, now_ms)?;
        let part = OpenOptions::new().write(true).create(true).truncate(true).open(&path);
        let part = part.map_err(failed)?;
        if about.head.size > 0 {
            let flags = rustix::fs::FallocateFlags::empty();
            match rustix::fs::fallocate(&part, flags, 0, about.head.size) {
                // Not every file system can.
                Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {}
                taken => taken.map_err(|error| failed(error.into()))?,
            }
        }
        part.set_len(about.head.size).map_err(failed)
    }

    /// Makes a file that is whole durable, and gives it its name.
    pub(super) fn finish(&self, sha256: &Sha256, content: &File) -> Result<()> {
        let (part, whole) = (self.name(sha256, Kind::Part), self.name(sha256, Kind::Whole));
        let chunks = self.name(sha256, Kind::Chunks);
        let finish = || -> io::Result<()> {
            // Whoever links to it must not change it by accident.
            content.set_permissions(Permissions::from_mode(0o444))?;
            content.sync_all()?;
            File::open(&chunks)?.sync_all()?;
            fs::rename(&part, &whole)?;
            File::open(&self.path)?.sync_all()
        };
        finish().map_err(|error| on_disk(&whole, &error))?;
        let forget = |kind| absent_is_fine(fs::remove_file(self.name(sha256, kind)));
        [Kind::Held, Kind::Pass]
            .into_iter()
            .try_for_each(forget)
            .map_err(|error| on_disk(&whole, &error))
    }

    /// A whole file turned out to be damaged: it is on its way again, without these chunks. One
    /// that somebody has linked elsewhere is theirs: then nothing of it stays, and that is said.
    pub(super) fn demote(&self, sha256: &Sha256, count: u32, held: &Bits) -> Result<bool> {
        let (part, whole) = (self.name(sha256, Kind::Part), self.name(sha256, Kind::Whole));
        let failed = |error: io::Error| on_disk(&whole, &error);
        if fs::metadata(&whole).map_err(failed)?.nlink() > 1 {
            self.remove(sha256)?;
            return Ok(false);
        }
        self.write_held(*sha256, count, held)?;
        fs::set_permissions(&whole, Permissions::from_mode(0o644)).map_err(failed)?;
        fs::rename(&whole, &part).map_err(failed)?;
        Ok(true)
    }

    /// A file was used now.
    pub(super) fn touch(&self, sha256: &Sha256, now_ms: u64) -> Result<()> {
        let path = self.name(sha256, Kind::Chunks);
        let now = UNIX_EPOCH + Duration::from_millis(now_ms);
        let touched = OpenOptions::new().write(true).open(&path);
        let touched = touched.and_then(|file| file.set_modified(now));
        touched.map_err(|error| on_disk(&path, &error))
    }

    /// Keeps a file from being evicted, or no longer.
    pub(super) fn pin(&self, sha256: &Sha256, pinned: bool) -> Result<()> {
        let path = self.name(sha256, Kind::Pin);
        if pinned {
            return Self::write(&path, b"");
        }
        absent_is_fine(fs::remove_file(&path)).map_err(|error| on_disk(&path, &error))
    }

    /// Takes a file away, and all that stands beside it.
    pub(super) fn remove(&self, sha256: &Sha256) -> Result<()> {
        for kind in KINDS {
            let path = self.name(sha256, kind);
            absent_is_fine(fs::remove_file(&path)).map_err(|error| on_disk(&path, &error))?;
        }
        Ok(())
    }

    fn write(path: &Path, bytes: &[u8]) -> Result<()> {
        let mut new = path.as_os_str().to_owned();
        new.push(".new");
        let write = || -> io::Result<()> {
            File::create(&new)?.write_all(bytes)?;
            fs::rename(&new, path)
        };
        write().map_err(|error| {
            // What is half written is taken away at the next start at the latest.
            let _ = fs::remove_file(&new);
            on_disk(path, &error)
        })
    }
}

fn parse(name: &str) -> Option<(Sha256, Kind)> {
    let (hash, ending) = name.split_at_checked(64)?;
    let sha256: Sha256 = hash.parse().ok()?;
    let kind = KINDS.into_iter().find(|kind| kind.ending() == ending)?;
    Some((sha256, kind))
}

fn absent_is_fine(removed: io::Result<()>) -> io::Result<()> {
    removed.or_else(|error| if error.kind() == ErrorKind::NotFound { Ok(()) } else { Err(error) })
}

/// What the disk said, for whoever asked for the file.
pub(super) fn on_disk(path: &Path, error: &io::Error) -> Error {
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Error::Full,
        _ => Error::internal(format!("the cache, at `{}`: {error}", path.display())),
    }
}
