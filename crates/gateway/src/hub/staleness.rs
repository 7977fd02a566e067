//! What is said of a mirror whose upstream can't be asked: that it may be old, and how long so.

use http::{HeaderName, HeaderValue, Response};

use super::place::Context;
use crate::body::Body;

/// Seconds for which the upstream did not say whether this is how it is.
const X_BALLAST_STALE: HeaderName = HeaderName::from_static("x-ballast-stale");
/// The same as HTTP had it for caches.
const STALE: HeaderValue = HeaderValue::from_static("110 - \"Response is Stale\"");

/// The answer, with a mark if it comes from a mirror that may be older than its upstream.
pub(super) fn marked(at: &Context<'_>, mut answer: Response<Body>) -> Response<Body> {
    if let Some(since_ms) = at.hub().stale_since(at.repo()) {
        let seconds = at.hub().env().now_ms().saturating_sub(since_ms) / 1000;
        let headers = answer.headers_mut();
        headers.insert(http::header::WARNING, STALE);
        headers.insert(X_BALLAST_STALE, HeaderValue::from(seconds));
    }
    answer
}
