//! What a commit holds: items by path, folder by folder.

use std::ops::Range;
use std::sync::Arc;

use ballast_format::hash::{FileHash, ObjectHash, Sha256};
use ballast_format::id::RepoId;
use ballast_format::name::FilePath;
use ballast_format::object::{EntryMode, ObjectKind, TreeEntry};
use ballast_store::index::Table;
use ballast_store::index::schema::{self, FileRow, ObjectRow};
use bytes::Bytes;
use futures_util::stream;

use super::ByteStream;
use crate::access::Repo;
use crate::error::{Error, Result};
use crate::hub::Hub;

/// Items that one walk may pass: trees over this are paged.
const MAX_WALK: usize = 1_000_000;
/// Files that an answer may name all at once.
const MAX_SIBLINGS: usize = 200_000;
const MAX_DEPTH: usize = 64;

/// What an item is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ItemKind {
    /// A file.
    File,
    /// A folder.
    Directory,
}

/// A file that a tree names by an LFS pointer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LargeFile {
    /// Its SHA-256.
    pub sha256: Sha256,
    /// Its size in bytes.
    pub size: u64,
    /// The size of the pointer in bytes.
    pub pointer_size: u64,
    /// Its name in Xet.
    pub file: FileHash,
}

/// A file or a folder in a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TreeItem {
    /// Where it is, from the root.
    pub path: String,
    /// What it is.
    pub kind: ItemKind,
    /// The object behind it; of a large file, its pointer's.
    pub id: ObjectHash,
    /// Its size in bytes, the file's and not the pointer's; 0 for a folder.
    pub size: u64,
    /// If it is a large file, which.
    pub large: Option<LargeFile>,
}

/// A part of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// The items.
    pub items: Vec<T>,
    /// What to ask for the next part with; nothing after the last.
    pub next: Option<String>,
}

impl Hub {
    /// The file or folder at a path.
    pub async fn item(
        &self,
        repo: &Repo,
        commit: ObjectHash,
        path: &FilePath,
    ) -> Result<Arc<TreeItem>> {
        let key = (repo.id(), commit, path.as_str().to_owned());
        if let Some(item) = self.caches.items.get(&key) {
            return Ok(item);
        }
        let missing =
            || Error::EntryNotFound { path: path.as_str().to_owned(), commit: Some(commit) };
        let entry = self.entry(repo.id(), commit, path).await?.ok_or_else(missing)?;
        let mut items = self.items_of(repo.id(), vec![(path.as_str().to_owned(), entry)]).await?;
        let item = Arc::new(items.pop().ok_or_else(missing)?);
        self.caches.items.insert(key, Arc::clone(&item));
        Ok(item)
    }

    /// The files and folders at these paths; those that are not there are left out.
    pub async fn items(
        &self,
        repo: &Repo,
        commit: ObjectHash,
        paths: &[FilePath],
    ) -> Result<Vec<TreeItem>> {
        let mut entries = Vec::new();
        for path in paths {
            if let Some(entry) = self.entry(repo.id(), commit, path).await? {
                entries.push((path.as_str().to_owned(), entry));
            }
        }
        self.items_of(repo.id(), entries).await
    }

    /// The tree's entry at a path.
    pub(crate) async fn entry(
        &self,
        repo: RepoId,
        commit: ObjectHash,
        path: &FilePath,
    ) -> Result<Option<TreeEntry>> {
        let mut folder = self.commit(repo, &commit).await?.tree;
        let mut parts = path.components().peekable();
        while let Some(part) = parts.next() {
            let tree = self.tree(repo, &folder).await?;
            let Some(entry) = tree.get(part) else { return Ok(None) };
            if parts.peek().is_none() {
                return Ok(Some(entry.clone()));
            }
            if entry.mode != EntryMode::Directory {
                return Ok(None);
            }
            folder = entry.id;
        }
        Ok(None)
    }

    /// A part of the listing of a folder, or of all below it. Git's order; the cursor counts what
    /// came before, since a commit never changes.
    pub async fn tree_page(
        &self,
        repo: &Repo,
        commit: ObjectHash,
        path: Option<&FilePath>,
        recursive: bool,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page<TreeItem>> {
        let skip = after.map_or(Ok(0), str::parse::<usize>);
        let skip = skip.map_err(|_| Error::invalid("the cursor is not one of ours"))?;
        let start = match path {
            None => (String::new(), self.commit(repo.id(), &commit).await?.tree),
            Some(path) => {
                let missing =
                    || Error::EntryNotFound { path: path.as_str().to_owned(), commit: Some(commit) };
                let entry = self.entry(repo.id(), commit, path).await?.ok_or_else(missing)?;
                if entry.mode != EntryMode::Directory {
                    return Err(missing());
                }
                (format!("{path}/"), entry.id)
            }
        };
        let walk = Walk { recursive, skip, limit };
        let (entries, more) = self.walk(repo.id(), start, &walk).await?;
        let next = more.then(|| (skip + entries.len()).to_string());
        Ok(Page { items: self.items_of(repo.id(), entries).await?, next })
    }

    /// Every file of a commit, and no folder.
    pub async fn siblings(&self, repo: &Repo, commit: ObjectHash) -> Result<Vec<TreeItem>> {
        let start = (String::new(), self.commit(repo.id(), &commit).await?.tree);
        let walk = Walk { recursive: true, skip: 0, limit: MAX_SIBLINGS };
        let (mut entries, _) = self.walk(repo.id(), start, &walk).await?;
        entries.retain(|(_, entry)| entry.mode != EntryMode::Directory);
        self.items_of(repo.id(), entries).await
    }

    /// Entries in order, folders before what is in them; and whether there are more.
    async fn walk(
        &self,
        repo: RepoId,
        (prefix, root): (String, ObjectHash),
        walk: &Walk,
    ) -> Result<(Vec<(String, TreeEntry)>, bool)> {
        let (mut found, mut passed) = (Vec::new(), 0);
        let mut folders = vec![(prefix, self.tree(repo, &root).await?, 0)];
        while let Some((prefix, tree, next)) = folders.pop() {
            let Some(entry) = tree.entries.get(next) else { continue };
            if found.len() == walk.limit {
                return Ok((found, true));
            }
            passed += 1;
            if passed > MAX_WALK {
                return Err(Error::invalid(format!("a listing has at most {MAX_WALK} items")));
            }
            let path = format!("{prefix}{}", entry.name);
            let entry = entry.clone();
            folders.push((prefix, tree, next + 1));
            if walk.recursive && entry.mode == EntryMode::Directory {
                if folders.len() > MAX_DEPTH {
                    return Err(Error::corrupt(format!("`{path}` is too deep")));
                }
                folders.push((format!("{path}/"), self.tree(repo, &entry.id).await?, 0));
            }
            if passed > walk.skip {
                found.push((path, entry));
            }
        }
        Ok((found, false))
    }

    /// Entries as items: with sizes, and with what pointers stand for.
    async fn items_of(
        &self,
        repo: RepoId,
        entries: Vec<(String, TreeEntry)>,
    ) -> Result<Vec<TreeItem>> {
        let is_blob = |entry: &TreeEntry| {
            !matches!(entry.mode, EntryMode::Directory | EntryMode::Submodule)
        };
        let blobs: Vec<ObjectHash> = entries
            .iter()
            .filter(|(_, entry)| is_blob(entry))
            .map(|(_, entry)| entry.id)
            .collect();
        let rows = self.object_rows(repo, &blobs).await?;
        let pointers = rows.iter().filter_map(|row| row.pointer);
        let keys = pointers.map(|pointer| schema::file_key(&repo, &pointer.sha256)).collect();
        let mut files = self.index().get_many(Table::File, keys).await?.into_iter();
        let mut rows = rows.into_iter();
        let mut items = Vec::with_capacity(entries.len());
        for (path, entry) in entries {
            if !is_blob(&entry) {
                let (kind, id) = (ItemKind::Directory, entry.id);
                items.push(TreeItem { path, kind, id, size: 0, large: None });
                continue;
            }
            let row = rows.next().ok_or_else(|| Error::internal("a row is missing"))?;
            let file = if row.pointer.is_some() { files.next().flatten() } else { None };
            items.push(file_item(path, &entry, &row, file)?);
        }
        Ok(items)
    }

    /// These bytes of a file.
    pub async fn open_item(
        self: &Arc<Self>,
        repo: &Repo,
        item: &TreeItem,
        range: Range<u64>,
    ) -> Result<ByteStream> {
        if range.start >= range.end {
            return Ok(Box::pin(stream::empty()));
        }
        let range = range.start..range.end.min(item.size);
        if let Some(large) = &item.large {
            let manifest = self.needed_manifest(&large.file).await?;
            return Ok(self.read_manifest(manifest, range));
        }
        let content = self.raw_blob(repo, item, u64::MAX).await?;
        let bounds = usize::try_from(range.start)
            .and_then(|start| usize::try_from(range.end).map(|end| start..end));
        let bounds = bounds.map_err(|_| Error::internal("a blob does not fit in memory"))?;
        let slice = content.slice(bounds);
        Ok(Box::pin(stream::once(async move { Ok(slice) })))
    }

    /// The blob behind a file as it is stored: of a large file, the pointer.
    pub async fn raw_blob(&self, repo: &Repo, item: &TreeItem, limit: u64) -> Result<Bytes> {
        self.object(repo.id(), &item.id, ObjectKind::Blob, limit).await
    }
}

struct Walk {
    recursive: bool,
    skip: usize,
    limit: usize,
}

fn file_item(
    path: String,
    entry: &TreeEntry,
    row: &ObjectRow,
    file: Option<Vec<u8>>,
) -> Result<TreeItem> {
    let (kind, id) = (ItemKind::File, entry.id);
    // A pointer whose file the repo never had is a text like any other.
    let (Some(pointer), Some(file)) = (row.pointer, file) else {
        return Ok(TreeItem { path, kind, id, size: row.length, large: None });
    };
    let file = FileRow::decode(&file)?;
    let large = LargeFile {
        sha256: pointer.sha256,
        size: file.size,
        pointer_size: row.length,
        file: file.file,
    };
    Ok(TreeItem { path, kind, id, size: file.size, large: Some(large) })
}
