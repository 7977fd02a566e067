//! `GET /api/ballast/v1/scrub`: how far reading everything again is, and what is damaged.

use ballast_node::verify::{Damaged, ScrubStatus};
use http::StatusCode;
use serde_json::{Value, json};

use crate::call::Call;
use crate::error::{Answer, Failure};
use crate::hub::commits::date_of;
use crate::reply;

/// For administrators of the hub.
pub(super) async fn answer(call: &Call) -> Answer {
    call.caller.user().map_err(|error| Failure::of(error, &call.caller))?;
    if !call.caller.is_admin() {
        let message = "only an administrator of the hub may see what is damaged";
        return Err(Failure::new(StatusCode::FORBIDDEN, message));
    }
    let status = call.gateway.hub.scrub_status().await;
    let status = status.map_err(|error| Failure::of(error, &call.caller))?;
    reply::json(&view(&status))
}

fn view(status: &ScrubStatus) -> Value {
    let damaged = |damaged: &Damaged| {
        json!({
            "object": damaged.object,
            "problem": damaged.problem,
            "healed": damaged.is_healed,
        })
    };
    json!({
        "bytesPerSecond": status.rate,
        "intervalSeconds": status.interval.map(|interval| interval.as_secs()),
        "objects": status.objects,
        "bytes": status.bytes,
        "oldest": status.oldest_ms.map(date_of),
        "latest": status.latest_ms.map(date_of),
        "sharesDue": status.due,
        "damaged": status.damaged.iter().map(damaged).collect::<Vec<_>>(),
    })
}
