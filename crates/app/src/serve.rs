//! `ballast serve`: builds the components from the settings, top to bottom, and runs them.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use ballast_gateway::serve as gateway;
use ballast_gateway::{Gateway, GatewaySettings, MirrorRunner};
use ballast_node::hub::{FirstAdmin, Freshness, Hub, HubSettings};
use ballast_store::backend::{self, Location};
use ballast_store::env::{RealEnv, SharedEnv, nonce};
use ballast_store::index::{IndexHandle, open as index};
use ballast_store::local::FolderLock;
use ballast_store::objects::Store;
use ballast_store::probe::probe;
use ballast_sync::mirror::jobs::{JobWorker, Jobs, SweepJobs};
use ballast_sync::mirror::pull::Mirror;
use ballast_sync::replicate::Told;
use rustix::process::{Resource, Rlimit, geteuid, getrlimit, setrlimit};
use tokio::net::TcpListener;

use crate::args::ServeArgs;
use crate::cluster;
use crate::config::Config;
use crate::importer::Importer;
use crate::mirroring::Mirroring;
use crate::node::{self, NodeStart};
use crate::output::Output;
use crate::regions;
use crate::reload::Reload;
use crate::shutdown::Shutdown;
use crate::stores;
use crate::telemetry;

/// Files that are open beside connections: the index, objects, connections to a store.
const FILES_BESIDE: usize = 256;

/// How long a stop waits for parts of uploads that were cut to be removed.
const CLEANING_TAKES: Duration = Duration::from_secs(5);

/// Runs the hub until it is told to stop.
pub(crate) fn run(args: &ServeArgs, output: &mut Output) -> Result<()> {
    start(&Config::load(&args.config)?, None, output)
}

/// Runs a hub, or a node of one, until it is told to stop.
pub(crate) fn start(config: &Config, node: Option<&NodeStart>, output: &mut Output) -> Result<()> {
    telemetry::start(&config.log)?;
    if geteuid().is_root() {
        tracing::info!("it runs as root; a user of its own is enough: see deploy/ballast.service");
    }
    raise_file_limit(config);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .thread_name("ballast")
        .enable_all()
        .build()
        .context("starting the runtime")?;
    runtime.block_on(serve(config, node, output))
}

/// Asks the system for as many open files as it gives: the usual 1,024 are fewer than the
/// connections that may be there at once.
fn raise_file_limit(config: &Config) {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, ..limit };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::debug!(%error, "the limit of open files stays as it is");
    }
    let wanted = config.limits.connections.saturating_add(FILES_BESIDE) as u64;
    if let Some(most) = getrlimit(Resource::Nofile).current.filter(|most| *most < wanted) {
        let connections = config.limits.connections;
        tracing::info!(
            most,
            connections,
            "fewer files may be open than `limits.connections` needs"
        );
    }
}

async fn serve(config: &Config, node: Option<&NodeStart>, output: &mut Output) -> Result<()> {
    let shutdown = Shutdown::listen()?;
    let reload = Reload::open(&config.tls).await?;
    let env = RealEnv::shared();
    let location = config.storage.location(&config.data)?;
    let (store, locks) = open_store(config, &location, &env)?;
    let store = try_store(store, config).await?;
    // Bound before anything slow, so that an address in use is told at once.
    let listener = TcpListener::bind(config.listen)
        .await
        .with_context(|| format!("cannot listen on `{}`", config.listen))?;
    let door = cluster::bind(&config.cluster).await?;
    let hub = open_hub(config, node, &location, store.clone(), Arc::clone(&env)).await?;
    let mut settings = gateway_settings(config, &reload);
    if let Some(start) = node {
        settings.keeper = Some(node::begin(&hub, config, start, door).await?);
        tell_ready(output, config, &listener, None)?;
    } else {
        let mirror = connect_upstream(&hub, config, &env).await?;
        announce(output, &hub, config, &listener).await?;
        settings.mirrors = mirror.map(|mirror| run_jobs(&hub, mirror));
        let told = Told::default();
        let open = |door| cluster::open(&hub, door, config, &told);
        settings.nodes = door.map(open).transpose()?;
        settings.regions = regions::open(&hub, config, &told).await?;
    }
    let gateway = Gateway::new(Arc::clone(&hub), settings);
    let served = tokio::select! {
        served = gateway::serve(gateway, listener, shutdown.requested()) => served,
        never = reload.keep(env) => match never {},
    };
    close(&hub, &store).await?;
    drop(locks);
    tracing::info!("stopped");
    Ok(served?)
}

async fn close(hub: &Hub, store: &Store) -> Result<()> {
    hub.close().await.context("closing the hub")?;
    if tokio::time::timeout(CLEANING_TAKES, store.finish_cleanups()).await.is_err() {
        tracing::info!("parts of uploads that were cut stay in the store");
    }
    Ok(())
}

/// A hub that a command has for itself: opened as it is for serving, and nobody is served.
pub(crate) struct Alone {
    pub(crate) hub: Arc<Hub>,
    store: Store,
    _locks: Vec<FolderLock>,
}

impl Alone {
    /// Opens it; an error says who has it if somebody does.
    pub(crate) async fn open(config: &Config) -> Result<Self> {
        let env = RealEnv::shared();
        let location = config.storage.location(&config.data)?;
        if location == Location::Memory {
            bail!("a hub in memory is gone when this command ends\nhint: set `storage.url`");
        }
        let (store, locks) = open_store(config, &location, &env)?;
        let store = try_store(store, config).await?;
        let hub = open_hub(config, None, &location, store.clone(), env).await?;
        Ok(Self { hub, store, _locks: locks })
    }

    /// Closes it, with everything on the disk.
    pub(crate) async fn close(self) -> Result<()> {
        close(&self.hub, &self.store).await
    }
}

/// The store, and the locks of the folders that are used.
pub(crate) fn open_store(
    config: &Config,
    location: &Location,
    env: &SharedEnv,
) -> Result<(Store, Vec<FolderLock>)> {
    let keep_free = config.storage.keep_free.as_u64();
    let mut locks = Vec::new();
    // The index is in the data folder wherever the objects are, and is not shared.
    if *location != Location::Folder(config.data.clone()) {
        locks.push(FolderLock::take(&config.data)?);
    }
    let backend = backend::open(location, &config.storage.access()?, keep_free)?;
    let store = stores::layered(&backend, env);
    locks.extend(backend.lock);
    Ok((store, locks))
}

/// Asks the store whether it keeps its promises (Invariant 10). One that does not is read from.
async fn try_store(store: Store, config: &Config) -> Result<Store> {
    let place = match config.storage.url.as_str() {
        "" => config.data.display().to_string(),
        url => url.to_owned(),
    };
    let promises = probe(&store)
        .await
        .with_context(|| format!("trying what the store at `{place}` can do"))?;
    if promises.all_kept() {
        return Ok(store);
    }
    let broken = promises.broken().join(", ");
    tracing::error!(place, broken, "the store breaks a promise; nothing is written to it");
    Ok(store.read_only(&broken))
}

/// Opens the index of this store; one that was made from another is not believed.
pub(crate) fn open_index(
    config: &Config,
    location: &Location,
    env: &SharedEnv,
) -> Result<(IndexHandle, index::Opened)> {
    let made_from = match location {
        // What was in memory is gone, and an index of it is of no use.
        Location::Memory => format!("memory {:016x}", nonce(env.as_ref())),
        _ => format!("{} {}", config.storage.url, config.storage.endpoint),
    };
    Ok(index::open_for(&config.data.join("index"), made_from.trim())?)
}

async fn open_hub(
    config: &Config,
    node: Option<&NodeStart>,
    location: &Location,
    store: Store,
    env: SharedEnv,
) -> Result<Arc<Hub>> {
    let (index, opened) = open_index(config, location, &env)?;
    let defaults = HubSettings::default();
    let threads = match config.limits.threads {
        0 => defaults.pool_threads,
        threads => threads,
    };
    let freshness = match location.is_shared() {
        true => Freshness::Within(config.storage.freshness()?),
        // The folder's lock makes this the only process that writes here.
        false => Freshness::Exclusive,
    };
    let settings = HubSettings {
        region: config.region.settings(&config.public_url)?,
        anonymous_reading: config.access.anonymous_reading,
        freshness,
        cache_bytes: config.limits.cache.as_u64(),
        upload_slots: config.limits.uploads,
        pool_threads: threads,
        gc: config.gc.settings()?,
        scrub: config.scrub.settings()?,
        policy: config.policy.policy()?,
        scan: config.policy.scan,
        audit_interval: defaults.audit_interval,
        shows_all: node.is_some(),
    };
    let hub = Hub::open(store, index, &opened, env, settings).await;
    hub.with_context(|| format!("opening the hub in `{}`", config.data.display()))
}

/// Lets the hub pull through from its upstream, if it has one.
async fn connect_upstream(
    hub: &Arc<Hub>,
    config: &Config,
    env: &SharedEnv,
) -> Result<Option<Arc<Mirror>>> {
    let (upstream, url) = (&config.upstream, &config.upstream.url);
    if !upstream.is_on() {
        return Ok(None);
    }
    if config.offline {
        tracing::info!(url, "offline: the upstream is not asked, and what is here is served");
        return Ok(None);
    }
    if hub.store().is_read_only() {
        tracing::warn!(url, "nothing can be brought from the upstream: the store is read only");
        return Ok(None);
    }
    let mirror = Mirror::new(upstream.open(env)?, upstream.pulling(&config.data)?);
    mirror.forget_old_spools(hub).await.context("looking at files on their way")?;
    hub.set_origin(Arc::<Mirror>::clone(&mirror));
    tracing::info!(url, "what is missing is brought from the upstream");
    Ok(Some(mirror))
}

/// Lets the hub bring what jobs name.
fn run_jobs(hub: &Arc<Hub>, mirror: Arc<Mirror>) -> Arc<dyn MirrorRunner> {
    let jobs = Jobs::new(mirror);
    hub.runner().start(hub, JobWorker::new(Arc::clone(&jobs), hub));
    hub.runner().start(hub, SweepJobs);
    Arc::new(Mirroring(jobs))
}

fn gateway_settings(config: &Config, reload: &Reload) -> GatewaySettings {
    let limits = &config.limits;
    GatewaySettings {
        public_url: Some(config.public_url.clone()).filter(|url| !url.is_empty()),
        trust_forwarded: config.trust_forwarded,
        tls: reload.tls(),
        redirect_downloads: config.storage.redirect_downloads,
        bundles: Some(Arc::new(Importer)),
        connections: limits.connections,
        connections_per_address: limits.connections_per_address,
        requests_per_second: limits.requests_per_second,
        requests_at_once: limits.requests_at_once,
        uploads_at_once: limits.uploads_at_once,
        downloads_at_once: limits.downloads_at_once,
        ..GatewaySettings::default()
    }
}

/// Says where the hub is and, on the first start, how to get in.
async fn announce(
    output: &mut Output,
    hub: &Hub,
    config: &Config,
    listener: &TcpListener,
) -> Result<()> {
    let first = hub.bootstrap().await.context("making the first administrator")?;
    if let Some(FirstAdmin { name, .. }) = &first {
        output
            .line(format!("created the administrator `{name}`; this token is not shown again"))?;
    }
    tell_ready(output, config, listener, first.map(|admin| admin.token))
}

/// Says where to point clients at.
fn tell_ready(
    output: &mut Output,
    config: &Config,
    listener: &TcpListener,
    token: Option<String>,
) -> Result<()> {
    let address = listener.local_addr().context("reading the address that was bound")?;
    let scheme = if config.tls.is_on() { "https" } else { "http" };
    let endpoint = match config.public_url.as_str() {
        "" => format!("{scheme}://{address}"),
        url => url.to_owned(),
    };
    output.line(format!("export HF_ENDPOINT={endpoint}"))?;
    if let Some(token) = token {
        output.line(format!("export HF_TOKEN={token}"))?;
    }
    output.line(format!("ready on {scheme}://{address}, data in {}", config.data.display()))
}
