//! What a repo's name in an address leads to.
//!
//! Names are compared without regard to case, and former names go on working: both are answered by
//! a redirect to the name as it is, with the rest of the address as it was. Who may not read a repo
//! hears the same as for one that does not exist, whatever name they tried.

use std::sync::Arc;

use ballast_format::hash::ObjectHash;
use ballast_format::name::{RepoKind, RepoName};
use ballast_node::access::{Access, Repo};
use ballast_node::download::Resolved;
use ballast_node::hub::Hub;
use http::header::LOCATION;
use http::{HeaderValue, Method, StatusCode};

use crate::Gateway;
use crate::call::{Call, decode};
use crate::error::Failure;

/// What follows a repo's name; after a single word it tells that the word was the whole name.
const BELOW: &[&str] = &[
    "auth-check",
    "branch",
    "commit",
    "commits",
    "compare",
    "discussions",
    "duplicate",
    "lfs-files",
    "like",
    "likers",
    "paths-info",
    "preupload",
    "raw",
    "refs",
    "resolve",
    "revision",
    "runtime",
    "safetensors-metadata",
    "settings",
    "super-squash",
    "tag",
    "tree",
    "user-access-request",
    "xet-read-token",
    "xet-write-token",
];

/// A repo that the caller may see.
pub(super) struct Place {
    pub(super) repo: Repo,
}

/// What most routes need.
pub(super) struct Context<'a> {
    pub(super) gateway: &'a Arc<Gateway>,
    pub(super) place: &'a Place,
}

impl Context<'_> {
    pub(super) fn hub(&self) -> &Arc<Hub> {
        &self.gateway.hub
    }

    pub(super) fn repo(&self) -> &Repo {
        &self.place.repo
    }

    /// The repo, for who may see it.
    pub(super) fn reading(&self, _: &Call) -> Result<Repo, Failure> {
        Ok(self.place.repo.clone())
    }

    /// The repo, for who may do this with it.
    pub(super) fn allowed(&self, call: &Call, want: Access) -> Result<Repo, Failure> {
        let repo = self.hub().repo_by_id(&call.caller, self.repo().id(), want);
        repo.map_err(|error| Failure::of(error, &call.caller))
    }

    /// The revision that encoded segments begin with, and what is left of them. One segment that
    /// holds an encoded slash is a revision by itself; raw slashes belong to the longest ref.
    pub(super) async fn revision<'s>(
        &self,
        call: &Call,
        segments: &'s [&'s str],
    ) -> Result<(Resolved, Vec<String>), Failure> {
        let mut decoded = Vec::with_capacity(segments.len());
        for segment in segments {
            decoded.push(decode(segment)?);
        }
        let Some(first) = decoded.first() else {
            return Err(Failure::invalid("the address names no revision"));
        };
        let of = |error| Failure::of(error, &call.caller);
        if decoded.len() == 1 || first.contains('/') {
            let resolved = self.hub().resolve(self.repo(), first).await.map_err(of)?;
            return Ok((resolved, decoded.split_off(1)));
        }
        let found = self.hub().resolve_longest(self.repo(), &decoded).await;
        let (resolved, used, _) = found.map_err(of)?;
        Ok((resolved, decoded.split_off(used)))
    }

    /// The whole of the segments as one revision, which may be written with raw slashes.
    pub(super) async fn whole_revision(
        &self,
        call: &Call,
        segments: &[&str],
    ) -> Result<(Resolved, String), Failure> {
        let name = whole(segments)?;
        let resolved = self.hub().resolve(self.repo(), &name).await;
        Ok((resolved.map_err(|error| Failure::of(error, &call.caller))?, name))
    }

    /// `{base}/{prefix}{namespace}/{name}`.
    pub(super) fn url(&self, call: &Call) -> String {
        url_of(call, self.repo())
    }
}

/// Segments as one decoded text.
pub(super) fn whole(segments: &[&str]) -> Result<String, Failure> {
    if segments.is_empty() {
        return Err(Failure::invalid("the address ends too early"));
    }
    decode(&segments.join("/"))
}

/// A repo's page.
pub(super) fn url_of(call: &Call, repo: &Repo) -> String {
    format!("{}/{}{}", call.base(), repo.kind().url_prefix(), repo.name())
}

/// A commit, as text for headers.
pub(super) fn commit_value(commit: ObjectHash) -> HeaderValue {
    HeaderValue::try_from(commit.to_string()).expect("hexadecimal digits are header text")
}

/// The repo of `/api/{kinds}/…`, and the segments behind its name.
pub(super) async fn of_api<'s>(
    gateway: &Arc<Gateway>,
    call: &Call,
    kind: RepoKind,
    segments: &'s [&'s str],
) -> Result<(Place, &'s [&'s str]), Failure> {
    let is_legacy = match segments {
        [_] => true,
        [_, second, ..] => {
            let is_known =
                || name_of(call, segments).is_ok_and(|name| is_here(gateway, call, kind, &name));
            BELOW.contains(second) && !is_known()
        }
        [] => return Err(Failure::no_route()),
    };
    let prefix = format!("/api/{}/", kind.plural());
    if is_legacy {
        return Err(legacy(gateway, call, kind, &prefix, segments));
    }
    Ok((found(gateway, call, kind, &prefix, segments).await?, &segments[2..]))
}

/// The repo of `/v2/{namespace}/{name}/…`, whose clients follow no redirect.
pub(super) async fn of_manifest(
    gateway: &Arc<Gateway>,
    call: &Call,
    name: [&str; 2],
) -> Result<Repo, Failure> {
    Ok(open(gateway, call, RepoKind::Model, &name).await?.0)
}

/// The repo of `/{prefix}…`, and the segments behind its name; nothing if this is no address of a
/// repo.
pub(super) async fn of_web<'s>(
    gateway: &Arc<Gateway>,
    call: &Call,
    kind: RepoKind,
    segments: &'s [&'s str],
) -> Result<Option<(Place, &'s [&'s str])>, Failure> {
    let prefix = format!("/{}", kind.url_prefix());
    match segments {
        [_, "resolve" | "raw", third, ..] if !matches!(*third, "resolve" | "raw") => {
            Err(legacy(gateway, call, kind, &prefix, segments))
        }
        [_, _, _, ..] => {
            let place = found(gateway, call, kind, &prefix, segments).await?;
            Ok(Some((place, &segments[2..])))
        }
        _ => Ok(None),
    }
}

/// The repo, if the caller may read it. What only looks is also looked for at the hub's upstream.
async fn open(
    gateway: &Arc<Gateway>,
    call: &Call,
    kind: RepoKind,
    segments: &[&str],
) -> Result<(Repo, RepoName), Failure> {
    let name = name_of(call, segments)?;
    let asks_paths = segments.get(2) == Some(&"paths-info");
    let repo = match call.method {
        Method::GET | Method::HEAD => gateway.hub.repo_or_bring(&call.caller, kind, &name).await,
        _ if asks_paths => gateway.hub.repo_or_bring(&call.caller, kind, &name).await,
        _ => gateway.hub.repo(&call.caller, kind, &name, Access::Read),
    };
    Ok((repo.map_err(|error| Failure::of(error, &call.caller))?, name))
}

/// The name that the first two segments are.
fn name_of(call: &Call, segments: &[&str]) -> Result<RepoName, Failure> {
    let [namespace, name, ..] = segments else { return Err(Failure::no_route()) };
    let text = format!("{}/{}", decode(namespace)?, decode(name)?);
    RepoName::parse(&text).map_err(|_| Failure::hidden(&call.caller))
}

fn is_here(gateway: &Arc<Gateway>, call: &Call, kind: RepoKind, name: &RepoName) -> bool {
    gateway.hub.repo(&call.caller, kind, name, Access::Read).is_ok()
}

async fn found(
    gateway: &Arc<Gateway>,
    call: &Call,
    kind: RepoKind,
    prefix: &str,
    segments: &[&str],
) -> Result<Place, Failure> {
    let (repo, asked) = open(gateway, call, kind, segments).await?;
    if *repo.name() != asked {
        return Err(moved(call, prefix, repo.name(), &segments[2..]));
    }
    Ok(Place { repo })
}

fn legacy(
    gateway: &Arc<Gateway>,
    call: &Call,
    kind: RepoKind,
    prefix: &str,
    segments: &[&str],
) -> Failure {
    let Ok(name) = decode(segments[0]) else { return Failure::hidden(&call.caller) };
    match gateway.hub.find_legacy(&call.caller, kind, &name) {
        Some(name) => moved(call, prefix, &name, &segments[1..]),
        None => Failure::hidden(&call.caller),
    }
}

/// 307, which keeps method and body, to the same address under the repo's own name.
fn moved(call: &Call, prefix: &str, name: &RepoName, rest: &[&str]) -> Failure {
    let mut location = format!("{prefix}{name}");
    for segment in rest {
        location.push('/');
        location.push_str(segment);
    }
    if let Some(query) = call.path.query() {
        location.push('?');
        location.push_str(query);
    }
    let failure = Failure::new(StatusCode::TEMPORARY_REDIRECT, format!("now at `{name}`"));
    match HeaderValue::try_from(location) {
        Ok(location) => failure.header(LOCATION, location),
        Err(_) => Failure::hidden(&call.caller),
    }
}
