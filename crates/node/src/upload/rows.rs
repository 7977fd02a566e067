//! Index rows for what uploads bring and commits name.

use std::collections::BTreeSet;

use ballast_format::hash::XorbHash;
use ballast_format::id::RepoId;
use ballast_format::manifest::{FRONT_BYTES, Manifest, ManifestPlace, ShardDirectory};
use ballast_format::pack::FileLink;
use ballast_store::index::schema::{self, ChunkRow, ManifestRow, Scope, UploadRow};
use ballast_store::index::{Batch, Table};
use ballast_store::keyspace::{CopyName, Key};

use super::PROMISE_MS;
use crate::error::{Error, Result};
use crate::hub::Hub;

/// Bytes at a shard object's front that are read first.
const LIKELY_FRONT: u64 = 64 * 1024;

/// Rows of a manifest that somebody registered: where it is, and that they may use it.
pub(super) fn of_upload(
    batch: &mut Batch,
    shard: &CopyName,
    directory: &ShardDirectory,
    place: &ManifestPlace,
) {
    let row = ManifestRow {
        shard: *shard,
        offset: place.offset,
        length: place.length,
        size: place.size,
        sha256: place.sha256,
    };
    batch.put(Table::Manifest, schema::manifest_key(&place.file), row.encode());
    let (file, size, time_ms) = (place.file, place.size, directory.time_ms);
    let key = schema::upload_key(&directory.uploader, &place.sha256);
    batch.put(Table::Upload, key, UploadRow { file, size, time_ms }.encode());
}

/// Rows of the chunks of a file that may answer dedup queries in this scope.
pub(super) fn of_samples(batch: &mut Batch, manifest: &Manifest, scope: &Scope, until_ms: u64) {
    for sample in &manifest.samples {
        let (file, xorb, index) = (manifest.file, sample.xorb, sample.index);
        let row = ChunkRow { file, xorb, index, until_ms };
        batch.put(Table::Chunk, schema::chunk_key(&sample.chunk, scope), row.encode());
    }
}

/// Rows of a shard object that is in the store.
pub(crate) async fn of_stored_shard(hub: &Hub, copy: &CopyName) -> Result<Batch> {
    let key = Key::Copy(*copy);
    let damaged = |error: ballast_format::Error| Error::corrupt(format!("`{key}`: {error}"));
    let missing = || Error::corrupt(format!("`{key}` is gone"));
    let size = hub.store().size(&key).await?.ok_or_else(missing)?;
    let mut front = hub.store().get_range(&key, 0..size.min(LIKELY_FRONT)).await?;
    let fixed = front.get(..FRONT_BYTES).ok_or_else(missing)?;
    let length = ShardDirectory::front_length(fixed).map_err(damaged)?;
    if length > front.len() {
        front = hub.store().get_range(&key, 0..size.min(length as u64)).await?;
    }
    let directory = ShardDirectory::decode(&front).map_err(damaged)?;
    let until = directory.time_ms + PROMISE_MS;
    let is_recent = until > hub.env().now_ms();
    let mut batch = Batch::new();
    for place in &directory.places {
        of_upload(&mut batch, copy, &directory, place);
        if is_recent {
            let range = place.offset..place.offset + u64::from(place.length);
            let bytes = hub.store().get_range(&key, range).await?;
            let manifest = Manifest::decode(&bytes).map_err(damaged)?;
            of_samples(&mut batch, &manifest, &Scope::User(directory.uploader), until);
        }
    }
    Ok(batch)
}

/// Rows of a large file that a repo's commit newly names.
pub(crate) async fn of_link(hub: &Hub, repo: RepoId, link: &FileLink) -> Result<Batch> {
    let mut batch = Batch::new();
    if link.size == 0 {
        return Ok(batch);
    }
    let manifest = hub.needed_manifest(&link.file).await?;
    let scope = Scope::Repo(repo);
    let xorbs: BTreeSet<XorbHash> = manifest.terms.iter().map(|term| term.xorb).collect();
    for xorb in xorbs {
        batch.put(Table::XorbScope, schema::xorb_scope_key(&xorb, &scope), schema::number_row(0));
    }
    of_samples(&mut batch, &manifest, &scope, 0);
    Ok(batch)
}
