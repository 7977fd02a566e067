//! Serialized chunks, as they arrive, turned into the bytes of a file.

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

/// Decodes runs, one after another.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    waiting: BytesMut,
    open: Open,
    /// Bytes to leave out before the first that is wanted.
    skip: u64,
}

/// Decoded bytes; whether the decoder can do nothing without more.
pub(super) struct Step {
    pub(super) pieces: Vec<Bytes>,
    pub(super) needs_more: bool,
}

impl Decoder {
    /// Bytes before those that are wanted, in the next run.
    pub(super) fn skip(&mut self, bytes: u64) {
        self.skip = bytes;
    }

    /// Begins a run; the one before must have ended.
    pub(super) fn begin(&mut self, run: &Run) -> Result<(), Error> {
        if !self.open.terms.is_empty() {
            return Err(Error::lied("a range of a xorb ends before its chunks do"));
        }
        self.waiting.clear();
        self.open =
            Open { next: run.source.chunks.start, terms: run.terms.iter().cloned().collect() };
        Ok(())
    }

    /// Whether everything that was begun has come.
    pub(super) fn is_done(&self) -> bool {
        self.open.terms.is_empty()
    }

    /// Takes in serialized bytes of the run.
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        // Behind the last chunk that is wanted there may be others.
        if !self.is_done() {
            self.waiting.extend_from_slice(bytes);
        }
    }

    /// Decodes some MiB of what was taken in.
    pub(super) fn step(&mut self) -> Result<Step, Error> {
        let (mut pieces, mut made) = (Vec::new(), 0);
        while made < STEP_BYTES {
            let Some(chunk) = self.next_chunk()? else {
                return Ok(Step { pieces, needs_more: true });
            };
            made += chunk.len();
            if !chunk.is_empty() {
                pieces.push(chunk);
            }
        }
        Ok(Step { pieces, needs_more: false })
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
        let mut chunk = Bytes::from(chunk);
        let skipped = self.skip.min(chunk.len() as u64);
        self.skip -= skipped;
        chunk.advance(usize::try_from(skipped).unwrap_or(chunk.len()));
        Ok(Some(chunk))
    }
}
