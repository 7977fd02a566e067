//! Who calls: credentials from the `Authorization` header, and a brake on guessing.
//!
//! Tokens are taken from that header and from nowhere else. Whether a token is good is the hub's
//! to say; here is only how it travels, and that an address which fails too often waits.

use std::net::IpAddr;

use ballast_node::Error;
use ballast_node::access::Caller;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use http::header::AUTHORIZATION;

use crate::Gateway;
use crate::error::Failure;

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
    check_attempts(gateway, peer)?;
    match gateway.hub.authenticate(secret.as_str()) {
        Ok(caller) => Ok(caller),
        Err(error) => {
            if matches!(error, Error::BadToken) {
                gateway.hub.note_wrong_secret(peer, secret.as_str());
            }
            Err(Failure::of(error, &Caller::Anonymous))
        }
    }
}

/// Refuses an address that was wrong too often.
pub(crate) fn check_attempts(gateway: &Gateway, peer: IpAddr) -> Result<(), Failure> {
    let Some(seconds) = gateway.hub.must_wait(peer) else { return Ok(()) };
    let message = format!("too many bad credentials from your address; wait {seconds} seconds");
    Err(Failure::too_many(message, seconds))
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
