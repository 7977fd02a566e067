//! One entry of a log: who changed what, after which entry, knowing which gc epoch.
//!
//! There are logs of four kinds: the catalogue of repos, the accounts, what is audited beside
//! these, and one for each repo. They differ in what a change is; everything around it is the same.
//! An entry is named by its number, and proves its place by the hash of the entry before it.
//! Layout: `docs/formats/log-entry.md`.

mod accounts;
mod audit;
mod catalogue;
mod repo;

pub use accounts::{
    AccountChange, NodeRole, Owner, Quota, Role, ScopeEntity, TokenRole, TokenScope,
};
pub use audit::{Act, AuditChange, Head};
pub use catalogue::{AccessStatus, CatalogueChange, Gating, Replication, Visibility};
pub use repo::{PullRequestStatus, RepoChange};

use crate::codec::{Decoder, Encoder, Format};
use crate::error::{Error, Result};
use crate::hash::EntryHash;
use crate::id::{OperationId, UserId};
use crate::limits::{MAX_ENTRY_BYTES, MAX_ENTRY_CHANGES};

/// The first version.
const FIRST: u16 = 1;
/// The version that brought quotas, and the audit log.
const QUOTAS: u16 = 2;
/// The version that brought nodes.
const NODES: u16 = 3;
/// The version that brought homes in other regions.
const HOMES: u16 = 3;
/// The latest version.
const LATEST: u16 = HOMES;

/// An entry has no checksum: the entry after it, and whoever counts on it, knows its hash.
const FORMAT: Format = Format {
    what: "log entry",
    magic: *b"BLSTLOGE",
    version: FIRST,
    limit: MAX_ENTRY_BYTES,
    has_checksum: false,
};

/// The format in this version.
const fn format(version: u16) -> Format {
    Format { version, ..FORMAT }
}

/// What can happen in a log of one kind.
pub trait Change: Sized {
    /// Which kind of log it belongs to; an entry of another kind does not decode.
    const LOG: u8;

    /// The version that first had this change.
    fn since(&self) -> u16 {
        FIRST
    }

    /// Writes the change.
    fn encode(&self, encoder: &mut Encoder);

    /// Reads a change.
    fn decode(decoder: &mut Decoder<'_>) -> Result<Self>;
}

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry<C> {
    /// Drawn by the writer for this change: how it recognises its own entry after a lost answer.
    pub operation: OperationId,
    /// The entry before this one; zero for the first.
    pub previous: EntryHash,
    /// The newest gc epoch that the writer had read.
    pub epoch: u64,
    /// The home's term: raised when a repo's home region changes.
    pub term: u64,
    /// When, in unix milliseconds by the writer's clock. Nothing depends on it.
    pub time_ms: u64,
    /// On whose behalf; nobody's for what the hub does by itself.
    pub author: Option<UserId>,
    /// What changed, in order, all of it or nothing.
    pub changes: Vec<C>,
}

impl<C: Change> Entry<C> {
    /// The version that all of it needs: programs that know no later one read what they can.
    fn version(&self) -> u16 {
        self.changes.iter().map(Change::since).max().unwrap_or(FIRST)
    }

    /// The stored bytes.
    pub fn encode(&self) -> Result<Vec<u8>> {
        check_changes(self.changes.len())?;
        format(self.version()).encode(|encoder| {
            encoder.u8(C::LOG);
            encoder.array(self.operation.as_bytes());
            encoder.array(self.previous.as_bytes());
            encoder.u64(self.epoch);
            encoder.u64(self.term);
            encoder.u64(self.time_ms);
            encoder.option(self.author.as_ref(), |encoder, id| {
                encoder.array(id.as_bytes());
            });
            encoder.list(&self.changes, |encoder, change| change.encode(encoder));
        })
    }

    /// Reads stored bytes: all of them, and nothing but an entry of this kind of log.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let version = written_version(bytes);
        let mut decoder = format(version).decode(bytes)?;
        let log = decoder.u8()?;
        if log != C::LOG {
            return Err(decoder.malformed(format!("it is of a log of kind {log}")));
        }
        let operation = OperationId::from_bytes(decoder.array()?);
        let previous = EntryHash::from_bytes(decoder.array()?);
        let (epoch, term, time_ms) = (decoder.u64()?, decoder.u64()?, decoder.u64()?);
        let author = decoder.option(|decoder| Ok(UserId::from_bytes(decoder.array()?)))?;
        // Before they are read, since a change takes more memory than bytes.
        check_changes(decoder.clone().u32()? as usize)?;
        let changes = decoder.list(1, C::decode)?;
        let written = decoder.malformed(format!("it says version {version}, and needs another"));
        decoder.finish()?;
        let entry = Self { operation, previous, epoch, term, time_ms, author, changes };
        if entry.version() == version { Ok(entry) } else { Err(written) }
    }
}

/// The version that these bytes say, if we know it.
fn written_version(bytes: &[u8]) -> u16 {
    let place = bytes.get(8..).and_then(<[u8]>::first_chunk);
    let version = place.map_or(FIRST, |bytes| u16::from_le_bytes(*bytes));
    // What is unknown is refused as such by the first.
    if (FIRST..=LATEST).contains(&version) { version } else { FIRST }
}

fn check_changes(count: usize) -> Result<()> {
    if count > MAX_ENTRY_CHANGES {
        let (size, limit) = (count as u64, MAX_ENTRY_CHANGES as u64);
        return Err(Error::TooLarge { what: "list of a log entry's changes", size, limit });
    }
    Ok(())
}

/// An unknown tag: the entry was written by a later program, or is no entry.
fn unknown<T>(decoder: &Decoder<'_>, what: &str, tag: u8) -> Result<T> {
    Err(decoder.malformed(format!("{tag} is no {what}")))
}

#[cfg(test)]
mod tests;
