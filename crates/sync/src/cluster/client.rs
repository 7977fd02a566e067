//! gRPC channels to a hub. They connect when they are used, and again when a connection ended.

use std::sync::Arc;
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
use super::{CONTROL_PROTOCOL, Error, Identity, PeerKey, PeerRole, Result, SERVER_NAME, peer_of};

/// How long connecting may take, with the handshake.
const CONNECT_TIME: Duration = Duration::from_secs(10);
/// How long one answer may take. What takes longer is a stream.
const CALL_TIME: Duration = Duration::from_secs(30);

/// A channel to the hub at `address` (`host:port`), over which this process is known by its
/// certificate. Whoever answers there and is no hub of the cluster is not spoken to.
pub fn hub_channel(identity: &Identity, address: &str) -> Result<Channel> {
    Ok(channel(identity.client_config(CONTROL_PROTOCOL)?, address))
}

/// A channel over which this process is nobody: to join, and to come back after a day.
pub(super) fn stranger_channel(
    authority: PeerKey,
    address: &str,
    env: &SharedEnv,
) -> Result<Channel> {
    Ok(channel(stranger_config(authority, CONTROL_PROTOCOL, env)?, address))
}

fn channel(tls: Arc<ClientConfig>, address: &str) -> Channel {
    // TLS is made below it: the address that it sees is never looked up.
    Endpoint::from_static("http://peer.ballast")
        .connect_timeout(CONNECT_TIME)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .keep_alive_while_idle(true)
        .connect_with_connector_lazy(Connector { tls, address: address.to_owned() })
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

/// Makes the connections of a channel.
#[derive(Clone)]
struct Connector {
    tls: Arc<ClientConfig>,
    address: String,
}

impl Connector {
    async fn connect(self) -> std::io::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(&self.address).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::try_from(SERVER_NAME).map_err(std::io::Error::other)?;
        let mut stream = TlsConnector::from(self.tls).connect(name, stream).await?;
        // A hub that does not accept us says so when our side of the handshake is done, where its
        // first words would be: then this fails, and not a call that is under way.
        if stream.fill_buf().await?.is_empty() {
            return Err(std::io::Error::other("it ended the connection at once"));
        }
        let (_, connection) = stream.get_ref();
        match connection.peer_certificates().and_then(peer_of) {
            Some(peer) if peer.name.role() == PeerRole::Hub => Ok(stream),
            _ => Err(std::io::Error::other("its certificate is not a hub's")),
        }
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
