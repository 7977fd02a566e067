//! Download counts.
//!
//! A node counts in memory and writes down what it has counted since the last time: one small
//! object a minute, if there was anything. Records are added up, so nodes need not know of each
//! other. What a crash takes is the last minute.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use ballast_format::id::RepoId;
use ballast_format::limits::MAX_TALLY_BYTES;
use ballast_format::tally::Tally;
use ballast_store::env::nonce;
use ballast_store::index::schema;
use ballast_store::index::{Batch, Table};
use ballast_store::keyspace::{Key, Prefix};
use bytes::Bytes;
use futures_util::TryStreamExt as _;
use quick_cache::sync::Cache;

use crate::access::Repo;
use crate::error::{Error, Result};
use crate::hub::Hub;
use crate::worker::Worker;

/// How long requests of one client for one repo count as one download.
const GROUP_MS: u64 = 5 * 60 * 1000;
/// Groups that are remembered.
const GROUPS: usize = 65_536;
const DAY_MS: u64 = 24 * 60 * 60 * 1000;
/// Days that the shorter of the two counts covers.
const RECENT_DAYS: u32 = 30;
const ROWS: usize = 1000;

/// Downloads of a repo.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Downloads {
    /// Of the last 30 days.
    pub recent: u64,
    /// Since there is the repo.
    pub all_time: u64,
}

#[derive(Default)]
struct Counts {
    /// Repo and day: everything known, what is not yet written down included.
    known: HashMap<RepoId, HashMap<u32, u64>>,
    unwritten: HashMap<(RepoId, u32), u64>,
}

/// What has been counted.
pub(crate) struct Tallies {
    counts: Mutex<Counts>,
    groups: Cache<[u8; 16], u64>,
    flushing: tokio::sync::Mutex<()>,
}

impl Default for Tallies {
    fn default() -> Self {
        Self {
            counts: Mutex::default(),
            groups: Cache::new(GROUPS),
            flushing: tokio::sync::Mutex::default(),
        }
    }
}

impl Tallies {
    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn day_of(time_ms: u64) -> u32 {
    u32::try_from(time_ms / DAY_MS).unwrap_or(u32::MAX)
}

impl Hub {
    /// Counts a download, once for all requests of one group, such as one client's for one
    /// snapshot.
    pub fn count_download(&self, repo: &Repo, group: &str) {
        let now = self.env().now_ms();
        let mut hasher = blake3::Hasher::new();
        hasher.update(repo.id().as_bytes());
        hasher.update(group.as_bytes());
        let mut key = [0; 16];
        hasher.finalize_xof().fill(&mut key);
        if self.tallies.groups.get(&key).is_some_and(|since| now < since + GROUP_MS) {
            return;
        }
        self.tallies.groups.insert(key, now);
        let day = day_of(now);
        let mut counts = self.tallies.counts();
        *counts.known.entry(repo.id()).or_default().entry(day).or_default() += 1;
        *counts.unwritten.entry((repo.id(), day)).or_default() += 1;
    }

    /// How often a repo was downloaded.
    pub fn downloads(&self, id: &RepoId) -> Downloads {
        let first = day_of(self.env().now_ms()).saturating_sub(RECENT_DAYS - 1);
        let counts = self.tallies.counts();
        let mut downloads = Downloads::default();
        for (day, count) in counts.known.get(id).into_iter().flatten() {
            downloads.all_time += count;
            downloads.recent += if *day >= first { *count } else { 0 };
        }
        downloads
    }

    /// Writes down what was counted.
    pub(crate) async fn flush_tallies(&self) -> Result<()> {
        let _flushing = self.tallies.flushing.lock().await;
        let rows: Vec<(RepoId, u32, u64)> = {
            let counts = self.tallies.counts();
            let rows = counts.unwritten.iter().map(|((repo, day), count)| (*repo, *day, *count));
            // What is more than one record holds stays for the next.
            rows.take(Tally::MAX_ROWS).collect()
        };
        if rows.is_empty() {
            return Ok(());
        }
        let tally = Tally { rows };
        let (day, nonce) = (day_of(self.env().now_ms()), nonce(self.env().as_ref()));
        self.store().put_new(&Key::Tally { day, nonce }, Bytes::from(tally.encode()?)).await?;
        self.forget_unwritten(&tally);
        self.fold_rows(&tally, day, nonce).await
    }

    fn forget_unwritten(&self, tally: &Tally) {
        let mut counts = self.tallies.counts();
        for (repo, day, count) in &tally.rows {
            if let Some(left) = counts.unwritten.get_mut(&(*repo, *day)) {
                *left -= count;
                if *left == 0 {
                    counts.unwritten.remove(&(*repo, *day));
                }
            }
        }
    }

    /// Adds a record to the index's sums, once.
    async fn fold_rows(&self, tally: &Tally, day: u32, nonce: u64) -> Result<()> {
        let mut batch = Batch::new();
        for (repo, day, count) in &tally.rows {
            let key = schema::tally_key(repo, *day);
            let sum = match self.index().get(Table::Tally, &key).await? {
                Some(row) => schema::read_number(&row)?,
                None => 0,
            };
            batch.put(Table::Tally, key, schema::number_row(sum + count));
        }
        batch.put(Table::Meta, schema::folded_tally_key(day, nonce), Vec::new());
        Ok(self.index().apply(batch).await?)
    }

    /// Reads the sums, and the records that the index has not seen.
    pub(crate) async fn load_tallies(&self) -> Result<()> {
        let mut listed = self.store().list(&Prefix::Tallies);
        while let Some(found) = listed.try_next().await? {
            let Key::Tally { day, nonce } = found.key else { continue };
            let folded = schema::folded_tally_key(day, nonce);
            if self.index().get(Table::Meta, &folded).await?.is_some() {
                continue;
            }
            let Some(bytes) = self.store().get(&found.key, MAX_TALLY_BYTES as u64).await? else {
                continue;
            };
            match Tally::decode(&bytes) {
                Ok(tally) => self.fold_rows(&tally, day, nonce).await?,
                Err(error) => tracing::error!(key = %found.key, %error, "a tally is damaged"),
            }
        }
        let repos: Vec<RepoId> =
            self.catalogue.read(|state| state.repos().map(|record| record.id).collect());
        for repo in repos {
            let rows =
                self.index().scan(Table::Tally, repo.as_bytes(), None, ROWS).await?;
            let mut days = HashMap::with_capacity(rows.len());
            for (key, row) in rows {
                days.insert(schema::tally_day(&key)?, schema::read_number(&row)?);
            }
            if !days.is_empty() {
                self.tallies.counts().known.insert(repo, days);
            }
        }
        Ok(())
    }
}

/// Writes counts down once a minute.
pub(crate) struct Flush;

#[async_trait]
impl Worker for Flush {
    fn name(&self) -> &'static str {
        "tallies"
    }

    fn pause(&self) -> Duration {
        Duration::from_secs(60)
    }

    async fn work(&self, hub: &Hub) {
        if let Err(error) = hub.flush_tallies().await {
            let error: Error = error;
            tracing::warn!(%error, "download counts are kept for the next minute");
        }
    }
}
