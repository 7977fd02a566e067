//! Xorbs come in, chunk by chunk: those that are here anyhow are read, the others are asked for.
//!
//! A xorb is stored under its hash when all of its chunks are here. If its home is cut off before,
//! what came is kept, and the rest is asked for later.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use ballast_format::hash::{ChunkHash, XorbHash};
use ballast_format::id::RepoId;
use ballast_format::xorb::{ChunkDecoder, XorbFooter, XorbWriter};
use ballast_node::hub::Hub;
use ballast_node::pace::Pace;
use ballast_node::region::bringer;
use ballast_node::{Error, Result};
use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio::sync::Semaphore;

use super::files::Held;
use super::turns::Turns;
use super::{of_carrier, unreachable};
use crate::carrier::{self, Arrivals, Arrived, Expected, Link, Request, Span, Urgency};
use crate::cluster::PeerName;

/// Bytes that are asked for in one request.
const REQUEST_BYTES: u64 = 8 << 20;
/// Requests of one xorb that are under way at once.
const REQUESTS: usize = 3;
/// Bytes of xorbs that are being put together, in KiB.
const ROOM_KIB: usize = 192 << 10;
/// Bytes of xorbs that came in part and are kept while their home is cut off.
const KEPT_BYTES: usize = 128 << 20;
/// Bytes that are handed to the store at once.
const PIECE: usize = 1 << 20;
/// Chunks that a link in this process hands out at once.
const RUN: u32 = 16;
/// The home has what it offers: it need not wait for it.
const PATIENCE: Duration = Duration::ZERO;

/// How to reach a home's chunks.
#[async_trait]
pub trait Links: Send + Sync + 'static {
    /// A link that is open.
    async fn link(&self) -> Result<Arc<dyn Link>>;
}

/// What was moved, and what need not be, since the process began.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// Bytes of chunks that came.
    pub(super) fetched: AtomicU64,
    /// Bytes of files whose chunks were here.
    pub(super) saved: AtomicU64,
}

/// Brings xorbs.
pub(super) struct Chunks {
    hub: Arc<Hub>,
    links: Arc<dyn Links>,
    room: Semaphore,
    parts: Mutex<HashMap<XorbHash, Parts>>,
    /// Xorbs that are coming.
    turns: Turns<XorbHash>,
    pace: Mutex<(Option<u64>, Arc<Pace>)>,
    pub(super) counts: Counts,
}

/// The chunks of a xorb, as far as they are here.
type Parts = Vec<Option<Bytes>>;

/// A xorb that is coming. When it is dropped before its end, what came is kept.
struct Coming<'a> {
    chunks: &'a Chunks,
    hash: XorbHash,
    parts: Parts,
}

impl Drop for Coming<'_> {
    fn drop(&mut self) {
        let parts = std::mem::take(&mut self.parts);
        let mut kept = self.chunks.kept();
        let bytes = |parts: &Parts| parts.iter().flatten().map(Bytes::len).sum::<usize>();
        let all: usize = kept.values().map(bytes).sum();
        let new = bytes(&parts);
        if new > 0 && all + new <= KEPT_BYTES {
            kept.insert(self.hash, parts);
        }
    }
}

impl Chunks {
    pub(super) fn new(hub: Arc<Hub>, links: Arc<dyn Links>) -> Self {
        Self {
            hub,
            links,
            room: Semaphore::new(ROOM_KIB),
            parts: Mutex::default(),
            turns: Turns::default(),
            pace: Mutex::new((None, Arc::new(Pace::unlimited()))),
            counts: Counts::default(),
        }
    }

    fn kept(&self) -> MutexGuard<'_, HashMap<XorbHash, Parts>> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on no more bytes a second than these.
    pub(super) fn set_limit(&self, limit: Option<u64>) {
        let mut pace = self.pace.lock().unwrap_or_else(PoisonError::into_inner);
        if pace.0 != limit {
            *pace = (limit, Arc::new(limit.map_or_else(Pace::unlimited, Pace::of)));
        }
    }

    fn pace(&self) -> Arc<Pace> {
        Arc::clone(&self.pace.lock().unwrap_or_else(PoisonError::into_inner).1)
    }

    /// How many bytes of a xorb are missing.
    pub(super) fn lacks(&self, footer: &XorbFooter, held: &Held) -> u64 {
        let kept = self.kept();
        let parts = kept.get(&footer.hash());
        let is_here = |at: u32| {
            parts.is_some_and(|parts| parts.get(at as usize).is_some_and(Option::is_some))
                || held.contains_key(&footer.chunk_hash(at))
        };
        let missing = (0..footer.chunk_count()).filter(|at| !is_here(*at));
        missing.map(|at| u64::from(footer.chunk_length(at))).sum()
    }

    /// Brings a xorb for a repo; when this returns, it is stored. `told` hears of bytes that came.
    pub(super) async fn bring(
        &self,
        repo: RepoId,
        footer: &Arc<XorbFooter>,
        held: &Held,
        told: &(impl Fn(u64) + Sync),
    ) -> Result<()> {
        let hash = footer.hash();
        // Another file may need it too, and was first.
        let turn = self.turns.of(hash);
        let _turn = turn.lock().await;
        if self.hub.has_xorb(&hash).await? {
            return Ok(());
        }
        let kib = (footer.total_length() / 1024).max(1);
        let room = self.room.acquire_many(kib).await;
        let _room = room.map_err(|_| unreachable("shutting down"))?;
        let parts = self.kept().remove(&hash);
        let parts = parts.unwrap_or_else(|| vec![None; footer.chunk_count() as usize]);
        let mut coming = Coming { chunks: self, hash, parts };
        self.read_held(footer, held, &mut coming.parts).await?;
        self.fetch(footer, &mut coming.parts, told).await?;
        let parts = std::mem::take(&mut coming.parts);
        drop(coming);
        self.store(repo, footer, parts).await
    }

    /// Reads the chunks that are here in other xorbs.
    async fn read_held(&self, footer: &XorbFooter, held: &Held, parts: &mut Parts) -> Result<()> {
        let at = |chunk: u32| held.get(&footer.chunk_hash(chunk)).copied();
        let mut chunk = 0;
        while chunk < footer.chunk_count() {
            let start = chunk;
            chunk += 1;
            let Some((xorb, first)) = at(start).filter(|_| parts[start as usize].is_none()) else {
                continue;
            };
            let mut length = u64::from(footer.chunk_length(start));
            while chunk < footer.chunk_count()
                && at(chunk) == Some((xorb, first + chunk - start))
                && length < PIECE as u64
            {
                length += u64::from(footer.chunk_length(chunk));
                chunk += 1;
            }
            let run = first..first + chunk - start;
            match self.read_run(xorb, run).await {
                Ok(read) => {
                    for (part, bytes) in parts[start as usize..].iter_mut().zip(read) {
                        part.get_or_insert(bytes);
                    }
                }
                // It may have been collected, or be damaged: then they are asked for.
                Err(error) => tracing::debug!(%xorb, %error, "chunks that are here can't be read"),
            }
        }
        Ok(())
    }

    async fn read_run(&self, xorb: XorbHash, run: Range<u32>) -> Result<Vec<Bytes>> {
        let footer = self.hub.carried_footer(&xorb).await?;
        let bytes = self.hub.carried_chunks(&xorb, run.clone()).await?;
        let decoded = self.hub.pool().run(move || {
            let mut chunks = Vec::with_capacity(run.len());
            ChunkDecoder::new().decode_chunks(&bytes, &footer, run, true, |chunk| {
                chunks.push(Bytes::copy_from_slice(chunk));
                Ok(())
            })?;
            Ok::<_, ballast_format::Error>(chunks)
        });
        Ok(decoded.await??)
    }

    /// Asks the home for the chunks that are missing.
    async fn fetch(
        &self,
        footer: &XorbFooter,
        parts: &mut Parts,
        told: &(impl Fn(u64) + Sync),
    ) -> Result<()> {
        let batches = batches(footer, parts);
        if batches.is_empty() {
            return Ok(());
        }
        let link = self.links.link().await?;
        let pace = self.pace();
        // All that is asked for is read as it comes: what nobody reads holds up the rest, since a
        // kernel gives no room to a connection that is not read, and calls over QUIC share theirs.
        let coming = stream::iter(batches).map(|batch| {
            let (link, pace) = (Arc::clone(&link), Arc::clone(&pace));
            let asked = async move {
                let bytes: u64 = batch.expected.iter().map(|one| u64::from(one.length)).sum();
                pace.wait(self.hub.env().as_ref(), bytes).await;
                let spans = batch.spans.clone();
                let arrivals = link.request(batch).await.map_err(of_carrier)?;
                Ok::<_, Error>(arrivals.map(move |arrived| {
                    let arrived = arrived.map_err(of_carrier)?;
                    let span = spans.get(arrived.span as usize).cloned();
                    let span = span.ok_or_else(|| Error::internal("an arrival is of no span"))?;
                    Ok::<_, Error>((span, arrived))
                }))
            };
            stream::once(asked).try_flatten().boxed()
        });
        let mut coming = coming.flatten_unordered(REQUESTS);
        while let Some((span, arrived)) = coming.try_next().await? {
            let came = take_arrived(footer, &span, arrived, parts)?;
            self.counts.fetched.fetch_add(came, Ordering::Relaxed);
            told(came);
        }
        if parts.iter().any(Option::is_none) {
            return Err(unreachable(format!(
                "the home did not send all of xorb `{}`",
                footer.hash()
            )));
        }
        Ok(())
    }

    /// Puts a xorb together and stores it.
    async fn store(&self, repo: RepoId, footer: &XorbFooter, parts: Parts) -> Result<()> {
        let hash = footer.hash();
        let hashes: Vec<ChunkHash> = footer.chunk_hashes().copied().collect();
        let packed = self.hub.pool().run(move || {
            let mut writer = XorbWriter::new();
            for (chunk, hash) in parts.into_iter().flatten().zip(hashes) {
                writer.push(&chunk, hash);
            }
            writer.finish()
        });
        let (mut bytes, packed) = packed.await?;
        if packed.hash() != hash {
            return Err(Error::internal(format!("the chunks of xorb `{hash}` make another one")));
        }
        let length = bytes.len() as u64;
        let pieces = std::iter::from_fn(move || {
            let piece = bytes.split_to(bytes.len().min(PIECE));
            (!piece.is_empty()).then_some(Ok(piece))
        });
        let body = Box::pin(stream::iter(pieces));
        self.hub.put_xorb(&bringer(repo), hash, Some(length), body).await?;
        Ok(())
    }
}

/// The requests for what is missing.
fn batches(footer: &XorbFooter, parts: &Parts) -> Vec<Request> {
    let mut batches: Vec<Request> = Vec::new();
    let mut open_bytes = u64::MAX;
    let xorb = footer.hash();
    for at in (0..footer.chunk_count()).filter(|at| parts[*at as usize].is_none()) {
        let length = footer.chunk_length(at);
        let expected = Expected { hash: footer.chunk_hash(at), length };
        let is_full = open_bytes.saturating_add(u64::from(length)) > REQUEST_BYTES
            || batches.last().is_none_or(|batch| {
                batch.spans.len() == carrier::MOST_SPANS
                    || batch.expected.len() == carrier::MOST_CHUNKS
            });
        if is_full {
            open_bytes = 0;
            let (spans, expected) = (Vec::new(), Vec::new());
            batches.push(Request { spans, expected, patience: PATIENCE, urgency: Urgency::Region });
        }
        open_bytes += u64::from(length);
        let Some(batch) = batches.last_mut() else { continue };
        batch.expected.push(expected);
        match batch.spans.last_mut() {
            Some(span) if span.chunks.end == at => span.chunks.end += 1,
            _ => batch.spans.push(Span { xorb, chunks: at..at + 1 }),
        }
    }
    batches
}

/// Takes chunks that arrived; how many bytes came.
fn take_arrived(
    footer: &XorbFooter,
    span: &Span,
    arrived: Arrived,
    parts: &mut Parts,
) -> Result<u64> {
    let Arrived { chunks, bytes, .. } = arrived;
    let Some(mut bytes) = bytes else {
        return Err(unreachable(format!("the home does not have xorb `{}` any more", span.xorb)));
    };
    let mut came = 0;
    for at in chunks {
        let length = footer.chunk_length(at) as usize;
        let part = parts.get_mut(at as usize).filter(|_| bytes.len() >= length);
        let part = part.ok_or_else(|| Error::internal("an arrival is not what was asked for"))?;
        *part = Some(bytes.split_to(length));
        came += length as u64;
    }
    Ok(came)
}

/// A link to a hub in this process.
pub struct LocalLink {
    hub: Arc<Hub>,
    peer: PeerName,
}

impl LocalLink {
    /// A link to this hub, under that name.
    pub fn new(hub: Arc<Hub>, peer: PeerName) -> Self {
        Self { hub, peer }
    }

    async fn run(hub: Arc<Hub>, at: u32, span: Span) -> carrier::Result<Arrived> {
        let fault = |error: Error| carrier::Error::Source(error.to_string());
        let (xorb, chunks) = (span.xorb, span.chunks.clone());
        if !hub.has_xorb(&xorb).await.map_err(fault)? {
            return Ok(Arrived { span: at, chunks, bytes: None });
        }
        let footer = hub.carried_footer(&xorb).await.map_err(fault)?;
        let stored = hub.carried_chunks(&xorb, chunks.clone()).await.map_err(fault)?;
        let range = chunks.clone();
        let decoded = hub.pool().run(move || {
            let mut plain = BytesMut::new();
            let sink = |chunk: &[u8]| {
                plain.extend_from_slice(chunk);
                Ok(())
            };
            ChunkDecoder::new().decode_chunks(&stored, &footer, range, true, sink)?;
            Ok::<_, ballast_format::Error>(plain.freeze())
        });
        let bytes = decoded.await.map_err(fault)?.map_err(|error| fault(error.into()))?;
        Ok(Arrived { span: at, chunks, bytes: Some(bytes) })
    }
}

#[async_trait]
impl Link for LocalLink {
    fn peer(&self) -> &PeerName {
        &self.peer
    }

    async fn show(&self, _permit: Bytes) -> carrier::Result<()> {
        Ok(())
    }

    async fn request(&self, request: Request) -> carrier::Result<Arrivals> {
        let hub = Arc::clone(&self.hub);
        let runs = (0..).zip(request.spans).flat_map(|(at, Span { xorb, chunks })| {
            let starts = chunks.clone().step_by(RUN as usize);
            starts.map(move |start| {
                let end = chunks.end.min(start + RUN);
                (at, Span { xorb, chunks: start..end })
            })
        });
        let runs = stream::iter(runs.collect::<Vec<_>>()).then(move |(at, span)| {
            let hub = Arc::clone(&hub);
            async move { Self::run(hub, at, span).await }
        });
        Ok(Box::pin(runs))
    }

    async fn holdings(&self, xorbs: &[XorbHash]) -> carrier::Result<Vec<Vec<Range<u32>>>> {
        Ok(vec![Vec::new(); xorbs.len()])
    }

    fn is_open(&self) -> bool {
        true
    }
}
