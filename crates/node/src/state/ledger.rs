//! A log and the state that is folded from it.
//!
//! Appending is a loop: read what others wrote, ask the caller's rule what to change, try to
//! append, and begin again if somebody was first. In one process a mutex for each log keeps
//! writers from losing to each other; between processes the log itself decides (Invariant 3).

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use ballast_format::hash::{EntryHash, PackHash};
use ballast_format::id::{OperationId, UserId};
use ballast_format::log::{Change, Entry};
use ballast_store::env::random_bytes;
use ballast_store::index::{Batch, Table, schema};
use ballast_store::keyspace::LogId;
use ballast_store::objects::Store;
use ballast_store::reflog::{Append, Log, Tail};
use tokio::sync::Mutex;

use crate::error::{Error, Result};
use crate::hub::{Freshness, Hub};
use crate::state::rows;

/// Times that an append may lose to others before the caller is told to come again.
pub(crate) const MAX_ROUNDS: usize = 20;
/// Index rows that are read at once.
const ROWS: usize = 1000;

/// What a log is folded into.
pub(crate) trait State: Default + Send + Sync + 'static {
    /// What happens in the log.
    type Change: Change + Clone + Send + Sync + 'static;

    /// Takes an entry in. An entry that makes no sense was written by a faulty program; what it
    /// names and is not there is passed over.
    fn apply(&mut self, entry: &Entry<Self::Change>);

    /// The packs that a change brings: what is in them belongs into the index.
    fn packs(_changes: &[Self::Change]) -> Vec<PackHash> {
        Vec::new()
    }
}

struct Folded<S> {
    state: S,
    tail: Tail,
}

/// A log with its state in memory.
pub(crate) struct Ledger<S> {
    id: LogId,
    log: Log,
    folded: RwLock<Folded<S>>,
    writing: Mutex<()>,
    /// The log may be ahead of the state whatever the settings say about others.
    doubtful: AtomicBool,
    looked_ms: AtomicU64,
}

impl<S: State> Ledger<S> {
    pub(crate) fn new(store: &Store, id: LogId) -> Self {
        Self {
            id,
            log: Log::new(store.clone(), id),
            folded: RwLock::new(Folded { state: S::default(), tail: Tail::EMPTY }),
            writing: Mutex::new(()),
            doubtful: AtomicBool::new(true),
            looked_ms: AtomicU64::new(0),
        }
    }

    /// Looks at the state as it is known now.
    pub(crate) fn read<T>(&self, look: impl FnOnce(&S) -> T) -> T {
        look(&self.folded.read().unwrap_or_else(PoisonError::into_inner).state)
    }

    fn tail(&self) -> Tail {
        self.folded.read().unwrap_or_else(PoisonError::into_inner).tail
    }

    /// Reads what others wrote, if what is known may be older than the settings allow.
    pub(crate) async fn refresh(&self, hub: &Hub) -> Result<()> {
        let stale = match hub.settings().freshness {
            Freshness::Exclusive => false,
            Freshness::Within(age) => {
                let looked = Duration::from_millis(self.looked_ms.load(Ordering::Relaxed));
                hub.env().monotonic().saturating_sub(looked) >= age
            }
        };
        if stale || self.doubtful.load(Ordering::Relaxed) {
            let _writing = self.writing.lock().await;
            self.catch_up_locked(hub).await?;
        }
        Ok(())
    }

    /// Reads everything that was written.
    pub(crate) async fn catch_up(&self, hub: &Hub) -> Result<()> {
        let _writing = self.writing.lock().await;
        self.doubtful.store(true, Ordering::Relaxed);
        self.catch_up_locked(hub).await
    }

    async fn catch_up_locked(&self, hub: &Hub) -> Result<()> {
        let now = hub.env().monotonic();
        if self.tail() == Tail::EMPTY {
            self.load(hub).await?;
        }
        loop {
            let page = self.log.read_after::<S::Change>(&self.tail()).await?;
            let Some(last) = page.last().map(|stored| stored.tail) else { break };
            let mut batch = Batch::new();
            for stored in &page {
                for pack in S::packs(&stored.entry.changes) {
                    batch.extend(rows::of_stored_pack(hub, &self.id, pack).await?);
                }
                let key = schema::log_key(&self.id, stored.tail.number);
                batch.put(Table::Log, key, stored.bytes.to_vec());
                // Rows before the log position that they reflect, and no batch without end.
                if batch.len() > ROWS {
                    hub.index().apply(std::mem::take(&mut batch)).await?;
                }
            }
            hub.index().apply(batch).await?;
            self.fold(page.iter().map(|stored| &stored.entry), last);
        }
        self.doubtful.store(false, Ordering::Relaxed);
        let millis = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        self.looked_ms.store(millis, Ordering::Relaxed);
        Ok(())
    }

    /// Folds the entries that the index kept.
    async fn load(&self, hub: &Hub) -> Result<()> {
        let mut after: Option<Vec<u8>> = None;
        loop {
            let prefix = schema::log_prefix(&self.id);
            let rows = hub.index().scan(Table::Log, &prefix, after.as_deref(), ROWS).await?;
            let Some((key, _)) = rows.last() else { return Ok(()) };
            after = Some(key.clone());
            let mut tail = self.tail();
            let mut entries = Vec::with_capacity(rows.len());
            for (key, bytes) in &rows {
                let entry = Entry::<S::Change>::decode(bytes);
                let entry = entry.map_err(|error| Error::corrupt(format!("index: {error}")))?;
                if schema::log_number(key)? != tail.number + 1 || entry.previous != tail.hash {
                    // A hole: what follows is read from the store.
                    self.fold(entries.iter(), tail);
                    return Ok(());
                }
                let number = tail.number + 1;
                tail = Tail { number, hash: EntryHash::of(bytes), epoch: entry.epoch };
                entries.push(entry);
            }
            self.fold(entries.iter(), tail);
        }
    }

    fn fold<'a>(&self, entries: impl Iterator<Item = &'a Entry<S::Change>>, tail: Tail) {
        let mut folded = self.folded.write().unwrap_or_else(PoisonError::into_inner);
        for entry in entries {
            folded.state.apply(entry);
        }
        folded.tail = tail;
    }

    /// Appends what the rule says, as one entry, and puts its rows into the index. A rule that says
    /// nothing changes nothing; it is asked again, with newer state, whenever somebody else was
    /// first.
    pub(crate) async fn append(
        &self,
        hub: &Hub,
        author: Option<UserId>,
        mut rows: Batch,
        mut rule: impl FnMut(&S) -> Result<Vec<S::Change>>,
    ) -> Result<()> {
        let _writing = self.writing.lock().await;
        for _ in 0..MAX_ROUNDS {
            if self.doubtful.load(Ordering::Relaxed) {
                self.catch_up_locked(hub).await?;
            }
            let changes = self.read(&mut rule)?;
            if changes.is_empty() {
                return Ok(());
            }
            let tail = self.tail();
            let entry = new_entry(hub, &tail, author, changes).await?;
            // Until the entry is folded in, whatever stops us leaves the state behind the log.
            self.doubtful.store(true, Ordering::Relaxed);
            if let Append::Won(won) = self.log.append(&tail, &entry).await? {
                rows.put(Table::Log, schema::log_key(&self.id, won.number), entry.encode()?);
                hub.index().apply(rows).await?;
                self.fold(std::iter::once(&entry), won);
                self.doubtful.store(false, Ordering::Relaxed);
                return Ok(());
            }
        }
        Err(Error::Busy { reason: "too many others are changing the same thing".to_owned() })
    }
}

/// An entry to follow this tail, with the newest gc epoch (section 4.2, step 1).
pub(crate) async fn new_entry<C: Change>(
    hub: &Hub,
    tail: &Tail,
    author: Option<UserId>,
    changes: Vec<C>,
) -> Result<Entry<C>> {
    Ok(Entry {
        operation: OperationId::from_bytes(random_bytes(hub.env().as_ref())),
        previous: tail.hash,
        epoch: hub.store().epoch().await?.max(tail.epoch),
        term: 1,
        time_ms: hub.env().now_ms(),
        author,
        changes,
    })
}
