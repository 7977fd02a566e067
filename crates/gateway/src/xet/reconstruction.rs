//! Reconstructions: which chunks of which xorbs make up a file, and where to fetch them.
//!
//! A file is looked up in the repo that the token is for; that its hash is known grants nothing. A
//! part of a file of a mirror that is still on its way is waited for.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use ballast_format::hash::FileHash;
use ballast_format::range::RangeRequest;
use ballast_node::Error;
use ballast_node::access::Repo;
use ballast_node::download::ByteStream;
use bytes::Bytes;
use futures_util::future::{Either, select};
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

/// An answer that is there this soon has a status of its own.
const PATIENCE: Duration = Duration::from_secs(20);
/// What is waited for longer says so often that it is.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Files in one batch.
const MOST_FILES: usize = 100;
/// Terms that a batch may hold in memory.
const MOST_TERMS: usize = 200_000;

type Work = Pin<Box<dyn Future<Output = ballast_node::Result<Document>> + Send>>;
type Pause = Pin<Box<dyn Future<Output = ()> + Send>>;

/// `GET /v1|v2/reconstructions/{file}` with or without `Range`.
pub(super) async fn of_file(mut call: Call, file: &str, shape: Shape) -> Answer {
    let (repo, commit) = token::open_at(&mut call, Need::Files)?;
    let file: FileHash = hash(file)?;
    let range = call.header(RANGE).map(RangeRequest::parse).transpose();
    let range = range.map_err(|_| Failure::invalid("the `Range` header is not understood"))?;
    let hub = Arc::clone(&call.gateway.hub);
    let told = |error| Failure::of(error, &call.caller);
    hub.may_download_file(&repo, &file).await.map_err(told)?;
    let (linker, from, asked) = (links(&call, &repo), Arc::clone(&hub), repo.clone());
    let mut work: Work = Box::pin(async move {
        let found = from.reconstruct_or_bring(&asked, (commit, file), range.as_ref()).await?;
        Ok(Document {
            shape,
            linker,
            offset: found.offset_into_first_range,
            files: vec![(file, found.terms)],
            fetches: joined(found.fetches).ok_or_else(copies_differ)?,
            place: Place::Start,
        })
    });
    let patience = Arc::clone(hub.env());
    let found = match select(&mut work, patience.sleep(PATIENCE)).await {
        Either::Left((found, _)) => written(found.map_err(told)?),
        Either::Right(_) => {
            let pause = move || -> Pause {
                let hub = Arc::clone(&hub);
                Box::pin(async move { hub.env().sleep(KEEP_ALIVE).await })
            };
            json(Body::stream(following(pause, work)))
        }
    };
    count::download(&call, &repo);
    Ok(found)
}

/// A document that is waited for: blanks, which JSON may begin with, and then the document. Whoever
/// hears nothing gives up after a minute or five, and has few tries; an answer that breaks off is
/// asked for again.
fn following(pause: impl Fn() -> Pause + Send + 'static, work: Work) -> ByteStream {
    Box::pin(stream::try_unfold(Following::Work(work), move |state| {
        let pause = pause();
        async move {
            let mut document = match state {
                Following::Document(document) => document,
                Following::Work(mut work) => match select(&mut work, pause).await {
                    Either::Left((found, _)) => Box::new(found?),
                    Either::Right(_) => {
                        let blank = Bytes::from_static(b" ");
                        return Ok(Some((blank, Following::Work(work))));
                    }
                },
            };
            Ok(document.next().map(|piece| (piece, Following::Document(document))))
        }
    }))
}

enum Following {
    Work(Work),
    Document(Box<Document>),
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
        fetches: joined(fetches)
            .ok_or_else(copies_differ)
            .map_err(|error| Failure::of(error, &call.caller))?,
        place: Place::Start,
    };
    Ok(written(document))
}

fn links(call: &Call, repo: &Repo) -> Linker {
    linker(Arc::clone(&call.gateway), call.base(), repo.id())
}

/// Another copy of a xorb became the preferred one between two looks at it.
fn copies_differ() -> Error {
    Error::Busy { reason: "the copies of a xorb are changing; try again".to_owned() }
}

/// A short document goes as one piece with its length, a long one as it is made.
fn written(mut document: Document) -> Response<Body> {
    let first = document.next().unwrap_or_default();
    let body = if document.place == Place::End {
        Body::from(first)
    } else {
        Body::stream(Box::pin(stream::iter(std::iter::once(first).chain(document).map(Ok))))
    };
    json(body)
}

fn json(body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

#[cfg(test)]
mod tests {
    use futures_util::{StreamExt as _, future};
    use tokio::sync::oneshot;

    use super::*;

    /// What a client hears of something that comes after some blanks; nothing if it breaks off.
    async fn heard(found: ballast_node::Result<Document>) -> Option<String> {
        let (tell, told) = oneshot::channel();
        let work: Work = Box::pin(async move { told.await.expect("it is told") });
        let mut pieces = following(|| Box::pin(future::ready(())), work);
        for _ in 0..3 {
            let blank = pieces.next().await.expect("more").expect("no error");
            assert_eq!(&*blank, b" ");
        }
        assert!(tell.send(found).is_ok(), "it is waited for");
        let mut text = String::new();
        while let Some(piece) = pieces.next().await {
            text.push_str(std::str::from_utf8(&piece.ok()?).expect("text"));
        }
        Some(text)
    }

    #[tokio::test]
    async fn whoever_waits_hears_blanks_and_then_the_document() {
        let document = Document {
            shape: Shape::V2,
            linker: Box::new(|_, _| String::new()),
            offset: 7,
            files: vec![(FileHash::ZERO, Vec::new())],
            fetches: Vec::new(),
            place: Place::Start,
        };
        let text = heard(Ok(document)).await.expect("it is there");
        assert_eq!(text, "{\"offset_into_first_range\":7,\"terms\":[],\"xorbs\":{}}");
        assert_eq!(heard(Err(copies_differ())).await, None);
    }
}
