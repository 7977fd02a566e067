//! A simulated environment: a clock that only a test moves, and randomness from a seed.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use ballast_store::env::Env;
use tokio::sync::watch;

/// Where the wall clock of a new environment stands: a moment in November 2023.
pub const START_MS: u64 = 1_700_000_000_000;

/// Numbers that depend on nothing but their seed.
#[derive(Clone, Debug)]
pub struct Dice {
    state: u64,
}

impl Dice {
    /// The numbers of a seed.
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// The next number (`SplitMix64`).
    pub fn draw(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = self.state;
        let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number under `bound`, which must not be zero.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.draw() % bound
    }

    /// A number of thousandths, under a whole.
    pub fn permille(&mut self) -> u16 {
        u16::try_from(self.below(1000)).expect("it is under a thousand")
    }

    /// Does something happen that happens so many times in a thousand?
    pub fn happens(&mut self, per_mille: u32) -> bool {
        self.below(1000) < u64::from(per_mille)
    }
}

/// What sleeping means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sleeping {
    /// Wait until the test has moved the clock far enough.
    Waits,
    /// Move the clock itself, so that waits cost no time.
    MovesTheClock,
}

/// An environment in a test's hands.
#[derive(Debug)]
pub struct SimEnv {
    wall_ms: Mutex<u64>,
    /// Time since the start, watched by those who sleep.
    passed: watch::Sender<Duration>,
    dice: Mutex<Dice>,
    sleeping: Sleeping,
}

impl SimEnv {
    /// An environment in which time stands still until [`SimEnv::advance`].
    pub fn new(seed: u64) -> Arc<Self> {
        Self::with(seed, Sleeping::Waits)
    }

    /// An environment in which whoever sleeps moves the clock on and wakes at once.
    pub fn hasty(seed: u64) -> Arc<Self> {
        Self::with(seed, Sleeping::MovesTheClock)
    }

    fn with(seed: u64, sleeping: Sleeping) -> Arc<Self> {
        Arc::new(Self {
            wall_ms: Mutex::new(START_MS),
            passed: watch::Sender::new(Duration::ZERO),
            dice: Mutex::new(Dice::new(seed)),
            sleeping,
        })
    }

    /// Lets time pass on both clocks, and wakes those whose time has come.
    pub fn advance(&self, by: Duration) {
        let ms = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
        let mut wall = self.wall_ms.lock().unwrap_or_else(PoisonError::into_inner);
        *wall = wall.saturating_add(ms);
        drop(wall);
        self.passed.send_modify(|passed| *passed += by);
    }

    /// Sets the wall clock, back too, as a person may. The other clock does not notice.
    pub fn set_wall_ms(&self, now_ms: u64) {
        *self.wall_ms.lock().unwrap_or_else(PoisonError::into_inner) = now_ms;
    }

    /// How many sleep at the moment.
    pub fn sleepers(&self) -> usize {
        self.passed.receiver_count()
    }
}

#[async_trait]
impl Env for SimEnv {
    fn now_ms(&self) -> u64 {
        *self.wall_ms.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn monotonic(&self) -> Duration {
        *self.passed.borrow()
    }

    fn fill_random(&self, into: &mut [u8]) {
        let mut dice = self.dice.lock().unwrap_or_else(PoisonError::into_inner);
        for group in into.chunks_mut(8) {
            group.copy_from_slice(&dice.draw().to_le_bytes()[..group.len()]);
        }
    }

    async fn sleep(&self, duration: Duration) {
        if self.sleeping == Sleeping::MovesTheClock {
            self.advance(duration);
            tokio::task::yield_now().await;
            return;
        }
        let until = self.monotonic() + duration;
        let mut passed = self.passed.subscribe();
        // The sender lives as long as `self`, so the wait ends only when the time has come.
        let woken = passed.wait_for(|passed| *passed >= until).await;
        drop(woken);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn a_sleeper_wakes_when_its_time_has_come_and_not_before() {
        let env = SimEnv::new(1);
        let mut sleep = env.sleep(Duration::from_secs(10)).boxed();
        assert!(sleep.as_mut().now_or_never().is_none());
        assert_eq!(env.sleepers(), 1);
        env.advance(Duration::from_secs(9));
        assert!(sleep.as_mut().now_or_never().is_none());
        env.advance(Duration::from_secs(1));
        assert!(sleep.as_mut().now_or_never().is_some());
        assert_eq!(env.now_ms(), START_MS + 10_000);
    }

    #[tokio::test]
    async fn a_hasty_sleeper_moves_the_clock() {
        let env = SimEnv::hasty(1);
        env.sleep(Duration::from_secs(3)).await;
        assert_eq!(env.monotonic(), Duration::from_secs(3));
        assert_eq!(env.now_ms(), START_MS + 3000);
    }

    #[test]
    fn the_wall_clock_may_go_back_and_the_other_may_not() {
        let env = SimEnv::new(1);
        env.advance(Duration::from_secs(5));
        env.set_wall_ms(7);
        assert_eq!(env.now_ms(), 7);
        assert_eq!(env.monotonic(), Duration::from_secs(5));
    }

    #[test]
    fn randomness_is_the_seeds() {
        let draw = |seed| {
            let mut bytes = [0; 11];
            SimEnv::new(seed).fill_random(&mut bytes);
            bytes
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }
}
