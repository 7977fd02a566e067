//! Xorbs: sent whole, asked for by hash.
//!
//! A body is checked while it streams to the store and is never whole in memory. Whether a xorb
//! was there already is told only to who may know.

use ballast_format::limits::MAX_XORB_UPLOAD_BYTES;
use ballast_node::access::Caller;
use serde::Deserialize;
use serde_json::json;

use super::token::{self, Need};
use super::xorb_hash;
use crate::call::Call;
use crate::error::{Answer, Failure};
use crate::rate::Load;
use crate::reply;

/// A grant request is a length and a checksum.
const GRANT_BYTES: u64 = 16 * 1024;

/// `POST /v1/xorbs/default/{hash}`
pub(super) async fn upload(mut call: Call, hash: &str) -> Answer {
    let repo = token::open(&mut call, Need::Write)?;
    call.flight.count_load(Load::Upload)?;
    let hash = xorb_hash(hash)?;
    let length = call.body.announced();
    let room = call.gateway.hub.check_room(&repo, length.unwrap_or(0)).await;
    room.map_err(|error| Failure::of(error, &call.caller).closing())?;
    let (hub, caller) = (std::sync::Arc::clone(&call.gateway.hub), call.caller.clone());
    let (stream, fate) = call.stream(MAX_XORB_UPLOAD_BYTES as u64)?;
    let was_inserted =
        hub.put_xorb(&caller, hash, length, stream).await.map_err(|error| fate.of(error))?;
    reply::json(&json!({"was_inserted": was_inserted}))
}

/// `HEAD /v1/xorbs/default/{hash}`
pub(super) async fn head(mut call: Call, hash: &str) -> Answer {
    token::open(&mut call, Need::Query)?;
    let hash = xorb_hash(hash)?;
    // Nobody in particular sends nothing, and need not know what is there.
    if matches!(call.caller, Caller::Anonymous) {
        return Err(unknown());
    }
    told(&call, call.gateway.hub.xorb_known(&call.caller, hash).await)
}

/// What a client sends to ask where a xorb may be uploaded.
#[derive(Deserialize)]
struct Wanted {
    /// Of the body that it would send.
    #[serde(rename = "length")]
    _length: u64,
}

/// `POST /v1/xorb-grants/default/{hash}`: 200 says that it is here, 404 that it is to be sent to
/// us like any other. There is no third place.
pub(super) async fn grant(mut call: Call, hash: &str) -> Answer {
    token::open(&mut call, Need::Write)?;
    let hash = xorb_hash(hash)?;
    let _: Wanted = call.json(GRANT_BYTES).await?;
    told(&call, call.gateway.hub.grant_xorb(&call.caller, hash).await)
}

fn told(call: &Call, known: ballast_node::Result<bool>) -> Answer {
    match known {
        Ok(true) => Ok(reply::empty()),
        Ok(false) => Err(unknown()),
        Err(error) => Err(Failure::of(error, &call.caller)),
    }
}

fn unknown() -> Failure {
    Failure::new(http::StatusCode::NOT_FOUND, "xorb not found")
}
