//! Who asks whom: the plan of a swarm.
//!
//! This is pure: it has no clock, no network, and does not wait. The tracker runs it, and so does
//! the simulation.
//!
//! Each stripe of the file has a tree. Its root has the whole stripe: the hub, or a host that is
//! done with it. What the hub sends is sent once (the once-rule): it has one child in a tree, and
//! none where a host is done, as long as the hosts have room for each other. A host passes on in
//! few trees and is a leaf in the others (`SplitStream`, Castro et al., 2003), so that all hosts'
//! upload is used however many there are, and trees stay low.

mod candidates;
mod cut;
mod forest;
mod grow;
mod host;
mod watch;

#[cfg(test)]
mod tests;

pub use cut::{Cut, LONGEST_PIECE, SHORTEST_PIECE, STRIPES};
pub use forest::{Forest, Newcomer};
pub use host::{HostId, Parent, Place};
