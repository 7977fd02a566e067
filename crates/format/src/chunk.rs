//! Cuts content into chunks where the content itself says so.
//!
//! The boundaries are those of Xet clients, bit for bit: a gear hash over the last 64 bytes, at
//! least [`MIN_CHUNK_BYTES`] and at most [`MAX_CHUNK_BYTES`] in a chunk. They depend on the content
//! only, never on the pieces in which it arrives. Bytes are looked at, not kept.

use crate::limits::{MAX_CHUNK_BYTES, MIN_CHUNK_BYTES, TARGET_CHUNK_BYTES};

/// A chunk ends where these bits of the hash are zero: as many as give chunks of the target size,
/// and the topmost, since only they have seen the whole window.
const MASK: u64 = (TARGET_CHUNK_BYTES as u64 - 1) << (u64::BITS - TARGET_CHUNK_BYTES.ilog2());

/// A byte leaves the 64 bits of the hash after as many shifts.
const WINDOW_BYTES: usize = 64;

/// No boundary can lie in these bytes at a chunk's start, nor does a later one depend on them.
const SKIP_BYTES: usize = MIN_CHUNK_BYTES - WINDOW_BYTES - 1;

/// Finds chunk boundaries in content that arrives piece by piece.
#[derive(Clone, Debug, Default)]
pub struct Chunker {
    gear: gearhash::Hasher<'static>,
    /// Bytes of the open chunk that were seen in earlier pieces.
    length: usize,
}

impl Chunker {
    /// Starts at the beginning of a file.
    pub fn new() -> Self {
        Self::default()
    }

    /// `Some(n)`: the open chunk ends after `n` bytes of `piece`, and the rest belongs to chunks
    /// that follow. `None`: all of `piece` belongs to the open chunk.
    ///
    /// What is open at the end of a file is its last chunk, unless it is [empty](Self::length).
    pub fn next_boundary(&mut self, piece: &[u8]) -> Option<usize> {
        let end = piece.len().min(MAX_CHUNK_BYTES - self.length);
        let mut at = SKIP_BYTES.saturating_sub(self.length).min(end);
        while let Some(n) = self.gear.next_match(&piece[at..end], MASK) {
            at += n;
            // An earlier match does not count, and the hash goes on as if there had been none.
            if self.length + at >= MIN_CHUNK_BYTES {
                return Some(self.cut(at));
            }
        }
        if self.length + end == MAX_CHUNK_BYTES {
            return Some(self.cut(end));
        }
        self.length += piece.len();
        None
    }

    /// The bytes of the open chunk so far.
    pub fn length(&self) -> usize {
        self.length
    }

    fn cut(&mut self, at: usize) -> usize {
        self.gear.set_hash(0);
        self.length = 0;
        at
    }
}

/// The chunks of content that is at hand as a whole.
pub fn split(content: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut chunker = Chunker::new();
    let mut rest = content;
    std::iter::from_fn(move || {
        let end = chunker.next_boundary(rest).unwrap_or(rest.len());
        let (chunk, behind) = rest.split_at(end);
        rest = behind;
        (!chunk.is_empty()).then_some(chunk)
    })
}

#[cfg(test)]
mod tests {
    use crate::content::{repetitive, splitmix};
    use proptest::prelude::*;

    use super::*;
    use crate::hash::ChunkHash;

    /// The rules, read one by one and slowly.
    fn slow_lengths(content: &[u8]) -> Vec<usize> {
        let mut lengths = Vec::new();
        let (mut start, mut hash) = (0, 0_u64);
        for (i, byte) in content.iter().enumerate() {
            let length = i + 1 - start;
            if length <= 8127 {
                continue;
            }
            hash = (hash << 1).wrapping_add(gearhash::DEFAULT_TABLE[usize::from(*byte)]);
            if (hash & 0xffff_0000_0000_0000 == 0 && length >= 8192) || length == 131_072 {
                lengths.push(length);
                (start, hash) = (i + 1, 0);
            }
        }
        if start < content.len() {
            lengths.push(content.len() - start);
        }
        lengths
    }

    fn lengths(content: &[u8]) -> Vec<usize> {
        split(content).map(<[u8]>::len).collect()
    }

    fn lengths_in_pieces(content: &[u8], mut sizes: impl Iterator<Item = usize>) -> Vec<usize> {
        let mut chunker = Chunker::new();
        let (mut lengths, mut open, mut at) = (Vec::new(), 0, 0);
        while at < content.len() {
            let size = sizes.next().unwrap_or(usize::MAX).min(content.len() - at);
            let mut piece = &content[at..at + size];
            at += size;
            while let Some(n) = chunker.next_boundary(piece) {
                lengths.push(open + n);
                open = 0;
                piece = &piece[n..];
            }
            open += piece.len();
            assert_eq!(chunker.length(), open);
        }
        lengths.extend((open > 0).then_some(open));
        lengths
    }

    #[test]
    fn constants_are_those_of_clients() {
        assert_eq!(MASK, 0xffff_0000_0000_0000);
        assert_eq!(SKIP_BYTES, 8127);
    }

    #[test]
    fn an_empty_file_has_no_chunks() {
        assert_eq!(lengths(b""), [0; 0]);
    }

    #[test]
    fn a_short_file_is_one_chunk() {
        assert_eq!(lengths(b"0"), [1]);
        assert_eq!(lengths(&splitmix(42, 8191)), [8191]);
    }

    #[test]
    fn zeros_are_cut_at_the_maximum() {
        assert_eq!(lengths(&vec![0; 1 << 20]), [131_072; 8]);
        assert_eq!(
            ChunkHash::of(&vec![0; 131_072]).to_string(),
            "2e39f13c248013b27e22913ba2893a654120ed0ad8eb7ecbf3f05b9d708634fc"
        );
    }

    #[test]
    fn chunks_of_random_bytes_are_those_of_clients() {
        let content = splitmix(42, 500_000);
        let chunks: Vec<_> =
            split(&content).map(|chunk| (chunk.len(), ChunkHash::of(chunk).to_string())).collect();
        let expected = [
            (56_712, "4813399acb4af849610fe521dcf7e2de10e1a77b9776d5fca7667b4a9a718768"),
            (17_916, "313733ec0c566529295d0d7f72386fc8e19ab96cc66ee9d9b81af49f1c38910e"),
            (31_842, "7d8dcb7413320332d4d07d2b6690f7644f5cbb69080268ed7d2037765d94fad7"),
            (28_823, "fb2abdbef229a06bc627b5057b1b9ee2dad2f1829779d4982de64b2e01031315"),
            (131_072, "273e7d13e3c020b0850ff6f5a48b56a8931921f0d994d9f389e73c602e895bc2"),
            (113_209, "3fe189fe91017eaf7d976135786dfe50f6a77ddda36ec8c11d8985845088a5df"),
            (35_563, "5440554dd6afeec67a86e500356663208242d5056a69a689ce975f566dc91424"),
            (84_863, "5b1eace72a89cb4f34a6e47abc63606553e8591412d2e0ed19c01f14a32e7a1f"),
        ];
        assert_eq!(chunks, expected.map(|(length, hash)| (length, hash.to_owned())));
    }

    #[test]
    fn an_insertion_at_the_front_changes_the_first_chunk_only() {
        let mut content = b"INSERTED-PREFIX!".to_vec();
        content.extend(splitmix(42, 500_000));
        let chunks: Vec<_> = split(&content).collect();
        assert_eq!(chunks[0].len(), 56_728);
        assert_eq!(
            ChunkHash::of(chunks[0]).to_string(),
            "edb5ae74d4452750bf5b5b1fb068bb6cf984d0b95ee06c330801fff092cabe35"
        );
        let original = splitmix(42, 500_000);
        assert_eq!(chunks[1..], split(&original).collect::<Vec<_>>()[1..]);
    }

    #[test]
    fn chunks_of_16_mib_are_those_of_clients() {
        let content = splitmix(7, 16 << 20);
        let chunks: Vec<_> = split(&content).collect();
        assert_eq!(chunks.len(), 265);
        let expect = |i: usize, length, hash: &str| {
            assert_eq!(
                (chunks[i].len(), ChunkHash::of(chunks[i]).to_string().as_str()),
                (length, hash)
            );
        };
        expect(0, 22_353, "e6029cadf2a6692699a7e839f134d0e6109a571f02feafbd53447a5d96cbde1b");
        expect(1, 16_397, "7591bf02617209c2172066ef6876d8cfe72760e60459a5ec971794d6250e7a51");
        expect(2, 131_072, "b2fdc18edb8bf5136a0cc510e466dbcd0eb5db915c97dd4355caae96dd95cf54");
        expect(264, 70_994, "a921146223e2ea0f7548a88a6ada0498f219f35b3d1abe9b371f3ad4ce6f7c7a");
        assert!(chunks.iter().all(|chunk| ChunkHash::of(chunk).modulo(1024) != 0));
    }

    /// Content whose first chunk has a match one byte before the minimum and another within the
    /// same window: only a hash that goes on finds the second.
    fn match_before_the_minimum() -> Vec<u8> {
        let matches = |tail: &[u8]| {
            let mut gear = gearhash::Hasher::default();
            gear.update(tail);
            gear.is_match(MASK)
        };
        let early = (0..1 << 22).map(|seed| splitmix(seed, 64)).find(|tail| matches(tail));
        let mut tail = early.expect("one in 65,536 matches");
        let late = (0..1 << 22).map(|seed| splitmix(seed, 8)).find(|more| {
            let all = [tail.as_slice(), more.as_slice()].concat();
            !(2..8).any(|n| matches(&all[..64 + n])) && matches(&all)
        });
        tail.extend(late.expect("one in 65,536 matches"));
        let mut content = vec![0; 8191 - 64];
        content.extend(tail);
        content.extend(splitmix(3, 50_000));
        content
    }

    #[test]
    fn a_match_before_the_minimum_neither_cuts_nor_resets() {
        let content = match_before_the_minimum();
        assert_eq!(lengths(&content)[0], 8191 + 8);
        assert_eq!(lengths(&content), slow_lengths(&content));
        for size in [1, 7, 8191, 8192, 8195] {
            assert_eq!(lengths_in_pieces(&content, std::iter::repeat(size)), lengths(&content));
        }
    }

    #[test]
    fn boundaries_follow_the_rules_on_long_content() {
        for content in [splitmix(1, 3 << 20), repetitive(9, 3 << 20)] {
            assert_eq!(lengths(&content), slow_lengths(&content));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn boundaries_do_not_depend_on_the_pieces(
            seed: u64,
            size in 0_usize..400_000,
            repeats: bool,
            pieces in prop::collection::vec(1_usize..70_000, 1..40),
        ) {
            let content = if repeats { repetitive(seed, size) } else { splitmix(seed, size) };
            let whole = lengths(&content);
            prop_assert_eq!(&whole, &slow_lengths(&content));
            prop_assert_eq!(lengths_in_pieces(&content, pieces.into_iter().cycle()), whole);
        }
    }
}
