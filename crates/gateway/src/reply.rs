//! Answers that many routes give: JSON, nothing, bytes.

use std::sync::Arc;

use ballast_node::hub::Hub;
use bytes::Bytes;
use futures_util::stream;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::body::Body;
use crate::error::{Answer, Failure};

/// 200 with a JSON body.
pub(crate) fn json(value: &impl Serialize) -> Answer {
    json_as(StatusCode::OK, "application/json", value)
}

/// 200 with a JSON object a line, as a piece of work tells them. The work belongs to the process
/// and goes on if whoever asked is gone. At most `queue` lines wait; the last one is what came of
/// the work, or an object of the type `error`.
pub(crate) fn lines_of<W>(
    hub: Arc<Hub>,
    name: &'static str,
    queue: usize,
    work: impl FnOnce(Arc<Hub>, mpsc::Sender<Value>) -> W,
) -> Response<Body>
where
    W: Future<Output = Result<Value, String>> + Send + 'static,
{
    let (lines, told) = mpsc::channel::<Value>(queue);
    let runner = hub.runner().clone();
    let work = work(hub, lines.clone());
    runner.spawn(name, async move {
        let done = work.await;
        let last = done.unwrap_or_else(|message| json!({"type": "error", "message": message}));
        // Whoever asked may be gone.
        let _ = lines.send(last).await;
    });
    let body = stream::unfold(told, |mut told| async move {
        let line = told.recv().await?;
        Some((Ok(Bytes::from(format!("{line}\n"))), told))
    });
    let mut response = Response::new(Body::stream(Box::pin(body)));
    let kind = HeaderValue::from_static("application/x-ndjson");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

/// What whoever asked is told of a piece of work that stopped at an error inside; the log has it.
pub(crate) fn cut_short(what: &str, error: &ballast_node::Error) -> String {
    tracing::warn!(%error, "{what} did not come to its end");
    format!("{what} could not go on; see the log")
}

/// A JSON body under a media type of its own.
pub(crate) fn json_as(
    status: StatusCode,
    media_type: &'static str,
    value: &impl Serialize,
) -> Answer {
    let bytes = serde_json::to_vec(value).map_err(|error| {
        tracing::error!(%error, "an answer can't be written as JSON");
        Failure::new(StatusCode::INTERNAL_SERVER_ERROR, "an error inside the hub")
    })?;
    let mut response = Response::new(Body::from(bytes));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    Ok(response)
}

/// 200 with no body.
pub(crate) fn empty() -> Response<Body> {
    Response::new(Body::empty())
}

/// 200 with bytes of any kind.
pub(crate) fn octets(bytes: Bytes) -> Response<Body> {
    let mut response = Response::new(Body::from(bytes));
    let value = HeaderValue::from_static("application/octet-stream");
    response.headers_mut().insert(CONTENT_TYPE, value);
    response
}
