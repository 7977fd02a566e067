//! Fetch links: ranges of one stored copy of a xorb, for whoever holds the link.
//!
//! A link names the copy and the byte ranges that it is for, and is good for a quarter of an hour
//! (rule 6.3.5). It carries no token and asks for none. A range beyond those, or a link that has
//! expired, is a 403: clients then ask for the reconstruction again.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use ballast_format::codec::{Decoder, Encoder};
use ballast_format::id::RepoId;
use ballast_format::limits::MAX_RANGES;
use ballast_node::download::{ByteStream, CopyName};
use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, future, stream};
use http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderValue,
    LOCATION, ORIGIN, RANGE,
};
use http::{Method, Response, StatusCode};

use crate::Gateway;
use crate::body::Body;
use crate::call::Call;
use crate::error::{Answer, Failure};
use crate::links::Purpose;
use crate::rate::Load;

/// How long a link is good.
const LIFE_SECONDS: u64 = 15 * 60;
/// How long an address at the store is good: it is used at once, by clocks that differ.
const ADDRESS_LIFE_SECONDS: u64 = 5 * 60;

/// What a link allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FetchLink {
    pub(super) copy: CopyName,
    /// For whose files it was made.
    pub(super) repo: RepoId,
    pub(super) expires: u64,
    /// Half open; the copy's own bytes.
    pub(super) ranges: Vec<Range<u64>>,
}

impl FetchLink {
    fn encode(&self) -> Vec<u8> {
        let mut out = Encoder::new();
        out.array(&self.copy.to_bytes());
        out.array(self.repo.as_bytes());
        out.u64(self.expires);
        for range in &self.ranges {
            out.u64(range.start);
            out.u64(range.end);
        }
        out.finish()
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let mut from = Decoder::new("fetch link", bytes);
        let copy = CopyName::from_bytes(&from.array::<{ CopyName::LENGTH }>().ok()?)?;
        let repo = RepoId::from_bytes(from.array().ok()?);
        let expires = from.u64().ok()?;
        let mut ranges = Vec::new();
        while from.remaining() > 0 {
            ranges.push(from.u64().ok()?..from.u64().ok()?);
        }
        from.finish().ok()?;
        Some(Self { copy, repo, expires, ranges })
    }
}

/// Makes the address under which ranges of a copy can be fetched.
pub(super) type Linker = Box<dyn Fn(CopyName, Vec<Range<u64>>) -> String + Send>;

/// Links for the files of `repo`, for a client that reaches us at `base`.
pub(super) fn linker(gateway: Arc<Gateway>, base: String, repo: RepoId) -> Linker {
    Box::new(move |copy, ranges| {
        let now = gateway.now_seconds();
        let link = FetchLink { copy, repo, expires: now + LIFE_SECONDS, ranges };
        let sealed = gateway.signer.seal(Purpose::Fetch, now, &link.encode());
        format!("{base}/xet/v1/fetch/{sealed}")
    })
}

/// `GET /v1/fetch/{link}` with `Range`.
pub(super) async fn answer(call: Call, link: &str) -> Answer {
    let now = call.gateway.now_seconds();
    let claims = call.gateway.signer.open(Purpose::Fetch, now, link);
    let link = claims.and_then(|claims| FetchLink::decode(&claims));
    let link = link.ok_or_else(|| refuse("this link is not one of ours"))?;
    if now > link.expires {
        return Err(refuse("this link has expired"));
    }
    let wanted = call.header(RANGE).ok_or_else(|| refuse("this link is for a `Range` only"))?;
    let wanted = parse(wanted)?;
    let is_signed = |range: &Range<u64>| {
        link.ranges.iter().any(|signed| signed.start <= range.start && range.end <= signed.end)
    };
    if !wanted.iter().all(is_signed) {
        return Err(refuse("this link is for other bytes"));
    }
    if call.method != Method::HEAD {
        call.flight.count_load(Load::Download)?;
    }
    match <[Range<u64>; 1]>::try_from(wanted) {
        Ok([range]) => match elsewhere(&call, &link, &range, now).await? {
            Some(redirect) => Ok(redirect),
            None => one(&call, link.copy, range).await,
        },
        Err(ranges) => Ok(several(&call, link.copy, ranges)),
    }
}

fn refuse(reason: &str) -> Failure {
    Failure::new(StatusCode::FORBIDDEN, reason)
}

/// The inclusive ranges of the header as half-open ones. Only `a-b` is understood: who has a link
/// knows the bytes that it is for.
fn parse(header: &str) -> Result<Vec<Range<u64>>, Failure> {
    let bad = || Failure::invalid("the `Range` header is not understood");
    let list = header.trim().strip_prefix("bytes=").ok_or_else(bad)?;
    let mut ranges = Vec::new();
    for text in list.split(',') {
        if ranges.len() == MAX_RANGES {
            return Err(Failure::invalid("too many ranges in one request"));
        }
        let (start, last) = text.trim().split_once('-').ok_or_else(bad)?;
        let number = |text: &str| {
            let is_plain = text.bytes().all(|b| b.is_ascii_digit());
            text.parse::<u64>().ok().filter(|_| is_plain).ok_or_else(bad)
        };
        let (start, last) = (number(start)?, number(last)?);
        let end = last.checked_add(1).filter(|end| start < *end).ok_or_else(bad)?;
        ranges.push(start..end);
    }
    Ok(ranges)
}

fn content_range(range: &Range<u64>) -> String {
    format!("bytes {}-{}/*", range.start, range.end - 1)
}

/// The way to the store itself, for a client that may and can go there. The address is good for
/// these bytes only, and no longer than the link.
async fn elsewhere(
    call: &Call,
    link: &FetchLink,
    range: &Range<u64>,
    now: u64,
) -> Result<Option<Response<Body>>, Failure> {
    // A browser would ask the store whether scripts from here may read there.
    let is_browser = call.headers.contains_key(ORIGIN);
    if !call.gateway.settings.redirect_downloads || call.method != Method::GET || is_browser {
        return Ok(None);
    }
    let lifetime = Duration::from_secs((link.expires - now).clamp(1, ADDRESS_LIFE_SECONDS));
    let signed = call.gateway.hub.fetch_address(&link.copy, range.clone(), lifetime).await;
    let Some(signed) = signed.map_err(|error| Failure::of(error, &call.caller))? else {
        return Ok(None);
    };
    // The client repeats its own header; the signature knows one spelling.
    if signed.range.as_deref() != call.header(RANGE) {
        return Ok(None);
    }
    let Ok(location) = HeaderValue::try_from(signed.url) else { return Ok(None) };
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::FOUND;
    let headers = response.headers_mut();
    headers.insert(LOCATION, location);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(Some(response))
}

async fn one(call: &Call, copy: CopyName, range: Range<u64>) -> Answer {
    let length = range.end - range.start;
    let content_range = content_range(&range);
    let body = if call.method == Method::HEAD {
        Body::empty()
    } else {
        let bytes = call.gateway.hub.fetch(copy, range).await;
        Body::stream_of(bytes.map_err(|error| Failure::of(error, &call.caller))?, length)
    };
    let media_type = HeaderValue::from_static("application/octet-stream");
    let mut response = partial(body, media_type, length);
    if let Ok(value) = HeaderValue::try_from(content_range) {
        response.headers_mut().insert(CONTENT_RANGE, value);
    }
    Ok(response)
}

fn partial(body: Body, media_type: HeaderValue, length: u64) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, media_type);
    headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    response
}

/// `multipart/byteranges`, part after part.
fn several(call: &Call, copy: CopyName, ranges: Vec<Range<u64>>) -> Response<Body> {
    let mut random = [0; 16];
    call.gateway.hub.env().fill_random(&mut random);
    // Nobody can have put it into the bytes beforehand.
    let boundary = format!("{:032x}", u128::from_be_bytes(random));
    let head = |range: &Range<u64>| {
        let range = content_range(range);
        format!(
            "\r\n--{boundary}\r\nContent-Type: application/octet-stream\r\n\
             Content-Range: {range}\r\n\r\n"
        )
    };
    let end = format!("\r\n--{boundary}--\r\n");
    let parts: Vec<(Bytes, Range<u64>)> =
        ranges.into_iter().map(|range| (Bytes::from(head(&range)), range)).collect();
    let of_part = |(head, range): &(Bytes, Range<u64>)| head.len() as u64 + range.end - range.start;
    let length = parts.iter().map(of_part).sum::<u64>() + end.len() as u64;
    let body = if call.method == Method::HEAD {
        Body::empty()
    } else {
        let hub = Arc::clone(&call.gateway.hub);
        let pieces = stream::iter(parts)
            .then(move |(head, range)| {
                let hub = Arc::clone(&hub);
                async move {
                    let bytes = hub.fetch(copy, range).await?;
                    let head = stream::once(future::ready(Ok(head)));
                    ballast_node::Result::Ok(Box::pin(head.chain(bytes)) as ByteStream)
                }
            })
            .try_flatten()
            .chain(stream::once(future::ready(Ok(Bytes::from(end)))));
        Body::stream_of(Box::pin(pieces), length)
    };
    let media_type = format!("multipart/byteranges; boundary={boundary}");
    let fallback = HeaderValue::from_static("multipart/byteranges");
    partial(body, HeaderValue::try_from(media_type).unwrap_or(fallback), length)
}

#[cfg(test)]
mod tests;
