//! How QUIC is set up: windows, packet sizes, congestion control.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use quinn_proto::congestion::{ControllerFactory, CubicConfig};
use quinn_proto::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn_proto::{
    ClientConfig, EndpointConfig, IdleTimeout, MtuDiscoveryConfig, ServerConfig, TransportConfig,
    VarInt,
};

use super::congestion::{ByPath, Tolerant};
use super::socket::SOCKET_BUFFER;
use crate::carrier::shared::Credentials;
use crate::carrier::tcp::client_config;
use crate::cluster::CARRIER_PROTOCOL;

/// The payload of a packet that fits Ethernet, with an address of either kind.
pub(super) const ETHERNET_PAYLOAD: u16 = 1452;
/// The same where all that is on the way takes frames of 9,000 bytes.
pub(super) const JUMBO_PAYLOAD: u16 = 8952;

/// Calls that one peer may have open at once.
const MOST_CALLS: u32 = 64;
/// A connection on which nothing comes for so long is dead.
const IDLE: Duration = Duration::from_secs(30);
/// Whoever called asks so often whether the other side lives.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// One call may have so much on its way: 2.5 Gbit/s at 100 ms. What bounds memory is the window of
/// the connection.
const STREAM_WINDOW: u32 = 32 << 20;
/// All calls of a connection together, on a short path: as much as its socket has room for, or some
/// would be lost there. More is not in the CPU's caches any more when it is read.
pub(super) const NEAR_WINDOW: u32 = SOCKET_BUFFER;
/// The same on a long path.
pub(super) const FAR_WINDOW: u32 = 32 << 20;
/// A path is long from this round trip on, where the window of a short one is 7 Gbit/s.
pub(super) const FAR_FROM: Duration = Duration::from_millis(5);
/// What is sent before anything is known of the path.
const NEAR_BURST: u64 = 256 << 10;
const FAR_BURST: u64 = 512 << 10;

/// What may be set of QUIC.
#[derive(Clone, Copy, Debug, Default)]
pub struct QuicSettings {
    /// The largest payload of a packet; `None`: as large as an interface of this machine has it.
    pub largest_packet: Option<u16>,
}

/// Both sides of an endpoint.
pub(super) struct Configs {
    pub(super) endpoint: Arc<EndpointConfig>,
    pub(super) server: Arc<ServerConfig>,
    tls: Arc<QuicClientConfig>,
    largest: u16,
}

impl Configs {
    pub(super) fn new(credentials: &Credentials, settings: QuicSettings) -> Result<Self, String> {
        let unfit = |_| "its TLS lacks AES-128, which QUIC needs".to_owned();
        let tls = QuicClientConfig::try_from(client_config(credentials)).map_err(unfit)?;
        let mut server = rustls::ServerConfig::clone(&credentials.server);
        server.alpn_protocols = vec![CARRIER_PROTOCOL.to_vec()];
        server.max_early_data_size = 0;
        server.send_tls13_tickets = 0;
        let server = QuicServerConfig::try_from(server).map_err(unfit)?;
        let largest = settings.largest_packet.unwrap_or_else(largest_here);
        let largest = largest.clamp(1200, u16::MAX - 28);
        let mut endpoint = EndpointConfig::default();
        // What we take, and not what we send: buffers are as large as the kernel fills them.
        endpoint
            .max_udp_payload_size(JUMBO_PAYLOAD.max(largest))
            .map_err(|error| error.to_string())?;
        let mut server = ServerConfig::with_crypto(Arc::new(server));
        // Who calls is far or near; near is only a better guess, and callers decide for themselves.
        server.transport_config(Arc::new(transport(largest, true, false)));
        // A peer does not move; a packet from elsewhere is not its.
        server.migration(false);
        Ok(Self {
            endpoint: Arc::new(endpoint),
            server: Arc::new(server),
            tls: Arc::new(tls),
            largest,
        })
    }

    /// For a call to this address.
    pub(super) fn client(&self, to: IpAddr) -> ClientConfig {
        let tls = Arc::clone(&self.tls);
        let mut config = ClientConfig::new(tls);
        let transport = transport(self.largest, is_near(to), true);
        config.transport_config(Arc::new(transport));
        config
    }

    /// For a call from this address, if it is not the one that is used otherwise.
    pub(super) fn server_for(&self, from: IpAddr) -> Option<Arc<ServerConfig>> {
        if is_near(from) {
            return None;
        }
        let mut config = ServerConfig::clone(&self.server);
        config.transport_config(Arc::new(transport(self.largest, false, false)));
        Some(Arc::new(config))
    }
}

fn transport(largest: u16, near: bool, calls: bool) -> TransportConfig {
    let mut config = TransportConfig::default();
    let mut discovery = MtuDiscoveryConfig::default();
    discovery.upper_bound(largest);
    config
        .max_concurrent_bidi_streams(VarInt::from_u32(if calls { 0 } else { MOST_CALLS }))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None)
        .max_idle_timeout(IdleTimeout::try_from(IDLE).ok())
        // One side is enough to keep a connection alive.
        .keep_alive_interval(calls.then_some(KEEP_ALIVE))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .receive_window(VarInt::from_u32(NEAR_WINDOW))
        .send_window(NEAR_WINDOW.into())
        .mtu_discovery_config(Some(discovery))
        // A far path may be a tunnel with less room; what is lost there costs a round trip.
        .initial_mtu(if near { largest.min(ETHERNET_PAYLOAD) } else { 1200 })
        .congestion_controller_factory(controller(near));
    if near {
        // A lost first packet is sent again soon.
        config.initial_rtt(Duration::from_millis(50));
    }
    config
}

/// On a short path what is lost has found a full queue, most often that of a socket, and CUBIC is
/// soon back at where it was. A network that nobody routes may be a tunnel over half of the world.
fn controller(near: bool) -> Arc<dyn ControllerFactory + Send + Sync> {
    let long = Arc::new(Tolerant { burst: FAR_BURST });
    if near {
        let short = Arc::new(CubicConfig::default().initial_window(NEAR_BURST).clone());
        Arc::new(ByPath { short, long, long_from: FAR_FROM })
    } else {
        long
    }
}

/// Whether an address is of this machine or of the networks that nobody routes: most likely a few
/// milliseconds away, on Ethernet.
pub(in crate::carrier) fn is_near(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_private() || v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local(),
    }
}

/// The largest payload that some interface of this machine takes. Which path takes how much is
/// found out by each connection, so that too much costs it a few probes.
fn largest_here() -> u16 {
    let interfaces = std::fs::read_dir("/sys/class/net").into_iter().flatten().flatten();
    let has_jumbo = interfaces.into_iter().any(|interface| {
        let mtu = std::fs::read_to_string(interface.path().join("mtu"));
        let mtu = mtu.ok().and_then(|mtu| mtu.trim().parse::<u32>().ok());
        mtu.is_some_and(|mtu| mtu >= u32::from(JUMBO_PAYLOAD) + 48)
    });
    if has_jumbo { JUMBO_PAYLOAD } else { ETHERNET_PAYLOAD }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_that_nobody_routes_are_near() {
        for near in ["127.0.0.1", "10.1.2.3", "192.168.0.9", "169.254.1.1", "::1", "fd00::1"] {
            assert!(is_near(near.parse().expect("an address")), "{near}");
        }
        assert!(is_near("::ffff:10.1.2.3".parse().expect("an address")));
        for far in ["198.18.1.1", "1.1.1.1", "2001:db8::1", "::ffff:1.1.1.1"] {
            assert!(!is_near(far.parse().expect("an address")), "{far}");
        }
    }
}
