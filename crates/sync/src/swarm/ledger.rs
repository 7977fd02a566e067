//! What a node counts of bytes: where they came from, and what it gave to others.

use std::sync::atomic::{AtomicU64, Ordering};

use ballast_node::origin::Figure;
use ballast_proto::v1::Ledger as Report;

/// Where bytes come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The node's own disk: other files of its cache, or an earlier fetch.
    Disk,
    /// A peer of the node's own site.
    Site,
    /// Another peer.
    Peer,
    /// The hub.
    Hub,
    /// The hub, which got it from its upstream for us.
    Upstream,
}

/// Bytes since the start of the process.
#[derive(Debug, Default)]
pub struct Ledger {
    disk: AtomicU64,
    site: AtomicU64,
    peer: AtomicU64,
    hub: AtomicU64,
    upstream: AtomicU64,
    sent: AtomicU64,
    wasted: AtomicU64,
}

impl Ledger {
    /// So many bytes came from there; of these only `new` were not here already.
    pub fn came(&self, from: Place, bytes: u64, new: u64) {
        let counter = match from {
            Place::Disk => &self.disk,
            Place::Site => &self.site,
            Place::Peer => &self.peer,
            Place::Hub => &self.hub,
            Place::Upstream => &self.upstream,
        };
        counter.fetch_add(new, Ordering::Relaxed);
        self.wasted.fetch_add(bytes.saturating_sub(new), Ordering::Relaxed);
    }

    /// So many bytes went to a peer.
    pub fn sent(&self, bytes: u64) {
        self.sent.fetch_add(bytes, Ordering::Relaxed);
    }

    /// As a node reports it.
    pub fn report(&self) -> Report {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Report {
            disk: read(&self.disk),
            site: read(&self.site),
            peer: read(&self.peer),
            hub: read(&self.hub),
            upstream: read(&self.upstream),
            sent: read(&self.sent),
            wasted: read(&self.wasted),
        }
    }

    /// As it is told to those who watch the node.
    pub fn figures(&self) -> Vec<Figure> {
        let counter = |name: &'static str, counter: &AtomicU64| {
            Figure::counter(name, counter.load(Ordering::Relaxed))
        };
        vec![
            counter("swarm_received_bytes_total{from=\"disk\"}", &self.disk),
            counter("swarm_received_bytes_total{from=\"site\"}", &self.site),
            counter("swarm_received_bytes_total{from=\"peer\"}", &self.peer),
            counter("swarm_received_bytes_total{from=\"hub\"}", &self.hub),
            counter("swarm_received_bytes_total{from=\"upstream\"}", &self.upstream),
            counter("swarm_sent_bytes_total", &self.sent),
            counter("swarm_wasted_bytes_total", &self.wasted),
        ]
    }
}
