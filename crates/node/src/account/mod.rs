//! Users, organisations and tokens: creating, listing and ending them.
//!
//! Whether the caller may is decided here, once, before the log is touched, and again by the rule
//! that the log's newest state is shown to.

mod orgs;
mod tokens;
mod users;

pub use tokens::{NewToken, TokenView};
pub use users::{MembershipView, NewUser};

use ballast_format::name::Namespace;

use crate::access::Caller;
use crate::error::{Error, Result};
use crate::state::accounts::AccountsState;

/// Names that addresses of the hub itself begin with.
const RESERVED: &[&str] = &[
    "api", "blog", "buckets", "collections", "datasets", "docs", "health", "hub", "join", "kernels",
    "lfs", "login", "logout", "me", "metrics", "models", "new", "oauth", "organizations", "papers",
    "pricing", "resolve", "search", "settings", "spaces", "tasks", "uploads", "v1", "v2", "xet",
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

fn check_admin(caller: &Caller) -> Result<()> {
    caller.user()?;
    if caller.is_admin() {
        return Ok(());
    }
    Err(Error::denied("only an administrator of the hub may do this"))
}
