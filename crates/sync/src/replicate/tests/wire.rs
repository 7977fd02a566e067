//! The way from one region to another: it counts, it takes time, and it is cut.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use ballast_format::hash::{PackHash, XorbHash};
use ballast_format::id::RepoId;
use ballast_format::log::Head;
use ballast_format::manifest::ManifestId;
use ballast_node::download::ByteStream;
use ballast_node::hub::Hub;
use ballast_node::region::Entries;
use ballast_node::{Error, Result};
use ballast_testkit::sim::{Process, World};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};

use super::super::chunks::{Links, LocalLink};
use super::super::home::{Footers, HomeLog, LocalHome, Offers, Progress};
use super::region_name;
use crate::carrier::{self, Arrivals, Link, Request};
use crate::cluster::PeerName;

/// One way of the wire, to a process of the other region.
pub(super) struct Wire {
    world: Arc<World>,
    /// To which region it hands things over.
    to: String,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    end: Option<(Arc<Process>, Arc<Hub>, Arc<LocalHome>)>,
    is_cut: bool,
    /// Bytes of chunks after which it is cut.
    left: Option<u64>,
    /// How often each chunk was sent.
    sent: HashMap<(XorbHash, u32), u32>,
    sent_bytes: u64,
    /// Answers that are read at the moment, and the most at any moment.
    reading: usize,
    most_reading: usize,
}

impl Wire {
    pub(super) fn new(world: &Arc<World>, to: &str) -> Arc<Self> {
        Arc::new(Self { world: Arc::clone(world), to: to.to_owned(), state: Mutex::default() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on it leads to this process.
    pub(super) fn lead_to(&self, process: &Arc<Process>, hub: &Arc<Hub>) {
        let to = region_name(&self.to);
        let home = LocalHome::new(Arc::clone(hub), to, Arc::default(), None);
        let end = (Arc::clone(process), Arc::clone(hub), Arc::new(home));
        self.state().end = Some(end);
    }

    pub(super) fn cut(&self, is_cut: bool) {
        self.world.note(&format!("to {}: cut {is_cut}", self.to));
        let state = &mut *self.state();
        (state.is_cut, state.left) = (is_cut, None);
    }

    /// Cuts it when so many bytes of chunks went over it.
    pub(super) fn cut_after(&self, bytes: u64) {
        self.state().left = Some(bytes);
    }

    /// The most answers that were read at the same time.
    pub(super) fn most_reading(&self) -> usize {
        self.state().most_reading
    }

    /// Bytes of chunks that were sent, and how many chunks were sent more than once.
    pub(super) fn sent(&self) -> (u64, usize) {
        let state = self.state();
        (state.sent_bytes, state.sent.values().filter(|times| **times > 1).count())
    }

    /// Counts chunks; whether they go through.
    fn send(&self, xorb: XorbHash, chunks: Range<u32>, bytes: u64) -> bool {
        let state = &mut *self.state();
        if state.left.is_some_and(|left| left < bytes) {
            (state.is_cut, state.left) = (true, None);
        }
        if state.is_cut {
            return false;
        }
        state.left = state.left.map(|left| left - bytes);
        for chunk in chunks {
            *state.sent.entry((xorb, chunk)).or_default() += 1;
        }
        state.sent_bytes += bytes;
        true
    }

    async fn travel(&self) -> Result<(Arc<Process>, Arc<Hub>, Arc<LocalHome>)> {
        let most = Duration::from_millis(160);
        let time = self.world.between(Duration::from_millis(40), most);
        self.world.pass(time).await;
        let state = self.state();
        match &state.end {
            Some(end) if !state.is_cut && !end.0.is_dead() => Ok(end.clone()),
            _ => Err(lost()),
        }
    }

    /// Asks the other end, which may die meanwhile.
    async fn ask<T>(&self, call: impl AsyncFnOnce(&LocalHome) -> Result<T>) -> Result<T> {
        let (process, _, home) = self.travel().await?;
        let answer = tokio::select! {
            biased;
            answer = call(&home) => answer,
            () = process.died() => return Err(lost()),
            () = self.world.pass(Duration::from_mins(10)) => return Err(lost()),
        };
        self.travel().await?;
        answer
    }
}

/// An answer, from when somebody begins to read it.
struct Reading(Arc<Wire>);

impl Reading {
    async fn begin(wire: &Arc<Wire>) -> Self {
        {
            let state = &mut *wire.state();
            state.reading += 1;
            state.most_reading = state.most_reading.max(state.reading);
        }
        let reading = Self(Arc::clone(wire));
        wire.world.pass(Duration::from_millis(200)).await;
        reading
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.0.state().reading -= 1;
    }
}

fn lost() -> Error {
    super::super::unreachable("the wire is cut")
}

fn lost_link() -> carrier::Error {
    carrier::Error::Unreachable { peer: "home".to_owned(), reason: "the wire is cut".to_owned() }
}

#[async_trait]
impl HomeLog for Wire {
    async fn offers(&self, progress: &BTreeMap<RepoId, Progress>) -> Result<Offers> {
        self.ask(async |home| home.offers(progress).await).await
    }

    async fn entries(&self, repo: RepoId, behind: u64) -> Result<Entries> {
        self.ask(async |home| home.entries(repo, behind).await).await
    }

    async fn entry(&self, repo: RepoId, number: u64) -> Result<Option<Head>> {
        self.ask(async |home| home.entry(repo, number).await).await
    }

    async fn pack_end(&self, repo: RepoId, pack: PackHash) -> Result<(u64, Bytes)> {
        self.ask(async |home| home.pack_end(repo, pack).await).await
    }

    async fn pack_bytes(&self, repo: RepoId, pack: PackHash, range: Range<u64>) -> Result<Bytes> {
        self.ask(async |home| home.pack_bytes(repo, pack, range).await).await
    }

    async fn shard(&self, repo: RepoId, manifest: &ManifestId) -> Result<Option<ByteStream>> {
        self.ask(async |home| home.shard(repo, manifest).await).await
    }

    async fn footers(
        &self,
        repo: RepoId,
        manifest: &ManifestId,
        xorbs: &[XorbHash],
    ) -> Result<Footers> {
        self.ask(async |home| home.footers(repo, manifest, xorbs).await).await
    }
}

/// A link over a wire.
struct WireLink {
    wire: Arc<Wire>,
    peer: PeerName,
}

/// What it takes to have an `Arc` of the wire.
pub(super) struct Over(pub(super) Arc<Wire>);

#[async_trait]
impl Links for Over {
    async fn link(&self) -> Result<Arc<dyn Link>> {
        let peer = PeerName::parse("home").expect("a name");
        Ok(Arc::new(WireLink { wire: Arc::clone(&self.0), peer }))
    }
}

#[async_trait]
impl Link for WireLink {
    fn peer(&self) -> &PeerName {
        &self.peer
    }

    async fn show(&self, _permit: Bytes) -> carrier::Result<()> {
        Ok(())
    }

    async fn request(&self, request: Request) -> carrier::Result<Arrivals> {
        let (process, hub, _) = self.wire.travel().await.map_err(|_| lost_link())?;
        let spans = request.spans.clone();
        let link = LocalLink::new(hub, self.peer.clone());
        let arrivals = tokio::select! {
            biased;
            arrivals = link.request(request) => arrivals?,
            () = process.died() => return Err(lost_link()),
        };
        let wire = Arc::clone(&self.wire);
        let arrivals = stream::unfold(Some((arrivals, None)), move |arrivals| {
            let (wire, process, spans) = (Arc::clone(&wire), Arc::clone(&process), spans.clone());
            async move {
                let (mut arrivals, reading) = arrivals?;
                let reading = match reading {
                    Some(reading) => reading,
                    None => Reading::begin(&wire).await,
                };
                let next = tokio::select! {
                    biased;
                    next = arrivals.next() => next?,
                    () = process.died() => Err(lost_link()),
                };
                let Ok(arrived) = next else { return Some((next, None)) };
                let span = &spans[arrived.span as usize];
                let length = arrived.bytes.as_ref().map_or(0, Bytes::len) as u64;
                match wire.send(span.xorb, arrived.chunks.clone(), length) {
                    true => Some((Ok(arrived), Some((arrivals, Some(reading))))),
                    false => Some((Err(lost_link()), None)),
                }
            }
        });
        Ok(Box::pin(arrivals))
    }

    async fn holdings(&self, xorbs: &[XorbHash]) -> carrier::Result<Vec<Vec<Range<u32>>>> {
        Ok(vec![Vec::new(); xorbs.len()])
    }

    fn is_open(&self) -> bool {
        true
    }
}
