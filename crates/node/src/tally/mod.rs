//! Download counts.
//!
//! A node counts in memory and writes down what it has counted since the last time: one small
//! record a minute, if there was anything. Records are added up, so nodes need not know of each
//! other. What a crash takes is the last minute.

mod record;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use ballast_format::id::RepoId;
use quick_cache::sync::Cache;

use crate::access::Repo;
use crate::hub::{Freshness, Hub};
use crate::worker::Worker;
use record::Books;

/// How long requests of one client for one repo count as one download.
const GROUP: Duration = Duration::from_mins(5);
/// Groups that are remembered.
const GROUPS: usize = 65_536;
const DAY_MS: u64 = 24 * 60 * 60 * 1000;
/// Days that the shorter of the two counts covers.
const RECENT_DAYS: u32 = 30;
/// How often counts are written down.
const FLUSHES: Duration = Duration::from_mins(1);
/// Between so many flushes days that are over are summed up.
const ENDING_EVERY: u64 = 60;

/// Downloads of a repo.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Downloads {
    /// Of the last 30 days.
    pub recent: u64,
    /// Since there is the repo.
    pub all_time: u64,
}

/// What is known of one repo, what is not yet written down included.
#[derive(Debug, Default)]
struct Known {
    days: BTreeMap<u32, u64>,
    /// Of days that are long over.
    older: u64,
}

impl Known {
    fn add(&mut self, day: u32, count: u64, today: u32) {
        *self.days.entry(day).or_default() += count;
        // One day more than is shown, for clocks that differ.
        while let Some((oldest, _)) = self.days.first_key_value()
            && oldest + RECENT_DAYS < today
            && let Some((_, count)) = self.days.pop_first()
        {
            self.older += count;
        }
    }

    fn downloads(&self, today: u32) -> Downloads {
        let first = today.saturating_sub(RECENT_DAYS - 1);
        let all: u64 = self.days.values().sum();
        Downloads {
            recent: self.days.range(first..).map(|(_, count)| count).sum(),
            all_time: self.older + all,
        }
    }
}

#[derive(Default)]
struct Counts {
    known: HashMap<RepoId, Known>,
    unwritten: BTreeMap<(RepoId, u32), u64>,
}

/// What has been counted.
pub(crate) struct Tallies {
    counts: Mutex<Counts>,
    /// When each group was last counted.
    groups: Cache<[u8; 16], Duration>,
    books: tokio::sync::Mutex<Books>,
}

impl Default for Tallies {
    fn default() -> Self {
        Self {
            counts: Mutex::default(),
            groups: Cache::new(GROUPS),
            books: tokio::sync::Mutex::default(),
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
    fn today(&self) -> u32 {
        day_of(self.env().now_ms())
    }

    /// Counts a download, once for all requests of one group, such as one client's for one
    /// snapshot.
    pub fn count_download(&self, repo: &Repo, group: &str) {
        let now = self.env().monotonic();
        let mut hasher = blake3::Hasher::new();
        hasher.update(repo.id().as_bytes());
        hasher.update(group.as_bytes());
        let mut key = [0; 16];
        hasher.finalize_xof().fill(&mut key);
        let counted = self.tallies.groups.get(&key);
        if counted.is_some_and(|since| now < since + GROUP) {
            return;
        }
        self.tallies.groups.insert(key, now);
        let today = self.today();
        let mut counts = self.tallies.counts();
        let known = counts.known.entry(repo.id()).or_default();
        known.add(today, 1, today);
        *counts.unwritten.entry((repo.id(), today)).or_default() += 1;
    }

    /// How often a repo was downloaded.
    pub fn downloads(&self, id: &RepoId) -> Downloads {
        let counts = self.tallies.counts();
        let known = counts.known.get(id);
        known.map_or_else(Downloads::default, |known| known.downloads(self.today()))
    }

    /// A deleted repo has no count.
    pub(crate) fn forget_tally(&self, id: &RepoId) {
        self.tallies.counts().known.remove(id);
    }
}

/// Writes counts down once a minute, and now and then sums up the days that are over.
#[derive(Default)]
pub(crate) struct Flush {
    flushes: AtomicU64,
}

#[async_trait]
impl Worker for Flush {
    fn name(&self) -> &'static str {
        "tallies"
    }

    fn pause(&self) -> Duration {
        FLUSHES
    }

    async fn work(&self, hub: &Hub) {
        if let Err(error) = hub.flush_tallies().await {
            tracing::warn!(%error, "download counts are kept for the next minute");
            return;
        }
        let is_shared = hub.settings().freshness != Freshness::Exclusive;
        if is_shared && let Err(error) = hub.follow_tallies().await {
            tracing::warn!(%error, "what others count is read in the next minute");
        }
        let flushes = self.flushes.fetch_add(1, Ordering::Relaxed);
        if flushes.is_multiple_of(ENDING_EVERY)
            && let Err(error) = hub.end_days().await
        {
            tracing::warn!(%error, "days that are over are summed up later");
        }
    }
}
