//! Proves that an uploaded body is the xorb it is called, while it arrives.
//!
//! Each chunk is decompressed and hashed as soon as it is complete (Invariant 12). A chunk that
//! lies whole in the piece at hand is hashed in place; at most one chunk is buffered. What comes
//! out of a body that passes is a footer made from what was proven, never from what was claimed.
//! Whether chunks are cut where a client would cut them is not checked: only sizes are rules.

use super::compress::Decompressor;
use super::footer::{FooterBuilder, IDENT};
use super::{ChunkHeader, Compression, XorbFooter};
use crate::hash::{ChunkHash, XorbHash};
use crate::limits::MAX_XORB_FOOTER_BYTES;
use crate::{Error, Result};

const WHAT: &str = "xorb";

/// Checks the body of an upload piece by piece.
#[derive(Debug, Default)]
pub struct XorbValidator {
    proven: FooterBuilder,
    decompressor: Decompressor,
    /// The start of a chunk that is not complete, or of a footer.
    pending: Vec<u8>,
    state: State,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Chunks,
    /// All that follows is a footer.
    Footer,
    /// A piece was refused, so nothing is known about what follows it.
    Failed,
}

impl XorbValidator {
    /// Expects the first byte of a body.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next piece of the body. After an error nothing is accepted any more.
    pub fn feed(&mut self, piece: &[u8]) -> Result<()> {
        let result = self.take(piece);
        if result.is_err() {
            self.state = State::Failed;
        }
        result
    }

    /// The bytes of the chunks that are complete: where a footer starts, what is to be stored.
    pub fn serialized_length(&self) -> u64 {
        self.proven.serialized_end().into()
    }

    /// Ends the body. It must be whole, and its hash the expected one.
    pub fn finish(self, expected: XorbHash) -> Result<XorbFooter> {
        if self.state == State::Failed {
            return Err(refused());
        }
        if self.state == State::Chunks && !self.pending.is_empty() {
            return Err(Error::Truncated { what: WHAT });
        }
        let footer = self.proven.finish()?;
        if footer.hash() != expected {
            return Err(Error::HashMismatch {
                what: WHAT,
                expected: expected.to_string(),
                actual: footer.hash().to_string(),
            });
        }
        if self.state == State::Footer && !footer.agrees_with(&self.pending) {
            return Err(Error::malformed(WHAT, "its footer does not agree with its chunks"));
        }
        Ok(footer)
    }

    fn take(&mut self, mut piece: &[u8]) -> Result<()> {
        if !self.pending.is_empty() && self.state == State::Chunks {
            self.complete_pending(&mut piece)?;
        }
        // The chunks that lie whole in this piece need not be copied.
        while self.state == State::Chunks
            && let Some(header) = piece.first_chunk()
        {
            let Some(header) = self.header(*header)? else {
                break;
            };
            let Some((chunk, rest)) = piece.split_at_checked(header.serialized_length()) else {
                self.pending.reserve(header.serialized_length());
                break;
            };
            prove(&mut self.proven, &mut self.decompressor, &header, chunk)?;
            piece = rest;
        }
        match self.state {
            State::Chunks => self.pending.extend_from_slice(piece),
            State::Footer => self.take_footer(piece)?,
            State::Failed => return Err(refused()),
        }
        Ok(())
    }

    /// Completes the chunk that an earlier piece began, as far as this one goes.
    fn complete_pending(&mut self, piece: &mut &[u8]) -> Result<()> {
        fill(&mut self.pending, piece, ChunkHeader::BYTES);
        let Some(header) = self.pending.first_chunk() else {
            return Ok(());
        };
        let Some(header) = self.header(*header)? else {
            return Ok(());
        };
        fill(&mut self.pending, piece, header.serialized_length());
        if self.pending.len() == header.serialized_length() {
            prove(&mut self.proven, &mut self.decompressor, &header, &self.pending)?;
            self.pending.clear();
        }
        Ok(())
    }

    /// The header of the next chunk; none if there the footer starts.
    fn header(&mut self, bytes: [u8; ChunkHeader::BYTES]) -> Result<Option<ChunkHeader>> {
        if bytes.starts_with(&IDENT) {
            self.state = State::Footer;
            return Ok(None);
        }
        let header = ChunkHeader::decode(&bytes)?;
        // No client writes such a chunk, and all who read it would pay for it.
        if header.compression != Compression::None
            && header.compressed_length >= header.uncompressed_length
        {
            return Err(Error::malformed(
                WHAT,
                "a compressed chunk is no shorter than a plain one",
            ));
        }
        self.proven.check(&header)?;
        Ok(Some(header))
    }

    fn take_footer(&mut self, piece: &[u8]) -> Result<()> {
        let size = self.pending.len() + piece.len();
        if size > MAX_XORB_FOOTER_BYTES {
            return Err(Error::TooLarge {
                what: "xorb footer",
                size: size as u64,
                limit: MAX_XORB_FOOTER_BYTES as u64,
            });
        }
        self.pending.extend_from_slice(piece);
        Ok(())
    }
}

fn prove(
    proven: &mut FooterBuilder,
    decompressor: &mut Decompressor,
    header: &ChunkHeader,
    serialized: &[u8],
) -> Result<()> {
    let payload = &serialized[ChunkHeader::BYTES..];
    let chunk = decompressor.decompress(header.compression, payload, header.uncompressed_length)?;
    proven.push(ChunkHash::of(chunk), header);
    Ok(())
}

/// Moves bytes until `buffer` has so many, or `piece` none.
fn fill(buffer: &mut Vec<u8>, piece: &mut &[u8], length: usize) {
    let missing = length.saturating_sub(buffer.len()).min(piece.len());
    let (taken, rest) = piece.split_at(missing);
    buffer.extend_from_slice(taken);
    *piece = rest;
}

fn refused() -> Error {
    Error::malformed(WHAT, "an earlier piece of it was refused")
}
