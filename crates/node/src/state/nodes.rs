//! The nodes of a hub, as the accounts' log has them: invited, joined, and revoked lately.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use ballast_format::id::{NodeId, TokenId, UserId};
use ballast_format::log::NodeRole;
use ballast_format::name::NodeName;

/// How long it is remembered that a key was revoked: certificates for it have ended by then. They
/// live a day; the rest is for clocks that differ.
const REMEMBERED_MS: u64 = 25 * 60 * 60 * 1000;

/// A node that joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Joined {
    /// The public key by which it is known.
    pub key: [u8; 32],
    /// The token with which it reads.
    pub token: TokenId,
    /// When, in unix milliseconds.
    pub joined_ms: u64,
}

/// A node that was invited, and may have joined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its name for ever.
    pub id: NodeId,
    /// The name it is known by.
    pub name: NodeName,
    /// What it is.
    pub role: NodeRole,
    /// Whose rights to read it has.
    pub user: UserId,
    /// The keyed hash of the secret with which it may join.
    pub hash: [u8; 32],
    /// When the invitation ends, in unix milliseconds.
    pub expires_ms: u64,
    /// How it joined, if it did.
    pub joined: Option<Joined>,
}

/// The nodes.
#[derive(Debug, Default)]
pub(super) struct Nodes {
    all: BTreeMap<NodeId, Arc<Node>>,
    by_name: HashMap<NodeName, NodeId>,
    by_hash: HashMap<[u8; 32], NodeId>,
    by_key: HashMap<[u8; 32], NodeId>,
    /// Keys and when they were revoked, the latest last.
    revoked: Vec<([u8; 32], u64)>,
}

impl Nodes {
    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.all.values()
    }

    pub(super) fn by_name(&self, name: &NodeName) -> Option<&Arc<Node>> {
        self.all.get(self.by_name.get(name)?)
    }

    pub(super) fn by_hash(&self, hash: &[u8; 32]) -> Option<&Arc<Node>> {
        self.all.get(self.by_hash.get(hash)?)
    }

    pub(super) fn by_key(&self, key: &[u8; 32]) -> Option<&Arc<Node>> {
        self.all.get(self.by_key.get(key)?)
    }

    pub(super) fn revoked(&self, now_ms: u64) -> impl Iterator<Item = [u8; 32]> {
        let is_recent = move |at: u64| at.saturating_add(REMEMBERED_MS) > now_ms;
        self.revoked.iter().filter(move |(_, at)| is_recent(*at)).map(|(key, _)| *key)
    }

    pub(super) fn invite(&mut self, node: Node) {
        self.by_name.insert(node.name.clone(), node.id);
        self.by_hash.insert(node.hash, node.id);
        self.all.insert(node.id, Arc::new(node));
    }

    pub(super) fn join(&mut self, id: &NodeId, joined: Joined) {
        let Some(node) = self.all.get_mut(id) else { return };
        if let Some(before) = Arc::make_mut(node).joined.replace(joined) {
            self.by_key.remove(&before.key);
        }
        self.by_key.insert(joined.key, *id);
    }

    pub(super) fn revoke(&mut self, id: &NodeId, time_ms: u64) {
        let Some(node) = self.all.remove(id) else { return };
        // Another may have been given its name since.
        if self.by_name.get(&node.name) == Some(id) {
            self.by_name.remove(&node.name);
        }
        self.by_hash.remove(&node.hash);
        if let Some(joined) = node.joined {
            self.by_key.remove(&joined.key);
            self.revoked.retain(|(_, at)| at.saturating_add(REMEMBERED_MS) > time_ms);
            self.revoked.push((joined.key, time_ms));
        }
    }
}
