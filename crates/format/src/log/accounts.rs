//! What can happen to accounts: users, organisations, memberships, tokens and nodes.

use super::{Change, FIRST, NODES, QUOTAS, Visibility, unknown};
use crate::codec::{Decoder, Encoder};
use crate::error::Result;
use crate::id::{NodeId, OrgId, TokenId, UserId};
use crate::name::{Namespace, NodeName, RepoKind, RepoName};

/// What somebody may do; each includes the one before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Read.
    Read,
    /// Also write.
    Write,
    /// Also create, move, delete, and change settings.
    Admin,
}

impl Role {
    fn encode(self, to: &mut Encoder) {
        to.u8(match self {
            Self::Read => 0,
            Self::Write => 1,
            Self::Admin => 2,
        });
    }

    fn decode(from: &mut Decoder<'_>) -> Result<Self> {
        match from.u8()? {
            0 => Ok(Self::Read),
            1 => Ok(Self::Write),
            2 => Ok(Self::Admin),
            byte => unknown(from, "role", byte),
        }
    }
}

/// What a fine-grained token's scope is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ScopeEntity {
    /// One repo, by its name.
    Repo {
        /// What it holds.
        kind: RepoKind,
        /// Its name.
        name: RepoName,
    },
    /// All repos of a user or an organisation.
    Namespace(Namespace),
}

/// What a fine-grained token may do, and with what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenScope {
    /// With what.
    pub entity: ScopeEntity,
    /// What.
    pub role: Role,
}

/// What a token may do of what its user may.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenRole {
    /// Read.
    Read,
    /// Everything.
    Write,
    /// What its scopes say.
    FineGrained {
        /// The scopes.
        scopes: Vec<TokenScope>,
    },
}

/// Whose a namespace is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Owner {
    /// A user's own.
    User(UserId),
    /// An organisation's.
    Org(OrgId),
}

impl Owner {
    fn as_bytes(&self) -> &[u8; 16] {
        match self {
            Self::User(id) => id.as_bytes(),
            Self::Org(id) => id.as_bytes(),
        }
    }

    fn decode(from: &mut Decoder<'_>) -> Result<Self> {
        let id = from.array()?;
        match from.u8()? {
            0 => Ok(Self::User(UserId::from_bytes(id))),
            1 => Ok(Self::Org(OrgId::from_bytes(id))),
            byte => unknown(from, "owner", byte),
        }
    }
}

/// How much an owner may have; where nothing is said, as much as there is room for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quota {
    /// Bytes in all files of all revisions of all their repos.
    pub bytes: Option<u64>,
    /// Repos.
    pub repos: Option<u64>,
}

/// What a process that joins a hub is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NodeRole {
    /// It keeps files on its host.
    Node,
    /// It is the hub of another region.
    Region,
}

impl NodeRole {
    pub(crate) fn encode(self, to: &mut Encoder) {
        to.bool(self == Self::Region);
    }

    pub(crate) fn decode(from: &mut Decoder<'_>) -> Result<Self> {
        match from.u8()? {
            0 => Ok(Self::Node),
            1 => Ok(Self::Region),
            byte => unknown(from, "role of a node", byte),
        }
    }
}

/// One change of the accounts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccountChange {
    /// A user was created.
    UserCreated {
        /// Their name for ever.
        id: UserId,
        /// The name they are known by, and their namespace.
        name: Namespace,
        /// The name to show.
        fullname: String,
        /// An address to show.
        email: Option<String>,
        /// Whether they administer the hub.
        admin: bool,
    },
    /// A user changed; what is absent stayed as it was.
    UserChanged {
        /// Who.
        id: UserId,
        /// The name to show.
        fullname: Option<String>,
        /// An address to show.
        email: Option<String>,
        /// Whether they administer the hub.
        admin: Option<bool>,
        /// Whether they are shut out.
        disabled: Option<bool>,
    },
    /// An organisation was created.
    OrgCreated {
        /// Its name for ever.
        id: OrgId,
        /// The name it is known by, and its namespace.
        name: Namespace,
        /// The name to show.
        fullname: String,
        /// Who may see its new repos where the client does not say.
        default_visibility: Visibility,
    },
    /// An organisation changed; what is absent stayed as it was.
    OrgChanged {
        /// Which.
        id: OrgId,
        /// The name to show.
        fullname: Option<String>,
        /// Who may see its new repos where the client does not say.
        default_visibility: Option<Visibility>,
    },
    /// Somebody became, or is no more, a member.
    MemberSet {
        /// Of what.
        org: OrgId,
        /// Who.
        user: UserId,
        /// What they may do; nothing: they are out.
        role: Option<Role>,
    },
    /// A token was made.
    TokenCreated {
        /// Its name for ever.
        id: TokenId,
        /// Whose it is.
        user: UserId,
        /// What it is for.
        name: String,
        /// A keyed hash of its secret, which is stored nowhere.
        hash: [u8; 32],
        /// What it may do.
        role: TokenRole,
        /// When it ends, in unix milliseconds.
        expires_ms: Option<u64>,
    },
    /// A token was revoked.
    TokenRevoked {
        /// Which.
        id: TokenId,
    },
    /// An owner may have so much from now on.
    QuotaSet {
        /// Who.
        owner: Owner,
        /// How much.
        quota: Quota,
    },
    /// A token was made with which a node may join, once.
    NodeInvited {
        /// Its name for ever.
        id: NodeId,
        /// The name that it will be known by.
        name: NodeName,
        /// What it is.
        role: NodeRole,
        /// Whose rights to read it has.
        user: UserId,
        /// A keyed hash of the token's secret, which is stored nowhere.
        hash: [u8; 32],
        /// When the token ends, in unix milliseconds.
        expires_ms: u64,
    },
    /// A node joined: its token is spent.
    NodeJoined {
        /// Which.
        id: NodeId,
        /// The public key by which it is known.
        key: [u8; 32],
        /// The token with which it reads, made in the same entry.
        token: TokenId,
    },
    /// A node is not known any more, or its invitation is taken back.
    NodeRevoked {
        /// Which.
        id: NodeId,
    },
}

impl AccountChange {
    fn tag(&self) -> u8 {
        match self {
            Self::UserCreated { .. } => 0,
            Self::UserChanged { .. } => 1,
            Self::OrgCreated { .. } => 2,
            Self::OrgChanged { .. } => 3,
            Self::MemberSet { .. } => 4,
            Self::TokenCreated { .. } => 5,
            Self::TokenRevoked { .. } => 6,
            Self::QuotaSet { .. } => 7,
            Self::NodeInvited { .. } => 8,
            Self::NodeJoined { .. } => 9,
            Self::NodeRevoked { .. } => 10,
        }
    }

    /// The id of what changed.
    fn subject(&self) -> &[u8; 16] {
        match self {
            Self::UserCreated { id, .. } | Self::UserChanged { id, .. } => id.as_bytes(),
            Self::OrgCreated { id, .. } | Self::OrgChanged { id, .. } => id.as_bytes(),
            Self::MemberSet { org, .. } => org.as_bytes(),
            Self::TokenCreated { id, .. } | Self::TokenRevoked { id } => id.as_bytes(),
            Self::QuotaSet { owner, .. } => owner.as_bytes(),
            Self::NodeInvited { id, .. }
            | Self::NodeJoined { id, .. }
            | Self::NodeRevoked { id } => id.as_bytes(),
        }
    }
}

impl Change for AccountChange {
    const LOG: u8 = 2;

    fn since(&self) -> u16 {
        match self {
            Self::NodeInvited { .. } | Self::NodeJoined { .. } | Self::NodeRevoked { .. } => NODES,
            Self::QuotaSet { .. } => QUOTAS,
            _ => FIRST,
        }
    }

    fn encode(&self, to: &mut Encoder) {
        to.u8(self.tag());
        to.array(self.subject());
        match self {
            Self::UserCreated { name, fullname, email, admin, .. } => {
                to.str(name.as_str());
                to.str(fullname);
                to.option(email.as_ref(), |to, email| to.str(email));
                to.bool(*admin);
            }
            Self::UserChanged { fullname, email, admin, disabled, .. } => {
                to.option(fullname.as_ref(), |to, text| to.str(text));
                to.option(email.as_ref(), |to, text| to.str(text));
                to.option(admin.as_ref(), |to, flag| to.bool(*flag));
                to.option(disabled.as_ref(), |to, flag| to.bool(*flag));
            }
            Self::OrgCreated { name, fullname, default_visibility, .. } => {
                to.str(name.as_str());
                to.str(fullname);
                default_visibility.encode(to);
            }
            Self::OrgChanged { fullname, default_visibility, .. } => {
                to.option(fullname.as_ref(), |to, text| to.str(text));
                to.option(default_visibility.as_ref(), |to, visibility| {
                    visibility.encode(to);
                });
            }
            Self::MemberSet { user, role, .. } => {
                to.array(user.as_bytes());
                to.option(role.as_ref(), |to, role| role.encode(to));
            }
            Self::TokenCreated { user, name, hash, role, expires_ms, .. } => {
                to.array(user.as_bytes());
                to.str(name);
                to.array(hash);
                encode_token_role(role, to);
                to.option(expires_ms.as_ref(), |to, time| to.u64(*time));
            }
            Self::TokenRevoked { .. } | Self::NodeRevoked { .. } => {}
            Self::QuotaSet { owner, quota } => {
                to.u8(u8::from(matches!(owner, Owner::Org(_))));
                to.option(quota.bytes.as_ref(), |to, bytes| to.u64(*bytes));
                to.option(quota.repos.as_ref(), |to, repos| to.u64(*repos));
            }
            Self::NodeInvited { name, role, user, hash, expires_ms, .. } => {
                to.str(name.as_str());
                role.encode(to);
                to.array(user.as_bytes());
                to.array(hash);
                to.u64(*expires_ms);
            }
            Self::NodeJoined { key, token, .. } => {
                to.array(key);
                to.array(token.as_bytes());
            }
        }
    }

    fn decode(from: &mut Decoder<'_>) -> Result<Self> {
        Ok(match from.u8()? {
            0 => Self::UserCreated {
                id: UserId::from_bytes(from.array()?),
                name: from.str()?.parse()?,
                fullname: text(from)?,
                email: from.option(text)?,
                admin: from.bool()?,
            },
            1 => Self::UserChanged {
                id: UserId::from_bytes(from.array()?),
                fullname: from.option(text)?,
                email: from.option(text)?,
                admin: from.option(Decoder::bool)?,
                disabled: from.option(Decoder::bool)?,
            },
            2 => Self::OrgCreated {
                id: OrgId::from_bytes(from.array()?),
                name: from.str()?.parse()?,
                fullname: text(from)?,
                default_visibility: Visibility::decode(from)?,
            },
            3 => Self::OrgChanged {
                id: OrgId::from_bytes(from.array()?),
                fullname: from.option(text)?,
                default_visibility: from.option(Visibility::decode)?,
            },
            4 => Self::MemberSet {
                org: OrgId::from_bytes(from.array()?),
                user: UserId::from_bytes(from.array()?),
                role: from.option(Role::decode)?,
            },
            5 => Self::TokenCreated {
                id: TokenId::from_bytes(from.array()?),
                user: UserId::from_bytes(from.array()?),
                name: text(from)?,
                hash: from.array()?,
                role: decode_token_role(from)?,
                expires_ms: from.option(Decoder::u64)?,
            },
            6 => Self::TokenRevoked { id: TokenId::from_bytes(from.array()?) },
            7 => Self::QuotaSet {
                owner: Owner::decode(from)?,
                quota: Quota {
                    bytes: from.option(Decoder::u64)?,
                    repos: from.option(Decoder::u64)?,
                },
            },
            8 => Self::NodeInvited {
                id: NodeId::from_bytes(from.array()?),
                name: NodeName::parse(from.str()?)?,
                role: NodeRole::decode(from)?,
                user: UserId::from_bytes(from.array()?),
                hash: from.array()?,
                expires_ms: from.u64()?,
            },
            9 => Self::NodeJoined {
                id: NodeId::from_bytes(from.array()?),
                key: from.array()?,
                token: TokenId::from_bytes(from.array()?),
            },
            10 => Self::NodeRevoked { id: NodeId::from_bytes(from.array()?) },
            tag => return unknown(from, "change of the accounts", tag),
        })
    }
}

fn text(from: &mut Decoder<'_>) -> Result<String> {
    Ok(from.str()?.to_owned())
}

fn encode_token_role(role: &TokenRole, to: &mut Encoder) {
    match role {
        TokenRole::Read => to.u8(0),
        TokenRole::Write => to.u8(1),
        TokenRole::FineGrained { scopes } => {
            to.u8(2);
            to.list(scopes, |to, scope| {
                match &scope.entity {
                    ScopeEntity::Namespace(name) => {
                        to.u8(0);
                        to.str(name.as_str());
                    }
                    ScopeEntity::Repo { kind, name } => {
                        to.u8(1 + kind.to_byte());
                        to.str(&name.to_string());
                    }
                }
                scope.role.encode(to);
            });
        }
    }
}

fn decode_token_role(from: &mut Decoder<'_>) -> Result<TokenRole> {
    match from.u8()? {
        0 => Ok(TokenRole::Read),
        1 => Ok(TokenRole::Write),
        2 => Ok(TokenRole::FineGrained { scopes: from.list(6, scope)? }),
        byte => unknown(from, "role of a token", byte),
    }
}

fn scope(from: &mut Decoder<'_>) -> Result<TokenScope> {
    let entity = match from.u8()? {
        0 => ScopeEntity::Namespace(from.str()?.parse()?),
        byte => match RepoKind::from_byte(byte - 1) {
            Some(kind) => ScopeEntity::Repo { kind, name: from.str()?.parse()? },
            None => return unknown(from, "scope of a token", byte),
        },
    };
    Ok(TokenScope { entity, role: Role::decode(from)? })
}
