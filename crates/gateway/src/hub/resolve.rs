//! The heart of downloading: a file of a revision, as headers or as bytes.
//!
//! Bytes are served here and not by a redirect, so that every client gets the headers it needs on
//! the answer it looks at. A file that the Xet read path can serve says so; clients then take that
//! path and no other.

use ballast_format::hash::FileHash;
use ballast_format::name::FilePath;
use ballast_node::download::{ItemKind, LargeFile, TreeItem};
use http::header::{
    ACCEPT_RANGES, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_SECURITY_POLICY,
    CONTENT_TYPE, ETAG, IF_NONE_MATCH, LINK, RANGE, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::place::{Context, commit_value};
use crate::body::Body;
use crate::call::Call;
use crate::error::{Answer, Failure, X_REPO_COMMIT};
use crate::rate::Load;

const X_LINKED_ETAG: HeaderName = HeaderName::from_static("x-linked-etag");
const X_LINKED_SIZE: HeaderName = HeaderName::from_static("x-linked-size");
const X_XET_HASH: HeaderName = HeaderName::from_static("x-xet-hash");
const X_HF_DOWNLOAD_COUNTER: HeaderName = HeaderName::from_static("x-hf-download-counter");
const XET_FILE_INFO: &str = "application/vnd.xet-fileinfo+json";
/// What RFC 8187 lets stand as it is.
const ATTRIBUTE: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'+');

/// `GET` and `HEAD …/resolve/{revision}/{path}`.
pub(super) async fn answer(at: &Context<'_>, call: Call, segments: &[&str]) -> Answer {
    let of = |error| Failure::of(error, &call.caller);
    let (resolved, path) = at.revision(&call, segments).await?;
    let path = path.join("/");
    let missing = || {
        let error = ballast_node::Error::EntryNotFound {
            path: path.clone(),
            commit: Some(resolved.commit),
        };
        Failure::of(error, &call.caller)
    };
    // A path that no file can have is not there; clients remember that by the commit.
    let file = FilePath::parse(&path).map_err(|_| missing())?;
    at.hub().may_read_files(&call.caller, at.repo()).map_err(of)?;
    let item = at.hub().item(at.repo(), resolved.commit, &file).await.map_err(of)?;
    if item.kind != ItemKind::File {
        return Err(missing());
    }
    at.hub().may_download(at.repo(), resolved.commit, &item).await.map_err(of)?;
    let mut headers = HeaderMap::with_capacity(16);
    headers.insert(X_REPO_COMMIT, commit_value(resolved.commit));
    let etag = etag(&item);
    headers.insert(ETAG, etag.clone());
    describe(&mut headers, &file, &call);
    if let Some(large) = &item.large {
        let file = match at.gateway.settings.xet {
            true => at.hub().xet_name(at.repo(), &item).await.map_err(of)?,
            false => None,
        };
        describe_large(at, &call, &mut headers, (large, file), resolved.commit)?;
    }
    count(at, &call);
    if is_known(&call, &etag) {
        return Ok(with(StatusCode::NOT_MODIFIED, headers, Body::empty()));
    }
    if item.large.is_some() && headers.contains_key(X_XET_HASH) && call.accepts(XET_FILE_INFO) {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(XET_FILE_INFO));
        return Ok(with(StatusCode::OK, headers, Body::from("{}")));
    }
    bytes(at, &call, &item, headers).await
}

async fn bytes(at: &Context<'_>, call: &Call, item: &TreeItem, mut headers: HeaderMap) -> Answer {
    // Who has a wrong beginning must not get the right rest: all of it makes clients begin anew.
    let is_disputed = resumes(call) && at.hub().was_wrong(at.repo(), item);
    let range = if is_disputed { None } else { call.range(headers.get(ETAG)) };
    let (status, range) = match range {
        None => (StatusCode::OK, 0..item.size),
        Some(_) if item.size == 0 => {
            // Clients ask for the first byte to learn the size; of an empty file there is none.
            headers.insert(CONTENT_RANGE, HeaderValue::from_static("bytes 0-0/0"));
            (StatusCode::OK, 0..0)
        }
        Some(range) => {
            let range = range.resolve(item.size).map_err(|past| {
                let failure = Failure::unsatisfiable(past.size);
                headers
                    .get(X_REPO_COMMIT)
                    .cloned()
                    .into_iter()
                    .fold(failure, |failure, value| failure.header(X_REPO_COMMIT, value))
            })?;
            let text = format!("bytes {}-{}/{}", range.start, range.end - 1, item.size);
            headers.insert(CONTENT_RANGE, text_value(&text)?);
            (StatusCode::PARTIAL_CONTENT, range)
        }
    };
    let length = range.end - range.start;
    headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    if call.method == Method::HEAD || length == 0 {
        return Ok(with(status, headers, Body::empty()));
    }
    call.flight.count_load(Load::Download)?;
    let stream = at.hub().open_item(at.repo(), item, range).await;
    let stream = stream.map_err(|error| Failure::of(error, &call.caller))?;
    Ok(with(status, headers, Body::stream_of(stream, length)))
}

/// Whether a client has the beginning and wants the rest.
fn resumes(call: &Call) -> bool {
    let range = call.header(RANGE).and_then(|range| range.trim().strip_prefix("bytes="));
    range.is_some_and(|range| range.ends_with('-') && range != "0-")
}

fn with(status: StatusCode, headers: HeaderMap, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

/// A large file's SHA-256, another one's blob id: clients name their cached copies so.
pub(super) fn etag(item: &TreeItem) -> HeaderValue {
    let text = match &item.large {
        Some(large) => format!("\"{}\"", large.sha256),
        None => format!("\"{}\"", item.id),
    };
    HeaderValue::try_from(text).expect("hexadecimal digits in quotes are header text")
}

fn text_value(text: &str) -> Result<HeaderValue, Failure> {
    HeaderValue::try_from(text).map_err(|_| Failure::invalid("the `Host` header is malformed"))
}

/// What every file's answer says. Nothing that a browser would run is shown in place.
pub(super) fn describe(headers: &mut HeaderMap, path: &FilePath, call: &Call) {
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static("sandbox"));
    let (kind, is_active) = media_type(path.name());
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    if call.query.flag("noContentDisposition") {
        return;
    }
    let how = if is_active || call.query.flag("download") { "attachment" } else { "inline" };
    let encoded = utf8_percent_encode(path.name(), ATTRIBUTE);
    let plain: String = path
        .name()
        .chars()
        .map(|c| if c.is_ascii_graphic() && c != '"' || c == ' ' { c } else { '_' })
        .collect();
    let text = format!("{how}; filename*=UTF-8''{encoded}; filename=\"{plain}\";");
    if let Ok(value) = HeaderValue::try_from(text) {
        headers.insert(CONTENT_DISPOSITION, value);
    }
}

/// A media type by a name's ending, and whether a browser would run it.
fn media_type(name: &str) -> (&'static str, bool) {
    let ending = name.rsplit_once('.').map_or("", |(_, ending)| ending).to_ascii_lowercase();
    match ending.as_str() {
        "json" => ("application/json", false),
        "md" | "txt" | "py" | "yaml" | "yml" | "toml" | "gitattributes" | "jinja" | "csv"
        | "tsv" => ("text/plain; charset=utf-8", false),
        "html" | "htm" => ("text/html; charset=utf-8", true),
        "svg" => ("image/svg+xml", true),
        "xml" | "xhtml" => ("application/xml", true),
        "pdf" => ("application/pdf", true),
        "png" => ("image/png", false),
        "jpg" | "jpeg" => ("image/jpeg", false),
        "gif" => ("image/gif", false),
        "webp" => ("image/webp", false),
        _ => ("application/octet-stream", false),
    }
}

fn describe_large(
    at: &Context<'_>,
    call: &Call,
    headers: &mut HeaderMap,
    (large, file): (&LargeFile, Option<FileHash>),
    commit: ballast_format::hash::ObjectHash,
) -> Result<(), Failure> {
    headers.insert(X_LINKED_ETAG, text_value(&format!("\"{}\"", large.sha256))?);
    headers.insert(X_LINKED_SIZE, HeaderValue::from(large.size));
    // A name in Xet is a promise that clients hold us to.
    let Some(file) = file.filter(|_| large.size > 0) else { return Ok(()) };
    let (base, repo) = (call.base(), at.repo());
    let kinds = repo.kind().plural();
    let token = format!("{base}/api/{kinds}/{}/xet-read-token/{commit}", repo.name());
    let info = format!("{base}/xet/v1/reconstructions/{file}");
    let link = format!("<{token}>; rel=\"xet-auth\", <{info}>; rel=\"xet-reconstruction-info\"");
    headers.insert(LINK, text_value(&link)?);
    headers.insert(X_XET_HASH, text_value(&file.to_string())?);
    Ok(())
}

fn is_known(call: &Call, etag: &HeaderValue) -> bool {
    let (Some(given), Ok(etag)) = (call.header(IF_NONE_MATCH), etag.to_str()) else { return false };
    given.split(',').any(|given| {
        let given = given.trim();
        given == "*" || given.strip_prefix("W/").unwrap_or(given) == etag
    })
}

/// Counts a download: any request for bytes, and what the Python client marks as a part of one.
fn count(at: &Context<'_>, call: &Call) {
    let counts = call.method == Method::GET || call.headers.contains_key(X_HF_DOWNLOAD_COUNTER);
    if counts {
        crate::count::download(call, at.repo());
    }
}

#[cfg(test)]
mod tests {
    use super::media_type;

    #[test]
    fn what_a_browser_would_run_is_told_apart() {
        for name in ["a.html", "b.SVG", "c.xml", "d.pdf"] {
            assert!(media_type(name).1, "{name}");
        }
        for name in ["README.md", "config.json", "model.safetensors", "x"] {
            assert!(!media_type(name).1, "{name}");
        }
    }
}
