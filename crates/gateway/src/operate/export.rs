//! `POST /api/ballast/v1/export`: all that a person would need to know of the hub, as NDJSON.
//!
//! Users, organisations and tokens (without secrets), then each repo with its refs, commits and
//! files; at last a `summary` or an `error`.

use std::collections::HashMap;
use std::sync::Arc;

use ballast_format::id::UserId;
use ballast_format::log::{Act, Gating, Visibility};
use ballast_node::access::Repo;
use ballast_node::backup::Exported;
use ballast_node::download::TreeItem;
use http::StatusCode;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::admin::{org_view, role_word, token_view, user_view};
use crate::call::Call;
use crate::error::{Answer, Failure};
use crate::hub::commits::date_of;
use crate::reply;

/// Things that wait for a slow reader; then the export waits.
const QUEUE: usize = 64;

/// For administrators of the hub.
pub(super) async fn answer(call: Call) -> Answer {
    call.caller.user().map_err(|error| Failure::of(error, &call.caller))?;
    if !call.caller.is_admin() {
        let message = "only an administrator of the hub may export all of it";
        return Err(Failure::new(StatusCode::FORBIDDEN, message));
    }
    let noted = call.gateway.hub.note_act(&call.caller, Act::ExportedMetadata).await;
    noted.map_err(|error| Failure::of(error, &call.caller))?;
    let (told, heard) = mpsc::channel::<Exported>(QUEUE);
    let (hub, caller) = (Arc::clone(&call.gateway.hub), call.caller.clone());
    Ok(reply::lines_of(hub, "export", QUEUE, |hub, lines| async move {
        let (done, count) = tokio::join!(hub.export(&caller, told), pass_on(heard, &lines));
        done.map_err(|error| reply::cut_short("the export", &error))?;
        Ok(json!({"type": "summary", "lines": count}))
    }))
}

async fn pass_on(mut heard: mpsc::Receiver<Exported>, lines: &mpsc::Sender<Value>) -> u64 {
    let (mut count, mut names) = (0, HashMap::new());
    while let Some(what) = heard.recv().await {
        if let Exported::User(user) = &what {
            names.insert(user.id, user.name.to_string());
        }
        if lines.send(view(&what, &names)).await.is_err() {
            break;
        }
        count += 1;
    }
    count
}

fn view(what: &Exported, names: &HashMap<UserId, String>) -> Value {
    let name = |user: &UserId| names.get(user).cloned().unwrap_or_else(|| user.to_string());
    match what {
        Exported::User(user) => tagged("user", user_view(user)),
        Exported::Org(org) => {
            let members = org.members.iter();
            let member = |(user, role)| (name(user), json!(role_word(role)));
            let members: serde_json::Map<_, _> =
                members.map(|(user, role)| member((user, *role))).collect();
            let mut view = tagged("org", org_view(org));
            view["members"] = Value::Object(members);
            view
        }
        Exported::Token(token) => tagged("token", token_view(token)),
        Exported::Repo(repo) => repo_view(repo, &name(&repo.record.creator)),
        Exported::Ref { repo, name, commit } => json!({
            "type": "ref", "repo": full_name(repo), "ref": name.as_str(),
            "commit": commit.to_string(),
        }),
        Exported::Commit { repo, id, commit } => json!({
            "type": "commit", "repo": full_name(repo), "id": id.to_string(),
            "parents": commit.parents.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "tree": commit.tree.to_string(), "author": commit.author.name,
            "unixSeconds": commit.author.time_seconds, "message": commit.message,
        }),
        Exported::File { repo, commit, item } => file_view(repo, &commit.to_string(), item),
        Exported::Unreadable { repo, problem } => {
            json!({"type": "unreadable", "repo": full_name(repo), "problem": problem})
        }
    }
}

fn tagged(kind: &str, mut view: Value) -> Value {
    view["type"] = json!(kind);
    view
}

fn full_name(repo: &Repo) -> String {
    format!("{}{}", repo.kind().url_prefix(), repo.name())
}

fn repo_view(repo: &Repo, creator: &str) -> Value {
    let record = &repo.record;
    json!({
        "type": "repo",
        "repo": full_name(repo),
        "id": record.id.to_string(),
        "kind": record.kind.singular(),
        "private": record.visibility == Visibility::Private,
        "gated": record.gating != Gating::None,
        "disabled": record.disabled,
        "description": record.description,
        "creator": creator,
        "createdAt": date_of(record.created_ms),
    })
}

fn file_view(repo: &Repo, commit: &str, item: &TreeItem) -> Value {
    json!({
        "type": "file",
        "repo": full_name(repo),
        "commit": commit,
        "path": item.path,
        "size": item.size,
        "gitBlob": item.id.to_string(),
        "sha256": item.large.as_ref().map(|large| large.sha256.to_string()),
        "xetHash": item.large.and_then(|large| large.file()).map(|file| file.to_string()),
    })
}
