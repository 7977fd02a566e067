//! What QUIC makes of a path: loss, large packets, trains of packets.

use std::net::SocketAddr;
use std::sync::Arc;

use ballast_node::worker::Runner;
use ballast_testkit::clock::Dice;
use futures_util::StreamExt as _;
use tokio::net::UdpSocket;

use super::world::{
    Cluster, Manner, Shelf, Xorb, any, bytes_of, call_by_quic, listen_quic, name, request, shared,
};
use crate::carrier::{Carrier as _, Distance, Link, Path, QuicCarrier, QuicSettings};

/// A server that has one xorb, and who calls it, both with these settings.
struct Pair {
    xorb: Xorb,
    server: Arc<QuicCarrier>,
    client: Arc<QuicCarrier>,
}

impl Pair {
    fn new(settings: QuicSettings) -> Self {
        let (cluster, xorb) = (Cluster::new(1), Xorb::new(1, &[131_072; 128]));
        let shelf = Shelf { per_run: 8, ..Shelf::of(&[&xorb]) };
        let (credentials, manner) =
            (cluster.credentials("server"), Manner::Honest(Arc::new(shelf)));
        let socket = std::net::UdpSocket::bind(any()).expect("a port");
        let server = listen_quic(&shared(), &credentials, socket, manner, settings);
        let client = call_by_quic(&shared(), &cluster.credentials("client"), settings);
        Self { xorb, server, client }
    }

    async fn link(&self, address: SocketAddr) -> Arc<dyn Link> {
        self.client.connect(address, &name("server"), Distance::Near).await.expect("connected")
    }

    async fn fetch(&self, link: &Arc<dyn Link>) {
        let arrivals = link.request(request(&[(&self.xorb, 0..128)])).await.expect("asked");
        let arrived: Vec<_> = arrivals.map(|run| run.expect("sound")).collect().await;
        assert!(bytes_of(&arrived) == self.xorb.bytes(0..128));
    }

    /// How the server sees the path, on which it sends.
    fn path(&self) -> Path {
        let paths = self.server.paths();
        assert_eq!(paths.len(), 1, "one client");
        paths[0]
    }
}

#[tokio::test]
async fn packets_of_full_size_are_sent_in_long_trains() {
    let pair = Pair::new(QuicSettings { largest_packet: Some(1452) });
    let link = pair.link(pair.server.address()).await;
    for _ in 0..3 {
        pair.fetch(&link).await;
    }
    let path = pair.path();
    assert_eq!((path.packet_bytes, path.black_holes), (1452, 0), "{path:?}");
    assert!(path.packets_per_call > 10.0, "stock drivers send ten at a time: {path:?}");
}

/// Ten packets of 8,952 bytes are more than the kernel takes at once: whoever sends them loses all
/// ten, takes the path for a black hole, and goes on with packets of 1,200 bytes.
#[tokio::test]
async fn jumbo_packets_are_found_and_stay() {
    let pair = Pair::new(QuicSettings { largest_packet: Some(8952) });
    let link = pair.link(pair.server.address()).await;
    for _ in 0..50 {
        pair.fetch(&link).await;
        if pair.path().packet_bytes >= 8900 {
            break;
        }
    }
    for _ in 0..3 {
        pair.fetch(&link).await;
    }
    let path = pair.path();
    assert!(path.packet_bytes >= 8900 && path.black_holes == 0, "{path:?}");
}

#[tokio::test]
async fn what_is_lost_or_comes_in_another_order_arrives_all_the_same() {
    let (pair, runner) = (Pair::new(QuicSettings::default()), Runner::new());
    let address = rough_road(&runner, pair.server.address()).await;
    let link = pair.link(address).await;
    pair.fetch(&link).await;
    let path = pair.path();
    assert!(path.lost_packets > 0, "the road was not rough: {path:?}");
}

/// A way to `server` on which one packet in a hundred is lost, and one in fifty comes after the one
/// behind it.
async fn rough_road(runner: &Runner, server: SocketAddr) -> SocketAddr {
    let near = UdpSocket::bind("127.0.0.1:0").await.expect("bound");
    let far = UdpSocket::bind("127.0.0.1:0").await.expect("bound");
    far.connect(server).await.expect("an address");
    let address = near.local_addr().expect("an address");
    runner.spawn("rough road", async move {
        let (mut dice, mut client) = (Dice::new(7), None);
        let (mut up, mut down) = (vec![0; 65_536], vec![0; 65_536]);
        let mut held: [Option<Vec<u8>>; 2] = [None, None];
        loop {
            let (bytes, goes_up) = tokio::select! {
                got = near.recv_from(&mut up) => {
                    let (length, from) = got.expect("received");
                    client = Some(from);
                    (up[..length].to_vec(), true)
                }
                got = far.recv(&mut down) => (down[..got.expect("received")].to_vec(), false),
            };
            if dice.happens(10) {
                continue;
            }
            let held = &mut held[usize::from(goes_up)];
            if held.is_none() && dice.happens(20) {
                *held = Some(bytes);
                continue;
            }
            for bytes in [Some(bytes), held.take()].into_iter().flatten() {
                // A full buffer is a lost packet too.
                let _ = match (goes_up, client) {
                    (true, _) => far.try_send(&bytes),
                    (false, Some(client)) => near.try_send_to(&bytes, client),
                    (false, None) => continue,
                };
            }
        }
    });
    address
}
