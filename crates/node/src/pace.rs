//! How fast work in the background may read, so that those who wait for an answer get it.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use ballast_store::env::Env;

/// How fast to read.
#[derive(Debug)]
pub struct Pace {
    /// Bytes a second; nothing: as fast as it goes.
    rate: Option<u64>,
    /// When what was read so far may be over, by the monotonic clock.
    due: Mutex<Duration>,
}

impl Pace {
    /// As fast as it goes.
    pub fn unlimited() -> Self {
        Self { rate: None, due: Mutex::default() }
    }

    /// So many bytes a second.
    pub fn of(bytes_a_second: u64) -> Self {
        Self { rate: Some(bytes_a_second.max(1)), due: Mutex::default() }
    }

    /// Waits until so many bytes more may have been read.
    pub async fn wait(&self, env: &dyn Env, bytes: u64) {
        let Some(rate) = self.rate else { return };
        let now = env.monotonic();
        let wait = {
            let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
            let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(rate);
            let takes = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
            *due = (*due).max(now) + takes;
            due.saturating_sub(now)
        };
        env.sleep(wait).await;
    }
}
