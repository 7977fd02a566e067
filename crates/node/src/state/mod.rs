//! What the logs say, folded into state: the catalogue, the accounts, and each repo's refs.
//!
//! Truth is the logs. State in memory and rows in the index are what one process has seen of them;
//! both can be thrown away.

pub mod accounts;
pub mod catalogue;
pub mod homing;
pub(crate) mod ledger;
pub(crate) mod mend;
mod nodes;
mod prepare;
pub(crate) mod rebuild;
pub mod repo;
pub(crate) mod rows;
mod sending;
mod sight;
#[cfg(test)]
mod tests;
pub(crate) mod turns;
