//! Repos whose home is another region, and what other regions may have of ours (ADR 53).
//!
//! A region copies a home's log entry by entry, as it is, under the same numbers. First everything
//! comes that an entry names; then the entry; then the catalogue says that it has arrived, and only
//! then it counts. That last append is what a collector of garbage fences: by it something becomes
//! reachable here.

mod ahead;
mod follow;
mod held;
mod moving;
mod offer;
mod replication;
mod take;
#[cfg(test)]
mod tests;

pub(crate) use ahead::Aheads;
pub use follow::Arrival;
pub use moving::Promoted;
pub use offer::{Entries, Offered, StoredPack};
pub use take::Pieces;

use ballast_format::id::{RepoId, TokenId, UserId};
use ballast_format::log::TokenRole;
use std::sync::Arc;

use crate::access::{Caller, UserCaller};

/// Under which id a region keeps what was written in this term: others may be under the numbers.
fn line_of(repo: RepoId, term: u64) -> RepoId {
    derived("ballast 2026-11 the entries of a term", repo, term)
}

fn derived(purpose: &str, repo: RepoId, term: u64) -> RepoId {
    let mut hasher = blake3::Hasher::new_derive_key(purpose);
    hasher.update(repo.as_bytes());
    hasher.update(&term.to_le_bytes());
    let mut id = [0; 16];
    hasher.finalize_xof().fill(&mut id);
    RepoId::from_bytes(id)
}

/// Who brings what a repo's log names. Each repo has its own, so that what came for one is within
/// reach of no other.
pub fn bringer(repo: RepoId) -> Caller {
    Caller::User(Arc::new(UserCaller {
        user: UserId::from_bytes(*repo.as_bytes()),
        name: "region".to_owned(),
        admin: false,
        token: TokenId::from_bytes([0; 16]),
        role: TokenRole::Write,
        expires_ms: None,
    }))
}
