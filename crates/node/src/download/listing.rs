//! What a commit holds, folder by folder, in pages.
//!
//! Items come in git's order, a folder before what is in it. The cursor is the path of the last one
//! of the page before: a commit never changes, so the walk goes on right behind it, and no page
//! costs more for being late.

use std::sync::Arc;

use ballast_format::hash::ObjectHash;
use ballast_format::id::RepoId;
use ballast_format::name::FilePath;
use ballast_format::object::{EntryMode, Tree, TreeEntry};

use super::tree::{TreeItem, position};
use crate::access::Repo;
use crate::error::{Error, Result};
use crate::hub::Hub;

/// Files that an answer may name all at once; a listing of more is cut.
const MAX_SIBLINGS: usize = 200_000;
/// Deeper trees than paths may be were not made by us.
const MAX_DEPTH: usize = 65;
/// Between so many entries others get a turn: all may be in memory, and nothing to wait for.
const ENTRIES_AT_ONCE: usize = 1000;

/// A part of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// The items.
    pub items: Vec<T>,
    /// What to ask for the next part with; nothing after the last.
    pub next: Option<String>,
}

/// A folder that is being walked through.
struct Level {
    /// Its path, with a slash at the end unless it is the root.
    prefix: String,
    tree: Arc<Tree>,
    next: usize,
}

struct Walk {
    repo: RepoId,
    recursive: bool,
    levels: Vec<Level>,
}

impl Hub {
    /// A part of the listing of a folder, or of all below it.
    pub async fn tree_page(
        &self,
        repo: &Repo,
        commit: ObjectHash,
        path: Option<&FilePath>,
        recursive: bool,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page<TreeItem>> {
        let root = self.commit(repo.id(), &commit).await?.tree;
        let folder = self.folder_at(repo.id(), root, path).await?;
        let folder = folder.ok_or_else(|| Error::EntryNotFound {
            path: path.map(ToString::to_string).unwrap_or_default(),
            commit: Some(commit),
        })?;
        let prefix = path.map(|path| format!("{path}/")).unwrap_or_default();
        let mut walk = Walk { repo: repo.id(), recursive, levels: Vec::new() };
        walk.enter(self, prefix, &folder).await?;
        if let Some(after) = after {
            walk.skip_to(self, after).await?;
        }
        let entries = walk.take(self, limit.max(1)).await?;
        let next = entries.last().filter(|_| !walk.is_done()).map(|(path, _)| path.clone());
        Ok(Page { items: self.items_of(repo, commit, entries).await?, next })
    }

    /// Every file of a commit, and no folder.
    pub async fn siblings(&self, repo: &Repo, commit: ObjectHash) -> Result<Vec<TreeItem>> {
        let root = self.commit(repo.id(), &commit).await?.tree;
        let mut walk = Walk { repo: repo.id(), recursive: true, levels: Vec::new() };
        walk.enter(self, String::new(), &root).await?;
        let mut entries = walk.take(self, MAX_SIBLINGS).await?;
        entries.retain(|(_, entry)| entry.mode != EntryMode::Directory);
        self.items_of(repo, commit, entries).await
    }
}

impl Walk {
    async fn enter(&mut self, hub: &Hub, prefix: String, tree: &ObjectHash) -> Result<()> {
        if self.levels.len() >= MAX_DEPTH {
            return Err(Error::corrupt(format!("the folder `{prefix}` is too deep")));
        }
        let tree = hub.tree(self.repo, tree).await?;
        self.levels.push(Level { prefix, tree, next: 0 });
        Ok(())
    }

    /// Goes on behind this path.
    async fn skip_to(&mut self, hub: &Hub, after: &str) -> Result<()> {
        let foreign = || Error::invalid("the cursor is not one of this listing");
        let prefix = self.levels.first().map(|level| level.prefix.clone()).unwrap_or_default();
        let parts = after.strip_prefix(&prefix).ok_or_else(foreign)?;
        let mut parts = parts.split('/').peekable();
        while let Some(part) = parts.next() {
            let level = self.levels.last_mut().ok_or_else(foreign)?;
            let index = position(&level.tree, part).ok_or_else(foreign)?;
            level.next = index + 1;
            let entry = level.tree.entries[index].clone();
            let is_folder = entry.mode == EntryMode::Directory;
            if self.recursive && is_folder {
                let prefix = format!("{}{part}/", level.prefix);
                self.enter(hub, prefix, &entry.id).await?;
            } else if parts.peek().is_some() {
                return Err(foreign());
            }
        }
        Ok(())
    }

    /// The next entries with their paths, as many as there are or as the limit allows.
    async fn take(&mut self, hub: &Hub, limit: usize) -> Result<Vec<(String, TreeEntry)>> {
        let mut found = Vec::new();
        while found.len() < limit {
            let Some(level) = self.levels.last_mut() else {
                break;
            };
            let Some(entry) = level.tree.entries.get(level.next).cloned() else {
                self.levels.pop();
                continue;
            };
            level.next += 1;
            let path = format!("{}{}", level.prefix, entry.name);
            if self.recursive && entry.mode == EntryMode::Directory {
                self.enter(hub, format!("{path}/"), &entry.id).await?;
            }
            found.push((path, entry));
            if found.len().is_multiple_of(ENTRIES_AT_ONCE) {
                tokio::task::yield_now().await;
            }
        }
        Ok(found)
    }

    /// Whether nothing is left.
    fn is_done(&self) -> bool {
        self.levels.iter().all(|level| level.next >= level.tree.entries.len())
    }
}
