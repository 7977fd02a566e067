//! What the hub signs for one node: that it may have these xorbs from its peers, for some time.
//!
//! It is signed, so it has one encoding. The signature follows it, and is for those who have keys.
//! Layout: `docs/formats/permit.md`.

use crate::codec::{Decoder, Format};
use crate::error::{Error, Result};
use crate::hash::XorbHash;
use crate::limits::{MAX_PERMIT_BYTES, MAX_PERMIT_XORBS};
use crate::log::NodeRole;
use crate::name::NodeName;

const FORMAT: Format = Format {
    what: "permit",
    magic: *b"BLSTPRMT",
    version: 1,
    limit: MAX_PERMIT_BYTES,
    has_checksum: false,
};

/// What somebody may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permit {
    /// What its holder is.
    pub role: NodeRole,
    /// Its holder.
    pub holder: NodeName,
    /// Until when, in unix milliseconds.
    pub until_ms: u64,
    xorbs: Vec<XorbHash>,
}

impl Permit {
    /// One for these xorbs, each counted once.
    pub fn new(
        role: NodeRole,
        holder: NodeName,
        until_ms: u64,
        mut xorbs: Vec<XorbHash>,
    ) -> Result<Self> {
        xorbs.sort_unstable();
        xorbs.dedup();
        check_count(xorbs.len())?;
        Ok(Self { role, holder, until_ms, xorbs })
    }

    /// What its holder may have, in the order of hashes.
    pub fn xorbs(&self) -> &[XorbHash] {
        &self.xorbs
    }

    /// The same, to keep.
    pub fn into_xorbs(self) -> Vec<XorbHash> {
        self.xorbs
    }

    /// The bytes that are signed.
    pub fn encode(&self) -> Result<Vec<u8>> {
        FORMAT.encode(|encoder| {
            self.role.encode(encoder);
            encoder.str(self.holder.as_str());
            encoder.u64(self.until_ms);
            encoder.list(&self.xorbs, |encoder, xorb| encoder.array(xorb.as_bytes()));
        })
    }

    /// Reads bytes that were signed.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut decoder = FORMAT.decode(bytes)?;
        let role = NodeRole::decode(&mut decoder)?;
        let holder = NodeName::parse(decoder.str()?)?;
        let until_ms = decoder.u64()?;
        check_count(decoder.clone().u32()? as usize)?;
        let xorb = |decoder: &mut Decoder<'_>| Ok(XorbHash::from_bytes(decoder.array()?));
        let xorbs = decoder.list(32, xorb)?;
        if !xorbs.is_sorted_by(|a, b| a < b) {
            return Err(decoder.malformed("its xorbs are not in their order"));
        }
        decoder.finish()?;
        Ok(Self { role, holder, until_ms, xorbs })
    }
}

fn check_count(count: usize) -> Result<()> {
    if count <= MAX_PERMIT_XORBS {
        return Ok(());
    }
    let (size, limit) = (count as u64, MAX_PERMIT_XORBS as u64);
    Err(Error::TooLarge { what: "list of a permit's xorbs", size, limit })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEPT: &[u8] = include_bytes!("../../../tests/fixtures/permit-v1.bin");

    fn xorbs(count: u32) -> Vec<XorbHash> {
        let hash = |number: u32| {
            let mut bytes = [0; 32];
            bytes[..4].copy_from_slice(&number.to_be_bytes());
            XorbHash::from_bytes(bytes)
        };
        (0..count).rev().map(hash).collect()
    }

    fn permit(xorbs: Vec<XorbHash>) -> Result<Permit> {
        let holder = NodeName::parse("gpu-1").expect("a name");
        Permit::new(NodeRole::Node, holder, 1_700_000_000_123, xorbs)
    }

    #[test]
    fn kept_bytes_are_written_and_read_today() {
        let permit = permit([xorbs(3), xorbs(2)].concat()).expect("small");
        assert_eq!(permit.xorbs().len(), 3, "each counts once");
        assert_eq!(permit.encode().expect("small"), KEPT);
        assert_eq!(Permit::decode(KEPT).expect("kept"), permit);
        for length in 0..KEPT.len() {
            assert!(Permit::decode(&KEPT[..length]).is_err(), "{length}");
        }
    }

    #[test]
    fn a_permit_has_one_encoding() {
        for bit in 0..KEPT.len() * 8 {
            let mut bytes = KEPT.to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            if let Ok(other) = Permit::decode(&bytes) {
                assert_eq!(other.encode().expect("small"), bytes, "bit {bit}");
            }
        }
        let mut turned = KEPT.to_vec();
        let end = turned.len();
        turned[end - 64..].rotate_left(32);
        assert!(Permit::decode(&turned).is_err(), "not in their order");
    }

    #[test]
    fn a_permit_has_a_largest_size() {
        let most = u32::try_from(MAX_PERMIT_XORBS).expect("a count");
        let largest = permit(xorbs(most)).expect("the most");
        let bytes = largest.encode().expect("the largest");
        assert_eq!(Permit::decode(&bytes).expect("own"), largest);
        assert!(permit(xorbs(most + 1)).is_err());
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            hashes in proptest::collection::vec(any::<[u8; 32]>(), 0..20),
            until_ms: u64,
            name in "[a-z0-9.-]{1,63}",
        ) {
            let holder = NodeName::parse(&name).expect("a name");
            let xorbs = hashes.into_iter().map(XorbHash::from_bytes).collect();
            let permit = Permit::new(NodeRole::Region, holder, until_ms, xorbs).expect("small");
            prop_assert_eq!(Permit::decode(&permit.encode().expect("small")).expect("own"), permit);
        }

        #[test]
        fn noise_never_panics(noise: Vec<u8>) {
            let _ = Permit::decode(&noise);
            let framed = FORMAT.encode(|encoder| encoder.array(&noise)).expect("small");
            let _ = Permit::decode(&framed);
        }
    }
}
