//! From what a client names to a commit.

use std::collections::BTreeMap;

use ballast_format::hash::ObjectHash;
use ballast_format::name::RefName;

use crate::access::Repo;
use crate::error::{Error, Result};
use crate::hub::{Freshness, Hub};
use crate::state::repo::RepoState;

/// The most segments of a path that are tried as one revision.
const MAX_SEGMENTS: usize = 8;
/// The segments of `refs/pr/1`.
const REF_SEGMENTS: usize = 3;

/// What a revision means now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// The commit.
    pub commit: ObjectHash,
    /// The ref by which it was named, if it was one.
    pub reference: Option<RefName>,
}

impl Hub {
    /// The commit that a branch, a tag, a full ref or a commit of this repo names.
    pub async fn resolve(&self, repo: &Repo, revision: &str) -> Result<Resolved> {
        if repo.is_mirror() {
            return self.resolve_mirror(repo, revision).await;
        }
        if repo.is_away() {
            return self.resolve_away(repo, revision).await;
        }
        self.resolve_here(repo, revision).await
    }

    /// The same from what is here.
    pub(crate) async fn resolve_here(&self, repo: &Repo, revision: &str) -> Result<Resolved> {
        let state = self.repo_state(repo).await?;
        let found = self.resolve_in(repo, &state, revision).await;
        match found {
            // That something is not there is never answered from what may be old.
            Err(Error::RevisionNotFound { .. })
                if self.settings().freshness != Freshness::Exclusive =>
            {
                let state = self.newest_state(repo.id()).await?;
                self.resolve_in(repo, &state, revision).await
            }
            other => other,
        }
    }

    async fn resolve_in(&self, repo: &Repo, state: &RepoState, revision: &str) -> Result<Resolved> {
        if let Some(found) = by_ref(&state.refs, revision) {
            return Ok(found);
        }
        let unknown = || Error::RevisionNotFound { revision: shorten(revision) };
        let commit: ObjectHash = revision.parse().map_err(|_| unknown())?;
        let found = Resolved { commit, reference: None };
        // Clients that know the commit ask for each file by it: what is in memory is known to be
        // this repo's.
        if self.caches.commits.get(&(repo.id(), commit)).is_some() {
            return Ok(found);
        }
        match self.object_row(repo.id(), &commit).await? {
            Some(row) if row.kind.is_commit() => Ok(found),
            _ => Err(unknown()),
        }
    }

    /// The longest revision that these segments begin with, how many it takes, and its text: some
    /// clients do not encode the slashes of a branch.
    pub async fn resolve_longest(
        &self,
        repo: &Repo,
        segments: &[String],
    ) -> Result<(Resolved, usize, String)> {
        let first = segments.first().map(String::as_str).unwrap_or_default();
        let state = self.repo_state(repo).await?;
        // Refs of a mirror that nobody asked for so far are not here, but known by their form.
        if let (true, ["refs", ..], Some(named)) =
            (repo.is_mirror(), [first].as_slice(), segments.get(..REF_SEGMENTS))
        {
            let revision = named.join("/");
            return Ok((self.resolve(repo, &revision).await?, REF_SEGMENTS, revision));
        }
        for used in (2..=segments.len().min(MAX_SEGMENTS)).rev() {
            let revision = segments[..used].join("/");
            if let Some(found) = by_ref(&state.refs, &revision) {
                let found = match repo.is_mirror() {
                    true => self.resolve(repo, &revision).await?,
                    false => found,
                };
                return Ok((found, used, revision));
            }
        }
        Ok((self.resolve(repo, first).await?, 1, first.to_owned()))
    }
}

/// A ref by its full or short name; a branch wins over a tag.
pub(crate) fn by_ref(refs: &BTreeMap<RefName, ObjectHash>, revision: &str) -> Option<Resolved> {
    // Git's name for what a clone shows first.
    let revision = if revision == "HEAD" { "main" } else { revision };
    let full = [RefName::parse(revision), RefName::branch(revision), RefName::tag(revision)];
    full.into_iter().flatten().find_map(|name| {
        let commit = *refs.get(&name)?;
        Some(Resolved { commit, reference: Some(name) })
    })
}

/// What a client sent, as far as an error should repeat it.
fn shorten(text: &str) -> String {
    text.chars().take(100).collect()
}
