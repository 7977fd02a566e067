//! `ballast serve`: builds the components from the settings, top to bottom, and runs them.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use ballast_gateway::serve as gateway;
use ballast_gateway::{Gateway, GatewaySettings};
use ballast_node::hub::{FirstAdmin, Freshness, Hub, HubSettings};
use ballast_store::env::{RealEnv, SharedEnv};
use ballast_store::index::open as index;
use ballast_store::layer::limit::{Limit, Limits};
use ballast_store::layer::retry::Retry;
use ballast_store::layer::trace::Trace;
use ballast_store::local::{FolderLock, LocalStore};
use ballast_store::objects::{Store, Writing};
use ballast_store::probe::probe;
use tokio::net::TcpListener;

use crate::args::ServeArgs;
use crate::config::Config;
use crate::output::Output;
use crate::shutdown::Shutdown;
use crate::telemetry;

/// Reads and writes of the store at once: enough to keep a disk busy, few enough to bound memory.
const STORE_LIMITS: Limits = Limits { reads: 64, writes: 32 };

/// Runs the hub until it is told to stop.
pub(crate) fn run(args: &ServeArgs, output: &mut Output) -> Result<()> {
    let config = Config::load(&args.config)?;
    telemetry::start(&config.log)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .thread_name("ballast")
        .enable_all()
        .build()
        .context("starting the runtime")?;
    runtime.block_on(serve(&config, output))
}

async fn serve(config: &Config, output: &mut Output) -> Result<()> {
    let shutdown = Shutdown::listen()?;
    let env = RealEnv::shared();
    let (store, lock) = open_store(&config.data, &env)?;
    let promises = probe(&store).await.context("trying what the store can do")?;
    if !promises.all_kept() {
        let broken = promises.broken().join(", ");
        bail!("the store at `{}` breaks a promise: {broken}", config.data.display());
    }
    // Bound before anything slow, so that an address in use is told at once.
    let listener = TcpListener::bind(config.listen)
        .await
        .with_context(|| format!("cannot listen on `{}`", config.listen))?;
    let hub = open_hub(config, store, env).await?;
    announce(output, &hub, config, &listener).await?;
    let served = gateway::serve(
        Gateway::new(Arc::clone(&hub), gateway_settings(config)),
        listener,
        shutdown.requested(),
    )
    .await;
    hub.close().await.context("closing the hub")?;
    drop(lock);
    tracing::info!("stopped");
    Ok(served?)
}

/// The stack below the store, outermost last.
fn open_store(data: &Path, env: &SharedEnv) -> Result<(Store, FolderLock)> {
    let (disk, lock) = LocalStore::open(data)?;
    let retried = Arc::new(Retry::new(disk, Arc::clone(env)));
    let limited = Arc::new(Limit::new(retried, STORE_LIMITS));
    let (traced, _counters) = Trace::new(limited, Arc::clone(env));
    let store = Store::new(Arc::new(traced), Arc::clone(env)).with_writing(Writing::LOCAL);
    Ok((store, lock))
}

async fn open_hub(config: &Config, store: Store, env: SharedEnv) -> Result<Arc<Hub>> {
    let (index, opened) = index::open(&config.data.join("index"))?;
    let defaults = HubSettings::default();
    let threads = match config.limits.threads {
        0 => defaults.pool_threads,
        threads => threads,
    };
    let settings = HubSettings {
        anonymous_reading: config.access.anonymous_reading,
        // The folder's lock makes this the only process that writes here.
        freshness: Freshness::Exclusive,
        cache_bytes: config.limits.cache.as_u64(),
        upload_slots: config.limits.uploads,
        pool_threads: threads,
    };
    let hub = Hub::open(store, index, &opened, env, settings).await;
    hub.with_context(|| format!("opening the hub in `{}`", config.data.display()))
}

fn gateway_settings(config: &Config) -> GatewaySettings {
    GatewaySettings {
        public_url: Some(config.public_url.clone()).filter(|url| !url.is_empty()),
        trust_forwarded: config.trust_forwarded,
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
    let address = listener.local_addr().context("reading the address that was bound")?;
    let endpoint = match config.public_url.as_str() {
        "" => format!("http://{address}"),
        url => url.to_owned(),
    };
    let first = hub.bootstrap().await.context("making the first administrator")?;
    if let Some(FirstAdmin { name, token }) = first {
        output
            .line(format!("created the administrator `{name}`; this token is not shown again"))?;
        output.line(format!("export HF_ENDPOINT={endpoint}"))?;
        output.line(format!("export HF_TOKEN={token}"))?;
    } else {
        output.line(format!("export HF_ENDPOINT={endpoint}"))?;
    }
    output.line(format!("ready on http://{address}, data in {}", config.data.display()))
}
