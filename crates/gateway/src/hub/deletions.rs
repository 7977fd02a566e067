//! Deleting large files for good: `lfs-files/batch`.
//!
//! Nothing is deleted yet, and nobody is told that it was. A file that a ref holds is not to be
//! deleted at all; of others, content goes only with the collector, which is not built: until then
//! the log, which is never cut, can bring back each commit that named them.

use ballast_format::hash::Sha256;
use ballast_node::access::Access;
use http::StatusCode;
use serde::Deserialize;
use serde_json::json;

use super::place::Context;
use crate::call::Call;
use crate::error::{Answer, Failure};
use crate::reply;

const BODY_BYTES: u64 = 1_000_000;
/// Files of one request; clients send no more.
const MOST_FILES: usize = 1000;

#[derive(Deserialize)]
struct Asked {
    deletions: Deletions,
}

#[derive(Deserialize)]
struct Deletions {
    #[serde(default)]
    sha: Vec<String>,
}

/// `POST …/lfs-files/batch` with `{deletions: {sha: [file…], rewriteHistory}}`.
pub(super) async fn answer(at: &Context<'_>, mut call: Call) -> Answer {
    let repo = at.allowed(&call, Access::Write)?;
    let asked: Asked = call.json(BODY_BYTES).await?;
    let asked = asked.deletions.sha;
    if asked.is_empty() {
        return reply::json(&json!({"success": true}));
    }
    if asked.len() > MOST_FILES {
        return Err(Failure::invalid(format!("at most {MOST_FILES} files in one request")));
    }
    let mut files = Vec::with_capacity(asked.len());
    for text in &asked {
        let bad = |_| Failure::invalid(format!("`{text}` is no SHA-256 of a file"));
        files.push(text.parse::<Sha256>().map_err(bad)?);
    }
    let held = at.hub().held_files(&repo, &files).await;
    let held = held.map_err(|error| Failure::of(error, &call.caller))?;
    if let Some(first) = held.first() {
        let message = format!(
            "{} of the files are still in use: `{}` at `{}` holds `{}`. Delete them there first",
            held.len(),
            first.reference.short(),
            first.path,
            first.sha256,
        );
        return Err(Failure::new(StatusCode::CONFLICT, message));
    }
    let message = "nothing was deleted: no branch or tag holds these files, but this hub does not \
                   free the space of large files yet";
    Err(Failure::new(StatusCode::NOT_IMPLEMENTED, message))
}
