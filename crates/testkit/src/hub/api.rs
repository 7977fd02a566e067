//! The calls of the API.

use std::io;
use std::sync::Arc;

use ballast_format::name::RepoKind;
use http_body_util::BodyExt as _;
use hyper::Response;
use hyper::header::{CONTENT_TYPE, HOST, LINK};
use serde_json::{Value, json};

use super::answer::{Answer, Asked, json, no_revision, refuse, repo};
use super::body::whole;
use super::repos::{File, Repo, Revision};
use super::troubles::Lie;

/// Entries on one page of a tree.
const PAGE: usize = 1000;

pub(super) async fn answer(mut asked: Asked) -> Answer {
    let parts = asked.parts.clone();
    let parts: Vec<&str> = parts.iter().map(String::as_str).skip(1).collect();
    let Some(kind) = parts.first().and_then(|plural| RepoKind::from_plural(plural)) else {
        return refuse(404, "", "no such route");
    };
    if parts.len() == 1 {
        return list(&asked, kind);
    }
    let [_, namespace, name, rest @ ..] = &parts[..] else {
        return refuse(404, "", "no such route");
    };
    let repo = match repo(&asked, kind, &format!("{namespace}/{name}")) {
        Ok(repo) => repo,
        Err(answer) => return answer,
    };
    if asked.lies(Lie::Huge) {
        return json(&Value::String("x".repeat(80 << 20)));
    }
    let body =
        if rest.first() == Some(&"paths-info") { read(&mut asked).await? } else { json!({}) };
    let (verb, revision) = match rest {
        [] => ("revision", "main"),
        ["refs"] => return refs(&repo),
        [verb, revision, ..] => (*verb, *revision),
        _ => return refuse(404, "", "no such route"),
    };
    let Some(found) = repo.resolve(revision).cloned() else { return no_revision() };
    match verb {
        "revision" => facts(&asked, &repo, &found),
        "commits" => commits(&found),
        "tree" => tree(&asked, &found),
        "paths-info" => paths(&found, &body),
        "xet-read-token" => super::cas::token(&asked),
        _ => refuse(404, "", "no such route"),
    }
}

async fn read(asked: &mut Asked) -> io::Result<Value> {
    let body = asked.request.body_mut().collect().await.map_err(io::Error::other)?;
    Ok(serde_json::from_slice(&body.to_bytes()).unwrap_or_default())
}

fn list(asked: &Asked, kind: RepoKind) -> Answer {
    let author = asked.query("author").unwrap_or_default();
    let repos = asked.state.lock().repos.clone();
    let ours = repos.iter().filter(|repo| {
        let named = repo.name.namespace().as_str().eq_ignore_ascii_case(&author);
        repo.kind == kind && named && (asked.known || !repo.private)
    });
    json(&ours.map(|repo| json!({ "_id": "6", "id": repo.name.to_string() })).collect())
}

fn refs(repo: &Repo) -> Answer {
    let all = |space: &str, refs: &std::collections::BTreeMap<String, _>| -> Value {
        let one = |(name, commit): (&String, &ballast_format::hash::ObjectHash)| {
            let full = format!("refs/{space}/{name}");
            json!({ "name": name, "ref": full, "targetCommit": commit.to_string() })
        };
        refs.iter().map(one).collect()
    };
    json(&json!({
        "branches": all("heads", &repo.branches),
        "tags": all("tags", &repo.tags),
        "converts": [],
    }))
}

fn facts(asked: &Asked, repo: &Repo, revision: &Revision) -> Answer {
    let mut sha = revision.id.to_string();
    if asked.lies(Lie::Revision) {
        "0123456789012345678901234567890123456789".clone_into(&mut sha);
    }
    let siblings: Value = revision.files.keys().map(|path| json!({ "rfilename": path })).collect();
    let card = repo.licence.map_or_else(|| json!({}), |licence| json!({ "license": licence }));
    let name = repo.name.to_string();
    json(&json!({
        "_id": "6", "id": name, "modelId": name, "author": repo.name.namespace().as_str(),
        "sha": sha, "lastModified": date(revision.time_seconds), "private": repo.private,
        "disabled": repo.disabled, "gated": repo.gated.map_or(json!(false), |how| json!(how)),
        "downloads": 7, "likes": 1, "tags": ["safetensors", "region:us"],
        "cardData": card, "siblings": siblings, "createdAt": "2026-01-01T00:00:00.000Z",
        "usedStorage": 1, "spaces": [], "config": { "model_type": "llama" },
    }))
}

/// A time as hubs write it; the fake hub's history fits into a day.
fn date(seconds: i64) -> String {
    let (hours, minutes) = (seconds / 3600 % 24, seconds / 60 % 60);
    format!("2026-01-01T{hours:02}:{minutes:02}:00.000Z")
}

fn commits(revision: &Revision) -> Answer {
    json(&json!([{
        "id": revision.id.to_string(), "title": revision.title, "message": "",
        "date": date(revision.time_seconds),
        "authors": [{ "user": revision.author, "avatar": "/avatars/ada.svg" }],
    }]))
}

fn tree(asked: &Asked, revision: &Arc<Revision>) -> Answer {
    let folders = revision.folders.iter().map(
        |(path, id)| json!({ "type": "directory", "path": path, "oid": id.to_string(), "size": 0 }),
    );
    let files = revision.files.iter().map(|(path, file)| entry(path, file));
    let mut all: Vec<Value> = folders.chain(files).collect();
    spoil(asked, &mut all);
    let page = asked.query("limit").and_then(|limit| limit.parse().ok()).unwrap_or(PAGE);
    let from = asked.query("cursor").and_then(|cursor| cursor.parse().ok()).unwrap_or(0_usize);
    let rows: Vec<Value> = all.iter().skip(from).take(page).cloned().collect();
    let mut response = Response::builder().header(CONTENT_TYPE, "application/json");
    let next = from + rows.len();
    let host = asked.header(HOST.as_str()).unwrap_or("localhost");
    let path = asked.request.uri().path();
    let link = if asked.lies(Lie::NextPage) {
        Some(format!("http://other.invalid{path}?recursive=true&cursor={next}"))
    } else if asked.lies(Lie::Endless) {
        Some(format!("http://{host}{path}?recursive=true&cursor=0"))
    } else {
        let more = format!("http://{host}{path}?recursive=true&limit={page}&cursor={next}");
        (next < all.len()).then_some(more)
    };
    if let Some(link) = link {
        response = response.header(LINK, format!("<{link}>; rel=\"next\""));
    }
    response.body(whole(Value::from(rows).to_string())).map_err(io::Error::other)
}

/// Tells the lies that a tree can tell.
fn spoil(asked: &Asked, all: &mut Vec<Value>) {
    let Some(first) = all.iter_mut().find(|entry| entry["type"] == "file") else { return };
    match asked.troubles.lie {
        Some(Lie::Path) => first["path"] = json!("../../etc/passwd"),
        Some(Lie::NoHashes) => first["oid"] = json!("none"),
        Some(Lie::Twice) => {
            let again = first.clone();
            all.push(again);
        }
        Some(Lie::TwoSizes) => {
            for entry in all {
                if let Some(lfs) = entry.get_mut("lfs") {
                    lfs["size"] = json!(1);
                }
            }
        }
        _ => {}
    }
}

fn paths(revision: &Revision, body: &Value) -> Answer {
    let asked = body["paths"].as_array().cloned().unwrap_or_default();
    let files = asked
        .iter()
        .filter_map(Value::as_str)
        .filter_map(|path| revision.files.get(path).map(|file| entry(path, file)));
    json(&files.collect())
}

fn entry(path: &str, file: &File) -> Value {
    let size = file.content.len();
    let mut entry =
        json!({ "type": "file", "path": path, "oid": file.oid.to_string(), "size": size });
    if let Some((sha256, pointer)) = &file.large {
        let oid = sha256.to_string();
        entry["lfs"] = json!({ "oid": oid, "size": size, "pointerSize": pointer.len() });
    }
    if let Some(packed) = &file.packed {
        entry["xetHash"] = json!(packed.file.to_string());
    }
    entry
}
