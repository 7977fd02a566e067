//! A file's blob as git has it: of a large file, the pointer.

use ballast_format::name::FilePath;
use ballast_node::download::ItemKind;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, ETAG};
use http::{HeaderMap, HeaderValue, Method, Response};

use super::place::{Context, commit_value};
use super::resolve;
use crate::body::Body;
use crate::call::Call;
use crate::error::{Answer, Failure, X_REPO_COMMIT};

/// Blobs are regular files, which have a limit.
const MOST_BYTES: u64 = 16 << 20;

/// `GET` and `HEAD …/raw/{revision}/{path}`.
pub(super) async fn answer(at: &Context<'_>, call: &Call, segments: &[&str]) -> Answer {
    let of = |error| Failure::of(error, &call.caller);
    let (resolved, path) = at.revision(call, segments).await?;
    let path = path.join("/");
    let missing = || {
        let commit = Some(resolved.commit);
        of(ballast_node::Error::EntryNotFound { path: path.clone(), commit })
    };
    let file = FilePath::parse(&path).map_err(|_| missing())?;
    at.hub().may_read_files(&call.caller, at.repo()).map_err(of)?;
    let item = at.hub().item(at.repo(), resolved.commit, &file).await.map_err(of)?;
    if item.kind != ItemKind::File {
        return Err(missing());
    }
    if item.large.is_none() {
        at.hub().may_download(at.repo(), resolved.commit, &item).await.map_err(of)?;
    }
    let mut headers = HeaderMap::new();
    headers.insert(X_REPO_COMMIT, commit_value(resolved.commit));
    resolve::describe(&mut headers, &file, call);
    let etag = format!("\"{}\"", item.id);
    headers.insert(ETAG, HeaderValue::try_from(etag).map_err(|_| missing())?);
    let size = item.large.as_ref().map_or(item.size, |large| large.pointer_size);
    headers.insert(CONTENT_LENGTH, HeaderValue::from(size));
    if item.large.is_some() {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    }
    let body = match call.method == Method::HEAD {
        true => Body::empty(),
        false => Body::from(at.hub().raw_blob(at.repo(), &item, MOST_BYTES).await.map_err(of)?),
    };
    let mut response = Response::new(body);
    *response.headers_mut() = headers;
    Ok(response)
}
