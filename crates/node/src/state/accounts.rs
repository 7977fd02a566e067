//! The accounts: users, organisations, who belongs to what, tokens, and nodes.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use ballast_format::id::{OrgId, TokenId, UserId};
pub use ballast_format::log::Owner;
use ballast_format::log::{AccountChange, Entry, Quota, Role, TokenRole, Visibility};
use ballast_format::name::{Namespace, NodeName};

use super::ledger::State;
use super::nodes::Nodes;
pub use super::nodes::{Joined, Node};

/// A user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Their name for ever.
    pub id: UserId,
    /// The name they are known by.
    pub name: Namespace,
    /// The name to show.
    pub fullname: String,
    /// An address to show.
    pub email: Option<String>,
    /// Whether they administer the hub.
    pub admin: bool,
    /// Whether they are shut out.
    pub disabled: bool,
    /// When they were created, in unix milliseconds.
    pub created_ms: u64,
}

/// An organisation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Org {
    /// Its name for ever.
    pub id: OrgId,
    /// The name it is known by.
    pub name: Namespace,
    /// The name to show.
    pub fullname: String,
    /// Who may see its new repos where the client does not say.
    pub default_visibility: Visibility,
    /// When it was created, in unix milliseconds.
    pub created_ms: u64,
    /// Its members.
    pub members: BTreeMap<UserId, Role>,
}

/// A token, without its secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// Its name for ever.
    pub id: TokenId,
    /// Whose it is.
    pub user: UserId,
    /// What it is for.
    pub name: String,
    /// The keyed hash of its secret.
    pub hash: [u8; 32],
    /// What it may do.
    pub role: TokenRole,
    /// When it was made, in unix milliseconds.
    pub created_ms: u64,
    /// When it ends, in unix milliseconds.
    pub expires_ms: Option<u64>,
}

/// The accounts' state.
#[derive(Debug, Default)]
pub struct AccountsState {
    users: BTreeMap<UserId, Arc<User>>,
    orgs: BTreeMap<OrgId, Arc<Org>>,
    /// Users and organisations share one space of names; folded.
    names: HashMap<String, Owner>,
    tokens: BTreeMap<TokenId, Arc<Token>>,
    by_hash: HashMap<[u8; 32], TokenId>,
    quotas: HashMap<Owner, Quota>,
    nodes: Nodes,
}

impl AccountsState {
    /// Whether anybody was ever created.
    pub fn has_users(&self) -> bool {
        !self.users.is_empty()
    }

    /// Every user.
    pub fn users(&self) -> impl Iterator<Item = &Arc<User>> {
        self.users.values()
    }

    /// Every organisation.
    pub fn orgs(&self) -> impl Iterator<Item = &Arc<Org>> {
        self.orgs.values()
    }

    /// Every token.
    pub fn tokens(&self) -> impl Iterator<Item = &Arc<Token>> {
        self.tokens.values()
    }

    /// The user of this id.
    pub fn user(&self, id: &UserId) -> Option<Arc<User>> {
        self.users.get(id).map(Arc::clone)
    }

    /// The organisation of this id.
    pub fn org(&self, id: &OrgId) -> Option<Arc<Org>> {
        self.orgs.get(id).map(Arc::clone)
    }

    /// Whose a namespace is.
    pub fn owner(&self, name: &Namespace) -> Option<Owner> {
        self.names.get(&name.folded()).copied()
    }

    /// A namespace as its owner writes it.
    pub fn spelled(&self, name: &Namespace) -> Option<Namespace> {
        match self.owner(name)? {
            Owner::User(id) => self.users.get(&id).map(|user| user.name.clone()),
            Owner::Org(id) => self.orgs.get(&id).map(|org| org.name.clone()),
        }
    }

    /// The user of this name.
    pub fn user_by_name(&self, name: &Namespace) -> Option<Arc<User>> {
        match self.owner(name)? {
            Owner::User(id) => self.user(&id),
            Owner::Org(_) => None,
        }
    }

    /// The organisation of this name.
    pub fn org_by_name(&self, name: &Namespace) -> Option<Arc<Org>> {
        match self.owner(name)? {
            Owner::Org(id) => self.org(&id),
            Owner::User(_) => None,
        }
    }

    /// What somebody may do in an organisation.
    pub fn role(&self, org: &OrgId, user: &UserId) -> Option<Role> {
        self.orgs.get(org)?.members.get(user).copied()
    }

    /// How many people belong to an organisation.
    pub fn member_count(&self, org: &OrgId) -> usize {
        self.orgs.get(org).map_or(0, |org| org.members.len())
    }

    /// The organisations that somebody belongs to, with their role.
    pub fn orgs_of(&self, user: &UserId) -> Vec<(Arc<Org>, Role)> {
        let member = |org: &Arc<Org>| Some((Arc::clone(org), *org.members.get(user)?));
        self.orgs.values().filter_map(member).collect()
    }

    /// The token of this id.
    pub fn token(&self, id: &TokenId) -> Option<Arc<Token>> {
        self.tokens.get(id).map(Arc::clone)
    }

    /// The token whose secret has this keyed hash.
    pub fn token_by_hash(&self, hash: &[u8; 32]) -> Option<Arc<Token>> {
        self.token(self.by_hash.get(hash)?)
    }

    /// How much an owner may have.
    pub fn quota(&self, owner: &Owner) -> Quota {
        self.quotas.get(owner).copied().unwrap_or_default()
    }

    /// Every node, and who was invited to become one.
    pub fn nodes(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.nodes.all()
    }

    /// The node of this name.
    pub fn node_by_name(&self, name: &NodeName) -> Option<Arc<Node>> {
        self.nodes.by_name(name).map(Arc::clone)
    }

    /// The node that may join with the secret of this keyed hash, or did.
    pub fn node_by_hash(&self, hash: &[u8; 32]) -> Option<Arc<Node>> {
        self.nodes.by_hash(hash).map(Arc::clone)
    }

    /// The node that joined with this key.
    pub fn node_by_key(&self, key: &[u8; 32]) -> Option<Arc<Node>> {
        self.nodes.by_key(key).map(Arc::clone)
    }

    /// Keys that were revoked, for as long as there may be certificates for them.
    pub fn revoked_keys(&self, now_ms: u64) -> impl Iterator<Item = [u8; 32]> {
        self.nodes.revoked(now_ms)
    }

    fn change_org(&mut self, id: &OrgId, change: impl FnOnce(&mut Org)) {
        if let Some(org) = self.orgs.get_mut(id) {
            change(Arc::make_mut(org));
        }
    }

    fn apply_change(&mut self, change: &AccountChange, created_ms: u64) {
        match change.clone() {
            AccountChange::UserCreated { id, name, fullname, email, admin } => {
                self.names.insert(name.folded(), Owner::User(id));
                let disabled = false;
                let user = User { id, name, fullname, email, admin, disabled, created_ms };
                self.users.insert(id, Arc::new(user));
            }
            AccountChange::UserChanged { id, fullname, email, admin, disabled } => {
                if let Some(user) = self.users.get_mut(&id) {
                    let user = Arc::make_mut(user);
                    user.fullname = fullname.unwrap_or_else(|| std::mem::take(&mut user.fullname));
                    user.email = email.or_else(|| user.email.take());
                    user.admin = admin.unwrap_or(user.admin);
                    user.disabled = disabled.unwrap_or(user.disabled);
                }
            }
            AccountChange::OrgCreated { id, name, fullname, default_visibility } => {
                self.names.insert(name.folded(), Owner::Org(id));
                let members = BTreeMap::new();
                let org = Org { id, name, fullname, default_visibility, created_ms, members };
                self.orgs.insert(id, Arc::new(org));
            }
            AccountChange::OrgChanged { id, fullname, default_visibility } => {
                self.change_org(&id, |org| {
                    org.fullname = fullname.unwrap_or_else(|| std::mem::take(&mut org.fullname));
                    org.default_visibility = default_visibility.unwrap_or(org.default_visibility);
                });
            }
            AccountChange::MemberSet { org, user, role } => self.change_org(&org, |org| {
                match role {
                    Some(role) => org.members.insert(user, role),
                    None => org.members.remove(&user),
                };
            }),
            AccountChange::TokenCreated { id, user, name, hash, role, expires_ms } => {
                self.by_hash.insert(hash, id);
                let token = Token { id, user, name, hash, role, created_ms, expires_ms };
                self.tokens.insert(id, Arc::new(token));
            }
            AccountChange::TokenRevoked { id } => {
                if let Some(token) = self.tokens.remove(&id) {
                    self.by_hash.remove(&token.hash);
                }
            }
            AccountChange::QuotaSet { owner, quota } => {
                self.quotas.insert(owner, quota);
            }
            AccountChange::NodeInvited { id, name, role, user, hash, expires_ms } => {
                let joined = None;
                self.nodes.invite(Node { id, name, role, user, hash, expires_ms, joined });
            }
            AccountChange::NodeJoined { id, key, token } => {
                self.nodes.join(&id, Joined { key, token, joined_ms: created_ms });
            }
            AccountChange::NodeRevoked { id } => self.nodes.revoke(&id, created_ms),
        }
    }
}

impl State for AccountsState {
    type Change = AccountChange;

    fn apply(&mut self, entry: &Entry<AccountChange>) {
        for change in &entry.changes {
            self.apply_change(change, entry.time_ms);
        }
    }
}
