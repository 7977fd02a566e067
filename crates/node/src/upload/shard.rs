//! A shard comes in: every claim is compared with what was verified before, each new file's bytes
//! are hashed, and only then is anything registered. All or nothing.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use ballast_format::hash::{FileHash, RangeHash, Sha256, ShardHash, XorbHash};
use ballast_format::hash_tree::FileHasher;
use ballast_format::manifest::{Manifest, Sample, ShardDirectory, ShardObject, Term};
use ballast_format::shard::{Segment, UploadFile, UploadShard};
use ballast_format::xorb::{ChunkDecoder, XorbFooter};
use ballast_store::index::schema::{self, Scope, UploadRow};
use ballast_store::index::{Batch, Table};
use ballast_store::keyspace::{CopyKind, CopyName, Key};
use bytes::Bytes;
use sha2::Digest as _;

use super::{PROMISE_MS, rows};
use crate::access::{Caller, Repo};
use crate::error::{Error, Result};
use crate::hub::Hub;

/// Distinct xorbs whose footers are held at once while a file is checked.
const XORBS_AT_ONCE: usize = 256;
/// Serialized bytes that are read at once while a file is hashed.
const PIECE_BYTES: u64 = 1 << 20;
/// One chunk in so many answers dedup queries, besides each file's first.
const SAMPLE_EVERY: u64 = 1024;

/// What came of a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShardPut {
    /// Whether anything in it was new.
    pub stored: bool,
    /// The name of what was stored.
    pub hash: Option<ShardHash>,
}

type Footers = HashMap<XorbHash, (CopyName, Arc<XorbFooter>)>;

/// A file of which everything but the SHA-256 was checked.
struct Checked {
    file: FileHash,
    claimed: Option<Sha256>,
    size: u64,
    terms: Vec<Term>,
    samples: Vec<Sample>,
}

impl Hub {
    /// Takes in a shard. `progress` hears how many of how many files are done.
    pub async fn put_shard(
        self: &Arc<Self>,
        caller: &Caller,
        repo: &Repo,
        bytes: Bytes,
        progress: &(dyn Fn(u64, u64) + Send + Sync),
    ) -> Result<ShardPut> {
        tracing::debug!(repo = %repo.name(), bytes = bytes.len(), "a shard came in");
        let _slot = self.uploads.shard_slot().await?;
        let shard = Arc::new(self.pool().run(move || UploadShard::parse(bytes)).await??);
        self.check_xorbs(caller, &shard).await?;
        let mut manifests: Vec<Manifest> = Vec::new();
        let mut done: HashSet<FileHash> = HashSet::new();
        let total = shard.file_count() as u64;
        for (index, file) in shard.files().enumerate() {
            // Empty files are committed as they are; what a shard says of them means nothing.
            if file.segment_count() > 0 && done.insert(file.hash) {
                let checked = self.check_file(caller, &file).await?;
                if let Some(manifest) = self.hash_file(caller, checked).await? {
                    manifests.push(manifest);
                }
            }
            progress(index as u64 + 1, total);
        }
        if manifests.is_empty() {
            return Ok(ShardPut { stored: false, hash: None });
        }
        let hash = self.register(caller, manifests).await?;
        Ok(ShardPut { stored: true, hash: Some(hash) })
    }

    /// The xorb's copy and footer, if the caller may refer to it; otherwise it is unknown.
    async fn usable(&self, caller: &Caller, xorb: &XorbHash) -> Result<(CopyName, Arc<XorbFooter>)> {
        let unknown = || Error::invalid(format!("the xorb `{xorb}` is unknown: upload it first"));
        if !self.may_use_xorb(caller, xorb).await? {
            return Err(unknown());
        }
        let copy = self.xorb_copy(xorb).await?.ok_or_else(unknown)?;
        let footer = self.footer(&copy).await?;
        Ok((copy, footer))
    }

    /// What the shard says of the xorbs of this upload must be what we verified.
    async fn check_xorbs(&self, caller: &Caller, shard: &UploadShard) -> Result<()> {
        for xorb in shard.xorbs() {
            let (_, footer) = self.usable(caller, &xorb.hash).await?;
            let same = xorb.chunk_count() == footer.chunk_count() as usize
                && xorb.chunks().enumerate().all(|(index, chunk)| {
                    u32::try_from(index).is_ok_and(|index| {
                        chunk.hash == footer.chunk_hash(index)
                            && chunk.length == footer.chunk_length(index)
                    })
                });
            if !same {
                let reason = format!("the shard misstates the chunks of the xorb `{}`", xorb.hash);
                return Err(Error::invalid(reason));
            }
        }
        Ok(())
    }

    async fn check_file(&self, caller: &Caller, file: &UploadFile<'_>) -> Result<Checked> {
        let Some(proofs) = file.range_hashes() else {
            let reason = format!("the file `{}` has no verification entries", file.hash);
            return Err(Error::invalid(reason));
        };
        let mut check = FileCheck::default();
        let mut footers = Footers::new();
        let mut run: Vec<(Segment, RangeHash)> = Vec::new();
        for (segment, proof) in file.segments().zip(proofs) {
            if !footers.contains_key(&segment.xorb) {
                if footers.len() == XORBS_AT_ONCE {
                    let (ready, held) = (std::mem::take(&mut run), std::mem::take(&mut footers));
                    check = self.pool().run(move || check.run(&ready, &held)).await??;
                }
                let usable = self.usable(caller, &segment.xorb).await?;
                footers.insert(segment.xorb, usable);
            }
            run.push((segment, proof));
        }
        check = self.pool().run(move || check.run(&run, &footers)).await??;
        let (claimed, hash) = (file.sha256, file.hash);
        let actual = check.hasher.finish();
        if actual != hash {
            let reason = format!("the file `{hash}` has the hash `{actual}`");
            return Err(Error::invalid(reason));
        }
        let (size, terms, samples) = (check.size, check.terms, check.samples);
        Ok(Checked { file: hash, claimed, size, terms, samples })
    }

    /// The file's manifest with the SHA-256 of its bytes; nothing if the caller has registered
    /// this file before.
    async fn hash_file(
        self: &Arc<Self>,
        caller: &Caller,
        checked: Checked,
    ) -> Result<Option<Manifest>> {
        let Checked { file, claimed, size, terms, samples } = checked;
        let sha256 = match self.manifest_row(&file).await? {
            Some(row) => row.sha256,
            None => self.sha256_of(&terms).await?,
        };
        if claimed.is_some_and(|claimed| claimed != sha256) {
            let reason = format!("the file `{file}` does not have the SHA-256 that the shard says");
            return Err(Error::invalid(reason));
        }
        let key = schema::upload_key(&caller.user()?.user, &sha256);
        if let Some(row) = self.index().get(Table::Upload, &key).await? {
            let row = UploadRow::decode(&row)?;
            // Registered anew in time, so that the promise never runs out under an upload.
            let is_recent = row.time_ms + PROMISE_MS / 2 > self.env().now_ms();
            if row.file == file && is_recent {
                return Ok(None);
            }
        }
        Ok(Some(Manifest::new(file, sha256, size, terms, samples)?))
    }

    /// Stores manifests as one object; when this returns, their files are found.
    pub(super) async fn register(
        &self,
        caller: &Caller,
        manifests: Vec<Manifest>,
    ) -> Result<ShardHash> {
        let (uploader, time_ms) = (caller.user()?.user, self.env().now_ms());
        let object = ShardObject { uploader, time_ms, manifests };
        let (object, bytes, hash, places) = self
            .pool()
            .run(move || {
                let (bytes, hash, places) = object.encode()?;
                Ok::<_, ballast_format::Error>((object, bytes, hash, places))
            })
            .await??;
        let epoch = self.store().epoch().await?;
        let copy = self.store().new_copy(CopyKind::Shard, *hash.as_bytes(), epoch);
        let mut writer = self.store().writer(&Key::Copy(copy))?;
        writer.write(Bytes::from(bytes)).await?;
        writer.finish().await?;
        let directory = ShardDirectory { uploader, time_ms, places };
        let mut batch = Batch::new();
        for (manifest, place) in object.manifests.iter().zip(&directory.places) {
            rows::of_upload(&mut batch, &copy, &directory, place);
            let until = time_ms + PROMISE_MS;
            rows::of_samples(&mut batch, manifest, &Scope::User(uploader), until);
        }
        self.index().apply(batch).await?;
        Ok(hash)
    }

    /// Reads the bytes that the terms make, and hashes them.
    async fn sha256_of(self: &Arc<Self>, terms: &[Term]) -> Result<Sha256> {
        let mut state = Some((sha2::Sha256::new(), ChunkDecoder::new()));
        let mut last: Option<(CopyName, Range<u64>, Bytes)> = None;
        for term in terms {
            let copy = self.needed_copy(&term.xorb).await?;
            let footer = self.footer(&copy).await?;
            let sound = self.sound(&copy, &footer);
            let mut first = term.chunks.start;
            while first < term.chunks.end {
                let end = run_end(&footer, first, term.chunks.end);
                let range = footer.byte_range(first..end)?;
                // Files of zeros repeat one run over and over.
                let kept = last.as_ref().filter(|(of, at, _)| *of == copy && *at == range);
                let bytes = match kept {
                    Some((.., bytes)) => bytes.clone(),
                    None => self.store().get_range(&Key::Copy(copy), range.clone()).await?,
                };
                let verify = !sound.has(first..end);
                last = Some((copy, range, bytes.clone()));
                let footer = Arc::clone(&footer);
                let (mut sha256, mut decoder) = state.take().unwrap_or_default();
                let hashed = self
                    .pool()
                    .run(move || {
                        decoder.decode_chunks(&bytes, &footer, first..end, verify, |chunk| {
                            sha256.update(chunk);
                            Ok(())
                        })?;
                        Ok::<_, ballast_format::Error>((sha256, decoder))
                    })
                    .await?;
                let damaged = |error| Error::corrupt(format!("`{}`: {error}", Key::Copy(copy)));
                state = Some(hashed.map_err(damaged)?);
                sound.add(first..end);
                first = end;
            }
        }
        let (sha256, _) = state.unwrap_or_default();
        Ok(Sha256::from_bytes(sha256.finalize().into()))
    }
}

/// The end of a run of about [`PIECE_BYTES`] that begins with this chunk.
fn run_end(footer: &XorbFooter, first: u32, limit: u32) -> u32 {
    let (mut end, mut bytes) = (first, 0);
    while end < limit {
        bytes += u64::from(footer.serialized_chunk_length(end));
        if end > first && bytes > PIECE_BYTES {
            break;
        }
        end += 1;
    }
    end
}

/// A file while its segments are compared with the footers of their xorbs.
#[derive(Default)]
struct FileCheck {
    hasher: FileHasher,
    size: u64,
    terms: Vec<Term>,
    samples: Vec<Sample>,
}

impl FileCheck {
    fn run(mut self, segments: &[(Segment, RangeHash)], footers: &Footers) -> Result<Self> {
        for (segment, proof) in segments {
            let (_, footer) = footers
                .get(&segment.xorb)
                .ok_or_else(|| Error::internal("a footer was not loaded"))?;
            self.segment(segment, proof, footer)?;
        }
        Ok(self)
    }

    fn segment(&mut self, segment: &Segment, proof: &RangeHash, footer: &XorbFooter) -> Result<()> {
        let Segment { xorb, chunks, length } = segment.clone();
        if footer.uncompressed_length(chunks.clone())? != u64::from(length) {
            let reason = format!("a segment misstates its bytes of the xorb `{xorb}`");
            return Err(Error::invalid(reason));
        }
        if footer.range_hash(chunks.clone())? != *proof {
            let reason = format!("a segment's verification does not fit the xorb `{xorb}`");
            return Err(Error::invalid(reason));
        }
        for index in chunks.clone() {
            let chunk = footer.chunk_hash(index);
            let is_first = self.terms.is_empty() && index == chunks.start;
            if is_first || chunk.modulo(SAMPLE_EVERY) == 0 {
                self.samples.push(Sample { chunk, xorb, index });
            }
            self.hasher.push(&chunk, u64::from(footer.chunk_length(index)));
        }
        self.size += u64::from(length);
        self.terms.push(Term { xorb, chunks, length });
        Ok(())
    }
}
