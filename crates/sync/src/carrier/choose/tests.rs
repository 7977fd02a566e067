use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::Poll;

use async_trait::async_trait;
use ballast_format::hash::XorbHash;
use ballast_node::pool::Pool;
use ballast_node::worker::Runner;
use ballast_store::env::Env as _;
use ballast_testkit::clock::SimEnv;
use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::poll;

use super::*;
use crate::carrier::{Arrivals, Request};

/// A link that leads nowhere.
struct Fake {
    peer: PeerName,
    is_open: Arc<AtomicBool>,
    round_trip: Duration,
}

#[async_trait]
impl Link for Fake {
    fn peer(&self) -> &PeerName {
        &self.peer
    }

    async fn show(&self, _: Bytes) -> Result<()> {
        Ok(())
    }

    async fn request(&self, _: Request) -> Result<Arrivals> {
        Err(Error::Source("it leads nowhere".to_owned()))
    }

    async fn holdings(&self, _: &[XorbHash]) -> Result<Vec<Vec<Range<u32>>>> {
        Ok(Vec::new())
    }

    fn is_open(&self) -> bool {
        self.is_open.load(Ordering::Relaxed)
    }

    fn round_trip(&self) -> Duration {
        self.round_trip
    }
}

/// A carrier that takes its time, and gets through or does not.
struct Way {
    env: Arc<SimEnv>,
    name: &'static str,
    takes: Duration,
    is_blocked: AtomicBool,
    /// It does not even say that it is blocked.
    is_silent: AtomicBool,
    calls: AtomicUsize,
    is_open: Arc<AtomicBool>,
}

#[async_trait]
impl Carrier for Way {
    fn name(&self) -> &'static str {
        self.name
    }

    async fn connect(&self, _: SocketAddr, peer: &PeerName, _: Distance) -> Result<Arc<dyn Link>> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        if self.is_silent.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
        self.env.advance(self.takes);
        tokio::task::yield_now().await;
        if self.is_blocked.load(Ordering::Relaxed) {
            let (peer, reason) = (peer.to_string(), "a wall".to_owned());
            return Err(Error::Unreachable { peer, reason });
        }
        self.is_open.store(true, Ordering::Relaxed);
        let (peer, is_open) = (peer.clone(), Arc::clone(&self.is_open));
        Ok(Arc::new(Fake { peer, is_open, round_trip: self.takes }))
    }
}

struct World {
    env: Arc<SimEnv>,
    shared: Shared,
    tcp: Arc<Way>,
    quic: Arc<Way>,
}

impl World {
    fn new(takes: Duration) -> Self {
        let env = SimEnv::new(1);
        let shared_env: SharedEnv = Arc::<SimEnv>::clone(&env);
        let shared = Shared::new(shared_env, Pool::new(0), Runner::new(), None, None);
        let way = |name| {
            Arc::new(Way {
                env: Arc::clone(&env),
                name,
                takes,
                is_blocked: AtomicBool::new(false),
                is_silent: AtomicBool::new(false),
                calls: AtomicUsize::new(0),
                is_open: Arc::default(),
            })
        };
        let (tcp, quic) = (way("tcp"), way("quic"));
        Self { env, shared, tcp, quic }
    }

    fn carriers(&self, choice: Choice) -> Arc<Carriers> {
        let (tcp, quic) = (Arc::<Way>::clone(&self.tcp), Arc::<Way>::clone(&self.quic));
        Carriers::new(&self.shared, tcp, quic, choice)
    }

    /// How often each was tried since the last time.
    fn calls(&self) -> (usize, usize) {
        let take = |way: &Way| way.calls.swap(0, Ordering::Relaxed);
        (take(&self.tcp), take(&self.quic))
    }

    fn close(&self) {
        self.tcp.is_open.store(false, Ordering::Relaxed);
        self.quic.is_open.store(false, Ordering::Relaxed);
    }
}

fn peer() -> PeerName {
    PeerName::parse("somebody").expect("a name")
}

fn near() -> SocketAddr {
    ([10, 0, 0, 1], 8081).into()
}

fn far() -> SocketAddr {
    ([198, 18, 1, 1], 8081).into()
}

/// What leads to the peer now.
fn way(carriers: &Carriers) -> Option<Kind> {
    let peers = carriers.peers.lock().expect("no panic");
    let known = peers[&peer()].known.try_lock().expect("free");
    known.works.map(|(_, kind)| kind)
}

const MOMENT: Duration = Duration::from_millis(1);
const LONG: Duration = Duration::from_millis(200);

#[tokio::test]
async fn tcp_comes_first_and_a_link_is_kept() {
    let world = World::new(MOMENT);
    let carriers = world.carriers(Choice::Auto);
    let links =
        join_all((0..8).map(|_| async { carriers.connect(near(), &peer(), Distance::Near).await }))
            .await;
    assert!(links.iter().all(Result::is_ok));
    assert_eq!(world.calls(), (1, 0), "eight who want it at once share it");
    world.close();
    carriers.connect(near(), &peer(), Distance::Near).await.expect("connected anew");
    assert_eq!(world.calls(), (1, 0));
}

#[tokio::test]
async fn what_is_blocked_is_gone_around_and_what_worked_comes_first() {
    let world = World::new(MOMENT);
    let carriers = world.carriers(Choice::Auto);
    world.tcp.is_blocked.store(true, Ordering::Relaxed);
    for calls in [(1, 1), (0, 1), (0, 1)] {
        carriers.connect(near(), &peer(), Distance::Near).await.expect("connected");
        assert_eq!(world.calls(), calls);
        world.close();
    }
    world.quic.is_blocked.store(true, Ordering::Relaxed);
    assert!(carriers.connect(near(), &peer(), Distance::Near).await.is_err());
    assert_eq!(world.calls(), (1, 1));
    world.tcp.is_blocked.store(false, Ordering::Relaxed);
    carriers.connect(near(), &peer(), Distance::Near).await.expect("connected");
    assert_eq!(world.calls(), (1, 1));
    world.close();
    carriers.connect(near(), &peer(), Distance::Near).await.expect("connected");
    assert_eq!(world.calls(), (1, 0));
}

#[tokio::test]
async fn what_is_silently_blocked_is_gone_around_too() {
    let world = World::new(MOMENT);
    let carriers = world.carriers(Choice::Auto);
    world.tcp.is_silent.store(true, Ordering::Relaxed);
    let (address, peer) = (near(), peer());
    let mut link = carriers.connect(address, &peer, Distance::Near);
    assert!(poll!(&mut link).is_pending());
    world.env.advance(FIRST_TAKES);
    link.await.expect("connected");
    assert_eq!(world.calls(), (1, 1));
}

#[tokio::test]
async fn a_peer_of_the_cluster_is_near_however_long_it_takes() {
    for address in [near(), far()] {
        let world = World::new(LONG);
        let carriers = world.carriers(Choice::Auto);
        carriers.connect(address, &peer(), Distance::Near).await.expect("connected");
        assert_eq!((world.calls(), way(&carriers)), ((1, 0), Some(Kind::Tcp)));
    }
}

#[tokio::test]
async fn a_long_path_takes_quic_and_a_short_one_tcp() {
    for (takes, address, calls, kind) in [
        (LONG, far(), (1, 1), Kind::Quic),
        (MOMENT, far(), (1, 1), Kind::Tcp),
        (LONG, near(), (1, 1), Kind::Quic),
        (MOMENT, near(), (1, 0), Kind::Tcp),
    ] {
        let world = World::new(takes);
        let carriers = world.carriers(Choice::Auto);
        carriers.connect(address, &peer(), Distance::Unknown).await.expect("connected");
        assert_eq!((world.calls(), way(&carriers)), (calls, Some(kind)), "{takes:?} {address}");
        world.close();
        carriers.connect(address, &peer(), Distance::Unknown).await.expect("connected");
        let again = if kind == Kind::Tcp { (1, 0) } else { (0, 1) };
        assert_eq!(world.calls(), again, "what has worked comes first");
    }
}

#[tokio::test]
async fn where_one_is_blocked_the_other_leads_to_whoever_is_far() {
    for takes in [MOMENT, LONG] {
        for (is_silent, blocked) in
            [(false, Kind::Tcp), (false, Kind::Quic), (true, Kind::Tcp), (true, Kind::Quic)]
        {
            let world = World::new(takes);
            let way_of = |kind| if kind == Kind::Tcp { &world.tcp } else { &world.quic };
            let way_of: &Way = way_of(blocked);
            way_of.is_blocked.store(true, Ordering::Relaxed);
            way_of.is_silent.store(is_silent, Ordering::Relaxed);
            let (carriers, peer) = (world.carriers(Choice::Auto), peer());
            let mut link = pin!(carriers.connect(far(), &peer, Distance::Unknown));
            let (began, mut polls) = (world.env.monotonic(), 0);
            let link = loop {
                match poll!(&mut link) {
                    Poll::Ready(link) => break link,
                    Poll::Pending => polls += 1,
                }
                if polls > 3 {
                    world.env.advance(takes);
                }
            };
            link.expect("connected");
            assert_eq!(way(&carriers), Some(blocked.other()), "{takes:?} {is_silent}");
            let took = world.env.monotonic() - began;
            let most = if takes == MOMENT { FIRST_TAKES + LONG } else { 4 * LONG };
            assert!(took <= most, "{blocked:?} {takes:?} {is_silent}: {took:?}");
        }
    }
}

#[tokio::test]
async fn a_carrier_can_be_forced() {
    for (choice, calls) in [(Choice::Tcp, (1, 0)), (Choice::Quic, (0, 1))] {
        let world = World::new(MOMENT);
        let carriers = world.carriers(choice);
        carriers.connect(far(), &peer(), Distance::Unknown).await.expect("connected");
        assert_eq!(world.calls(), calls);
        world.tcp.is_blocked.store(true, Ordering::Relaxed);
        world.quic.is_blocked.store(true, Ordering::Relaxed);
        world.close();
        assert!(carriers.connect(far(), &peer(), Distance::Unknown).await.is_err());
        assert_eq!(world.calls(), calls, "there is no other");
    }
    assert_eq!("quic".parse(), Ok(Choice::Quic));
    assert!("udp".parse::<Choice>().is_err());
}

#[tokio::test]
async fn links_that_nobody_uses_are_closed() {
    let world = World::new(MOMENT);
    let carriers = world.carriers(Choice::Auto);
    let link = carriers.connect(near(), &peer(), Distance::Near).await.expect("connected");
    let is_kept = || {
        carriers.peers.lock().expect("no panic")[&peer()]
            .known
            .try_lock()
            .expect("free")
            .link
            .is_some()
    };
    world.env.advance(KEPT_FOR);
    carriers.look_through();
    assert!(is_kept(), "somebody holds it");
    drop(link);
    carriers.look_through();
    assert!(!is_kept());
    carriers.connect(near(), &peer(), Distance::Near).await.expect("connected");
    carriers.look_through();
    assert!(is_kept(), "it is new");
}
