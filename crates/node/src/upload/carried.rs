//! Large files that were carried here: their chunks are stored already, and what was said of them
//! is compared with these, as with a shard that a client sends.

use std::ops::Range;
use std::sync::Arc;

use ballast_format::hash::{FileHash, Sha256, ShardHash, XorbHash};
use ballast_format::hash_tree::FileHasher;
use ballast_format::manifest::{Manifest, ManifestId, Sample, Term};
use ballast_format::pack::FileLink;
use ballast_store::index::schema::UploadRow;
use sha2::Digest as _;

use super::{PROMISE_MS, is_sample};
use crate::access::Caller;
use crate::error::{Error, Result};
use crate::hub::Hub;

/// A run of chunks of a xorb.
pub type ChunkRun = (XorbHash, Range<u32>);

/// What a file that comes is said to be.
#[derive(Clone, Copy, Debug)]
pub struct TakenFile {
    /// Its SHA-256.
    pub sha256: Sha256,
    /// The hash of its content.
    pub file: FileHash,
    /// Its size in bytes; not 0.
    pub size: u64,
}

/// The beginning of a file, hashed as far as its chunks have come.
#[derive(Debug, Default)]
pub struct Proof {
    chunks: FileHasher,
    sha256: sha2::Sha256,
    terms: Vec<Term>,
    samples: Vec<Sample>,
}

/// A file whose chunks are stored, and make what it was said to be.
#[derive(Debug)]
pub struct ProvedFile(Manifest);

impl Proof {
    /// Hashes the chunks that come next; they are stored. It takes its time, so as many as there
    /// are should be handed over at once.
    pub async fn go_on(mut self, hub: &Arc<Hub>, runs: &[ChunkRun]) -> Result<Self> {
        let mut terms = Vec::with_capacity(runs.len());
        for (xorb, chunks) in runs {
            if hub.present_copy(xorb).await?.is_none() {
                return Err(Error::invalid(format!("the xorb `{xorb}` is not here")));
            }
            let (_, footer) = hub.needed_xorb(xorb).await?;
            let length = footer.uncompressed_length(chunks.clone())?;
            for index in chunks.clone() {
                let chunk = footer.chunk_hash(index);
                if self.samples.is_empty() || is_sample(&chunk) {
                    self.samples.push(Sample { chunk, xorb: *xorb, index });
                }
                self.chunks.push(&chunk, u64::from(footer.chunk_length(index)));
            }
            let length = u32::try_from(length).map_err(|_| Error::internal("a term is long"))?;
            terms.push(Term { xorb: *xorb, chunks: chunks.clone(), length });
        }
        let mut slot = hub.uploads.shard_slot().await?;
        self.sha256 = hub.hash_terms(self.sha256, terms.as_slice().into(), &mut slot).await?;
        self.terms.append(&mut terms);
        Ok(self)
    }

    /// All of it has come: whether it is what it was said to be.
    pub fn finish(self, file: &TakenFile) -> Result<ProvedFile> {
        let TakenFile { sha256: said, file, size } = *file;
        if self.chunks.finish() != file {
            let reason = format!("the chunks of the file `{file}` make another one");
            return Err(Error::invalid(reason));
        }
        let sha256 = Sha256::from_bytes(self.sha256.finalize().into());
        if sha256 != said {
            let reason = format!("the file `{file}` has the SHA-256 `{sha256}`, not `{said}`");
            return Err(Error::invalid(reason));
        }
        Ok(ProvedFile(Manifest::new(file, sha256, size, self.terms, self.samples)?))
    }
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
        let id = ManifestId { file: *file, shard: ShardHash::from_bytes(row.shard.hash) };
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

    /// Registers files as the caller's, all at once.
    pub async fn take_proved(
        &self,
        caller: &Caller,
        files: Vec<ProvedFile>,
    ) -> Result<Vec<FileLink>> {
        if files.is_empty() {
            return Ok(Vec::new());
        }
        let manifests: Vec<Manifest> = files.into_iter().map(|file| file.0).collect();
        let about = |manifest: &Manifest| (manifest.sha256, manifest.file, manifest.size);
        let about: Vec<_> = manifests.iter().map(about).collect();
        let shard = self.register(caller, manifests).await?;
        let link = |(sha256, file, size)| FileLink { sha256, file, shard, size };
        Ok(about.into_iter().map(link).collect())
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
}

#[cfg(test)]
mod tests {
    use ballast_format::hash_tree::file_hash;
    use ballast_testkit::content::{bf16_weights, splitmix};
    use sha2::Digest as _;

    use super::*;
    use crate::rig::Rig;
    use crate::upload::tests::client::{Xorb, put_xorb};

    #[tokio::test]
    async fn a_file_that_is_hashed_as_it_comes_is_what_it_is_said_to_be_or_none() -> Result<()> {
        let rig = Rig::start().await;
        let contents = [splitmix(1, 2_500_000), bf16_weights(2, 1_500_000)];
        let xorbs = contents.each_ref().map(|content| Xorb::of(&[content]));
        let mut chunks = Vec::new();
        for xorb in &xorbs {
            let footer = &xorb.footer;
            let of = |at| (footer.chunk_hash(at), u64::from(footer.chunk_length(at)));
            chunks.extend((0..footer.chunk_count()).map(of));
        }
        let taken = TakenFile {
            sha256: Sha256::from_bytes(sha2::Sha256::digest(contents.concat()).into()),
            file: file_hash(chunks),
            size: 4_000_000,
        };
        let run = |at: usize, chunks| (xorbs[at].hash(), chunks);
        let end = |at: usize| xorbs[at].footer.chunk_count();
        let mut proof = Proof::default();
        let early = Proof::default().go_on(&rig.hub, &[run(0, 0..1)]).await;
        assert!(early.is_err(), "it has not come yet");
        put_xorb(&rig.hub, &rig.admin, &xorbs[0]).await?;
        proof = proof.go_on(&rig.hub, &[run(0, 0..3), run(0, 3..end(0))]).await?;
        put_xorb(&rig.hub, &rig.admin, &xorbs[1]).await?;
        proof = proof.go_on(&rig.hub, &[]).await?;
        proof = proof.go_on(&rig.hub, &[run(1, 0..end(1))]).await?;

        let whole = [run(0, 0..end(0)), run(1, 0..end(1))];
        let other = TakenFile { sha256: Sha256::from_bytes([7; 32]), ..taken };
        let again = Proof::default().go_on(&rig.hub, &whole).await?;
        assert!(again.finish(&other).is_err(), "its SHA-256 is another one");
        let turned = [run(1, 0..end(1)), run(0, 0..end(0))];
        let turned = Proof::default().go_on(&rig.hub, &turned).await?;
        assert!(turned.finish(&taken).is_err(), "its chunks are in another order");

        assert!(rig.hub.taken_file(&rig.admin, &taken).await?.is_none());
        let links = rig.hub.take_proved(&rig.admin, vec![proof.finish(&taken)?]).await?;
        assert_eq!(rig.hub.taken_file(&rig.admin, &taken).await?, links.first().copied());
        Ok(())
    }
}
