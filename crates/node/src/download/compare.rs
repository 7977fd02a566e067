//! Which paths two commits have differently.

use std::collections::BTreeMap;

use ballast_format::hash::ObjectHash;
use ballast_format::id::RepoId;
use ballast_format::object::{EntryMode, TreeEntry};

use crate::access::Repo;
use crate::error::{Error, Result};
use crate::hub::Hub;

/// Differences that a comparison may have.
const MAX_CHANGES: usize = 100_000;

/// A path that two commits have differently.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathChange {
    /// Which.
    pub path: String,
    /// What the first has there.
    pub old: Option<TreeEntry>,
    /// What the second has there.
    pub new: Option<TreeEntry>,
}

impl Hub {
    /// The paths of files that two commits have differently, in order.
    pub async fn compare(
        &self,
        repo: &Repo,
        old: Option<ObjectHash>,
        new: ObjectHash,
    ) -> Result<Vec<PathChange>> {
        let old = match old {
            Some(old) => Some(self.commit(repo.id(), &old).await?.tree),
            None => None,
        };
        let new = self.commit(repo.id(), &new).await?.tree;
        let mut changes = Vec::new();
        let mut folders = vec![(String::new(), old, Some(new))];
        while let Some((prefix, old, new)) = folders.pop() {
            if old == new {
                continue;
            }
            let old = self.entries(repo.id(), old).await?;
            let mut new = self.entries(repo.id(), new).await?;
            let mut pairs: Vec<(String, Option<TreeEntry>, Option<TreeEntry>)> = Vec::new();
            for (name, entry) in old {
                let other = new.remove(&name);
                pairs.push((name, Some(entry), other));
            }
            pairs.extend(new.into_iter().map(|(name, entry)| (name, None, Some(entry))));
            for (name, old, new) in pairs {
                let path = format!("{prefix}{name}");
                let folder = |entry: &Option<TreeEntry>| {
                    let entry = entry.as_ref().filter(|e| e.mode == EntryMode::Directory);
                    entry.map(|entry| entry.id)
                };
                let (old_folder, new_folder) = (folder(&old), folder(&new));
                if old_folder.is_some() || new_folder.is_some() {
                    folders.push((format!("{path}/"), old_folder, new_folder));
                }
                let old = old.filter(|_| old_folder.is_none());
                let new = new.filter(|_| new_folder.is_none());
                if old != new {
                    changes.push(PathChange { path, old, new });
                }
            }
            if changes.len() > MAX_CHANGES {
                let reason = format!("the commits differ in more than {MAX_CHANGES} paths");
                return Err(Error::invalid(reason));
            }
        }
        changes.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(changes)
    }

    async fn entries(
        &self,
        repo: RepoId,
        folder: Option<ObjectHash>,
    ) -> Result<BTreeMap<String, TreeEntry>> {
        let Some(folder) = folder else {
            return Ok(BTreeMap::new());
        };
        let tree = self.tree(repo, &folder).await?;
        let entry = |entry: &TreeEntry| (entry.name.clone(), entry.clone());
        Ok(tree.entries.iter().map(entry).collect())
    }
}
