use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use async_trait::async_trait;
use ballast_format::hash::XorbHash;
use ballast_node::pool::Pool;
use ballast_node::worker::Runner;
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

    async fn connect(&self, _: SocketAddr, peer: &PeerName) -> Result<Arc<dyn Link>> {
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
        Ok(Arc::new(Fake { peer, is_open }))
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

    fn carriers(&self, choice: Choice, tcp_bears_loss: bool) -> Arc<Carriers> {
        let (tcp, quic) = (Arc::<Way>::clone(&self.tcp), Arc::<Way>::clone(&self.quic));
        Carriers::with(&self.shared, tcp, quic, choice, tcp_bears_loss)
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

fn far() -> SocketAddr {
    ([198, 18, 1, 1], 8081).into()
}

const MOMENT: Duration = Duration::from_millis(1);
const LONG: Duration = Duration::from_millis(200);

#[tokio::test]
async fn tcp_comes_first_and_a_link_is_kept() {
    let world = World::new(MOMENT);
    let carriers = world.carriers(Choice::Auto, false);
    let links = join_all((0..8).map(|_| async { carriers.link(far(), &peer()).await })).await;
    assert!(links.iter().all(Result::is_ok));
    assert_eq!(world.calls(), (1, 0), "eight who want it at once share it");
    world.close();
    carriers.link(far(), &peer()).await.expect("connected anew");
    assert_eq!(world.calls(), (1, 0));
}

#[tokio::test]
async fn what_is_blocked_is_gone_around_and_what_worked_comes_first() {
    let world = World::new(MOMENT);
    let carriers = world.carriers(Choice::Auto, true);
    world.tcp.is_blocked.store(true, Ordering::Relaxed);
    for calls in [(1, 1), (0, 1), (0, 1)] {
        carriers.link(far(), &peer()).await.expect("connected");
        assert_eq!(world.calls(), calls);
        world.close();
    }
    world.quic.is_blocked.store(true, Ordering::Relaxed);
    assert!(carriers.link(far(), &peer()).await.is_err());
    assert_eq!(world.calls(), (1, 1));
    world.tcp.is_blocked.store(false, Ordering::Relaxed);
    carriers.link(far(), &peer()).await.expect("connected");
    assert_eq!(world.calls(), (1, 1));
    world.close();
    carriers.link(far(), &peer()).await.expect("connected");
    assert_eq!(world.calls(), (1, 0));
}

#[tokio::test]
async fn what_is_silently_blocked_is_gone_around_too() {
    let world = World::new(MOMENT);
    let carriers = world.carriers(Choice::Auto, true);
    world.tcp.is_silent.store(true, Ordering::Relaxed);
    let (address, peer) = (far(), peer());
    let mut link = carriers.connect(address, &peer);
    assert!(poll!(&mut link).is_pending());
    world.env.advance(FIRST_TAKES);
    link.await.expect("connected");
    assert_eq!(world.calls(), (1, 1));
}

#[tokio::test]
async fn a_long_path_takes_quic_where_tcp_would_not_bear_loss() {
    for (takes, bears_loss, address, calls) in [
        (LONG, false, far(), (1, 1)),
        (LONG, true, far(), (1, 0)),
        (MOMENT, false, far(), (1, 0)),
        (LONG, false, ([10, 0, 0, 1], 1).into(), (1, 0)),
    ] {
        let world = World::new(takes);
        let carriers = world.carriers(Choice::Auto, bears_loss);
        carriers.link(address, &peer()).await.expect("connected");
        assert_eq!(world.calls(), calls, "{takes:?} {bears_loss} {address}");
    }
    let world = World::new(LONG);
    world.quic.is_blocked.store(true, Ordering::Relaxed);
    let carriers = world.carriers(Choice::Auto, false);
    carriers.link(far(), &peer()).await.expect("by TCP, since UDP is blocked");
}

#[tokio::test]
async fn a_carrier_can_be_forced() {
    for (choice, calls) in [(Choice::Tcp, (1, 0)), (Choice::Quic, (0, 1))] {
        let world = World::new(MOMENT);
        let carriers = world.carriers(choice, true);
        carriers.link(far(), &peer()).await.expect("connected");
        assert_eq!(world.calls(), calls);
        world.tcp.is_blocked.store(true, Ordering::Relaxed);
        world.quic.is_blocked.store(true, Ordering::Relaxed);
        world.close();
        assert!(carriers.link(far(), &peer()).await.is_err());
        assert_eq!(world.calls(), calls, "there is no other");
    }
    assert_eq!("quic".parse(), Ok(Choice::Quic));
    assert!("udp".parse::<Choice>().is_err());
}

#[tokio::test]
async fn links_that_nobody_uses_are_closed() {
    let world = World::new(MOMENT);
    let carriers = world.carriers(Choice::Auto, true);
    let link = carriers.link(far(), &peer()).await.expect("connected");
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
    carriers.link(far(), &peer()).await.expect("connected");
    carriers.look_through();
    assert!(is_kept(), "it is new");
}
