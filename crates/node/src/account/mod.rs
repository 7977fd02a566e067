//! Users, organisations, tokens and nodes: creating, listing and ending them.
//!
//! Whether the caller may is decided here, once, before the log is touched, and again by the rule
//! that the log's newest state is shown to.

mod attempts;
mod nodes;
mod orgs;
mod tokens;
mod users;

pub(crate) use attempts::Attempts;
pub use attempts::network;
pub use nodes::{Invitation, NewNode, NodeView, Welcome};
pub use tokens::{NewToken, TokenView};
pub use users::{MembershipView, NewUser};

use std::sync::Arc;

use ballast_format::name::Namespace;

use crate::access::Caller;
use crate::error::{Error, Result};
use crate::state::accounts::{AccountsState, User};

/// Names that addresses of the hub itself begin with.
const RESERVED: &[&str] = &[
    "api",
    "assets",
    "avatars",
    "blog",
    "buckets",
    "collections",
    "datasets",
    "docs",
    "favicon.ico",
    "health",
    "hub",
    "join",
    "kernels",
    "lfs",
    "login",
    "logout",
    "me",
    "metrics",
    "models",
    "new",
    "oauth",
    "organizations",
    "papers",
    "posts",
    "pricing",
    "repos",
    "resolve",
    "robots.txt",
    "search",
    "settings",
    "spaces",
    "static",
    "tasks",
    "telemetry",
    "uploads",
    "users",
    "v1",
    "v2",
    "webhooks",
    "xet",
];

/// The longest text that people may give about themselves and their tokens.
const MAX_TEXT_BYTES: usize = 1000;

fn check_text(what: &str, text: &str) -> Result<()> {
    if text.len() > MAX_TEXT_BYTES || text.chars().any(char::is_control) {
        let limit = MAX_TEXT_BYTES;
        return Err(Error::invalid(format!("{what} must be one line of at most {limit} bytes")));
    }
    Ok(())
}

/// A name for a new user or organisation: well-formed, not ours, not taken.
fn check_new_name(state: &AccountsState, name: &Namespace) -> Result<()> {
    if RESERVED.contains(&name.folded().as_str()) {
        return Err(Error::invalid(format!("the name `{name}` is reserved")));
    }
    match state.owner(name) {
        None => Ok(()),
        Some(_) => Err(Error::Exists { what: format!("the name `{name}`") }),
    }
}

pub(crate) fn check_admin(caller: &Caller) -> Result<()> {
    caller.user()?;
    if caller.is_admin() {
        return Ok(());
    }
    Err(not_admin())
}

fn not_admin() -> Error {
    Error::denied("only an administrator of the hub may do this")
}

/// [`check_admin`] at the moment of the change: by a token that is still good, of a user who still
/// administers the hub (R18).
pub(crate) fn confirm_admin(state: &AccountsState, caller: &Caller) -> Result<()> {
    check_admin(caller)?;
    let user = confirm_user(state, caller)?;
    if user.admin { Ok(()) } else { Err(not_admin()) }
}

/// The caller's account at the moment of the change, if their token is still good.
fn confirm_user(state: &AccountsState, caller: &Caller) -> Result<Arc<User>> {
    let by = caller.user()?;
    state.token(&by.token).ok_or(Error::BadToken)?;
    let user = state.user(&by.user).filter(|user| !user.disabled);
    user.ok_or(Error::BadToken)
}

#[cfg(test)]
mod tests;
