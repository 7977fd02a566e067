//! Bytes on their way out: ranges of stored copies as they are, and files put together from chunks.
//!
//! A piece is read, checked if its chunks were not hashed since the start, and sent before the next
//! one is read, so a slow reader holds one piece. A damaged chunk ends the stream before it.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use ballast_format::manifest::Manifest;
use ballast_format::pack::FileLink;
use ballast_format::xorb::{ChunkDecoder, XorbFooter};
use ballast_store::keyspace::{CopyName, Key};
use bytes::{Bytes, BytesMut};
use futures_util::stream;

use super::ByteStream;
use crate::error::{Error, Result};
use crate::hub::Hub;

/// Serialized bytes that are read at once.
const PIECE_BYTES: u64 = 256 * 1024;
/// Decoded pieces of runs that repeat are kept up to this size: a sparse file is one such piece.
const REPEATED_BYTES: usize = 256 * 1024;

impl Hub {
    /// These bytes of a copy, as they are; the caller has proof that they may be had.
    pub async fn fetch(self: &Arc<Self>, copy: CopyName, bytes: Range<u64>) -> Result<ByteStream> {
        let footer = self.footer(&copy).await?;
        if bytes.start > bytes.end || bytes.end > footer.serialized_length() {
            return Err(Error::Unsatisfiable { size: footer.serialized_length() });
        }
        let pieces: VecDeque<Piece> = pieces_of_bytes(&footer, &bytes).into();
        let hub = Arc::clone(self);
        let state = (hub, footer, pieces, bytes);
        Ok(Box::pin(stream::try_unfold(state, move |(hub, footer, mut pieces, bytes)| async move {
            let Some(piece) = pieces.pop_front() else { return Ok(None) };
            let read = hub.read_sound(&copy, &footer, &piece).await?;
            // The first and last chunk may stand out of what was asked for.
            let start = bytes.start.max(piece.bytes.start) - piece.bytes.start;
            let end = bytes.end.min(piece.bytes.end) - piece.bytes.start;
            let slice = read.slice(index(start)..index(end));
            Ok(Some((slice, (hub, footer, pieces, bytes))))
        })))
    }

    /// Reads a run of chunks, which are then known to be sound.
    async fn read_sound(
        self: &Arc<Self>,
        copy: &CopyName,
        footer: &Arc<XorbFooter>,
        piece: &Piece,
    ) -> Result<Bytes> {
        let key = Key::Copy(*copy);
        let bytes = self.store().get_range(&key, piece.bytes.clone()).await?;
        let sound = self.sound(copy, footer);
        if sound.has(piece.chunks.clone()) {
            return Ok(bytes);
        }
        let (checked, chunks) = (bytes.clone(), piece.chunks.clone());
        let footer = Arc::clone(footer);
        let found = self
            .pool()
            .run(move || {
                ChunkDecoder::new().decode_chunks(&checked, &footer, chunks, true, |_| Ok(()))
            })
            .await?;
        found.map_err(|error| damaged(&key, &error))?;
        sound.add(piece.chunks.clone());
        Ok(bytes)
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
        let manifest = self.needed_manifest(&file.file).await?;
        Ok(self.read_manifest(manifest, range))
    }

    /// These bytes of a file, decoded and verified.
    pub(crate) fn read_manifest(
        self: &Arc<Self>,
        manifest: Arc<Manifest>,
        range: Range<u64>,
    ) -> ByteStream {
        let reader = FileReader {
            hub: Arc::clone(self),
            next_term: manifest.find(range.start).unwrap_or(manifest.terms.len()),
            manifest,
            position: range.start,
            end: range.end,
            pieces: VecDeque::new(),
            repeated: None,
            decoder: Some(ChunkDecoder::new()),
        };
        Box::pin(stream::try_unfold(reader, |mut reader| async move {
            Ok(reader.next().await?.map(|bytes| (bytes, reader)))
        }))
    }

    /// A stretch of a xorb's chunks, decoded and verified.
    pub(crate) async fn decode(
        self: &Arc<Self>,
        copy: &CopyName,
        footer: &Arc<XorbFooter>,
        piece: Piece,
        mut decoder: ChunkDecoder,
    ) -> Result<(Bytes, ChunkDecoder)> {
        let key = Key::Copy(*copy);
        let serialized = self.store().get_range(&key, piece.bytes.clone()).await?;
        let sound = self.sound(copy, footer);
        let verify = !sound.has(piece.chunks.clone());
        let (chunks, footer) = (piece.chunks.clone(), Arc::clone(footer));
        let (decoded, decoder) = self
            .pool()
            .run(move || {
                let length = footer.uncompressed_length(chunks.clone())?;
                let mut decoded = BytesMut::with_capacity(index(length));
                decoder.decode_chunks(&serialized, &footer, chunks, verify, |chunk| {
                    decoded.extend_from_slice(chunk);
                    Ok(())
                })?;
                Ok((decoded.freeze(), decoder))
            })
            .await?
            .map_err(|error: ballast_format::Error| damaged(&key, &error))?;
        sound.add(piece.chunks);
        Ok((decoded, decoder))
    }
}

/// A run of chunks that is read at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) chunks: Range<u32>,
    pub(crate) bytes: Range<u64>,
}

/// Runs of chunks of about [`PIECE_BYTES`] that cover these bytes of a copy.
fn pieces_of_bytes(footer: &XorbFooter, bytes: &Range<u64>) -> Vec<Piece> {
    let (mut first, mut offset) = (0, 0);
    let length = |index: u32| u64::from(footer.serialized_chunk_length(index));
    while first < footer.chunk_count() && offset + length(first) <= bytes.start {
        offset += length(first);
        first += 1;
    }
    let (mut last, mut end) = (first, offset);
    while last < footer.chunk_count() && end < bytes.end {
        end += length(last);
        last += 1;
    }
    if bytes.is_empty() { Vec::new() } else { pieces_of_chunks(footer, first..last, offset) }
}

/// Runs of about [`PIECE_BYTES`] that cover these chunks, the first of which is at `offset`.
fn pieces_of_chunks(footer: &XorbFooter, chunks: Range<u32>, mut offset: u64) -> Vec<Piece> {
    let mut pieces: Vec<Piece> = Vec::new();
    for chunk in chunks {
        let end = offset + u64::from(footer.serialized_chunk_length(chunk));
        match pieces.last_mut() {
            Some(piece) if end - piece.bytes.start <= PIECE_BYTES => {
                piece.chunks.end = chunk + 1;
                piece.bytes.end = end;
            }
            _ => pieces.push(Piece { chunks: chunk..chunk + 1, bytes: offset..end }),
        }
        offset = end;
    }
    pieces
}

struct FileReader {
    hub: Arc<Hub>,
    manifest: Arc<Manifest>,
    next_term: usize,
    position: u64,
    end: u64,
    /// What is still to be read of the term at hand, with where each starts in the file.
    pieces: VecDeque<(CopyName, Arc<XorbFooter>, Piece, u64)>,
    /// The last small run, decoded: files of zeros repeat one.
    repeated: Option<(CopyName, Range<u32>, Bytes)>,
    decoder: Option<ChunkDecoder>,
}

impl FileReader {
    async fn next(&mut self) -> Result<Option<Bytes>> {
        if self.position >= self.end {
            return Ok(None);
        }
        if self.pieces.is_empty() {
            self.open_term().await?;
        }
        let Some((copy, footer, piece, start)) = self.pieces.pop_front() else {
            return Err(Error::corrupt(format!("`{}` ends too early", self.manifest.file)));
        };
        let kept = self.repeated.as_ref();
        let kept = kept.filter(|(kept, chunks, _)| *kept == copy && *chunks == piece.chunks);
        let decoded = match kept {
            Some((_, _, decoded)) => decoded.clone(),
            None => {
                let (decoder, chunks) = (self.decoder.take().unwrap_or_default(), piece.chunks.clone());
                let (decoded, decoder) = self.hub.decode(&copy, &footer, piece, decoder).await?;
                self.decoder = Some(decoder);
                if decoded.len() <= REPEATED_BYTES {
                    self.repeated = Some((copy, chunks, decoded.clone()));
                }
                decoded
            }
        };
        let from = index(self.position - start);
        let to = index((self.end - start).min(decoded.len() as u64));
        self.position = start + to as u64;
        Ok(Some(decoded.slice(from..to)))
    }

    /// Lists what to read of the next term, from the position on.
    async fn open_term(&mut self) -> Result<()> {
        let Some(term) = self.manifest.terms.get(self.next_term) else { return Ok(()) };
        let mut start = self.manifest.start_of(self.next_term);
        self.next_term += 1;
        let copy = self.hub.needed_copy(&term.xorb).await?;
        let footer = self.hub.footer(&copy).await?;
        let disagree = || Error::corrupt(format!("a manifest and `{}` do not agree", term.xorb));
        let length = footer.uncompressed_length(term.chunks.clone()).map_err(|_| disagree())?;
        let place = footer.byte_range(term.chunks.clone()).map_err(|_| disagree())?;
        if length != u64::from(term.length) {
            return Err(disagree());
        }
        for piece in pieces_of_chunks(&footer, term.chunks.clone(), place.start) {
            let length =
                footer.uncompressed_length(piece.chunks.clone()).map_err(|_| disagree())?;
            let end = start + length;
            if end > self.position && start < self.end {
                self.pieces.push_back((copy, Arc::clone(&footer), piece, start));
            }
            start = end;
        }
        Ok(())
    }
}

fn damaged(key: &Key, error: &ballast_format::Error) -> Error {
    tracing::error!(%key, %error, "a stored xorb is damaged");
    Error::corrupt(format!("`{key}`: {error}"))
}

/// Lengths inside a piece fit in memory.
fn index(length: u64) -> usize {
    usize::try_from(length).expect("a piece fits in memory")
}
