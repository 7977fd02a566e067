//! What a shard claims, held against the footers of xorbs: those say what was verified.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use ballast_format::hash::{ChunkHash, RangeHash, Sha256, XorbHash};
use ballast_format::hash_tree::FileHasher;
use ballast_format::limits::MAX_FILE_BYTES;
use ballast_format::manifest::{Manifest, Sample, Term};
use ballast_format::shard::{Segment, UploadFile, UploadShard, UploadXorb};
use ballast_format::xorb::XorbFooter;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::bounds::Bounds;
use crate::access::{Caller, Repo};
use crate::error::{Error, Result};
use crate::hub::Hub;
use crate::upload::dedup::Found;
use crate::upload::is_sample;
use crate::upload::scope::{Look, Reach};

/// Segments that are checked in one job.
const SEGMENTS_AT_ONCE: usize = 4096;
/// Chunks after which such a job ends, so that others come to theirs: a tenth of a second.
const CHUNKS_AT_ONCE: u64 = 1 << 20;
/// Xorbs whose footers are held at once while a file is checked: 4 GB of one cut as usual, and 20
/// MB of memory if they have as many chunks as they can.
const XORBS_AT_ONCE: usize = 64;
/// Xorbs that are looked up at the same time.
const LOOKED_UP_AT_ONCE: usize = 8;

/// The xorbs that segments name.
type Xorbs = HashMap<XorbHash, Found>;

impl Hub {
    /// What the shard says of the xorbs of this upload must be what we verified.
    pub(super) async fn check_xorbs(
        &self,
        caller: &Caller,
        repo: &Repo,
        shard: &UploadShard,
    ) -> Result<()> {
        let hashes: Vec<XorbHash> = shard.xorbs().map(|claim| claim.hash).collect();
        let found = stream::iter(hashes).map(|hash| self.usable(caller, repo, hash));
        let mut found = Box::pin(found.buffered(LOOKED_UP_AT_ONCE));
        for claim in shard.xorbs() {
            let Some(found) = found.try_next().await? else {
                break;
            };
            let footer = &found.footer;
            // A client describes what it sent itself, whole.
            if !found.reach.holds(&(0..footer.chunk_count())) {
                return Err(unknown(&claim.hash));
            }
            if !is_as_claimed(&claim, footer) {
                let reason = format!("the shard misstates the chunks of the xorb `{}`", claim.hash);
                return Err(Error::invalid(reason));
            }
        }
        Ok(())
    }

    /// The file's manifest, if all that the shard says of it is so. Its SHA-256 is still to be
    /// found.
    pub(super) async fn check_file(
        &self,
        caller: &Caller,
        repo: &Repo,
        file: &UploadFile<'_>,
        bounds: &Arc<Bounds>,
    ) -> Result<Manifest> {
        let hash = file.hash;
        let Some(proofs) = file.range_hashes() else {
            let reason = format!("the file `{hash}` has no verification entries");
            return Err(Error::invalid(reason));
        };
        let size = file.size();
        if size > MAX_FILE_BYTES {
            return Err(Error::TooLarge {
                what: format!("the file `{hash}`"),
                size,
                limit: MAX_FILE_BYTES,
            });
        }
        bounds.take_chunks(file.segments().map(|segment| segment.chunks.len() as u64).sum())?;
        let mut check = FileCheck::within(bounds);
        let mut claims = file.segments().zip(proofs);
        let mut xorbs = Xorbs::new();
        loop {
            let (mut run, mut named, mut chunks) = (Vec::new(), HashSet::new(), 0);
            while run.len() < SEGMENTS_AT_ONCE
                && named.len() < XORBS_AT_ONCE
                && chunks < CHUNKS_AT_ONCE
            {
                let Some(claim) = claims.next() else { break };
                chunks += claim.0.chunks.len() as u64;
                named.insert(claim.0.xorb);
                run.push(claim);
            }
            if run.is_empty() {
                break;
            }
            xorbs.retain(|xorb, _| named.contains(xorb));
            named.retain(|xorb| !xorbs.contains_key(xorb));
            self.find_all(caller, repo, named, &mut xorbs).await?;
            let checked = self.pool().run(move || Ok((check.run(&run, &xorbs)?, xorbs)));
            (check, xorbs) = checked.await?.map_err(|error: Error| error)?;
        }
        let actual = check.hasher.finish();
        if actual != hash {
            let reason = format!("the file `{hash}` has the hash `{actual}`");
            return Err(Error::invalid(reason));
        }
        let (terms, samples) = (check.terms, check.samples);
        Ok(Manifest::new(hash, Sha256::ZERO, size, terms, samples)?)
    }

    /// Finds these xorbs.
    async fn find_all(
        &self,
        caller: &Caller,
        repo: &Repo,
        named: HashSet<XorbHash>,
        xorbs: &mut Xorbs,
    ) -> Result<()> {
        let look_up = |xorb| async move {
            let found = self.usable(caller, repo, xorb).await?;
            Ok::<_, Error>((xorb, found))
        };
        let mut found = stream::iter(named).map(look_up).buffer_unordered(LOOKED_UP_AT_ONCE);
        while let Some((xorb, found)) = found.try_next().await? {
            xorbs.insert(xorb, found);
        }
        Ok(())
    }

    /// A xorb to which the caller may refer; otherwise it is unknown, right hashes or not.
    async fn usable(&self, caller: &Caller, repo: &Repo, xorb: XorbHash) -> Result<Found> {
        let now = self.env().now_ms();
        let look = Look::to_use(Some(repo.id()), now);
        if let Some(found) = self.find_xorb(caller, look, xorb).await? {
            return Ok(found);
        }
        // A copy that was condemned before its promise was seen stays, and is never offered again:
        // who holds the promise gets another one (Invariant 8).
        if self.reach(caller, look, &xorb).await? != Reach::Runs(Vec::new()) {
            let epoch = self.read_newest_condemned().await?;
            self.confirm_xorb(xorb, epoch).await?;
        }
        let found = self.find_xorb(caller, look, xorb).await?;
        found.ok_or_else(|| unknown(&xorb))
    }
}

fn unknown(xorb: &XorbHash) -> Error {
    Error::invalid(format!("the xorb `{xorb}` is unknown: upload it first"))
}

fn is_as_claimed(claim: &UploadXorb<'_>, footer: &XorbFooter) -> bool {
    claim.length == footer.total_length()
        && claim.chunk_count() == footer.chunk_count() as usize
        && (0..).zip(claim.chunks()).all(|(index, chunk)| {
            chunk.hash == footer.chunk_hash(index)
                && chunk.length == footer.chunk_length(index)
                && chunk.start == footer.uncompressed_start(index)
        })
}

/// A file while its segments are compared with the footers of their xorbs.
struct FileCheck {
    bounds: Arc<Bounds>,
    hasher: FileHasher,
    terms: Vec<Term>,
    samples: Vec<Sample>,
    /// The chunks in `samples`: one is enough of each.
    sampled: HashSet<ChunkHash>,
}

impl FileCheck {
    fn within(bounds: &Arc<Bounds>) -> Self {
        Self {
            bounds: Arc::clone(bounds),
            hasher: FileHasher::new(),
            terms: Vec::new(),
            samples: Vec::new(),
            sampled: HashSet::new(),
        }
    }

    fn run(mut self, segments: &[(Segment, RangeHash)], xorbs: &Xorbs) -> Result<Self> {
        for (segment, proof) in segments {
            let found = xorbs.get(&segment.xorb);
            let found = found.ok_or_else(|| Error::internal("a xorb was not looked up"))?;
            self.segment(segment, proof, found)?;
        }
        Ok(self)
    }

    fn segment(&mut self, segment: &Segment, proof: &RangeHash, found: &Found) -> Result<()> {
        let Segment { xorb, chunks, length } = segment.clone();
        let footer = &found.footer;
        if !found.reach.holds(&chunks) {
            return Err(unknown(&xorb));
        }
        if footer.uncompressed_length(chunks.clone())? != u64::from(length) {
            let reason = format!("a segment misstates its bytes of the xorb `{xorb}`");
            return Err(Error::invalid(reason));
        }
        if self.bounds.range_hash(footer, &chunks)? != *proof {
            let reason = format!("a segment's verification does not fit the xorb `{xorb}`");
            return Err(Error::invalid(reason));
        }
        let bounds = Arc::clone(&self.bounds);
        let marked = bounds.marked_in(&xorb);
        for index in chunks.clone() {
            let chunk = footer.chunk_hash(index);
            let is_first = self.terms.is_empty() && index == chunks.start;
            if is_first || is_sample(&chunk) || marked.binary_search(&index).is_ok() {
                self.sample(Sample { chunk, xorb, index }, is_first);
            }
            self.hasher.push(&chunk, u64::from(footer.chunk_length(index)));
        }
        self.terms.push(Term { xorb, chunks, length });
        Ok(())
    }

    /// Keeps a sample, unless it says nothing new or there are too many. A file's first always has
    /// a place: clients ask about it before all others.
    fn sample(&mut self, sample: Sample, is_first: bool) {
        if self.sampled.contains(&sample.chunk) || !is_first && !self.bounds.take_sample() {
            return;
        }
        self.sampled.insert(sample.chunk);
        self.samples.push(sample);
    }
}
