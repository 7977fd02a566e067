//! What clients asked for and were told, and what must be so because of it.

use std::collections::{BTreeMap, BTreeSet};

use ballast_format::hash::{ObjectHash, Sha256};
use ballast_format::id::RepoId;
use ballast_format::name::RefName;
use ballast_testkit::content::splitmix;

use crate::access::Repo;
use crate::rig::sha256;
use crate::upload::commit::Committed;

/// Bytes of a piece of a large file: a few chunks.
const PIECE_BYTES: usize = 160_000;

/// What is in a file: pieces that other files may share.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Content {
    /// A few bytes, different for each number.
    Small(u64),
    /// Pieces, by number.
    Large(Vec<u64>),
}

impl Content {
    pub(super) fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Small(number) => splitmix(1_000_000 + number, 40),
            Self::Large(pieces) => {
                pieces.iter().flat_map(|piece| splitmix(*piece, PIECE_BYTES)).collect()
            }
        }
    }

    pub(super) fn is_large(&self) -> bool {
        matches!(self, Self::Large(_))
    }

    pub(super) fn sha256(&self) -> Sha256 {
        sha256(&self.bytes())
    }
}

/// The files of a commit, `.gitattributes` aside.
pub(super) type Files = BTreeMap<String, Content>;

/// A commit that a client wants, by its number.
#[derive(Clone, Debug)]
pub(super) struct Wish {
    pub(super) repo: RepoId,
    /// What is put at paths, and what is deleted.
    pub(super) changes: BTreeMap<String, Option<Content>>,
    /// What the client was told in the end.
    pub(super) told: Told,
    /// Whether nobody can know what became of some try.
    pub(super) is_unclear: bool,
    /// Whether it was asked for more than once, on whatever the branch held: what was done and
    /// overwritten since is done again then.
    pub(super) may_repeat: bool,
}

/// What a client was told about a wish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// Nothing that is certain.
    Nothing,
    /// It is done.
    Done(Committed),
    /// It is not done, and will not be.
    Refused,
}

/// What is known about a repo.
#[derive(Clone, Debug)]
pub(super) struct RepoNote {
    /// Its branches besides `main` that nobody has tried to delete.
    pub(super) branches: BTreeSet<RefName>,
    /// Somebody tried to delete it.
    pub(super) is_doomed: bool,
    /// It was deleted, and somebody was told so.
    pub(super) is_gone: bool,
}

/// The book of one run.
#[derive(Debug, Default)]
pub(super) struct Book {
    pub(super) wishes: Vec<Wish>,
    pub(super) repos: BTreeMap<RepoId, RepoNote>,
    /// Commits that must be there as long as their repo is.
    pub(super) acknowledged: Vec<(RepoId, ObjectHash)>,
    /// What commits must hold, as far as it was worked out.
    pub(super) files: BTreeMap<(RepoId, ObjectHash), Files>,
    /// Large files that are in repos.
    pub(super) large: Vec<Content>,
    /// How often somebody tried to delete a repo, and how often it is known that it was done.
    pub(super) deletions: usize,
    pub(super) deleted: usize,
    /// How often anything was read and compared.
    pub(super) reads: usize,
}

impl Book {
    /// A repo was made, and its client was told so.
    pub(super) fn know(&mut self, repo: &Repo) {
        let note = RepoNote { branches: BTreeSet::new(), is_doomed: false, is_gone: false };
        self.repos.entry(repo.id()).or_insert(note);
    }

    /// Somebody tries to delete a repo.
    pub(super) fn doom(&mut self, repo: RepoId) {
        self.deletions += 1;
        self.repos.entry(repo).and_modify(|note| note.is_doomed = true);
    }

    /// A new wish; its number.
    pub(super) fn wish(
        &mut self,
        repo: RepoId,
        changes: BTreeMap<String, Option<Content>>,
    ) -> usize {
        let told = Told::Nothing;
        let wish = Wish { repo, changes, told, is_unclear: false, may_repeat: false };
        self.wishes.push(wish);
        self.wishes.len() - 1
    }

    /// A client was told that a wish is done.
    pub(super) fn done(&mut self, number: usize, committed: Committed) {
        let wish = &mut self.wishes[number];
        wish.told = Told::Done(committed);
        let large = wish.changes.values().flatten().filter(|content| content.is_large());
        self.large.extend(large.cloned());
        self.acknowledged.push((wish.repo, committed.commit));
    }

    /// Repos that nobody has tried to delete.
    pub(super) fn living(&self) -> Vec<RepoId> {
        let living = self.repos.iter().filter(|(_, note)| !note.is_doomed);
        living.map(|(id, _)| *id).collect()
    }

    pub(super) fn is_doomed(&self, repo: RepoId) -> bool {
        self.repos.get(&repo).is_some_and(|note| note.is_doomed)
    }

    /// What a commit must hold: its parent's files, with the changes of the wish that it says it
    /// fulfils.
    pub(super) fn expected(&self, message: &str, before: Files) -> Option<Files> {
        let number: usize = message.strip_prefix("wish ")?.trim().parse().ok()?;
        let mut files = before;
        for (path, content) in &self.wishes.get(number)?.changes {
            match content {
                Some(content) => drop(files.insert(path.clone(), content.clone())),
                None => drop(files.remove(path)),
            }
        }
        Some(files)
    }
}
