//! The verbs between places: bringing what an upstream has (mirror), carrying repos to where no
//! network leads (bundle), giving each other what many need (swarm), and following another region
//! (replicate).
//!
//! Whatever arrives is verified, and stored by `ballast-node`'s upload path, as a client's upload
//! is. Nothing here serves a client.

mod buffers;
pub mod bundle;
pub mod carrier;
pub mod cluster;
mod flights;
pub mod mirror;
pub mod replicate;
pub mod swarm;
