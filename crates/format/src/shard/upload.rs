//! The shard that a client uploads.
//!
//! Parsing proves its structure and that every number in it is possible: counts are held against
//! the bytes that are there before anything is made of them, and nothing is allocated. Whether
//! the xorbs exist and hold what is claimed, whether files hash to their names, and who may refer
//! to what is for the upload flow to decide.

use std::ops::Range;

use bytes::Bytes;

use super::{END, FOOTER_BYTES, FOOTER_VERSION, RECORD_BYTES, Record, TAG, VERSION};
use crate::hash::{ChunkHash, FileHash, RangeHash, Sha256, XorbHash};
use crate::limits::{
    MAX_CHUNK_BYTES, MAX_SHARD_BYTES, MAX_SHARD_FILES, MAX_XORB_BYTES, MAX_XORB_CHUNKS,
};
use crate::{Error, Result};

const WHAT: &str = "shard";

const FILE_HAS_RANGE_HASHES: u32 = 1 << 31;
const FILE_HAS_METADATA: u32 = 1 << 30;
const CHUNK_IS_ELIGIBLE: u32 = 1 << 31;

/// A shard whose structure was checked.
#[derive(Clone, Debug)]
pub struct UploadShard {
    bytes: Bytes,
    file_count: usize,
    xorb_count: usize,
    /// The number of records before the first xorb, without the header.
    xorb_start: usize,
}

/// A file that the shard claims to know.
#[derive(Clone, Copy, Debug)]
pub struct UploadFile<'a> {
    /// The hash over its chunks, as claimed.
    pub hash: FileHash,
    /// The digest that commits name it by, as claimed. Only uploads to buckets leave it out.
    pub sha256: Option<Sha256>,
    segments: &'a [Record],
    range_hashes: Option<&'a [Record]>,
}

/// One stretch of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// The xorb that holds it, which need not be in this shard.
    pub xorb: XorbHash,
    /// The chunks of it: at least one, and no more than a xorb can have.
    pub chunks: Range<u32>,
    /// The uncompressed bytes of these chunks, as claimed.
    pub length: u32,
}

/// A xorb that the shard claims was uploaded before it.
#[derive(Clone, Copy, Debug)]
pub struct UploadXorb<'a> {
    /// The hash over its chunks, as claimed.
    pub hash: XorbHash,
    /// The uncompressed bytes of it: the sum over its chunks.
    pub length: u32,
    chunks: &'a [Record],
}

/// One chunk of such a xorb.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UploadChunk {
    /// Its hash, as claimed.
    pub hash: ChunkHash,
    /// Where it starts in the uncompressed xorb: where the one before ends.
    pub start: u32,
    /// Its uncompressed bytes.
    pub length: u32,
    /// Whether the client marks it as one that others may ask for.
    pub is_eligible: bool,
}

impl UploadShard {
    /// Checks the structure of all that `bytes` hold.
    pub fn parse(bytes: Bytes) -> Result<Self> {
        if bytes.len() > MAX_SHARD_BYTES {
            return Err(Error::TooLarge {
                what: WHAT,
                size: bytes.len() as u64,
                limit: MAX_SHARD_BYTES as u64,
            });
        }
        let footer_bytes = parse_header(&bytes)?;
        let all = records(&bytes);

        let mut rest = all;
        let mut file_count = 0;
        let mut with_range_hashes = 0;
        let mut with_segments = 0;
        while let Some(file) = UploadFile::take(&mut rest)? {
            file_count += 1;
            if file_count > MAX_SHARD_FILES {
                return Err(Error::TooLarge {
                    what: "number of files in a shard",
                    size: file_count as u64,
                    limit: MAX_SHARD_FILES as u64,
                });
            }
            with_segments += usize::from(!file.segments.is_empty());
            with_range_hashes +=
                usize::from(!file.segments.is_empty() && file.range_hashes.is_some());
        }
        if with_range_hashes != 0 && with_range_hashes != with_segments {
            return Err(malformed("only some files have range hashes"));
        }
        let xorb_start = all.len() - rest.len();

        let mut xorb_count = 0;
        while UploadXorb::take(&mut rest)?.is_some() {
            xorb_count += 1;
        }
        let end = RECORD_BYTES * (1 + all.len() - rest.len());
        match footer_bytes {
            0 if end == bytes.len() => {}
            0 => return Err(malformed("there are bytes behind its end")),
            _ => check_footer(&bytes, end, RECORD_BYTES * (1 + xorb_start))?,
        }
        Ok(Self { bytes, file_count, xorb_count, xorb_start })
    }

    /// How many files there are, the same one twice counted twice.
    pub fn file_count(&self) -> usize {
        self.file_count
    }

    /// The files, in their order.
    pub fn files(&self) -> impl Iterator<Item = UploadFile<'_>> {
        let mut rest = records(&self.bytes);
        std::iter::from_fn(move || UploadFile::take(&mut rest).expect("checked when parsed"))
    }

    /// How many xorbs there are.
    pub fn xorb_count(&self) -> usize {
        self.xorb_count
    }

    /// The xorbs, in their order.
    pub fn xorbs(&self) -> impl Iterator<Item = UploadXorb<'_>> {
        let mut rest = &records(&self.bytes)[self.xorb_start..];
        std::iter::from_fn(move || UploadXorb::take(&mut rest).expect("checked when parsed"))
    }
}

impl<'a> UploadFile<'a> {
    /// The stretches that make up the file, in order. None if the file is empty.
    pub fn segments(&self) -> impl ExactSizeIterator<Item = Segment> + use<'a> {
        self.segments.iter().map(|record| Segment {
            xorb: XorbHash::from_bytes(hash(record)),
            chunks: number(record, 2)..number(record, 3),
            length: number(record, 1),
        })
    }

    /// How many segments there are.
    pub fn segment_count(&self) -> usize {
        self.segments.len()
    }

    /// The sum of all segments.
    pub fn size(&self) -> u64 {
        self.segments.iter().map(|record| u64::from(number(record, 1))).sum()
    }

    /// For each segment the proof that the client knows its chunks.
    pub fn range_hashes(&self) -> Option<impl ExactSizeIterator<Item = RangeHash> + use<'a>> {
        let records = self.range_hashes?;
        Some(records.iter().map(|record| RangeHash::from_bytes(hash(record))))
    }

    /// Takes one file off the records, or the record that ends the files.
    fn take(rest: &mut &'a [Record]) -> Result<Option<Self>> {
        let [header] = take(rest, 1)? else {
            return Err(truncated());
        };
        if hash(header) == END {
            return Ok(None);
        }
        let flags = number(header, 0);
        if flags & !(FILE_HAS_RANGE_HASHES | FILE_HAS_METADATA) != 0 {
            return Err(malformed("a file has unknown flags"));
        }
        let count = number(header, 1);
        let segments = take(rest, count)?;
        segments.iter().try_for_each(check_segment)?;
        let range_hashes =
            if flags & FILE_HAS_RANGE_HASHES != 0 { Some(take(rest, count)?) } else { None };
        let sha256 = if flags & FILE_HAS_METADATA != 0 {
            take(rest, 1)?.first().map(|record| Sha256::from_field(hash(record)))
        } else {
            None
        };
        let hash = FileHash::from_bytes(hash(header));
        if segments.is_empty() != (hash == FileHash::ZERO) {
            return Err(malformed("only the empty file has no segments"));
        }
        Ok(Some(Self { hash, sha256, segments, range_hashes }))
    }
}

impl<'a> UploadXorb<'a> {
    /// How many chunks there are.
    pub fn chunk_count(&self) -> usize {
        self.chunks.len()
    }

    /// The chunks, in order.
    pub fn chunks(&self) -> impl ExactSizeIterator<Item = UploadChunk> + use<'a> {
        self.chunks.iter().map(|record| UploadChunk {
            hash: ChunkHash::from_bytes(hash(record)),
            start: number(record, 0),
            length: number(record, 1),
            is_eligible: number(record, 2) & CHUNK_IS_ELIGIBLE != 0,
        })
    }

    /// Takes one xorb off the records, or the record that ends the xorbs.
    fn take(rest: &mut &'a [Record]) -> Result<Option<Self>> {
        let [header] = take(rest, 1)? else {
            return Err(truncated());
        };
        if hash(header) == END {
            return Ok(None);
        }
        let xorb = Self {
            hash: XorbHash::from_bytes(hash(header)),
            length: number(header, 2),
            chunks: take(rest, number(header, 1))?,
        };
        xorb.check()?;
        Ok(Some(xorb))
    }

    fn check(&self) -> Result<()> {
        if !(1..=MAX_XORB_CHUNKS).contains(&self.chunks.len()) {
            return Err(malformed("a xorb has an impossible number of chunks"));
        }
        let mut end = 0;
        for chunk in self.chunks() {
            if chunk.start != end {
                return Err(malformed("a chunk does not start where the one before ends"));
            }
            if !(1..=MAX_CHUNK_BYTES).contains(&(chunk.length as usize)) {
                return Err(malformed("a chunk has an impossible length"));
            }
            // At most 8,192 times 128 KiB, which is 1 GiB.
            end += chunk.length;
        }
        if end != self.length {
            return Err(malformed("a xorb has another length than its chunks together"));
        }
        if end as usize > MAX_XORB_BYTES {
            return Err(Error::TooLarge {
                what: "xorb",
                size: end.into(),
                limit: MAX_XORB_BYTES as u64,
            });
        }
        Ok(())
    }
}

/// Checks the header and returns the size of the footer that it announces.
fn parse_header(bytes: &[u8]) -> Result<usize> {
    let header: &Record = bytes.first_chunk().ok_or_else(truncated)?;
    if hash(header) != TAG {
        return Err(malformed("it does not start with its tag"));
    }
    let version = long(header, 32);
    if version != VERSION {
        return Err(Error::UnknownVersion { what: WHAT, version });
    }
    match long(header, 40) {
        0 => Ok(0),
        size if size == FOOTER_BYTES as u64 => Ok(FOOTER_BYTES),
        _ => Err(malformed("its footer has an impossible size")),
    }
}

/// Checks what of a footer could contradict the sections, which end at `end`. The tables between
/// the two are of use to clients only and are not looked at.
fn check_footer(bytes: &[u8], end: usize, xorbs: usize) -> Result<()> {
    let start = bytes.len().checked_sub(FOOTER_BYTES).filter(|start| *start >= end);
    let start = start.ok_or_else(truncated)?;
    let footer = &bytes[start..];
    let version = long(footer, 0);
    if version != FOOTER_VERSION {
        return Err(Error::UnknownVersion { what: "shard footer", version });
    }
    let places = [RECORD_BYTES as u64, xorbs as u64, start as u64];
    if [long(footer, 8), long(footer, 16), long(footer, 192)] != places {
        return Err(malformed("its footer tells the wrong place of a section"));
    }
    if footer[72..104] != [0; 32] {
        return Err(malformed("its chunk hashes are keyed"));
    }
    Ok(())
}

fn check_segment(record: &Record) -> Result<()> {
    let (length, start, end) = (number(record, 1), number(record, 2), number(record, 3));
    if start >= end || end as usize > MAX_XORB_CHUNKS {
        return Err(malformed("a segment has an impossible range of chunks"));
    }
    if !(1..=MAX_XORB_BYTES).contains(&(length as usize)) {
        return Err(malformed("a segment has an impossible length"));
    }
    Ok(())
}

/// All there is behind the header, as far as it fills records.
fn records(bytes: &[u8]) -> &[Record] {
    bytes.get(RECORD_BYTES..).unwrap_or_default().as_chunks().0
}

/// Takes so many records, if there are so many: a count costs nothing before this is known.
fn take<'a>(rest: &mut &'a [Record], count: u32) -> Result<&'a [Record]> {
    let (taken, behind) = rest.split_at_checked(count as usize).ok_or_else(truncated)?;
    *rest = behind;
    Ok(taken)
}

fn hash(record: &Record) -> [u8; 32] {
    *record.first_chunk().expect("a record is longer than a hash")
}

/// One of the four numbers behind the hash.
fn number(record: &Record, index: usize) -> u32 {
    let numbers = record[32..].as_chunks().0;
    u32::from_le_bytes(numbers[index])
}

fn long(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(*bytes[at..].first_chunk().expect("headers and footers are long enough"))
}

fn truncated() -> Error {
    Error::Truncated { what: WHAT }
}

fn malformed(reason: &str) -> Error {
    Error::malformed(WHAT, reason)
}
