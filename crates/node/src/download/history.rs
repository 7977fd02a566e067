//! The commits of a repo, newest first, and which of them last touched a path.
//!
//! History is followed along first parents: the hub makes no merges.

use std::collections::BTreeMap;

use ballast_format::hash::ObjectHash;
use ballast_format::id::RepoId;
use ballast_format::name::FilePath;
use ballast_format::object::Commit;

use super::tree::position;
use crate::access::Repo;
use crate::error::Result;
use crate::hub::Hub;

/// Commits that one walk may pass; older ones are not counted.
const MAX_COMMITS: usize = 100_000;
/// Commits and folders that are looked at to say which commit last touched a path.
const MAX_LOOKS: usize = 50_000;
/// Between so many looks others get a turn.
const LOOKS_AT_ONCE: usize = 256;

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

/// A path of which a commit last touched it is asked.
pub(crate) type Touched = (RepoId, ObjectHash, Box<str>);

/// Paths of one folder whose last commit is looked for, with what is there.
struct Open<'a> {
    folder: Option<FilePath>,
    tree: Option<ObjectHash>,
    paths: Vec<(&'a FilePath, ObjectHash)>,
}

impl Hub {
    /// One commit.
    pub async fn commit_view(&self, repo: &Repo, id: ObjectHash) -> Result<CommitView> {
        Ok(CommitView::new(id, self.commit(repo.id(), &id).await?.as_ref()))
    }

    /// Commits from this one back, and how many there are in all.
    pub async fn history(
        &self,
        repo: &Repo,
        commit: ObjectHash,
        skip: usize,
        limit: usize,
    ) -> Result<(Vec<CommitView>, u64)> {
        let total = self.count_commits(repo.id(), commit).await?;
        let mut views = Vec::new();
        if skip as u64 >= total {
            return Ok((views, total));
        }
        let mut next = Some(commit);
        for passed in 0..MAX_COMMITS {
            let Some(id) = next.filter(|_| views.len() < limit) else {
                break;
            };
            let commit = self.commit(repo.id(), &id).await?;
            if passed >= skip {
                views.push(CommitView::new(id, &commit));
            }
            next = commit.parents.first().copied();
            let_others_in(passed).await;
        }
        Ok((views, total))
    }

    /// How many commits there are from this one back. One more than its parent has: so the walk
    /// ends where somebody counted before.
    async fn count_commits(&self, repo: RepoId, commit: ObjectHash) -> Result<u64> {
        let (mut passed, mut known) = (0, 0);
        let mut next = Some(commit);
        while let Some(id) = next.filter(|_| passed < MAX_COMMITS) {
            if let Some(count) = self.caches.counts.get(&(repo, id)) {
                known = count;
                break;
            }
            next = self.commit(repo, &id).await?.parents.first().copied();
            passed += 1;
            let_others_in(passed).await;
        }
        let count = known + passed as u64;
        self.caches.counts.insert((repo, commit), count);
        Ok(count)
    }

    /// For each path the commit, from this one back, that last changed it. Of what is older than
    /// we look, the oldest commit that was looked at.
    pub async fn last_commits(
        &self,
        repo: &Repo,
        commit: ObjectHash,
        paths: &[FilePath],
    ) -> Result<BTreeMap<String, CommitView>> {
        let (mut found, mut wanted) = (BTreeMap::new(), Vec::new());
        for path in paths {
            match self.caches.touched.get(&(repo.id(), commit, path.as_str().into())) {
                Some(id) => {
                    found.insert(path.to_string(), self.commit_view(repo, id).await?);
                }
                None => wanted.push(path),
            }
        }
        for (path, id) in self.find_touched(repo.id(), commit, &wanted).await? {
            self.caches.touched.insert((repo.id(), commit, path.as_str().into()), id);
            found.insert(path.to_string(), self.commit_view(repo, id).await?);
        }
        Ok(found)
    }

    async fn find_touched<'a>(
        &self,
        repo: RepoId,
        commit: ObjectHash,
        paths: &[&'a FilePath],
    ) -> Result<Vec<(&'a FilePath, ObjectHash)>> {
        let mut open = self.open_paths(repo, commit, paths).await?;
        let (mut id, mut found, mut looks) = (commit, Vec::new(), 0);
        while !open.is_empty() {
            let commit = self.commit(repo, &id).await?;
            let parent = match commit.parents.first() {
                Some(parent) if looks < MAX_LOOKS => *parent,
                // The first commit, or the end of our patience.
                _ => break,
            };
            let before = self.commit(repo, &parent).await?;
            looks += 1;
            if before.tree != commit.tree {
                for folder in &mut open {
                    self.look(repo, folder, before.tree, |path| found.push((path, id))).await?;
                    looks += 1;
                    let_others_in(looks).await;
                }
                open.retain(|folder| !folder.paths.is_empty());
            }
            id = parent;
            let_others_in(looks).await;
        }
        found.extend(open.iter().flat_map(|folder| &folder.paths).map(|(path, _)| (*path, id)));
        Ok(found)
    }

    /// The paths that are there, by folder.
    async fn open_paths<'a>(
        &self,
        repo: RepoId,
        commit: ObjectHash,
        paths: &[&'a FilePath],
    ) -> Result<Vec<Open<'a>>> {
        let root = self.commit(repo, &commit).await?.tree;
        let mut folders: BTreeMap<Option<FilePath>, Vec<&FilePath>> = BTreeMap::new();
        for path in paths {
            folders.entry(path.parent()).or_default().push(path);
        }
        let mut open = Vec::with_capacity(folders.len());
        for (folder, names) in folders {
            let Some(id) = self.folder_at(repo, root, folder.as_ref()).await? else {
                continue;
            };
            let tree = self.tree(repo, &id).await?;
            let at = |path: &'a FilePath| {
                position(&tree, path.name()).map(|index| (path, tree.entries[index].id))
            };
            let paths = names.into_iter().filter_map(at).collect();
            open.push(Open { folder, tree: Some(id), paths });
        }
        Ok(open)
    }

    /// Goes from a commit to its parent with the paths of one folder, and tells of those that the
    /// parent has otherwise.
    async fn look<'a>(
        &self,
        repo: RepoId,
        open: &mut Open<'a>,
        root: ObjectHash,
        mut changed: impl FnMut(&'a FilePath),
    ) -> Result<()> {
        let before = self.folder_at(repo, root, open.folder.as_ref()).await?;
        if before == open.tree {
            return Ok(());
        }
        let tree = match &before {
            Some(id) => Some(self.tree(repo, id).await?),
            None => None,
        };
        open.paths.retain(|(path, id)| {
            let entry = tree
                .as_ref()
                .and_then(|tree| position(tree, path.name()).map(|index| tree.entries[index].id));
            if entry != Some(*id) {
                changed(path);
            }
            entry == Some(*id)
        });
        open.tree = before;
        Ok(())
    }
}

/// Work that finds all in memory never waits by itself.
async fn let_others_in(passed: usize) {
    if passed.is_multiple_of(LOOKS_AT_ONCE) {
        tokio::task::yield_now().await;
    }
}
