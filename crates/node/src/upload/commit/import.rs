//! A revision of an upstream comes in: the same trees, the same blobs, one pack, one log entry.
//!
//! What can be verified is: each blob by its git id. What can't, the commit's own id, is kept as
//! the upstream claims it (ADR 18). Large files need not be here: a pointer names them, and their
//! content follows when somebody asks for it.

use std::collections::BTreeSet;
use std::sync::Arc;

use ballast_format::hash::ObjectHash;
use ballast_format::log::RepoChange;
use ballast_format::name::{FilePath, RefName};
use ballast_format::object::{EntryMode, ObjectKind, Pointer, UpstreamCommit};
use bytes::Bytes;

use super::folder::{File, Folder};
use super::spool::{NewCommit, Spool};
use crate::access::Repo;
use crate::error::{Error, Result};
use crate::hub::Hub;
use crate::repo::MAX_REFS;

/// What is kept of a title and of a message.
const MAX_TITLE_BYTES: usize = 4 << 10;
const MAX_MESSAGE_BYTES: usize = 64 << 10;
/// How many authors are kept, and of each name how much.
const MAX_AUTHORS: usize = 100;
const MAX_AUTHOR_BYTES: usize = 256;
/// Files, large ones aside, may have so many bytes in all.
const MAX_IMPORT_BYTES: u64 = 4 << 30;

/// What an upstream says of a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamFacts {
    /// Its id.
    pub id: ObjectHash,
    /// Who made it.
    pub authors: Vec<String>,
    /// When, in unix seconds.
    pub time_seconds: i64,
    /// The first line of its message.
    pub title: String,
    /// The rest of its message.
    pub message: String,
}

impl UpstreamFacts {
    /// Of a commit that is here: nothing more is needed to set refs to it.
    pub fn known(id: ObjectHash) -> Self {
        let (title, message) = (String::new(), String::new());
        Self { id, authors: Vec::new(), time_seconds: 0, title, message }
    }
}

/// A revision that is being put together. Dropped, it leaves at most packs that nothing names.
pub struct Import {
    hub: Arc<Hub>,
    repo: Repo,
    upstream: String,
    spool: Spool,
    folder: Folder,
}

impl Hub {
    /// Begins to bring in a revision of a mirror. For origins.
    pub fn begin_import(self: &Arc<Self>, repo: &Repo) -> Result<Import> {
        let upstream = repo.record.upstream.clone().ok_or_else(|| {
            Error::denied(format!("`{}` is no mirror: its commits are its own", repo.name()))
        })?;
        Ok(Import {
            hub: Arc::clone(self),
            repo: repo.clone(),
            upstream,
            spool: Spool::with_limit(repo.id(), MAX_IMPORT_BYTES),
            folder: Folder::default(),
        })
    }

    /// Whether a mirror has this commit of its upstream.
    pub async fn has_commit(&self, repo: &Repo, id: &ObjectHash) -> Result<bool> {
        // The log as it is now: what the index has of it is read.
        self.state_of(repo.id()).await?;
        Ok(self.object_row(repo.id(), id).await?.is_some_and(|row| row.kind.is_commit()))
    }
}

impl Import {
    /// Which of these blobs need not come again.
    pub async fn known(&self, ids: &[ObjectHash]) -> Result<Vec<bool>> {
        self.hub.known_objects(self.repo.id(), ids).await
    }

    /// Takes in a file that the upstream keeps as it is, even one that looks like a pointer. It is
    /// the blob of this id, or nothing is taken.
    pub async fn add_blob(&mut self, id: ObjectHash, content: Bytes) -> Result<()> {
        self.add(id, content, None).await
    }

    /// Takes in the pointer to a large file.
    pub async fn add_pointer(&mut self, id: ObjectHash, content: Bytes) -> Result<()> {
        let pointer = Pointer::parse(&content);
        let pointer =
            pointer.ok_or_else(|| Error::invalid(format!("the blob `{id}` is no pointer")))?;
        self.add(id, content, Some(pointer)).await
    }

    async fn add(
        &mut self,
        id: ObjectHash,
        content: Bytes,
        pointer: Option<Pointer>,
    ) -> Result<()> {
        let actual = self.spool.add_as(&self.hub, content, pointer).await?;
        if actual != id {
            return Err(Error::invalid(format!("the blob `{id}` was said, `{actual}` came")));
        }
        Ok(())
    }

    /// Puts a blob, which was added or is known, at a path.
    pub async fn put(&mut self, path: &FilePath, id: ObjectHash) -> Result<()> {
        let file = File { id, mode: EntryMode::File };
        self.folder.put(&self.hub, self.repo.id(), path, file).await
    }

    /// Makes the revision visible, and sets these refs to it.
    pub async fn finish(self, facts: UpstreamFacts, refs: &BTreeSet<RefName>) -> Result<()> {
        let Self { hub, repo, upstream, spool, folder } = self;
        let _turn = hub.uploads.commits.turn(repo.id()).await;
        let id = facts.id;
        let mut packs = spool.packs().to_vec();
        // What is here under this id stays what it is.
        if hub.has_commit(&repo, &id).await? {
            packs.clear();
        } else {
            let trees = hub.pool().run(move || folder.into_trees()).await??;
            let root = trees.last().ok_or_else(|| Error::internal("a commit has no tree"))?.id;
            let content = commit_object(facts, root, upstream).encode()?;
            let commit = NewCommit { id, kind: ObjectKind::UpstreamCommit, content };
            packs.push(spool.last_pack(&hub, trees, commit, Vec::new()).await?);
        }
        let mut moved_main = false;
        hub.append_packs(repo.id(), None, &packs, |state| {
            let is_new = |name: &&RefName| state.refs.get(*name) != Some(&id);
            let moved: Vec<&RefName> = refs.iter().filter(is_new).collect();
            if state.refs.len() + moved.len() > MAX_REFS {
                return Err(Error::invalid(format!("a repo has at most {MAX_REFS} refs")));
            }
            moved_main = moved.iter().any(|name| **name == RefName::main());
            let set = |name: &RefName| RepoChange::RefSet {
                name: name.clone(),
                old: state.refs.get(name).copied(),
                new: id,
            };
            let changes: Vec<_> = moved.into_iter().map(set).collect();
            Ok((!changes.is_empty() || !packs.is_empty()).then_some(changes))
        })
        .await?;
        if moved_main {
            hub.main_moved(&repo).await;
        }
        Ok(())
    }
}

fn commit_object(facts: UpstreamFacts, tree: ObjectHash, upstream: String) -> UpstreamCommit {
    let UpstreamFacts { id, authors, time_seconds, title, message } = facts;
    let mut authors = authors;
    authors.truncate(MAX_AUTHORS);
    UpstreamCommit {
        id,
        tree,
        authors: authors.into_iter().map(|author| cut(author, MAX_AUTHOR_BYTES)).collect(),
        time_seconds,
        title: cut(title, MAX_TITLE_BYTES),
        message: cut(message, MAX_MESSAGE_BYTES),
        upstream,
    }
}

/// As much of a text as fits.
fn cut(mut text: String, most: usize) -> String {
    let end = text.floor_char_boundary(most);
    text.truncate(end);
    text
}
