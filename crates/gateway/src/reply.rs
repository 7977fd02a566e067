//! Answers that many routes give: JSON, nothing, bytes.

use bytes::Bytes;
use futures_util::stream;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode};
use serde::Serialize;
use serde_json::Value;
use tokio::sync::mpsc;

use crate::body::Body;
use crate::error::{Answer, Failure};

/// 200 with a JSON body.
pub(crate) fn json(value: &impl Serialize) -> Answer {
    json_as(StatusCode::OK, "application/json", value)
}

/// 200 with a JSON object a line, as they come; the end is when nobody sends any more.
pub(crate) fn lines(told: mpsc::Receiver<Value>) -> Response<Body> {
    let body = stream::unfold(told, |mut told| async move {
        let line = told.recv().await?;
        Some((Ok(Bytes::from(format!("{line}\n"))), told))
    });
    let mut response = Response::new(Body::stream(Box::pin(body)));
    let kind = HeaderValue::from_static("application/x-ndjson");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
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
