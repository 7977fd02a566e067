//! Who lost to another waits before the next try, and longer after each loss.
//!
//! Between processes nothing but luck says who is first, and who needs longer for a try loses more
//! often. Of eight that try again at once, one in thirty loses twenty times. Waits that grow leave
//! the log to fewer at a time, so that all need fewer tries: with these, eight who never rest need
//! nineteen at most, and together write as much as before, less a seventh (ADR 3).

use std::time::Duration;

use ballast_store::env::{Env, nonce};

use crate::broken::{Step, is_left_out};
use crate::error::{Error, Result};

/// Times that somebody may lose to others before they are told to come again.
pub(crate) const MOST_TRIES: u32 = 20;
/// The first wait lasts up to so many tries, and no wait up to more than so many.
const FIRST: u32 = 2;
const LONGEST: u32 = 16;
/// Whatever a try takes: somebody waits for the answer.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// The tries of one writer at one change.
#[derive(Debug)]
pub(crate) struct Turns {
    lost: u32,
    began: Duration,
    owed: Option<Duration>,
}

impl Turns {
    /// Before the first try.
    pub(crate) fn begin(env: &dyn Env) -> Self {
        Self { lost: 0, began: env.monotonic(), owed: None }
    }

    /// Somebody else was first, `what` they changed too.
    pub(crate) fn lose(&mut self, env: &dyn Env, what: &str) -> Result<()> {
        self.lost += 1;
        if self.lost >= MOST_TRIES {
            return Err(Error::Busy { reason: format!("too many others {what}") });
        }
        let took = env.monotonic().saturating_sub(self.began);
        let tries = FIRST.saturating_pow(self.lost).min(LONGEST);
        let most = took.saturating_mul(tries).min(LONGEST_WAIT);
        let share = u32::try_from(nonce(env) % 1000).unwrap_or(0);
        self.owed = Some(most / 2 + most / 2 * share / 1000);
        Ok(())
    }

    /// Whether there was a loss for which nobody has waited yet.
    pub(crate) fn is_owed(&self) -> bool {
        self.owed.is_some()
    }

    /// Waits for the last loss; the next try begins.
    pub(crate) async fn wait(&mut self, env: &dyn Env) {
        if let Some(owed) = self.owed.take().filter(|_| !is_left_out(Step::Wait)) {
            env.sleep(owed).await;
        }
        self.began = env.monotonic();
    }
}

#[cfg(test)]
mod tests {
    use ballast_testkit::clock::SimEnv;

    use super::*;

    #[tokio::test]
    async fn waits_grow_with_each_loss_and_with_what_a_try_takes_and_end() {
        let env = SimEnv::hasty(1);
        let mut turns = Turns::begin(env.as_ref());
        let mut before = Duration::ZERO;
        for lost in 1..MOST_TRIES {
            env.advance(Duration::from_millis(10));
            assert!(!turns.is_owed());
            turns.lose(env.as_ref(), "write").expect("it may try again");
            let start = env.monotonic();
            turns.wait(env.as_ref()).await;
            let waited = env.monotonic() - start;
            let most = Duration::from_millis(10) * 2_u32.pow(lost).min(16);
            assert!(waited >= most / 2 && waited <= most, "{lost}: {waited:?}");
            assert!(waited >= before / 2);
            before = waited;
        }
        assert!(matches!(turns.lose(env.as_ref(), "write"), Err(Error::Busy { .. })));
        let mut slow = Turns::begin(env.as_ref());
        env.advance(Duration::from_hours(1));
        slow.lose(env.as_ref(), "write").expect("it may try again");
        let start = env.monotonic();
        slow.wait(env.as_ref()).await;
        assert!(env.monotonic() - start <= LONGEST_WAIT);
    }
}
