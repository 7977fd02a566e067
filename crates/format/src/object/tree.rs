//! A folder: names, what they are, and the objects behind them.

use std::cmp::Ordering;

use gix_object::bstr::ByteSlice as _;
use gix_object::tree::{Entry, EntryKind, EntryMode as GitMode, name_order};
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

    /// Git has written other bits of permission, long ago: they mean no more than these.
    fn from_git(mode: GitMode) -> Option<Self> {
        match mode.kind() {
            EntryKind::Blob => Some(Self::File),
            EntryKind::BlobExecutable => Some(Self::Executable),
            EntryKind::Link => Some(Self::Symlink),
            EntryKind::Tree => Some(Self::Directory),
            // Whatever is nothing else is called a commit; that it is one has to be seen.
            EntryKind::Commit => mode.is_commit().then_some(Self::Submodule),
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
        let fault = |reason: &str| Error::malformed("tree", reason);
        let tree = TreeRef::from_bytes(content, gix_hash::Kind::Sha1)
            .map_err(|error| fault(&error.to_string()))?;
        let entry = |entry: &gix_object::tree::EntryRef<'_>| {
            let name = entry.filename.to_str().map_err(|_| fault("a name is not UTF-8"))?;
            if matches!(name, "" | "." | "..") || name.contains('/') {
                return Err(fault("a name is empty, `.` or `..`, or has a slash"));
            }
            let mode = EntryMode::from_git(entry.mode).ok_or_else(|| fault("a mode is unknown"))?;
            Ok(TreeEntry { name: name.to_owned(), mode, id: from_git(entry.oid) })
        };
        let entries = tree.entries.iter().map(entry).collect::<Result<Vec<_>>>()?;
        if !entries.windows(2).all(|pair| order(&pair[0], &pair[1]).is_lt()) {
            return Err(fault("its entries are not in order"));
        }
        let tree = Self { entries };
        // A file and a folder of one name need not stand next to each other.
        let is_twice =
            |entry: &TreeEntry| entry.is_directory() && tree.find(&entry.name, false).is_ok();
        if tree.entries.iter().any(is_twice) {
            return Err(fault("a name is there twice"));
        }
        Ok(tree)
    }

    /// The tree object; entries may be in any order. No name may have a zero byte; a part of a
    /// [`FilePath`](crate::name::FilePath) has none.
    pub fn encode(&self) -> Vec<u8> {
        let mut entries: Vec<&TreeEntry> = self.entries.iter().collect();
        entries.sort_by(|a, b| order(a, b));
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

    /// The entry with this name, if the entries are in order.
    pub fn get(&self, name: &str) -> Option<&TreeEntry> {
        self.place(name).map(|place| &self.entries[place])
    }

    /// Puts an entry in, in place of one of the same name.
    pub fn insert(&mut self, entry: TreeEntry) {
        self.remove(&entry.name);
        let (Ok(place) | Err(place)) = self.find(&entry.name, entry.is_directory());
        self.entries.insert(place, entry);
    }

    /// Takes an entry out.
    pub fn remove(&mut self, name: &str) -> Option<TreeEntry> {
        self.place(name).map(|place| self.entries.remove(place))
    }

    fn place(&self, name: &str) -> Option<usize> {
        let found = self.find(name, false).or_else(|_| self.find(name, true)).ok()?;
        // In the order, `foo/` is where the folder `foo` is.
        (self.entries[found].name == name).then_some(found)
    }

    /// Where a file or a folder of this name is, or would be.
    fn find(&self, name: &str, is_directory: bool) -> std::result::Result<usize, usize> {
        self.entries.binary_search_by(|entry| {
            let has = entry.name.as_bytes();
            name_order(has, entry.is_directory(), name.as_bytes(), is_directory)
        })
    }
}

impl TreeEntry {
    fn is_directory(&self) -> bool {
        self.mode == EntryMode::Directory
    }
}

/// Git sorts a folder as if its name ended with a slash.
fn order(a: &TreeEntry, b: &TreeEntry) -> Ordering {
    name_order(a.name.as_bytes(), a.is_directory(), b.name.as_bytes(), b.is_directory())
}
