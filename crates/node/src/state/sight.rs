//! How well a log is known: when somebody last looked at its end, and whether what is known may be
//! behind.
//!
//! Looks are numbered in the order in which they began. Whoever needs to know the log as it is now
//! may use any look that began after they asked, so that many who ask at once look once.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::hub::Freshness;

/// What one process knows about the end of a log.
#[derive(Debug)]
pub(crate) struct Sight {
    /// The number of the latest look that began.
    began: AtomicU64,
    /// The number of the latest look that came to its end.
    done: AtomicU64,
    /// The first look that may be believed.
    needed: AtomicU64,
    /// When the look that is done began, in milliseconds of the monotonic clock.
    looked_ms: AtomicU64,
}

/// A look that is under way.
#[derive(Debug)]
pub(crate) struct Look {
    number: u64,
    began_ms: u64,
}

impl Sight {
    /// Nobody has looked yet.
    pub(crate) fn new() -> Self {
        Self {
            began: AtomicU64::new(0),
            done: AtomicU64::new(0),
            needed: AtomicU64::new(1),
            looked_ms: AtomicU64::new(0),
        }
    }

    /// From now on only looks that begin later are believed: something may have been written of
    /// which we do not know.
    pub(crate) fn doubt(&self) {
        let next = self.began() + 1;
        self.needed.fetch_max(next, Ordering::SeqCst);
    }

    /// Whether something may have been written of which we do not know, though nobody else writes.
    pub(crate) fn is_doubtful(&self) -> bool {
        self.done.load(Ordering::SeqCst) < self.needed.load(Ordering::SeqCst)
    }

    /// Whether somebody must look before an answer may be given.
    pub(crate) fn is_stale(&self, freshness: Freshness, now: Duration) -> bool {
        let is_old = match freshness {
            Freshness::Exclusive => false,
            Freshness::Within(age) => {
                let looked = Duration::from_millis(self.looked_ms.load(Ordering::SeqCst));
                now.saturating_sub(looked) >= age
            }
        };
        is_old || self.is_doubtful()
    }

    /// How many looks have begun so far.
    pub(crate) fn began(&self) -> u64 {
        self.began.load(Ordering::SeqCst)
    }

    /// Whether a look that began after so many others has come to its end.
    pub(crate) fn has_looked_since(&self, began: u64) -> bool {
        self.done.load(Ordering::SeqCst) > began
    }

    /// Begins a look; one at a time.
    pub(crate) fn begin(&self, now: Duration) -> Look {
        let number = self.began.fetch_add(1, Ordering::SeqCst) + 1;
        // Rounded down: a look seems older than it is, never younger.
        let began_ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        Look { number, began_ms }
    }

    /// A look found the end, and everything before it is known.
    pub(crate) fn end(&self, look: &Look) {
        self.looked_ms.store(look.began_ms, Ordering::SeqCst);
        self.done.fetch_max(look.number, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn nothing_is_believed_before_the_first_look() {
        let sight = Sight::new();
        assert!(sight.is_stale(Freshness::Exclusive, Duration::ZERO));
        let look = sight.begin(Duration::ZERO);
        assert!(sight.is_doubtful());
        sight.end(&look);
        assert!(!sight.is_stale(Freshness::Exclusive, SECOND * 1000));
    }

    #[test]
    fn a_look_that_began_before_the_doubt_does_not_end_it() {
        let sight = Sight::new();
        let early = sight.begin(Duration::ZERO);
        sight.doubt();
        sight.end(&early);
        assert!(sight.is_doubtful());
        let late = sight.begin(Duration::ZERO);
        sight.end(&late);
        assert!(!sight.is_doubtful());
    }

    #[test]
    fn a_look_ages_from_its_beginning() {
        let sight = Sight::new();
        let look = sight.begin(SECOND * 10);
        sight.end(&look);
        let within = |age| Freshness::Within(age);
        assert!(!sight.is_stale(within(SECOND * 5), SECOND * 14));
        assert!(sight.is_stale(within(SECOND * 5), SECOND * 15));
        assert!(sight.is_stale(within(Duration::ZERO), SECOND * 10));
    }

    #[test]
    fn who_asked_may_use_looks_that_began_later_and_no_others() {
        let sight = Sight::new();
        let first = sight.begin(Duration::ZERO);
        let asked = sight.began();
        sight.end(&first);
        assert!(!sight.has_looked_since(asked));
        let second = sight.begin(Duration::ZERO);
        sight.end(&second);
        assert!(sight.has_looked_since(asked));
    }
}
