//! Downloads that one node has counted since it last wrote such a record.
//!
//! Counts are added up over all records, so writing one needs nothing to be read first. Layout:
//! `docs/formats/tally.md`.

use crate::codec::{Decoder, Format};
use crate::error::Result;
use crate::id::RepoId;
use crate::limits::MAX_TALLY_BYTES;

const FORMAT: Format = Format {
    what: "tally",
    magic: *b"BLSTTALY",
    version: 1,
    limit: MAX_TALLY_BYTES,
    has_checksum: true,
};
/// Bytes of one row.
const ROW_BYTES: usize = 16 + 4 + 8;

/// Downloads of repos by day.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Repo, day (counted from 1970-01-01, UTC) and how many downloads to add.
    pub rows: Vec<(RepoId, u32, u64)>,
}

impl Tally {
    /// The most rows that one record holds.
    pub const MAX_ROWS: usize =
        (MAX_TALLY_BYTES - Format::FRONT_BYTES - 4 - Format::CHECKSUM_BYTES) / ROW_BYTES;

    /// The stored bytes.
    pub fn encode(&self) -> Result<Vec<u8>> {
        FORMAT.encode(|encoder| {
            encoder.list(&self.rows, |encoder, (repo, day, count)| {
                encoder.array(repo.as_bytes());
                encoder.u32(*day);
                encoder.u64(*count);
            });
        })
    }

    /// Reads stored bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut decoder = FORMAT.decode(bytes)?;
        let row = |decoder: &mut Decoder<'_>| {
            Ok((RepoId::from_bytes(decoder.array()?), decoder.u32()?, decoder.u64()?))
        };
        let rows = decoder.list(ROW_BYTES, row)?;
        decoder.finish()?;
        Ok(Self { rows })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Error;

    /// The first kind of tally that was ever written; it must be readable for ever.
    const KEPT: &[u8] = include_bytes!("../../../tests/fixtures/tally-v1.bin");

    fn tally() -> Tally {
        let repo = |byte| RepoId::from_bytes([byte; 16]);
        Tally { rows: vec![(repo(1), 20_000, 3), (repo(2), 20_001, u64::MAX)] }
    }

    #[test]
    fn kept_bytes_are_written_and_read_today() {
        assert_eq!(tally().encode().expect("small"), KEPT);
        assert_eq!(Tally::decode(KEPT).expect("kept"), tally());
    }

    #[test]
    fn every_flipped_bit_is_seen() {
        for place in 0..KEPT.len() * 8 {
            let mut bytes = KEPT.to_vec();
            bytes[place / 8] ^= 1 << (place % 8);
            assert!(Tally::decode(&bytes).is_err(), "bit {place}");
        }
    }

    #[test]
    fn more_rows_than_the_limit_are_not_written() {
        let mut tally = Tally { rows: vec![(RepoId::from_bytes([0; 16]), 0, 0); Tally::MAX_ROWS] };
        let bytes = tally.encode().expect("the most that fits");
        assert_eq!(Tally::decode(&bytes).expect("own").rows.len(), Tally::MAX_ROWS);
        tally.rows.push(tally.rows[0]);
        assert!(matches!(tally.encode(), Err(Error::TooLarge { .. })));
    }

    proptest! {
        #[test]
        fn round_trip(rows: Vec<([u8; 16], u32, u64)>) {
            let row = |(repo, day, count)| (RepoId::from_bytes(repo), day, count);
            let tally = Tally { rows: rows.into_iter().map(row).collect() };
            prop_assert_eq!(Tally::decode(&tally.encode().expect("small")).expect("own"), tally);
        }

        #[test]
        fn noise_never_panics(noise: Vec<u8>) {
            prop_assert!(Tally::decode(&noise).is_err());
        }
    }
}
