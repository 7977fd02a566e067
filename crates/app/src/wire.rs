//! How this process and its peers reach each other: one door, and the carriers behind it.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use ballast_node::hub::Hub;
use ballast_store::env::SharedEnv;
use ballast_sync::carrier::{self, Carriers, Choice, QuicSettings, Shared, Source};
use ballast_sync::cluster::{Door, DoorLimits, Identity, Services, TakeStreams};

use crate::config::{CarrierChoice, ClusterConfig};

/// Lets peers in through the door, to these services and to what `source` has. What comes back
/// calls peers, and answers those who come by QUIC as long as somebody holds it.
pub(crate) fn open(
    hub: &Hub,
    door: Door,
    identity: &Identity,
    services: Services,
    source: Arc<dyn Source>,
    config: &ClusterConfig,
) -> Result<Arc<Carriers>> {
    let (shared, choice) = shared(hub, config)?;
    let (udp, settings) = (door.udp()?, QuicSettings::default());
    let started = carrier::start(&shared, identity, udp, Some(source), choice, settings)
        .context("starting the carriers")?;
    hub.show_figures(started.figures());
    let streams = started.server.map(|server| server as Arc<dyn TakeStreams>);
    let limits = DoorLimits::default();
    door.open(hub.runner(), hub.env(), identity, services, streams, limits)?;
    Ok(started.carriers)
}

/// What carriers share, with the caps of the configuration, and which of them to take.
pub(crate) fn shared(hub: &Hub, config: &ClusterConfig) -> Result<(Shared, Choice)> {
    let (upload, download) = config.caps()?;
    let (env, pool, runner) =
        (SharedEnv::clone(hub.env()), hub.pool().clone(), hub.runner().clone());
    let choice = match config.carrier {
        CarrierChoice::Auto => Choice::Auto,
        CarrierChoice::Quic => Choice::Quic,
        CarrierChoice::Tcp => Choice::Tcp,
    };
    Ok((Shared::new(env, pool, runner, upload, download), choice))
}
