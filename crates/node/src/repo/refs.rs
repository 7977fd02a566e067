//! Branches and tags.

use ballast_format::hash::ObjectHash;
use ballast_format::log::RepoChange;
use ballast_format::name::RefName;

use crate::access::{Access, Caller, Repo};
use crate::error::{Error, Result};
use crate::hub::Hub;
use crate::state::repo::NewPack;

/// Refs that one repo may have.
pub(crate) const MAX_REFS: usize = 50_000;

/// A ref and where it points.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefView {
    /// Which.
    pub name: RefName,
    /// The commit.
    pub commit: ObjectHash,
}

/// A repo's refs by what they are, each in order of their names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refs {
    /// Branches.
    pub branches: Vec<RefView>,
    /// Tags.
    pub tags: Vec<RefView>,
    /// Conversions.
    pub conversions: Vec<RefView>,
    /// Pull requests.
    pub pulls: Vec<RefView>,
}

impl Hub {
    /// Every ref of a repo.
    pub async fn refs(&self, repo: &Repo) -> Result<Refs> {
        if repo.is_mirror() {
            // Those that somebody asked for, and `main`.
            self.main_of(repo).await?;
        }
        let state = self.repo_state(repo).await?;
        let mut refs = Refs::default();
        for (name, commit) in &state.refs {
            let list = if name.is_branch() {
                &mut refs.branches
            } else if name.is_tag() {
                &mut refs.tags
            } else if name.pull_number().is_some() {
                &mut refs.pulls
            } else {
                &mut refs.conversions
            };
            list.push(RefView { name: name.clone(), commit: *commit });
        }
        refs.pulls.sort_by_key(|view| view.name.pull_number());
        Ok(refs)
    }

    /// Makes a branch or a tag at a commit; one that exists is moved only if `overwrite` says so.
    pub async fn create_ref(
        &self,
        caller: &Caller,
        repo: &Repo,
        name: &RefName,
        commit: ObjectHash,
        overwrite: bool,
    ) -> Result<()> {
        self.set_ref(caller, repo, name, commit, overwrite, &[]).await
    }

    /// Makes a branch at a commit that has no files and no parent.
    pub async fn create_empty_ref(
        &self,
        caller: &Caller,
        repo: &Repo,
        name: &RefName,
        overwrite: bool,
    ) -> Result<()> {
        self.repo_by_id(caller, repo.id(), Access::Write)?;
        repo.is_ours_to_change()?;
        let state = self.repo_state(repo).await?;
        if state.refs.contains_key(name) && !overwrite {
            return Err(exists(name));
        }
        let (commit, pack) = self.strong()?.write_empty_commit(caller, repo).await?;
        self.set_ref(caller, repo, name, commit, overwrite, &[pack]).await
    }

    async fn set_ref(
        &self,
        caller: &Caller,
        repo: &Repo,
        name: &RefName,
        commit: ObjectHash,
        overwrite: bool,
        packs: &[NewPack],
    ) -> Result<()> {
        self.repo_by_id(caller, repo.id(), Access::Write)?;
        repo.is_ours_to_change()?;
        check_name(name)?;
        self.append_repo(repo, caller.user_id(), packs, |state| {
            self.confirm_by_id(caller, repo.id(), Access::Write)?;
            let old = state.refs.get(name).copied();
            if old.is_some() && !overwrite {
                return Err(exists(name));
            }
            if old.is_none() && state.refs.len() >= MAX_REFS {
                return Err(Error::invalid(format!("a repo has at most {MAX_REFS} refs")));
            }
            if old == Some(commit) {
                return Ok(Vec::new());
            }
            Ok(vec![RepoChange::RefSet { name: name.clone(), old, new: commit }])
        })
        .await?;
        if *name == RefName::main() {
            self.strong()?.main_moved(repo).await;
        }
        Ok(())
    }

    /// Deletes a branch or a tag; `main` stays.
    pub async fn delete_ref(&self, caller: &Caller, repo: &Repo, name: &RefName) -> Result<()> {
        self.repo_by_id(caller, repo.id(), Access::Write)?;
        repo.is_ours_to_change()?;
        if *name == RefName::main() {
            return Err(Error::denied("the branch `main` can't be deleted"));
        }
        check_name(name)?;
        self.append_repo(repo, caller.user_id(), &[], |state| {
            self.confirm_by_id(caller, repo.id(), Access::Write)?;
            let revision = || Error::RevisionNotFound { revision: name.short().to_owned() };
            let old = state.refs.get(name).copied().ok_or_else(revision)?;
            Ok(vec![RepoChange::RefDeleted { name: name.clone(), old }])
        })
        .await?;
        Ok(())
    }
}

fn exists(name: &RefName) -> Error {
    Error::Exists { what: format!("`{}`", name.short()) }
}

/// Refs of pull requests belong to these.
fn check_name(name: &RefName) -> Result<()> {
    if name.is_branch() || name.is_tag() {
        return Ok(());
    }
    Err(Error::invalid(format!("`{name}` is no branch and no tag")))
}
