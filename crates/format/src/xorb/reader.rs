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

    fn decode<'a>(&'a mut self, serialized: &'a [u8], length: u32) -> Result<&'a [u8]> {
        let (header, payload) =
            serialized.split_first_chunk().expect("a footer has no shorter chunks");
        let header = ChunkHeader::decode(header)?;
        if header.serialized_length() != serialized.len() || header.uncompressed_length != length {
            return Err(Error::malformed(WHAT, "its header does not agree with the footer"));
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
