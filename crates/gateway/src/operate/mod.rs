//! What operators ask: is it up, how is it doing, and the administration that the command line
//! drives.

use std::fmt::Write as _;
use std::sync::atomic::Ordering;

use ballast_format::name::{RepoKind, RepoName};
use ballast_node::access::{Access, Repo};
use ballast_node::origin::Figure;
use ballast_node::verify::ScrubCounts;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http::{Method, Response, StatusCode};
use serde_json::json;

use crate::body::Body;
use crate::call::Call;
use crate::error::{Answer, Failure};
use crate::reply;

pub(crate) mod admin;
mod audit;
pub(crate) mod bundle;
mod export;
mod gc;
pub(crate) mod keep;
pub(crate) mod metrics;
pub(crate) mod mirror;
pub(crate) mod nodes;
mod policy;
mod quotas;
pub(crate) mod regions;
mod scrub;
mod verify;

/// `GET /health`: 200 while requests are welcome.
pub(crate) fn health(call: &Call) -> Answer {
    only_read(call)?;
    if !call.gateway.ready.load(Ordering::Relaxed) {
        return Err(Failure::busy("the hub is stopping"));
    }
    let mut response = reply::json(&json!({"status": "ok"}))?;
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// `GET /metrics`: counts in the text form that Prometheus reads. They name no repo and no user.
pub(crate) fn metrics(call: &Call) -> Answer {
    only_read(call)?;
    let mut text = call.gateway.metrics.text();
    let ScrubCounts { objects, bytes, damaged } = call.gateway.hub.scrub_counts();
    for (name, kind, count) in [
        ("scrub_objects_total", "counter", objects),
        ("scrub_bytes_total", "counter", bytes),
        ("scrub_damaged_objects", "gauge", damaged),
    ] {
        let _ = writeln!(text, "# TYPE {name} {kind}\n{name} {count}");
    }
    for Figure { name, is_counter, value } in call.gateway.hub.figures() {
        let kind = if is_counter { "counter" } else { "gauge" };
        let family = name.split('{').next().unwrap_or(&name);
        let kind = format!("# TYPE {family} {kind}\n");
        // A family with labels is announced once.
        let kind = if text.contains(&kind) { "" } else { &kind };
        let _ = writeln!(text, "{kind}{name} {value}");
    }
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = StatusCode::OK;
    let value = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, value);
    Ok(response)
}

/// What a check is asked to look at: a repo (a model, unless it says another kind), for those who
/// have this access to it; or all of the hub, for its administrators.
fn asked_scope(
    call: &Call,
    kind: Option<&str>,
    name: Option<&str>,
    access: Access,
) -> Result<Option<Repo>, Failure> {
    let Some(name) = name else {
        if call.caller.is_admin() {
            return Ok(None);
        }
        let message = "only an administrator of the hub may check all of it";
        return Err(Failure::new(StatusCode::FORBIDDEN, message));
    };
    let of = |error| Failure::of(error, &call.caller);
    let kind = kind.unwrap_or("model");
    let kind = RepoKind::from_singular(kind)
        .ok_or_else(|| Failure::invalid(format!("`{kind}` is no kind of repo")))?;
    let name = RepoName::parse(name).map_err(|error| of(error.into()))?;
    call.gateway.hub.repo(&call.caller, kind, &name, access).map(Some).map_err(of)
}

fn only_read(call: &Call) -> Result<(), Failure> {
    match call.method {
        Method::GET | Method::HEAD => Ok(()),
        _ => Err(Failure::method("GET, HEAD")),
    }
}
