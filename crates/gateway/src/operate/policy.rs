//! `POST /api/ballast/v1/policy/check`: what the rules say of repos, file by file.
//!
//! The answer is NDJSON: a `repo` object for each, then one `summary` or `error`.

use std::sync::Arc;

use ballast_node::access::{Access, Repo};
use ballast_node::hub::Hub;
use ballast_node::policy::{Checked, Stage};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::asked_scope;
use crate::call::Call;
use crate::error::{Answer, Failure};
use crate::hub::security::file_status;
use crate::reply;

const BODY_BYTES: u64 = 1_000_000;
/// Repos that wait for a slow reader; then the check waits.
const QUEUE: usize = 16;

#[derive(Deserialize)]
struct Asked {
    #[serde(rename = "type")]
    kind: Option<String>,
    name: Option<String>,
    revision: Option<String>,
    stage: Option<String>,
}

/// One repo for those who may write to it; all of them for administrators of the hub.
pub(super) async fn answer(mut call: Call) -> Answer {
    let asked: Asked = call.json(BODY_BYTES).await?;
    let of = |error| Failure::of(error, &call.caller);
    call.caller.user().map_err(of)?;
    let hub = Arc::clone(&call.gateway.hub);
    let stage = asked.stage.as_deref().unwrap_or("download");
    let stage = Stage::parse(stage)
        .ok_or_else(|| Failure::invalid(format!("`{stage}` is no stage of the policy")))?;
    let scope = asked_scope(&call, asked.kind.as_deref(), asked.name.as_deref(), Access::Write)?;
    let repos: Vec<Repo> = match scope {
        None => hub.records(|_| true).into_iter().map(|record| Repo { record }).collect(),
        Some(repo) => vec![repo],
    };
    if let (Some(revision), [repo]) = (&asked.revision, repos.as_slice()) {
        // A revision that is not there is told before the answer begins.
        hub.resolve(repo, revision).await.map_err(of)?;
    }
    Ok(reply::lines_of(hub, "policy check", QUEUE, |hub, lines| async move {
        let done = check(&hub, stage, &repos, asked.revision.as_deref(), &lines).await;
        done.map_err(|error| reply::cut_short("the check of the policy", &error))
    }))
}

async fn check(
    hub: &Arc<Hub>,
    stage: Stage,
    repos: &[Repo],
    revision: Option<&str>,
    lines: &mpsc::Sender<Value>,
) -> Result<Value, ballast_node::Error> {
    let (mut refused, mut files_refused) = (0, 0);
    for repo in repos {
        let commit = match revision {
            Some(revision) => Some(hub.resolve(repo, revision).await?.commit),
            None => hub.repo_state(repo).await?.main(),
        };
        let checked = hub.check_policy(stage, repo, commit).await?;
        refused += usize::from(checked.refused > 0);
        files_refused += checked.refused;
        if lines.send(view(&checked, revision)).await.is_err() {
            break;
        }
    }
    Ok(json!({
        "type": "summary",
        "stage": stage.as_str(),
        "repos": repos.len(),
        "refused": refused,
        "filesRefused": files_refused,
    }))
}

fn view(checked: &Checked, revision: Option<&str>) -> Value {
    let files: Vec<Value> = checked
        .told
        .iter()
        .map(|file| {
            json!({
                "path": file.path,
                "size": file.bytes,
                "rule": file.refusal.as_ref().map(|refusal| &refusal.rule),
                "reason": file.refusal.as_ref().map(|refusal| &refusal.reason),
                "found": file.scan.summary(),
                "securityFileStatus": file_status(Some(&file.scan), false),
            })
        })
        .collect();
    let signatures: Vec<Value> = checked
        .vouched
        .iter()
        .map(|signed| json!({"by": signed.by, "files": signed.files, "differ": signed.differ}))
        .collect();
    json!({
        "type": "repo",
        "repo": checked.repo.name,
        "revision": revision.unwrap_or("main"),
        "commit": checked.commit.map(|commit| commit.to_string()),
        "verdict": if checked.refused > 0 { "refused" } else { "allowed" },
        "licenses": checked.repo.licenses,
        "gated": checked.repo.gated,
        "bytes": checked.repo.bytes,
        "files": checked.files,
        "filesRefused": checked.refused,
        "allowedBy": checked.allowed_by,
        "signatures": signatures,
        "badSignatures": checked.bad_signatures,
        "told": files,
    })
}
