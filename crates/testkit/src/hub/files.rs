//! Files and their bytes, from the hub or from elsewhere.

use std::io;
use std::sync::Arc;

use ballast_format::name::RepoKind;
use bytes::Bytes;
use hyper::Response;
use hyper::header::{CONTENT_LENGTH, CONTENT_RANGE, ETAG, LOCATION, RANGE};
use hyper::http::response::Builder;

use super::answer::{Answer, Asked, no_revision, page, refuse, repo};
use super::body::{Pieces, whole};
use super::repos::{File, Revision};
use super::troubles::{Lie, Redirect};

/// `/{prefix}{name}/resolve/{revision}/{path}`, and `raw` in place of `resolve`.
pub(super) fn answer(asked: &Asked) -> Answer {
    let parts: Vec<&str> = asked.parts.iter().map(String::as_str).collect();
    let (kind, parts) = match parts.first() {
        Some(&"datasets") => (RepoKind::Dataset, &parts[1..]),
        Some(&"spaces") => (RepoKind::Space, &parts[1..]),
        _ => (RepoKind::Model, &parts[..]),
    };
    let [namespace, name, verb, revision, path @ ..] = parts else { return page(404) };
    let (name, path) = (format!("{namespace}/{name}"), path.join("/"));
    let repo = match repo(asked, kind, &name) {
        Ok(repo) => repo,
        Err(answer) => return answer,
    };
    if repo.gated.is_some() && !(asked.known && repo.granted) {
        let status = if asked.known { 403 } else { 401 };
        return refuse(status, "GatedRepo", "Access to this model is restricted");
    }
    let Some(revision) = repo.resolve(revision) else { return no_revision() };
    let Some(file) = revision.files.get(&path) else {
        let mut answer = refuse(404, "EntryNotFound", "Entry not found")?;
        let commit = revision.id.to_string().parse().map_err(io::Error::other)?;
        answer.headers_mut().insert("x-repo-commit", commit);
        return Ok(answer);
    };
    let key = format!("{}{}/{path}", kind.url_prefix(), repo.name);
    match (*verb, &file.large) {
        ("raw", Some((_, pointer))) => send(asked, Response::builder(), &key, pointer),
        ("raw", None) => send(asked, Response::builder(), &key, &file.content),
        ("resolve", _) => resolve(asked, revision, file, &key),
        _ => page(404),
    }
}

fn resolve(asked: &Asked, revision: &Revision, file: &File, key: &str) -> Answer {
    let commit = if asked.lies(Lie::Commit) { "0".repeat(40) } else { revision.id.to_string() };
    let mut etag =
        file.large.as_ref().map_or_else(|| file.oid.to_string(), |(sha256, _)| sha256.to_string());
    if asked.lies(Lie::Etag) {
        etag = "f".repeat(etag.len());
    }
    let mut content = file.content.clone();
    if asked.lies(Lie::Size) {
        content = [&content[..], b"more"].concat().into();
    }
    let mut head = Response::builder().header("x-repo-commit", commit).header("vary", "Origin");
    if file.large.is_some() {
        head = head
            .header("x-linked-size", content.len())
            .header("x-linked-etag", format!("\"{etag}\""));
    }
    if let Some(packed) = &file.packed {
        head = head.header("x-xet-hash", packed.file.to_string());
    }
    let location = match &asked.troubles.redirect {
        Redirect::Elsewhere if file.large.is_some() => {
            // Signed for one file: whoever changes the path has no right to it.
            let signature = signature(key, &revision.id.to_string());
            let (host, id) = (asked.state.elsewhere(), revision.id);
            Some(format!("{host}/{key}?id={id}&Expires=1790000000&Signature={signature}"))
        }
        Redirect::To(address) => Some(address.clone()),
        Redirect::Loop => Some(asked.request.uri().to_string()),
        _ => None,
    };
    if let Some(location) = location {
        return head
            .status(302)
            .header(LOCATION, location)
            .body(whole("Found. Redirecting"))
            .map_err(io::Error::other);
    }
    send(asked, head.header(ETAG, format!("\"{etag}\"")), key, &content)
}

fn signature(key: &str, id: &str) -> String {
    crate::xet::sha256(format!("{key} {id} a secret").as_bytes()).to_string()
}

/// Bytes of a large file from the other host, which knows nothing but signed addresses.
pub(super) fn elsewhere(asked: &Asked) -> Answer {
    if asked.header("authorization").is_some() {
        return refuse(400, "", "only one way to say who you are");
    }
    let key = asked.parts.join("/");
    let (id, sent) = (asked.query("id").unwrap_or_default(), asked.query("Signature"));
    if sent != Some(signature(&key, &id)) {
        return refuse(403, "", "the signature is wrong");
    }
    if let Some(hash) = key.strip_prefix("xorb/") {
        return super::cas::xorb(asked, hash);
    }
    let content = asked.state.lock().repos.iter().find_map(|repo| {
        let path = key.strip_prefix(&format!("{}{}/", repo.kind.url_prefix(), repo.name))?;
        let revision = repo.resolve(&id)?;
        revision.files.get(path).map(|file| file.content.clone())
    });
    let Some(content) = content else { return page(404) };
    // Object stores have ETags of their own.
    send(
        asked,
        Response::builder().header(ETAG, "\"d41d8cd98f00b204e9800998ecf8427e-3\""),
        &key,
        &content,
    )
}

/// An address of the other host for something that is no file.
pub(super) fn signed(asked: &Asked, key: &str) -> String {
    format!("{}/{key}?id=x&Signature={}", asked.state.elsewhere(), signature(key, "x"))
}

/// Sends bytes, or the range of them that is asked for, with everything that may go wrong.
pub(super) fn send(asked: &Asked, mut head: Builder, key: &str, content: &Bytes) -> Answer {
    let total = content.len();
    let range = asked.header(RANGE.as_str()).filter(|_| !asked.troubles.no_ranges);
    let mut bytes = content.clone();
    if let Some((first, last)) = range.and_then(|range| parse(range, total)) {
        if first >= total {
            return head
                .status(416)
                .header(CONTENT_RANGE, format!("bytes */{total}"))
                .body(whole(""))
                .map_err(io::Error::other);
        }
        // A liar sends what comes one byte later.
        let first = if asked.lies(Lie::Range) { (first + 1).min(last) } else { first };
        bytes = content.slice(first..=last);
        head = head.status(206).header(CONTENT_RANGE, format!("bytes {first}-{last}/{total}"));
    }
    let mut promised = Some(bytes.len());
    let mut breaks_at = None;
    if asked.happens(asked.troubles.truncated) && bytes.len() > 1 {
        breaks_at = Some(asked.draw(bytes.len()));
    }
    if asked.lies(Lie::Bytes) || (asked.happens(asked.troubles.corrupted) && !bytes.is_empty()) {
        let mut wrong = bytes.to_vec();
        let place = asked.draw(wrong.len());
        wrong[place] ^= 0x40;
        bytes = wrong.into();
    }
    if asked.happens(asked.troubles.longer) {
        bytes = [&bytes[..], &[7; 1000]].concat().into();
        // Without a length, so that the surplus arrives.
        promised = None;
    }
    if let Some(length) = promised {
        head = head.header(CONTENT_LENGTH, length);
    }
    let body = Pieces {
        state: Arc::clone(&asked.state),
        key: key.to_owned(),
        bytes,
        breaks_at,
        pause: asked.troubles.pause,
    };
    head.header("accept-ranges", "bytes").body(body.into_body()).map_err(io::Error::other)
}

/// Reads `bytes=5-` or `bytes=5-9`; both ends are in it.
fn parse(range: &str, total: usize) -> Option<(usize, usize)> {
    let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
    let last = last.parse().unwrap_or(usize::MAX).min(total.saturating_sub(1));
    Some((first.parse().ok()?, last))
}
