//! A connection as its streams and the driver share it.
//!
//! Whoever reads or writes leaves its buffer here, and the driver fills or empties it as packets
//! come and go: a task is woken once for each run, and not for each train of packets.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ballast_store::env::SharedEnv;
use bytes::Bytes;
use quinn_proto::{ConnectionHandle, Dir, ReadError, StreamId, VarInt, WriteError};
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;

use crate::buffers::Buffer;

/// The clock, as the protocol wants it.
#[derive(Clone, Debug)]
pub(super) struct Clock {
    env: SharedEnv,
    base: Instant,
    offset: Duration,
}

impl Clock {
    #[expect(clippy::disallowed_methods, reason = "the protocol counts in `Instant`s from any one")]
    pub(super) fn new(env: SharedEnv) -> Self {
        let offset = env.monotonic();
        Self { env, base: Instant::now(), offset }
    }

    pub(super) fn now(&self) -> Instant {
        self.base + self.env.monotonic().saturating_sub(self.offset)
    }
}

/// Connections that the driver should look at.
#[derive(Debug, Default)]
pub(super) struct Touched {
    list: Mutex<Vec<ConnectionHandle>>,
    pub(super) woken: Notify,
}

impl Touched {
    pub(super) fn take(&self, into: &mut Vec<ConnectionHandle>) {
        into.append(&mut self.list.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// A connection.
pub(super) struct Connection {
    pub(super) handle: ConnectionHandle,
    clock: Clock,
    touched: Arc<Touched>,
    is_touched: AtomicBool,
    state: Mutex<State>,
}

/// What is behind the lock.
pub(super) struct State {
    pub(super) inner: quinn_proto::Connection,
    reads: HashMap<StreamId, Reading>,
    writes: HashMap<StreamId, Writing>,
    /// Who wants to know that its stream was stopped.
    stops: HashMap<StreamId, oneshot::Sender<()>>,
    /// Who waits until the peer allows another stream.
    opens: Vec<oneshot::Sender<()>>,
    /// Why it is over, if it is.
    lost: Option<String>,
    over: CancellationToken,
}

struct Reading {
    into: Buffer,
    filled: usize,
    /// The stream may end before the first byte.
    may_end: bool,
    done: oneshot::Sender<io::Result<Option<Buffer>>>,
}

struct Writing {
    /// The head and the body, as far as they are not handed over.
    rest: [Bytes; 2],
    done: oneshot::Sender<io::Result<()>>,
}

impl Connection {
    pub(super) fn new(
        handle: ConnectionHandle,
        inner: quinn_proto::Connection,
        clock: Clock,
        touched: Arc<Touched>,
    ) -> Self {
        let state = State {
            inner,
            reads: HashMap::new(),
            writes: HashMap::new(),
            stops: HashMap::new(),
            opens: Vec::new(),
            lost: None,
            over: CancellationToken::new(),
        };
        let (is_touched, state) = (AtomicBool::new(false), Mutex::new(state));
        Self { handle, clock, touched, is_touched, state }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the driver does not know yet that it should look here.
    pub(super) fn mark(&self) -> bool {
        !self.is_touched.swap(true, Ordering::AcqRel)
    }

    /// The driver looks here now.
    pub(super) fn unmark(&self) {
        self.is_touched.store(false, Ordering::Release);
    }

    /// Makes the driver look here soon.
    pub(super) fn touch(&self) {
        if self.mark() {
            let list = &self.touched.list;
            list.lock().unwrap_or_else(PoisonError::into_inner).push(self.handle);
            self.touched.woken.notify_one();
        }
    }

    pub(super) fn is_lost(&self) -> bool {
        self.state().lost.is_some()
    }

    /// Ends it; the peer is told.
    pub(super) fn close(&self) {
        let mut state = self.state();
        state.inner.close(self.clock.now(), VarInt::from_u32(0), Bytes::new());
        state.lose("it was closed");
        drop(state);
        self.touch();
    }

    /// A new stream, as soon as the peer allows one.
    pub(super) async fn open(&self) -> io::Result<StreamId> {
        loop {
            let waiting = {
                let mut state = self.state();
                state.check()?;
                if let Some(id) = state.inner.streams().open(Dir::Bi) {
                    return Ok(id);
                }
                let (told, waiting) = oneshot::channel();
                state.opens.retain(|other| !other.is_closed());
                state.opens.push(told);
                waiting
            };
            // Woken or not, the next round finds out.
            let _ = waiting.await;
        }
    }

    /// Fills a buffer from a stream. `None`: the stream ended before its first byte, as it may.
    pub(super) async fn read(
        &self,
        id: StreamId,
        into: Buffer,
        may_end: bool,
    ) -> io::Result<Option<Buffer>> {
        let (done, outcome) = oneshot::channel();
        {
            let mut state = self.state();
            state.check()?;
            state.reads.insert(id, Reading { into, filled: 0, may_end, done });
            state.fill(id);
        }
        // Reading makes room, which the peer should hear of.
        self.touch();
        outcome.await.unwrap_or_else(|_| Err(ended()))
    }

    /// Hands bytes to a stream.
    pub(super) async fn write(&self, id: StreamId, rest: [Bytes; 2]) -> io::Result<()> {
        let (done, outcome) = oneshot::channel();
        {
            let mut state = self.state();
            state.check()?;
            state.writes.insert(id, Writing { rest, done });
            state.empty(id);
        }
        self.touch();
        outcome.await.unwrap_or_else(|_| Err(ended()))
    }

    /// Returns when the peer does not want the rest of a stream.
    pub(super) async fn stopped(&self, id: StreamId) {
        let told = {
            let mut state = self.state();
            let is_open = matches!(state.inner.send_stream(id).stopped(), Ok(None));
            if state.lost.is_some() || !is_open {
                return;
            }
            let (tell, told) = oneshot::channel();
            state.stops.insert(id, tell);
            told
        };
        let _ = told.await;
    }

    /// Says that nothing more is written to a stream.
    pub(super) fn finish(&self, id: StreamId) {
        if self.state().inner.send_stream(id).finish().is_ok() {
            self.touch();
        }
    }

    /// Serves the streams of more urgent calls first.
    pub(super) fn set_priority(&self, id: StreamId, priority: i32) {
        // A stream that is over has no priority.
        let _ = self.state().inner.send_stream(id).set_priority(priority);
    }

    /// Ends a stream, both ways: what was written is still sent, and what would still come is not
    /// wanted.
    pub(super) fn leave(&self, id: StreamId) {
        let mut state = self.state();
        state.reads.remove(&id);
        state.writes.remove(&id);
        state.stops.remove(&id);
        if state.lost.is_some() {
            return;
        }
        let none = VarInt::from_u32(0);
        // Each of these fails if the stream is over in that direction, which is as well.
        let mut sending = state.inner.send_stream(id);
        if sending.finish().is_err() {
            let _ = sending.reset(none);
        }
        let mut receiving = state.inner.recv_stream(id);
        let is_over = match receiving.read(true) {
            Ok(mut chunks) => matches!(chunks.next(1), Ok(None)),
            Err(_) => true,
        };
        if !is_over {
            let _ = receiving.stop(none);
        }
        drop(state);
        self.touch();
    }
}

impl State {
    fn check(&self) -> io::Result<()> {
        self.lost.as_ref().map_or(Ok(()), |reason| Err(lost(reason)))
    }

    /// It is over: everybody who waits is told.
    pub(super) fn lose(&mut self, reason: &str) {
        if self.lost.is_some() {
            return;
        }
        self.lost = Some(reason.to_owned());
        for (_, reading) in self.reads.drain() {
            let _ = reading.done.send(Err(lost(reason)));
        }
        for (_, writing) in self.writes.drain() {
            let _ = writing.done.send(Err(lost(reason)));
        }
        self.stops.clear();
        self.opens.clear();
        self.over.cancel();
    }

    /// Cancelled when it is over.
    pub(super) fn over(&self) -> CancellationToken {
        self.over.clone()
    }

    /// A stream has something, or has ended.
    pub(super) fn fill(&mut self, id: StreamId) {
        let Some(mut reading) = self.reads.remove(&id) else { return };
        match reading.advance(&mut self.inner, id) {
            Some(outcome) => {
                let outcome = outcome.map(|has_any| has_any.then_some(reading.into));
                let _ = reading.done.send(outcome);
            }
            None => {
                self.reads.insert(id, reading);
            }
        }
    }

    /// A stream has room, or is not wanted any more.
    pub(super) fn empty(&mut self, id: StreamId) {
        let Some(mut writing) = self.writes.remove(&id) else { return };
        match writing.advance(&mut self.inner, id) {
            Some(outcome) => {
                let _ = writing.done.send(outcome);
            }
            None => {
                self.writes.insert(id, writing);
            }
        }
    }

    /// The peer does not want the rest of a stream.
    pub(super) fn stop(&mut self, id: StreamId) {
        self.stops.remove(&id);
        self.empty(id);
    }

    /// The peer allows more streams.
    pub(super) fn allow(&mut self) {
        self.opens.clear();
    }
}

impl Reading {
    /// Takes what is there; whether there was anything, once it is full or the stream has ended.
    fn advance(
        &mut self,
        inner: &mut quinn_proto::Connection,
        id: StreamId,
    ) -> Option<io::Result<bool>> {
        let mut stream = inner.recv_stream(id);
        let Ok(mut chunks) = stream.read(true) else { return Some(Err(ended())) };
        loop {
            let room = &mut self.into.bytes_mut()[self.filled..];
            if room.is_empty() {
                return Some(Ok(true));
            }
            match chunks.next(room.len()) {
                Ok(Some(chunk)) => {
                    room[..chunk.bytes.len()].copy_from_slice(&chunk.bytes);
                    self.filled += chunk.bytes.len();
                }
                Ok(None) if self.filled == 0 && self.may_end => return Some(Ok(false)),
                Ok(None) => return Some(Err(ended())),
                Err(ReadError::Blocked) => return None,
                Err(ReadError::Reset(_)) => {
                    return Some(Err(io::Error::new(io::ErrorKind::ConnectionReset, "it gave up")));
                }
            }
        }
    }
}

impl Writing {
    fn advance(
        &mut self,
        inner: &mut quinn_proto::Connection,
        id: StreamId,
    ) -> Option<io::Result<()>> {
        let mut stream = inner.send_stream(id);
        loop {
            let from = usize::from(self.rest[0].is_empty());
            if self.rest[from..].iter().all(Bytes::is_empty) {
                return Some(Ok(()));
            }
            match stream.write_chunks(&mut self.rest[from..]) {
                Ok(_) => {}
                Err(WriteError::Blocked) => return None,
                Err(WriteError::Stopped(_) | WriteError::ClosedStream) => {
                    return Some(Err(io::Error::new(
                        io::ErrorKind::BrokenPipe,
                        "it is not wanted",
                    )));
                }
            }
        }
    }
}

fn ended() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the stream ended early")
}

fn lost(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, format!("the connection is lost: {reason}"))
}
