//! Bytes on their way out: ranges of stored copies as they are, and files put together from chunks.
//!
//! The next piece is read while one is being sent. The first piece is read before a stream is
//! handed out, so that what can't be read at all is an error and not a stream that breaks; a
//! damaged chunk further on ends the stream before any byte of it.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ballast_format::manifest::Manifest;
use ballast_format::pack::FileLink;
use ballast_format::xorb::XorbFooter;
use ballast_store::keyspace::{CopyName, Key};
use ballast_store::objects::SignedGet;
use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, future, stream};

use super::ByteStream;
use super::flow::{Room, held};
use super::piece::{Piece, run_end};
use super::walk::{Step, Walk};
use crate::error::{Error, Result};
use crate::hub::Hub;

/// Pieces that are read at once for one stream: the one that is wanted, and the next.
const AHEAD: usize = 2;
/// Runs that repeat are kept decoded up to this size: a sparse file is one such run.
const REPEATED_BYTES: u64 = 256 * 1024;

impl Hub {
    /// These bytes of a copy, as they are; the caller has proof that they may be had.
    pub async fn fetch(self: &Arc<Self>, copy: CopyName, bytes: Range<u64>) -> Result<ByteStream> {
        let footer = match self.footer(&copy).await {
            Ok(footer) => footer,
            Err(error) => return Err(self.instead_of(&copy, error).await?),
        };
        if bytes.start > bytes.end || bytes.end > footer.serialized_length() {
            let size = footer.serialized_length();
            return Err(Error::Unsatisfiable { size });
        }
        let hub = Arc::clone(self);
        let (reader, wanted) = (self.caches.flow.enter(), bytes.clone());
        let (mut first, mut offset) = (0, 0);
        while first < footer.chunk_count() {
            let end = offset + u64::from(footer.serialized_chunk_length(first));
            if end > bytes.start {
                break;
            }
            (first, offset) = (first + 1, end);
        }
        let next = Arc::clone(self);
        let pieces =
            stream::try_unfold((first, offset, reader), move |(first, offset, mut reader)| {
                let (hub, footer, end) = (Arc::clone(&next), Arc::clone(&footer), bytes.end);
                async move {
                    if offset >= end {
                        return Ok(None);
                    }
                    let last = run_end(&footer, first, footer.chunk_count(), reader.piece_bytes());
                    let piece = Piece::new(copy, &footer, first..last)?;
                    let room = reader.room(hub.env(), piece.serialized_bytes()).await?;
                    let after = piece.place.end;
                    Ok::<_, Error>(Some(((piece, room), (last, after, reader))))
                }
            });
        let read = move |(piece, room): (Piece, Room)| {
            let (hub, wanted) = (Arc::clone(&hub), wanted.clone());
            async move { hub.fetch_piece(&piece, room, &wanted).await }
        };
        match started(Box::pin(pieces.map_ok(read).try_buffered(AHEAD))).await {
            Err(error) => Err(self.instead_of(&copy, error).await?),
            started => started,
        }
    }

    /// An address at the store itself for these bytes of a copy, which the caller has proof that
    /// they may have. `None`: they must come from here, because the store has no such addresses,
    /// because one would open more than these bytes, or because they were not found sound since
    /// the start (R4): who reads at the store checks nothing.
    pub async fn fetch_address(
        &self,
        copy: &CopyName,
        bytes: Range<u64>,
        lifetime: Duration,
    ) -> Result<Option<SignedGet>> {
        if !self.relies_on(copy) {
            return Ok(None);
        }
        // What can't be read is for the usual way to tell.
        let Ok(footer) = self.footer(copy).await else { return Ok(None) };
        let Some(chunks) = chunks_around(&footer, &bytes) else { return Ok(None) };
        if !self.sound(copy, &footer).has(chunks) {
            return Ok(None);
        }
        let signed = self.store().signed_get(&Key::Copy(*copy), Some(bytes), lifetime).await?;
        // Beside what the reader may see there are others' chunks in a xorb.
        Ok(signed.filter(|signed| signed.range.is_some()))
    }

    /// The part of a piece that is wanted.
    async fn fetch_piece(&self, piece: &Piece, room: Room, wanted: &Range<u64>) -> Result<Bytes> {
        let bytes = room.hold(self.read_piece(piece).await?);
        // The first and last chunk may stand out of what was asked for.
        let start = wanted.start.max(piece.place.start) - piece.place.start;
        let end = wanted.end.min(piece.place.end) - piece.place.start;
        Ok(bytes.slice(index(start)..index(end)))
    }

    /// What to say when a copy can't be read. If there is another one, the client should ask anew
    /// where the xorb is; it does so when it is refused.
    async fn instead_of(&self, copy: &CopyName, error: Error) -> Result<Error> {
        let error = self.note_damage(copy, error);
        let xorb = ballast_format::hash::XorbHash::from_bytes(copy.hash);
        match self.xorb_copy(&xorb).await? {
            Some(other) if other != *copy && !self.distrusts(&other) => {
                Ok(Error::denied("these bytes have moved: ask for the reconstruction again"))
            }
            _ => Ok(error),
        }
    }

    /// These bytes of a large file that the caller was found to be allowed.
    pub async fn read_file(
        self: &Arc<Self>,
        file: &FileLink,
        range: Range<u64>,
    ) -> Result<ByteStream> {
        if range.is_empty() || file.size == 0 {
            return Ok(Box::pin(stream::empty()));
        }
        let manifest = self.needed_manifest(&file.manifest()).await?;
        if range.end > manifest.size {
            return Err(Error::Unsatisfiable { size: manifest.size });
        }
        started(self.read_manifest(manifest, range)).await
    }

    /// These bytes of a file, decoded and verified.
    pub(crate) fn read_manifest(
        self: &Arc<Self>,
        manifest: Arc<Manifest>,
        range: Range<u64>,
    ) -> ByteStream {
        let (hub, reader) = (Arc::clone(self), self.caches.flow.enter());
        let walk = Walk::new(Arc::clone(self), manifest, range);
        let repeated: Arc<Repeated> = Arc::default();
        let next = Arc::clone(self);
        let steps = stream::try_unfold((walk, reader), move |(mut walk, mut reader)| {
            let hub = Arc::clone(&next);
            async move {
                let Some(step) = walk.next(reader.piece_bytes()).await? else { return Ok(None) };
                let room = reader.room(hub.env(), step.piece.bytes_in_memory()).await?;
                Ok(Some(((step, room), (walk, reader))))
            }
        });
        let decoded = steps
            .map_ok(move |(step, room)| {
                let (hub, repeated) = (Arc::clone(&hub), Arc::clone(&repeated));
                async move { hub.decode_step(step, room, &repeated).await }
            })
            .try_buffered(AHEAD)
            .map_ok(|chunks| stream::iter(chunks).map(Ok))
            .try_flatten();
        Box::pin(decoded)
    }

    async fn decode_step(&self, step: Step, room: Room, repeated: &Repeated) -> Result<Vec<Bytes>> {
        let piece = step.piece;
        if let Some(decoded) = repeated.get(&piece) {
            return Ok(cut(decoded, &step.wanted));
        }
        let decoded = self.read_anywhere(piece.clone()).await?;
        if piece.plain_bytes() <= REPEATED_BYTES {
            // Of the budget it keeps its part; the reader may have its next piece meanwhile.
            let kept = decoded.iter().map(|bytes| held(bytes.clone(), &room.share));
            repeated.set(piece, kept.collect());
        }
        let decoded = decoded.into_iter().map(|bytes| room.hold(bytes));
        Ok(cut(decoded.collect(), &step.wanted))
    }

    /// The chunks of a run, one after another, from whichever copy they are sound in.
    pub(crate) async fn read_anywhere(&self, mut piece: Piece) -> Result<Vec<Bytes>> {
        loop {
            match self.read_chunks(&piece).await {
                Err(error @ Error::Corrupt { .. }) => {
                    piece = self.elsewhere(&piece).await?.ok_or(error)?;
                }
                read => return read,
            }
        }
    }

    async fn read_chunks(&self, piece: &Piece) -> Result<Vec<Bytes>> {
        let serialized = self.get_piece(piece).await?;
        self.decode_piece(piece, serialized).await
    }

    /// The same chunks in a copy in which no damage was found so far; each is tried once.
    async fn elsewhere(&self, piece: &Piece) -> Result<Option<Piece>> {
        let Some((copy, footer)) = self.open_xorb(&piece.footer.hash()).await? else {
            return Ok(None);
        };
        if self.distrusts(&copy) {
            return Ok(None);
        }
        Piece::new(copy, &footer, piece.chunks.clone()).map(Some)
    }
}

/// The last small run, decoded: files of zeros repeat one.
#[derive(Default)]
struct Repeated(Mutex<Option<(Piece, Vec<Bytes>)>>);

impl Repeated {
    fn get(&self, piece: &Piece) -> Option<Vec<Bytes>> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = kept.as_ref().filter(|(kept, _)| kept.is_same(piece));
        kept.map(|(_, decoded)| decoded.clone())
    }

    fn set(&self, piece: Piece, decoded: Vec<Bytes>) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *kept = Some((piece, decoded));
    }
}

/// The chunks that hold these bytes of a copy, if it has them all.
fn chunks_around(footer: &XorbFooter, bytes: &Range<u64>) -> Option<Range<u32>> {
    if bytes.is_empty() || bytes.end > footer.serialized_length() {
        return None;
    }
    let (mut first, mut end, mut offset) = (0, 0, 0);
    while offset < bytes.end {
        offset += u64::from(footer.serialized_chunk_length(end));
        end += 1;
        if offset <= bytes.start {
            first = end;
        }
    }
    Some(first..end)
}

/// The wanted part of what these make one after another.
fn cut(mut pieces: Vec<Bytes>, wanted: &Range<u64>) -> Vec<Bytes> {
    let mut start = 0;
    for piece in &mut pieces {
        let end = start + piece.len() as u64;
        let from = wanted.start.clamp(start, end) - start;
        let to = wanted.end.clamp(start, end) - start;
        *piece = piece.slice(index(from)..index(to.max(from)));
        start = end;
    }
    pieces.retain(|piece| !piece.is_empty());
    pieces
}

/// The same stream, of which the first piece was read.
pub(super) async fn started(mut bytes: ByteStream) -> Result<ByteStream> {
    match bytes.next().await.transpose()? {
        None => Ok(Box::pin(stream::empty())),
        Some(first) => Ok(Box::pin(stream::once(future::ready(Ok(first))).chain(bytes))),
    }
}

/// Lengths inside a piece fit in memory.
fn index(length: u64) -> usize {
    usize::try_from(length).expect("a piece fits in memory")
}

#[cfg(test)]
mod tests;
