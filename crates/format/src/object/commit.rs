//! A commit: a tree, the commits before it, who made it, and why.

use gix_object::bstr::{BStr, ByteSlice as _};
use gix_object::date::Time;
use gix_object::{CommitRef, WriteTo as _};

use super::{from_git, to_git};
use crate::error::{Error, Result};
use crate::hash::ObjectHash;

/// Who did something, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    /// Their name.
    pub name: String,
    /// Their address.
    pub email: String,
    /// When, in unix seconds; the time zone is always UTC.
    pub time_seconds: i64,
}

/// A commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// The root folder.
    pub tree: ObjectHash,
    /// The commits before it; none for the first.
    pub parents: Vec<ObjectHash>,
    /// Who made the change.
    pub author: Signature,
    /// Who made the commit.
    pub committer: Signature,
    /// Why: a title, and after an empty line whatever else there is to say.
    pub message: String,
}

impl Commit {
    /// Reads a commit object, for showing it: headers that we do not know are left out, text that
    /// is not UTF-8 is replaced where it is not, and a date that nobody can read is 1970.
    pub fn decode(content: &[u8]) -> Result<Self> {
        let fault = |error: &dyn std::fmt::Display| Error::malformed("commit", error.to_string());
        let commit =
            CommitRef::from_bytes(content, gix_hash::Kind::Sha1).map_err(|error| fault(&error))?;
        let id = |hex: &BStr| {
            gix_hash::ObjectId::from_hex(hex).map(|id| from_git(&id)).map_err(|e| fault(&e))
        };
        Ok(Self {
            tree: id(commit.tree)?,
            parents: commit.parents.iter().map(|parent| id(parent)).collect::<Result<_>>()?,
            author: read(commit.author().map_err(|error| fault(&error))?),
            committer: read(commit.committer().map_err(|error| fault(&error))?),
            message: commit.message.to_str_lossy().into_owned(),
        })
    }

    /// The commit object. Names and addresses lose what git can't hold, which is angle brackets,
    /// line ends and spaces around them; all text loses zero bytes, at which git would end it.
    pub fn encode(&self) -> Vec<u8> {
        let commit = gix_object::Commit {
            tree: to_git(&self.tree),
            parents: self.parents.iter().map(to_git).collect(),
            author: write(&self.author),
            committer: write(&self.committer),
            encoding: None,
            message: self.message.replace('\0', "").into(),
            extra_headers: Vec::new(),
        };
        let mut content = Vec::new();
        commit.write_to(&mut content).expect("signatures are clean, and memory takes every write");
        content
    }
}

fn read(signature: gix_actor::SignatureRef<'_>) -> Signature {
    Signature {
        name: signature.name.to_str_lossy().into_owned(),
        email: signature.email.to_str_lossy().into_owned(),
        time_seconds: signature.seconds(),
    }
}

fn write(signature: &Signature) -> gix_actor::Signature {
    let clean = |text: &str| text.replace(['<', '>', '\n', '\r', '\0'], "").trim().to_owned();
    gix_actor::Signature {
        name: clean(&signature.name).into(),
        email: clean(&signature.email).into(),
        time: Time { seconds: signature.time_seconds, offset: 0 },
    }
}
