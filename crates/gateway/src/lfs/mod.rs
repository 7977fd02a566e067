//! The LFS dialect: batches, objects whole or in parts, and the locks that nobody has.
//!
//! A batch hands out addresses that authorise themselves: clients send no credentials to them. A
//! link names the repo, the object, the act, and in whose name it was made; the user, the token
//! and their rights are looked up again when it is used.

use ballast_format::name::{RepoKind, RepoName};
use ballast_node::access::{Access, Repo};
use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderValue};
use serde_json::json;

use crate::call::{Call, decode};
use crate::error::{Answer, Failure};
use crate::reply;

pub(crate) mod batch;
mod object;

pub(crate) use object::answer as signed;

/// The media type of this dialect.
const LFS_JSON: &str = "application/vnd.git-lfs+json";

/// A refusal as git-lfs reads it: with a challenge, and the sentence under `message`.
pub(crate) fn worded(failure: Failure) -> Failure {
    let message = json!({"message": failure.message()});
    let media_type = HeaderValue::from_static(LFS_JSON);
    failure.body(message).header(CONTENT_TYPE, media_type).challenge()
}

/// The repo that the path names, with or without `.git`, if the caller may have it so.
fn repo(call: &Call, segments: &[&str], access: Access) -> Result<Repo, Failure> {
    let hub = &call.gateway.hub;
    // A name that cannot exist and a repo that does not are the same to the caller.
    let hidden = || Failure::hidden(&call.caller);
    let (kind, namespace, name) = match segments {
        ["datasets", namespace, name] => (RepoKind::Dataset, namespace, name),
        ["spaces", namespace, name] => (RepoKind::Space, namespace, name),
        [namespace, name] => (RepoKind::Model, namespace, name),
        _ => return Err(Failure::no_route()),
    };
    let name = name.strip_suffix(".git").unwrap_or(name);
    let name = format!("{}/{}", decode(namespace)?, decode(name)?);
    let name = RepoName::parse(&name).map_err(|_| hidden())?;
    hub.repo(&call.caller, kind, &name, access).map_err(|error| Failure::of(error, &call.caller))
}

/// `POST {repo}/info/lfs/locks/verify`: there are no locks.
pub(crate) async fn locks(call: Call, segments: &[&str]) -> Answer {
    repo(&call, segments, Access::Write)?;
    reply::json_as(StatusCode::OK, LFS_JSON, &json!({"ours": [], "theirs": []}))
}
