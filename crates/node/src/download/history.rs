//! The commits of a repo, newest first.

use std::collections::BTreeMap;
use std::sync::Arc;

use ballast_format::hash::ObjectHash;
use ballast_format::id::RepoId;
use ballast_format::name::FilePath;
use ballast_format::object::{Commit, EntryMode, TreeEntry};

use crate::access::Repo;
use crate::error::{Error, Result};
use crate::hub::Hub;

/// Commits that one walk may pass.
const MAX_COMMITS: usize = 100_000;
/// Commits that are looked at to say which one last touched a path.
const MAX_BLAMED: usize = 1000;
/// Differences that a comparison may have.
const MAX_CHANGES: usize = 100_000;

/// A commit, as listings show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitView {
    /// Its id.
    pub id: ObjectHash,
    /// The first line of its message.
    pub title: String,
    /// The rest of its message.
    pub message: String,
    /// Who made it.
    pub author: String,
    /// When, in unix seconds.
    pub time_seconds: i64,
    /// The commits before it.
    pub parents: Vec<ObjectHash>,
}

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

impl CommitView {
    fn new(id: ObjectHash, commit: &Commit) -> Self {
        let (title, message) = commit.message.split_once('\n').unwrap_or((&commit.message, ""));
        Self {
            id,
            title: title.trim_end().to_owned(),
            message: message.trim().to_owned(),
            author: commit.author.name.clone(),
            time_seconds: commit.author.time_seconds,
            parents: commit.parents.clone(),
        }
    }
}

impl Hub {
    /// One commit.
    pub async fn commit_view(&self, repo: &Repo, id: ObjectHash) -> Result<CommitView> {
        Ok(CommitView::new(id, self.commit(repo.id(), &id).await?.as_ref()))
    }

    /// Commits from this one back, along first parents, and how many there are in all.
    pub async fn history(
        &self,
        repo: &Repo,
        commit: ObjectHash,
        skip: usize,
        limit: usize,
    ) -> Result<(Vec<CommitView>, u64)> {
        let (mut views, mut total) = (Vec::new(), 0);
        let mut next = Some(commit);
        while let Some(id) = next.filter(|_| total < MAX_COMMITS) {
            let commit = self.commit(repo.id(), &id).await?;
            if total >= skip && views.len() < limit {
                views.push(CommitView::new(id, &commit));
            }
            total += 1;
            next = commit.parents.first().copied();
        }
        Ok((views, total as u64))
    }

    /// For each path the commit, from this one back, that last changed it.
    pub async fn last_commits(
        &self,
        repo: &Repo,
        commit: ObjectHash,
        paths: &[FilePath],
    ) -> Result<BTreeMap<String, CommitView>> {
        let mut open: Vec<(&FilePath, ObjectHash)> = Vec::new();
        for path in paths {
            if let Some(entry) = self.entry(repo.id(), commit, path).await? {
                open.push((path, entry.id));
            }
        }
        let mut found = BTreeMap::new();
        let mut next = Some(commit);
        for _ in 0..MAX_BLAMED {
            let Some(id) = next.filter(|_| !open.is_empty()) else { break };
            let commit = self.commit(repo.id(), &id).await?;
            let parent = commit.parents.first().copied();
            let mut still = Vec::new();
            for (path, object) in open {
                let before = match parent {
                    Some(parent) => self.entry(repo.id(), parent, path).await?,
                    None => None,
                };
                if before.is_some_and(|before| before.id == object) {
                    still.push((path, object));
                } else {
                    let view = CommitView::new(id, &commit);
                    found.insert(path.as_str().to_owned(), view);
                }
            }
            (open, next) = (still, parent);
        }
        // What is older than we look: the oldest commit that was looked at had it.
        if let (Some(id), false) = (next, open.is_empty()) {
            let view = self.commit_view(repo, id).await?;
            for (path, _) in open {
                found.insert(path.as_str().to_owned(), view.clone());
            }
        }
        Ok(found)
    }

    /// The paths of files that two commits have differently, in order.
    pub async fn compare(
        &self,
        repo: &Repo,
        old: ObjectHash,
        new: ObjectHash,
    ) -> Result<Vec<PathChange>> {
        let old = self.commit(repo.id(), &old).await?.tree;
        let new = self.commit(repo.id(), &new).await?.tree;
        let mut changes = Vec::new();
        let mut folders = vec![(String::new(), Some(old), Some(new))];
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
        let Some(folder) = folder else { return Ok(BTreeMap::new()) };
        let tree = self.tree(repo, &folder).await?;
        let entry = |entry: &TreeEntry| (entry.name.clone(), entry.clone());
        Ok(tree.entries.iter().map(entry).collect())
    }
}

/// Commits that are kept in memory.
pub(super) const KEPT_COMMITS: usize = 20_000;

/// Commits by repo and id.
pub(crate) type Commits = quick_cache::sync::Cache<(RepoId, ObjectHash), Arc<Commit>>;
