//! Reconstructions: which chunks of which xorbs make up a file, and where to fetch them.
//!
//! A file is looked up in the repo that the token is for; that its hash is known grants nothing.

use std::sync::Arc;

use ballast_format::hash::FileHash;
use ballast_format::range::RangeRequest;
use ballast_node::Error;
use ballast_node::access::Repo;
use futures_util::stream;
use http::header::{CONTENT_TYPE, HeaderValue, RANGE};
use http::{Response, StatusCode};

use super::document::{Document, Place, Shape, joined};
use super::fetch::{Linker, linker};
use super::hash;
use super::token::{self, Need};
use crate::body::Body;
use crate::call::Call;
use crate::count;
use crate::error::{Answer, Failure};

/// Files in one batch.
const MOST_FILES: usize = 100;
/// Terms that a batch may hold in memory.
const MOST_TERMS: usize = 200_000;

/// `GET /v1|v2/reconstructions/{file}` with or without `Range`.
pub(super) async fn of_file(mut call: Call, file: &str, shape: Shape) -> Answer {
    let repo = token::open(&mut call, Need::Files)?;
    let file: FileHash = hash(file)?;
    let range = call.header(RANGE).map(RangeRequest::parse).transpose();
    let range = range.map_err(|_| Failure::invalid("the `Range` header is not understood"))?;
    let hub = &call.gateway.hub;
    let told = |error| Failure::of(error, &call.caller);
    hub.may_download_file(&repo, &file).await.map_err(told)?;
    let found = hub.reconstruct(&repo, file, range.as_ref()).await.map_err(told)?;
    count::download(&call, &repo);
    let document = Document {
        shape,
        linker: links(&call, &repo),
        offset: found.offset_into_first_range,
        files: vec![(file, found.terms)],
        fetches: joined(found.fetches).ok_or_else(copies_differ)?,
        place: Place::Start,
    };
    Ok(written(document))
}

/// `GET /v1/reconstructions?file_id=a&file_id=b`; files that are not there are left out.
pub(super) async fn of_files(mut call: Call) -> Answer {
    let repo = token::open(&mut call, Need::Files)?;
    let wanted: Vec<&str> = call.query.all("file_id").collect();
    if wanted.is_empty() || wanted.len() > MOST_FILES {
        let message = format!("name 1 to {MOST_FILES} files by `file_id`");
        return Err(Failure::invalid(message));
    }
    let mut wanted: Vec<FileHash> = wanted.into_iter().map(hash).collect::<Result<_, Failure>>()?;
    wanted.sort_unstable();
    wanted.dedup();
    let (mut files, mut fetches, mut terms) = (Vec::new(), Vec::new(), 0);
    for file in wanted {
        let allowed = call.gateway.hub.may_download_file(&repo, &file).await;
        allowed.map_err(|error| Failure::of(error, &call.caller))?;
        match call.gateway.hub.reconstruct(&repo, file, None).await {
            Ok(found) => {
                terms += found.terms.len();
                if terms > MOST_TERMS {
                    let message = "these files have too many terms for one answer";
                    return Err(Failure::new(StatusCode::PAYLOAD_TOO_LARGE, message));
                }
                files.push((file, found.terms));
                fetches.extend(found.fetches);
            }
            Err(Error::NotFound { .. }) => {}
            Err(error) => return Err(Failure::of(error, &call.caller)),
        }
    }
    count::download(&call, &repo);
    let document = Document {
        shape: Shape::Batch,
        linker: links(&call, &repo),
        offset: 0,
        files,
        fetches: joined(fetches).ok_or_else(copies_differ)?,
        place: Place::Start,
    };
    Ok(written(document))
}

fn links(call: &Call, repo: &Repo) -> Linker {
    linker(Arc::clone(&call.gateway), call.base(), repo.id())
}

/// Another copy of a xorb became the preferred one between two looks at it.
fn copies_differ() -> Failure {
    Failure::busy("the copies of a xorb are changing; try again")
}

/// A short document goes as one piece with its length, a long one as it is made.
fn written(mut document: Document) -> Response<Body> {
    let first = document.next().unwrap_or_default();
    let body = if document.place == Place::End {
        Body::from(first)
    } else {
        Body::stream(Box::pin(stream::iter(std::iter::once(first).chain(document).map(Ok))))
    };
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
