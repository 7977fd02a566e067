//! The carrier over TCP and TLS 1.3: a few connections to each peer, each of which carries one call
//! at a time, so that no call waits behind the bytes of another.

mod link;
mod socket;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use ballast_store::env::SharedEnv;
use rustls::client::Resumption;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use self::link::{Pooled, TcpLink};
use self::socket::tune;
use super::pipe::Wire;
use super::serve::serve;
use super::shared::{Credentials, Shared};
use super::{Carrier, Distance, Link, Result, Source};
use crate::cluster::{CARRIER_PROTOCOL, CarrierStream, PeerName, Revocations, TakeStreams};

/// How often connections that nobody uses are looked through.
const ROUND: Duration = Duration::from_secs(30);
/// What is encrypted and waits for the socket: so much goes out in one system call.
const OUTGOING_BYTES: usize = 256 << 10;

/// The carrier over TCP.
pub struct TcpCarrier {
    shared: Shared,
    connector: TlsConnector,
    revocations: Revocations,
    links: Mutex<Vec<Weak<Pooled>>>,
}

impl TcpCarrier {
    /// A carrier that calls peers as whoever `credentials` says.
    pub fn new(shared: &Shared, credentials: &Credentials) -> Arc<Self> {
        let carrier = Arc::new(Self {
            shared: shared.clone(),
            connector: TlsConnector::from(Arc::new(client_config(credentials))),
            revocations: credentials.revocations.clone(),
            links: Mutex::default(),
        });
        let (weak, env) = (Arc::downgrade(&carrier), SharedEnv::clone(&shared.env));
        let stopping = shared.runner.stopping();
        shared.runner.spawn("tcp carrier", async move {
            loop {
                tokio::select! {
                    biased;
                    () = stopping.cancelled() => return,
                    () = env.sleep(ROUND) => {}
                }
                let Some(carrier) = weak.upgrade() else { return };
                carrier.look_through();
            }
        });
        carrier
    }

    /// Closes what nobody has used for long.
    fn look_through(&self) {
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        links.retain(|link| link.upgrade().is_some_and(|link| link.look_through()));
        if links.is_empty() {
            self.shared.buffers.clear();
        }
    }
}

#[async_trait]
impl Carrier for TcpCarrier {
    fn name(&self) -> &'static str {
        "tcp"
    }

    async fn connect(
        &self,
        address: SocketAddr,
        peer: &PeerName,
        _: Distance,
    ) -> Result<Arc<dyn Link>> {
        let pooled = Pooled::connect(
            self.shared.clone(),
            self.connector.clone(),
            self.revocations.clone(),
            address,
            peer.clone(),
        );
        let pooled = pooled.await?;
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        links.push(Arc::downgrade(&pooled));
        Ok(Arc::new(TcpLink::new(pooled)))
    }
}

/// Every connection proves anew who is at its other end: a revoked one must not come back with an
/// old ticket.
pub(super) fn client_config(credentials: &Credentials) -> rustls::ClientConfig {
    let mut config = rustls::ClientConfig::clone(&credentials.client);
    config.alpn_protocols = vec![CARRIER_PROTOCOL.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    config
}

/// Answers peers on connections that the door has let in.
pub struct TcpServer {
    shared: Shared,
    source: Arc<dyn Source>,
}

impl TcpServer {
    /// Answers with what this source has.
    pub fn new(shared: &Shared, source: Arc<dyn Source>) -> Arc<Self> {
        Arc::new(Self { shared: shared.clone(), source })
    }
}

#[async_trait]
impl TakeStreams for TcpServer {
    async fn serve(&self, mut stream: CarrierStream, peer: PeerName) {
        let (socket, session) = stream.get_mut();
        session.set_buffer_limit(Some(OUTGOING_BYTES));
        let ended = match tune(socket) {
            Ok(()) => serve(&self.shared, Wire(stream), &peer, &*self.source).await,
            Err(error) => Err(error),
        };
        if let Err(error) = ended {
            tracing::debug!(%peer, %error, "a connection ended early");
        }
    }
}

/// The stream under TLS, read in large pieces: TLS itself asks for 4 KiB at a time.
type Buffered = tokio::io::BufReader<TcpStream>;
