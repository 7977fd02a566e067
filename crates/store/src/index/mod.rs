//! The index: the local, rebuildable answer to questions about the truth.
//!
//! It may die at any moment (Invariant 6). It promises that a batch is seen whole or not at all by
//! those who ask later, and nothing about what is left after a crash: a stop that was not orderly
//! means a rebuild. Nothing that cannot be found again in the object store belongs here.

pub mod handle;
pub mod memory;
pub mod open;
pub mod schema;

mod sled;

pub use handle::IndexHandle;
pub use open::{Opened, open};

use crate::error::{Error, Result};

/// The longest key an engine must take.
pub const MAX_KEY_BYTES: usize = 1024;

/// The most rows one scan returns; whoever wants more asks again behind the last.
pub const MAX_SCAN_ROWS: usize = 10_000;

/// A key and its value.
pub type Row = (Vec<u8>, Vec<u8>);

/// The tables. What their rows look like is said in [`schema`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// Small named values.
    Meta,
    /// Entries of logs, by number.
    Log,
    /// Where the git objects of a repo are.
    Object,
    /// The large files of a repo.
    File,
    /// Which repos have a large file, and under which hash.
    FileRepo,
    /// Where the manifests of files are.
    Manifest,
    /// What a user uploaded and may commit.
    Upload,
    /// Who may be told that a xorb is there.
    XorbScope,
    /// The sampled chunks that may answer dedup.
    Chunk,
    /// Which copies there are.
    Copy,
    /// What was found out about a repo.
    Fact,
    /// Downloads by day.
    Tally,
    /// What scans of files found.
    Scan,
}

impl Table {
    /// Every table.
    pub const ALL: [Self; 13] = [
        Self::Meta,
        Self::Log,
        Self::Object,
        Self::File,
        Self::FileRepo,
        Self::Manifest,
        Self::Upload,
        Self::XorbScope,
        Self::Chunk,
        Self::Copy,
        Self::Fact,
        Self::Tally,
        Self::Scan,
    ];

    /// The number that stands for the table on disk.
    fn tag(self) -> u8 {
        match self {
            Self::Meta => 1,
            Self::Log => 2,
            Self::Object => 3,
            Self::File => 4,
            Self::FileRepo => 5,
            Self::Manifest => 6,
            Self::Upload => 7,
            Self::XorbScope => 8,
            Self::Chunk => 9,
            Self::Copy => 10,
            Self::Fact => 11,
            Self::Tally => 12,
            Self::Scan => 13,
        }
    }

    /// A key as engines store it: all tables in one space.
    fn prefixed(self, key: &[u8]) -> Vec<u8> {
        let mut whole = Vec::with_capacity(1 + key.len());
        whole.push(self.tag());
        whole.extend_from_slice(key);
        whole
    }
}

/// Changes that become visible together.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// In order; the last word on a key counts.
    changes: Vec<Change>,
}

/// A row to be set, or to be removed if it has no value.
#[derive(Clone, Debug)]
struct Change {
    table: Table,
    key: Vec<u8>,
    value: Option<Vec<u8>>,
}

impl Batch {
    /// No changes yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets a row.
    pub fn put(
        &mut self,
        table: Table,
        key: impl Into<Vec<u8>>,
        value: impl Into<Vec<u8>>,
    ) -> &mut Self {
        self.changes.push(Change { table, key: key.into(), value: Some(value.into()) });
        self
    }

    /// Removes a row; that there is none is fine.
    pub fn delete(&mut self, table: Table, key: impl Into<Vec<u8>>) -> &mut Self {
        self.changes.push(Change { table, key: key.into(), value: None });
        self
    }

    /// Adds the changes of another batch behind these.
    pub fn extend(&mut self, other: Self) {
        self.changes.extend(other.changes);
    }

    /// How many changes it has.
    pub fn len(&self) -> usize {
        self.changes.len()
    }

    /// Has it no changes?
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    fn check(&self) -> Result<()> {
        match self.changes.iter().find(|change| change.key.len() > MAX_KEY_BYTES) {
            None => Ok(()),
            Some(Change { table, key, .. }) => Err(Error::invalid(format!(
                "a key of {} bytes for the index table {table:?} is over {MAX_KEY_BYTES}",
                key.len()
            ))),
        }
    }
}

/// An engine. Calls may block; [`IndexHandle`] is for asynchronous code.
pub trait Index: Send + Sync + 'static {
    /// The value of a row.
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>>;

    /// Rows whose keys begin with `prefix`, in the order of their keys, behind the key `after` if
    /// one is given, at most `limit` and at most [`MAX_SCAN_ROWS`].
    fn scan(
        &self,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Row>>;

    /// Makes the changes, all in one step for those who ask later.
    fn apply(&self, batch: Batch) -> Result<()>;

    /// Hands everything to the disk.
    fn flush(&self) -> Result<()>;
}

#[cfg(test)]
mod tests;
