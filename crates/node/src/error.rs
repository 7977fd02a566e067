//! What can go wrong in a region, said so that a caller can act on it.

use ballast_format::ErrorKind;
use ballast_format::hash::ObjectHash;

use crate::quota::Measure;

/// Why a verb did not do what it was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// There is no such repo, or the caller may not know that there is.
    #[error("repository not found")]
    RepoNotFound,
    /// The repo has no such branch, tag or commit.
    #[error("revision `{revision}` not found")]
    RevisionNotFound {
        /// What was asked for.
        revision: String,
    },
    /// The commit has nothing at this path.
    // Clients look for the words from "A file" on, and add advice to them.
    #[error("`{path}` not found: A file with this name doesn't exist in this revision")]
    EntryNotFound {
        /// What was asked for.
        path: String,
        /// The commit that was looked at.
        commit: Option<ObjectHash>,
    },
    /// Reading the files needs a permission that the caller does not have yet.
    #[error("access to `{repo}` is restricted: ask for it first")]
    Gated {
        /// The repo.
        repo: String,
    },
    /// The token is unknown, expired or revoked.
    #[error("Invalid credentials in Authorization header")]
    BadToken,
    /// Nobody may do this without saying who they are.
    #[error("a token is needed for this")]
    LoginNeeded,
    /// The caller is known and may not do this.
    #[error("{reason}")]
    Denied {
        /// What is missing.
        reason: String,
    },
    /// The repo's log grows in another region.
    #[error(
        "the {repo} has its home in the region `{region}`, and changes only there; \
         hint: write to {address}"
    )]
    AwayFromHome {
        /// Which.
        repo: String,
        /// Which region is its home.
        region: String,
        /// Where clients reach that.
        address: String,
    },
    /// A rule of the policy says no.
    #[error("{reason}")]
    Refused {
        /// The rule.
        rule: String,
        /// The whole sentence, which names it.
        reason: String,
    },
    /// An administrator has closed the repo.
    #[error("Access to this resource is disabled.")]
    Disabled,
    /// The request makes no sense, whoever makes it.
    #[error("{reason}")]
    Invalid {
        /// Why.
        reason: String,
    },
    /// There is one already.
    #[error("{what} exists already")]
    Exists {
        /// What.
        what: String,
    },
    /// The branch has moved on since the caller looked.
    #[error("the parent is `{expected}`, but the branch is at `{tip}`")]
    ParentMoved {
        /// What the caller thought.
        expected: String,
        /// What is so.
        tip: String,
    },
    /// The range begins past the end.
    #[error("the range begins past the end, at {size}")]
    Unsatisfiable {
        /// The size.
        size: u64,
    },
    /// More than an owner may have.
    #[error("`{owner}` may have {limit} {measure} and has {used}: {more} more are too many")]
    QuotaExceeded {
        /// Who.
        owner: String,
        /// Of what.
        measure: Measure,
        /// How much they have.
        used: u64,
        /// How much would have been added.
        more: u64,
        /// How much they may have.
        limit: u64,
    },
    /// More than we take.
    #[error("{what} is too large: {size} is over the limit of {limit}")]
    TooLarge {
        /// What.
        what: String,
        /// How large it is.
        size: u64,
        /// How large it may be.
        limit: u64,
    },
    /// Something other than a repo, a revision or an entry is not there.
    #[error("{what} not found")]
    NotFound {
        /// What.
        what: String,
    },
    /// Somebody else changed the same thing at the same time.
    #[error("{reason}")]
    Conflict {
        /// What.
        reason: String,
    },
    /// Too much is going on; later it will work.
    #[error("{reason}")]
    Busy {
        /// What is short.
        reason: String,
    },
    /// An upstream does not give what is asked of it now; later it may.
    #[error("{reason}")]
    Upstream {
        /// What is the matter.
        reason: String,
        /// When to ask again, in seconds.
        retry_seconds: u64,
    },
    /// The disk is full.
    #[error("there is no room left to store anything")]
    Full,
    /// Something would take more room than it may.
    #[error("{reason}")]
    NoRoom {
        /// What, and what to do.
        reason: String,
    },
    /// Something stored is damaged.
    #[error("damaged: {what}")]
    Corrupt {
        /// What, and how.
        what: String,
    },
    /// The store did not do as asked.
    #[error(transparent)]
    Store(ballast_store::Error),
    /// Input of a wrong form.
    #[error("{reason}")]
    Format {
        /// What is wrong with it.
        reason: String,
        /// Whether it is only too large.
        too_large: bool,
    },
    /// A fault of our own.
    #[error("internal error: {reason}")]
    Internal {
        /// What was wrong.
        reason: String,
    },
}

/// The result of a verb.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// Input that makes no sense.
    pub fn invalid(reason: impl Into<String>) -> Self {
        Self::Invalid { reason: reason.into() }
    }

    /// Something that the caller may not do.
    pub fn denied(reason: impl Into<String>) -> Self {
        Self::Denied { reason: reason.into() }
    }

    /// Something stored that is not what it must be.
    pub fn corrupt(what: impl Into<String>) -> Self {
        Self::Corrupt { what: what.into() }
    }

    /// A fault of our own.
    pub fn internal(reason: impl Into<String>) -> Self {
        Self::Internal { reason: reason.into() }
    }

    /// Whether something stored is not what it must be, and trying again changes nothing.
    pub(crate) fn is_corrupt(&self) -> bool {
        self.kind() == ErrorKind::Corrupt
    }

    /// What the caller should do.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::RepoNotFound
            | Self::RevisionNotFound { .. }
            | Self::EntryNotFound { .. }
            | Self::NotFound { .. } => ErrorKind::NotFound,
            Self::Gated { .. }
            | Self::BadToken
            | Self::LoginNeeded
            | Self::Denied { .. }
            | Self::AwayFromHome { .. }
            | Self::QuotaExceeded { .. }
            | Self::Refused { .. }
            | Self::Disabled => ErrorKind::Denied,
            Self::Invalid { .. }
            | Self::Unsatisfiable { .. }
            | Self::TooLarge { .. }
            | Self::Format { .. } => ErrorKind::Invalid,
            Self::Exists { .. } | Self::ParentMoved { .. } | Self::Conflict { .. } => {
                ErrorKind::Conflict
            }
            Self::Busy { .. } | Self::Upstream { .. } | Self::Full | Self::NoRoom { .. } => {
                ErrorKind::Unavailable
            }
            Self::Corrupt { .. } => ErrorKind::Corrupt,
            Self::Store(error) => error.kind(),
            Self::Internal { .. } => ErrorKind::Internal,
        }
    }
}

impl From<ballast_store::Error> for Error {
    fn from(error: ballast_store::Error) -> Self {
        match error {
            ballast_store::Error::Full { .. } => Self::Full,
            other => Self::Store(other),
        }
    }
}

/// Formats are read from input; who reads them from the store says so with [`Error::corrupt`].
impl From<ballast_format::Error> for Error {
    fn from(error: ballast_format::Error) -> Self {
        let too_large = matches!(error, ballast_format::Error::TooLarge { .. });
        Self::Format { reason: error.to_string(), too_large }
    }
}
