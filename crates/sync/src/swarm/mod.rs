//! Nodes give each other what each has got.

pub mod cache;
pub mod exchange;
pub mod ledger;
#[cfg(test)]
pub(crate) mod sample;
