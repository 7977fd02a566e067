//! How a repo begins, changes its name, and ends.
//!
//! A repo begins with two entries: one in the catalogue, and its own first, which brings the first
//! commit. A crash between the two leaves a repo without `main`. Nobody sees it so: whoever looks
//! at its state first completes it, be it a reader, a commit, the retry of the creation, or the
//! next start. Several may do so at once; the log lets one through, and to the others there is
//! nothing left to commit.

use std::sync::Arc;

use ballast_format::id::RepoId;
use ballast_format::log::{CatalogueChange, Visibility};
use ballast_format::name::{RepoKind, RepoName};
use ballast_store::env::random_bytes;
use futures_util::future::BoxFuture;

use crate::access::{Access, Caller, Repo};
use crate::error::{Error, Result};
use crate::hub::Hub;
use crate::state::catalogue::{CatalogueState, RepoRecord};
use crate::state::ledger::New;
use crate::state::repo::RepoState;

/// Repos of a hub: what is known about them is in memory.
pub(crate) const MAX_REPOS: usize = 1_000_000;

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
    pub async fn create_repo(&self, caller: &Caller, new: &NewRepo) -> Result<Repo> {
        self.admit(caller)?;
        let by = caller.user()?.user;
        self.freshen().await?;
        self.may_create_in(caller, new.name.namespace())?;
        let new = &NewRepo { name: self.spelled(&new.name)?, ..new.clone() };
        let sdk = checked_sdk(new)?;
        let default = || self.default_visibility(new.name.namespace());
        let id = RepoId::from_bytes(random_bytes(self.env().as_ref()));
        let change = CatalogueChange::RepoCreated {
            id,
            kind: new.kind,
            name: new.name.clone(),
            visibility: new.visibility.unwrap_or_else(default),
            creator: by,
            sdk,
        };
        let created = self
            .catalogue
            .append(self, New::by(Some(by)), |state| {
                self.may_create_in(&self.again(caller)?, new.name.namespace())?;
                check_free(state, new.kind, &new.name)?;
                self.check_one_more_repo(state, new.name.namespace())?;
                if state.repo_count() >= MAX_REPOS {
                    let reason = format!("the hub has {MAX_REPOS} repos");
                    return Err(Error::Busy { reason });
                }
                Ok(vec![change.clone()])
            })
            .await;
        if let Err(Error::Exists { .. }) = &created {
            // Perhaps it is ours, from a try that ended half-way.
            self.complete_by_name(caller, new).await?;
        }
        created?;
        let repo = self.repo_by_id(caller, id, Access::Read)?;
        self.complete(repo.clone()).await?;
        Ok(repo)
    }

    /// A name with its namespace as the owner writes it, whatever letters somebody asked with.
    pub(super) fn spelled(&self, name: &RepoName) -> Result<RepoName> {
        let owner = self.accounts.read(|state| state.spelled(name.namespace()));
        let owner = owner.unwrap_or_else(|| name.namespace().clone());
        Ok(RepoName::new(owner, name.name())?)
    }

    async fn complete_by_name(&self, caller: &Caller, new: &NewRepo) -> Result<()> {
        if let Ok(repo) = self.repo(caller, new.kind, &new.name, Access::Read) {
            self.repo_state(&repo).await?;
        }
        Ok(())
    }

    /// Gives a repo its first commit, if it has none; its state afterwards. A commit looks at the
    /// state of its repo, so that this future holds one of its own kind and is boxed.
    pub(crate) fn complete(&self, repo: Repo) -> BoxFuture<'static, Result<Arc<RepoState>>> {
        let hub = self.strong();
        Box::pin(async move {
            let hub = hub?;
            let state = hub.newest_state(repo.id()).await?;
            // A mirror's commits are its upstream's; those of another region's repo its home's.
            if state.main().is_some() || repo.is_mirror() || repo.is_away() {
                return Ok(state);
            }
            hub.first_commit(&repo).await?;
            hub.state_of(repo.id()).await
        })
    }

    /// Renames a repo or gives it to another namespace; its old name leads to it until another
    /// repo takes that name.
    pub async fn move_repo(&self, caller: &Caller, repo: &Repo, to: &RepoName) -> Result<()> {
        let by = caller.user()?.user;
        let id = repo.id();
        if self.repo_by_id(caller, id, Access::Admin).is_err() {
            let name = repo.name();
            return Err(Error::denied(format!("your token may not move `{name}`")));
        }
        self.may_create_in(caller, to.namespace())?;
        let to = &self.spelled(to)?;
        let is_given_away =
            |record: &RepoRecord| record.name.namespace().folded() != to.namespace().folded();
        if is_given_away(&repo.record) {
            self.check_room_in(to.namespace(), self.bytes_of(id).await?).await?;
        }
        self.catalogue
            .append(self, New::by(Some(by)), |state| {
                let record = self.confirm(caller, state.by_id(&id), Access::Admin)?.record;
                self.may_create_in(&self.again(caller)?, to.namespace())?;
                if record.name == *to {
                    return Ok(Vec::new());
                }
                // A repo may take its own name in other letters.
                if record.name.folded() != to.folded() {
                    check_free(state, record.kind, to)?;
                }
                if is_given_away(&record) {
                    self.check_one_more_repo(state, to.namespace())?;
                }
                let to = to.clone();
                Ok(vec![CatalogueChange::RepoMoved { id, to }])
            })
            .await
    }

    /// Deletes a repo. Its log stays, so that a person can bring it back.
    pub async fn delete_repo(&self, caller: &Caller, repo: &Repo) -> Result<()> {
        let by = caller.user()?.user;
        let id = repo.id();
        self.repo_by_id(caller, id, Access::Admin)?;
        self.catalogue
            .append(self, New::by(Some(by)), |state| {
                self.confirm(caller, state.by_id(&id), Access::Admin)?;
                Ok(vec![CatalogueChange::RepoDeleted { id }])
            })
            .await?;
        self.forget_tally(&id);
        self.forget_facts(&id).await
    }

    /// The record of this repo, as the catalogue knows it now.
    pub fn record_of(&self, id: RepoId) -> Option<Arc<RepoRecord>> {
        self.catalogue.read(|state| state.by_id(&id))
    }

    /// Records of the repos that `keep` lets through, as the catalogue knows them now.
    pub fn records(&self, mut keep: impl FnMut(&RepoRecord) -> bool) -> Vec<Arc<RepoRecord>> {
        self.catalogue.read(|state| {
            let kept = state.repos().filter(|record| keep(record));
            kept.map(Arc::clone).collect()
        })
    }
}

/// What runs a new space; nothing for other kinds, whatever was said.
fn checked_sdk(new: &NewRepo) -> Result<Option<String>> {
    match (new.kind, new.sdk.as_deref()) {
        (RepoKind::Space, None) => Err(Error::invalid("a space needs an `sdk`")),
        (RepoKind::Space, Some(sdk)) if !SDKS.contains(&sdk) => {
            let known = SDKS.join(", ");
            Err(Error::invalid(format!("`{sdk}` is none of the SDKs {known}")))
        }
        (RepoKind::Space, sdk) => Ok(sdk.map(ToOwned::to_owned)),
        _ => Ok(None),
    }
}

/// Former names are free: they lead to a repo until another takes them.
pub(crate) fn check_free(state: &CatalogueState, kind: RepoKind, name: &RepoName) -> Result<()> {
    match state.by_own_name(kind, name) {
        None => Ok(()),
        Some(_) => Err(Error::Exists { what: format!("the {kind} `{name}`") }),
    }
}
