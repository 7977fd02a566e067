//! Reading a log: in order, checking each link.

use ballast_format::limits::MAX_ENTRY_BYTES;
use ballast_format::log::{Change, Entry};
use bytes::Bytes;
use futures_util::stream::{FuturesOrdered, StreamExt};

use super::{Log, Stored, Tail};
use crate::error::{Error, Result};
use crate::keyspace::Key;

/// The most entries that one call returns.
const PAGE: usize = 256;

/// A page ends when its entries have so many bytes together.
const PAGE_BYTES: usize = 8 * 1024 * 1024;

/// The most entries that are asked for at once. It begins with one, since most who ask have read
/// all there is, and goes back to one where entries are large.
const READ_AHEAD: u64 = 16;

/// What one look ahead may bring before the next is narrowed.
const AHEAD_BYTES: usize = 512 * 1024;

impl Log {
    /// Reads one entry. `None`: the number is not taken yet. Only its form is checked; its place in
    /// the chain is checked by those who read on from a tail.
    pub async fn read<C: Change>(&self, number: u64) -> Result<Option<Stored<C>>> {
        if self.course.until.is_some_and(|until| number > until) {
            return Ok(None);
        }
        let key = self.key(number);
        match self.read_bytes(&key).await? {
            Some(bytes) => decode(&key, number, bytes).map(Some),
            None => Ok(None),
        }
    }

    /// The next entries behind a tail, in order; none if the tail is the end. A page may be cut
    /// anywhere: read on from its last entry until a page is empty.
    pub async fn read_after<C: Change>(&self, tail: &Tail) -> Result<Vec<Stored<C>>> {
        let mut page: Vec<Stored<C>> = Vec::new();
        let mut last = *tail;
        let (mut ahead, mut bytes) = (1, 0);
        while page.len() < PAGE && bytes < PAGE_BYTES {
            let before = bytes;
            let (first, _) = self.next(&last)?;
            let numbers = first..=first.saturating_add(ahead - 1);
            let mut answers: FuturesOrdered<_> =
                numbers.map(|number| self.read::<C>(number)).collect();
            while let Some(answer) = answers.next().await {
                let Some(stored) = answer? else {
                    self.check_end(last, answers).await?;
                    return Ok(page);
                };
                check_link(&self.key(stored.tail.number), &last, &stored)?;
                last = stored.tail;
                bytes += stored.bytes.len();
                page.push(stored);
            }
            ahead = if bytes - before > AHEAD_BYTES { 1 } else { (ahead * 2).min(READ_AHEAD) };
        }
        Ok(page)
    }

    /// A number is absent: is it the end, or is an entry missing? Somebody may have appended
    /// between the answers, so look again before calling it damage.
    async fn check_end<C, F>(&self, last: Tail, mut behind: FuturesOrdered<F>) -> Result<()>
    where
        F: Future<Output = Result<Option<Stored<C>>>>,
    {
        while let Some(answer) = behind.next().await {
            if !matches!(answer, Ok(Some(_))) {
                continue;
            }
            let (_, key) = self.next(&last)?;
            return match self.read_bytes(&key).await? {
                Some(_) => Ok(()),
                None => Err(Error::corrupt(key, "it is missing, and a later entry is there")),
            };
        }
        Ok(())
    }

    pub(super) async fn read_bytes(&self, key: &Key) -> Result<Option<Bytes>> {
        match self.store.get(key, MAX_ENTRY_BYTES as u64).await {
            Err(Error::TooLarge { size, .. }) => {
                Err(Error::corrupt(key, format!("no log entry has {size} bytes")))
            }
            answer => answer,
        }
    }
}

pub(super) fn decode<C: Change>(key: &Key, number: u64, bytes: Bytes) -> Result<Stored<C>> {
    let entry = Entry::<C>::decode(&bytes).map_err(|error| Error::corrupt(key, error))?;
    let tail = Tail::of(number, &bytes, &entry);
    Ok(Stored { entry, bytes, tail })
}

/// Invariant 3: an entry follows the one before it.
fn check_link<C>(key: &Key, last: &Tail, next: &Stored<C>) -> Result<()> {
    last.refuses(&next.entry).map_or(Ok(()), |reason| Err(Error::corrupt(key, reason)))
}
