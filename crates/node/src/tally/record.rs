//! Records of counts in the store, and days that end.
//!
//! Records would pile up, so a day ends: well after it is over, whoever is first writes one record
//! that is the sum of all that were written on it. From then on the sum alone counts, and the
//! others are removed. The index keeps what ended days add up to; days that have not ended are read
//! again at each start. No node writes to a day that it knows to have ended; what one with a
//! wrong clock writes there all the same is not counted, and is all that can go missing.

use std::collections::{BTreeMap, HashMap, HashSet};

use ballast_format::id::RepoId;
use ballast_format::limits::MAX_TALLY_BYTES;
use ballast_format::tally::Tally;
use ballast_store::env::nonce;
use ballast_store::index::schema;
use ballast_store::index::{Batch, Table};
use ballast_store::keyspace::{Key, Prefix};
use ballast_store::objects::Put;
use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _};

use super::RECENT_DAYS;
use crate::error::{Error, Result};
use crate::hub::Hub;

/// In place of random bits in the name of a day's sum.
const SUM: u64 = 0;
/// A day may end when it has been over for so many days.
const GRACE_DAYS: u32 = 2;
/// Records that are read at the same time.
const AT_ONCE: usize = 16;
/// Index rows that are read or put at once.
const ROWS: usize = 1000;
/// The day under which the index keeps what is too old to be told by days.
const LONG_AGO: u32 = 0;

/// What this node has read and written of records.
#[derive(Default)]
pub(super) struct Books {
    /// A record whose put has not clearly succeeded yet.
    unsent: Option<(Key, Tally)>,
    /// Records of days that have not ended, whose counts are known.
    read: HashSet<(u32, u64)>,
    /// No earlier day may be written to.
    first_open: u32,
}

/// The records that the store has, by the day on which they were written.
type Days = BTreeMap<u32, Vec<u64>>;

impl Hub {
    /// Writes down what was counted.
    pub(crate) async fn flush_tallies(&self) -> Result<()> {
        let mut books = self.tallies.books.lock().await;
        loop {
            if books.unsent.is_none() {
                let rows = self.take_unwritten();
                if rows.is_empty() {
                    return Ok(());
                }
                let day = self.today().max(books.first_open);
                let nonce = nonce(self.env().as_ref()).max(SUM + 1);
                books.read.insert((day, nonce));
                books.unsent = Some((Key::Tally { day, nonce }, Tally { rows }));
            }
            if let Some((key, tally)) = &books.unsent {
                // The same name and bytes until it is there, so that nothing counts twice.
                let bytes = Bytes::from(tally.encode()?);
                self.store().put_new(key, bytes).await?;
            }
            books.unsent = None;
        }
    }

    /// As many counts as one record holds.
    fn take_unwritten(&self) -> Vec<(RepoId, u32, u64)> {
        let mut counts = self.tallies.counts();
        let mut rows = Vec::new();
        while rows.len() < Tally::MAX_ROWS
            && let Some(((repo, day), count)) = counts.unwritten.pop_first()
        {
            rows.push((repo, day, count));
        }
        rows
    }

    /// Reads all counts, when a hub opens.
    pub(crate) async fn load_tallies(&self) -> Result<()> {
        let mut books = self.tallies.books.lock().await;
        for (day, records) in self.records_of(&Prefix::Tallies).await? {
            if records.contains(&SUM) {
                self.index_sum(day).await?;
                books.first_open = books.first_open.max(day + 1);
            } else {
                self.read_records(&mut books, day, records).await?;
            }
        }
        self.load_sums().await
    }

    /// Reads what other nodes have written lately.
    pub(super) async fn follow_tallies(&self) -> Result<()> {
        let mut books = self.tallies.books.lock().await;
        let today = self.today();
        for day in [today.saturating_sub(1), today] {
            let found = self.records_of(&Prefix::TalliesOf(day)).await?;
            for (day, records) in found {
                if !records.contains(&SUM) {
                    self.read_records(&mut books, day, records).await?;
                }
            }
        }
        Ok(())
    }

    /// Ends the days that are well over, and removes what ended days do not need.
    pub(super) async fn end_days(&self) -> Result<()> {
        let mut books = self.tallies.books.lock().await;
        for (day, mut records) in self.records_of(&Prefix::Tallies).await? {
            if day + GRACE_DAYS > self.today() {
                continue;
            }
            if !records.contains(&SUM) {
                // What others wrote last is known from now on, too.
                self.read_records(&mut books, day, records.clone()).await?;
                if !self.put_sum(day, &records).await? {
                    continue;
                }
            }
            self.index_sum(day).await?;
            books.first_open = books.first_open.max(day + 1);
            books.read.retain(|(of, _)| *of != day);
            records.retain(|nonce| *nonce != SUM);
            for nonce in records {
                self.store().sweep(&Key::Tally { day, nonce }).await?;
            }
        }
        Ok(())
    }

    async fn records_of(&self, prefix: &Prefix) -> Result<Days> {
        let mut listed = self.store().list(prefix);
        let mut days = Days::new();
        while let Some(found) = listed.try_next().await? {
            if let Key::Tally { day, nonce } = found.key {
                days.entry(day).or_default().push(nonce);
            }
        }
        Ok(days)
    }

    /// A record; nothing if it is gone or damaged.
    async fn record(&self, day: u32, nonce: u64) -> Result<Option<Tally>> {
        let key = Key::Tally { day, nonce };
        let Some(bytes) = self.store().get(&key, MAX_TALLY_BYTES as u64).await? else {
            return Ok(None);
        };
        match Tally::decode(&bytes) {
            Ok(tally) => Ok(Some(tally)),
            Err(error) => {
                tracing::error!(%key, %error, "a record of download counts is damaged");
                Ok(None)
            }
        }
    }

    /// Adds what records of a day say to what is known, each once.
    async fn read_records(&self, books: &mut Books, day: u32, records: Vec<u64>) -> Result<()> {
        let unread = records.into_iter().filter(|nonce| !books.read.contains(&(day, *nonce)));
        let unread: Vec<u64> = unread.collect();
        let mut reading = futures_util::stream::iter(unread)
            .map(|nonce| async move { (nonce, self.record(day, nonce).await) })
            .buffer_unordered(AT_ONCE);
        while let Some((nonce, record)) = reading.next().await {
            let Some(record) = record? else { continue };
            books.read.insert((day, nonce));
            self.know(record.rows);
        }
        Ok(())
    }

    fn know(&self, rows: impl IntoIterator<Item = (RepoId, u32, u64)>) {
        let today = self.today();
        let mut counts = self.tallies.counts();
        for (repo, day, count) in rows {
            counts.known.entry(repo).or_default().add(day, count, today);
        }
    }

    /// Writes the sum of a day's records, unless somebody else did; whether there is one now. A day
    /// with a damaged record does not end, and one that is too large for one record.
    async fn put_sum(&self, day: u32, records: &[u64]) -> Result<bool> {
        let mut sum: HashMap<(RepoId, u32), u64> = HashMap::new();
        let mut reading = futures_util::stream::iter(records.to_vec())
            .map(|nonce| self.record(day, nonce))
            .buffer_unordered(AT_ONCE);
        while let Some(record) = reading.try_next().await? {
            let Some(record) = record else {
                return Ok(false);
            };
            for (repo, day, count) in record.rows {
                *sum.entry((repo, day)).or_default() += count;
            }
        }
        if sum.len() > Tally::MAX_ROWS {
            return Ok(false);
        }
        let rows = sum.into_iter().map(|((repo, day), count)| (repo, day, count));
        let mut rows: Vec<_> = rows.collect();
        rows.sort_unstable();
        let bytes = Bytes::from(Tally { rows }.encode()?);
        let key = Key::Tally { day, nonce: SUM };
        match self.store().put_absent(&key, bytes).await? {
            Put::Stored => Ok(true),
            Put::Exists => Ok(self.record(day, SUM).await?.is_some()),
        }
    }

    /// Adds the sum of an ended day to the index, once.
    async fn index_sum(&self, day: u32) -> Result<()> {
        let mark = schema::folded_tally_key(day, SUM);
        if self.index().get(Table::Meta, &mark).await?.is_some() {
            return Ok(());
        }
        let Some(sum) = self.record(day, SUM).await? else {
            return Ok(());
        };
        let mut batch = Batch::new();
        for rows in sum.rows.chunks(ROWS) {
            let keys: Vec<_> =
                rows.iter().map(|(repo, day, _)| schema::tally_key(repo, *day)).collect();
            let found = self.index().get_many(Table::Tally, keys.clone()).await?;
            for (((_, _, count), key), row) in rows.iter().zip(keys).zip(found) {
                let known = row.map_or(Ok(0), |row| schema::read_number(&row))?;
                batch.put(Table::Tally, key, schema::number_row(known + count));
            }
        }
        batch.put(Table::Meta, mark, Vec::new());
        Ok(self.index().apply(batch).await?)
    }

    /// Takes over what ended days add up to. What is too old to be told by days becomes one row.
    async fn load_sums(&self) -> Result<()> {
        let long_ago = self.today().saturating_sub(2 * RECENT_DAYS);
        let mut older: BTreeMap<RepoId, u64> = BTreeMap::new();
        let mut batch = Batch::new();
        let mut after: Option<Vec<u8>> = None;
        loop {
            let rows = self.index().scan(Table::Tally, &[], after.as_deref(), ROWS).await?;
            let Some((last, _)) = rows.last() else { break };
            after = Some(last.clone());
            let mut known = Vec::with_capacity(rows.len());
            for (key, row) in rows {
                let (repo, day) = (schema::tally_repo(&key)?, schema::tally_day(&key)?);
                let count = schema::read_number(&row)?;
                known.push((repo, day, count));
                if day < long_ago && day != LONG_AGO {
                    *older.entry(repo).or_default() += count;
                    batch.delete(Table::Tally, key);
                }
            }
            self.know(known);
        }
        for (repo, count) in older {
            let key = schema::tally_key(&repo, LONG_AGO);
            let row = self.index().get(Table::Tally, &key).await?;
            let known = row.map_or(Ok::<_, Error>(0), |row| Ok(schema::read_number(&row)?))?;
            batch.put(Table::Tally, key, schema::number_row(known + count));
        }
        Ok(self.index().apply(batch).await?)
    }
}
