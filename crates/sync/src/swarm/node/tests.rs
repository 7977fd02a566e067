use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use ballast_format::hash::ObjectHash;
use ballast_format::log::{Gating, Visibility};
use ballast_node::hub::HubSettings;
use ballast_node::repo::NewMirror;
use ballast_proto::v1::Presence;
use ballast_store::index::IndexHandle;
use ballast_store::index::memory::Memory;
use ballast_store::index::open::Opened;
use ballast_store::objects::Store;
use bytes::Bytes;
use futures_util::TryStreamExt as _;
use object_store::memory::InMemory;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tonic::transport::Endpoint;

use super::*;
use crate::cluster::{Hint, Hints};
use crate::mirror::pull::PullSettings;
use crate::mirror::upstream::{Settings, Upstream};
use crate::swarm::cache::Begun;
use crate::swarm::exchange::{Seat, Terms, Told};
use crate::swarm::sample::Sample;
use crate::swarm::world::{HUB, Manners, PIECE, STRIPES, World, pass, plan, who};

/// Peers that are found without the hub, when they are looked for.
struct Around {
    peers: Vec<Hint>,
    is_looked_for: AtomicBool,
}

impl Hints for Around {
    fn hints(&self) -> Vec<Hint> {
        match self.is_looked_for.load(Ordering::Relaxed) {
            true => self.peers.clone(),
            false => Vec::new(),
        }
    }

    fn look(&self) {
        self.is_looked_for.store(true, Ordering::Relaxed);
    }
}

const UPSTREAM: &str = "http://127.0.0.1:1";
const SIZE: u64 = 400_000;

/// A hub that knows one file.
struct OneFile {
    sample: Sample,
    /// How often it has still to fetch the file itself.
    elsewhere: AtomicU32,
    described: AtomicU32,
    told: watch::Sender<Told>,
}

#[async_trait]
impl HubSide for OneFile {
    async fn describe(&self, _: &Repo, _: &Wanted) -> Result<Answer> {
        self.described.fetch_add(1, Ordering::Relaxed);
        let is_elsewhere = |left: u32| left.checked_sub(1);
        if self.elsewhere.fetch_update(Ordering::Relaxed, Ordering::Relaxed, is_elsewhere).is_ok() {
            return Ok(Answer::Elsewhere);
        }
        Ok(Answer::Here(Box::new(described(&self.sample))))
    }

    fn sit(&self, described: &Described) -> Seat {
        // Nobody hears what is said.
        let (say, _) = mpsc::channel(1);
        Seat { sha256: described.about.head.sha256, told: self.told.subscribe(), say }
    }
}

fn described(sample: &Sample) -> Described {
    let terms = Terms { pass: pass(sample), piece_bytes: PIECE, stripes: STRIPES };
    Described { about: sample.about.clone(), terms, ticket: Bytes::from_static(b"ticket") }
}

struct Rig {
    world: Arc<World>,
    hub: Arc<Hub>,
    repo: Repo,
    wanted: Wanted,
    asked: Arc<OneFile>,
    origin: Arc<NodeOrigin>,
    _folder: tempfile::TempDir,
}

async fn rig(sample: &Sample, cap_bytes: u64) -> Rig {
    let world = World::new(&[sample]);
    let node = world.node_with("a", cap_bytes).await;
    let env = Arc::clone(&world.env) as ballast_store::env::SharedEnv;
    let store = Store::new(Arc::new(InMemory::new()), Arc::clone(&env));
    let index = IndexHandle::over(Memory::new()).expect("an index");
    let settings = HubSettings { pool_threads: 1, ..HubSettings::default() };
    let hub = Hub::open(store, index, &Opened::Clean, Arc::clone(&env), settings).await;
    let hub = hub.expect("a hub");
    let new = NewMirror {
        kind: RepoKind::Model,
        name: RepoName::parse("acme/model").expect("a name"),
        upstream: UPSTREAM.to_owned(),
        visibility: Visibility::Public,
        gating: Gating::None,
        sdk: None,
    };
    let repo = hub.create_mirror(&new).await.expect("a mirror");
    let upstream = Upstream::new(&Settings::of(UPSTREAM), env).expect("an upstream");
    let settings = PullSettings::in_folder(node.folder.path().join("spools"));
    let mirror = Mirror::new(upstream, settings);
    let asked = Arc::new(OneFile {
        sample: sample.clone(),
        elsewhere: AtomicU32::new(0),
        described: AtomicU32::new(0),
        told: watch::Sender::new(plan(&[], HUB)),
    });
    let hub_side = Arc::clone(&asked) as Arc<dyn HubSide>;
    let origin = NodeOrigin::new(mirror, Arc::clone(&node.cache), node.means, hub_side);
    let wanted = Wanted {
        commit: ObjectHash::from_bytes([1; 20]),
        path: "model.safetensors".to_owned(),
        id: ObjectHash::from_bytes([2; 20]),
        pointer_size: 130,
        sha256: sample.sha256(),
        size: sample.about.head.size,
    };
    Rig { world, hub, repo, wanted, asked, origin, _folder: node.folder }
}

impl Rig {
    /// The same node, started again while nobody answers where its hub was: it finds these peers.
    fn without_hub(&self, peers: &[&str]) -> (Arc<GrpcHub>, Arc<NodeOrigin>) {
        let NodeOrigin { mirror, cache, means, .. } = &*self.origin;
        let Means { peers: links, ledger, env, hub } = means;
        let (links, ledger, env) = (Arc::clone(links), Arc::clone(ledger), Arc::clone(env));
        let nobody = Endpoint::from_static("http://127.0.0.1:1").connect_lazy();
        let hint = |name: &&str| {
            let who = who(name);
            Hint { name: who.name, addresses: vec![who.address] }
        };
        let peers = peers.iter().map(hint).collect();
        let around = Arc::new(Around { peers, is_looked_for: AtomicBool::new(false) });
        let (presence, cached) = (Presence::default(), Arc::clone(cache));
        let counted = Arc::clone(&ledger);
        let grpc = GrpcHub::new(nobody, Arc::clone(&env), presence, cached, counted, around);
        let means = Means { peers: links, ledger, env, hub: hub.clone() };
        let hub_side = Arc::clone(&grpc) as Arc<dyn HubSide>;
        let origin = NodeOrigin::new(Arc::clone(mirror), Arc::clone(cache), means, hub_side);
        (grpc, origin)
    }

    /// Has the file brought, while the node calls a hub that is not there.
    async fn bring_without_hub(&self, grpc: &GrpcHub, origin: &NodeOrigin) -> Result<()> {
        let brought = origin.bring_file(&self.hub, &self.repo, &self.wanted, &|_| {});
        let both = async {
            tokio::select! {
                brought = brought => brought,
                () = grpc.attend(CancellationToken::new()) => panic!("nobody stopped it"),
            }
        };
        self.world.drive(both).await
    }

    async fn read(&self, range: Range<u64>) -> Result<Vec<u8>> {
        let read = self.origin.open(&self.hub, &self.repo, &self.wanted, range).await?;
        Ok(read.try_collect::<Vec<_>>().await?.concat())
    }
}

fn sample() -> Sample {
    Sample::new(1, 400, 90)
}

#[tokio::test]
async fn many_clients_make_one_fetch_and_then_there_is_a_copy() -> Result<()> {
    let sample = sample();
    let rig = rig(&sample, 1 << 20).await;
    let reading = (0..20).map(|_| rig.read(0..SIZE));
    let read = rig.world.drive(future::try_join_all(reading)).await?;
    assert!(read.iter().all(|read| *read == sample.content));
    assert_eq!(rig.world.hub.sent(), SIZE);
    rig.world.drive(rig.origin.bring_file(&rig.hub, &rig.repo, &rig.wanted, &|_| {})).await?;
    // The hub is not needed any more.
    Manners::set(&rig.world.hub.is_dead);
    assert_eq!(rig.read(1234..56_789).await?, sample.content[1234..56_789]);
    assert_eq!(rig.asked.described.load(Ordering::Relaxed), 1);
    Ok(())
}

#[tokio::test]
async fn fetching_goes_on_when_the_client_leaves() -> Result<()> {
    let sample = sample();
    let rig = rig(&sample, 1 << 20).await;
    let opened = rig.origin.open(&rig.hub, &rig.repo, &rig.wanted, 0..1000);
    drop(rig.world.drive(opened).await?);
    let whole = async {
        while !rig.origin.cache().is_whole(&sample.sha256()) {
            tokio::task::yield_now().await;
        }
    };
    rig.world.drive(whole).await;
    assert_eq!(rig.world.hub.sent(), SIZE);
    Ok(())
}

#[tokio::test]
async fn a_file_larger_than_the_cache_passes_through() -> Result<()> {
    let sample = sample();
    let rig = rig(&sample, SIZE - 1).await;
    for range in [0..SIZE, 1500..2500, SIZE - 1..SIZE, 5..5] {
        let place = usize::try_from(range.start).expect("small");
        let length = usize::try_from(range.end).expect("small");
        let read = rig.world.drive(rig.read(range)).await?;
        assert!(read == sample.content[place..length]);
    }
    assert_eq!(rig.origin.cache().fill().files, 0);
    Manners::set(&rig.world.hub.lies);
    let read = rig.world.drive(rig.read(0..SIZE)).await;
    assert!(matches!(read, Err(Error::Upstream { .. })));
    Ok(())
}

#[tokio::test]
async fn a_hub_that_has_to_fetch_the_file_itself_is_waited_for() -> Result<()> {
    let sample = sample();
    let rig = rig(&sample, 1 << 20).await;
    rig.asked.elsewhere.store(3, Ordering::Relaxed);
    rig.world.drive(rig.origin.bring_file(&rig.hub, &rig.repo, &rig.wanted, &|_| {})).await?;
    assert_eq!(rig.asked.described.load(Ordering::Relaxed), 4);
    assert_eq!(rig.read(0..SIZE).await?, sample.content);
    Ok(())
}

#[tokio::test]
async fn a_description_of_another_file_is_refused() {
    let sample = sample();
    let mut rig = rig(&sample, 1 << 20).await;
    rig.wanted.sha256 = Sha256::from_bytes([9; 32]);
    let read = rig.world.drive(rig.read(0..SIZE)).await;
    assert!(matches!(read, Err(Error::Corrupt { .. })));
    assert_eq!(rig.origin.cache().fill().files, 0);
    // It is not asked for again at once.
    assert!(rig.read(0..SIZE).await.is_err());
    assert_eq!(rig.asked.described.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_hub_that_comes_back_is_asked_for_the_rest() -> Result<()> {
    let sample = sample();
    let rig = rig(&sample, 1 << 20).await;
    rig.world.hub.dies_after.store(SIZE / 2, Ordering::Relaxed);
    let back = async {
        while !rig.world.hub.is_dead.load(Ordering::Relaxed) {
            tokio::task::yield_now().await;
        }
        rig.world.hub.dies_after.store(0, Ordering::Relaxed);
        rig.world.hub.is_dead.store(false, Ordering::Relaxed);
        Ok(())
    };
    let brought = rig.origin.bring_file(&rig.hub, &rig.repo, &rig.wanted, &|_| {});
    rig.world.drive(future::try_join(brought, back)).await?;
    assert_eq!(rig.read(0..SIZE).await?, sample.content);
    assert!(rig.world.hub.sent() < SIZE + 2 * PIECE, "{}", rig.world.hub.sent());
    Ok(())
}

#[tokio::test]
async fn a_node_that_starts_while_its_hub_is_dead_finishes_from_whom_it_finds() -> Result<()> {
    let sample = sample();
    let rig = rig(&sample, 1 << 20).await;
    Manners::set(&rig.world.hub.is_dead);
    let [first, second] = [rig.world.node("b").await, rig.world.node("c").await];
    // Each has half of it, and this one has the beginning and what the hub said of it.
    let (_b, _c) = (first.has(&sample, &[0..200]).await, second.has(&sample, &[200..400]).await);
    let Begun::Filling(filling) = rig.origin.cache().begin(sample.about.clone()).await? else {
        panic!("it is new");
    };
    filling.write(0..50, sample.bytes(0..50)).await?;
    filling.keep_pass(described(&sample).kept_pass()).await;
    filling.rest(None).await?;
    let (grpc, origin) = rig.without_hub(&["b", "d", "c"]);
    rig.bring_without_hub(&grpc, &origin).await?;
    assert!(origin.cache().is_whole(&sample.sha256()));
    assert_eq!(rig.read(0..SIZE).await?, sample.content);
    let sent = [&first, &second].map(|node| node.manners.sent());
    assert!(sent[0] >= 150_000 && sent[1] >= 200_000, "{sent:?}");
    Ok(())
}

#[tokio::test]
async fn without_the_hubs_word_a_node_asks_no_peer() -> Result<()> {
    let sample = sample();
    let rig = rig(&sample, 1 << 20).await;
    Manners::set(&rig.world.hub.is_dead);
    let other = rig.world.node("b").await;
    let _all = other.has(&sample, &[0..400]).await;
    let (grpc, origin) = rig.without_hub(&["b"]);
    let brought = rig.bring_without_hub(&grpc, &origin).await;
    assert!(matches!(brought, Err(Error::Upstream { .. })), "{brought:?}");
    assert_eq!(other.manners.sent(), 0);
    Ok(())
}
