//! A shard comes in: every claim is compared with what was verified before, each new file's bytes
//! are hashed, and only then is anything registered. All or nothing.

mod bounds;
mod check;
mod rehash;
mod turn;

pub(in crate::upload) use turn::ShardSlot;
pub use turn::ShardTurn;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ballast_format::hash::{FileHash, Sha256, ShardHash};
use ballast_format::id::UserId;
use ballast_format::manifest::{Manifest, ManifestId, ShardDirectory, ShardObject};
use ballast_format::pack::FileLink;
use ballast_format::shard::{UploadFile, UploadShard};
use ballast_store::index::schema::{self, Scope, UploadRow};
use ballast_store::index::{Batch, Table};
use ballast_store::keyspace::{CopyKind, Key, Leased};
use ballast_store::pin::pin;
use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use self::bounds::Bounds;
use super::{PROMISE_MS, REMEMBERED_MS, rows};
use crate::access::{Caller, Repo};
use crate::error::{Error, Result};
use crate::hub::Hub;

/// Files of one shard that are hashed at the same time.
const FILES_AT_ONCE: usize = 2;

/// What came of a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShardPut {
    /// Whether anything in it was new.
    pub stored: bool,
    /// The name of what was stored.
    pub hash: Option<ShardHash>,
}

impl Hub {
    /// Takes in a shard, as its sender's turn has come. `progress` hears how many of how many files
    /// are done.
    pub async fn put_shard(
        self: &Arc<Self>,
        caller: &Caller,
        repo: &Repo,
        _turn: ShardTurn,
        bytes: Bytes,
        progress: &(dyn Fn(u64, u64) + Send + Sync),
    ) -> Result<ShardPut> {
        tracing::debug!(repo = %repo.name(), bytes = bytes.len(), "a shard came in");
        let parse = move || UploadShard::parse(bytes).map(Arc::new);
        let shard = self.pool().run(parse).await??;
        self.learn_leases(caller.user()?.user).await?;
        let learnt = self.repos.learnt();
        let taken = match self.take_files(caller, repo, &shard, progress).await {
            // What was told by another process may rest on a repo that this one has not read since.
            Err(Error::Invalid { .. }) if self.learn_repos(caller, repo.id(), learnt).await? => {
                self.take_files(caller, repo, &shard, progress).await
            }
            taken => taken,
        };
        let manifests = taken?;
        if manifests.is_empty() {
            return Ok(ShardPut { stored: false, hash: None });
        }
        let hash = self.register(caller, manifests).await?;
        Ok(ShardPut { stored: true, hash: Some(hash) })
    }

    /// The manifests of the shard's files that the caller has not registered before, if everything
    /// that it says is so.
    async fn take_files(
        self: &Arc<Self>,
        caller: &Caller,
        repo: &Repo,
        shard: &Arc<UploadShard>,
        progress: &(dyn Fn(u64, u64) + Send + Sync),
    ) -> Result<Vec<Manifest>> {
        let described = Arc::clone(shard);
        let bounds = Arc::new(self.pool().run(move || Bounds::of(&described)).await?);
        self.check_xorbs(caller, repo, shard).await?;
        let files = files_of(shard)?;
        let (done, total) = (AtomicU64::new(0), files.len() as u64);
        progress(0, total);
        let manifests: Vec<Option<Manifest>> = stream::iter(0..files.len())
            .map(|at| {
                let (done, files, bounds) = (&done, &files, &bounds);
                async move {
                    let manifest = self.take_file(caller, repo, &files[at], bounds).await?;
                    progress(done.fetch_add(1, Ordering::Relaxed) + 1, total);
                    Ok::<_, Error>(manifest)
                }
            })
            .buffered(FILES_AT_ONCE)
            .try_collect()
            .await?;
        Ok(manifests.into_iter().flatten().collect())
    }

    /// The file's manifest with the SHA-256 of its bytes; nothing if the caller has registered
    /// this file before.
    async fn take_file(
        self: &Arc<Self>,
        caller: &Caller,
        repo: &Repo,
        file: &UploadFile<'_>,
        bounds: &Arc<Bounds>,
    ) -> Result<Option<Manifest>> {
        let mut slot = self.uploads.shard_slot().await?;
        let manifest = Arc::new(self.check_file(caller, repo, file, bounds).await?);
        let hash = manifest.file;
        let sha256 = if let Some(known) = self.known_sha256(caller, repo, &hash).await? {
            known
        } else {
            bounds.take_bytes(manifest.size)?;
            self.sha256_of(&manifest, &mut slot).await?
        };
        if file.sha256.is_some_and(|claimed| claimed != sha256) {
            let reason = format!("the file `{hash}` does not have the SHA-256 that the shard says");
            return Err(Error::invalid(reason));
        }
        if let Some(row) = self.recent_upload(caller, &sha256).await? {
            // Registered anew if it would not last as long as clients remember it.
            let is_fresh = row.time_ms + PROMISE_MS > self.env().now_ms() + REMEMBERED_MS;
            let UploadRow { manifest, size, .. } = row;
            let link = FileLink { sha256, file: manifest.file, shard: manifest.shard, size };
            if row.manifest.file == hash
                && is_fresh
                && self.is_whole(&link).await?
                && self.manifest(&row.manifest).await?.is_some()
            {
                return Ok(None);
            }
        }
        let mut manifest = Arc::unwrap_or_clone(manifest);
        manifest.sha256 = sha256;
        Ok(Some(manifest))
    }

    /// Stores manifests as one object; when this returns, their files are found.
    pub(super) async fn register(
        &self,
        caller: &Caller,
        manifests: Vec<Manifest>,
    ) -> Result<ShardHash> {
        self.register_as(caller.user()?.user, manifests).await
    }

    /// The same for whoever is named.
    pub(crate) async fn register_as(
        &self,
        uploader: UserId,
        manifests: Vec<Manifest>,
    ) -> Result<ShardHash> {
        let time_ms = self.env().now_ms();
        let object = ShardObject { uploader, time_ms, manifests };
        let encode = move || object.encode().map(|encoded| (object, encoded));
        let (object, (bytes, hash, places)) = self.pool().run(encode).await??;
        let epoch = self.store().epoch().await?;
        let copy = self.store().new_copy(CopyKind::Shard, *hash.as_bytes(), epoch);
        let mut writer = self.store().writer(&Key::Copy(copy))?;
        writer.write(Bytes::from(bytes)).await?;
        // A pin without its object means nothing, so both may be written at once (ADR 10).
        let until = time_ms + PROMISE_MS;
        let leased = Leased::Registered(hash);
        let stored = tokio::try_join!(writer.finish(), pin(self.store(), uploader, leased, until));
        let (size, _) = stored?;
        // A collector that did not see the pin has published its list by now (Invariant 8).
        self.read_newest_condemned().await?;
        if self.condemned.holds(&copy) {
            let reason = "it took too long to register the files: send the shard again".to_owned();
            return Err(Error::Busy { reason });
        }
        let directory = ShardDirectory { uploader, time_ms, places };
        let mut batch = Batch::new();
        batch.put(Table::Copy, schema::copy_key(&copy), schema::number_row(size));
        for (manifest, place) in object.manifests.iter().zip(&directory.places) {
            rows::of_upload(&mut batch, &copy, &directory, place);
            rows::of_samples(&mut batch, (hash, manifest), &Scope::User(uploader), until);
        }
        self.index().apply(batch).await?;
        for manifest in object.manifests {
            // The commit that names it follows within milliseconds.
            let manifest = Arc::new(manifest);
            let id = ManifestId { file: manifest.file, shard: hash };
            self.caches.manifests.insert(id, manifest);
        }
        Ok(hash)
    }
}

/// The files of a shard, each once. Empty ones are committed as they are; what a shard says of
/// them means nothing.
fn files_of(shard: &UploadShard) -> Result<Vec<UploadFile<'_>>> {
    let mut claims: HashMap<FileHash, Option<Sha256>> = HashMap::new();
    let mut files = Vec::new();
    for file in shard.files().filter(|file| file.segment_count() > 0) {
        let claim = claims.get(&file.hash).copied();
        if claim.is_some_and(|claim| claim != file.sha256) {
            let reason = format!("the shard contradicts itself about the file `{}`", file.hash);
            return Err(Error::invalid(reason));
        }
        if claims.insert(file.hash, file.sha256).is_none() {
            files.push(file);
        }
    }
    Ok(files)
}
