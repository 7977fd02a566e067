//! Branches and tags.

use ballast_format::name::RefName;
use ballast_node::access::Access;
use ballast_node::repo::RefView;
use http::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::place::{Context, whole};
use crate::call::Call;
use crate::error::{Answer, Failure};
use crate::reply;

const BODY_BYTES: u64 = 1_000_000;

/// `GET …/refs`.
pub(super) async fn refs(at: &Context<'_>, call: &Call) -> Answer {
    let refs = at.hub().refs(at.repo()).await;
    let refs = refs.map_err(|error| Failure::of(error, &call.caller))?;
    let view = |view: &RefView| {
        json!({
            "name": view.name.short(),
            "ref": view.name.as_str(),
            "targetCommit": view.commit.to_string(),
        })
    };
    let list = |views: &[RefView]| views.iter().map(view).collect::<Vec<Value>>();
    let mut body = json!({
        "branches": list(&refs.branches),
        "tags": list(&refs.tags),
        "converts": list(&refs.conversions),
    });
    if call.query.flag("include_prs") {
        body["pullRequests"] = json!(list(&refs.pulls));
    }
    reply::json(&body)
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct NewBranch {
    starting_point: Option<String>,
    empty_branch: bool,
    overwrite: bool,
}

/// `POST` and `DELETE …/branch/{name}`.
pub(super) async fn branch(at: &Context<'_>, mut call: Call, segments: &[&str]) -> Answer {
    let repo = at.allowed(&call, Access::Write)?;
    let name = whole(segments)?;
    let parsed = RefName::branch(&name);
    let name = parsed.map_err(|error| Failure::of(error.into(), &call.caller))?;
    if call.method == Method::DELETE {
        let deleted = at.hub().delete_ref(&call.caller, &repo, &name).await;
        deleted.map_err(|error| Failure::of(error, &call.caller))?;
        return Ok(reply::empty());
    }
    if call.method != Method::POST {
        return Err(Failure::method("POST, DELETE"));
    }
    let body: NewBranch = optional_json(&mut call).await?;
    let made = async {
        if body.empty_branch {
            return at.hub().create_empty_ref(&call.caller, &repo, &name, body.overwrite).await;
        }
        let from = match body.starting_point.as_deref() {
            Some(from) => at.hub().resolve(&repo, from).await?,
            // Who names no start wants the branch to be there, and not to be moved.
            None if body.overwrite && at.hub().resolve(&repo, name.as_str()).await.is_ok() => {
                return Ok(());
            }
            None => at.hub().resolve(&repo, "main").await?,
        };
        at.hub().create_ref(&call.caller, &repo, &name, from.commit, body.overwrite).await
    };
    made.await.map_err(|error| Failure::of(error, &call.caller))?;
    Ok(reply::empty())
}

#[derive(Deserialize)]
struct NewTag {
    tag: String,
}

/// `POST …/tag/{revision}`, where the body has the name, and `DELETE …/tag/{name}`.
pub(super) async fn tag(at: &Context<'_>, mut call: Call, segments: &[&str]) -> Answer {
    let repo = at.allowed(&call, Access::Write)?;
    let text = whole(segments)?;
    if call.method == Method::DELETE {
        let deleted = match RefName::tag(&text) {
            Ok(name) => at.hub().delete_ref(&call.caller, &repo, &name).await,
            Err(error) => Err(error.into()),
        };
        deleted.map_err(|error| Failure::of(error, &call.caller))?;
        return Ok(reply::empty());
    }
    if call.method != Method::POST {
        return Err(Failure::method("POST, DELETE"));
    }
    let body: NewTag = call.json(BODY_BYTES).await?;
    let made = async {
        let name = RefName::tag(&body.tag)?;
        let commit = at.hub().resolve(&repo, &text).await?.commit;
        at.hub().create_ref(&call.caller, &repo, &name, commit, false).await
    };
    made.await.map_err(|error| Failure::of(error, &call.caller))?;
    Ok(reply::empty())
}

/// A body that may be left out.
pub(super) async fn optional_json<T: Default + serde::de::DeserializeOwned>(
    call: &mut Call,
) -> Result<T, Failure> {
    let bytes = call.bytes(BODY_BYTES).await?;
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Ok(T::default());
    }
    crate::json::decode(&bytes)
}
