//! The verbs between places: bringing what an upstream has (mirror), and carrying repos to where
//! no network leads (bundle).
//!
//! Whatever arrives is verified and stored by `ballast-node`'s upload path, as a client's upload
//! is. Nothing here serves a client.

pub mod bundle;
pub mod mirror;
