//! Before an upload: what a client may ask about its files.

use ballast_format::hash::ObjectHash;
use ballast_format::name::FilePath;
use ballast_node::Error;
use ballast_node::access::{Access, Repo};
use ballast_node::upload::commit::Asked;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};

use super::place::{Context, whole};
use crate::call::Call;
use crate::error::{Answer, Failure};
use crate::reply;

const BODY_BYTES: u64 = 10_000_000;
const MOST_FILES: usize = 1000;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Body {
    files: Vec<File>,
    git_ignore: Option<String>,
    git_attributes: Option<String>,
}

#[derive(Deserialize)]
struct File {
    path: String,
    #[serde(default)]
    size: u64,
    #[serde(default)]
    sample: String,
}

/// Refuses what would be more than the owner may have: who uploads by Xet is told here, since its
/// clients do not show why something that they send is refused. What has the same size as what is
/// there, at the same path, is taken for the same.
async fn check_room(
    at: &Context<'_>,
    repo: &Repo,
    commit: Option<ObjectHash>,
    sent: &[&Asked],
) -> Result<(), Error> {
    let all = sent.iter().fold(0_u64, |sum, asked| sum.saturating_add(asked.size));
    match at.hub().check_room(repo, all).await {
        Err(Error::QuotaExceeded { .. }) => {}
        other => return other,
    }
    let mut new = 0_u64;
    for asked in sent {
        let known = match commit {
            Some(commit) => at.hub().item(repo, commit, &asked.path).await.ok(),
            None => None,
        };
        if known.is_none_or(|known| known.size != asked.size) {
            new = new.saturating_add(asked.size);
        }
    }
    if new == 0 { Ok(()) } else { at.hub().check_room(repo, new).await }
}

/// `POST …/preupload/{revision}`. Who may only read may still propose.
pub(super) async fn answer(at: &Context<'_>, mut call: Call, segments: &[&str]) -> Answer {
    let revision = whole(segments)?;
    let proposes = call.query.flag("create_pr") || revision.starts_with("refs/pr/");
    let want = if proposes { Access::Read } else { Access::Write };
    let of = |call: &Call, error| Failure::of(error, &call.caller);
    call.caller.user().map_err(|error| of(&call, error))?;
    let repo = at.allowed(&call, want)?;
    let body: Body = call.json(BODY_BYTES).await?;
    if body.files.len() > MOST_FILES {
        return Err(Failure::invalid(format!("at most {MOST_FILES} files in one request")));
    }
    let commit = match at.hub().resolve(&repo, &revision).await {
        Ok(resolved) => Some(resolved.commit),
        Err(Error::RevisionNotFound { .. }) if revision == "main" => None,
        Err(error) => return Err(of(&call, error)),
    };
    let mut asked = Vec::with_capacity(body.files.len());
    for file in &body.files {
        let path = FilePath::parse(&file.path).map_err(|error| of(&call, error.into()))?;
        // Clients differ in padding; a sample that can't be read says nothing.
        let sample = BASE64_STANDARD.decode(file.sample.trim()).unwrap_or_default();
        asked.push(Asked { path, size: file.size, sample });
    }
    at.hub().may_upload(&repo, &asked).map_err(|error| of(&call, error))?;
    let (ignore, attributes) = (body.git_ignore.as_deref(), body.git_attributes.as_deref());
    let verdicts = at.hub().preupload(&repo, commit, &asked, ignore, attributes).await;
    let verdicts = verdicts.map_err(|error| of(&call, error))?;
    let sent = asked.iter().zip(&verdicts).filter(|(_, verdict)| verdict.large && !verdict.ignore);
    let sent: Vec<&Asked> = sent.map(|(asked, _)| asked).collect();
    check_room(at, &repo, commit, &sent).await.map_err(|error| of(&call, error))?;
    let files: Vec<Value> = verdicts
        .into_iter()
        .map(|verdict| {
            let mode = if verdict.large { "lfs" } else { "regular" };
            let mut file = json!({
                "path": verdict.path.as_str(),
                "uploadMode": mode,
                "shouldIgnore": verdict.ignore,
            });
            if let Some(oid) = verdict.oid {
                file["oid"] = json!(oid);
            }
            file
        })
        .collect();
    let mut answer = json!({"files": files});
    if let Some(commit) = commit {
        answer["commitOid"] = json!(commit.to_string());
    }
    reply::json(&answer)
}
