//! Nodes give each other what each has got.

pub mod cache;
pub mod exchange;
pub mod ledger;
mod members;
pub mod node;
pub mod plan;
#[cfg(test)]
mod rig;
#[cfg(test)]
pub(crate) mod sample;
#[cfg(test)]
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "its numbers are small, and need not be exact"
)]
mod sim;
pub mod source;
pub mod tracker;
#[cfg(test)]
pub(crate) mod world;

pub use self::members::signed_by;
