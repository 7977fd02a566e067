//! Xorbs in which little is alive: what is alive moves into new ones.
//!
//! A xorb goes when no chunk of it is needed, so a single chunk can keep 64 MiB. Chunks that are
//! needed move into new xorbs, each file that they belong to gets a new manifest, and each repo
//! that reads the file by the old one gets an entry with a new link. That is an append like any
//! other, with the check of what it newly names. The old manifest and the old xorbs are garbage
//! then, and go as all garbage does, long after the last download that may know them.
//!
//! A crash leaves xorbs that nothing refers to, or repos of which some read by the new manifest and
//! some by the old: both are right. Who reads the content finds the same bytes under the same names
//! all the time.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use ballast_format::hash::{FileHash, Sha256, ShardHash, XorbHash};
use ballast_format::id::{RepoId, UserId};
use ballast_format::manifest::{Manifest, ManifestId, Sample, Term};
use ballast_format::pack::{FileLink, PackBuilder};
use ballast_store::index::Table;
use ballast_store::index::schema::{self, FileRow};
use ballast_store::keyspace::{CopyKind, CopyName};

use super::mark::Marked;
use crate::error::{Error, Result};
use crate::hub::Hub;
use crate::upload::repack::{Moved, Repacker};

/// Bytes of chunks that are moved at once, uncompressed.
pub(super) const MOST_REWRITTEN: u64 = 1 << 30;
/// For so long clients remember what they were told of chunks. A new index knows what a repo's
/// files were made of while the old manifests are there, so these must stay as long.
pub(crate) const REMEMBERED: Duration = Duration::from_hours(72);
/// Smaller ones are not worth it.
const LEAST_BYTES: u64 = 64 * 1024;
/// Files that one xorb may belong to: it stays as it is if there are more.
const MOST_USERS: usize = 1000;
/// Manifests that one shard object holds, and about how many bytes they may have in all.
const MANIFESTS: usize = 100;
const MANIFEST_BYTES: usize = 8 << 20;
/// Manifests that are rewritten hold so many terms at most, and stay in memory until the end.
const MOST_TERMS: usize = 1_000_000;
/// Links that one entry replaces.
const LINKS: usize = 1000;
/// Nobody: who uploads what the hub itself makes.
const NOBODY: UserId = UserId::from_bytes([0; 16]);

/// A xorb in which little is alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thin {
    /// The xorb.
    pub xorb: XorbHash,
    /// Bytes of chunks that files are made of, uncompressed; no more than these.
    pub live: u64,
    /// The size of its copy.
    pub bytes: u64,
}

impl Thin {
    /// A copy's xorb, if at most so many hundredths of it are alive.
    pub(super) fn of(copy: &CopyName, bytes: u64, hundredths: u8, marked: &Marked) -> Option<Self> {
        let xorb = XorbHash::from_bytes(copy.hash);
        let live = marked.live(&xorb).filter(|_| copy.kind == CopyKind::Xorb)?;
        // Chunks are no shorter than they are stored.
        let is_thin =
            hundredths > 0 && live.saturating_mul(100) <= bytes.saturating_mul(hundredths.into());
        (is_thin && bytes >= LEAST_BYTES).then_some(Self { xorb, live, bytes })
    }
}

/// The files that are made of some xorbs.
#[derive(Default)]
struct Users {
    manifests: HashMap<ManifestId, Arc<Manifest>>,
    /// Who reads by which.
    links: BTreeMap<RepoId, BTreeMap<Sha256, ManifestId>>,
    terms: usize,
}

impl Hub {
    /// Moves what is alive out of these xorbs; how many files are made of others now.
    pub(super) async fn rewrite(self: &Arc<Self>, thin: &[Thin]) -> Result<u64> {
        // The index says who is made of what. Without all of it nothing would become free.
        if thin.is_empty() || !self.index().is_whole() {
            return Ok(0);
        }
        let mut users = Users::default();
        let mut xorbs = BTreeSet::new();
        for Thin { xorb, .. } in thin {
            if users.terms < MOST_TERMS && self.find_users(*xorb, &mut users).await? {
                xorbs.insert(*xorb);
            }
        }
        if users.manifests.is_empty() {
            return Ok(0);
        }
        let moved = self.repack(&xorbs, &users).await?;
        let mut changed = HashMap::new();
        for (id, manifest) in &users.manifests {
            if let Some(manifest) = relocated(manifest, &xorbs, &moved)? {
                changed.insert(*id, manifest);
            }
        }
        let shards = self.store_manifests(changed).await?;
        let mut files = 0;
        for (repo, links) in users.links {
            files += self.replace_links(repo, &links, &shards).await?;
        }
        Ok(files)
    }

    /// Adds the files that are made of a xorb; whether these are all.
    async fn find_users(&self, xorb: XorbHash, users: &mut Users) -> Result<bool> {
        let prefix = schema::xorb_repos_prefix(&xorb);
        let rows = self.index().scan(Table::XorbScope, &prefix, None, MOST_USERS + 1).await?;
        if rows.len() > MOST_USERS {
            return Ok(false);
        }
        for (key, _) in rows {
            let (repo, file) = schema::xorb_file_of(&key)?;
            // The index keeps rows of repos that were deleted.
            if self.catalogue.read(|catalogue| catalogue.by_id(&repo)).is_none() {
                continue;
            }
            let Some((sha256, id)) = self.user(repo, &file).await? else { continue };
            if !users.manifests.contains_key(&id) {
                let Some(manifest) = self.manifest(&id).await? else { continue };
                users.terms += manifest.terms.len();
                users.manifests.insert(id, manifest);
            }
            users.links.entry(repo).or_default().insert(sha256, id);
        }
        Ok(true)
    }

    /// By which manifest a repo reads a file now.
    async fn user(&self, repo: RepoId, file: &FileHash) -> Result<Option<(Sha256, ManifestId)>> {
        let key = schema::file_repo_key(file, &repo);
        let Some(row) = self.index().get(Table::FileRepo, &key).await? else { return Ok(None) };
        let sha256 = schema::read_sha256(&row)?;
        let key = schema::file_key(&repo, &sha256);
        let row = self.index().get(Table::File, &key).await?;
        Ok(row.map(|row| FileRow::decode(&row)).transpose()?.map(|row| (sha256, row.manifest)))
    }

    /// Moves those chunks of the xorbs that the files are made of.
    async fn repack(self: &Arc<Self>, xorbs: &BTreeSet<XorbHash>, users: &Users) -> Result<Moved> {
        let mut runs: BTreeSet<(XorbHash, u32, u32)> = BTreeSet::new();
        let terms = users.manifests.values().flat_map(|manifest| &manifest.terms);
        for term in terms.filter(|term| xorbs.contains(&term.xorb)) {
            runs.insert((term.xorb, term.chunks.start, term.chunks.end));
        }
        let mut repacker = Repacker::new(self, self.settings().gc.pace());
        for (xorb, start, end) in disjoint(runs) {
            repacker = repacker.take(xorb, (start, end)).await?;
        }
        repacker.finish().await
    }

    /// Stores manifests; the shard object of each.
    async fn store_manifests(
        &self,
        changed: HashMap<ManifestId, Manifest>,
    ) -> Result<HashMap<ManifestId, ShardHash>> {
        let mut shards = HashMap::with_capacity(changed.len());
        let mut changed = changed.into_iter().peekable();
        while changed.peek().is_some() {
            let (mut ids, mut manifests, mut bytes) = (Vec::new(), Vec::new(), 0);
            while manifests.len() < MANIFESTS
                && bytes < MANIFEST_BYTES
                && let Some((id, manifest)) = changed.next()
            {
                bytes += manifest.memory_bytes();
                ids.push(id);
                manifests.push(manifest);
            }
            let shard = self.register_as(NOBODY, manifests).await?;
            shards.extend(ids.into_iter().map(|id| (id, shard)));
        }
        Ok(shards)
    }

    /// Lets a repo read its files by new manifests; how many.
    async fn replace_links(
        &self,
        repo: RepoId,
        links: &BTreeMap<Sha256, ManifestId>,
        shards: &HashMap<ManifestId, ShardHash>,
    ) -> Result<u64> {
        let mut new = Vec::new();
        for (sha256, id) in links {
            let row = self.index().get(Table::File, &schema::file_key(&repo, sha256)).await?;
            let Some(FileRow { manifest, size }) =
                row.map(|row| FileRow::decode(&row)).transpose()?
            else {
                continue;
            };
            // Another process may have been here meanwhile.
            if let Some(shard) = shards.get(id).filter(|_| manifest == *id) {
                new.push(FileLink { sha256: *sha256, file: id.file, shard: *shard, size });
            }
        }
        for links in new.chunks(LINKS) {
            let mut pack = PackBuilder::new();
            for link in links {
                pack.link(*link);
            }
            let pack = self.store_pack(pack, Vec::new()).await?;
            match self.append_packs(repo, None, &[pack], |_| Ok(Some(Vec::new()))).await {
                // It was deleted meanwhile.
                Err(Error::RepoNotFound) => return Ok(0),
                other => drop(other?),
            }
        }
        Ok(new.len() as u64)
    }
}

/// The same chunks, none twice.
fn disjoint(runs: BTreeSet<(XorbHash, u32, u32)>) -> Vec<(XorbHash, u32, u32)> {
    let mut apart: Vec<(XorbHash, u32, u32)> = Vec::new();
    for (xorb, start, end) in runs {
        match apart.last_mut() {
            Some((last, _, until)) if *last == xorb && *until >= start => {
                *until = end.max(*until);
            }
            _ => apart.push((xorb, start, end)),
        }
    }
    apart
}

/// The same file, made of where its chunks went; nothing if none of them moved.
fn relocated(
    manifest: &Manifest,
    xorbs: &BTreeSet<XorbHash>,
    moved: &Moved,
) -> Result<Option<Manifest>> {
    if !manifest.terms.iter().any(|term| xorbs.contains(&term.xorb)) {
        return Ok(None);
    }
    let place = |xorb, index| {
        let place = moved.get(&(xorb, index)).copied();
        place.ok_or_else(|| Error::internal("a chunk that a file needs was not moved"))
    };
    let mut terms: Vec<Term> = Vec::with_capacity(manifest.terms.len());
    for term in &manifest.terms {
        if !xorbs.contains(&term.xorb) {
            terms.push(term.clone());
            continue;
        }
        for index in term.chunks.clone() {
            let ((xorb, to), length) = place(term.xorb, index)?;
            match terms.last_mut() {
                Some(last) if last.xorb == xorb && last.chunks.end == to => {
                    last.chunks.end += 1;
                    last.length += length;
                }
                _ => terms.push(Term { xorb, chunks: to..to + 1, length }),
            }
        }
    }
    let sample = |sample: &Sample| match moved.get(&(sample.xorb, sample.index)) {
        Some(((xorb, index), _)) => Sample { chunk: sample.chunk, xorb: *xorb, index: *index },
        None => *sample,
    };
    let samples = manifest.samples.iter().map(sample);
    let samples = samples.filter(|sample| !xorbs.contains(&sample.xorb)).collect();
    let Manifest { file, sha256, size, .. } = *manifest;
    Ok(Some(Manifest::new(file, sha256, size, terms, samples)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn xorb(byte: u8) -> XorbHash {
        XorbHash::from_bytes([byte; 32])
    }

    #[test]
    fn runs_are_taken_once_and_those_that_touch_at_once() {
        let runs = [(xorb(1), 0, 3), (xorb(1), 2, 5), (xorb(1), 7, 9), (xorb(2), 9, 10)];
        let expected = [(xorb(1), 0, 5), (xorb(1), 7, 9), (xorb(2), 9, 10)];
        assert_eq!(disjoint(runs.into()), expected);
    }

    #[test]
    fn a_file_is_made_of_where_its_chunks_went_and_of_nothing_else() -> Result<()> {
        let term = |byte, chunks: std::ops::Range<u32>| Term {
            xorb: xorb(byte),
            length: 10 * (chunks.end - chunks.start),
            chunks,
        };
        let sample = |byte, index| Sample {
            chunk: ballast_format::hash::ChunkHash::of(&[byte]),
            xorb: xorb(byte),
            index,
        };
        let terms = vec![term(1, 4..6), term(2, 0..3), term(1, 6..7), term(1, 4..5)];
        let samples = vec![sample(1, 4), sample(2, 0), sample(1, 9)];
        let file = Manifest::new(FileHash::ZERO, Sha256::ZERO, 70, terms, samples)?;
        let places = [((xorb(1), 4), 0), ((xorb(1), 5), 1), ((xorb(1), 6), 2)];
        let moved = places.map(|(from, to)| (from, ((xorb(9), to), 10))).into();
        let rewritten = relocated(&file, &[xorb(1)].into(), &moved)?.expect("it changed");
        let expected = [term(9, 0..2), term(2, 0..3), term(9, 2..3), term(9, 0..1)];
        assert_eq!(rewritten.terms, expected);
        assert_eq!(rewritten.samples.len(), 2, "a chunk that did not move is offered no more");
        assert_eq!(relocated(&file, &[xorb(7)].into(), &moved)?, None);
        Ok(())
    }
}
