//! The second engine: a sorted map. For tests, and to keep the trait honest.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{PoisonError, RwLock};

use super::{Batch, Change, Index, MAX_SCAN_ROWS, Row, Table};
use crate::error::Result;

/// An index that is gone when it is dropped.
#[derive(Debug, Default)]
pub struct Memory {
    rows: RwLock<BTreeMap<Vec<u8>, Vec<u8>>>,
}

impl Memory {
    /// An empty index.
    pub fn new() -> Self {
        Self::default()
    }
}

impl Index for Memory {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let rows = self.rows.read().unwrap_or_else(PoisonError::into_inner);
        Ok(rows.get(&table.prefixed(key)).cloned())
    }

    fn scan(
        &self,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Row>> {
        let prefix = table.prefixed(prefix);
        let after = after.map(|key| table.prefixed(key));
        let start = match &after {
            Some(after) if *after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(&prefix),
        };
        let rows = self.rows.read().unwrap_or_else(PoisonError::into_inner);
        Ok(rows
            .range::<Vec<u8>, _>((start, Bound::Unbounded))
            .take_while(|(key, _)| key.starts_with(&prefix))
            .take(limit.min(MAX_SCAN_ROWS))
            .map(|(key, value)| (key[1..].to_vec(), value.clone()))
            .collect())
    }

    fn apply(&self, batch: Batch) -> Result<()> {
        batch.check()?;
        let mut rows = self.rows.write().unwrap_or_else(PoisonError::into_inner);
        for Change { table, key, value } in batch.changes {
            let key = table.prefixed(&key);
            match value {
                Some(value) => rows.insert(key, value),
                None => rows.remove(&key),
            };
        }
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        Ok(())
    }
}
