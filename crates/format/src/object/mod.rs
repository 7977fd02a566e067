//! Git's objects, with the ids that git gives them: blobs, trees and commits.
//!
//! Their bytes are git's own, through `gix-object`; the types here are what the rest of the
//! workspace works with. Only SHA-1 repositories are known, since that is what clients expect.

mod commit;
mod pointer;
mod tree;

pub use commit::{Commit, Signature};
pub use pointer::{MAX_POINTER_BYTES, Pointer};
pub use tree::{EntryMode, Tree, TreeEntry};

use gix_hash::{Hasher, hasher};
use gix_object::{Kind, compute_hash};

use crate::error::{Error, Result};
use crate::hash::ObjectHash;

/// What an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ObjectKind {
    /// A file's content.
    Blob,
    /// A folder.
    Tree,
    /// A commit.
    Commit,
}

impl ObjectKind {
    /// The byte that stored formats write.
    pub fn to_byte(self) -> u8 {
        match self {
            Self::Blob => 0,
            Self::Tree => 1,
            Self::Commit => 2,
        }
    }

    /// The kind that a stored byte means.
    pub fn from_byte(byte: u8) -> Option<Self> {
        [Self::Blob, Self::Tree, Self::Commit].into_iter().find(|kind| kind.to_byte() == byte)
    }

    fn to_git(self) -> Kind {
        match self {
            Self::Blob => Kind::Blob,
            Self::Tree => Kind::Tree,
            Self::Commit => Kind::Commit,
        }
    }
}

/// The id that git gives to this content. It fails only for content made to collide.
pub fn hash_object(kind: ObjectKind, content: &[u8]) -> Result<ObjectHash> {
    let id = compute_hash(gix_hash::Kind::Sha1, kind.to_git(), content);
    id.map(|id| from_git(&id)).map_err(|_| collision())
}

/// Hashes a blob that comes in pieces; its length must be known first.
pub struct BlobHasher {
    hasher: Hasher,
    length: u64,
    seen: u64,
}

impl BlobHasher {
    /// A hasher for a blob of `length` bytes.
    pub fn new(length: u64) -> Self {
        let mut hasher = hasher(gix_hash::Kind::Sha1);
        hasher.update(format!("blob {length}\0").as_bytes());
        Self { hasher, length, seen: 0 }
    }

    /// The next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
        self.seen += bytes.len() as u64;
    }

    /// The id, if as many bytes came as were announced.
    pub fn finish(self) -> Result<ObjectHash> {
        if self.seen != self.length {
            let reason = format!("{} bytes were announced, {} came", self.length, self.seen);
            return Err(Error::malformed("blob", reason));
        }
        self.hasher.try_finalize().map(|id| from_git(&id)).map_err(|_| collision())
    }
}

fn collision() -> Error {
    Error::malformed("git object", "it was made to have another object's SHA-1")
}

fn from_git(id: &gix_hash::oid) -> ObjectHash {
    let bytes: [u8; 20] = id.as_bytes().try_into().expect("only SHA-1 is ever asked for");
    ObjectHash::from_bytes(bytes)
}

fn to_git(id: &ObjectHash) -> gix_hash::ObjectId {
    gix_hash::ObjectId::from(*id.as_bytes())
}

#[cfg(test)]
mod tests;
