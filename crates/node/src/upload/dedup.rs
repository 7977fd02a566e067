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

use super::scope::{Reach, TRIED_SCOPES};
use crate::access::Caller;
use crate::error::Result;
use crate::hub::Hub;

const DAY_SECONDS: u64 = 24 * 60 * 60;
/// Chunks that one answer describes: 64 bytes each, 16 MB in all, a file of some 16 GB.
const ANSWER_CHUNKS: usize = 250_000;
/// Files that are looked at for one chunk, of those that have it.
const TRIED_FILES: usize = 4;
/// Xorbs that are looked up at the same time.
const LOOKED_UP_AT_ONCE: usize = 8;

/// A xorb of which the caller may use something.
pub(super) struct Found {
    pub(super) footer: Arc<XorbFooter>,
    pub(super) reach: Reach,
}

impl Hub {
    /// The answer to a client's query about a chunk; nothing where there is nothing to say.
    pub async fn dedup_answer(&self, caller: &Caller, chunk: ChunkHash) -> Result<Option<Vec<u8>>> {
        let user = caller.user()?.user;
        let now = self.env().now_ms() / 1000;
        let day = now / DAY_SECONDS;
        // Good until the end of the next day, so that no answer is short-lived. What is offered
        // must be there as long, and clients' clocks may be wrong.
        let expires = (day + 2) * DAY_SECONDS;
        let then_ms = (expires + DAY_SECONDS) * 1000;
        let Some(row) = self.find_chunk(caller, &chunk, then_ms).await? else {
            return Ok(None);
        };
        let (mut offered, mut chunks) = (Vec::new(), 0);
        let xorbs = self.xorbs_around(&row).await?;
        let found = stream::iter(xorbs)
            .map(|xorb| self.find_xorb(caller, None, xorb, then_ms))
            .buffered(LOOKED_UP_AT_ONCE);
        let mut found = Box::pin(found);
        while let Some(found) = found.try_next().await? {
            let Some(found) = found else { continue };
            chunks += found.footer.chunk_count() as usize;
            offered.push(found);
            if chunks >= ANSWER_CHUNKS {
                break;
            }
        }
        let key = self.secrets().key(&format!("dedup {user} {day}"));
        let veil = self.secrets().key(&format!("dedup veil {user}"));
        let encode = move || {
            let offer = |found: &'_ Found| found.reach.hidden(found.footer.chunk_count());
            let hidden: Vec<_> = offered.iter().map(offer).collect();
            let offers = offered.iter().zip(hidden).map(|(found, hidden)| Offer {
                xorb: &found.footer,
                hidden,
            });
            let offers: Vec<Offer<'_>> = offers.collect();
            encode_offers(&offers, &key, &veil, now, expires)
        };
        self.pool().run(encode).await.map(Some)
    }

    /// Where the caller may find this chunk: in a xorb that is there, now and then.
    pub(super) async fn find_chunk(
        &self,
        caller: &Caller,
        chunk: &ChunkHash,
        then_ms: u64,
    ) -> Result<Option<ChunkRow>> {
        let prefix = chunk.as_bytes();
        let rows = self
            .index()
            .scan(Table::Chunk, prefix, None, TRIED_SCOPES)
            .await?;
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
        if let Some(manifest) = self.manifest(&row.file).await? {
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
