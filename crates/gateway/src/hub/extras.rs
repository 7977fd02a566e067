//! Small routes that clients call on the way: checks of cards, lists of files, helpers.

use std::sync::Arc;

use ballast_format::hash::Sha256;
use ballast_format::name::{RepoKind, RepoName};
use ballast_node::access::Access;
use ballast_node::discovery::card::review;
use ballast_node::discovery::yaml::Fault;
use http::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::place::Context;
use crate::Gateway;
use crate::call::Call;
use crate::error::{Answer, Failure};
use crate::reply;

const BODY_BYTES: u64 = 10_000_000;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Card {
    #[serde(default)]
    content: String,
    repo_type: Option<String>,
}

/// `POST /api/validate-yaml`: is a card's front matter YAML?
pub(super) async fn validate_yaml(mut call: Call) -> Answer {
    if call.method != Method::POST {
        return Err(Failure::method("POST"));
    }
    let card: Card = call.json(BODY_BYTES).await?;
    let kind = card.repo_type.as_deref().and_then(RepoKind::from_singular);
    let review = review(&card.content, kind.unwrap_or(RepoKind::Model));
    let list = |faults: &[Fault]| -> Vec<Value> {
        let view = |fault: &Fault| json!({"message": fault.message, "line": fault.line});
        faults.iter().map(view).collect()
    };
    let body = json!({"errors": list(&review.errors), "warnings": list(&review.warnings)});
    let status = if review.errors.is_empty() { StatusCode::OK } else { StatusCode::BAD_REQUEST };
    reply::json_as(status, "application/json", &body)
}

/// `GET /api/{kinds}-tags-by-type`: what there is to filter by.
pub(super) fn tags_by_type(gateway: &Arc<Gateway>, call: &Call, models: bool) -> Answer {
    let kind = if models { RepoKind::Model } else { RepoKind::Dataset };
    let mut by_type: Map<String, Value> = Map::new();
    for (group, tag) in gateway.hub.tags(&call.caller, kind) {
        let label = tag.split_once(':').map_or(tag.as_str(), |(_, label)| label);
        let entry = json!({"id": tag, "label": label, "type": group});
        if let Some(list) =
            by_type.entry(group.to_owned()).or_insert_with(|| json!([])).as_array_mut()
        {
            list.push(entry);
        }
    }
    reply::json(&by_type)
}

/// Routes whose answer clients can do without.
pub(super) fn empty_object(_: &Call) -> Answer {
    reply::json(&json!({}))
}

/// `HEAD /api/telemetry/…`: heard, and not kept.
pub(super) fn telemetry(_: &Call) -> Answer {
    Ok(reply::empty())
}

/// `GET …/runtime` of a space: it is stored here, not run.
pub(super) fn runtime(_: &Context<'_>, _: &Call) -> Answer {
    reply::json(&stopped())
}

/// How a space that does not run is told of.
pub(super) fn stopped() -> Value {
    json!({
        "stage": "NO_APP_FILE",
        "hardware": {"current": null, "requested": null},
        "storage": null,
        "gcTimeout": null,
    })
}

/// `GET …/lfs-files`.
pub(super) async fn lfs_files(at: &Context<'_>, call: &Call) -> Answer {
    let repo = at.allowed(call, Access::Write)?;
    let files = at.hub().files_of(&repo).await;
    let files = files.map_err(|error| Failure::of(error, &call.caller))?;
    let pushed = super::commits::date_of(repo.record.changed_ms);
    let views: Vec<Value> = files
        .iter()
        .map(|file| {
            let oid = file.sha256.to_string();
            json!({
                "fileOid": oid,
                "oid": oid,
                "filename": file.path.as_deref().unwrap_or_default(),
                "size": file.size,
                "pushedAt": pushed,
                "ref": if file.path.is_some() { json!("refs/heads/main") } else { Value::Null },
            })
        })
        .collect();
    reply::json(&views)
}

#[derive(Deserialize)]
struct DuplicateFiles {
    target: Target,
    files: Vec<DuplicateFile>,
}

#[derive(Deserialize)]
struct Target {
    #[serde(rename = "type")]
    kind: String,
    name: String,
}

#[derive(Deserialize)]
struct DuplicateFile {
    sha256: String,
}

/// `POST …/lfs-files/duplicate` on the repo that has the files: may a commit to the other repo
/// name them? Nothing is copied; who may read them here may name them there.
pub(super) async fn duplicate_files(at: &Context<'_>, mut call: Call) -> Answer {
    let body: DuplicateFiles = call.json(BODY_BYTES).await?;
    let of = |error| Failure::of(error, &call.caller);
    at.hub().may_read_files(&call.caller, at.repo()).map_err(of)?;
    let kind = RepoKind::from_singular(&body.target.kind)
        .or_else(|| RepoKind::from_plural(&body.target.kind))
        .ok_or_else(|| Failure::invalid("the target's `type` is no kind of repo"))?;
    let name = RepoName::parse(&body.target.name).map_err(|error| of(error.into()))?;
    at.hub().repo(&call.caller, kind, &name, Access::Write).map_err(of)?;
    let mut failed = Vec::new();
    for file in &body.files {
        let known = match file.sha256.parse::<Sha256>() {
            Ok(sha256) => {
                at.hub().find_upload(&call.caller, at.repo(), &sha256).await.map_err(of)?
            }
            Err(_) => None,
        };
        if known.is_none() {
            failed.push(json!({"sha256": file.sha256, "error": "no such file"}));
        }
    }
    reply::json(&json!({"failed": failed}))
}
