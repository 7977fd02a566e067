//! Bodies in both directions.
//!
//! [`Body`] is what we answer: nothing, one piece, or a stream of large frames that hyper writes
//! without copying. [`RequestBody`] is what a client sends; it is read through the limits of
//! [`crate::call::Call`] and is cut when it trickles. Nothing here looks into the bytes.

use std::error::Error as StdError;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use ballast_format::ErrorKind;
use ballast_node::download::ByteStream;
use bytes::Bytes;
use futures_util::StreamExt as _;
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;

use crate::Gateway;
use crate::gzip::Unpacking;
use crate::rate::Flight;
use crate::wire::Answering;

/// A body must bring, on average over [`WINDOW`], this many bytes each second.
pub(crate) const SLOWEST_BYTES_PER_SECOND: u64 = 1024;
/// How much waiting is averaged before a body is judged.
pub(crate) const WINDOW: Duration = Duration::from_secs(30);

/// Any error, as hyper wants it.
pub(crate) type BoxError = Box<dyn StdError + Send + Sync>;

/// The body of an answer.
pub(crate) struct Body {
    kind: Kind,
    /// Dropped with the body: how the connection learns that the answer is over.
    ending: Option<Answering>,
    /// The same for those who count requests in flight.
    flight: Option<Arc<Flight>>,
}

enum Kind {
    Empty,
    Full(Bytes),
    Stream { stream: ByteStream, left: Option<u64> },
}

impl Body {
    fn of(kind: Kind) -> Self {
        Self { kind, ending: None, flight: None }
    }

    /// No bytes.
    pub(crate) fn empty() -> Self {
        Self::of(Kind::Empty)
    }

    /// Frames as they come, with chunked transfer encoding.
    pub(crate) fn stream(stream: ByteStream) -> Self {
        Self::of(Kind::Stream { stream, left: None })
    }

    /// Frames that add up to exactly `length` bytes; a stream that ends early breaks the
    /// connection, so that a client never takes a part for the whole.
    pub(crate) fn stream_of(stream: ByteStream, length: u64) -> Self {
        Self::of(Kind::Stream { stream, left: Some(length) })
    }

    /// Keeps the request counted for as long as the body is being sent.
    pub(crate) fn counted_until_sent(mut self, flight: Arc<Flight>) -> Self {
        self.flight = Some(flight);
        self
    }

    /// Keeps `ending` alive for as long as the body is being sent.
    pub(crate) fn until_sent(mut self, ending: Answering) -> Self {
        self.ending = Some(ending);
        self
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self::of(if bytes.is_empty() { Kind::Empty } else { Kind::Full(bytes) })
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Self {
        Self::from(Bytes::from(bytes))
    }
}

impl From<String> for Body {
    fn from(text: String) -> Self {
        Self::from(Bytes::from(text))
    }
}

impl From<&'static str> for Body {
    fn from(text: &'static str) -> Self {
        Self::from(Bytes::from_static(text.as_bytes()))
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut self.kind {
            Kind::Empty => Poll::Ready(None),
            Kind::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                self.kind = Kind::Empty;
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Kind::Stream { stream, left } => {
                let next = loop {
                    match ready!(stream.poll_next_unpin(context)) {
                        Some(Ok(bytes)) if bytes.is_empty() => {}
                        next => break next,
                    }
                };
                Poll::Ready(match (next, left) {
                    (None, None | Some(0)) => None,
                    (None, Some(left)) => Some(Err(wrong_length(*left))),
                    (Some(Err(error)), _) => {
                        // The status is long gone; the broken connection tells the client.
                        if error.kind() == ErrorKind::Unavailable {
                            tracing::warn!(%error, "an answer breaks off");
                        } else {
                            tracing::error!(%error, "an answer breaks off");
                        }
                        Some(Err(error.into()))
                    }
                    (Some(Ok(bytes)), None) => Some(Ok(Frame::data(bytes))),
                    (Some(Ok(bytes)), Some(left)) => {
                        let length = bytes.len() as u64;
                        Some(match left.checked_sub(length) {
                            Some(rest) => {
                                *left = rest;
                                Ok(Frame::data(bytes))
                            }
                            None => Err(wrong_length(*left)),
                        })
                    }
                })
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Empty => true,
            Kind::Full(_) => false,
            Kind::Stream { left, .. } => *left == Some(0),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Empty => SizeHint::with_exact(0),
            Kind::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Kind::Stream { left: Some(left), .. } => SizeHint::with_exact(*left),
            Kind::Stream { left: None, .. } => SizeHint::default(),
        }
    }
}

fn wrong_length(left: u64) -> BoxError {
    tracing::error!(left, "an answer is not as long as it was announced");
    "the answer is not as long as it was announced".into()
}

/// Why a request's body could not be read to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    /// It came more slowly than [`SLOWEST_BYTES_PER_SECOND`].
    Slow,
    /// It ended before its announced length, or was malformed, or the connection broke.
    Cut,
    /// It is not the gzip that it is said to be.
    Garbled,
    /// It becomes larger than an honest sender's would.
    Bomb,
}

/// The body of a request, which is refused when it trickles.
pub(crate) struct RequestBody {
    incoming: Incoming,
    gateway: Arc<Gateway>,
    /// What unpacks it, once somebody asked for that.
    unpacking: Option<Box<Unpacking>>,
    /// Bytes and time spent waiting since the last judgement.
    bytes: u64,
    waited: Duration,
    waiting: Option<Waiting>,
}

struct Waiting {
    since: Duration,
    _counted: Counted,
    /// Only ever reached through `&mut`; the mutex is what lets a call be shared between tasks.
    alarm: Mutex<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

/// Counts a body while it is waited for.
struct Counted(Arc<Gateway>);

impl Counted {
    fn new(gateway: &Arc<Gateway>) -> Self {
        gateway.metrics.waiting_bodies.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(gateway))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.metrics.waiting_bodies.fetch_sub(1, Ordering::Relaxed);
    }
}

impl RequestBody {
    pub(crate) fn new(incoming: Incoming, gateway: Arc<Gateway>) -> Self {
        let (unpacking, waiting) = (None, None);
        Self { incoming, gateway, unpacking, bytes: 0, waited: Duration::ZERO, waiting }
    }

    /// The length that was announced, if any was. Of what comes packed, nobody knows it.
    pub(crate) fn announced(&self) -> Option<u64> {
        if self.unpacking.is_some() { None } else { self.announced_on_the_way() }
    }

    /// The length that was announced for what is on its way, packed or not.
    pub(crate) fn announced_on_the_way(&self) -> Option<u64> {
        http_body::Body::size_hint(&self.incoming).exact()
    }

    /// From now on what comes is gzip, and what is read is what is in it.
    pub(crate) fn unpack(&mut self) {
        self.unpacking.get_or_insert_with(|| Box::new(Unpacking::new()));
    }

    /// The next bytes, or `None` at the end.
    pub(crate) async fn next(&mut self) -> Option<Result<Bytes, Broken>> {
        std::future::poll_fn(|context| self.poll_next(context)).await
    }

    pub(crate) fn poll_next(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Broken>>> {
        loop {
            if let Some(unpacking) = &mut self.unpacking {
                if unpacking.owes_a_turn() {
                    context.waker().wake_by_ref();
                    return Poll::Pending;
                }
                if let Some(made) = unpacking.next() {
                    return Poll::Ready(Some(made));
                }
            }
            let came = ready!(self.poll_incoming(context));
            match (came, &mut self.unpacking) {
                (Some(Ok(packed)), Some(unpacking)) => unpacking.feed(packed),
                (None, Some(unpacking)) => return Poll::Ready(unpacking.end()),
                (came, _) => return Poll::Ready(came),
            }
        }
    }

    /// The next bytes as they are on their way.
    fn poll_incoming(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Broken>>> {
        loop {
            match http_body::Body::poll_frame(Pin::new(&mut self.incoming), context) {
                Poll::Ready(None) => {
                    self.waiting = None;
                    return Poll::Ready(None);
                }
                Poll::Ready(Some(Err(_))) => return Poll::Ready(Some(Err(Broken::Cut))),
                Poll::Ready(Some(Ok(frame))) => {
                    // Trailers carry nothing that we read.
                    let Ok(bytes) = frame.into_data() else { continue };
                    if let Some(waiting) = self.waiting.take() {
                        self.waited +=
                            self.gateway.hub.env().monotonic().saturating_sub(waiting.since);
                    }
                    self.bytes += bytes.len() as u64;
                    return Poll::Ready(Some(Ok(bytes)));
                }
                Poll::Pending => break,
            }
        }
        match self.poll_alarm(context) {
            Poll::Ready(()) => Poll::Ready(Some(Err(Broken::Slow))),
            Poll::Pending => Poll::Pending,
        }
    }

    /// Ready when the sender has had its time and used too little of it. Only time spent waiting
    /// for the sender counts: a server that is busy does not make its clients slow.
    fn poll_alarm(&mut self, context: &mut Context<'_>) -> Poll<()> {
        loop {
            let waiting = self.waiting.get_or_insert_with(|| {
                let left = WINDOW.saturating_sub(self.waited);
                let hub = Arc::clone(&self.gateway.hub);
                Waiting {
                    since: hub.env().monotonic(),
                    _counted: Counted::new(&self.gateway),
                    alarm: Mutex::new(Box::pin(async move { hub.env().sleep(left).await })),
                }
            });
            let alarm = waiting.alarm.get_mut().unwrap_or_else(PoisonError::into_inner);
            ready!(alarm.as_mut().poll(context));
            if self.bytes < SLOWEST_BYTES_PER_SECOND * WINDOW.as_secs() {
                return Poll::Ready(());
            }
            self.waiting = None;
            self.bytes = 0;
            self.waited = Duration::ZERO;
        }
    }
}
