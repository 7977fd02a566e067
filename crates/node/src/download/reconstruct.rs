//! Which ranges of which xorbs make a file, or a part of it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use ballast_format::hash::{FileHash, Sha256, XorbHash};
use ballast_format::limits::MAX_MANIFEST_BYTES;
use ballast_format::manifest::{Manifest, ManifestId, Term};
use ballast_format::range::RangeRequest;
use ballast_format::xorb::XorbFooter;
use ballast_store::index::Table;
use ballast_store::index::schema::{self, FileRow, ManifestRow};
use ballast_store::keyspace::{CopyName, Key};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::manifests::LARGE_BYTES;
use super::piece::Piece;
use crate::access::Repo;
use crate::error::{Error, Result};
use crate::hub::Hub;
use crate::upload::Growing;

/// Xorbs whose footers are read at the same time for one answer.
const OPENED_AT_ONCE: usize = 8;

/// Bytes to fetch, of one copy of a xorb.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetch {
    /// The xorb.
    pub xorb: XorbHash,
    /// The copy that the offsets are of.
    pub copy: CopyName,
    /// The chunks that the bytes are.
    pub chunks: Range<u32>,
    /// Where they are in the copy, headers included.
    pub bytes: Range<u64>,
}

/// How to make a file, or a part of it, from xorbs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reconstruction {
    /// Bytes of the first term that come before the part.
    pub offset_into_first_range: u64,
    /// What to put together, in order.
    pub terms: Vec<Term>,
    /// What to fetch, by xorb and chunk: each term lies inside one of these, and no two of one
    /// xorb touch.
    pub fetches: Vec<Fetch>,
}

impl Hub {
    /// One manifest.
    pub(crate) async fn manifest(&self, id: &ManifestId) -> Result<Option<Arc<Manifest>>> {
        if let Some(manifest) = self.caches.manifests.get(id) {
            return Ok(Some(manifest));
        }
        let mut tried: Vec<CopyName> = Vec::new();
        loop {
            let Some(row) = self.manifest_row(id).await? else {
                return Ok(None);
            };
            let error = match self.read_row(id, &row).await {
                Ok(manifest) => return Ok(Some(manifest)),
                // Swept, after another copy was made of which the store knows; or damaged.
                Err(error) => self.note_damage(&row.shard, error),
            };
            let may_go_on = error.is_corrupt() && !tried.contains(&row.shard);
            if !may_go_on || !self.learn_shard(&id.shard).await? {
                return Err(error);
            }
            tried.push(row.shard);
        }
    }

    async fn read_row(&self, id: &ManifestId, row: &ManifestRow) -> Result<Arc<Manifest>> {
        let key = Key::Copy(row.shard);
        let range = row.offset..row.offset + u64::from(row.length);
        if row.length as usize > MAX_MANIFEST_BYTES {
            return Err(Error::corrupt(format!("`{key}` has a manifest that is too long")));
        }
        let read = async {
            let bytes = self.store().get_range(&key, range).await?;
            let manifest = self.pool().run(move || Manifest::decode(&bytes)).await?;
            let manifest = manifest.map_err(|error| Error::corrupt(format!("`{key}`: {error}")))?;
            if manifest.file != id.file {
                return Err(Error::corrupt(format!("`{key}` has another file's manifest")));
            }
            Ok(manifest)
        };
        let (place, length) = ((row.shard, row.offset), u64::from(row.length));
        if length >= LARGE_BYTES {
            return self.caches.large_manifests.get(self.env(), place, length, read).await;
        }
        let manifest = Arc::new(read.await?);
        self.caches.manifests.insert(*id, Arc::clone(&manifest));
        Ok(manifest)
    }

    /// Where a manifest is. What another process stored is looked up, and then known.
    pub(crate) async fn manifest_row(&self, id: &ManifestId) -> Result<Option<ManifestRow>> {
        let key = schema::manifest_key(id);
        let mut row = self.index().get(Table::Manifest, &key).await?;
        if row.is_none() && self.learn_shard(&id.shard).await? {
            row = self.index().get(Table::Manifest, &key).await?;
        }
        Ok(row.map(|row| ManifestRow::decode(&row)).transpose()?)
    }

    /// Where any manifest of this content is.
    pub(crate) async fn any_manifest_row(&self, file: &FileHash) -> Result<Option<ManifestRow>> {
        let prefix = schema::manifests_prefix(file);
        let rows = self.index().scan(Table::Manifest, &prefix, None, 1).await?;
        Ok(rows.first().map(|(_, row)| ManifestRow::decode(row)).transpose()?)
    }

    /// The manifest of a file that something stored refers to.
    pub(crate) async fn needed_manifest(&self, id: &ManifestId) -> Result<Arc<Manifest>> {
        let manifest = self.manifest(id).await?;
        manifest.ok_or_else(|| {
            let ManifestId { file, shard } = id;
            Error::corrupt(format!("the manifest of `{file}` in shard `{shard}` is missing"))
        })
    }

    /// How to make a file of this repo, or the part that the range asks for. A file that the repo
    /// does not hold is not there, whoever else has it.
    pub async fn reconstruct(
        &self,
        repo: &Repo,
        file: FileHash,
        range: Option<&RangeRequest>,
    ) -> Result<Reconstruction> {
        if file == FileHash::ZERO {
            return of_empty_file(range);
        }
        self.state_of(repo.id()).await?;
        let mut id = self.manifest_of(repo, &file).await?;
        if id.is_none() {
            // Another process may just have committed it.
            self.newest_state(repo.id()).await?;
            id = self.manifest_of(repo, &file).await?;
        }
        let missing = || Error::NotFound { what: format!("the file `{file}`") };
        let manifest = self.needed_manifest(&id.ok_or_else(missing)?).await?;
        let range = match range {
            None => 0..manifest.size,
            Some(range) => range
                .resolve(manifest.size)
                .map_err(|past| Error::Unsatisfiable { size: past.size })?,
        };
        self.reconstruct_range(&manifest, range).await
    }

    /// How to make these bytes of a file that comes in: as soon as it has come so far.
    pub async fn reconstruct_growing(
        &self,
        growing: &Growing,
        range: Range<u64>,
    ) -> Result<Reconstruction> {
        let (start, terms) = growing.part(&range).await;
        let size = terms.iter().map(|term| u64::from(term.length)).sum();
        let part = Manifest::new(FileHash::ZERO, Sha256::ZERO, size, terms, Vec::new())?;
        self.reconstruct_range(&part, range.start - start..range.end - start).await
    }

    /// By which manifest a repo reads a file.
    async fn manifest_of(&self, repo: &Repo, file: &FileHash) -> Result<Option<ManifestId>> {
        let key = schema::file_repo_key(file, &repo.id());
        let Some(sha256) = self.index().get(Table::FileRepo, &key).await? else {
            return Ok(None);
        };
        let key = schema::file_key(&repo.id(), &schema::read_sha256(&sha256)?);
        let row = self.index().get(Table::File, &key).await?;
        Ok(row.map(|row| FileRow::decode(&row)).transpose()?.map(|row| row.manifest))
    }

    /// How to make these bytes of a file.
    async fn reconstruct_range(
        &self,
        manifest: &Manifest,
        range: Range<u64>,
    ) -> Result<Reconstruction> {
        let Some(first) = manifest.find(range.start).filter(|_| !range.is_empty()) else {
            return Ok(Reconstruction::default());
        };
        let last = manifest.find(range.end - 1);
        let last = last.unwrap_or(manifest.terms.len() - 1);
        let mut terms = manifest.terms[first..=last].to_vec();
        let mut skipped = 0;
        let outer = if first == last { vec![first] } else { vec![first, last] };
        for index in outer {
            let term = &mut terms[index - first];
            let (start, end) = (manifest.start_of(index), manifest.end_of(index));
            let inside = range.start.max(start) - start..range.end.min(end) - start;
            // Where chunks begin in the file is the same in all copies.
            let (_, footer) = self.needed_xorb(&term.xorb).await?;
            if index == last {
                trim_end(&footer, term, inside.end)?;
            }
            if index == first {
                skipped = trim_start(&footer, term, inside.start)?;
            }
        }
        // A sparse file names one run thousands of times.
        let mut wanted: BTreeMap<XorbHash, Runs> = BTreeMap::new();
        let mut before = None;
        for term in &terms {
            if before.replace(term) != Some(term) {
                let runs = wanted.entry(term.xorb).or_default();
                runs.insert((term.chunks.start, term.chunks.end));
            }
        }
        let fetches = stream::iter(wanted)
            .map(|(xorb, runs)| self.fetches_of(xorb, runs))
            .buffered(OPENED_AT_ONCE)
            .try_concat()
            .await?;
        Ok(Reconstruction { offset_into_first_range: skipped, terms, fetches })
    }

    /// What to fetch of a xorb: all of one copy, as offsets are a copy's own (Invariant 7). Its
    /// footer is let go of before the next ones are read, however many xorbs a file has.
    async fn fetches_of(&self, xorb: XorbHash, runs: Runs) -> Result<Vec<Fetch>> {
        let (copy, footer) = self.needed_xorb(&xorb).await?;
        let fetch = |chunks| {
            let piece = Piece::new(copy, &footer, chunks)?;
            Ok(Fetch { xorb, copy, chunks: piece.chunks, bytes: piece.place })
        };
        merged(runs).into_iter().map(fetch).collect()
    }
}

/// Runs of a xorb's chunks that terms name.
type Runs = BTreeSet<(u32, u32)>;

/// One run for all that overlap or touch: clients know a fetched run by its start.
fn merged(runs: Runs) -> Vec<Range<u32>> {
    let mut merged: Vec<Range<u32>> = Vec::new();
    for (start, end) in runs {
        match merged.last_mut() {
            Some(last) if last.end >= start => last.end = last.end.max(end),
            _ => merged.push(start..end),
        }
    }
    merged
}

/// An empty file has nothing to say, and nothing past its start.
fn of_empty_file(range: Option<&RangeRequest>) -> Result<Reconstruction> {
    // Of one byte, every range that begins at the start holds something.
    match range.map(|range| range.resolve(1)) {
        None | Some(Ok(_)) => Ok(Reconstruction::default()),
        Some(Err(_)) => Err(Error::Unsatisfiable { size: 0 }),
    }
}

/// Takes away the chunks of a term behind those that hold its first `end` bytes.
fn trim_end(footer: &XorbFooter, term: &mut Term, end: u64) -> Result<()> {
    let whole = footer.uncompressed_length(term.chunks.clone());
    if !whole.is_ok_and(|length| length == u64::from(term.length)) {
        let reason = format!("a manifest and the xorb `{}` do not agree", term.xorb);
        return Err(Error::corrupt(reason));
    }
    let last = chunk_at(footer, term, end - 1)?;
    term.chunks.end = last + 1;
    measure(footer, term);
    Ok(())
}

/// Takes away the chunks of a term before the one that holds the byte at `start`; how many bytes
/// of that chunk come before it.
fn trim_start(footer: &XorbFooter, term: &mut Term, start: u64) -> Result<u64> {
    let base = footer.uncompressed_start(term.chunks.start);
    let first = chunk_at(footer, term, start)?;
    term.chunks.start = first;
    measure(footer, term);
    Ok(start - u64::from(footer.uncompressed_start(first) - base))
}

fn chunk_at(footer: &XorbFooter, term: &Term, offset: u64) -> Result<u32> {
    let base = footer.uncompressed_start(term.chunks.start);
    let offset = u32::try_from(offset).ok().and_then(|offset| base.checked_add(offset));
    let chunk = offset.and_then(|offset| footer.chunk_at(offset));
    chunk.ok_or_else(|| Error::internal("a term's byte is in no chunk of it"))
}

fn measure(footer: &XorbFooter, term: &mut Term) {
    term.length =
        footer.uncompressed_start(term.chunks.end) - footer.uncompressed_start(term.chunks.start);
}

#[cfg(test)]
mod tests;
