//! Listing what a commit holds.

use std::collections::BTreeMap;
use std::sync::Arc;

use ballast_format::name::FilePath;
use ballast_node::download::{CommitView, ItemKind, TreeItem};
use ballast_node::scan::Scan;
use http::header::LINK;
use http::{HeaderValue, Method};
use serde_json::{Value, json};

use super::place::Context;
use super::security;
use crate::call::Call;
use crate::error::{Answer, Failure};
use crate::reply;

/// Items of one page where the client does not say; clients that do not follow pages need whole
/// trees of repos as they are.
const DEFAULT_LIMIT: usize = 10_000;
const MOST: usize = 10_000;
/// With the last commit of each item, a page costs a walk through history.
const DEFAULT_EXPANDED: usize = 1000;

/// `GET …/tree/{revision}[/{path}]`.
pub(super) async fn answer(at: &Context<'_>, call: &Call, segments: &[&str]) -> Answer {
    if call.method != Method::GET && call.method != Method::HEAD {
        return Err(Failure::method("GET, HEAD"));
    }
    let of = |error| Failure::of(error, &call.caller);
    let (resolved, path) = at.revision(call, segments).await?;
    let path = path.join("/");
    let path = match path.trim_matches('/') {
        "" => None,
        path => Some(FilePath::parse(path).map_err(|error| of(error.into()))?),
    };
    let (recursive, expand) = (call.query.flag("recursive"), call.query.flag("expand"));
    let default = if expand { DEFAULT_EXPANDED } else { DEFAULT_LIMIT };
    let limit = call.query.first("limit").and_then(|limit| limit.parse().ok());
    let limit = limit.unwrap_or(default).clamp(1, if expand { DEFAULT_EXPANDED } else { MOST });
    let after = call.query.first("cursor");
    let page = at
        .hub()
        .tree_page(at.repo(), resolved.commit, path.as_ref(), recursive, after, limit)
        .await
        .map_err(of)?;
    let last = if expand {
        last_commits(at, call, resolved.commit, &page.items).await?
    } else {
        BTreeMap::new()
    };
    let scans = match expand {
        true => Some(security::scans(at, call, resolved.commit, &page.items).await?),
        false => None,
    };
    let mut response = reply::json(&views(at, &page.items, scans.as_deref(), &last))?;
    if let Some(next) = page.next {
        response.headers_mut().insert(LINK, next_link(call, "cursor", &next)?);
    }
    Ok(response)
}

/// The commits that last changed these items.
pub(super) async fn last_commits(
    at: &Context<'_>,
    call: &Call,
    commit: ballast_format::hash::ObjectHash,
    items: &[TreeItem],
) -> Result<BTreeMap<String, CommitView>, Failure> {
    let paths: Vec<FilePath> =
        items.iter().filter_map(|item| FilePath::parse(&item.path).ok()).collect();
    let found = at.hub().last_commits(at.repo(), commit, &paths).await;
    found.map_err(|error| Failure::of(error, &call.caller))
}

/// Items as clients read them; what scans found is there where they asked for more.
pub(super) fn views(
    at: &Context<'_>,
    items: &[TreeItem],
    scans: Option<&[Option<Arc<Scan>>]>,
    last: &BTreeMap<String, CommitView>,
) -> Vec<Value> {
    let is_coming = at.hub().scans();
    let one = |(number, item): (usize, &TreeItem)| {
        let Some(scans) = scans else { return view(item, None) };
        let mut view = view(item, Some(last.get(&item.path)));
        if item.kind == ItemKind::File {
            let scan = scans.get(number).and_then(Option::as_deref);
            view["securityFileStatus"] = security::file_status(scan, is_coming);
        }
        view
    };
    items.iter().enumerate().map(one).collect()
}

/// An item as clients read it; `last` is there where they asked for more.
fn view(item: &TreeItem, last: Option<Option<&CommitView>>) -> Value {
    let kind = match item.kind {
        ItemKind::File => "file",
        ItemKind::Directory => "directory",
    };
    let id = item.id.to_string();
    let mut view = json!({"type": kind, "oid": id, "size": item.size, "path": item.path});
    if let Some(large) = &item.large {
        view["lfs"] = json!({
            "oid": large.sha256.to_string(),
            "size": large.size,
            "pointerSize": large.pointer_size,
        });
        if let Some(file) = large.file().filter(|_| large.size > 0) {
            view["xetHash"] = json!(file.to_string());
        }
    }
    if let Some(last) = last {
        view["lastCommit"] = last.map_or(Value::Null, |commit| {
            let date = super::commits::date(commit.time_seconds.saturating_mul(1000));
            json!({"id": commit.id.to_string(), "title": commit.title, "date": date})
        });
    }
    view
}

/// `Link` to the next page: the same request with another cursor.
pub(super) fn next_link(
    call: &Call,
    parameter: &str,
    cursor: &str,
) -> Result<HeaderValue, Failure> {
    use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
    let mut url = format!("{}{}?", call.base(), call.path.path());
    for (name, value) in call.query.pairs().filter(|(name, _)| *name != parameter) {
        let name = utf8_percent_encode(name, NON_ALPHANUMERIC);
        let value = utf8_percent_encode(value, NON_ALPHANUMERIC);
        url.push_str(&format!("{name}={value}&"));
    }
    url.push_str(&format!("{parameter}={}", utf8_percent_encode(cursor, NON_ALPHANUMERIC)));
    HeaderValue::try_from(format!("<{url}>; rel=\"next\""))
        .map_err(|_| Failure::invalid("the address can't be continued"))
}
