//! Logs: the ordered history of a repo's refs, of the catalogue, of the accounts.
//!
//! Entry *n* is one object, put if absent (Invariant 3). Its number is taken once and never given
//! back, so an absent number means "not yet". Whoever appends names the tail that they have seen;
//! the store decides who was first. This module checks that entries form one chain; what they say
//! is for those who read them, and so is whether an entry may be written at all.

mod append;
mod read;

use ballast_format::hash::EntryHash;
use ballast_format::log::Entry;
use bytes::Bytes;

use crate::error::{Error, Result};
use crate::keyspace::{Key, LogId};
use crate::objects::Store;

/// The last entry of a log, as far as somebody has read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tail {
    /// Its number; 0 if there is none.
    pub number: u64,
    /// Its hash; zero if there is none.
    pub hash: EntryHash,
    /// The highest epoch in the log so far.
    pub epoch: u64,
}

impl Tail {
    /// The tail of an empty log.
    pub const EMPTY: Self = Self { number: 0, hash: EntryHash::ZERO, epoch: 0 };
}

impl Default for Tail {
    fn default() -> Self {
        Self::EMPTY
    }
}

/// An entry that is in the log.
#[derive(Clone, Debug)]
pub struct Stored<C> {
    /// What it says.
    pub entry: Entry<C>,
    /// Its bytes.
    pub bytes: Bytes,
    /// The tail of the log that ends with it.
    pub tail: Tail,
}

/// How an append ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Append {
    /// The entry is in the log, durably, and this is the tail that it makes.
    Won(Tail),
    /// Another entry took the number: read on, and decide again.
    Lost,
}

/// One log. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Log {
    store: Store,
    id: LogId,
}

impl Log {
    /// A log of a store; nothing is read yet.
    pub fn new(store: Store, id: LogId) -> Self {
        Self { store, id }
    }

    /// Which log it is.
    pub fn id(&self) -> LogId {
        self.id
    }

    fn key(&self, number: u64) -> Key {
        Key::LogEntry(self.id, number)
    }

    /// The number behind a tail, and its key.
    fn next(&self, tail: &Tail) -> Result<(u64, Key)> {
        let number = tail.number.checked_add(1);
        let number = number.ok_or_else(|| Error::invalid("a log cannot be that long"))?;
        Ok((number, self.key(number)))
    }
}

#[cfg(test)]
mod tests;
