//! What is known of the paths to peers, for metrics and for whoever chooses a carrier.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use super::connection::Connection;

/// The path to a peer, since its connection began.
#[derive(Clone, Copy, Debug)]
pub struct Path {
    /// Where the peer is.
    pub address: SocketAddr,
    /// The round trip, as it is at the moment.
    pub round_trip: Duration,
    /// Bytes that may be on their way at once.
    pub window: u64,
    /// The payload of a packet. Less than the network takes: something in it drops what is larger.
    pub packet_bytes: u16,
    /// Packets that were sent.
    pub packets: u64,
    /// Packets that were lost.
    pub lost_packets: u64,
    /// How often packets of full size no longer came through.
    pub black_holes: u64,
    /// Packets that were sent with one system call, on average. Near 1 while much is sent: the
    /// kernel does not cut trains into packets, and QUIC costs three times as much.
    pub packets_per_call: f64,
}

/// All connections that are open.
#[derive(Default)]
pub(super) struct Paths {
    connections: Mutex<Vec<Weak<Connection>>>,
}

impl Paths {
    pub(super) fn add(&self, connection: &Arc<Connection>) {
        let mut connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        connections.retain(|other| other.strong_count() > 0);
        connections.push(Arc::downgrade(connection));
    }

    pub(super) fn list(&self) -> Vec<Path> {
        let connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        let open = connections.iter().filter_map(Weak::upgrade);
        open.filter(|connection| !connection.is_lost())
            .map(|connection| path_of(&connection))
            .collect()
    }
}

#[expect(clippy::cast_precision_loss, reason = "a mean of what is counted for people")]
fn path_of(connection: &Connection) -> Path {
    let state = connection.state();
    let figures = state.inner.stats();
    Path {
        address: state.inner.remote_address(),
        round_trip: figures.path.rtt,
        window: figures.path.cwnd,
        packet_bytes: figures.path.current_mtu,
        packets: figures.path.sent_packets,
        lost_packets: figures.path.lost_packets,
        black_holes: figures.path.black_holes_detected,
        packets_per_call: figures.udp_tx.datagrams as f64 / figures.udp_tx.ios.max(1) as f64,
    }
}
