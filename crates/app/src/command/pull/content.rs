//! What a file's bytes must be: of a small file git's id is known, of a large one its SHA-256.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use ballast_format::hash::{ObjectHash, Sha256};
use ballast_format::object::BlobHasher;
use sha2::Digest as _;

/// What a file's bytes must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// A blob of git's.
    Small(ObjectHash),
    /// What a pointer names.
    Large(Sha256),
}

impl Content {
    /// As a listing has it.
    pub(super) fn parse(oid: &str, large: Option<&str>) -> Result<Self> {
        let none = || format!("the hub says `{}` where a hash should be", large.unwrap_or(oid));
        match large {
            Some(sha256) => sha256.parse().map(Self::Large).with_context(none),
            None => oid.parse().map(Self::Small).with_context(none),
        }
    }

    /// What the clients' cache calls it.
    pub(super) fn etag(self) -> String {
        match self {
            Self::Small(oid) => oid.to_string(),
            Self::Large(sha256) => sha256.to_string(),
        }
    }

    /// Whether a file that is there is this, or the very file that a node has verified.
    pub(super) fn is_at(self, place: &Path, size: u64, cached: Option<&Path>) -> bool {
        let Ok(about) = place.metadata() else { return false };
        if !about.is_file() || about.len() != size {
            return false;
        }
        let one = |place: &Path| place.metadata().ok().map(|about| (about.dev(), about.ino()));
        if cached.and_then(one) == Some((about.dev(), about.ino())) {
            return true;
        }
        let mut summed = Hashing::new(io::sink(), self, size);
        let read = File::open(place).and_then(|mut file| io::copy(&mut file, &mut summed));
        read.is_ok() && summed.finish()
    }
}

/// Passes bytes on, and sees whether they are what they must be.
pub(super) struct Hashing<W> {
    into: W,
    content: Content,
    sum: Sum,
    /// Bytes that are still to come; nothing: too many came.
    left: Option<u64>,
}

enum Sum {
    Blob(BlobHasher),
    Sha256(sha2::Sha256),
}

impl<W> Hashing<W> {
    pub(super) fn new(into: W, content: Content, size: u64) -> Self {
        let sum = match content {
            Content::Small(_) => Sum::Blob(BlobHasher::new(size)),
            Content::Large(_) => Sum::Sha256(sha2::Sha256::new()),
        };
        Self { into, content, sum, left: Some(size) }
    }

    /// Whether all came, and nothing else.
    pub(super) fn finish(self) -> bool {
        let is_this = match (self.sum, self.content) {
            (Sum::Blob(sum), Content::Small(oid)) => sum.finish().is_ok_and(|sum| sum == oid),
            (Sum::Sha256(sum), Content::Large(sha256)) => {
                Sha256::from_bytes(sum.finalize().into()) == sha256
            }
            _ => false,
        };
        is_this && self.left == Some(0)
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.into.write(bytes)?;
        let bytes = &bytes[..written];
        match &mut self.sum {
            Sum::Blob(sum) => sum.update(bytes),
            Sum::Sha256(sum) => sum.update(bytes),
        }
        self.left = self.left.and_then(|left| left.checked_sub(written as u64));
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.into.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of `hello\n`, as git and `sha256sum` have it.
    const OID: &str = "ce013625030ba8dba906f756967f9e9ca394464a";
    const SHA256: &str = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";

    fn is(content: Content, bytes: &[u8]) -> bool {
        let mut summed = Hashing::new(io::sink(), content, 6);
        summed.write_all(bytes).expect("nowhere is large enough");
        summed.finish()
    }

    #[test]
    fn only_the_same_bytes_are_right() -> Result<()> {
        for content in [Content::parse(OID, None)?, Content::parse(OID, Some(SHA256))?] {
            assert!(is(content, b"hello\n"), "{content:?}");
            for wrong in ["hello!", "hello", "hello\n\n", ""] {
                assert!(!is(content, wrong.as_bytes()), "{content:?} {wrong:?}");
            }
        }
        assert_eq!(Content::parse(OID, None)?.etag(), OID);
        assert_eq!(Content::parse(OID, Some(SHA256))?.etag(), SHA256);
        assert!(Content::parse(SHA256, None).is_err() && Content::parse(OID, Some(OID)).is_err());
        Ok(())
    }
}
