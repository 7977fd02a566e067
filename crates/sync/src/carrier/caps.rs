//! How many bytes a second this process sends to its peers and takes from them, however many there
//! are and whichever carrier they use.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ballast_store::env::SharedEnv;
use tokio::sync::Notify;

use super::Urgency;

/// A bucket never holds more than what flows in so long: the burst after a rest.
const DEEPEST: Duration = Duration::from_millis(100);
/// Long enough to find out that a more urgent request came first, short enough to be exact.
const LONGEST_NAP: Duration = Duration::from_millis(250);

/// One in so many turns is that of who has waited longest, however urgent.
const PATIENT: u64 = 4;

/// A flow with a rate: each run takes its bytes from it before it moves.
///
/// The most urgent who waits is served first, and among equals the one who came first; but each
/// fourth turn is that of who came first of all, so that nobody waits for ever. A run is let
/// through as soon as there is anything in the bucket, and the rest is owed: so runs of any size
/// pass, and the rate holds all the same.
#[derive(Debug)]
pub(super) struct Cap {
    env: SharedEnv,
    bytes_per_second: Option<u64>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Bytes that may pass; less than none if more passed than was there.
    level: f64,
    filled_at: Duration,
    /// Who waits, by urgency and in the order in which they came.
    line: BTreeMap<(Urgency, u64), Arc<Notify>>,
    next: u64,
    /// How many were served.
    turn: u64,
}

impl Cap {
    /// A flow of so many bytes a second; `None`: as many as there are.
    pub(super) fn new(env: SharedEnv, bytes_per_second: Option<u64>) -> Self {
        let filled_at = env.monotonic();
        let state = State { level: 0.0, filled_at, line: BTreeMap::new(), next: 0, turn: 0 };
        // A rate of nothing would be a process that hangs.
        let bytes_per_second = bytes_per_second.map(|rate| rate.max(1));
        Self { env, bytes_per_second, state: Mutex::new(state) }
    }

    /// Returns when so many bytes may pass.
    pub(super) async fn take(&self, bytes: usize, urgency: Urgency) {
        let Some(rate) = self.bytes_per_second else { return };
        let place = self.line_up(urgency);
        loop {
            let wait = {
                let mut state = self.state();
                state.fill(rate, self.env.monotonic());
                let is_first = state.first() == Some(place.key);
                if is_first && state.level > 0.0 {
                    state.level -= exact(bytes as u64);
                    state.turn += 1;
                    // Leaving the line wakes the next one.
                    return;
                }
                is_first.then(|| Duration::from_secs_f64(-state.level / exact(rate)))
            };
            match wait {
                // A nap of nothing would turn in circles until a clock ticks.
                Some(wait) => {
                    let nap = wait.clamp(Duration::from_millis(1), LONGEST_NAP);
                    self.env.sleep(nap).await;
                }
                None => place.called.notified().await,
            }
        }
    }

    fn line_up(&self, urgency: Urgency) -> Place<'_> {
        let called = Arc::new(Notify::new());
        let mut state = self.state();
        let key = (urgency, state.next);
        state.next += 1;
        state.line.insert(key, Arc::clone(&called));
        Place { cap: self, key, called }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn fill(&mut self, rate: u64, now: Duration) {
        let since = now.saturating_sub(self.filled_at);
        self.filled_at = now;
        let deepest = exact(rate) * DEEPEST.as_secs_f64();
        self.level = (self.level + exact(rate) * since.as_secs_f64()).min(deepest);
    }

    /// Whose turn it is.
    fn first(&self) -> Option<(Urgency, u64)> {
        if self.turn % PATIENT == PATIENT - 1 {
            return self.line.keys().min_by_key(|(_, came)| *came).copied();
        }
        self.line.keys().next().copied()
    }
}

#[expect(clippy::cast_precision_loss, reason = "no rate and no run has 2^53 bytes")]
fn exact(bytes: u64) -> f64 {
    bytes as f64
}

/// A place in the line, left when it is dropped.
struct Place<'a> {
    cap: &'a Cap,
    key: (Urgency, u64),
    called: Arc<Notify>,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut state = self.cap.state();
        state.line.remove(&self.key);
        if let Some(first) = state.first().and_then(|first| state.line.get(&first)) {
            first.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Poll;

    use ballast_store::env::Env as _;
    use ballast_testkit::clock::SimEnv;
    use futures_util::stream::FuturesUnordered;
    use futures_util::{StreamExt as _, poll};

    use super::*;

    #[tokio::test]
    async fn what_passes_keeps_to_the_rate() {
        let env = SimEnv::hasty(1);
        let shared: SharedEnv = Arc::<SimEnv>::clone(&env);
        let cap = Cap::new(shared, Some(10_000_000));
        let start = env.monotonic();
        for _ in 0..100 {
            cap.take(1_000_000, Urgency::Swarm).await;
        }
        let seconds = (env.monotonic() - start).as_secs_f64();
        assert!((9.7..=10.1).contains(&seconds), "100 MB at 10 MB/s took {seconds} s");
    }

    #[tokio::test]
    async fn without_a_rate_nothing_waits() {
        let env = SimEnv::new(1);
        Cap::new(env, None).take(usize::MAX, Urgency::Region).await;
    }

    #[tokio::test]
    async fn the_most_urgent_goes_first_and_who_gives_up_holds_up_nobody() {
        let env = SimEnv::new(1);
        let shared: SharedEnv = Arc::<SimEnv>::clone(&env);
        let cap = Cap::new(shared, Some(1_000_000));
        let take = async |name: &'static str, urgency| {
            cap.take(500_000, urgency).await;
            name
        };
        let mut waiting = FuturesUnordered::new();
        for (name, urgency) in [
            ("region", Urgency::Region),
            ("swarm", Urgency::Swarm),
            ("second swarm", Urgency::Swarm),
            ("client", Urgency::Client),
        ] {
            waiting.push(take(name, urgency));
        }
        let mut leaves = Box::pin(cap.take(1, Urgency::Client));
        assert!(poll!(&mut leaves).is_pending() && poll!(waiting.next()).is_pending());
        drop(leaves);
        let mut order = Vec::new();
        while order.len() < 4 {
            env.advance(Duration::from_millis(100));
            while let Poll::Ready(Some(name)) = poll!(waiting.next()) {
                order.push(name);
            }
        }
        assert_eq!(order, ["client", "swarm", "second swarm", "region"]);
    }

    #[tokio::test]
    async fn nobody_waits_for_ever_however_many_are_more_urgent() {
        let env = SimEnv::hasty(1);
        let shared: SharedEnv = Arc::<SimEnv>::clone(&env);
        let cap = Cap::new(shared, Some(1_000_000));
        let clients = async {
            for served in 0.. {
                tokio::join!(cap.take(1000, Urgency::Client), cap.take(1000, Urgency::Client));
                assert!(served < 10, "the region waits");
            }
        };
        tokio::select! {
            biased;
            () = clients => unreachable!("they do not end"),
            () = cap.take(1000, Urgency::Region) => {}
        }
    }
}
