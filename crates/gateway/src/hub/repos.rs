//! How repos begin, move and end.

use std::collections::HashSet;
use std::sync::Arc;

use ballast_format::name::{FilePath, Namespace, RepoKind, RepoName};
use ballast_format::object::Pointer;
use ballast_node::Error;
use ballast_node::access::{Access, Repo};
use ballast_node::repo::NewRepo;
use ballast_node::upload::commit::CommitHeader;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::{Method, StatusCode};
use serde::Deserialize;
use serde_json::json;

use super::place::{Context, url_of};
use super::settings::visibility_of;
use crate::Gateway;
use crate::call::Call;
use crate::error::{Answer, Failure};
use crate::reply;

const BODY_BYTES: u64 = 10_000_000;

#[derive(Deserialize)]
struct Create {
    name: String,
    organization: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
    visibility: Option<String>,
    private: Option<bool>,
    sdk: Option<String>,
    license: Option<String>,
    #[serde(default)]
    files: Vec<FirstFile>,
}

#[derive(Deserialize)]
struct FirstFile {
    path: String,
    content: String,
    encoding: Option<String>,
}

fn kind_of(text: Option<&str>) -> Result<RepoKind, Failure> {
    let Some(text) = text else { return Ok(RepoKind::Model) };
    RepoKind::from_singular(text)
        .or_else(|| RepoKind::from_plural(text))
        .ok_or_else(|| Failure::invalid(format!("`{text}` is no kind of repo")))
}

/// `name`, which may hold its namespace, in a namespace or in the caller's own.
fn name_of(call: &Call, name: &str, organization: Option<&str>) -> Result<RepoName, Failure> {
    let of = |error| Failure::of(error, &call.caller);
    let (namespace, name) = match (organization, name.split_once('/')) {
        (Some(organization), _) => (organization.to_owned(), name),
        (None, Some((namespace, name))) => (namespace.to_owned(), name),
        (None, None) => (call.caller.user().map_err(of)?.name.clone(), name),
    };
    let parsed = Namespace::parse(&namespace).and_then(|owner| RepoName::new(owner, name));
    parsed.map_err(|error| of(error.into()))
}

/// `POST /api/repos/create`.
pub(super) async fn create(gateway: &Arc<Gateway>, mut call: Call) -> Answer {
    if call.method != Method::POST {
        return Err(Failure::method("POST"));
    }
    let user = call.caller.user();
    user.map_err(|error| Failure::of(error, &call.caller))?;
    let asked: Create = call.json(BODY_BYTES).await?;
    let kind = kind_of(asked.kind.as_deref())?;
    let name = name_of(&call, &asked.name, asked.organization.as_deref())?;
    let visibility = visibility_of(asked.visibility.as_deref(), asked.private)?;
    // Whatever is wrong with the files is said before there is a repo.
    let files = first_files(asked.files, asked.license.as_deref())?;
    let new = NewRepo { kind, name: name.clone(), visibility, sdk: asked.sdk };
    let repo = match gateway.hub.create_repo(&call.caller, &new).await {
        Ok(repo) => repo,
        Err(error) => return Err(refused(gateway, &call, &new, error)),
    };
    if !files.is_empty() {
        let header = CommitHeader {
            summary: "initial files".to_owned(),
            revision: "main".to_owned(),
            ..CommitHeader::default()
        };
        let committed = async {
            let mut draft = gateway.hub.begin_commit(&call.caller, repo.clone(), header).await?;
            for (path, content) in files {
                draft.add_file(path, content).await?;
            }
            draft.finish().await
        };
        committed.await.map_err(|error| Failure::of(error, &call.caller))?;
    }
    reply::json(&made(&call, &repo))
}

fn made(call: &Call, repo: &Repo) -> serde_json::Value {
    let name = repo.name().to_string();
    json!({"url": url_of(call, repo), "name": name, "id": repo.id().to_string()})
}

/// Who creates what they have already gets the address of it with the refusal.
fn refused(gateway: &Arc<Gateway>, call: &Call, new: &NewRepo, error: Error) -> Failure {
    let exists = matches!(error, Error::Exists { .. });
    let failure = Failure::of(error, &call.caller);
    let existing = gateway.hub.repo(&call.caller, new.kind, &new.name, Access::Read);
    match existing {
        Ok(repo) if exists => failure.body(made(call, &repo)),
        _ => failure,
    }
}

fn first_files(
    files: Vec<FirstFile>,
    license: Option<&str>,
) -> Result<Vec<(FilePath, Bytes)>, Failure> {
    let mut decoded = Vec::with_capacity(files.len());
    for file in files {
        let path =
            FilePath::parse(&file.path).map_err(|error| Failure::invalid(error.to_string()))?;
        let content = match file.encoding.as_deref() {
            Some("base64") => {
                let decoded = BASE64_STANDARD.decode(&file.content);
                Bytes::from(decoded.map_err(|_| Failure::invalid("a file is not base64"))?)
            }
            _ => Bytes::from(file.content),
        };
        if Pointer::parse(&content).is_some() {
            let message = format!("`{path}` names a large file, which a new repo does not have");
            return Err(Failure::invalid(message));
        }
        decoded.push((path, content));
    }
    check_places(&decoded)?;
    let has_card = decoded.iter().any(|(path, _)| path.as_str() == "README.md");
    if let Some(license) = license.filter(|_| !has_card) {
        let plain = license.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._+".contains(&b));
        if !plain || license.len() > 100 {
            return Err(Failure::invalid("`license` is not the name of a licence"));
        }
        let path = FilePath::parse("README.md").map_err(|e| Failure::invalid(e.to_string()))?;
        decoded.push((path, Bytes::from(format!("---\nlicense: {license}\n---\n"))));
    }
    Ok(decoded)
}

/// A path can't be two files, nor a file and a folder.
fn check_places(files: &[(FilePath, Bytes)]) -> Result<(), Failure> {
    let mut paths: HashSet<&str> = HashSet::with_capacity(files.len());
    for (path, _) in files {
        if !paths.insert(path.as_str()) {
            return Err(Failure::invalid(format!("`{path}` is there twice")));
        }
    }
    for (path, _) in files {
        let mut folder = path.parent();
        while let Some(above) = folder {
            if paths.contains(above.as_str()) {
                let message = format!("`{above}` is a file, and `{path}` is below it");
                return Err(Failure::invalid(message));
            }
            folder = above.parent();
        }
    }
    Ok(())
}

#[derive(Deserialize)]
struct Delete {
    name: String,
    organization: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
}

/// `DELETE /api/repos/delete`.
pub(super) async fn delete(gateway: &Arc<Gateway>, mut call: Call) -> Answer {
    if call.method != Method::DELETE {
        return Err(Failure::method("DELETE"));
    }
    let asked: Delete = call.json(BODY_BYTES).await?;
    let kind = kind_of(asked.kind.as_deref())?;
    let name = name_of(&call, &asked.name, asked.organization.as_deref())?;
    let of = |error| Failure::of(error, &call.caller);
    let repo = gateway.hub.repo(&call.caller, kind, &name, Access::Admin).map_err(of)?;
    if repo.name().folded() != name.folded() {
        // A former name leads readers on; it must not let anybody delete by mistake.
        return Err(Failure::hidden(&call.caller));
    }
    gateway.hub.delete_repo(&call.caller, &repo).await.map_err(of)?;
    Ok(reply::empty())
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rename {
    from_repo: String,
    to_repo: String,
    #[serde(rename = "type")]
    kind: Option<String>,
}

/// `POST /api/repos/move`.
pub(super) async fn rename(gateway: &Arc<Gateway>, mut call: Call) -> Answer {
    if call.method != Method::POST {
        return Err(Failure::method("POST"));
    }
    let asked: Rename = call.json(BODY_BYTES).await?;
    let kind = kind_of(asked.kind.as_deref())?;
    let of = |error| Failure::of(error, &call.caller);
    let from = RepoName::parse(&asked.from_repo).map_err(|error| of(error.into()))?;
    let to = RepoName::parse(&asked.to_repo).map_err(|error| of(error.into()))?;
    let repo = gateway.hub.repo(&call.caller, kind, &from, Access::Admin).map_err(of)?;
    gateway.hub.move_repo(&call.caller, &repo, &to).await.map_err(of)?;
    let repo = gateway.hub.repo_by_id(&call.caller, repo.id(), Access::Read).map_err(of)?;
    reply::json(&made(&call, &repo))
}

/// `GET …/auth-check[/write]`.
pub(super) fn auth_check(at: &Context<'_>, call: &Call, write: bool) -> Answer {
    if write {
        at.allowed(call, Access::Write)?;
    } else {
        let reading = at.hub().may_read_files(&call.caller, at.repo());
        reading.map_err(|error| Failure::of(error, &call.caller))?;
    }
    Ok(reply::empty())
}

#[derive(Deserialize)]
struct Duplicate {
    repository: String,
    visibility: Option<String>,
    private: Option<bool>,
}

/// Bytes of one regular file that is copied.
const COPIED_BYTES: u64 = 10 << 20;

/// `POST …/duplicate`: a new repo with the files of this one's `main`; large files are named, not
/// copied.
pub(super) async fn duplicate(at: &Context<'_>, mut call: Call) -> Answer {
    let reading = at.hub().may_read_files(&call.caller, at.repo());
    reading.map_err(|error| Failure::of(error, &call.caller))?;
    let asked: Duplicate = call.json(BODY_BYTES).await?;
    let of = |error| Failure::of(error, &call.caller);
    let name = RepoName::parse(&asked.repository).map_err(|error| of(error.into()))?;
    let source = at.repo();
    let visibility = visibility_of(asked.visibility.as_deref(), asked.private)?;
    let visibility = visibility.or(Some(source.record.visibility));
    let sdk = source.record.sdk.clone();
    let new = NewRepo { kind: source.kind(), name, visibility, sdk };
    let repo = match at.hub().create_repo(&call.caller, &new).await {
        Ok(repo) => repo,
        Err(error) => return Err(refused(at.gateway, &call, &new, error)),
    };
    let header = CommitHeader {
        summary: format!("Duplicate of {}", source.name()),
        revision: "main".to_owned(),
        ..CommitHeader::default()
    };
    let copied = async {
        let main = at.hub().resolve(source, "main").await?.commit;
        let mut draft = at.hub().begin_commit(&call.caller, repo.clone(), header).await?;
        for item in at.hub().siblings(source, main).await? {
            let path = FilePath::parse(&item.path)?;
            if let Some(large) = &item.large {
                draft.add_large(path, large.sha256, Some(large.size)).await?;
            } else {
                let content = at.hub().raw_blob(source, &item, COPIED_BYTES).await?;
                draft.add_file(path, content).await?;
            }
        }
        draft.finish().await
    };
    copied.await.map_err(of)?;
    let mut response = reply::json(&made(&call, &repo))?;
    *response.status_mut() = StatusCode::OK;
    Ok(response)
}
