//! A commit's tree while operations change it: folders are read when something in them changes.
//!
//! What was emptied stays in place until the end, as a folder that holds nothing; it is not there
//! for anyone who asks, and not written, since git has no empty folders.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use ballast_format::hash::ObjectHash;
use ballast_format::id::RepoId;
use ballast_format::name::FilePath;
use ballast_format::object::{EntryMode, ObjectKind, Tree, TreeEntry, hash_object};

use crate::error::{Error, Result};
use crate::hub::Hub;

/// A folder that is being changed.
#[derive(Default)]
pub(super) struct Folder {
    children: BTreeMap<String, Child>,
}

enum Child {
    /// As it was, or a file as it is now.
    Entry(TreeEntry),
    /// A folder that is being changed.
    Folder(Folder),
}

/// What a path leads to: a file's object, and whether it may be run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct File {
    pub(super) id: ObjectHash,
    pub(super) mode: EntryMode,
}

/// A tree object to write.
pub(super) struct NewTree {
    pub(super) id: ObjectHash,
    pub(super) content: Vec<u8>,
}

impl Folder {
    /// The folder that a tree describes.
    pub(super) async fn open(hub: &Hub, repo: RepoId, tree: &ObjectHash) -> Result<Self> {
        let tree = hub.tree(repo, tree).await?;
        let child = |entry: &TreeEntry| (entry.name.clone(), Child::Entry(entry.clone()));
        Ok(Self { children: tree.entries.iter().map(child).collect() })
    }

    /// Whether no file is in it, however deep.
    fn is_void(&self) -> bool {
        let is_void = |child: &Child| matches!(child, Child::Folder(folder) if folder.is_void());
        self.children.values().all(is_void)
    }

    /// The folder that holds this path, opened for a change; made, if `make` says so.
    async fn parent_of(
        &mut self,
        hub: &Hub,
        repo: RepoId,
        path: &FilePath,
        make: bool,
    ) -> Result<Option<&mut Self>> {
        let mut folder = self;
        let mut parts = path.components().peekable();
        while let Some(part) = parts.next() {
            if parts.peek().is_none() {
                break;
            }
            let child = match folder.children.entry(part.to_owned()) {
                Entry::Occupied(occupied) => occupied.into_mut(),
                Entry::Vacant(vacant) if make => vacant.insert(Child::Folder(Self::default())),
                Entry::Vacant(_) => return Ok(None),
            };
            if let Child::Entry(entry) = child {
                if entry.mode != EntryMode::Directory {
                    if !make {
                        return Ok(None);
                    }
                    let reason = format!("`{path}` lies in `{part}`, which is a file");
                    return Err(Error::invalid(reason));
                }
                *child = Child::Folder(Self::open(hub, repo, &entry.id).await?);
            }
            let Child::Folder(next) = child else {
                return Err(Error::internal("a folder was opened and is not open"));
            };
            folder = next;
        }
        Ok(Some(folder))
    }

    /// Puts a file at a path. What may be run stays so when its content changes.
    pub(super) async fn put(
        &mut self,
        hub: &Hub,
        repo: RepoId,
        path: &FilePath,
        file: File,
    ) -> Result<()> {
        let parent = self.parent_of(hub, repo, path, true).await?;
        let parent = parent.ok_or_else(|| Error::internal("a folder was not made"))?;
        let name = path.name().to_owned();
        let mode = match parent.children.get(&name) {
            Some(Child::Entry(entry)) if entry.mode == EntryMode::Directory => {
                return Err(Error::invalid(format!("`{path}` is a folder")));
            }
            Some(Child::Folder(folder)) if !folder.is_void() => {
                return Err(Error::invalid(format!("`{path}` is a folder")));
            }
            Some(Child::Entry(entry)) if entry.mode == EntryMode::Executable => entry.mode,
            _ => file.mode,
        };
        let entry = TreeEntry { name: name.clone(), mode, id: file.id };
        parent.children.insert(name, Child::Entry(entry));
        Ok(())
    }

    /// The file at a path.
    pub(super) async fn get(
        &mut self,
        hub: &Hub,
        repo: RepoId,
        path: &FilePath,
    ) -> Result<Option<File>> {
        let Some(parent) = self.parent_of(hub, repo, path, false).await? else {
            return Ok(None);
        };
        Ok(match parent.children.get(path.name()) {
            Some(Child::Entry(TreeEntry { id, mode, .. })) if *mode != EntryMode::Directory => {
                Some(File { id: *id, mode: *mode })
            }
            _ => None,
        })
    }

    /// Takes a file away, if it is there.
    pub(super) async fn take(
        &mut self,
        hub: &Hub,
        repo: RepoId,
        path: &FilePath,
    ) -> Result<Option<File>> {
        let found = self.get(hub, repo, path).await?;
        if found.is_some()
            && let Some(parent) = self.parent_of(hub, repo, path, false).await?
        {
            parent.children.remove(path.name());
        }
        Ok(found)
    }

    /// Takes a folder away with all that is in it; whether it was there.
    pub(super) async fn remove_folder(
        &mut self,
        hub: &Hub,
        repo: RepoId,
        path: &FilePath,
    ) -> Result<bool> {
        let Some(parent) = self.parent_of(hub, repo, path, false).await? else {
            return Ok(false);
        };
        let is_folder = match parent.children.get(path.name()) {
            Some(Child::Folder(folder)) => !folder.is_void(),
            Some(Child::Entry(entry)) => entry.mode == EntryMode::Directory,
            None => false,
        };
        if is_folder {
            parent.children.remove(path.name());
        }
        Ok(is_folder)
    }

    /// The trees to write, those inside before those around them, the root last.
    pub(super) fn into_trees(self) -> Result<Vec<NewTree>> {
        let mut trees = Vec::new();
        if self.write(&mut trees)?.is_none() {
            trees.push(NewTree::of(&Tree::default())?);
        }
        Ok(trees)
    }

    /// Writes the folder unless nothing is in it.
    fn write(self, trees: &mut Vec<NewTree>) -> Result<Option<ObjectHash>> {
        let mut tree = Tree::default();
        for (name, child) in self.children {
            match child {
                Child::Entry(entry) => tree.entries.push(entry),
                Child::Folder(folder) => {
                    if let Some(id) = folder.write(trees)? {
                        tree.entries.push(TreeEntry { name, mode: EntryMode::Directory, id });
                    }
                }
            }
        }
        if tree.entries.is_empty() {
            return Ok(None);
        }
        let new = NewTree::of(&tree)?;
        let id = new.id;
        trees.push(new);
        Ok(Some(id))
    }
}

impl NewTree {
    fn of(tree: &Tree) -> Result<Self> {
        let content = tree.encode();
        Ok(Self { id: hash_object(ObjectKind::Tree, &content)?, content })
    }
}
