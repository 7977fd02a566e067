//! The small text that stands in a tree for a large file, as git-lfs writes it.
//!
//! Specification: <https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md>.

use crate::hash::Sha256;

/// A blob over this size is no pointer; git-lfs says so too.
pub const MAX_POINTER_BYTES: usize = 1024;

const VERSION: &str = "version https://git-lfs.github.com/spec/v1";

/// Which large file a blob stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pointer {
    /// The file's SHA-256.
    pub sha256: Sha256,
    /// The file's size in bytes.
    pub size: u64,
}

impl Pointer {
    /// The pointer that this blob is, if it is one. Keys we do not know may stand in it.
    pub fn parse(blob: &[u8]) -> Option<Self> {
        if blob.len() > MAX_POINTER_BYTES {
            return None;
        }
        let mut lines = std::str::from_utf8(blob).ok()?.lines();
        if lines.next()? != VERSION {
            return None;
        }
        let (mut sha256, mut size) = (None, None);
        for line in lines {
            let is_again = match line.split_once(' ')? {
                ("oid", oid) => sha256.replace(hash(oid)?).is_some(),
                ("size", digits) => size.replace(number(digits)?).is_some(),
                _ => false,
            };
            if is_again {
                return None;
            }
        }
        Some(Self { sha256: sha256?, size: size? })
    }

    /// The blob.
    pub fn encode(&self) -> String {
        format!("{VERSION}\noid sha256:{}\nsize {}\n", self.sha256, self.size)
    }
}

fn hash(text: &str) -> Option<Sha256> {
    let digits = text.strip_prefix("sha256:")?;
    if digits.contains(|c: char| c.is_ascii_uppercase()) {
        return None;
    }
    digits.parse().ok()
}

fn number(text: &str) -> Option<u64> {
    if text.starts_with('+') { None } else { text.parse().ok() }
}
