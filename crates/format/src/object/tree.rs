//! A folder: names, what they are, and the objects behind them.

use gix_object::bstr::ByteSlice as _;
use gix_object::tree::{Entry, EntryKind};
use gix_object::{TreeRef, WriteTo as _};

use super::{from_git, to_git};
use crate::error::{Error, Result};
use crate::hash::ObjectHash;

/// What a tree's entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryMode {
    /// A file.
    File,
    /// A file that may be run.
    Executable,
    /// A symbolic link.
    Symlink,
    /// A folder.
    Directory,
    /// A commit of another repository.
    Submodule,
}

impl EntryMode {
    fn to_git(self) -> EntryKind {
        match self {
            Self::File => EntryKind::Blob,
            Self::Executable => EntryKind::BlobExecutable,
            Self::Symlink => EntryKind::Link,
            Self::Directory => EntryKind::Tree,
            Self::Submodule => EntryKind::Commit,
        }
    }

    fn from_git(kind: EntryKind) -> Self {
        match kind {
            EntryKind::Blob => Self::File,
            EntryKind::BlobExecutable => Self::Executable,
            EntryKind::Link => Self::Symlink,
            EntryKind::Tree => Self::Directory,
            EntryKind::Commit => Self::Submodule,
        }
    }
}

/// One entry of a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TreeEntry {
    /// Its name in the folder.
    pub name: String,
    /// What it is.
    pub mode: EntryMode,
    /// The object behind it.
    pub id: ObjectHash,
}

/// A folder. Entries are in git's order, in which a folder's name ends with a slash.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tree {
    /// The entries.
    pub entries: Vec<TreeEntry>,
}

impl Tree {
    /// Reads a tree object.
    pub fn decode(content: &[u8]) -> Result<Self> {
        let tree = TreeRef::from_bytes(content, gix_hash::Kind::Sha1)
            .map_err(|error| Error::malformed("tree", error.to_string()))?;
        let entry = |entry: &gix_object::tree::EntryRef<'_>| {
            let name = entry.filename.to_str();
            let name = name.map_err(|_| Error::malformed("tree", "a name is not UTF-8"))?;
            if name.is_empty() {
                return Err(Error::malformed("tree", "a name is empty"));
            }
            let mode = EntryMode::from_git(entry.mode.kind());
            Ok(TreeEntry { name: name.to_owned(), mode, id: from_git(entry.oid) })
        };
        let entries = tree.entries.iter().map(entry).collect::<Result<Vec<_>>>()?;
        let in_order = |pair: &[TreeEntry]| sort_key(&pair[0]) < sort_key(&pair[1]);
        if !entries.windows(2).all(in_order) {
            return Err(Error::malformed("tree", "its entries are not in order"));
        }
        Ok(Self { entries })
    }

    /// The tree object; entries may be in any order.
    pub fn encode(&self) -> Vec<u8> {
        let mut entries: Vec<&TreeEntry> = self.entries.iter().collect();
        entries.sort_by_key(|entry| sort_key(entry));
        let entry = |entry: &&TreeEntry| Entry {
            mode: entry.mode.to_git().into(),
            filename: entry.name.as_str().into(),
            oid: to_git(&entry.id),
        };
        let tree = gix_object::Tree { entries: entries.iter().map(entry).collect() };
        let mut content = Vec::new();
        tree.write_to(&mut content).expect("names hold no zero byte, and memory takes every write");
        content
    }

    /// The entry with this name.
    pub fn get(&self, name: &str) -> Option<&TreeEntry> {
        self.entries.iter().find(|entry| entry.name == name)
    }

    /// Puts an entry in, in place of one of the same name.
    pub fn insert(&mut self, entry: TreeEntry) {
        self.remove(&entry.name);
        let place = self.entries.partition_point(|other| sort_key(other) < sort_key(&entry));
        self.entries.insert(place, entry);
    }

    /// Takes an entry out.
    pub fn remove(&mut self, name: &str) -> Option<TreeEntry> {
        let place = self.entries.iter().position(|entry| entry.name == name)?;
        Some(self.entries.remove(place))
    }
}

/// Git sorts a folder as if its name ended with a slash.
fn sort_key(entry: &TreeEntry) -> impl Ord + use<> {
    let mut key = entry.name.clone().into_bytes();
    if entry.mode == EntryMode::Directory {
        key.push(b'/');
    }
    key
}
