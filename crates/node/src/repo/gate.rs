//! Gated repos: asking for access, and deciding about it.

use std::sync::Arc;

use ballast_format::log::{AccessStatus, CatalogueChange, Gating};

use crate::access::{Access, Caller, Repo};
use crate::error::{Error, Result};
use crate::hub::Hub;
use crate::state::accounts::User;
use crate::state::catalogue::AccessRequest;
use crate::state::ledger::New;

/// The most that somebody may fill in when they ask: it is kept in memory.
const MAX_FIELDS_BYTES: usize = 4 * 1024;
/// Requests of one person that nobody has answered.
const MAX_OPEN_REQUESTS: usize = 1000;
const MAX_REASON_BYTES: usize = 1000;

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
        self.may_take_part(caller, repo)?;
        let (user, id) = (caller.user()?.user, repo.id());
        check_fields(fields)?;
        self.catalogue
            .append(self, New::by(Some(user)), |state| {
                let record = self.confirm(caller, state.by_id(&id), Access::Read)?.record;
                let is_automatic = match record.gating {
                    Gating::None => return Err(not_gated(repo)),
                    Gating::Automatic => true,
                    Gating::Manual => false,
                };
                let now = state.access_status(&id, &user);
                let mut changes = Vec::new();
                if now.is_none() {
                    if state.open_requests_of(&user) >= MAX_OPEN_REQUESTS {
                        let reason = format!("you wait for {MAX_OPEN_REQUESTS} answers already");
                        return Err(Error::invalid(reason));
                    }
                    let fields = fields.to_owned();
                    changes.push(CatalogueChange::AccessRequested { id, user, fields });
                }
                // Who waits since the days when a person decided is let in when they ask again.
                if is_automatic && now.is_none_or(|now| now == AccessStatus::Pending) {
                    changes.push(CatalogueChange::AccessDecided {
                        id,
                        user,
                        status: AccessStatus::Accepted,
                        reason: None,
                    });
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
        if reason.is_some_and(|reason| reason.len() > MAX_REASON_BYTES) {
            let reason = format!("a reason has at most {MAX_REASON_BYTES} bytes");
            return Err(Error::invalid(reason));
        }
        let (asker, id) = (self.user_of_name(user)?, repo.id());
        self.catalogue
            .append(self, New::by(caller.user_id()), |state| {
                let record = self.confirm(caller, state.by_id(&id), Access::Write)?.record;
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

/// What somebody fills in is a JSON object.
fn check_fields(fields: &str) -> Result<()> {
    if fields.len() > MAX_FIELDS_BYTES {
        let reason = format!("a request has at most {MAX_FIELDS_BYTES} bytes of fields");
        return Err(Error::invalid(reason));
    }
    let parsed = serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(fields);
    parsed.map_err(|_| Error::invalid("the fields of a request are a JSON object"))?;
    Ok(())
}
