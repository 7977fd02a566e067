//! Room that uploads may not take, so that what frees room can still be written.
//!
//! Uploads end while there is some room left. What remains is for entries of logs, for pins and
//! for the collector's lists, without which nothing can ever be deleted. As other programs may
//! fill the disk all the same, a file holds some of it back, and is given up when it is needed.

use std::fs::OpenOptions;
use std::io::{self, ErrorKind};
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use object_store::path::Path;

use super::volume::Volume;
use crate::keyspace::Key;

/// What the file holds back: some hundred thousand log entries.
const RESERVE_BYTES: u64 = 64 * 1024 * 1024;

/// The room of a volume.
#[derive(Debug)]
pub(super) struct Space {
    root: PathBuf,
    reserve: PathBuf,
    volume: Arc<dyn Volume>,
    /// Uploads end below this; 0 turns all of this off.
    keep_free: u64,
    is_held: AtomicBool,
}

impl Space {
    /// `reserve` is the file; it must lie on the same volume as `root`.
    pub(super) fn new(
        root: PathBuf,
        reserve: PathBuf,
        volume: Arc<dyn Volume>,
        keep_free: u64,
    ) -> Self {
        let space = Self { root, reserve, volume, keep_free, is_held: AtomicBool::new(false) };
        if let Ok(room) = space.volume.room(&space.root) {
            space.hold(room);
        }
        space
    }

    /// May this be written, as far as room goes? Blocks.
    pub(super) fn check(&self, path: &Path) -> io::Result<()> {
        if self.keep_free == 0 || !is_upload(path) {
            return Ok(());
        }
        let room = self.volume.room(&self.root)?;
        self.hold(room);
        if room < self.keep_free { Err(ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    /// Gives the reserve up for something that must be written. Was there any? Blocks.
    pub(super) fn spend(&self, path: &Path) -> bool {
        if is_upload(path) || !self.is_held.swap(false, Ordering::AcqRel) {
            return false;
        }
        tracing::warn!("the disk is full; its reserve is used for what must be written");
        let emptied = OpenOptions::new().write(true).truncate(true).open(&self.reserve);
        emptied.is_ok()
    }

    /// Holds the reserve, if there is plenty of room.
    fn hold(&self, room: u64) {
        let is_plenty = room >= self.keep_free.saturating_add(RESERVE_BYTES);
        if self.keep_free == 0 || !is_plenty || self.is_held.load(Ordering::Acquire) {
            return;
        }
        match allocate(self.volume.as_ref(), &self.reserve) {
            Ok(()) => self.is_held.store(true, Ordering::Release),
            // Uploads still end before the room does.
            Err(error) => tracing::debug!(%error, "no reserve is held on this volume"),
        }
    }
}

fn allocate(volume: &dyn Volume, reserve: &FilePath) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let file = options.write(true).create(true).truncate(false).open(reserve)?;
    volume.allocate(&file, RESERVE_BYTES)
}

/// What clients send in bulk, and nothing that the program itself needs to go on.
fn is_upload(path: &Path) -> bool {
    matches!(Key::parse(path), Some(Key::Copy(_) | Key::Part { .. }))
}

#[cfg(test)]
mod tests {
    use super::super::volume::shaky::Shaky;
    use super::*;
    use crate::keyspace::{CopyKind, CopyName, LogId};

    const GIB: u64 = 1 << 30;

    fn copy() -> Path {
        Key::Copy(CopyName { kind: CopyKind::Xorb, hash: [1; 32], epoch: 0, nonce: 1 }).path()
    }

    fn space(folder: &FilePath, keep_free: u64) -> (Space, Arc<Shaky>) {
        let volume = Arc::new(Shaky::new());
        let shared = Arc::clone(&volume) as Arc<dyn Volume>;
        (Space::new(folder.to_owned(), folder.join("reserve"), shared, keep_free), volume)
    }

    #[test]
    fn uploads_end_below_what_is_kept_free_and_logs_go_on() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (space, volume) = space(folder.path(), GIB);
        let entry = Key::LogEntry(LogId::Catalogue, 1).path();
        for (free, error) in [
            (GIB, None),
            (GIB - 1, Some(ErrorKind::StorageFull)),
            (0, Some(ErrorKind::StorageFull)),
        ] {
            *volume.room.lock().expect("no panic") = free;
            let found = space.check(&copy()).err().map(|error| error.kind());
            assert_eq!(found, error, "{free} bytes free");
            assert!(space.check(&entry).is_ok());
        }
    }

    #[test]
    fn the_reserve_is_spent_once_and_held_again_when_there_is_room() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (space, volume) = space(folder.path(), GIB);
        let entry = Key::LogEntry(LogId::Catalogue, 1).path();
        let size = || space.reserve.metadata().map_or(0, |found| found.len());
        assert_eq!(size(), RESERVE_BYTES);
        assert!(!space.spend(&copy()), "not for uploads");
        assert!(space.spend(&entry));
        assert!(!space.spend(&entry), "it is gone");
        assert_eq!(size(), 0);
        *volume.room.lock().expect("no panic") = GIB;
        space.check(&copy()).expect("there is room, but not plenty");
        assert_eq!(size(), 0);
        *volume.room.lock().expect("no panic") = 2 * GIB;
        space.check(&copy()).expect("there is room");
        assert_eq!(size(), RESERVE_BYTES);
    }

    #[test]
    fn without_a_floor_nothing_is_held_back() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (space, volume) = space(folder.path(), 0);
        *volume.room.lock().expect("no panic") = 0;
        space.check(&copy()).expect("the volume itself will say");
        assert!(!space.reserve.exists());
    }
}
