//! What a hub said to a node of a file: how it is cut, and what proves that the node may have it.
//!
//! Kept beside a file on its way, so that a node that was started again goes on without its hub. It
//! is worth nothing to anybody else: permits and tickets are for one node.

use crate::codec::Format;
use crate::error::Result;
use crate::hash::Sha256;
use crate::limits::MAX_KEPT_PASS_BYTES;

const PASS: Format = Format {
    what: "pass for a file",
    magic: *b"BLSTPASS",
    version: 1,
    limit: MAX_KEPT_PASS_BYTES,
    has_checksum: true,
};

/// What a node may show of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptPass {
    /// The file.
    pub sha256: Sha256,
    /// Until when it is good, in unix milliseconds.
    pub until_ms: u64,
    /// How long the file's pieces are.
    pub piece_bytes: u64,
    /// How many stripes they are dealt to.
    pub stripes: u32,
    /// What shows a tracker that the node was told what the file is made of.
    pub ticket: Vec<u8>,
    /// What shows peers which xorbs the node may have.
    pub permits: Vec<Vec<u8>>,
}

impl KeptPass {
    /// The stored bytes.
    pub fn encode(&self) -> Result<Vec<u8>> {
        PASS.encode(|encoder| {
            encoder.array(self.sha256.as_bytes());
            encoder.u64(self.until_ms);
            encoder.u64(self.piece_bytes);
            encoder.u32(self.stripes);
            encoder.bytes(&self.ticket);
            encoder.list(&self.permits, |encoder, permit| encoder.bytes(permit));
        })
    }

    /// Reads stored bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut decoder = PASS.decode(bytes)?;
        let sha256 = Sha256::from_bytes(decoder.array()?);
        let (until_ms, piece_bytes, stripes) = (decoder.u64()?, decoder.u64()?, decoder.u32()?);
        if piece_bytes == 0 || stripes == 0 {
            return Err(decoder.malformed("it cuts the file into nothing"));
        }
        let ticket = decoder.bytes()?.to_vec();
        let permits = decoder.list(4, |decoder| Ok(decoder.bytes()?.to_vec()))?;
        decoder.finish()?;
        Ok(Self { sha256, until_ms, piece_bytes, stripes, ticket, permits })
    }
}
