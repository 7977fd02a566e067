//! The cache as a source of chunks for peers.
//!
//! A peer gets what it was permitted, from whichever file has it: what has just arrived from
//! memory, all else from the disk. Chunks that are on their way are waited for, as long as the peer
//! has patience; any that comes to the file makes it patient again. That its own stripe stands
//! still while others come is for the peer to find: it may have asked for more than comes in that
//! time.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use ballast_format::hash::XorbHash;
use ballast_format::limits::MAX_XORB_CHUNKS;
use ballast_node::error::Result;
use bytes::Bytes;
use futures_util::stream;
use tokio::sync::watch;

use super::{Cache, OpenFile, Read, Stage};
use crate::carrier::{self, Content, Encoding, Error, Request, Run, Runs, Source, Span};
use crate::cluster::PeerName;
use crate::swarm::ledger::Ledger;

/// How long a run of a file that is still coming is, at most, unless a chunk is longer.
const PASSED_ON_BYTES: u64 = 64 << 10;

/// Gives peers what is in a cache.
pub struct CacheSource {
    cache: Arc<Cache>,
    ledger: Arc<Ledger>,
}

impl CacheSource {
    /// The source that counts in `ledger` what it hands out.
    pub fn new(cache: Arc<Cache>, ledger: Arc<Ledger>) -> Self {
        Self { cache, ledger }
    }
}

/// A request that is being answered.
struct Answer {
    cache: Arc<Cache>,
    peer: PeerName,
    spans: Vec<Span>,
    span: usize,
    /// The next chunk of that span.
    at: u32,
    /// The files that have chunks of its xorb.
    files: Option<Vec<Candidate>>,
    patience: Duration,
    /// Since when it waits and nothing comes.
    since: Option<Duration>,
}

struct Candidate {
    file: Arc<OpenFile>,
    stage: watch::Receiver<Stage>,
}

#[async_trait]
impl Source for CacheSource {
    async fn admit(&self, peer: &PeerName, permit: &[u8]) -> carrier::Result<()> {
        let shown = self.cache.permits.show(peer, permit, self.cache.env.now_ms());
        shown.map_err(|reason| Error::Refused { peer: peer.to_string(), reason })
    }

    async fn open(&self, peer: &PeerName, request: Request) -> carrier::Result<Runs> {
        let answer = Answer {
            cache: Arc::clone(&self.cache),
            peer: peer.clone(),
            at: request.spans.first().map_or(0, |span| span.chunks.start),
            spans: request.spans,
            span: 0,
            files: None,
            patience: request.patience,
            since: None,
        };
        Ok(Box::pin(stream::try_unfold(answer, |mut answer| async move {
            let run = answer.next().await.map_err(|error| Error::Source(error.to_string()))?;
            Ok(run.map(|run| (run, answer)))
        })))
    }

    async fn holdings(
        &self,
        peer: &PeerName,
        xorbs: &[XorbHash],
    ) -> carrier::Result<Vec<Vec<Range<u32>>>> {
        let mut held = Vec::with_capacity(xorbs.len());
        for xorb in xorbs {
            let is_allowed = self.cache.permits.allows(peer, xorb, self.cache.env.now_ms());
            let ranges = if is_allowed { self.cache.held_of(xorb).await } else { Ok(Vec::new()) };
            held.push(ranges.map_err(|error| Error::Source(error.to_string()))?);
        }
        Ok(held)
    }

    fn sent(&self, _peer: &PeerName, bytes: u64) {
        self.ledger.sent(bytes);
    }
}

impl Cache {
    /// Which chunks of a xorb are here.
    async fn held_of(&self, xorb: &XorbHash) -> Result<Vec<Range<u32>>> {
        let mut ranges = Vec::new();
        for sha256 in self.with_xorb(xorb) {
            let Some(file) = self.file(&sha256).await? else { continue };
            let all = 0..u32::try_from(MAX_XORB_CHUNKS).unwrap_or(u32::MAX);
            for (place, first) in file.places_of(xorb, &all) {
                let mut at = place.start;
                while at < place.end {
                    let end = file.end_of_run(at, place.end);
                    if file.has(at) {
                        let in_xorb = |chunk: u32| first + (chunk - place.start);
                        ranges.push(in_xorb(at)..in_xorb(end));
                    }
                    at = end;
                }
            }
        }
        Ok(merged(ranges))
    }
}

/// The same chunks, each once and in order.
fn merged(mut ranges: Vec<Range<u32>>) -> Vec<Range<u32>> {
    ranges.sort_unstable_by_key(|range| range.start);
    let mut merged: Vec<Range<u32>> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match merged.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => merged.push(range),
        }
    }
    merged
}

impl Answer {
    async fn next(&mut self) -> Result<Option<Run>> {
        loop {
            let Some(span) = self.spans.get(self.span).cloned() else { return Ok(None) };
            if self.at >= span.chunks.end {
                self.span += 1;
                self.at = self.spans.get(self.span).map_or(0, |span| span.chunks.start);
                self.files = None;
                continue;
            }
            if !self.cache.permits.allows(&self.peer, &span.xorb, self.cache.env.now_ms()) {
                return Ok(Some(self.run(span.chunks.end, Content::Absent)));
            }
            let rest = self.at..span.chunks.end;
            if let Some(run) = self.read(&span.xorb, &rest).await? {
                return Ok(Some(run));
            }
            if !self.wait(&span.xorb, &rest).await {
                let end = self.end_of_absent(&span.xorb, &rest);
                return Ok(Some(self.run(end, Content::Absent)));
            }
        }
    }

    /// The next run, if its first chunk is here.
    async fn read(&mut self, xorb: &XorbHash, rest: &Range<u32>) -> Result<Option<Run>> {
        let mut files = match self.files.take() {
            Some(files) => files,
            None => self.candidates(xorb).await?,
        };
        let mut found = None;
        for candidate in &mut files {
            candidate.stage.borrow_and_update();
            found = self.read_from(candidate, xorb, rest).await?;
            if found.is_some() {
                break;
            }
        }
        self.files = Some(files);
        Ok(found.map(|(content, chunks)| {
            self.since = None;
            self.run(self.at + chunks, content)
        }))
    }

    /// What a file has of the next chunks, and how many these are.
    async fn read_from(
        &self,
        candidate: &Candidate,
        xorb: &XorbHash,
        rest: &Range<u32>,
    ) -> Result<Option<(Content, u32)>> {
        while let Some(place) = candidate.place(xorb, rest) {
            let mut run = candidate.file.readable(&place);
            if matches!(candidate.file.stage(), Stage::Filling) {
                run.end = short(&candidate.file, &run);
            }
            match candidate.file.read(&self.cache.pool, run.clone()).await? {
                Read::Here(bytes) => {
                    let content = plain(&candidate.file, &run, bytes);
                    return Ok(Some((content, run.end - run.start)));
                }
                Read::Missing => break,
                // Without the damaged one there may be some.
                Read::Damaged(_) => self.cache.damaged(&candidate.file).await,
            }
        }
        Ok(None)
    }

    async fn candidates(&self, xorb: &XorbHash) -> Result<Vec<Candidate>> {
        let mut files = Vec::new();
        for sha256 in self.cache.with_xorb(xorb) {
            if let Some(file) = self.cache.file(&sha256).await? {
                files.push(Candidate { stage: file.watch(), file });
            }
        }
        Ok(files)
    }

    /// Waits until something comes to a file that will have the next chunk; whether there is one,
    /// and patience left for it.
    async fn wait(&mut self, xorb: &XorbHash, rest: &Range<u32>) -> bool {
        let env = Arc::clone(&self.cache.env);
        let now = env.monotonic();
        let until = *self.since.get_or_insert(now) + self.patience;
        let coming = |candidate: &&mut Candidate| {
            matches!(candidate.file.stage(), Stage::Filling)
                && candidate.file.places_of(xorb, rest).iter().any(|place| place.1 == rest.start)
        };
        let candidate = self.files.iter_mut().flatten().find(coming);
        let Some(candidate) = candidate.filter(|_| now < until) else { return false };
        tokio::select! {
            biased;
            changed = candidate.stage.changed() => {
                self.since = None;
                changed.is_ok()
            }
            () = env.sleep(until - now) => false,
        }
    }

    /// The first chunk behind the next one that is here; the end if none is.
    fn end_of_absent(&self, xorb: &XorbHash, rest: &Range<u32>) -> u32 {
        let is_here = |chunk: &u32| {
            let one = *chunk..rest.end;
            let files = self.files.iter().flatten();
            files.into_iter().any(|candidate| candidate.place(xorb, &one).is_some())
        };
        (rest.start + 1..rest.end).find(is_here).unwrap_or(rest.end)
    }

    fn run(&mut self, end: u32, content: Content) -> Run {
        let span = u32::try_from(self.span).expect("a request has few spans");
        let chunks = self.at..end;
        self.at = end;
        Run { span, chunks, content }
    }
}

impl Candidate {
    /// Where the file has these chunks from the first one on, if that is here.
    fn place(&self, xorb: &XorbHash, rest: &Range<u32>) -> Option<Range<u32>> {
        let places = self.file.places_of(xorb, rest);
        let mut at_start = places.into_iter().filter(|(_, first)| *first == rest.start);
        at_start.find(|(place, _)| self.file.has(place.start)).map(|(place, _)| place)
    }
}

/// Where a run ends that others wait for behind whoever gets it: none is passed on before its last
/// byte is there.
fn short(file: &OpenFile, run: &Range<u32>) -> u32 {
    let is_long = |end: &u32| {
        let bytes = file.about.bytes_of(run.start..*end);
        bytes.end - bytes.start > PASSED_ON_BYTES
    };
    (run.start + 2..=run.end).find(is_long).map_or(run.end, |end| end - 1)
}

fn plain(file: &OpenFile, chunks: &Range<u32>, bytes: Bytes) -> Content {
    let lengths = chunks.clone().map(|chunk| file.about.length_of(chunk)).collect();
    Content::Here { encoding: Encoding::Plain, lengths, bytes }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_told_once_and_in_order() {
        assert_eq!(merged(vec![5..7, 0..2, 2..3, 6..9, 20..21]), [0..3, 5..9, 20..21]);
        assert_eq!(merged(Vec::new()), []);
    }
}
