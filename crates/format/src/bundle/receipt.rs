//! What a hub has of one creator's bundles: written after each import, and what the next bundle is
//! made against.

use crate::codec::{Decoder, Format};
use crate::error::Result;
use crate::hash::{BundleHash, ObjectHash, Sha256};
use crate::limits::MAX_RECEIPT_BYTES;
use crate::name::{RepoKind, RepoName};

const FORMAT: Format = Format {
    what: "receipt",
    magic: *b"BLSTRCPT",
    version: 2,
    limit: MAX_RECEIPT_BYTES,
    has_checksum: true,
};
/// The version from which on revisions say what of them is not there.
const WITH_ABSENT: u16 = 2;
/// The shortest revision: kind, a name's length and a commit.
const REVISION_BYTES: usize = 1 + 4 + 20;

/// A commit of a repo.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Revision {
    /// The repo's kind.
    pub kind: RepoKind,
    /// The repo's name.
    pub name: RepoName,
    /// The commit.
    pub commit: ObjectHash,
    /// Large files of it that are not there, in order: bundles left them out.
    pub absent: Vec<Sha256>,
}

/// A receipt. It is proof of nothing: whoever makes a bundle against one that lies makes one that
/// lacks something, and its import says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The public key of whoever made the bundles.
    pub creator: [u8; 32],
    /// The latest bundle that came.
    pub bundle: BundleHash,
    /// Its place in the creator's order.
    pub sequence: u64,
    /// When it came, in unix milliseconds by the clock of whoever wrote this.
    pub time_ms: u64,
    /// Every revision of theirs that is there, from this and from earlier bundles.
    pub revisions: Vec<Revision>,
}

impl Receipt {
    /// The stored bytes.
    pub fn encode(&self) -> Result<Vec<u8>> {
        FORMAT.encode(|to| {
            to.array(&self.creator);
            to.array(self.bundle.as_bytes());
            to.u64(self.sequence);
            to.u64(self.time_ms);
            to.list(&self.revisions, |to, revision| {
                to.u8(revision.kind.to_byte());
                to.str(&revision.name.to_string());
                to.array(revision.commit.as_bytes());
                to.list(&revision.absent, |to, sha256| to.array(sha256.as_bytes()));
            });
        })
    }

    /// Reads stored bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let (version, mut from) = FORMAT.decode_since(1, bytes)?;
        let receipt = Self {
            creator: from.array()?,
            bundle: BundleHash::from_bytes(from.array()?),
            sequence: from.u64()?,
            time_ms: from.u64()?,
            revisions: from.list(REVISION_BYTES, |from| {
                Ok(Revision {
                    kind: repo_kind(from)?,
                    name: RepoName::parse(from.str()?)?,
                    commit: ObjectHash::from_bytes(from.array()?),
                    absent: match version {
                        WITH_ABSENT.. => {
                            from.list(32, |from| Ok(Sha256::from_bytes(from.array()?)))?
                        }
                        _ => Vec::new(),
                    },
                })
            })?,
        };
        from.finish()?;
        Ok(receipt)
    }
}

/// The kind of a repo.
pub(super) fn repo_kind(from: &mut Decoder<'_>) -> Result<RepoKind> {
    let byte = from.u8()?;
    RepoKind::from_byte(byte).ok_or_else(|| from.malformed(format!("{byte} is no kind of repo")))
}
