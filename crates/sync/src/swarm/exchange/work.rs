//! What is still to be asked for of one file: pieces by stripe, in file order.
//!
//! A chunk belongs to the piece in which its first byte lies, and piece p to stripe p modulo the
//! number of stripes (`proto/v1/swarm.proto`). This knows what is missing and what has been asked
//! for; whom to ask is decided elsewhere.

use std::ops::Range;
use std::sync::Arc;

use crate::swarm::cache::{Bits, OpenFile};

/// The most chunks in one batch: half of what a request may have.
const MOST_CHUNKS: u32 = 8 * 1024;

/// What is to be done for a file.
pub(super) struct Work {
    file: Arc<OpenFile>,
    piece_bytes: u64,
    stripes: u32,
    pieces: u32,
    /// Chunks that were asked for and have not come.
    asked: Bits,
    whole: Bits,
    /// Whole pieces, by stripe.
    held: Vec<u32>,
    /// By stripe: there is nothing to ask for in the pieces before this one.
    next: Vec<u32>,
}

impl Work {
    pub(super) fn new(file: Arc<OpenFile>, piece_bytes: u64, stripes: u32) -> Self {
        let stripes = stripes.max(1);
        let pieces = file.about.head.size.div_ceil(piece_bytes.max(1));
        let pieces = u32::try_from(pieces).unwrap_or(u32::MAX);
        let mut work = Self {
            asked: Bits::none(file.about.head.chunk_count()),
            whole: Bits::none(pieces),
            held: vec![0; stripes as usize],
            next: (0..stripes).collect(),
            file,
            piece_bytes: piece_bytes.max(1),
            stripes,
            pieces,
        };
        for piece in 0..pieces {
            work.look_at(piece);
        }
        work
    }

    pub(super) fn stripes(&self) -> u32 {
        self.stripes
    }

    pub(super) fn pieces(&self) -> u32 {
        self.pieces
    }

    pub(super) fn piece_bytes(&self) -> u64 {
        self.piece_bytes
    }

    /// How many pieces are whole, by stripe.
    pub(super) fn held(&self) -> &[u32] {
        &self.held
    }

    pub(super) fn is_done(&self) -> bool {
        self.file.is_sound()
    }

    /// The stripe of a chunk.
    pub(super) fn stripe_of(&self, chunk: u32) -> u32 {
        self.piece_of(chunk) % self.stripes
    }

    fn piece_of(&self, chunk: u32) -> u32 {
        let start = self.file.about.bytes_of(chunk..chunk + 1).start;
        u32::try_from(start / self.piece_bytes).unwrap_or(u32::MAX)
    }

    /// The chunks of a piece.
    fn chunks_of(&self, piece: u32) -> Range<u32> {
        self.first_of(piece)..self.first_of(piece + 1)
    }

    /// The first chunk that begins in a piece or behind it.
    fn first_of(&self, piece: u32) -> u32 {
        let (about, start) = (&self.file.about, u64::from(piece) * self.piece_bytes);
        match about.chunk_at(start) {
            None => about.head.chunk_count(),
            Some(chunk) if about.bytes_of(chunk..chunk + 1).start == start => chunk,
            Some(chunk) => chunk + 1,
        }
    }

    /// Chunks have come; whether a piece has become whole.
    pub(super) fn arrived(&mut self, chunks: &Range<u32>) -> bool {
        let mut is_more = false;
        for place in self.everywhere(chunks) {
            self.asked.clear(place.clone());
            for piece in self.piece_of(place.start)..=self.piece_of(place.end - 1) {
                is_more |= self.look_at(piece);
            }
        }
        is_more
    }

    /// These were asked for and do not come.
    pub(super) fn release(&mut self, chunks: &Range<u32>) {
        self.arrived(chunks);
        for place in self.everywhere(chunks) {
            for piece in self.piece_of(place.start)..=self.piece_of(place.end - 1) {
                let next = &mut self.next[(piece % self.stripes) as usize];
                *next = piece.min(*next);
            }
        }
    }

    fn look_at(&mut self, piece: u32) -> bool {
        if self.whole.has(piece) || !self.file.has_sound(self.chunks_of(piece)) {
            return false;
        }
        self.whole.set(piece..piece + 1);
        self.held[(piece % self.stripes) as usize] += 1;
        true
    }

    /// The same chunks, wherever the file has them.
    fn everywhere(&self, chunks: &Range<u32>) -> Vec<Range<u32>> {
        let head = &self.file.about.head;
        let (mut places, mut at) = (Vec::new(), chunks.start);
        while at < chunks.end {
            let Some((term, first)) = head.xorb_of(at) else { break };
            let end = head.chunks_of(term).end.min(chunks.end);
            let in_xorb = first..first + (end - at);
            let found = self.file.places_of(&head.terms[term].xorb, &in_xorb);
            places.extend(found.into_iter().map(|(place, _)| place));
            at = end;
        }
        places
    }

    /// What of these chunks is not here, and was not asked for either.
    fn missing(&self, chunks: &Range<u32>) -> Vec<Range<u32>> {
        let (mut missing, mut at) = (Vec::new(), chunks.start);
        while at < chunks.end {
            let start = self.file.next_unsound(at, chunks.end);
            let end = self.file.end_of_unsound(start, chunks.end);
            let mut from = self.asked.end_of_run(start, end);
            while from < end {
                let to = self.asked.end_of_gap(from, end);
                missing.push(from..to);
                from = self.asked.end_of_run(to, end);
            }
            at = end.max(start);
        }
        missing
    }

    /// What there is to ask for in a piece.
    pub(super) fn open(&self, piece: u32) -> Vec<Range<u32>> {
        if self.whole.has(piece) { Vec::new() } else { self.missing(&self.chunks_of(piece)) }
    }

    /// The next chunks of some stripes in file order, about so many bytes; from now on they count
    /// as asked for.
    pub(super) fn batch(&mut self, stripes: &[u32], bytes: u64) -> Vec<Range<u32>> {
        let mut batch = Batch::default();
        while batch.bytes < bytes && batch.chunks < MOST_CHUNKS {
            let next = stripes.iter().map(|stripe| self.next[*stripe as usize]).min();
            let Some(piece) = next.filter(|piece| *piece < self.pieces) else { break };
            self.take(piece, &mut batch);
            self.next[(piece % self.stripes) as usize] = piece + self.stripes;
        }
        batch.runs
    }

    /// What is missing of these pieces, about so many bytes; it counts as asked for from now on.
    pub(super) fn batch_of(
        &mut self,
        pieces: impl IntoIterator<Item = u32>,
        bytes: u64,
    ) -> Vec<Range<u32>> {
        let mut batch = Batch::default();
        for piece in pieces {
            if batch.bytes >= bytes || batch.chunks >= MOST_CHUNKS {
                break;
            }
            self.take(piece, &mut batch);
        }
        batch.runs
    }

    fn take(&mut self, piece: u32, batch: &mut Batch) {
        // One run at a time: the next may be the same chunks once more.
        while let Some(run) = self.missing(&self.chunks_of(piece)).into_iter().next() {
            for place in self.everywhere(&run) {
                self.asked.set(place);
            }
            let place = self.file.about.bytes_of(run.clone());
            batch.bytes += place.end - place.start;
            batch.chunks += run.end - run.start;
            batch.runs.push(run);
        }
    }

    /// What of these chunks is not here, asked for or not.
    pub(super) fn absent(&self, chunks: &Range<u32>) -> Vec<Range<u32>> {
        let (mut absent, mut at) = (Vec::new(), chunks.start);
        while at < chunks.end {
            let start = self.file.next_unsound(at, chunks.end);
            let end = self.file.end_of_unsound(start, chunks.end);
            if start < end {
                absent.push(start..end);
            }
            at = end.max(start);
        }
        absent
    }

    /// Whether these have not come but were asked for.
    pub(super) fn is_asked(&self, chunk: u32) -> bool {
        self.asked.has(chunk)
    }

    /// These are asked for.
    pub(super) fn ask(&mut self, chunks: &Range<u32>) {
        for place in self.everywhere(chunks) {
            self.asked.set(place);
        }
    }
}

#[derive(Default)]
struct Batch {
    runs: Vec<Range<u32>>,
    bytes: u64,
    chunks: u32,
}
