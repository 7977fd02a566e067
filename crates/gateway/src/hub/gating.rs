//! Gated repos: who asked for access, and what became of it.

use ballast_format::log::AccessStatus;
use ballast_node::access::Access;
use ballast_node::repo::AccessRequestView;
use http::Method;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::commits::date_of;
use super::place::Context;
use crate::call::Call;
use crate::error::{Answer, Failure};
use crate::{json as strict, reply};

const BODY_BYTES: u64 = 1_000_000;

fn status_of(text: &str) -> Result<AccessStatus, Failure> {
    match text {
        "pending" => Ok(AccessStatus::Pending),
        "accepted" => Ok(AccessStatus::Accepted),
        "rejected" => Ok(AccessStatus::Rejected),
        other => Err(Failure::invalid(format!("`{other}` is no status of a request"))),
    }
}

fn word(status: AccessStatus) -> &'static str {
    match status {
        AccessStatus::Pending => "pending",
        AccessStatus::Accepted => "accepted",
        AccessStatus::Rejected => "rejected",
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Handle {
    user: Option<String>,
    request_id: Option<String>,
    status: Option<String>,
    rejection_reason: Option<String>,
}

/// `…/user-access-request/{pending|accepted|rejected|handle|grant}`.
pub(super) async fn answer(at: &Context<'_>, mut call: Call, segments: &[&str]) -> Answer {
    let repo = at.allowed(&call, Access::Write)?;
    match (segments, &call.method) {
        (["handle"], &Method::POST) => {
            let body: Handle = call.json(BODY_BYTES).await?;
            let status = status_of(body.status.as_deref().unwrap_or_default())?;
            let user = match (body.user, body.request_id) {
                (Some(user), _) => user,
                (None, Some(id)) => user_of_request(at, &call, &id)?,
                (None, None) => return Err(Failure::invalid("`user` or `requestId` is needed")),
            };
            let reason = body.rejection_reason.as_deref();
            let decided =
                at.hub().decide_access(&call.caller, &repo, &user, status, reason, false).await;
            decided.map_err(|error| Failure::of(error, &call.caller))?;
            reply::json(&json!({"status": word(status), "user": user}))
        }
        (["grant"], &Method::POST) => {
            let body: Handle = call.json(BODY_BYTES).await?;
            let user = body.user.ok_or_else(|| Failure::invalid("`user` is needed"))?;
            let status = AccessStatus::Accepted;
            let granted =
                at.hub().decide_access(&call.caller, &repo, &user, status, None, true).await;
            granted.map_err(|error| Failure::of(error, &call.caller))?;
            reply::json(&json!({"status": word(status), "user": user}))
        }
        ([status], &Method::GET) => {
            let requests = at.hub().access_requests(&call.caller, &repo, status_of(status)?);
            let requests = requests.map_err(|error| Failure::of(error, &call.caller))?;
            reply::json(&requests.iter().map(view).collect::<Vec<_>>())
        }
        _ => Err(Failure::no_route()),
    }
}

fn view(view: &AccessRequestView) -> Value {
    let mut shown = json!({
        "requestId": view.user.id.to_string(),
        "status": word(view.request.status),
        "timestamp": date_of(view.request.time_ms),
        "user": {
            "user": view.user.name.as_str(),
            "fullname": view.user.fullname,
            "email": view.user.email,
        },
    });
    if let Ok(fields @ Value::Object(_)) = serde_json::from_str(&view.request.fields) {
        shown["fields"] = fields;
    }
    if let Some(reason) = &view.request.reason {
        shown["rejectionReason"] = json!(reason);
    }
    shown
}

/// Requests are named by who made them.
fn user_of_request(at: &Context<'_>, call: &Call, id: &str) -> Result<String, Failure> {
    let missing = || ballast_node::Error::NotFound { what: format!("the request `{id}`") };
    let user = id.parse().ok().and_then(|id| at.hub().user_of_id(id));
    let user = user.ok_or_else(missing).map_err(|error| Failure::of(error, &call.caller))?;
    Ok(user.name.as_str().to_owned())
}

/// `POST …/ask-access`, from a form or as JSON: what is filled in is kept as it came.
pub(super) async fn ask(at: &Context<'_>, mut call: Call) -> Answer {
    let repo = at.reading(&call)?;
    let bytes = call.bytes(BODY_BYTES).await?;
    let fields = if bytes.trim_ascii_start().starts_with(b"{") {
        strict::decode::<Map<String, Value>>(&bytes)?
    } else {
        let text = String::from_utf8_lossy(&bytes);
        let form = crate::call::Query::parse(&text)?;
        form.pairs().map(|(name, value)| (name.to_owned(), json!(value))).collect()
    };
    let fields = Value::Object(fields).to_string();
    let asked = at.hub().ask_access(&call.caller, &repo, &fields).await;
    let status = asked.map_err(|error| Failure::of(error, &call.caller))?;
    reply::json(&json!({"status": word(status)}))
}
