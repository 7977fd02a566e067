//! Uploads, as clients make them and as liars do.

mod bounds;
pub(crate) mod client;
mod faults;
mod kept;
mod plain;
mod promises;
mod scopes;
mod shards;
mod xorbs;
