//! The hub as a source of chunks: what no peer has, it has.
//!
//! Whoever asks has shown a permit for the xorb before. Chunks go out as they are stored,
//! compressed or not, and were hashed when they were read; what can't be read is absent, so that
//! whoever asks may find it elsewhere.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use ballast_format::hash::XorbHash;
use ballast_node::hub::Hub;
use ballast_node::origin::Figure;
use futures_util::{StreamExt as _, stream};
use tokio::sync::Semaphore;

use super::cache::CheckPermit;
use super::cache::permits::Permits;
use crate::carrier::{
    Content, Encoding, Error, LONGEST_RUN, Request, Result, Run, Runs, Source, Span,
};
use crate::cluster::PeerName;

/// Runs that are read at once for all.
const READ_AT_ONCE: usize = 64;

/// A hub's chunks.
pub struct HubSource(Arc<Inner>);

struct Inner {
    hub: Arc<Hub>,
    permits: Permits,
    reading: Semaphore,
    sent: Arc<AtomicU64>,
}

impl HubSource {
    /// The chunks of this hub, for those whose permits `check` finds good.
    pub fn new(hub: Arc<Hub>, check: CheckPermit) -> Self {
        let (permits, reading) = (Permits::new(check), Semaphore::new(READ_AT_ONCE));
        let sent = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&sent);
        hub.show_figures(move || {
            let sent = counted.load(Ordering::Relaxed);
            vec![Figure::counter("swarm_hub_sent_bytes_total", sent)]
        });
        Self(Arc::new(Inner { hub, permits, reading, sent }))
    }
}

#[async_trait]
impl Source for HubSource {
    async fn admit(&self, peer: &PeerName, permit: &[u8]) -> Result<()> {
        let shown = self.0.permits.show(peer, permit, self.0.hub.env().now_ms());
        shown.map_err(|reason| Error::Refused { peer: "the hub".to_owned(), reason })
    }

    async fn open(&self, peer: &PeerName, request: Request) -> Result<Runs> {
        let (inner, now_ms) = (Arc::clone(&self.0), self.0.hub.env().now_ms());
        let may_have = |span: Span| {
            let may_have = inner.permits.allows(peer, &span.xorb, now_ms);
            (span, may_have)
        };
        let spans: Vec<_> = request.spans.into_iter().map(may_have).collect();
        let reader = Arc::clone(&inner);
        let planned = stream::iter((0..).zip(spans))
            .then(move |(index, (span, may_have))| {
                let inner = Arc::clone(&inner);
                async move { stream::iter(inner.plan(index, span, may_have).await) }
            })
            .flatten();
        // One at a time: what is read ahead and not looked at, while the peer takes what came
        // before, would hold its turn for as long as the peer likes.
        let runs = planned.then(move |planned| {
            let inner = Arc::clone(&reader);
            async move { Ok(inner.read(planned).await) }
        });
        Ok(Box::pin(runs))
    }

    async fn holdings(&self, peer: &PeerName, xorbs: &[XorbHash]) -> Result<Vec<Vec<Range<u32>>>> {
        let now_ms = self.0.hub.env().now_ms();
        let mut all = Vec::with_capacity(xorbs.len());
        for xorb in xorbs {
            let may_have = self.0.permits.allows(peer, xorb, now_ms);
            let footer = match may_have {
                true => self.0.hub.carried_footer(xorb).await.ok(),
                false => None,
            };
            all.push(footer.map(|footer| 0..footer.chunk_count()).into_iter().collect());
        }
        Ok(all)
    }

    fn sent(&self, _peer: &PeerName, bytes: u64) {
        self.0.sent.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// A run that is to be read.
struct Planned {
    span: u32,
    xorb: XorbHash,
    chunks: Range<u32>,
    /// How long each chunk is as stored; nothing: it is absent.
    lengths: Option<Vec<u32>>,
}

impl Inner {
    /// The runs of a span.
    async fn plan(&self, index: u32, span: Span, may_have: bool) -> Vec<Planned> {
        let Span { xorb, chunks } = span;
        let planned = |chunks, lengths| Planned { span: index, xorb, chunks, lengths };
        if !may_have {
            return vec![planned(chunks, None)];
        }
        let footer = match self.hub.carried_footer(&xorb).await {
            Ok(footer) if chunks.end <= footer.chunk_count() => footer,
            Ok(_) => return vec![planned(chunks, None)],
            Err(error) => {
                tracing::warn!(%error, %xorb, "a peer can't have chunks of this xorb");
                return vec![planned(chunks, None)];
            }
        };
        let mut runs = Vec::new();
        let (mut first, mut lengths, mut bytes) = (chunks.start, Vec::new(), 0);
        for chunk in chunks.clone() {
            let length = footer.serialized_chunk_length(chunk);
            if bytes + length as usize > LONGEST_RUN && !lengths.is_empty() {
                runs.push(planned(first..chunk, Some(std::mem::take(&mut lengths))));
                (first, bytes) = (chunk, 0);
            }
            lengths.push(length);
            bytes += length as usize;
        }
        runs.push(planned(first..chunks.end, Some(lengths)));
        runs
    }

    async fn read(&self, planned: Planned) -> Run {
        let Planned { span, xorb, chunks, lengths } = planned;
        let absent = Run { span, chunks: chunks.clone(), content: Content::Absent };
        let Some(lengths) = lengths else { return absent };
        let Ok(_turn) = self.reading.acquire().await else { return absent };
        let total: usize = lengths.iter().map(|length| *length as usize).sum();
        match self.hub.carried_chunks(&xorb, chunks.clone()).await {
            // Another copy of the xorb, which is stored otherwise, was read meanwhile.
            Ok(bytes) if bytes.len() != total => absent,
            Ok(bytes) => {
                let content = Content::Here { encoding: Encoding::Stored, lengths, bytes };
                Run { span, chunks, content }
            }
            Err(error) => {
                tracing::warn!(%error, %xorb, "a peer can't have chunks of this xorb");
                absent
            }
        }
    }
}

#[cfg(test)]
mod tests;
