//! A file that comes as plain bytes is cut, deduplicated and packed as a Xet client would do it.
//!
//! [`Cutter`] hashes and cuts, [`Placer`] finds a place for each chunk: where it is known to be, or
//! in a xorb of the file's own. Both are for the pool; between them the index is asked about chunks
//! that may be known.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use ballast_format::chunk::Chunker;
use ballast_format::hash::{ChunkHash, FileHash, Sha256, XorbHash};
use ballast_format::hash_tree::FileHasher;
use ballast_format::limits::{MAX_CHUNK_BYTES, MAX_SHARD_SAMPLES};
use ballast_format::manifest::{Sample, Term};
use ballast_format::xorb::{XorbFooter, XorbWriter};
use bytes::Bytes;
use quick_cache::unsync::Cache;
use sha2::Digest as _;

use super::growing::{Growing, Place};
use super::is_sample;
use super::packing::{Packing, Room};
use super::scope::Reach;
use crate::error::{Error, Result};

/// Chunks whose places are remembered for one file: 2 GB of it or of what it resembles, in 3 MB
/// of memory.
const KNOWN_CHUNKS: usize = 32_768;
/// Terms of one file: what a manifest has room for.
const MOST_TERMS: usize = 1_500_000;

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
            open: Vec::new(),
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
                Bytes::from(std::mem::take(&mut self.open))
            };
            cuts.push(self.cut(chunk));
        }
        if self.open.capacity() == 0 && !rest.is_empty() {
            self.open.reserve(MAX_CHUNK_BYTES);
        }
        self.open.extend_from_slice(&rest);
        cuts
    }

    fn cut(&mut self, bytes: Bytes) -> Cut {
        let hash = ChunkHash::of(&bytes);
        let is_sample = std::mem::take(&mut self.is_first) || is_sample(&hash);
        Cut { hash, bytes, is_sample }
    }

    /// The last chunk, the SHA-256 and the size.
    pub(super) fn finish(mut self) -> (Option<Cut>, Sha256, u64) {
        let open = Bytes::from(std::mem::take(&mut self.open));
        let last = (!open.is_empty()).then(|| self.cut(open));
        let sha256 = Sha256::from_bytes(self.sha256.finalize().into());
        (last, sha256, self.size)
    }
}

/// A stored xorb that the file uses from its first chunk to its last.
struct Whole {
    footer: Arc<XorbFooter>,
    /// Its chunk that comes next, and where in the file that is.
    next: u32,
    at: u64,
}

impl Whole {
    fn has_ended(&self) -> bool {
        self.next == self.footer.chunk_count()
    }
}

/// The other half: placing chunks, in order.
pub(super) struct Placer {
    /// Where the next chunk is in the file.
    at: u64,
    /// What begins there or later.
    whole: VecDeque<Whole>,
    known: Cache<ChunkHash, (Place, u32)>,
    writer: XorbWriter,
    room: Room,
    growing: Arc<Growing>,
    samples: Vec<(ChunkHash, Place, u32)>,
    /// The chunks in `samples`: one is enough of each.
    sampled: HashSet<ChunkHash>,
    hasher: FileHasher,
    /// The stored xorb that gave the last match.
    matched: Option<XorbHash>,
}

/// A xorb that is ready to be stored, with the room that it takes until it is.
pub(super) struct Packed {
    pub(super) bytes: Bytes,
    pub(super) footer: XorbFooter,
    pub(super) room: Room,
}

/// A file of which every chunk has a place.
pub(super) struct Placed {
    /// The last xorb.
    pub(super) last: Option<Packed>,
    pub(super) file: FileHash,
    pub(super) terms: Vec<Term>,
    pub(super) samples: Vec<Sample>,
}

impl Placer {
    /// Places the chunks of this file.
    pub(super) fn new(packing: &Packing, growing: Arc<Growing>) -> Self {
        Self {
            at: 0,
            whole: VecDeque::new(),
            known: Cache::new(KNOWN_CHUNKS),
            writer: XorbWriter::new(),
            room: packing.room(),
            growing,
            samples: Vec::new(),
            sampled: HashSet::new(),
            hasher: FileHasher::new(),
            matched: None,
        }
    }

    pub(super) fn knows(&self, chunk: &ChunkHash) -> bool {
        self.known.peek(chunk).is_some()
    }

    /// Those chunks of a stored xorb that are within reach need not be stored again.
    pub(super) fn learn(&mut self, footer: &XorbFooter, reach: &Reach) {
        for (index, chunk) in (0..).zip(footer.chunk_hashes()) {
            if !self.knows(chunk) && reach.holds(&(index..index + 1)) {
                let place = Place::Stored(footer.hash());
                self.known.insert(*chunk, (place, index));
            }
        }
    }

    /// The chunks of this stored xorb come one after another, from this byte of the file on.
    pub(super) fn expect(&mut self, footer: Arc<XorbFooter>, at: u64) {
        self.whole.push_back(Whole { footer, next: 0, at });
    }

    /// The place of a chunk in a xorb that was expected here.
    fn expected(&mut self, cut: &Cut) -> Option<(Place, u32)> {
        while let Some(Whole { footer, next, at }) = self.whole.front_mut()
            && *at <= self.at
        {
            if *at == self.at
                && *next < footer.chunk_count()
                && footer.chunk_hash(*next) == cut.hash
            {
                let found = (Place::Stored(footer.hash()), *next);
                let length = cut.bytes.len() as u64;
                (*next, *at) = (*next + 1, *at + length);
                self.known.insert(cut.hash, found);
                self.growing.count_kept(length);
                return Some(found);
            }
            // Its chunks are not those of clients.
            self.whole.pop_front();
        }
        None
    }

    /// The stored xorb of the last match since this was asked.
    pub(super) fn take_matched(&mut self) -> Option<XorbHash> {
        self.matched.take()
    }

    /// Places chunks; the xorbs that became full.
    pub(super) fn place(&mut self, cuts: &[Cut]) -> Result<Vec<Packed>> {
        let mut full = Vec::new();
        for cut in cuts {
            let known = self.expected(cut).or_else(|| self.known.get(&cut.hash).copied());
            let (place, index) = match known {
                Some(known) => known,
                None => self.pack(cut, &mut full),
            };
            if let Place::Stored(xorb) = place {
                self.matched = Some(xorb);
            }
            self.append(cut, place, index)?;
        }
        if !self.writer.is_empty() && self.growing.is_late() {
            full.push(self.close());
        }
        Ok(full)
    }

    /// Puts a chunk into the xorb at hand.
    fn pack(&mut self, cut: &Cut, full: &mut Vec<Packed>) -> (Place, u32) {
        let length = cut.bytes.len();
        let is_full = self.writer.is_full_for(length)
            || !self.room.holds(self.writer.len() + length) && !self.writer.is_empty();
        if is_full {
            full.push(self.close());
        }
        let place = self.growing.at_hand(self.writer.is_empty());
        let index = self.writer.push(&cut.bytes, cut.hash);
        self.known.insert(cut.hash, (place, index));
        (place, index)
    }

    fn append(&mut self, cut: &Cut, place: Place, index: u32) -> Result<()> {
        let length = u32::try_from(cut.bytes.len()).expect("a chunk is small");
        self.hasher.push(&cut.hash, u64::from(length));
        self.at += u64::from(length);
        let has_room = (self.samples.len() as u64) < MAX_SHARD_SAMPLES;
        if cut.is_sample && has_room && self.sampled.insert(cut.hash) {
            self.samples.push((cut.hash, place, index));
        }
        let terms = self.growing.append(place, index, length);
        if self.whole.front().is_some_and(Whole::has_ended) {
            self.whole.pop_front();
            self.growing.end_term();
        }
        if terms > MOST_TERMS {
            return Err(Error::TooLarge {
                what: "the list of what the file is made of".to_owned(),
                size: terms as u64,
                limit: MOST_TERMS as u64,
            });
        }
        Ok(())
    }

    fn close(&mut self) -> Packed {
        let (bytes, footer) = std::mem::take(&mut self.writer).finish();
        self.growing.close(footer.hash());
        let room = self.room.take();
        Packed { bytes, footer, room }
    }

    /// The last xorb, and the file.
    pub(super) fn finish(mut self) -> Result<Placed> {
        let last = (!self.writer.is_empty()).then(|| self.close());
        let sample = |(chunk, place, index): &(ChunkHash, Place, u32)| {
            Ok(Sample { chunk: *chunk, xorb: self.growing.xorb(*place)?, index: *index })
        };
        let samples = self.samples.iter().map(sample).collect::<Result<_>>()?;
        let terms = self.growing.terms()?;
        let file = self.hasher.finish();
        Ok(Placed { last, file, terms, samples })
    }
}

#[cfg(test)]
mod tests {
    use ballast_format::chunk::split;
    use ballast_format::hash_tree::file_hash;
    use ballast_format::limits::MAX_XORB_BYTES;
    use ballast_testkit::clock::Dice;
    use ballast_testkit::content::splitmix;
    use futures_util::FutureExt as _;

    use super::*;

    fn cuts_of(content: &[u8], seed: u64) -> (Vec<Cut>, Sha256, u64) {
        let (mut cutter, mut dice) = (Cutter::new(), Dice::new(seed));
        let (mut cuts, mut rest) = (Vec::new(), Bytes::copy_from_slice(content));
        while !rest.is_empty() {
            let length = usize::try_from(dice.below(300_000) + 1).expect("small");
            cuts.extend(cutter.feed(&rest.split_to(length.min(rest.len()))));
        }
        let (last, sha256, size) = cutter.finish();
        cuts.extend(last);
        (cuts, sha256, size)
    }

    fn placer_of(packing: &Packing) -> Placer {
        Placer::new(packing, Arc::default())
    }

    fn expected_hash(content: &[u8]) -> FileHash {
        file_hash(split(content).map(|chunk| (ChunkHash::of(chunk), chunk.len() as u64)))
    }

    #[test]
    fn chunks_are_those_of_a_client_however_the_bytes_arrive() {
        let content = splitmix(5, 3_000_000);
        for seed in 0..5 {
            let (cuts, sha256, size) = cuts_of(&content, seed);
            assert!(split(&content).eq(cuts.iter().map(|cut| &cut.bytes[..])));
            assert_eq!(size, 3_000_000);
            assert_eq!(sha256, crate::rig::sha256(&content));
            assert!(cuts[0].is_sample);
        }
    }

    #[test]
    fn a_chunk_that_comes_again_is_placed_where_it_is() -> Result<()> {
        let once = splitmix(5, 1_000_000);
        // The chunks of the second half resynchronise with those of the first.
        let content = [once.as_slice(), &once].concat();
        let (cuts, ..) = cuts_of(&content, 1);
        let mut placer = placer_of(&Packing::new());
        assert!(placer.place(&cuts)?.is_empty());
        let placed = placer.finish()?;
        assert_eq!(placed.file, expected_hash(&content));
        let last = placed.last.expect("one xorb");
        assert!(last.footer.total_length() < 1_300_000);
        let length: u64 = placed.terms.iter().map(|term| u64::from(term.length)).sum();
        assert_eq!(length, 2_000_000);
        Ok(())
    }

    #[test]
    fn a_sample_that_comes_again_is_kept_once() -> Result<()> {
        // One chunk over and over, and it is the file's first.
        let (cuts, ..) = cuts_of(&vec![0; 20 * MAX_CHUNK_BYTES], 1);
        let cuts: Vec<Cut> = cuts.into_iter().map(|cut| Cut { is_sample: true, ..cut }).collect();
        let mut placer = placer_of(&Packing::new());
        placer.place(&cuts)?;
        assert_eq!(placer.finish()?.samples.len(), 1);
        Ok(())
    }

    #[test]
    fn xorbs_end_where_the_next_chunk_does_not_fit_and_name_no_chunk_twice() -> Result<()> {
        let content = splitmix(6, MAX_XORB_BYTES + 5_000_000);
        let (cuts, ..) = cuts_of(&content, 1);
        let mut placer = placer_of(&Packing::new());
        let full = placer.place(&cuts)?;
        let placed = placer.finish()?;
        let [full] = &full[..] else { panic!("{} are full", full.len()) };
        let last = placed.last.expect("the rest");
        assert_eq!(placed.terms.len(), 2);
        assert_eq!(placed.terms[0].xorb, full.footer.hash());
        assert_eq!(placed.terms[1].xorb, last.footer.hash());
        assert!(full.footer.total_length() as usize > MAX_XORB_BYTES - MAX_CHUNK_BYTES);
        assert_eq!(placed.file, expected_hash(&content));
        Ok(())
    }

    #[test]
    fn a_xorb_that_somebody_waits_for_is_closed_though_little_is_new() -> Result<()> {
        let bytes = Bytes::from(vec![0; MAX_CHUNK_BYTES]);
        let cut = || Cut { hash: ChunkHash::of(&bytes), bytes: bytes.clone(), is_sample: false };
        let cuts: Vec<Cut> = std::iter::repeat_with(cut).take(1100).collect();
        for (is_followed, closed) in [(false, 0), (true, 1)] {
            let growing = Arc::new(Growing::default());
            let mut placer = Placer::new(&Packing::new(), Arc::clone(&growing));
            if is_followed {
                assert!(growing.part(&(0..1)).now_or_never().is_none());
            }
            assert_eq!(placer.place(&cuts)?.len(), closed);
            assert_eq!(placer.place(&cuts)?.len(), 0, "nothing more is new");
        }
        Ok(())
    }

    #[test]
    fn chunks_of_a_whole_xorb_are_placed_in_it_however_many_it_has() -> Result<()> {
        let content = splitmix(7, 4_000_000);
        let (cuts, ..) = cuts_of(&content, 1);
        let xorb_of = |cuts: &[Cut]| {
            let mut writer = XorbWriter::new();
            for cut in cuts {
                writer.push(&cut.bytes, cut.hash);
            }
            Arc::new(writer.finish().1)
        };
        let at = |index: usize| cuts[..index].iter().map(|cut| cut.bytes.len() as u64).sum();
        let (first, second) = (xorb_of(&cuts[3..20]), xorb_of(&cuts[20..30]));
        let growing = Arc::new(Growing::default());
        let mut placer = Placer::new(&Packing::new(), Arc::clone(&growing));
        // One that never comes is in nobody's way.
        placer.expect(Arc::clone(&second), at(2));
        placer.expect(Arc::clone(&first), at(3));
        placer.expect(Arc::clone(&second), at(20));
        placer.place(&cuts)?;
        let placed = placer.finish()?;
        let last = placed.last.expect("the rest");
        assert_eq!(last.footer.chunk_count() as usize, cuts.len() - 27);
        let terms = placed.terms.iter().map(|term| (term.xorb, term.chunks.clone()));
        let own = last.footer.hash();
        assert_eq!(
            terms.collect::<Vec<_>>(),
            [
                (own, 0..3),
                (first.hash(), 0..17),
                (second.hash(), 0..10),
                (own, 3..last.footer.chunk_count()),
            ]
        );
        assert_eq!(growing.kept_bytes(), at(30) - at(3));
        Ok(())
    }

    #[test]
    fn where_there_is_no_room_xorbs_are_small() -> Result<()> {
        let packing = Packing::new();
        let others: Vec<_> = std::iter::from_fn(|| {
            let mut room = packing.room();
            room.holds(4 << 20).then_some(room)
        })
        .collect();
        let (cuts, ..) = cuts_of(&splitmix(6, 3_000_000), 1);
        let mut placer = placer_of(&packing);
        assert!(placer.place(&cuts)?.len() >= 4);
        drop((placer, others));
        let mut placer = placer_of(&packing);
        assert!(placer.place(&cuts)?.is_empty());
        Ok(())
    }
}
