//! gRPC channels to a hub. They connect when they are used, and again when a connection ended.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use ballast_store::env::SharedEnv;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::AsyncBufReadExt as _;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::codegen::http::Uri;
use tonic::codegen::{BoxFuture, Service};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use super::door::{CONNECTION_WINDOW, FRAME, KEEP_ALIVE, STREAM_WINDOW};
use super::identity::stranger_config;
use super::{
    CONTROL_PROTOCOL, Error, Identity, PeerKey, PeerName, PeerRole, Result, SERVER_NAME, peer_of,
};

/// How long connecting may take, with the handshake.
const CONNECT_TIME: Duration = Duration::from_secs(10);
/// How long one answer may take. What takes longer is a stream.
const CALL_TIME: Duration = Duration::from_secs(30);

/// A channel to the hub at `address` (`host:port`), over which this process is known by its
/// certificate. Whoever answers there and is no hub of the cluster is not spoken to. The identity
/// keeps where each connection of the channel found the hub.
pub fn hub_channel(identity: &Identity, address: &str) -> Result<Channel> {
    let sightings = Some(Arc::clone(identity.sightings()));
    Ok(channel(identity.client_config(CONTROL_PROTOCOL)?, address, sightings))
}

/// A channel over which this process is nobody: to join, and to come back after a day.
pub(super) fn stranger_channel(
    authority: PeerKey,
    address: &str,
    env: &SharedEnv,
) -> Result<Channel> {
    Ok(channel(stranger_config(authority, CONTROL_PROTOCOL, env)?, address, None))
}

fn channel(tls: Arc<ClientConfig>, address: &str, sightings: Option<Arc<Sightings>>) -> Channel {
    // TLS is made below it: the address that it sees is never looked up.
    Endpoint::from_static("http://peer.ballast")
        .connect_timeout(CONNECT_TIME)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .keep_alive_while_idle(true)
        .connect_with_connector_lazy(Connector { tls, address: address.to_owned(), sightings })
}

/// A request that is given up after some time.
pub fn timed<T>(message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(CALL_TIME);
    request
}

/// Why a call to `address` failed, for a person.
pub(super) fn explain(address: &str, status: &Status) -> Error {
    match status.code() {
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Unknown => {
            let (reason, address) = (root_of(status), address.to_owned());
            if reason.contains("fatal alert") {
                Error::Refused(format!("it does not accept our certificate ({reason})"))
            } else if reason.contains("certificate") {
                Error::NotTheHub { address, reason }
            } else {
                Error::Unreachable { address, reason }
            }
        }
        _ => Error::Refused(status.message().to_owned()),
    }
}

/// What was wrong at the bottom of it: what stands above only repeats that it was.
fn root_of(status: &Status) -> String {
    let mut deepest: &dyn std::error::Error = status;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    match std::ptr::addr_eq(deepest, status) {
        true => status.message().to_owned(),
        false => deepest.to_string(),
    }
}

/// Where a connection found the hub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sighting {
    /// Its address.
    pub address: SocketAddr,
    /// What it is called there.
    pub hub: PeerName,
    /// The least that it took the two kernels to connect: the way there and back.
    pub round_trip: Duration,
}

/// Keeps the last sighting.
pub(super) struct Sightings {
    env: SharedEnv,
    last: Mutex<Option<Sighting>>,
}

impl Sightings {
    pub(super) fn new(env: SharedEnv) -> Arc<Self> {
        Arc::new(Self { env, last: Mutex::default() })
    }

    pub(super) fn last(&self) -> Option<Sighting> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, mut seen: Sighting) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(last) = last.as_ref().filter(|last| last.address == seen.address) {
            // What took longer had to wait in queues.
            seen.round_trip = seen.round_trip.min(last.round_trip);
        }
        *last = Some(seen);
    }
}

/// Makes the connections of a channel.
#[derive(Clone)]
struct Connector {
    tls: Arc<ClientConfig>,
    address: String,
    sightings: Option<Arc<Sightings>>,
}

impl Connector {
    async fn connect(self) -> std::io::Result<TlsStream<TcpStream>> {
        let (stream, took) = self.reach().await?;
        stream.set_nodelay(true)?;
        let address = stream.peer_addr()?;
        let name = ServerName::try_from(SERVER_NAME).map_err(std::io::Error::other)?;
        let mut stream = TlsConnector::from(self.tls).connect(name, stream).await?;
        // A hub that does not accept us says so when our side of the handshake is done, where its
        // first words would be: then this fails, and not a call that is under way.
        if stream.fill_buf().await?.is_empty() {
            return Err(std::io::Error::other("it ended the connection at once"));
        }
        let (_, connection) = stream.get_ref();
        match connection.peer_certificates().and_then(peer_of) {
            Some(peer) if peer.name.role() == PeerRole::Hub => {
                if let Some(sightings) = &self.sightings {
                    sightings.note(Sighting { address, hub: peer.name, round_trip: took });
                }
                Ok(stream)
            }
            _ => Err(std::io::Error::other("its certificate is not a hub's")),
        }
    }

    /// The first of its addresses that answers, and how long that took.
    async fn reach(&self) -> std::io::Result<(TcpStream, Duration)> {
        let now = || self.sightings.as_ref().map_or(Duration::ZERO, |seen| seen.env.monotonic());
        let mut ended = Err(std::io::Error::other("it has no address"));
        for address in tokio::net::lookup_host(&self.address).await? {
            let began = now();
            ended = TcpStream::connect(address).await.map(|stream| (stream, now() - began));
            if ended.is_ok() {
                break;
            }
        }
        ended
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = std::io::Error;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move { connector.connect().await.map(TokioIo::new) })
    }
}
