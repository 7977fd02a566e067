//! Answers that many routes give: JSON, nothing, bytes.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode};
use serde::Serialize;

use crate::body::Body;
use crate::error::{Answer, Failure};

/// 200 with a JSON body.
pub(crate) fn json(value: &impl Serialize) -> Answer {
    json_as(StatusCode::OK, "application/json", value)
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
