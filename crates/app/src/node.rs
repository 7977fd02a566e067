//! `ballast node`: a host that keeps a hub's files near those who read them.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use ballast_gateway::FileKeeper;
use ballast_node::hub::Hub;
use ballast_store::env::SharedEnv;
use ballast_sync::cluster::{self, Discovery, Door, Member, Services};
use ballast_sync::mirror::pull::Mirror;
use ballast_sync::mirror::upstream::{Settings, Token, Upstream};
use ballast_sync::swarm::node::{NodeCache, NodeSettings};

use crate::args::NodeRunArgs;
use crate::config::{Config, Discover};
use crate::keeping::Keeping;
use crate::output::Output;
use crate::{serve, wire};

/// Where peers reach a node that was told nothing else.
const PEERS: &str = "0.0.0.0:8081";
/// Where in the data folder its files are.
const CACHE: &str = "cache";

/// What only the start of a node needs.
#[derive(Debug)]
pub(crate) struct NodeStart {
    token: Option<String>,
}

/// Runs a node until it is told to stop.
pub(crate) fn run(args: &NodeRunArgs, output: &mut Output) -> Result<()> {
    let mut config = Config::load(&args.config)?;
    if let Some(hub) = &args.join {
        config.node.hub.clone_from(hub);
    }
    if let Some(cache) = args.cache {
        config.node.cache = cache;
    }
    match &args.peers {
        Some(peers) => config.cluster.listen.clone_from(peers),
        None if config.cluster.listen.is_empty() => PEERS.clone_into(&mut config.cluster.listen),
        None => {}
    }
    config.node.hub()?;
    config.cluster.listen()?;
    let start = NodeStart { token: args.token.clone() };
    serve::start(&config, Some(&start), output)
}

/// Makes a hub that was just opened a node; who keeps files for it.
pub(crate) async fn begin(
    hub: &Arc<Hub>,
    config: &Config,
    start: &NodeStart,
    door: Option<Door>,
) -> Result<Arc<dyn FileKeeper>> {
    let door = door.context("a node needs an address for its peers\nhint: `cluster.listen`")?;
    let member = Arc::new(join(config, start, hub.env()).await?);
    let (identity, address) = (Arc::clone(member.identity()), door.address());
    let (upload, _) = config.cluster.caps()?;
    let cache = NodeSettings {
        folder: config.data.join(CACHE),
        cap_bytes: config.node.cache.as_u64(),
        address,
        site: config.cluster.site.clone(),
        rack: config.node.rack.clone(),
        upload: upload.unwrap_or(0),
    };
    let cache = NodeCache::open(hub, &member, cache).await.context("opening the cache")?;
    let (services, source) = (Services::new(), cache.source());
    let carriers = wire::open(hub, door, &identity, services, source, &config.cluster)?;
    let pulling = config.upstream.pulling(&config.data)?;
    let mirror = Mirror::new(upstream(config, &member, hub.env())?, pulling);
    let (cluster, name, port) = (identity.cluster(), identity.name(), address.port());
    let around = match config.cluster.discover {
        Discover::Never => Discovery::default(),
        Discover::Nodes | Discover::Always => {
            Discovery::start(cluster, name, port, (hub.env(), hub.runner()))?
        }
    };
    let origin = cache.start(hub, mirror, carriers, Arc::new(around));
    let origin = origin.context("starting the node")?;
    member.stay(hub.runner(), address.to_string())?;
    tracing::info!(node = %identity.name(), peers = %address, "it is a node of its hub");
    Ok(Arc::new(Keeping(origin)))
}

/// Who this node is: who it was, or who its token makes it.
async fn join(config: &Config, start: &NodeStart, env: &SharedEnv) -> Result<Member> {
    if let Some(token) = &start.token {
        let joined = cluster::join(None, token, &config.data, env).await;
        return joined.context("joining the hub");
    }
    let known = cluster::open(&config.data, env).await.context("reading the node's identity")?;
    known.context(
        "this node has not joined a hub\n\
         hint: `ballast node join-token NAME` at the hub, then `--token` with what that prints",
    )
}

/// The hub's HTTP API, as whoever it lets this node be.
fn upstream(config: &Config, member: &Member, env: &SharedEnv) -> Result<Upstream> {
    let hub = config.node.hub()?;
    let mut settings = Settings::of(hub);
    settings.token = Some(Token::new(&member.token()).context("the node's token")?);
    // Large files come by the swarm.
    settings.xet = false;
    Upstream::new(&settings, SharedEnv::clone(env))
        .with_context(|| format!("`node.hub` is `{hub}`"))
}
