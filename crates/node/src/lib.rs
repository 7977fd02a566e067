//! The verbs of one region: who may do what, and what uploading, downloading and changing a repo
//! mean.
//!
//! Nothing here knows HTTP. Dialects (the gateway) and flows between places call these verbs; the
//! verbs write truth through `ballast-store` and keep its index in step.

#![cfg_attr(test, allow(clippy::cast_possible_truncation, reason = "what tests count is small"))]

pub mod access;
pub mod account;
pub mod audit;
pub mod backup;
mod broken;
pub mod carry;
pub mod discovery;
pub mod download;
pub mod error;
mod figures;
pub mod gc;
pub mod hub;
pub mod origin;
pub mod pace;
pub mod policy;
pub mod pool;
mod quarantine;
pub mod quota;
pub mod region;
pub mod repo;
#[cfg(test)]
mod rig;
pub mod scan;
pub mod signature;
#[cfg(test)]
mod sim;
pub mod state;
pub mod tally;
pub mod upload;
pub mod verify;
pub mod worker;

pub use error::{Error, Result};
