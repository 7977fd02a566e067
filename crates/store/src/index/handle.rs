//! The index for asynchronous code: questions go to threads of the index's own.
//!
//! One thread reads and one writes, so that a question never waits behind a flush. Both queues are
//! bounded; who asks waits without holding a thread. A panic of the engine is caught, and from
//! then on every call fails: the index is suspect and is rebuilt at the next start.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::{mpsc, oneshot};

use super::open::CleanMarker;
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
    Close { reply: Reply<()> },
}

/// The index, as everybody sees it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct IndexHandle {
    reads: mpsc::Sender<Read>,
    writes: mpsc::Sender<Write>,
    state: Arc<State>,
}

#[derive(Debug)]
struct State {
    /// The engine panicked: nothing it says is believed.
    broken: AtomicBool,
    /// It holds all that it should; false while a rebuild is under way.
    whole: AtomicBool,
}

impl IndexHandle {
    /// Serves an engine that leaves nothing behind, such as the one in memory.
    pub fn over(index: impl Index) -> Result<Self> {
        Self::start(Arc::new(index), None, false)
    }

    pub(super) fn start(
        index: Arc<dyn Index>,
        marker: Option<CleanMarker>,
        whole: bool,
    ) -> Result<Self> {
        let state =
            Arc::new(State { broken: AtomicBool::new(false), whole: AtomicBool::new(whole) });
        let (reads, read_queue) = mpsc::channel(READ_QUEUE);
        let (writes, write_queue) = mpsc::channel(WRITE_QUEUE);
        let reader = Lane { index: Arc::clone(&index), state: Arc::clone(&state) };
        let writer = Lane { index, state: Arc::clone(&state) };
        spawn("index-read", move || reader.serve_reads(read_queue))?;
        spawn("index-write", move || {
            writer.serve_writes(write_queue, marker);
        })?;
        Ok(Self { reads, writes, state })
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

    /// Stops the index in an orderly way, so that the next start finds it usable. Calls that are
    /// made after it, on any clone, fail.
    pub async fn close(&self) -> Result<()> {
        // The reader lets go of the engine first, so that the writer is the last to hold it.
        self.read(|reply| Read::Stop { reply }).await?;
        self.write(|reply| Write::Close { reply }).await
    }

    async fn read<T>(&self, question: impl FnOnce(Reply<T>) -> Read) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        self.reads.send(question(reply)).await.map_err(|_| closed())?;
        answer.await.map_err(|_| closed())?
    }

    async fn write<T>(&self, change: impl FnOnce(Reply<T>) -> Write) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        self.writes.send(change(reply)).await.map_err(|_| closed())?;
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
struct Lane {
    index: Arc<dyn Index>,
    state: Arc<State>,
}

impl Lane {
    fn serve_reads(self, mut queue: mpsc::Receiver<Read>) {
        while let Some(question) = queue.blocking_recv() {
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
                    let rows =
                        |index: &dyn Index| index.scan(table, &prefix, after.as_deref(), limit);
                    send(reply, self.ask(rows));
                }
                Read::Stop { reply } => {
                    drop(queue);
                    drop(self);
                    send(reply, Ok(()));
                    return;
                }
            }
        }
    }

    fn serve_writes(self, mut queue: mpsc::Receiver<Write>, marker: Option<CleanMarker>) {
        while let Some(change) = queue.blocking_recv() {
            match change {
                Write::Apply { batch, reply } => {
                    send(reply, self.ask(|index| index.apply(batch)));
                }
                Write::Flush { reply } => send(reply, self.ask(<dyn Index>::flush)),
                Write::Close { reply } => {
                    drop(queue);
                    send(reply, self.close(marker));
                    return;
                }
            }
        }
    }

    /// Flushes and lets go of the engine; only then says that the stop was clean.
    fn close(self, marker: Option<CleanMarker>) -> Result<()> {
        self.ask(<dyn Index>::flush)?;
        let Self { index, state } = self;
        if catch_unwind(AssertUnwindSafe(move || drop(index))).is_err() {
            return Err(panicked());
        }
        let believable =
            state.whole.load(Ordering::Acquire) && !state.broken.load(Ordering::Acquire);
        match marker {
            Some(marker) if believable => marker.write(),
            _ => Ok(()),
        }
    }

    fn ask<T>(&self, question: impl FnOnce(&dyn Index) -> Result<T>) -> Result<T> {
        if self.state.broken.load(Ordering::Acquire) {
            return Err(panicked());
        }
        let index = self.index.as_ref();
        catch_unwind(AssertUnwindSafe(|| question(index))).unwrap_or_else(|_| {
            self.state.broken.store(true, Ordering::Release);
            tracing::error!("the index engine panicked; the index is rebuilt at the next start");
            Err(panicked())
        })
    }
}

fn panicked() -> Error {
    Error::index("its engine panicked, and it is not believed any more")
}

/// Whoever asked may have gone away; that is their business.
fn send<T>(reply: Reply<T>, answer: Result<T>) {
    drop(reply.send(answer));
}

#[cfg(test)]
mod tests;
