//! The framing: how calls and answers are written, byte for byte `docs/protocol/carrier.md`.
//!
//! Whoever reads a frame has its fixed part first, and every length in that is held against what it
//! may be before anything is allocated. Numbers are little-endian, as in all that we write by hand.

use std::ops::Range;
use std::time::Duration;

use ballast_format::codec::{Decoder, Encoder};
use ballast_format::hash::XorbHash;
use ballast_format::limits::MAX_XORB_CHUNKS;

use super::{
    LONGEST_RUN, MOST_ASKED_XORBS, MOST_CHUNKS, MOST_PERMIT_BYTES, MOST_SPANS, Request, Span,
    Urgency,
};

/// Bytes of the fixed part of a call: its kind and how many bytes follow.
pub(super) const CALL_HEAD: usize = 1 + 4;
/// Bytes of the fixed part of an answer.
pub(super) const ANSWER_HEAD: usize = 1 + 4 * 4;
/// The longest words of a refusal.
pub(super) const MOST_WORDS: usize = 512;
/// The longest list of what a peer has; what goes beyond is left out, since it is a hint only.
pub(super) const MOST_HELD_BYTES: usize = 1 << 20;
/// A peer waits no longer than this, whatever it is asked.
pub(super) const MOST_PATIENCE: Duration = Duration::from_mins(1);

/// Why a frame can't be believed.
pub(super) type Fault = String;

/// What is wanted of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CallKind {
    /// Chunks.
    Request,
    /// That it keeps a permit.
    Show,
    /// What it has.
    Holdings,
}

impl CallKind {
    /// The call whose fixed part this is, and how many bytes follow.
    pub(super) fn decode(head: &[u8]) -> Result<(Self, usize), Fault> {
        let Ok(head) = <[u8; CALL_HEAD]>::try_from(head) else {
            return Err("half a call".to_owned());
        };
        let (kind, most) = match head[0] {
            1 => (Self::Request, 1 + 4 + 4 + MOST_SPANS * 40),
            2 => (Self::Show, MOST_PERMIT_BYTES),
            3 => (Self::Holdings, 4 + MOST_ASKED_XORBS * 32),
            other => return Err(format!("no call is number {other}")),
        };
        let length = u32::from_le_bytes([head[1], head[2], head[3], head[4]]) as usize;
        if length > most {
            return Err(format!("a call of {length} bytes; at most {most} are allowed"));
        }
        Ok((kind, length))
    }

    /// A call with this body.
    pub(super) fn encode(self, body: &[u8]) -> Vec<u8> {
        let mut out = Encoder::new();
        out.u8(match self {
            Self::Request => 1,
            Self::Show => 2,
            Self::Holdings => 3,
        });
        out.bytes(body);
        out.finish()
    }
}

/// The body of a request for chunks.
pub(super) fn encode_request(request: &Request) -> Vec<u8> {
    let mut out = Encoder::new();
    out.u8(match request.urgency {
        Urgency::Client => 0,
        Urgency::Swarm => 1,
        Urgency::Region => 2,
    });
    out.u32(u32::try_from(request.patience.as_millis()).unwrap_or(u32::MAX));
    out.list(&request.spans, |out, span| {
        out.array(span.xorb.as_bytes());
        out.u32(span.chunks.start);
        out.u32(span.chunks.end);
    });
    out.finish()
}

/// The mirror of [`encode_request`]; what is expected stays with the asker.
pub(super) fn decode_request(body: &[u8]) -> Result<Request, Fault> {
    let read = || {
        let mut fields = Decoder::new("request", body);
        let urgency = match fields.u8()? {
            0 => Urgency::Client,
            1 => Urgency::Swarm,
            2 => Urgency::Region,
            other => return Err(fields.malformed(format!("no urgency is number {other}"))),
        };
        let patience = Duration::from_millis(fields.u32()?.into()).min(MOST_PATIENCE);
        let spans = fields.list(40, |fields| {
            let xorb = XorbHash::from_bytes(fields.array()?);
            Ok(Span { xorb, chunks: fields.u32()?..fields.u32()? })
        })?;
        fields.finish()?;
        Ok(Request { spans, expected: Vec::new(), patience, urgency })
    };
    let request = read().map_err(|error: ballast_format::Error| error.to_string())?;
    chunks_of(&request.spans)?;
    Ok(request)
}

/// How many chunks these spans have; they are within the limits.
pub(super) fn chunks_of(spans: &[Span]) -> Result<usize, Fault> {
    if spans.is_empty() || spans.len() > MOST_SPANS {
        return Err(format!("a request of {} spans; 1 to {MOST_SPANS} are allowed", spans.len()));
    }
    let mut count = 0;
    for span in spans {
        let Range { start, end } = span.chunks;
        if start >= end || end as usize > MAX_XORB_CHUNKS {
            return Err(format!("no xorb has chunks {start} to {end}"));
        }
        count += (end - start) as usize;
    }
    if count > MOST_CHUNKS {
        return Err(format!("a request of {count} chunks; at most {MOST_CHUNKS} are allowed"));
    }
    Ok(count)
}

/// The body of a call that asks what of these xorbs is there.
pub(super) fn encode_xorbs(xorbs: &[XorbHash]) -> Vec<u8> {
    let mut out = Encoder::new();
    out.list(xorbs, |out, xorb| out.array(xorb.as_bytes()));
    out.finish()
}

/// The mirror of [`encode_xorbs`].
pub(super) fn decode_xorbs(body: &[u8]) -> Result<Vec<XorbHash>, Fault> {
    let read = || {
        let mut fields = Decoder::new("list of xorbs", body);
        let xorbs = fields.list(32, |fields| fields.array().map(XorbHash::from_bytes))?;
        fields.finish().map(|()| xorbs)
    };
    read().map_err(|error| error.to_string())
}

/// The body of an answer that says which chunks are there, for each xorb that was asked about. What
/// does not fit is as if it were not there.
pub(super) fn encode_held(held: &[Vec<Range<u32>>]) -> Vec<u8> {
    let mut room = MOST_HELD_BYTES - 4 - 4 * held.len().min(MOST_ASKED_XORBS);
    let mut out = Encoder::new();
    out.list(held, |out, ranges| {
        let told = ranges.len().min(room / 8);
        room -= 8 * told;
        out.list(&ranges[..told], |out, range| {
            out.u32(range.start);
            out.u32(range.end);
        });
    });
    out.finish()
}

/// The mirror of [`encode_held`], when `asked` xorbs were asked about.
pub(super) fn decode_held(body: &[u8], asked: usize) -> Result<Vec<Vec<Range<u32>>>, Fault> {
    let read = || {
        let mut fields = Decoder::new("list of chunks", body);
        let held = fields.list(4, |fields| {
            let mut least = 0;
            fields.list(8, |fields| {
                let range = fields.u32()?..fields.u32()?;
                if range.start < least || range.is_empty() || range.end as usize > MAX_XORB_CHUNKS {
                    return Err(fields.malformed("its ranges are not in order"));
                }
                least = range.end;
                Ok(range)
            })
        })?;
        fields.finish().map(|()| held)
    };
    let held = read().map_err(|error| error.to_string())?;
    if held.len() != asked {
        return Err(format!("it was asked about {asked} xorbs and told of {}", held.len()));
    }
    Ok(held)
}

/// What an answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AnswerKind {
    /// A run of chunks as they are.
    Plain,
    /// A run of chunks as a xorb has them.
    Stored,
    /// A run of chunks that are not there.
    Absent,
    /// The permit is kept.
    Kept,
    /// What is there.
    Held,
    /// Nothing, and why.
    Refused,
}

/// The fixed part of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AnswerHead {
    pub(super) kind: AnswerKind,
    /// Of a run: which span of the request. Otherwise zero, as the next two.
    pub(super) span: u32,
    /// Of a run: its first chunk, and the one behind its last.
    pub(super) first: u32,
    pub(super) end: u32,
    /// How many bytes follow.
    pub(super) length: u32,
}

impl AnswerHead {
    /// An answer that is not a run.
    pub(super) fn without_run(kind: AnswerKind, length: usize) -> Self {
        let length = u32::try_from(length).expect("the longest such answer has 1 MiB");
        Self { kind, span: 0, first: 0, end: 0, length }
    }

    pub(super) fn encode(&self) -> [u8; ANSWER_HEAD] {
        let mut head = [0; ANSWER_HEAD];
        head[0] = match self.kind {
            AnswerKind::Plain => 0,
            AnswerKind::Stored => 1,
            AnswerKind::Absent => 2,
            AnswerKind::Kept => 3,
            AnswerKind::Held => 4,
            AnswerKind::Refused => 5,
        };
        for (at, number) in [self.span, self.first, self.end, self.length].into_iter().enumerate() {
            head[1 + 4 * at..5 + 4 * at].copy_from_slice(&number.to_le_bytes());
        }
        head
    }

    /// The mirror of [`encode`](Self::encode). No answer is longer than its kind may be; whether a
    /// run is the next one of its request, only the asker knows.
    pub(super) fn decode(head: &[u8]) -> Result<Self, Fault> {
        let Ok(head) = <[u8; ANSWER_HEAD]>::try_from(head) else {
            return Err("half an answer".to_owned());
        };
        let number =
            |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let (kind, most) = match head[0] {
            0 => (AnswerKind::Plain, LONGEST_RUN),
            1 => (AnswerKind::Stored, LONGEST_RUN),
            2 => (AnswerKind::Absent, 0),
            3 => (AnswerKind::Kept, 0),
            4 => (AnswerKind::Held, MOST_HELD_BYTES),
            5 => (AnswerKind::Refused, MOST_WORDS),
            other => return Err(format!("no answer is number {other}")),
        };
        let answer =
            Self { kind, span: number(1), first: number(5), end: number(9), length: number(13) };
        if answer.length as usize > most {
            return Err(format!(
                "an answer of {} bytes; at most {most} are allowed",
                answer.length
            ));
        }
        Ok(answer)
    }
}

/// The words of a refusal as they are sent: cut at a character.
pub(super) fn cut_words(words: &str) -> &str {
    &words[..words.floor_char_boundary(MOST_WORDS)]
}

/// The words of a peer as they may be shown: a terminal must not obey them.
pub(super) fn clean_words(words: &[u8]) -> String {
    let text = String::from_utf8_lossy(words);
    text.chars().map(|one| if one.is_control() { ' ' } else { one }).collect()
}

#[cfg(test)]
mod tests;
