//! Which chunks of a file: one bit for each.

use std::ops::Range;

/// A set of chunks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bits {
    words: Vec<u64>,
    count: u32,
    ones: u32,
}

impl Bits {
    /// None of `count` chunks.
    pub fn none(count: u32) -> Self {
        Self { words: vec![0; (count as usize).div_ceil(64)], count, ones: 0 }
    }

    /// All of `count` chunks.
    pub fn all(count: u32) -> Self {
        let mut bits = Self::none(count);
        bits.set(0..count);
        bits
    }

    /// From bytes, the lowest bit of the first one first; bits past the end count for nothing.
    pub fn from_bytes(count: u32, bytes: &[u8]) -> Self {
        let mut bits = Self::none(count);
        for (word, eight) in bits.words.iter_mut().zip(bytes.chunks(8)) {
            let mut whole = [0; 8];
            whole[..eight.len()].copy_from_slice(eight);
            *word = u64::from_le_bytes(whole);
        }
        if let Some(last) = bits.words.last_mut()
            && !count.is_multiple_of(64)
        {
            *last &= u64::MAX >> (64 - count % 64);
        }
        bits.ones = bits.words.iter().map(|word| word.count_ones()).sum();
        bits
    }

    /// The mirror of [`from_bytes`](Self::from_bytes).
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes: Vec<u8> = self.words.iter().flat_map(|word| word.to_le_bytes()).collect();
        bytes.truncate((self.count as usize).div_ceil(8));
        bytes
    }

    /// How many are in the set.
    pub fn ones(&self) -> u32 {
        self.ones
    }

    /// Whether all are.
    pub fn is_full(&self) -> bool {
        self.ones == self.count
    }

    /// Whether this one is.
    pub fn has(&self, chunk: u32) -> bool {
        chunk < self.count && self.words[chunk as usize / 64] >> (chunk % 64) & 1 == 1
    }

    /// Whether all of these are.
    pub fn has_all(&self, chunks: Range<u32>) -> bool {
        self.end_of_run(chunks.start, chunks.end) >= chunks.end
    }

    /// Puts these in; how many were not.
    pub fn set(&mut self, chunks: Range<u32>) -> u32 {
        let before = self.ones;
        self.for_words(chunks, |word, mask| *word |= mask);
        self.ones - before
    }

    /// Takes these out.
    pub fn clear(&mut self, chunks: Range<u32>) {
        self.for_words(chunks, |word, mask| *word &= !mask);
    }

    /// The first one from `start` on that is not in the set, up to `end`.
    pub fn end_of_run(&self, start: u32, end: u32) -> u32 {
        self.find(start, end, |word| !word)
    }

    /// The first one from `start` on that is in the set, up to `end`.
    pub fn end_of_gap(&self, start: u32, end: u32) -> u32 {
        self.find(start, end, |word| word)
    }

    fn find(&self, start: u32, end: u32, seen: impl Fn(u64) -> u64) -> u32 {
        let end = end.min(self.count);
        let mut at = start;
        while at < end {
            let ahead = seen(self.words[at as usize / 64]) >> (at % 64);
            if ahead != 0 {
                return (at + ahead.trailing_zeros()).min(end);
            }
            at = (at / 64 + 1) * 64;
        }
        end.max(start)
    }

    fn for_words(&mut self, chunks: Range<u32>, change: impl Fn(&mut u64, u64)) {
        let end = chunks.end.min(self.count);
        let mut at = chunks.start;
        while at < end {
            let stop = end.min((at / 64 + 1) * 64);
            let mask = (u64::MAX << (at % 64)) & (u64::MAX >> ((64 - stop % 64) % 64));
            let word = &mut self.words[at as usize / 64];
            let before = word.count_ones();
            change(word, mask);
            self.ones = self.ones + word.count_ones() - before;
            at = stop;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_set(count in 0_u32..300, steps in prop::collection::vec(
            (any::<bool>(), 0_u32..300, 0_u32..300), 0..20,
        )) {
            let (mut bits, mut set) = (Bits::none(count), BTreeSet::new());
            for (puts, from, to) in steps {
                let range = from.min(to)..from.max(to);
                let inside = range.clone().filter(|chunk| *chunk < count);
                if puts {
                    let new = inside.filter(|chunk| set.insert(*chunk)).count();
                    prop_assert_eq!(bits.set(range) as usize, new);
                } else {
                    bits.clear(range);
                    for chunk in inside {
                        set.remove(&chunk);
                    }
                }
            }
            prop_assert_eq!(bits.ones() as usize, set.len());
            prop_assert_eq!(bits.is_full(), set.len() == count as usize);
            prop_assert_eq!(&Bits::from_bytes(count, &bits.to_bytes()), &bits);
            for chunk in 0..count {
                prop_assert_eq!(bits.has(chunk), set.contains(&chunk));
                let gap = (chunk..count).find(|chunk| !set.contains(chunk)).unwrap_or(count);
                prop_assert_eq!(bits.end_of_run(chunk, count), gap);
                let one = set.range(chunk..).next().copied().unwrap_or(count);
                prop_assert_eq!(bits.end_of_gap(chunk, u32::MAX), one);
                prop_assert_eq!(bits.has_all(chunk..count), gap == count);
            }
        }
    }

    #[test]
    fn all_are_all_and_bytes_past_the_end_are_nothing() {
        for count in [0, 1, 63, 64, 65, 128] {
            let all = Bits::all(count);
            assert!(all.is_full() && all.has_all(0..count) && !all.has(count), "{count}");
            assert_eq!(Bits::from_bytes(count, &[0xff; 40]), all);
        }
    }
}
