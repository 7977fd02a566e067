//! A repo's git objects: found by the index, read from packs, checked against their ids.

use std::sync::Arc;

use ballast_format::hash::ObjectHash;
use ballast_format::id::RepoId;
use ballast_format::object::{Commit, ObjectKind, Tree, UpstreamCommit, hash_object};
use ballast_store::index::Table;
use ballast_store::index::schema::{self, ObjectRow};
use ballast_store::keyspace::{CopyKind, CopyName, Key};
use bytes::Bytes;

use crate::error::{Error, Result};
use crate::hub::Hub;

/// The largest tree or commit that we read: a folder of half a million files.
const MAX_TREE_BYTES: u64 = 64 << 20;
/// Hashing or decoding more than this would hold up an async thread.
const DONE_AT_ONCE: usize = 64 * 1024;
/// Rows that are asked for at once, so that others get in between.
const ROWS: usize = 2000;
/// When to ask again for what may be read in a moment, in seconds.
const AGAIN_SECONDS: u64 = 2;

impl Hub {
    /// Where an object of a repo is, and what it is; one that is ahead of what has arrived, too.
    pub(crate) async fn object_row(
        &self,
        repo: RepoId,
        id: &ObjectHash,
    ) -> Result<Option<ObjectRow>> {
        let row = self.index().get(Table::Object, &schema::object_key(&repo, id)).await?;
        match row {
            Some(row) => Ok(Some(ObjectRow::decode(&row)?)),
            None => Ok(self.ahead_row(repo, id)),
        }
    }

    /// Where objects of a repo are; each of them must be there.
    pub(crate) async fn object_rows(
        &self,
        repo: RepoId,
        ids: &[ObjectHash],
    ) -> Result<Vec<ObjectRow>> {
        let mut found = Vec::with_capacity(ids.len());
        for ids in ids.chunks(ROWS) {
            let keys = ids.iter().map(|id| schema::object_key(&repo, id)).collect();
            let rows = self.index().get_many(Table::Object, keys).await?;
            for (id, row) in ids.iter().zip(rows) {
                found.push(match row {
                    Some(row) => ObjectRow::decode(&row)?,
                    None => self.ahead_row(repo, id).ok_or_else(|| self.not_there(repo, id))?,
                });
            }
        }
        Ok(found)
    }

    /// Which of these objects a repo has.
    pub(crate) async fn known_objects(
        &self,
        repo: RepoId,
        ids: &[ObjectHash],
    ) -> Result<Vec<bool>> {
        let mut known = Vec::with_capacity(ids.len());
        for ids in ids.chunks(ROWS) {
            let keys = ids.iter().map(|id| schema::object_key(&repo, id)).collect();
            let rows = self.index().get_many(Table::Object, keys).await?;
            known.extend(rows.iter().map(Option::is_some));
        }
        Ok(known)
    }

    /// The one commit of a repo whose id begins with these digits, lower case; nothing if there is
    /// none, or more than one.
    pub(crate) async fn commit_by_prefix(
        &self,
        repo: RepoId,
        digits: &str,
    ) -> Result<Option<ObjectHash>> {
        let whole: Vec<u8> = digits
            .as_bytes()
            .chunks_exact(2)
            .map_while(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
            .collect();
        let prefix = [&repo.as_bytes()[..], &whole[..]].concat();
        let (mut after, mut found) = (None, None);
        loop {
            let rows = self.index().scan(Table::Object, &prefix, after.as_deref(), ROWS).await?;
            let Some((last, _)) = rows.last() else {
                return Ok(found);
            };
            after = Some(last.clone());
            for (key, row) in &rows {
                let id = key.last_chunk::<20>().copied().map(ObjectHash::from_bytes);
                let id = id.ok_or_else(|| Error::internal("an object's row has no key"))?;
                let is_commit = ObjectRow::decode(row)?.kind.is_commit();
                if is_commit && id.to_string().starts_with(digits) && found.replace(id).is_some() {
                    return Ok(None);
                }
            }
        }
    }

    /// The content of a repo's object.
    pub(crate) async fn object(
        &self,
        repo: RepoId,
        id: &ObjectHash,
        kind: ObjectKind,
        limit: u64,
    ) -> Result<Bytes> {
        let row = self.object_row(repo, id).await?.ok_or_else(|| self.not_there(repo, id))?;
        if row.kind != kind {
            return Err(Error::corrupt(format!("`{id}` of repo `{repo}` is no {kind:?}")));
        }
        if row.length > limit {
            let what = format!("the object `{id}`");
            return Err(Error::TooLarge { what, size: row.length, limit });
        }
        let read = self.read_object(id, &row).await;
        read.map_err(|error| self.or_gone_ahead(repo, id, error))
    }

    /// Reads an object and compares it with its id (R4); a copy that is gone or damaged is no
    /// matter while there is another.
    pub(crate) async fn read_object(&self, id: &ObjectHash, row: &ObjectRow) -> Result<Bytes> {
        let mut fault = None;
        if !self.distrusts(&row.pack) {
            match self.read_object_from(id, row, &row.pack).await {
                Ok(content) => return Ok(content),
                Err(error) => fault = Some(self.note_damage(&row.pack, error)),
            }
        }
        for copy in self.copies_by_trust(CopyKind::Pack, row.pack.hash).await? {
            if fault.is_some() && copy == row.pack {
                continue;
            }
            match self.read_object_from(id, row, &copy).await {
                Ok(content) => return Ok(content),
                Err(error) => {
                    let error = self.note_damage(&copy, error);
                    fault.get_or_insert(error);
                }
            }
        }
        Err(fault.unwrap_or_else(|| Error::corrupt(format!("`{}` is gone", Key::Copy(row.pack)))))
    }

    /// Whether an object that the index knows can't be read: then it is stored again if somebody
    /// brings it.
    pub(crate) async fn is_lost(&self, id: &ObjectHash, row: &ObjectRow) -> Result<bool> {
        if !self.distrusts(&row.pack) {
            return Ok(false);
        }
        match self.read_object(id, row).await {
            Ok(_) => Ok(false),
            Err(error) if error.is_corrupt() => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Reads an object from this copy of its pack.
    pub(crate) async fn read_object_from(
        &self,
        id: &ObjectHash,
        row: &ObjectRow,
        pack: &CopyName,
    ) -> Result<Bytes> {
        let key = Key::Copy(*pack);
        let content = self.store().get_range(&key, row.offset..row.offset + row.length).await;
        let content = content?;
        let actual = if content.len() > DONE_AT_ONCE {
            let (kind, hashed) = (row.kind, content.clone());
            self.pool().run(move || hash_object(kind, &hashed)).await?
        } else {
            hash_object(row.kind, &content)
        };
        if actual.ok() != Some(*id) {
            return Err(Error::corrupt(format!("`{key}`: the object `{id}` has other bytes")));
        }
        Ok(content)
    }

    /// A folder of a repo.
    pub(crate) async fn tree(&self, repo: RepoId, id: &ObjectHash) -> Result<Arc<Tree>> {
        if let Some(tree) = self.caches.trees.get(&(repo, *id)) {
            return Ok(tree);
        }
        let content = self.object(repo, id, ObjectKind::Tree, MAX_TREE_BYTES).await?;
        let tree = if content.len() > DONE_AT_ONCE {
            self.pool().run(move || Tree::decode(&content)).await?
        } else {
            Tree::decode(&content)
        };
        let tree = Arc::new(tree.map_err(|error| Error::corrupt(format!("`{id}`: {error}")))?);
        self.caches.trees.insert((repo, *id), Arc::clone(&tree));
        Ok(tree)
    }

    /// A commit of a repo.
    pub(crate) async fn commit(&self, repo: RepoId, id: &ObjectHash) -> Result<Arc<Commit>> {
        if let Some(commit) = self.caches.commits.get(&(repo, *id)) {
            return Ok(commit);
        }
        let row = self.object_row(repo, id).await?.ok_or_else(|| self.not_there(repo, id))?;
        let commit = if row.kind == ObjectKind::UpstreamCommit {
            let content = self.object(repo, id, row.kind, MAX_TREE_BYTES).await?;
            UpstreamCommit::decode(&content).map(|commit| commit.to_commit())
        } else {
            let content = self.object(repo, id, ObjectKind::Commit, MAX_TREE_BYTES).await?;
            Commit::decode(&content)
        };
        let commit = commit.map_err(|error| Error::corrupt(format!("`{id}`: {error}")))?;
        let commit = Arc::new(commit);
        // What is kept is the repo's: a commit that is ahead may never be.
        if self.ahead_row(repo, id).is_none() {
            self.caches.commits.insert((repo, *id), Arc::clone(&commit));
        }
        Ok(commit)
    }

    /// What to say of an object that is not there. Where the log has gone another way it is no
    /// damage: what was only in the way that it left is gone for whoever was reading it, and
    /// nothing is known while the other is read.
    fn not_there(&self, repo: RepoId, id: &ObjectHash) -> Error {
        if self.homing(repo).lines.is_empty() {
            return Error::corrupt(format!("the object `{id}` of repo `{repo}` is missing"));
        }
        let reason = "the repo has another home now, which does not have this revision; ask again";
        Error::Upstream { reason: reason.to_owned(), retry_seconds: AGAIN_SECONDS }
    }
}
