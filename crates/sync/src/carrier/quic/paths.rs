//! What is known of the paths to peers, for metrics and for whoever chooses a carrier.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use super::connection::{Connection, State};

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

/// What was sent over all connections so far.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::carrier) struct Sent {
    pub(in crate::carrier) packets: u64,
    pub(in crate::carrier) lost_packets: u64,
    /// System calls.
    pub(in crate::carrier) calls: u64,
    pub(in crate::carrier) black_holes: u64,
}

impl Sent {
    fn add(&mut self, state: &State) {
        let figures = state.inner.stats();
        self.packets += figures.path.sent_packets;
        self.lost_packets += figures.path.lost_packets;
        self.calls += figures.udp_tx.ios;
        self.black_holes += figures.path.black_holes_detected;
    }
}

/// All connections.
#[derive(Default)]
pub(super) struct Paths(Mutex<Known>);

#[derive(Default)]
struct Known {
    /// Those that the driver has.
    driven: Vec<Weak<Connection>>,
    /// What was sent over the others.
    ended: Sent,
}

impl Paths {
    pub(super) fn add(&self, connection: &Arc<Connection>) {
        self.known().driven.push(Arc::downgrade(connection));
    }

    /// The driver lets go of a connection.
    pub(super) fn end(&self, connection: &Connection, state: &State) {
        let mut known = self.known();
        known.driven.retain(|other| !std::ptr::eq(other.as_ptr(), connection));
        known.ended.add(state);
    }

    pub(super) fn list(&self) -> Vec<Path> {
        let (driven, _) = self.all();
        let open = driven.iter().filter(|connection| !connection.is_lost());
        open.map(|connection| path_of(connection)).collect()
    }

    pub(super) fn sent(&self) -> Sent {
        let (driven, mut sent) = self.all();
        for connection in driven {
            sent.add(&connection.state());
        }
        sent
    }

    /// Whoever looks at a connection holds no lock that its driver may want.
    fn all(&self) -> (Vec<Arc<Connection>>, Sent) {
        let known = self.known();
        (known.driven.iter().filter_map(Weak::upgrade).collect(), known.ended)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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
