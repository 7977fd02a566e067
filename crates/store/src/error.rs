//! What can go wrong with the object store and the index, and what the caller should do about it.

use std::error::Error as StdError;
use std::io;

use ballast_format::ErrorKind;

/// The result of asking the store or the index.
pub type Result<T> = std::result::Result<T, Error>;

/// A failure of the object store or of the index.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// There is no such object.
    #[error("`{key}` is not there")]
    NotFound {
        /// The object.
        key: String,
    },
    /// Something changed since the caller looked: read again and decide again.
    #[error("`{key}` has moved on: {reason}")]
    Conflict {
        /// The object.
        key: String,
        /// What changed.
        reason: String,
    },
    /// The store gave no clear answer; what was asked may or may not have happened.
    #[error("`{key}` cannot be reached: {reason}")]
    Unavailable {
        /// The object.
        key: String,
        /// What the store said.
        reason: String,
    },
    /// Stored bytes are not what they must be.
    #[error("`{key}` is damaged: {reason}")]
    Corrupt {
        /// The object.
        key: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The request makes no sense and never will.
    #[error("invalid request to the store: {reason}")]
    Invalid {
        /// The rule that it breaks.
        reason: String,
    },
    /// The object is larger than the caller is willing to read, or may write.
    #[error("`{key}` is too large: {size} bytes are over the limit of {limit}")]
    TooLarge {
        /// The object.
        key: String,
        /// Its size in bytes.
        size: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// There is no space left.
    #[error("the disk is full: `{key}` was not written\nhint: free some space, then try again")]
    Full {
        /// The object.
        key: String,
    },
    /// The disk failed in a way after which nothing written to it may be believed, or it cannot
    /// be written to at all.
    #[error(
        "the disk takes no writes: `{key}` was not written: {reason}\n\
         hint: check the disk, then start again"
    )]
    ReadOnly {
        /// The object.
        key: String,
        /// What the disk said.
        reason: String,
    },
    /// The store was opened for reading only.
    #[error("the store is open for reading only, `{key}` was not written: {reason}")]
    Refused {
        /// The object.
        key: String,
        /// Why nothing is written.
        reason: String,
    },
    /// Another process uses the folder.
    #[error(
        "the folder `{path}` is in use by {holder}\n\
         hint: stop it, or choose another folder"
    )]
    Locked {
        /// The folder.
        path: String,
        /// Who uses it, as far as can be told.
        holder: String,
    },
    /// A folder on this machine cannot be used.
    #[error("the folder `{path}` cannot be used: {reason}")]
    Folder {
        /// The folder, or the file in it.
        path: String,
        /// What the operating system said.
        reason: String,
    },
    /// The index failed. Nothing is lost: it is made anew, and then it works again.
    #[error("the index failed: {reason}")]
    Index {
        /// What its engine said.
        reason: String,
    },
    /// A fault of our own.
    #[error("internal fault in the store: {reason}")]
    Internal {
        /// What was thought to be impossible.
        reason: String,
    },
}

impl Error {
    /// What the caller should do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound { .. } => ErrorKind::NotFound,
            Self::Conflict { .. } => ErrorKind::Conflict,
            Self::Unavailable { .. }
            | Self::Full { .. }
            | Self::ReadOnly { .. }
            | Self::Refused { .. }
            | Self::Index { .. } => ErrorKind::Unavailable,
            Self::Corrupt { .. } => ErrorKind::Corrupt,
            Self::Invalid { .. }
            | Self::TooLarge { .. }
            | Self::Locked { .. }
            | Self::Folder { .. } => ErrorKind::Invalid,
            Self::Internal { .. } => ErrorKind::Internal,
        }
    }

    /// Shorthand for [`Error::Corrupt`].
    #[expect(clippy::needless_pass_by_value, reason = "callers pass what they have at hand")]
    pub fn corrupt(key: impl ToString, reason: impl ToString) -> Self {
        Self::Corrupt { key: key.to_string(), reason: reason.to_string() }
    }

    /// Shorthand for [`Error::Invalid`].
    pub fn invalid(reason: impl Into<String>) -> Self {
        Self::Invalid { reason: reason.into() }
    }

    /// Shorthand for [`Error::Index`].
    #[expect(clippy::needless_pass_by_value, reason = "callers pass what they have at hand")]
    pub fn index(reason: impl ToString) -> Self {
        Self::Index { reason: reason.to_string() }
    }

    /// Turns what a backend said about an object into one of ours.
    #[expect(clippy::needless_pass_by_value, reason = "callers pass what they have at hand")]
    pub(crate) fn from_backend(key: impl ToString, error: &object_store::Error) -> Self {
        use object_store::Error as Backend;

        let key = key.to_string();
        match error {
            Backend::NotFound { .. } => return Self::NotFound { key },
            Backend::NotSupported { .. } | Backend::NotImplemented { .. } => {
                return Self::Invalid { reason: chain(error) };
            }
            _ => {}
        }
        if find::<VolumeFailed>(error).is_some() {
            return Self::ReadOnly { key, reason: chain(error) };
        }
        if let Some(short) = find::<ShortFile>(error) {
            return Self::corrupt(key, short);
        }
        match find::<io::Error>(error).map(io::Error::kind) {
            Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => Self::Full { key },
            Some(io::ErrorKind::ReadOnlyFilesystem) => Self::ReadOnly { key, reason: chain(error) },
            _ => Self::Unavailable { key, reason: chain(error) },
        }
    }

    /// Turns what the operating system said about a folder into one of ours.
    pub(crate) fn folder(path: &std::path::Path, error: &io::Error) -> Self {
        Self::Folder { path: path.display().to_string(), reason: error.to_string() }
    }

    /// May the same request, sent again, succeed?
    pub(crate) fn is_passing(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }
}

/// The volume failed to make written bytes durable, twice: what it says next is worth nothing.
#[derive(Debug, thiserror::Error)]
#[error("the volume failed to sync and is not written to any more")]
pub(crate) struct VolumeFailed;

/// A file ends before what was to be read. Of a connection that ends early nobody can say this.
#[derive(Debug, thiserror::Error)]
#[error("it ends after {end} bytes")]
pub(crate) struct ShortFile {
    /// Where it ends.
    pub(crate) end: u64,
}

/// The first error of type `E` among an error and its causes.
pub(crate) fn find<'a, E: StdError + 'static>(
    error: &'a (dyn StdError + 'static),
) -> Option<&'a E> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(found) = error.downcast_ref::<E>() {
            return Some(found);
        }
        cause = error.source();
    }
    None
}

/// An error and its causes as one line, without repeating what a cause already says.
fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generic(source: impl StdError + Send + Sync + 'static) -> object_store::Error {
        object_store::Error::Generic { store: "test", source: Box::new(source) }
    }

    #[test]
    fn a_full_disk_is_told_apart_wherever_it_hides() {
        let error = generic(io::Error::from(io::ErrorKind::StorageFull));
        assert!(matches!(Error::from_backend("k", &error), Error::Full { .. }));
        let nested = generic(generic(io::Error::from(io::ErrorKind::StorageFull)));
        assert!(matches!(Error::from_backend("k", &nested), Error::Full { .. }));
    }

    #[test]
    fn a_file_that_ends_early_is_damaged_and_a_connection_that_does_is_not() {
        let short = generic(ShortFile { end: 3 });
        assert!(matches!(Error::from_backend("k", &short), Error::Corrupt { .. }));
        let cut = generic(io::Error::from(io::ErrorKind::UnexpectedEof));
        assert!(Error::from_backend("k", &cut).is_passing());
    }

    #[test]
    fn an_unclear_answer_is_passing_and_a_failed_volume_is_not() {
        let unclear = Error::from_backend("k", &generic(io::Error::other("reset")));
        assert!(unclear.is_passing());
        assert_eq!(unclear.kind(), ErrorKind::Unavailable);
        assert_eq!(unclear.to_string(), "`k` cannot be reached: Generic test error: reset");
        let failed = Error::from_backend("k", &generic(VolumeFailed));
        assert!(!failed.is_passing());
        assert!(matches!(failed, Error::ReadOnly { .. }));
    }
}
