//! Index rows for what uploads bring and commits name.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use ballast_format::hash::{FileHash, ShardHash, XorbHash};
use ballast_format::id::{RepoId, UserId};
use ballast_format::manifest::{FRONT_BYTES, Manifest, ManifestId, ManifestPlace, ShardDirectory};
use ballast_format::pack::FileLink;
use ballast_store::index::schema::{self, ChunkRow, ManifestRow, RunsRow, Scope, UploadRow};
use ballast_store::index::{Batch, Table};
use ballast_store::keyspace::{CopyKind, CopyName, Key, Leased};

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
    let manifest = ManifestId { file: place.file, shard: ShardHash::from_bytes(shard.hash) };
    batch.put(Table::Manifest, schema::manifest_key(&manifest), row.encode());
    let (size, time_ms) = (place.size, directory.time_ms);
    let key = schema::upload_key(&directory.uploader, &place.sha256, &manifest.shard);
    batch.put(Table::Upload, key, UploadRow { manifest, size, time_ms }.encode());
}

/// The row of a lease. What was registered has rows of its own, from the shard object.
pub(crate) fn of_lease(batch: &mut Batch, owner: UserId, leased: Leased, until_ms: u64) {
    let key = match leased {
        Leased::Sent(xorb) => schema::xorb_scope_key(&xorb, &Scope::User(owner)),
        Leased::Told(xorb) => schema::xorb_told_key(&xorb, &owner),
        Leased::Registered(_) => return,
    };
    batch.put(Table::XorbScope, key, schema::number_row(until_ms));
}

/// Rows of the chunks of a file that may answer dedup queries in this scope.
pub(super) fn of_samples(
    batch: &mut Batch,
    (shard, manifest): (ShardHash, &Manifest),
    scope: &Scope,
    until_ms: u64,
) {
    let id = ManifestId { file: manifest.file, shard };
    for sample in &manifest.samples {
        let (xorb, index) = (sample.xorb, sample.index);
        let row = ChunkRow { manifest: id, xorb, index, until_ms };
        batch.put(Table::Chunk, schema::chunk_key(&sample.chunk, scope), row.encode());
    }
}

/// The files that a stored shard object registered.
pub(crate) async fn files_of(hub: &Hub, copy: &CopyName) -> Result<Vec<FileHash>> {
    let (directory, _) = read_directory(hub, copy).await?;
    Ok(directory.places.iter().map(|place| place.file).collect())
}

/// What a stored shard object holds, and its size.
async fn read_directory(hub: &Hub, copy: &CopyName) -> Result<(ShardDirectory, u64)> {
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
    Ok((ShardDirectory::decode(&front).map_err(damaged)?, size))
}

/// Rows of a shard object that is in the store.
pub(crate) async fn of_stored_shard(hub: &Hub, copy: &CopyName) -> Result<Batch> {
    let key = Key::Copy(*copy);
    let damaged = |error: ballast_format::Error| Error::corrupt(format!("`{key}`: {error}"));
    let (directory, size) = read_directory(hub, copy).await?;
    let until = directory.time_ms + PROMISE_MS;
    let is_recent = until > hub.env().now_ms();
    let mut batch = Batch::new();
    batch.put(Table::Copy, schema::copy_key(copy), schema::number_row(size));
    for place in &directory.places {
        of_upload(&mut batch, copy, &directory, place);
        if is_recent {
            let range = place.offset..place.offset + u64::from(place.length);
            let bytes = hub.store().get_range(&key, range).await?;
            let manifest = Manifest::decode(&bytes).map_err(damaged)?;
            let shard = ShardHash::from_bytes(copy.hash);
            of_samples(&mut batch, (shard, &manifest), &Scope::User(directory.uploader), until);
        }
    }
    Ok(batch)
}

impl Hub {
    /// Takes into the index what a copy of a shard object holds.
    pub(crate) async fn learn_copy(&self, copy: &CopyName) -> Result<()> {
        let rows = of_stored_shard(self, copy).await?;
        Ok(self.index().apply(rows).await?)
    }

    /// Takes into the index what a shard object holds of which the index does not know, as another
    /// process stored it; whether there is such an object. A damaged copy counts as none if there
    /// is a sound one.
    pub(crate) async fn learn_shard(&self, shard: &ShardHash) -> Result<bool> {
        let mut fault = None;
        for copy in self.copies_by_trust(CopyKind::Shard, *shard.as_bytes()).await? {
            match of_stored_shard(self, &copy).await {
                Ok(rows) => {
                    self.index().apply(rows).await?;
                    return Ok(true);
                }
                Err(error) if error.is_corrupt() => {
                    fault = Some(self.note_damage(&copy, error));
                }
                Err(error) => return Err(error),
            }
        }
        fault.map_or(Ok(false), Err)
    }
}

/// Rows of a large file that a repo's commit newly names; nothing if its manifest is not there.
pub(crate) async fn of_link(hub: &Hub, repo: RepoId, link: &FileLink) -> Result<Option<Batch>> {
    let mut batch = Batch::new();
    if link.size == 0 {
        return Ok(Some(batch));
    }
    let Some(manifest) = hub.manifest(&link.manifest()).await? else { return Ok(None) };
    for (xorb, runs) in runs_of(&manifest) {
        let key = schema::xorb_file_key(&xorb, &repo, &link.file);
        batch.put(Table::XorbScope, key, RunsRow { runs }.encode());
    }
    of_samples(&mut batch, (link.shard, &manifest), &Scope::Repo(repo), 0);
    Ok(Some(batch))
}

/// Which chunks of which xorbs a file is made of. Of a xorb that it picks chunks from all over,
/// only the longest runs.
fn runs_of(manifest: &Manifest) -> BTreeMap<XorbHash, Vec<Range<u16>>> {
    let mut runs: BTreeMap<XorbHash, BTreeSet<(u16, u16)>> = BTreeMap::new();
    for term in &manifest.terms {
        // Terms that no xorb can have bring nothing into reach.
        let chunks = (u16::try_from(term.chunks.start), u16::try_from(term.chunks.end));
        if let (Ok(start), Ok(end)) = chunks {
            runs.entry(term.xorb).or_default().insert((start, end));
        }
    }
    let merged = runs.into_iter().map(|(xorb, runs)| (xorb, merge(runs)));
    merged.collect()
}

fn merge(runs: BTreeSet<(u16, u16)>) -> Vec<Range<u16>> {
    let mut merged: Vec<Range<u16>> = Vec::new();
    for (start, end) in runs {
        match merged.last_mut() {
            Some(last) if last.end >= start => last.end = last.end.max(end),
            _ => merged.push(start..end),
        }
    }
    if merged.len() > RunsRow::MOST {
        merged.sort_by_key(|run| Reverse(run.len()));
        merged.truncate(RunsRow::MOST);
        merged.sort_by_key(|run| run.start);
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_runs_the_longest_stay_in_order() {
        let many = (0..200).map(|i: u16| (i * 40, i * 40 + 1 + i % 30)).collect();
        let kept = merge(many);
        assert_eq!(kept.len(), RunsRow::MOST);
        assert!(kept.is_sorted_by_key(|run| run.start));
        assert!(kept.iter().all(|run| run.len() >= 20));
        assert_eq!(merge([(0, 2), (2, 4), (3, 9), (10, 11)].into()), [0..9, 10..11]);
    }
}
