//! What is told of a repo: one field at a time, because clients name the fields that they want.

use ballast_format::hash::ObjectHash;
use ballast_format::log::Visibility;
use ballast_format::name::RepoKind;
use ballast_node::discovery::Listed;
use ballast_node::download::TreeItem;
use http::Method;
use serde_json::{Map, Value, json};

use super::commits::date_of;
use super::place::Context;
use super::security;
use super::settings::gated;
use crate::call::{Call, Query};
use crate::error::{Answer, Failure};
use crate::reply;

/// Fields of every kind of repo that a client gets without asking.
const COMMON: &[&str] = &[
    "author",
    "cardData",
    "createdAt",
    "disabled",
    "downloads",
    "gated",
    "lastModified",
    "likes",
    "private",
    "sha",
    "siblings",
    "tags",
    "usedStorage",
];
const MODEL: &[&str] = &[
    "config",
    "gguf",
    "library_name",
    "mask_token",
    "model-index",
    "modelId",
    "pipeline_tag",
    "safetensors",
    "spaces",
    "transformersInfo",
    "widgetData",
];
const DATASET: &[&str] = &["citation", "description", "mainSize", "paperswithcode_id"];
const SPACE: &[&str] = &["datasets", "host", "models", "region", "runtime", "sdk", "subdomain"];

/// A repo as it is told of, at one commit.
pub(super) struct Subject<'a> {
    /// What is known of it.
    pub(super) listed: &'a Listed,
    /// The commit; nothing while there is none.
    pub(super) commit: Option<ObjectHash>,
    /// The files of that commit, where they are wanted.
    pub(super) siblings: Option<&'a [TreeItem]>,
    /// Whether the sizes of the files are wanted too.
    pub(super) blobs: bool,
    /// What scans of the files found, where it is wanted.
    pub(super) security: Option<&'a Value>,
    /// Whether this hub offers Xet.
    pub(super) xet: bool,
}

/// `GET /api/{kinds}/{repo}` and `GET …/revision/{revision}`.
pub(super) async fn answer(at: &Context<'_>, call: Call, segments: &[&str]) -> Answer {
    if call.method != Method::GET && call.method != Method::HEAD {
        return Err(Failure::method("GET, HEAD"));
    }
    let of = |error| Failure::of(error, &call.caller);
    let commit = match segments {
        [] => at.hub().main_of(at.repo()).await.map_err(of)?,
        [_, revision @ ..] => Some(at.whole_revision(&call, revision).await?.0.commit),
    };
    let listed = match commit {
        Some(commit) => at.hub().listed_at(at.repo(), commit).await.map_err(of)?,
        None => at.hub().listed(at.repo()),
    };
    let mut names = expanded(&call.query);
    if names.is_empty() {
        names.extend(COMMON);
        names.extend(match at.repo().kind() {
            RepoKind::Model => MODEL,
            RepoKind::Dataset => DATASET,
            RepoKind::Space => SPACE,
        });
    }
    if call.query.flag("securityStatus") {
        names.push("securityRepoStatus");
    }
    let is_scan_wanted = names.contains(&"securityRepoStatus");
    let siblings = match commit.filter(|_| is_scan_wanted || names.contains(&"siblings")) {
        Some(commit) => at.hub().siblings(at.repo(), commit).await.map_err(of)?,
        None => Vec::new(),
    };
    let security = match commit.filter(|_| is_scan_wanted) {
        Some(commit) => {
            let scans = security::scans(at, &call, commit, &siblings).await?;
            Some(security::repo_status(&siblings, &scans))
        }
        None => None,
    };
    let blobs = call.query.flag("blobs");
    let security = security.as_ref();
    let (siblings, xet) = (Some(siblings.as_slice()), at.gateway.settings.xet);
    let subject = Subject { listed: &listed, commit, siblings, blobs, security, xet };
    reply::json(&subject.view(&names))
}

/// The fields that a client names.
pub(super) fn expanded(query: &Query) -> Vec<&str> {
    query.all("expand").flat_map(|names| names.split(',')).collect()
}

impl Subject<'_> {
    /// The fields of these names that there are, and the two that are always there.
    pub(super) fn view(&self, names: &[&str]) -> Map<String, Value> {
        let record = &self.listed.repo.record;
        let mut view = Map::new();
        view.insert("_id".to_owned(), json!(record.id.to_string()));
        view.insert("id".to_owned(), json!(record.name.to_string()));
        for name in names {
            if let Some(value) = self.field(name) {
                view.insert((*name).to_owned(), value);
            }
        }
        view
    }

    fn field(&self, name: &str) -> Option<Value> {
        let Listed { repo, downloads, likes, .. } = self.listed;
        let record = &repo.record;
        Some(match name {
            "author" => json!(record.name.namespace().as_str()),
            "createdAt" => json!(date_of(record.created_ms)),
            "disabled" => json!(record.disabled),
            "downloads" => json!(downloads.recent),
            "downloadsAllTime" => json!(downloads.all_time),
            "gated" => gated(record.gating),
            "likes" => json!(likes),
            "private" => json!(record.visibility == Visibility::Private),
            "sha" => json!(self.commit?.to_string()),
            "siblings" => self.siblings?.iter().map(|item| sibling(item, self.blobs)).collect(),
            "trendingScore" => json!(self.listed.trending()),
            "securityRepoStatus" => self.security?.clone(),
            "xetEnabled" => json!(self.xet),
            // Spaces are kept here and run nowhere.
            "host" | "region" if record.kind == RepoKind::Space => Value::Null,
            "modelId" if record.kind == RepoKind::Model => json!(record.name.to_string()),
            "runtime" if record.kind == RepoKind::Space => super::extras::stopped(),
            "subdomain" if record.kind == RepoKind::Space => {
                json!(record.name.to_string().to_lowercase().replace(['/', '.', '_'], "-"))
            }
            _ => return self.known(name),
        })
    }

    /// What the repo's own files say.
    fn known(&self, name: &str) -> Option<Value> {
        let Listed { repo, facts, .. } = self.listed;
        let record = &repo.record;
        let card = |name: &str| Some(facts.card.as_ref()?.get(name)?.clone());
        let modified = facts.modified_ms.max(record.created_ms);
        match (name, record.kind) {
            ("cardData", _) => Some(json!(facts.card.as_ref()?)),
            ("lastModified", _) => Some(json!(date_of(modified))),
            ("tags", _) => Some(json!(facts.tags)),
            ("usedStorage", _) => Some(json!(facts.used_storage)),
            ("config", RepoKind::Model) => Some(json!(facts.config.as_ref()?)),
            ("evalResults", RepoKind::Model) if !facts.eval_results.is_empty() => {
                Some(json!(facts.eval_results))
            }
            ("gguf", RepoKind::Model) => Some(json!(facts.gguf.as_ref()?)),
            ("library_name", RepoKind::Model) => Some(json!(facts.library_name.as_ref()?)),
            ("mask_token", RepoKind::Model) => Some(json!(facts.mask_token.as_ref()?)),
            ("model-index", RepoKind::Model) => card("model-index"),
            ("pipeline_tag", RepoKind::Model) => Some(json!(facts.pipeline_tag.as_ref()?)),
            ("safetensors", RepoKind::Model) => Some(json!(facts.safetensors.as_ref()?)),
            ("spaces", RepoKind::Model) => Some(json!([])),
            ("transformersInfo", RepoKind::Model) => Some(json!(facts.transformers_info.as_ref()?)),
            ("widgetData", RepoKind::Model) => card("widget"),
            ("description", _) => {
                Some(json!(record.description.as_ref().or(facts.title.as_ref())?))
            }
            ("citation", RepoKind::Dataset) => Some(json!(facts.citation.as_ref()?)),
            ("mainSize", RepoKind::Dataset) => Some(json!(facts.used_storage)),
            ("paperswithcode_id", RepoKind::Dataset) => card(name),
            ("datasets" | "models", RepoKind::Space) => card(name),
            ("sdk", RepoKind::Space) => Some(json!(facts.sdk.as_ref()?)),
            _ => None,
        }
    }
}

fn sibling(item: &TreeItem, blobs: bool) -> Value {
    let mut view = json!({"rfilename": item.path});
    if blobs {
        view["size"] = json!(item.size);
        view["blobId"] = json!(item.id.to_string());
        if let Some(large) = &item.large {
            view["lfs"] = json!({
                "sha256": large.sha256.to_string(),
                "size": large.size,
                "pointerSize": large.pointer_size,
            });
        }
    }
    view
}
