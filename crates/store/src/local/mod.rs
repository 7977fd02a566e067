//! The object store in a folder of this machine.
//!
//! One process uses a folder at a time: a disk, other than a remote store, is not shared. What was
//! acknowledged is on the disk (every write is synced). What a crash left half-written is removed
//! before anything else happens; it was never visible (Invariant 11).

mod cached;
mod disk;
mod folders;
mod health;
mod lock;
mod space;
mod volume;

use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;

use object_store::ObjectStore;
use object_store::local::LocalFileSystem;

use self::disk::{Disk, Shared};
use self::folders::Folders;
use self::health::Health;
use self::lock::{Held, LastStop};
use self::space::Space;
use self::volume::{RealVolume, Volume};
use crate::error::{Error, Result};

/// Opens object stores on disk.
#[derive(Debug)]
pub struct LocalStore;

/// As long as this lives, or the store that was opened with it, no other process can open the
/// folder.
#[derive(Debug)]
pub struct FolderLock {
    _held: Arc<Held>,
}

impl FolderLock {
    /// Takes a folder that holds no objects, and makes it if there is none: where a process keeps
    /// the index of a store that is elsewhere.
    pub fn take(folder: &Path) -> Result<Self> {
        make_durably(folder)?;
        let (held, _) = Held::take(folder)?;
        held.set_sound(true);
        Ok(Self { _held: Arc::new(held) })
    }
}

impl LocalStore {
    /// Opens the store in a folder, and makes it if there is none. Blocks; call it before anything
    /// is served.
    pub fn open(folder: &Path) -> Result<(Arc<dyn ObjectStore>, FolderLock)> {
        Self::open_keeping(folder, 0)
    }

    /// The same, and uploads end when so little room is left, in bytes. 0: when the disk is full.
    pub fn open_keeping(
        folder: &Path,
        keep_free: u64,
    ) -> Result<(Arc<dyn ObjectStore>, FolderLock)> {
        Self::open_on(folder, keep_free, Arc::new(RealVolume))
    }

    /// The store in a folder that there is, to be read only, also while another process uses it:
    /// objects become visible whole, and never change.
    pub fn open_to_read(folder: &Path) -> Result<Arc<dyn ObjectStore>> {
        let objects = folder.join("objects");
        let root = objects.canonicalize().map_err(|error| Error::folder(&objects, &error))?;
        let files = LocalFileSystem::new_with_prefix(&root).map_err(|error| Error::Folder {
            path: objects.display().to_string(),
            reason: error.to_string(),
        })?;
        Ok(Arc::new(files))
    }

    fn open_on(
        folder: &Path,
        keep_free: u64,
        volume: Arc<dyn Volume>,
    ) -> Result<(Arc<dyn ObjectStore>, FolderLock)> {
        let objects = folder.join("objects");
        make_durably(folder)?;
        let (held, last_stop) = Held::take(folder)?;
        make_durably(&objects)?;
        if last_stop == LastStop::Unclean {
            recover(&objects, volume.as_ref())?;
            held.set_sound(true);
        }
        let failed = |error: &dyn ToString| Error::Folder {
            path: objects.display().to_string(),
            reason: error.to_string(),
        };
        let root = objects.canonicalize().map_err(|error| failed(&error))?;
        let files = LocalFileSystem::new_with_prefix(&root).map_err(|error| failed(&error))?;
        let held = Arc::new(held);
        let disk = Disk::new(Shared {
            // A swept object takes its empty folders with it.
            files: Arc::new(files.with_fsync(true).with_automatic_cleanup(true)),
            folders: Arc::new(Folders::new(root.clone(), Arc::clone(&volume))),
            space: Space::new(root.clone(), folder.join("reserve"), volume, keep_free),
            health: Health::default(),
            buffers: Arc::default(),
            held: Arc::clone(&held),
            root,
        });
        Ok((Arc::new(disk), FolderLock { _held: held }))
    }
}

/// A process died here. What it had made visible may not be on the disk yet, and whoever reads it
/// now believes in it; what it had half-written was never visible.
fn recover(objects: &Path, volume: &dyn Volume) -> Result<()> {
    volume.sync_all(objects).map_err(|error| Error::folder(objects, &error))?;
    let removed = remove_leftovers(objects)?;
    if removed > 0 {
        tracing::info!(removed, "removed what a crash left half-written");
    }
    Ok(())
}

/// Makes a folder whose own entry survives a power cut, and that others on the machine can't read:
/// private models and the hub's secret are in it.
fn make_durably(folder: &Path) -> Result<()> {
    let failed = |error| Error::folder(folder, &error);
    let missing: Vec<&Path> = folder
        .ancestors()
        .take_while(|path| !path.as_os_str().is_empty() && !path.exists())
        .collect();
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder).map_err(failed)?;
    for made in missing {
        // The entry of a folder is in the folder above it.
        let above = made.parent().filter(|path| !path.as_os_str().is_empty());
        let above = above.unwrap_or_else(|| Path::new("."));
        File::open(above).and_then(|above| above.sync_all()).map_err(failed)?;
    }
    Ok(())
}

/// Removes files called `name#n`: what was being written when a process died.
fn remove_leftovers(objects: &Path) -> Result<u64> {
    let mut removed = 0;
    let mut folders = vec![objects.to_owned()];
    while let Some(folder) = folders.pop() {
        let failed = |error| Error::folder(&folder, &error);
        for entry in fs::read_dir(&folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if entry.file_type().map_err(failed)?.is_dir() {
                folders.push(entry.path());
            } else if is_leftover(&entry.file_name().to_string_lossy()) {
                fs::remove_file(entry.path()).map_err(failed)?;
                removed += 1;
            }
        }
    }
    Ok(removed)
}

fn is_leftover(name: &str) -> bool {
    name.rsplit_once('#').is_some_and(|(_, number)| {
        !number.is_empty() && number.bytes().all(|digit| digit.is_ascii_digit())
    })
}

#[cfg(test)]
mod tests;
