//! Runs of a copy's chunks, read at once: how bytes of xorbs come out of the store.
//!
//! Chunks that were not hashed since the start are hashed before any byte of them is handed on
//! (R4, Invariant 12); clients do not check what they get. Chunks that are not compressed are not
//! copied either.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use ballast_format::hash::ChunkHash;
use ballast_format::xorb::{ChunkDecoder, ChunkHeader, Compression, XorbFooter};
use ballast_store::keyspace::{CopyName, Key};
use bytes::{Bytes, BytesMut};

use crate::error::{Error, Result};
use crate::hub::Hub;

/// Decoders that are kept for the next piece, with their buffers.
const KEPT_DECODERS: usize = 8;

/// A run of chunks that is read at once.
#[derive(Clone, Debug)]
pub(crate) struct Piece {
    pub(crate) copy: CopyName,
    pub(crate) footer: Arc<XorbFooter>,
    pub(crate) chunks: Range<u32>,
    /// Where the run lies in the copy.
    pub(crate) place: Range<u64>,
}

impl Piece {
    /// These chunks of a copy, if it has them.
    pub(crate) fn new(
        copy: CopyName,
        footer: &Arc<XorbFooter>,
        chunks: Range<u32>,
    ) -> Result<Self> {
        let place = footer.byte_range(chunks.clone());
        let place = place.map_err(|error| {
            let xorb = footer.hash();
            Error::corrupt(format!("a manifest names chunks of `{xorb}`: {error}"))
        })?;
        let footer = Arc::clone(footer);
        Ok(Self { copy, footer, chunks, place })
    }

    /// Serialized bytes.
    pub(crate) fn serialized_bytes(&self) -> u64 {
        self.place.end - self.place.start
    }

    /// Bytes of the chunks themselves.
    pub(crate) fn plain_bytes(&self) -> u64 {
        let start = |index| u64::from(self.footer.uncompressed_start(index));
        start(self.chunks.end) - start(self.chunks.start)
    }

    /// What it takes in memory, serialized and decoded, or as one where nothing is compressed.
    pub(crate) fn bytes_in_memory(&self) -> u64 {
        self.serialized_bytes().max(self.plain_bytes())
    }

    /// Whether no chunk of it is compressed.
    fn is_plain(&self) -> bool {
        let headers = ChunkHeader::BYTES as u64 * u64::from(self.chunks.end - self.chunks.start);
        self.serialized_bytes() == self.plain_bytes() + headers
    }

    /// Whether it is the same run of the same copy.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.copy == other.copy && self.chunks == other.chunks
    }

    /// Its chunks one after another, from its serialized bytes. Those that are not compressed are
    /// slices of these.
    pub(crate) fn decode(
        &self,
        serialized: &Bytes,
        verify: bool,
        decoder: &mut ChunkDecoder,
    ) -> ballast_format::Result<Vec<Bytes>> {
        let mut decoded = Vec::new();
        let (mut joined, mut left) = (BytesMut::new(), self.plain_bytes());
        let mut rest = serialized.clone();
        for index in self.chunks.clone() {
            let length = self.footer.chunk_length(index);
            let serialized = rest.split_to(self.footer.serialized_chunk_length(index) as usize);
            if let Some(chunk) = plain_chunk(&serialized, length)? {
                if verify {
                    check(&chunk, self.footer.chunk_hash(index))?;
                }
                if !joined.is_empty() {
                    decoded.push(joined.split().freeze());
                }
                decoded.push(chunk);
            } else {
                if joined.capacity() == 0 {
                    joined.reserve(usize::try_from(left).unwrap_or_default());
                }
                let chunks = index..index + 1;
                decoder.decode_chunks(&serialized, &self.footer, chunks, verify, |chunk| {
                    joined.extend_from_slice(chunk);
                    Ok(())
                })?;
            }
            left -= u64::from(length);
        }
        if !joined.is_empty() {
            decoded.push(joined.freeze());
        }
        Ok(decoded)
    }
}

/// The chunk, if its payload is it. All else is left to the decoder to judge.
fn plain_chunk(serialized: &Bytes, length: u32) -> ballast_format::Result<Option<Bytes>> {
    let Some(header) = serialized.first_chunk() else {
        return Ok(None);
    };
    let header = ChunkHeader::decode(header)?;
    let is_plain = header.compression == Compression::None
        && header.uncompressed_length == length
        && header.serialized_length() == serialized.len();
    Ok(is_plain.then(|| serialized.slice(ChunkHeader::BYTES..)))
}

fn check(chunk: &[u8], expected: ChunkHash) -> ballast_format::Result<()> {
    let actual = ChunkHash::of(chunk);
    if actual == expected {
        return Ok(());
    }
    Err(ballast_format::Error::HashMismatch {
        what: "stored chunk",
        expected: expected.to_string(),
        actual: actual.to_string(),
    })
}

/// The end of the run of about so many serialized bytes that begins with chunk `first` and stays
/// below `limit`; one chunk at least.
pub(crate) fn run_end(footer: &XorbFooter, first: u32, limit: u32, bytes: u64) -> u32 {
    let (mut end, mut length) = (first, 0);
    while end < limit {
        length += u64::from(footer.serialized_chunk_length(end));
        if end > first && length > bytes {
            break;
        }
        end += 1;
    }
    end
}

/// Decoders that are not in use: making one costs as much as a small piece.
#[derive(Debug, Default)]
pub(crate) struct Decoders(Mutex<Vec<ChunkDecoder>>);

impl Decoders {
    pub(crate) fn take(&self) -> ChunkDecoder {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.pop().unwrap_or_default()
    }

    pub(crate) fn give_back(&self, decoder: ChunkDecoder) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < KEPT_DECODERS {
            kept.push(decoder);
        }
    }
}

impl Hub {
    /// The serialized bytes of a piece, as they are in the store.
    pub(crate) async fn get_piece(&self, piece: &Piece) -> Result<Bytes> {
        let key = Key::Copy(piece.copy);
        let bytes = self.store().get_range(&key, piece.place.clone()).await;
        bytes.map_err(|error| self.note_damage(&piece.copy, error.into()))
    }

    /// The serialized bytes of a piece, whose chunks are sound.
    pub(crate) async fn read_piece(&self, piece: &Piece) -> Result<Bytes> {
        let bytes = self.get_piece(piece).await?;
        if self.must_hash(piece) {
            self.decode_on_pool(piece, bytes.clone(), true).await?;
        }
        Ok(bytes)
    }

    /// The chunks of a piece, one after another; all of them are sound.
    pub(crate) async fn decode_piece(
        &self,
        piece: &Piece,
        serialized: Bytes,
    ) -> Result<Vec<Bytes>> {
        let verify = self.must_hash(piece);
        if !verify && piece.is_plain() {
            // Nothing but headers to look at: the pool would cost more.
            let decoded = piece.decode(&serialized, false, &mut ChunkDecoder::new());
            return decoded.map_err(|error| self.note_damage(&piece.copy, damaged(piece, &error)));
        }
        self.decode_on_pool(piece, serialized, verify).await
    }

    /// Whether its chunks were not hashed since the start, or are in a copy that is damaged
    /// somewhere: then they are hashed each time.
    fn must_hash(&self, piece: &Piece) -> bool {
        let sound = self.sound(&piece.copy, &piece.footer);
        !sound.has(piece.chunks.clone()) || self.distrusts(&piece.copy)
    }

    async fn decode_on_pool(
        &self,
        piece: &Piece,
        serialized: Bytes,
        verify: bool,
    ) -> Result<Vec<Bytes>> {
        let (run, mut decoder) = (piece.clone(), self.caches.decoders.take());
        let (decoded, decoder) = self
            .pool()
            .run(move || (run.decode(&serialized, verify, &mut decoder), decoder))
            .await?;
        self.caches.decoders.give_back(decoder);
        let decoded =
            decoded.map_err(|error| self.note_damage(&piece.copy, damaged(piece, &error)))?;
        if verify {
            let sound = self.sound(&piece.copy, &piece.footer);
            sound.add(piece.chunks.clone());
        }
        Ok(decoded)
    }

    /// If this error means that a copy is damaged or gone, it is not read any more as long as
    /// there is another; the error says which it was.
    pub(crate) fn note_damage(&self, copy: &CopyName, error: Error) -> Error {
        use ballast_store::Error as Store;

        let what = match error {
            Error::Corrupt { what } => what,
            Error::Store(Store::NotFound { .. }) => {
                self.miss(copy);
                return Error::corrupt(format!("`{}` is gone", Key::Copy(*copy)));
            }
            Error::Store(error @ Store::Corrupt { .. }) => error.to_string(),
            other => return other,
        };
        self.distrust(copy, &what);
        Error::corrupt(what)
    }
}

/// What a decoder found, said of the copy.
pub(crate) fn damaged(piece: &Piece, error: &ballast_format::Error) -> Error {
    Error::corrupt(format!("`{}`: {error}", Key::Copy(piece.copy)))
}

#[cfg(test)]
mod tests {
    use ballast_format::chunk::split;
    use ballast_format::xorb::XorbWriter;
    use ballast_store::keyspace::CopyKind;
    use ballast_testkit::content::{bf16_weights, splitmix};

    use super::*;

    fn xorb_of(contents: &[Vec<u8>]) -> (Bytes, Arc<XorbFooter>, CopyName) {
        let mut writer = XorbWriter::new();
        for chunk in contents.iter().flat_map(|content| split(content)) {
            writer.push(chunk, ChunkHash::of(chunk));
        }
        let (bytes, footer) = writer.finish();
        let copy =
            CopyName { kind: CopyKind::Xorb, hash: *footer.hash().as_bytes(), epoch: 0, nonce: 1 };
        (bytes, Arc::new(footer), copy)
    }

    #[test]
    fn compressed_and_plain_chunks_come_out_in_order_and_plain_ones_are_not_copied() {
        let contents = [splitmix(1, 300_000), bf16_weights(2, 300_000), splitmix(3, 100_000)];
        let (bytes, footer, copy) = xorb_of(&contents);
        let piece = Piece::new(copy, &footer, 0..footer.chunk_count()).expect("all of it");
        let decoded = piece.decode(&bytes, true, &mut ChunkDecoder::new());
        let decoded = decoded.expect("it is sound");
        assert_eq!(decoded.concat(), contents.concat());
        let inside = bytes.as_ptr_range();
        let shared = |chunk: &&Bytes| inside.contains(&chunk.as_ptr());
        assert!(shared(&decoded.first().expect("some")) && shared(&decoded.last().expect("some")));
        assert_eq!(decoded.iter().filter(|chunk| !shared(chunk)).count(), 1, "joined");
    }

    #[test]
    fn a_flipped_bit_in_a_plain_chunk_is_found_and_only_where_it_is_looked_for() {
        let (bytes, footer, copy) = xorb_of(&[splitmix(1, 300_000)]);
        let mut bytes = bytes.to_vec();
        bytes[1000] ^= 4;
        let bytes = Bytes::from(bytes);
        let piece = Piece::new(copy, &footer, 0..footer.chunk_count()).expect("all of it");
        let mut decoder = ChunkDecoder::new();
        assert!(piece.decode(&bytes, true, &mut decoder).is_err());
        assert!(piece.decode(&bytes, false, &mut decoder).is_ok());
        let later = Piece::new(copy, &footer, 1..2).expect("a chunk");
        let place = usize::try_from(later.place.start).expect("small")
            ..usize::try_from(later.place.end).expect("small");
        assert!(later.decode(&bytes.slice(place), true, &mut decoder).is_ok());
    }

    #[test]
    fn runs_cover_all_chunks_and_keep_to_the_size() {
        let (_, footer, _) = xorb_of(&[splitmix(1, 3_000_000)]);
        let (mut first, mut runs) = (0, 0);
        while first < footer.chunk_count() {
            let end = run_end(&footer, first, footer.chunk_count(), 200_000);
            let place = footer.byte_range(first..end).expect("a run");
            assert!(end > first && place.end - place.start <= 200_000);
            (first, runs) = (end, runs + 1);
        }
        assert!(runs >= 15);
        assert_eq!(run_end(&footer, 3, 10, 0), 4, "one chunk at least");
    }
}
