//! The contents that a draft brings: hashed as they come, kept for a moment, and written as packs
//! of a few MiB.
//!
//! A pack is named by what is in it, so its contents are known before the first byte is written;
//! that is why they wait in memory. How much waits in all drafts together has a bound. Contents
//! that the repo has already are not stored again.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use ballast_format::hash::ObjectHash;
use ballast_format::id::RepoId;
use ballast_format::object::{ObjectKind, Pointer, hash_object};
use ballast_format::pack::{FileLink, PackBuilder};
use ballast_store::index::schema::ObjectRow;
use ballast_store::keyspace::{CopyKind, Key};
use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;

use super::folder::NewTree;
use crate::error::{Error, Result};
use crate::hub::Hub;
use crate::state::repo::NewPack;

/// Contents that wait in one draft before they are written.
const WAITING_BYTES: usize = 8 << 20;
/// Contents of one commit in all, large files aside.
const MAX_CONTENT_BYTES: u64 = 150 << 20;
/// Hashing more than this would hold up an async thread.
const HASHED_AT_ONCE: usize = 64 << 10;

/// A blob that waits.
struct Waiting {
    id: ObjectHash,
    content: Bytes,
    pointer: Option<Pointer>,
}

/// A commit to write.
pub(super) struct NewCommit {
    pub(super) id: ObjectHash,
    pub(super) kind: ObjectKind,
    pub(super) content: Vec<u8>,
}

/// What a draft brings.
pub(super) struct Spool {
    repo: RepoId,
    waiting: Vec<Waiting>,
    waiting_bytes: usize,
    /// The right to the memory of what waits.
    memory: Option<OwnedSemaphorePermit>,
    /// Packs that are durable.
    packs: Vec<NewPack>,
    /// Every blob that came, with the large file that it stands for.
    known: HashMap<ObjectHash, Option<Pointer>>,
    content_bytes: u64,
    max_content_bytes: u64,
    /// Whether something came of which the repo's own is damaged.
    heals: bool,
}

impl Spool {
    pub(super) fn new(repo: RepoId) -> Self {
        Self::with_limit(repo, MAX_CONTENT_BYTES)
    }

    /// For contents of so many bytes in all.
    pub(super) fn with_limit(repo: RepoId, max_content_bytes: u64) -> Self {
        Self {
            repo,
            waiting: Vec::new(),
            waiting_bytes: 0,
            memory: None,
            packs: Vec::new(),
            known: HashMap::new(),
            content_bytes: 0,
            max_content_bytes,
            heals: false,
        }
    }

    /// Takes in a blob.
    pub(super) async fn add(&mut self, hub: &Hub, content: Bytes) -> Result<ObjectHash> {
        let pointer = Pointer::parse(&content);
        self.add_as(hub, content, pointer).await
    }

    /// Takes in a blob of which it is known whether it stands for a large file.
    pub(super) async fn add_as(
        &mut self,
        hub: &Hub,
        content: Bytes,
        pointer: Option<Pointer>,
    ) -> Result<ObjectHash> {
        let id = hash_blob(hub, &content).await?;
        if self.known.contains_key(&id) {
            return Ok(id);
        }
        let is_new = match hub.object_row(self.repo, &id).await? {
            None => true,
            Some(row) => {
                let is_lost = hub.is_lost(&id, &row).await?;
                self.heals |= is_lost;
                is_lost
            }
        };
        if is_new {
            self.keep(hub, Waiting { id, content, pointer }).await?;
        }
        self.known.insert(id, pointer);
        Ok(id)
    }

    async fn keep(&mut self, hub: &Hub, blob: Waiting) -> Result<()> {
        let length = blob.content.len();
        self.content_bytes += length as u64;
        if self.content_bytes > self.max_content_bytes {
            let (what, size) = ("the commit's content".to_owned(), self.content_bytes);
            return Err(Error::TooLarge { what, size, limit: self.max_content_bytes });
        }
        self.waiting.push(blob);
        self.waiting_bytes += length;
        let kib = u32::try_from(length.div_ceil(1024)).unwrap_or(u32::MAX);
        let buffers = Arc::clone(&hub.uploads.commits.buffers);
        let had = match buffers.try_acquire_many_owned(kib) {
            Ok(more) => {
                match &mut self.memory {
                    Some(memory) => memory.merge(more),
                    None => self.memory = Some(more),
                }
                true
            }
            Err(_) => false,
        };
        if !had || self.waiting_bytes >= WAITING_BYTES {
            self.write_out(hub).await?;
        }
        Ok(())
    }

    /// Writes what waits as a pack.
    async fn write_out(&mut self, hub: &Hub) -> Result<()> {
        let (mut pack, mut contents) = (PackBuilder::new(), Vec::new());
        for Waiting { id, content, pointer } in std::mem::take(&mut self.waiting) {
            pack.push(id, ObjectKind::Blob, content.len() as u64, pointer);
            contents.push(content);
        }
        self.packs.push(hub.store_pack(pack, contents).await?);
        self.waiting_bytes = 0;
        self.memory = None;
        Ok(())
    }

    /// Writes the last pack: what is in memory, these trees and this object.
    pub(super) async fn last_pack(
        &self,
        hub: &Hub,
        trees: Vec<NewTree>,
        commit: NewCommit,
        links: Vec<FileLink>,
    ) -> Result<NewPack> {
        let (mut pack, mut contents) = (PackBuilder::new(), Vec::new());
        for Waiting { id, content, pointer } in &self.waiting {
            pack.push(*id, ObjectKind::Blob, content.len() as u64, *pointer);
            contents.push(content.clone());
        }
        let ids: Vec<ObjectHash> = trees.iter().map(|tree| tree.id).collect();
        let known = hub.known_objects(self.repo, &ids).await?;
        let mut seen = HashSet::new();
        for (tree, is_known) in trees.into_iter().zip(known) {
            if !is_known && seen.insert(tree.id) {
                pack.push(tree.id, ObjectKind::Tree, tree.content.len() as u64, None);
                contents.push(Bytes::from(tree.content));
            }
        }
        pack.push(commit.id, commit.kind, commit.content.len() as u64, None);
        contents.push(Bytes::from(commit.content));
        for link in links {
            pack.link(link);
        }
        hub.store_pack(pack, contents).await
    }

    /// Whether something came of which the repo's own is damaged.
    pub(super) fn heals(&self) -> bool {
        self.heals
    }

    /// How many blobs are in memory.
    #[cfg(test)]
    pub(super) fn waiting_count(&self) -> usize {
        self.waiting.len()
    }

    /// The packs that are written.
    pub(super) fn packs(&self) -> &[NewPack] {
        &self.packs
    }

    /// Whether a blob came with this draft.
    pub(super) fn knows(&self, id: &ObjectHash) -> bool {
        self.known.contains_key(id)
    }

    /// The large file that a blob of this draft stands for.
    pub(super) fn pointer(&self, id: &ObjectHash) -> Option<Pointer> {
        self.known.get(id).copied().flatten()
    }

    /// The content of a blob of this draft or of the repo.
    pub(super) async fn read(&self, hub: &Hub, id: &ObjectHash, limit: u64) -> Result<Bytes> {
        if let Some(waiting) = self.waiting.iter().find(|blob| blob.id == *id) {
            return Ok(waiting.content.clone());
        }
        for pack in &self.packs {
            if let Some(object) = pack.directory.objects.iter().find(|object| object.id == *id) {
                let row = ObjectRow {
                    pack: pack.copy,
                    offset: object.offset,
                    length: object.length,
                    kind: object.kind,
                    pointer: object.pointer,
                };
                return hub.read_object(id, &row).await;
            }
        }
        hub.object(self.repo, id, ObjectKind::Blob, limit).await
    }
}

async fn hash_blob(hub: &Hub, content: &Bytes) -> Result<ObjectHash> {
    if content.len() <= HASHED_AT_ONCE {
        return Ok(hash_object(ObjectKind::Blob, content)?);
    }
    let content = content.clone();
    Ok(hub.pool().run(move || hash_object(ObjectKind::Blob, &content)).await??)
}

impl Hub {
    /// Writes a pack; it is durable when this returns, and nothing names it yet.
    pub(crate) async fn store_pack(
        &self,
        pack: PackBuilder,
        contents: Vec<Bytes>,
    ) -> Result<NewPack> {
        let header = Bytes::from_static(pack.header());
        let (tail, directory) = pack.finish()?;
        let epoch = self.store().epoch().await?;
        let hash = *directory.hash.as_bytes();
        let copy = self.store().new_copy(CopyKind::Pack, hash, epoch);
        let mut writer = self.store().writer(&Key::Copy(copy))?;
        writer.write(header).await?;
        for content in contents {
            writer.write(content).await?;
        }
        writer.write(Bytes::from(tail)).await?;
        writer.finish().await?;
        Ok(NewPack { copy, directory: Arc::new(directory) })
    }
}
