//! A brake on guessing: an address that is wrong about secrets too often waits, whichever way it
//! comes.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::hub::Hub;

/// Failures that one address may have in a [`WINDOW`].
const MOST_FAILURES: u32 = 20;
const WINDOW: Duration = Duration::from_mins(1);
/// Addresses that are remembered; beyond it, the windows that have ended are forgotten.
const MOST_ADDRESSES: usize = 16_384;

/// Failures by address.
#[derive(Debug, Default)]
pub(crate) struct Attempts {
    failures: Mutex<HashMap<IpAddr, Failures>>,
}

#[derive(Debug)]
struct Failures {
    since: Duration,
    count: u32,
}

impl Attempts {
    /// How long an address must wait at this moment.
    fn wait(&self, address: IpAddr, now: Duration) -> Option<Duration> {
        let failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = failures.get(&address).filter(|entry| entry.count >= MOST_FAILURES)?;
        (entry.since + WINDOW).checked_sub(now).filter(|left| !left.is_zero())
    }

    fn failed(&self, address: IpAddr, now: Duration) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let is_over = |entry: &Failures| now.saturating_sub(entry.since) >= WINDOW;
        if failures.len() >= MOST_ADDRESSES {
            failures.retain(|_, entry| !is_over(entry));
            if failures.len() >= MOST_ADDRESSES {
                // So many addresses at once is an attack; forgetting some bounds the memory.
                failures.clear();
            }
        }
        let entry = failures.entry(address).or_insert_with(|| Failures { since: now, count: 0 });
        if is_over(entry) {
            *entry = Failures { since: now, count: 0 };
        }
        entry.count = entry.count.saturating_add(1);
    }
}

impl Hub {
    /// How many seconds an address must wait that has failed too often; nothing: it may try. Asked
    /// before anything about its secret is computed. What is tried at this very moment may
    /// overshoot by one for each thread.
    pub fn must_wait(&self, address: IpAddr) -> Option<u64> {
        let wait = self.attempts.wait(network(address), self.env().monotonic());
        wait.map(|wait| wait.as_secs() + 1)
    }

    /// Counts that somebody at this address was wrong about a secret, and notes it for the audit.
    pub fn note_wrong_secret(&self, address: IpAddr, secret: &str) {
        self.attempts.failed(network(address), self.env().monotonic());
        self.note_failed_login(network(address), secret);
    }
}

/// What one owner of addresses holds: an IPv4 address, or an IPv6 network of 64 bits.
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            let bits = address.to_bits() & !u128::from(u64::MAX);
            IpAddr::V6(bits.into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(number: u32) -> IpAddr {
        IpAddr::V4(number.into())
    }

    #[test]
    fn who_fails_too_often_waits_until_its_minute_is_over() {
        let (attempts, now) = (Attempts::default(), Duration::from_secs(100));
        for _ in 0..MOST_FAILURES {
            assert_eq!(attempts.wait(address(1), now), None);
            attempts.failed(address(1), now);
        }
        assert_eq!(attempts.wait(address(1), now), Some(WINDOW));
        assert_eq!(attempts.wait(address(2), now), None, "another address");
        let later = now + WINDOW;
        assert_eq!(
            attempts.wait(address(1), later - Duration::from_secs(1)).map(|w| w.as_secs()),
            Some(1)
        );
        assert_eq!(attempts.wait(address(1), later), None);
        attempts.failed(address(1), later);
        assert_eq!(attempts.wait(address(1), later), None, "it begins anew");
    }

    #[test]
    fn the_table_is_bounded() {
        let (attempts, now) = (Attempts::default(), Duration::from_secs(100));
        for number in 0..100_000 {
            attempts.failed(address(number), now);
        }
        assert!(attempts.failures.lock().expect("no panic").len() <= MOST_ADDRESSES);
    }
}
