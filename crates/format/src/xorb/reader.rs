//! Turns the stored bytes of a xorb back into chunks.
//!
//! Everything is held against the footer. With `verify`, each chunk is hashed before it is handed
//! out (Invariant 12); without, only lengths and framing are, for bytes that were just proven.

use std::ops::Range;

use super::compress::Decompressor;
use super::{ChunkHeader, XorbFooter};
use crate::hash::ChunkHash;
use crate::{Error, Result};

const WHAT: &str = "stored chunk";

/// Decodes chunks and keeps its buffers from one call to the next.
#[derive(Debug, Default)]
pub struct ChunkDecoder {
    decompressor: Decompressor,
}

impl ChunkDecoder {
    /// Starts without buffers.
    pub fn new() -> Self {
        Self::default()
    }

    /// Hands the uncompressed bytes of each of `chunks` to `sink`, in order.
    ///
    /// `bytes` are the serialized bytes of exactly these chunks
    /// ([`XorbFooter::byte_range`]). The first error ends it, an error of `sink` too.
    pub fn decode_chunks(
        &mut self,
        bytes: &[u8],
        footer: &XorbFooter,
        chunks: Range<u32>,
        verify: bool,
        mut sink: impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        let place = footer.byte_range(chunks.clone())?;
        if bytes.len() as u64 != place.end - place.start {
            return Err(Error::malformed(WHAT, "the bytes are not those of the chunk range"));
        }
        let mut rest = bytes;
        for index in chunks {
            let length = footer.serialized_chunk_length(index) as usize;
            let (serialized, behind) = rest.split_at(length);
            rest = behind;
            let chunk = self.decode(serialized, footer.chunk_length(index))?;
            if verify {
                check(chunk, footer.chunk_hash(index))?;
            }
            sink(chunk)?;
        }
        Ok(())
    }

    /// The uncompressed bytes of the serialized chunk that `rest` begins with, and moves `rest`
    /// behind it. For whoever has no footer but knows what the chunk is: it is verified.
    pub fn decode_next<'a, 'b: 'a>(
        &'a mut self,
        rest: &mut &'b [u8],
        hash: ChunkHash,
        length: u32,
    ) -> Result<&'a [u8]> {
        let truncated = Error::Truncated { what: WHAT };
        let Some(header) = rest.first_chunk() else { return Err(truncated) };
        let serialized = ChunkHeader::decode(header)?.serialized_length();
        let Some((serialized, behind)) = rest.split_at_checked(serialized) else {
            return Err(truncated);
        };
        *rest = behind;
        let chunk = self.decode(serialized, length)?;
        check(chunk, hash)?;
        Ok(chunk)
    }

    fn decode<'a>(&'a mut self, serialized: &'a [u8], length: u32) -> Result<&'a [u8]> {
        let (header, payload) =
            serialized.split_first_chunk().expect("whoever calls found a header in it");
        let header = ChunkHeader::decode(header)?;
        if header.serialized_length() != serialized.len() || header.uncompressed_length != length {
            return Err(Error::malformed(WHAT, "its header has another length than the chunk"));
        }
        self.decompressor.decompress(header.compression, payload, length)
    }
}

fn check(chunk: &[u8], expected: ChunkHash) -> Result<()> {
    let actual = ChunkHash::of(chunk);
    if actual == expected {
        return Ok(());
    }
    Err(Error::HashMismatch {
        what: WHAT,
        expected: expected.to_string(),
        actual: actual.to_string(),
    })
}
