//! Repos that are mirrors of an upstream's: how they begin.
//!
//! A mirror has no first commit of its own, and its namespace needs no owner here.

use ballast_format::id::{RepoId, UserId};
use ballast_format::log::{CatalogueChange, Gating, Visibility};
use ballast_format::name::{RepoKind, RepoName};
use ballast_store::env::random_bytes;

use super::create::{MAX_REPOS, check_free};
use crate::access::Repo;
use crate::error::{Error, Result};
use crate::hub::Hub;
use crate::state::ledger::New;

/// A mirror to create.
#[derive(Clone, Debug)]
pub struct NewMirror {
    /// What it holds.
    pub kind: RepoKind,
    /// Its name, as the upstream writes it.
    pub name: RepoName,
    /// The upstream's address.
    pub upstream: String,
    /// Who may see it.
    pub visibility: Visibility,
    /// Whether readers must ask here, too.
    pub gating: Gating,
    /// For a space: what runs it.
    pub sdk: Option<String>,
}

impl Hub {
    /// Shuts a mirror off as far as its upstream was shut off since. It is never opened again by
    /// itself: who may see it here is for people to say.
    pub async fn restrict_mirror(
        &self,
        repo: &Repo,
        visibility: Visibility,
        gating: Gating,
    ) -> Result<()> {
        let record = &repo.record;
        let hides = visibility == Visibility::Private && record.visibility != visibility;
        let gates = gating != Gating::None && record.gating == Gating::None;
        if !hides && !gates {
            return Ok(());
        }
        let id = repo.id();
        let change = CatalogueChange::RepoSettings {
            id,
            visibility: hides.then_some(visibility),
            gating: gates.then_some(gating),
            description: None,
            discussions_disabled: None,
            disabled: None,
        };
        self.catalogue
            .append(self, New::by(None), |state| match state.by_id(&id) {
                Some(record) if record.upstream.is_some() => Ok(vec![change.clone()]),
                _ => Err(Error::RepoNotFound),
            })
            .await
    }

    /// Creates a mirror, or finds the one that another request made meanwhile. For origins: nobody
    /// is asked whether they may.
    pub async fn create_mirror(&self, new: &NewMirror) -> Result<Repo> {
        let id = RepoId::from_bytes(random_bytes(self.env().as_ref()));
        let creator = UserId::from_bytes([0; 16]);
        let NewMirror { kind, name, visibility, sdk, .. } = new.clone();
        let gating = (new.gating != Gating::None).then_some(CatalogueChange::RepoSettings {
            id,
            visibility: None,
            gating: Some(new.gating),
            description: None,
            discussions_disabled: None,
            disabled: None,
        });
        let created = CatalogueChange::RepoCreated { id, kind, name, visibility, creator, sdk };
        let mirrors = CatalogueChange::RepoMirrors { id, upstream: new.upstream.clone() };
        let changes: Vec<_> = [created, mirrors].into_iter().chain(gating).collect();
        let appended = self
            .catalogue
            .append(self, New::by(None), |state| {
                check_free(state, new.kind, &new.name)?;
                if state.repo_count() >= MAX_REPOS {
                    let reason = format!("the hub has {MAX_REPOS} repos");
                    return Err(Error::Busy { reason });
                }
                Ok(changes.clone())
            })
            .await;
        let found = self.catalogue.read(|state| state.by_own_name(new.kind, &new.name));
        match (appended, found) {
            (Ok(()) | Err(Error::Exists { .. }), Some(record)) if record.upstream.is_some() => {
                Ok(Repo { record })
            }
            (Ok(()), _) => Err(Error::RepoNotFound),
            (Err(error), _) => Err(error),
        }
    }
}
