//! One request to one peer, from asking to the last chunk.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use ballast_format::cached_file::CachedFile;
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use tokio_util::sync::CancellationToken;

use super::peers::{Pass, Peers, Who};
use crate::carrier::{Arrivals, Arrived, Error, Expected, Link, Request, Span, Urgency};
use crate::swarm::cache::Filling;

/// What comes of a request.
#[derive(Debug)]
pub(super) enum Event {
    /// Chunks came and are written: how many bytes, and how many of these were not here.
    Came { chunks: Range<u32>, bytes: u64, new: u64 },
    /// The peer does not have these.
    Absent(Range<u32>),
    /// It is over: nothing is wrong, or somebody made it stop, or this.
    Over(Over),
}

/// How a request ended.
pub(super) type Over = Result<(), Fault>;

/// Why a request did not go well.
#[derive(Debug)]
pub(super) enum Fault {
    /// The peer, or the way to it.
    Peer(Error),
    /// What came can't be kept.
    Here(ballast_node::error::Error),
}

/// What is asked of whom.
pub(super) struct Ask {
    pub(super) peers: Arc<Peers>,
    pub(super) who: Who,
    pub(super) pass: Arc<Pass>,
    pub(super) filling: Arc<Filling>,
    /// Chunks of the file, in the order in which they shall come.
    pub(super) runs: Vec<Range<u32>>,
    pub(super) urgency: Urgency,
    pub(super) patience: Duration,
    pub(super) stop: CancellationToken,
}

enum Stage {
    Asking,
    Coming(Arrivals),
    Over,
}

struct Transfer {
    ask: Ask,
    /// The request's spans, and the chunk of the file that each begins with.
    spans: Vec<(Span, u32)>,
    stage: Stage,
}

/// Asks, and writes what comes. It ends with [`Event::Over`].
pub(super) fn transfer(ask: Ask) -> BoxStream<'static, Event> {
    let spans = spans_of(&ask.filling.file().about, &ask.runs);
    let transfer = Transfer { ask, spans, stage: Stage::Asking };
    stream::unfold(transfer, |mut transfer| async move {
        let stop = transfer.ask.stop.clone();
        let event = tokio::select! {
            biased;
            () = stop.cancelled(), if !matches!(transfer.stage, Stage::Over) => {
                Event::Over(Ok(()))
            }
            event = transfer.next() => event?,
        };
        if matches!(event, Event::Over(_)) {
            // What still comes is for nobody: the peer is told to stop.
            transfer.stage = Stage::Over;
        }
        Some((event, transfer))
    })
    .boxed()
}

impl Transfer {
    async fn next(&mut self) -> Option<Event> {
        let arrivals = match &mut self.stage {
            Stage::Over => return None,
            Stage::Coming(arrivals) => arrivals,
            Stage::Asking => match self.begin().await {
                Ok(arrivals) => {
                    self.stage = Stage::Coming(arrivals);
                    let Stage::Coming(arrivals) = &mut self.stage else { return None };
                    arrivals
                }
                Err(error) => return Some(Event::Over(Err(Fault::Peer(error)))),
            },
        };
        match arrivals.next().await {
            None => Some(Event::Over(Ok(()))),
            Some(Err(error)) => Some(Event::Over(Err(Fault::Peer(error)))),
            Some(Ok(arrived)) => Some(self.take(arrived).await),
        }
    }

    async fn begin(&mut self) -> Result<Arrivals, Error> {
        let about = &self.ask.filling.file().about;
        let link: Arc<dyn Link> = self.ask.peers.link(&self.ask.who, &self.ask.pass).await?;
        let chunks = self.ask.runs.iter().flat_map(Clone::clone);
        let expected =
            |chunk| Expected { hash: about.hash_of(chunk), length: about.length_of(chunk) };
        let request = Request {
            spans: self.spans.iter().map(|(span, _)| span.clone()).collect(),
            expected: chunks.map(expected).collect(),
            patience: self.ask.patience,
            urgency: self.ask.urgency,
        };
        link.request(request).await
    }

    async fn take(&mut self, arrived: Arrived) -> Event {
        let Arrived { span, chunks, bytes } = arrived;
        let Some((asked, first)) = self.spans.get(span as usize) else {
            return self.lied("it answers what was not asked");
        };
        if chunks.start < asked.chunks.start || chunks.end > asked.chunks.end || chunks.is_empty() {
            return self.lied("it answers what was not asked");
        }
        let place = |chunk: u32| first + (chunk - asked.chunks.start);
        let chunks = place(chunks.start)..place(chunks.end);
        match bytes {
            None => Event::Absent(chunks),
            Some(bytes) => self.write(chunks, bytes).await,
        }
    }

    async fn write(&mut self, chunks: Range<u32>, bytes: Bytes) -> Event {
        let length = bytes.len() as u64;
        match self.ask.filling.write(chunks.clone(), bytes).await {
            Ok(new) => Event::Came { chunks, bytes: length, new },
            Err(error) => Event::Over(Err(Fault::Here(error))),
        }
    }

    fn lied(&self, reason: &str) -> Event {
        let (peer, reason) = (self.ask.who.name.to_string(), reason.to_owned());
        Event::Over(Err(Fault::Peer(Error::Lied { peer, reason })))
    }
}

/// Chunks of a file as spans of xorbs, each with the chunk of the file that it begins with.
pub(super) fn spans_of(about: &CachedFile, runs: &[Range<u32>]) -> Vec<(Span, u32)> {
    let head = &about.head;
    let mut spans = Vec::new();
    for run in runs {
        let mut at = run.start;
        while at < run.end {
            let Some((term, first)) = head.xorb_of(at) else { break };
            let end = head.chunks_of(term).end.min(run.end);
            let xorb = head.terms[term].xorb;
            spans.push((Span { xorb, chunks: first..first + (end - at) }, at));
            at = end;
        }
    }
    spans
}
