//! What a link from a batch does: take an object or a part of one, join parts, confirm, give.

use std::ops::Range;
use std::sync::Arc;

use ballast_node::access::{Access, Repo};
use http::header::{ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderValue};
use http::{Method, Response, StatusCode};
use serde::Deserialize;
use serde_json::json;

use super::worded;
use crate::body::Body;
use crate::call::Call;
use crate::error::{Answer, Failure};
use crate::links::{LfsAct, LfsLink, Purpose};
use crate::rate::Load;
use crate::reply;
use crate::xet::token;

/// The list of parts of one upload.
const PARTS_BYTES: u64 = 1 << 20;

/// Any method on a link.
pub(crate) async fn answer(call: Call, link: &str) -> Answer {
    act(call, link).await.map_err(worded)
}

async fn act(mut call: Call, link: &str) -> Answer {
    let now = call.gateway.now_seconds();
    let claims = call.gateway.signer.open(Purpose::Lfs, now, link);
    let refuse = |reason| Failure::new(StatusCode::FORBIDDEN, reason);
    let link = claims.and_then(|claims| LfsLink::decode(&claims).ok());
    let link = link.ok_or_else(|| refuse("this link is not one of ours"))?;
    if now > link.expires {
        return Err(refuse("this link has expired"));
    }
    let caller = token::caller_of(&call, link.holder)?;
    call.goes_on_as(caller)?;
    let reads = link.proposes || matches!(link.act, LfsAct::Get);
    let access = if reads { Access::Read } else { Access::Write };
    let repo = call.gateway.hub.repo_by_id(&call.caller, link.repo, access);
    let repo = repo.map_err(|error| Failure::of(error, &call.caller))?;
    if reads {
        let reading = call.gateway.hub.may_read_files(&call.caller, &repo);
        reading.map_err(|error| Failure::of(error, &call.caller))?;
    }
    let method = call.method.clone();
    if matches!(link.act, LfsAct::Put | LfsAct::Part { .. }) && method == Method::PUT {
        call.flight.count_load(Load::Upload)?;
        let room = call.gateway.hub.check_room(&repo, link.size).await;
        room.map_err(|error| Failure::of(error, &call.caller).closing())?;
    }
    match link.act {
        LfsAct::Put if method == Method::PUT => put(call, &repo, &link).await,
        LfsAct::Part { number, length, upload } if method == Method::PUT => {
            check_length(&call, length)?;
            let (hub, caller) = (Arc::clone(&call.gateway.hub), call.caller.clone());
            let (stream, fate) = call.stream(length)?;
            let etag = hub.put_part(&caller, upload, number, length, stream).await;
            let etag = etag.map_err(|error| fate.of(error))?;
            let mut response = reply::empty();
            if let Ok(etag) = HeaderValue::try_from(format!("\"{etag}\"")) {
                response.headers_mut().insert(ETAG, etag);
            }
            Ok(response)
        }
        LfsAct::Complete { upload } if method == Method::POST => {
            let parts: Parts = call.json(PARTS_BYTES).await?;
            let parts = parts.checked(&link)?;
            let hub = &call.gateway.hub;
            let done =
                hub.complete_parts(&call.caller, &repo, upload, (link.sha256, link.size), &parts);
            done.await.map_err(|error| Failure::of(error, &call.caller))?;
            reply::json(&json!({"success": true}))
        }
        LfsAct::Verify if method == Method::POST => verify(call, &repo, &link).await,
        LfsAct::Get if method == Method::GET || method == Method::HEAD => {
            get(&call, &repo, &link).await
        }
        LfsAct::Put | LfsAct::Part { .. } => Err(Failure::method("PUT")),
        LfsAct::Complete { .. } | LfsAct::Verify => Err(Failure::method("POST")),
        LfsAct::Get => Err(Failure::method("GET, HEAD")),
    }
}

/// Refuses a body whose announced length is not what the link is for.
fn check_length(call: &Call, length: u64) -> Result<(), Failure> {
    match call.body.announced() {
        Some(announced) if announced != length => {
            let message = format!("this link is for {length} bytes, not for {announced}");
            Err(Failure::invalid(message).closing())
        }
        _ => Ok(()),
    }
}

async fn put(call: Call, repo: &Repo, link: &LfsLink) -> Answer {
    check_length(&call, link.size)?;
    let (hub, caller) = (Arc::clone(&call.gateway.hub), call.caller.clone());
    let (stream, fate) = call.stream(link.size)?;
    let done = hub.put_file(&caller, repo, link.sha256, link.size, stream);
    done.await.map_err(|error| fate.of(error))?;
    Ok(reply::empty())
}

#[derive(Deserialize)]
struct Parts {
    oid: String,
    parts: Vec<Part>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Part {
    part_number: u32,
    etag: String,
}

impl Parts {
    /// The parts as the hub counts them, if they are for the link's object.
    fn checked(self, link: &LfsLink) -> Result<Vec<(u32, String)>, Failure> {
        check_oid(&self.oid, link)?;
        let plain = |etag: &str| etag.trim_matches('"').to_owned();
        Ok(self.parts.iter().map(|part| (part.part_number, plain(&part.etag))).collect())
    }
}

fn check_oid(oid: &str, link: &LfsLink) -> Result<(), Failure> {
    if oid.parse().is_ok_and(|sha256: ballast_format::hash::Sha256| sha256 == link.sha256) {
        return Ok(());
    }
    Err(Failure::invalid("this link is for another object"))
}

#[derive(Deserialize)]
struct Claimed {
    oid: String,
    size: u64,
}

async fn verify(mut call: Call, repo: &Repo, link: &LfsLink) -> Answer {
    let claimed: Claimed = call.json(PARTS_BYTES).await?;
    check_oid(&claimed.oid, link)?;
    let (hub, told) = (&call.gateway.hub, |error| Failure::of(error, &call.caller));
    let has = || hub.has_file(&call.caller, repo, &link.sha256, claimed.size);
    if has().await.map_err(told)? {
        return Ok(reply::empty());
    }
    // It may have been put through another process.
    hub.catch_up(&call.caller, repo).await.map_err(told)?;
    if has().await.map_err(told)? {
        return Ok(reply::empty());
    }
    Err(Failure::new(StatusCode::NOT_FOUND, "object not found"))
}

async fn get(call: &Call, repo: &Repo, link: &LfsLink) -> Answer {
    let hub = &call.gateway.hub;
    let told = |error| Failure::of(error, &call.caller);
    let file = hub.find_upload_anywhere(&call.caller, repo, &link.sha256).await.map_err(told)?;
    let file = file.filter(|file| file.size == link.size);
    let file = file.ok_or_else(|| Failure::new(StatusCode::NOT_FOUND, "object not found"))?;
    hub.may_download_sha256(repo, &link.sha256).await.map_err(told)?;
    let etag = HeaderValue::try_from(format!("\"{}\"", link.sha256)).ok();
    let range = match call.range(etag.as_ref()) {
        Some(range) => {
            let range = range.resolve(file.size);
            Some(range.map_err(|_| Failure::unsatisfiable(file.size))?)
        }
        None => None,
    };
    let bytes = range.clone().unwrap_or(0..file.size);
    let length = bytes.end - bytes.start;
    let body = if call.method == Method::HEAD {
        Body::empty()
    } else {
        call.flight.count_load(Load::Download)?;
        crate::count::download(call, repo);
        let stream = hub.read_file(&file, bytes).await.map_err(told)?;
        Body::stream_of(stream, length)
    };
    Ok(download(body, etag, (file.size, range), length))
}

fn download(
    body: Body,
    etag: Option<HeaderValue>,
    (size, range): (u64, Option<Range<u64>>),
    length: u64,
) -> Response<Body> {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    if let Some(etag) = etag {
        headers.insert(ETAG, etag);
    }
    if let Some(range) = range {
        let value = format!("bytes {}-{}/{}", range.start, range.end - 1, size);
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(CONTENT_RANGE, value);
        }
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    response
}
