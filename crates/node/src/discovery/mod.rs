//! Finding repos: facts that are read from cards, configurations and weights, and listings that
//! filter and sort by them.
//!
//! Facts are computed when `main` moves, before the commit is answered, so that a listing right
//! after a commit sees it. They are kept in memory for every repo and in the index, and can be made
//! again from the repos at any time.

pub mod apps;
pub mod card;
pub mod facts;
pub mod feed;
pub mod gguf;
pub mod list;
pub mod metrics;
pub mod safetensors;
pub mod tags;
pub mod task;
pub mod words;
pub mod yaml;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use ballast_format::id::RepoId;
use ballast_store::index::schema;
use ballast_store::index::{Batch, Table};
use futures_util::StreamExt as _;

pub use facts::Facts;
pub use list::{Listed, Query, Sort};

use crate::access::Repo;
use crate::error::Result;
use crate::hub::Hub;
use crate::state::catalogue::RepoRecord;
use crate::worker::Worker;

/// Repos whose facts are read at once while a hub opens.
const AT_ONCE: usize = 16;

/// How often all repos are looked at for commits of other processes, at most, and how many each
/// second: a round through ten thousand repos takes some three minutes.
const FOLLOWED_EVERY: Duration = Duration::from_mins(1);
const FOLLOWED_AT_ONCE: usize = 50;

/// What the searched words of all repos may take in memory: ten thousand cards of a usual length
/// fit several times. Beyond it a repo is found by the first of its words.
const MAX_TEXTS_BYTES: usize = 128 << 20;
const MAX_CROWDED_TEXT_BYTES: usize = 4 << 10;

/// The facts of every repo.
#[derive(Default)]
pub(crate) struct Discovery {
    known: RwLock<Known>,
}

#[derive(Default)]
struct Known {
    facts: HashMap<RepoId, Arc<Facts>>,
    /// What the searched words of all of them take.
    text_bytes: usize,
}

impl Known {
    fn remove(&mut self, id: &RepoId) {
        if let Some(facts) = self.facts.remove(id) {
            self.text_bytes -= facts.text.len();
        }
    }

    fn put(&mut self, id: RepoId, mut facts: Facts, room: usize) {
        self.remove(&id);
        if self.text_bytes + facts.text.len() > room {
            // A new text, so that the memory of the long one is free again.
            let first = words::cut(&facts.text, MAX_CROWDED_TEXT_BYTES).to_owned();
            facts.text = first;
        }
        self.text_bytes += facts.text.len();
        self.facts.insert(id, Arc::new(facts));
    }
}

impl Discovery {
    fn get(&self, id: &RepoId) -> Option<Arc<Facts>> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.facts.get(id).map(Arc::clone)
    }

    fn put(&self, id: RepoId, facts: Facts) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        known.put(id, facts, MAX_TEXTS_BYTES);
    }

    fn remove(&self, id: &RepoId) {
        self.known.write().unwrap_or_else(PoisonError::into_inner).remove(id);
    }
}

impl Hub {
    /// What is known of a repo.
    pub fn facts(&self, id: &RepoId) -> Arc<Facts> {
        self.discovery.get(id).unwrap_or_default()
    }

    /// What follows from a new commit on `main`. The commit stands whatever becomes of this.
    pub(crate) async fn main_moved(self: &Arc<Self>, repo: &Repo) {
        if let Err(error) = self.renew_facts(repo).await {
            tracing::warn!(repo = %repo.name(), %error, "a repo is listed by its former facts");
        }
    }

    /// A deleted repo is listed no more.
    pub(crate) async fn forget_facts(&self, id: &RepoId) -> Result<()> {
        self.discovery.remove(id);
        let mut batch = Batch::new();
        batch.delete(Table::Fact, schema::fact_key(id));
        Ok(self.index().apply(batch).await?)
    }

    async fn renew_facts(self: &Arc<Self>, repo: &Repo) -> Result<()> {
        let facts = match self.repo_state(repo).await?.main() {
            Some(main) => self.read_facts(repo, main).await?,
            None => Facts::default(),
        };
        let mut batch = Batch::new();
        if let Ok(row) = serde_json::to_vec(&facts) {
            batch.put(Table::Fact, schema::fact_key(&repo.id()), row);
        }
        self.discovery.put(repo.id(), facts);
        Ok(self.index().apply(batch).await?)
    }

    /// Fills the memory from the index, and reads anew what is missing there or of another commit.
    pub(crate) async fn load_facts(self: &Arc<Self>) -> Result<()> {
        // From the index alone first: listings are right, or nearly, within a moment.
        for record in self.records(|_| true) {
            let row = self.index().get(Table::Fact, &schema::fact_key(&record.id)).await?;
            if let Some(facts) = row.and_then(|row| serde_json::from_slice::<Facts>(&row).ok()) {
                self.discovery.put(record.id, facts);
            }
        }
        let mut checking = futures_util::stream::iter(self.records(|_| true))
            .map(|record| async move { self.check_facts(&Repo { record }).await })
            .buffer_unordered(AT_ONCE);
        while checking.next().await.is_some() {}
        Ok(())
    }

    /// Reads a repo's facts anew if they are of another commit than `main`.
    async fn check_facts(self: &Arc<Self>, repo: &Repo) {
        let main = match self.repo_state(repo).await {
            Ok(state) => state.main().map(|main| main.to_string()),
            Err(error) => {
                // A damaged log was named when the index was made; the other repos go on.
                tracing::warn!(repo = %repo.name(), %error, "a repo is listed without facts");
                return;
            }
        };
        if !self.discovery.get(&repo.id()).is_some_and(|facts| facts.is_current(main.as_ref())) {
            self.main_moved(repo).await;
        }
    }
}

/// Looks at all repos again and again, some each second, so that listings show what other
/// processes committed.
#[derive(Debug, Default)]
pub(crate) struct FollowFacts {
    round: Mutex<Round>,
}

#[derive(Debug, Default)]
struct Round {
    left: Vec<Arc<RepoRecord>>,
    /// When the next one may begin, by the monotonic clock.
    next: Duration,
}

impl FollowFacts {
    /// The repos that are looked at now.
    fn some(&self, hub: &Hub) -> Vec<Arc<RepoRecord>> {
        let mut round = self.round.lock().unwrap_or_else(PoisonError::into_inner);
        let now = hub.env().monotonic();
        if round.left.is_empty() && now >= round.next {
            round.left = hub.records(|_| true);
            round.next = now + FOLLOWED_EVERY;
        }
        let kept = round.left.len().saturating_sub(FOLLOWED_AT_ONCE);
        round.left.split_off(kept)
    }
}

#[async_trait]
impl Worker for FollowFacts {
    fn name(&self) -> &'static str {
        "facts"
    }

    fn pause(&self) -> Duration {
        Duration::from_secs(1)
    }

    async fn work(&self, hub: &Hub) {
        let Ok(hub) = hub.strong() else { return };
        for record in self.some(&hub) {
            hub.check_facts(&Repo { record }).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crowded_hub_keeps_the_first_words_of_each_repo() {
        let facts = || Facts { text: "word ".repeat(2000), ..Facts::default() };
        let id = |n: u8| RepoId::from_bytes([n; 16]);
        let mut known = Known::default();
        for n in 0..3 {
            known.put(id(n), facts(), 25_000);
        }
        let lengths = [0, 1, 2].map(|n| known.facts[&id(n)].text.len());
        assert_eq!(lengths, [10_000, 10_000, MAX_CROWDED_TEXT_BYTES]);
        // What is put again or is gone does not count twice.
        known.put(id(0), Facts::default(), 25_000);
        known.remove(&id(1));
        assert_eq!(known.text_bytes, MAX_CROWDED_TEXT_BYTES);
    }
}
