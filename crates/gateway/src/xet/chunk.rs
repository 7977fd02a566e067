//! Dedup queries: where else a chunk is, for who may know.

use ballast_format::hash::ChunkHash;
use http::StatusCode;

use super::hash;
use super::token::{self, Need};
use crate::call::Call;
use crate::error::{Answer, Failure};
use crate::reply;

/// What one run of a client says of itself; a longer text is not looked at.
const X_XET_SESSION_ID: &str = "x-xet-session-id";
const SESSION_BYTES: usize = 128;

/// `GET /v1/chunks/default/{hash}`: a shard with keyed hashes, or 404, which is the usual case.
pub(super) async fn query(mut call: Call, chunk: &str) -> Answer {
    let repo = token::open(&mut call, Need::Query)?;
    let chunk: ChunkHash = hash(chunk)?;
    let (hub, caller) = (&call.gateway.hub, &call.caller);
    let of = |error| Failure::of(error, caller);
    let mut answer = hub.dedup_answer(caller, Some(repo.id()), chunk).await.map_err(of)?;
    let session = call.header(X_XET_SESSION_ID).filter(|id| id.len() <= SESSION_BYTES);
    if let (None, Some(session)) = (&answer, session) {
        answer = hub.dedup_guess(caller, &repo, chunk, session).await.map_err(of)?;
    }
    match answer {
        Some(shard) => Ok(reply::octets(shard)),
        None => Err(Failure::new(StatusCode::NOT_FOUND, "chunk not found")),
    }
}
