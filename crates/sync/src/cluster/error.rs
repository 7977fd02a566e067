//! What can go wrong between processes of a cluster.

use std::io;
use std::path::Path;

/// Why a process has no identity, or does not get what it asks for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What was given makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// Nobody answers, or not in time; may pass.
    #[error("`{address}` cannot be reached: {reason}")]
    Unreachable {
        /// Whom.
        address: String,
        /// Why.
        reason: String,
    },
    /// Whoever answers is not who it should be.
    #[error("`{address}` is not a hub of this cluster: {reason}")]
    NotTheHub {
        /// Who.
        address: String,
        /// What shows it.
        reason: String,
    },
    /// The hub refused, and said why.
    #[error("the hub refused: {0}")]
    Refused(String),
    /// A key or a certificate that can't be used.
    #[error("{what} can't be used: {reason}")]
    Unusable {
        /// What.
        what: &'static str,
        /// Why.
        reason: String,
    },
    /// A file could not be read or written.
    #[error("`{file}`: {error}")]
    File {
        /// Which.
        file: String,
        /// Why.
        error: io::Error,
    },
}

/// What is asked of a cluster.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub(super) fn unusable(what: &'static str, reason: impl ToString) -> Self {
        Self::Unusable { what, reason: reason.to_string() }
    }

    pub(super) fn file(path: &Path, error: io::Error) -> Self {
        Self::File { file: path.display().to_string(), error }
    }
}
