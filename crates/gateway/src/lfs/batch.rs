//! The batch call: for each object, where to send it or fetch it, or that it need not be sent.
//!
//! The transfer is chosen for the whole batch: Xet where the client offers it, parts where it
//! offers them and an object is large, else plain. An object that the caller's own rights reach
//! already gets no actions; one that only others have does not (rule 6.3).

use std::collections::HashSet;

use ballast_format::hash::Sha256;
use ballast_format::id::UploadId;
use ballast_format::limits::MAX_FILE_BYTES;
use ballast_node::Error;
use ballast_node::access::{Access, Repo};
use http::header::USER_AGENT;
use http::{Method, StatusCode};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{LFS_JSON, repo};
use crate::call::Call;
use crate::error::{Answer, Failure};
use crate::links::{Holder, LfsAct, LfsLink, Purpose, XetScope};
use crate::reply;
use crate::xet::token;

const BODY_BYTES: u64 = 10 << 20;
const MOST_OBJECTS: usize = 1000;
/// Larger objects go in parts, if the client can.
const LARGE_BYTES: u64 = 1 << 30;
/// The smallest part, and the most parts of one object.
const PART_BYTES: u64 = 64 << 20;
const MOST_PARTS: u64 = 256;
/// Parts in one answer; beyond it, objects go whole.
const MOST_PARTS_OF_ALL: u64 = 16 * 1024;
/// How long links are good: a large upload takes hours, and its links die with the token.
const UPLOAD_SECONDS: u64 = 24 * 60 * 60;
const DOWNLOAD_SECONDS: u64 = 15 * 60;

#[derive(Deserialize)]
struct Batch {
    operation: Operation,
    #[serde(default)]
    transfers: Vec<String>,
    objects: Vec<Asked>,
    #[serde(default, rename = "ref")]
    reference: Option<Reference>,
}

#[derive(Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Operation {
    Upload,
    Download,
}

#[derive(Deserialize)]
struct Asked {
    oid: String,
    size: u64,
}

#[derive(Deserialize)]
struct Reference {
    name: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Transfer {
    Basic,
    Multipart,
    Xet,
}

impl Transfer {
    fn as_str(self) -> &'static str {
        match self {
            Self::Basic => "basic",
            Self::Multipart => "multipart",
            Self::Xet => "xet",
        }
    }
}

/// `POST {repo}/info/lfs/objects/batch`
pub(crate) async fn answer(mut call: Call, segments: &[&str]) -> Answer {
    if call.method != Method::POST {
        return Err(Failure::method("POST"));
    }
    let repo = repo(&call, segments, Access::Read)?;
    let batch: Batch = call.json(BODY_BYTES).await?;
    if batch.objects.len() > MOST_OBJECTS {
        let message = format!("more than {MOST_OBJECTS} objects in one batch");
        return Err(Failure::new(StatusCode::PAYLOAD_TOO_LARGE, message));
    }
    let (transfer, objects) = match batch.operation {
        Operation::Upload => upload(&call, &repo, &batch).await?,
        Operation::Download => (Transfer::Basic, download(&call, &repo, &batch).await?),
    };
    let answer = json!({"transfer": transfer.as_str(), "objects": objects, "hash_algo": "sha256"});
    reply::json_as(StatusCode::OK, LFS_JSON, &answer)
}

/// The entry of an object that can't be had.
fn refused(asked: &Asked, status: StatusCode, message: &str) -> Value {
    let error = json!({"code": status.as_u16(), "message": message});
    json!({"oid": asked.oid, "size": asked.size, "error": error})
}

fn sha256(asked: &Asked) -> Option<Sha256> {
    asked.oid.parse().ok()
}

async fn download(call: &Call, repo: &Repo, batch: &Batch) -> Result<Vec<Value>, Failure> {
    let hub = &call.gateway.hub;
    let told = |error| Failure::of(error, &call.caller);
    hub.may_read_files(&call.caller, repo).map_err(told)?;
    let links = Links::new(call, repo, false, DOWNLOAD_SECONDS);
    let mut objects = Vec::with_capacity(batch.objects.len());
    let mut is_caught_up = false;
    for asked in &batch.objects {
        let Some(sha256) = sha256(asked) else {
            objects.push(refused(asked, StatusCode::UNPROCESSABLE_ENTITY, "not a SHA-256"));
            continue;
        };
        let mut found = hub.find_upload(&call.caller, repo, &sha256).await.map_err(told)?;
        if found.is_none() && !std::mem::replace(&mut is_caught_up, true) {
            hub.catch_up(&call.caller, repo).await.map_err(told)?;
            found = hub.find_upload(&call.caller, repo, &sha256).await.map_err(told)?;
        }
        objects.push(match found {
            Some(file) if file.size == asked.size => {
                match hub.may_download_sha256(repo, &sha256).await {
                    Err(Error::Refused { reason, .. }) => {
                        refused(asked, StatusCode::FORBIDDEN, &reason)
                    }
                    Err(error) => return Err(told(error)),
                    Ok(()) => {
                        let action = links.action(LfsAct::Get, sha256, asked.size);
                        entry(asked, &[("download", action)])
                    }
                }
            }
            _ => refused(asked, StatusCode::NOT_FOUND, "object not found"),
        });
    }
    Ok(objects)
}

/// The entry of an object with what may be done about it.
fn entry(asked: &Asked, actions: &[(&str, Value)]) -> Value {
    let mut entry = json!({"oid": asked.oid, "size": asked.size, "authenticated": true});
    if !actions.is_empty() {
        let actions = actions.iter().map(|(name, action)| ((*name).to_owned(), action.clone()));
        entry["actions"] = Value::Object(actions.collect::<Map<_, _>>());
    }
    entry
}

async fn upload(
    call: &Call,
    repo: &Repo,
    batch: &Batch,
) -> Result<(Transfer, Vec<Value>), Failure> {
    // Clients leave the ref out where a pull request is to be created.
    let reference = batch.reference.as_ref().map(|reference| reference.name.as_str());
    let proposes = reference.is_none_or(|name| name.starts_with("refs/pr/"));
    let scope = token::writing_scope(call, repo, proposes)?;
    let offers = |name: &str| batch.transfers.iter().any(|transfer| transfer == name);
    let transfer = if offers("xet") && call.gateway.settings.xet {
        Transfer::Xet
    } else if offers("multipart") && batch.objects.iter().any(|asked| asked.size > LARGE_BYTES) {
        Transfer::Multipart
    } else {
        Transfer::Basic
    };
    // git-lfs hands all objects of a batch to the transfer's agent, which knows only parts; other
    // clients look at each object.
    let agent = call.header(USER_AGENT).unwrap_or("");
    let all_in_parts = agent.starts_with("git-lfs/");
    let links = Links::new(call, repo, scope == XetScope::Propose, UPLOAD_SECONDS);
    let xet = (transfer == Transfer::Xet).then(|| xet_action(call, repo, scope, reference));
    let (mut parts_left, mut wanted, mut bytes) = (MOST_PARTS_OF_ALL, HashSet::new(), 0_u64);
    let mut objects = Vec::with_capacity(batch.objects.len());
    for asked in &batch.objects {
        let Some(sha256) = sha256(asked) else {
            objects.push(refused(asked, StatusCode::UNPROCESSABLE_ENTITY, "not a SHA-256"));
            continue;
        };
        if asked.size > MAX_FILE_BYTES {
            objects.push(refused(
                asked,
                StatusCode::PAYLOAD_TOO_LARGE,
                "larger than any file may be",
            ));
            continue;
        }
        let has = call.gateway.hub.has_file(&call.caller, repo, &sha256, asked.size).await;
        if has.map_err(|error| Failure::of(error, &call.caller))? {
            objects.push(entry(asked, &[]));
            continue;
        }
        if wanted.insert(sha256) {
            bytes = bytes.saturating_add(asked.size);
        }
        let in_parts = transfer == Transfer::Multipart
            && (all_in_parts || asked.size > LARGE_BYTES)
            && parts_of(asked.size).1 <= parts_left;
        objects.push(if let Some(action) = &xet {
            entry(asked, &[("upload", action.clone())])
        } else {
            let verify = links.action(LfsAct::Verify, sha256, asked.size);
            let upload = if in_parts {
                parts_left -= parts_of(asked.size).1;
                links.in_parts(sha256, asked.size)
            } else {
                links.action(LfsAct::Put, sha256, asked.size)
            };
            entry(asked, &[("upload", upload), ("verify", verify)])
        });
    }
    // All of it fits, or nothing of it is sent.
    let room = call.gateway.hub.check_room(repo, bytes).await;
    room.map_err(|error| Failure::of(error, &call.caller))?;
    Ok((transfer, objects))
}

/// Where a client that speaks Xet gets its tokens, and the first one.
fn xet_action(call: &Call, repo: &Repo, scope: XetScope, reference: Option<&str>) -> Value {
    let issued = token::issue(call, repo, scope, None);
    let revision =
        reference.map_or("main", |name| name.strip_prefix("refs/heads/").unwrap_or(name));
    let revision = utf8_percent_encode(revision, NON_ALPHANUMERIC);
    let create = if scope == XetScope::Propose { "?create_pr=1" } else { "" };
    let (base, kind, name) = (call.base(), repo.kind().plural(), repo.name());
    json!({
        "href": format!("{base}/api/{kind}/{name}/xet-write-token/{revision}{create}"),
        "header": {
            "X-Xet-Cas-Url": issued.cas_url,
            "X-Xet-Access-Token": issued.token,
            "X-Xet-Token-Expiration": issued.expires.to_string(),
        },
    })
}

/// The size of an object's parts, and how many they are.
fn parts_of(size: u64) -> (u64, u64) {
    let part = size.div_ceil(MOST_PARTS).next_multiple_of(1 << 20).max(PART_BYTES);
    (part, size.div_ceil(part).max(1))
}

/// Makes the links of one answer.
struct Links<'a> {
    call: &'a Call,
    repo: &'a Repo,
    base: String,
    proposes: bool,
    life: u64,
}

impl<'a> Links<'a> {
    fn new(call: &'a Call, repo: &'a Repo, proposes: bool, life: u64) -> Self {
        Self { call, repo, base: call.base(), proposes, life }
    }

    fn href(&self, act: LfsAct, sha256: Sha256, size: u64) -> String {
        let now = self.call.gateway.now_seconds();
        let link = LfsLink {
            act,
            repo: self.repo.id(),
            holder: Holder::of(&self.call.caller),
            proposes: self.proposes,
            sha256,
            size,
            expires: now + self.life,
        };
        let sealed = self.call.gateway.signer.seal(Purpose::Lfs, now, &link.encode());
        format!("{}/api/ballast/lfs/v1/{sealed}", self.base)
    }

    fn action(&self, act: LfsAct, sha256: Sha256, size: u64) -> Value {
        json!({"href": self.href(act, sha256, size), "expires_in": self.life})
    }

    /// The action of an upload in parts: their addresses stand in the header, by number.
    fn in_parts(&self, sha256: Sha256, size: u64) -> Value {
        let mut random = [0; 16];
        self.call.gateway.hub.env().fill_random(&mut random);
        let upload = UploadId::from_bytes(random);
        let (part, count) = parts_of(size);
        let mut header = Map::new();
        header.insert("chunk_size".to_owned(), json!(part.to_string()));
        for index in 0..count {
            let length = part.min(size - index * part);
            let number = u32::try_from(index + 1).unwrap_or(u32::MAX);
            let act = LfsAct::Part { upload, number, length };
            header.insert(format!("{number:05}"), json!(self.href(act, sha256, size)));
        }
        let href = self.href(LfsAct::Complete { upload }, sha256, size);
        json!({"href": href, "header": header, "expires_in": self.life})
    }
}
