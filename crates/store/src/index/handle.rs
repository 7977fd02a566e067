//! The index for asynchronous code: questions go to threads of the index's own.
//!
//! One thread reads and one writes, so that a question never waits behind a flush. Both queues are
//! bounded; who asks waits without holding a thread. When the engine fails (its disk is full, or it
//! panics, which is caught) nothing it says is believed any more, and every call fails until it is
//! replaced by an empty one, which whoever owns the index fills again.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::{mpsc, oneshot};

use super::memory::Memory;
use super::open::Files;
use super::{Batch, Index, Row, Table};
use crate::error::{Error, Result};

/// How many questions may wait; each is a key and a reply slot.
const READ_QUEUE: usize = 1024;

/// How many batches may wait; each may be large.
const WRITE_QUEUE: usize = 64;

type Reply<T> = oneshot::Sender<Result<T>>;

enum Read {
    Get {
        table: Table,
        key: Vec<u8>,
        reply: Reply<Option<Vec<u8>>>,
    },
    GetMany {
        table: Table,
        keys: Vec<Vec<u8>>,
        reply: Reply<Vec<Option<Vec<u8>>>>,
    },
    Scan {
        table: Table,
        prefix: Vec<u8>,
        after: Option<Vec<u8>>,
        limit: usize,
        reply: Reply<Vec<Row>>,
    },
    Stop {
        reply: Reply<()>,
    },
}

enum Write {
    Apply { batch: Batch, reply: Reply<()> },
    Flush { reply: Reply<()> },
    Replace { reply: Reply<()> },
    Close { reply: Reply<()> },
}

/// The index, as everybody sees it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct IndexHandle {
    way: Way,
    state: Arc<State>,
}

/// How questions come to the engine.
#[derive(Clone, Debug)]
enum Way {
    /// By queues, to threads.
    Threads { reads: mpsc::Sender<Read>, writes: mpsc::Sender<Write> },
    /// At once, on the thread of whoever asks.
    Here(Arc<Lane>),
}

struct State {
    /// `None` once it is closed.
    engine: RwLock<Option<Arc<dyn Index>>>,
    /// The engine failed: nothing it says is believed.
    broken: AtomicBool,
    /// It holds all that it should; false while a rebuild is under way.
    whole: AtomicBool,
    /// How often the engine was replaced.
    generation: AtomicU64,
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State").field("generation", &self.generation).finish_non_exhaustive()
    }
}

impl State {
    fn of(index: Arc<dyn Index>, whole: bool) -> Self {
        Self {
            engine: RwLock::new(Some(index)),
            broken: AtomicBool::new(false),
            whole: AtomicBool::new(whole),
            generation: AtomicU64::new(0),
        }
    }
}

impl IndexHandle {
    /// Serves an engine that leaves nothing behind, such as the one in memory.
    pub fn over(index: impl Index) -> Result<Self> {
        Self::start(Arc::new(index), None, false)
    }

    /// The same without threads: each question is answered where it is asked, and closing it means
    /// nothing. For simulations, which must not depend on when a thread runs.
    pub fn without_threads(index: impl Index) -> Self {
        let state = Arc::new(State::of(Arc::new(index), false));
        Self { way: Way::Here(Arc::new(Lane { state: Arc::clone(&state) })), state }
    }

    pub(super) fn start(index: Arc<dyn Index>, files: Option<Files>, whole: bool) -> Result<Self> {
        let state = Arc::new(State::of(index, whole));
        let (reads, read_queue) = mpsc::channel(READ_QUEUE);
        let (writes, write_queue) = mpsc::channel(WRITE_QUEUE);
        let reader = Lane { state: Arc::clone(&state) };
        let writer = Lane { state: Arc::clone(&state) };
        spawn("index-read", move || reader.serve_reads(read_queue))?;
        spawn("index-write", move || {
            writer.serve_writes(write_queue, files);
        })?;
        Ok(Self { way: Way::Threads { reads, writes }, state })
    }

    /// The value of a row.
    pub async fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let key = key.to_vec();
        self.read(|reply| Read::Get { table, key, reply }).await
    }

    /// The values of several rows of one table, in the order of the keys.
    pub async fn get_many(&self, table: Table, keys: Vec<Vec<u8>>) -> Result<Vec<Option<Vec<u8>>>> {
        self.read(|reply| Read::GetMany { table, keys, reply }).await
    }

    /// Rows by prefix, as [`Index::scan`].
    pub async fn scan(
        &self,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Row>> {
        let (prefix, after) = (prefix.to_vec(), after.map(<[u8]>::to_vec));
        self.read(|reply| Read::Scan { table, prefix, after, limit, reply }).await
    }

    /// Makes the changes of a batch; they are visible, all of them, when this returns.
    pub async fn apply(&self, batch: Batch) -> Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        self.write(|reply| Write::Apply { batch, reply }).await
    }

    /// Hands everything to the disk.
    pub async fn flush(&self) -> Result<()> {
        self.write(|reply| Write::Flush { reply }).await
    }

    /// Says that the index holds all that it should. An index that was opened for a rebuild is
    /// rebuilt again at the next start unless this was called.
    pub fn mark_whole(&self) {
        self.state.whole.store(true, Ordering::Release);
    }

    /// Whether the index holds all that it should. Until then what it lacks says nothing.
    pub fn is_whole(&self) -> bool {
        self.state.whole.load(Ordering::Acquire)
    }

    /// Whether the engine failed, so that every call fails until it is replaced.
    pub fn is_broken(&self) -> bool {
        self.state.broken.load(Ordering::Acquire)
    }

    /// Grows when the engine is replaced: rows that were put before are gone then.
    pub fn generation(&self) -> u64 {
        self.state.generation.load(Ordering::Acquire)
    }

    /// Puts an empty engine into the place of one that failed: in its folder, or, where that can't
    /// be (the disk may still be full), in memory until the next start. Whoever calls it fills it.
    pub async fn replace(&self) -> Result<()> {
        self.write(|reply| Write::Replace { reply }).await
    }

    /// Stops the index in an orderly way, so that the next start finds it usable. Calls that are
    /// made after it, on any clone, fail.
    pub async fn close(&self) -> Result<()> {
        // The reader lets go of the engine first, so that the writer is the last to hold it.
        self.read(|reply| Read::Stop { reply }).await?;
        self.write(|reply| Write::Close { reply }).await
    }

    async fn read<T>(&self, question: impl FnOnce(Reply<T>) -> Read) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        match &self.way {
            Way::Threads { reads, .. } => {
                reads.send(question(reply)).await.map_err(|_| closed())?;
            }
            Way::Here(lane) => lane.read(question(reply)),
        }
        answer.await.map_err(|_| closed())?
    }

    async fn write<T>(&self, change: impl FnOnce(Reply<T>) -> Write) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        match &self.way {
            Way::Threads { writes, .. } => {
                writes.send(change(reply)).await.map_err(|_| closed())?;
            }
            Way::Here(lane) => lane.write(change(reply), None),
        }
        answer.await.map_err(|_| closed())?
    }
}

fn closed() -> Error {
    Error::index("it is closed")
}

fn spawn(name: &str, serve: impl FnOnce() + Send + 'static) -> Result<()> {
    let spawned = std::thread::Builder::new().name(name.into()).spawn(serve);
    spawned.map(drop).map_err(|error| Error::index(format!("no thread for it: {error}")))
}

/// What a thread of the index works with.
#[derive(Debug)]
struct Lane {
    state: Arc<State>,
}

impl Lane {
    fn serve_reads(self, mut queue: mpsc::Receiver<Read>) {
        while let Some(question) = queue.blocking_recv() {
            match question {
                Read::Stop { reply } => {
                    drop(queue);
                    drop(self);
                    send(reply, Ok(()));
                    return;
                }
                question => self.read(question),
            }
        }
    }

    fn read(&self, question: Read) {
        match question {
            Read::Get { table, key, reply } => {
                send(reply, self.ask(|index| index.get(table, &key)));
            }
            Read::GetMany { table, keys, reply } => {
                let all = |index: &dyn Index| {
                    keys.iter().map(|key| index.get(table, key)).collect::<Result<_>>()
                };
                send(reply, self.ask(all));
            }
            Read::Scan { table, prefix, after, limit, reply } => {
                let rows = |index: &dyn Index| index.scan(table, &prefix, after.as_deref(), limit);
                send(reply, self.ask(rows));
            }
            Read::Stop { reply } => send(reply, Ok(())),
        }
    }

    fn serve_writes(self, mut queue: mpsc::Receiver<Write>, files: Option<Files>) {
        while let Some(change) = queue.blocking_recv() {
            match change {
                Write::Close { reply } => {
                    drop(queue);
                    send(reply, self.close(files.as_ref()));
                    return;
                }
                change => self.write(change, files.as_ref()),
            }
        }
    }

    fn write(&self, change: Write, files: Option<&Files>) {
        match change {
            Write::Apply { batch, reply } => {
                send(reply, self.ask(|index| index.apply(batch)));
            }
            Write::Replace { reply } => {
                self.replace(files);
                send(reply, Ok(()));
            }
            Write::Flush { reply } | Write::Close { reply } => {
                send(reply, self.ask(<dyn Index>::flush));
            }
        }
    }

    /// Flushes and lets go of the engine; only then says that the stop was clean.
    fn close(self, files: Option<&Files>) -> Result<()> {
        self.ask(<dyn Index>::flush)?;
        self.let_go()?;
        let state = &self.state;
        // One that was replaced is made anew once more, in peace.
        let believable = state.whole.load(Ordering::Acquire)
            && !state.broken.load(Ordering::Acquire)
            && state.generation.load(Ordering::Acquire) == 0;
        match files {
            Some(files) if believable => files.mark_clean(),
            _ => Ok(()),
        }
    }

    fn let_go(&self) -> Result<()> {
        let engine = self.state.engine.write().unwrap_or_else(PoisonError::into_inner).take();
        // A failed engine may panic once more.
        catch_unwind(AssertUnwindSafe(move || drop(engine)))
            .map_err(|_| Error::index("its engine panicked when it was closed"))
    }

    fn replace(&self, files: Option<&Files>) {
        if let Err(error) = self.let_go() {
            tracing::warn!(%error, "an index that failed is thrown away all the same");
        }
        let engine: Arc<dyn Index> = match files.map(Files::begin_anew) {
            Some(Ok(engine)) => engine,
            Some(Err(error)) => {
                tracing::warn!(%error, "the index is in memory until the next start");
                Arc::new(Memory::new())
            }
            None => Arc::new(Memory::new()),
        };
        *self.state.engine.write().unwrap_or_else(PoisonError::into_inner) = Some(engine);
        self.state.whole.store(false, Ordering::Release);
        self.state.generation.fetch_add(1, Ordering::AcqRel);
        self.state.broken.store(false, Ordering::Release);
    }

    fn ask<T>(&self, question: impl FnOnce(&dyn Index) -> Result<T>) -> Result<T> {
        if self.state.broken.load(Ordering::Acquire) {
            return Err(Error::index("it failed, and is made anew"));
        }
        let engine = self.state.engine.read().unwrap_or_else(PoisonError::into_inner);
        let Some(index) = engine.as_deref() else { return Err(closed()) };
        let failed = match catch_unwind(AssertUnwindSafe(|| question(index))) {
            Ok(Err(error @ Error::Index { .. })) => error,
            Ok(answer) => return answer,
            Err(_) => Error::index("its engine panicked"),
        };
        self.state.broken.store(true, Ordering::Release);
        tracing::warn!(error = %failed, "nothing in the index is believed any more");
        Err(failed)
    }
}

/// Whoever asked may have gone away; that is their business.
fn send<T>(reply: Reply<T>, answer: Result<T>) {
    drop(reply.send(answer));
}

#[cfg(test)]
mod tests;
