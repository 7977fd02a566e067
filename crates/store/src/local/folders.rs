//! The folders above an object, each with an entry that survives a power cut.
//!
//! A file whose folder is not on the disk is not on the disk either. A folder may have been made a
//! moment ago by somebody who has not synced it, or by somebody whose sync failed, so its being
//! there says nothing. Which folders are known to be durable is remembered for as long as nothing
//! is deleted: a delete takes empty folders along.

use std::collections::HashSet;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::volume::Volume;

/// How many folders are remembered: some hundred bytes each. After that it begins anew, which
/// costs a sync of each once more.
const KNOWN: usize = 8192;

/// How often deletes may take a folder along while it is being filled; each time needs another
/// delete at the wrong moment.
const RACES: u32 = 16;

/// The folders below a root that is durable itself.
#[derive(Debug)]
pub(super) struct Folders {
    root: PathBuf,
    volume: Arc<dyn Volume>,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    durable: HashSet<PathBuf>,
    /// Deletes that are under way: until they end, nothing new is believed.
    deleting: usize,
    /// Grows with each delete, so that what was seen before it is not noted after it.
    deletes: u64,
}

/// A folder is not there, or nobody knows whether it will be after a power cut.
#[derive(Debug, thiserror::Error)]
pub(super) enum FolderFailed {
    /// It could not be made.
    #[error("the folder `{}` cannot be made", .0.display())]
    Missing(PathBuf, #[source] io::Error),
    /// What it holds can't be written again, as a file's bytes can.
    #[error("the folder `{}` failed to sync", .0.display())]
    Unsynced(PathBuf, #[source] io::Error),
}

impl FolderFailed {
    /// Is it only that a folder went away in between?
    pub(super) fn is_gone(&self) -> bool {
        let (Self::Missing(_, error) | Self::Unsynced(_, error)) = self;
        error.kind() == ErrorKind::NotFound
    }
}

impl Folders {
    pub(super) fn new(root: PathBuf, volume: Arc<dyn Volume>) -> Self {
        Self { root, volume, known: Mutex::default() }
    }

    /// Are all folders above this file known to be durable?
    pub(super) fn are_durable(&self, file: &Path) -> bool {
        let known = self.known();
        self.above(file).iter().all(|folder| known.durable.contains(*folder))
    }

    /// Makes the folders above a file, as far as they are missing, and their entries durable.
    /// Blocks.
    pub(super) fn make_durable(&self, file: &Path) -> Result<(), FolderFailed> {
        for _ in 1..RACES {
            match self.try_make_durable(file) {
                Err(error) if error.is_gone() => {}
                done => return done,
            }
        }
        self.try_make_durable(file)
    }

    fn try_make_durable(&self, file: &Path) -> Result<(), FolderFailed> {
        for folder in self.above(file).into_iter().rev() {
            let deletes = {
                let known = self.known();
                if known.durable.contains(folder) {
                    continue;
                }
                known.deletes
            };
            self.make_one(folder)?;
            self.note(folder, deletes);
        }
        Ok(())
    }

    /// Syncs the folder that holds a file's name.
    pub(super) fn sync_name(&self, file: &Path) -> Result<(), FolderFailed> {
        let folder = file.parent().unwrap_or(&self.root);
        let synced = self.volume.sync_folder(folder);
        synced.map_err(|error| FolderFailed::Unsynced(folder.to_owned(), error))
    }

    /// Call before something is deleted; the answer lives until that is over.
    pub(super) fn deleting(self: &Arc<Self>, file: &Path) -> Deleting {
        let mut known = self.known();
        known.deleting += 1;
        known.deletes += 1;
        for folder in self.above(file) {
            known.durable.remove(folder);
        }
        Deleting { folders: Arc::clone(self) }
    }

    fn make_one(&self, folder: &Path) -> Result<(), FolderFailed> {
        match fs::create_dir(folder) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                Err(FolderFailed::Missing(folder.to_owned(), error))
            }
            // The entry of a folder is in the folder above it.
            _ => self.sync_name(folder),
        }
    }

    fn note(&self, folder: &Path, deletes: u64) {
        let mut known = self.known();
        if known.deleting > 0 || known.deletes != deletes {
            return;
        }
        if known.durable.len() >= KNOWN {
            known.durable.clear();
        }
        known.durable.insert(folder.to_owned());
    }

    /// The folders between a file and the root, the nearest first.
    fn above<'a>(&self, file: &'a Path) -> Vec<&'a Path> {
        let above = file.ancestors().skip(1);
        above.take_while(|folder| *folder != self.root && folder.starts_with(&self.root)).collect()
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A delete that is under way.
#[derive(Debug)]
pub(super) struct Deleting {
    folders: Arc<Folders>,
}

impl Drop for Deleting {
    fn drop(&mut self) {
        self.folders.known().deleting -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::super::volume::shaky::{EIO, Shaky};
    use super::*;

    fn folders(root: &Path) -> (Arc<Folders>, Arc<Shaky>) {
        let volume = Arc::new(Shaky::new());
        let folders = Folders::new(root.to_owned(), Arc::clone(&volume) as Arc<dyn Volume>);
        (Arc::new(folders), volume)
    }

    #[test]
    fn a_folder_that_is_there_is_synced_all_the_same_and_once() {
        let root = tempfile::tempdir().expect("a temporary folder");
        let (folders, volume) = folders(root.path());
        let file = root.path().join("a/b/c/file");
        // Somebody made it a moment ago, and has not synced it.
        fs::create_dir_all(root.path().join("a/b")).expect("creates");
        folders.make_durable(&file).expect("makes");
        let above = ["", "a", "a/b"].map(|name| root.path().join(name));
        assert_eq!(volume.take_synced(), above);
        assert!(folders.are_durable(&file));
        folders.make_durable(&file).expect("makes");
        assert!(volume.take_synced().is_empty());
    }

    #[test]
    fn after_a_failed_sync_a_retry_syncs_what_failed() {
        let root = tempfile::tempdir().expect("a temporary folder");
        let (folders, volume) = folders(root.path());
        let file = root.path().join("a/b/file");
        volume.fail_next(&[0, EIO]);
        let error = folders.make_durable(&file).expect_err("the second sync fails");
        assert!(matches!(error, FolderFailed::Unsynced(..)), "{error}");
        assert!(!folders.are_durable(&file));
        assert_eq!(volume.take_synced(), [root.path()]);
        folders.make_durable(&file).expect("makes");
        assert_eq!(volume.take_synced(), [root.path().join("a")]);
    }

    #[test]
    fn a_delete_ends_what_was_known_and_what_was_just_seen() {
        let root = tempfile::tempdir().expect("a temporary folder");
        let (folders, volume) = folders(root.path());
        let (file, other) = (root.path().join("a/file"), root.path().join("b/file"));
        folders.make_durable(&file).expect("makes");
        folders.make_durable(&other).expect("makes");
        let deleting = folders.deleting(&file);
        assert!(!folders.are_durable(&file) && folders.are_durable(&other));
        folders.make_durable(&file).expect("makes");
        assert!(!folders.are_durable(&file), "the delete may take the folder along");
        drop(deleting);
        // Seen before a delete began, noted after it ended: it may be gone.
        folders.note(&root.path().join("a"), 0);
        assert!(!folders.are_durable(&file));
        volume.take_synced();
        folders.make_durable(&file).expect("makes");
        assert_eq!(volume.take_synced(), [root.path()]);
        assert!(folders.are_durable(&file));
    }

    #[test]
    fn what_is_remembered_has_a_bound() {
        let root = tempfile::tempdir().expect("a temporary folder");
        let (folders, _) = folders(root.path());
        for number in 0..=KNOWN {
            folders.note(&root.path().join(number.to_string()), 0);
        }
        assert_eq!(folders.known().durable.len(), 1);
    }
}
