//! Gated repos: asking for access, and deciding about it.

use std::sync::Arc;

use ballast_format::log::{AccessStatus, CatalogueChange, Gating};
use ballast_store::index::Batch;

use crate::access::{Access, Caller, Repo};
use crate::error::{Error, Result};
use crate::hub::Hub;
use crate::state::accounts::User;
use crate::state::catalogue::AccessRequest;

/// The most that somebody may fill in when they ask.
const MAX_FIELDS_BYTES: usize = 16 * 1024;

/// A request, and who made it.
#[derive(Clone, Debug)]
pub struct AccessRequestView {
    /// The request.
    pub request: AccessRequest,
    /// Who made it.
    pub user: Arc<User>,
}

impl Hub {
    /// Asks for a gated repo's files; how the request stands afterwards.
    pub async fn ask_access(
        &self,
        caller: &Caller,
        repo: &Repo,
        fields: &str,
    ) -> Result<AccessStatus> {
        let (user, id) = (caller.user()?.user, repo.id());
        if fields.len() > MAX_FIELDS_BYTES {
            return Err(Error::invalid("the request's fields are too long"));
        }
        self.catalogue
            .append(self, Some(user), Batch::new(), |state| {
                let record = state.by_id(&id).ok_or(Error::RepoNotFound)?;
                if record.gating == Gating::None {
                    return Err(not_gated(repo));
                }
                if state.access_status(&id, &user).is_some() {
                    return Ok(Vec::new());
                }
                let fields = fields.to_owned();
                let mut changes = vec![CatalogueChange::AccessRequested { id, user, fields }];
                if record.gating == Gating::Automatic {
                    let (status, reason) = (AccessStatus::Accepted, None);
                    changes.push(CatalogueChange::AccessDecided { id, user, status, reason });
                }
                Ok(changes)
            })
            .await?;
        let status = self.catalogue.read(|state| state.access_status(&id, &user));
        status.ok_or_else(|| Error::internal("the request is not there"))
    }

    /// Requests that stand so, oldest first; for who may write to the repo.
    pub fn access_requests(
        &self,
        caller: &Caller,
        repo: &Repo,
        status: AccessStatus,
    ) -> Result<Vec<AccessRequestView>> {
        self.repo_by_id(caller, repo.id(), Access::Write)?;
        if repo.record.gating == Gating::None {
            return Err(not_gated(repo));
        }
        let mut requests = self.catalogue.read(|state| state.requests(&repo.id()));
        requests.retain(|request| request.status == status);
        requests.sort_by_key(|request| (request.time_ms, request.user));
        let view = |request: AccessRequest| {
            let user = self.user_of_id(request.user)?;
            Some(AccessRequestView { request, user })
        };
        Ok(requests.into_iter().filter_map(view).collect())
    }

    /// Decides about somebody's request. `granting` lets in also those who never asked.
    pub async fn decide_access(
        &self,
        caller: &Caller,
        repo: &Repo,
        user: &str,
        status: AccessStatus,
        reason: Option<&str>,
        granting: bool,
    ) -> Result<()> {
        self.repo_by_id(caller, repo.id(), Access::Write)?;
        let (asker, id) = (self.user_of_name(user)?, repo.id());
        self.catalogue
            .append(self, caller.user_id(), Batch::new(), |state| {
                let record = state.by_id(&id).ok_or(Error::RepoNotFound)?;
                if record.gating == Gating::None {
                    return Err(not_gated(repo));
                }
                match state.access_status(&id, &asker.id) {
                    None if !granting => {
                        return Err(Error::NotFound { what: format!("a request of `{user}`") });
                    }
                    Some(now) if now == status => {
                        return Err(Error::Exists { what: format!("that decision for `{user}`") });
                    }
                    _ => {}
                }
                Ok(vec![CatalogueChange::AccessDecided {
                    id,
                    user: asker.id,
                    status,
                    reason: reason.map(ToOwned::to_owned),
                }])
            })
            .await
    }
}

fn not_gated(repo: &Repo) -> Error {
    Error::invalid(format!("`{}` is not gated", repo.name()))
}
