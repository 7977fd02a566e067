//! Tests of the disk over a file system that fails behind the name.

use std::collections::VecDeque;
use std::sync::Mutex;

use object_store::local::LocalFileSystem;
use object_store::{ObjectStoreExt, PutMode};
use tempfile::TempDir;

use super::super::lock::LastStop;
use super::super::volume::Volume;
use super::super::volume::shaky::{EIO, Shaky};
use super::*;
use crate::error::VolumeFailed;

const ENOSPC: i32 = 28;

/// Does what it is asked, and then says that it failed.
#[derive(Debug)]
struct LateFailures {
    inner: LocalFileSystem,
    failures: Arc<Mutex<VecDeque<i32>>>,
}

fn late<T>(failures: &Mutex<VecDeque<i32>>, done: Result<T>) -> Result<T> {
    match failures.lock().expect("no panic").pop_front() {
        Some(failure) => done.and(Err(generic(io::Error::from_raw_os_error(failure)))),
        None => done,
    }
}

impl fmt::Display for LateFailures {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("LateFailures")
    }
}

#[async_trait]
impl ObjectStore for LateFailures {
    async fn put_opts(&self, at: &Path, bytes: PutPayload, how: PutOptions) -> Result<PutResult> {
        late(&self.failures, self.inner.put_opts(at, bytes, how).await)
    }

    async fn put_multipart_opts(
        &self,
        at: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let inner = self.inner.put_multipart_opts(at, options).await?;
        Ok(Box::new(LateUpload { inner, failures: Arc::clone(&self.failures) }))
    }

    async fn get_opts(&self, at: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(at, options).await
    }

    fn delete_stream(
        &self,
        all: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(all)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

#[derive(Debug)]
struct LateUpload {
    inner: Box<dyn MultipartUpload>,
    failures: Arc<Mutex<VecDeque<i32>>>,
}

#[async_trait]
impl MultipartUpload for LateUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        self.inner.put_part(data)
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let done = self.inner.complete().await;
        late(&self.failures, done)
    }

    async fn abort(&mut self) -> Result<()> {
        self.inner.abort().await
    }
}

struct Rig {
    disk: Disk,
    volume: Arc<Shaky>,
    /// What the file system says after its next writes.
    failures: Arc<Mutex<VecDeque<i32>>>,
    folder: TempDir,
}

impl Rig {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let root = folder.path().join("objects");
        std::fs::create_dir(&root).expect("creates");
        let inner = LocalFileSystem::new_with_prefix(&root).expect("opens").with_fsync(true);
        let failures = Arc::default();
        let volume = Arc::new(Shaky::new());
        let shared = Arc::clone(&volume) as Arc<dyn Volume>;
        let held = Arc::new(Held::take(folder.path()).expect("it is free").0);
        let reserve = folder.path().join("reserve");
        let disk = Disk::new(Shared {
            files: Arc::new(LateFailures { inner, failures: Arc::clone(&failures) }),
            folders: Arc::new(Folders::new(root.clone(), Arc::clone(&shared))),
            space: Space::new(root.clone(), reserve, shared, 0),
            health: Health::default(),
            buffers: Arc::default(),
            held,
            root,
        });
        Self { disk, volume, failures, folder }
    }

    fn folder(&self, name: &str) -> PathBuf {
        self.folder.path().join("objects").join(name)
    }

    async fn put(&self, path: &str) -> Result<PutResult> {
        let create = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        self.disk.put_opts(&Path::from(path), PutPayload::from_static(b"x"), create).await
    }

    async fn put_in_parts(&self, path: &str) -> Result<PutResult> {
        let mut upload = self.disk.put_multipart(&Path::from(path)).await?;
        upload.put_part(PutPayload::from_static(b"x")).await?;
        upload.complete().await
    }

    fn fail_late(&self, errors: &[i32]) {
        self.failures.lock().expect("no panic").extend(errors);
    }
}

fn is_failed<T>(answer: &Result<T>) -> bool {
    answer.as_ref().is_err_and(|error| find::<VolumeFailed>(error).is_some())
}

#[tokio::test]
async fn a_write_is_acknowledged_when_every_folder_above_it_is_on_the_disk() {
    let rig = Rig::new();
    // Another writer made the folders a moment ago, and did not sync them.
    std::fs::create_dir_all(rig.folder("a/b")).expect("creates");
    rig.put("a/b/c").await.expect("puts");
    assert_eq!(rig.volume.take_synced(), ["", "a"].map(|name| rig.folder(name)));
    rig.put_in_parts("a/b/d").await.expect("puts");
    assert!(rig.volume.take_synced().is_empty(), "both are known");
}

#[tokio::test]
async fn a_folder_that_failed_to_sync_is_not_believed_at_the_next_try() {
    let rig = Rig::new();
    rig.volume.fail_next(&[EIO]);
    assert!(rig.put("a/b").await.is_err());
    assert!(is_failed(&rig.put("a/b").await));
    assert!(is_failed(&rig.put_in_parts("a/c").await));
}

#[tokio::test]
async fn a_folder_that_could_not_be_synced_on_a_full_disk_is_synced_at_the_next_try() {
    let rig = Rig::new();
    rig.volume.fail_next(&[ENOSPC]);
    assert!(rig.put("a/b").await.is_err());
    rig.put("a/b").await.expect("puts");
    assert_eq!(rig.volume.take_synced(), [rig.folder("")]);
}

#[tokio::test]
async fn after_a_failure_behind_the_name_nothing_is_written_any_more() {
    for in_parts in [false, true] {
        let rig = Rig::new();
        rig.fail_late(&[EIO]);
        let answer = if in_parts { rig.put_in_parts("a/b").await } else { rig.put("a/b").await };
        assert!(is_failed(&answer), "{answer:?}");
        assert!(is_failed(&rig.put("c").await));
        assert!(rig.disk.get(&Path::from("a/b")).await.is_ok(), "reading goes on");
        let Rig { disk, folder, .. } = rig;
        drop(disk);
        let (_, last_stop) = Held::take(folder.path()).expect("it is free");
        assert_eq!(last_stop, LastStop::Unclean, "the next start does not believe it either");
    }
}

#[tokio::test]
async fn what_is_visible_after_an_unclear_answer_is_on_the_disk() {
    for in_parts in [false, true] {
        let rig = Rig::new();
        rig.put("a/first").await.expect("puts");
        rig.volume.take_synced();
        rig.fail_late(&[ENOSPC]);
        let answer = if in_parts { rig.put_in_parts("a/b").await } else { rig.put("a/b").await };
        assert!(answer.is_err() && !is_failed(&answer), "{answer:?}");
        assert_eq!(rig.volume.take_synced(), [rig.folder("a")]);
        rig.put("a/c").await.expect("the disk is fine");
        rig.volume.take_synced();

        rig.fail_late(&[ENOSPC]);
        rig.volume.fail_next(&[ENOSPC]);
        assert!(rig.put("a/d").await.is_err());
        assert!(is_failed(&rig.put("a/e").await), "nobody knows what is on the disk");
    }
}

#[tokio::test]
async fn a_name_that_is_taken_is_on_the_disk_before_the_loser_hears_of_it() {
    let rig = Rig::new();
    rig.put("a/b").await.expect("puts");
    rig.volume.take_synced();
    let answer = rig.put("a/b").await;
    assert!(matches!(answer, Err(Error::AlreadyExists { .. })), "{answer:?}");
    assert_eq!(rig.volume.take_synced(), [rig.folder("a")]);
}

#[tokio::test]
async fn a_write_in_parts_that_fails_at_its_end_leaves_no_file() {
    let rig = Rig::new();
    let path = Path::from("a/b");
    let mut upload = rig.disk.put_multipart(&path).await.expect("begins");
    upload.put_part(PutPayload::from_static(b"x")).await.expect("takes it");
    // The name is a folder, so the file can't be given it.
    std::fs::create_dir_all(rig.folder("a/b/c")).expect("creates");
    assert!(upload.complete().await.is_err());
    drop(upload);
    let left: Vec<_> = std::fs::read_dir(rig.folder("a")).expect("reads").flatten().collect();
    assert_eq!(left.len(), 1, "{left:?}");
}
