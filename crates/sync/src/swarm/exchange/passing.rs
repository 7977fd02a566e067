//! A file that is larger than the cache: it passes through, window by window, and is not kept.
//!
//! Every chunk is verified as it arrives, as with any other file. The hub is asked for all of it:
//! who keeps nothing has no place in a swarm.

use std::ops::Range;
use std::sync::Arc;

use ballast_format::cached_file::CachedFile;
use ballast_node::download::ByteStream;
use ballast_node::error::{Error, Result};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};

use super::peers::{Pass, Peers, Who};
use super::transfer::spans_of;
use super::{AGAIN_SECONDS, Means};
use crate::carrier::{self, Arrivals, Expected, Request, Urgency};

/// What is asked for at once.
const WINDOW_BYTES: u64 = 8 << 20;

struct Passing {
    peers: Arc<Peers>,
    hub: Who,
    pass: Pass,
    about: Arc<CachedFile>,
    /// Bytes of the file that are still wanted.
    left: Range<u64>,
    /// What is being answered, and the chunk that comes next.
    coming: Option<(Arrivals, u32)>,
}

/// These bytes of a file, from the hub.
pub fn passing(means: &Means, about: Arc<CachedFile>, pass: Pass, range: Range<u64>) -> ByteStream {
    let left = range.start..range.end.min(about.head.size);
    let (peers, hub) = (Arc::clone(&means.peers), means.hub.clone());
    let ledger = Arc::clone(&means.ledger);
    let passing = Passing { peers, hub, pass, about, left, coming: None };
    let pieces = stream::try_unfold(passing, |mut passing| async move {
        Ok(passing.next().await?.map(|piece| (piece, passing)))
    });
    Box::pin(pieces.inspect(move |piece| {
        if let Ok(piece) = piece {
            let bytes = piece.len() as u64;
            ledger.came(crate::swarm::ledger::Place::Hub, bytes, bytes);
        }
    }))
}

impl Passing {
    async fn next(&mut self) -> Result<Option<Bytes>> {
        while self.left.start < self.left.end {
            if self.coming.is_none() {
                self.ask().await?;
            }
            let Some((arrivals, _)) = &mut self.coming else { continue };
            let Some(arrived) = arrivals.next().await else {
                self.coming = None;
                continue;
            };
            let arrived = arrived.map_err(|error| self.failed(&error))?;
            let Some((_, next)) = &mut self.coming else { continue };
            let first = *next;
            let chunks = first..first + (arrived.chunks.end - arrived.chunks.start);
            *next = chunks.end;
            let Some(bytes) = arrived.bytes else {
                return Err(again("the hub does not have all of this file"));
            };
            return Ok(Some(self.cut(&chunks, &bytes)));
        }
        Ok(None)
    }

    /// Asks for the next window. Arrivals are in the order of the request.
    async fn ask(&mut self) -> Result<()> {
        let about = &self.about;
        let first = about.chunk_at(self.left.start);
        let first = first.ok_or_else(|| Error::internal("nothing is wanted"))?;
        let end = (self.left.start + WINDOW_BYTES).min(self.left.end);
        let last = about.chunk_at(end - 1).unwrap_or(first);
        let expected =
            |chunk| Expected { hash: about.hash_of(chunk), length: about.length_of(chunk) };
        let request = Request {
            spans: spans_of(about, &[first..last + 1]).into_iter().map(|(span, _)| span).collect(),
            expected: (first..=last).map(expected).collect(),
            patience: std::time::Duration::ZERO,
            urgency: Urgency::Client,
        };
        let asked = async {
            let link = self.peers.link(&self.hub, &self.pass).await?;
            link.request(request).await
        };
        let arrivals = asked.await.map_err(|error| self.failed(&error))?;
        self.coming = Some((arrivals, first));
        Ok(())
    }

    /// What of these chunks is wanted.
    fn cut(&mut self, chunks: &Range<u32>, bytes: &Bytes) -> Bytes {
        let there = self.about.bytes_of(chunks.clone());
        let (start, end) = (self.left.start.max(there.start), self.left.end.min(there.end));
        let inside = |place: u64| {
            let place = usize::try_from(place.saturating_sub(there.start)).unwrap_or(usize::MAX);
            place.min(bytes.len())
        };
        self.left.start = end.max(start);
        bytes.slice(inside(start)..inside(end.max(start)))
    }

    fn failed(&self, error: &carrier::Error) -> Error {
        if let carrier::Error::Lied { .. } = error {
            self.peers.lied(&self.hub);
        }
        tracing::info!(%error, "a file that passes through broke off");
        again("the hub does not send this file now; ask again")
    }
}

fn again(reason: &str) -> Error {
    Error::Upstream { reason: reason.to_owned(), retry_seconds: AGAIN_SECONDS }
}
