//! The hub API: repos, their files, commits, people, search.
//!
//! One file for each group of routes. Paths are matched here, on encoded segments; what a repo's
//! name leads to is decided in `place.rs`.

mod accounts;
mod branches;
mod commit;
pub(crate) mod commits;
mod deletions;
mod extras;
mod gating;
mod headers;
mod info;
mod items;
mod listing;
mod manifest;
mod place;
mod preupload;
mod pulls;
mod raw;
mod repos;
mod resolve;
pub(crate) mod security;
mod settings;
mod staleness;
mod storage;
mod tree;

use std::sync::Arc;

use ballast_format::name::RepoKind;
use http::Method;

use crate::Gateway;
use crate::call::Call;
use crate::error::{Answer, Failure};

/// Answers what no other dialect took.
pub(crate) async fn route(gateway: &Arc<Gateway>, call: Call, segments: &[&str]) -> Answer {
    match segments {
        ["api", rest @ ..] => api(gateway, call, rest).await,
        ["v2", namespace, name, "manifests", rest @ ..] => {
            manifest::answer(gateway, call, [namespace, name], rest).await
        }
        ["v2", ..] => Err(Failure::no_route()),
        [kind @ ("datasets" | "spaces"), rest @ ..] if rest.len() >= 2 => {
            web(gateway, call, RepoKind::from_plural(kind), rest).await
        }
        rest => web(gateway, call, Some(RepoKind::Model), rest).await,
    }
}

async fn api(gateway: &Arc<Gateway>, call: Call, segments: &[&str]) -> Answer {
    admit(gateway, &call, segments)?;
    match segments {
        ["whoami-v2"] => accounts::whoami(gateway, &call),
        ["repos", "create"] => repos::create(gateway, call).await,
        ["repos", "delete"] => repos::delete(gateway, call).await,
        ["repos", "move"] => repos::rename(gateway, call).await,
        ["validate-yaml"] => extras::validate_yaml(call).await,
        ["models-tags-by-type" | "datasets-tags-by-type"] => {
            extras::tags_by_type(gateway, &call, segments[0].starts_with("models"))
        }
        ["tasks" | "agent-harnesses"] => extras::empty_object(&call),
        ["telemetry", ..] => extras::telemetry(&call),
        ["users", name, rest @ ..] => accounts::user(gateway, call, name, rest).await,
        ["organizations", name, "settings", "repositories"] => {
            storage::of_organization(gateway, &call, name)
        }
        ["organizations", name, rest @ ..] => accounts::organization(gateway, call, name, rest),
        ["settings", "repositories"] => storage::of_user(gateway, &call),
        [kind, rest @ ..] => match RepoKind::from_plural(kind) {
            Some(kind) if rest.is_empty() => listing::answer(gateway, &call, kind).await,
            Some(kind) => repo_api(gateway, call, kind, rest).await,
            None => Err(Failure::no_route()),
        },
        [] => Err(Failure::no_route()),
    }
}

/// The one place that shuts strangers out of a closed hub's API. Open are routes that tell nothing
/// of what the hub holds, and that which words a bad token itself.
fn admit(gateway: &Arc<Gateway>, call: &Call, segments: &[&str]) -> Result<(), Failure> {
    if let ["whoami-v2" | "validate-yaml"] | ["telemetry", ..] = segments {
        return Ok(());
    }
    gateway.hub.admit(&call.caller).map_err(|error| match segments {
        [kind, _, ..] if RepoKind::from_plural(kind).is_some() => Failure::hidden(&call.caller),
        _ => Failure::of(error, &call.caller),
    })
}

/// Routes below `/api/{kinds}/{namespace}/{name}`.
async fn repo_api(gateway: &Arc<Gateway>, call: Call, kind: RepoKind, segments: &[&str]) -> Answer {
    let (place, rest) = place::of_api(gateway, &call, kind, segments).await?;
    let at = place::Context { gateway, place: &place };
    Ok(staleness::marked(&at, below_repo(&at, call, rest).await?))
}

async fn below_repo(at: &place::Context<'_>, call: Call, rest: &[&str]) -> Answer {
    match (rest, &call.method) {
        ([] | ["revision", ..], _) => info::answer(at, call, rest).await,
        (["tree", rest @ ..], _) => tree::answer(at, &call, rest).await,
        (["paths-info", rest @ ..], _) => items::answer(at, call, rest).await,
        (["refs"], _) => branches::refs(at, &call).await,
        (["commits", rest @ ..], _) => commits::answer(at, &call, rest).await,
        (["compare", range @ ..], _) => commits::compare(at, &call, range).await,
        (["auth-check"], _) => repos::auth_check(at, &call, false),
        (["auth-check", "write"], _) => repos::auth_check(at, &call, true),
        (["safetensors-metadata", path @ ..], _) => headers::answer(at, &call, path).await,
        (["preupload", rest @ ..], &Method::POST) => preupload::answer(at, call, rest).await,
        (["commit", rest @ ..], &Method::POST) => commit::answer(at, call, rest).await,
        (["super-squash", rest @ ..], &Method::POST) => commits::squash(at, call, rest).await,
        (["lfs-files"], _) => extras::lfs_files(at, &call).await,
        (["lfs-files", "duplicate"], &Method::POST) => extras::duplicate_files(at, call).await,
        (["lfs-files", "batch"], &Method::POST) => deletions::answer(at, call).await,
        (["xet-read-token", rest @ ..], _) => {
            let repo = at.reading(&call)?;
            crate::xet::token::answer(&call, &repo, &rest.join("/"), false)
        }
        (["xet-write-token", rest @ ..], _) => {
            let repo = at.reading(&call)?;
            crate::xet::token::answer(&call, &repo, &rest.join("/"), true)
        }
        (["branch", rest @ ..], _) => branches::branch(at, call, rest).await,
        (["tag", rest @ ..], _) => branches::tag(at, call, rest).await,
        (["settings"], _) => settings::answer(at, call).await,
        (["duplicate"], &Method::POST) => repos::duplicate(at, call).await,
        (["discussions", rest @ ..], _) => pulls::answer(at, call, rest).await,
        (["user-access-request", rest @ ..], _) => gating::answer(at, call, rest).await,
        (["like"], _) => accounts::like(at, &call).await,
        (["likers"], _) => accounts::likers(at, &call),
        (["runtime"], _) if at.repo().kind() == RepoKind::Space => extras::runtime(at, &call),
        _ => Err(Failure::no_route()),
    }
}

/// Routes of a repo's own pages: `/{prefix}{namespace}/{name}/…`.
async fn web(
    gateway: &Arc<Gateway>,
    call: Call,
    kind: Option<RepoKind>,
    segments: &[&str],
) -> Answer {
    let Some(kind) = kind else { return Err(Failure::no_route()) };
    let Some((place, rest)) = place::of_web(gateway, &call, kind, segments).await? else {
        return Err(Failure::no_route());
    };
    let at = place::Context { gateway, place: &place };
    let answer = match (rest, &call.method) {
        (["resolve", rest @ ..], &Method::GET | &Method::HEAD) => {
            resolve::answer(&at, call, rest).await
        }
        (["raw", rest @ ..], &Method::GET | &Method::HEAD) => raw::answer(&at, &call, rest).await,
        (["resolve" | "raw", ..], _) => Err(Failure::method("GET, HEAD")),
        (["ask-access"], &Method::POST) => gating::ask(&at, call).await,
        _ => Err(Failure::no_route()),
    };
    Ok(staleness::marked(&at, answer?))
}
