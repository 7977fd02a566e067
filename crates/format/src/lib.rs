//! Every byte that outlives a process: hashes, chunks, xorbs, shards, git objects, log entries.
//!
//! Data in, data out. This crate does no input or output, reads no clock and draws no randomness,
//! and everything it decodes is checked in full before a value exists.

pub mod archive;
pub mod bundle;
pub mod cached_file;
pub mod chunk;
pub mod codec;
pub mod error;
pub mod gc;
pub mod hash;
pub mod hash_tree;
mod hex;
pub mod id;
pub mod limits;
pub mod log;
pub mod manifest;
pub mod member;
pub mod mirror_job;
pub mod name;
pub mod object;
pub mod pack;
pub mod permit;
pub mod pickle;
pub mod range;
pub mod shard;
pub mod tally;
pub mod xorb;

pub use error::{Error, ErrorKind, Result};

// The source of testkit's content, not the crate: it depends on this one and on much else.
#[cfg(test)]
#[path = "../../testkit/src/content.rs"]
#[expect(unreachable_pub, reason = "written for another crate")]
mod content;
