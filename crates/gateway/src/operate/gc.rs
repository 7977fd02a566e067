//! `POST /api/ballast/v1/gc`: what a collection would do, or one step of it.
//!
//! The answer is NDJSON: with `dryRun` a `copy` object for each copy that would be condemned, and
//! always one `summary` or `error`. A mark reads every log, so the answer may take its time.

use std::sync::Arc;

use ballast_format::log::Act;
use ballast_node::gc::{Collection, Condemning, Plan};
use ballast_node::hub::Hub;
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::call::Call;
use crate::error::{Answer, Failure};
use crate::hub::commits::date_of;
use crate::reply;

const BODY_BYTES: u64 = 1_000_000;
/// Lines that wait for a slow reader.
const QUEUE: usize = 64;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Asked {
    #[serde(default)]
    dry_run: bool,
}

/// For administrators of the hub.
pub(super) async fn answer(mut call: Call) -> Answer {
    let asked: Asked = call.json(BODY_BYTES).await?;
    call.caller.user().map_err(|error| Failure::of(error, &call.caller))?;
    if !call.caller.is_admin() {
        let message = "only an administrator of the hub may collect garbage";
        return Err(Failure::new(StatusCode::FORBIDDEN, message));
    }
    if !asked.dry_run {
        let noted = call.gateway.hub.note_act(&call.caller, Act::CollectedGarbage).await;
        noted.map_err(|error| Failure::of(error, &call.caller))?;
    }
    let hub = Arc::clone(&call.gateway.hub);
    Ok(reply::lines_of(hub, "gc on demand", QUEUE, |hub, lines| async move {
        let done = if asked.dry_run { dry_run(&hub, &lines).await } else { step(&hub).await };
        done.map_err(|error| reply::cut_short("the collection", &error))
    }))
}

async fn dry_run(hub: &Hub, lines: &mpsc::Sender<Value>) -> ballast_node::Result<Value> {
    let plan = hub.plan_collection().await?;
    for condemning in &plan.copies {
        if lines.send(copy_view(condemning)).await.is_err() {
            break;
        }
    }
    let Plan { epoch, copies, later, reachable, thin, .. } = &plan;
    let bytes: u64 = copies.iter().map(|condemning| condemning.bytes).sum();
    let copies = copies.len();
    Ok(json!({
        "type": "summary", "state": "planned", "epoch": epoch, "copies": copies, "bytes": bytes,
        "later": later, "reachable": reachable, "thin": thin.len(),
    }))
}

async fn step(hub: &Hub) -> ballast_node::Result<Value> {
    Ok(match hub.collect().await? {
        Collection::Nothing => json!({"type": "summary", "state": "nothing"}),
        Collection::Waiting { epoch, until_ms } => json!({
            "type": "summary", "state": "waiting", "epoch": epoch, "until": date_of(until_ms),
        }),
        Collection::Done { epoch, collected } => json!({
            "type": "summary", "state": "done", "epoch": epoch, "swept": collected.swept,
            "bytes": collected.swept_bytes, "kept": collected.kept,
        }),
    })
}

fn copy_view(condemning: &Condemning) -> Value {
    json!({
        "type": "copy",
        "key": condemning.copy.to_string(),
        "bytes": condemning.bytes,
        "ageSeconds": condemning.age_ms / 1000,
        "reason": condemning.reason(),
    })
}
