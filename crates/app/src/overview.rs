//! What nodes do at the moment, as JSON.

use ballast_format::hash::Sha256;
use ballast_proto::v1::{HostView, Ledger, NodeView, Overview, SwarmView};
use serde_json::{Value, json};

/// The same for clients of the hub's API.
pub(crate) fn overview(overview: Overview) -> Value {
    let Overview { nodes, swarms } = overview;
    let nodes: Vec<_> = nodes.into_iter().map(node_of).collect();
    let swarms: Vec<_> = swarms.into_iter().map(swarm_of).collect();
    json!({"nodes": nodes, "swarms": swarms})
}

fn node_of(node: NodeView) -> Value {
    let NodeView { name, address, site, rack, ledger } = node;
    let bytes = ledger.unwrap_or_default();
    let Ledger { disk, site: near, peer, hub, upstream, sent, wasted } = bytes;
    let bytes = json!({
        "disk": disk, "site": near, "peer": peer, "hub": hub, "upstream": upstream,
        "sent": sent, "wasted": wasted,
    });
    json!({"name": name, "address": address, "site": site, "rack": rack, "bytes": bytes})
}

fn swarm_of(swarm: SwarmView) -> Value {
    let SwarmView { sha256, size, whole, hosts, fetching } = swarm;
    let hosts = hosts.into_iter().map(|host| {
        let HostView { node, held, rate, eta_ms, children } = host;
        json!({"node": node, "held": held, "rate": rate, "etaMs": eta_ms, "children": children})
    });
    let sha256 =
        <[u8; 32]>::try_from(sha256.as_ref()).map(|bytes| Sha256::from_bytes(bytes).to_string());
    json!({
        "sha256": sha256.unwrap_or_default(), "size": size, "whole": whole, "fetching": fetching,
        "hosts": hosts.collect::<Vec<_>>(),
    })
}
