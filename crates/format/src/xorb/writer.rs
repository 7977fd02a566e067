//! Packs chunks into a xorb, for content that arrives as plain bytes.
//!
//! How each chunk is compressed is decided from a sample of it, since most of what a hub holds
//! does not compress and should cost no more than a look. The whole xorb is kept in memory until
//! it is finished.

use bytes::Bytes;

use super::compress::Compressor;
use super::footer::FooterBuilder;
use super::{ChunkHeader, XorbFooter};
use crate::hash::ChunkHash;
use crate::limits::{MAX_CHUNK_BYTES, MAX_XORB_BYTES, MAX_XORB_CHUNKS};

/// A xorb that grows.
#[derive(Default)]
pub struct XorbWriter {
    serialized: Vec<u8>,
    footer: FooterBuilder,
    compressor: Compressor,
}

impl XorbWriter {
    /// A xorb without chunks.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether a chunk of so many bytes has no room any more.
    pub fn is_full_for(&self, chunk_length: usize) -> bool {
        self.footer.chunk_count() == MAX_XORB_CHUNKS || self.len() + chunk_length > MAX_XORB_BYTES
    }

    /// Adds a chunk, whose hash the caller has computed, and returns its index.
    ///
    /// # Panics
    ///
    /// If the chunk is empty or over the limit, or if the xorb [is full](Self::is_full_for) for it.
    pub fn push(&mut self, chunk: &[u8], hash: ChunkHash) -> u32 {
        assert!((1..=MAX_CHUNK_BYTES).contains(&chunk.len()), "chunks are cut to size before");
        assert!(!self.is_full_for(chunk.len()), "a full xorb is finished before");
        debug_assert_eq!(ChunkHash::of(chunk), hash, "the caller has hashed this chunk");
        let index = self.chunk_count();
        let (compression, payload) = self.compressor.compress(chunk);
        let header = ChunkHeader {
            compressed_length: as_u32(payload.len()),
            compression,
            uncompressed_length: as_u32(chunk.len()),
        };
        self.serialized.extend_from_slice(&header.encode());
        self.serialized.extend_from_slice(payload);
        self.footer.push(hash, &header);
        index
    }

    /// How many chunks there are.
    pub fn chunk_count(&self) -> u32 {
        as_u32(self.footer.chunk_count())
    }

    /// The uncompressed bytes of all chunks.
    pub fn len(&self) -> usize {
        self.footer.uncompressed_end() as usize
    }

    /// Whether there are no chunks.
    pub fn is_empty(&self) -> bool {
        self.footer.chunk_count() == 0
    }

    /// The serialized chunks, without a footer, and the footer that belongs behind them.
    ///
    /// # Panics
    ///
    /// If there are no chunks.
    pub fn finish(self) -> (Bytes, XorbFooter) {
        let footer = self.footer.finish().expect("a xorb without chunks is not finished");
        (self.serialized.into(), footer)
    }
}

fn as_u32(length: usize) -> u32 {
    u32::try_from(length).expect("lengths in a xorb are under 128 MiB")
}
