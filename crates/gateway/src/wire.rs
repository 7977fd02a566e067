//! The socket under a connection, watched: what the connection is doing and since when.
//!
//! Under TLS too it is the socket that is watched: its bytes are what a client sends and takes.
//! The watch knows three phases (waiting for a head, waiting between requests, answering) from
//! what passes through the socket, and costs a request a few loads and stores. It decides that a
//! connection has had its time; ending it is `serve.rs`'s part.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use ballast_node::hub::Hub;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

/// Part of a head is there, or the connection is new.
const HEAD: u8 = 0;
/// Nothing is there since the last answer.
const IDLE: u8 = 1;
/// A request is being answered.
const ANSWERING: u8 = 2;

/// What a client that was slow to take an answer must take of it before it counts as fast again:
/// one that takes a byte now and then holds as much memory as one that takes nothing.
const ENOUGH_BYTES: u64 = 64 * 1024;

/// How long each phase may last.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// For a head to arrive.
    pub(crate) head: Duration,
    /// Between two requests.
    pub(crate) idle: Duration,
    /// For a client to take something of an answer.
    pub(crate) stall: Duration,
}

/// Why a connection has had its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expired {
    /// A head did not arrive.
    Head,
    /// No request came.
    Idle,
    /// The client takes nothing of its answer.
    Stalled,
}

/// What a connection is doing, and since when.
pub(crate) struct Watch {
    hub: Arc<Hub>,
    phase: AtomicU8,
    /// When the phase began, in milliseconds of the monotonic clock.
    since: AtomicU64,
    /// Since when the client takes next to nothing, or 0.
    blocked: AtomicU64,
    /// What it has taken since then.
    taken: AtomicU64,
}

impl Watch {
    pub(crate) fn new(hub: Arc<Hub>) -> Arc<Self> {
        let watch = Self {
            hub,
            phase: AtomicU8::new(HEAD),
            since: AtomicU64::new(0),
            blocked: AtomicU64::new(0),
            taken: AtomicU64::new(0),
        };
        watch.since.store(watch.now(), Ordering::Relaxed);
        Arc::new(watch)
    }

    /// Milliseconds, never 0.
    fn now(&self) -> u64 {
        let now = self.hub.env().monotonic().as_millis();
        u64::try_from(now).unwrap_or(u64::MAX).max(1)
    }

    fn enter(&self, phase: u8) {
        self.blocked.store(0, Ordering::Relaxed);
        self.since.store(self.now(), Ordering::Relaxed);
        self.phase.store(phase, Ordering::Release);
    }

    /// A whole head has arrived; the answer is over when the guard is dropped.
    pub(crate) fn answering(self: &Arc<Self>) -> Answering {
        self.blocked.store(0, Ordering::Relaxed);
        self.phase.store(ANSWERING, Ordering::Release);
        Answering(Arc::clone(self))
    }

    fn received(&self, bytes: usize) {
        if bytes > 0 && self.phase.load(Ordering::Acquire) == IDLE {
            self.enter(HEAD);
        }
    }

    fn wrote(&self, outcome: &Poll<io::Result<usize>>) {
        let is_blocked = self.blocked.load(Ordering::Relaxed) != 0;
        match outcome {
            Poll::Pending if !is_blocked => {
                self.taken.store(0, Ordering::Relaxed);
                self.blocked.store(self.now(), Ordering::Relaxed);
            }
            Poll::Ready(Ok(bytes)) if is_blocked => {
                let taken = self.taken.fetch_add(*bytes as u64, Ordering::Relaxed);
                if taken + *bytes as u64 >= ENOUGH_BYTES {
                    self.blocked.store(0, Ordering::Relaxed);
                }
            }
            _ => {}
        }
    }

    /// How much longer the present phase may last; `None` while an answer makes progress.
    fn left(&self, patience: Patience) -> Option<(Duration, Expired)> {
        let (since, allowed, expired) = match self.blocked.load(Ordering::Relaxed) {
            0 => {
                let since = self.since.load(Ordering::Relaxed);
                match self.phase.load(Ordering::Acquire) {
                    HEAD => (since, patience.head, Expired::Head),
                    IDLE => (since, patience.idle, Expired::Idle),
                    _ => return None,
                }
            }
            since => (since, patience.stall, Expired::Stalled),
        };
        let passed = Duration::from_millis(self.now().saturating_sub(since));
        Some((allowed.saturating_sub(passed), expired))
    }

    /// Returns when the connection has had its time.
    pub(crate) async fn expired(&self, patience: Patience) -> Expired {
        loop {
            let pause = match self.left(patience) {
                Some((left, expired)) if left.is_zero() => return expired,
                Some((left, _)) => left.min(patience.head),
                None => patience.head,
            };
            // No phase that begins from now on can end sooner than a head's time.
            self.hub.env().sleep(pause.min(patience.stall)).await;
        }
    }
}

/// Held while a request is being answered.
pub(crate) struct Answering(Arc<Watch>);

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.enter(IDLE);
    }
}

/// What a connection is read from and written to.
pub(crate) enum Line {
    Plain(Wire),
    Tls(Box<TlsStream<Wire>>),
}

impl Line {
    /// Last words, as far as the socket takes them at once. Under TLS there are none: what is not
    /// yet on its way could not be sealed without waiting for the client.
    pub(crate) fn say(&self, text: &str) {
        if let Self::Plain(wire) = self {
            let _ = wire.stream.try_write(text.as_bytes());
        }
    }
}

impl AsyncRead for Line {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(wire) => Pin::new(wire).poll_read(context, buffer),
            Self::Tls(tls) => Pin::new(tls).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Line {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(wire) => Pin::new(wire).poll_write(context, bytes),
            Self::Tls(tls) => Pin::new(tls).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(wire) => Pin::new(wire).poll_write_vectored(context, slices),
            Self::Tls(tls) => Pin::new(tls).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(wire) => wire.is_write_vectored(),
            Self::Tls(tls) => tls.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(wire) => Pin::new(wire).poll_flush(context),
            Self::Tls(tls) => Pin::new(tls).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(wire) => Pin::new(wire).poll_shutdown(context),
            Self::Tls(tls) => Pin::new(tls).poll_shutdown(context),
        }
    }
}

/// A socket that tells its [`Watch`].
pub(crate) struct Wire {
    stream: TcpStream,
    watch: Arc<Watch>,
}

impl Wire {
    pub(crate) fn new(stream: TcpStream, watch: Arc<Watch>) -> Self {
        Self { stream, watch }
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let outcome = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.watch.received(buffer.filled().len() - before);
        outcome
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.watch.wrote(&outcome);
        outcome
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.watch.wrote(&outcome);
        outcome
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
