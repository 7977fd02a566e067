//! A part of a file, out of whole xorbs, which their names prove.
//!
//! Of a file that comes out of xorbs nothing is proved before all of it came, with one exception: a
//! whole xorb has the name that its chunks make. So a part can be handed out where the xorbs around
//! it are used by this file as a whole. What the file is made of remains the upstream's word, as
//! its SHA-256 is.

use std::ops::Range;
use std::sync::Arc;

use ballast_format::hash::{ObjectHash, Sha256, XorbHash};
use ballast_format::xorb::{ChunkHeader, XorbFooter, XorbValidator, decompress};
use ballast_node::pool::Pool;
use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use quick_cache::sync::Cache;
use reqwest::Url;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::plan::{Plan, Run, Source};
use super::{PIECE_BYTES, PIECES_AT_ONCE, Target, XetDownload, xorb_ask};
use crate::mirror::upstream::error::Error;
use crate::mirror::upstream::{Entry, Repo, Upstream};

/// The longest part: what is longer costs more than to wait.
const MAX_PART_BYTES: u64 = 64 << 20;
/// A xorb of which some byte is in a part ends within so many bytes of it.
const AROUND_BYTES: u64 = 64 << 20;
/// What may be fetched for a part, in shares of the file: it comes a second time.
const MOST_SHARE: u64 = 4;
/// Xorbs in memory, 64 MiB each.
const XORBS: usize = 2;
/// Files of which it is known that parts of them can't be proved.
const REFUSED: usize = 1000;

/// Xorbs that were proved, for the next part of them.
pub(in crate::mirror) struct Proofs {
    xorbs: Cache<XorbHash, Arc<Proved>>,
    room: Arc<Semaphore>,
    refused: Cache<Sha256, ()>,
}

impl Default for Proofs {
    fn default() -> Self {
        let (xorbs, refused) = (Cache::new(XORBS), Cache::new(REFUSED));
        Self { xorbs, room: Arc::new(Semaphore::new(XORBS)), refused }
    }
}

impl Proofs {
    /// No xorb is needed any more.
    pub(in crate::mirror) fn clear(&self) {
        self.xorbs.clear();
    }

    /// Parts of this file are not asked for again.
    pub(in crate::mirror) fn refuse(&self, entry: &Entry) {
        if let Some(large) = entry.large {
            self.refused.insert(large.sha256, ());
        }
    }

    fn has_refused(&self, entry: &Entry) -> bool {
        entry.large.is_some_and(|large| self.refused.get(&large.sha256).is_some())
    }

    /// Room for one more xorb; none while slow readers hold all.
    fn room(&self) -> Option<OwnedSemaphorePermit> {
        let take = || Arc::clone(&self.room).try_acquire_owned().ok();
        take().or_else(|| {
            self.clear();
            take()
        })
    }
}

/// A xorb that has its name.
struct Proved {
    bytes: Bytes,
    footer: XorbFooter,
    _room: OwnedSemaphorePermit,
}

impl Proved {
    fn chunk(&self, index: u32) -> Result<Bytes, Error> {
        let fault = |error: ballast_format::Error| Error::lied(format!("a chunk: {error}"));
        let place = self.footer.byte_range(index..index + 1).map_err(fault)?;
        let index = |at: u64| usize::try_from(at).unwrap_or(usize::MAX);
        let serialized = self.bytes.get(index(place.start)..index(place.end)).unwrap_or_default();
        let Some((header, payload)) = serialized.split_first_chunk() else {
            return Err(Error::lied("a chunk ends too early"));
        };
        let header = ChunkHeader::decode(header).map_err(fault)?;
        let mut chunk = Vec::new();
        let length = header.uncompressed_length;
        decompress(header.compression, payload, length, &mut chunk).map_err(fault)?;
        Ok(Bytes::from(chunk))
    }
}

/// Chunks of a xorb, and what is wanted of them, counted from the first one's first byte.
struct Piece {
    xorb: Arc<Proved>,
    chunks: Range<u32>,
    wanted: Range<u64>,
}

impl Piece {
    /// The next bytes that are wanted; nothing behind the last.
    fn next(&mut self) -> Option<Result<Bytes, Error>> {
        while !self.chunks.is_empty() && self.wanted.end > 0 {
            let index = self.chunks.start;
            self.chunks.start += 1;
            let length = u64::from(self.xorb.footer.chunk_length(index));
            let inside = self.wanted.start.min(length)..self.wanted.end.min(length);
            self.wanted.start = self.wanted.start.saturating_sub(length);
            self.wanted.end -= inside.end;
            if inside.is_empty() {
                continue;
            }
            let at = |at| usize::try_from(at).unwrap_or(usize::MAX);
            let chunk = self.xorb.chunk(index);
            return Some(chunk.map(|chunk| chunk.slice(at(inside.start)..at(inside.end))));
        }
        None
    }
}

/// A part of a file; chunks are unpacked as they are read.
pub(in crate::mirror) struct Part {
    pieces: Vec<Piece>,
    /// Bytes that were fetched for it.
    pub(in crate::mirror) fetched: u64,
}

impl Part {
    /// The bytes.
    pub(in crate::mirror) fn into_pieces(self) -> impl Iterator<Item = Result<Bytes, Error>> {
        self.pieces.into_iter().flat_map(|mut piece| std::iter::from_fn(move || piece.next()))
    }
}

/// A term that has bytes of a part.
#[derive(Debug, PartialEq, Eq)]
struct Need {
    source: Source,
    chunks: Range<u32>,
    /// Bytes of the term.
    length: u64,
    /// What is wanted of them.
    wanted: Range<u64>,
}

/// The terms of a plan, which is of the file from a byte on, that have bytes of this range.
fn needs(plan: &Plan, from: u64, range: &Range<u64>) -> Option<Vec<Need>> {
    let (mut needs, mut at) = (Vec::new(), from.checked_sub(plan.skip)?);
    for run in &plan.runs {
        let Run::There { source, terms } = run else { return None };
        for (chunks, length) in terms {
            let wanted = range.start.saturating_sub(at)..range.end.saturating_sub(at).min(*length);
            if wanted.start < wanted.end {
                let (source, chunks) = (source.clone(), chunks.clone());
                needs.push(Need { source, chunks, length: *length, wanted });
            }
            at += length;
        }
    }
    (at >= range.end).then_some(needs)
}

impl Upstream {
    /// Whether it is worth it to ask for a part of a file.
    pub(in crate::mirror) fn may_prove(
        &self,
        proofs: &Proofs,
        entry: &Entry,
        range: &Range<u64>,
    ) -> bool {
        let is_short = range.end - range.start <= MAX_PART_BYTES;
        is_short && self.may_have_xorbs(entry) && !proofs.has_refused(entry)
    }

    /// A part of a large file, proved; nothing if that can't be done, or not now.
    pub(in crate::mirror) async fn part(
        &self,
        pool: &Pool,
        proofs: &Proofs,
        (repo, commit): (Repo, ObjectHash),
        entry: &Entry,
        range: &Range<u64>,
    ) -> Option<Part> {
        let file = self.xet_hash(&repo, commit, entry).await;
        let part = match file {
            Some(file) => {
                let target = Target { repo, commit, file, size: entry.size };
                self.try_part(pool, proofs, target, range).await
            }
            None => Err(Error::Unfit { what: "a file without xorbs".to_owned() }),
        };
        part.unwrap_or_else(|error| {
            tracing::debug!(path = %entry.path, %error, "a part of a file can't be proved");
            proofs.refuse(entry);
            None
        })
    }

    async fn try_part(
        &self,
        pool: &Pool,
        proofs: &Proofs,
        target: Target,
        range: &Range<u64>,
    ) -> Result<Option<Part>, Error> {
        let size = target.size;
        // A reconstruction says of the xorbs at its ends only what it needs of them.
        let end = range.end.saturating_add(AROUND_BYTES).min(size);
        let around = range.start.saturating_sub(AROUND_BYTES)..end;
        let mut asking = XetDownload::new(self, pool, target, range.start, None);
        let plan = asking.reconstruction(around.clone()).await?;
        let unfit = |what: &str| Error::Unfit { what: what.to_owned() };
        let needs = needs(&plan, around.start, range);
        let needs = needs.ok_or_else(|| unfit("a reconstruction of another range"))?;
        let cost: u64 = needs.iter().map(|n| n.source.bytes.end - n.source.bytes.start).sum();
        if cost > size / MOST_SHARE || needs.iter().any(|need| need.source.chunks.start > 0) {
            return Err(unfit("a part that is in no whole xorbs of its own"));
        }
        let (mut pieces, mut fetched) = (Vec::with_capacity(needs.len()), 0);
        for Need { source, chunks, length, wanted } in needs {
            let Some(xorb) = self.proved(pool, proofs, &source, &mut fetched).await? else {
                return Ok(None);
            };
            let found = xorb.footer.uncompressed_length(chunks.clone());
            if found.ok() != Some(length) {
                return Err(Error::lied("the chunks of a term have another length than it says"));
            }
            pieces.push(Piece { xorb, chunks, wanted });
        }
        Ok(Some(Part { pieces, fetched }))
    }

    /// A xorb that has its name; nothing if there is no room for it now. Who comes while it is
    /// fetched waits for it.
    async fn proved(
        &self,
        pool: &Pool,
        proofs: &Proofs,
        source: &Source,
        fetched: &mut u64,
    ) -> Result<Option<Arc<Proved>>, Error> {
        let guard = match proofs.xorbs.get_value_or_guard_async(&source.xorb).await {
            Ok(known) => return Ok(Some(known)),
            Err(guard) => guard,
        };
        let Some(room) = proofs.room() else { return Ok(None) };
        let url: Url =
            source.url.parse().map_err(|_| Error::lied("the address of a xorb is none"))?;
        let mut asks = Vec::new();
        for at in source.bytes.clone().step_by(usize::try_from(PIECE_BYTES).unwrap_or(usize::MAX)) {
            let until = (at + PIECE_BYTES).min(source.bytes.end);
            let ask = xorb_ask(url.clone(), at..until);
            asks.push(async move { self.piece(&ask, until - at).await });
        }
        let mut pieces = stream::iter(asks).buffered(PIECES_AT_ONCE);
        let mut bytes = BytesMut::new();
        while let Some(piece) = pieces.try_next().await? {
            *fetched += piece.len() as u64;
            bytes.extend_from_slice(&piece);
        }
        let (bytes, hash) = (bytes.freeze(), source.xorb);
        let prove = move || {
            let mut validator = XorbValidator::new();
            validator.feed(&bytes)?;
            validator.finish(hash).map(|footer| (footer, bytes))
        };
        let proved = pool.run(prove).await;
        let proved = proved.map_err(|error| Error::unavailable(error.to_string()))?;
        let (footer, bytes) =
            proved.map_err(|error| Error::lied(format!("a xorb is not whole: {error}")))?;
        let proved = Arc::new(Proved { bytes, footer, _room: room });
        // Who cleared the cache meanwhile does not mind.
        drop(guard.insert(Arc::clone(&proved)));
        Ok(Some(proved))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(byte: u8) -> Source {
        let xorb = XorbHash::from_bytes([byte; 32]);
        Source { xorb, url: "https://x/".to_owned(), chunks: 0..9, bytes: 0..900 }
    }

    #[test]
    fn the_terms_around_a_part_are_found_with_what_is_wanted_of_each() {
        let run = |byte, terms: &[(Range<u32>, u64)]| Run::There {
            source: source(byte),
            terms: terms.to_vec(),
        };
        let runs = vec![run(1, &[(0..2, 200), (2..9, 700)]), run(2, &[(0..4, 400)])];
        // Of the file from byte 1000 on, 50 bytes behind the first chunk's beginning.
        let plan = Plan { skip: 50, runs, length: 1300 };
        let found = |range| needs(&plan, 1000, &range);
        let seen = |range: Range<u64>| {
            let needs = found(range).expect("inside");
            needs.into_iter().map(|need| (need.chunks, need.wanted)).collect::<Vec<_>>()
        };
        assert_eq!(seen(1000..1010), [(0..2, 50..60)]);
        assert_eq!(seen(1140..1160), [(0..2, 190..200), (2..9, 0..10)]);
        assert_eq!(seen(1840..2250), [(2..9, 690..700), (0..4, 0..400)]);
        assert_eq!(found(2200..2251), None, "past its end");
    }
}
