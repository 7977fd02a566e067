//! Telemetry: clients report at the end of a transfer and wait for the answer.
//!
//! It comes without the address of our dialect (clients post it to the root of the host), changes
//! nothing and proves nothing, so nobody is asked who they are, and only known fields reach a log.

use http::{Method, StatusCode};
use serde::Deserialize;

use crate::call::Call;
use crate::error::{Answer, Failure};
use crate::{json, reply};

/// Longer reports are refused.
const LONGEST: u64 = 1024 * 1024;
/// Longer ones are not looked at: anybody may send them.
const READ_BYTES: usize = 16 * 1024;

#[derive(Deserialize)]
struct Report {
    #[serde(default)]
    event: String,
    #[serde(default)]
    session_id: String,
}

/// `POST /v1/telemetry`
pub(crate) async fn answer(mut call: Call) -> Answer {
    if call.method != Method::POST {
        return Err(Failure::method("POST"));
    }
    let body = call.beginning(READ_BYTES, LONGEST).await?;
    // Whatever it is, the client only waits for a status.
    if let Ok(report) = json::decode::<Report>(&body) {
        let short = |text: String| -> String { text.chars().take(64).collect() };
        let (event, session) = (short(report.event), short(report.session_id));
        tracing::debug!(?event, ?session, bytes = body.len(), "a client reports");
    }
    let mut response = reply::empty();
    *response.status_mut() = StatusCode::OK;
    Ok(response)
}
