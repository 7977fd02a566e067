//! The side that has chunks: reads calls, asks its source, and answers.

use std::io;
use std::ops::Range;
use std::time::Duration;

use ballast_format::xorb::ChunkHeader;
use bytes::Bytes;
use futures_util::StreamExt as _;

use super::frame::{
    AnswerHead, AnswerKind, CALL_HEAD, CallKind, chunks_of, cut_words, decode_request,
    decode_xorbs, encode_held,
};
use super::pipe::Pipe;
use super::shared::{SILENCE, Shared};
use super::{Content, Encoding, Error, LONGEST_RUN, Result, Run, Source, Urgency};
use crate::buffers::Buffer;
use crate::cluster::PeerName;

/// A connection on which nobody calls for so long is closed. Whoever keeps one gives it up before.
const IDLE: Duration = Duration::from_mins(3);

/// Answers the calls of a peer, one after another, until it ends, is silent for long, or says what
/// is no call.
pub(super) async fn serve<P: Pipe>(
    shared: &Shared,
    mut pipe: P,
    peer: &PeerName,
    source: &dyn Source,
) -> io::Result<()> {
    loop {
        let head = shared.within(IDLE, pipe.begin(Buffer::new(CALL_HEAD))).await?;
        let Some(head) = head else { return Ok(()) };
        let (kind, length) = match CallKind::decode(head.as_ref()) {
            Ok(call) => call,
            Err(fault) => {
                refuse(shared, &mut pipe, &fault).await?;
                return Err(io::Error::new(io::ErrorKind::InvalidData, fault));
            }
        };
        let body = shared.within(SILENCE, pipe.read(Buffer::new(length))).await?;
        let body = body.as_ref();
        let serving = Serving { shared, peer, source };
        let outcome = match kind {
            CallKind::Request => serving.request(&mut pipe, body).await,
            CallKind::Show => serving.show(&mut pipe, body).await,
            CallKind::Holdings => serving.holdings(&mut pipe, body).await,
        };
        match outcome {
            Ok(()) => {}
            Err(Stop::Gone) => return Ok(()),
            Err(Stop::Broken(error)) => return Err(error),
            Err(Stop::Refuse(words)) => refuse(shared, &mut pipe, &words).await?,
        }
    }
}

/// Why an answer ends early.
enum Stop {
    /// The peer no longer wants it.
    Gone,
    /// The pipe is of no use any more.
    Broken(io::Error),
    /// The peer is told why.
    Refuse(String),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Broken(error)
    }
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Refuse(match error {
            Error::Refused { reason, .. } => reason,
            other => other.to_string(),
        })
    }
}

struct Serving<'a> {
    shared: &'a Shared,
    peer: &'a PeerName,
    source: &'a dyn Source,
}

impl Serving<'_> {
    async fn request<P: Pipe>(&self, pipe: &mut P, body: &[u8]) -> std::result::Result<(), Stop> {
        let request = decode_request(body).map_err(Stop::Refuse)?;
        let urgency = request.urgency;
        pipe.hurry(urgency);
        let mut owed = chunks_of(&request.spans).map_err(Stop::Refuse)?;
        let mut runs = wanted(pipe, self.source.open(self.peer, request)).await??;
        // Not until the stream has ended: once the last chunk is sent, the next call may come, and
        // must not be taken for a peer that leaves.
        while owed > 0 {
            let Some(run) = wanted(pipe, runs.next()).await? else {
                return Err(Stop::Refuse(format!("its source ended {owed} chunks early")));
            };
            let run = run?;
            let count = run.chunks.len();
            let Some(left) = owed.checked_sub(count).filter(|_| count > 0) else {
                return Err(Stop::Refuse(format!("its source has {count} chunks of {owed}")));
            };
            owed = left;
            for (head, bytes) in frames_of(run)? {
                let length = bytes.len();
                self.send(pipe, head, bytes, urgency).await?;
                self.source.sent(self.peer, length as u64);
            }
        }
        Ok(())
    }

    async fn show<P: Pipe>(&self, pipe: &mut P, permit: &[u8]) -> std::result::Result<(), Stop> {
        wanted(pipe, self.source.admit(self.peer, permit)).await??;
        let head = AnswerHead::without_run(AnswerKind::Kept, 0);
        self.send(pipe, head, Bytes::new(), Urgency::Client).await
    }

    async fn holdings<P: Pipe>(&self, pipe: &mut P, body: &[u8]) -> std::result::Result<(), Stop> {
        let xorbs = decode_xorbs(body).map_err(Stop::Refuse)?;
        let mut held = wanted(pipe, self.source.holdings(self.peer, &xorbs)).await??;
        held.resize(xorbs.len(), Vec::new());
        let body = encode_held(&held);
        let head = AnswerHead::without_run(AnswerKind::Held, body.len());
        self.send(pipe, head, body.into(), Urgency::Client).await
    }

    async fn send<P: Pipe>(
        &self,
        pipe: &mut P,
        head: AnswerHead,
        bytes: Bytes,
        urgency: Urgency,
    ) -> std::result::Result<(), Stop> {
        wanted(pipe, self.shared.upload.take(bytes.len(), urgency)).await?;
        let head = Bytes::copy_from_slice(&head.encode());
        Ok(self.shared.within(SILENCE, pipe.write(head, bytes)).await?)
    }
}

/// What comes, unless the peer leaves before.
async fn wanted<P: Pipe, T>(
    pipe: &mut P,
    what: impl Future<Output = T>,
) -> std::result::Result<T, Stop> {
    tokio::select! {
        biased;
        what = what => Ok(what),
        () = pipe.gone() => Err(Stop::Gone),
    }
}

async fn refuse<P: Pipe>(shared: &Shared, pipe: &mut P, words: &str) -> io::Result<()> {
    let words = cut_words(words);
    let head = AnswerHead::without_run(AnswerKind::Refused, words.len()).encode();
    let (head, words) = (Bytes::copy_from_slice(&head), Bytes::copy_from_slice(words.as_bytes()));
    shared.within(SILENCE, pipe.write(head, words)).await
}

/// The answers that a run is sent as: each no longer than the asker has room for, both as written
/// and as it becomes.
fn frames_of(run: Run) -> Result<Vec<(AnswerHead, Bytes)>> {
    let Run { span, chunks, content } = run;
    let Content::Here { encoding, lengths, mut bytes } = content else {
        let (first, end) = (chunks.start, chunks.end);
        let head = AnswerHead { kind: AnswerKind::Absent, span, first, end, length: 0 };
        return Ok(vec![(head, Bytes::new())]);
    };
    let wrong = || Error::Source("a run's lengths are not those of its chunks".to_owned());
    let whole: usize = lengths.iter().map(|length| *length as usize).sum();
    if lengths.len() != chunks.len() || whole != bytes.len() {
        return Err(wrong());
    }
    let kind = match encoding {
        Encoding::Plain => AnswerKind::Plain,
        Encoding::Stored => AnswerKind::Stored,
    };
    let mut frames = Vec::with_capacity(1);
    let mut open: Range<u32> = chunks.start..chunks.start;
    let (mut written, mut plain, mut at) = (0, 0, 0);
    for length in lengths.into_iter().map(|length| length as usize) {
        let becomes = match encoding {
            Encoding::Plain => length,
            Encoding::Stored => plain_length(&bytes[at..]).ok_or_else(wrong)?,
        };
        if !open.is_empty() && (written + length).max(plain + becomes) > LONGEST_RUN {
            frames.push(frame(kind, span, open.clone(), bytes.split_to(written)));
            (open.start, written, plain, at) = (open.end, 0, 0, 0);
        }
        open.end += 1;
        written += length;
        plain += becomes;
        at += length;
    }
    if written.max(plain) > LONGEST_RUN {
        return Err(Error::Source("a chunk is longer than a run may be".to_owned()));
    }
    frames.push(frame(kind, span, open, bytes));
    Ok(frames)
}

fn plain_length(stored: &[u8]) -> Option<usize> {
    let header = ChunkHeader::decode(stored.first_chunk()?).ok()?;
    Some(header.uncompressed_length as usize)
}

fn frame(kind: AnswerKind, span: u32, chunks: Range<u32>, bytes: Bytes) -> (AnswerHead, Bytes) {
    let length = u32::try_from(bytes.len()).expect("it is no longer than the longest run");
    (AnswerHead { kind, span, first: chunks.start, end: chunks.end, length }, bytes)
}

#[cfg(test)]
mod tests {
    use ballast_format::xorb::Compression;

    use super::*;

    fn run(encoding: Encoding, lengths: Vec<u32>, bytes: Vec<u8>) -> Run {
        let end = 10 + u32::try_from(lengths.len()).expect("few");
        Run {
            span: 1,
            chunks: 10..end,
            content: Content::Here { encoding, lengths, bytes: bytes.into() },
        }
    }

    #[test]
    fn a_long_run_is_sent_in_several_answers() {
        let lengths = vec![100_000; 25];
        let frames = frames_of(run(Encoding::Plain, lengths, vec![7; 2_500_000])).expect("sound");
        let told: Vec<_> =
            frames.iter().map(|(head, bytes)| (head.first, head.end, bytes.len())).collect();
        assert_eq!(told, [(10, 20, 1_000_000), (20, 30, 1_000_000), (30, 35, 500_000)]);
    }

    #[test]
    fn a_short_run_that_becomes_long_is_sent_in_several_answers() {
        // Twenty chunks of 131,072 zeros, each compressed to nearly nothing.
        let header = ChunkHeader {
            compressed_length: 8,
            compression: Compression::Lz4,
            uncompressed_length: 131_072,
        };
        let chunk = [header.encode(), [0; 8]].concat();
        let frames = frames_of(run(Encoding::Stored, vec![16; 20], chunk.repeat(20)));
        let frames = frames.expect("sound");
        let told: Vec<_> =
            frames.iter().map(|(head, bytes)| (head.first, head.end, bytes.len())).collect();
        assert_eq!(told, [(10, 18, 128), (18, 26, 128), (26, 30, 64)]);
    }

    #[test]
    fn a_source_that_contradicts_itself_is_not_passed_on() {
        for (run, why) in [
            (run(Encoding::Plain, vec![5, 5], vec![0; 9]), "lengths beyond the bytes"),
            (run(Encoding::Plain, vec![5, 3], vec![0; 9]), "bytes beyond the lengths"),
            (run(Encoding::Stored, vec![9], vec![9; 9]), "no header"),
            (run(Encoding::Stored, vec![3], vec![0; 3]), "half a header"),
            (run(Encoding::Plain, vec![2_000_000], vec![0; 2_000_000]), "no such chunk"),
        ] {
            assert!(frames_of(run).is_err(), "{why}");
        }
        let mut fewer = run(Encoding::Plain, vec![5, 5], vec![0; 10]);
        fewer.chunks.end += 1;
        assert!(frames_of(fewer).is_err(), "a chunk without a length");
    }
}
