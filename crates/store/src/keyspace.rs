//! The only place that spells and reads object keys (Invariant 1).
//!
//! A key is made of fixed words, hashes, ids and numbers; no text that a user chose is ever in
//! one. Every key has exactly one spelling. The table of all keys is
//! `docs/formats/keyspace.md`.

use std::fmt;
use std::str::FromStr;

use ballast_format::hash::{PackHash, ShardHash, XorbHash};
use ballast_format::id::{JobId, RepoId, UploadId, UserId};
use object_store::path::Path;

/// All keys live below this word, so that a bucket may hold other things too.
const ROOT: &str = "hub";

/// The kinds of immutable objects that may exist in several copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CopyKind {
    /// Chunks packed together.
    Xorb,
    /// Which files use which chunks.
    Shard,
    /// The git objects of one commit.
    Pack,
}

impl CopyKind {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Xorb, Self::Shard, Self::Pack];

    fn word(self) -> &'static str {
        match self {
            Self::Xorb => "xorb",
            Self::Shard => "shard",
            Self::Pack => "pack",
        }
    }

    fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.word() == word)
    }

    /// The number that stands for the kind in index rows.
    pub const fn to_byte(self) -> u8 {
        match self {
            Self::Xorb => 0,
            Self::Shard => 1,
            Self::Pack => 2,
        }
    }

    /// The mirror of [`CopyKind::to_byte`].
    pub fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.to_byte() == byte)
    }

    /// The hash as the rest of the program writes it, so that a person can search for it.
    fn spell(self, hash: [u8; 32]) -> String {
        match self {
            Self::Xorb => XorbHash::from_bytes(hash).to_string(),
            Self::Shard => ShardHash::from_bytes(hash).to_string(),
            Self::Pack => PackHash::from_bytes(hash).to_string(),
        }
    }

    fn read(self, text: &str) -> Option<[u8; 32]> {
        match self {
            Self::Xorb => text.parse().ok().map(|hash: XorbHash| *hash.as_bytes()),
            Self::Shard => text.parse().ok().map(|hash: ShardHash| *hash.as_bytes()),
            Self::Pack => text.parse().ok().map(|hash: PackHash| *hash.as_bytes()),
        }
    }
}

/// The name of one copy of an immutable object. One writer writes a name, once (Invariant 2): the
/// epoch is the newest that its writer had read, and the nonce is random.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CopyName {
    /// What it holds.
    pub kind: CopyKind,
    /// The hash of the content.
    pub hash: [u8; 32],
    /// The newest epoch that the writer had read.
    pub epoch: u64,
    /// Random, so that no two writers ever choose one name.
    pub nonce: u64,
}

impl CopyName {
    /// The length of a name in index rows.
    pub const LENGTH: usize = 49;

    /// The form for index rows.
    pub fn to_bytes(&self) -> [u8; Self::LENGTH] {
        let mut bytes = [0; Self::LENGTH];
        bytes[0] = self.kind.to_byte();
        bytes[1..33].copy_from_slice(&self.hash);
        bytes[33..41].copy_from_slice(&self.epoch.to_be_bytes());
        bytes[41..].copy_from_slice(&self.nonce.to_be_bytes());
        bytes
    }

    /// The mirror of [`CopyName::to_bytes`].
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; Self::LENGTH] = bytes.try_into().ok()?;
        Some(Self {
            kind: CopyKind::from_byte(bytes[0])?,
            hash: *bytes[1..].first_chunk()?,
            epoch: u64::from_be_bytes(*bytes[33..].first_chunk()?),
            nonce: u64::from_be_bytes(*bytes[41..].first_chunk()?),
        })
    }
}

impl fmt::Display for CopyName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, hash, epoch, nonce } = *self;
        write!(out, "{ROOT}/{}/{epoch:016x}-{nonce:016x}", copies_of(kind, hash))
    }
}

/// Which log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LogId {
    /// Which repos there are, and what they are called.
    Catalogue,
    /// Users, organisations and tokens.
    Accounts,
    /// What is audited and is in none of the others.
    Audit,
    /// The refs of one repo.
    Repo(RepoId),
}

impl LogId {
    /// The length of [`LogId::to_bytes`].
    pub const LENGTH: usize = 17;

    /// The form for index rows: of one length, so that it can be a prefix.
    pub fn to_bytes(&self) -> [u8; Self::LENGTH] {
        let mut bytes = [0; Self::LENGTH];
        match self {
            Self::Catalogue => bytes[0] = 1,
            Self::Accounts => bytes[0] = 2,
            Self::Audit => bytes[0] = 4,
            Self::Repo(id) => {
                bytes[0] = 3;
                bytes[1..].copy_from_slice(id.as_bytes());
            }
        }
        bytes
    }
}

impl fmt::Display for LogId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Catalogue => out.write_str("log/catalogue"),
            Self::Accounts => out.write_str("log/accounts"),
            Self::Audit => out.write_str("log/audit"),
            Self::Repo(id) => write!(out, "log/repo/{id}"),
        }
    }
}

/// What is leased to somebody, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Leased {
    /// A shard object that registered files of theirs, which they may commit.
    Registered(ShardHash),
    /// A xorb whose bytes they sent: it is theirs to build on as long as the lease runs.
    Sent(XorbHash),
    /// A xorb that they were told they need not send: it stays, and opens nothing to them.
    Told(XorbHash),
}

impl Leased {
    fn read(word: &str, hash: &str) -> Option<Self> {
        Some(match word {
            "registered" => Self::Registered(hash.parse().ok()?),
            "sent" => Self::Sent(hash.parse().ok()?),
            "told" => Self::Told(hash.parse().ok()?),
            _ => return None,
        })
    }
}

impl fmt::Display for Leased {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Registered(shard) => write!(out, "registered-{shard}"),
            Self::Sent(xorb) => write!(out, "sent-{xorb}"),
            Self::Told(xorb) => write!(out, "told-{xorb}"),
        }
    }
}

/// The name of a lease: do not sweep this before that time. All it says is in the name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PinName {
    /// Whose lease it is.
    pub owner: UserId,
    /// What must stay.
    pub leased: Leased,
    /// Until when, in milliseconds since 1970.
    pub until_ms: u64,
    /// Random, so that no two writers ever choose one name.
    pub nonce: u64,
}

/// A share of the store that is read again as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ScrubShare {
    /// Copies of this kind, by the first byte of the hash's text.
    Copies(CopyKind, u8),
    /// The logs of repos, by the first byte of their id.
    RepoLogs(u8),
    /// The logs of the whole hub, and the lists of what was condemned.
    Hub,
}

impl ScrubShare {
    /// Every share.
    pub fn all() -> impl Iterator<Item = Self> {
        let copies = CopyKind::ALL.into_iter();
        let copies = copies.flat_map(|kind| (0..=u8::MAX).map(move |at| Self::Copies(kind, at)));
        std::iter::once(Self::Hub).chain((0..=u8::MAX).map(Self::RepoLogs)).chain(copies)
    }

    /// Whether this copy is in it.
    pub fn holds(&self, copy: &CopyName) -> bool {
        let Self::Copies(kind, at) = self else { return false };
        *kind == copy.kind && kind.spell(copy.hash)[..2] == format!("{at:02x}")
    }

    fn read(text: &str) -> Option<Self> {
        let (word, number) = text.split_once('-')?;
        let number = u8::from_str_radix(number, 16).ok()?;
        match word {
            "log" => Some(Self::RepoLogs(number)),
            "hub" => Some(Self::Hub),
            word => Some(Self::Copies(CopyKind::from_word(word)?, number)),
        }
    }
}

impl fmt::Display for ScrubShare {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Copies(kind, number) => write!(out, "{}-{number:02x}", kind.word()),
            Self::RepoLogs(number) => write!(out, "log-{number:02x}"),
            Self::Hub => out.write_str("hub-00"),
        }
    }
}

/// The name of a note that a share was read again to its end. All it says is in the name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ScrubName {
    /// What was read.
    pub share: ScrubShare,
    /// When that ended, in milliseconds since 1970.
    pub ended_ms: u64,
    /// Objects that were read.
    pub objects: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Random, so that no two writers ever choose one name.
    pub nonce: u64,
}

/// The key of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// One copy of an immutable object.
    Copy(CopyName),
    /// A note that this copy is damaged or lost.
    Damaged(CopyName),
    /// A note that a share of the store was read again.
    Scrubbed(ScrubName),
    /// An entry of a log, by its number; the first is 1.
    LogEntry(LogId, u64),
    /// An epoch: the list of what it condemned.
    Gc(u64),
    /// The sign that the sweep of an epoch is over.
    GcDone(u64),
    /// A lease.
    Pin(PinName),
    /// A part of a file that is uploaded in parts.
    Part {
        /// The upload.
        upload: UploadId,
        /// Which part, as the client counts.
        number: u32,
        /// Random, so that a part may be sent again.
        nonce: u64,
    },
    /// Downloads that a node counted.
    Tally {
        /// Days since 1970.
        day: u32,
        /// Random, so that no two writers ever choose one name.
        nonce: u64,
    },
    /// A note of which bundles of a creator came.
    Receipt {
        /// The creator's public key.
        creator: [u8; 32],
        /// The place of the latest bundle in the creator's order.
        sequence: u64,
        /// Random: a bundle may come in parts.
        nonce: u64,
    },
    /// A version of a mirror job.
    MirrorJob {
        /// The job.
        job: JobId,
        /// Its versions are counted from 1.
        number: u64,
    },
    /// The random bytes that all of the hub's keys derive from.
    Secret,
    /// Which layout the store has.
    Layout,
    /// What a probe writes.
    Probe {
        /// Random: one probe.
        nonce: u64,
        /// Which of its objects.
        number: u32,
    },
}

impl Key {
    /// The path of the object.
    pub fn path(&self) -> Path {
        Path::from(self.to_string())
    }

    /// Reads a path; `None` if no key is spelled like this.
    pub fn parse(path: &Path) -> Option<Self> {
        let text = path.as_ref();
        let words: Vec<&str> = text.strip_prefix(ROOT)?.strip_prefix('/')?.split('/').collect();
        let key = Self::read(&words)?;
        // One spelling each: what would be written otherwise is not ours.
        (key.to_string() == text).then_some(key)
    }

    fn read(words: &[&str]) -> Option<Self> {
        Some(match *words {
            ["layout"] => Self::Layout,
            ["secret"] => Self::Secret,
            ["log", "catalogue", number] => Self::LogEntry(LogId::Catalogue, decimal(number)?),
            ["log", "accounts", number] => Self::LogEntry(LogId::Accounts, decimal(number)?),
            ["log", "audit", number] => Self::LogEntry(LogId::Audit, decimal(number)?),
            ["log", "repo", id, number] => {
                Self::LogEntry(LogId::Repo(id.parse().ok()?), decimal(number)?)
            }
            ["gc", name] => match name.strip_suffix(".done") {
                Some(epoch) => Self::GcDone(decimal(epoch)?),
                None => Self::Gc(decimal(name)?),
            },
            ["pin", owner, name] => Self::Pin(read_pin(owner, name)?),
            ["part", upload, name] => {
                let (number, nonce) = name.split_once('-')?;
                Self::Part {
                    upload: upload.parse().ok()?,
                    number: decimal(number)?,
                    nonce: hexadecimal(nonce)?,
                }
            }
            ["tally", day, nonce] => Self::Tally { day: decimal(day)?, nonce: hexadecimal(nonce)? },
            ["receipt", creator, name] => {
                let (sequence, nonce) = name.split_once('-')?;
                let (sequence, nonce) = (decimal(sequence)?, hexadecimal(nonce)?);
                Self::Receipt { creator: read_creator(creator)?, sequence, nonce }
            }
            ["mirror", job, number] => {
                Self::MirrorJob { job: job.parse().ok()?, number: decimal(number)? }
            }
            ["probe", nonce, number] => {
                Self::Probe { nonce: hexadecimal(nonce)?, number: decimal(number)? }
            }
            ["damaged", kind, hash, name] => Self::Damaged(read_copy(kind, hash, name)?),
            ["scrub", share, name] => Self::Scrubbed(read_scrub(share, name)?),
            [kind, _fan, hash, name] => Self::Copy(read_copy(kind, hash, name)?),
            _ => return None,
        })
    }

    /// May it ever be deleted? A log is never cut, and what a layout, a secret or a list says
    /// stays said (Invariants 2 and 3).
    pub(crate) fn is_sweepable(&self) -> bool {
        match self {
            Self::Copy(_)
            | Self::Damaged(_)
            | Self::Scrubbed(_)
            | Self::Pin(_)
            | Self::Part { .. }
            | Self::Tally { .. }
            | Self::MirrorJob { .. }
            | Self::Probe { .. } => true,
            Self::LogEntry(..)
            | Self::Gc(_)
            | Self::GcDone(_)
            | Self::Receipt { .. }
            | Self::Secret
            | Self::Layout => false,
        }
    }
}

impl From<CopyName> for Key {
    fn from(name: CopyName) -> Self {
        Self::Copy(name)
    }
}

impl From<PinName> for Key {
    fn from(name: PinName) -> Self {
        Self::Pin(name)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Copy(name) => fmt::Display::fmt(name, out),
            Self::Damaged(CopyName { kind, hash, epoch, nonce }) => {
                let (word, hash) = (kind.word(), kind.spell(*hash));
                write!(out, "{ROOT}/damaged/{word}/{hash}/{epoch:016x}-{nonce:016x}")
            }
            Self::Scrubbed(ScrubName { share, ended_ms, objects, bytes, nonce }) => {
                write!(out, "{ROOT}/scrub/{share}/{ended_ms:016x}-{objects:016x}-")?;
                write!(out, "{bytes:016x}-{nonce:016x}")
            }
            Self::LogEntry(log, number) => write!(out, "{ROOT}/{log}/{number:020}"),
            Self::Gc(epoch) => write!(out, "{ROOT}/gc/{epoch:020}"),
            Self::GcDone(epoch) => write!(out, "{ROOT}/gc/{epoch:020}.done"),
            Self::Pin(PinName { owner, leased, until_ms, nonce }) => {
                write!(out, "{ROOT}/pin/{owner}/{leased}-{until_ms:016x}-{nonce:016x}")
            }
            Self::Part { upload, number, nonce } => {
                write!(out, "{ROOT}/part/{upload}/{number:05}-{nonce:016x}")
            }
            Self::Tally { day, nonce } => write!(out, "{ROOT}/tally/{day:010}/{nonce:016x}"),
            Self::Receipt { creator, sequence, nonce } => {
                let creator = ShardHash::from_bytes(*creator);
                write!(out, "{ROOT}/receipt/{creator}/{sequence:020}-{nonce:016x}")
            }
            Self::MirrorJob { job, number } => write!(out, "{ROOT}/mirror/{job}/{number:020}"),
            Self::Secret => write!(out, "{ROOT}/secret"),
            Self::Layout => write!(out, "{ROOT}/layout"),
            Self::Probe { nonce, number } => write!(out, "{ROOT}/probe/{nonce:016x}/{number}"),
        }
    }
}

/// A set of keys that can be listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Prefix {
    /// Everything.
    All,
    /// All copies of all objects of a kind.
    Copies(CopyKind),
    /// One of 256 equal shares of the above, by the first byte of the hash's text.
    CopiesShare(CopyKind, u8),
    /// All copies of one hash.
    CopiesOf(CopyKind, [u8; 32]),
    /// The entries of all logs.
    Logs,
    /// The entries of the logs of all repos.
    RepoLogs,
    /// The entries of one log.
    Log(LogId),
    /// All epochs and the signs that they are over.
    Gc,
    /// All pins.
    Pins,
    /// The pins of one user.
    PinsOf(UserId),
    /// All notes of damage.
    Damaged,
    /// All notes of what was read again.
    Scrubbed,
    /// The same of one share.
    ScrubbedOf(ScrubShare),
    /// All parts of all uploads.
    AllParts,
    /// The parts of one upload.
    Parts(UploadId),
    /// All tallies.
    Tallies,
    /// The tallies of one day.
    TalliesOf(u32),
    /// All receipts.
    Receipts,
    /// The receipts of one creator's bundles.
    ReceiptsOf([u8; 32]),
    /// All versions of all mirror jobs.
    MirrorJobs,
    /// What probes wrote.
    Probes,
    /// What one probe wrote.
    ProbesOf(u64),
}

impl Prefix {
    /// The path above all keys of the set.
    pub fn path(&self) -> Path {
        Path::from(self.to_string())
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => write!(out, "{ROOT}"),
            Self::Copies(kind) => write!(out, "{ROOT}/{}", kind.word()),
            Self::CopiesShare(kind, share) => write!(out, "{ROOT}/{}/{share:02x}", kind.word()),
            Self::CopiesOf(kind, hash) => write!(out, "{ROOT}/{}", copies_of(*kind, *hash)),
            Self::Logs => write!(out, "{ROOT}/log"),
            Self::RepoLogs => write!(out, "{ROOT}/log/repo"),
            Self::Log(log) => write!(out, "{ROOT}/{log}"),
            Self::Gc => write!(out, "{ROOT}/gc"),
            Self::Pins => write!(out, "{ROOT}/pin"),
            Self::PinsOf(owner) => write!(out, "{ROOT}/pin/{owner}"),
            Self::Damaged => write!(out, "{ROOT}/damaged"),
            Self::Scrubbed => write!(out, "{ROOT}/scrub"),
            Self::ScrubbedOf(share) => write!(out, "{ROOT}/scrub/{share}"),
            Self::AllParts => write!(out, "{ROOT}/part"),
            Self::Parts(upload) => write!(out, "{ROOT}/part/{upload}"),
            Self::Tallies => write!(out, "{ROOT}/tally"),
            Self::TalliesOf(day) => write!(out, "{ROOT}/tally/{day:010}"),
            Self::Receipts => write!(out, "{ROOT}/receipt"),
            Self::ReceiptsOf(creator) => {
                write!(out, "{ROOT}/receipt/{}", ShardHash::from_bytes(*creator))
            }
            Self::MirrorJobs => write!(out, "{ROOT}/mirror"),
            Self::Probes => write!(out, "{ROOT}/probe"),
            Self::ProbesOf(nonce) => write!(out, "{ROOT}/probe/{nonce:016x}"),
        }
    }
}

/// Where the copies of a hash are. The two digits in front keep folders of a disk small, and let
/// a store be listed in 256 shares at once.
fn copies_of(kind: CopyKind, hash: [u8; 32]) -> String {
    let text = kind.spell(hash);
    format!("{}/{}/{text}", kind.word(), &text[..2])
}

fn read_pin(owner: &str, name: &str) -> Option<PinName> {
    let mut words = name.split('-');
    let pin = PinName {
        owner: owner.parse().ok()?,
        leased: Leased::read(words.next()?, words.next()?)?,
        until_ms: hexadecimal(words.next()?)?,
        nonce: hexadecimal(words.next()?)?,
    };
    words.next().is_none().then_some(pin)
}

fn read_copy(kind: &str, hash: &str, name: &str) -> Option<CopyName> {
    let kind = CopyKind::from_word(kind)?;
    let (epoch, nonce) = name.split_once('-')?;
    let (hash, epoch, nonce) = (kind.read(hash)?, hexadecimal(epoch)?, hexadecimal(nonce)?);
    Some(CopyName { kind, hash, epoch, nonce })
}

fn read_scrub(share: &str, name: &str) -> Option<ScrubName> {
    let mut words = name.split('-');
    let mut next = || hexadecimal(words.next()?);
    let name = ScrubName {
        share: ScrubShare::read(share)?,
        ended_ms: next()?,
        objects: next()?,
        bytes: next()?,
        nonce: next()?,
    };
    words.next().is_none().then_some(name)
}

/// Plain digits, as a shard's hash has them.
fn read_creator(text: &str) -> Option<[u8; 32]> {
    text.parse().ok().map(|hash: ShardHash| *hash.as_bytes())
}

fn decimal<N: FromStr>(text: &str) -> Option<N> {
    text.parse().ok()
}

fn hexadecimal(text: &str) -> Option<u64> {
    u64::from_str_radix(text, 16).ok()
}

#[cfg(test)]
mod tests;
