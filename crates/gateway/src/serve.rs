//! The listener: accepts connections up to its limits, serves HTTP/1 on them, and stops in order.
//!
//! A connection that is slow to say what it wants, says nothing for long or takes nothing of its
//! answer is ended, so that it cannot keep others from being served (R14). On the order to stop,
//! `/health` turns first, then nothing new is accepted, then requests in flight have their time
//! (R15). Tasks run on the hub's runner.

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ballast_node::account::network;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::body::RequestBody;
use crate::tls::Tls;
use crate::wire::{Expired, Line, Patience, Watch, Wire};
use crate::{Gateway, GatewaySettings, router};

/// What a head may measure, and how many lines it may have.
const HEAD_BYTES: usize = 64 * 1024;
const HEAD_LINES: usize = 100;
/// The most that is read from a socket at once: bodies arrive in frames of this size when the
/// sender is fast enough.
const READ_BYTES: usize = 256 * 1024;
/// How long the listener rests when the system has no more file descriptors.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);

/// What the system may keep of an answer that is not yet on its way: what a slow client can't take
/// stays unread in the store and not in memory, and how fast it takes is seen before its time ends.
#[cfg(target_os = "linux")]
const UNSENT_BYTES: u32 = 256 * 1024;
/// One connection in so many may be in its handshake at once.
const HANDSHAKING_PART: usize = 4;

const HEAD_TOO_SLOW: &str = "HTTP/1.1 408 Request Timeout\r\ncontent-type: application/json\r\n\
     connection: close\r\ncontent-length: 42\r\n\r\n{\"error\":\"the request's head is too slow\"}";
const TOO_MANY: &str = "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\n\
     retry-after: 1\r\nconnection: close\r\ncontent-length: 32\r\n\r\n\
     {\"error\":\"too many connections\"}";
const TOO_MANY_OF_YOURS: &str = "HTTP/1.1 429 Too Many Requests\r\n\
     content-type: application/json\r\nretry-after: 1\r\nratelimit: \"api\";r=0;t=1\r\n\
     connection: close\r\ncontent-length: 50\r\n\r\n\
     {\"error\":\"too many connections from your address\"}";

/// Answers on `listener` until `shutdown` is ready and what was in flight is done.
pub async fn serve(
    gateway: Arc<Gateway>,
    listener: TcpListener,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let mut shutdown = std::pin::pin!(shutdown);
    let seats = Seats::new(&gateway);
    let (stop, kill) = (CancellationToken::new(), CancellationToken::new());
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut shutdown => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, address)) => {
                let peer = address.ip();
                match seats.take(peer) {
                    Ok(seat) => {
                        let (stop, kill) = (stop.clone(), kill.clone());
                        let task = connection(Arc::clone(&gateway), stream, peer, stop, kill, seat);
                        gateway.hub.runner().spawn("connection", task);
                    }
                    Err(refusal) => {
                        gateway.metrics.refused_connections.fetch_add(1, Ordering::Relaxed);
                        refuse(&gateway, &stream, refusal);
                    }
                }
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "cannot accept connections now");
                gateway.hub.env().sleep(EXHAUSTED_PAUSE).await;
            }
        }
    }
    gateway.ready.store(false, Ordering::Relaxed);
    drop(listener);
    stop.cancel();
    tokio::select! {
        () = seats.all_free() => {}
        () = gateway.hub.env().sleep(gateway.settings.grace) => {
            tracing::warn!("requests were still running at the end of the grace period");
            kill.cancel();
            seats.all_free().await;
        }
    }
    Ok(())
}

/// Whether only the connection that was to be accepted is broken.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

fn refuse(gateway: &Gateway, stream: &TcpStream, refusal: &str) {
    if gateway.settings.tls.is_some() {
        // Saying it would take a handshake.
        return;
    }
    // The request may be here already; closing with it unread would take the answer back.
    let mut unread = [0; 4096];
    let _ = stream.try_read(&mut unread);
    let _ = stream.try_write(refusal.as_bytes());
}

/// Serves one connection until it ends or has had its time.
async fn connection(
    gateway: Arc<Gateway>,
    stream: TcpStream,
    peer: IpAddr,
    stop: CancellationToken,
    kill: CancellationToken,
    seat: Seat,
) {
    let _open = Open::new(&gateway);
    if let Err(error) = prepare(&stream) {
        tracing::debug!(%error, "a connection was gone before it was served");
        return;
    }
    let settings = &gateway.settings;
    let patience = patience(settings);
    let watch = Watch::new(Arc::clone(&gateway.hub));
    let wire = Wire::new(stream, Arc::clone(&watch));
    let begun = tokio::select! {
        biased;
        begun = begin(settings.tls.as_deref(), wire, &seat) => begun,
        // The time for the first head covers this too.
        _ = watch.expired(patience) => None,
        () = stop.cancelled() => None,
    };
    let Some(line) = begun else { return };
    let service = service_fn(|request| {
        let (gateway, answering) = (Arc::clone(&gateway), watch.answering());
        // In a box: hyper keeps room for an answer in each connection, and idle ones are many.
        Box::pin(async move {
            let of_body = Arc::clone(&gateway);
            let request: http::Request<hyper::body::Incoming> = request;
            let request = request.map(|body| RequestBody::new(body, of_body));
            let response = router::answer(gateway, request, peer).await;
            Ok::<_, Infallible>(response.map(|body| body.until_sent(answering)))
        })
    });
    let mut connection = http1::Builder::new()
        .max_buf_size(READ_BYTES)
        .max_header_size(HEAD_BYTES)
        .max_headers(HEAD_LINES)
        // Ours is kept by the watch, which knows idle from slow.
        .header_read_timeout(None)
        .serve_connection(TokioIo::new(line), service);

    let mut is_stopping = false;
    let mut expiry = std::pin::pin!(watch.expired(patience));
    loop {
        tokio::select! {
            ended = &mut connection => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "a connection broke");
                }
                return;
            }
            expired = &mut expiry => {
                let line = connection.into_parts().io.into_inner();
                if expired == Expired::Head {
                    line.say(HEAD_TOO_SLOW);
                }
                return;
            }
            () = stop.cancelled(), if !is_stopping => {
                is_stopping = true;
                Pin::new(&mut connection).graceful_shutdown();
            }
            () = kill.cancelled() => return,
        }
    }
}

fn patience(settings: &GatewaySettings) -> Patience {
    Patience {
        head: settings.head_timeout,
        idle: settings.idle_timeout,
        stall: settings.stall_timeout,
    }
}

/// Sets what holds for all connections.
fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    #[cfg(target_os = "linux")]
    socket2::SockRef::from(stream).set_tcp_notsent_lowat(UNSENT_BYTES)?;
    Ok(())
}

/// What is spoken on: begins TLS, if that is what we speak; `None` if that fails or too many do it
/// at once.
async fn begin(tls: Option<&Tls>, wire: Wire, seat: &Seat) -> Option<Line> {
    let Some(tls) = tls else { return Some(Line::Plain(wire)) };
    let Ok(_permit) = seat.handshakes.try_acquire() else {
        tracing::debug!("too many handshakes at once");
        return None;
    };
    match tls.acceptor().accept(wire).await {
        Ok(stream) => Some(Line::Tls(Box::new(stream))),
        Err(error) => {
            tracing::debug!(%error, "a handshake failed");
            None
        }
    }
}

/// Counts a connection while it lives.
struct Open(Arc<Gateway>);

impl Open {
    fn new(gateway: &Arc<Gateway>) -> Self {
        gateway.metrics.open_connections.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(gateway))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.metrics.open_connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The connections that may be there at once, in all and from one address.
struct Seats {
    free: Arc<Semaphore>,
    all: u32,
    by_address: Arc<Mutex<HashMap<IpAddr, usize>>>,
    most_by_address: usize,
    handshakes: Arc<Semaphore>,
}

/// One connection's seat, given back when dropped.
struct Seat {
    _permit: OwnedSemaphorePermit,
    address: IpAddr,
    by_address: Arc<Mutex<HashMap<IpAddr, usize>>>,
    handshakes: Arc<Semaphore>,
}

impl Seats {
    fn new(gateway: &Gateway) -> Self {
        let all = u32::try_from(gateway.settings.connections).unwrap_or(u32::MAX);
        Self {
            free: Arc::new(Semaphore::new(all as usize)),
            all,
            by_address: Arc::default(),
            most_by_address: match gateway.settings.trust_forwarded {
                // All come from the proxy.
                true => usize::MAX,
                false => gateway.settings.connections_per_address,
            },
            handshakes: Arc::new(Semaphore::new((all as usize).div_ceil(HANDSHAKING_PART))),
        }
    }

    fn take(&self, peer: IpAddr) -> Result<Seat, &'static str> {
        let permit = Arc::clone(&self.free).try_acquire_owned().map_err(|_| TOO_MANY)?;
        let address = network(peer);
        let mut seats = self.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = seats.entry(address).or_insert(0);
        if *taken >= self.most_by_address {
            return Err(TOO_MANY_OF_YOURS);
        }
        *taken += 1;
        Ok(Seat {
            _permit: permit,
            address,
            by_address: Arc::clone(&self.by_address),
            handshakes: Arc::clone(&self.handshakes),
        })
    }

    /// Returns when no connection is left.
    async fn all_free(&self) {
        // The semaphore is never closed, so this only ends by success.
        let _ = self.free.acquire_many(self.all).await;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut seats = self.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(taken) = seats.get_mut(&self.address) {
            *taken -= 1;
            if *taken == 0 {
                seats.remove(&self.address);
            }
        }
    }
}
