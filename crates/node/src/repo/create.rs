//! How a repo begins, changes its name, and ends.
//!
//! A repo begins with two entries: one in the catalogue, and its own first, which brings the first
//! commit. A crash between the two leaves a repo without `main`; whoever creates it again, or first
//! commits to it, completes it.

use std::sync::Arc;

use ballast_format::id::RepoId;
use ballast_format::log::{CatalogueChange, Visibility};
use ballast_format::name::{RepoKind, RepoName};
use ballast_store::env::random_bytes;
use ballast_store::index::Batch;

use crate::access::{Access, Caller, Repo};
use crate::error::{Error, Result};
use crate::hub::Hub;
use crate::state::catalogue::CatalogueState;

/// What runs a space.
const SDKS: &[&str] = &["docker", "gradio", "static", "streamlit"];

/// A repo to create.
#[derive(Clone, Debug)]
pub struct NewRepo {
    /// What it holds.
    pub kind: RepoKind,
    /// Its name.
    pub name: RepoName,
    /// Who may see it; where the client does not say, its owner's default holds.
    pub visibility: Option<Visibility>,
    /// For a space: what runs it.
    pub sdk: Option<String>,
}

impl Hub {
    /// Creates a repo with its first commit.
    pub async fn create_repo(self: &Arc<Self>, caller: &Caller, new: &NewRepo) -> Result<Repo> {
        self.admit(caller)?;
        let by = caller.user()?.user;
        self.catalogue.refresh(self).await?;
        self.accounts.refresh(self).await?;
        self.may_create_in(caller, new.name.namespace())?;
        if !self.namespace_exists(&new.name) {
            let namespace = new.name.namespace();
            return Err(Error::denied(format!("you may not create repos in `{namespace}`")));
        }
        match (new.kind, new.sdk.as_deref()) {
            (RepoKind::Space, None) => return Err(Error::invalid("a space needs an `sdk`")),
            (RepoKind::Space, Some(sdk)) if !SDKS.contains(&sdk) => {
                let known = SDKS.join(", ");
                return Err(Error::invalid(format!("`{sdk}` is none of the SDKs {known}")));
            }
            _ => {}
        }
        let visibility =
            new.visibility.unwrap_or_else(|| self.default_visibility(new.name.namespace()));
        let id = RepoId::from_bytes(random_bytes(self.env().as_ref()));
        let sdk = new.sdk.clone().filter(|_| new.kind == RepoKind::Space);
        let (kind, name, creator) = (new.kind, new.name.clone(), by);
        let change = CatalogueChange::RepoCreated { id, kind, name, visibility, creator, sdk };
        self.catalogue
            .append(self, Some(by), Batch::new(), |state| {
                self.check_free(state, new.kind, &new.name)?;
                Ok(vec![change.clone()])
            })
            .await?;
        let repo = self.repo(caller, new.kind, &new.name, Access::Write)?;
        self.complete(caller, &repo).await?;
        Ok(repo)
    }

    /// Gives a repo its first commit, if it has none.
    pub(crate) async fn complete(self: &Arc<Self>, caller: &Caller, repo: &Repo) -> Result<()> {
        if self.repo_state(repo).await?.main().is_none() {
            self.first_commit(caller, repo).await?;
        }
        Ok(())
    }

    fn namespace_exists(&self, name: &RepoName) -> bool {
        self.accounts.read(|state| state.owner(name.namespace())).is_some()
    }

    fn check_free(&self, state: &CatalogueState, kind: RepoKind, name: &RepoName) -> Result<()> {
        match state.by_own_name(kind, name) {
            None => Ok(()),
            Some(_) => Err(Error::Exists { what: format!("the {kind} `{name}`") }),
        }
    }

    /// Renames a repo or gives it to another namespace; its old name leads to it until another
    /// repo takes that name.
    pub async fn move_repo(&self, caller: &Caller, repo: &Repo, to: &RepoName) -> Result<()> {
        let by = caller.user()?.user;
        if self.repo_by_id(caller, repo.id(), Access::Admin).is_err() {
            return Err(Error::denied(format!("your token may not move `{}`", repo.name())));
        }
        self.may_create_in(caller, to.namespace())?;
        if !self.namespace_exists(to) {
            let namespace = to.namespace();
            return Err(Error::denied(format!("you may not create repos in `{namespace}`")));
        }
        let id = repo.id();
        self.catalogue
            .append(self, Some(by), Batch::new(), |state| {
                let record = state.by_id(&id).ok_or(Error::RepoNotFound)?;
                let only_case = record.name.folded() == to.folded();
                if !only_case {
                    self.check_free(state, record.kind, to)?;
                }
                if record.name == *to {
                    return Ok(Vec::new());
                }
                Ok(vec![CatalogueChange::RepoMoved { id, to: to.clone() }])
            })
            .await
    }

    /// Deletes a repo. Its log stays, so that a person can bring it back.
    pub async fn delete_repo(&self, caller: &Caller, repo: &Repo) -> Result<()> {
        let by = caller.user()?.user;
        self.repo_by_id(caller, repo.id(), Access::Admin)?;
        let id = repo.id();
        self.catalogue
            .append(self, Some(by), Batch::new(), |state| {
                state.by_id(&id).ok_or(Error::RepoNotFound)?;
                Ok(vec![CatalogueChange::RepoDeleted { id }])
            })
            .await
    }

    /// Records of the repos that `keep` lets through, as the catalogue knows them now.
    pub fn records(
        &self,
        mut keep: impl FnMut(&crate::state::catalogue::RepoRecord) -> bool,
    ) -> Vec<Arc<crate::state::catalogue::RepoRecord>> {
        self.catalogue
            .read(|state| state.repos().filter(|record| keep(record)).map(Arc::clone).collect())
    }
}
