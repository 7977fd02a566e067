//! The footer of a stored xorb: which chunks it holds and where each of them lies.
//!
//! A footer that exists agrees with itself: its hash is the one over its chunks, its offsets only
//! grow, and all is within limits. It does not prove that the bytes before it are these chunks;
//! whoever reads them hashes them.

use std::fmt;
use std::ops::Range;

use super::ChunkHeader;
use crate::hash::{ChunkHash, RangeHash, XorbHash};
use crate::hash_tree::xorb_hash;
use crate::limits::{
    MAX_CHUNK_BYTES, MAX_CHUNK_PAYLOAD_BYTES, MAX_XORB_BYTES, MAX_XORB_CHUNKS,
    MAX_XORB_SERIALIZED_BYTES,
};
use crate::{Error, Result};

const WHAT: &str = "xorb footer";

/// What a footer, and nothing that could be a chunk header, starts with.
pub(super) const IDENT: [u8; 7] = *b"XETBLOB";
const VERSION: u8 = 1;
/// An older layout, without uncompressed offsets. It is checked, never written.
const OLD_VERSION: u8 = 0;
const HASHES_IDENT: [u8; 7] = *b"XBLBHSH";
const HASHES_VERSION: u8 = 0;
const BOUNDARIES_IDENT: [u8; 7] = *b"XBLBBND";
const BOUNDARIES_VERSION: u8 = 1;

/// The length that a footer states: all but the statement itself.
const fn stated_length(chunks: usize) -> usize {
    92 + 40 * chunks
}

/// The chunks of a xorb: their hashes, and where each ends.
#[derive(Clone, PartialEq, Eq)]
pub struct XorbFooter {
    hash: XorbHash,
    chunks: Box<[Chunk]>,
}

/// One chunk, in 40 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Chunk {
    hash: ChunkHash,
    /// Where it ends in the object, header included in its length.
    serialized_end: u32,
    /// Where it ends in the concatenation of all chunks.
    uncompressed_end: u32,
}

impl XorbFooter {
    /// The hash of the xorb.
    pub fn hash(&self) -> XorbHash {
        self.hash
    }

    /// How many chunks there are: one at least.
    pub fn chunk_count(&self) -> u32 {
        u32::try_from(self.chunks.len()).expect("at most 8,192 chunks")
    }

    /// The hash of a chunk. Panics if there is no such chunk.
    pub fn chunk_hash(&self, index: u32) -> ChunkHash {
        self.chunks[index as usize].hash
    }

    /// The hashes of all chunks, in order.
    pub fn chunk_hashes(&self) -> impl ExactSizeIterator<Item = &ChunkHash> {
        self.chunks.iter().map(|chunk| &chunk.hash)
    }

    /// The uncompressed bytes of a chunk. Panics if there is no such chunk.
    pub fn chunk_length(&self, index: u32) -> u32 {
        self.chunks[index as usize].uncompressed_end - self.uncompressed_start(index)
    }

    /// The bytes that a chunk takes in the object, header included. Panics if there is no such
    /// chunk.
    pub fn serialized_chunk_length(&self, index: u32) -> u32 {
        let before = (index as usize).checked_sub(1);
        let start = before.map_or(0, |before| self.chunks[before].serialized_end);
        self.chunks[index as usize].serialized_end - start
    }

    /// Where a chunk starts in the concatenation of all chunks. Panics if there is no such chunk
    /// and the index is not the number of chunks either.
    pub fn uncompressed_start(&self, index: u32) -> u32 {
        let before = (index as usize).checked_sub(1);
        before.map_or(0, |before| self.chunks[before].uncompressed_end)
    }

    /// The chunk that holds the byte at `offset` of the concatenation of all chunks, if there is
    /// such a byte.
    pub fn chunk_at(&self, offset: u32) -> Option<u32> {
        let index = self.chunks.partition_point(|chunk| chunk.uncompressed_end <= offset);
        u32::try_from(index).ok().filter(|index| *index < self.chunk_count())
    }

    /// The bytes of all serialized chunks: where the footer starts in a stored object.
    pub fn serialized_length(&self) -> u64 {
        self.serialized_start(self.chunk_count())
    }

    /// The uncompressed bytes of all chunks together.
    pub fn total_length(&self) -> u32 {
        self.uncompressed_start(self.chunk_count())
    }

    /// The bytes of the object that hold these chunks, headers included.
    pub fn byte_range(&self, chunks: Range<u32>) -> Result<Range<u64>> {
        self.check(&chunks)?;
        Ok(self.serialized_start(chunks.start)..self.serialized_start(chunks.end))
    }

    /// The uncompressed bytes of these chunks.
    pub fn uncompressed_length(&self, chunks: Range<u32>) -> Result<u64> {
        self.check(&chunks)?;
        let (start, end) =
            (self.uncompressed_start(chunks.start), self.uncompressed_start(chunks.end));
        Ok(u64::from(end - start))
    }

    /// The hash that proves knowledge of these chunks.
    pub fn range_hash(&self, chunks: Range<u32>) -> Result<RangeHash> {
        self.check(&chunks)?;
        let chunks = &self.chunks[chunks.start as usize..chunks.end as usize];
        Ok(RangeHash::over(chunks.iter().map(|chunk| &chunk.hash)))
    }

    /// What this value takes in memory, for caches.
    pub fn memory_bytes(&self) -> usize {
        size_of::<Self>() + size_of_val(&*self.chunks)
    }

    /// The length of a footer, all in all, from the last four bytes of the object.
    pub fn footer_length(last: [u8; 4]) -> Result<usize> {
        let stated = u32::from_le_bytes(last) as usize;
        let chunks = stated.saturating_sub(stated_length(0)) / 40;
        if stated != stated_length(chunks) || chunks == 0 || chunks > MAX_XORB_CHUNKS {
            return Err(malformed("its length is that of no number of chunks"));
        }
        Ok(stated + last.len())
    }

    /// The footer as it stands behind the chunks. The nonce makes two copies of one xorb differ.
    pub fn encode(&self, nonce: u32) -> Vec<u8> {
        let count = self.chunk_count().to_le_bytes();
        let stated = stated_length(self.chunks.len());
        let mut bytes = Vec::with_capacity(stated + 4);
        bytes.extend_from_slice(&IDENT);
        bytes.push(VERSION);
        bytes.extend_from_slice(self.hash.as_bytes());

        bytes.extend_from_slice(&HASHES_IDENT);
        bytes.push(HASHES_VERSION);
        bytes.extend_from_slice(&count);
        for chunk in &self.chunks {
            bytes.extend_from_slice(chunk.hash.as_bytes());
        }

        bytes.extend_from_slice(&BOUNDARIES_IDENT);
        bytes.push(BOUNDARIES_VERSION);
        bytes.extend_from_slice(&count);
        for chunk in &self.chunks {
            bytes.extend_from_slice(&chunk.serialized_end.to_le_bytes());
        }
        for chunk in &self.chunks {
            bytes.extend_from_slice(&chunk.uncompressed_end.to_le_bytes());
        }

        bytes.extend_from_slice(&count);
        for section in self.section_offsets() {
            bytes.extend_from_slice(&section.to_le_bytes());
        }
        bytes.extend_from_slice(&nonce.to_le_bytes());
        bytes.extend_from_slice(&[0; 12]);
        debug_assert_eq!(bytes.len(), stated);
        bytes.extend_from_slice(&as_u32(stated).to_le_bytes());
        bytes
    }

    /// Reads the footer at the end of `tail`, the last bytes of a stored object, and checks all
    /// that can be checked without the chunks.
    pub fn decode(tail: &[u8]) -> Result<Self> {
        let last = tail.last_chunk().ok_or_else(truncated)?;
        let length = Self::footer_length(*last)?;
        let start = tail.len().checked_sub(length).ok_or_else(truncated)?;
        let mut fields = Fields(&tail[start..]);
        let count = (length - 4 - stated_length(0)) / 40;

        fields.expect(&IDENT, "it does not start with its mark")?;
        let [version] = *fields.take()?;
        if version != VERSION {
            return Err(Error::UnknownVersion { what: WHAT, version: version.into() });
        }
        let hash = XorbHash::from_bytes(*fields.take()?);

        fields.expect(&HASHES_IDENT, "the section of hashes has no mark")?;
        fields.expect(&[HASHES_VERSION], "the section of hashes has an unknown version")?;
        fields.expect(&as_u32(count).to_le_bytes(), "its counts differ")?;
        let hashes = fields.list::<32>(count)?;

        fields.expect(&BOUNDARIES_IDENT, "the section of boundaries has no mark")?;
        fields.expect(&[BOUNDARIES_VERSION], "the section of boundaries has an unknown version")?;
        fields.expect(&as_u32(count).to_le_bytes(), "its counts differ")?;
        let serialized_ends = fields.list::<4>(count)?;
        let uncompressed_ends = fields.list::<4>(count)?;

        let mut builder = FooterBuilder::with_capacity(count);
        for ((hash, serialized), uncompressed) in
            hashes.iter().zip(serialized_ends).zip(uncompressed_ends)
        {
            let hash = ChunkHash::from_bytes(*hash);
            let serialized = u32::from_le_bytes(*serialized);
            let uncompressed = u32::from_le_bytes(*uncompressed);
            builder.push_ends(hash, serialized, uncompressed)?;
        }
        let footer = builder.finish()?;
        if footer.hash != hash {
            return Err(Error::HashMismatch {
                what: WHAT,
                expected: hash.to_string(),
                actual: footer.hash.to_string(),
            });
        }

        fields.expect(&as_u32(count).to_le_bytes(), "its counts differ")?;
        for section in footer.section_offsets() {
            fields.expect(&section.to_le_bytes(), "it tells the wrong place of a section")?;
        }
        let _nonce: &[u8; 4] = fields.take()?;
        fields.expect(&[0; 12], "there is something behind the nonce")?;
        Ok(footer)
    }

    /// Whether `bytes` are a footer of any version that says what this one says.
    pub(super) fn agrees_with(&self, bytes: &[u8]) -> bool {
        if bytes.get(IDENT.len()) == Some(&OLD_VERSION) {
            // All but the 16 bytes that have no meaning.
            let expected = self.encode_old();
            let rest = expected.len() - 20;
            return bytes.len() == expected.len()
                && bytes[..rest] == expected[..rest]
                && bytes.last_chunk::<4>() == expected.last_chunk::<4>();
        }
        Self::decode(bytes).is_ok_and(|footer| {
            footer == *self && bytes.len() == stated_length(self.chunks.len()) + 4
        })
    }

    fn encode_old(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend_from_slice(&IDENT);
        bytes.push(OLD_VERSION);
        bytes.extend_from_slice(self.hash.as_bytes());
        bytes.extend_from_slice(&self.chunk_count().to_le_bytes());
        for chunk in &self.chunks {
            bytes.extend_from_slice(&chunk.serialized_end.to_le_bytes());
        }
        for chunk in &self.chunks {
            bytes.extend_from_slice(chunk.hash.as_bytes());
        }
        bytes.extend_from_slice(&[0; 16]);
        let stated = as_u32(bytes.len());
        bytes.extend_from_slice(&stated.to_le_bytes());
        bytes
    }

    /// The bytes from the start of each section to the end of the nonce's field.
    fn section_offsets(&self) -> [u32; 2] {
        let boundaries = 40 + 8 * self.chunk_count();
        [boundaries + 12 + 32 * self.chunk_count(), boundaries]
    }

    fn serialized_start(&self, index: u32) -> u64 {
        let before = (index as usize).checked_sub(1);
        before.map_or(0, |before| self.chunks[before].serialized_end.into())
    }

    fn check(&self, chunks: &Range<u32>) -> Result<()> {
        if chunks.start < chunks.end && chunks.end <= self.chunk_count() {
            return Ok(());
        }
        let reason = format!("{chunks:?} are not chunks of a xorb that has {}", self.chunks.len());
        Err(Error::malformed("chunk range", reason))
    }
}

impl fmt::Debug for XorbFooter {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("XorbFooter")
            .field("hash", &self.hash)
            .field("chunk_count", &self.chunks.len())
            .field("serialized_length", &self.serialized_length())
            .field("total_length", &self.total_length())
            .finish()
    }
}

/// A footer that grows by one chunk after the other and is within all limits at any time.
#[derive(Debug, Default)]
pub(super) struct FooterBuilder {
    chunks: Vec<Chunk>,
}

impl FooterBuilder {
    fn with_capacity(chunks: usize) -> Self {
        Self { chunks: Vec::with_capacity(chunks) }
    }

    pub(super) fn chunk_count(&self) -> usize {
        self.chunks.len()
    }

    /// Where the next chunk starts in the object.
    pub(super) fn serialized_end(&self) -> u32 {
        self.chunks.last().map_or(0, |chunk| chunk.serialized_end)
    }

    /// Where the next chunk starts in the concatenation of all chunks.
    pub(super) fn uncompressed_end(&self) -> u32 {
        self.chunks.last().map_or(0, |chunk| chunk.uncompressed_end)
    }

    /// Whether a chunk with this header may follow.
    pub(super) fn check(&self, header: &ChunkHeader) -> Result<()> {
        let serialized = self.serialized_end() + as_u32(header.serialized_length());
        self.check_ends(serialized, self.uncompressed_end() + header.uncompressed_length)
    }

    /// Adds a chunk with this header, which the caller has checked.
    pub(super) fn push(&mut self, hash: ChunkHash, header: &ChunkHeader) {
        debug_assert!(self.check(header).is_ok(), "the caller has checked");
        self.chunks.push(Chunk {
            hash,
            serialized_end: self.serialized_end() + as_u32(header.serialized_length()),
            uncompressed_end: self.uncompressed_end() + header.uncompressed_length,
        });
    }

    /// The footer of all chunks; none is an error.
    pub(super) fn finish(self) -> Result<XorbFooter> {
        if self.chunks.is_empty() {
            return Err(Error::malformed("xorb", "it has no chunks"));
        }
        let mut start = 0;
        let hash = xorb_hash(self.chunks.iter().map(|chunk| {
            let length = chunk.uncompressed_end - start;
            start = chunk.uncompressed_end;
            (chunk.hash, length.into())
        }));
        Ok(XorbFooter { hash, chunks: self.chunks.into() })
    }

    fn push_ends(&mut self, hash: ChunkHash, serialized: u32, uncompressed: u32) -> Result<()> {
        let payload = serialized
            .checked_sub(self.serialized_end() + as_u32(ChunkHeader::BYTES))
            .ok_or_else(|| malformed("its offsets do not grow"))?;
        let length = uncompressed
            .checked_sub(self.uncompressed_end())
            .ok_or_else(|| malformed("its offsets do not grow"))?;
        if payload == 0 || payload as usize > MAX_CHUNK_PAYLOAD_BYTES {
            return Err(malformed("a chunk has a payload of an impossible length"));
        }
        if length == 0 || length as usize > MAX_CHUNK_BYTES {
            return Err(malformed("a chunk has an impossible length"));
        }
        self.check_ends(serialized, uncompressed)?;
        self.chunks.push(Chunk {
            hash,
            serialized_end: serialized,
            uncompressed_end: uncompressed,
        });
        Ok(())
    }

    /// Sums of lengths that are within their own limits cannot overflow: each is at most 256 KiB
    /// over a sum that was checked.
    fn check_ends(&self, serialized: u32, uncompressed: u32) -> Result<()> {
        for (what, size, limit) in [
            ("number of chunks in a xorb", self.chunks.len() + 1, MAX_XORB_CHUNKS),
            ("xorb", uncompressed as usize, MAX_XORB_BYTES),
            ("serialized xorb", serialized as usize, MAX_XORB_SERIALIZED_BYTES),
        ] {
            if size > limit {
                return Err(Error::TooLarge { what, size: size as u64, limit: limit as u64 });
            }
        }
        Ok(())
    }
}

/// What of a footer has not been read.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take<const N: usize>(&mut self) -> Result<&'a [u8; N]> {
        let (taken, rest) = self.0.split_first_chunk().ok_or_else(truncated)?;
        self.0 = rest;
        Ok(taken)
    }

    fn list<const N: usize>(&mut self, count: usize) -> Result<&'a [[u8; N]]> {
        let (taken, rest) = self.0.split_at_checked(N * count).ok_or_else(truncated)?;
        self.0 = rest;
        Ok(taken.as_chunks().0)
    }

    fn expect(&mut self, expected: &[u8], or_else: &str) -> Result<()> {
        self.0 = self.0.strip_prefix(expected).ok_or_else(|| malformed(or_else))?;
        Ok(())
    }
}

fn as_u32(length: usize) -> u32 {
    u32::try_from(length).expect("lengths in a xorb are under 128 MiB")
}

fn truncated() -> Error {
    Error::Truncated { what: WHAT }
}

fn malformed(reason: &str) -> Error {
    Error::malformed(WHAT, reason)
}
