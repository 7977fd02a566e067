//! Looking up single paths of a commit.

use ballast_format::name::FilePath;
use http::Method;
use http::header::CONTENT_TYPE;
use serde::Deserialize;

use super::place::Context;
use super::{security, tree};
use crate::call::Call;
use crate::error::{Answer, Failure};
use crate::reply;

const MOST_PATHS: usize = 5000;
const BODY_BYTES: u64 = 10_000_000;

#[derive(Deserialize)]
struct Asked {
    #[serde(default)]
    paths: Paths,
    #[serde(default)]
    expand: bool,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Paths {
    Many(Vec<String>),
    One(String),
}

impl Default for Paths {
    fn default() -> Self {
        Self::Many(Vec::new())
    }
}

/// `POST …/paths-info/{revision}`, with a form or JSON. What is not there is left out.
pub(super) async fn answer(at: &Context<'_>, mut call: Call, segments: &[&str]) -> Answer {
    if call.method != Method::POST {
        return Err(Failure::method("POST"));
    }
    let (resolved, _) = at.whole_revision(&call, segments).await?;
    let is_json =
        call.header(CONTENT_TYPE).is_some_and(|kind| kind.starts_with("application/json"));
    let (paths, expand): (Vec<String>, bool) = if is_json {
        let asked: Asked = call.json(BODY_BYTES).await?;
        let paths = match asked.paths {
            Paths::Many(paths) => paths,
            Paths::One(path) => vec![path],
        };
        (paths, asked.expand)
    } else {
        let form = call.form(BODY_BYTES).await?;
        (form.all("paths").map(ToOwned::to_owned).collect(), form.flag("expand"))
    };
    if paths.len() > MOST_PATHS {
        return Err(Failure::invalid(format!("at most {MOST_PATHS} paths in one request")));
    }
    // A path that can't be is not there.
    let paths: Vec<FilePath> =
        paths.iter().filter_map(|path| FilePath::parse(path.trim_matches('/')).ok()).collect();
    let items = at.hub().items(at.repo(), resolved.commit, &paths).await;
    let items = items.map_err(|error| Failure::of(error, &call.caller))?;
    let last = match expand {
        true => tree::last_commits(at, &call, resolved.commit, &items).await?,
        false => std::collections::BTreeMap::new(),
    };
    let security = match expand {
        true => Some(security::scans(at, &call, resolved.commit, &items).await?),
        false => None,
    };
    reply::json(&tree::views(at, &items, security.as_deref(), &last))
}
