//! The signatures that a commit carries among its files, and which of its files they vouch for.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use ballast_format::hash::{ObjectHash, Sha256};
use ballast_format::id::RepoId;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use sha2::Digest as _;

use super::{Key, MAX_BUNDLE_BYTES, Signature, verify};
use crate::access::Repo;
use crate::download::{ItemKind, TreeItem};
use crate::error::Result;
use crate::hub::Hub;

/// Bundles of one commit that are read.
const MAX_BUNDLES: usize = 8;
/// Entries of the root among which bundles are looked for.
const MAX_ENTRIES: usize = 10_000;
/// Blobs are regular files, which have a limit.
const MAX_BLOB_BYTES: u64 = 16 << 20;
/// Memory for signatures that were verified.
const KEPT_BYTES: u64 = 16 << 20;

/// What a commit carries.
#[derive(Clone, Debug, Default)]
pub struct Carried {
    /// Those that a configured key made.
    pub good: Vec<Signature>,
    /// Bundles of which nothing counts, each with the reason.
    pub bad: BTreeMap<String, String>,
}

/// How many files of a commit a key vouches for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vouched {
    /// The key's name.
    pub by: String,
    /// Files that are as they were signed.
    pub files: usize,
    /// Files that were signed and are not so, or not there.
    pub differ: Vec<String>,
}

#[derive(Clone)]
pub(crate) struct Weigh;

impl Weighter<(RepoId, ObjectHash), Arc<Carried>> for Weigh {
    fn weight(&self, _: &(RepoId, ObjectHash), carried: &Arc<Carried>) -> u64 {
        let files = carried.good.iter().flat_map(|signature| signature.files.keys());
        200 + files.map(|name| name.len() as u64 + 100).sum::<u64>()
    }
}

/// Signatures of commits, which never change.
pub(crate) struct SignedCache(Cache<(RepoId, ObjectHash), Arc<Carried>, Weigh>);

impl Default for SignedCache {
    fn default() -> Self {
        Self(Cache::with_weighter(256, KEPT_BYTES, Weigh))
    }
}

fn is_bundle(item: &TreeItem) -> bool {
    let is_named =
        [".sig", ".sigstore", ".sigstore.json"].iter().any(|end| item.path.ends_with(end));
    item.kind == ItemKind::File && is_named && item.size <= MAX_BUNDLE_BYTES
}

impl Hub {
    /// The signatures in the root of a commit.
    pub async fn signatures(
        self: &Arc<Self>,
        repo: &Repo,
        commit: ObjectHash,
    ) -> Result<Arc<Carried>> {
        let keys = self.policy().keys();
        if keys.is_empty() {
            return Ok(Arc::default());
        }
        let place = (repo.id(), commit);
        if let Some(known) = self.signed.0.get(&place) {
            return Ok(known);
        }
        let root = self.tree_page(repo, commit, None, false, None, MAX_ENTRIES).await?;
        let mut carried = Carried::default();
        for item in root.items.iter().filter(|item| is_bundle(item)).take(MAX_BUNDLES) {
            match self.read_signature(repo, item, keys.to_vec()).await? {
                Ok(signature) => carried.good.push(signature),
                Err(reason) => drop(carried.bad.insert(item.path.clone(), reason)),
            }
        }
        let carried = Arc::new(carried);
        self.signed.0.insert(place, Arc::clone(&carried));
        Ok(carried)
    }

    async fn read_signature(
        self: &Arc<Self>,
        repo: &Repo,
        item: &TreeItem,
        keys: Vec<Key>,
    ) -> Result<std::result::Result<Signature, String>> {
        let bytes = self.read_item(repo, item, MAX_BUNDLE_BYTES).await?;
        self.pool().run(move || verify(&bytes, &keys)).await
    }

    /// The names of the keys that vouch for a file of a commit. Without a path: for its content,
    /// under whatever name.
    pub async fn signed_by(
        self: &Arc<Self>,
        repo: &Repo,
        commit: ObjectHash,
        item: &TreeItem,
    ) -> Result<Vec<String>> {
        let carried = self.signatures(repo, commit).await?;
        if carried.good.is_empty() {
            return Ok(Vec::new());
        }
        // Of small files only what is signed is worth hashing.
        let is_listed = |signature: &Signature| signature.files.contains_key(&item.path);
        if item.large.is_none() && !carried.good.iter().any(is_listed) {
            return Ok(Vec::new());
        }
        let sha256 = match &item.large {
            Some(large) => large.sha256,
            None => self.hash_item(repo, item).await?,
        };
        let vouches = |signature: &&Signature| match item.path.as_str() {
            "" => signature.files.values().any(|signed| *signed == sha256),
            path => signature.files.get(path) == Some(&sha256),
        };
        let mut names: Vec<String> =
            carried.good.iter().filter(vouches).map(|signature| signature.by.clone()).collect();
        names.sort();
        names.dedup();
        Ok(names)
    }

    async fn hash_item(self: &Arc<Self>, repo: &Repo, item: &TreeItem) -> Result<Sha256> {
        let bytes = self.read_item(repo, item, MAX_BLOB_BYTES).await?;
        let digest = self.pool().run(move || sha2::Sha256::digest(&bytes)).await?;
        Ok(Sha256::from_bytes(digest.into()))
    }

    async fn read_item(
        self: &Arc<Self>,
        repo: &Repo,
        item: &TreeItem,
        limit: u64,
    ) -> Result<Bytes> {
        let mut stream = self.open_item(repo, item, 0..item.size.min(limit)).await?;
        let mut bytes = BytesMut::new();
        while let Some(piece) = stream.next().await {
            bytes.extend_from_slice(&piece?);
        }
        Ok(bytes.freeze())
    }

    /// For each signature, how many of the commit's files are as they were signed.
    pub async fn vouched(
        self: &Arc<Self>,
        repo: &Repo,
        commit: ObjectHash,
        items: &[TreeItem],
    ) -> Result<Vec<Vouched>> {
        const MAX_DIFFER: usize = 20;
        let carried = self.signatures(repo, commit).await?;
        let by_path: HashMap<&str, &TreeItem> =
            items.iter().map(|item| (item.path.as_str(), item)).collect();
        let mut all = Vec::new();
        for signature in &carried.good {
            let (mut files, mut differ) = (0, Vec::new());
            let mut names: Vec<&String> = signature.files.keys().collect();
            names.sort();
            for name in names {
                let found = match by_path.get(name.as_str()) {
                    None => None,
                    Some(TreeItem { large: Some(large), .. }) => Some(large.sha256),
                    Some(item) => Some(self.hash_item(repo, item).await?),
                };
                if found == signature.files.get(name).copied() {
                    files += 1;
                } else if differ.len() < MAX_DIFFER {
                    differ.push(name.clone());
                }
            }
            all.push(Vouched { by: signature.by.clone(), files, differ });
        }
        Ok(all)
    }
}
