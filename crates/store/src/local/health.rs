//! Whether the disk may still be believed.
//!
//! The kernel reports a failed sync once, and the next one may call lost pages a success. A file
//! that failed is thrown away and written again; if two writes in a row fail, or if a folder fails
//! once (its entries can't be written again), nothing is written any more until the next start.

use std::io::{self, ErrorKind};
use std::sync::atomic::{AtomicU32, Ordering};

use object_store::{Error, Result};

use super::folders::FolderFailed;
use crate::error::{VolumeFailed, find};

/// The operating system's number for "the device failed".
const EIO: i32 = 5;

/// So many failures in a row end all writing.
const FAILURES: u32 = 2;

/// What the disk did lately.
#[derive(Debug, Default)]
pub(super) struct Health {
    /// Failures since the last success; at [`FAILURES`] it stays there.
    failures: AtomicU32,
}

impl Health {
    pub(super) fn check(&self) -> Result<()> {
        if self.failures.load(Ordering::Acquire) < FAILURES { Ok(()) } else { Err(failed()) }
    }

    pub(super) fn recover(&self) {
        // Less than all failures are forgiven; whether there was one to forgive does not matter.
        let _ = self.failures.fetch_update(Ordering::AcqRel, Ordering::Acquire, |failures| {
            (failures < FAILURES).then_some(0)
        });
    }

    pub(super) fn fail(&self) {
        if self.failures.swap(FAILURES, Ordering::AcqRel) < FAILURES {
            tracing::error!("the disk failed to sync; nothing is written to it any more");
        }
    }

    /// Counts a failure of the device, if it was one.
    pub(super) fn note(&self, error: &Error) {
        if !is_device_failure(error) {
            return;
        }
        if matches!(find(error), Some(FolderFailed::Unsynced(..))) {
            return self.fail();
        }
        let before = self.failures.fetch_update(Ordering::AcqRel, Ordering::Acquire, |failures| {
            (failures + 1 < FAILURES).then_some(failures + 1)
        });
        if before.is_err() {
            self.fail();
        }
    }
}

/// Did the device itself fail?
pub(super) fn is_device_failure(error: &Error) -> bool {
    find::<io::Error>(error).and_then(io::Error::raw_os_error) == Some(EIO)
}

/// Does an error of this kind say that nothing was written?
pub(super) fn is_plain_refusal(error: &Error) -> bool {
    find::<io::Error>(error).is_none_or(|cause| cause.kind() == ErrorKind::NotFound)
}

fn failed() -> Error {
    Error::Generic { store: "disk", source: Box::new(VolumeFailed) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(cause: impl std::error::Error + Send + Sync + 'static) -> Error {
        Error::Generic { store: "disk", source: Box::new(cause) }
    }

    fn eio() -> io::Error {
        io::Error::from_raw_os_error(EIO)
    }

    #[test]
    fn two_failures_in_a_row_end_all_writing_and_one_does_not() {
        let health = Health::default();
        health.note(&failure(eio()));
        health.check().expect("one failure is forgiven");
        health.recover();
        health.note(&failure(eio()));
        health.check().expect("the count began again");
        health.note(&failure(eio()));
        let error = health.check().expect_err("it failed twice in a row");
        assert!(find::<VolumeFailed>(&error).is_some());
        health.recover();
        assert!(health.check().is_err(), "until the next start");
    }

    #[test]
    fn a_folder_that_fails_to_sync_once_ends_all_writing() {
        let health = Health::default();
        health.note(&failure(FolderFailed::Unsynced("a".into(), eio())));
        assert!(health.check().is_err());
    }

    #[test]
    fn a_full_disk_and_a_taken_name_are_no_failures_of_the_device() {
        let health = Health::default();
        for _ in 0..5 {
            health.note(&failure(io::Error::from(ErrorKind::StorageFull)));
            health.note(&failure(io::Error::from(ErrorKind::AlreadyExists)));
            let full = io::Error::from(ErrorKind::StorageFull);
            health.note(&failure(FolderFailed::Unsynced("a".into(), full)));
        }
        health.check().expect("the device is fine");
    }
}
