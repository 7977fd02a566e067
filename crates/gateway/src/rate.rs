//! How much one client may ask for: requests a second and requests at once, and of these uploads
//! and downloads, for each address and for each token.
//!
//! Who asks for more hears 429 and how long to wait, before anything is looked up for them. The
//! table is bounded: an entry is as good as none once its owner has been quiet for a while, and
//! is dropped when room is needed.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ballast_format::id::TokenId;
use ballast_node::access::Caller;
use ballast_node::account::network;

use crate::Gateway;
use crate::error::Failure;

/// What may be asked for at once after a pause, in seconds' worth: clients come in bursts.
const BURST: Duration = Duration::from_secs(10);
/// Addresses and tokens that are remembered.
const MOST_PAYERS: usize = 65_536;
/// What a client with too many requests at once is told to wait: one of them ends soon.
const PAUSE_SECONDS: u64 = 1;

/// Whom a request is counted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Payer {
    Address(IpAddr),
    Token(TokenId),
}

/// What a request moves, if it moves much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Load {
    /// Content of files, to us.
    Upload,
    /// Content of files, from us.
    Download,
}

impl Load {
    fn words(self) -> &'static str {
        match self {
            Self::Upload => "uploads",
            Self::Download => "downloads",
        }
    }
}

/// What one payer may have at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AtOnce {
    pub(crate) requests: u32,
    pub(crate) uploads: u32,
    pub(crate) downloads: u32,
}

/// What one payer has had.
#[derive(Clone, Copy, Debug, Default)]
struct Account {
    /// Up to when the requests so far would have filled the time, had they come one by one.
    filled: Duration,
    in_flight: u32,
    uploads: u32,
    downloads: u32,
}

impl Account {
    fn of(&mut self, load: Load) -> &mut u32 {
        match load {
            Load::Upload => &mut self.uploads,
            Load::Download => &mut self.downloads,
        }
    }
}

/// The counts of all payers.
pub(crate) struct Rates {
    accounts: Mutex<HashMap<Payer, Account>>,
    /// The time that one request fills; zero for no limit.
    spacing: Duration,
    at_once: AtOnce,
}

impl Rates {
    /// So many requests a second, 0 for no limit, and so many at once.
    pub(crate) fn new(per_second: u32, at_once: AtOnce) -> Self {
        let spacing = Duration::from_secs(1).checked_div(per_second).unwrap_or_default();
        Self { accounts: Mutex::default(), spacing, at_once }
    }

    fn enter(&self, payer: Payer, now: Duration) -> Result<(), Failure> {
        let mut accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        if accounts.len() >= MOST_PAYERS && !accounts.contains_key(&payer) {
            make_room(&mut accounts, now);
        }
        let account = accounts.entry(payer).or_default();
        if account.in_flight >= self.at_once.requests {
            let message = "too many requests at once from you; wait until some have ended";
            return Err(Failure::too_many(message, PAUSE_SECONDS));
        }
        let filled = account.filled.max(now);
        if let Some(over) = (filled - now).checked_sub(BURST).filter(|over| !over.is_zero()) {
            let seconds = over.as_secs() + 1;
            let message = format!("too many requests from you; wait {seconds} seconds");
            return Err(Failure::too_many(message, seconds));
        }
        account.filled = filled + self.spacing;
        account.in_flight += 1;
        Ok(())
    }

    /// Counts a load for who has a request in flight.
    fn load(&self, payer: Payer, load: Load) -> Result<(), Failure> {
        let most = match load {
            Load::Upload => self.at_once.uploads,
            Load::Download => self.at_once.downloads,
        };
        let mut accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = accounts.entry(payer).or_default().of(load);
        if *count >= most {
            let loads = load.words();
            let message = format!("too many {loads} at once from you; wait until some have ended");
            return Err(Failure::too_many(message, PAUSE_SECONDS).closing());
        }
        *count += 1;
        Ok(())
    }

    fn unload(&self, payer: Payer, load: Load) {
        let mut accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(account) = accounts.get_mut(&payer) {
            let count = account.of(load);
            *count = count.saturating_sub(1);
        }
    }

    fn leave(&self, payer: Payer) {
        let mut accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(account) = accounts.get_mut(&payer) {
            account.in_flight = account.in_flight.saturating_sub(1);
        }
    }
}

/// Drops who has been quiet. If nearly all are busy, that is an attack from everywhere: their
/// seconds are forgotten, and only what is in flight is still known.
fn make_room(accounts: &mut HashMap<Payer, Account>, now: Duration) {
    accounts.retain(|_, account| account.in_flight > 0 || account.filled > now);
    if accounts.len() > MOST_PAYERS / 4 * 3 {
        accounts.retain(|_, account| account.in_flight > 0);
    }
}

/// One request while it is in flight, which it is until its answer is sent. What it was counted
/// for is given back when this is dropped.
pub(crate) struct Flight {
    gateway: Arc<Gateway>,
    payers: Mutex<Vec<Payer>>,
    loads: Mutex<Vec<(Payer, Load)>>,
}

impl Flight {
    pub(crate) fn new(gateway: &Arc<Gateway>) -> Arc<Self> {
        Arc::new(Self {
            gateway: Arc::clone(gateway),
            payers: Mutex::default(),
            loads: Mutex::default(),
        })
    }

    /// Counts the request for the address that it came from.
    pub(crate) fn count_address(&self, address: IpAddr) -> Result<(), Failure> {
        self.count(Payer::Address(network(address)))
    }

    /// Counts the request for the token that it came with, if it came with one.
    pub(crate) fn count_caller(&self, caller: &Caller) -> Result<(), Failure> {
        match caller {
            Caller::Anonymous => Ok(()),
            Caller::User(user) => self.count(Payer::Token(user.token)),
        }
    }

    /// Counts what the request moves, for all that it is counted for. Asked once, before anything
    /// is moved.
    pub(crate) fn count_load(&self, load: Load) -> Result<(), Failure> {
        let payers = self.payers.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for payer in payers {
            self.gateway.rates.load(payer, load)?;
            self.loads.lock().unwrap_or_else(PoisonError::into_inner).push((payer, load));
        }
        Ok(())
    }

    fn count(&self, payer: Payer) -> Result<(), Failure> {
        self.gateway.rates.enter(payer, self.gateway.hub.env().monotonic())?;
        self.payers.lock().unwrap_or_else(PoisonError::into_inner).push(payer);
        Ok(())
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        let loads = self.loads.get_mut().unwrap_or_else(PoisonError::into_inner);
        for (payer, load) in std::mem::take(loads) {
            self.gateway.rates.unload(payer, load);
        }
        let payers = self.payers.get_mut().unwrap_or_else(PoisonError::into_inner);
        for payer in std::mem::take(payers) {
            self.gateway.rates.leave(payer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn address(number: u32) -> Payer {
        Payer::Address(IpAddr::V4(number.into()))
    }

    fn at_once(requests: u32) -> AtOnce {
        AtOnce { requests, uploads: 2, downloads: 3 }
    }

    #[test]
    fn loads_are_counted_apart_and_each_for_its_own() {
        let rates = Rates::new(0, at_once(100));
        for payer in [address(1), address(2)] {
            let passed = |load| (0..9).take_while(|_| rates.load(payer, load).is_ok()).count();
            assert_eq!((passed(Load::Upload), passed(Load::Download)), (2, 3));
            rates.unload(payer, Load::Upload);
            assert_eq!((passed(Load::Upload), passed(Load::Download)), (1, 0));
        }
    }

    #[test]
    fn a_burst_passes_and_then_so_many_a_second() {
        let rates = Rates::new(5, at_once(1000));
        let passed = |now| (0..1000).take_while(|_| rates.enter(address(1), now).is_ok()).count();
        // What fills ten seconds, and the one that may begin at their end.
        assert_eq!(passed(SECOND), 51);
        assert_eq!(passed(SECOND), 0);
        assert_eq!(passed(SECOND * 3), 10);
        rates.enter(address(2), SECOND).expect("another address");
    }

    #[test]
    fn no_limit_is_none_and_what_has_ended_is_not_in_flight() {
        let rates = Rates::new(0, at_once(2));
        for _ in 0..10_000 {
            rates.enter(address(1), SECOND).expect("below the limit");
            rates.leave(address(1));
        }
        rates.enter(address(1), SECOND).expect("the first");
        rates.enter(address(1), SECOND).expect("the second");
        rates.enter(address(1), SECOND).expect_err("the third");
    }

    #[test]
    fn the_table_is_bounded_and_keeps_what_is_in_flight() {
        let rates = Rates::new(1, at_once(1));
        rates.enter(address(0), SECOND).expect("the first");
        for number in 1..200_000 {
            rates.enter(address(number), SECOND).expect("each its own");
            rates.leave(address(number));
        }
        assert!(rates.accounts.lock().expect("no panic").len() <= MOST_PAYERS);
        rates.enter(address(0), SECOND).expect_err("still in flight");
    }
}
