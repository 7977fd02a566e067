//! State under concurrency, faults, restarts, and without its index.

mod amnesia;
mod faults;
mod mend;
mod opening;
mod scale;
mod writers;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ballast_format::hash::ObjectHash;
use ballast_format::log::RepoChange;
use ballast_format::name::RefName;
use ballast_store::error::{Error as StoreError, Result as StoreResult};
use ballast_store::index::memory::Memory;
use ballast_store::index::{Batch, Index, IndexHandle, Row, Table};

use super::repo::RepoState;
use crate::error::{Error, Result};

/// An index that outlives the hub that used it, and refuses writes when told to.
#[derive(Clone, Default)]
struct Kept {
    rows: Arc<Memory>,
    is_full: Arc<AtomicBool>,
}

impl Kept {
    fn handle(&self) -> IndexHandle {
        IndexHandle::over(self.clone()).expect("an index")
    }

    fn refuse_writes(&self, refuse: bool) {
        self.is_full.store(refuse, Ordering::SeqCst);
    }
}

impl Index for Kept {
    fn get(&self, table: Table, key: &[u8]) -> StoreResult<Option<Vec<u8>>> {
        self.rows.get(table, key)
    }

    fn scan(
        &self,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> StoreResult<Vec<Row>> {
        self.rows.scan(table, prefix, after, limit)
    }

    fn apply(&self, batch: Batch) -> StoreResult<()> {
        if self.is_full.load(Ordering::SeqCst) {
            return Err(StoreError::index("its disk is full"));
        }
        self.rows.apply(batch)
    }

    fn flush(&self) -> StoreResult<()> {
        self.rows.flush()
    }
}

fn branch(name: &str) -> RefName {
    RefName::branch(name).expect("a branch")
}

/// A rule that makes a branch which is not there yet.
fn make_branch(
    name: &RefName,
    commit: ObjectHash,
) -> impl Fn(&RepoState) -> Result<Vec<RepoChange>> {
    let name = name.clone();
    move |state| match state.refs.get(&name) {
        None => Ok(vec![RepoChange::RefSet { name: name.clone(), old: None, new: commit }]),
        Some(_) => Err(Error::Exists { what: name.to_string() }),
    }
}
