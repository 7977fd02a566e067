//! A hub and nodes in one process: each node has a real cache, links are calls.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use ballast_format::hash::{ChunkHash, Sha256, XorbHash};
use ballast_node::error::Result as NodeResult;
use ballast_node::pool::Pool;
use ballast_testkit::clock::SimEnv;
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use tokio::sync::{mpsc, watch};

use crate::carrier::{
    self, Arrivals, Arrived, Carrier, Content, Distance, Encoding, Error, Link, Request, Run, Runs,
    Source, Urgency,
};
use crate::cluster::PeerName;
use crate::swarm::cache::{
    Begun, Cache, CacheSettings, CacheSource, CheckPermit, Filling, OpenFile, Permitted,
};
use crate::swarm::exchange::{Known, Means, Pass, Peers, Say, Seat, Terms, Told, Who, fetch};
use crate::swarm::ledger::Ledger;
use crate::swarm::sample::Sample;

/// How long a piece of the samples is, and how many stripes there are.
pub(crate) const PIECE: u64 = 10_000;
pub(crate) const STRIPES: u32 = 4;

/// The hub is the parent in all stripes.
pub(crate) const HUB: [Option<usize>; STRIPES as usize] = [None; STRIPES as usize];

/// How a process behaves.
#[derive(Default)]
pub(crate) struct Manners {
    /// It cannot be reached, and breaks off.
    pub(crate) is_dead: AtomicBool,
    /// It takes requests and never answers.
    pub(crate) is_frozen: AtomicBool,
    /// It changes a byte of each run.
    pub(crate) lies: AtomicBool,
    /// It dies when it has sent so many bytes; 0: never.
    pub(crate) dies_after: AtomicU64,
    /// How often it was asked for something.
    pub(crate) asked: AtomicU64,
    /// What it sent, and how much of it because a client waits.
    pub(crate) sent: AtomicU64,
    pub(crate) sent_to_clients: AtomicU64,
}

impl Manners {
    fn is(flag: &AtomicBool) -> bool {
        flag.load(Ordering::Relaxed)
    }

    fn sends(&self, bytes: u64, urgency: Urgency) {
        let sent = self.sent.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if urgency == Urgency::Client {
            self.sent_to_clients.fetch_add(bytes, Ordering::Relaxed);
        }
        let most = self.dies_after.load(Ordering::Relaxed);
        if most > 0 && sent >= most {
            self.is_dead.store(true, Ordering::Relaxed);
        }
    }

    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    pub(crate) fn asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }

    pub(crate) fn set(flag: &AtomicBool) {
        flag.store(true, Ordering::Relaxed);
    }
}

#[derive(Clone)]
struct Process {
    source: Arc<dyn Source>,
    manners: Arc<Manners>,
}

/// Everybody, by address.
pub(crate) struct World {
    pub(crate) env: Arc<SimEnv>,
    processes: Mutex<HashMap<SocketAddr, Process>>,
    /// Who was reached as one that may be far.
    pub(crate) called_far: Mutex<BTreeSet<PeerName>>,
    pub(crate) hub: Arc<Manners>,
}

/// One node.
pub(crate) struct Node {
    pub(crate) name: &'static str,
    pub(crate) cache: Arc<Cache>,
    pub(crate) means: Means,
    pub(crate) manners: Arc<Manners>,
    pub(crate) folder: tempfile::TempDir,
    pub(crate) tell: watch::Sender<Told>,
    pub(crate) said: tokio::sync::Mutex<mpsc::Receiver<(Sha256, Say)>>,
    say: mpsc::Sender<(Sha256, Say)>,
}

pub(crate) fn who(name: &str) -> Who {
    let is_hub = name == "hub";
    // A node's letter is its port.
    let port = if is_hub { 1 } else { u16::from(name.as_bytes()[0]) };
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    Who { name: PeerName::parse(name).expect("a name"), address, is_hub, is_near: !is_hub }
}

pub(crate) fn known(name: &str, is_whole: bool) -> Known {
    Known { who: who(name), is_whole }
}

/// A plan: for each stripe a place in `peers`, or the hub.
pub(crate) fn plan(peers: &[&str], parents: [Option<usize>; STRIPES as usize]) -> Told {
    Told {
        is_heard: true,
        peers: peers.iter().map(|name| known(name, false)).collect(),
        parents: parents.to_vec(),
        refused: None,
    }
}

impl World {
    /// A hub that has these files.
    pub(crate) fn new(samples: &[&Sample]) -> Arc<Self> {
        let hub = Arc::new(Manners::default());
        let samples = samples.iter().map(|sample| (*sample).clone()).collect();
        let world = Arc::new(Self {
            env: SimEnv::new(1),
            processes: Mutex::default(),
            called_far: Mutex::default(),
            hub: Arc::clone(&hub),
        });
        world.add("hub", Arc::new(HubSource { samples }), hub);
        world
    }

    fn add(&self, name: &str, source: Arc<dyn Source>, manners: Arc<Manners>) {
        let mut processes = self.processes.lock().unwrap_or_else(PoisonError::into_inner);
        processes.insert(who(name).address, Process { source, manners });
    }

    /// A node that has nothing.
    pub(crate) async fn node(self: &Arc<Self>, name: &'static str) -> Node {
        self.node_with(name, 1 << 30).await
    }

    /// The same with so much room.
    pub(crate) async fn node_with(self: &Arc<Self>, name: &'static str, cap_bytes: u64) -> Node {
        let folder = tempfile::tempdir().expect("a folder");
        let settings = CacheSettings { folder: folder.path().to_owned(), cap_bytes };
        // What is shown is not looked at here: everybody may have everything that is shown.
        let check: CheckPermit = Box::new(|_: &PeerName, permit: &[u8]| {
            let xorbs = permit.as_chunks().0.iter().map(|hash| XorbHash::from_bytes(*hash));
            Ok(Permitted { xorbs: xorbs.collect(), until_ms: u64::MAX })
        });
        let cache = Cache::open(settings, Pool::new(0), Arc::clone(&self.env) as _, check).await;
        let cache = cache.expect("a cache");
        let (manners, ledger) = (Arc::new(Manners::default()), Arc::new(Ledger::default()));
        let source = CacheSource::new(Arc::clone(&cache), Arc::clone(&ledger));
        self.add(name, Arc::new(source), Arc::clone(&manners));
        let carrier = InProcess { world: Arc::clone(self), from: who(name).name };
        let env = Arc::clone(&self.env) as _;
        let peers = Peers::new(Arc::new(carrier), Arc::clone(&env));
        let means = Means { peers, ledger, env, hub: who("hub") };
        let (say, said) = mpsc::channel(10_000);
        let tell = watch::Sender::new(Told { is_heard: true, ..Told::default() });
        Node { name, cache, means, manners, folder, tell, said: tokio::sync::Mutex::new(said), say }
    }

    /// Lets time pass while something is done: a moment each time nobody can go on.
    pub(crate) async fn drive<T>(&self, done: impl Future<Output = T>) -> T {
        let time = async {
            loop {
                for _ in 0..200 {
                    tokio::task::yield_now().await;
                }
                self.env.advance(Duration::from_millis(20));
            }
        };
        tokio::select! {
            biased;
            done = done => done,
            () = time => unreachable!("time does not end"),
        }
    }
}

pub(crate) fn pass(sample: &Sample) -> Pass {
    let permit: Vec<u8> = sample.xorbs().iter().flat_map(|xorb| *xorb.as_bytes()).collect();
    Pass { sha256: sample.sha256(), permits: vec![Bytes::from(permit)], until_ms: u64::MAX }
}

impl Node {
    pub(crate) async fn begin(&self, sample: &Sample) -> Filling {
        match self.cache.begin(sample.about.clone()).await.expect("there is room") {
            Begun::Filling(filling) => filling,
            Begun::Whole(_) => panic!("it is whole"),
        }
    }

    /// Has these chunks of a file, as if they had come before.
    pub(crate) async fn has(&self, sample: &Sample, runs: &[Range<u32>]) -> Filling {
        let filling = self.begin(sample).await;
        for run in runs {
            for chunk in run.clone() {
                let bytes = sample.bytes(chunk..chunk + 1);
                filling.write(chunk..chunk + 1, bytes).await.expect("it is right");
            }
        }
        filling
    }

    pub(crate) fn seat(&self, sample: &Sample) -> Seat {
        let (told, say) = (self.tell.subscribe(), self.say.clone());
        Seat { sha256: sample.sha256(), told, say }
    }

    /// Fetches what is missing of a file.
    pub(crate) async fn go_on(
        &self,
        sample: &Sample,
        filling: Filling,
    ) -> NodeResult<Arc<OpenFile>> {
        let terms = Terms { pass: pass(sample), piece_bytes: PIECE, stripes: STRIPES };
        fetch(&self.means, filling, terms, self.seat(sample)).await
    }

    pub(crate) async fn fetch(&self, sample: &Sample) -> NodeResult<Arc<OpenFile>> {
        self.go_on(sample, self.begin(sample).await).await
    }

    /// What is on the disk under the file's name is the file.
    pub(crate) fn check(&self, sample: &Sample) {
        assert!(self.cache.is_whole(&sample.sha256()), "{}", self.name);
        let path = self.folder.path().join(sample.sha256().to_string());
        assert!(std::fs::read(path).expect("a file") == sample.content, "{}", self.name);
    }

    /// What the tracker was told, but for progress.
    pub(crate) fn complaints(&self) -> Vec<Say> {
        let mut said = self.said.try_lock().expect("nobody else listens");
        let all = std::iter::from_fn(|| said.try_recv().ok()).map(|(_, say)| say);
        all.filter(|say| matches!(say, Say::Wrong { .. })).collect()
    }
}

/// A hub has all of its files.
struct HubSource {
    samples: Vec<Sample>,
}

#[async_trait]
impl Source for HubSource {
    async fn admit(&self, _: &PeerName, _: &[u8]) -> carrier::Result<()> {
        Ok(())
    }

    async fn open(&self, _: &PeerName, request: Request) -> carrier::Result<Runs> {
        let mut runs = Vec::new();
        for (number, span) in (0..).zip(&request.spans) {
            for chunk in span.chunks.clone() {
                runs.push(Ok(self.run(number, span.xorb, chunk)));
            }
        }
        Ok(Box::pin(stream::iter(runs)))
    }

    async fn holdings(
        &self,
        _: &PeerName,
        xorbs: &[XorbHash],
    ) -> carrier::Result<Vec<Vec<Range<u32>>>> {
        Ok(vec![vec![0..8192]; xorbs.len()])
    }

    fn sent(&self, _: &PeerName, _: u64) {}
}

impl HubSource {
    fn run(&self, span: u32, xorb: XorbHash, chunk: u32) -> Run {
        let find = |sample: &Sample| {
            let head = &sample.about.head;
            let has = |term: &usize| {
                let said = &head.terms[*term];
                said.xorb == xorb && said.chunks.contains(&chunk)
            };
            let term = (0..head.terms.len()).find(has)?;
            let place = head.chunks_of(term).start + chunk - head.terms[term].chunks.start;
            Some(sample.bytes(place..place + 1))
        };
        let bytes = self.samples.iter().find_map(find);
        let content = bytes.map_or(Content::Absent, |bytes| {
            let length = u32::try_from(bytes.len()).expect("a chunk");
            Content::Here { encoding: Encoding::Plain, lengths: vec![length], bytes }
        });
        Run { span, chunks: chunk..chunk + 1, content }
    }
}

struct InProcess {
    world: Arc<World>,
    from: PeerName,
}

struct Call {
    peer: PeerName,
    from: PeerName,
    process: Process,
}

impl Call {
    fn broken(peer: &PeerName) -> Error {
        let reason = "it is dead".to_owned();
        Error::Unreachable { peer: peer.to_string(), reason }
    }

    async fn check(&self) -> carrier::Result<()> {
        if Manners::is(&self.process.manners.is_dead) {
            return Err(Self::broken(&self.peer));
        }
        if Manners::is(&self.process.manners.is_frozen) {
            std::future::pending::<()>().await;
        }
        Ok(())
    }
}

#[async_trait]
impl Carrier for InProcess {
    fn name(&self) -> &'static str {
        "calls"
    }

    async fn connect(
        &self,
        address: SocketAddr,
        peer: &PeerName,
        distance: Distance,
    ) -> carrier::Result<Arc<dyn Link>> {
        let processes = self.world.processes.lock().unwrap_or_else(PoisonError::into_inner);
        let process = processes.get(&address).cloned().ok_or_else(|| Call::broken(peer))?;
        drop(processes);
        let call = Call { peer: peer.clone(), from: self.from.clone(), process };
        if Manners::is(&call.process.manners.is_dead) {
            return Err(Call::broken(peer));
        }
        if distance == Distance::Unknown {
            let mut far = self.world.called_far.lock().unwrap_or_else(PoisonError::into_inner);
            far.insert(peer.clone());
        }
        Ok(Arc::new(call))
    }
}

#[async_trait]
impl Link for Call {
    fn peer(&self) -> &PeerName {
        &self.peer
    }

    async fn show(&self, permit: Bytes) -> carrier::Result<()> {
        self.check().await?;
        self.process.source.admit(&self.from, &permit).await
    }

    async fn request(&self, request: Request) -> carrier::Result<Arrivals> {
        self.check().await?;
        self.process.manners.asked.fetch_add(1, Ordering::Relaxed);
        let (expected, urgency) = (request.expected.clone(), request.urgency);
        let runs = self.process.source.open(&self.from, request).await?;
        let (peer, manners) = (self.peer.clone(), Arc::clone(&self.process.manners));
        let mut expected = expected.into_iter();
        let arrivals = runs.then(move |run| {
            let run = run.and_then(|run| verify(&peer, run, &mut expected, &manners));
            let (peer, manners) = (peer.clone(), Arc::clone(&manners));
            async move {
                // Others get their turn, as on a network.
                tokio::task::yield_now().await;
                if Manners::is(&manners.is_frozen) {
                    std::future::pending::<()>().await;
                }
                if Manners::is(&manners.is_dead) {
                    return Err(Self::broken(&peer));
                }
                let run = run?;
                if let Some(bytes) = &run.bytes {
                    manners.sends(bytes.len() as u64, urgency);
                }
                Ok(run)
            }
        });
        Ok(Box::pin(arrivals))
    }

    async fn holdings(&self, xorbs: &[XorbHash]) -> carrier::Result<Vec<Vec<Range<u32>>>> {
        self.check().await?;
        self.process.source.holdings(&self.from, xorbs).await
    }

    fn is_open(&self) -> bool {
        !Manners::is(&self.process.manners.is_dead)
    }
}

/// What a carrier does with what comes.
fn verify(
    peer: &PeerName,
    run: Run,
    expected: &mut impl Iterator<Item = carrier::Expected>,
    manners: &Manners,
) -> carrier::Result<Arrived> {
    let Run { span, chunks, content } = run;
    let expected: Vec<_> = expected.take(chunks.len()).collect();
    let Content::Here { bytes, .. } = content else {
        return Ok(Arrived { span, chunks, bytes: None });
    };
    let mut sent = bytes.to_vec();
    if Manners::is(&manners.lies) {
        sent[0] ^= 1;
    }
    let mut rest = &sent[..];
    for expected in expected {
        let (chunk, after) = rest.split_at(expected.length as usize);
        if ChunkHash::of(chunk) != expected.hash {
            let reason = "a chunk is another one".to_owned();
            return Err(Error::Lied { peer: peer.to_string(), reason });
        }
        rest = after;
    }
    Ok(Arrived { span, chunks, bytes: Some(Bytes::from(sent)) })
}
