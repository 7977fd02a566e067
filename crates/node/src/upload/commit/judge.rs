//! The policy at the moment of a commit: every file that it puts somewhere is judged, and scanned
//! where a rule asks for that, before anything of it is visible.

use std::collections::BTreeSet;
use std::sync::Arc;

use ballast_format::hash::ObjectHash;
use ballast_format::name::FilePath;
use ballast_format::object::{EntryMode, Pointer, TreeEntry};
use bytes::Bytes;

use super::Asked;
use super::draft::{Draft, Operation};
use super::folder::Folder;
use crate::access::Repo;
use crate::discovery::card::{Card, MAX_README_BYTES};
use crate::download::{Content, ItemKind, LargeFile, TreeItem};
use crate::error::{Error, Result};
use crate::hub::Hub;
use crate::policy::{FileFacts, Judgement, Need, RepoFacts, Stage, licenses_of, named, settled};
use crate::scan::item_of;

const README: &str = "README.md";
/// Blobs are regular files, which have a limit.
const MAX_BLOB_BYTES: u64 = 16 << 20;

impl Hub {
    /// Refuses what the rules refuse whatever is in the files, before bytes are sent for nothing.
    pub fn may_upload(&self, repo: &Repo, asked: &[Asked]) -> Result<()> {
        let policy = self.policy();
        if policy.allows_all(Stage::Upload) {
            return Ok(());
        }
        // What the commit makes of licence and size is not known yet.
        let facts = named(repo);
        for asked in asked {
            let path = Some(asked.path.to_string());
            let file = FileFacts { path, bytes: Some(asked.size), ..FileFacts::default() };
            let judgement = policy.judge_file(Stage::Upload, &facts, &file);
            if !matches!(judgement, Judgement::Undecided { .. }) {
                settled(judgement)?;
            }
        }
        Ok(())
    }
}

impl Draft {
    /// Refuses the commit if a rule refuses a file that it puts somewhere.
    pub(super) async fn judge(
        &self,
        folder: &mut Folder,
        parent: Option<ObjectHash>,
    ) -> Result<()> {
        if self.is_ours || self.hub.policy().allows_all(Stage::Upload) {
            return Ok(());
        }
        let facts = self.facts(folder, parent).await?;
        let put = |operation: &Operation| match operation {
            Operation::Put { path, .. } => Some(path.clone()),
            Operation::Copy { to, .. } | Operation::Rename { to, .. } => Some(to.clone()),
            Operation::DeleteFile(_) | Operation::DeleteFolder(_) => None,
        };
        let paths: BTreeSet<FilePath> = self.operations.iter().filter_map(put).collect();
        for path in paths {
            let file = folder.get(&self.hub, self.repo.id(), &path).await?;
            // It was put, and taken away again.
            let Some(file) = file.filter(|file| file.mode != EntryMode::Submodule) else {
                continue;
            };
            self.judge_file(&facts, &path, file.id).await?;
        }
        Ok(())
    }

    async fn judge_file(&self, facts: &RepoFacts, path: &FilePath, id: ObjectHash) -> Result<()> {
        let policy = self.hub.policy();
        let (item, blob) = self.item(path, id).await?;
        let bytes = Some(item.size);
        let path_text = Some(path.to_string());
        let mut file = FileFacts { path: path_text, bytes, ..FileFacts::default() };
        let judgement = policy.judge_file(Stage::Upload, facts, &file);
        if !matches!(judgement, Judgement::Undecided { needs: Need::Scan, .. }) {
            return settled(judgement);
        }
        file.scan = Some(match blob {
            Some(blob) => self.hub.scan_bytes(id, path.as_str(), blob).await?,
            None => self.hub.scan(&self.repo, &item).await?,
        });
        settled(policy.judge_file(Stage::Upload, facts, &file))
    }

    /// A file of this commit as one of the repo; its content too, if it is a small one.
    async fn item(&self, path: &FilePath, id: ObjectHash) -> Result<(TreeItem, Option<Bytes>)> {
        let blob = self.spool.read(&self.hub, &id, MAX_BLOB_BYTES).await?;
        let pointer = Pointer::parse(&blob);
        let link = pointer.and_then(|pointer| self.links.get(&pointer.sha256));
        if let Some(link) = link {
            let large = LargeFile {
                sha256: link.sha256,
                size: link.size,
                pointer_size: blob.len() as u64,
                content: Content::Stored(link.manifest()),
            };
            return Ok((item_of(path.as_str(), id, large), None));
        }
        let entry = TreeEntry { mode: EntryMode::File, name: path.name().to_owned(), id };
        if pointer.is_some() {
            // One that the repo has already: its rows are there. The commit has no id yet; only a
            // mirror would be asked for it.
            let (commit, entries) =
                (ObjectHash::from_bytes([0; 20]), vec![(path.to_string(), entry)]);
            let items = self.hub.items_of(&self.repo, commit, entries).await?;
            let item = items.into_iter().next();
            let item = item.ok_or_else(|| Error::internal("a file of a commit has no item"))?;
            if item.large.is_some() {
                return Ok((item, None));
            }
        }
        let (kind, size) = (ItemKind::File, blob.len() as u64);
        let item = TreeItem { path: path.to_string(), kind, id, size, large: None };
        Ok((item, Some(blob)))
    }

    /// What is known of the repo as it will be with this commit.
    async fn facts(&self, folder: &mut Folder, parent: Option<ObjectHash>) -> Result<RepoFacts> {
        let (hub, repo) = (&self.hub, self.repo.id());
        let mut facts = named(&self.repo);
        let readme = folder.get(hub, repo, &FilePath::parse(README)?).await?;
        facts.licenses = Some(match readme {
            Some(readme) => {
                let text = self.spool.read(hub, &readme.id, MAX_README_BYTES).await?;
                let text = String::from_utf8_lossy(&text).into_owned();
                licenses_of(Card::read(&text).data.as_ref())
            }
            None => Vec::new(),
        });
        if hub.policy().asks_repo_bytes(Stage::Upload) {
            facts.bytes = Some(self.bytes_after(folder, parent).await?);
        }
        Ok(facts)
    }

    /// Bytes of all files as they will be.
    async fn bytes_after(&self, folder: &mut Folder, parent: Option<ObjectHash>) -> Result<u64> {
        let (hub, repo) = (Arc::clone(&self.hub), self.repo.id());
        let mut bytes: u64 = 0;
        let before = match parent {
            Some(parent) => hub.siblings(&self.repo, parent).await?,
            None => Vec::new(),
        };
        for item in before {
            let Ok(path) = FilePath::parse(&item.path) else { continue };
            let stays = folder.get(&hub, repo, &path).await?.is_some_and(|file| file.id == item.id);
            bytes = bytes.saturating_add(if stays { item.size } else { 0 });
        }
        for operation in &self.operations {
            if let Operation::Put { path, id } = operation
                && folder.get(&hub, repo, path).await?.is_some_and(|file| file.id == *id)
                && !self.had(parent, path, *id).await?
            {
                bytes = bytes.saturating_add(self.item(path, *id).await?.0.size);
            }
        }
        Ok(bytes)
    }

    /// Whether the parent has this very file at this path.
    async fn had(
        &self,
        parent: Option<ObjectHash>,
        path: &FilePath,
        id: ObjectHash,
    ) -> Result<bool> {
        let Some(parent) = parent else { return Ok(false) };
        let entry = self.hub.entry(self.repo.id(), parent, path).await?;
        Ok(entry.is_some_and(|entry| entry.id == id))
    }
}
