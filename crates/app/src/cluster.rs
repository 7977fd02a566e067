//! The hub among its nodes: the door that they come through, and who speaks of them to the gateway.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use ballast_gateway::{NodeMeeter, SeenNode};
use ballast_node::hub::Hub;
use ballast_sync::carrier::Carriers;
use ballast_sync::cluster::{Discovery, Door, PeerKey, Registry, Services};
use ballast_sync::replicate::{ByRole, Grants, RegionSource, Service, Told};
use ballast_sync::swarm::signed_by;
use ballast_sync::swarm::source::HubSource;
use ballast_sync::swarm::tracker::Tracker;
use serde_json::Value;

use crate::config::{ClusterConfig, Config, Discover};
use crate::overview::overview;
use crate::wire;

/// Binds the peers' address, if there is one.
pub(crate) async fn bind(config: &ClusterConfig) -> Result<Option<Door>> {
    match config.listen()? {
        None => Ok(None),
        Some(listen) => Ok(Some(Door::bind(listen).await.context("opening `cluster.listen`")?)),
    }
}

/// Lets peers in.
pub(crate) fn open(
    hub: &Arc<Hub>,
    door: Door,
    config: &Config,
    told_by_regions: &Told,
) -> Result<Arc<dyn NodeMeeter>> {
    let settings = &config.cluster;
    let registry = Registry::start(hub, &settings.name).context("starting the cluster")?;
    let bound = door.address();
    let identity = registry.identity();
    let members = Arc::<Registry>::clone(&registry);
    let tracker = Tracker::start(Arc::clone(hub), members, &settings.site);
    let permits = signed_by(identity.permits(), hub.env());
    let grants: Arc<Grants> = Arc::default();
    let source = Arc::new(ByRole {
        regions: RegionSource::new(Arc::clone(hub), Arc::clone(&grants)),
        others: Arc::new(HubSource::new(Arc::clone(hub), permits)),
    });
    let regions = Service::new(hub, identity.name(), told_by_regions, &grants);
    let services =
        Services::new().with(registry.service()).with(Arc::clone(&tracker).service()).with(regions);
    let carriers = wire::open(hub, door, identity, services, source, settings)?;
    let cluster = identity.cluster();
    if settings.discover == Discover::Always {
        // Nodes look for it; what a hub would find it learns from their heartbeats anyway.
        Discovery::start(cluster, identity.name(), bound.port(), (hub.env(), hub.runner()))?;
    }
    tracing::info!(%cluster, address = %bound, "nodes may join");
    let told = settings.address.clone();
    Ok(Arc::new(Meeter { registry, tracker, bound, told, _carriers: carriers }))
}

/// Speaks of nodes.
struct Meeter {
    registry: Arc<Registry>,
    tracker: Arc<Tracker>,
    /// As long as there is one, QUIC is answered.
    _carriers: Arc<Carriers>,
    bound: SocketAddr,
    told: String,
}

impl fmt::Debug for Meeter {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Meeter({})", self.bound)
    }
}

impl NodeMeeter for Meeter {
    fn join_token(&self, secret: &[u8; 32], url: &str) -> String {
        let address = address_for(&self.told, self.bound, url);
        self.registry.join_token(*secret, address).to_text()
    }

    fn seen(&self, key: &[u8; 32]) -> Option<SeenNode> {
        let seen = self.registry.seen(&PeerKey::from_bytes(*key))?;
        Some(SeenNode { at_ms: seen.at_ms, address: seen.address })
    }

    fn overview(&self) -> Value {
        overview(self.tracker.overview())
    }

    fn look_again(&self, _: &Hub) {
        self.registry.look_again();
    }
}

/// Where a node reaches the hub: where it was told to, or where it listens; on all addresses, the
/// host is the one by which whoever asks for a token has reached us.
fn address_for(told: &str, bound: SocketAddr, url: &str) -> String {
    if !told.is_empty() {
        return told.to_owned();
    }
    if !bound.ip().is_unspecified() {
        return bound.to_string();
    }
    let authority = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = authority.split('/').next().unwrap_or_default();
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    };
    format!("{host}:{}", bound.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_says_where_the_hub_is() {
        let all: SocketAddr = "0.0.0.0:8081".parse().expect("an address");
        let one: SocketAddr = "10.0.0.1:8081".parse().expect("an address");
        for (told, bound, url, address) in [
            ("hub.example:99", all, "http://10.0.0.2:8080", "hub.example:99"),
            ("", one, "http://10.0.0.2:8080", "10.0.0.1:8081"),
            ("", all, "http://10.0.0.2:8080", "10.0.0.2:8081"),
            ("", all, "https://hub.example", "hub.example:8081"),
            ("", all, "http://[::1]:8080", "[::1]:8081"),
            ("", all, "http://[::1]", "[::1]:8081"),
        ] {
            assert_eq!(address_for(told, bound, url), address);
        }
    }
}
