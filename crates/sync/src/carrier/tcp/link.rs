//! A peer that is reached over TCP: the connections to it that are kept.

use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use ballast_format::hash::XorbHash;
use bytes::Bytes;
use rustls_pki_types::ServerName;
use tokio::io::BufReader;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{Buffered, tune};
use crate::carrier::ask::{Asker, Line, check_permit, check_xorbs, unreachable};
use crate::carrier::claim::Claims;
use crate::carrier::pipe::Wire;
use crate::carrier::shared::Shared;
use crate::carrier::{Arrivals, Error, Link, Request, Result};
use crate::cluster::{CARRIER_PROTOCOL, PeerKey, PeerName, Revocations, SERVER_NAME, peer_of};

/// Calls of one peer that run at once; others wait for one of these to end. A node asks its parent
/// for each stripe by itself, and for what follows before it has the last of that.
const MOST_BUSY: usize = 32;
/// Connections to one peer that are kept while nobody uses them.
const MOST_KEPT: usize = 4;
/// How long: less than the other side waits for a call.
const KEPT_FOR: Duration = Duration::from_secs(90);
/// A peer that takes longer to answer than this is not there.
const CONNECT_TAKES: Duration = Duration::from_secs(10);
/// Bytes that are read from a socket at once: as many as the kernel puts together.
const INCOMING_BYTES: usize = 64 << 10;

type Connection = Wire<TlsStream<Buffered>>;

/// A peer, and the connections to it.
///
/// It lives until a connection breaks, the peer lies, or nobody uses it: whoever connects anew then
/// shows its permits anew, which a peer that was restarted has forgotten.
pub(super) struct Pooled {
    shared: Shared,
    connector: TlsConnector,
    revocations: Revocations,
    address: SocketAddr,
    peer: PeerName,
    /// The key that it had when it was first met.
    key: OnceLock<PeerKey>,
    /// How long it took until the first connection was there, which is between the two kernels.
    round_trip: OnceLock<Duration>,
    is_open: AtomicBool,
    slots: Arc<Semaphore>,
    kept: Mutex<Vec<Kept>>,
}

struct Kept {
    connection: Connection,
    since: Duration,
}

impl Pooled {
    /// Connects once, to learn whether the peer is there and who it is.
    pub(super) async fn connect(
        shared: Shared,
        connector: TlsConnector,
        revocations: Revocations,
        address: SocketAddr,
        peer: PeerName,
    ) -> Result<Arc<Self>> {
        let (slots, kept) = (Arc::new(Semaphore::new(MOST_BUSY)), Mutex::default());
        let is_open = AtomicBool::new(true);
        let pooled = Self {
            shared,
            connector,
            revocations,
            address,
            peer,
            key: OnceLock::new(),
            round_trip: OnceLock::new(),
            is_open,
            slots,
            kept,
        };
        let connection = pooled.open().await?;
        pooled.keep(connection);
        Ok(Arc::new(pooled))
    }

    async fn open(&self) -> Result<Connection> {
        let stream = self.shared.within(CONNECT_TAKES, self.handshake()).await;
        let stream = stream.map_err(|error| unreachable(&self.peer, &error))?;
        let session = stream.get_ref().1;
        let who = session.peer_certificates().and_then(peer_of);
        let lied = |reason| Err(Error::Lied { peer: self.peer.to_string(), reason });
        match who {
            // One that has joined anew is another process, which knows nothing of this link.
            Some(who) if who.name == self.peer => {
                if *self.key.get_or_init(|| who.key) != who.key {
                    let anew = io::Error::other("it has joined anew");
                    return Err(unreachable(&self.peer, &anew));
                }
            }
            Some(who) => return lied(format!("`{}` answers at {}", who.name, self.address)),
            None => return lied(format!("somebody without a name answers at {}", self.address)),
        }
        if session.alpn_protocol() != Some(CARRIER_PROTOCOL) {
            return lied(format!("{} does not speak the same protocol", self.address));
        }
        Ok(Wire(stream))
    }

    async fn handshake(&self) -> io::Result<TlsStream<Buffered>> {
        let began = self.shared.env.monotonic();
        let stream = TcpStream::connect(self.address).await?;
        self.round_trip.get_or_init(|| self.shared.env.monotonic().saturating_sub(began));
        tune(&stream)?;
        let stream = BufReader::with_capacity(INCOMING_BYTES, stream);
        let server = ServerName::try_from(SERVER_NAME).map_err(io::Error::other)?;
        self.connector.connect(server, stream).await
    }

    /// A connection for one call: one that is kept, or a new one.
    async fn borrow(self: Arc<Self>) -> Result<Borrowed> {
        let closed = || io::Error::new(io::ErrorKind::NotConnected, "the connection was closed");
        let slot = Arc::clone(&self.slots).acquire_owned().await;
        let slot = slot.map_err(|_| unreachable(&self.peer, &closed()))?;
        if self.key.get().is_some_and(|key| self.revocations.has(key)) {
            self.close();
        }
        if !self.is_open.load(Ordering::Relaxed) {
            return Err(unreachable(&self.peer, &closed()));
        }
        let kept = self.kept().pop();
        let connection = match kept {
            Some(kept) => {
                let mut connection = kept.connection;
                if !connection.is_quiet() {
                    self.close();
                    return Err(unreachable(&self.peer, &closed()));
                }
                connection
            }
            None => self.open().await.inspect_err(|_| self.close())?,
        };
        Ok(Borrowed { pooled: self, connection, _slot: slot })
    }

    fn keep(&self, connection: Connection) {
        let mut kept = self.kept();
        if self.is_open.load(Ordering::Relaxed) && kept.len() < MOST_KEPT {
            kept.push(Kept { connection, since: self.shared.env.monotonic() });
        }
    }

    fn kept(&self) -> MutexGuard<'_, Vec<Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close(&self) {
        self.is_open.store(false, Ordering::Relaxed);
        self.kept().clear();
    }

    /// Closes connections that nobody uses, and all of it with the last one; whether it is open.
    pub(super) fn look_through(&self) -> bool {
        let now = self.shared.env.monotonic();
        let is_used = self.slots.available_permits() < MOST_BUSY;
        let mut kept = self.kept();
        let all_quiet = kept.iter_mut().all(|kept| kept.connection.is_quiet());
        kept.retain(|kept| now.saturating_sub(kept.since) < KEPT_FOR);
        let is_empty = kept.is_empty();
        drop(kept);
        if !all_quiet || (is_empty && !is_used) {
            self.close();
        }
        self.is_open.load(Ordering::Relaxed)
    }
}

/// A connection in use; closed if it is dropped, since answers may be on their way.
struct Borrowed {
    pooled: Arc<Pooled>,
    connection: Connection,
    _slot: OwnedSemaphorePermit,
}

impl Line for Borrowed {
    type Pipe = Connection;

    fn pipe(&mut self) -> &mut Connection {
        &mut self.connection
    }

    fn done(self) {
        self.pooled.keep(self.connection);
    }

    fn closer(&self) -> impl Fn() + Send + 'static {
        let pooled = Arc::clone(&self.pooled);
        move || pooled.close()
    }
}

/// What users hold: the connections are closed when the last of them is gone.
pub(super) struct TcpLink {
    pooled: Arc<Pooled>,
}

impl TcpLink {
    pub(super) fn new(pooled: Arc<Pooled>) -> Self {
        Self { pooled }
    }

    async fn asker(&self) -> Result<Asker<Borrowed>> {
        let line = Arc::clone(&self.pooled).borrow().await?;
        let (shared, peer) = (self.pooled.shared.clone(), self.pooled.peer.clone());
        Ok(Asker { shared, peer, line })
    }
}

#[async_trait]
impl Link for TcpLink {
    fn peer(&self) -> &PeerName {
        &self.pooled.peer
    }

    async fn show(&self, permit: Bytes) -> Result<()> {
        check_permit(&permit)?;
        self.asker().await?.show(&permit).await
    }

    async fn request(&self, request: Request) -> Result<Arrivals> {
        let claims = Claims::new(request).map_err(Error::Invalid)?;
        self.asker().await?.request(claims).await
    }

    async fn holdings(&self, xorbs: &[XorbHash]) -> Result<Vec<Vec<Range<u32>>>> {
        check_xorbs(xorbs)?;
        self.asker().await?.holdings(xorbs).await
    }

    fn is_open(&self) -> bool {
        self.pooled.is_open.load(Ordering::Relaxed)
    }

    fn round_trip(&self) -> Duration {
        self.pooled.round_trip.get().copied().unwrap_or_default()
    }
}
