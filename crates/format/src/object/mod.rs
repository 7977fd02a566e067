//! Git's objects, with the ids that git gives them: blobs, trees and commits; and what an upstream
//! says of commits of which it does not give the objects.
//!
//! Their bytes are git's own, through `gix-object`; the types here are what the rest of the
//! workspace works with. Only SHA-1 repositories are known, since that is what clients expect.

mod commit;
mod pointer;
mod tree;
mod upstream;

pub use commit::{Commit, Signature};
pub use pointer::{MAX_POINTER_BYTES, Pointer};
pub use tree::{EntryMode, Tree, TreeEntry};
pub use upstream::UpstreamCommit;

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
    /// What an upstream says of a commit, under the id that it claims.
    UpstreamCommit,
}

impl ObjectKind {
    /// The byte that stored formats write.
    pub fn to_byte(self) -> u8 {
        match self {
            Self::Blob => 0,
            Self::Tree => 1,
            Self::Commit => 2,
            Self::UpstreamCommit => 3,
        }
    }

    /// The kind that a stored byte means.
    pub fn from_byte(byte: u8) -> Option<Self> {
        let kinds = [Self::Blob, Self::Tree, Self::Commit, Self::UpstreamCommit];
        kinds.into_iter().find(|kind| kind.to_byte() == byte)
    }

    /// Whether a revision can name it.
    pub fn is_commit(self) -> bool {
        matches!(self, Self::Commit | Self::UpstreamCommit)
    }
}

/// The id that git gives to this content; it fails only for content made to collide. Of what an
/// upstream says of a commit, the id that it claims; it fails where the bytes are not whole.
pub fn hash_object(kind: ObjectKind, content: &[u8]) -> Result<ObjectHash> {
    let kind = match kind {
        ObjectKind::Blob => Kind::Blob,
        ObjectKind::Tree => Kind::Tree,
        ObjectKind::Commit => Kind::Commit,
        ObjectKind::UpstreamCommit => return Ok(UpstreamCommit::decode(content)?.id),
    };
    let id = compute_hash(gix_hash::Kind::Sha1, kind, content);
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
