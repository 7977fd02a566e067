//! Search: lists of repos, filtered and sorted as clients ask.

use std::sync::Arc;

use ballast_format::hash::ObjectHash;
use ballast_format::name::RepoKind;
use ballast_node::discovery::{Query, Sort};
use http::Method;
use http::header::LINK;
use serde_json::{Value, json};

use super::info::{Subject, expanded};
use super::tree::next_link;
use crate::Gateway;
use crate::call::Call;
use crate::error::{Answer, Failure};
use crate::reply;

const DEFAULT_LIMIT: usize = 1000;
/// With the files of each repo, a page costs a tree for each.
const DEFAULT_WITH_FILES: usize = 100;
/// Words, tags and the like of one request.
const MOST_FILTERS: usize = 100;

const COMMON: &[&str] = &[
    "author",
    "createdAt",
    "downloads",
    "gated",
    "lastModified",
    "likes",
    "private",
    "tags",
    "trendingScore",
];
const MODEL: &[&str] = &["library_name", "modelId", "pipeline_tag"];
const DATASET: &[&str] = &["description"];
const SPACE: &[&str] = &["sdk"];
/// What `full` adds.
const FULL: &[&str] = &["cardData", "disabled", "sha", "siblings", "usedStorage"];

/// `GET /api/{kinds}`.
pub(super) async fn answer(gateway: &Arc<Gateway>, call: &Call, kind: RepoKind) -> Answer {
    if call.method != Method::GET && call.method != Method::HEAD {
        return Err(Failure::method("GET, HEAD"));
    }
    if kind == RepoKind::Model && asks_for_inference(call) {
        return reply::json(&json!([]));
    }
    let of = |error| Failure::of(error, &call.caller);
    let names = names(call, kind);
    let with_files = names.contains(&"siblings");
    let most = if with_files { DEFAULT_WITH_FILES } else { DEFAULT_LIMIT };
    let number = |name: &str| call.query.first(name).and_then(|text| text.parse::<usize>().ok());
    let limit = number("limit").unwrap_or(most).clamp(1, most);
    let after = number("cursor").unwrap_or(0);
    let query = query(call)?;
    let (page, more) = gateway.hub.list(&call.caller, kind, &query, after, limit).map_err(of)?;
    let mut views = Vec::with_capacity(page.len());
    for listed in &page {
        let commit = listed.facts.commit.as_ref().and_then(|id| id.parse::<ObjectHash>().ok());
        let siblings = match commit.filter(|_| with_files) {
            Some(commit) => gateway.hub.siblings(&listed.repo, commit).await.map_err(of)?,
            None => Vec::new(),
        };
        let siblings = with_files.then_some(siblings.as_slice());
        let (blobs, security, xet) = (false, None, gateway.settings.xet);
        let subject = Subject { listed, commit, siblings, blobs, security, xet };
        views.push(Value::Object(subject.view(&names)));
    }
    let mut response = reply::json(&views)?;
    if more {
        let next = after.saturating_add(limit).to_string();
        response.headers_mut().insert(LINK, next_link(call, "cursor", &next)?);
    }
    Ok(response)
}

/// The fields that the client wants of each repo.
fn names(call: &Call, kind: RepoKind) -> Vec<&str> {
    let mut names = expanded(&call.query);
    if !names.is_empty() {
        return names;
    }
    names.extend(COMMON);
    names.extend(match kind {
        RepoKind::Model => MODEL,
        RepoKind::Dataset => DATASET,
        RepoKind::Space => SPACE,
    });
    if call.query.flag("full") {
        names.extend(FULL);
    }
    for name in ["cardData", "config"] {
        if call.query.flag(name) && !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// Nothing is run here, so no model is served by anybody.
fn asks_for_inference(call: &Call) -> bool {
    let mut asked = ["inference", "inference_provider"].into_iter();
    asked.any(|name| call.query.all(name).any(|value| !value.is_empty()))
}

fn query(call: &Call) -> Result<Query, Failure> {
    let asked = &call.query;
    let text = |name: &str| asked.first(name).filter(|t| !t.is_empty()).map(ToOwned::to_owned);
    let many = |name| asked.all(name).filter(|text| !text.is_empty());
    let mut tags: Vec<String> = Vec::new();
    for name in ["filter", "tags", "library"] {
        tags.extend(many(name).flat_map(|list| list.split(',')).map(ToOwned::to_owned));
    }
    // Of these a client names the value alone; their tags say what they are.
    for name in ["language", "license", "dataset", "base_model", "task_categories"] {
        let full = |value: &str| match value.split_once(':') {
            Some((before, _)) if before == name => value.to_owned(),
            _ => format!("{name}:{value}"),
        };
        tags.extend(many(name).flat_map(|list| list.split(',')).map(full));
    }
    let sort = sort(asked.first("sort"));
    let ascending = match asked.first("direction") {
        Some("1") => true,
        Some("-1") => false,
        // Figures are asked for from the top, names from the beginning.
        _ => sort == Sort::Name,
    };
    let query = Query {
        search: many("search").map(ToOwned::to_owned).collect(),
        author: text("author"),
        tags,
        pipeline_tag: text("pipeline_tag"),
        gated: text("gated").map(|_| asked.flag("gated")),
        parameters: text("num_parameters").map_or(Ok((None, None)), |text| parameters(&text))?,
        sort,
        ascending,
        linked: ["models", "datasets"].into_iter().flat_map(many).map(ToOwned::to_owned).collect(),
        is_linked: asked.flag("linked"),
        apps: many("apps").flat_map(|list| list.split(',')).map(ToOwned::to_owned).collect(),
    };
    let filters = [&query.tags, &query.search, &query.linked, &query.apps];
    if filters.iter().map(|list| list.len()).sum::<usize>() > MOST_FILTERS {
        return Err(Failure::invalid(format!("more than {MOST_FILTERS} filters")));
    }
    Ok(query)
}

/// A sort that we don't know is passed over, as every parameter is.
fn sort(name: Option<&str>) -> Sort {
    match name {
        Some("downloads") => Sort::Downloads,
        Some("likes" | "likes30d") => Sort::Likes,
        Some("lastModified" | "last_modified" | "modified") => Sort::LastModified,
        Some("createdAt" | "created_at" | "created") => Sort::CreatedAt,
        Some("num_parameters") => Sort::Parameters,
        Some("mainSize") => Sort::Size,
        Some("id") => Sort::Name,
        _ => Sort::Trending,
    }
}

/// `min:1B,max:8B`: either may be missing.
fn parameters(text: &str) -> Result<(Option<u64>, Option<u64>), Failure> {
    let (mut least, mut most) = (None, None);
    for part in text.split(',') {
        let bound = part.split_once(':').and_then(|(name, text)| Some((name, count(text)?)));
        match bound {
            Some(("min", count)) => least = Some(count),
            Some(("max", count)) => most = Some(count),
            _ => {
                return Err(Failure::invalid("`num_parameters` is as in `min:1B,max:8B`"));
            }
        }
    }
    Ok((least, most))
}

/// `7B`, `350M`, `1.5b`, `1000`.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the number is finite, not negative and below 2^63"
)]
fn count(text: &str) -> Option<u64> {
    let (digits, factor) = match text.char_indices().last()? {
        (at, 'k' | 'K') => (&text[..at], 1e3),
        (at, 'm' | 'M') => (&text[..at], 1e6),
        (at, 'b' | 'B') => (&text[..at], 1e9),
        (at, 't' | 'T') => (&text[..at], 1e12),
        _ => (text, 1.0),
    };
    let number = digits.parse::<f64>().ok()? * factor;
    (number.is_finite() && (0.0..9e18).contains(&number)).then_some(number as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_parameters_are_read_with_their_units() {
        let bounds = |text: &str| parameters(text).ok();
        assert_eq!(bounds("min:1B,max:8b"), Some((Some(1_000_000_000), Some(8_000_000_000))));
        assert_eq!(bounds("max:1.5M"), Some((None, Some(1_500_000))));
        for bad in ["", "min", "min:", "min:-1", "min:NaN", "min:inf", "max:1Q", "mid:1"] {
            assert_eq!(bounds(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_listing_is_shown_trending_first_unless_told() {
        assert_eq!(sort(None), Sort::Trending);
        assert_eq!(sort(Some("downloads")), Sort::Downloads);
    }
}
