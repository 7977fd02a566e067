//! Clock and randomness, real or simulated.
//!
//! Everything that needs the time, a delay or a random number asks an [`Env`], so that a test can
//! decide all three. Nothing else in the workspace may read a clock or draw randomness.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;

/// Where time and randomness come from.
#[async_trait]
pub trait Env: Send + Sync + Debug + 'static {
    /// Milliseconds since 1970 by the wall clock, which a person may set back.
    fn now_ms(&self) -> u64;

    /// Time since some fixed moment; it never goes back.
    fn monotonic(&self) -> Duration;

    /// Fills the buffer with random bytes that nobody can guess.
    fn fill_random(&self, into: &mut [u8]);

    /// Returns when that much time has passed.
    async fn sleep(&self, duration: Duration);
}

/// An environment that many share.
pub type SharedEnv = Arc<dyn Env>;

/// The real clock and the operating system's randomness.
#[derive(Debug)]
pub struct RealEnv {
    start: Instant,
}

impl RealEnv {
    /// The environment of this machine.
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the clock")]
    pub fn new() -> Self {
        Self { start: Instant::now() }
    }

    /// The same, ready to be shared.
    pub fn shared() -> SharedEnv {
        Arc::new(Self::new())
    }
}

impl Default for RealEnv {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl Env for RealEnv {
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the clock")]
    fn now_ms(&self) -> u64 {
        // A clock before 1970 is a broken clock; zero makes that visible and harms nothing.
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }

    fn fill_random(&self, into: &mut [u8]) {
        getrandom::fill(into).expect("an operating system that runs us has randomness");
    }

    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

/// Random bytes, for ids and keys: `RepoId::from_bytes(random_bytes(env))`.
pub fn random_bytes<const N: usize>(env: &dyn Env) -> [u8; N] {
    let mut bytes = [0; N];
    env.fill_random(&mut bytes);
    bytes
}

/// A random number that makes a name unique.
pub fn nonce(env: &dyn Env) -> u64 {
    u64::from_be_bytes(random_bytes(env))
}

#[cfg(test)]
pub(crate) mod quick {
    //! The real environment, except that sleeping takes no time.

    use super::*;

    #[derive(Debug, Default)]
    pub(crate) struct QuickEnv(RealEnv);

    impl QuickEnv {
        pub(crate) fn shared() -> SharedEnv {
            Arc::new(Self::default())
        }
    }

    #[async_trait]
    impl Env for QuickEnv {
        fn now_ms(&self) -> u64 {
            self.0.now_ms()
        }

        fn monotonic(&self) -> Duration {
            self.0.monotonic()
        }

        fn fill_random(&self, into: &mut [u8]) {
            self.0.fill_random(into);
        }

        async fn sleep(&self, _: Duration) {
            tokio::task::yield_now().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_real_clocks_are_plausible() {
        let env = RealEnv::new();
        assert!(env.now_ms() > 1_700_000_000_000, "we are past 2023");
        let before = env.monotonic();
        assert!(env.monotonic() >= before);
    }

    #[test]
    fn random_bytes_differ() {
        let env = RealEnv::new();
        assert_ne!(random_bytes::<16>(&env), random_bytes::<16>(&env));
        assert_ne!(nonce(&env), nonce(&env));
    }
}
