//! A commit that is being put together.
//!
//! Operations come one by one and are remembered small: paths and ids. They are applied at the end,
//! in order, to the tree that the commit builds on. A draft that is dropped leaves at most packs
//! that nothing names.

use std::collections::HashMap;
use std::sync::Arc;

use ballast_format::hash::{ObjectHash, Sha256};
use ballast_format::log::TokenRole;
use ballast_format::name::{FilePath, RefName};
use ballast_format::object::Pointer;
use ballast_format::pack::FileLink;
use bytes::Bytes;

use super::spool::Spool;
use super::{ATTRIBUTES_PATH, MAX_REGULAR_BYTES};
use crate::access::{Access, Caller, Repo};
use crate::error::{Error, Result};
use crate::hub::Hub;
use crate::state::repo::RepoState;

/// Operations of one commit.
const MAX_OPERATIONS: usize = 25_000;
const MAX_MESSAGE_BYTES: usize = 64 * 1024;
/// The attribute file of a commit: what can be read again when lines are added to it.
pub(super) const MAX_ATTRIBUTES_BYTES: u64 = 4 << 20;

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
    pub(super) spool: Spool,
    /// Large files that operations name: the caller may.
    pub(super) links: HashMap<Sha256, FileLink>,
    /// Whether the hub itself makes it, so that nobody's rights are asked for.
    pub(super) is_ours: bool,
}

impl Hub {
    /// Begins a commit. Who may write may commit to a branch; who may read the files may propose.
    pub async fn begin_commit(
        self: &Arc<Self>,
        caller: &Caller,
        repo: Repo,
        header: CommitHeader,
    ) -> Result<Draft> {
        let by = caller.user()?;
        let long = header.summary.len() + header.description.len();
        if header.summary.trim().is_empty() || long > MAX_MESSAGE_BYTES {
            let reason = format!("a commit needs a summary, and at most {MAX_MESSAGE_BYTES} bytes");
            return Err(Error::invalid(reason));
        }
        if repo.record.disabled && !caller.is_admin() {
            return Err(Error::Disabled);
        }
        repo.is_ours_to_change()?;
        let state = self.repo_state(&repo).await?;
        let base = target_of(&state, &header.revision)?;
        let pull = base.pull_number().and_then(|number| state.pulls.get(&number));
        let proposes = header.create_pull || pull.is_some_and(|pull| pull.author == by.user);
        let writes = self.repo_by_id(caller, repo.id(), Access::Write);
        // A token that may only read, or only here and there, proposes nothing (R18).
        if !proposes || by.role != TokenRole::Write {
            writes?;
        } else if writes.is_err() {
            // Naming a file by its hash would tell whether the repo has it (R17).
            self.may_read_files(caller, &repo)?;
        }
        Ok(Draft::new(self, caller, repo, header, base))
    }
}

/// The ref that a commit to this revision builds on: it exists, or is the `main` of an empty repo.
fn target_of(state: &RepoState, revision: &str) -> Result<RefName> {
    let missing = || Error::RevisionNotFound { revision: revision.chars().take(100).collect() };
    let named = [RefName::parse(revision), RefName::branch(revision)];
    let is_target =
        |name: &RefName| !name.is_tag() && (state.refs.contains_key(name) || is_first(state, name));
    named.into_iter().flatten().find(is_target).ok_or_else(missing)
}

/// Whether a first commit would make this ref.
pub(super) fn is_first(state: &RepoState, name: &RefName) -> bool {
    state.refs.is_empty() && *name == RefName::main()
}

impl Draft {
    pub(super) fn new(
        hub: &Arc<Hub>,
        caller: &Caller,
        repo: Repo,
        header: CommitHeader,
        base: RefName,
    ) -> Self {
        Self {
            hub: Arc::clone(hub),
            caller: caller.clone(),
            spool: Spool::new(repo.id()),
            repo,
            target: (!header.create_pull).then(|| base.clone()),
            header,
            base,
            operations: Vec::new(),
            links: HashMap::new(),
            is_ours: false,
        }
    }

    /// Whether the caller may still do this at the moment when it becomes visible (R18).
    pub(super) fn confirm(&self, state: &RepoState) -> Result<()> {
        if self.is_ours {
            return Ok(());
        }
        let pull = self.base.pull_number().and_then(|number| state.pulls.get(&number));
        let is_own = pull.is_some_and(|pull| Some(pull.author) == self.caller.user_id());
        let want = if self.target.is_none() || is_own { Access::Read } else { Access::Write };
        self.hub.confirm_by_id(&self.caller, self.repo.id(), want)?;
        Ok(())
    }

    /// Puts a regular file at a path.
    pub async fn add_file(&mut self, path: FilePath, content: Bytes) -> Result<()> {
        self.check_room()?;
        let is_attributes = path.as_str() == ATTRIBUTES_PATH;
        let limit = if is_attributes { MAX_ATTRIBUTES_BYTES } else { MAX_REGULAR_BYTES };
        let size = content.len() as u64;
        if size > limit {
            return Err(Error::TooLarge {
                what: format!("`{path}` as a regular file"),
                size,
                limit,
            });
        }
        if let Some(pointer) = Pointer::parse(&content) {
            // Who commits a pointer names the file behind it, and must be allowed to.
            self.link(&path, pointer.sha256, Some(pointer.size)).await?;
        }
        let id = self.spool.add(&self.hub, content).await?;
        self.operations.push(Operation::Put { path, id });
        Ok(())
    }

    /// Puts a large file at a path: one that the caller uploaded or may read. Its size may be
    /// left out where it is copied.
    pub async fn add_large(
        &mut self,
        path: FilePath,
        sha256: Sha256,
        size: Option<u64>,
    ) -> Result<()> {
        self.check_room()?;
        let size = self.link(&path, sha256, size).await?;
        let pointer = Pointer { sha256, size };
        let id = self.spool.add(&self.hub, Bytes::from(pointer.encode())).await?;
        self.operations.push(Operation::Put { path, id });
        Ok(())
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

    /// The size of a large file that the caller may name.
    async fn link(&mut self, path: &FilePath, sha256: Sha256, size: Option<u64>) -> Result<u64> {
        let link = if let Some(link) = self.links.get(&sha256) {
            *link
        } else {
            let learnt = self.hub.repos.learnt();
            let found = self.hub.find_upload_anywhere(&self.caller, &self.repo, &sha256).await;
            let mut found = found?;
            let repo = self.repo.id();
            if found.is_none() && self.hub.learn_repos(&self.caller, repo, learnt).await? {
                found = self.hub.find_upload(&self.caller, &self.repo, &sha256).await?;
            }
            found.ok_or_else(|| {
                Error::invalid(format!("`{path}`: no file with SHA-256 `{sha256}` was uploaded"))
            })?
        };
        if let Some(size) = size.filter(|size| *size != link.size) {
            let reason = format!("`{path}` has {} bytes, not {size}", link.size);
            return Err(Error::invalid(reason));
        }
        self.links.insert(sha256, link);
        Ok(link.size)
    }

    fn check_room(&self) -> Result<()> {
        if self.operations.len() < MAX_OPERATIONS {
            return Ok(());
        }
        let (what, size) = ("the commit".to_owned(), self.operations.len() as u64 + 1);
        Err(Error::TooLarge { what, size, limit: MAX_OPERATIONS as u64 })
    }

    fn operation(&mut self, operation: Operation) -> Result<()> {
        self.check_room()?;
        self.operations.push(operation);
        Ok(())
    }
}
