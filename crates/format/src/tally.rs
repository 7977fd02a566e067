//! Downloads that one node has counted since it last wrote such a record.
//!
//! Counts are added up over all records, so writing one needs nothing to be read first. Layout:
//! `docs/formats/tally.md`.

use crate::codec::{Decoder, Encoder};
use crate::error::{Error, Result};
use crate::id::RepoId;

const WHAT: &str = "tally";
const MAGIC: &[u8; 8] = b"BLSTTALY";
const VERSION: u16 = 1;

/// Downloads of repos by day.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Repo, day (counted from 1970-01-01, UTC) and how many downloads to add.
    pub rows: Vec<(RepoId, u32, u64)>,
}

impl Tally {
    /// The stored bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut encoder = Encoder::new();
        encoder.array(MAGIC);
        encoder.u16(VERSION);
        encoder.list(&self.rows, |encoder, (repo, day, count)| {
            encoder.array(repo.as_bytes());
            encoder.u32(*day);
            encoder.u64(*count);
        });
        encoder.finish()
    }

    /// Reads stored bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut decoder = Decoder::new(WHAT, bytes);
        if &decoder.array::<8>()? != MAGIC {
            return Err(decoder.malformed("it does not begin as one"));
        }
        let version = decoder.u16()?;
        if version != VERSION {
            return Err(Error::UnknownVersion { what: WHAT, version: u64::from(version) });
        }
        let row = |decoder: &mut Decoder<'_>| {
            Ok((RepoId::from_bytes(decoder.array()?), decoder.u32()?, decoder.u64()?))
        };
        let rows = decoder.list(28, row)?;
        decoder.finish()?;
        Ok(Self { rows })
    }
}
