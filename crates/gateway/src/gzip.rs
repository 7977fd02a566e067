//! Bodies that come compressed: gzip, as some clients send what is text.
//!
//! They are unpacked piece by piece while they come, so that nobody pays for more than was read so
//! far, and only as far as an honest sender's would go: what is much larger than it came, or too
//! large by itself, ends there. Limits of the routes hold for what comes out.

use std::io::Write as _;

use bytes::Bytes;
use flate2::write::MultiGzDecoder;

use crate::body::Broken;

/// The most that one body may become.
pub(crate) const MOST_BYTES: u64 = 32 << 20;
/// A body may become so many times as large as it came …
const MOST_TIMES: u64 = 10;
/// … and this much anyhow: short text that repeats itself is no attack.
const FREE_BYTES: u64 = 1 << 20;
/// What is unpacked at once. One byte becomes a thousand at most.
const SLICE_BYTES: usize = 1024;
/// Others get a turn whenever so much was unpacked.
const TURN_BYTES: usize = 256 * 1024;

/// A gzip body while it comes.
pub(crate) struct Unpacking {
    decoder: MultiGzDecoder<Vec<u8>>,
    /// What came and is not unpacked yet.
    packed: Bytes,
    taken: u64,
    made: u64,
    since_turn: usize,
    is_over: bool,
}

impl Unpacking {
    pub(crate) fn new() -> Self {
        Self {
            decoder: MultiGzDecoder::new(Vec::new()),
            packed: Bytes::new(),
            taken: 0,
            made: 0,
            since_turn: 0,
            is_over: false,
        }
    }

    /// More came. All that came before must have been unpacked.
    pub(crate) fn feed(&mut self, packed: Bytes) {
        self.packed = packed;
    }

    /// What came last and was not empty, as it was meant; nothing if more must come first.
    pub(crate) fn next(&mut self) -> Option<Result<Bytes, Broken>> {
        while !self.packed.is_empty() {
            let slice = self.packed.split_to(self.packed.len().min(SLICE_BYTES));
            self.taken += slice.len() as u64;
            if self.decoder.write_all(&slice).is_err() {
                return Some(Err(Broken::Garbled));
            }
            if let Some(made) = self.made() {
                return Some(made);
            }
        }
        None
    }

    /// What is left once nothing more comes: the sums at the end must fit.
    pub(crate) fn end(&mut self) -> Option<Result<Bytes, Broken>> {
        if std::mem::replace(&mut self.is_over, true) {
            return None;
        }
        if self.taken == 0 {
            // Nothing is nothing, packed or not.
            return None;
        }
        if self.decoder.try_finish().is_err() {
            return Some(Err(Broken::Garbled));
        }
        self.made()
    }

    /// Whether others should get a turn now.
    pub(crate) fn owes_a_turn(&mut self) -> bool {
        let owes = self.since_turn >= TURN_BYTES;
        if owes {
            self.since_turn = 0;
        }
        owes
    }

    fn made(&mut self) -> Option<Result<Bytes, Broken>> {
        let made = std::mem::take(self.decoder.get_mut());
        if made.is_empty() {
            return None;
        }
        self.since_turn += made.len();
        self.made += made.len() as u64;
        let most = FREE_BYTES.max(self.taken * MOST_TIMES).min(MOST_BYTES);
        Some(if self.made > most { Err(Broken::Bomb) } else { Ok(made.into()) })
    }
}

#[cfg(test)]
mod tests {
    use ballast_testkit::content::splitmix;
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use proptest::prelude::*;

    use super::*;

    fn pack(content: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(content).expect("into memory");
        encoder.finish().expect("into memory")
    }

    /// All of it, cut as it may come, and the largest piece that came out at once.
    fn unpack(packed: &[u8], cut: usize) -> Result<(Vec<u8>, usize), Broken> {
        let (mut unpacking, mut all, mut largest) = (Unpacking::new(), Vec::new(), 0);
        for piece in packed.chunks(cut) {
            unpacking.feed(Bytes::copy_from_slice(piece));
            while let Some(made) = unpacking.next() {
                let made = made?;
                largest = largest.max(made.len());
                all.extend_from_slice(&made);
            }
        }
        if let Some(rest) = unpacking.end() {
            all.extend_from_slice(&rest?);
        }
        assert!(unpacking.end().is_none());
        Ok((all, largest))
    }

    #[test]
    fn what_was_packed_comes_out_however_it_is_cut() {
        let content = splitmix(1, 300_000);
        let packed = pack(&content);
        for cut in [1, 7, 1000, 1024, 100_000, packed.len()] {
            assert!(unpack(&packed, cut).expect("sound").0 == content, "cut by {cut}");
        }
        assert_eq!(unpack(&pack(b""), 5), Ok((Vec::new(), 0)));
        assert_eq!(unpack(b"", 5), Ok((Vec::new(), 0)));
    }

    #[test]
    fn members_follow_each_other() {
        let both = [pack(b"one, "), pack(b"two")].concat();
        assert_eq!(unpack(&both, 3).expect("sound").0, b"one, two");
    }

    #[test]
    fn a_bomb_ends_early_and_what_only_repeats_itself_passes() {
        assert_eq!(unpack(&pack(&vec![0; 100_000_000]), 100_000), Err(Broken::Bomb));
        let (all, largest) = unpack(&pack(&vec![b' '; 1_000_000]), 100_000).expect("small");
        assert_eq!(all.len(), 1_000_000);
        assert!(largest <= 2 << 20, "{largest} at once");
        let noise = splitmix(2, 34 << 20);
        assert_eq!(unpack(&pack(&noise), 100_000), Err(Broken::Bomb), "larger than any may be");
    }

    #[test]
    fn what_is_cut_short_or_changed_is_refused() {
        let content = splitmix(3, 50_000);
        let packed = pack(&content);
        for end in [1, 5, 17, packed.len() / 2, packed.len() - 8, packed.len() - 1] {
            assert_eq!(unpack(&packed[..end], 999), Err(Broken::Garbled), "cut at {end}");
        }
        for place in [0, packed.len() - 6, packed.len() - 2] {
            let mut changed = packed.clone();
            changed[place] ^= 1;
            assert_eq!(unpack(&changed, 999), Err(Broken::Garbled), "changed at {place}");
        }
        assert_eq!(unpack(&[packed, b"more".to_vec()].concat(), 999), Err(Broken::Garbled));
    }

    proptest! {
        #[test]
        fn noise_never_panics(
            noise in proptest::collection::vec(any::<u8>(), 0..3000),
            cut in 1..500_usize,
        ) {
            let _ = unpack(&noise, cut);
            let head = pack(b"x");
            let _ = unpack(&[&head[..10], &noise].concat(), cut);
        }
    }
}
