//! `/api/ballast/v1/audit`: who changed what, and whether anything of that was taken away or
//! changed.
//!
//! Both answers are NDJSON that ends with a `summary` or an `error`. No secret is in them: of a
//! token its id is told, and neither what it is nor the hash of it.

use std::net::Ipv6Addr;
use std::sync::Arc;

use ballast_format::id::{OrgId, RepoId, TokenId, UserId};
use ballast_format::log::{
    AccessStatus, AccountChange, Act, AuditChange, CatalogueChange, Gating, RepoChange, TokenRole,
    Visibility,
};
use ballast_format::name::{RepoKind, RepoName};
use ballast_node::access::Access;
use ballast_node::audit::{AuditReport, KnownHead, Listed, What};
use ballast_node::hub::Hub;
use ballast_node::state::accounts::Owner;
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::admin::role_word;
use super::nodes::node_role;
use crate::call::Call;
use crate::error::{Answer, Failure};
use crate::hub::commits::date_of;
use crate::reply;

/// Heads of a million repos' logs would be more; those of the whole hub are three.
const BODY_BYTES: u64 = 10_000_000;
/// Lines that wait for a slow reader; then the walk waits.
const QUEUE: usize = 64;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    /// `ns/name`, `datasets/ns/name`, `spaces/ns/name`.
    repo: Option<String>,
}

fn refuse(call: &Call) -> Result<(), Failure> {
    call.caller.user().map_err(|error| Failure::of(error, &call.caller))?;
    if call.caller.is_admin() {
        return Ok(());
    }
    let message = "only an administrator of the hub may read the audit log";
    Err(Failure::new(StatusCode::FORBIDDEN, message))
}

/// `POST …/audit`: all of it, or what happened in one repo.
pub(super) async fn list(mut call: Call) -> Answer {
    refuse(&call)?;
    let asked: Asked = call.json(BODY_BYTES).await?;
    let hub = Arc::clone(&call.gateway.hub);
    let of = |error| Failure::of(error, &call.caller);
    let repo = match &asked.repo {
        None => None,
        Some(text) => {
            let (kind, name) = kind_and_name(text);
            let name =
                RepoName::parse(name).map_err(|error| Failure::invalid(error.to_string()))?;
            Some(hub.repo(&call.caller, kind, &name, Access::Read).map_err(of)?)
        }
    };
    let (told, mut heard) = mpsc::channel::<Listed>(QUEUE);
    let caller = call.caller.clone();
    Ok(reply::lines_of(hub, "audit", QUEUE, |hub, lines| async move {
        let names = Names(&hub);
        let pass_on = async {
            let mut count = 0_u64;
            while let Some(listed) = heard.recv().await {
                let Some(view) = names.view(&listed) else { continue };
                if lines.send(view).await.is_err() {
                    break;
                }
                count += 1;
            }
            drop(heard);
            count
        };
        let (done, count) = tokio::join!(hub.list_audit(&caller, repo.as_ref(), told), pass_on);
        done.map_err(unread)?;
        Ok(json!({"type": "summary", "lines": count}))
    }))
}

#[expect(clippy::needless_pass_by_value, reason = "for `map_err`")]
fn unread(error: ballast_node::Error) -> String {
    tracing::warn!(%error, "the audit log could not be read to its end");
    format!("the logs can't be read on: {error}")
}

fn kind_and_name(text: &str) -> (RepoKind, &str) {
    let kinds = [RepoKind::Dataset, RepoKind::Space];
    let found =
        kinds.into_iter().find_map(|kind| Some((kind, text.strip_prefix(kind.url_prefix())?)));
    found.unwrap_or((RepoKind::Model, text))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    /// What an earlier walk told.
    #[serde(default)]
    heads: Vec<KeptHead>,
}

#[derive(Deserialize)]
struct KeptHead {
    log: String,
    number: u64,
    hash: String,
}

/// `POST …/audit/verify`: walks every log.
pub(super) async fn verify(mut call: Call) -> Answer {
    refuse(&call)?;
    let kept: Kept = call.json(BODY_BYTES).await?;
    let bad = |head: &KeptHead| Failure::invalid(format!("`{}` is no hash", head.hash));
    let read = |head: KeptHead| match head.hash.parse() {
        Ok(hash) => Ok(KnownHead { log: head.log, number: head.number, hash }),
        Err(_) => Err(bad(&head)),
    };
    let kept: Vec<KnownHead> = kept.heads.into_iter().map(read).collect::<Result<_, _>>()?;
    let (told, mut heard) = mpsc::channel::<AuditReport>(QUEUE);
    let (hub, caller) = (Arc::clone(&call.gateway.hub), call.caller.clone());
    Ok(reply::lines_of(hub, "audit walk", QUEUE, |hub, lines| async move {
        let pass_on = async {
            let mut logs = 0_u64;
            while let Some(report) = heard.recv().await {
                logs += u64::from(matches!(report, AuditReport::Head(_)));
                if lines.send(report_view(report)).await.is_err() {
                    break;
                }
            }
            logs
        };
        let (done, logs) = tokio::join!(hub.verify_audit(&caller, &kept, told), pass_on);
        let findings = done.map_err(unread)?;
        Ok(json!({"type": "summary", "logs": logs, "findings": findings}))
    }))
}

fn report_view(report: AuditReport) -> Value {
    match report {
        AuditReport::Head(KnownHead { log, number, hash }) => json!({
            "type": "head", "log": log, "number": number, "hash": hash.to_string(),
        }),
        AuditReport::Finding { object, problem } => {
            json!({"type": "finding", "object": object, "problem": problem})
        }
    }
}

/// Says things by the names that they have now.
struct Names<'a>(&'a Hub);

impl Names<'_> {
    fn user(&self, id: &UserId) -> String {
        self.0.user_of_id(*id).map_or_else(|| id.to_string(), |user| user.name.to_string())
    }

    fn org(&self, id: &OrgId) -> String {
        self.0.org_of_id(*id).map_or_else(|| id.to_string(), |org| org.name.to_string())
    }

    fn repo(&self, id: &RepoId) -> String {
        let record = self.0.record_of(*id);
        record.map_or_else(
            || id.to_string(),
            |record| format!("{}{}", record.kind.url_prefix(), record.name),
        )
    }

    /// A line; nothing for what nobody who looks for acts looks for.
    fn view(&self, listed: &Listed) -> Option<Value> {
        let (act, details) = match &listed.what {
            What::Account(change) => self.account(change),
            What::Catalogue(change) => self.catalogue(change)?,
            What::Repo(change) => self.content(change),
            What::Audit(change) => audit(change),
        };
        let mut view = json!({
            "type": "entry",
            "time": date_of(listed.time_ms),
            "log": listed.log,
            "number": listed.number,
            "by": listed.author.as_ref().map(|author| self.user(author)),
            "act": act,
        });
        if let (Some(view), Value::Object(details)) = (view.as_object_mut(), details) {
            view.extend(details);
        }
        Some(view)
    }

    fn account(&self, change: &AccountChange) -> (&'static str, Value) {
        match change {
            AccountChange::UserCreated { id, name, admin, .. } => {
                let name = name.as_str();
                ("user created", json!({"user": name, "id": id.to_string(), "admin": admin}))
            }
            AccountChange::UserChanged { id, admin, disabled, .. } => {
                let user = self.user(id);
                ("user changed", json!({"user": user, "admin": admin, "disabled": disabled}))
            }
            AccountChange::OrgCreated { id, name, .. } => {
                ("organisation created", json!({"org": name.as_str(), "id": id.to_string()}))
            }
            AccountChange::OrgChanged { id, default_visibility, .. } => {
                let visibility = default_visibility.map(visibility);
                let details = json!({"org": self.org(id), "defaultVisibility": visibility});
                ("organisation changed", details)
            }
            AccountChange::MemberSet { org, user, role } => {
                let role = role.map(role_word);
                ("member set", json!({"org": self.org(org), "user": self.user(user), "role": role}))
            }
            AccountChange::TokenCreated { id, user, name, role, expires_ms, .. } => {
                let role = match role {
                    TokenRole::Read => "read",
                    TokenRole::Write => "write",
                    TokenRole::FineGrained { .. } => "fineGrained",
                };
                let details = json!({
                    "token": id.to_string(), "user": self.user(user), "name": name, "role": role,
                    "expiresAt": expires_ms.map(date_of),
                });
                ("token created", details)
            }
            AccountChange::TokenRevoked { id } => {
                ("token revoked", json!({"token": id.to_string()}))
            }
            AccountChange::QuotaSet { owner, quota } => {
                let owner = match owner {
                    Owner::User(id) => self.user(id),
                    Owner::Org(id) => self.org(id),
                };
                let details = json!({"owner": owner, "bytes": quota.bytes, "repos": quota.repos});
                ("quota set", details)
            }
            AccountChange::NodeInvited { id, name, role, user, .. } => {
                let role = node_role(*role);
                let (id, user) = (id.to_string(), self.user(user));
                let details = json!({"node": name.as_str(), "id": id, "role": role, "user": user});
                ("node invited", details)
            }
            AccountChange::NodeJoined { id, token, .. } => {
                ("node joined", json!({"id": id.to_string(), "token": token.to_string()}))
            }
            AccountChange::NodeRevoked { id } => ("node revoked", json!({"id": id.to_string()})),
        }
    }

    fn catalogue(&self, change: &CatalogueChange) -> Option<(&'static str, Value)> {
        Some(match change {
            CatalogueChange::RepoCreated { id, kind, name, visibility: seen, .. } => {
                let repo = format!("{}{name}", kind.url_prefix());
                let seen = visibility(*seen);
                ("repo created", json!({"repo": repo, "id": id.to_string(), "visibility": seen}))
            }
            CatalogueChange::RepoMirrors { id, upstream } => {
                let repo = self.repo(id);
                let details = json!({"repo": repo, "id": id.to_string(), "upstream": upstream});
                ("repo mirrors", details)
            }
            CatalogueChange::RepoMoved { id, to } => {
                ("repo moved", json!({"id": id.to_string(), "to": to.to_string()}))
            }
            CatalogueChange::RepoDeleted { id } => ("repo deleted", json!({"id": id.to_string()})),
            CatalogueChange::RepoSettings { id, visibility: seen, gating, disabled, .. } => {
                let gating = gating.map(|gating| match gating {
                    Gating::None => "none",
                    Gating::Automatic => "auto",
                    Gating::Manual => "manual",
                });
                let details = json!({
                    "repo": self.repo(id), "id": id.to_string(), "visibility": seen.map(visibility),
                    "gated": gating, "disabled": disabled,
                });
                ("repo settings", details)
            }
            CatalogueChange::RepoFollows { .. }
            | CatalogueChange::RepoHomed { .. }
            | CatalogueChange::ReplicationSet { .. }
            | CatalogueChange::ReplicationRemoved { .. }
            | CatalogueChange::RegionCompared { .. } => return self.of_regions(change),
            CatalogueChange::Liked { .. }
            | CatalogueChange::Unliked { .. }
            | CatalogueChange::RepoArrived { .. } => return None,
            CatalogueChange::AccessRequested { id, user, .. } => {
                let details = json!({
                    "repo": self.repo(id), "id": id.to_string(), "user": self.user(user),
                });
                ("access asked for", details)
            }
            CatalogueChange::AccessDecided { id, user, status, .. } => {
                let status = match status {
                    AccessStatus::Pending => "pending",
                    AccessStatus::Accepted => "accepted",
                    AccessStatus::Rejected => "rejected",
                };
                let details = json!({
                    "repo": self.repo(id), "id": id.to_string(), "user": self.user(user),
                    "status": status,
                });
                ("access decided", details)
            }
        })
    }

    /// What is about several regions.
    fn of_regions(&self, change: &CatalogueChange) -> Option<(&'static str, Value)> {
        Some(match change {
            CatalogueChange::RepoFollows { id, home, term, known, .. } => {
                let details = json!({
                    "repo": self.repo(id), "id": id.to_string(), "home": home.as_str(),
                    "term": term, "behind": known.number,
                });
                ("repo follows", details)
            }
            CatalogueChange::RepoHomed { id, term, known, .. } => {
                let details = json!({
                    "repo": self.repo(id), "id": id.to_string(), "term": term,
                    "behind": known.number,
                });
                ("repo homed", details)
            }
            CatalogueChange::ReplicationSet { name, rules } => {
                let details = json!({
                    "replication": name.as_str(), "to": rules.to.as_str(),
                    "match": rules.patterns, "paused": rules.is_paused,
                });
                ("replication set", details)
            }
            CatalogueChange::ReplicationRemoved { name } => {
                ("replication removed", json!({"replication": name.as_str()}))
            }
            CatalogueChange::RegionCompared { region, repos, findings } => {
                let region = region.as_str();
                let details = json!({"region": region, "repos": repos, "findings": findings});
                ("region compared", details)
            }
            _ => return None,
        })
    }

    fn content(&self, change: &RepoChange) -> (&'static str, Value) {
        match change {
            RepoChange::RefSet { name, old, new } => {
                let old = old.map(|old| old.to_string());
                ("ref set", json!({"ref": name.as_str(), "old": old, "new": new.to_string()}))
            }
            RepoChange::RefDeleted { name, old } => {
                ("ref deleted", json!({"ref": name.as_str(), "old": old.to_string()}))
            }
            RepoChange::PackAdded { pack } => ("pack added", json!({"pack": pack.to_string()})),
            RepoChange::PullRequestOpened { number, title, .. } => {
                ("pull request opened", json!({"pull": number, "title": title}))
            }
            RepoChange::PullRequestStatus { number, status } => {
                let status = format!("{status:?}").to_lowercase();
                ("pull request status", json!({"pull": number, "status": status}))
            }
            RepoChange::HomeMoved { home, term, .. } => {
                ("home moved", json!({"home": home.as_str(), "term": term}))
            }
            RepoChange::Comment { number, author, .. } => {
                ("comment", json!({"pull": number, "user": self.user(author)}))
            }
        }
    }
}

fn audit(change: &AuditChange) -> (&'static str, Value) {
    let token = |token: &TokenId| token.to_string();
    match change {
        AuditChange::LoginsFailed { address, token: tried, count, since_ms } => {
            let address = Ipv6Addr::from(*address).to_canonical().to_string();
            let details = json!({
                "address": address, "token": tried.as_ref().map(token), "count": count,
                "since": date_of(*since_ms),
            });
            ("logins failed", details)
        }
        AuditChange::MoreLoginsFailed { count } => {
            ("logins failed", json!({"address": "others", "count": count}))
        }
        AuditChange::Acted { act, token: by } => {
            let act = match act {
                Act::CollectedGarbage => "garbage collected",
                Act::ExportedMetadata => "metadata exported",
            };
            (act, json!({"token": token(by)}))
        }
        AuditChange::Heads { catalogue, accounts } => {
            let details = json!({"catalogue": catalogue.number, "accounts": accounts.number});
            ("heads noted", details)
        }
    }
}

fn visibility(seen: Visibility) -> &'static str {
    match seen {
        Visibility::Public => "public",
        Visibility::Private => "private",
    }
}
