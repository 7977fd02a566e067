//! What a commit has at a path: a file or a folder, with what a pointer stands for.

use std::ops::Range;
use std::sync::Arc;

use ballast_format::hash::{FileHash, ObjectHash, Sha256};
use ballast_format::id::RepoId;
use ballast_format::manifest::ManifestId;
use ballast_format::name::FilePath;
use ballast_format::object::{EntryMode, ObjectKind, Pointer, Tree, TreeEntry};
use ballast_format::pack::FileLink;
use ballast_store::index::Table;
use ballast_store::index::schema::{self, FileRow, ObjectRow};
use bytes::Bytes;
use futures_util::stream;
use quick_cache::Equivalent;

use super::ByteStream;
use super::stream::started;
use crate::access::Repo;
use crate::error::{Error, Result};
use crate::hub::Hub;
use crate::origin::Wanted;

/// Rows that are asked for at once, so that others get in between.
const ROWS: usize = 2000;

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
    /// Where its content is.
    pub content: Content,
}

/// Where the content of a large file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// Here: the manifest by which the repo reads it.
    Stored(ManifestId),
    /// Only at the upstream of which the repo is a mirror, or at its home in another region, under
    /// this commit.
    Upstream(ObjectHash),
}

impl LargeFile {
    /// The manifest by which the repo reads it; nothing while its content is not here.
    pub fn manifest(&self) -> Option<ManifestId> {
        match self.content {
            Content::Stored(manifest) => Some(manifest),
            Content::Upstream(_) => None,
        }
    }

    /// Its name in Xet, once its content is here.
    pub fn file(&self) -> Option<FileHash> {
        self.manifest().map(|manifest| manifest.file)
    }

    /// The same as a commit names it, once its content is here.
    pub(crate) fn link(&self) -> Option<FileLink> {
        let Self { sha256, size, .. } = *self;
        let link = |ManifestId { file, shard }| FileLink { sha256, file, shard, size };
        self.manifest().map(link)
    }
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

impl TreeItem {
    /// Whether its content is here: that of a large file of a mirror, or of a repo whose home is
    /// another region, may not be.
    pub fn is_here(&self) -> bool {
        self.large.is_none_or(|large| large.manifest().is_some())
    }
}

/// Where an item is kept.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ItemKey {
    repo: RepoId,
    commit: ObjectHash,
    path: Box<str>,
}

/// The same place, to look it up with.
#[derive(Hash)]
struct ItemPlace<'a> {
    repo: RepoId,
    commit: ObjectHash,
    path: &'a str,
}

impl Equivalent<ItemKey> for ItemPlace<'_> {
    fn equivalent(&self, key: &ItemKey) -> bool {
        self.repo == key.repo && self.commit == key.commit && *self.path == *key.path
    }
}

impl ItemKey {
    /// About how much memory this item takes.
    pub(super) fn weight(&self, item: &TreeItem) -> u64 {
        (2 * size_of::<Self>() + size_of::<TreeItem>() + self.path.len() + item.path.len()) as u64
    }
}

/// The entry of this name; folders stand in a tree as if their names ended with a slash.
pub(super) fn position(tree: &Tree, name: &str) -> Option<usize> {
    let key = |entry: &TreeEntry, wanted: &str, slash: Option<u8>| {
        let is_folder = entry.mode == EntryMode::Directory;
        let has = entry.name.bytes().chain(is_folder.then_some(b'/'));
        has.cmp(wanted.bytes().chain(slash))
    };
    let find = |slash| tree.entries.binary_search_by(|entry| key(entry, name, slash)).ok();
    find(None).or_else(|| find(Some(b'/')))
}

impl Hub {
    /// The file or folder at a path. What was asked for before is one look into memory away: a
    /// commit never changes.
    pub async fn item(
        &self,
        repo: &Repo,
        commit: ObjectHash,
        path: &FilePath,
    ) -> Result<Arc<TreeItem>> {
        let place = ItemPlace { repo: repo.id(), commit, path: path.as_str() };
        if let Some(item) = self.caches.items.get(&place) {
            return Ok(item);
        }
        let missing = || Error::EntryNotFound { path: path.to_string(), commit: Some(commit) };
        let entry = self.entry(repo.id(), commit, path).await?.ok_or_else(missing)?;
        let mut items = self.items_of(repo, commit, vec![(path.to_string(), entry)]).await?;
        let item = Arc::new(items.pop().ok_or_else(missing)?);
        // What is fetched at any moment is looked up again.
        if item.large.is_some_and(|large| large.manifest().is_none()) {
            return Ok(item);
        }
        let key = ItemKey { repo: repo.id(), commit, path: path.as_str().into() };
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
        self.items_of(repo, commit, entries).await
    }

    /// The tree's entry at a path.
    pub(crate) async fn entry(
        &self,
        repo: RepoId,
        commit: ObjectHash,
        path: &FilePath,
    ) -> Result<Option<TreeEntry>> {
        let root = self.commit(repo, &commit).await?.tree;
        let Some(folder) = self.folder_at(repo, root, path.parent().as_ref()).await? else {
            return Ok(None);
        };
        let tree = self.tree(repo, &folder).await?;
        Ok(position(&tree, path.name()).map(|index| tree.entries[index].clone()))
    }

    /// The folder at a path below a root; without a path the root.
    pub(super) async fn folder_at(
        &self,
        repo: RepoId,
        root: ObjectHash,
        path: Option<&FilePath>,
    ) -> Result<Option<ObjectHash>> {
        let mut folder = root;
        for part in path.into_iter().flat_map(FilePath::components) {
            let tree = self.tree(repo, &folder).await?;
            match position(&tree, part).map(|index| &tree.entries[index]) {
                Some(entry) if entry.mode == EntryMode::Directory => folder = entry.id,
                _ => return Ok(None),
            }
        }
        Ok(Some(folder))
    }

    /// Entries as items: with sizes, and with what pointers stand for.
    pub(crate) async fn items_of(
        &self,
        repo: &Repo,
        commit: ObjectHash,
        entries: Vec<(String, TreeEntry)>,
    ) -> Result<Vec<TreeItem>> {
        let is_blob =
            |entry: &TreeEntry| !matches!(entry.mode, EntryMode::Directory | EntryMode::Submodule);
        let blobs: Vec<ObjectHash> =
            entries.iter().filter(|(_, entry)| is_blob(entry)).map(|(_, entry)| entry.id).collect();
        let rows = self.object_rows(repo.id(), &blobs).await?;
        let pointers = rows.iter().filter_map(|row| row.pointer);
        let keys: Vec<_> =
            pointers.map(|pointer| schema::file_key(&repo.id(), &pointer.sha256)).collect();
        let mut files = Vec::with_capacity(keys.len());
        for keys in keys.chunks(ROWS) {
            files.extend(self.index().get_many(Table::File, keys.to_vec()).await?);
        }
        let (mut files, mut rows) = (files.into_iter(), rows.into_iter());
        let mut items = Vec::with_capacity(entries.len());
        for (path, entry) in entries {
            if !is_blob(&entry) {
                let (kind, id) = (ItemKind::Directory, entry.id);
                items.push(TreeItem { path, kind, id, size: 0, large: None });
                continue;
            }
            let row = rows.next().ok_or_else(|| Error::internal("a row is missing"))?;
            let file = if row.pointer.is_some() { files.next().flatten() } else { None };
            let is_elsewhere = row.pointer.is_some_and(|pointer| {
                repo.is_mirror()
                    || (repo.is_away() && self.ahead_link(repo.id(), &pointer.sha256).is_some())
            });
            let elsewhere = is_elsewhere.then_some(Content::Upstream(commit));
            items.push(file_item(path, &entry, &row, file, elsewhere)?);
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
        let range = range.start..range.end.min(item.size);
        if range.is_empty() {
            return Ok(Box::pin(stream::empty()));
        }
        if let Some(large) = &item.large {
            let Content::Stored(known) = large.content else {
                let wanted =
                    Wanted::of(item).ok_or_else(|| Error::internal("nothing is wanted"))?;
                return self.open_upstream(repo, &wanted, range).await;
            };
            let known = self.manifest_now(repo, large, known).await?;
            let manifest = self.needed_manifest(&known).await?;
            return started(self.read_manifest(manifest, range)).await;
        }
        let content = self.raw_blob(repo, item, u64::MAX).await?;
        let bounds = usize::try_from(range.start)
            .and_then(|start| usize::try_from(range.end).map(|end| start..end));
        let bounds = bounds.map_err(|_| Error::internal("a blob does not fit in memory"))?;
        let slice = content.slice(bounds);
        Ok(Box::pin(stream::once(async move { Ok(slice) })))
    }

    /// The manifest by which the repo reads a large file now: a commit may have replaced one that
    /// is damaged.
    async fn manifest_now(
        &self,
        repo: &Repo,
        large: &LargeFile,
        known: ManifestId,
    ) -> Result<ManifestId> {
        if self.quarantine.is_empty() {
            return Ok(known);
        }
        let key = schema::file_key(&repo.id(), &large.sha256);
        let row = self.index().get(Table::File, &key).await?;
        let row = row.map(|row| FileRow::decode(&row)).transpose()?;
        Ok(row.map_or(known, |row| row.manifest))
    }

    /// The blob behind a file as it is stored: of a large file, the pointer.
    pub async fn raw_blob(&self, repo: &Repo, item: &TreeItem, limit: u64) -> Result<Bytes> {
        self.object(repo.id(), &item.id, ObjectKind::Blob, limit).await
    }
}

/// A file as an item. What a pointer stands for may be elsewhere where it is not here.
fn file_item(
    path: String,
    entry: &TreeEntry,
    row: &ObjectRow,
    file: Option<Vec<u8>>,
    elsewhere: Option<Content>,
) -> Result<TreeItem> {
    let (kind, id) = (ItemKind::File, entry.id);
    let file = file.map(|file| FileRow::decode(&file)).transpose()?;
    let found = match (row.pointer, file) {
        (Some(Pointer { sha256, .. }), Some(FileRow { manifest, size })) => {
            Some((sha256, size, Content::Stored(manifest)))
        }
        (Some(Pointer { sha256, size }), None) => elsewhere.map(|at| (sha256, size, at)),
        (None, _) => None,
    };
    // A pointer whose file the repo never had is a text like any other.
    let Some((sha256, size, content)) = found else {
        return Ok(TreeItem { path, kind, id, size: row.length, large: None });
    };
    let large = LargeFile { sha256, size, pointer_size: row.length, content };
    Ok(TreeItem { path, kind, id, size, large: Some(large) })
}
