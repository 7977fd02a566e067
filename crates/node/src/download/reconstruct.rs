//! Which ranges of which xorbs make a file, or a part of it.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use ballast_format::hash::{FileHash, XorbHash};
use ballast_format::limits::MAX_MANIFEST_BYTES;
use ballast_format::manifest::{Manifest, Term};
use ballast_format::range::RangeRequest;
use ballast_store::index::Table;
use ballast_store::index::schema::{self, ManifestRow};
use ballast_store::keyspace::{CopyName, Key};

use crate::access::Repo;
use crate::error::{Error, Result};
use crate::hub::Hub;

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
    /// A file's manifest.
    pub(crate) async fn manifest(&self, file: &FileHash) -> Result<Option<Arc<Manifest>>> {
        if let Some(manifest) = self.caches.manifests.get(file) {
            return Ok(Some(manifest));
        }
        let Some(row) = self.manifest_row(file).await? else { return Ok(None) };
        let key = Key::Copy(row.shard);
        let range = row.offset..row.offset + u64::from(row.length);
        if row.length as usize > MAX_MANIFEST_BYTES {
            return Err(Error::corrupt(format!("`{key}` has a manifest that is too long")));
        }
        let bytes = self.store().get_range(&key, range).await?;
        let manifest = self.pool().run(move || Manifest::decode(&bytes)).await?;
        let manifest = manifest.map_err(|error| Error::corrupt(format!("`{key}`: {error}")))?;
        if manifest.file != *file {
            return Err(Error::corrupt(format!("`{key}` has another file's manifest")));
        }
        let manifest = Arc::new(manifest);
        self.caches.manifests.insert(*file, Arc::clone(&manifest));
        Ok(Some(manifest))
    }

    /// Where a file's manifest is.
    pub(crate) async fn manifest_row(&self, file: &FileHash) -> Result<Option<ManifestRow>> {
        let row = self.index().get(Table::Manifest, &schema::manifest_key(file)).await?;
        Ok(row.map(|row| ManifestRow::decode(&row)).transpose()?)
    }

    /// The manifest of a file that something stored refers to.
    pub(crate) async fn needed_manifest(&self, file: &FileHash) -> Result<Arc<Manifest>> {
        let manifest = self.manifest(file).await?;
        manifest.ok_or_else(|| Error::corrupt(format!("the manifest of `{file}` is missing")))
    }

    /// How to make a file of this repo, or the part that the range asks for. A file that the repo
    /// does not hold is not there, whoever else has it.
    pub async fn reconstruct(
        &self,
        repo: &Repo,
        file: FileHash,
        range: Option<&RangeRequest>,
    ) -> Result<Reconstruction> {
        let missing = || Error::NotFound { what: format!("the file `{file}`") };
        let key = schema::file_repo_key(&file, &repo.id());
        self.index().get(Table::FileRepo, &key).await?.ok_or_else(missing)?;
        let manifest = self.manifest(&file).await?.ok_or_else(missing)?;
        let range = match range {
            None => 0..manifest.size,
            Some(range) => range
                .resolve(manifest.size)
                .map_err(|past| Error::Unsatisfiable { size: past.size })?,
        };
        self.reconstruct_range(&manifest, range).await
    }

    /// How to make these bytes of a file.
    pub(crate) async fn reconstruct_range(
        &self,
        manifest: &Manifest,
        range: Range<u64>,
    ) -> Result<Reconstruction> {
        let Some(first) = manifest.find(range.start).filter(|_| !range.is_empty()) else {
            return Ok(Reconstruction::default());
        };
        let last = manifest.find(range.end - 1).unwrap_or(manifest.terms.len() - 1);
        let mut copies: HashMap<XorbHash, CopyName> = HashMap::new();
        let mut wanted: Vec<(CopyName, XorbHash, Range<u32>)> = Vec::new();
        let mut terms = Vec::with_capacity(last - first + 1);
        let mut skipped = 0;
        for index in first..=last {
            let mut term = manifest.terms[index].clone();
            let copy = match copies.get(&term.xorb) {
                Some(copy) => *copy,
                None => {
                    let copy = self.needed_copy(&term.xorb).await?;
                    copies.insert(term.xorb, copy);
                    copy
                }
            };
            if index == first || index == last {
                let start = manifest.start_of(index);
                let footer = self.footer(&copy).await?;
                let inside = range.start.max(start)..range.end.min(start + u64::from(term.length));
                let trimmed = trim(&footer, &term, start, &inside)?;
                if index == first {
                    skipped = inside.start - trimmed.1;
                }
                term = trimmed.0;
            }
            wanted.push((copy, term.xorb, term.chunks.clone()));
            terms.push(term);
        }
        let fetches = self.merge(wanted).await?;
        Ok(Reconstruction { offset_into_first_range: skipped, terms, fetches })
    }

    /// One fetch for all ranges of a copy that overlap or touch.
    async fn merge(&self, mut wanted: Vec<(CopyName, XorbHash, Range<u32>)>) -> Result<Vec<Fetch>> {
        wanted.sort_by_key(|(copy, _, chunks)| (*copy, chunks.start, chunks.end));
        wanted.dedup();
        let mut fetches: Vec<Fetch> = Vec::new();
        for (copy, xorb, chunks) in wanted {
            match fetches.last_mut() {
                Some(last) if last.copy == copy && last.chunks.end >= chunks.start => {
                    last.chunks.end = last.chunks.end.max(chunks.end);
                }
                _ => fetches.push(Fetch { xorb, copy, chunks, bytes: 0..0 }),
            }
        }
        for fetch in &mut fetches {
            let footer = self.footer(&fetch.copy).await?;
            let range = footer.byte_range(fetch.chunks.clone());
            fetch.bytes = range.map_err(|error| {
                Error::corrupt(format!("a manifest names chunks of `{}`: {error}", fetch.xorb))
            })?;
        }
        Ok(fetches)
    }
}

/// The chunks of a term that hold these bytes of the file, and where the first of them starts.
fn trim(
    footer: &ballast_format::xorb::XorbFooter,
    term: &Term,
    start: u64,
    inside: &Range<u64>,
) -> Result<(Term, u64)> {
    let whole = footer.uncompressed_length(term.chunks.clone());
    if !whole.is_ok_and(|length| length == u64::from(term.length)) {
        let reason = format!("a manifest and the xorb `{}` do not agree", term.xorb);
        return Err(Error::corrupt(reason));
    }
    let (mut chunks, mut from) = (term.chunks.clone(), start);
    while from + u64::from(footer.chunk_length(chunks.start)) <= inside.start {
        from += u64::from(footer.chunk_length(chunks.start));
        chunks.start += 1;
    }
    let mut to = start + u64::from(term.length);
    while to - u64::from(footer.chunk_length(chunks.end - 1)) >= inside.end {
        to -= u64::from(footer.chunk_length(chunks.end - 1));
        chunks.end -= 1;
    }
    let length = u32::try_from(to - from).map_err(|_| Error::internal("a term over 4 GiB"))?;
    Ok((Term { xorb: term.xorb, chunks, length }, from))
}
