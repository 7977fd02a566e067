//! What the answers to a request must be, and whether they are.
//!
//! Nothing that a peer says is taken for true: a run must be the next one of the request, as long
//! as its chunks are, and made of exactly these (Invariant 12).

use std::ops::Range;

use ballast_format::hash::ChunkHash;
use ballast_format::limits::MAX_CHUNK_BYTES;
use ballast_format::xorb::ChunkDecoder;

use super::frame::{AnswerHead, AnswerKind, Fault, chunks_of};
use super::{Arrived, Encoding, Expected, LONGEST_RUN, Request};
use crate::buffers::{Buffer, Buffers};

/// Which chunks of a request are still to come.
#[derive(Debug)]
pub(super) struct Claims {
    request: Request,
    /// The span that is open, and its next chunk.
    span: usize,
    next: u32,
    /// What the next chunk must be: its place among all.
    at: usize,
}

/// A run that is announced.
#[derive(Debug)]
pub(super) struct Claim {
    /// Which span of the request.
    pub(super) span: u32,
    /// Which chunks of the xorb.
    pub(super) chunks: Range<u32>,
    /// How they are written, and what each must be; `None`: they are absent.
    content: Option<(Encoding, Vec<Expected>)>,
}

impl Claims {
    /// All chunks of a request that is within the limits.
    pub(super) fn new(request: Request) -> Result<Self, Fault> {
        let count = chunks_of(&request.spans)?;
        if request.expected.len() != count {
            let known = request.expected.len();
            return Err(format!("a request of {count} chunks that says what {known} must be"));
        }
        let possible = 1..=MAX_CHUNK_BYTES;
        if request.expected.iter().any(|one| !possible.contains(&(one.length as usize))) {
            return Err(format!("no chunk has more than {MAX_CHUNK_BYTES} bytes, or none"));
        }
        let next = request.spans[0].chunks.start;
        Ok(Self { request, span: 0, next, at: 0 })
    }

    pub(super) fn request(&self) -> &Request {
        &self.request
    }

    /// Whether all have come.
    pub(super) fn is_done(&self) -> bool {
        self.span == self.request.spans.len()
    }

    /// Takes the head of the next answer, before there is room for what follows it.
    pub(super) fn accept(&mut self, head: &AnswerHead) -> Result<Claim, Fault> {
        let Some(span) = self.request.spans.get(self.span) else {
            return Err("more comes than was asked for".to_owned());
        };
        let chunks = head.first..head.end;
        let fits = head.span as usize == self.span
            && chunks.start == self.next
            && chunks.start < chunks.end
            && chunks.end <= span.chunks.end;
        if !fits {
            return Err(format!(
                "chunks {} to {} of span {} come where {} to {} of span {} may",
                chunks.start, chunks.end, head.span, self.next, span.chunks.end, self.span
            ));
        }
        let expected = &self.request.expected[self.at..][..chunks.len()];
        let content = match head.kind {
            AnswerKind::Absent => None,
            AnswerKind::Plain => Some(Encoding::Plain),
            AnswerKind::Stored => Some(Encoding::Stored),
            other => return Err(format!("{other:?} is no answer to a request")),
        };
        if let Some(encoding) = content {
            let whole: usize = expected.iter().map(|one| one.length as usize).sum();
            if encoding == Encoding::Plain && whole != head.length as usize {
                return Err(format!("{} bytes for chunks of {whole}", head.length));
            }
            // Few bytes can be made of a great many.
            if whole > LONGEST_RUN {
                return Err(format!("a run of {whole} bytes; at most {LONGEST_RUN} are allowed"));
            }
        }
        let content = content.map(|encoding| (encoding, expected.to_vec()));
        let claim = Claim { span: head.span, chunks: chunks.clone(), content };
        self.at += chunks.len();
        self.next = chunks.end;
        if self.next == span.chunks.end {
            self.span += 1;
            self.next = self.request.spans.get(self.span).map_or(0, |span| span.chunks.start);
        }
        Ok(claim)
    }
}

impl Claim {
    /// Whether checking it is more than a moment's work.
    pub(super) fn is_long(&self) -> bool {
        self.content
            .as_ref()
            .is_some_and(|(encoding, expected)| expected.len() > 1 || *encoding == Encoding::Stored)
    }

    /// Holds the bytes of the run against what they must be.
    pub(super) fn verify(self, written: Buffer, buffers: &Buffers) -> Result<Arrived, Fault> {
        let Self { span, chunks, content } = self;
        let bytes = match content {
            None => None,
            Some((Encoding::Plain, expected)) => {
                let mut rest = written.as_ref();
                for (index, expected) in chunks.clone().zip(&expected) {
                    let (chunk, behind) = rest.split_at(expected.length as usize);
                    rest = behind;
                    if ChunkHash::of(chunk) != expected.hash {
                        return Err(format!("chunk {index} is not `{}`", expected.hash));
                    }
                }
                Some(written.freeze())
            }
            Some((Encoding::Stored, expected)) => {
                Some(decode(&chunks, &expected, written.as_ref(), buffers)?.freeze())
            }
        };
        Ok(Arrived { span, chunks, bytes })
    }
}

fn decode(
    chunks: &Range<u32>,
    expected: &[Expected],
    mut stored: &[u8],
    buffers: &Buffers,
) -> Result<Buffer, Fault> {
    let whole = expected.iter().map(|one| one.length as usize).sum();
    let (mut decoder, mut plain) = (ChunkDecoder::new(), buffers.take(whole));
    let mut room = plain.bytes_mut();
    for (index, expected) in chunks.clone().zip(expected) {
        let chunk = decoder
            .decode_next(&mut stored, expected.hash, expected.length)
            .map_err(|error| format!("chunk {index}: {error}"))?;
        let (into, behind) = room.split_at_mut(chunk.len());
        into.copy_from_slice(chunk);
        room = behind;
    }
    if stored.is_empty() { Ok(plain) } else { Err("bytes follow the last chunk".to_owned()) }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ballast_format::hash::XorbHash;

    use super::*;
    use crate::carrier::{Span, Urgency};

    fn request(spans: &[Range<u32>], lengths: &[u32]) -> Request {
        let span = |chunks: &Range<u32>| Span { xorb: XorbHash::ZERO, chunks: chunks.clone() };
        let expected = |length: &u32| Expected { hash: ChunkHash::ZERO, length: *length };
        Request {
            spans: spans.iter().map(span).collect(),
            expected: lengths.iter().map(expected).collect(),
            patience: Duration::ZERO,
            urgency: Urgency::Swarm,
        }
    }

    fn head(kind: AnswerKind, span: u32, chunks: Range<u32>, length: u32) -> AnswerHead {
        AnswerHead { kind, span, first: chunks.start, end: chunks.end, length }
    }

    #[test]
    fn runs_come_in_order_and_end_with_the_last_chunk() {
        let mut claims = Claims::new(request(&[3..6, 0..1], &[10, 20, 30, 40])).expect("sound");
        for (kind, span, chunks, length) in [
            (AnswerKind::Plain, 0, 3..5, 30),
            (AnswerKind::Absent, 0, 5..6, 0),
            (AnswerKind::Stored, 1, 0..1, 17),
        ] {
            assert!(!claims.is_done());
            claims.accept(&head(kind, span, chunks, length)).expect("the next one");
        }
        assert!(claims.is_done());
        assert!(claims.accept(&head(AnswerKind::Absent, 2, 0..1, 0)).is_err());
    }

    #[test]
    fn lying_lengths_and_indices_are_refused_before_there_is_room_for_them() {
        let lengths = [100_000; 12];
        for (lie, why) in [
            (head(AnswerKind::Plain, 0, 3..5, 200_001), "a byte too many"),
            (head(AnswerKind::Plain, 0, 3..5, 199_999), "a byte too few"),
            (head(AnswerKind::Plain, 0, 4..5, 100_000), "a chunk is left out"),
            (head(AnswerKind::Plain, 0, 2..4, 200_000), "a chunk that was not asked for"),
            (head(AnswerKind::Plain, 1, 3..4, 100_000), "another span"),
            (head(AnswerKind::Plain, 7, 3..4, 100_000), "no span"),
            (head(AnswerKind::Plain, 0, 3..3, 0), "no chunks"),
            (head(AnswerKind::Plain, 0, Range { start: 3, end: 2 }, 0), "backwards"),
            (head(AnswerKind::Plain, 0, 3..16, 1_300_000), "beyond the span"),
            (head(AnswerKind::Plain, 0, 3..14, 1_100_000), "a run that is too long"),
            (head(AnswerKind::Stored, 0, 3..14, 100), "a run that becomes too long"),
            (head(AnswerKind::Absent, 0, 3..u32::MAX, 0), "chunks that no xorb has"),
            (head(AnswerKind::Held, 0, 3..5, 8), "the answer to another call"),
        ] {
            let mut claims = Claims::new(request(&[3..15], &lengths)).expect("sound");
            assert!(claims.accept(&lie).is_err(), "{why}");
        }
    }

    #[test]
    fn a_request_says_what_each_chunk_must_be() {
        for (lengths, why) in [
            (vec![1, 1], "too few"),
            (vec![1; 4], "too many"),
            (vec![1, 0, 1], "an empty chunk"),
            (vec![1, 131_073, 1], "a chunk that is too long"),
        ] {
            assert!(Claims::new(request(&[3..6], &lengths)).is_err(), "{why}");
        }
    }
}
