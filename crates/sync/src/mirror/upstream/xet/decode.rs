//! Serialized chunks, as they arrive, turned into the bytes of a file; what was here is plain.

use std::collections::VecDeque;
use std::ops::Range;

use ballast_format::xorb::{ChunkHeader, decompress};
use bytes::{Buf as _, Bytes, BytesMut};

use super::plan::Run;
use crate::mirror::upstream::error::Error;

/// Decoded bytes that are made at once.
const STEP_BYTES: usize = 4 << 20;

/// Terms that are still to come of the run that is being decoded.
#[derive(Debug, Default)]
struct Open {
    /// The number of the next chunk.
    next: u32,
    terms: VecDeque<(Range<u32>, u64)>,
}

/// Some bytes of a run.
#[derive(Debug)]
pub(super) enum Piece {
    /// Serialized, from there.
    There(Bytes),
    /// As the file has them.
    Here(Vec<Bytes>),
}

/// Decodes runs, one after another.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    waiting: BytesMut,
    open: Open,
    /// What was here of the run, and how much of it is still to be handed on.
    plain: VecDeque<Bytes>,
    plain_left: u64,
    /// Bytes to leave out before the first that is wanted.
    skip: u64,
}

/// Decoded bytes; whether they were here, and whether the decoder can do nothing without more.
pub(super) struct Step {
    pub(super) pieces: Vec<Bytes>,
    pub(super) is_here: bool,
    pub(super) needs_more: bool,
}

impl Decoder {
    /// Bytes before those that are wanted, in the next run.
    pub(super) fn skip(&mut self, bytes: u64) {
        self.skip = bytes;
    }

    /// Begins a run; the one before must have ended.
    pub(super) fn begin(&mut self, run: &Run) -> Result<(), Error> {
        if !self.is_done() || !self.plain.is_empty() {
            return Err(Error::lied("a range of a xorb ends before its chunks do"));
        }
        self.waiting.clear();
        match run {
            Run::There { source, terms } => {
                let terms = terms.iter().cloned().collect();
                self.open = Open { next: source.chunks.start, terms };
            }
            Run::Here { length, .. } => self.plain_left = *length,
        }
        Ok(())
    }

    /// Whether everything that was begun has come.
    pub(super) fn is_done(&self) -> bool {
        self.open.terms.is_empty() && self.plain_left == 0
    }

    /// Takes in bytes of the run.
    pub(super) fn feed(&mut self, piece: Piece) {
        match piece {
            // Behind the last chunk that is wanted there may be others.
            Piece::There(bytes) if !self.is_done() => self.waiting.extend_from_slice(&bytes),
            Piece::There(_) => {}
            Piece::Here(pieces) => self.plain.extend(pieces),
        }
    }

    /// Decodes some MiB of what was taken in.
    pub(super) fn step(&mut self) -> Result<Step, Error> {
        let (mut pieces, mut made) = (Vec::new(), 0);
        let is_here = !self.plain.is_empty();
        while made < STEP_BYTES {
            let next = if is_here { self.next_plain()? } else { self.next_chunk()? };
            let Some(chunk) = next else {
                return Ok(Step { pieces, is_here, needs_more: true });
            };
            made += chunk.len();
            if !chunk.is_empty() {
                pieces.push(chunk);
            }
        }
        Ok(Step { pieces, is_here, needs_more: false })
    }

    /// The next bytes that were here; nothing if more must come first.
    fn next_plain(&mut self) -> Result<Option<Bytes>, Error> {
        let Some(piece) = self.plain.pop_front() else { return Ok(None) };
        self.plain_left = self
            .plain_left
            .checked_sub(piece.len() as u64)
            .ok_or_else(|| Error::lied("the chunks of a term have another length than it says"))?;
        Ok(Some(self.skipped(piece)))
    }

    /// What is wanted of the next bytes.
    fn skipped(&mut self, mut bytes: Bytes) -> Bytes {
        let skipped = self.skip.min(bytes.len() as u64);
        self.skip -= skipped;
        bytes.advance(usize::try_from(skipped).unwrap_or(bytes.len()));
        bytes
    }

    /// The wanted bytes of the next chunk; nothing if more must come first, or no more is wanted.
    fn next_chunk(&mut self) -> Result<Option<Bytes>, Error> {
        let fault =
            |error: ballast_format::Error| Error::lied(format!("a chunk of a xorb: {error}"));
        let Some((range, left)) = self.open.terms.front_mut() else { return Ok(None) };
        let Some(header) = self.waiting.first_chunk() else { return Ok(None) };
        let header = ChunkHeader::decode(header).map_err(fault)?;
        let end = header.serialized_length();
        if self.waiting.len() < end {
            return Ok(None);
        }
        let number = self.open.next;
        self.open.next += 1;
        if !range.contains(&number) {
            self.waiting.advance(end);
            return Ok(Some(Bytes::new()));
        }
        let length = header.uncompressed_length;
        let mut chunk = Vec::with_capacity(length as usize);
        let payload = &self.waiting[ChunkHeader::BYTES..end];
        decompress(header.compression, payload, length, &mut chunk).map_err(fault)?;
        self.waiting.advance(end);
        let is_last = number + 1 == range.end;
        *left = left
            .checked_sub(u64::from(length))
            .filter(|left| (*left == 0) == is_last)
            .ok_or_else(|| Error::lied("the chunks of a term have another length than it says"))?;
        if is_last {
            self.open.terms.pop_front();
        }
        Ok(Some(self.skipped(Bytes::from(chunk))))
    }
}
