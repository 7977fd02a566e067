//! From every commit that a ref ever named to the files that depend on damage.

use std::collections::HashSet;
use std::sync::Arc;

use ballast_format::hash::{ObjectHash, PackHash};
use ballast_format::log::RepoChange;
use ballast_format::object::{EntryMode, ObjectKind, Tree};
use ballast_store::keyspace::LogId;

use super::packs::Objects;
use super::{Check, Found};
use crate::access::Repo;
use crate::error::Result;

/// Between so many entries of a folder others get a turn.
const ENTRIES_AT_ONCE: usize = 256;

/// What was seen of a repo.
struct Seen {
    objects: Objects,
    commits: HashSet<ObjectHash>,
    /// Folders that are sound with all that is below them.
    sound: HashSet<ObjectHash>,
    /// Damaged files and folders that were named, by path and object.
    told: HashSet<(String, ObjectHash)>,
    /// The paths of damaged files.
    affected: HashSet<String>,
}

/// A folder that is being walked through.
struct Level {
    /// Its path, with a slash at the end unless it is the root.
    prefix: String,
    id: ObjectHash,
    tree: Arc<Tree>,
    next: usize,
    is_sound: bool,
}

impl Check {
    pub(super) async fn repo(&mut self, repo: &Repo) -> Result<()> {
        let (mut heads, mut packs) = (Vec::<ObjectHash>::new(), Vec::<PackHash>::new());
        let hear = |entry: &ballast_format::log::Entry<RepoChange>| {
            for change in &entry.changes {
                match change {
                    RepoChange::RefSet { new, .. } => heads.push(*new),
                    RepoChange::PackAdded { pack } => packs.push(*pack),
                    _ => {}
                }
            }
        };
        self.log(LogId::Repo(repo.id()), hear).await?;
        let objects = self.packs(repo.id(), &packs).await?;
        let mut seen = Seen {
            objects,
            commits: HashSet::new(),
            sound: HashSet::new(),
            told: HashSet::new(),
            affected: HashSet::new(),
        };
        // The last that moved comes first, so that the newest commit names a file.
        while let Some(head) = heads.pop() {
            self.commits_from(repo, head, &mut seen).await?;
        }
        self.summary.files_affected += seen.affected.len() as u64;
        Ok(())
    }

    async fn commits_from(&mut self, repo: &Repo, head: ObjectHash, seen: &mut Seen) -> Result<()> {
        let mut open = vec![head];
        while let Some(id) = open.pop() {
            if !seen.commits.insert(id) {
                continue;
            }
            if let Some(fault) = self.object(&mut seen.objects, id, ObjectKind::Commit) {
                self.finding(Some(repo), Some(id), None, &fault).await?;
                continue;
            }
            match self.hub.commit(repo.id(), &id).await {
                Ok(commit) => {
                    open.extend(commit.parents.iter().rev().copied());
                    self.tree(repo, id, commit.tree, seen).await?;
                }
                Err(error) => {
                    let fault = self.fault(&format!("the commit `{id}`"), error)?;
                    self.finding(Some(repo), Some(id), None, &fault).await?;
                }
            }
        }
        Ok(())
    }

    /// What is known of an object: the packs were read before.
    fn object(&mut self, objects: &mut Objects, id: ObjectHash, kind: ObjectKind) -> Found {
        if let Some(fault) = objects.faults.get(&id) {
            return Some(Arc::clone(fault));
        }
        let problem = match objects.sound.get(&id) {
            Some(found) if *found == kind => return None,
            Some(found) if kind.is_commit() && found.is_commit() => return None,
            Some(_) => "it is something else",
            None => "it is missing",
        };
        let kind = format!("{kind:?}").to_lowercase();
        let fault = self.damaged(&format!("the {kind} `{id}`"), &problem);
        objects.faults.insert(id, Arc::clone(&fault));
        Some(fault)
    }

    /// Goes through a folder and all below it. What was found sound in another commit is passed
    /// over.
    async fn tree(
        &mut self,
        repo: &Repo,
        commit: ObjectHash,
        root: ObjectHash,
        seen: &mut Seen,
    ) -> Result<()> {
        let mut levels: Vec<Level> = Vec::new();
        self.enter(repo, commit, (String::new(), root), seen, &mut levels).await?;
        while let Some(mut level) = levels.pop() {
            let Some(entry) = level.tree.entries.get(level.next) else {
                if level.is_sound {
                    seen.sound.insert(level.id);
                } else {
                    seen.told.insert((level.prefix, level.id));
                    levels.last_mut().into_iter().for_each(|above| above.is_sound = false);
                }
                continue;
            };
            level.next += 1;
            if level.next.is_multiple_of(ENTRIES_AT_ONCE) {
                tokio::task::yield_now().await;
            }
            let (path, id) = (format!("{}{}", level.prefix, entry.name), entry.id);
            match entry.mode {
                EntryMode::Submodule => levels.push(level),
                EntryMode::Directory => {
                    levels.push(level);
                    let place = (format!("{path}/"), id);
                    self.enter(repo, commit, place, seen, &mut levels).await?;
                }
                EntryMode::File | EntryMode::Executable | EntryMode::Symlink => {
                    if let Some(fault) = self.file(repo, &mut seen.objects, id).await? {
                        level.is_sound = false;
                        if seen.told.insert((path.clone(), id)) {
                            seen.affected.insert(path.clone());
                            self.finding(Some(repo), Some(commit), Some(path), &fault).await?;
                        }
                    }
                    levels.push(level);
                }
            }
        }
        Ok(())
    }

    /// Goes into a folder, unless it is known or can't be read.
    async fn enter(
        &mut self,
        repo: &Repo,
        commit: ObjectHash,
        (prefix, id): (String, ObjectHash),
        seen: &mut Seen,
        levels: &mut Vec<Level>,
    ) -> Result<()> {
        if seen.sound.contains(&id) {
            return Ok(());
        }
        let is_told = seen.told.contains(&(prefix.clone(), id));
        let mut found = self.object(&mut seen.objects, id, ObjectKind::Tree);
        if found.is_none() && !is_told {
            match self.hub.tree(repo.id(), &id).await {
                Ok(tree) => {
                    levels.push(Level { prefix, id, tree, next: 0, is_sound: true });
                    return Ok(());
                }
                Err(error) => found = Some(self.fault(&format!("the tree `{id}`"), error)?),
            }
        }
        levels.last_mut().into_iter().for_each(|above| above.is_sound = false);
        if let Some(fault) = found.filter(|_| !is_told) {
            let path = format!("{prefix}*");
            seen.affected.insert(path.clone());
            seen.told.insert((prefix, id));
            self.finding(Some(repo), Some(commit), Some(path), &fault).await?;
        }
        Ok(())
    }

    /// Checks a blob and, if it is a pointer, the file behind it.
    async fn file(&mut self, repo: &Repo, objects: &mut Objects, id: ObjectHash) -> Result<Found> {
        if let Some(fault) = self.object(objects, id, ObjectKind::Blob) {
            return Ok(Some(fault));
        }
        let Some(pointer) = objects.pointers.get(&id) else {
            return Ok(None);
        };
        let link = match objects.links.get(&pointer.sha256) {
            Some(link) => Some(*link),
            None => self.hub.link_of(repo.id(), &pointer.sha256).await?,
        };
        match link {
            Some(link) => self.large_file(&link).await,
            // A pointer whose file the repo never had is a text like any other; in a mirror, one
            // whose file nobody asked for so far.
            None => Ok(None),
        }
    }
}
