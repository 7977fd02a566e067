//! A repo's git objects: found by the index, read from packs, checked against their ids.

use std::sync::Arc;

use ballast_format::hash::ObjectHash;
use ballast_format::id::RepoId;
use ballast_format::object::{Commit, ObjectKind, Tree, hash_object};
use ballast_store::index::Table;
use ballast_store::index::schema::{self, ObjectRow};
use ballast_store::keyspace::{CopyKind, CopyName, Key};
use bytes::Bytes;

use crate::error::{Error, Result};
use crate::hub::Hub;

/// The largest tree or commit that we read: a folder of half a million files.
const MAX_TREE_BYTES: u64 = 64 << 20;

impl Hub {
    /// Where an object of a repo is, and what it is.
    pub(crate) async fn object_row(
        &self,
        repo: RepoId,
        id: &ObjectHash,
    ) -> Result<Option<ObjectRow>> {
        let row = self.index().get(Table::Object, &schema::object_key(&repo, id)).await?;
        Ok(row.map(|row| ObjectRow::decode(&row)).transpose()?)
    }

    /// Where objects of a repo are; each of them must be there.
    pub(crate) async fn object_rows(
        &self,
        repo: RepoId,
        ids: &[ObjectHash],
    ) -> Result<Vec<ObjectRow>> {
        let keys = ids.iter().map(|id| schema::object_key(&repo, id)).collect();
        let rows = self.index().get_many(Table::Object, keys).await?;
        let row = |(id, row): (&ObjectHash, Option<Vec<u8>>)| {
            let row = row.ok_or_else(|| missing(repo, id))?;
            Ok(ObjectRow::decode(&row)?)
        };
        ids.iter().zip(rows).map(row).collect()
    }

    /// The content of a repo's object.
    pub(crate) async fn object(
        &self,
        repo: RepoId,
        id: &ObjectHash,
        kind: ObjectKind,
        limit: u64,
    ) -> Result<Bytes> {
        let row = self.object_row(repo, id).await?.ok_or_else(|| missing(repo, id))?;
        if row.kind != kind {
            return Err(Error::corrupt(format!("`{id}` of repo `{repo}` is no {kind:?}")));
        }
        if row.length > limit {
            let what = format!("the object `{id}`");
            return Err(Error::TooLarge { what, size: row.length, limit });
        }
        self.read_object(id, &row).await
    }

    /// Reads an object and compares it with its id; a copy that is gone or damaged is no matter
    /// while there is another.
    pub(crate) async fn read_object(&self, id: &ObjectHash, row: &ObjectRow) -> Result<Bytes> {
        let first = self.read_object_from(id, row, &row.pack).await;
        let Err(fault) = first else { return first };
        for listed in self.store().copies(CopyKind::Pack, row.pack.hash).await? {
            let Key::Copy(copy) = listed.key else { continue };
            if copy != row.pack
                && let Ok(content) = self.read_object_from(id, row, &copy).await
            {
                return Ok(content);
            }
        }
        tracing::error!(object = %id, key = %Key::Copy(row.pack), %fault, "a stored object is damaged");
        Err(fault)
    }

    async fn read_object_from(
        &self,
        id: &ObjectHash,
        row: &ObjectRow,
        pack: &CopyName,
    ) -> Result<Bytes> {
        let key = Key::Copy(*pack);
        let content = self.store().get_range(&key, row.offset..row.offset + row.length).await?;
        let actual = if content.len() > 64 * 1024 {
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
        let tree = Tree::decode(&content);
        let tree = Arc::new(tree.map_err(|error| Error::corrupt(format!("`{id}`: {error}")))?);
        self.caches.trees.insert((repo, *id), Arc::clone(&tree));
        Ok(tree)
    }

    /// A commit of a repo.
    pub(crate) async fn commit(&self, repo: RepoId, id: &ObjectHash) -> Result<Arc<Commit>> {
        if let Some(commit) = self.caches.commits.get(&(repo, *id)) {
            return Ok(commit);
        }
        let content = self.object(repo, id, ObjectKind::Commit, MAX_TREE_BYTES).await?;
        let commit = Commit::decode(&content);
        let commit = commit.map_err(|error| Error::corrupt(format!("`{id}`: {error}")))?;
        let commit = Arc::new(commit);
        self.caches.commits.insert((repo, *id), Arc::clone(&commit));
        Ok(commit)
    }
}

fn missing(repo: RepoId, id: &ObjectHash) -> Error {
    Error::corrupt(format!("the object `{id}` of repo `{repo}` is missing"))
}
