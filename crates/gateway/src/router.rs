//! Which dialect a request belongs to, and what every answer has in common.
//!
//! Paths are matched as encoded segments, by slice patterns: the routes of the hub are few in
//! shape, and a framework that decodes before it routes could not tell `a%2Fb` from `a/b`.
//! Authentication comes first, for whatever is not authorised by its own address or token.

use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ballast_node::access::Caller;
use futures_util::FutureExt as _;
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, ORIGIN,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};

use crate::auth;
use crate::body::{Body, RequestBody};
use crate::call::{Call, Path, Query};
use crate::error::{Answer, Failure};
use crate::operate::metrics::Dialect;
use crate::rate::Flight;
use crate::{Gateway, hub, lfs, links, operate, xet};

/// The longest target of a request.
const LONGEST_TARGET: usize = 8 * 1024;
/// The longest request id that is taken over from a client.
const LONGEST_REQUEST_ID: usize = 128;

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const X_AMZN_TRACE_ID: HeaderName = HeaderName::from_static("x-amzn-trace-id");

/// What browsers may send us.
const ALLOWED_HEADERS: &str = "Authorization, Range, Content-Type, Accept, If-None-Match, \
     X-Xet-Session-Id, X-Request-Id, X-HF-Download-Counter";
/// What scripts in browsers may read of our answers.
const EXPOSED_HEADERS: &str = "ETag, X-Repo-Commit, X-Linked-ETag, X-Linked-Size, X-Xet-Hash, \
     Link, Content-Range, Content-Disposition, Accept-Ranges, X-Error-Code, X-Error-Message, \
     X-Request-Id, X-Total-Count, X-Xet-Access-Token, X-Xet-Token-Expiration, X-Xet-Cas-Url";

/// Answers one request; it never fails and never panics.
pub(crate) async fn answer(
    gateway: Arc<Gateway>,
    request: Request<RequestBody>,
    socket: IpAddr,
) -> Response<Body> {
    let (head, body) = request.into_parts();
    let request_id = gateway.request_ids.of(&head.headers);
    let from_browser = head.headers.contains_key(ORIGIN);
    let (method, path) = (head.method, Path::new(head.uri));
    let peer = gateway.client_of(&head.headers, socket);
    let metrics = Arc::clone(&gateway);
    let flight = Flight::new(&gateway);
    let mut dialect = Dialect::Hub;

    let outcome = if is_preflight(&method, &head.headers) {
        Ok(preflight())
    } else {
        let query = path.query().map_or_else(|| Ok(Query::default()), Query::parse);
        let arrival = query.map(|query| Call {
            caller: Caller::Anonymous,
            method: method.clone(),
            path: path.clone(),
            query,
            headers: head.headers,
            peer,
            request_id: request_id.clone(),
            gateway,
            flight: Arc::clone(&flight),
            body,
        });
        match arrival {
            Ok(call) => {
                let work = AssertUnwindSafe(dispatch(call, &mut dialect)).catch_unwind();
                work.await.unwrap_or_else(|_| {
                    let path = links::shown(path.path());
                    tracing::error!(%method, %path, ?request_id, "a handler panicked");
                    let status = StatusCode::INTERNAL_SERVER_ERROR;
                    Err(Failure::new(status, "an error inside the hub").closing())
                })
            }
            Err(failure) => Err(failure),
        }
    };

    let mut response = outcome.unwrap_or_else(|failure| {
        failure.log(&request_id);
        failure.into_response()
    });
    metrics.metrics.answered(dialect, response.status());
    let (path, status) = (links::shown(path.path()), response.status().as_u16());
    tracing::debug!(%method, %path, status, ?request_id);
    let headers = response.headers_mut();
    headers.insert(X_REQUEST_ID, request_id);
    if from_browser {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED_HEADERS));
    }
    response.map(|body| body.counted_until_sent(flight))
}

/// One request to the dialect that it speaks.
async fn dispatch(call: Call, dialect: &mut Dialect) -> Answer {
    let path = call.path.clone();
    if path.as_str().len() > LONGEST_TARGET {
        return Err(Failure::new(StatusCode::URI_TOO_LONG, "the address is too long").closing());
    }
    let segments = path.segments();
    match segments.as_slice() {
        ["health"] => {
            *dialect = Dialect::Operate;
            return operate::health(&call);
        }
        ["metrics"] => {
            *dialect = Dialect::Operate;
            return operate::metrics(&call);
        }
        ["v1", "telemetry"] => {
            call.flight.count_address(call.peer)?;
            *dialect = Dialect::Xet;
            return xet::telemetry::answer(call).await;
        }
        _ => call.flight.count_address(call.peer)?,
    }
    // Where others write to the same store, what decisions rest on may have changed.
    let hub = Arc::clone(&call.gateway.hub);
    let fresh = hub.freshen().await;
    fresh.map_err(|error| Failure::of(error, &call.caller))?;
    let generation = hub.index_generation();
    let outcome = dispatch_fresh(call, &segments, dialect).await;
    // What an index lacks that has just been replaced says nothing.
    if outcome.is_err() && hub.index_generation() != generation {
        return Err(Failure::busy("the index is being made anew; try again"));
    }
    outcome
}

/// The same, for a request that needs to know what is so now.
async fn dispatch_fresh(mut call: Call, segments: &[&str], dialect: &mut Dialect) -> Answer {
    match segments {
        ["xet", "v1" | "v2", ..] => {
            *dialect = Dialect::Xet;
            Box::pin(xet::route(call, &segments[1..])).await
        }
        ["api", "ballast", "lfs", "v1", token] => {
            *dialect = Dialect::Lfs;
            Box::pin(lfs::signed(call, token)).await
        }
        ["api", "ballast", "v1", rest @ ..] => {
            *dialect = Dialect::Operate;
            call.authenticate()?;
            Box::pin(operate::admin::route(call, rest)).await
        }
        [repo @ .., "info", "lfs", "objects", "batch"] if repo.len() >= 2 => {
            *dialect = Dialect::Lfs;
            call.authenticate().map_err(Failure::challenge)?;
            lfs::batch::answer(call, repo).await.map_err(lfs::worded)
        }
        [repo @ .., "info", "lfs", "locks", "verify"] if repo.len() >= 2 => {
            *dialect = Dialect::Lfs;
            call.authenticate().map_err(Failure::challenge)?;
            lfs::locks(call, repo).await.map_err(lfs::worded)
        }
        _ => {
            call.authenticate()?;
            let gateway = Arc::clone(&call.gateway);
            hub::route(&gateway, call, segments).await
        }
    }
}

impl Call {
    /// Finds out who calls; order of rule 6.2: before anything is parsed or looked up.
    fn authenticate(&mut self) -> Result<(), Failure> {
        let caller = auth::authenticate(&self.gateway, &self.headers, self.peer)?;
        self.goes_on_as(caller)
    }
}

fn is_preflight(method: &Method, headers: &HeaderMap) -> bool {
    method == Method::OPTIONS && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

fn preflight() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    let methods = HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE");
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, methods);
    headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(ALLOWED_HEADERS));
    headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("86400"));
    response
}

/// Names for requests that come without one.
pub(crate) struct RequestIds {
    next: AtomicU64,
    start: u64,
}

impl RequestIds {
    pub(crate) fn starting_at(start: u64) -> Self {
        Self { next: AtomicU64::new(0), start }
    }

    /// The id that the client gave, if it is harmless, or a new one.
    fn of(&self, headers: &HeaderMap) -> HeaderValue {
        let given = headers.get(X_AMZN_TRACE_ID).or_else(|| headers.get(X_REQUEST_ID));
        let is_harmless = |value: &&HeaderValue| {
            let allowed = |b: &u8| b.is_ascii_alphanumeric() || b"-_.=;:".contains(b);
            !value.is_empty()
                && value.len() <= LONGEST_REQUEST_ID
                && value.as_bytes().iter().all(allowed)
        };
        if let Some(value) = given.filter(is_harmless) {
            return value.clone();
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let text = format!("{:016x}-{number:x}", self.start);
        HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from(number))
    }
}
