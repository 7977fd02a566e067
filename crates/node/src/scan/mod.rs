//! Scans: whether loading a file can do harm, found by reading it and never by running it.
//!
//! A scan depends on the content, on the kind of name that the file has and on the edition of the
//! rules, and on nothing else. It is kept in the index, by the content's hash, and can be made
//! again at any time; an edition that changed makes it anew. Scans run in the background after
//! commits, and at once where a rule of the policy asks for one.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use ballast_format::hash::ObjectHash;
use ballast_store::index::schema::{self, ContentId};
use ballast_store::index::{Batch, Table};
use bytes::Bytes;
use tokio::sync::Semaphore;

mod archive;
mod config;
mod content;
mod name;
mod source;
mod stream;
#[cfg(test)]
mod tests;
mod verdict;
mod worker;

pub use verdict::{Imported, Scan, Status};
pub(crate) use worker::ScanWorker;

use name::Class;
use source::Source;

use crate::access::Repo;
use crate::download::{ItemKind, LargeFile, TreeItem};
use crate::error::{Error, Result};
use crate::hub::Hub;

/// Scans that run at once.
const AT_ONCE: usize = 2;
/// Commits that wait to be looked at; of those beyond, the newest of each repo is found again by
/// the round through all repos.
const MAX_WAITING: usize = 1024;
/// Rows that are asked for at once.
const ROWS: usize = 2000;

/// What scans of this process share.
pub(crate) struct Scans {
    slots: Semaphore,
    waiting: Mutex<VecDeque<(Repo, ObjectHash)>>,
}

impl Default for Scans {
    fn default() -> Self {
        Self { slots: Semaphore::new(AT_ONCE), waiting: Mutex::default() }
    }
}

impl Scans {
    /// Lets a commit be looked at soon.
    fn add(&self, repo: &Repo, commit: ObjectHash) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let is_known = waiting.iter().any(|(known, at)| (known.id(), *at) == (repo.id(), commit));
        if !is_known && waiting.len() < MAX_WAITING {
            waiting.push_back((repo.clone(), commit));
        }
    }

    fn next(&self) -> Option<(Repo, ObjectHash)> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }
}

fn content_id(item: &TreeItem) -> ContentId {
    match &item.large {
        Some(large) => ContentId::Sha256(large.sha256),
        None => ContentId::Object(item.id),
    }
}

fn key(item: &TreeItem) -> Vec<u8> {
    schema::scan_key(&content_id(item), Class::of(&item.path).tag())
}

fn decode(row: Option<Vec<u8>>) -> Option<Arc<Scan>> {
    let scan: Scan = serde_json::from_slice(&row?).ok()?;
    scan.is_current().then(|| Arc::new(scan))
}

impl Hub {
    /// Whether files are scanned without being asked about.
    pub fn scans(&self) -> bool {
        self.settings().scan
    }

    /// Lets the files of a commit be scanned soon.
    pub fn scan_soon(&self, repo: &Repo, commit: ObjectHash) {
        if self.scans() && !self.store().is_read_only() {
            self.scanning.add(repo, commit);
        }
    }

    /// What is known of files, in their order; nothing of one that was not scanned yet.
    pub async fn known_scans(&self, items: &[TreeItem]) -> Result<Vec<Option<Arc<Scan>>>> {
        let mut scans = Vec::with_capacity(items.len());
        for items in items.chunks(ROWS) {
            let rows = self.index().get_many(Table::Scan, items.iter().map(key).collect()).await?;
            scans.extend(rows.into_iter().map(decode));
        }
        Ok(scans)
    }

    /// What is known of a file; scans it first if need be.
    pub async fn scan(self: &Arc<Self>, repo: &Repo, item: &TreeItem) -> Result<Arc<Scan>> {
        if item.kind != ItemKind::File {
            return Ok(Arc::new(Scan::default()));
        }
        let source =
            || Source::Item { hub: Arc::clone(self), repo: repo.clone(), item: item.clone() };
        self.scan_by(key(item), Class::of(&item.path), source).await
    }

    /// The same of bytes that are at hand, and not in a repo yet.
    pub(crate) async fn scan_bytes(
        self: &Arc<Self>,
        id: ObjectHash,
        path: &str,
        bytes: Bytes,
    ) -> Result<Arc<Scan>> {
        let class = Class::of(path);
        let key = schema::scan_key(&ContentId::Object(id), class.tag());
        self.scan_by(key, class, || Source::Bytes { hub: Arc::clone(self), bytes }).await
    }

    async fn scan_by(
        &self,
        key: Vec<u8>,
        class: Class,
        source: impl FnOnce() -> Source,
    ) -> Result<Arc<Scan>> {
        if let Some(known) = decode(self.index().get(Table::Scan, &key).await?) {
            return Ok(known);
        }
        let busy = |_| Error::Busy { reason: "shutting down".to_owned() };
        let _slot = self.scanning.slots.acquire().await.map_err(busy)?;
        // Whoever waited may find it done.
        if let Some(known) = decode(self.index().get(Table::Scan, &key).await?) {
            return Ok(known);
        }
        let scan = content::scan(&source(), class).await?;
        let row = serde_json::to_vec(&scan).map_err(|error| Error::internal(error.to_string()))?;
        let mut batch = Batch::new();
        batch.put(Table::Scan, key, row);
        self.index().apply(batch).await?;
        Ok(Arc::new(scan))
    }
}

/// A large file that a commit is about to name, as an item to scan.
pub(crate) fn item_of(path: &str, id: ObjectHash, large: LargeFile) -> TreeItem {
    let (kind, size) = (ItemKind::File, large.size);
    TreeItem { path: path.to_owned(), kind, id, size, large: Some(large) }
}
