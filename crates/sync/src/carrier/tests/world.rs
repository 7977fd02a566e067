//! Two processes on loopback, their identities, and what they say.

use std::collections::HashMap;
use std::net::{SocketAddr, UdpSocket};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use ballast_format::hash::{ChunkHash, XorbHash};
use ballast_format::xorb::XorbWriter;
use ballast_node::pool::Pool;
use ballast_node::worker::Runner;
use ballast_store::env::{RealEnv, SharedEnv};
use ballast_testkit::content::splitmix;
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use tokio::sync::{Barrier, Notify};

use crate::buffers::Buffer;
use crate::carrier::frame::{CALL_HEAD, CallKind};
use crate::carrier::pipe::{Pipe, Wire};
use crate::carrier::quic::Answer;
use crate::carrier::*;
use crate::cluster::{
    Authority, CarrierStream, Door, DoorLimits, Identity, PeerKey, PeerRole, Revocations, Services,
    TakeStreams, rig,
};

/// The carriers that are tested.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Tcp,
    Quic,
}

/// Who issues names.
pub(super) struct Cluster {
    env: SharedEnv,
    authority: Authority,
}

impl Cluster {
    pub(super) fn new(byte: u8) -> Self {
        Self { env: RealEnv::shared(), authority: rig::authority(byte) }
    }

    pub(super) fn identity(&self, name: &str) -> Arc<Identity> {
        rig::identity(&self.authority, PeerRole::Node, name, &self.env)
    }

    pub(super) fn credentials(&self, name: &str) -> Credentials {
        Credentials::of(&self.identity(name)).expect("an identity")
    }
}

pub(super) fn name(text: &str) -> PeerName {
    PeerName::parse(text).expect("a name")
}

pub(super) fn shared() -> Shared {
    shared_by(Runner::new())
}

fn shared_by(runner: Runner) -> Shared {
    Shared::new(RealEnv::shared(), Pool::new(2), runner, None, None)
}

/// Chunks as a source has them.
pub(super) struct Xorb {
    pub(super) hash: XorbHash,
    pub(super) chunks: Vec<Vec<u8>>,
}

impl Xorb {
    pub(super) fn new(seed: u8, lengths: &[usize]) -> Self {
        let chunk = |(at, length): (u64, &usize)| splitmix(u64::from(seed) << 32 | at, *length);
        let chunks = (0..).zip(lengths).map(chunk).collect();
        Self { hash: XorbHash::from_bytes([seed; 32]), chunks }
    }

    pub(super) fn expected(&self, chunks: Range<u32>) -> Vec<Expected> {
        let expected = |chunk: &Vec<u8>| Expected {
            hash: ChunkHash::of(chunk),
            length: u32::try_from(chunk.len()).expect("short"),
        };
        self.chunks[chunks.start as usize..chunks.end as usize].iter().map(expected).collect()
    }

    pub(super) fn bytes(&self, chunks: Range<u32>) -> Vec<u8> {
        self.chunks[chunks.start as usize..chunks.end as usize].concat()
    }
}

pub(super) fn request(spans: &[(&Xorb, Range<u32>)]) -> Request {
    let span =
        |(xorb, chunks): &(&Xorb, Range<u32>)| Span { xorb: xorb.hash, chunks: chunks.clone() };
    Request {
        spans: spans.iter().map(span).collect(),
        expected: spans.iter().flat_map(|(xorb, chunks)| xorb.expected(chunks.clone())).collect(),
        patience: Duration::from_secs(7),
        urgency: Urgency::Swarm,
    }
}

/// A source that has some xorbs in memory.
#[derive(Default)]
pub(super) struct Shelf {
    pub(super) xorbs: HashMap<XorbHash, Vec<Vec<u8>>>,
    /// Hands chunks out as a xorb has them.
    pub(super) stored: bool,
    /// Chunks of one run.
    pub(super) per_run: usize,
    /// The stream of a request never says that it has ended.
    pub(super) lingers: bool,
    /// Each request waits until so many have come.
    pub(super) together: Option<Barrier>,
    /// Each run waits for this.
    pub(super) gate: Option<Arc<Notify>>,
    /// Chunks that were handed out.
    pub(super) handed_out: AtomicUsize,
    /// Bytes of chunks that went out.
    pub(super) sent: AtomicU64,
    pub(super) seen: Mutex<Vec<(PeerName, Request)>>,
    pub(super) permits: Mutex<Vec<(PeerName, Vec<u8>)>>,
    /// Told when the stream of a request is dropped.
    pub(super) dropped: Arc<Notify>,
}

impl Shelf {
    pub(super) fn of(xorbs: &[&Xorb]) -> Self {
        let xorbs = xorbs.iter().map(|xorb| (xorb.hash, xorb.chunks.clone())).collect();
        Self { xorbs, per_run: 3, ..Self::default() }
    }

    fn run(&self, at: u32, span: &Span, chunks: Range<u32>) -> Run {
        let here = self.xorbs.get(&span.xorb);
        let here = here.and_then(|all| all.get(chunks.start as usize..chunks.end as usize));
        let Some(here) = here else {
            return Run { span: at, chunks, content: Content::Absent };
        };
        let length = |bytes: usize| u32::try_from(bytes).expect("short");
        let content = if self.stored {
            let mut writer = XorbWriter::new();
            for chunk in here {
                writer.push(chunk, ChunkHash::of(chunk));
            }
            let (serialized, footer) = writer.finish();
            let lengths = (0..footer.chunk_count()).map(|at| footer.serialized_chunk_length(at));
            let lengths: Vec<_> = lengths.collect();
            let end: usize = lengths.iter().map(|length| *length as usize).sum();
            let bytes = serialized.slice(..end);
            Content::Here { encoding: Encoding::Stored, lengths, bytes }
        } else {
            let lengths = here.iter().map(|chunk| length(chunk.len())).collect();
            Content::Here { encoding: Encoding::Plain, lengths, bytes: here.concat().into() }
        };
        Run { span: at, chunks, content }
    }
}

struct Tell(Arc<Notify>);

impl Drop for Tell {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

#[async_trait]
impl Source for Arc<Shelf> {
    async fn admit(&self, peer: &PeerName, permit: &[u8]) -> Result<()> {
        if permit == b"forged" {
            let (peer, reason) = (peer.to_string(), "its signature is wrong".to_owned());
            return Err(Error::Refused { peer, reason });
        }
        self.permits.lock().expect("no panic").push((peer.clone(), permit.to_vec()));
        Ok(())
    }

    async fn open(&self, peer: &PeerName, request: Request) -> Result<Runs> {
        self.seen.lock().expect("no panic").push((peer.clone(), request.clone()));
        if let Some(together) = &self.together {
            together.wait().await;
        }
        let mut runs = Vec::new();
        for (at, span) in (0..).zip(&request.spans) {
            for start in span.chunks.clone().step_by(self.per_run) {
                let end = span.chunks.end.min(start + u32::try_from(self.per_run).expect("few"));
                runs.push((at, span.clone(), start..end));
            }
        }
        let (shelf, tell) = (Self::clone(self), Tell(Arc::clone(&self.dropped)));
        let lingers = self.lingers;
        let runs = stream::iter(runs).then(move |(at, span, chunks)| {
            let (shelf, _) = (Self::clone(&shelf), &tell);
            async move {
                if let Some(gate) = &shelf.gate {
                    gate.notified().await;
                }
                shelf.handed_out.fetch_add(chunks.len(), Ordering::Relaxed);
                Ok(shelf.run(at, &span, chunks))
            }
        });
        Ok(if lingers { Box::pin(runs.chain(stream::pending())) } else { Box::pin(runs) })
    }

    async fn holdings(&self, _: &PeerName, xorbs: &[XorbHash]) -> Result<Vec<Vec<Range<u32>>>> {
        let held = |xorb| match self.xorbs.get(xorb) {
            Some(chunks) => vec![0..u32::try_from(chunks.len()).expect("few")],
            None => Vec::new(),
        };
        Ok(xorbs.iter().map(held).collect())
    }

    fn sent(&self, _: &PeerName, bytes: u64) {
        self.sent.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// What a server does with a call.
#[derive(Clone)]
pub(super) enum Manner {
    /// Answers.
    Honest(Arc<Shelf>),
    /// Says this whatever it is asked, and then ends, or waits until nobody listens.
    Says { bytes: Bytes, ends: bool },
}

/// A server on loopback, and a link to it.
pub(super) struct World {
    pub(super) shared: Shared,
    pub(super) carrier: Arc<dyn Carrier>,
    pub(super) address: SocketAddr,
    pub(super) link: Arc<dyn Link>,
    /// Who the server does not believe any more, and the client's key.
    pub(super) revocations: Revocations,
    pub(super) key: PeerKey,
    /// Connections that were accepted by TCP.
    pub(super) accepted: Arc<AtomicUsize>,
    /// Tasks of the server; stopping them is the server's death.
    pub(super) server: Runner,
    _quic: Arc<QuicCarrier>,
}

impl World {
    pub(super) async fn new(kind: Kind, manner: Manner) -> Self {
        let (cluster, shared, server) = (Cluster::new(1), shared(), Runner::new());
        let (serving, identity) = (shared_by(server.clone()), cluster.identity("server"));
        let door = Door::bind(any()).await.expect("a door");
        let (address, udp) = (door.address(), door.udp().expect("a socket"));
        let credentials = Credentials::of(&identity).expect("an identity");
        let settings = QuicSettings::default();
        let quic = listen_quic(&serving, &credentials, udp, manner.clone(), settings);
        let accepted = Arc::new(AtomicUsize::new(0));
        let streams = Streams { shared: serving, manner, accepted: Arc::clone(&accepted) };
        let (services, limits) = (Services::new(), DoorLimits::default());
        let opened =
            door.open(&server, &cluster.env, &identity, services, Some(Arc::new(streams)), limits);
        opened.expect("it opens");
        let revocations = identity.revocations().clone();
        let identity = cluster.identity("client");
        let carrier = carrier(kind, &shared, &Credentials::of(&identity).expect("an identity"));
        let link =
            carrier.connect(address, &name("server"), Distance::Near).await.expect("connected");
        let key = identity.key().public();
        Self { shared, carrier, address, link, revocations, key, accepted, server, _quic: quic }
    }

    pub(super) async fn honest(kind: Kind, shelf: Shelf) -> (Self, Arc<Shelf>) {
        let shelf = Arc::new(shelf);
        (Self::new(kind, Manner::Honest(Arc::clone(&shelf))).await, shelf)
    }

    /// All that arrives; the error that ended it, if one did.
    pub(super) async fn fetch(&self, request: Request) -> (Vec<Arrived>, Option<Error>) {
        let mut arrivals = match self.link.request(request).await {
            Ok(arrivals) => arrivals,
            Err(error) => return (Vec::new(), Some(error)),
        };
        let mut arrived = Vec::new();
        while let Some(next) = arrivals.next().await {
            match next {
                Ok(run) => arrived.push(run),
                Err(error) => {
                    assert!(arrivals.next().await.is_none(), "nothing comes after an error");
                    return (arrived, Some(error));
                }
            }
        }
        (arrived, None)
    }
}

/// Any port of this machine.
pub(super) fn any() -> SocketAddr {
    ([127, 0, 0, 1], 0).into()
}

/// A carrier that only calls.
pub(super) fn carrier(kind: Kind, shared: &Shared, credentials: &Credentials) -> Arc<dyn Carrier> {
    match kind {
        Kind::Tcp => TcpCarrier::new(shared, credentials),
        Kind::Quic => call_by_quic(shared, credentials, QuicSettings::default()),
    }
}

pub(super) fn call_by_quic(
    shared: &Shared,
    credentials: &Credentials,
    settings: QuicSettings,
) -> Arc<QuicCarrier> {
    let socket = UdpSocket::bind(any()).expect("a port");
    QuicCarrier::over(shared, credentials, socket, None, settings).expect("a carrier")
}

pub(super) fn listen_quic(
    shared: &Shared,
    credentials: &Credentials,
    socket: UdpSocket,
    manner: Manner,
    settings: QuicSettings,
) -> Arc<QuicCarrier> {
    let carrier = match manner {
        Manner::Honest(shelf) => {
            QuicCarrier::over(shared, credentials, socket, Some(Arc::new(shelf)), settings)
        }
        Manner::Says { bytes, ends } => {
            let answer: Answer =
                Arc::new(move |stream, _| Box::pin(says(stream, bytes.clone(), ends)));
            QuicCarrier::with(shared, credentials, socket, Some(answer), settings)
        }
    };
    carrier.expect("a carrier")
}

/// All bytes of what arrived.
pub(super) fn bytes_of(arrived: &[Arrived]) -> Vec<u8> {
    arrived.iter().flat_map(|run| run.bytes.as_deref().expect("not absent").to_vec()).collect()
}

/// What the door gives its streams to.
struct Streams {
    shared: Shared,
    manner: Manner,
    accepted: Arc<AtomicUsize>,
}

#[async_trait]
impl TakeStreams for Streams {
    async fn serve(&self, stream: CarrierStream, peer: PeerName) {
        self.accepted.fetch_add(1, Ordering::Relaxed);
        match &self.manner {
            Manner::Honest(shelf) => {
                let server = TcpServer::new(&self.shared, Arc::new(Arc::clone(shelf)));
                server.serve(stream, peer).await;
            }
            Manner::Says { bytes, ends } => says(Wire(stream), bytes.clone(), *ends).await,
        }
    }
}

/// Reads one call and says something, whatever was asked.
pub(super) async fn says<P: Pipe>(mut pipe: P, bytes: Bytes, ends: bool) {
    let Ok(Some(head)) = pipe.begin(Buffer::new(CALL_HEAD)).await else { return };
    let (_, length) = CallKind::decode(head.as_ref()).expect("a call");
    pipe.read(Buffer::new(length)).await.expect("its body");
    if pipe.write(bytes, Bytes::new()).await.is_ok() && !ends {
        pipe.gone().await;
    }
}
