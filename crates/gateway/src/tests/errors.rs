//! Each kind of error, as an anonymous caller and as a known one hears it.

use std::sync::Arc;

use ballast_format::hash::ObjectHash;
use ballast_format::id::{TokenId, UserId};
use ballast_format::log::TokenRole;
use ballast_node::Error;
use ballast_node::access::{Caller, UserCaller};
use ballast_node::quota::Measure;
use http::StatusCode;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};

use crate::body::Body;
use crate::error::Failure;

fn user() -> Caller {
    Caller::User(Arc::new(UserCaller {
        user: UserId::from_bytes([1; 16]),
        name: "ann".to_owned(),
        admin: false,
        token: TokenId::from_bytes([2; 16]),
        role: TokenRole::Write,
        expires_ms: None,
    }))
}

async fn told(failure: Failure) -> (http::HeaderMap, u16, Value) {
    let response: http::Response<Body> = failure.into_response();
    let (head, body) = response.into_parts();
    let bytes = body.collect().await.expect("a whole body").to_bytes();
    (head.headers, head.status.as_u16(), serde_json::from_slice(&bytes).expect("JSON"))
}

struct Row {
    error: Error,
    anonymous: u16,
    known: u16,
    code: Option<&'static str>,
}

fn row(error: Error, anonymous: u16, known: u16, code: Option<&'static str>) -> Row {
    Row { error, anonymous, known, code }
}

fn text() -> String {
    "x".to_owned()
}

fn quota(measure: Measure) -> Error {
    Error::QuotaExceeded { owner: text(), measure, used: 9, more: 2, limit: 10 }
}

/// The table of the reference, line by line, made anew for each caller.
fn table() -> Vec<Row> {
    let commit = Some(ObjectHash::from_bytes([7; 20]));
    let short = ballast_format::Error::malformed("shard", "it is short");
    let large = ballast_format::Error::TooLarge { what: "shard", size: 9, limit: 8 };
    vec![
        row(Error::RepoNotFound, 401, 404, Some("RepoNotFound")),
        row(Error::RevisionNotFound { revision: text() }, 404, 404, Some("RevisionNotFound")),
        row(Error::EntryNotFound { path: text(), commit }, 404, 404, Some("EntryNotFound")),
        row(Error::Gated { repo: text() }, 401, 403, Some("GatedRepo")),
        row(Error::BadToken, 401, 401, None),
        row(Error::LoginNeeded, 401, 401, None),
        row(Error::Denied { reason: text() }, 403, 403, None),
        row(Error::Disabled, 403, 403, None),
        row(Error::Invalid { reason: text() }, 400, 400, None),
        row(Error::Exists { what: text() }, 409, 409, None),
        row(Error::ParentMoved { expected: text(), tip: text() }, 412, 412, None),
        row(Error::Unsatisfiable { size: 9 }, 416, 416, None),
        row(quota(Measure::Bytes), 413, 413, Some("QuotaExceeded")),
        row(quota(Measure::Repos), 403, 403, Some("QuotaExceeded")),
        row(Error::TooLarge { what: text(), size: 9, limit: 8 }, 413, 413, None),
        row(Error::NotFound { what: text() }, 404, 404, None),
        row(Error::Conflict { reason: text() }, 409, 409, None),
        row(Error::Busy { reason: text() }, 503, 503, None),
        row(Error::Full, 507, 507, None),
        row(Error::NoRoom { reason: text() }, 507, 507, None),
        row(Error::Corrupt { what: text() }, 503, 503, None),
        row(short.into(), 400, 400, None),
        row(large.into(), 413, 413, None),
        row(Error::Internal { reason: text() }, 500, 500, None),
    ]
}

#[tokio::test]
async fn every_error_has_the_status_and_code_that_clients_know() {
    for (caller, is_known) in [(Caller::Anonymous, false), (user(), true)] {
        for Row { error, anonymous, known, code } in table() {
            let name = format!("{error:?}");
            let (headers, status, body) = told(Failure::of(error, &caller)).await;
            assert_eq!(status, if is_known { known } else { anonymous }, "{name}");
            let told_code = headers.get("x-error-code").and_then(|code| code.to_str().ok());
            assert_eq!(told_code, code, "{name}");
            assert!(body["error"].as_str().is_some_and(|text| !text.is_empty()), "{name}: {body}");
            assert!(headers.contains_key("x-error-message"), "{name}");
            assert_eq!(headers["content-type"], "application/json", "{name}");
        }
    }
}

#[tokio::test]
async fn some_words_are_matched_by_clients() {
    let caller = user();
    let (headers, _, body) = told(Failure::of(Error::BadToken, &caller)).await;
    assert_eq!(headers["x-error-message"], "Invalid credentials in Authorization header");
    assert_eq!(body, json!({"error": "Invalid credentials in Authorization header"}));
    let (headers, _, _) = told(Failure::of(Error::Disabled, &caller)).await;
    assert_eq!(headers["x-error-message"], "Access to this resource is disabled.");
}

#[tokio::test]
async fn headers_tell_what_a_status_cannot() {
    let commit = Some(ObjectHash::from_bytes([7; 20]));
    let missing = Error::EntryNotFound { path: text(), commit };
    let (headers, _, _) = told(Failure::of(missing, &user())).await;
    assert_eq!(headers["x-repo-commit"], "07".repeat(20).as_str());
    let (headers, _, _) = told(Failure::of(Error::Unsatisfiable { size: 9 }, &user())).await;
    assert_eq!(headers["content-range"], "bytes */9");
    let (headers, _, _) = told(Failure::of(Error::Busy { reason: text() }, &user())).await;
    assert_eq!(headers["retry-after"], "1");
    let (headers, _, _) = told(Failure::hidden(&Caller::Anonymous).challenge()).await;
    assert!(headers["www-authenticate"].to_str().is_ok_and(|value| value.starts_with("Basic ")));
    let (headers, _, _) = told(Failure::hidden(&user()).challenge()).await;
    assert!(!headers.contains_key("www-authenticate"));
}

#[tokio::test]
async fn what_is_inside_stays_inside() {
    let secret = "v1/xorb/ab/abcdef and /var/lib/ballast and os error 28";
    for error in
        [Error::Corrupt { what: secret.to_owned() }, Error::Internal { reason: secret.to_owned() }]
    {
        let (headers, _, body) = told(Failure::of(error, &user())).await;
        let message = headers["x-error-message"].to_str().expect("text").to_owned();
        for part in ["xorb", "/var", "os error"] {
            assert!(!body.to_string().contains(part), "{body}");
            assert!(!message.contains(part), "{message}");
        }
    }
}

#[tokio::test]
async fn a_header_holds_one_short_line_whatever_the_message_is() {
    let message = format!("a\r\nset-cookie: x=1\r\n\r\nb\u{e9}{}", "c".repeat(10_000));
    let (headers, _, body) = told(Failure::invalid(message.clone())).await;
    let line = headers["x-error-message"].to_str().expect("text").to_owned();
    assert!(line.starts_with("a??set-cookie: x=1????b?ccc"), "{line}");
    assert!(line.len() <= 500);
    assert!(!headers.contains_key("set-cookie"));
    assert_eq!(body["error"], message);
}

#[tokio::test]
async fn a_body_may_say_more_than_the_error() {
    let failure = Failure::new(StatusCode::CONFLICT, "exists")
        .body(json!({"url": "http://hub/a/b", "error": "not this"}));
    let (_, _, body) = told(failure).await;
    assert_eq!(body, json!({"error": "exists", "url": "http://hub/a/b"}));
}
