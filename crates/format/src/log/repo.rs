//! What can happen in a repo's log.

use super::{Change, FIRST, HOMES, unknown};
use crate::codec::{Decoder, Encoder};
use crate::error::Result;
use crate::hash::{ObjectHash, PackHash};
use crate::id::{OperationId, UserId};
use crate::name::{RefName, RegionName};

/// Where a pull request stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PullRequestStatus {
    /// Not yet for review.
    Draft,
    /// For review.
    Open,
    /// Given up.
    Closed,
    /// Taken over.
    Merged,
}

impl PullRequestStatus {
    const ALL: [Self; 4] = [Self::Draft, Self::Open, Self::Closed, Self::Merged];

    fn to_byte(self) -> u8 {
        match self {
            Self::Draft => 0,
            Self::Open => 1,
            Self::Closed => 2,
            Self::Merged => 3,
        }
    }
}

/// One change of a repo.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RepoChange {
    /// A ref was made or moved.
    RefSet {
        /// Which.
        name: RefName,
        /// Where it pointed; nothing if it is new.
        old: Option<ObjectHash>,
        /// The commit that it points to now.
        new: ObjectHash,
    },
    /// A ref was deleted.
    RefDeleted {
        /// Which.
        name: RefName,
        /// Where it pointed.
        old: ObjectHash,
    },
    /// The repo's objects grew by those of a pack.
    PackAdded {
        /// Which.
        pack: PackHash,
    },
    /// A pull request was opened.
    PullRequestOpened {
        /// Its number; the first is 1.
        number: u32,
        /// Its title.
        title: String,
        /// What its author says about it.
        description: String,
        /// Who opened it.
        author: UserId,
    },
    /// A pull request's status changed.
    PullRequestStatus {
        /// Which.
        number: u32,
        /// To what.
        status: PullRequestStatus,
    },
    /// Somebody said something about a pull request.
    Comment {
        /// Which.
        number: u32,
        /// The comment's own name.
        id: OperationId,
        /// Who.
        author: UserId,
        /// What.
        text: String,
    },
    /// The repo's home is another region from here on. No entry of the term before follows.
    HomeMoved {
        /// Which region.
        home: RegionName,
        /// Where clients reach it.
        address: String,
        /// The term of its entries.
        term: u64,
    },
}

impl Change for RepoChange {
    const LOG: u8 = 0;

    fn since(&self) -> u16 {
        if matches!(self, Self::HomeMoved { .. }) { HOMES } else { FIRST }
    }

    fn encode(&self, to: &mut Encoder) {
        match self {
            Self::RefSet { name, old, new } => {
                to.u8(0);
                to.str(name.as_str());
                to.option(old.as_ref(), |to, old| to.array(old.as_bytes()));
                to.array(new.as_bytes());
            }
            Self::RefDeleted { name, old } => {
                to.u8(1);
                to.str(name.as_str());
                to.array(old.as_bytes());
            }
            Self::PackAdded { pack } => {
                to.u8(2);
                to.array(pack.as_bytes());
            }
            Self::PullRequestOpened { number, title, description, author } => {
                to.u8(3);
                to.u32(*number);
                to.str(title);
                to.str(description);
                to.array(author.as_bytes());
            }
            Self::PullRequestStatus { number, status } => {
                to.u8(4);
                to.u32(*number);
                to.u8(status.to_byte());
            }
            Self::Comment { number, id, author, text } => {
                to.u8(5);
                to.u32(*number);
                to.array(id.as_bytes());
                to.array(author.as_bytes());
                to.str(text);
            }
            Self::HomeMoved { home, address, term } => {
                to.u8(6);
                to.str(home.as_str());
                to.str(address);
                to.u64(*term);
            }
        }
    }

    fn decode(from: &mut Decoder<'_>) -> Result<Self> {
        Ok(match from.u8()? {
            0 => Self::RefSet {
                name: from.str()?.parse()?,
                old: from.option(|from| Ok(ObjectHash::from_bytes(from.array()?)))?,
                new: ObjectHash::from_bytes(from.array()?),
            },
            1 => Self::RefDeleted {
                name: from.str()?.parse()?,
                old: ObjectHash::from_bytes(from.array()?),
            },
            2 => Self::PackAdded { pack: PackHash::from_bytes(from.array()?) },
            3 => Self::PullRequestOpened {
                number: from.u32()?,
                title: from.str()?.to_owned(),
                description: from.str()?.to_owned(),
                author: UserId::from_bytes(from.array()?),
            },
            4 => Self::PullRequestStatus { number: from.u32()?, status: status(from)? },
            5 => Self::Comment {
                number: from.u32()?,
                id: OperationId::from_bytes(from.array()?),
                author: UserId::from_bytes(from.array()?),
                text: from.str()?.to_owned(),
            },
            6 => Self::HomeMoved {
                home: from.str()?.parse()?,
                address: from.str()?.to_owned(),
                term: from.u64()?,
            },
            tag => return unknown(from, "change of a repo", tag),
        })
    }
}

fn status(from: &mut Decoder<'_>) -> Result<PullRequestStatus> {
    let byte = from.u8()?;
    let found = PullRequestStatus::ALL.into_iter().find(|status| status.to_byte() == byte);
    found.map_or_else(|| unknown(from, "status of a pull request", byte), Ok)
}
