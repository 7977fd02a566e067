//! How the bodies of requests are read: whole, as JSON, as a form, line by line or as a stream,
//! and always up to a limit.
//!
//! Bodies that are held in memory share one budget for the whole program, so that many large
//! requests at once wait or hear 503 instead of filling the memory. What is announced takes
//! nothing of it: a share grows with what has arrived. Those who do not say who they are have a
//! small part of it to themselves, so that they cannot take what others need.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::Poll;
use std::time::Duration;

use ballast_node::Error;
use ballast_node::access::Caller;
use ballast_node::download::ByteStream;
use ballast_node::hub::Hub;
use bytes::{Bytes, BytesMut};
use futures_util::future::{Either, select};
use futures_util::stream;
use http::StatusCode;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, HeaderValue};
use serde::de::DeserializeOwned;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::body::{Broken, RequestBody};
use crate::call::{Call, Query};
use crate::error::Failure;
use crate::gzip::MOST_BYTES;
use crate::json;

/// Bodies up to this size are not counted against the memory for buffers.
const SMALL_BODY_BYTES: u64 = 64 * 1024;
/// The step in which a body takes its share.
const STEP_BYTES: u64 = 1024 * 1024;
/// How long a body waits for more of its share. Two that wait for each other end so, one after the
/// other.
const PATIENCE: Duration = Duration::from_secs(20);
/// One part in so many is for anonymous callers: what they send is small.
const ANONYMOUS_PART: u64 = 8;

/// The memory that bodies may take in all, counted in KiB.
pub(crate) struct Buffers {
    known: Arc<Semaphore>,
    anonymous: Arc<Semaphore>,
    hub: Arc<Hub>,
}

/// A part of that memory; given back when dropped.
pub(crate) struct Share {
    free: Arc<Semaphore>,
    hub: Arc<Hub>,
    held: Option<OwnedSemaphorePermit>,
    bytes: u64,
}

struct Held {
    bytes: Vec<u8>,
    _share: Share,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

fn kib(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX)
}

impl Buffers {
    pub(crate) fn new(bytes: u64, hub: Arc<Hub>) -> Self {
        let anonymous = bytes / ANONYMOUS_PART;
        let budget = |bytes| Arc::new(Semaphore::new(kib(bytes) as usize));
        Self { known: budget(bytes - anonymous), anonymous: budget(anonymous), hub }
    }

    /// A share that covers `bytes` without taking them.
    fn share(&self, caller: &Caller, bytes: u64) -> Share {
        let free = match caller {
            Caller::Anonymous => &self.anonymous,
            Caller::User(_) => &self.known,
        };
        Share { free: Arc::clone(free), hub: Arc::clone(&self.hub), held: None, bytes }
    }
}

impl Share {
    /// Makes the share cover `bytes`, after waiting for a while if others hold too much.
    async fn grow(&mut self, bytes: u64) -> Result<(), Failure> {
        if bytes <= self.bytes {
            return Ok(());
        }
        let more = (bytes - self.bytes).max(STEP_BYTES);
        let taking = std::pin::pin!(Arc::clone(&self.free).acquire_many_owned(kib(more)));
        let permit = match select(taking, self.hub.env().sleep(PATIENCE)).await {
            Either::Left((Ok(permit), _)) => permit,
            Either::Left((Err(_), _)) | Either::Right(_) => return Err(no_memory()),
        };
        match &mut self.held {
            Some(held) => held.merge(permit),
            None => self.held = Some(permit),
        }
        self.bytes += more;
        Ok(())
    }
}

fn no_memory() -> Failure {
    Failure::busy("too many large requests at once; try again").closing()
}

impl Call {
    /// The whole body, at most `limit` bytes.
    pub(crate) async fn bytes(&mut self, limit: u64) -> Result<Bytes, Failure> {
        self.check_body(limit)?;
        let announced = self.body.announced();
        if announced.is_none_or(|length| length > SMALL_BODY_BYTES) {
            return self.big_bytes(limit, announced.unwrap_or(0)).await;
        }
        let mut whole = BytesMut::new();
        while let Some(piece) = self.body.next().await {
            whole.extend_from_slice(&piece.map_err(broken)?);
        }
        Ok(whole.freeze())
    }

    /// A body that takes its share of the memory for buffers until its last clone is dropped.
    async fn big_bytes(&mut self, limit: u64, announced: u64) -> Result<Bytes, Failure> {
        let mut share = self.gateway.buffers.share(&self.caller, SMALL_BODY_BYTES);
        // What is announced is not yet believed: the buffer grows with what arrives.
        let mut bytes = Vec::with_capacity(usize::try_from(announced.min(STEP_BYTES)).unwrap_or(0));
        while let Some(piece) = self.body.next().await {
            let piece = piece.map_err(broken)?;
            let length = (bytes.len() + piece.len()) as u64;
            if length > limit {
                return Err(Failure::too_large("the body", limit));
            }
            share.grow(length).await?;
            bytes.extend_from_slice(&piece);
        }
        Ok(Bytes::from_owner(Held { bytes, _share: share }))
    }

    /// The beginning of a body of at most `limit` bytes. The rest is read as well, and not kept.
    pub(crate) async fn beginning(&mut self, kept: usize, limit: u64) -> Result<Bytes, Failure> {
        self.check_body(limit)?;
        let (mut bytes, mut seen) = (BytesMut::new(), 0);
        while let Some(piece) = self.body.next().await {
            let piece = piece.map_err(broken)?;
            seen += piece.len() as u64;
            if seen > limit {
                return Err(Failure::too_large("the body", limit));
            }
            let room = kept - bytes.len();
            bytes.extend_from_slice(&piece[..room.min(piece.len())]);
        }
        Ok(bytes.freeze())
    }

    /// The body as JSON: at most `limit` bytes, 64 levels deep, no key twice in an object.
    pub(crate) async fn json<T: DeserializeOwned>(&mut self, limit: u64) -> Result<T, Failure> {
        let bytes = self.bytes(limit).await?;
        json::decode(&bytes)
    }

    /// The body as a form's pairs.
    pub(crate) async fn form(&mut self, limit: u64) -> Result<Query, Failure> {
        let bytes = self.bytes(limit).await?;
        let text = std::str::from_utf8(&bytes).map_err(|_| Failure::invalid("not UTF-8"))?;
        Query::parse(text)
    }

    /// The body as it comes, for a verb of the hub, and what to tell the client if that verb fails
    /// because the body did.
    pub(crate) fn stream(self, limit: u64) -> Result<(ByteStream, Fate), Failure> {
        // Files and xorbs are taken as they are: their bytes are what is hashed.
        if !self.is_plain()? {
            return Err(unsupported("this body must come without a content encoding", "identity"));
        }
        self.check_length(limit)?;
        let fate = Fate { caller: self.caller, limit, state: Arc::new(AtomicU8::new(FINE)) };
        let state = Arc::clone(&fate.state);
        let (mut body, mut left) = (self.body, limit);
        let stream = stream::poll_fn(move |context| {
            let piece = match body.poll_next(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Ready(Some(piece)) => piece,
            };
            let outcome = match piece {
                Ok(bytes) => match left.checked_sub(bytes.len() as u64) {
                    Some(rest) => {
                        left = rest;
                        return Poll::Ready(Some(Ok(bytes)));
                    }
                    None => LONG,
                },
                Err(Broken::Slow) => SLOW,
                // What comes here is never unpacked.
                Err(Broken::Cut | Broken::Garbled | Broken::Bomb) => CUT,
            };
            state.store(outcome, Ordering::Relaxed);
            let reason = "the request's body can't be read to its end".to_owned();
            Poll::Ready(Some(Err(Error::Invalid { reason })))
        });
        Ok((Box::pin(stream), fate))
    }

    /// The body line by line.
    pub(crate) fn lines(&mut self, line_limit: u64, limit: u64) -> Result<Lines<'_>, Failure> {
        self.check_body(limit)?;
        let share = self.gateway.buffers.share(&self.caller, SMALL_BODY_BYTES);
        let body = &mut self.body;
        Ok(Lines { body, buffer: BytesMut::new(), seen: 0, share, line_limit, limit, read: 0 })
    }

    /// Refuses what is announced to be too long, and encodings that we don't undo.
    fn check_body(&mut self, limit: u64) -> Result<(), Failure> {
        self.check_length(limit)?;
        if !self.is_plain()? {
            self.body.unpack();
        }
        Ok(())
    }

    fn check_length(&self, limit: u64) -> Result<(), Failure> {
        match self.body.announced_on_the_way() {
            Some(length) if length > limit => Err(Failure::too_large("the body", limit)),
            _ => Ok(()),
        }
    }

    /// Whether the body comes as it is; if not, it is gzip.
    fn is_plain(&self) -> Result<bool, Failure> {
        let mut values = self.headers.get_all(CONTENT_ENCODING).iter();
        let (encoding, others) = (values.next(), values.next());
        let is =
            |name: &[u8]| encoding.is_none_or(|value| value.as_bytes().eq_ignore_ascii_case(name));
        match others {
            None if is(b"identity") => Ok(true),
            None if is(b"gzip") || is(b"x-gzip") => Ok(false),
            _ => {
                let message = "bodies may come as they are or as `gzip`, and in no other encoding";
                Err(unsupported(message, "gzip, identity"))
            }
        }
    }
}

/// 415, with what would have been taken.
fn unsupported(message: &str, taken: &'static str) -> Failure {
    let failure = Failure::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message);
    failure.header(ACCEPT_ENCODING, HeaderValue::from_static(taken)).closing()
}

const FINE: u8 = 0;
const SLOW: u8 = 1;
const CUT: u8 = 2;
const LONG: u8 = 3;

/// How the body that a verb was reading ended.
pub(crate) struct Fate {
    caller: Caller,
    limit: u64,
    state: Arc<AtomicU8>,
}

impl Fate {
    /// What the client hears of `error`: the fault of its own body, if that was it.
    pub(crate) fn of(&self, error: Error) -> Failure {
        match self.state.load(Ordering::Relaxed) {
            SLOW => broken(Broken::Slow),
            CUT => broken(Broken::Cut),
            LONG => Failure::too_large("the body", self.limit),
            // The rest of the body may be long and nobody wants it any more.
            _ => Failure::of(error, &self.caller).closing(),
        }
    }
}

/// What a client hears when its body ended early.
fn broken(broken: Broken) -> Failure {
    let failure = match broken {
        Broken::Slow => Failure::new(StatusCode::REQUEST_TIMEOUT, "the body came too slowly"),
        Broken::Cut => Failure::invalid("the body was cut short"),
        Broken::Garbled => Failure::invalid("the body is not whole gzip"),
        Broken::Bomb => {
            let message = format!(
                "the body unpacks to too much: at most {MOST_BYTES} bytes, and \
                                   ten times what is sent"
            );
            Failure::new(StatusCode::PAYLOAD_TOO_LARGE, message)
        }
    };
    failure.closing()
}

/// A body's lines, each up to a limit; an empty line is skipped.
pub(crate) struct Lines<'a> {
    body: &'a mut RequestBody,
    buffer: BytesMut,
    /// How much of the buffer is known to hold no line end.
    seen: usize,
    share: Share,
    line_limit: u64,
    limit: u64,
    read: u64,
}

impl Lines<'_> {
    /// The next line without its end, or `None` behind the last one.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        loop {
            while let Some(line) = self.split() {
                if !line.is_empty() {
                    return Ok(Some(line));
                }
            }
            match self.body.next().await {
                Some(piece) => self.push(&piece.map_err(broken)?).await?,
                None if self.buffer.trim_ascii().is_empty() => return Ok(None),
                None => {
                    self.seen = 0;
                    return Ok(Some(self.buffer.split().freeze()));
                }
            }
        }
    }

    fn split(&mut self) -> Option<Bytes> {
        let end = self.buffer[self.seen..].iter().position(|byte| *byte == b'\n');
        let Some(end) = end.map(|end| end + self.seen) else {
            self.seen = self.buffer.len();
            return None;
        };
        self.seen = 0;
        let mut line = self.buffer.split_to(end + 1);
        line.truncate(end);
        if line.last() == Some(&b'\r') {
            line.truncate(end - 1);
        }
        Some(line.freeze())
    }

    async fn push(&mut self, piece: &[u8]) -> Result<(), Failure> {
        self.read += piece.len() as u64;
        if self.read > self.limit {
            return Err(Failure::too_large("the body", self.limit));
        }
        let length = (self.buffer.len() + piece.len()) as u64;
        self.share.grow(length).await?;
        self.buffer.extend_from_slice(piece);
        // Only what has no line end in it is an overlong line; `seen` stops before this piece.
        let line = self.buffer.len() - piece.len();
        let rest = piece.iter().position(|byte| *byte == b'\n').unwrap_or(piece.len());
        if (line + rest) as u64 > self.line_limit {
            return Err(Failure::too_large("a line", self.line_limit));
        }
        Ok(())
    }
}
