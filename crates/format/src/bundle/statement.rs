//! What the maker of a bundle signs: which files it is made of, and where it stands in the order of
//! their bundles.
//!
//! The signature itself is made and checked elsewhere; here it is 64 bytes behind what it is of.

use crate::codec::Format;
use crate::error::{Error, Result};
use crate::hash::BundleHash;
use crate::limits::MAX_BUNDLE_VOLUMES;

/// Bytes of a volume's line.
const SUM_BYTES: usize = 8 + 32 + 32;

const FORMAT: Format = Format {
    what: "bundle statement",
    magic: *b"BLSTBNDL",
    version: 1,
    limit: 4096 + MAX_BUNDLE_VOLUMES * SUM_BYTES,
    has_checksum: false,
};

/// Bytes of a signature.
pub const SIGNATURE_BYTES: usize = 64;

/// A volume as the statement tells of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VolumeSum {
    /// Its length.
    pub bytes: u64,
    /// The BLAKE3 of all of it.
    pub hash: [u8; 32],
    /// The BLAKE3 of its directory, so that its records are known before all of it was read.
    pub directory: [u8; 32],
}

/// What is signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// The bundle: the hash of its list of contents.
    pub bundle: BundleHash,
    /// The length of the list of contents.
    pub contents_bytes: u64,
    /// The BLAKE3 of the bill of materials.
    pub materials: [u8; 32],
    /// The public key of whoever signs.
    pub creator: [u8; 32],
    /// Its place in the creator's order: each one is larger than those that were before.
    pub sequence: u64,
    /// When it was made, in unix milliseconds by the creator's clock.
    pub created_ms: u64,
    /// The bundle whose receipt it was made against.
    pub previous: Option<BundleHash>,
    /// The volumes, from the first to the last.
    pub volumes: Vec<VolumeSum>,
}

/// A statement with its signature, which nobody has checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedStatement {
    /// What is signed.
    pub statement: Statement,
    /// The bytes that the signature is of.
    pub signed: Vec<u8>,
    /// The signature.
    pub signature: [u8; SIGNATURE_BYTES],
}

impl Statement {
    /// The bytes to sign; the signature stands behind them.
    pub fn encode(&self) -> Result<Vec<u8>> {
        FORMAT.encode(|to| {
            to.array(self.bundle.as_bytes());
            to.u64(self.contents_bytes);
            to.array(&self.materials);
            to.array(&self.creator);
            to.u64(self.sequence);
            to.u64(self.created_ms);
            to.option(self.previous.as_ref(), |to, previous| to.array(previous.as_bytes()));
            to.list(&self.volumes, |to, sum| {
                to.u64(sum.bytes);
                to.array(&sum.hash);
                to.array(&sum.directory);
            });
        })
    }

    fn decode(bytes: &[u8]) -> Result<Self> {
        let mut from = FORMAT.decode(bytes)?;
        let statement = Self {
            bundle: BundleHash::from_bytes(from.array()?),
            contents_bytes: from.u64()?,
            materials: from.array()?,
            creator: from.array()?,
            sequence: from.u64()?,
            created_ms: from.u64()?,
            previous: from.option(|from| Ok(BundleHash::from_bytes(from.array()?)))?,
            volumes: from.list(SUM_BYTES, |from| {
                Ok(VolumeSum { bytes: from.u64()?, hash: from.array()?, directory: from.array()? })
            })?,
        };
        from.finish()?;
        if statement.volumes.len() > MAX_BUNDLE_VOLUMES {
            return Err(Error::malformed(FORMAT.what, "it has too many volumes"));
        }
        Ok(statement)
    }
}

impl SignedStatement {
    /// The most bytes that one takes.
    pub const MAX_BYTES: usize = FORMAT.limit + SIGNATURE_BYTES;

    /// Reads a statement and what stands behind it.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let split = bytes.len().checked_sub(SIGNATURE_BYTES);
        let split = split.ok_or(Error::Truncated { what: FORMAT.what })?;
        let (signed, signature) = bytes.split_at(split);
        let signature = signature.try_into().expect("it was cut to this length");
        Ok(Self { statement: Statement::decode(signed)?, signed: signed.to_vec(), signature })
    }
}
