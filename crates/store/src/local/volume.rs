//! What is asked of the volume itself, beside its files: to make something durable, and how much
//! room is left.
//!
//! A seam, so that tests can have a volume that fails.

use std::fmt::Debug;
use std::fs::File;
use std::io;
use std::path::Path;

/// The volume under a folder. Every call blocks.
pub(super) trait Volume: Send + Sync + Debug + 'static {
    /// Makes the entries of a folder durable.
    fn sync_folder(&self, folder: &Path) -> io::Result<()>;

    /// Makes all that was ever written to the volume durable.
    fn sync_all(&self, folder: &Path) -> io::Result<()>;

    /// Bytes that may still be written.
    fn room(&self, folder: &Path) -> io::Result<u64>;

    /// Takes that many bytes of room for a file.
    fn allocate(&self, file: &File, bytes: u64) -> io::Result<()>;
}

/// The volume of this machine.
#[derive(Debug)]
pub(super) struct RealVolume;

impl Volume for RealVolume {
    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        File::open(folder)?.sync_all()
    }

    #[cfg(target_os = "linux")]
    fn sync_all(&self, folder: &Path) -> io::Result<()> {
        Ok(rustix::fs::syncfs(File::open(folder)?)?)
    }

    #[cfg(not(target_os = "linux"))]
    fn sync_all(&self, _: &Path) -> io::Result<()> {
        rustix::fs::sync();
        Ok(())
    }

    fn room(&self, folder: &Path) -> io::Result<u64> {
        let found = rustix::fs::statvfs(folder)?;
        Ok(found.f_bavail.saturating_mul(found.f_frsize))
    }

    #[cfg(target_os = "linux")]
    fn allocate(&self, file: &File, bytes: u64) -> io::Result<()> {
        Ok(rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), 0, bytes)?)
    }

    #[cfg(not(target_os = "linux"))]
    fn allocate(&self, _: &File, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

#[cfg(test)]
pub(super) mod shaky {
    //! A volume that fails when it is told to, and remembers what it was asked.

    use std::collections::VecDeque;
    use std::path::PathBuf;
    use std::sync::Mutex;

    use super::*;

    /// The number of "the device failed".
    pub(crate) const EIO: i32 = 5;

    #[derive(Debug)]
    pub(crate) struct Shaky {
        pub(crate) synced: Mutex<Vec<PathBuf>>,
        /// Errors of the next syncs of folders, by the operating system's number; 0 is none.
        pub(crate) failures: Mutex<VecDeque<i32>>,
        pub(crate) room: Mutex<u64>,
    }

    impl Shaky {
        pub(crate) fn new() -> Self {
            let room = Mutex::new(1 << 40);
            Self { synced: Mutex::default(), failures: Mutex::default(), room }
        }

        pub(crate) fn fail_next(&self, errors: &[i32]) {
            self.failures.lock().expect("no panic").extend(errors);
        }

        /// The folders that were synced since the last question.
        pub(crate) fn take_synced(&self) -> Vec<PathBuf> {
            std::mem::take(&mut *self.synced.lock().expect("no panic"))
        }
    }

    impl Volume for Shaky {
        fn sync_folder(&self, folder: &Path) -> io::Result<()> {
            let failure = self.failures.lock().expect("no panic").pop_front().unwrap_or(0);
            if failure != 0 {
                return Err(io::Error::from_raw_os_error(failure));
            }
            self.synced.lock().expect("no panic").push(folder.to_owned());
            RealVolume.sync_folder(folder)
        }

        fn sync_all(&self, folder: &Path) -> io::Result<()> {
            self.sync_folder(folder)
        }

        fn room(&self, _: &Path) -> io::Result<u64> {
            Ok(*self.room.lock().expect("no panic"))
        }

        fn allocate(&self, file: &File, bytes: u64) -> io::Result<()> {
            file.set_len(bytes)
        }
    }
}
