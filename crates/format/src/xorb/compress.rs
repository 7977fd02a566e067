//! How the payload of a chunk is compressed, and the two ways through it.
//!
//! Buffers are kept from chunk to chunk, so that millions of them cost no allocation. A payload
//! that decompresses at all decompresses to exactly the announced length.

use lz4_flex::block::CompressTable;

use super::{frame, group};
use crate::limits::MAX_CHUNK_BYTES;
use crate::{Error, Result};

/// A sample of so many bytes tells which of two schemes is the better one.
const SAMPLE_BYTES: usize = 16_384;

/// So many pieces of so many bytes, from all over a chunk, tell whether it looks random.
const PROBES: usize = 4;
const PROBE_BYTES: usize = 1024;

/// How far from even the bytes of a lane may be spread: the chi-squared statistic of random ones
/// is 255 with a deviation of 23.
const MAX_CHI_SQUARED: usize = 400;

/// A chunk that shrinks by less than one part in so many stays as it is: it would cost more at
/// each reading than it saves.
const LEAST_GAIN: usize = 32;

/// The way in which a payload is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Compression {
    /// The bytes of the chunk themselves.
    None = 0,
    /// One LZ4 frame.
    Lz4 = 1,
    /// One LZ4 frame of the chunk's bytes grouped by four.
    ByteGroupedLz4 = 2,
}

impl Compression {
    /// The mirror of `as u8`.
    pub fn from_u8(number: u8) -> Result<Self> {
        match number {
            0 => Ok(Self::None),
            1 => Ok(Self::Lz4),
            2 => Ok(Self::ByteGroupedLz4),
            other => Err(Error::malformed("compression", format!("no scheme is number {other}"))),
        }
    }
}

/// Decompresses the payload of a chunk into `into`, whose old content is dropped.
///
/// The chunk has exactly `uncompressed_length` bytes and the payload ends exactly where it is
/// said to, or else this is an error. Never allocates more than the largest chunk.
pub fn decompress(
    compression: Compression,
    payload: &[u8],
    uncompressed_length: u32,
    into: &mut Vec<u8>,
) -> Result<()> {
    let mut decompressor = Decompressor::default();
    let chunk = decompressor.decompress(compression, payload, uncompressed_length)?;
    into.clear();
    into.extend_from_slice(chunk);
    Ok(())
}

/// Decompresses chunk after chunk.
#[derive(Debug, Default)]
pub(super) struct Decompressor {
    grouped: Vec<u8>,
    plain: Vec<u8>,
}

impl Decompressor {
    /// The chunk of a payload; the payload itself if it is not compressed.
    pub(super) fn decompress<'a>(
        &'a mut self,
        compression: Compression,
        payload: &'a [u8],
        uncompressed_length: u32,
    ) -> Result<&'a [u8]> {
        let length = uncompressed_length as usize;
        if length > MAX_CHUNK_BYTES {
            return Err(Error::TooLarge {
                what: "chunk",
                size: length as u64,
                limit: MAX_CHUNK_BYTES as u64,
            });
        }
        if compression == Compression::None {
            if payload.len() != length {
                return Err(Error::malformed("chunk", "its payload has another length"));
            }
            return Ok(payload);
        }
        let plain = room(&mut self.plain, length);
        if compression == Compression::ByteGroupedLz4 {
            let grouped = room(&mut self.grouped, length);
            frame::decode(payload, grouped)?;
            group::join(grouped, plain);
        } else {
            frame::decode(payload, plain)?;
        }
        Ok(plain)
    }
}

/// Compresses chunk after chunk.
pub(super) struct Compressor {
    table: CompressTable,
    grouped: Vec<u8>,
    frame: Vec<u8>,
}

impl Default for Compressor {
    fn default() -> Self {
        Self { table: CompressTable::large(), grouped: Vec::new(), frame: Vec::new() }
    }
}

impl Compressor {
    /// The payload of a chunk in the scheme that suits it. Most of what a hub holds looks random
    /// and costs no more than a glance.
    pub(super) fn compress<'a>(&'a mut self, chunk: &'a [u8]) -> (Compression, &'a [u8]) {
        if looks_random(chunk) {
            return (Compression::None, chunk);
        }
        let compression = self.choose(chunk);
        let length = self.encode(compression, chunk);
        if length >= chunk.len() - chunk.len() / LEAST_GAIN {
            return (Compression::None, chunk);
        }
        (compression, &self.frame[..length])
    }

    fn choose(&mut self, chunk: &[u8]) -> Compression {
        let start = chunk.len().saturating_sub(SAMPLE_BYTES) / 2;
        let sample = &chunk[start..chunk.len().min(start + SAMPLE_BYTES)];
        let plain = self.encode(Compression::Lz4, sample);
        let grouped = self.encode(Compression::ByteGroupedLz4, sample);
        if plain <= grouped { Compression::Lz4 } else { Compression::ByteGroupedLz4 }
    }

    /// Leaves the payload at the start of `frame` and returns its length.
    fn encode(&mut self, compression: Compression, content: &[u8]) -> usize {
        if compression == Compression::ByteGroupedLz4 {
            let grouped = room(&mut self.grouped, content.len());
            group::split(content, grouped);
            frame::encode(grouped, &mut self.frame, &mut self.table)
        } else {
            frame::encode(content, &mut self.frame, &mut self.table)
        }
    }
}

/// Whether the bytes of each lane are spread evenly, so that neither scheme has anything to gain
/// but from long repeats. Exponents of weights, text and most else are anything but even.
fn looks_random(chunk: &[u8]) -> bool {
    if chunk.len() < PROBES * PROBE_BYTES {
        return false;
    }
    let mut counts = [[0_u16; 256]; 4];
    // Steps of whole words, or else the lanes of the probes would not be the same.
    let step = (chunk.len() / PROBES) & !3;
    for probe in 0..PROBES {
        let (words, _) = chunk[probe * step..][..PROBE_BYTES].as_chunks();
        for [a, b, c, d] in words {
            counts[0][usize::from(*a)] += 1;
            counts[1][usize::from(*b)] += 1;
            counts[2][usize::from(*c)] += 1;
            counts[3][usize::from(*d)] += 1;
        }
    }
    let total = PROBES * PROBE_BYTES / 4;
    let most = total * (total + MAX_CHI_SQUARED) / 256;
    let is_even = |lane: &[u16; 256]| {
        lane.iter().map(|count| usize::from(*count) * usize::from(*count)).sum::<usize>() <= most
    };
    counts.iter().all(is_even)
}

/// So many bytes of a buffer, which only ever grows: zeroing it for each chunk would cost time.
fn room(buffer: &mut Vec<u8>, length: usize) -> &mut [u8] {
    if buffer.len() < length {
        buffer.resize(length, 0);
    }
    &mut buffer[..length]
}
