//! Claims that we hand out and get back: signed, expiring, in a form of our own.
//!
//! A sealed text is base64url(key id ++ claims ++ MAC). The MAC is BLAKE3 under a key that is
//! derived from the hub's secret, for one purpose and one day: a text sealed for one purpose opens
//! for no other, there is one algorithm and the text does not choose it, and keys change daily
//! with the one before still taken. What claims mean, and whether they have expired, is for those
//! who open them.

use std::borrow::Cow;

use ballast_format::codec::{Decoder, Encoder};
use ballast_format::hash::{ObjectHash, Sha256};
use ballast_format::id::{RepoId, TokenId, UploadId, UserId};
use ballast_node::access::Caller;
use ballast_node::hub::Secrets;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

const SECONDS_PER_DAY: u64 = 24 * 60 * 60;
const MAC_LENGTH: usize = 32;
/// Longer texts are not ours.
const LONGEST: usize = 2048;

/// Paths below which a sealed text stands that opens something to whoever holds it.
const SECRET_BELOW: [&str; 3] = ["/xet/v1/fetch/", "/xet/v2/fetch/", "/api/ballast/lfs/"];

/// A path as a log may show it: without what opens anything.
pub(crate) fn shown(path: &str) -> Cow<'_, str> {
    match SECRET_BELOW.iter().find(|below| path.starts_with(**below)) {
        Some(below) => Cow::Owned(format!("{below}***")),
        None => Cow::Borrowed(path),
    }
}

/// What a sealed text is good for; each has a key of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// A token for the Xet routes.
    Xet,
    /// The address of a range of a stored xorb.
    Fetch,
    /// The address of an LFS object or a part of one.
    Lfs,
}

/// Seals and opens claims.
pub(crate) struct Signer {
    xet: [u8; 32],
    fetch: [u8; 32],
    lfs: [u8; 32],
}

impl Signer {
    pub(crate) fn new(secrets: &Secrets) -> Self {
        Self::with_keys(|purpose| secrets.key(purpose))
    }

    fn with_keys(key: impl Fn(&str) -> [u8; 32]) -> Self {
        Self {
            xet: key("gateway: xet token"),
            fetch: key("gateway: fetch link"),
            lfs: key("gateway: lfs link"),
        }
    }

    /// A text that carries `claims` and proves that we wrote them.
    pub(crate) fn seal(&self, purpose: Purpose, now_seconds: u64, claims: &[u8]) -> String {
        let key_id = key_id(now_seconds);
        let mut sealed = Vec::with_capacity(4 + claims.len() + MAC_LENGTH);
        sealed.extend_from_slice(&key_id.to_be_bytes());
        sealed.extend_from_slice(claims);
        let mac = blake3::keyed_hash(&self.key(purpose, key_id), &sealed);
        sealed.extend_from_slice(mac.as_bytes());
        URL_SAFE_NO_PAD.encode(sealed)
    }

    /// The claims in `text`, if we wrote it for this purpose, today or yesterday. (Or tomorrow, by
    /// the clock of another node.)
    pub(crate) fn open(&self, purpose: Purpose, now_seconds: u64, text: &str) -> Option<Vec<u8>> {
        if text.len() > LONGEST {
            return None;
        }
        let mut sealed = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (signed, mac) = sealed.split_at_checked(sealed.len().checked_sub(MAC_LENGTH)?)?;
        let key_id = u32::from_be_bytes(*signed.first_chunk()?);
        if key_id.abs_diff(self::key_id(now_seconds)) > 1 {
            return None;
        }
        let expected = blake3::keyed_hash(&self.key(purpose, key_id), signed);
        let mac = blake3::Hash::from_bytes(mac.try_into().ok()?);
        // `blake3::Hash` compares in constant time.
        if expected != mac {
            return None;
        }
        sealed.truncate(sealed.len() - MAC_LENGTH);
        Some(sealed.split_off(4))
    }

    fn key(&self, purpose: Purpose, key_id: u32) -> [u8; 32] {
        let base = match purpose {
            Purpose::Xet => &self.xet,
            Purpose::Fetch => &self.fetch,
            Purpose::Lfs => &self.lfs,
        };
        *blake3::keyed_hash(base, &key_id.to_be_bytes()).as_bytes()
    }
}

fn key_id(now_seconds: u64) -> u32 {
    u32::try_from(now_seconds / SECONDS_PER_DAY).unwrap_or(u32::MAX)
}

/// In whose name claims were made: the user and the token, or nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Holder(pub(crate) Option<(UserId, TokenId)>);

impl Holder {
    pub(crate) fn of(caller: &Caller) -> Self {
        match caller {
            Caller::Anonymous => Self(None),
            Caller::User(user) => Self(Some((user.user, user.token))),
        }
    }

    fn encode(self, out: &mut Encoder) {
        match self.0 {
            None => out.u8(0),
            Some((user, token)) => {
                out.u8(1);
                out.array(user.as_bytes());
                out.array(token.as_bytes());
            }
        }
    }

    fn decode(from: &mut Decoder<'_>) -> ballast_format::Result<Self> {
        Ok(Self(match from.u8()? {
            0 => None,
            _ => Some((UserId::from_bytes(from.array()?), TokenId::from_bytes(from.array()?))),
        }))
    }
}

/// What an LFS address allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LfsAct {
    /// Sending the whole object.
    Put,
    /// Sending one part of it, of exactly `length` bytes.
    Part {
        /// The upload it belongs to.
        upload: UploadId,
        /// Which part, from 1.
        number: u32,
        /// Its bytes.
        length: u64,
    },
    /// Joining the parts.
    Complete {
        /// The upload they belong to.
        upload: UploadId,
    },
    /// Asking whether it has arrived.
    Verify,
    /// Reading it.
    Get,
}

/// An LFS address: who may do what with which object of which repo, until when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LfsLink {
    pub(crate) act: LfsAct,
    pub(crate) repo: RepoId,
    pub(crate) holder: Holder,
    /// Whether it is for a pull request by someone who may only read the repo.
    pub(crate) proposes: bool,
    pub(crate) sha256: Sha256,
    pub(crate) size: u64,
    pub(crate) expires: u64,
}

impl LfsLink {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Encoder::new();
        match self.act {
            LfsAct::Put => out.u8(1),
            LfsAct::Part { upload, number, length } => {
                out.u8(2);
                out.array(upload.as_bytes());
                out.u32(number);
                out.u64(length);
            }
            LfsAct::Complete { upload } => {
                out.u8(3);
                out.array(upload.as_bytes());
            }
            LfsAct::Verify => out.u8(4),
            LfsAct::Get => out.u8(5),
        }
        out.array(self.repo.as_bytes());
        self.holder.encode(&mut out);
        out.bool(self.proposes);
        out.array(self.sha256.as_bytes());
        out.u64(self.size);
        out.u64(self.expires);
        out.finish()
    }

    pub(crate) fn decode(bytes: &[u8]) -> ballast_format::Result<Self> {
        let mut from = Decoder::new("lfs link", bytes);
        let act = match from.u8()? {
            1 => LfsAct::Put,
            2 => LfsAct::Part {
                upload: UploadId::from_bytes(from.array()?),
                number: from.u32()?,
                length: from.u64()?,
            },
            3 => LfsAct::Complete { upload: UploadId::from_bytes(from.array()?) },
            4 => LfsAct::Verify,
            5 => LfsAct::Get,
            _ => return Err(ballast_format::Error::malformed("lfs link", "unknown act")),
        };
        let link = Self {
            act,
            repo: RepoId::from_bytes(from.array()?),
            holder: Holder::decode(&mut from)?,
            proposes: from.bool()?,
            sha256: Sha256::from_bytes(from.array()?),
            size: from.u64()?,
            expires: from.u64()?,
        };
        from.finish()?;
        Ok(link)
    }
}

/// What a token for the Xet routes allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum XetScope {
    /// Reading files.
    Read,
    /// Reading and sending, for commits to the repo.
    Write,
    /// Reading and sending, for a pull request by someone who may only read the repo.
    Propose,
}

/// The content of a Xet token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct XetToken {
    pub(crate) scope: XetScope,
    pub(crate) repo: RepoId,
    pub(crate) holder: Holder,
    pub(crate) expires: u64,
    /// The commit whose files are asked for, if the client said it.
    pub(crate) commit: Option<ObjectHash>,
}

impl XetToken {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Encoder::new();
        out.u8(match self.scope {
            XetScope::Read => 1,
            XetScope::Write => 2,
            XetScope::Propose => 3,
        });
        out.array(self.repo.as_bytes());
        self.holder.encode(&mut out);
        out.u64(self.expires);
        if let Some(commit) = &self.commit {
            out.array(commit.as_bytes());
        }
        out.finish()
    }

    pub(crate) fn decode(bytes: &[u8]) -> ballast_format::Result<Self> {
        let mut from = Decoder::new("xet token", bytes);
        let scope = match from.u8()? {
            1 => XetScope::Read,
            2 => XetScope::Write,
            3 => XetScope::Propose,
            _ => return Err(ballast_format::Error::malformed("xet token", "unknown scope")),
        };
        let token = Self {
            scope,
            repo: RepoId::from_bytes(from.array()?),
            holder: Holder::decode(&mut from)?,
            expires: from.u64()?,
            commit: match from.remaining() {
                0 => None,
                _ => Some(ObjectHash::from_bytes(from.array()?)),
            },
        };
        from.finish()?;
        Ok(token)
    }
}

#[cfg(test)]
mod tests;
