//! The file system as an object store, and what this machine's disk needs on top of it.
//!
//! Ranges are read in one step, into memory that was not cleared first: this is the way of every
//! download. And a disk that failed to sync is not believed: the kernel reports such an error
//! once, and the next sync may call lost pages a success. One failure is an unclear answer, which
//! whoever asked settles by reading back, so what is visible is synced once more; if that fails
//! too, or two writes in a row fail, nothing is written any more until the next start.

use std::fmt;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result,
    UploadPart,
};

use super::lock::Held;
use crate::error::{VolumeFailed, find};

/// The operating system's number for "the device failed".
const EIO: i32 = 5;

/// So many failures in a row end all writing.
const FAILURES: u32 = 2;

/// The objects of a folder.
#[derive(Debug)]
pub(super) struct Disk {
    files: LocalFileSystem,
    health: Arc<Health>,
    /// Nobody else writes here as long as this store lives.
    _held: Arc<Held>,
}

impl Disk {
    pub(super) fn new(files: LocalFileSystem, held: Arc<Held>) -> Self {
        Self { files, health: Arc::default(), _held: held }
    }

    /// After a failed write the name may be visible all the same. Make sure that what can be read
    /// back is also on the disk, or say that nothing is to be believed any more.
    async fn settle<T>(&self, path: &Path, done: Result<T>) -> Result<T> {
        let Err(error) = &done else {
            self.health.recover();
            return done;
        };
        if self.health.note(error) {
            let file = self.files.path_to_filesystem(path)?;
            if on_disk_thread(move || sync_entry(&file)).await.is_err() {
                self.health.fail();
            }
            self.health.check()?;
        }
        done
    }
}

/// What the disk did lately.
#[derive(Debug, Default)]
struct Health {
    /// Failures since the last success; at [`FAILURES`] it stays there.
    failures: AtomicU32,
}

impl Health {
    fn check(&self) -> Result<()> {
        if self.failures.load(Ordering::Acquire) < FAILURES { Ok(()) } else { Err(failed()) }
    }

    fn recover(&self) {
        // Less than all failures are forgiven; whether there was one to forgive does not matter.
        let _ = self.failures.fetch_update(Ordering::AcqRel, Ordering::Acquire, |failures| {
            (failures < FAILURES).then_some(0)
        });
    }

    fn fail(&self) {
        self.failures.store(FAILURES, Ordering::Release);
        tracing::error!("the disk failed to sync; nothing is written to it any more");
    }

    /// Counts a failure of the device. Says whether what is visible must be synced again.
    fn note(&self, error: &Error) -> bool {
        let cause = find::<io::Error>(error);
        if cause.and_then(io::Error::raw_os_error) == Some(EIO) {
            let before = self.failures.fetch_add(1, Ordering::AcqRel);
            if before + 1 >= FAILURES {
                self.fail();
            }
        }
        // A disk that is full may also have failed in the last step, behind the name.
        cause.is_some_and(|cause| {
            !matches!(cause.kind(), ErrorKind::AlreadyExists | ErrorKind::NotFound)
        })
    }
}

fn failed() -> Error {
    Error::Generic { store: "disk", source: Box::new(VolumeFailed) }
}

impl fmt::Display for Disk {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Disk({})", self.files)
    }
}

#[async_trait]
impl ObjectStore for Disk {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        self.health.check()?;
        let done = self.files.put_opts(location, payload, options).await;
        self.settle(location, done).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.health.check()?;
        // Creating the file blocks for a moment, and making its folder syncs it.
        let (files, path) = (self.files.clone(), location.clone());
        let begun = on_disk_thread(move || {
            let begin = async move { files.put_multipart_opts(&path, options).await };
            Ok(futures_util::FutureExt::now_or_never(begin))
        });
        let Some(inner) = begun.await? else {
            return Err(Error::Generic { store: "disk", source: "creating a file waited".into() });
        };
        Ok(Box::new(DiskUpload { inner: inner?, health: Arc::clone(&self.health) }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.files.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let file = self.files.path_to_filesystem(location)?;
        let ranges = ranges.to_vec();
        on_disk_thread(move || read_ranges(&file, &ranges)).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.files.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.files.list(prefix)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.files.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.files.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.health.check()?;
        self.files.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.health.check()?;
        self.files.rename_opts(from, to, options).await
    }
}

/// A write in parts, watched for failures of the device. It is synced once, at the end.
#[derive(Debug)]
struct DiskUpload {
    inner: Box<dyn MultipartUpload>,
    health: Arc<Health>,
}

#[async_trait]
impl MultipartUpload for DiskUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        self.inner.put_part(data)
    }

    async fn complete(&mut self) -> Result<PutResult> {
        self.health.check()?;
        let done = self.inner.complete().await;
        match &done {
            Ok(_) => self.health.recover(),
            Err(error) => {
                self.health.note(error);
            }
        }
        done
    }

    async fn abort(&mut self) -> Result<()> {
        self.inner.abort().await
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the disk's own steps run where the file system's do: on the runtime's bounded threads"
)]
async fn on_disk_thread<T: Send + 'static>(
    step: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(step).await?
}

fn read_ranges(path: &PathBuf, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
    let mut file = File::open(path).map_err(|error| told(path, error))?;
    let parts = ranges.iter().map(|range| read_range(&mut file, range.clone()));
    parts.collect::<io::Result<_>>().map_err(|error| told(path, error))
}

fn read_range(file: &mut File, range: Range<u64>) -> io::Result<Bytes> {
    let wanted = range.end.saturating_sub(range.start);
    let mut bytes = Vec::with_capacity(usize::try_from(wanted).map_err(io::Error::other)?);
    file.seek(SeekFrom::Start(range.start))?;
    let found = file.take(wanted).read_to_end(&mut bytes)?;
    if found as u64 == wanted { Ok(bytes.into()) } else { Err(ErrorKind::UnexpectedEof.into()) }
}

fn told(path: &FilePath, error: io::Error) -> Error {
    match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => {
            Error::NotFound { path: path.display().to_string(), source: Box::new(error) }
        }
        _ => Error::Generic { store: "disk", source: Box::new(error) },
    }
}

/// Syncs the folder that holds a name, if the name is there.
fn sync_entry(file: &FilePath) -> Result<()> {
    if !file.exists() {
        return Ok(());
    }
    let folder = file.parent().unwrap_or(file);
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(|error| told(folder, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(cause: io::Error) -> Error {
        Error::Generic { store: "disk", source: Box::new(cause) }
    }

    #[test]
    fn two_failures_in_a_row_end_all_writing_and_one_does_not() {
        let eio = || failure(io::Error::from_raw_os_error(EIO));
        let health = Health::default();
        assert!(health.note(&eio()), "what is visible is synced again");
        health.check().expect("one failure is forgiven");
        health.recover();
        health.note(&eio());
        health.check().expect("the count began again");
        health.note(&eio());
        let error = health.check().expect_err("it failed twice in a row");
        assert!(find::<VolumeFailed>(&error).is_some());
        health.recover();
        assert!(health.check().is_err(), "until the next start");
    }

    #[test]
    fn a_full_disk_and_a_taken_name_are_no_failures_of_the_device() {
        let health = Health::default();
        for _ in 0..5 {
            assert!(health.note(&failure(ErrorKind::StorageFull.into())));
            assert!(!health.note(&failure(ErrorKind::AlreadyExists.into())));
        }
        health.check().expect("the device is fine");
    }
}
