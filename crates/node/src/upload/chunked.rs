//! A file that comes as plain bytes is cut, deduplicated and packed as a Xet client would do it.
//!
//! The steps that cost time run on the pool, in batches; between them the index is asked about
//! chunks that may be known. What is found brings the chunks of a whole file into reach, so that a
//! second version matches from its first known chunk on.

use std::collections::HashMap;
use std::ops::Range;

use ballast_format::chunk::Chunker;
use ballast_format::hash::{ChunkHash, FileHash, Sha256, XorbHash};
use ballast_format::hash_tree::FileHasher;
use ballast_format::limits::MAX_CHUNK_BYTES;
use ballast_format::manifest::{Sample, Term};
use ballast_format::xorb::{XorbFooter, XorbWriter};
use bytes::Bytes;
use sha2::Digest as _;

use crate::error::{Error, Result};

/// Chunks whose places are remembered for one file: some 32 GB of known content.
const KNOWN_CHUNKS: usize = 500_000;
/// One chunk in so many may be known to the index, besides each file's first.
const SAMPLE_EVERY: u64 = 1024;

/// A chunk that was cut.
pub(super) struct Cut {
    pub(super) hash: ChunkHash,
    pub(super) bytes: Bytes,
    /// Whether the index may know it.
    pub(super) is_sample: bool,
}

/// The sequential half: hashing and cutting.
pub(super) struct Cutter {
    sha256: sha2::Sha256,
    chunker: Chunker,
    open: Vec<u8>,
    size: u64,
    is_first: bool,
}

impl Cutter {
    pub(super) fn new() -> Self {
        Self {
            sha256: sha2::Sha256::new(),
            chunker: Chunker::new(),
            open: Vec::with_capacity(MAX_CHUNK_BYTES),
            size: 0,
            is_first: true,
        }
    }

    /// Takes in the next bytes; the chunks that they complete.
    pub(super) fn feed(&mut self, bytes: &Bytes) -> Vec<Cut> {
        self.sha256.update(bytes);
        self.size += bytes.len() as u64;
        let mut cuts = Vec::new();
        let mut rest = bytes.clone();
        while let Some(end) = self.chunker.next_boundary(&rest) {
            let piece = rest.split_to(end);
            let chunk = if self.open.is_empty() {
                piece
            } else {
                self.open.extend_from_slice(&piece);
                Bytes::from(std::mem::replace(&mut self.open, Vec::with_capacity(MAX_CHUNK_BYTES)))
            };
            cuts.push(self.cut(chunk));
        }
        self.open.extend_from_slice(&rest);
        cuts
    }

    fn cut(&mut self, bytes: Bytes) -> Cut {
        let hash = ChunkHash::of(&bytes);
        let is_sample = std::mem::take(&mut self.is_first) || hash.modulo(SAMPLE_EVERY) == 0;
        Cut { hash, bytes, is_sample }
    }

    /// The last chunk, the SHA-256 and the size.
    pub(super) fn finish(mut self) -> (Option<Cut>, Sha256, u64) {
        let open = Bytes::from(std::mem::take(&mut self.open));
        let last = (!open.is_empty()).then(|| self.cut(open));
        (last, Sha256::from_bytes(self.sha256.finalize().into()), self.size)
    }
}

/// Where a chunk is: in a xorb that is stored, or in one of those being packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Stored(XorbHash),
    Packed(usize),
}

/// The other half: placing chunks, in order.
pub(super) struct Placer {
    known: HashMap<ChunkHash, (Place, u32)>,
    writer: XorbWriter,
    /// The hashes of the xorbs that are packed so far.
    packed: Vec<XorbHash>,
    terms: Vec<(Place, Range<u32>, u32)>,
    samples: Vec<(ChunkHash, Place, u32)>,
    hasher: FileHasher,
}

/// A xorb that is ready to be stored.
pub(super) type Packed = (Bytes, XorbFooter);

impl Placer {
    pub(super) fn new() -> Self {
        Self {
            known: HashMap::new(),
            writer: XorbWriter::new(),
            packed: Vec::new(),
            terms: Vec::new(),
            samples: Vec::new(),
            hasher: FileHasher::new(),
        }
    }

    pub(super) fn knows(&self, chunk: &ChunkHash) -> bool {
        self.known.contains_key(chunk)
    }

    /// The chunks of a stored xorb need not be stored again.
    pub(super) fn learn(&mut self, footer: &XorbFooter) {
        for (index, chunk) in (0..).zip(footer.chunk_hashes()) {
            if self.known.len() >= KNOWN_CHUNKS {
                return;
            }
            self.known.entry(*chunk).or_insert((Place::Stored(footer.hash()), index));
        }
    }

    /// Places chunks; the xorbs that became full.
    pub(super) fn place(&mut self, cuts: &[Cut]) -> Vec<Packed> {
        let mut full = Vec::new();
        for cut in cuts {
            let (place, index) = match self.known.get(&cut.hash) {
                Some(known) => *known,
                None => {
                    if self.writer.is_full_for(cut.bytes.len()) {
                        full.push(self.pack());
                    }
                    let index = self.writer.push(&cut.bytes, cut.hash);
                    let place = (Place::Packed(self.packed.len()), index);
                    if self.known.len() < KNOWN_CHUNKS {
                        self.known.insert(cut.hash, place);
                    }
                    place
                }
            };
            self.append(cut, place, index);
        }
        full
    }

    fn append(&mut self, cut: &Cut, place: Place, index: u32) {
        let length = u32::try_from(cut.bytes.len()).expect("a chunk is small");
        self.hasher.push(&cut.hash, u64::from(length));
        if cut.is_sample {
            self.samples.push((cut.hash, place, index));
        }
        match self.terms.last_mut() {
            Some((of, chunks, bytes)) if *of == place && chunks.end == index => {
                chunks.end += 1;
                *bytes += length;
            }
            _ => self.terms.push((place, index..index + 1, length)),
        }
    }

    fn pack(&mut self) -> Packed {
        let (bytes, footer) = std::mem::take(&mut self.writer).finish();
        self.packed.push(footer.hash());
        (bytes, footer)
    }

    /// The last xorb, and the file.
    pub(super) fn finish(mut self) -> Result<(Option<Packed>, FileHash, Vec<Term>, Vec<Sample>)> {
        let last = (!self.writer.is_empty()).then(|| self.pack());
        let packed = self.packed;
        let xorb = |place: &Place| match place {
            Place::Stored(xorb) => Ok(*xorb),
            Place::Packed(number) => packed
                .get(*number)
                .copied()
                .ok_or_else(|| Error::internal("a chunk is in a xorb that was never packed")),
        };
        let term = |(place, chunks, length): &(Place, Range<u32>, u32)| {
            Ok(Term { xorb: xorb(place)?, chunks: chunks.clone(), length: *length })
        };
        let sample = |(chunk, place, index): &(ChunkHash, Place, u32)| {
            Ok(Sample { chunk: *chunk, xorb: xorb(place)?, index: *index })
        };
        let terms = self.terms.iter().map(term).collect::<Result<_>>()?;
        let samples = self.samples.iter().map(sample).collect::<Result<_>>()?;
        Ok((last, self.hasher.finish(), terms, samples))
    }
}
