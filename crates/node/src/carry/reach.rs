//! Everything that some commits lead to: the commits behind them, folders, files.

use std::collections::{BTreeMap, HashSet};

use ballast_format::hash::{ObjectHash, Sha256};
use ballast_format::object::{EntryMode, ObjectKind, Pointer};
use ballast_format::pack::FileLink;
use ballast_store::index::schema::ObjectRow;

use crate::access::Repo;
use crate::error::{Error, Result};
use crate::hub::Hub;

/// An object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReachedObject {
    /// Its id.
    pub id: ObjectHash,
    /// What it is.
    pub kind: ObjectKind,
    /// How long its content is.
    pub length: u64,
    /// The large file that it stands for, if it is a pointer.
    pub pointer: Option<Pointer>,
}

/// What was reached.
#[derive(Debug, Default)]
pub struct Reached {
    /// The objects, in the same order each time.
    pub objects: Vec<ReachedObject>,
    /// The large files, by which the repo reads them.
    pub files: BTreeMap<Sha256, FileLink>,
    /// Large files that commits name and whose content is not here.
    pub absent: BTreeMap<Sha256, u64>,
}

/// On the way.
struct Walk {
    seen: HashSet<ObjectHash>,
    reached: Reached,
}

impl Hub {
    /// Walks from commits of a repo to everything behind them. A commit before one of these that
    /// the repo does not have is passed over.
    pub async fn carried_from(&self, repo: &Repo, commits: &[ObjectHash]) -> Result<Reached> {
        // The log as it is now: what the index has of it is read.
        self.state_of(repo.id()).await?;
        let mut walk = Walk { seen: HashSet::new(), reached: Reached::default() };
        let mut open: Vec<ObjectHash> = commits.iter().rev().copied().collect();
        while let Some(id) = open.pop() {
            if walk.seen.contains(&id) {
                continue;
            }
            let Some(row) = self.object_row(repo.id(), &id).await? else {
                if commits.contains(&id) {
                    return Err(Error::RevisionNotFound { revision: id.to_string() });
                }
                continue;
            };
            walk.note(id, &row);
            let commit = self.commit(repo.id(), &id).await?;
            self.reach_tree(repo, commit.tree, &mut walk).await?;
            open.extend(commit.parents.iter().rev());
        }
        Ok(walk.reached)
    }

    async fn reach_tree(&self, repo: &Repo, root: ObjectHash, walk: &mut Walk) -> Result<()> {
        let mut folders = vec![root];
        while let Some(id) = folders.pop() {
            if walk.seen.contains(&id) {
                continue;
            }
            let rows = self.object_rows(repo.id(), &[id]).await?;
            for row in &rows {
                walk.note(id, row);
            }
            let mut files = Vec::new();
            for entry in &self.tree(repo.id(), &id).await?.entries {
                match entry.mode {
                    EntryMode::Submodule => {}
                    EntryMode::Directory => folders.push(entry.id),
                    EntryMode::File | EntryMode::Executable | EntryMode::Symlink => {
                        files.push(entry.id);
                    }
                }
            }
            files.retain(|id| !walk.seen.contains(id));
            let rows = self.object_rows(repo.id(), &files).await?;
            for (id, row) in files.iter().zip(rows) {
                walk.note(*id, &row);
                if let Some(pointer) = row.pointer {
                    self.reach_file(repo, pointer, walk).await?;
                }
            }
        }
        Ok(())
    }

    async fn reach_file(&self, repo: &Repo, pointer: Pointer, walk: &mut Walk) -> Result<()> {
        match self.link_of(repo.id(), &pointer.sha256).await? {
            Some(link) => {
                walk.reached.files.insert(pointer.sha256, link);
            }
            None => {
                walk.reached.absent.insert(pointer.sha256, pointer.size);
            }
        }
        Ok(())
    }
}

impl Walk {
    fn note(&mut self, id: ObjectHash, row: &ObjectRow) {
        if self.seen.insert(id) {
            let ObjectRow { kind, length, pointer, .. } = *row;
            self.reached.objects.push(ReachedObject { id, kind, length, pointer });
        }
    }
}
