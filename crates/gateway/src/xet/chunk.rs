//! Dedup queries: where else a chunk is, for who may know.

use ballast_format::hash::ChunkHash;
use bytes::Bytes;
use http::StatusCode;

use super::hash;
use super::token::{self, Need};
use crate::call::Call;
use crate::error::{Answer, Failure};
use crate::reply;

/// `GET /v1/chunks/default/{hash}`: a shard with keyed hashes, or 404, which is the usual case.
pub(super) async fn query(mut call: Call, chunk: &str) -> Answer {
    token::open(&mut call, Need::Query)?;
    let chunk: ChunkHash = hash(chunk)?;
    let answer = call.gateway.hub.dedup_answer(&call.caller, chunk).await;
    match answer.map_err(|error| Failure::of(error, &call.caller))? {
        Some(shard) => Ok(reply::octets(Bytes::from(shard))),
        None => Err(Failure::new(StatusCode::NOT_FOUND, "chunk not found")),
    }
}
