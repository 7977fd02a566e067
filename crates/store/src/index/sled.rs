//! The engine: sled 0.34.7, named nowhere else.
//!
//! All tables live in one tree, under a byte each. Its `len()` walks the whole tree and is never
//! called. It may panic instead of failing; whoever calls it catches that.

use std::ops::Bound;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{PoisonError, RwLock};

use super::{Batch, Change, Index, MAX_SCAN_ROWS, Row, Table};
use crate::error::{Error, Result};

/// What the engine may keep in memory. It takes more than it says: 25 MB empty, and 75 MB with
/// 200,000 rows under this figure (98 MB under twice as much, and no faster for small batches).
const CACHE_BYTES: u64 = 16 * 1024 * 1024;

/// How often the engine writes on its own. It matters for its memory only: after a stop that was
/// not orderly the index is rebuilt, whatever reached the disk.
const FLUSH_EVERY_MS: u64 = 3_000;

/// A batch is handed on in steps of so many rows. The engine keeps all that a step replaces until
/// the step is over: batches of a thousand rows cost it 140 MB where steps of a hundred cost 75.
const STEP_ROWS: usize = 128;

/// The index on disk.
#[derive(Debug)]
pub(super) struct Sled {
    database: ::sled::Db,
    /// Held while a batch is under way, so that nobody sees a part of it.
    steps: RwLock<()>,
    /// A batch failed half-way: what is here now is a state that never was.
    torn: AtomicBool,
}

impl Sled {
    pub(super) fn open(folder: &Path) -> Result<Self> {
        let database = ::sled::Config::new()
            .path(folder)
            .cache_capacity(CACHE_BYTES)
            .flush_every_ms(Some(FLUSH_EVERY_MS))
            .open()
            .map_err(Error::index)?;
        Ok(Self { database, steps: RwLock::new(()), torn: AtomicBool::new(false) })
    }

    fn check(&self) -> Result<()> {
        if self.torn.load(Ordering::Acquire) {
            return Err(Error::index("a batch failed half-way, and it is not believed any more"));
        }
        Ok(())
    }

    fn apply_step(&self, step: &[Change]) -> Result<()> {
        let mut writes = ::sled::Batch::default();
        for Change { table, key, value } in step {
            let key = table.prefixed(key);
            match value {
                Some(value) => writes.insert(key, value.as_slice()),
                None => writes.remove(key),
            }
        }
        self.database.apply_batch(writes).map_err(Error::index)
    }
}

impl Index for Sled {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let _whole = self.steps.read().unwrap_or_else(PoisonError::into_inner);
        self.check()?;
        let value = self.database.get(table.prefixed(key)).map_err(Error::index)?;
        Ok(value.map(|value| value.to_vec()))
    }

    fn scan(
        &self,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Row>> {
        let prefix = table.prefixed(prefix);
        let start = match after.map(|key| table.prefixed(key)) {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix.clone()),
        };
        let _whole = self.steps.read().unwrap_or_else(PoisonError::into_inner);
        self.check()?;
        let mut rows = Vec::new();
        for row in self.database.range((start, Bound::Unbounded)).take(limit.min(MAX_SCAN_ROWS)) {
            let (key, value) = row.map_err(Error::index)?;
            if !key.starts_with(&prefix) {
                break;
            }
            rows.push((key[1..].to_vec(), value.to_vec()));
        }
        Ok(rows)
    }

    fn apply(&self, batch: Batch) -> Result<()> {
        batch.check()?;
        let _alone = self.steps.write().unwrap_or_else(PoisonError::into_inner);
        self.check()?;
        for step in batch.changes.chunks(STEP_ROWS) {
            if let Err(error) = self.apply_step(step) {
                self.torn.store(true, Ordering::Release);
                return Err(error);
            }
        }
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        self.check()?;
        self.database.flush().map(|_| ()).map_err(Error::index)
    }
}
