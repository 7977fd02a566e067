//! What a collector says: which copies it condemned, and that it is done with them.
//!
//! The list is the epoch: one object, put if absent, so that both appear in one step. Layout:
//! `docs/formats/gc-list.md`.

use crate::codec::{Decoder, Format};
use crate::error::{Error, Result};
use crate::limits::MAX_CONDEMNED;

/// Bytes of the name of a copy, as the store writes it in index rows: kind, hash, epoch, nonce.
pub const COPY_NAME_BYTES: usize = 1 + 32 + 8 + 8;

const LIST: Format = Format {
    what: "condemned list",
    magic: *b"BLSTGCLS",
    version: 1,
    limit: Format::FRONT_BYTES + 8 + 4 + MAX_CONDEMNED * COPY_NAME_BYTES + Format::CHECKSUM_BYTES,
    has_checksum: true,
};
const DONE: Format = Format {
    what: "end of a collection",
    magic: *b"BLSTGCDN",
    version: 1,
    limit: Format::FRONT_BYTES + 4 * 8 + Format::CHECKSUM_BYTES,
    has_checksum: true,
};

/// The copies that one epoch condemns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CondemnedList {
    /// When it was written, by the collector's clock, in unix milliseconds.
    pub time_ms: u64,
    /// The names, sorted, each once.
    pub copies: Vec<[u8; COPY_NAME_BYTES]>,
}

impl CondemnedList {
    /// The stored bytes.
    pub fn encode(&self) -> Result<Vec<u8>> {
        if !is_strictly_sorted(&self.copies) {
            return Err(Error::malformed(LIST.what, "its names are not in order"));
        }
        LIST.encode(|encoder| {
            encoder.u64(self.time_ms);
            encoder.list(&self.copies, |encoder, name| encoder.array(name));
        })
    }

    /// The mirror of [`encode`](Self::encode).
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut decoder = LIST.decode(bytes)?;
        let time_ms = decoder.u64()?;
        let copies = decoder.list(COPY_NAME_BYTES, Decoder::array)?;
        if !is_strictly_sorted(&copies) {
            return Err(decoder.malformed("its names are not in order"));
        }
        decoder.finish()?;
        Ok(Self { time_ms, copies })
    }
}

/// What came of an epoch, when its sweep is over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// When it was over, by the collector's clock, in unix milliseconds.
    pub time_ms: u64,
    /// Copies that were deleted.
    pub swept: u64,
    /// Their bytes.
    pub swept_bytes: u64,
    /// Copies that something refers to again, and that stay.
    pub kept: u64,
}

impl Collected {
    /// The stored bytes.
    pub fn encode(&self) -> Result<Vec<u8>> {
        DONE.encode(|encoder| {
            for number in [self.time_ms, self.swept, self.swept_bytes, self.kept] {
                encoder.u64(number);
            }
        })
    }

    /// The mirror of [`encode`](Self::encode).
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut decoder = DONE.decode(bytes)?;
        let collected = Self {
            time_ms: decoder.u64()?,
            swept: decoder.u64()?,
            swept_bytes: decoder.u64()?,
            kept: decoder.u64()?,
        };
        decoder.finish()?;
        Ok(collected)
    }
}

fn is_strictly_sorted(names: &[[u8; COPY_NAME_BYTES]]) -> bool {
    names.is_sorted_by(|before, after| before < after)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The first that were ever written; they must be readable for ever.
    const KEPT_LIST: &[u8] = include_bytes!("../../../tests/fixtures/gc-list-v1.bin");
    const KEPT_DONE: &[u8] = include_bytes!("../../../tests/fixtures/gc-done-v1.bin");

    fn sample() -> (CondemnedList, Collected) {
        let copies = vec![[1; COPY_NAME_BYTES], [2; COPY_NAME_BYTES]];
        let done = Collected { time_ms: 1_800_000_000_000, swept: 1, swept_bytes: 7, kept: 1 };
        (CondemnedList { time_ms: 1_700_000_000_000, copies }, done)
    }

    #[test]
    fn kept_bytes_are_written_and_read_today() {
        let (list, done) = sample();
        assert_eq!(list.encode().expect("small"), KEPT_LIST);
        assert_eq!(CondemnedList::decode(KEPT_LIST).expect("kept"), list);
        assert_eq!(done.encode().expect("small"), KEPT_DONE);
        assert_eq!(Collected::decode(KEPT_DONE).expect("kept"), done);
    }

    #[test]
    fn names_out_of_order_or_twice_are_refused() {
        for copies in
            [vec![[2; COPY_NAME_BYTES], [1; COPY_NAME_BYTES]], vec![[1; COPY_NAME_BYTES]; 2]]
        {
            assert!(CondemnedList { time_ms: 0, copies }.encode().is_err());
        }
    }

    #[test]
    fn the_longest_list_is_one_put() {
        let name = |number: u32| {
            let mut name = [0; COPY_NAME_BYTES];
            name[..4].copy_from_slice(&number.to_be_bytes());
            name
        };
        let most = u32::try_from(MAX_CONDEMNED).expect("it is a small number");
        let list = CondemnedList { time_ms: 0, copies: (0..most).map(name).collect() };
        assert!(list.encode().expect("within the limit").len() < 5_000_000);
        let more = CondemnedList { time_ms: 0, copies: (0..=most).map(name).collect() };
        assert!(more.encode().is_err());
    }

    proptest! {
        #[test]
        fn noise_never_panics(noise: Vec<u8>) {
            prop_assert!(CondemnedList::decode(&noise).is_err());
            prop_assert!(Collected::decode(&noise).is_err());
        }
    }
}
