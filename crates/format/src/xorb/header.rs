//! The eight bytes before each chunk's payload.
//!
//! A header that exists is within all limits. Whether the payload is what the header says, only
//! decompressing it can tell.

use super::Compression;
use crate::limits::{MAX_CHUNK_BYTES, MAX_CHUNK_PAYLOAD_BYTES};
use crate::{Error, Result};

const WHAT: &str = "chunk header";
const VERSION: u8 = 0;

/// How long a chunk's payload is, and how long the chunk once it is decompressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkHeader {
    /// The bytes of the payload, which follow the header.
    pub compressed_length: u32,
    /// How the payload is compressed.
    pub compression: Compression,
    /// The bytes of the chunk itself.
    pub uncompressed_length: u32,
}

impl ChunkHeader {
    /// The bytes of a header.
    pub const BYTES: usize = 8;

    /// The bytes of the header and the payload.
    pub fn serialized_length(&self) -> usize {
        Self::BYTES + self.compressed_length as usize
    }

    /// The header as it stands before the payload.
    pub fn encode(&self) -> [u8; Self::BYTES] {
        let [compressed, uncompressed] =
            [self.compressed_length, self.uncompressed_length].map(u32::to_le_bytes);
        debug_assert_eq!((compressed[3], uncompressed[3]), (0, 0), "both limits are under 2^24");
        let mut bytes = [0; Self::BYTES];
        bytes[0] = VERSION;
        bytes[1..4].copy_from_slice(&compressed[..3]);
        bytes[4] = self.compression as u8;
        bytes[5..8].copy_from_slice(&uncompressed[..3]);
        bytes
    }

    /// Reads a header and holds it against all limits that need no payload.
    pub fn decode(bytes: &[u8; Self::BYTES]) -> Result<Self> {
        if bytes[0] != VERSION {
            return Err(Error::UnknownVersion { what: WHAT, version: bytes[0].into() });
        }
        let length = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], 0]);
        let header = Self {
            compressed_length: length(1),
            compression: Compression::from_u8(bytes[4])?,
            uncompressed_length: length(5),
        };
        header.check()?;
        Ok(header)
    }

    fn check(&self) -> Result<()> {
        if self.uncompressed_length == 0 || self.compressed_length == 0 {
            return Err(Error::malformed(WHAT, "a chunk has at least one byte"));
        }
        if self.uncompressed_length as usize > MAX_CHUNK_BYTES {
            return Err(Error::TooLarge {
                what: "chunk",
                size: self.uncompressed_length.into(),
                limit: MAX_CHUNK_BYTES as u64,
            });
        }
        if self.compressed_length as usize > MAX_CHUNK_PAYLOAD_BYTES {
            return Err(Error::TooLarge {
                what: "chunk payload",
                size: self.compressed_length.into(),
                limit: MAX_CHUNK_PAYLOAD_BYTES as u64,
            });
        }
        if self.compression == Compression::None
            && self.compressed_length != self.uncompressed_length
        {
            return Err(Error::malformed(WHAT, "two lengths for a chunk that is not compressed"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bytes_are_those_of_clients() {
        let header = ChunkHeader {
            compressed_length: 11,
            compression: Compression::None,
            uncompressed_length: 11,
        };
        assert_eq!(header.encode(), [0, 11, 0, 0, 0, 11, 0, 0]);
        let header = ChunkHeader {
            compressed_length: 30,
            compression: Compression::Lz4,
            uncompressed_length: 1000,
        };
        assert_eq!(header.encode(), [0, 0x1e, 0, 0, 1, 0xe8, 3, 0]);
    }

    #[test]
    fn headers_beyond_a_limit_are_refused() {
        let right = [0, 0, 0, 2, 0, 0, 0, 2];
        assert!(ChunkHeader::decode(&right).is_ok(), "131,072 bytes, not compressed");
        for (wrong, why) in [
            ([1, 0, 0, 2, 0, 0, 0, 2], "version"),
            ([0, 0, 0, 2, 3, 0, 0, 2], "unknown scheme"),
            ([0, 0, 0, 2, 99, 0, 0, 2], "auto is no scheme of a stored chunk"),
            ([0, 1, 0, 2, 0, 1, 0, 2], "131,073 bytes"),
            ([0, 0, 0, 2, 1, 1, 0, 2], "131,073 bytes, compressed"),
            ([0, 1, 0, 4, 1, 0, 0, 2], "262,145 bytes of payload"),
            ([0, 0, 0, 2, 0, 1, 0, 0], "two lengths"),
            ([0, 0, 0, 0, 0, 0, 0, 0], "no bytes"),
            ([0, 1, 0, 0, 1, 0, 0, 0], "no bytes, compressed"),
            ([0, 0, 0, 0, 1, 1, 0, 0], "no payload"),
        ] {
            assert!(ChunkHeader::decode(&wrong).is_err(), "{why}");
        }
    }

    proptest! {
        #[test]
        fn what_decodes_encodes_to_the_same_bytes(
            mut bytes: [u8; 8],
            plausible: bool,
        ) {
            if plausible {
                bytes[0] = 0;
                bytes[3] &= 3;
                bytes[4] %= 3;
                bytes[7] &= 1;
            }
            if let Ok(header) = ChunkHeader::decode(&bytes) {
                prop_assert_eq!(header.encode(), bytes);
            }
        }
    }
}
