//! A commit that is being put together.
//!
//! Operations come one by one and are remembered small: paths and ids. Contents go into packs of a
//! few MiB, which are durable before the log names them (Invariant 5). A draft that is dropped
//! leaves packs that nothing names.

use std::sync::Arc;

use ballast_format::hash::{ObjectHash, Sha256};
use ballast_format::name::{FilePath, RefName};
use ballast_format::object::{ObjectKind, Pointer, hash_object};
use ballast_format::pack::{FileLink, PackBuilder};
use bytes::Bytes;

use super::{ATTRIBUTES_PATH, MAX_REGULAR_BYTES};
use crate::access::{Access, Caller, Repo};
use crate::error::{Error, Result};
use crate::hub::Hub;
use crate::state::repo::{NewPack, RepoState};

/// Contents that are held in memory before they are written as a pack.
const BUFFER_BYTES: usize = 8 << 20;
/// Contents of one commit in all, large files aside.
const MAX_CONTENT_BYTES: u64 = 150 << 20;
/// Operations of one commit.
const MAX_OPERATIONS: usize = 25_000;
const MAX_MESSAGE_BYTES: usize = 64 * 1024;

/// What a commit says of itself.
#[derive(Clone, Debug, Default)]
pub struct CommitHeader {
    /// The first line of its message.
    pub summary: String,
    /// The rest of its message.
    pub description: String,
    /// The commit that must be the tip; 5 to 40 digits of it.
    pub parent: Option<String>,
    /// The branch or pull request to commit to.
    pub revision: String,
    /// Open a pull request with it instead.
    pub create_pull: bool,
}

/// A commit that was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Committed {
    /// Its id; of a commit that would have changed nothing, the tip's.
    pub commit: ObjectHash,
    /// The pull request that it opened.
    pub pull: Option<u32>,
    /// Whether anything changed.
    pub changed: bool,
}

/// One operation, in the order in which they came.
#[derive(Clone, Debug)]
pub(super) enum Operation {
    Put { path: FilePath, id: ObjectHash },
    Copy { from: FilePath, to: FilePath },
    Rename { from: FilePath, to: FilePath },
    DeleteFile(FilePath),
    DeleteFolder(FilePath),
}

/// A commit that is being put together.
pub struct Draft {
    pub(super) hub: Arc<Hub>,
    pub(super) caller: Caller,
    pub(super) repo: Repo,
    pub(super) header: CommitHeader,
    /// The ref to move; nothing: the pull request's that the commit opens.
    pub(super) target: Option<RefName>,
    /// The ref that the commit builds on.
    pub(super) base: RefName,
    pub(super) operations: Vec<Operation>,
    /// Large files that operations name.
    pub(super) links: Vec<(FilePath, FileLink)>,
    /// Blobs that are not yet in a pack.
    pub(super) blobs: Vec<(ObjectHash, Bytes, Option<Pointer>)>,
    buffered: usize,
    content_bytes: u64,
    /// Packs that are durable.
    pub(super) packs: Vec<NewPack>,
    /// The attribute file, if this commit brings one.
    pub(super) attributes: Option<Bytes>,
}

impl Hub {
    /// Begins a commit. Who may write may commit to a branch; who may read may propose.
    pub async fn begin_commit(
        self: &Arc<Self>,
        caller: &Caller,
        repo: Repo,
        header: CommitHeader,
    ) -> Result<Draft> {
        let by = caller.user()?.user;
        let long = header.summary.len() + header.description.len();
        if header.summary.trim().is_empty() || long > MAX_MESSAGE_BYTES {
            let reason = format!("a commit needs a summary, and at most {MAX_MESSAGE_BYTES} bytes");
            return Err(Error::invalid(reason));
        }
        let state = self.repo_state(&repo).await?;
        let base = target_of(&state, &header.revision)?;
        let proposes = state
            .pulls
            .get(&base.pull_number().unwrap_or(0))
            .is_some_and(|pull| pull.author == by);
        if !header.create_pull && !proposes {
            self.repo_by_id(caller, repo.id(), Access::Write)?;
        }
        if repo.record.disabled && !caller.is_admin() {
            return Err(Error::Disabled);
        }
        let target = (!header.create_pull).then(|| base.clone());
        Ok(Draft {
            hub: Arc::clone(self),
            caller: caller.clone(),
            repo,
            header,
            target,
            base,
            operations: Vec::new(),
            links: Vec::new(),
            blobs: Vec::new(),
            buffered: 0,
            content_bytes: 0,
            packs: Vec::new(),
            attributes: None,
        })
    }
}

/// The ref that a commit to this revision builds on: it exists, or is the `main` of an empty repo.
fn target_of(state: &RepoState, revision: &str) -> Result<RefName> {
    let missing = || Error::RevisionNotFound { revision: revision.chars().take(100).collect() };
    let named = [RefName::parse(revision), RefName::branch(revision)];
    let mut named = named.into_iter().flatten().filter(|name| !name.is_tag());
    let first = named.next().ok_or_else(missing)?;
    let found = std::iter::once(first).chain(named).find(|name| {
        state.refs.contains_key(name) || (state.refs.is_empty() && *name == RefName::main())
    });
    found.ok_or_else(missing)
}

impl Draft {
    /// Puts a regular file at a path.
    pub async fn add_file(&mut self, path: FilePath, content: Bytes) -> Result<()> {
        let size = content.len() as u64;
        if size > MAX_REGULAR_BYTES {
            let what = format!("`{path}` as a regular file");
            return Err(Error::TooLarge { what, size, limit: MAX_REGULAR_BYTES });
        }
        if path.as_str() == ATTRIBUTES_PATH {
            self.attributes = Some(content.clone());
        }
        let pointer = Pointer::parse(&content);
        if let Some(pointer) = pointer {
            // Who commits a pointer names the file behind it, and must be allowed to.
            self.link(&path, pointer.sha256, Some(pointer.size)).await?;
        }
        let id = self.add_blob(content, pointer).await?;
        self.operation(Operation::Put { path, id })
    }

    /// Puts a large file at a path: one that the caller uploaded or may read. Its size may be
    /// left out where it is copied.
    pub async fn add_large(
        &mut self,
        path: FilePath,
        sha256: Sha256,
        size: Option<u64>,
    ) -> Result<()> {
        let size = self.link(&path, sha256, size).await?;
        let pointer = Pointer { sha256, size };
        let id = self.add_blob(Bytes::from(pointer.encode()), Some(pointer)).await?;
        self.operation(Operation::Put { path, id })
    }

    /// Puts what is at one path also at another.
    pub fn copy(&mut self, from: FilePath, to: FilePath) -> Result<()> {
        self.operation(Operation::Copy { from, to })
    }

    /// Moves what is at one path to another.
    pub fn rename(&mut self, from: FilePath, to: FilePath) -> Result<()> {
        self.operation(Operation::Rename { from, to })
    }

    /// Takes a file away.
    pub fn delete_file(&mut self, path: FilePath) -> Result<()> {
        self.operation(Operation::DeleteFile(path))
    }

    /// Takes a folder away.
    pub fn delete_folder(&mut self, path: FilePath) -> Result<()> {
        self.operation(Operation::DeleteFolder(path))
    }

    async fn link(&mut self, path: &FilePath, sha256: Sha256, size: Option<u64>) -> Result<u64> {
        let found = self.hub.find_upload(&self.caller, &self.repo, &sha256).await?;
        let Some(link) = found else {
            let reason = format!("`{path}`: no file with the SHA-256 `{sha256}` was uploaded");
            return Err(Error::invalid(reason));
        };
        if size.is_some_and(|size| size != link.size) {
            let reason = format!("`{path}` has {} bytes, not {}", link.size, size.unwrap_or(0));
            return Err(Error::invalid(reason));
        }
        self.links.push((path.clone(), link));
        Ok(link.size)
    }

    fn operation(&mut self, operation: Operation) -> Result<()> {
        if self.operations.len() >= MAX_OPERATIONS {
            let (what, size) = ("the commit".to_owned(), self.operations.len() as u64 + 1);
            return Err(Error::TooLarge { what, size, limit: MAX_OPERATIONS as u64 });
        }
        self.operations.push(operation);
        Ok(())
    }

    pub(super) async fn add_blob(
        &mut self,
        content: Bytes,
        pointer: Option<Pointer>,
    ) -> Result<ObjectHash> {
        let hashed = content.clone();
        let id = self.hub.pool().run(move || hash_object(ObjectKind::Blob, &hashed)).await??;
        if self.hub.object_row(self.repo.id(), &id).await?.is_some() {
            return Ok(id);
        }
        self.content_bytes += content.len() as u64;
        if self.content_bytes > MAX_CONTENT_BYTES {
            let (what, size) = ("the commit's content".to_owned(), self.content_bytes);
            return Err(Error::TooLarge { what, size, limit: MAX_CONTENT_BYTES });
        }
        self.buffered += content.len();
        self.blobs.push((id, content, pointer));
        if self.buffered >= BUFFER_BYTES {
            let blobs = std::mem::take(&mut self.blobs);
            self.buffered = 0;
            let mut pack = PackBuilder::new();
            let mut contents = Vec::with_capacity(blobs.len());
            for (id, content, pointer) in blobs {
                pack.push(id, ObjectKind::Blob, content.len() as u64, pointer);
                contents.push(content);
            }
            let pack = self.hub.store_pack(pack, contents).await?;
            self.packs.push(pack);
        }
        Ok(id)
    }
}
