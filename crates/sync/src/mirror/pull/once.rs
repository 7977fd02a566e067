//! Many who want the same at once have it done once, and whoever leaves does not stop it.

use std::collections::HashMap;
use std::future::Future;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ballast_node::error::{Error, Result};
use ballast_node::hub::Hub;
use tokio::sync::watch;

use super::fault;

/// Things that are done at the same time.
const MOST: usize = 64;

type Outcome = Option<Result<()>>;

/// What is being done, by what it is about.
pub(super) struct Once<K> {
    running: Mutex<HashMap<K, watch::Receiver<Outcome>>>,
}

impl<K> Default for Once<K> {
    fn default() -> Self {
        Self { running: Mutex::default() }
    }
}

/// Takes the entry away, however the task ends.
struct Entry<K: Eq + Hash> {
    once: Arc<Once<K>>,
    key: K,
}

impl<K: Eq + Hash> Drop for Entry<K> {
    fn drop(&mut self) {
        self.once.running().remove(&self.key);
    }
}

impl<K: Eq + Hash> Once<K> {
    fn running(&self) -> MutexGuard<'_, HashMap<K, watch::Receiver<Outcome>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Eq + Hash + Clone + Send + 'static> Once<K> {
    /// Does it, or waits for whoever does; so long, and then says that it is on its way.
    pub(super) async fn done(
        self: &Arc<Self>,
        hub: &Arc<Hub>,
        key: K,
        patience: Duration,
        task: impl Future<Output = Result<()>> + Send + 'static,
    ) -> Result<()> {
        let mut outcome = self.begin(hub, key, task)?;
        let ended = async {
            let ended = outcome.wait_for(Option::is_some).await;
            ended.map_err(|_| fault::closing())?.clone().unwrap_or_else(|| Err(fault::closing()))
        };
        tokio::select! {
            biased;
            ended = ended => ended,
            () = hub.env().sleep(patience) => Err(fault::on_its_way("this")),
        }
    }

    fn begin(
        self: &Arc<Self>,
        hub: &Arc<Hub>,
        key: K,
        task: impl Future<Output = Result<()>> + Send + 'static,
    ) -> Result<watch::Receiver<Outcome>> {
        let mut running = self.running();
        if let Some(outcome) = running.get(&key) {
            return Ok(outcome.clone());
        }
        if running.len() >= MOST {
            return Err(fault::crowded());
        }
        let (tell, outcome) = watch::channel(None);
        running.insert(key.clone(), outcome.clone());
        drop(running);
        let entry = Entry { once: Arc::clone(self), key };
        let stopping = hub.runner().stopping();
        hub.runner().spawn("mirror a revision", async move {
            let ended = tokio::select! {
                biased;
                () = stopping.cancelled() => Err(fault::closing()),
                ended = task => ended,
            };
            // Whoever comes from now on finds it done, or tries anew.
            drop(entry);
            tell.send_replace(Some(ended));
        });
        Ok(outcome)
    }
}

/// Whether an outcome says that there is none, and not that it can't be told.
pub(super) fn is_absence(error: &Error) -> bool {
    matches!(error, Error::RepoNotFound | Error::RevisionNotFound { .. })
}
