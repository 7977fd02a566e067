//! Serialized chunks, as they arrive, turned into the bytes of a file; what was here is plain.
//!
//! Of a xorb whose chunks come one after another from the first on, they are handed on as they are
//! as well: if no other is left at its end, it can be kept.

use std::collections::VecDeque;
use std::ops::Range;

use ballast_format::chunk::split;
use ballast_format::hash::{ChunkHash, XorbHash};
use ballast_format::limits::MAX_CHUNK_BYTES;
use ballast_format::xorb::{ChunkHeader, XorbWriter, decompress};
use ballast_node::upload::Came;
use bytes::{Buf as _, Bytes, BytesMut};

use super::plan::{Run, Source};
use crate::mirror::upstream::error::Error;

/// Decoded bytes that are made at once.
const STEP_BYTES: usize = 4 << 20;
/// Room for their chunks, serialized: the last one may go beyond.
const SERIALIZED_BYTES: usize = STEP_BYTES + 2 * MAX_CHUNK_BYTES;

/// Terms that are still to come of the run that is being decoded.
#[derive(Debug)]
struct Open {
    xorb: XorbHash,
    /// The number of the next chunk.
    next: u32,
    terms: VecDeque<(Range<u32>, u64)>,
}

impl Default for Open {
    fn default() -> Self {
        Self { xorb: XorbHash::ZERO, next: 0, terms: VecDeque::new() }
    }
}

/// Some bytes of a run.
#[derive(Debug)]
pub(super) enum Piece {
    /// Serialized, from there.
    There(Bytes),
    /// As the file has them.
    Here(Vec<Bytes>),
}

/// A xorb of which all chunks have come so far.
#[derive(Debug)]
struct Whole {
    xorb: XorbHash,
    next: u32,
}

/// Decodes runs, one after another.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    waiting: BytesMut,
    open: Open,
    whole: Option<Whole>,
    /// Chunks of that, serialized, which were not handed on.
    serialized: BytesMut,
    /// What there is to tell of xorbs.
    came: Vec<Came>,
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

    /// What there is to tell of xorbs, of the bytes so far.
    pub(super) fn take_came(&mut self) -> Vec<Came> {
        std::mem::take(&mut self.came)
    }

    /// Begins a run, at this byte of the file; the one before must have ended.
    pub(super) fn begin(&mut self, run: &Run, at: u64) -> Result<(), Error> {
        if !self.is_done() || !self.plain.is_empty() {
            return Err(Error::lied("a range of a xorb ends before its chunks do"));
        }
        self.waiting.clear();
        match run {
            Run::There { source, terms } => {
                self.follow(source, at);
                let terms = terms.iter().cloned().collect();
                self.open = Open { xorb: source.xorb, next: source.chunks.start, terms };
            }
            Run::Here { length, .. } => {
                self.end();
                self.plain_left = *length;
            }
        }
        Ok(())
    }

    /// Sees whether a run goes on with the xorb at hand, or begins one.
    fn follow(&mut self, source: &Source, at: u64) {
        let goes_on = |whole: &Whole| {
            // Of a xorb that is in two parts of a file, the chunk between them comes twice.
            whole.xorb == source.xorb && source.chunks.start <= whole.next
        };
        if self.whole.as_ref().is_some_and(goes_on) {
            return;
        }
        self.end();
        if source.chunks.start == 0 && self.skip == 0 {
            self.came.push(Came::Begins { xorb: source.xorb, at });
            self.whole = Some(Whole { xorb: source.xorb, next: 0 });
        }
    }

    /// The xorb at hand has no more chunks, or not all that come.
    fn end(&mut self) {
        self.tell_chunks();
        self.whole = None;
        self.came.push(Came::Ends);
    }

    fn tell_chunks(&mut self) {
        if !self.serialized.is_empty() {
            self.came.push(Came::Chunks(self.serialized.split().freeze()));
        }
    }

    /// Before the first run there were these bytes, the first of the file. If its xorb begins in
    /// them, they are the chunks that are missing.
    pub(super) fn behind(&mut self, front: &[u8]) {
        let end = usize::try_from(self.skip).ok().and_then(|skip| front.len().checked_sub(skip));
        let (Some(end), None, false) = (end, &self.whole, self.open.terms.is_empty()) else {
            return;
        };
        let (mut before, mut at) = (Vec::new(), 0);
        for chunk in split(front) {
            if at >= end {
                break;
            }
            before.push(chunk);
            at += chunk.len();
        }
        let Open { xorb, next, .. } = self.open;
        let first = usize::try_from(next).ok().and_then(|next| before.len().checked_sub(next));
        let (Some(first), true) = (first, at == end) else { return };
        let mut writer = XorbWriter::new();
        for chunk in &before[first..] {
            writer.push(chunk, ChunkHash::of(chunk));
        }
        let before: usize = before[..first].iter().map(|chunk| chunk.len()).sum();
        self.came = vec![Came::Begins { xorb, at: before as u64 }];
        if !writer.is_empty() {
            self.came.push(Came::Chunks(writer.finish().0));
        }
        self.whole = Some(Whole { xorb, next });
    }

    /// Whether there is something to decode.
    pub(super) fn has_bytes(&self) -> bool {
        !self.waiting.is_empty() || !self.plain.is_empty()
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
        let step = self.try_step()?;
        self.tell_chunks();
        Ok(step)
    }

    fn try_step(&mut self) -> Result<Step, Error> {
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
        let Some((range, _)) = self.open.terms.front() else { return Ok(None) };
        let Some(header) = self.waiting.first_chunk() else { return Ok(None) };
        let header = ChunkHeader::decode(header).map_err(fault)?;
        let end = header.serialized_length();
        if self.waiting.len() < end {
            return Ok(None);
        }
        let number = self.open.next;
        self.open.next += 1;
        let is_wanted = range.contains(&number);
        let is_last = number + 1 == range.end;
        self.pass_on(number, end, is_wanted);
        if !is_wanted {
            self.waiting.advance(end);
            return Ok(Some(Bytes::new()));
        }
        let length = header.uncompressed_length;
        let mut chunk = Vec::with_capacity(length as usize);
        let payload = &self.waiting[ChunkHeader::BYTES..end];
        decompress(header.compression, payload, length, &mut chunk).map_err(fault)?;
        self.waiting.advance(end);
        if let Some((_, left)) = self.open.terms.front_mut() {
            *left = left
                .checked_sub(u64::from(length))
                .filter(|left| (*left == 0) == is_last)
                .ok_or_else(|| {
                    Error::lied("the chunks of a term have another length than it says")
                })?;
        }
        if is_last {
            self.open.terms.pop_front();
        }
        Ok(Some(self.skipped(Bytes::from(chunk))))
    }

    /// Hands a chunk on as it is, if it is the next one of the xorb at hand.
    fn pass_on(&mut self, number: u32, length: usize, is_wanted: bool) {
        let Some(whole) = self.whole.as_mut().filter(|whole| whole.next <= number) else { return };
        if whole.next < number || !is_wanted {
            // The file does not use all of it.
            self.end();
            return;
        }
        whole.next += 1;
        if self.serialized.is_empty() {
            self.serialized.reserve(SERIALIZED_BYTES);
        }
        self.serialized.extend_from_slice(&self.waiting[..length]);
    }
}

#[cfg(test)]
mod tests {
    use ballast_format::xorb::XorbFooter;
    use ballast_testkit::content::bf16_weights;

    use super::*;

    /// A xorb, and where its chunks lie.
    fn xorb() -> (Bytes, XorbFooter) {
        let (content, mut writer) = (bf16_weights(1, 600_000), XorbWriter::new());
        for chunk in split(&content) {
            writer.push(chunk, ChunkHash::of(chunk));
        }
        writer.finish()
    }

    /// Chunks that are fetched, the terms in them, and the bytes to leave out.
    type Fetched<'a> = (Range<u32>, &'a [Range<u32>], u64);

    /// Decodes runs of a xorb; what that tells of it.
    fn tell(runs: &[Fetched<'_>]) -> Vec<Came> {
        let (body, footer) = xorb();
        let (mut decoder, mut came, mut at) = (Decoder::default(), Vec::new(), 0);
        for (chunks, terms, skip) in runs {
            let bytes = footer.byte_range(chunks.clone()).expect("it has them");
            let length = |term: &Range<u32>| footer.uncompressed_length(term.clone());
            let terms = terms.iter().map(|term| (term.clone(), length(term).expect("it has them")));
            let (xorb, url) = (footer.hash(), String::new());
            let source = Source { xorb, url, chunks: chunks.clone(), bytes: bytes.clone() };
            decoder.skip(*skip);
            let run = Run::There { source, terms: terms.collect() };
            decoder.begin(&run, at).expect("the one before has ended");
            let index = |at: u64| usize::try_from(at).expect("small");
            decoder.feed(Piece::There(body.slice(index(bytes.start)..index(bytes.end))));
            let step = decoder.step().expect("it is right");
            at += step.pieces.iter().map(|piece| piece.len() as u64).sum::<u64>();
            came.append(&mut decoder.take_came());
        }
        came
    }

    /// Where a xorb begins, how many of its bytes come, and whether it ends there.
    fn told(came: &[Came]) -> (Option<u64>, usize, bool) {
        let (mut begins, mut bytes, mut ends) = (None, 0, false);
        for came in came {
            match came {
                Came::Begins { at, .. } => (begins, ends) = (Some(*at), false),
                Came::Chunks(chunks) => bytes += chunks.len(),
                Came::Ends => ends = true,
            }
        }
        (begins, bytes, ends)
    }

    #[test]
    fn chunks_are_handed_on_once_while_none_is_left_out() {
        let (body, footer) = xorb();
        let count = footer.chunk_count();
        let bytes = |chunks| {
            let range = footer.byte_range(chunks).expect("it has them");
            usize::try_from(range.end).expect("small")
        };
        let all = tell(&[(0..count, &[0..2, 2..count], 0)]);
        assert_eq!(told(&all), (Some(0), body.len(), false));
        // The chunk between two parts comes twice, and only its end is wanted.
        let twice = tell(&[(0..3, &[0..3], 0), (2..count, &[2..count], 9)]);
        assert_eq!(told(&twice), (Some(0), body.len(), false));
        let gap = tell(&[(0..3, &[0..3], 0), (4..count, &[4..count], 0)]);
        assert_eq!(told(&gap), (Some(0), bytes(0..3), true));
        let unused = tell(&[(0..count, &[0..2, 3..count], 0)]);
        assert_eq!(told(&unused), (Some(0), bytes(0..2), true));
        let later = tell(&[(1..count, &[1..count], 0)]);
        assert_eq!(told(&later), (None, 0, true));
        let inside = tell(&[(0..count, &[0..count], 5)]);
        assert_eq!(told(&inside), (None, 0, true), "where it begins is not known");
    }
}
