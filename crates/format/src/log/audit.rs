//! What the audit log holds beside the other logs: who could not get in, what administrators had
//! the hub do, and how far the other logs were.

use super::{Change, QUOTAS, unknown};
use crate::codec::{Decoder, Encoder};
use crate::error::Result;
use crate::hash::EntryHash;
use crate::id::TokenId;

/// Something that an administrator had the hub do, and that no other log tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Collect garbage, by one step.
    CollectedGarbage,
    /// Tell of everything that there is.
    ExportedMetadata,
}

/// How far a log was: whatever is taken away from its end later is missed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// The number of its last entry; 0 if there was none.
    pub number: u64,
    /// The hash of that entry.
    pub hash: EntryHash,
}

/// One thing that is worth knowing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuditChange {
    /// Logins failed.
    LoginsFailed {
        /// From where: the network of an IPv6 address, or a mapped IPv4 address.
        address: [u8; 16],
        /// The token that was tried, if it is one that has ended.
        token: Option<TokenId>,
        /// How often.
        count: u32,
        /// Since when, in unix milliseconds.
        since_ms: u64,
    },
    /// Logins failed from so many places that they are not told one by one.
    MoreLoginsFailed {
        /// How often.
        count: u64,
    },
    /// An administrator, who is the entry's author, had the hub do something.
    Acted {
        /// What.
        act: Act,
        /// By which token.
        token: TokenId,
    },
    /// The other logs of the whole hub were so far.
    Heads {
        /// The catalogue.
        catalogue: Head,
        /// The accounts.
        accounts: Head,
    },
}

impl Head {
    /// Of a log that has no entry.
    pub const NOTHING: Self = Self { number: 0, hash: EntryHash::ZERO };

    pub(super) fn encode(&self, to: &mut Encoder) {
        to.u64(self.number);
        to.array(self.hash.as_bytes());
    }

    pub(super) fn decode(from: &mut Decoder<'_>) -> Result<Self> {
        Ok(Self { number: from.u64()?, hash: EntryHash::from_bytes(from.array()?) })
    }
}

impl Change for AuditChange {
    const LOG: u8 = 3;

    fn since(&self) -> u16 {
        QUOTAS
    }

    fn encode(&self, to: &mut Encoder) {
        match self {
            Self::LoginsFailed { address, token, count, since_ms } => {
                to.u8(0);
                to.array(address);
                to.option(token.as_ref(), |to, token| to.array(token.as_bytes()));
                to.u32(*count);
                to.u64(*since_ms);
            }
            Self::MoreLoginsFailed { count } => {
                to.u8(1);
                to.u64(*count);
            }
            Self::Acted { act, token } => {
                to.u8(2);
                to.u8(match act {
                    Act::CollectedGarbage => 0,
                    Act::ExportedMetadata => 1,
                });
                to.array(token.as_bytes());
            }
            Self::Heads { catalogue, accounts } => {
                to.u8(3);
                catalogue.encode(to);
                accounts.encode(to);
            }
        }
    }

    fn decode(from: &mut Decoder<'_>) -> Result<Self> {
        Ok(match from.u8()? {
            0 => Self::LoginsFailed {
                address: from.array()?,
                token: from.option(|from| Ok(TokenId::from_bytes(from.array()?)))?,
                count: from.u32()?,
                since_ms: from.u64()?,
            },
            1 => Self::MoreLoginsFailed { count: from.u64()? },
            2 => Self::Acted { act: act(from)?, token: TokenId::from_bytes(from.array()?) },
            3 => Self::Heads { catalogue: Head::decode(from)?, accounts: Head::decode(from)? },
            tag => return unknown(from, "entry of the audit log", tag),
        })
    }
}

fn act(from: &mut Decoder<'_>) -> Result<Act> {
    match from.u8()? {
        0 => Ok(Act::CollectedGarbage),
        1 => Ok(Act::ExportedMetadata),
        byte => unknown(from, "act", byte),
    }
}
