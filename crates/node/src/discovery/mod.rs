//! Finding repos: facts that are read from cards, configurations and weights, and listings that
//! filter and sort by them.
//!
//! Facts are computed when `main` moves, before the commit is answered, so that a listing right
//! after a commit sees it. They are kept in memory for every repo and in the index, and can be made
//! again from the repos at any time.

pub mod card;
pub mod facts;
pub mod feed;
pub mod gguf;
pub mod list;
pub mod safetensors;
pub mod tags;
pub mod task;
pub mod yaml;

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use ballast_format::id::RepoId;
use ballast_store::index::schema;
use ballast_store::index::{Batch, Table};
use futures_util::StreamExt as _;

pub use facts::Facts;
pub use list::{Listed, Query, Sort};

use crate::access::Repo;
use crate::error::Result;
use crate::hub::Hub;

/// Repos whose facts are read at once while a hub opens.
const AT_ONCE: usize = 16;

/// The facts of every repo.
#[derive(Default)]
pub(crate) struct Discovery {
    facts: RwLock<HashMap<RepoId, Arc<Facts>>>,
}

impl Discovery {
    fn get(&self, id: &RepoId) -> Option<Arc<Facts>> {
        self.facts.read().unwrap_or_else(PoisonError::into_inner).get(id).map(Arc::clone)
    }

    fn put(&self, id: RepoId, facts: Arc<Facts>) {
        self.facts.write().unwrap_or_else(PoisonError::into_inner).insert(id, facts);
    }

    fn remove(&self, id: &RepoId) {
        self.facts.write().unwrap_or_else(PoisonError::into_inner).remove(id);
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
        self.discovery.put(repo.id(), Arc::new(facts));
        Ok(self.index().apply(batch).await?)
    }

    /// Fills the memory from the index, and reads anew what is missing there or of another commit.
    pub(crate) async fn load_facts(self: &Arc<Self>) -> Result<()> {
        let records = self.records(|_| true);
        let mut loading = futures_util::stream::iter(records)
            .map(|record| async move {
                let repo = Repo { record };
                self.load_fact(&repo).await
            })
            .buffer_unordered(AT_ONCE);
        while let Some(loaded) = loading.next().await {
            loaded?;
        }
        Ok(())
    }

    async fn load_fact(self: &Arc<Self>, repo: &Repo) -> Result<()> {
        let row = self.index().get(Table::Fact, &schema::fact_key(&repo.id())).await?;
        let facts = row.and_then(|row| serde_json::from_slice::<Facts>(&row).ok());
        let main = match self.repo_state(repo).await {
            Ok(state) => state.main().map(|main| main.to_string()),
            Err(error) => {
                // A damaged log was named when the index was made; the other repos go on.
                tracing::warn!(repo = %repo.name(), %error, "a repo is listed without facts");
                return Ok(());
            }
        };
        match facts {
            Some(facts) if facts.commit == main => {
                self.discovery.put(repo.id(), Arc::new(facts));
            }
            _ => self.main_moved(repo).await,
        }
        Ok(())
    }
}
