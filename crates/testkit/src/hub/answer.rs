//! One request: whether something goes wrong with it, who asks, and what is asked for.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use ballast_format::name::RepoKind;
use ballast_store::env::Env as _;
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE};
use hyper::{Request, Response, StatusCode};
use percent_encoding::percent_decode_str;
use serde_json::json;

use super::body::{Body, whole};
use super::repos::Repo;
use super::troubles::{Lie, Troubles};
use super::{State, TOKEN, api, cas, files};

/// An answer; an error cuts the connection.
pub(super) type Answer = io::Result<Response<Body>>;

/// What is asked.
pub(super) struct Asked {
    pub(super) state: Arc<State>,
    pub(super) request: Request<Incoming>,
    /// Parts of the path, decoded.
    pub(super) parts: Vec<String>,
    pub(super) troubles: Troubles,
    /// Whether the hub's token came with it.
    pub(super) known: bool,
}

impl Asked {
    /// A parameter of the query.
    pub(super) fn query(&self, name: &str) -> Option<String> {
        let pairs = self.request.uri().query()?.split('&');
        let value = pairs.filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == name)?.1;
        Some(percent_decode_str(value).decode_utf8_lossy().into_owned())
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.request.headers().get(name)?.to_str().ok()
    }

    /// Whether something happens that happens so often.
    pub(super) fn happens(&self, per_mille: u32) -> bool {
        self.state.lock().dice.happens(per_mille)
    }

    /// A number under a bound.
    pub(super) fn draw(&self, bound: usize) -> usize {
        let drawn = self.state.lock().dice.below(bound.max(1) as u64);
        usize::try_from(drawn).unwrap_or(0)
    }

    pub(super) fn lies(&self, lie: Lie) -> bool {
        self.troubles.lie == Some(lie)
    }
}

pub(super) async fn answer(state: Arc<State>, request: Request<Incoming>, is_hub: bool) -> Answer {
    let troubles = state.lock().troubles.clone();
    let path = request.uri().path().to_owned();
    state.lock().asked.push(request.uri().to_string());
    let decode = |part: &str| percent_decode_str(part).decode_utf8_lossy().into_owned();
    let parts = path.split('/').skip(1).map(decode).collect();
    let mut asked = Asked { state, request, parts, troubles, known: false };
    if let Some(latency) = asked.troubles.latency {
        tokio::time::sleep(latency).await;
    }
    if asked.happens(asked.troubles.reset) {
        return Err(io::Error::other("cut on purpose"));
    }
    if asked.happens(asked.troubles.unavailable) {
        return refuse(503, "", "try again");
    }
    if asked.happens(asked.troubles.html) {
        return page(200);
    }
    if !is_hub {
        return files::elsewhere(&asked);
    }
    let is_api = asked.parts.first().is_some_and(|first| first == "api" || first == "cas");
    let limit = limited(&asked, is_api);
    if let Some((left, wait)) = limit
        && left == 0
    {
        return with_limit(refuse(429, "", "slow down"), is_api, limit.map(|_| (0, wait)));
    }
    match asked.header(AUTHORIZATION.as_str()).map(str::to_owned) {
        Some(sent) if sent == format!("Bearer {TOKEN}") => asked.known = true,
        Some(sent) if sent.starts_with("Bearer cas-") => {}
        Some(_) => return refuse(401, "", "Invalid credentials in Authorization header"),
        None => {}
    }
    let answer = match asked.parts.first().map(String::as_str) {
        Some("api") => api::answer(asked).await,
        Some("cas") => cas::answer(&asked),
        _ => files::answer(&asked),
    };
    with_limit(answer, is_api, limit.map(|(left, wait)| (left - 1, wait)))
}

/// How many requests may still be made, this one included, and how long the window still is.
fn limited(asked: &Asked, is_api: bool) -> Option<(u64, Duration)> {
    let (most, window) = asked.troubles.limit?;
    let now = asked.state.env.monotonic();
    let inner = &mut *asked.state.lock();
    let (made, since) = &mut inner.windows[usize::from(is_api)];
    if now >= *since + window {
        (*made, *since) = (0, now);
    }
    let left = most.saturating_sub(*made);
    *made += 1;
    Some((left, (*since + window).saturating_sub(now)))
}

fn with_limit(answer: Answer, is_api: bool, limit: Option<(u64, Duration)>) -> Answer {
    let mut response = answer?;
    if let Some((left, wait)) = limit {
        let class = if is_api { "api" } else { "resolvers" };
        let value = format!("\"{class}\";r={left};t={}", wait.as_secs());
        response.headers_mut().insert("ratelimit", value.parse().map_err(io::Error::other)?);
    }
    Ok(response)
}

/// An answer in JSON.
pub(super) fn json(value: &serde_json::Value) -> Answer {
    let response = Response::builder().header(CONTENT_TYPE, "application/json");
    response.body(whole(value.to_string())).map_err(io::Error::other)
}

/// A refusal, in the hub's way.
pub(super) fn refuse(status: u16, code: &str, message: &str) -> Answer {
    let mut response = Response::builder()
        .status(StatusCode::from_u16(status).map_err(io::Error::other)?)
        .header(CONTENT_TYPE, "application/json")
        .header("x-error-message", message);
    if !code.is_empty() {
        response = response.header("x-error-code", code);
    }
    response.body(whole(json!({ "error": message }).to_string())).map_err(io::Error::other)
}

/// A page of something that is no hub.
pub(super) fn page(status: u16) -> Answer {
    let response = Response::builder().status(status).header(CONTENT_TYPE, "text/html");
    response
        .body(whole("<html><body>We will be back soon.</body></html>"))
        .map_err(io::Error::other)
}

/// The repo that is asked for, or the refusal that hides it.
#[expect(clippy::result_large_err, reason = "an answer is what there is in place of the repo")]
pub(super) fn repo(asked: &Asked, kind: RepoKind, name: &str) -> Result<Repo, Answer> {
    let found = asked
        .state
        .lock()
        .repos
        .iter()
        .find(|repo| repo.kind == kind && repo.name.to_string().eq_ignore_ascii_case(name))
        .cloned();
    let hidden = || {
        if asked.lies(Lie::NotFound) {
            return page(404);
        }
        refuse(if asked.known { 404 } else { 401 }, "RepoNotFound", "Repository not found")
    };
    let repo = found.ok_or_else(hidden)?;
    if repo.private && !asked.known {
        return Err(hidden());
    }
    if repo.disabled {
        return Err(refuse(403, "", "Access to this resource is disabled."));
    }
    if let Some(moved) = &repo.moved_to {
        let to = asked.request.uri().path().replacen(name, &moved.to_string(), 1);
        let moved = Response::builder().status(307).header("location", to).body(whole(""));
        return Err(moved.map_err(io::Error::other));
    }
    Ok(repo)
}

/// The refusal of a revision that is not there.
pub(super) fn no_revision() -> Answer {
    refuse(404, "RevisionNotFound", "Revision not found")
}
