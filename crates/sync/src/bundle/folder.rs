//! The folder of a bundle: which files it has, and how they are read and written.
//!
//! Names are made of fixed words and numbers; nothing that stands in a bundle is ever one. A file
//! gets its name when all of it is durable.

use std::fs::{self, File};
use std::io::{ErrorKind, Read as _, Write as _};
use std::num::NonZeroU64;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ballast_format::bundle::{Directory, TAIL_BYTES, VolumeHead};
use ballast_node::pool::Pool;
use bytes::Bytes;
use rustix::fs::{Advice, fadvise};

use super::error::{Error, Result};
use crate::buffers::Buffers;

/// The signed statement.
pub(super) const STATEMENT: &str = "bundle.ballast";
/// The list of contents.
pub(super) const CONTENTS: &str = "contents.ballast";
/// The bill of materials.
pub(super) const MATERIALS: &str = "materials.cdx.json";

/// The name of a volume.
pub(super) fn volume_name(number: u32) -> String {
    format!("{number:04}.ballast")
}

/// Files that are read or written at the same time.
const AT_ONCE: usize = 4;
/// Bytes that are written before the disk is told to begin with them.
const BEGIN_EVERY: u64 = 8 << 20;

/// A bundle's folder. Reading and writing have threads of their own: what is read ahead may hold
/// one while nobody looks at it, and whoever hashes must not wait for that.
#[derive(Clone, Debug)]
pub(super) struct Folder {
    path: Arc<PathBuf>,
    /// For hashing.
    pool: Pool,
    /// For reading and writing.
    files: Pool,
    buffers: Buffers,
}

/// A volume that can be read.
#[derive(Clone, Debug)]
pub(super) struct Volume {
    pub(super) name: String,
    pub(super) head: VolumeHead,
    pub(super) directory: Directory,
    /// The BLAKE3 of its directory.
    pub(super) directory_hash: [u8; 32],
    pub(super) bytes: u64,
    file: Arc<File>,
    folder: Folder,
}

impl Folder {
    pub(super) fn new(path: &Path, pool: &Pool) -> Self {
        let files = Pool::new(AT_ONCE);
        let buffers = Buffers::default();
        Self { path: Arc::new(path.to_owned()), pool: pool.clone(), files, buffers }
    }

    pub(super) fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Does something with the path of a file, where it may take its time.
    async fn with<T: Send + 'static>(
        &self,
        name: &str,
        job: impl FnOnce(&Path) -> std::io::Result<T> + Send + 'static,
    ) -> Result<T> {
        let path = self.path.join(name);
        let done = self.files.run(move || job(&path)).await?;
        done.map_err(|error| Error::File { file: name.to_owned(), error })
    }

    /// Makes the folder, if there is none.
    pub(super) async fn create(&self) -> Result<()> {
        self.with("", |path| fs::create_dir_all(path)).await
    }

    /// A whole file of at most so many bytes; nothing if there is none.
    pub(super) async fn read(&self, name: &str, limit: usize) -> Result<Option<Vec<u8>>> {
        let read = self.with(name, move |path| {
            let file = match File::open(path) {
                Ok(file) => file,
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(error),
            };
            let mut bytes = Vec::new();
            file.take(limit as u64 + 1).read_to_end(&mut bytes)?;
            Ok(Some(bytes))
        });
        let bytes = read.await?;
        if bytes.as_ref().is_some_and(|bytes| bytes.len() > limit) {
            return Err(Error::damaged(name, format!("it is longer than {limit} bytes")));
        }
        Ok(bytes)
    }

    /// Writes a file that is there whole or not at all.
    pub(super) async fn write(&self, name: &str, bytes: Vec<u8>) -> Result<()> {
        let mut file = self.begin(name).await?;
        file.write(Bytes::from(bytes)).await?;
        file.publish().await
    }

    /// Begins a file that nobody sees before it is whole.
    pub(super) async fn begin(&self, name: &str) -> Result<NewFile> {
        let part = format!("{name}.part");
        let file = self.with(&part, |path| File::create(path)).await?;
        let state = Some(Written { file, hasher: blake3::Hasher::new(), bytes: 0, begun: 0..0 });
        Ok(NewFile { folder: self.clone(), name: name.to_owned(), state })
    }

    /// Takes away what an interrupted run left behind of this file.
    pub(super) async fn clear(&self, name: &str) -> Result<()> {
        self.with(&format!("{name}.part"), |path| match fs::remove_file(path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        })
        .await
    }

    /// Makes the names of all files durable.
    pub(super) async fn sync(&self) -> Result<()> {
        self.with("", |path| File::open(path)?.sync_all()).await
    }

    /// Opens a volume; nothing if there is none. One that does not begin and end as a volume is
    /// damaged.
    pub(super) async fn volume(&self, number: u32) -> Result<Option<Volume>> {
        let name = volume_name(number);
        let opened = self.with(&name, |path| match File::open(path) {
            Ok(file) => {
                let bytes = file.metadata()?.len();
                Ok(Some((file, bytes)))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        });
        let Some((file, bytes)) = opened.await? else { return Ok(None) };
        let file = Arc::new(file);
        let damaged = |error: &dyn ToString| Error::damaged(&name, error.to_string());
        if bytes < (VolumeHead::BYTES + TAIL_BYTES) as u64 {
            return Err(damaged(&"it is too short"));
        }
        let read = |range| self.read_at(&name, &file, range);
        let head = VolumeHead::decode(&read(0..VolumeHead::BYTES as u64).await?);
        let head = head.map_err(|error| damaged(&error))?;
        let tail = read(bytes - TAIL_BYTES as u64..bytes).await?;
        let length = Directory::tail_length(&tail).map_err(|error| damaged(&error))? as u64;
        let start = bytes.checked_sub(length).ok_or_else(|| damaged(&"it is too short"))?;
        let tail = read(start..bytes).await?;
        let directory = Directory::decode(&tail, bytes).map_err(|error| damaged(&error))?;
        let directory_hash = tail[tail.len() - TAIL_BYTES..][..32].try_into();
        let directory_hash = directory_hash.expect("32 bytes were cut");
        let (name, folder) = (name.clone(), self.clone());
        Ok(Some(Volume { name, head, directory, directory_hash, bytes, file, folder }))
    }

    async fn read_at(&self, name: &str, file: &Arc<File>, range: Range<u64>) -> Result<Bytes> {
        let (file, buffers) = (Arc::clone(file), self.buffers.clone());
        let read = self.files.run(move || {
            let length = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
            let mut buffer = buffers.take(length);
            file.read_exact_at(buffer.bytes_mut(), range.start).map(|()| buffer.freeze())
        });
        match read.await? {
            Ok(bytes) => Ok(bytes),
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                Err(Error::damaged(name, "it is cut short"))
            }
            // What a disk can't read is damage, too.
            Err(error) => Err(Error::damaged(name, error)),
        }
    }
}

impl Volume {
    /// Where hashing is done.
    pub(super) fn pool(&self) -> &Pool {
        &self.folder.pool
    }

    /// These bytes of it.
    pub(super) async fn read(&self, range: Range<u64>) -> Result<Bytes> {
        self.folder.read_at(&self.name, &self.file, range).await
    }
}

/// A file on its way. Dropped before it is published, it leaves a part that the next run takes
/// away.
pub(super) struct NewFile {
    folder: Folder,
    name: String,
    /// None after a failure: then the file is no file any more.
    state: Option<Written>,
}

/// What is written so far.
struct Written {
    file: File,
    hasher: blake3::Hasher,
    bytes: u64,
    /// The last of it that the disk was told to begin with.
    begun: Range<u64>,
}

impl Written {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.file.write_all(bytes)?;
        self.hasher.update(bytes);
        self.bytes += bytes.len() as u64;
        if self.bytes >= self.begun.end + BEGIN_EVERY {
            // The disk begins with what is new, so that the sync at the end finds little to do, and
            // memory keeps nothing of what was before, which is on the disk by now. Nothing hangs
            // on either.
            let behind = NonZeroU64::new(self.bytes - self.begun.start);
            let _ = fadvise(&self.file, self.begun.start, behind, Advice::DontNeed);
            self.begun = self.begun.end..self.bytes;
        }
        Ok(())
    }
}

impl NewFile {
    /// Appends bytes.
    pub(super) async fn write(&mut self, bytes: Bytes) -> Result<()> {
        let mut state = self.take()?;
        let written = self.folder.files.run(move || state.write(&bytes).map(|()| state));
        let failed = |error| Error::File { file: self.name.clone(), error };
        self.state = Some(written.await?.map_err(failed)?);
        Ok(())
    }

    fn take(&mut self) -> Result<Written> {
        let given_up = || Error::refused(format!("`{}` was given up", self.name));
        self.state.take().ok_or_else(given_up)
    }

    /// How many bytes it has so far, and their BLAKE3.
    pub(super) fn sum(&self) -> (u64, [u8; 32]) {
        let sum = |written: &Written| (written.bytes, *written.hasher.finalize().as_bytes());
        self.state.as_ref().map_or((0, [0; 32]), sum)
    }

    /// Makes it durable and gives it its name.
    pub(super) async fn publish(mut self) -> Result<()> {
        let Written { file, .. } = self.take()?;
        let name = self.name.clone();
        self.folder
            .with(&format!("{name}.part"), move |part| {
                file.sync_all()?;
                fs::rename(part, part.with_file_name(name))
            })
            .await
    }
}
