//! Answers about chunks: "you need not send this, it is here, and this comes next to it".
//!
//! An answer names only chunks that the asker may read or sent, under hashes with a key of the
//! asker's own that changes each day: they recognise what they have and learn nothing else. What
//! else lies in the same xorbs is veiled.

use std::collections::HashSet;
use std::sync::Arc;

use ballast_format::hash::{ChunkHash, XorbHash};
use ballast_format::id::{RepoId, UserId};
use ballast_format::shard::{Offer, encode_offers};
use ballast_format::xorb::XorbFooter;
use ballast_store::index::Table;
use ballast_store::index::schema::{self, ChunkRow, Scope};
use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::scope::{Look, Reach, TRIED_SCOPES};
use super::{closing, is_sample};
use crate::access::{Caller, Repo};
use crate::download::flow::held;
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
    /// The answer to a client's query about a chunk, where it works on this repo; nothing where
    /// there is nothing to say. Who is nobody sends nothing, and is told nothing.
    pub async fn dedup_answer(
        &self,
        caller: &Caller,
        home: Option<RepoId>,
        chunk: ChunkHash,
    ) -> Result<Option<Bytes>> {
        let Caller::User(user) = caller else { return Ok(None) };
        let look = Look::to_offer(home, Span::of(self).then_ms());
        let Some(row) = self.find_chunk(caller, look, &chunk).await? else {
            return Ok(None);
        };
        let xorbs = self.xorbs_around(&row).await?;
        self.offer(caller, user.user, look, xorbs, ANSWER_CHUNKS).await
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
    ) -> Result<Option<Bytes>> {
        let Caller::User(user) = caller else { return Ok(None) };
        let Some(main) = self.repo_state(repo).await?.main() else { return Ok(None) };
        if is_sample(&chunk) || !self.uploads.is_first_guess(user.user, repo.id(), session) {
            return Ok(None);
        }
        let mut files = self.siblings(repo, main).await?;
        files.retain(|item| item.large.is_some() && item.size > 0);
        files.sort_by_key(|item| std::cmp::Reverse(item.size));
        let (mut seen, mut xorbs) = (HashSet::new(), Vec::new());
        for large in files.iter().take(GUESSED_FILES).filter_map(|item| item.large) {
            let Some(id) = large.manifest() else { continue };
            let Some(manifest) = self.manifest(&id).await? else { continue };
            let named = manifest.terms.iter().map(|term| term.xorb);
            xorbs.extend(named.filter(|xorb| seen.insert(*xorb)));
            if xorbs.len() >= GUESSED_XORBS {
                break;
            }
        }
        if xorbs.is_empty() {
            return Ok(None);
        }
        let look = Look::to_offer(Some(repo.id()), Span::of(self).then_ms());
        self.offer(caller, user.user, look, xorbs, GUESSED_CHUNKS).await
    }

    /// An answer that describes these xorbs, up to a number of chunks. None where too many answers
    /// wait for slow clients: these send a few bytes more, and nobody runs out of memory.
    async fn offer(
        &self,
        caller: &Caller,
        user: UserId,
        look: Look,
        xorbs: Vec<XorbHash>,
        most: usize,
    ) -> Result<Option<Bytes>> {
        let _slot = self.uploads.answering.acquire().await.map_err(|_| closing())?;
        let span = Span::of(self);
        let (mut offered, mut chunks) = (Vec::new(), 0);
        let found = stream::iter(xorbs)
            .map(|xorb| self.find_xorb(caller, look, xorb))
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
        let answer = self.pool().run(encode).await?;
        let share = self.caches.answers.try_share(answer.len() as u64);
        Ok(share.map(|share| held(Bytes::from(answer), &share)))
    }

    /// Where the caller may find this chunk: in a xorb that is there, now and then. What they sent
    /// themselves comes first, then the repo at hand, then some of the others.
    pub(super) async fn find_chunk(
        &self,
        caller: &Caller,
        look: Look,
        chunk: &ChunkHash,
    ) -> Result<Option<ChunkRow>> {
        let own = caller.user_id().map(Scope::User);
        for scope in own.into_iter().chain(look.home.map(Scope::Repo)) {
            let key = schema::chunk_key(chunk, &scope);
            if let Some(row) = self.index().get(Table::Chunk, &key).await? {
                let row = ChunkRow::decode(&row)?;
                if self.is_there(caller, look, &scope, chunk, &row).await? {
                    return Ok(Some(row));
                }
            }
        }
        let prefix = schema::chunk_repos_prefix(chunk);
        let rows = self.index().scan(Table::Chunk, &prefix, None, TRIED_SCOPES).await?;
        let mut tried = 0;
        for (key, row) in rows {
            let (scope, row) = (schema::scope_of(&key)?, ChunkRow::decode(&row)?);
            if !self.reaches(caller, &scope, row.until_ms, look.then_ms) {
                continue;
            }
            if self.is_there(caller, look, &scope, chunk, &row).await? {
                return Ok(Some(row));
            }
            tried += 1;
            if tried == TRIED_FILES {
                break;
            }
        }
        Ok(None)
    }

    /// Whether a chunk is where a row of this scope says, and the caller may use it.
    async fn is_there(
        &self,
        caller: &Caller,
        look: Look,
        scope: &Scope,
        chunk: &ChunkHash,
        row: &ChunkRow,
    ) -> Result<bool> {
        if !self.reaches(caller, scope, row.until_ms, look.then_ms) {
            return Ok(false);
        }
        let found = self.find_xorb(caller, look, row.xorb).await?;
        Ok(found.is_some_and(|found| {
            row.index < found.footer.chunk_count()
                && found.footer.chunk_hash(row.index) == *chunk
                && found.reach.holds(&(row.index..row.index + 1))
        }))
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
        look: Look,
        xorb: XorbHash,
    ) -> Result<Option<Found>> {
        let reach = self.reach(caller, look, &xorb).await?;
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
