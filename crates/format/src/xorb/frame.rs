//! LZ4 frames, the container of a compressed payload.
//!
//! Decoding takes any valid frame (blocks that are linked or not, stored or compressed, with or
//! without checksums and content size) and is exact: a frame yields precisely the bytes that were
//! announced and ends precisely where its payload ends, with its end mark. No memory is allocated
//! whatever a frame claims. A block without content is refused although the format allows it,
//! since the decoder that clients use takes it for the end.
//!
//! Encoding writes what clients write: one independent block, no checksums.

use lz4_flex::block::{
    CompressTable, compress_into_with_table, decompress_into, decompress_into_with_dict,
    get_maximum_output_size,
};
use twox_hash::XxHash32;

use crate::{Error, Result};

const WHAT: &str = "lz4 frame";
const MAGIC: [u8; 4] = [0x04, 0x22, 0x4d, 0x18];

const VERSION_MASK: u8 = 0b1100_0000;
const VERSION: u8 = 0b0100_0000;
const INDEPENDENT: u8 = 0b0010_0000;
const BLOCK_CHECKSUMS: u8 = 0b0001_0000;
const CONTENT_SIZE: u8 = 0b0000_1000;
const CONTENT_CHECKSUM: u8 = 0b0000_0100;
const RESERVED: u8 = 0b0000_0010;
const DICTIONARY: u8 = 0b0000_0001;

/// In a block's length: the block is not compressed.
const STORED: u32 = 1 << 31;
/// How far a linked block can reach back.
const WINDOW_BYTES: usize = 65_536;

/// Headers of frames as clients write them: for content of up to 64 KiB, and up to 256 KiB.
const SMALL_HEADER: [u8; 7] = [0x04, 0x22, 0x4d, 0x18, 0x60, 0x40, 0x82];
const LARGE_HEADER: [u8; 7] = [0x04, 0x22, 0x4d, 0x18, 0x60, 0x50, 0xfb];
const SMALL_BLOCK_BYTES: usize = 65_536;
const LARGE_BLOCK_BYTES: usize = 262_144;
const BLOCK_START: usize = SMALL_HEADER.len() + 4;
const END_MARK: [u8; 4] = [0; 4];

/// Decompresses a frame into exactly `content`.
pub(super) fn decode(frame: &[u8], content: &mut [u8]) -> Result<()> {
    let mut rest = Rest(frame);
    let header = Header::read(&mut rest)?;
    if header.content_size.is_some_and(|size| size != content.len() as u64) {
        return Err(malformed("its content size is not that of the chunk"));
    }
    let mut at = 0;
    loop {
        let word = rest.u32()?;
        if word == 0 {
            break;
        }
        let length = (word & !STORED) as usize;
        if length > header.max_block_bytes {
            return Err(malformed("a block is over the size that the frame allows"));
        }
        let block = rest.take(length)?;
        if header.block_checksums && rest.u32()? != checksum(block) {
            return Err(malformed("a block does not match its checksum"));
        }
        let end = content.len().min(at + header.max_block_bytes);
        let (before, open) = content[..end].split_at_mut(at);
        let written = if word & STORED != 0 {
            let into = open.get_mut(..length).ok_or_else(too_long)?;
            into.copy_from_slice(block);
            length
        } else if header.are_blocks_linked {
            let window = &before[before.len().saturating_sub(WINDOW_BYTES)..];
            decompress_into_with_dict(block, open, window).map_err(block_error)?
        } else {
            decompress_into(block, open).map_err(block_error)?
        };
        if written == 0 {
            return Err(malformed("a block has no content"));
        }
        at += written;
    }
    if at != content.len() {
        return Err(malformed("its content is shorter than the chunk"));
    }
    if header.content_checksum && rest.u32()? != checksum(content) {
        return Err(malformed("its content does not match its checksum"));
    }
    if !rest.0.is_empty() {
        return Err(malformed("there are bytes behind its end"));
    }
    Ok(())
}

/// Compresses `content` of at most 256 KiB into a frame at the start of `buffer`, which grows if it
/// must and never shrinks. Returns the frame's length.
pub(super) fn encode(content: &[u8], buffer: &mut Vec<u8>, table: &mut CompressTable) -> usize {
    assert!(content.len() <= LARGE_BLOCK_BYTES, "content is cut into chunks before");
    let most = BLOCK_START + get_maximum_output_size(content.len()) + END_MARK.len();
    if buffer.len() < most {
        buffer.resize(most, 0);
    }
    let compressed = compress_into_with_table(content, &mut buffer[BLOCK_START..], table)
        .expect("there is room for the worst case");
    let (length, mark) = if compressed < content.len() {
        (compressed, 0)
    } else {
        buffer[BLOCK_START..BLOCK_START + content.len()].copy_from_slice(content);
        (content.len(), STORED)
    };
    let header = if content.len() <= SMALL_BLOCK_BYTES { SMALL_HEADER } else { LARGE_HEADER };
    let word = u32::try_from(length).expect("at most 256 KiB") | mark;
    let end = BLOCK_START + length;
    buffer[..header.len()].copy_from_slice(&header);
    buffer[header.len()..BLOCK_START].copy_from_slice(&word.to_le_bytes());
    buffer[end..end + END_MARK.len()].copy_from_slice(&END_MARK);
    end + END_MARK.len()
}

struct Header {
    are_blocks_linked: bool,
    block_checksums: bool,
    content_checksum: bool,
    content_size: Option<u64>,
    max_block_bytes: usize,
}

impl Header {
    fn read(rest: &mut Rest<'_>) -> Result<Self> {
        if rest.take(4)? != MAGIC {
            return Err(malformed("it does not start with the magic number"));
        }
        let start = rest.0;
        let &[flags, sizes] = rest.array()?;
        if flags & VERSION_MASK != VERSION {
            return Err(Error::UnknownVersion { what: WHAT, version: (flags >> 6).into() });
        }
        // Larger ones than 4 MiB and smaller ones than 64 KiB do not exist.
        let max_block_bytes = match sizes {
            0x40 => 64 << 10,
            0x50 => 256 << 10,
            0x60 => 1 << 20,
            0x70 => 4 << 20,
            _ => return Err(malformed("its block size is none of the format")),
        };
        if flags & RESERVED != 0 {
            return Err(malformed("a reserved flag is set"));
        }
        if flags & DICTIONARY != 0 {
            return Err(malformed("it needs a dictionary"));
        }
        let content_size =
            if flags & CONTENT_SIZE != 0 { Some(u64::from_le_bytes(*rest.array()?)) } else { None };
        let descriptor = &start[..start.len() - rest.0.len()];
        let [_, expected, ..] = checksum(descriptor).to_le_bytes();
        if *rest.array()? != [expected] {
            return Err(malformed("its header does not match its checksum"));
        }
        Ok(Self {
            are_blocks_linked: flags & INDEPENDENT == 0,
            block_checksums: flags & BLOCK_CHECKSUMS != 0,
            content_checksum: flags & CONTENT_CHECKSUM != 0,
            content_size,
            max_block_bytes,
        })
    }
}

/// What of a frame has not been read.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or_else(truncated)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<&'a [u8; N]> {
        let (taken, rest) = self.0.split_first_chunk().ok_or_else(truncated)?;
        self.0 = rest;
        Ok(taken)
    }

    fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(*self.array()?))
    }
}

fn checksum(bytes: &[u8]) -> u32 {
    XxHash32::oneshot(0, bytes)
}

fn truncated() -> Error {
    Error::Truncated { what: WHAT }
}

fn too_long() -> Error {
    malformed("its content is longer than the chunk or a block of it")
}

fn malformed(reason: &str) -> Error {
    Error::malformed(WHAT, reason)
}

fn block_error(error: lz4_flex::block::DecompressError) -> Error {
    match error {
        lz4_flex::block::DecompressError::OutputTooSmall { .. } => too_long(),
        other => Error::malformed(WHAT, other.to_string()),
    }
}

#[cfg(test)]
mod tests;
