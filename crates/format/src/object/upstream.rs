//! A commit of an upstream, as the upstream tells of it.
//!
//! A hub's API names commits by their git ids and never gives the commit object, so that no id can
//! be computed from what is known. What is known is kept under the id that the upstream claims, so
//! that a pinned commit means the same here as there. Layout: `docs/formats/upstream-commit.md`.

use super::{Commit, Signature};
use crate::codec::{Decoder, Format};
use crate::error::{Error, Result};
use crate::hash::ObjectHash;
use crate::limits::MAX_UPSTREAM_COMMIT_BYTES;

const FORMAT: Format = Format {
    what: "upstream commit",
    magic: *b"BLSTUPCM",
    version: 1,
    limit: MAX_UPSTREAM_COMMIT_BYTES,
    has_checksum: true,
};

/// What an upstream says of one of its commits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamCommit {
    /// The id that the upstream claims; nobody can check it.
    pub id: ObjectHash,
    /// The root folder: computed here, from verified contents.
    pub tree: ObjectHash,
    /// Who made it, in the upstream's order; nobody if it does not say.
    pub authors: Vec<String>,
    /// When, in unix seconds.
    pub time_seconds: i64,
    /// The first line of its message.
    pub title: String,
    /// The rest of its message.
    pub message: String,
    /// The address of the hub that it is from.
    pub upstream: String,
}

impl UpstreamCommit {
    /// The stored bytes.
    pub fn encode(&self) -> Result<Vec<u8>> {
        FORMAT.encode(|to| {
            to.array(self.id.as_bytes());
            to.array(self.tree.as_bytes());
            to.u64(self.time_seconds.cast_unsigned());
            to.list(&self.authors, |to, author| to.str(author));
            to.str(&self.title);
            to.str(&self.message);
            to.str(&self.upstream);
        })
    }

    /// Reads stored bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut from = FORMAT.decode(bytes)?;
        let text = |from: &mut Decoder<'_>| Ok::<_, Error>(from.str()?.to_owned());
        let commit = Self {
            id: ObjectHash::from_bytes(from.array()?),
            tree: ObjectHash::from_bytes(from.array()?),
            time_seconds: from.u64()?.cast_signed(),
            authors: from.list(4, text)?,
            title: text(&mut from)?,
            message: text(&mut from)?,
            upstream: text(&mut from)?,
        };
        from.finish()?;
        Ok(commit)
    }

    /// The same as a commit of git. What came before it is not known.
    pub fn to_commit(&self) -> Commit {
        let name = match self.authors.as_slice() {
            [] => "unknown".to_owned(),
            authors => authors.join(", "),
        };
        let author = Signature { name, email: String::new(), time_seconds: self.time_seconds };
        let message = match self.message.as_str() {
            "" => self.title.clone(),
            message => format!("{}\n\n{message}", self.title),
        };
        let committer = author.clone();
        Commit { tree: self.tree, parents: Vec::new(), author, committer, message }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::object::{ObjectKind, hash_object};

    /// The first one that was ever written; it must be readable for ever.
    const KEPT: &[u8] = include_bytes!("../../../../tests/fixtures/upstream-commit-v1.bin");

    fn commit() -> UpstreamCommit {
        UpstreamCommit {
            id: ObjectHash::from_bytes([1; 20]),
            tree: ObjectHash::from_bytes([2; 20]),
            authors: vec!["ada".to_owned(), "Ömer".to_owned()],
            time_seconds: 1_700_000_000,
            title: "Upload model".to_owned(),
            message: "In two\nlines".to_owned(),
            upstream: "https://hub.example".to_owned(),
        }
    }

    #[test]
    fn kept_bytes_are_written_and_read_today() {
        assert_eq!(commit().encode().expect("small"), KEPT);
        assert_eq!(UpstreamCommit::decode(KEPT).expect("kept"), commit());
    }

    #[test]
    fn its_id_is_what_it_claims_as_long_as_it_is_whole() {
        let hash = |bytes: &[u8]| hash_object(ObjectKind::UpstreamCommit, bytes);
        assert_eq!(hash(KEPT).expect("kept"), commit().id);
        for place in 0..KEPT.len() * 8 {
            let mut bytes = KEPT.to_vec();
            bytes[place / 8] ^= 1 << (place % 8);
            assert!(hash(&bytes).is_err(), "bit {place}");
        }
    }

    #[test]
    fn as_a_commit_it_has_title_message_and_all_authors() {
        let view = commit().to_commit();
        assert_eq!(view.message, "Upload model\n\nIn two\nlines");
        assert_eq!((view.author.name.as_str(), view.parents.len()), ("ada, Ömer", 0));
        let nobody = UpstreamCommit { authors: Vec::new(), message: String::new(), ..commit() };
        assert_eq!(nobody.to_commit().message, "Upload model");
        assert_eq!(nobody.to_commit().author.name, "unknown");
    }

    proptest! {
        #[test]
        fn round_trip(
            id: [u8; 20],
            tree: [u8; 20],
            time_seconds: i64,
            authors: Vec<String>,
            texts: [String; 3],
        ) {
            let [title, message, upstream] = texts;
            let (id, tree) = (ObjectHash::from_bytes(id), ObjectHash::from_bytes(tree));
            let commit =
                UpstreamCommit { id, tree, authors, time_seconds, title, message, upstream };
            let bytes = commit.encode().expect("small");
            prop_assert_eq!(UpstreamCommit::decode(&bytes).expect("own"), commit);
        }

        #[test]
        fn noise_never_panics(noise: Vec<u8>) {
            prop_assert!(UpstreamCommit::decode(&noise).is_err());
        }
    }
}
