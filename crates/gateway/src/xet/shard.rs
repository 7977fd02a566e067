//! Shards: what was sent becomes files.
//!
//! Checking one means reading all that it names, which can take minutes. Version 2 tells the
//! client meanwhile that we are at it; version 1 has clients that wait without a limit.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use ballast_format::limits::MAX_SHARD_BYTES;
use ballast_node::access::Repo;
use ballast_node::hub::Hub;
use ballast_node::upload::{ShardPut, ShardTurn};
use bytes::Bytes;
use futures_util::Stream;
use futures_util::future::{Either, select};
use http::Response;
use http::header::{CONTENT_TYPE, HeaderValue};
use serde_json::{Value, json};

use super::token::{self, Need};
use crate::body::Body;
use crate::call::Call;
use crate::error::{Answer, Failure};
use crate::rate::Load;
use crate::reply;

/// A shard that is checked this fast is answered with a status of its own.
const PATIENCE: Duration = Duration::from_secs(2);
/// A line at least this often keeps the client and what is between us from giving up.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

type Work = Pin<Box<dyn Future<Output = Result<ShardPut, Failure>> + Send>>;
type Timer = Pin<Box<dyn Future<Output = ()> + Send>>;

/// `POST /v1/shards`
pub(super) async fn upload_v1(mut call: Call) -> Answer {
    let repo = token::open(&mut call, Need::Write)?;
    call.flight.count_load(Load::Upload)?;
    let turn = turn(&call).await?;
    let shard = call.bytes(MAX_SHARD_BYTES as u64).await?;
    let put = work(&call, repo, turn, shard, Arc::default()).await?;
    reply::json(&json!({
        "result": u8::from(put.stored),
        "shard_hash": put.hash.map(|hash| hash.to_string()),
    }))
}

/// `POST /v2/shards`
pub(super) async fn upload_v2(mut call: Call) -> Answer {
    let repo = token::open(&mut call, Need::Write)?;
    call.flight.count_load(Load::Upload)?;
    let turn = turn(&call).await?;
    let shard = call.bytes(MAX_SHARD_BYTES as u64).await?;
    let progress = Arc::new(Progress::default());
    let mut work = work(&call, repo, turn, shard, Arc::clone(&progress));
    let hub = Arc::clone(&call.gateway.hub);
    let patience = Arc::clone(hub.env());
    let body = match select(&mut work, patience.sleep(PATIENCE)).await {
        Either::Left((outcome, _)) => {
            outcome?;
            Body::from(line(&json!({"type": "result"})))
        }
        Either::Right(_) => {
            let timer = pause(Arc::clone(&hub));
            let request_id = call.request_id;
            let work = Some(work);
            Body::stream(Box::pin(Lines { work, progress, told: None, timer, hub, request_id }))
        }
    };
    let mut response = Response::new(body);
    let value = HeaderValue::from_static("application/x-ndjson");
    response.headers_mut().insert(CONTENT_TYPE, value);
    Ok(response)
}

/// Waits for the user's turn, with the body still on their side.
async fn turn(call: &Call) -> Result<ShardTurn, Failure> {
    let turn = call.gateway.hub.shard_turn(&call.caller).await;
    turn.map_err(|error| Failure::of(error, &call.caller).closing())
}

fn work(call: &Call, repo: Repo, turn: ShardTurn, shard: Bytes, progress: Arc<Progress>) -> Work {
    let (hub, caller) = (Arc::clone(&call.gateway.hub), call.caller.clone());
    Box::pin(async move {
        let report = |verified: u64, total: u64| progress.set(verified, total);
        let put = hub.put_shard(&caller, &repo, turn, shard, &report).await;
        put.map_err(|error| Failure::of(error, &caller))
    })
}

fn pause(hub: Arc<Hub>) -> Timer {
    Box::pin(async move { hub.env().sleep(KEEP_ALIVE).await })
}

/// How far the check is.
#[derive(Default)]
struct Progress {
    verified: AtomicU64,
    total: AtomicU64,
}

impl Progress {
    fn set(&self, verified: u64, total: u64) {
        self.total.store(total, Ordering::Relaxed);
        self.verified.store(verified, Ordering::Relaxed);
    }

    fn get(&self) -> (u64, u64) {
        (self.verified.load(Ordering::Relaxed), self.total.load(Ordering::Relaxed))
    }
}

/// The answer of version 2 while the work goes on. The work runs only while the client listens: it
/// ends with the connection and leaves nothing half-done.
struct Lines {
    work: Option<Work>,
    progress: Arc<Progress>,
    told: Option<(u64, u64)>,
    timer: Timer,
    hub: Arc<Hub>,
    request_id: HeaderValue,
}

impl Stream for Lines {
    type Item = ballast_node::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(work) = self.work.as_mut() else { return Poll::Ready(None) };
        if let Poll::Ready(outcome) = work.as_mut().poll(context) {
            self.work = None;
            let last = match outcome {
                Ok(_) => json!({"type": "result"}),
                Err(failure) => {
                    failure.log(&self.request_id);
                    let (message, retryable) = (failure.message(), failure.is_retryable());
                    json!({"type": "error", "message": message, "retryable": retryable})
                }
            };
            return Poll::Ready(Some(Ok(line(&last))));
        }
        let now = self.progress.get();
        let is_due = self.timer.as_mut().poll(context).is_ready();
        if !is_due && self.told == Some(now) {
            return Poll::Pending;
        }
        self.told = Some(now);
        self.timer = pause(Arc::clone(&self.hub));
        // The new timer must be polled once, so that it wakes us; a stream that has given an item
        // is asked again at once, and then it is.
        let (verified, total) = now;
        Poll::Ready(Some(Ok(line(
            &json!({"type": "validating", "verified": verified, "total": total}),
        ))))
    }
}

fn line(value: &Value) -> Bytes {
    Bytes::from(format!("{value}\n"))
}
