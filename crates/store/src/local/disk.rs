//! The file system as an object store, and what this machine's disk needs on top of it.
//!
//! A write is acknowledged when the file, its name and every folder above it are on the disk. An
//! error is an unclear answer, which whoever asked settles by reading back, so what is visible
//! after one is made durable too, or nothing is written any more. Ranges are read in one step, into
//! memory that was not cleared first: this is the way of every download.

use std::fmt;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::{BoxStream, StreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, ObjectStoreExt as _, PutMultipartOptions, PutOptions, PutPayload, PutResult,
    RenameOptions, Result, UploadPart,
};

use super::cached::{Buffers, read_cached};
use super::folders::Folders;
use super::health::{Health, is_device_failure, is_plain_refusal};
use super::lock::Held;
use super::space::Space;
use crate::error::{ShortFile, find};

/// How many objects are deleted at once.
const DELETES_AT_ONCE: usize = 10;

/// The objects of a folder.
#[derive(Clone, Debug)]
pub(super) struct Disk {
    shared: Arc<Shared>,
}

/// What a disk is made of.
#[derive(Debug)]
pub(super) struct Shared {
    /// The file system's own way to write, list and delete.
    pub(super) files: Arc<dyn ObjectStore>,
    /// The folder that it works in.
    pub(super) root: PathBuf,
    pub(super) folders: Arc<Folders>,
    pub(super) space: Space,
    pub(super) health: Health,
    pub(super) buffers: Arc<Buffers>,
    /// Nobody else writes here as long as this store lives.
    pub(super) held: Arc<Held>,
}

impl Disk {
    pub(super) fn new(shared: Shared) -> Self {
        Self { shared: Arc::new(shared) }
    }

    /// Runs a step on a thread that may block.
    async fn on_thread<T: Send + 'static>(
        &self,
        step: impl FnOnce(&Shared) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let shared = Arc::clone(&self.shared);
        on_disk_thread(move || step(&shared)).await
    }

    /// What must be so before a write begins.
    async fn prepare(&self, path: &Path) -> Result<()> {
        self.shared.health.check()?;
        let path = path.clone();
        let ready = self.on_thread(move |shared| {
            shared.space.check(&path).map_err(generic)?;
            shared.make_folders(&path)
        });
        ready.await.inspect_err(|error| self.shared.health.note(error))
    }

    /// Decides what a write's answer means, and makes durable what can be seen of it.
    async fn settle<T: Send + 'static>(&self, path: &Path, done: Result<T>) -> Result<T> {
        match done {
            Ok(done) => {
                self.settle_success(path).await?;
                self.shared.health.recover();
                Ok(done)
            }
            Err(error) => {
                self.settle_failure(path, &error).await?;
                Err(error)
            }
        }
    }

    /// The folders were durable before the write; a delete may have taken them along since, and
    /// another writer brought them back.
    async fn settle_success(&self, path: &Path) -> Result<()> {
        if self.shared.folders.are_durable(&self.shared.file(path)) {
            return Ok(());
        }
        let path = path.clone();
        let made = self.on_thread(move |shared| shared.make_folders(&path)).await;
        made.inspect_err(|error| self.shared.health.note(error))
    }

    /// After a failed write the name may be visible all the same. Whoever asked reads back and
    /// believes what is there, so it must be on the disk.
    async fn settle_failure(&self, path: &Path, error: &Error) -> Result<()> {
        self.shared.health.note(error);
        if is_plain_refusal(error) {
            return Ok(());
        }
        let (path, device_failed) = (path.clone(), is_device_failure(error));
        let synced = self.on_thread(move |shared| {
            let file = shared.file(&path);
            if !file.exists() {
                return Ok(());
            }
            // The failure came behind the name, so it was the folder's; the kernel has told of it,
            // and its next word is worth nothing. (Or the name was there before. Then this goes
            // too far, on a disk that fails.)
            if device_failed {
                shared.health.fail();
            }
            shared.health.check()?;
            let folders = &shared.folders;
            match folders.make_durable(&file).and_then(|()| folders.sync_name(&file)) {
                // Swept in between: nobody can read it back.
                Err(error) if error.is_gone() => Ok(()),
                done => done.map_err(generic),
            }
        });
        synced.await.inspect_err(|_| self.shared.health.fail())
    }

    async fn put_once(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        self.prepare(location).await?;
        let done = self.shared.files.put_opts(location, payload, options).await;
        self.settle(location, done).await
    }
}

impl Shared {
    fn file(&self, path: &Path) -> PathBuf {
        // A key has no word that a file system reads in its own way.
        self.root.join(path.as_ref())
    }

    fn make_folders(&self, path: &Path) -> Result<()> {
        self.folders.make_durable(&self.file(path)).map_err(generic)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if self.health.check().is_err() {
            self.held.set_sound(false);
        }
    }
}

impl fmt::Display for Disk {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Disk({})", self.shared.files)
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
        let done = self.put_once(location, payload.clone(), options.clone()).await;
        if !done.as_ref().is_err_and(is_full) {
            return done;
        }
        let path = location.clone();
        if self.on_thread(move |shared| Ok(shared.space.spend(&path))).await? {
            return self.put_once(location, payload, options).await;
        }
        done
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.prepare(location).await?;
        // Creating the file blocks for a moment.
        let path = location.clone();
        let begun = self.on_thread(move |shared| {
            let begin = shared.files.put_multipart_opts(&path, options);
            Ok(futures_util::FutureExt::now_or_never(begin))
        });
        let Some(inner) = begun.await? else {
            return Err(Error::Generic { store: "disk", source: "creating a file waited".into() });
        };
        Ok(Box::new(DiskUpload { inner: inner?, path: location.clone(), disk: self.clone() }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.shared.files.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        if let Some(cached) = read_cached(&self.shared.file(location), ranges, &self.shared.buffers)
        {
            return Ok(cached);
        }
        let (path, ranges) = (location.clone(), ranges.to_vec());
        self.on_thread(move |shared| read_ranges(&shared.file(&path), &ranges)).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let shared = Arc::clone(&self.shared);
        locations
            .map(move |path| {
                let shared = Arc::clone(&shared);
                async move {
                    let path = path?;
                    let _deleting = shared.folders.deleting(&shared.file(&path));
                    shared.files.delete(&path).await.map(|()| path)
                }
            })
            .buffered(DELETES_AT_ONCE)
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.shared.files.list(prefix)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.shared.files.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.shared.files.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.prepare(to).await?;
        let done = self.shared.files.copy_opts(from, to, options).await;
        self.settle(to, done).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.prepare(to).await?;
        let _deleting = self.shared.folders.deleting(&self.shared.file(from));
        let done = self.shared.files.rename_opts(from, to, options).await;
        self.settle(to, done).await
    }
}

/// A write in parts. It is synced once, at the end.
#[derive(Debug)]
struct DiskUpload {
    inner: Box<dyn MultipartUpload>,
    path: Path,
    disk: Disk,
}

#[async_trait]
impl MultipartUpload for DiskUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        self.inner.put_part(data)
    }

    async fn complete(&mut self) -> Result<PutResult> {
        self.disk.shared.health.check()?;
        let done = self.inner.complete().await;
        if done.is_err() {
            // The file system lets go of its file here, and the disk may be full.
            let path = self.path.clone();
            let remove = move |shared: &Shared| remove_staged(&shared.file(&path));
            self.disk.on_thread(remove).await?;
        }
        self.disk.settle(&self.path, done).await
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

fn read_ranges(path: &FilePath, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
    let mut file = File::open(path).map_err(|error| told(path, error))?;
    ranges.iter().map(|range| read_range(&mut file, path, range.clone())).collect()
}

fn read_range(file: &mut File, path: &FilePath, range: Range<u64>) -> Result<Bytes> {
    let wanted = range.end.saturating_sub(range.start);
    let read = |file: &mut File| -> io::Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(usize::try_from(wanted).map_err(io::Error::other)?);
        file.seek(SeekFrom::Start(range.start))?;
        file.take(wanted).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read(file).map_err(|error| told(path, error))?;
    if bytes.len() as u64 == wanted {
        Ok(bytes.into())
    } else {
        Err(generic(ShortFile { end: range.start + bytes.len() as u64 }))
    }
}

/// Removes what is staged for a name that is nobody else's. What stays all the same, the next start
/// after a crash removes.
fn remove_staged(file: &FilePath) -> Result<()> {
    let (Some(folder), Some(name)) = (file.parent(), file.file_name()) else { return Ok(()) };
    let name = name.to_string_lossy();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let found = entry.file_name();
        let is_ours = found.to_string_lossy().strip_prefix(name.as_ref()).map(super::is_leftover);
        if is_ours == Some(true) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
    Ok(())
}

fn told(path: &FilePath, error: io::Error) -> Error {
    match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => {
            Error::NotFound { path: path.display().to_string(), source: Box::new(error) }
        }
        _ => generic(error),
    }
}

fn generic(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::Generic { store: "disk", source: Box::new(error) }
}

fn is_full(error: &Error) -> bool {
    find::<io::Error>(error).is_some_and(|cause| cause.kind() == ErrorKind::StorageFull)
}

#[cfg(test)]
mod tests;
