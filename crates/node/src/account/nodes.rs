//! Nodes: processes that belong to the hub, each with the rights of a user to read.
//!
//! An administrator invites one, which makes a secret that is good for one join and a quarter of an
//! hour. Who joins with it leaves a public key, and is known by that from then on. That a secret is
//! spent is an entry of the log, so it is so after a crash and for every process on the store.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ballast_format::id::{NodeId, TokenId};
use ballast_format::log::{AccountChange, NodeRole, TokenRole};
use ballast_format::name::NodeName;
use ballast_store::env::random_bytes;

use super::tokens::{NewToken, Secret};
use super::{check_admin, confirm_admin};
use crate::access::Caller;
use crate::error::{Error, Result};
use crate::hub::Hub;
use crate::state::accounts::{AccountsState, Joined, Node, User};
use crate::state::ledger::New;

/// How long an invitation is good for.
const INVITATION_LIFE: Duration = Duration::from_mins(15);
/// Nodes and invitations that a hub may have, with those that were revoked within the last day: so
/// that the list of these fits into one message to each node.
const MAX_NODES: usize = 10_000;
/// Invitations that ended, and are forgotten with a new one.
const FORGOTTEN_AT_ONCE: usize = 100;

/// Who is invited.
#[derive(Clone, Copy, Debug)]
pub struct NewNode<'a> {
    /// The name that it will be known by.
    pub name: &'a str,
    /// What it is.
    pub role: NodeRole,
    /// Whose rights to read it gets; nobody said: those of who invites it.
    pub user: Option<&'a str>,
}

/// What a node needs to join.
#[derive(Clone)]
pub struct Invitation {
    /// The secret; it is stored nowhere.
    pub secret: [u8; 32],
    /// For whom.
    pub node: Arc<Node>,
}

impl fmt::Debug for Invitation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Invitation").field("node", &self.node.name).finish_non_exhaustive()
    }
}

/// A node that has just joined.
#[derive(Clone)]
pub struct Welcome {
    /// The node.
    pub node: Arc<Node>,
    /// The token with which it reads; it is stored nowhere.
    pub token: String,
}

impl fmt::Debug for Welcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Welcome").field("node", &self.node.name).finish_non_exhaustive()
    }
}

/// A node, and whose rights it has.
#[derive(Clone, Debug)]
pub struct NodeView {
    /// The node.
    pub node: Arc<Node>,
    /// Its user.
    pub user: Arc<User>,
}

impl Hub {
    /// Lets a node of this name join, once and soon. An invitation that was not used gives way.
    pub async fn invite_node(&self, caller: &Caller, new: &NewNode<'_>) -> Result<Invitation> {
        check_admin(caller)?;
        let by = caller.user()?;
        let name = NodeName::parse(new.name)?;
        let user = self.user_of_name(new.user.unwrap_or(&by.name))?;
        let secret: [u8; 32] = random_bytes(self.env().as_ref());
        let id = NodeId::from_bytes(random_bytes(self.env().as_ref()));
        let now_ms = self.env().now_ms();
        let life = u64::try_from(INVITATION_LIFE.as_millis()).unwrap_or(u64::MAX);
        let invited = AccountChange::NodeInvited {
            id,
            name: name.clone(),
            role: new.role,
            user: user.id,
            hash: self.invitation_hash(&secret),
            expires_ms: now_ms.saturating_add(life),
        };
        self.accounts
            .append(self, New::by(Some(by.user)), |state| {
                confirm_admin(state, caller)?;
                check_room(state, now_ms)?;
                let mut changes = forgotten(state, &name, now_ms)?;
                changes.push(invited.clone());
                Ok(changes)
            })
            .await?;
        let node = self.accounts.read(|state| state.node_by_name(&name));
        let node = node.ok_or_else(|| Error::internal("the new invitation is not there"))?;
        Ok(Invitation { secret, node })
    }

    /// Takes in a node that has this secret, and knows it by this key from now on. The same key may
    /// come again with the same secret for as long as that is good: the answer may have been lost.
    pub async fn join_node(&self, secret: &[u8; 32], key: [u8; 32]) -> Result<Welcome> {
        let hash = self.invitation_hash(secret);
        let token = Secret::draw(self.env().as_ref());
        let id = TokenId::from_bytes(random_bytes(self.env().as_ref()));
        let now_ms = self.env().now_ms();
        let author = self.accounts.read(|state| state.node_by_hash(&hash).map(|node| node.user));
        self.accounts
            .append(self, New::by(author), |state| {
                let node = invited(state, &hash, &key, now_ms)?;
                let mut changes = Vec::with_capacity(3);
                if let Some(before) = node.joined.filter(|old| state.token(&old.token).is_some()) {
                    changes.push(AccountChange::TokenRevoked { id: before.token });
                }
                let name = format!("node {}", node.name);
                let new = NewToken { name: &name, role: TokenRole::Read, expires_ms: None };
                changes.push(new.change_as(self, id, node.user, &token));
                changes.push(AccountChange::NodeJoined { id: node.id, key, token: id });
                Ok(changes)
            })
            .await?;
        let node = self.accounts.read(|state| state.node_by_key(&key));
        let node = node.ok_or_else(|| Error::internal("the node that joined is not there"))?;
        Ok(Welcome { node, token: token.into_text() })
    }

    /// Every node, and who was invited; for administrators.
    pub fn list_nodes(&self, caller: &Caller) -> Result<Vec<NodeView>> {
        check_admin(caller)?;
        let mut found: Vec<NodeView> = self.accounts.read(|state| {
            let view = |node: &Arc<Node>| {
                Some(NodeView { node: Arc::clone(node), user: state.user(&node.user)? })
            };
            state.nodes().filter_map(view).collect()
        });
        found.sort_by(|a, b| a.node.name.cmp(&b.node.name));
        Ok(found)
    }

    /// Knows a node no more, or takes an invitation back: nothing of its works from now on.
    pub async fn revoke_node(&self, caller: &Caller, name: &str) -> Result<()> {
        check_admin(caller)?;
        let missing = || Error::NotFound { what: format!("the node `{name}`") };
        let parsed = NodeName::parse(name).map_err(|_| missing())?;
        self.accounts
            .append(self, New::by(caller.user_id()), |state| {
                confirm_admin(state, caller)?;
                let node = state.node_by_name(&parsed).ok_or_else(missing)?;
                Ok(ended(state, &node))
            })
            .await
    }

    /// The node that joined with this key, if its user is not shut out.
    pub fn node_of_key(&self, key: &[u8; 32]) -> Option<NodeView> {
        self.accounts.read(|state| {
            let node = state.node_by_key(key)?;
            let user = state.user(&node.user).filter(|user| !user.disabled)?;
            Some(NodeView { node, user })
        })
    }

    /// The caller that the node of this name is, if it has joined and its user is not shut out.
    pub fn caller_of_member(&self, role: NodeRole, name: &NodeName) -> Option<Caller> {
        let node = self.accounts.read(|state| state.node_by_name(name))?;
        let caller = self.caller_of_node(&node).ok();
        caller.filter(|_| node.role == role)
    }

    /// The caller that a node is: its user, by the token with which it reads.
    pub fn caller_of_node(&self, node: &Node) -> Result<Caller> {
        let Joined { token, .. } = node.joined.ok_or(Error::BadToken)?;
        self.caller_of(node.user, token)
    }

    /// Keys of nodes that are not believed any more, though their certificates may not have ended.
    pub fn revoked_keys(&self) -> Vec<[u8; 32]> {
        let now_ms = self.env().now_ms();
        self.accounts.read(|state| {
            let is_shut_out =
                |node: &&Arc<Node>| state.user(&node.user).is_none_or(|user| user.disabled);
            let shut_out = state.nodes().filter(is_shut_out).filter_map(|node| node.joined);
            state.revoked_keys(now_ms).chain(shut_out.map(|joined| joined.key)).collect()
        })
    }

    fn invitation_hash(&self, secret: &[u8; 32]) -> [u8; 32] {
        *blake3::keyed_hash(&self.secrets().key("join tokens"), secret).as_bytes()
    }
}

fn check_room(state: &AccountsState, now_ms: u64) -> Result<()> {
    if state.nodes().count() + state.revoked_keys(now_ms).count() < MAX_NODES {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "there are {MAX_NODES} nodes, with those revoked within a day\n\
         hint: revoke some, and wait a day"
    )))
}

/// What is forgotten when somebody of this name is invited: the invitation before, and some that
/// ended. Who joined must be revoked by a person.
fn forgotten(state: &AccountsState, name: &NodeName, now_ms: u64) -> Result<Vec<AccountChange>> {
    if state.node_by_name(name).is_some_and(|node| node.joined.is_some()) {
        return Err(Error::Invalid {
            reason: format!("a node `{name}` has joined\nhint: ballast node revoke {name}"),
        });
    }
    let is_over = |node: &&Arc<Node>| {
        node.joined.is_none() && (node.expires_ms <= now_ms || node.name == *name)
    };
    // That of this name first: it must go.
    let same = state.node_by_name(name);
    let others = state.nodes().filter(is_over).filter(|node| node.name != *name);
    let ids = same.iter().chain(others).map(|node| node.id).take(FORGOTTEN_AT_ONCE);
    Ok(ids.map(|id| AccountChange::NodeRevoked { id }).collect())
}

/// Who may join with this secret and this key. The same answer whatever is wrong with the secret.
fn invited(
    state: &AccountsState,
    hash: &[u8; 32],
    key: &[u8; 32],
    now_ms: u64,
) -> Result<Arc<Node>> {
    let node = state.node_by_hash(hash).filter(|node| {
        let is_unspent = node.joined.is_none_or(|joined| joined.key == *key);
        let has_rights = state.user(&node.user).is_some_and(|user| !user.disabled);
        is_unspent && has_rights && now_ms < node.expires_ms
    });
    let node = node.ok_or_else(|| {
        Error::denied(
            "this join token is not known, was used, or has ended\n\
             hint: make another on the hub with `ballast node join-token`",
        )
    })?;
    if state.node_by_key(key).is_some_and(|other| other.id != node.id) {
        return Err(Error::denied("another node has joined with this key"));
    }
    Ok(node)
}

/// What ends a node.
fn ended(state: &AccountsState, node: &Node) -> Vec<AccountChange> {
    let token = node.joined.map(|joined| joined.token);
    let token = token.filter(|id| state.token(id).is_some());
    let token = token.map(|id| AccountChange::TokenRevoked { id });
    std::iter::once(AccountChange::NodeRevoked { id: node.id }).chain(token).collect()
}

#[cfg(test)]
mod tests;
