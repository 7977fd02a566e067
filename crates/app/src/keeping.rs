//! Who keeps files of a hub on this host, for the gateway: brings them, and says where they are.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use ballast_format::hash::ObjectHash;
use ballast_format::name::{RepoKind, RepoName};
use ballast_gateway::{AskedKeep, FileKeeper, KeptRevision};
use ballast_node::access::{Caller, Repo};
use ballast_node::download::TreeItem;
use ballast_node::error::{Error, Result};
use ballast_node::hub::Hub;
use ballast_node::origin::Wanted;
use ballast_sync::swarm::node::NodeOrigin;
use serde_json::{Value, json};
use tokio::sync::mpsc;

/// How often it is told how far a file is.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// Keeps files in the cache of a node.
pub(crate) struct Keeping(pub(crate) Arc<NodeOrigin>);

impl fmt::Debug for Keeping {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Keeping")
    }
}

type Lines = mpsc::Sender<Value>;

#[async_trait]
impl FileKeeper for Keeping {
    async fn answer(
        &self,
        hub: &Arc<Hub>,
        caller: &Caller,
        asked: AskedKeep,
        lines: &Lines,
    ) -> std::result::Result<Value, String> {
        let done = match asked {
            AskedKeep::Bring(which) => self.bring(hub, caller, &which, false, lines).await,
            AskedKeep::Pin(which) => self.bring(hub, caller, &which, true, lines).await,
            AskedKeep::Unpin(which) => self.unpin(hub, caller, &which).await,
            AskedKeep::List => Ok(self.list(lines).await),
        };
        done.map_err(|error| error.to_string())
    }
}

impl Keeping {
    async fn bring(
        &self,
        hub: &Arc<Hub>,
        caller: &Caller,
        which: &KeptRevision,
        pins: bool,
        lines: &Lines,
    ) -> Result<Value> {
        let (repo, commit) = find(hub, caller, which).await?;
        let items = hub.siblings(&repo, commit).await?;
        let bytes: u64 = items.iter().map(|item| item.size).sum();
        for item in &items {
            hub.may_download(&repo, commit, item).await?;
            let cached = self.bring_item(hub, &repo, item, pins, lines).await?;
            let sha256 = item.large.map(|large| large.sha256.to_string());
            let line = json!({
                "type": "file", "path": item.path, "size": item.size, "sha256": sha256,
                "cached": cached,
            });
            if lines.send(line).await.is_err() {
                // Nobody listens any more: what is on its way goes on coming.
                break;
            }
        }
        let (commit, files) = (commit.to_string(), items.len());
        Ok(json!({"type": "summary", "commit": commit, "files": files, "bytes": bytes}))
    }

    /// Where a file of the cache is on the disk, brought if it was not there; nothing for a small
    /// file, and for one that passes through.
    async fn bring_item(
        &self,
        hub: &Arc<Hub>,
        repo: &Repo,
        item: &TreeItem,
        pins: bool,
        lines: &Lines,
    ) -> Result<Option<String>> {
        let Some(wanted) = Wanted::of(item) else { return Ok(None) };
        let told_at = Mutex::new(hub.env().monotonic());
        let told = |here: u64| {
            let now = hub.env().monotonic();
            let mut told_at = told_at.lock().unwrap_or_else(PoisonError::into_inner);
            if *told_at + TELL_EVERY <= now {
                *told_at = now;
                let (path, size) = (&item.path, item.size);
                let line = json!({"type": "progress", "path": path, "size": size, "here": here});
                // Whoever is too slow to hear how far it is misses some of it.
                drop(lines.try_send(line));
            }
        };
        match self.0.bring_file(hub, repo, &wanted, &told).await {
            Err(Error::TooLarge { .. }) if !pins => return Ok(None),
            brought => brought?,
        }
        let cache = self.0.cache();
        if pins {
            cache.pin(&wanted.sha256, true).await?;
        }
        let found = cache.path_of(&wanted.sha256).await?;
        Ok(found.map(|(path, _)| path.display().to_string()))
    }

    async fn unpin(&self, hub: &Arc<Hub>, caller: &Caller, which: &KeptRevision) -> Result<Value> {
        let (repo, commit) = find(hub, caller, which).await?;
        let mut files = 0;
        for item in hub.siblings(&repo, commit).await? {
            if let Some(large) = item.large {
                files += u32::from(self.0.cache().pin(&large.sha256, false).await?);
            }
        }
        Ok(json!({"type": "summary", "commit": commit.to_string(), "files": files}))
    }

    async fn list(&self, lines: &Lines) -> Value {
        let mut kept = self.0.cache().list();
        kept.sort_by_key(|file| std::cmp::Reverse(file.used_ms));
        for file in &kept {
            let line = json!({
                "type": "kept", "sha256": file.sha256.to_string(), "size": file.size,
                "whole": file.is_whole, "pinned": file.is_pinned, "usedAtMs": file.used_ms,
            });
            let _ = lines.send(line).await;
        }
        let fill = self.0.cache().fill();
        json!({"type": "summary", "files": fill.files, "bytes": fill.bytes, "cap": fill.cap_bytes})
    }
}

/// The revision that is meant, if the caller may read it.
async fn find(hub: &Arc<Hub>, caller: &Caller, which: &KeptRevision) -> Result<(Repo, ObjectHash)> {
    let kind = RepoKind::from_singular(&which.kind)
        .ok_or_else(|| Error::invalid(format!("`{}` is no kind of repo", which.kind)))?;
    let repo = hub.repo_or_bring(caller, kind, &RepoName::parse(&which.repo)?).await?;
    hub.may_read_files(caller, &repo)?;
    let commit = hub.resolve(&repo, &which.revision).await?.commit;
    Ok((repo, commit))
}
