//! What can happen in the catalogue: which repos there are, and who may see and likes them.

use super::{Change, FIRST, HOMES, Head, unknown};
use crate::codec::{Decoder, Encoder};
use crate::error::Result;
use crate::id::{RepoId, UserId};
use crate::name::{RegionName, RepoKind, RepoName};

/// Who may see a repo.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Visibility {
    /// Everybody who may use the hub.
    Public,
    /// Who has a right to it.
    Private,
}

impl Visibility {
    pub(super) fn encode(self, to: &mut Encoder) {
        to.bool(self == Self::Private);
    }

    pub(super) fn decode(from: &mut Decoder<'_>) -> Result<Self> {
        Ok(if from.bool()? { Self::Private } else { Self::Public })
    }
}

/// Whether readers must ask before they get a repo's files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gating {
    /// No.
    None,
    /// Yes, and who asks is let in.
    Automatic,
    /// Yes, and a person decides.
    Manual,
}

/// What came of a request for access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessStatus {
    /// Nobody has decided.
    Pending,
    /// Let in.
    Accepted,
    /// Refused.
    Rejected,
}

/// One change of the catalogue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CatalogueChange {
    /// A repo was created.
    RepoCreated {
        /// Its name for ever.
        id: RepoId,
        /// What it holds.
        kind: RepoKind,
        /// Its name for now.
        name: RepoName,
        /// Who may see it.
        visibility: Visibility,
        /// Who created it.
        creator: UserId,
        /// For a space: what runs it.
        sdk: Option<String>,
    },
    /// A repo got another name.
    RepoMoved {
        /// Which.
        id: RepoId,
        /// Its new name; the old one leads to it.
        to: RepoName,
    },
    /// A repo was deleted; its log stays.
    RepoDeleted {
        /// Which.
        id: RepoId,
    },
    /// Settings of a repo changed; what is absent stayed as it was.
    RepoSettings {
        /// Which.
        id: RepoId,
        /// Who may see it.
        visibility: Option<Visibility>,
        /// Whether readers must ask.
        gating: Option<Gating>,
        /// A line about it.
        description: Option<String>,
        /// Whether nobody may open discussions.
        discussions_disabled: Option<bool>,
        /// Whether an administrator has closed it.
        disabled: Option<bool>,
    },
    /// Somebody likes a repo.
    Liked {
        /// Which.
        id: RepoId,
        /// Who.
        user: UserId,
    },
    /// Somebody likes a repo no more.
    Unliked {
        /// Which.
        id: RepoId,
        /// Who.
        user: UserId,
    },
    /// Somebody asks for a gated repo's files.
    AccessRequested {
        /// Which repo.
        id: RepoId,
        /// Who.
        user: UserId,
        /// What they filled in: a JSON object.
        fields: String,
    },
    /// Somebody's request was decided, or they were let in without one.
    AccessDecided {
        /// Which repo.
        id: RepoId,
        /// Who asked.
        user: UserId,
        /// How.
        status: AccessStatus,
        /// Why, for a refusal.
        reason: Option<String>,
    },
    /// A repo is a mirror: what is in it comes from the repo of the same name at an upstream.
    RepoMirrors {
        /// Which.
        id: RepoId,
        /// The upstream's address.
        upstream: String,
    },
    /// This region follows a repo that has its home in another one.
    RepoFollows {
        /// Which.
        id: RepoId,
        /// The home.
        home: RegionName,
        /// Where clients reach that.
        address: String,
        /// The home's term.
        term: u64,
        /// The last entry of the home's that is here.
        known: Head,
        /// Under which id the entries behind it are kept, where this region may have others of the
        /// same numbers, which count no more.
        line: Option<RepoId>,
    },
    /// Of a repo that this region follows, all entries up to this one are here with what they name.
    RepoArrived {
        /// Which.
        id: RepoId,
        /// The entry.
        known: Head,
    },
    /// This region is the home of a repo that it followed so far.
    RepoHomed {
        /// Which.
        id: RepoId,
        /// The term of the entries that it writes, behind this one.
        term: u64,
        /// The last entry that it followed.
        known: Head,
        /// Under which id the entries behind it are kept: others of the same numbers may be there,
        /// which were on their way here.
        line: RepoId,
    },
    /// Repos go to another region from now on, under these rules.
    ReplicationSet {
        /// Its name; one of this name before is replaced.
        name: RegionName,
        /// What goes where.
        rules: Replication,
    },
    /// A replication goes on no more.
    ReplicationRemoved {
        /// Its name.
        name: RegionName,
    },
    /// All that another region offers was compared with what is here, and read.
    RegionCompared {
        /// Which region.
        region: RegionName,
        /// How many repos.
        repos: u64,
        /// How many faults were found.
        findings: u64,
    },
}

/// Which repos go to another region, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replication {
    /// Patterns for names of repos.
    pub patterns: Vec<String>,
    /// Where to.
    pub to: RegionName,
    /// If there are any: repos that fit are kept in these regions and in no other.
    pub residency: Vec<RegionName>,
    /// Bytes a second at most.
    pub limit: Option<u64>,
    /// Only between these minutes of the day, in UTC; the first may be the later one.
    pub window: Option<(u32, u32)>,
    /// Whether it rests.
    pub is_paused: bool,
}

impl Replication {
    fn encode(&self, to: &mut Encoder) {
        to.list(&self.patterns, |to, pattern| to.str(pattern));
        to.str(self.to.as_str());
        to.list(&self.residency, |to, region| to.str(region.as_str()));
        to.option(self.limit.as_ref(), |to, limit| to.u64(*limit));
        to.option(self.window.as_ref(), |to, (start, end)| {
            to.u32(*start);
            to.u32(*end);
        });
        to.bool(self.is_paused);
    }

    fn decode(from: &mut Decoder<'_>) -> Result<Self> {
        Ok(Self {
            patterns: from.list(4, |from| Ok(from.str()?.to_owned()))?,
            to: from.str()?.parse()?,
            residency: from.list(4, |from| from.str()?.parse())?,
            limit: from.option(Decoder::u64)?,
            window: from.option(|from| Ok((from.u32()?, from.u32()?)))?,
            is_paused: from.bool()?,
        })
    }
}

impl CatalogueChange {
    /// Writes what is about several regions.
    fn encode_of_regions(&self, to: &mut Encoder) {
        match self {
            Self::RepoFollows { id, home, address, term, known, line } => {
                to.u8(9);
                to.array(id.as_bytes());
                to.str(home.as_str());
                to.str(address);
                to.u64(*term);
                known.encode(to);
                to.option(line.as_ref(), |to, line| to.array(line.as_bytes()));
            }
            Self::RepoArrived { id, known } => {
                to.u8(10);
                to.array(id.as_bytes());
                known.encode(to);
            }
            Self::RepoHomed { id, term, known, line } => {
                to.u8(11);
                to.array(id.as_bytes());
                to.u64(*term);
                known.encode(to);
                to.array(line.as_bytes());
            }
            Self::ReplicationSet { name, rules } => {
                to.u8(12);
                to.str(name.as_str());
                rules.encode(to);
            }
            Self::ReplicationRemoved { name } => {
                to.u8(13);
                to.str(name.as_str());
            }
            Self::RegionCompared { region, repos, findings } => {
                to.u8(14);
                to.str(region.as_str());
                to.u64(*repos);
                to.u64(*findings);
            }
            _ => {}
        }
    }
}

impl Change for CatalogueChange {
    const LOG: u8 = 1;

    fn since(&self) -> u16 {
        match self {
            Self::RepoFollows { .. }
            | Self::RepoArrived { .. }
            | Self::RepoHomed { .. }
            | Self::ReplicationSet { .. }
            | Self::ReplicationRemoved { .. }
            | Self::RegionCompared { .. } => HOMES,
            _ => FIRST,
        }
    }

    fn encode(&self, to: &mut Encoder) {
        match self {
            Self::RepoCreated { id, kind, name, visibility, creator, sdk } => {
                to.u8(0);
                to.array(id.as_bytes());
                to.u8(kind.to_byte());
                to.str(&name.to_string());
                visibility.encode(to);
                to.array(creator.as_bytes());
                to.option(sdk.as_ref(), |to, sdk| to.str(sdk));
            }
            Self::RepoMoved { id, to: name } => {
                to.u8(1);
                to.array(id.as_bytes());
                to.str(&name.to_string());
            }
            Self::RepoDeleted { id } => {
                to.u8(2);
                to.array(id.as_bytes());
            }
            Self::RepoSettings {
                id,
                visibility,
                gating,
                description,
                discussions_disabled,
                disabled,
            } => {
                to.u8(3);
                to.array(id.as_bytes());
                to.option(visibility.as_ref(), |to, visibility| visibility.encode(to));
                to.option(gating.as_ref(), |to, gating| to.u8(gating_byte(*gating)));
                to.option(description.as_ref(), |to, text| to.str(text));
                to.option(discussions_disabled.as_ref(), |to, flag| to.bool(*flag));
                to.option(disabled.as_ref(), |to, flag| to.bool(*flag));
            }
            Self::Liked { id, user } => person(to, 4, id, user),
            Self::Unliked { id, user } => person(to, 5, id, user),
            Self::AccessRequested { id, user, fields } => {
                person(to, 6, id, user);
                to.str(fields);
            }
            Self::AccessDecided { id, user, status, reason } => {
                person(to, 7, id, user);
                to.u8(status_byte(*status));
                to.option(reason.as_ref(), |to, reason| to.str(reason));
            }
            Self::RepoMirrors { id, upstream } => {
                to.u8(8);
                to.array(id.as_bytes());
                to.str(upstream);
            }
            Self::RepoFollows { .. }
            | Self::RepoArrived { .. }
            | Self::RepoHomed { .. }
            | Self::ReplicationSet { .. }
            | Self::ReplicationRemoved { .. }
            | Self::RegionCompared { .. } => self.encode_of_regions(to),
        }
    }

    fn decode(from: &mut Decoder<'_>) -> Result<Self> {
        let tag = from.u8()?;
        if (12..=14).contains(&tag) {
            return of_regions(tag, from);
        }
        let id = RepoId::from_bytes(from.array()?);
        Ok(match tag {
            0 => Self::RepoCreated {
                id,
                kind: kind(from)?,
                name: from.str()?.parse()?,
                visibility: Visibility::decode(from)?,
                creator: user(from)?,
                sdk: from.option(|from| Ok(from.str()?.to_owned()))?,
            },
            1 => Self::RepoMoved { id, to: from.str()?.parse()? },
            2 => Self::RepoDeleted { id },
            3 => Self::RepoSettings {
                id,
                visibility: from.option(Visibility::decode)?,
                gating: from.option(gating)?,
                description: from.option(|from| Ok(from.str()?.to_owned()))?,
                discussions_disabled: from.option(Decoder::bool)?,
                disabled: from.option(Decoder::bool)?,
            },
            4 => Self::Liked { id, user: user(from)? },
            5 => Self::Unliked { id, user: user(from)? },
            6 => Self::AccessRequested { id, user: user(from)?, fields: from.str()?.to_owned() },
            7 => Self::AccessDecided {
                id,
                user: user(from)?,
                status: status(from)?,
                reason: from.option(|from| Ok(from.str()?.to_owned()))?,
            },
            8 => Self::RepoMirrors { id, upstream: from.str()?.to_owned() },
            9 => Self::RepoFollows {
                id,
                home: from.str()?.parse()?,
                address: from.str()?.to_owned(),
                term: from.u64()?,
                known: Head::decode(from)?,
                line: from.option(|from| Ok(RepoId::from_bytes(from.array()?)))?,
            },
            10 => Self::RepoArrived { id, known: Head::decode(from)? },
            11 => Self::RepoHomed {
                id,
                term: from.u64()?,
                known: Head::decode(from)?,
                line: RepoId::from_bytes(from.array()?),
            },
            tag => return unknown(from, "change of the catalogue", tag),
        })
    }
}

/// A change that is of no repo.
fn of_regions(tag: u8, from: &mut Decoder<'_>) -> Result<CatalogueChange> {
    let name = from.str()?.parse()?;
    Ok(match tag {
        12 => CatalogueChange::ReplicationSet { name, rules: Replication::decode(from)? },
        13 => CatalogueChange::ReplicationRemoved { name },
        _ => {
            let (repos, findings) = (from.u64()?, from.u64()?);
            CatalogueChange::RegionCompared { region: name, repos, findings }
        }
    })
}

fn person(to: &mut Encoder, tag: u8, id: &RepoId, user: &UserId) {
    to.u8(tag);
    to.array(id.as_bytes());
    to.array(user.as_bytes());
}

fn user(from: &mut Decoder<'_>) -> Result<UserId> {
    Ok(UserId::from_bytes(from.array()?))
}

fn kind(from: &mut Decoder<'_>) -> Result<RepoKind> {
    let byte = from.u8()?;
    RepoKind::from_byte(byte).map_or_else(|| unknown(from, "kind of repo", byte), Ok)
}

fn gating_byte(gating: Gating) -> u8 {
    match gating {
        Gating::None => 0,
        Gating::Automatic => 1,
        Gating::Manual => 2,
    }
}

fn gating(from: &mut Decoder<'_>) -> Result<Gating> {
    match from.u8()? {
        0 => Ok(Gating::None),
        1 => Ok(Gating::Automatic),
        2 => Ok(Gating::Manual),
        byte => unknown(from, "gating", byte),
    }
}

fn status_byte(status: AccessStatus) -> u8 {
    match status {
        AccessStatus::Pending => 0,
        AccessStatus::Accepted => 1,
        AccessStatus::Rejected => 2,
    }
}

fn status(from: &mut Decoder<'_>) -> Result<AccessStatus> {
    match from.u8()? {
        0 => Ok(AccessStatus::Pending),
        1 => Ok(AccessStatus::Accepted),
        2 => Ok(AccessStatus::Rejected),
        byte => unknown(from, "status of a request", byte),
    }
}
