//! A region follows the repos of another one (ADR 53).
//!
//! The home keeps its logs and says which repos may go where. The region that follows asks for what
//! is behind the last entry that has arrived: the entries, the packs that they name, what large
//! files are made of, and of their chunks those that it does not have. When all of it is here and
//! was verified, the entry is kept under its number, as it is at home, and then it counts.
//!
//! A cut costs what was on its way: of a xorb that came in part, the rest is asked for. A crash
//! costs what of a xorb was not stored yet.

mod chunks;
mod client;
mod files;
mod follower;
mod home;
mod plan;
mod pull;
mod remotes;
mod rules;
mod service;
mod source;
mod status;
#[cfg(test)]
mod tests;
mod through;
mod turns;

pub use chunks::{Links, LocalLink};
pub use client::{CarrierLinks, RemoteHome};
pub use follower::{Follower, Pass};
pub use home::{Footers, Grants, HomeLog, LocalHome, Offer, Offers, Progress, Told};
pub use remotes::{ComparedRepo, Remotes};
pub use rules::{Rules, check_rules, window_is_open};
pub use service::Service;
pub use source::{ByRole, RegionSource};
pub use status::{RepoStatus, Status};
pub use through::Through;

use ballast_node::Error;

use crate::carrier;

/// When to ask a home again that could not be asked.
const AGAIN_SECONDS: u64 = 10;

/// A home that can't be asked now.
fn unreachable(reason: impl ToString) -> Error {
    Error::Upstream { reason: reason.to_string(), retry_seconds: AGAIN_SECONDS }
}

fn of_carrier(error: carrier::Error) -> Error {
    match error {
        carrier::Error::Lied { .. } => Error::invalid(error.to_string()),
        error => unreachable(error),
    }
}
