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
    /// The term of that entry; 0 if there is none.
    pub term: u64,
    /// The highest epoch of this term so far: a home in another region counts epochs of its own.
    pub epoch: u64,
}

impl Tail {
    /// The tail of an empty log.
    pub const EMPTY: Self = Self { number: 0, hash: EntryHash::ZERO, term: 0, epoch: 0 };

    /// The tail of a log that ends with this entry.
    pub fn of<C>(number: u64, bytes: &[u8], entry: &Entry<C>) -> Self {
        let (term, epoch) = (entry.term, entry.epoch);
        Self { number, hash: EntryHash::of(bytes), term, epoch }
    }

    /// Why this entry can't follow; nothing if it can. It names the one before it, no term ends
    /// twice, and within a term no writer knows fewer condemned lists than the one before.
    pub fn refuses<C>(&self, next: &Entry<C>) -> Option<String> {
        if next.previous != self.hash {
            let (named, found) = (next.previous, self.hash);
            return Some(format!(
                "it follows entry `{named}`, and the entry before it is `{found}`"
            ));
        }
        if next.term < self.term {
            return Some(format!(
                "its term {} is below {}, the one before it",
                next.term, self.term
            ));
        }
        if next.term == self.term && next.epoch < self.epoch {
            let (epoch, before) = (next.epoch, self.epoch);
            return Some(format!("its epoch {epoch} is below {before}, the one before it"));
        }
        None
    }
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

/// From some entry on, a log is kept under another id, as its own has entries that count no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line {
    /// The first entry that is there.
    pub first: u64,
    /// Under which id.
    pub id: LogId,
}

/// Which entries of a log count, and where they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Course {
    /// The last that counts; nothing: all that there are.
    pub until: Option<u64>,
    /// Where those are that are not under the log's own id, the first ones first.
    pub lines: Vec<Line>,
}

/// One log. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Log {
    store: Store,
    id: LogId,
    course: Course,
}

impl Log {
    /// A log of a store; nothing is read yet.
    pub fn new(store: Store, id: LogId) -> Self {
        Self::on_course(store, id, Course::default())
    }

    /// A log of which not all that is stored counts.
    pub fn on_course(store: Store, id: LogId, course: Course) -> Self {
        Self { store, id, course }
    }

    /// Which log it is.
    pub fn id(&self) -> LogId {
        self.id
    }

    /// Which of its entries count.
    pub fn course(&self) -> &Course {
        &self.course
    }

    /// Where an entry is.
    pub fn key(&self, number: u64) -> Key {
        let line = self.course.lines.iter().rev().find(|line| line.first <= number);
        Key::LogEntry(line.map_or(self.id, |line| line.id), number)
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
