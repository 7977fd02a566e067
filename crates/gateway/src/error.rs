//! What a client hears when something goes wrong: the one file that turns kinds of errors into
//! statuses, codes and bodies.
//!
//! A hidden repo and a missing one become the same answer here, and nothing of our inside (keys,
//! paths, sources of errors) leaves; that goes to the log, under the request's id.

use std::fmt::Write as _;

use ballast_format::ErrorKind;
use ballast_node::Error;
use ballast_node::access::Caller;
use ballast_node::quota::Measure;
use http::header::{
    CONTENT_RANGE, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE,
};
use http::{Response, StatusCode};
use serde_json::{Value, json};

use crate::body::Body;

/// What every handler gives back.
pub(crate) type Answer = Result<Response<Body>, Failure>;

const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
pub(crate) const X_ERROR_CODE: HeaderName = HeaderName::from_static("x-error-code");
pub(crate) const X_ERROR_MESSAGE: HeaderName = HeaderName::from_static("x-error-message");
pub(crate) const X_REPO_COMMIT: HeaderName = HeaderName::from_static("x-repo-commit");

/// Clients match on this text.
const BAD_TOKEN: &str = "Invalid credentials in Authorization header";
/// And on this one.
const DISABLED: &str = "Access to this resource is disabled.";
/// What is stored and asked for is not what it was.
const DAMAGED: &str = "stored bytes are damaged or missing: upload the file again, or ask the \
                       administrator of the hub to look at `ballast verify`";
/// The longest `X-Error-Message`; the body has the whole text.
const LONGEST_HEADER: usize = 500;

/// A request that is refused or failed, ready to be told.
#[derive(Debug)]
pub(crate) struct Failure(Box<Parts>);

#[derive(Debug)]
struct Parts {
    status: StatusCode,
    code: Option<&'static str>,
    message: String,
    headers: Vec<(HeaderName, HeaderValue)>,
    body: Option<Value>,
    /// For the log only.
    cause: Option<Error>,
    /// Whether the connection ends with this answer.
    closes: bool,
}

impl Failure {
    /// A refusal with a status and the sentence that explains it.
    pub(crate) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self(Box::new(Parts {
            status,
            code: None,
            message: message.into(),
            headers: Vec::new(),
            body: None,
            cause: None,
            closes: false,
        }))
    }

    /// 400: the request is wrong and will be wrong again.
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// 404 for a route that we don't have.
    pub(crate) fn no_route() -> Self {
        Self::new(StatusCode::NOT_FOUND, "there is no such route")
    }

    /// 405 with what would have been allowed.
    pub(crate) fn method(allowed: &'static str) -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "this method is not allowed here")
            .header(http::header::ALLOW, HeaderValue::from_static(allowed))
    }

    /// 413: more than we take.
    pub(crate) fn too_large(what: &str, limit: u64) -> Self {
        let message = format!("{what} is over the limit of {limit} bytes");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, message).closing()
    }

    /// 503 that asks to come again.
    pub(crate) fn busy(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, message)
            .header(RETRY_AFTER, HeaderValue::from_static("1"))
    }

    /// 429 with the seconds to wait, in both forms that clients read.
    pub(crate) fn too_many(message: impl Into<String>, seconds: u64) -> Self {
        let failure = Self::new(StatusCode::TOO_MANY_REQUESTS, message)
            .header(RETRY_AFTER, HeaderValue::from(seconds));
        // The Python client waits by this one.
        match HeaderValue::try_from(format!("\"api\";r=0;t={seconds}")) {
            Ok(limit) => failure.header(RATE_LIMIT, limit),
            Err(_) => failure,
        }
    }

    /// 401 for credentials that are not good, in the words that clients know.
    pub(crate) fn bad_token() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, BAD_TOKEN)
    }

    /// The refusal for a repo that is not there or that the caller may not know of.
    pub(crate) fn hidden(caller: &Caller) -> Self {
        // Rule 6.2: one value for both, whatever was looked up.
        let status = match caller {
            Caller::Anonymous => StatusCode::UNAUTHORIZED,
            Caller::User(_) => StatusCode::NOT_FOUND,
        };
        Self::new(status, "Repository not found").code("RepoNotFound")
    }

    /// What `caller` hears of `error`.
    pub(crate) fn of(error: Error, caller: &Caller) -> Self {
        match error {
            Error::RepoNotFound => Self::hidden(caller),
            Error::RevisionNotFound { ref revision } => {
                let message = format!("Revision not found: `{revision}`");
                Self::new(StatusCode::NOT_FOUND, message).code("RevisionNotFound")
            }
            Error::EntryNotFound { ref path, commit } => {
                // The Python client looks for the words behind the path, and adds advice to them.
                let message =
                    format!("Entry not found: `{path}`. A file with this name doesn't exist.");
                let failure = Self::new(StatusCode::NOT_FOUND, message).code("EntryNotFound");
                match commit.and_then(|commit| HeaderValue::try_from(commit.to_string()).ok()) {
                    Some(commit) => failure.header(X_REPO_COMMIT, commit),
                    None => failure,
                }
            }
            Error::Gated { ref repo } => {
                let status = match caller {
                    Caller::Anonymous => StatusCode::UNAUTHORIZED,
                    Caller::User(_) => StatusCode::FORBIDDEN,
                };
                let message = format!(
                    "Access to {repo} is restricted. You must be authenticated and have been \
                     given access to read its files."
                );
                Self::new(status, message).code("GatedRepo")
            }
            Error::BadToken => Self::bad_token(),
            Error::LoginNeeded => {
                Self::new(StatusCode::UNAUTHORIZED, "This needs a token; none was given")
            }
            Error::Denied { reason } => Self::new(StatusCode::FORBIDDEN, reason),
            Error::QuotaExceeded { .. } => Self::quota(&error),
            Error::AwayFromHome { .. } => Self::away(&error),
            Error::Refused { reason, .. } => {
                Self::new(StatusCode::FORBIDDEN, reason).code("PolicyRefused")
            }
            Error::Disabled => Self::new(StatusCode::FORBIDDEN, DISABLED),
            Error::Invalid { reason } => Self::invalid(reason),
            Error::Exists { ref what } => {
                Self::new(StatusCode::CONFLICT, format!("{what} exists already"))
            }
            Error::ParentMoved { ref expected, ref tip } => Self::new(
                StatusCode::PRECONDITION_FAILED,
                format!("The branch has moved: it is at `{tip}`, not at `{expected}`"),
            ),
            Error::Unsatisfiable { size } => Self::unsatisfiable(size),
            Error::TooLarge { ref what, size, limit } => Self::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                format!("{what} is too large: {size} is over the limit of {limit}"),
            ),
            Error::NotFound { ref what } => {
                Self::new(StatusCode::NOT_FOUND, format!("{what} not found"))
            }
            Error::Conflict { reason } => Self::new(StatusCode::CONFLICT, reason),
            Error::Busy { reason } => Self::busy(reason),
            Error::Upstream { reason, retry_seconds } => Self::upstream(reason, retry_seconds),
            Error::NoRoom { reason } => Self::new(StatusCode::INSUFFICIENT_STORAGE, reason),
            Error::Full => Self::new(StatusCode::INSUFFICIENT_STORAGE, "the storage is full"),
            Error::Format { reason, too_large: false } => Self::invalid(reason),
            Error::Format { reason, too_large: true } => {
                Self::new(StatusCode::PAYLOAD_TOO_LARGE, reason)
            }
            other => Self::inside(other),
        }
    }

    /// The repo is written to in another region. Not 409, which some clients take for "it is
    /// there".
    fn away(error: &Error) -> Self {
        let failure = Self::new(StatusCode::MISDIRECTED_REQUEST, error.to_string());
        let failure = failure.code("AwayFromHome");
        let Error::AwayFromHome { region, address, .. } = error else { return failure };
        failure.body(json!({"home": {"region": region, "address": address}}))
    }

    /// An upstream failed. Never a 401 or a 404, which clients take for the last word.
    fn upstream(reason: String, retry_seconds: u64) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, reason)
            .header(RETRY_AFTER, HeaderValue::from(retry_seconds))
    }

    /// More than an owner may have. Not 507: clients try that again.
    fn quota(error: &Error) -> Self {
        let Error::QuotaExceeded { measure, used, more, limit, .. } = error else {
            return Self::invalid(error.to_string());
        };
        let status = match measure {
            Measure::Bytes => StatusCode::PAYLOAD_TOO_LARGE,
            Measure::Repos => StatusCode::FORBIDDEN,
        };
        let quota = json!({"of": measure.to_string(), "used": used, "more": more, "limit": limit});
        let failure = Self::new(status, error.to_string()).code("QuotaExceeded");
        failure.body(json!({"quota": quota}))
    }

    /// 416 with the size that there is.
    pub(crate) fn unsatisfiable(size: u64) -> Self {
        let failure = Self::new(
            StatusCode::RANGE_NOT_SATISFIABLE,
            format!("the range lies outside of the {size} bytes that there are"),
        );
        match HeaderValue::try_from(format!("bytes */{size}")) {
            Ok(value) => failure.header(CONTENT_RANGE, value),
            Err(_) => failure,
        }
    }

    /// A fault on our side: the client learns what to do, the log learns why.
    fn inside(error: Error) -> Self {
        let failure = match error.kind() {
            // Something that the hub promises to have is not there. Not a 404: clients would
            // remember that the file does not exist.
            ErrorKind::Unavailable | ErrorKind::NotFound | ErrorKind::Conflict => {
                Self::busy("the storage does not answer now; try again")
            }
            // Another copy, or somebody who sends it again, may mend it: no 500 either.
            ErrorKind::Corrupt => Self::new(StatusCode::SERVICE_UNAVAILABLE, DAMAGED)
                .header(RETRY_AFTER, HeaderValue::from_static("300")),
            ErrorKind::Denied | ErrorKind::Invalid | ErrorKind::Internal => {
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "an error inside the hub")
            }
        };
        failure.caused_by(error)
    }

    /// Sets `X-Error-Code`.
    pub(crate) fn code(mut self, code: &'static str) -> Self {
        self.0.code = Some(code);
        self
    }

    /// Adds a header.
    pub(crate) fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.headers.push((name, value));
        self
    }

    /// Gives the body other members than `error`, which stays the first.
    pub(crate) fn body(mut self, body: Value) -> Self {
        self.0.body = Some(body);
        self
    }

    /// Asks for credentials in the way git and git-lfs understand.
    pub(crate) fn challenge(self) -> Self {
        if self.0.status == StatusCode::UNAUTHORIZED {
            let value = HeaderValue::from_static("Basic realm=\"ballast\", charset=\"UTF-8\"");
            return self.header(WWW_AUTHENTICATE, value);
        }
        self
    }

    /// Ends the connection after this answer: the rest of the body is not worth reading.
    pub(crate) fn closing(mut self) -> Self {
        self.0.closes = true;
        self
    }

    fn caused_by(mut self, error: Error) -> Self {
        self.0.cause = Some(error);
        self
    }

    /// The sentence that will be sent.
    pub(crate) fn message(&self) -> &str {
        &self.0.message
    }

    /// Whether the same request may succeed later.
    pub(crate) fn is_retryable(&self) -> bool {
        self.0.status.is_server_error() || self.0.status == StatusCode::TOO_MANY_REQUESTS
    }

    /// Writes the cause, which no client sees, to the log.
    pub(crate) fn log(&self, request_id: &HeaderValue) {
        let Some(cause) = &self.0.cause else { return };
        let mut chain = String::new();
        let mut next: Option<&dyn std::error::Error> = Some(cause);
        while let Some(error) = next {
            let _ = write!(chain, "{}{error}", if chain.is_empty() { "" } else { ": " });
            next = error.source();
        }
        if cause.kind() == ErrorKind::Unavailable {
            tracing::warn!(?request_id, error = chain, "a request could not be served");
        } else {
            tracing::error!(?request_id, error = chain, "a request failed");
        }
    }

    /// The answer itself.
    pub(crate) fn into_response(self) -> Response<Body> {
        let parts = *self.0;
        let mut object = serde_json::Map::new();
        object.insert("error".to_owned(), json!(parts.message));
        if let Some(Value::Object(more)) = parts.body {
            for (name, value) in more {
                object.entry(name).or_insert(value);
            }
        }
        let mut response = Response::new(Body::from(Value::Object(object).to_string()));
        *response.status_mut() = parts.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(code) = parts.code {
            headers.insert(X_ERROR_CODE, HeaderValue::from_static(code));
        }
        headers.insert(X_ERROR_MESSAGE, one_line(&parts.message));
        if parts.closes {
            headers.insert(http::header::CONNECTION, HeaderValue::from_static("close"));
        }
        for (name, value) in parts.headers {
            headers.insert(name, value);
        }
        response
    }
}

/// Text as a header may carry it: visible ASCII, on one line, not too long.
fn one_line(text: &str) -> HeaderValue {
    let visible = |c: char| if c.is_ascii_graphic() || c == ' ' { c } else { '?' };
    let text: String = text.chars().take(LONGEST_HEADER).map(visible).collect();
    HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static("error"))
}
