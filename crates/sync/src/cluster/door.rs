//! The one address at which peers reach a process: TCP and UDP on the same port.
//!
//! A TCP connection is TLS, and says in its handshake what it speaks: gRPC, or the carrier's
//! frames. UDP is for whoever carries frames over QUIC. Everything here has a limit: connections,
//! those in their handshake, the time of one, and how long somebody may stay who shows no
//! certificate.

use std::future::Future;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use ballast_node::worker::Runner;
use ballast_store::env::SharedEnv;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::{Connected, Server};

use super::services::{Guest, Services};
use super::{
    CARRIER_PROTOCOL, CONTROL_PROTOCOL, Error, Identity, Peer, PeerName, Result, Revocations,
    Strangers, peer_of,
};

/// How often a port is tried that is free for TCP, until it is free for UDP too.
const PORT_TRIES: usize = 16;
/// How long the listener rests when the system has no more file descriptors.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);
/// gRPC connections that are accepted and not yet taken over.
const ARRIVING: usize = 64;
/// Flow control of gRPC: with less, a stream can't use a fast network. The receiver's counts.
pub(super) const STREAM_WINDOW: u32 = 8 << 20;
/// The same for all streams of a connection.
pub(super) const CONNECTION_WINDOW: u32 = 16 << 20;
/// Larger frames cost less. No message is larger than one.
pub(super) const FRAME: u32 = 1 << 20;
/// How often a connection is tried that says nothing.
pub(super) const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// How long, and for how many bytes of theirs, whoever is refused may take to hear why.
const LINGERS: Duration = Duration::from_secs(2);
const MOST_UNHEARD: u64 = 64 * 1024;
/// How long calls may go on after the order to stop.
const GRACE: Duration = Duration::from_secs(3);
/// Calls at once on one gRPC connection.
const STREAMS: u32 = 64;

/// What a door may have.
#[derive(Clone, Copy, Debug)]
pub struct DoorLimits {
    /// Connections at once.
    pub connections: usize,
    /// Of these, in their handshake.
    pub handshakes: usize,
    /// How long a handshake may take.
    pub handshake_time: Duration,
    /// How long somebody may stay who shows no certificate: they join, and are gone.
    pub stranger_time: Duration,
}

impl Default for DoorLimits {
    fn default() -> Self {
        Self {
            connections: 4096,
            handshakes: 256,
            handshake_time: Duration::from_secs(10),
            stranger_time: Duration::from_mins(1),
        }
    }
}

/// A connection that speaks the carrier's frames.
pub type CarrierStream = TlsStream<TcpStream>;

/// Who takes connections that speak the carrier's frames.
#[async_trait]
pub trait TakeStreams: Send + Sync + 'static {
    /// Serves a connection of this peer to its end. Dropping it ends it.
    async fn serve(&self, stream: CarrierStream, peer: PeerName);
}

/// The address, bound.
#[derive(Debug)]
pub struct Door {
    tcp: TcpListener,
    udp: UdpSocket,
    address: SocketAddr,
}

impl Door {
    /// Binds both. Port 0 is any port that is free for both.
    pub async fn bind(listen: SocketAddr) -> Result<Self> {
        let failed = |error| Error::Invalid(format!("cannot listen on `{listen}`: {error}"));
        let mut tries = 0;
        loop {
            tries += 1;
            let tcp = TcpListener::bind(listen).await.map_err(failed)?;
            let address = tcp.local_addr().map_err(failed)?;
            match UdpSocket::bind(address) {
                Ok(udp) => {
                    udp.set_nonblocking(true).map_err(failed)?;
                    return Ok(Self { tcp, udp, address });
                }
                Err(_) if listen.port() == 0 && tries < PORT_TRIES => {}
                Err(error) => return Err(failed(error)),
            }
        }
    }

    /// What was bound.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The UDP socket; it does not block.
    pub fn udp(&self) -> Result<UdpSocket> {
        let failed = |error| Error::Invalid(format!("sharing the UDP socket: {error}"));
        self.udp.try_clone().map_err(failed)
    }

    /// Lets peers in until the runner stops.
    pub fn open(
        self,
        runner: &Runner,
        env: &SharedEnv,
        identity: &Identity,
        services: Services,
        streams: Option<Arc<dyn TakeStreams>>,
        limits: DoorLimits,
    ) -> Result<()> {
        let protocols = [CONTROL_PROTOCOL, CARRIER_PROTOCOL];
        let config = identity.server_config(&protocols, Strangers::Welcome)?;
        let revocations = identity.revocations().clone();
        let (calls, arriving) = mpsc::channel(ARRIVING);
        let guarded = services.behind(revocations.clone());
        let stop = runner.stopping();
        runner.spawn("peers' calls", async move {
            let arriving = ReceiverStream::new(arriving);
            let stopped = stop.cancelled_owned();
            let server = server();
            if let Err(error) =
                server.serve_with_incoming_shutdown(guarded, arriving, stopped).await
            {
                tracing::error!(%error, "peers are not answered any more");
            }
        });
        let inside = Inside {
            acceptor: TlsAcceptor::from(config),
            seats: Arc::new(Semaphore::new(limits.connections)),
            handshakes: Arc::new(Semaphore::new(limits.handshakes)),
            revocations,
            streams,
            calls,
            limits,
            env: Arc::clone(env),
            runner: runner.clone(),
        };
        runner.spawn("peers' door", Arc::new(inside).accept(self.tcp));
        Ok(())
    }
}

fn server() -> Server {
    Server::builder()
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME)
        .max_concurrent_streams(STREAMS)
        .http2_keepalive_interval(Some(KEEP_ALIVE))
        .http2_keepalive_timeout(Some(KEEP_ALIVE))
        .tcp_nodelay(true)
}

/// What an open door has.
struct Inside {
    acceptor: TlsAcceptor,
    seats: Arc<Semaphore>,
    handshakes: Arc<Semaphore>,
    revocations: Revocations,
    streams: Option<Arc<dyn TakeStreams>>,
    calls: mpsc::Sender<io::Result<CallStream>>,
    limits: DoorLimits,
    env: SharedEnv,
    runner: Runner,
}

impl Inside {
    async fn accept(self: Arc<Self>, listener: TcpListener) {
        let stop = self.runner.stopping();
        loop {
            let accepted = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, address)) => self.take(stream, address),
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    tracing::warn!(%error, "cannot accept peers now");
                    self.env.sleep(EXHAUSTED_PAUSE).await;
                }
            }
        }
    }

    /// Who finds no seat is not answered: saying why would take a handshake.
    fn take(self: &Arc<Self>, stream: TcpStream, address: SocketAddr) {
        let seat = Arc::clone(&self.seats).try_acquire_owned();
        let handshake = Arc::clone(&self.handshakes).try_acquire_owned();
        let (Ok(seat), Ok(handshake)) = (seat, handshake) else {
            tracing::debug!(%address, "too many peers; one is not let in");
            return;
        };
        let inside = Arc::clone(self);
        self.runner.spawn("peer", async move {
            let stop = inside.runner.stopping();
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = inside.meet(stream, address, seat, handshake) => {}
            }
        });
    }

    async fn meet(
        &self,
        stream: TcpStream,
        address: SocketAddr,
        seat: OwnedSemaphorePermit,
        handshake: OwnedSemaphorePermit,
    ) {
        // Frames are written whole; waiting for more of them only delays.
        let _ = stream.set_nodelay(true);
        let shaken = tokio::select! {
            shaken = self.acceptor.accept(stream).into_fallible() => shaken,
            () = self.env.sleep(self.limits.handshake_time) => {
                tracing::debug!(%address, "a peer takes too long to say who it is");
                return;
            }
        };
        drop(handshake);
        let stream = match shaken {
            Ok(stream) => stream,
            Err((error, stream)) => {
                tracing::debug!(%address, %error, "a peer is not let in");
                self.linger(stream).await;
                return;
            }
        };
        let (_, connection) = stream.get_ref();
        let peer = connection.peer_certificates().and_then(peer_of);
        match (connection.alpn_protocol(), peer) {
            (Some(CONTROL_PROTOCOL), peer) => {
                let ends = self.end_of(peer.as_ref());
                let guest = Guest { peer, address };
                let call = CallStream { stream, guest, ends: Some(ends), _seat: seat };
                let _ = self.calls.send(Ok(call)).await;
            }
            (Some(CARRIER_PROTOCOL), Some(peer)) => {
                let Some(streams) = &self.streams else { return };
                tokio::select! {
                    biased;
                    () = self.revocations.revoked(peer.key) => {
                        tracing::info!(peer = %peer.name, "a connection ends: it was revoked");
                    }
                    () = streams.serve(stream, peer.name.clone()) => {}
                }
            }
            // Who shows no certificate has no business with chunks.
            _ => tracing::debug!(%address, "a peer without a certificate, or a protocol"),
        }
    }

    /// Lets somebody hear why they are refused, which is on its way to them: a connection that is
    /// closed before all of theirs was read is reset, and that takes the words back.
    async fn linger(&self, mut stream: TcpStream) {
        let heard = async {
            let _ = stream.shutdown().await;
            let mut rest = stream.take(MOST_UNHEARD);
            let _ = tokio::io::copy(&mut rest, &mut tokio::io::sink()).await;
        };
        tokio::select! {
            () = heard => {}
            () = self.env.sleep(LINGERS) => {}
        }
    }

    /// When a connection for calls must end, whatever its peer says.
    fn end_of(&self, peer: Option<&Peer>) -> Ends {
        let (revocations, env) = (self.revocations.clone(), Arc::clone(&self.env));
        let stranger_time = self.limits.stranger_time;
        let (key, stop) = (peer.map(|peer| peer.key), self.runner.stopping());
        Box::pin(async move {
            let unwelcome = async {
                match key {
                    Some(key) => revocations.revoked(key).await,
                    None => env.sleep(stranger_time).await,
                }
            };
            let stopped = async {
                stop.cancelled().await;
                env.sleep(GRACE).await;
            };
            tokio::select! {
                () = unwelcome => {}
                () = stopped => {}
            }
        })
    }
}

/// Whether only the connection that was to be accepted is broken.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

type Ends = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A connection for calls, which ends when its peer is not welcome any more.
struct CallStream {
    stream: TlsStream<TcpStream>,
    guest: Guest,
    /// Nothing: it has ended.
    ends: Option<Ends>,
    _seat: OwnedSemaphorePermit,
}

impl CallStream {
    fn check(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        let is_over = self.ends.as_mut().is_none_or(|ends| ends.as_mut().poll(context).is_ready());
        if !is_over {
            return Ok(());
        }
        self.ends = None;
        Err(io::Error::from(io::ErrorKind::ConnectionAborted))
    }
}

impl Connected for CallStream {
    type ConnectInfo = Guest;

    fn connect_info(&self) -> Guest {
        self.guest.clone()
    }
}

impl AsyncRead for CallStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // Whoever answers calls waits here for the next one, so the end is seen at once.
        self.check(context)?;
        Pin::new(&mut self.stream).poll_read(context, into)
    }
}

impl AsyncWrite for CallStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
