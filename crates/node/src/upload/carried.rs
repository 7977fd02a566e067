//! Large files that were carried here: their chunks are stored already, and what was said of them
//! is compared with these, as with a shard that a client sends.

use std::ops::Range;
use std::sync::Arc;

use ballast_format::hash::{FileHash, Sha256, XorbHash};
use ballast_format::hash_tree::FileHasher;
use ballast_format::manifest::{Manifest, ManifestId, Sample, Term};
use ballast_format::pack::FileLink;
use ballast_store::index::schema::UploadRow;

use super::{PROMISE_MS, is_sample};
use crate::access::Caller;
use crate::error::{Error, Result};
use crate::hub::Hub;

/// A run of chunks of a xorb.
pub type ChunkRun = (XorbHash, Range<u32>);

/// A file, and what it is said to be made of.
#[derive(Clone, Debug)]
pub struct TakenFile {
    /// Its SHA-256.
    pub sha256: Sha256,
    /// The hash of its content.
    pub file: FileHash,
    /// Its size in bytes; not 0.
    pub size: u64,
    /// Its chunks, in order, in xorbs that are stored.
    pub runs: Vec<ChunkRun>,
}

/// Where chunks of a file are, counted from its first; nothing if it does not have so many.
pub(crate) fn runs_of(manifest: &Manifest, chunks: Range<u64>) -> Option<Vec<ChunkRun>> {
    let (mut runs, mut start) = (Vec::new(), 0);
    for term in &manifest.terms {
        let end = start + u64::from(term.chunks.end - term.chunks.start);
        let (from, to) = (chunks.start.max(start), chunks.end.min(end));
        if from < to {
            let at = |chunk: u64| {
                let inside = u32::try_from(chunk - start);
                inside.map_or(term.chunks.end, |inside| term.chunks.start + inside)
            };
            runs.push((term.xorb, at(from)..at(to)));
        }
        start = end;
    }
    (chunks.end <= start).then_some(runs)
}

impl Hub {
    /// Where chunks of a file are, counted from its first; nothing if the hub has no such file.
    pub async fn runs_of_file(
        &self,
        file: &FileHash,
        chunks: Range<u64>,
    ) -> Result<Option<Vec<ChunkRun>>> {
        let Some(row) = self.any_manifest_row(file).await? else { return Ok(None) };
        let id = ManifestId {
            file: *file,
            shard: ballast_format::hash::ShardHash::from_bytes(row.shard.hash),
        };
        Ok(self.manifest(&id).await?.and_then(|manifest| runs_of(&manifest, chunks)))
    }

    /// What the caller was given lately with this content and still may commit.
    pub async fn taken_file(&self, caller: &Caller, file: &TakenFile) -> Result<Option<FileLink>> {
        let Some(row) = self.recent_upload(caller, &file.sha256).await? else { return Ok(None) };
        let is_fresh = row.time_ms + PROMISE_MS / 2 > self.env().now_ms();
        let UploadRow { manifest, size, .. } = row;
        let link =
            FileLink { sha256: file.sha256, file: manifest.file, shard: manifest.shard, size };
        let is_it = manifest.file == file.file && is_fresh && self.is_whole(&link).await?;
        Ok((is_it && self.manifest(&manifest).await?.is_some()).then_some(link))
    }

    /// Hashes files that are made of stored chunks, and registers them as the caller's. All of them
    /// are what they are said to be, or none is registered.
    pub async fn take_carried(
        self: &Arc<Self>,
        caller: &Caller,
        files: &[TakenFile],
    ) -> Result<Vec<FileLink>> {
        let mut manifests = Vec::with_capacity(files.len());
        for file in files {
            manifests.push(self.prove_carried(file).await?);
        }
        if manifests.is_empty() {
            return Ok(Vec::new());
        }
        let shard = self.register(caller, manifests).await?;
        let link = |file: &TakenFile| {
            let TakenFile { sha256, file, size, .. } = *file;
            FileLink { sha256, file, shard, size }
        };
        Ok(files.iter().map(link).collect())
    }

    /// Makes sure that what a repo of another region links is what it is said to be: every chunk
    /// of it is here, and together they make this file.
    pub async fn prove_link(self: &Arc<Self>, link: &FileLink) -> Result<()> {
        let manifest = self.needed_manifest(&link.manifest()).await?;
        let mut hasher = FileHasher::new();
        for Term { xorb, chunks, .. } in &manifest.terms {
            let (_, footer) = self.needed_xorb(xorb).await?;
            footer.uncompressed_length(chunks.clone())?;
            for index in chunks.clone() {
                hasher.push(&footer.chunk_hash(index), u64::from(footer.chunk_length(index)));
            }
        }
        if hasher.finish() != link.file || manifest.size != link.size {
            let reason = format!("the chunks of the file `{}` make another one", link.file);
            return Err(Error::invalid(reason));
        }
        let mut slot = self.uploads.shard_slot().await?;
        let sha256 = self.sha256_of(&manifest, &mut slot).await?;
        if sha256 != link.sha256 {
            let (file, said) = (link.file, link.sha256);
            let reason = format!("the file `{file}` has the SHA-256 `{sha256}`, not `{said}`");
            return Err(Error::invalid(reason));
        }
        Ok(())
    }

    async fn prove_carried(self: &Arc<Self>, file: &TakenFile) -> Result<Manifest> {
        let mut hasher = FileHasher::new();
        let (mut terms, mut samples) = (Vec::new(), Vec::new());
        for (xorb, chunks) in &file.runs {
            if self.present_copy(xorb).await?.is_none() {
                return Err(Error::invalid(format!("the xorb `{xorb}` is not here")));
            }
            let (_, footer) = self.needed_xorb(xorb).await?;
            let length = footer.uncompressed_length(chunks.clone())?;
            for index in chunks.clone() {
                let chunk = footer.chunk_hash(index);
                if samples.is_empty() || is_sample(&chunk) {
                    samples.push(Sample { chunk, xorb: *xorb, index });
                }
                hasher.push(&chunk, u64::from(footer.chunk_length(index)));
            }
            let length = u32::try_from(length).map_err(|_| Error::internal("a term is long"))?;
            terms.push(Term { xorb: *xorb, chunks: chunks.clone(), length });
        }
        if hasher.finish() != file.file {
            let reason = format!("the chunks of the file `{}` make another one", file.file);
            return Err(Error::invalid(reason));
        }
        let manifest = Manifest::new(file.file, Sha256::ZERO, file.size, terms, samples)?;
        let manifest = Arc::new(manifest);
        let mut slot = self.uploads.shard_slot().await?;
        let sha256 = self.sha256_of(&manifest, &mut slot).await?;
        if sha256 != file.sha256 {
            let reason = format!("the file `{}` has the SHA-256 `{sha256}`", file.file);
            return Err(Error::invalid(reason));
        }
        let mut manifest = Arc::unwrap_or_clone(manifest);
        manifest.sha256 = sha256;
        Ok(manifest)
    }
}
