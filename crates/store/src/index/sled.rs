//! The engine: sled 0.34.7, named nowhere else.
//!
//! All tables live in one tree, so that its batches are atomic across them. Its `len()` walks the
//! whole tree and is never called. It may panic instead of failing; whoever calls it catches that.

use std::ops::Bound;
use std::path::Path;

use super::{Batch, Index, MAX_SCAN_ROWS, Row, Table};
use crate::error::{Error, Result};

/// What the engine may keep in memory. It takes more than it says, so this is little.
const CACHE_BYTES: u64 = 32 * 1024 * 1024;

/// How often the engine writes on its own. It matters for its memory only: after a stop that was
/// not orderly the index is rebuilt, whatever reached the disk.
const FLUSH_EVERY_MS: u64 = 3_000;

/// The index on disk.
#[derive(Debug)]
pub(super) struct Sled {
    database: ::sled::Db,
}

impl Sled {
    pub(super) fn open(folder: &Path) -> Result<Self> {
        let database = ::sled::Config::new()
            .path(folder)
            .cache_capacity(CACHE_BYTES)
            .flush_every_ms(Some(FLUSH_EVERY_MS))
            .open()
            .map_err(Error::index)?;
        Ok(Self { database })
    }
}

impl Index for Sled {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let value = self
            .database
            .get(table.prefixed(key))
            .map_err(Error::index)?;
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
        let mut rows = Vec::new();
        for row in self
            .database
            .range((start, Bound::Unbounded))
            .take(limit.min(MAX_SCAN_ROWS))
        {
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
        let mut writes = ::sled::Batch::default();
        for (table, key, value) in batch.changes {
            let key = table.prefixed(&key);
            match value {
                Some(value) => writes.insert(key, value),
                None => writes.remove(key),
            }
        }
        self.database.apply_batch(writes).map_err(Error::index)
    }

    fn flush(&self) -> Result<()> {
        self.database.flush().map(|_| ()).map_err(Error::index)
    }
}
