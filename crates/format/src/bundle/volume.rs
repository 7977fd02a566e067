//! One volume: a head that says whose it is, records back to back, and a directory of them.
//!
//! It is read without any other file: the directory says what each record is and how long.

use super::RecordKind;
use crate::codec::{Decoder, Encoder};
use crate::error::{Error, Result};
use crate::hash::BundleHash;
use crate::limits::{MAX_BUNDLE_CONTENTS_BYTES, MAX_BUNDLE_VOLUMES};

const WHAT: &str = "bundle volume";
const VERSION: u16 = 1;
const MAGIC: &[u8; 8] = b"BLSTBNDV";
const END: &[u8; 8] = b"BLSTBNDE";

/// Bytes of the fixed end of a volume: hash and length of the directory, version, end mark.
pub const TAIL_BYTES: usize = 32 + 4 + 2 + 8;
/// Bytes of one record in the directory.
const RECORD_BYTES: usize = 1 + 32 + 8;

/// How a volume begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VolumeHead {
    /// The bundle that it belongs to.
    pub bundle: BundleHash,
    /// Which of its volumes it is; the first is 1.
    pub number: u32,
}

impl VolumeHead {
    /// Bytes of a head.
    pub const BYTES: usize = 8 + 2 + 32 + 4;

    /// The bytes that a volume begins with.
    pub fn encode(&self) -> Vec<u8> {
        let mut to = Encoder::new();
        to.array(MAGIC);
        to.u16(VERSION);
        to.array(self.bundle.as_bytes());
        to.u32(self.number);
        to.finish()
    }

    /// Reads the first [`BYTES`](Self::BYTES) of a volume.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut from = Decoder::new(WHAT, bytes);
        if &from.array::<8>()? != MAGIC {
            return Err(from.malformed("it does not begin as one"));
        }
        check_version(from.u16()?)?;
        let head = Self { bundle: BundleHash::from_bytes(from.array()?), number: from.u32()? };
        if head.number == 0 || head.number as usize > MAX_BUNDLE_VOLUMES {
            return Err(from.malformed(format!("{} is the number of no volume", head.number)));
        }
        from.finish()?;
        Ok(head)
    }
}

/// A record as the directory of its volume tells of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VolumeRecord {
    /// What it holds.
    pub kind: RecordKind,
    /// The name of that: of chunks the hash of the xorb that they make, of objects the BLAKE3 of
    /// their ids one after another.
    pub hash: [u8; 32],
    /// Its length.
    pub bytes: u64,
}

/// The records of a volume, in order; the first begins behind the head.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Directory {
    /// The records.
    pub records: Vec<VolumeRecord>,
}

impl Directory {
    /// What stands behind the records: the directory and the end.
    pub fn encode(&self) -> Result<Vec<u8>> {
        let mut to = Encoder::new();
        to.list(&self.records, |to, record| {
            to.u8(record.kind.to_byte());
            to.array(&record.hash);
            to.u64(record.bytes);
        });
        let directory = to.finish();
        check_length(directory.len())?;
        let length = u32::try_from(directory.len()).expect("it was compared with a limit");
        let mut to = Encoder::new();
        to.array(&directory);
        to.array(blake3::hash(&directory).as_bytes());
        to.u32(length);
        to.u16(VERSION);
        to.array(END);
        Ok(to.finish())
    }

    /// How many bytes of a volume of so many records are not records.
    pub fn overhead_bytes(records: usize) -> u64 {
        (VolumeHead::BYTES + 4 + records * RECORD_BYTES + TAIL_BYTES) as u64
    }

    /// How many bytes at the end of a volume hold the directory and the end, told by its last
    /// [`TAIL_BYTES`].
    pub fn tail_length(tail: &[u8]) -> Result<usize> {
        let mut from = Decoder::new(WHAT, tail);
        from.take(32)?;
        let length = from.u32()? as usize;
        check_version(from.u16()?)?;
        if &from.array::<8>()? != END {
            return Err(from.malformed("it does not end as one"));
        }
        from.finish()?;
        check_length(length)?;
        Ok(length + TAIL_BYTES)
    }

    /// Reads the end of a volume of `total` bytes: exactly as many bytes as
    /// [`tail_length`](Self::tail_length) says.
    pub fn decode(tail: &[u8], total: u64) -> Result<Self> {
        let split = tail.len().checked_sub(TAIL_BYTES).ok_or(Error::Truncated { what: WHAT })?;
        let (directory, end) = tail.split_at(split);
        if Self::tail_length(end)? != tail.len() {
            return Err(Error::malformed(WHAT, "its directory has another length"));
        }
        if blake3::hash(directory).as_bytes()[..] != end[..32] {
            return Err(Error::malformed(WHAT, "its directory has another hash"));
        }
        let mut from = Decoder::new(WHAT, directory);
        let mut end = VolumeHead::BYTES as u64;
        let records = from.list(RECORD_BYTES, |from| {
            let kind = RecordKind::decode(from)?;
            let record = VolumeRecord { kind, hash: from.array()?, bytes: from.u64()? };
            end = end.saturating_add(record.bytes);
            Ok(record)
        })?;
        from.finish()?;
        if end.checked_add(tail.len() as u64) != Some(total) {
            return Err(Error::malformed(WHAT, "its records do not reach its directory"));
        }
        Ok(Self { records })
    }
}

fn check_version(version: u16) -> Result<()> {
    if version == VERSION {
        return Ok(());
    }
    Err(Error::UnknownVersion { what: WHAT, version: u64::from(version) })
}

fn check_length(size: usize) -> Result<()> {
    if size > MAX_BUNDLE_CONTENTS_BYTES {
        let (size, limit) = (size as u64, MAX_BUNDLE_CONTENTS_BYTES as u64);
        return Err(Error::TooLarge { what: "directory of a bundle volume", size, limit });
    }
    Ok(())
}
