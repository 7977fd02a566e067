//! Who calls: credentials from the `Authorization` header, and a brake on guessing.
//!
//! Tokens are taken from that header and from nowhere else. Whether a token is good is the hub's
//! to say; here is only how it travels, and that an address which fails too often waits.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use ballast_node::Error;
use ballast_node::access::Caller;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use http::header::AUTHORIZATION;

use crate::Gateway;
use crate::error::Failure;

/// Failures that one address may have in a [`WINDOW`].
const MOST_FAILURES: u32 = 20;
const WINDOW: Duration = Duration::from_mins(1);
/// Addresses that are remembered; beyond it, the windows that have ended are forgotten.
const MOST_ADDRESSES: usize = 16_384;
/// Longer credentials are not ours.
const LONGEST: usize = 1024;

/// Who sent a request with these headers; nobody in particular if there are no credentials.
pub(crate) fn authenticate(
    gateway: &Gateway,
    headers: &HeaderMap,
    peer: IpAddr,
) -> Result<Caller, Failure> {
    // A node knows no tokens: those that come are for its hub.
    if gateway.hub.shows_all() {
        return Ok(Caller::Anonymous);
    }
    let Some(secret) = credentials(headers)? else { return Ok(Caller::Anonymous) };
    gateway.attempts.check(gateway, peer)?;
    match gateway.hub.authenticate(secret.as_str()) {
        Ok(caller) => Ok(caller),
        Err(error) => {
            if matches!(error, Error::BadToken) {
                gateway.attempts.failed(gateway, peer);
                gateway.hub.note_failed_login(network(peer), secret.as_str());
            }
            Err(Failure::of(error, &Caller::Anonymous))
        }
    }
}

/// A token as it was sent. It has no `Debug`: it must not reach a log.
pub(crate) struct Secret(String);

impl Secret {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// The token in the `Authorization` header: after `Bearer`, or as the password of `Basic`.
pub(crate) fn credentials(headers: &HeaderMap) -> Result<Option<Secret>, Failure> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Failure::invalid("more than one `Authorization` header"));
    }
    let text = value.to_str().ok().filter(|text| text.len() <= LONGEST);
    let (scheme, rest) =
        text.and_then(|text| text.split_once(' ')).ok_or_else(Failure::bad_token)?;
    let rest = rest.trim();
    if scheme.eq_ignore_ascii_case("bearer") {
        return Ok(Some(Secret(rest.to_owned())));
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return Err(Failure::bad_token());
    }
    let pair = STANDARD.decode(rest).ok().and_then(|pair| String::from_utf8(pair).ok());
    let pair = pair.ok_or_else(Failure::bad_token)?;
    let (_, password) = pair.split_once(':').ok_or_else(Failure::bad_token)?;
    Ok(Some(Secret(password.to_owned())))
}

/// Failed logins by address.
#[derive(Default)]
pub(crate) struct Attempts {
    failures: Mutex<HashMap<IpAddr, Failures>>,
}

struct Failures {
    since: Duration,
    count: u32,
}

impl Attempts {
    /// Refuses an address that has failed too often, before anything about its credentials is
    /// computed. Requests that run at this very moment may overshoot by one for each thread.
    pub(crate) fn check(&self, gateway: &Gateway, peer: IpAddr) -> Result<(), Failure> {
        let failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        if failures.is_empty() {
            return Ok(());
        }
        let Some(entry) = failures.get(&network(peer)) else { return Ok(()) };
        let left = (entry.since + WINDOW).saturating_sub(gateway.hub.env().monotonic());
        if entry.count < MOST_FAILURES || left.is_zero() {
            return Ok(());
        }
        let seconds = left.as_secs() + 1;
        let message = format!("too many bad credentials from your address; wait {seconds} seconds");
        Err(Failure::too_many(message, seconds))
    }

    /// Counts a failure.
    pub(crate) fn failed(&self, gateway: &Gateway, peer: IpAddr) {
        let now = gateway.hub.env().monotonic();
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let is_over = |entry: &Failures| now.saturating_sub(entry.since) >= WINDOW;
        if failures.len() >= MOST_ADDRESSES {
            failures.retain(|_, entry| !is_over(entry));
            if failures.len() >= MOST_ADDRESSES {
                // So many addresses at once is an attack; forgetting some bounds the memory.
                failures.clear();
            }
        }
        let entry =
            failures.entry(network(peer)).or_insert_with(|| Failures { since: now, count: 0 });
        if is_over(entry) {
            *entry = Failures { since: now, count: 0 };
        }
        entry.count = entry.count.saturating_add(1);
    }
}

/// What one owner of addresses holds: an IPv4 address, or an IPv6 network of 64 bits.
pub(crate) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            let bits = address.to_bits() & !u128::from(u64::MAX);
            IpAddr::V6(bits.into())
        }
    }
}
