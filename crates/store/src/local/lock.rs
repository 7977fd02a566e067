//! One process at a time.
//!
//! The lock is the operating system's, so it ends with the process, however that ends. The file
//! also says who holds it, for a person, and whether the last holder let go in an orderly way.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{Error, Result};

const RELEASED: &str = "released\n";

/// How the process before us ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LastStop {
    /// It let go of the folder itself, or there was none.
    Clean,
    /// It may have been in the middle of anything.
    Unclean,
}

/// The lock, while it is ours.
#[derive(Debug)]
pub(super) struct Held {
    /// Open for reading only where that is enough: what is open for writing would keep a person
    /// from making the volume read-only.
    _file: File,
    path: PathBuf,
    /// May whoever comes next believe what is on the disk?
    is_sound: AtomicBool,
}

impl Held {
    pub(super) fn take(folder: &Path) -> Result<(Self, LastStop)> {
        let path = folder.join("lock");
        let failed = |error: io::Error| Error::folder(&path, &error);
        let mut options = OpenOptions::new();
        let writable = options.read(true).write(true).create(true).truncate(false).open(&path);
        let writable = writable.map_err(failed)?;
        let mut file = File::open(&path).map_err(failed)?;
        let mut locked = file.try_lock();
        if let Err(TryLockError::Error(_)) = &locked {
            // Over a network a lock may need a file that is open for writing.
            file = writable;
            locked = file.try_lock();
        }
        match locked {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Error::Locked {
                    path: folder.display().to_string(),
                    holder: holder(&mut file),
                });
            }
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        let said = read(&mut file).map_err(failed)?;
        let clean = said == RELEASED || said.is_empty();
        // On the disk before the first write: who finds us here later must not believe that we
        // let go.
        write(&path, &format!("process {}\n", std::process::id())).map_err(failed)?;
        let held = Self { _file: file, path, is_sound: AtomicBool::new(clean) };
        Ok((held, if clean { LastStop::Clean } else { LastStop::Unclean }))
    }

    /// Says whether the disk holds all that can be seen of it, as after an orderly stop.
    pub(super) fn set_sound(&self, is_sound: bool) {
        self.is_sound.store(is_sound, Ordering::Release);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if !self.is_sound.load(Ordering::Acquire) {
            return;
        }
        // If this fails, the next start looks for leftovers that are not there.
        if let Err(error) = write(&self.path, RELEASED) {
            tracing::debug!(%error, "the lock file does not say that it is free");
        }
    }
}

fn holder(file: &mut File) -> String {
    match read(file) {
        Ok(said) if said.starts_with("process ") => said.trim().to_owned(),
        _ => "another process".to_owned(),
    }
}

fn read(file: &mut File) -> io::Result<String> {
    let mut said = String::new();
    file.seek(SeekFrom::Start(0))?;
    file.take(64).read_to_string(&mut said)?;
    Ok(said)
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).truncate(true).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}
