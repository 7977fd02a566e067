//! What a node keeps beside a file of its cache: what the file is made of, and what of it is here.
//!
//! The first is written once and never changes. Its head is a value of its own, so that a node that
//! starts reads little; the rows of the chunks follow it, and the head names their hash. The second
//! is written again and again while the file is on its way, beside what the hub said of who may
//! have it. Layout: `docs/formats/cached-file.md`.

mod pass;

use std::ops::Range;

use crate::codec::Format;
use crate::error::{Error, Result};
use crate::hash::{ChunkHash, Sha256, XorbHash};
use crate::limits::{
    MAX_CACHED_CHUNKS, MAX_CHUNK_BYTES, MAX_FILE_BYTES, MAX_MANIFEST_BYTES, MAX_XORB_BYTES,
    MAX_XORB_CHUNKS,
};
use crate::manifest::Term;

pub use self::pass::KeptPass;

const HEAD: Format = Format {
    what: "cached file",
    magic: *b"BLSTCHED",
    version: 1,
    limit: MAX_MANIFEST_BYTES,
    has_checksum: true,
};
const HELD: Format = Format {
    what: "list of held chunks",
    magic: *b"BLSTHELD",
    version: 1,
    limit: Format::FRONT_BYTES + 32 + 4 + 4 + MAX_CACHED_CHUNKS / 8 + 1 + Format::CHECKSUM_BYTES,
    has_checksum: true,
};

/// Bytes that say how long the head of a cached file is.
pub const FRONT_BYTES: usize = Format::FRONT_BYTES;
/// Bytes of one term: xorb, first chunk, end of chunks, length.
const TERM_BYTES: usize = 32 + 4 + 4 + 4;
/// Bytes of one chunk's row: hash, length.
const ROW_BYTES: usize = 32 + 4;

/// Which file it is, and of which xorbs it is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CachedHead {
    /// The file.
    pub sha256: Sha256,
    /// Its size in bytes.
    pub size: u64,
    /// What it is made of, in order.
    pub terms: Vec<Term>,
    /// The BLAKE3 hash of the rows of its chunks.
    rows: [u8; 32],
    /// The place in the file's list of chunks at which each term begins, and how many there are.
    firsts: Vec<u32>,
}

impl CachedHead {
    fn new(sha256: Sha256, size: u64, terms: Vec<Term>, rows: [u8; 32]) -> Result<Self> {
        let fault = |reason: &str| Err(Error::malformed(HEAD.what, reason));
        let (mut end, mut first) = (0, 0_u32);
        let mut firsts = Vec::with_capacity(terms.len() + 1);
        for term in &terms {
            if term.chunks.is_empty() || term.length == 0 {
                return fault("a term is empty");
            }
            let is_possible = term.chunks.end as usize <= MAX_XORB_CHUNKS;
            if !is_possible || term.length as usize > MAX_XORB_BYTES {
                return fault("a term is more than a xorb can hold");
            }
            firsts.push(first);
            first = first.saturating_add(term.chunks.end - term.chunks.start);
            end += u64::from(term.length);
        }
        firsts.push(first);
        if first as usize > MAX_CACHED_CHUNKS || size > MAX_FILE_BYTES {
            return fault("it is longer than any file");
        }
        if end != size {
            return fault("its terms do not make its size");
        }
        Ok(Self { sha256, size, terms, rows, firsts })
    }

    /// How many chunks the file has.
    pub fn chunk_count(&self) -> u32 {
        self.firsts.last().copied().unwrap_or_default()
    }

    /// Where a term's chunks are in the file's list of chunks.
    pub fn chunks_of(&self, term: usize) -> Range<u32> {
        self.firsts[term]..self.firsts[term + 1]
    }

    /// The term that has a chunk of the file, and which chunk of the term's xorb that is.
    pub fn xorb_of(&self, chunk: u32) -> Option<(usize, u32)> {
        if chunk >= self.chunk_count() {
            return None;
        }
        let term = self.firsts.partition_point(|first| *first <= chunk) - 1;
        Some((term, self.terms[term].chunks.start + (chunk - self.firsts[term])))
    }

    /// How many bytes at the front of a stored value make its head, told by the first
    /// [`FRONT_BYTES`].
    pub fn length(front: &[u8]) -> Result<usize> {
        HEAD.length(front)
    }

    /// Reads a head: exactly as many bytes as [`length`](Self::length) says.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut decoder = HEAD.decode(bytes)?;
        let sha256 = Sha256::from_bytes(decoder.array()?);
        let size = decoder.u64()?;
        let rows = decoder.array()?;
        let terms = decoder.list(TERM_BYTES, |decoder| {
            let xorb = XorbHash::from_bytes(decoder.array()?);
            let chunks = decoder.u32()?..decoder.u32()?;
            Ok(Term { xorb, chunks, length: decoder.u32()? })
        })?;
        decoder.finish()?;
        Self::new(sha256, size, terms, rows)
    }

    fn encode(&self) -> Result<Vec<u8>> {
        HEAD.encode(|encoder| {
            encoder.array(self.sha256.as_bytes());
            encoder.u64(self.size);
            encoder.array(&self.rows);
            encoder.list(&self.terms, |encoder, term| {
                encoder.array(term.xorb.as_bytes());
                encoder.u32(term.chunks.start);
                encoder.u32(term.chunks.end);
                encoder.u32(term.length);
            });
        })
    }
}

/// All that a file is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CachedFile {
    /// Which file it is, and its terms.
    pub head: CachedHead,
    hashes: Vec<ChunkHash>,
    /// Where each chunk ends in the file.
    ends: Vec<u64>,
}

impl CachedFile {
    /// A file of these terms, whose chunks are these, with their lengths.
    pub fn new(sha256: Sha256, terms: Vec<Term>, chunks: &[(ChunkHash, u32)]) -> Result<Self> {
        let mut rows = Vec::with_capacity(chunks.len() * ROW_BYTES);
        for (hash, length) in chunks {
            rows.extend_from_slice(hash.as_bytes());
            rows.extend_from_slice(&length.to_le_bytes());
        }
        let size = terms.iter().map(|term| u64::from(term.length)).sum();
        let head = CachedHead::new(sha256, size, terms, *blake3::hash(&rows).as_bytes())?;
        Self::with_rows(head, &rows)
    }

    fn with_rows(head: CachedHead, rows: &[u8]) -> Result<Self> {
        let fault = |reason: &str| Err(Error::malformed(HEAD.what, reason));
        let (rows, rest) = rows.as_chunks::<ROW_BYTES>();
        if !rest.is_empty() || rows.len() != head.chunk_count() as usize {
            return fault("its terms do not have as many chunks");
        }
        let mut hashes = Vec::with_capacity(rows.len());
        let mut ends = Vec::with_capacity(rows.len());
        let mut end = 0;
        for row in rows {
            let (hash, length) = row.split_at(32);
            let hash = hash.first_chunk().expect("a row begins with 32 bytes");
            let length = length.first_chunk().expect("a row ends with 4 bytes");
            let length = u32::from_le_bytes(*length);
            if length == 0 || length as usize > MAX_CHUNK_BYTES {
                return fault("a chunk has an impossible length");
            }
            end += u64::from(length);
            hashes.push(ChunkHash::from_bytes(*hash));
            ends.push(end);
        }
        let file = Self { head, hashes, ends };
        for (term, said) in file.head.terms.iter().enumerate() {
            let bytes = file.bytes_of(file.head.chunks_of(term));
            if bytes.end - bytes.start != u64::from(said.length) {
                return fault("the chunks of a term do not make its length");
            }
        }
        Ok(file)
    }

    /// Where these of the file's chunks are in it.
    pub fn bytes_of(&self, chunks: Range<u32>) -> Range<u64> {
        let start_of = |chunk: u32| {
            let before = (chunk as usize).checked_sub(1);
            before.map_or(0, |before| self.ends[before.min(self.ends.len() - 1)])
        };
        start_of(chunks.start)..start_of(chunks.end)
    }

    /// How long one of its chunks is.
    pub fn length_of(&self, chunk: u32) -> u32 {
        let bytes = self.bytes_of(chunk..chunk + 1);
        u32::try_from(bytes.end - bytes.start).expect("no chunk is that long")
    }

    /// The hash of one of its chunks.
    pub fn hash_of(&self, chunk: u32) -> ChunkHash {
        self.hashes[chunk as usize]
    }

    /// The chunk that has this byte; nothing past the end.
    pub fn chunk_at(&self, offset: u64) -> Option<u32> {
        let chunk = self.ends.partition_point(|end| *end <= offset);
        (chunk < self.ends.len()).then(|| u32::try_from(chunk).expect("their number has a limit"))
    }

    /// What keeping it in memory costs.
    pub fn memory_bytes(&self) -> usize {
        self.head.terms.len() * (size_of::<Term>() + 4) + self.hashes.len() * (32 + 8)
    }

    /// The stored bytes.
    pub fn encode(&self) -> Result<Vec<u8>> {
        let mut bytes = self.head.encode()?;
        for (chunk, hash) in (0..).zip(&self.hashes) {
            bytes.extend_from_slice(hash.as_bytes());
            bytes.extend_from_slice(&self.length_of(chunk).to_le_bytes());
        }
        Ok(bytes)
    }

    /// Reads stored bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let length = CachedHead::length(bytes)?;
        let (head, rows) =
            bytes.split_at_checked(length).ok_or(Error::Truncated { what: HEAD.what })?;
        let head = CachedHead::decode(head)?;
        if blake3::hash(rows).as_bytes() != &head.rows {
            return Err(Error::malformed(
                HEAD.what,
                "its chunks are not those that its head names",
            ));
        }
        Self::with_rows(head, rows)
    }
}

/// Which chunks of a file on its way are here. After a crash it may say more than is so: whoever
/// reads it hashes what it names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldChunks {
    /// The file.
    pub sha256: Sha256,
    /// How many chunks the file has.
    pub count: u32,
    /// A bit for each, the lowest one of a byte first; those past the end are 0.
    pub bits: Vec<u8>,
}

impl HeldChunks {
    /// The stored bytes.
    pub fn encode(&self) -> Result<Vec<u8>> {
        HELD.encode(|encoder| {
            encoder.array(self.sha256.as_bytes());
            encoder.u32(self.count);
            encoder.bytes(&self.bits);
        })
    }

    /// Reads stored bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut decoder = HELD.decode(bytes)?;
        let sha256 = Sha256::from_bytes(decoder.array()?);
        let count = decoder.u32()?;
        let bits = decoder.bytes()?.to_vec();
        let spare = bits.len() as u64 * 8;
        let spare = spare.checked_sub(u64::from(count)).filter(|spare| *spare < 8);
        let spare = spare.ok_or_else(|| decoder.malformed("its bits are not as many as chunks"))?;
        if bits.last().is_some_and(|last| u32::from(*last) >> (8 - spare) != 0) {
            return Err(decoder.malformed("it names chunks past the end"));
        }
        decoder.finish()?;
        Ok(Self { sha256, count, bits })
    }
}

#[cfg(test)]
mod tests;
