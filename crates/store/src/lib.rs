//! The object store, which is the truth, and the index, which can be rebuilt from it.
//!
//! Whoever writes here knows: nothing is overwritten, an entry's number is taken once, and what
//! was acknowledged is durable. This crate knows nothing of what its objects mean; it speaks no
//! protocol and asks nobody for permission.

pub mod backend;
pub mod env;
pub mod error;
pub mod index;
pub mod keyspace;
pub mod layer;
pub mod local;
pub mod objects;
pub mod pin;
pub mod probe;
pub mod reflog;

mod backoff;

pub use error::{Error, Result};
