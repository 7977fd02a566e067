//! How long to wait before the next try.
//!
//! Doubling with full jitter, so that many who failed together do not come back together. How
//! many tries there are is for the caller to bound.

use std::time::Duration;

use crate::env::{Env, nonce};

const FIRST_MS: u64 = 50;
const LONGEST_MS: u64 = 2_000;

/// Waits before try number `attempt` (the second try is number 1).
pub(crate) async fn wait(env: &dyn Env, attempt: u32) {
    env.sleep(delay(env, attempt)).await;
}

fn delay(env: &dyn Env, attempt: u32) -> Duration {
    let doubled = FIRST_MS.saturating_mul(1 << attempt.saturating_sub(1).min(16));
    let most = doubled.min(LONGEST_MS);
    Duration::from_millis(most / 2 + nonce(env) % (most / 2 + 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::RealEnv;

    #[test]
    fn delays_grow_and_stay_bounded() {
        let env = RealEnv::new();
        for attempt in 0..100 {
            let delay = delay(&env, attempt);
            assert!(delay >= Duration::from_millis(FIRST_MS / 2), "{attempt}");
            assert!(delay <= Duration::from_millis(LONGEST_MS), "{attempt}");
        }
        assert!(delay(&env, 10) >= Duration::from_millis(LONGEST_MS / 2));
    }
}
