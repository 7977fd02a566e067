//! Answers about chunks: "you need not send this, it is here, and this comes next to it".
//!
//! An answer names only chunks that the asker may read or sent, under hashes with a key of the
//! asker's own that changes each day: they recognise what they have and learn nothing else. What
//! else lies in the same xorbs is veiled.

use std::collections::HashSet;
use std::sync::Arc;

use ballast_format::hash::{ChunkHash, XorbHash};
use ballast_format::id::RepoId;
use ballast_format::shard::{Offer, encode_offers};
use ballast_format::xorb::XorbFooter;
use ballast_store::index::Table;
use ballast_store::index::schema::{self, ChunkRow};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::is_sample;
use super::scope::{Reach, TRIED_SCOPES};
use crate::access::{Caller, Repo};
use crate::error::Result;
use crate::hub::Hub;

const DAY_SECONDS: u64 = 24 * 60 * 60;
/// Chunks that one answer describes: 64 bytes each, 16 MB in all, a file of some 16 GB.
const ANSWER_CHUNKS: usize = 250_000;
/// What a guess describes: 4 MB, a file of some 4 GB.
const GUESSED_CHUNKS: usize = 65_536;
const GUESSED_FILES: usize = 100;
const GUESSED_XORBS: usize = 1000;
/// Files that are looked at for one chunk, of those that have it.
const TRIED_FILES: usize = 4;
/// Xorbs that are looked up at the same time.
const LOOKED_UP_AT_ONCE: usize = 8;

/// From when to when an answer holds, in unix seconds.
#[derive(Clone, Copy)]
struct Span {
    now: u64,
    day: u64,
    expires: u64,
}

impl Span {
    /// Until the end of the next day, so that no answer is short-lived.
    fn of(hub: &Hub) -> Self {
        let now = hub.env().now_ms() / 1000;
        let day = now / DAY_SECONDS;
        Self { now, day, expires: (day + 2) * DAY_SECONDS }
    }

    /// Until when what is offered must be there: clients' clocks may be wrong.
    fn then_ms(self) -> u64 {
        (self.expires + DAY_SECONDS) * 1000
    }
}

/// A xorb of which the caller may use something.
pub(super) struct Found {
    pub(super) footer: Arc<XorbFooter>,
    pub(super) reach: Reach,
}

impl Hub {
    /// The answer to a client's query about a chunk; nothing where there is nothing to say.
    pub async fn dedup_answer(&self, caller: &Caller, chunk: ChunkHash) -> Result<Option<Vec<u8>>> {
        let then_ms = Span::of(self).then_ms();
        let Some(row) = self.find_chunk(caller, &chunk, then_ms).await? else {
            return Ok(None);
        };
        let xorbs = self.xorbs_around(&row).await?;
        self.offer(caller, None, xorbs, ANSWER_CHUNKS).await.map(Some)
    }

    /// What may well be in a file whose first chunk we don't have: the largest files of the repo
    /// that it is sent to. Clients ask about a file's first chunk and then about one in 1024, some
    /// 64 MiB on; a new version with another beginning would be sent as far as there. They take
    /// any answer, so they get this one, once in a session.
    pub async fn dedup_guess(
        &self,
        caller: &Caller,
        repo: &Repo,
        chunk: ChunkHash,
        session: &str,
    ) -> Result<Option<Vec<u8>>> {
        let user = caller.user()?.user;
        let Some(main) = self.repo_state(repo).await?.main() else { return Ok(None) };
        if is_sample(&chunk) || !self.uploads.is_first_guess(user, repo.id(), session) {
            return Ok(None);
        }
        let mut files = self.siblings(repo, main).await?;
        files.retain(|item| item.large.is_some() && item.size > 0);
        files.sort_by_key(|item| std::cmp::Reverse(item.size));
        let (mut seen, mut xorbs) = (HashSet::new(), Vec::new());
        for large in files.iter().take(GUESSED_FILES).filter_map(|item| item.large) {
            let Some(manifest) = self.manifest(&large.manifest()).await? else { continue };
            let named = manifest.terms.iter().map(|term| term.xorb);
            xorbs.extend(named.filter(|xorb| seen.insert(*xorb)));
            if xorbs.len() >= GUESSED_XORBS {
                break;
            }
        }
        if xorbs.is_empty() {
            return Ok(None);
        }
        self.offer(caller, Some(repo.id()), xorbs, GUESSED_CHUNKS).await.map(Some)
    }

    /// An answer that describes these xorbs, up to a number of chunks.
    async fn offer(
        &self,
        caller: &Caller,
        home: Option<RepoId>,
        xorbs: Vec<XorbHash>,
        most: usize,
    ) -> Result<Vec<u8>> {
        let user = caller.user()?.user;
        let span = Span::of(self);
        let (mut offered, mut chunks) = (Vec::new(), 0);
        let found = stream::iter(xorbs)
            .map(|xorb| self.find_xorb(caller, home, xorb, span.then_ms()))
            .buffered(LOOKED_UP_AT_ONCE);
        let mut found = Box::pin(found);
        while let Some(found) = found.try_next().await? {
            let Some(found) = found else { continue };
            chunks += found.footer.chunk_count() as usize;
            offered.push(found);
            if chunks >= most {
                break;
            }
        }
        let Span { now, day, expires } = span;
        let key = self.secrets().key(&format!("dedup {user} {day}"));
        let veil = self.secrets().key(&format!("dedup veil {user}"));
        let encode = move || {
            let offer = |found: &'_ Found| found.reach.hidden(found.footer.chunk_count());
            let hidden: Vec<_> = offered.iter().map(offer).collect();
            let offers = offered
                .iter()
                .zip(hidden)
                .map(|(found, hidden)| Offer { xorb: &found.footer, hidden });
            let offers: Vec<Offer<'_>> = offers.collect();
            encode_offers(&offers, &key, &veil, now, expires)
        };
        self.pool().run(encode).await
    }

    /// Where the caller may find this chunk: in a xorb that is there, now and then.
    pub(super) async fn find_chunk(
        &self,
        caller: &Caller,
        chunk: &ChunkHash,
        then_ms: u64,
    ) -> Result<Option<ChunkRow>> {
        let prefix = chunk.as_bytes();
        let rows = self.index().scan(Table::Chunk, prefix, None, TRIED_SCOPES).await?;
        let mut tried = 0;
        for (key, row) in rows {
            let (scope, row) = (schema::scope_of(&key)?, ChunkRow::decode(&row)?);
            if tried == TRIED_FILES || !self.reaches(caller, &scope, row.until_ms, then_ms) {
                continue;
            }
            tried += 1;
            let found = self.find_xorb(caller, None, row.xorb, then_ms).await?;
            let is_there = |found: Found| {
                let run = row.index..row.index + 1;
                row.index < found.footer.chunk_count()
                    && found.footer.chunk_hash(row.index) == *chunk
                    && found.reach.holds(&run)
            };
            if found.is_some_and(is_there) {
                return Ok(Some(row));
            }
        }
        Ok(None)
    }

    /// The xorbs of the file in which a chunk was found, from that chunk's on, and then from the
    /// file's first.
    pub(super) async fn xorbs_around(&self, row: &ChunkRow) -> Result<Vec<XorbHash>> {
        let mut xorbs = vec![row.xorb];
        if let Some(manifest) = self.manifest(&row.manifest).await? {
            let mut terms = manifest.terms.iter();
            let start = terms.position(|term| term.xorb == row.xorb).unwrap_or(0);
            let (before, after) = manifest.terms.split_at(start);
            xorbs.extend(after.iter().chain(before).map(|term| term.xorb));
        }
        let mut seen = HashSet::new();
        xorbs.retain(|xorb| seen.insert(*xorb));
        Ok(xorbs)
    }

    /// A xorb that is there and of which the caller may use something, now and then. A damaged one
    /// counts as none: what is not offered is sent, and heals it.
    pub(super) async fn find_xorb(
        &self,
        caller: &Caller,
        home: Option<RepoId>,
        xorb: XorbHash,
        then_ms: u64,
    ) -> Result<Option<Found>> {
        let reach = self.reach(caller, home, &xorb, then_ms).await?;
        if reach == Reach::Runs(Vec::new()) {
            return Ok(None);
        }
        if self.present_copy(&xorb).await?.is_none() {
            return Ok(None);
        }
        let opened = match self.open_xorb(&xorb).await {
            Err(crate::Error::Corrupt { .. }) => None,
            opened => opened?,
        };
        Ok(opened.map(|(_, footer)| Found { footer, reach }))
    }
}
