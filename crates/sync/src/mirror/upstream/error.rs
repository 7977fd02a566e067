//! Why an upstream did not give what it was asked for, said so that a caller can act on it.
//!
//! What matters most is that a failure is never taken for an absence: only an upstream that says in
//! the hub's own way that something is missing is believed.

use std::fmt;
use std::time::Duration;

/// What an upstream says it does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// The repo: there is none, or our token may not know of it.
    Repo,
    /// The branch, tag or commit.
    Revision,
    /// The file or folder.
    File,
}

impl fmt::Display for Missing {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Repo => "such repo",
            Self::Revision => "such revision",
            Self::File => "such file",
        })
    }
}

/// Why an upstream refuses us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denial {
    /// It does not accept our token, or wants one.
    Token,
    /// The repo's files are for those who asked for access and got it.
    Gated,
    /// The repo is closed.
    Disabled,
    /// Our token may not do this.
    Forbidden,
}

impl fmt::Display for Denial {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Token => "it does not accept our token\nhint: check the upstream's `token_file`",
            Self::Gated => "it is gated\nhint: ask for access there, with the token's account",
            Self::Disabled => "it is disabled there",
            Self::Forbidden => "our token may not read it",
        })
    }
}

/// Why an upstream did not give what it was asked for.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// It says, in the hub's own way, that there is none.
    #[error("the upstream has no {missing}: `{what}`")]
    NotThere {
        /// What kind of thing.
        missing: Missing,
        /// What was asked for.
        what: String,
    },
    /// It will not give it to us.
    #[error("the upstream refuses `{what}`: {why}")]
    Denied {
        /// Why.
        why: Denial,
        /// What was asked for.
        what: String,
    },
    /// It wants to be asked later.
    #[error("the upstream limits our requests for another {} s", retry_after.as_secs())]
    RateLimited {
        /// When it may be asked again.
        retry_after: Duration,
    },
    /// It cannot be reached, or is in trouble; it may be asked again.
    #[error("the upstream is not available: {reason}")]
    Unavailable {
        /// What happened.
        reason: String,
    },
    /// What it sent contradicts itself, or is no hub's answer; nothing of it may be kept.
    #[error("the upstream cannot be believed: {what}")]
    Lied {
        /// What is wrong.
        what: String,
    },
    /// It does not do what we asked; asking again changes nothing.
    #[error("the upstream answered {status} to `{what}`: {message}")]
    Refused {
        /// The status.
        status: u16,
        /// What was asked for.
        what: String,
        /// Its own words.
        message: String,
    },
    /// It has something that no hub of ours can hold.
    #[error("the upstream has what cannot be held here: {what}")]
    Unfit {
        /// What.
        what: String,
    },
    /// The settings make no sense.
    #[error("{reason}")]
    Settings {
        /// Why.
        reason: String,
    },
}

impl Error {
    pub(super) fn unavailable(reason: impl Into<String>) -> Self {
        Self::Unavailable { reason: reason.into() }
    }

    pub(super) fn lied(what: impl Into<String>) -> Self {
        Self::Lied { what: what.into() }
    }

    pub(super) fn settings(reason: impl Into<String>) -> Self {
        Self::Settings { reason: reason.into() }
    }

    /// Whether the same question may have another answer later. A lie counts: a broken proxy tells
    /// some, and it passes.
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::RateLimited { .. } | Self::Unavailable { .. } | Self::Lied { .. })
    }
}

/// What went wrong on the wire, with its causes but without the address, which may be signed.
pub(super) fn on_the_wire(error: reqwest::Error) -> Error {
    let error = error.without_url();
    let mut reason = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(next) = cause {
        let text = next.to_string();
        if !reason.contains(&text) {
            reason = format!("{reason}: {text}");
        }
        cause = next.source();
    }
    Error::Unavailable { reason }
}
