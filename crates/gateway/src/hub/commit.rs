//! Commits, line by line.

use ballast_format::name::FilePath;
use ballast_node::upload::commit::{CommitHeader, Draft};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::place::{Context, url_of, whole};
use crate::call::Call;
use crate::error::{Answer, Failure};
use crate::rate::Load;
use crate::{json as strict, reply};

/// A line holds a file of up to 10 MiB, half as much again in base64, and more where text is
/// escaped.
const LINE_BYTES: u64 = 40_000_000;
/// Some hundred small files; large ones come another way.
const BODY_BYTES: u64 = 150_000_000;

#[derive(Deserialize)]
struct Line {
    key: String,
    value: Value,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Header {
    #[serde(default)]
    summary: String,
    #[serde(default)]
    description: Option<String>,
    parent_commit: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    path: String,
    content: String,
    encoding: Option<String>,
    old_path: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LargeFile {
    path: String,
    algo: Option<String>,
    oid: Option<String>,
    size: Option<u64>,
    old_path: Option<String>,
}

#[derive(Deserialize)]
struct Deleted {
    path: String,
}

/// `POST …/commit/{revision}`, as NDJSON: a header, then operations.
pub(super) async fn answer(at: &Context<'_>, mut call: Call, segments: &[&str]) -> Answer {
    let revision = whole(segments)?;
    let create_pull = call.query.flag("create_pr");
    let caller = call.caller.clone();
    let of = |error| Failure::of(error, &caller);
    caller.user().map_err(of)?;
    call.flight.count_load(Load::Upload)?;
    let mut draft: Option<Draft> = None;
    let mut lines = call.lines(LINE_BYTES, BODY_BYTES)?;
    while let Some(line) = lines.next().await? {
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let line: Line = strict::decode(&line)?;
        match (&mut draft, line.key.as_str()) {
            (None, "header") => {
                let header: Header = value(line.value)?;
                let header = CommitHeader {
                    summary: header.summary,
                    description: header.description.unwrap_or_default(),
                    parent: header.parent_commit.filter(|parent| !parent.is_empty()),
                    revision: revision.clone(),
                    create_pull,
                };
                let begun = at.hub().begin_commit(&caller, at.repo().clone(), header).await;
                draft = Some(begun.map_err(of)?);
            }
            (None, _) => return Err(Failure::invalid("the first line must be the header")),
            (Some(_), "header") => return Err(Failure::invalid("there is a second header")),
            (Some(draft), key) => operation(draft, key, line.value, &of).await?,
        }
    }
    drop(lines);
    let draft = draft.ok_or_else(|| Failure::invalid("the commit has no header"))?;
    let committed = draft.finish().await.map_err(of)?;
    if create_pull && !committed.changed {
        // Clients read the address of the pull request from a success, and there is none.
        let message = "nothing to propose: the commit would change nothing";
        return Err(Failure::invalid(message));
    }
    let page = url_of(&call, at.repo());
    let mut body = json!({
        "success": true,
        "commitOid": committed.commit.to_string(),
        "commitUrl": format!("{page}/commit/{}", committed.commit),
        "hookOutput": "",
    });
    if let Some(number) = committed.pull {
        body["pullRequestUrl"] = json!(format!("{page}/discussions/{number}"));
    }
    reply::json(&body)
}

async fn operation(
    draft: &mut Draft,
    key: &str,
    operation: Value,
    of: &impl Fn(ballast_node::Error) -> Failure,
) -> Result<(), Failure> {
    match key {
        "file" => {
            let file: File = value(operation)?;
            let path = path(&file.path)?;
            if let Some(old) = &file.old_path {
                draft.delete_file(self::path(old)?).map_err(of)?;
            }
            let content = match file.encoding.as_deref() {
                Some("base64") => {
                    let decoded = BASE64_STANDARD.decode(file.content.as_bytes());
                    let bad = |_| Failure::invalid(format!("`{path}` is not base64"));
                    Bytes::from(decoded.map_err(bad)?)
                }
                None | Some("utf-8") => Bytes::from(file.content),
                Some(other) => {
                    return Err(Failure::invalid(format!("`{other}` is no encoding we know")));
                }
            };
            draft.add_file(path, content).await.map_err(of)
        }
        "lfsFile" => {
            let file: LargeFile = value(operation)?;
            let path = path(&file.path)?;
            if file.algo.as_deref().is_some_and(|algo| algo != "sha256") {
                return Err(Failure::invalid(format!("`{path}`: only `sha256` is known")));
            }
            match (&file.oid, &file.old_path) {
                (None, Some(old)) => draft.rename(self::path(old)?, path).map_err(of),
                (None, None) => Err(Failure::invalid(format!("`{path}` has no `oid`"))),
                (Some(oid), old) => {
                    let bad = |_| Failure::invalid(format!("`{path}`: `oid` is no SHA-256"));
                    let sha256 = oid.parse().map_err(bad)?;
                    if let Some(old) = old {
                        draft.delete_file(self::path(old)?).map_err(of)?;
                    }
                    draft.add_large(path, sha256, file.size).await.map_err(of)
                }
            }
        }
        "deletedFile" => {
            let deleted: Deleted = value(operation)?;
            draft.delete_file(path(&deleted.path)?).map_err(of)
        }
        "deletedFolder" => {
            let deleted: Deleted = value(operation)?;
            draft.delete_folder(path(deleted.path.trim_end_matches('/'))?).map_err(of)
        }
        other => Err(Failure::invalid(format!("`{other}` is no operation of a commit"))),
    }
}

fn value<T: DeserializeOwned>(value: Value) -> Result<T, Failure> {
    serde_json::from_value(value)
        .map_err(|error| Failure::invalid(format!("a line of the commit is bad: {error}")))
}

fn path(text: &str) -> Result<FilePath, Failure> {
    FilePath::parse(text).map_err(|error| Failure::invalid(error.to_string()))
}
