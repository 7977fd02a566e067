//! What many want at once is brought once: whoever comes joins the flight that is under way, and
//! that goes on when everybody has left. So many are under way, some more wait, and what failed is
//! not tried again at once.

use std::collections::HashMap;
use std::future::Future;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ballast_node::error::{Error, Result};
use ballast_node::hub::Hub;
use tokio::sync::{Semaphore, watch};

/// How long what could not be brought is not asked for again.
const FAILED_FOR: Duration = Duration::from_secs(5);
/// Things of which it is known that they could not be brought.
const KEPT_FAILURES: usize = 1000;
/// When to ask again where the process is being stopped or does too much, in seconds.
const AGAIN_SECONDS: u64 = 5;

/// Something that is being brought. `B` is what there is of it before all has come.
pub(crate) struct Flight<B> {
    stage: watch::Sender<Stage<B>>,
}

struct Stage<B> {
    begun: Option<B>,
    ended: Option<Result<()>>,
}

impl<B: Clone> Flight<B> {
    /// Tells those who wait that there is something of it.
    pub(crate) fn begin(&self, begun: B) {
        self.stage.send_modify(|stage| stage.begun = Some(begun));
    }

    /// What there is of it so far.
    pub(crate) fn so_far(&self) -> Option<B> {
        self.stage.borrow().begun.clone()
    }

    /// What there is of it, as soon as there is something.
    pub(crate) async fn begun(&self) -> Result<B> {
        let mut stage = self.stage.subscribe();
        let reached = stage.wait_for(|stage| stage.begun.is_some() || stage.ended.is_some()).await;
        let reached = reached.map_err(|_| stopping())?;
        match (&reached.begun, &reached.ended) {
            (Some(begun), _) => Ok(begun.clone()),
            (None, Some(Err(error))) => Err(error.clone()),
            (None, _) => Err(stopping()),
        }
    }

    /// Resolves when all of it is here.
    pub(crate) async fn ended(&self) -> Result<()> {
        let mut stage = self.stage.subscribe();
        let reached = stage.wait_for(|stage| stage.ended.is_some()).await;
        let reached = reached.map_err(|_| stopping())?;
        reached.ended.clone().unwrap_or_else(|| Err(stopping()))
    }
}

/// All that is being brought, by what it is about.
pub(crate) struct Flights<K, B> {
    under_way: Mutex<HashMap<K, Arc<Flight<B>>>>,
    failed: quick_cache::sync::Cache<K, (Duration, Error)>,
    slots: Semaphore,
    at_once: usize,
    waiting: usize,
    /// Tells what there is of something that no more of it comes.
    give_up: fn(&B, &Error),
}

/// Takes the entry away, however the task ends, and tells those who wait.
struct Entered<K: Eq + Hash, B> {
    flights: Arc<Flights<K, B>>,
    flight: Arc<Flight<B>>,
    key: K,
    outcome: Result<()>,
}

impl<K: Eq + Hash, B> Drop for Entered<K, B> {
    fn drop(&mut self) {
        self.flights.under_way().remove(&self.key);
        let outcome = std::mem::replace(&mut self.outcome, Ok(()));
        self.flight.stage.send_modify(|stage| {
            if let (Err(error), Some(begun)) = (&outcome, &stage.begun) {
                (self.flights.give_up)(begun, error);
            }
            stage.ended = Some(outcome);
        });
    }
}

impl<K: Eq + Hash, B> Flights<K, B> {
    fn under_way(&self) -> MutexGuard<'_, HashMap<K, Arc<Flight<B>>>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K, B> Flights<K, B>
where
    K: Eq + Hash + Clone + Send + Sync + 'static,
    B: Clone + Send + Sync + 'static,
{
    /// So many at once, and so many that may wait for that.
    pub(crate) fn new(at_once: usize, waiting: usize, give_up: fn(&B, &Error)) -> Arc<Self> {
        Arc::new(Self {
            under_way: Mutex::default(),
            failed: quick_cache::sync::Cache::new(KEPT_FAILURES),
            slots: Semaphore::new(at_once),
            at_once,
            waiting,
            give_up,
        })
    }

    /// How many are being brought, and how many wait for that.
    pub(crate) fn load(&self) -> (u64, u64) {
        let running = self.at_once.saturating_sub(self.slots.available_permits()) as u64;
        (running, (self.under_way().len() as u64).saturating_sub(running))
    }

    /// The flight of this, begun now if there is none: then `bring` says what is to be done for it.
    pub(crate) fn join<F>(
        self: &Arc<Self>,
        hub: &Hub,
        key: K,
        bring: impl FnOnce(Arc<Flight<B>>) -> F,
    ) -> Result<Arc<Flight<B>>>
    where
        F: Future<Output = Result<()>> + Send + 'static,
    {
        let (env, runner) = (Arc::clone(hub.env()), hub.runner());
        let now = env.monotonic();
        let mut under_way = self.under_way();
        if let Some(flight) = under_way.get(&key) {
            return Ok(Arc::clone(flight));
        }
        if let Some((_, error)) = self.failed.get(&key).filter(|(until, _)| *until > now) {
            return Err(error);
        }
        if under_way.len() >= self.at_once + self.waiting {
            return Err(again("too many files are being fetched at once"));
        }
        let stage = watch::Sender::new(Stage { begun: None, ended: None });
        let flight = Arc::new(Flight { stage });
        under_way.insert(key.clone(), Arc::clone(&flight));
        drop(under_way);
        let (flights, outcome) = (Arc::clone(self), Err(stopping()));
        let mut entered = Entered { flights, flight: Arc::clone(&flight), key, outcome };
        let (brought, stop) = (bring(Arc::clone(&flight)), runner.stopping());
        runner.spawn("bring a file", async move {
            let flights = Arc::clone(&entered.flights);
            let in_turn = async {
                let _slot = flights.slots.acquire().await.map_err(|_| stopping())?;
                brought.await
            };
            entered.outcome = tokio::select! {
                biased;
                () = stop.cancelled() => Err(stopping()),
                ended = in_turn => ended,
            };
            if let Err(error) = &entered.outcome {
                let until = env.monotonic() + FAILED_FOR;
                flights.failed.insert(entered.key.clone(), (until, error.clone()));
            }
        });
        Ok(flight)
    }
}

fn stopping() -> Error {
    again("this is being stopped; ask again")
}

fn again(reason: &str) -> Error {
    Error::Upstream { reason: reason.to_owned(), retry_seconds: AGAIN_SECONDS }
}
