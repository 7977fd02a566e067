//! What can go wrong with a bundle.

use std::io;

/// Why a bundle was not made, read or taken in.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What was asked for makes no sense, or may not be.
    #[error("{0}")]
    Refused(String),
    /// A file of a bundle is not what was signed.
    #[error("`{file}` of the bundle is damaged: {reason}")]
    Damaged {
        /// The file's name.
        file: String,
        /// What is wrong.
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
    /// Something of a wrong form.
    #[error(transparent)]
    Format(#[from] ballast_format::Error),
    /// A hub did not do as asked.
    #[error(transparent)]
    Node(#[from] ballast_node::Error),
}

/// The result of a verb.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// Something that is not done.
    pub(super) fn refused(reason: impl Into<String>) -> Self {
        Self::Refused(reason.into())
    }

    /// A file of a bundle that is not what was signed.
    pub(super) fn damaged(file: &str, reason: impl ToString) -> Self {
        Self::Damaged { file: file.to_owned(), reason: reason.to_string() }
    }
}

impl From<ballast_store::Error> for Error {
    fn from(error: ballast_store::Error) -> Self {
        Self::Node(error.into())
    }
}
