//! Regions in one simulated world, each with a store of its own, and a wire between them that
//! counts, delays, and is cut.

mod grpc;
mod scenes;
mod sim;
mod through;
mod wire;

use std::cell::RefCell;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use ballast_format::hash::{ObjectHash, Sha256};
use ballast_format::id::RepoId;
use ballast_format::log::{Replication, Visibility};
use ballast_format::name::{FilePath, RegionName, RepoKind, RepoName};
use ballast_node::access::{Access, Caller, Repo};
use ballast_node::download::{ByteStream, TreeItem};
use ballast_node::gc::GcSettings;
use ballast_node::hub::{Freshness, Hub, HubSettings};
use ballast_node::origin::Origin;
use ballast_node::region::Entries;
use ballast_node::repo::NewRepo;
use ballast_node::state::homing::Away;
use ballast_node::upload::commit::{CommitHeader, Committed};
use ballast_node::{Error, Result};
use ballast_store::index::IndexHandle;
use ballast_store::index::memory::Memory;
use ballast_store::index::open::Opened;
use ballast_store::layer::retry::Retry;
use ballast_store::objects::Store;
use ballast_testkit::sim::{Habits, Process, World};
use bytes::Bytes;
use futures_util::{TryStreamExt as _, stream};
use sha2::Digest as _;

use self::wire::{Over, Wire};
use super::{Follower, Through};

/// A process of a region, with what it does for replication.
#[derive(Clone)]
struct Node {
    process: Arc<Process>,
    hub: Arc<Hub>,
    follower: Arc<Follower>,
    /// As long as somebody holds it, what has not arrived is read through.
    _through: Arc<dyn Origin>,
}

/// A region.
struct Region {
    name: RegionName,
    admin: Caller,
    nodes: RefCell<Vec<Node>>,
}

fn region_name(text: &str) -> RegionName {
    RegionName::parse(text).expect("a name")
}

fn away(name: &str) -> Away {
    Away { region: region_name(name), address: format!("https://{name}.example") }
}

/// Opens a hub of a region, with a new index; it does nothing by itself.
async fn open(process: &Arc<Process>, region: &str, gc: GcSettings) -> Result<Arc<Hub>> {
    let env = process.env();
    let retried = Retry::new(process.objects_of(region), Arc::clone(&env));
    let store = Store::new(Arc::new(retried), Arc::clone(&env));
    let settings = HubSettings {
        region: Some(away(region)),
        freshness: Freshness::Within(Duration::ZERO),
        pool_threads: 0,
        gc: GcSettings { interval: None, ..gc },
        ..HubSettings::default()
    };
    let index = IndexHandle::without_threads(Memory::new());
    let opened = Opened::Rebuild { reason: "it is new".to_owned() };
    let hub = Hub::open(store, index, &opened, env, settings).await?;
    hub.runner().stop(hub.env().as_ref(), Duration::ZERO).await;
    Ok(hub)
}

impl Node {
    /// A process of `here` that follows the region at the other end of the wire.
    async fn begin(
        world: &Arc<World>,
        here: &str,
        (wire, gc): (&Arc<Wire>, GcSettings),
        habits: Habits,
    ) -> Result<Self> {
        let process = world.process(habits);
        let hub = open(&process, here, gc).await?;
        Ok(Self::over(process, hub, wire))
    }

    fn over(process: Arc<Process>, hub: Arc<Hub>, wire: &Arc<Wire>) -> Self {
        let (home, links) = (Arc::clone(wire) as _, Arc::new(Over(Arc::clone(wire))));
        let follower = Arc::new(Follower::new(Arc::clone(&hub), home, links));
        let through = Through::default();
        through.add(region_name("other"), Arc::clone(&follower));
        let through: Arc<dyn Origin> = Arc::new(through);
        hub.set_homes(&through);
        Self { process, hub, follower, _through: through }
    }
}

impl Region {
    /// A new region with one process.
    async fn begin(
        world: &Arc<World>,
        name: &str,
        wire: &Arc<Wire>,
        gc: GcSettings,
    ) -> Result<Self> {
        let node = Node::begin(world, name, (wire, gc), Habits::default()).await?;
        let first = node.hub.bootstrap().await?.expect("there was no user");
        let admin = node.hub.authenticate(&first.token)?;
        Ok(Self { name: region_name(name), admin, nodes: RefCell::new(vec![node]) })
    }

    fn node(&self, place: usize) -> Node {
        self.nodes.borrow()[place].clone()
    }

    fn hub(&self) -> Arc<Hub> {
        self.node(0).hub
    }

    /// Lets everything that fits go to another region.
    async fn replicate(&self, pattern: &str, to: &str) -> Result<()> {
        let name = region_name("all");
        let rules = replication(pattern, to);
        self.hub().set_replication(&self.admin, &name, &rules, false).await
    }

    async fn repo(&self, name: &str) -> Result<Repo> {
        let new = NewRepo {
            kind: RepoKind::Model,
            name: RepoName::parse(name)?,
            visibility: Some(Visibility::Public),
            sdk: None,
        };
        self.hub().create_repo(&self.admin, &new).await
    }
}

fn replication(pattern: &str, to: &str) -> Replication {
    Replication {
        patterns: vec![pattern.to_owned()],
        to: region_name(to),
        residency: Vec::new(),
        limit: None,
        window: None,
        is_paused: false,
    }
}

fn path(text: &str) -> FilePath {
    FilePath::parse(text).expect("a path")
}

fn body(content: &[u8]) -> ByteStream {
    let pieces: Vec<_> =
        content.chunks(100_000).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
    Box::pin(stream::iter(pieces))
}

/// A file to commit.
enum File {
    Small(Vec<u8>),
    Large(Vec<u8>),
}

/// Commits files to `main`, as somebody who comes to this hub.
async fn commit(
    hub: &Arc<Hub>,
    caller: &Caller,
    id: RepoId,
    summary: &str,
    files: &[(String, File)],
) -> Result<Committed> {
    hub.freshen().await?;
    let repo = hub.repo_by_id(caller, id, Access::Write)?;
    for (_, file) in files {
        if let File::Large(content) = file {
            let (sha256, size) = (sha256(content), content.len() as u64);
            hub.put_file(caller, &repo, sha256, size, body(content)).await?;
        }
    }
    let header = CommitHeader {
        summary: summary.to_owned(),
        revision: "main".to_owned(),
        ..CommitHeader::default()
    };
    let mut draft = hub.begin_commit(caller, repo, header).await?;
    for (place, file) in files {
        match file {
            File::Small(content) => draft.add_file(path(place), content.clone().into()).await?,
            File::Large(content) => {
                let size = Some(content.len() as u64);
                draft.add_large(path(place), sha256(content), size).await?;
            }
        }
    }
    draft.finish().await
}

fn sha256(content: &[u8]) -> Sha256 {
    Sha256::from_bytes(sha2::Sha256::digest(content).into())
}

/// All entries of a repo's log, as they are stored.
async fn log(hub: &Hub, id: RepoId) -> Result<Entries> {
    let mut all: Entries = Vec::new();
    loop {
        let last = all.last().map_or(0, |(number, _)| *number);
        let page = hub.entries_behind(id, last).await?;
        if page.is_empty() {
            return Ok(all);
        }
        all.extend(page);
    }
}

/// The files of `main` with what is in them; each byte is read.
async fn files(hub: &Arc<Hub>, caller: &Caller, id: RepoId) -> Result<Vec<(String, Vec<u8>)>> {
    hub.freshen().await?;
    let repo = hub.repo_by_id(caller, id, Access::Read)?;
    let Some(main) = hub.repo_state(&repo).await?.main() else { return Ok(Vec::new()) };
    files_at(hub, &repo, main).await
}

/// The same of a commit, which may not have arrived here.
async fn files_of(
    hub: &Arc<Hub>,
    caller: &Caller,
    id: RepoId,
    commit: ObjectHash,
) -> Result<Vec<(String, Vec<u8>)>> {
    hub.freshen().await?;
    let repo = hub.repo_by_id(caller, id, Access::Read)?;
    hub.resolve(&repo, &commit.to_string()).await?;
    files_at(hub, &repo, commit).await
}

async fn files_at(
    hub: &Arc<Hub>,
    repo: &Repo,
    commit: ObjectHash,
) -> Result<Vec<(String, Vec<u8>)>> {
    let mut found = Vec::new();
    for item in hub.siblings(repo, commit).await? {
        found.push((item.path.clone(), bytes(hub, repo, &item, 0..item.size).await?));
    }
    Ok(found)
}

/// These bytes of a file.
async fn bytes(hub: &Arc<Hub>, repo: &Repo, item: &TreeItem, range: Range<u64>) -> Result<Vec<u8>> {
    let pieces = hub.open_item(repo, item, range).await?;
    let read = pieces.try_fold(Vec::new(), |mut all, piece| async move {
        all.extend_from_slice(&piece);
        Ok(all)
    });
    read.await
}

/// Follows until nothing comes any more.
async fn settle(follower: &Follower) -> Result<()> {
    for _ in 0..100 {
        let pass = follower.pass().await?;
        if pass.moved == 0 {
            let problems: Vec<_> = follower.status().repos.into_values().collect();
            assert_eq!(pass.failed, 0, "{problems:?}");
            return Ok(());
        }
    }
    Err(Error::internal("it never comes to an end"))
}
