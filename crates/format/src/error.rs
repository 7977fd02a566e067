//! What can be wrong with bytes, and what the caller should do about it.

/// What the caller of anything in this workspace should do about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// It is not there, or the caller may not know that it is.
    NotFound,
    /// The caller is known and may not do this.
    Denied,
    /// The input is wrong; the same input will be wrong again.
    Invalid,
    /// Somebody else was first: read again and decide again.
    Conflict,
    /// Try again later.
    Unavailable,
    /// Stored bytes are not what they must be: wake a person.
    Corrupt,
    /// A fault of our own.
    Internal,
}

/// Bytes or text that are not what they claim to be.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The input ends before the value does.
    #[error("{what} is cut short")]
    Truncated {
        /// What was being read.
        what: &'static str,
    },
    /// The input breaks a rule of its format.
    #[error("{what} is malformed: {reason}")]
    Malformed {
        /// What was being read.
        what: &'static str,
        /// The rule that it breaks.
        reason: String,
    },
    /// The input is over a limit.
    #[error("{what} is too large: {size} is over the limit of {limit}")]
    TooLarge {
        /// What was measured.
        what: &'static str,
        /// Its size or count.
        size: u64,
        /// The limit.
        limit: u64,
    },
    /// The content does not have the hash that names it.
    #[error("{what} does not match its hash: expected `{expected}`, found `{actual}`")]
    HashMismatch {
        /// What was hashed.
        what: &'static str,
        /// The hash it was named by.
        expected: String,
        /// The hash it has.
        actual: String,
    },
    /// A stored format of a version that this program does not know; it never guesses.
    #[error("{what} has the unknown version {version}")]
    UnknownVersion {
        /// What was being read.
        what: &'static str,
        /// The version it carries.
        version: u64,
    },
}

impl Error {
    /// What the caller should do: input of a wrong form stays wrong.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }

    /// Shorthand for [`Error::Malformed`].
    pub fn malformed(what: &'static str, reason: impl Into<String>) -> Self {
        Self::Malformed { what, reason: reason.into() }
    }
}

/// The result of reading or writing a format.
pub type Result<T> = std::result::Result<T, Error>;
