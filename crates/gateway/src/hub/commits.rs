//! The history of a repo.

use std::collections::HashMap;

use ballast_format::hash::ObjectHash;
use ballast_format::name::{FilePath, RefName};
use ballast_format::object::{EntryMode, TreeEntry};
use ballast_node::access::Access;
use ballast_node::download::{CommitView, PathChange, TreeItem};
use http::header::{CONTENT_TYPE, LINK};
use http::{HeaderName, HeaderValue, Method, Response};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::place::{Context, whole};
use super::tree::next_link;
use crate::body::Body;
use crate::call::Call;
use crate::error::{Answer, Failure};
use crate::reply;

const DEFAULT_LIMIT: usize = 50;
const MOST: usize = 1000;
const BODY_BYTES: u64 = 1_000_000;
const X_TOTAL_COUNT: HeaderName = HeaderName::from_static("x-total-count");

/// A time as clients read it: UTC, ending in `Z`.
pub(super) fn date(unix_ms: i64) -> String {
    let time = Timestamp::from_millisecond(unix_ms).unwrap_or(Timestamp::UNIX_EPOCH);
    time.strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string()
}

/// The same, of a time as the hub keeps it.
pub(crate) fn date_of(unix_ms: u64) -> String {
    date(i64::try_from(unix_ms).unwrap_or(i64::MAX))
}

/// `GET …/commits/{revision}`.
pub(super) async fn answer(at: &Context<'_>, call: &Call, segments: &[&str]) -> Answer {
    if call.method != Method::GET && call.method != Method::HEAD {
        return Err(Failure::method("GET, HEAD"));
    }
    let (resolved, _) = at.whole_revision(call, segments).await?;
    let number = |name: &str| call.query.first(name).and_then(|text| text.parse::<usize>().ok());
    let limit = number("limit").unwrap_or(DEFAULT_LIMIT).clamp(1, MOST);
    let page = number("p").unwrap_or(0);
    let formatted = call.query.all("expand").any(|field| field == "formatted");
    let skip = page.saturating_mul(limit);
    let (views, total) = at
        .hub()
        .history(at.repo(), resolved.commit, skip, limit)
        .await
        .map_err(|error| Failure::of(error, &call.caller))?;
    let items: Vec<Value> = views.iter().map(|commit| view(commit, formatted)).collect();
    let mut response = reply::json(&items)?;
    let headers = response.headers_mut();
    headers.insert(X_TOTAL_COUNT, HeaderValue::from(total));
    if (skip as u64).saturating_add(views.len() as u64) < total && !views.is_empty() {
        headers.insert(LINK, next_link(call, "p", &(page + 1).to_string())?);
    }
    Ok(response)
}

fn view(commit: &CommitView, formatted: bool) -> Value {
    let mut view = json!({
        "id": commit.id.to_string(),
        "title": commit.title,
        "message": commit.message,
        "date": date(commit.time_seconds.saturating_mul(1000)),
        "authors": [{"user": commit.author, "avatar": ""}],
        "parents": commit.parents.iter().map(ToString::to_string).collect::<Vec<_>>(),
    });
    if formatted {
        view["formatted"] = json!({"title": commit.title, "message": commit.message});
    }
    view
}

/// `GET …/compare/{a}..{b}`: the difference as text; with `raw` a line for each path that differs.
/// A single revision is compared with its parent, the first commit with nothing.
pub(super) async fn compare(at: &Context<'_>, call: &Call, range: &[&str]) -> Answer {
    let of = |error| Failure::of(error, &call.caller);
    let range = whole(range)?;
    let (old, new) = match range.split_once("...").or_else(|| range.split_once("..")) {
        Some((old, new)) => (Some(old), new),
        None => (None, range.as_str()),
    };
    let new = at.hub().resolve(at.repo(), new).await.map_err(of)?.commit;
    let old = if let Some(old) = old {
        Some(at.hub().resolve(at.repo(), old).await.map_err(of)?.commit)
    } else {
        let commit = at.hub().commit_view(at.repo(), new).await.map_err(of)?;
        commit.parents.first().copied()
    };
    if !call.query.flag("raw") {
        // Lines of text are content; which paths differ is not.
        at.hub().may_read_files(&call.caller, at.repo()).map_err(of)?;
        return Ok(plain(at.hub().diff(at.repo(), old, new).await.map_err(of)?));
    }
    let changes = at.hub().compare(at.repo(), old, new).await.map_err(of)?;
    let paths: Vec<FilePath> =
        changes.iter().filter_map(|change| FilePath::parse(&change.path).ok()).collect();
    let items = at.hub().items(at.repo(), new, &paths).await.map_err(of)?;
    let items: HashMap<&str, &TreeItem> =
        items.iter().map(|item| (item.path.as_str(), item)).collect();
    let lines = changes.iter().map(|change| line(change, items.get(change.path.as_str()).copied()));
    Ok(plain(lines.collect()))
}

/// A line as `git diff --raw` has it, after `B` for a large file or `T` for another, and the size
/// that it has now.
fn line(change: &PathChange, item: Option<&TreeItem>) -> String {
    let status = match (&change.old, &change.new) {
        (None, _) => 'A',
        (_, None) => 'D',
        _ => 'M',
    };
    let side = |entry: &Option<TreeEntry>| match entry {
        Some(entry) => (mode(entry.mode), entry.id),
        None => ("000000", ObjectHash::ZERO),
    };
    let ((old_mode, old_id), (new_mode, new_id)) = (side(&change.old), side(&change.new));
    let kind = if item.is_some_and(|item| item.large.is_some()) { 'B' } else { 'T' };
    let (size, path) = (item.map_or(0, |item| item.size), &change.path);
    format!("{kind} {size}\t:{old_mode} {new_mode} {old_id}... {new_id}... {status}\t{path}\n")
}

fn plain(text: String) -> Response<Body> {
    let mut response = Response::new(Body::from(text));
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

fn mode(mode: EntryMode) -> &'static str {
    match mode {
        EntryMode::File => "100644",
        EntryMode::Executable => "100755",
        EntryMode::Symlink => "120000",
        EntryMode::Directory => "040000",
        EntryMode::Submodule => "160000",
    }
}

#[derive(Deserialize)]
struct Squash {
    #[serde(default)]
    message: String,
}

/// `POST …/super-squash/{branch}`.
pub(super) async fn squash(at: &Context<'_>, mut call: Call, segments: &[&str]) -> Answer {
    let repo = at.allowed(&call, Access::Write)?;
    let branch = whole(segments)?;
    let branch = RefName::parse(&branch).or_else(|_| RefName::branch(&branch));
    let branch = branch.map_err(|error| Failure::of(error.into(), &call.caller))?;
    let body: Squash = call.json(BODY_BYTES).await?;
    let squashed = at.hub().squash(&call.caller, &repo, &branch, &body.message).await;
    let commit = squashed.map_err(|error| Failure::of(error, &call.caller))?;
    reply::json(&json!({"success": true, "commitOid": commit.to_string()}))
}

#[cfg(test)]
mod tests {
    use super::date;

    #[test]
    fn dates_end_in_z() {
        assert_eq!(date(1_700_000_000_123), "2023-11-14T22:13:20.123Z");
    }
}
