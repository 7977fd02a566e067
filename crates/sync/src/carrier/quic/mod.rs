//! The carrier over QUIC: one connection to each peer, and a stream of it for each call.
//!
//! The protocol is `quinn-proto`, the system calls `quinn-udp`; the driver between them is ours,
//! since the one that usually stands there sends ten packets at a time, which costs up to twice the
//! CPU (ADR 50).

mod config;
mod congestion;
mod connection;
mod driver;
mod link;
mod paths;
mod socket;
mod stream;

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use ballast_store::env::SharedEnv;
use quinn_proto::Endpoint;
use tokio::sync::{mpsc, oneshot};

use self::config::Configs;
pub use self::config::QuicSettings;
pub(super) use self::config::is_near;
use self::connection::{Clock, Touched};
pub(super) use self::driver::Answer;
use self::driver::{Connect, Driver, Moving};
use self::link::QuicLink;
pub use self::paths::Path;
use self::paths::{Paths, Sent};
use self::socket::Socket;
use super::serve::serve;
use super::shared::{Credentials, Shared};
use super::{Carrier, Distance, Error, Link, Result, Source};
use crate::cluster::PeerName;

/// A peer that does not answer a call for so long is not there, or lets no UDP through.
const CONNECT_TAKES: Duration = Duration::from_secs(3);
/// Calls that wait for the driver.
const WAITING_CALLS: usize = 64;

/// The carrier over QUIC.
pub struct QuicCarrier {
    shared: Shared,
    configs: Arc<Configs>,
    calls: mpsc::Sender<Connect>,
    paths: Arc<Paths>,
    address: SocketAddr,
}

impl QuicCarrier {
    /// Calls peers from this socket, at which `source`, if there is one, answers them. It ends when
    /// nobody holds this any more.
    pub fn over(
        shared: &Shared,
        credentials: &Credentials,
        socket: UdpSocket,
        source: Option<Arc<dyn Source>>,
        settings: QuicSettings,
    ) -> io::Result<Arc<Self>> {
        let answer = source.map(|source| {
            let shared = shared.clone();
            let answer: Answer = Arc::new(move |stream, peer| {
                let (shared, source) = (shared.clone(), Arc::clone(&source));
                Box::pin(async move {
                    if let Err(error) = serve(&shared, stream, &peer, &*source).await {
                        tracing::debug!(%peer, %error, "a call ended early");
                    }
                })
            });
            answer
        });
        Self::with(shared, credentials, socket, answer, settings)
    }

    /// The same, with whatever answers.
    pub(super) fn with(
        shared: &Shared,
        credentials: &Credentials,
        socket: UdpSocket,
        answer: Option<Answer>,
        settings: QuicSettings,
    ) -> io::Result<Arc<Self>> {
        let configs = Configs::new(credentials, settings);
        let configs = Arc::new(configs.map_err(io::Error::other)?);
        let socket = Socket::over(socket)?;
        let address = socket.local_addr()?;
        let server = answer.is_some().then(|| Arc::clone(&configs.server));
        let finds_mtu = !socket.may_fragment();
        let endpoint = Endpoint::new(Arc::clone(&configs.endpoint), server, finds_mtu, None);
        let (calls, waiting) = mpsc::channel(WAITING_CALLS);
        let paths = Arc::new(Paths::default());
        let driver = Driver {
            shared: shared.clone(),
            configs: Arc::clone(&configs),
            revocations: credentials.revocations.clone(),
            answer,
            socket,
            clock: Clock::new(SharedEnv::clone(&shared.env)),
            calls: waiting,
            touched: Arc::new(Touched::default()),
            paths: Arc::clone(&paths),
            state: Moving::new(endpoint),
        };
        shared.runner.spawn("quic carrier", driver.run(shared.runner.stopping()));
        Ok(Arc::new(Self { shared: shared.clone(), configs, calls, paths, address }))
    }

    /// Where its socket is.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What is known of the path to each peer.
    pub fn paths(&self) -> Vec<Path> {
        self.paths.list()
    }

    /// What was sent over all of them, and over those before.
    pub(super) fn sent(&self) -> Sent {
        self.paths.sent()
    }
}

#[async_trait]
impl Carrier for QuicCarrier {
    fn name(&self) -> &'static str {
        "quic"
    }

    async fn connect(
        &self,
        address: SocketAddr,
        peer: &PeerName,
        _: Distance,
    ) -> Result<Arc<dyn Link>> {
        let unreachable = |reason: &str| Error::Unreachable {
            peer: peer.to_string(),
            reason: format!("{reason} at {address}, by UDP"),
        };
        let (reply, answer) = oneshot::channel();
        let config = self.configs.client(address.ip());
        let call = Connect { address, peer: peer.clone(), config, reply };
        let sent = self.calls.send(call).await;
        sent.map_err(|_| unreachable("this process is going away"))?;
        let answer = self.shared.within(CONNECT_TAKES, async { Ok(answer.await) }).await;
        let answer = answer.map_err(|_| unreachable("nobody answers"))?;
        let connection = answer.map_err(|_| unreachable("this process is going away"))??;
        Ok(Arc::new(QuicLink::new(self.shared.clone(), connection, peer.clone())))
    }
}
