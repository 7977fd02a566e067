//! Who belongs to a hub: the identities of nodes and regions, and what each may have.
//!
//! A hub and all that join it are a cluster. Its authority, whose key comes from the secret in the
//! hub's store, gives each process of it a certificate that says its name. Whoever has none speaks
//! to nobody, except to join. Why it is so: `docs/adr/0051-an-identity-is-a-key.md`.

mod authority;
mod client;
mod discover;
mod door;
mod error;
mod files;
mod identity;
mod key;
mod look_up;
mod member;
mod permit;
mod registry;
mod revocation;
#[cfg(test)]
pub(crate) mod rig;
mod services;
mod token;
mod verify;

use std::fmt;

use ballast_format::name::NodeName;

pub use authority::{Authority, ClusterId, Issued};
pub use client::{Sighting, hub_channel, timed};
pub use discover::{Discovery, Hint, Hints};
pub use door::{CarrierStream, Door, DoorLimits, TakeStreams};
pub use error::{Error, Result};
pub use identity::{Identity, Strangers};
pub use key::{PeerKey, SecretKey};
pub use look_up::look_up;
pub use member::{Member, join, member_file, open};
pub use permit::{PermitError, check_permit, sign_permit};
pub use registry::{Answers, Registry, Seen};
pub use revocation::Revocations;
pub use services::{Guest, Services, caller_of, may_try};
pub use token::{JoinToken, is_address};
pub use verify::peer_of;

/// What carriers speak, as TLS names it.
pub const CARRIER_PROTOCOL: &[u8] = b"ballast/1";
/// What gRPC speaks, as TLS names it.
pub const CONTROL_PROTOCOL: &[u8] = b"h2";
/// What a client names a server by: nobody looks at it, as certificates name processes.
pub const SERVER_NAME: &str = "peer.ballast";

/// What a process is to the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PeerRole {
    /// It has the store, and the authority.
    Hub,
    /// It keeps files of a hub on its host.
    Node,
    /// It is the hub of another region, which follows this one.
    Region,
}

impl PeerRole {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hub => "hub",
            Self::Node => "node",
            Self::Region => "region",
        }
    }

    /// From how it is written.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Hub, Self::Node, Self::Region].into_iter().find(|role| role.as_str() == text)
    }
}

/// The name of a process of ours among its peers, as its certificate has it:
/// `spiffe://<cluster>/node/<name>`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerName {
    role: PeerRole,
    name: NodeName,
}

impl PeerName {
    /// What a node is called after the last slash: 1 to 63 of `a-z`, `0-9`, `-` and `.`.
    pub fn parse(text: &str) -> Option<Self> {
        Self::new(PeerRole::Node, text)
    }

    /// The same for a process of another role.
    pub fn new(role: PeerRole, name: &str) -> Option<Self> {
        NodeName::parse(name).ok().map(|name| Self { role, name })
    }

    /// What it is called among those of its role.
    pub fn as_str(&self) -> &str {
        self.name.as_str()
    }

    /// What it is.
    pub fn role(&self) -> PeerRole {
        self.role
    }
}

impl fmt::Display for PeerName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.role {
            // Nearly all are.
            PeerRole::Node => out.write_str(self.as_str()),
            role => write!(out, "{}/{}", role.as_str(), self.name),
        }
    }
}

/// Who is at the other end of a connection.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Peer {
    /// Its name.
    pub name: PeerName,
    /// Its key: two processes that had the same name one after the other have two.
    pub key: PeerKey,
}

/// What a key signs to show that it is theirs who joins.
fn join_message(cluster: &ClusterId, secret: &[u8; 32]) -> Vec<u8> {
    [b"ballast 2026-11 join\0", cluster.as_str().as_bytes(), b"\0", secret].concat()
}

/// What a key signs to get a new certificate.
fn renew_message(cluster: &ClusterId) -> Vec<u8> {
    [b"ballast 2026-11 renew\0".as_slice(), cluster.as_str().as_bytes()].concat()
}

#[cfg(test)]
mod tests;
