//! One process of a simulated world: it sleeps between any two steps, dies, and reads a clock that
//! is wrong.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use ballast_store::env::{Env, SharedEnv};
use object_store::ObjectStore;
use object_store::prefix::PrefixStore;
use tokio::sync::Notify;

use super::connection::Connection;
use super::{World, between};
use crate::clock::Dice;

/// What becomes of a process's calls, out of a thousand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Habits {
    /// Nothing happens, and the caller hears of an error.
    pub refused: u32,
    /// It happens, and the caller hears of an error.
    pub reply_lost: u32,
    /// The caller hears of an error; it happens up to weeks later. Puts and deletes only.
    pub late: u32,
    /// A listing does not know of what came in the last half minute.
    pub stale: u32,
    /// It takes seconds.
    pub slow: u32,
    /// The whole process sleeps for minutes or days, before it sends or after it was answered.
    pub nap: u32,
}

#[derive(Debug)]
struct State {
    dice: Dice,
    habits: Habits,
    sleeps_until: Duration,
    is_dead: bool,
    skew_ms: i64,
}

/// A process.
#[derive(Debug)]
pub struct Process {
    world: Arc<World>,
    number: usize,
    state: Mutex<State>,
    /// What it draws for itself.
    random: Mutex<Dice>,
    death: Notify,
}

impl Process {
    pub(super) fn new(world: &Arc<World>, number: usize, seed: u64, habits: Habits) -> Arc<Self> {
        let state = State {
            dice: Dice::new(seed),
            habits,
            sleeps_until: Duration::ZERO,
            is_dead: false,
            skew_ms: 0,
        };
        Arc::new(Self {
            world: Arc::clone(world),
            number,
            state: Mutex::new(state),
            random: Mutex::new(Dice::new(!seed)),
            death: Notify::new(),
        })
    }

    /// Its clock, and what it draws.
    pub fn env(self: &Arc<Self>) -> SharedEnv {
        Arc::new(ProcessEnv(Arc::clone(self)))
    }

    /// Its way to the store.
    pub fn objects(self: &Arc<Self>) -> Arc<dyn ObjectStore> {
        Arc::new(Connection::new(&self.world, self))
    }

    /// Its way to the store of one of several regions, which know nothing of each other.
    pub fn objects_of(self: &Arc<Self>, region: &str) -> Arc<dyn ObjectStore> {
        Arc::new(PrefixStore::new(self.objects(), region))
    }

    /// Which it is; the first is 1.
    pub fn number(&self) -> usize {
        self.number
    }

    /// What becomes of its calls from now on.
    pub fn set_habits(&self, habits: Habits) {
        self.state().habits = habits;
    }

    /// Sets its wall clock wrong by so much.
    pub fn set_skew_ms(&self, skew_ms: i64) {
        self.world.note(&format!("p{} clock wrong by {skew_ms} ms", self.number));
        self.state().skew_ms = skew_ms;
    }

    /// Everything in it stands still for so long.
    pub fn sleep_for(&self, time: Duration) {
        self.world.note(&format!("p{} sleeps for {time:?}", self.number));
        let until = self.world.time().now() + time;
        let state = &mut *self.state();
        state.sleeps_until = state.sleeps_until.max(until);
    }

    /// It never does anything again. What it has sent may still happen.
    pub fn kill(&self) {
        self.world.note(&format!("p{} dies", self.number));
        self.state().is_dead = true;
        self.death.notify_waiters();
    }

    /// Whether it is dead.
    pub fn is_dead(&self) -> bool {
        self.state().is_dead
    }

    /// Returns when it is dead, to those who wait for an answer of it.
    pub async fn died(&self) {
        let death = self.death.notified();
        if !self.is_dead() {
            death.await;
        }
    }

    /// Waits while it sleeps; for ever if it is dead.
    pub(super) async fn awake(&self) {
        loop {
            let until = {
                let state = self.state();
                if state.is_dead { None } else { Some(state.sleeps_until) }
            };
            let Some(until) = until else {
                return std::future::pending().await;
            };
            let now = self.world.time().now();
            if now >= until {
                return;
            }
            self.world.time().sleep(until - now).await;
        }
    }

    /// How long something takes on its way.
    pub(super) async fn travel(&self) {
        let (time, nap) = {
            let state = &mut *self.state();
            let (dice, habits) = (&mut state.dice, state.habits);
            let longest = if dice.happens(habits.slow) { 40_000 } else { 40 };
            let time = between(dice, Duration::from_millis(1), Duration::from_millis(longest));
            let longest = Duration::from_hours(120);
            let nap = dice.happens(habits.nap);
            (time, nap.then(|| between(dice, Duration::from_mins(1), longest)))
        };
        self.world.time().sleep(time).await;
        if let Some(nap) = nap {
            self.sleep_for(nap);
        }
        self.awake().await;
    }

    /// Decides something about a call.
    pub(super) fn decide<T>(&self, decide: impl FnOnce(&mut Dice, &Habits) -> T) -> T {
        let state = &mut *self.state();
        decide(&mut state.dice, &state.habits)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
struct ProcessEnv(Arc<Process>);

#[async_trait]
impl Env for ProcessEnv {
    fn now_ms(&self) -> u64 {
        self.0.world.now_ms().saturating_add_signed(self.0.state().skew_ms)
    }

    fn monotonic(&self) -> Duration {
        self.0.world.time().now()
    }

    fn fill_random(&self, into: &mut [u8]) {
        let mut dice = self.0.random.lock().unwrap_or_else(PoisonError::into_inner);
        for group in into.chunks_mut(8) {
            group.copy_from_slice(&dice.draw().to_le_bytes()[..group.len()]);
        }
    }

    async fn sleep(&self, duration: Duration) {
        self.0.world.time().sleep(duration).await;
        self.0.awake().await;
    }
}
