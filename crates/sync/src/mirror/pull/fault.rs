//! What a client hears of an upstream's failures: a refusal only where the upstream refused, an
//! absence only where it said so, and for everything else that it should come again.

use ballast_node::error::Error;

use crate::mirror::upstream::{Error as Fault, Missing};

/// When a client should ask again after a failure that says nothing about that, in seconds.
const AGAIN_SECONDS: u64 = 5;
/// The longest that a client is told to wait.
const LONGEST_SECONDS: u64 = 300;
/// When a client should ask for what is being brought.
const SOON_SECONDS: u64 = 2;

/// A failure about a repo or a revision, as a client is told of it.
pub(super) fn of(fault: Fault, revision: &str) -> Error {
    match fault {
        Fault::NotThere { missing: Missing::Repo, .. } => Error::RepoNotFound,
        Fault::NotThere { missing: Missing::Revision, .. } => {
            Error::RevisionNotFound { revision: revision.chars().take(100).collect() }
        }
        Fault::Denied { .. } | Fault::Unfit { .. } => Error::denied(fault.to_string()),
        Fault::RateLimited { retry_after } => Error::Upstream {
            reason: fault.to_string(),
            retry_seconds: retry_after.as_secs().clamp(1, LONGEST_SECONDS),
        },
        // What exactly broke is for those who run the hub.
        Fault::Unavailable { .. } | Fault::Refused { .. } | Fault::Settings { .. } => {
            tracing::info!(error = %fault, "the upstream failed");
            again("the upstream does not answer as it should; ask again")
        }
        Fault::NotThere { .. } | Fault::Lied { .. } => again(fault.to_string()),
    }
}

/// A failure about a file that the upstream's own listing has: that it is gone is no absence.
pub(super) fn of_file(fault: Fault) -> Error {
    match fault {
        Fault::NotThere { .. } => again(format!("the upstream has lost a file: {fault}")),
        other => of(other, ""),
    }
}

/// Something that passes.
pub(super) fn again(reason: impl Into<String>) -> Error {
    Error::Upstream { reason: reason.into(), retry_seconds: AGAIN_SECONDS }
}

/// What is asked for is on its way.
pub(super) fn on_its_way(what: &str) -> Error {
    let reason = format!("{what} is being fetched from the upstream; ask again");
    Error::Upstream { reason, retry_seconds: SOON_SECONDS }
}

/// Too much is asked of the upstream at once.
pub(super) fn crowded() -> Error {
    again("too much is being fetched from the upstream at once")
}

/// The hub is being stopped.
pub(super) fn closing() -> Error {
    again("the hub is being stopped")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ballast_node::error::Error;

    use super::*;

    #[test]
    fn only_what_the_upstream_says_is_missing_is_missing() {
        let missing = |missing| Fault::NotThere { missing, what: "org/m".to_owned() };
        assert!(matches!(of(missing(Missing::Repo), "main"), Error::RepoNotFound));
        let revision = of(missing(Missing::Revision), "v9");
        assert!(matches!(revision, Error::RevisionNotFound { revision } if revision == "v9"));
        let unavailable = || Fault::Unavailable { reason: "connection refused".to_owned() };
        let refused =
            Fault::Refused { status: 500, what: "org/m".to_owned(), message: String::new() };
        for fault in [unavailable(), refused, missing(Missing::File)] {
            assert!(matches!(of(fault, "main"), Error::Upstream { .. }));
        }
        // A file of a listing that is gone is the upstream's fault.
        for fault in [missing(Missing::Repo), missing(Missing::File), unavailable()] {
            assert!(matches!(of_file(fault), Error::Upstream { .. }));
        }
    }

    #[test]
    fn a_client_waits_as_long_as_the_upstream_says_but_not_for_ever() {
        let wait = |seconds| {
            let retry_after = Duration::from_secs(seconds);
            match of(Fault::RateLimited { retry_after }, "main") {
                Error::Upstream { retry_seconds, .. } => retry_seconds,
                other => panic!("{other}"),
            }
        };
        assert_eq!((wait(0), wait(55), wait(9999)), (1, 55, LONGEST_SECONDS));
    }
}
