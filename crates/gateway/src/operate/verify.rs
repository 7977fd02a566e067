//! `POST /api/ballast/v1/verify`: reads and hashes everything again, and tells as it goes.
//!
//! The answer is NDJSON: `progress` and `finding` objects, then one `summary` or `error`.

use std::sync::Arc;

use ballast_node::access::Access;
use ballast_node::verify::{Finding, Report, Summary};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::asked_scope;
use crate::call::Call;
use crate::error::{Answer, Failure};
use crate::reply;

const BODY_BYTES: u64 = 1_000_000;
/// Reports that wait for a slow reader; then the check waits.
const QUEUE: usize = 64;

#[derive(Deserialize)]
struct Asked {
    #[serde(rename = "type")]
    kind: Option<String>,
    name: Option<String>,
    /// Name the files that known damage affects, and look for no more.
    #[serde(default)]
    known: bool,
}

/// The whole hub for its administrators; one repo for those of the repo.
pub(super) async fn answer(mut call: Call) -> Answer {
    let asked: Asked = call.json(BODY_BYTES).await?;
    call.caller.user().map_err(|error| Failure::of(error, &call.caller))?;
    if asked.known && asked.name.is_some() {
        return Err(Failure::invalid("`known` is about the whole hub: leave out `name`"));
    }
    let scope = asked_scope(&call, asked.kind.as_deref(), asked.name.as_deref(), Access::Admin)?;
    let (reports, heard) = mpsc::channel::<Report>(QUEUE);
    let hub = Arc::clone(&call.gateway.hub);
    Ok(reply::lines_of(hub, "verify", QUEUE, |hub, lines| async move {
        let work = async {
            match asked.known {
                true => hub.name_damage(reports).await,
                false => hub.verify(scope.as_ref(), reports).await,
            }
        };
        let (checked, ()) = tokio::join!(work, pass_on(heard, &lines));
        let summary = checked.map_err(|error| reply::cut_short("the check", &error))?;
        Ok(summary_view("summary", &summary))
    }))
}

async fn pass_on(mut heard: mpsc::Receiver<Report>, lines: &mpsc::Sender<Value>) {
    while let Some(report) = heard.recv().await {
        let line = match report {
            Report::Progress(summary) => summary_view("progress", &summary),
            Report::Finding(finding) => finding_view(&finding),
        };
        if lines.send(line).await.is_err() {
            return;
        }
    }
}

fn summary_view(kind: &str, summary: &Summary) -> Value {
    json!({
        "type": kind,
        "repos": summary.repos,
        "objects": summary.objects,
        "bytes": summary.bytes,
        "damaged": summary.damaged,
        "filesAffected": summary.files_affected,
    })
}

fn finding_view(finding: &Finding) -> Value {
    json!({
        "type": "finding",
        "repo": finding.repo,
        "revision": finding.revision,
        "path": finding.path,
        "object": finding.object,
        "problem": finding.problem,
    })
}
