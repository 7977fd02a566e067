//! Putting a node together: its cache, its way to peers, its seat at the tracker.
//!
//! It is done in two steps, since what answers peers is needed to open the way to them.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use ballast_node::error::{Error, Result};
use ballast_node::hub::Hub;
use ballast_node::worker::Worker;
use ballast_proto::v1::Presence;

use super::NodeOrigin;
use super::attend::GrpcHub;
use super::hub_side::HubSide;
use super::ways::Ways;
use crate::carrier::{Carrier, Source};
use crate::cluster::{Hints, Member, PeerName, PeerRole};
use crate::mirror::pull::Mirror;
use crate::swarm::cache::{Cache, CacheSettings, CacheSource};
use crate::swarm::exchange::{Means, Peers, Who};
use crate::swarm::ledger::Ledger;
use crate::swarm::members::signed_by;

/// How often a node lets go of what it keeps only in case somebody asks.
const LET_GO_EACH: Duration = Duration::from_secs(30);

/// What a node may be told.
#[derive(Clone, Debug)]
pub struct NodeSettings {
    /// The folder of its cache.
    pub folder: PathBuf,
    /// How many bytes that may have.
    pub cap_bytes: u64,
    /// Where peers reach it; an unspecified address stands for the one that the hub sees.
    pub address: SocketAddr,
    /// Where it stands.
    pub site: String,
    /// The same, more closely.
    pub rack: String,
    /// The most bytes that it sends in a second; 0: as many as it can.
    pub upload: u64,
}

/// A node's cache, opened; nobody can be reached yet.
pub struct NodeCache {
    cache: Arc<Cache>,
    ledger: Arc<Ledger>,
    member: Arc<Member>,
    settings: NodeSettings,
}

impl NodeCache {
    /// Opens the cache of the node that this member is.
    pub async fn open(hub: &Hub, member: &Arc<Member>, settings: NodeSettings) -> Result<Self> {
        let check = signed_by(member.identity().permits(), hub.env());
        let (folder, cap_bytes) = (settings.folder.clone(), settings.cap_bytes);
        let (pool, env) = (hub.pool().clone(), Arc::clone(hub.env()));
        let cache = CacheSettings { folder, cap_bytes };
        let cache = Cache::open(cache, pool, env, check).await?;
        let (ledger, member) = (Arc::default(), Arc::clone(member));
        Ok(Self { cache, ledger, member, settings })
    }

    /// What answers peers.
    pub fn source(&self) -> Arc<dyn Source> {
        Arc::new(CacheSource::new(Arc::clone(&self.cache), Arc::clone(&self.ledger)))
    }

    /// Makes the node the origin of its hub, and attends at the tracker as long as that runs.
    /// `mirror` has the node's own hub as its upstream, and `hints` knows peers without the hub.
    pub fn start(
        self,
        hub: &Arc<Hub>,
        mirror: Arc<Mirror>,
        carrier: Arc<dyn Carrier>,
        hints: Arc<dyn Hints>,
    ) -> Result<Arc<NodeOrigin>> {
        let Self { cache, ledger, member, settings } = self;
        let env = Arc::clone(hub.env());
        let ways = Ways::new(carrier, Arc::clone(&member) as _, Arc::clone(&hints));
        let peers = Peers::new(ways, Arc::clone(&env));
        let channel = member.channel().map_err(|error| Error::invalid(error.to_string()))?;
        let presence = Presence {
            address: settings.address.to_string(),
            site: settings.site,
            rack: settings.rack,
            upload: settings.upload,
        };
        let (cached, counted) = (Arc::clone(&cache), Arc::clone(&ledger));
        let grpc = GrpcHub::new(channel, Arc::clone(&env), presence, cached, counted, hints);
        let (attending, stopping) = (Arc::clone(&grpc), hub.runner().stopping());
        hub.runner().spawn("attend the tracker", async move { attending.attend(stopping).await });
        let tidy = LetGo { cache: Arc::clone(&cache), peers: Arc::clone(&peers) };
        hub.runner().start(hub, tidy);
        let means = Means { peers, ledger, env, hub: the_hub()? };
        let origin = NodeOrigin::new(mirror, cache, means, grpc as Arc<dyn HubSide>);
        hub.set_origin(Arc::<NodeOrigin>::clone(&origin));
        Ok(origin)
    }
}

/// The hub, of which neither name nor address need be known: it is found whenever it is connected.
fn the_hub() -> Result<Who> {
    let name = PeerName::new(PeerRole::Hub, "hub");
    let name = name.ok_or_else(|| Error::internal("a hub has no name"))?;
    let address = SocketAddr::from(([0, 0, 0, 0], 0));
    Ok(Who { name, address, is_hub: true, is_near: false })
}

/// Keeps an idle node small.
struct LetGo {
    cache: Arc<Cache>,
    peers: Arc<Peers>,
}

#[async_trait]
impl Worker for LetGo {
    fn name(&self) -> &'static str {
        "let go of what nobody uses"
    }

    fn pause(&self) -> Duration {
        LET_GO_EACH
    }

    async fn work(&self, _: &Hub) {
        self.cache.let_go();
        self.peers.let_go();
    }
}
