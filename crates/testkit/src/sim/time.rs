//! Time that passes only when everybody waits.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// Wakes of one run. More can only mean that it never ends.
const MOST_WAKES: u64 = 20_000_000;

/// The one time of a run.
#[derive(Debug, Default)]
pub struct SimTime {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    now: Duration,
    sleepers: BTreeMap<(Duration, u64), Option<Waker>>,
    begun: u64,
    wakes: u64,
    ticker: Option<Waker>,
}

impl SimTime {
    pub(super) fn new() -> Arc<Self> {
        Arc::default()
    }

    /// How much has passed since the beginning.
    pub fn now(&self) -> Duration {
        self.state().now
    }

    /// Waits for so long.
    pub fn sleep(self: &Arc<Self>, duration: Duration) -> Sleep {
        let state = &mut *self.state();
        let key = (state.now.saturating_add(duration), state.begun);
        state.begun += 1;
        Sleep { time: Arc::clone(self), key }
    }

    /// Passes on to when the first sleeper wakes, and wakes it.
    fn wake_next(&self) {
        let waker = {
            let state = &mut *self.state();
            let Some(((at, _), waker)) = state.sleepers.pop_first() else {
                panic!("everybody waits for somebody else, and nobody sleeps");
            };
            state.now = state.now.max(at);
            state.wakes += 1;
            assert!(state.wakes < MOST_WAKES, "it never ends");
            [waker, state.ticker.take()]
        };
        for waker in waker.into_iter().flatten() {
            waker.wake();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A wait; it begins when it is made.
#[derive(Debug)]
pub struct Sleep {
    time: Arc<SimTime>,
    key: (Duration, u64),
}

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let state = &mut *self.time.state();
        if state.now >= self.key.0 {
            state.sleepers.remove(&self.key);
            return Poll::Ready(());
        }
        state.sleepers.insert(self.key, Some(context.waker().clone()));
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        self.time.state().sleepers.remove(&self.key);
    }
}

/// Runs this to its end on this thread.
pub(super) fn run<T>(time: &Arc<SimTime>, work: impl Future<Output = T>) -> T {
    let clock = Arc::clone(time);
    let mut builder = tokio::runtime::Builder::new_current_thread();
    // It is called when there is nothing to do, and may make something to do.
    let runtime = builder.on_thread_park(move || clock.wake_next()).build();
    let runtime = runtime.expect("a runtime without input and output");
    // Who is woken may be somebody to whom nobody listens any more. So that it is called again then
    // too, there is always one with something to do.
    let ticks = Arc::clone(time);
    let ticker = std::future::poll_fn(move |context| {
        ticks.state().ticker = Some(context.waker().clone());
        Poll::<()>::Pending
    });
    drop(runtime.spawn(ticker));
    runtime.block_on(work)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sleepers_wake_in_the_order_of_their_times_and_weeks_take_no_time() {
        let time = SimTime::new();
        let woken = Mutex::new(Vec::new());
        let sleeper = |hours: u64| {
            let (time, woken) = (&time, &woken);
            async move {
                time.sleep(Duration::from_hours(hours)).await;
                woken.lock().expect("one thread").push((hours, time.now()));
            }
        };
        run(&time, async {
            let all = [900, 3, 40].map(sleeper);
            futures_util::future::join_all(all).await;
            drop(time.sleep(Duration::from_hours(2000)));
        });
        let expected = [3, 40, 900].map(|hours| (hours, Duration::from_hours(hours)));
        assert_eq!(*woken.lock().expect("one thread"), expected);
    }

    #[test]
    #[should_panic(expected = "nobody sleeps")]
    fn who_waits_for_nobody_is_found_out() {
        run(&SimTime::new(), std::future::pending::<()>());
    }
}
