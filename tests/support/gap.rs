//! Two hubs that no network connects, and bundles between them. For the tests of bundles only:
//! what others share needs fewer crates.

#![allow(dead_code, unreachable_pub, missing_docs, reason = "each test file uses its own part")]

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use ballast_format::hash::Sha256;
use serde_json::{Value, json};
use sha2::Digest as _;

use crate::support::objects::Objects;
use crate::support::server::{Server, ballast};

/// The repo that travels.
pub const REPO: &str = "admin/model";

pub fn sha256(content: &[u8]) -> String {
    Sha256::from_bytes(sha2::Sha256::digest(content).into()).to_string()
}

/// Two hubs that no network connects, and what lies between them.
pub struct World {
    pub open: Server,
    pub closed: Server,
    pub key: PathBuf,
}

/// What a command that ended left behind.
pub struct Ran {
    pub ok: bool,
    pub json: Value,
    pub error: String,
}

impl World {
    pub fn new() -> Result<Self> {
        Self::with(Server::on(&Objects::disk())?)
    }

    /// With this hub inside.
    pub fn with(closed: Server) -> Result<Self> {
        let open = Server::on(&Objects::disk())?;
        open.admin(&["repo", "create", REPO])?;
        Self::between(open, closed)
    }

    /// Between these two.
    pub fn between(open: Server, closed: Server) -> Result<Self> {
        let key = open.scratch("keys")?.join("creator.pem");
        let made = ballast(&["key", "new", &text(&key)]).output()?;
        ensure!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        Ok(Self { open, closed, key })
    }

    pub fn public(&self) -> String {
        format!("{}.pub", text(&self.key))
    }

    /// A folder between the two.
    pub fn folder(&self, name: &str) -> Result<String> {
        Ok(text(&self.open.scratch("media")?.join(name)))
    }

    pub fn create(&self, folder: &str, more: &[&str]) -> Result<Ran> {
        let (data, key) = (text(&self.open.data()), text(&self.key));
        let arguments = ["bundle", "create", "-o", folder, "--key", &key, "--data", &data];
        run(&[&arguments[..], more].concat(), None)
    }

    pub fn verify(&self, folder: &str) -> Result<Ran> {
        run(&["bundle", "verify", folder, "--key", &self.public()], None)
    }

    pub fn import(&self, folder: &str) -> Result<Ran> {
        let (public, receipt) = (self.public(), self.receipt());
        let arguments = ["bundle", "import", folder, "--key", &public, "--receipt", &receipt];
        run(&arguments, Some(&self.closed))
    }

    pub fn receipt(&self) -> String {
        text(&self.key.with_file_name("receipt"))
    }
}

pub fn run(arguments: &[&str], hub: Option<&Server>) -> Result<Ran> {
    let mut command = ballast(arguments);
    command.arg("--json");
    if let Some(hub) = hub {
        command.env("HF_ENDPOINT", &hub.endpoint).env("HF_TOKEN", &hub.token);
    }
    let output = command.output()?;
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    let json = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    Ok(Ran { ok: output.status.success(), json, error })
}

impl Ran {
    /// It must have done what it was told.
    pub fn sound(self) -> Result<Value> {
        ensure!(self.ok, "{}\n{}", self.error, self.json);
        Ok(self.json)
    }

    /// It must have refused, and said so.
    pub fn refused(self, why: &str) -> Result<()> {
        ensure!(!self.ok, "it went through: {}", self.json);
        let said = format!("{} {}", self.error, self.json);
        ensure!(said.contains(why), "expected `{why}`: {said}");
        Ok(())
    }
}

pub fn text(path: &Path) -> String {
    path.display().to_string()
}

/// Uploads a large file by LFS and commits it with a small one; the commit's id.
pub fn put(server: &Server, files: &[(&str, &[u8])]) -> Result<String> {
    let mut lines = vec![json!({"key": "header", "value": {"summary": "a change"}})];
    for (path, content) in files {
        if content.len() < 10_000 {
            let content = String::from_utf8(content.to_vec())?;
            let value = json!({"path": path, "content": content, "encoding": "utf-8"});
            lines.push(json!({"key": "file", "value": value}));
            continue;
        }
        let (oid, size) = (sha256(content), content.len());
        let batch = json!({
            "operation": "upload", "transfers": ["basic"], "hash_algo": "sha256",
            "objects": [{"oid": oid, "size": size}],
        });
        let headers = [("content-type", "application/vnd.git-lfs+json")];
        let url = format!("/{REPO}.git/info/lfs/objects/batch");
        let body = batch.to_string();
        let answer = server.request("POST", &url, &server.token, &headers, body.as_bytes())?;
        if let Some(href) = answer.json()?["objects"][0]["actions"]["upload"]["href"].as_str() {
            let sent = server.request("PUT", href, "", &[], content)?;
            ensure!(sent.status == 200, "{sent:?}");
        }
        let value = json!({"path": path, "algo": "sha256", "oid": oid, "size": size});
        lines.push(json!({"key": "lfsFile", "value": value}));
    }
    let lines: Vec<String> = lines.iter().map(ToString::to_string).collect();
    let body = lines.join("\n");
    let headers = [("content-type", "application/x-ndjson")];
    let url = format!("/api/models/{REPO}/commit/main");
    let answer = server.request("POST", &url, &server.token, &headers, body.as_bytes())?;
    ensure!(answer.status == 200, "{answer:?}");
    Ok(answer.json()?["commitOid"].as_str().context("a commit")?.to_owned())
}

/// What a file holds in a revision; its status where there is none.
pub fn read(
    server: &Server,
    revision: &str,
    path: &str,
) -> Result<std::result::Result<Vec<u8>, u16>> {
    let url = format!("/{REPO}/resolve/{revision}/{path}");
    let answer = server.request("GET", &url, &server.token, &[], &[])?;
    Ok(if answer.status == 200 { Ok(answer.body) } else { Err(answer.status) })
}

pub fn must_hold(server: &Server, revision: &str, files: &[(&str, &[u8])]) -> Result<()> {
    for (path, content) in files {
        ensure!(read(server, revision, path)?.as_deref() == Ok(*content), "{path} at {revision}");
    }
    Ok(())
}

pub fn sound_hub(server: &Server) -> Result<()> {
    let verified = server.admin(&["verify"])?;
    ensure!(verified["summary"]["damaged"] == json!(0), "{verified}");
    Ok(())
}
