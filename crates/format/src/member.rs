//! What a process that joined a hub keeps of that, in a file of its data folder.
//!
//! It holds the process's secret key. Layout: `docs/formats/member.md`.

use std::fmt;

use crate::codec::{Decoder, Format};
use crate::error::Result;
use crate::limits::MAX_MEMBER_BYTES;

const FORMAT: Format = Format {
    what: "identity of a node",
    magic: *b"BLSTMEMB",
    version: 1,
    limit: MAX_MEMBER_BYTES,
    has_checksum: true,
};

/// A process that joined.
#[derive(Clone, PartialEq, Eq)]
pub struct Member {
    /// Its secret key (Ed25519).
    pub key: [u8; 32],
    /// The BLAKE3 hash of the join token that it used.
    pub joined_by: [u8; 32],
    /// What it is: `node` or `region`.
    pub role: String,
    /// Its name.
    pub name: String,
    /// Where the hub is, as `host:port`.
    pub hub: String,
    /// The token with which it reads from the hub's HTTP API.
    pub token: String,
    /// The key of the cluster's authority (Ed25519).
    pub authority_key: [u8; 32],
    /// The certificate of the cluster's authority, in DER.
    pub authority: Vec<u8>,
    /// The key that signs the cluster's permits (Ed25519).
    pub permits: [u8; 32],
    /// Its certificate, in DER.
    pub certificate: Vec<u8>,
    /// When that was made, in unix milliseconds.
    pub issued_ms: u64,
    /// When that ends, in unix milliseconds.
    pub expires_ms: u64,
}

impl fmt::Debug for Member {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Member({}/{} of {})", self.role, self.name, self.hub)
    }
}

impl Member {
    /// The stored bytes.
    pub fn encode(&self) -> Result<Vec<u8>> {
        FORMAT.encode(|encoder| {
            encoder.array(&self.key);
            encoder.array(&self.joined_by);
            for text in [&self.role, &self.name, &self.hub, &self.token] {
                encoder.str(text);
            }
            encoder.array(&self.authority_key);
            encoder.bytes(&self.authority);
            encoder.array(&self.permits);
            encoder.bytes(&self.certificate);
            encoder.u64(self.issued_ms);
            encoder.u64(self.expires_ms);
        })
    }

    /// Reads stored bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut decoder = FORMAT.decode(bytes)?;
        let text = |decoder: &mut Decoder<'_>| Ok(decoder.str()?.to_owned());
        let member = Self {
            key: decoder.array()?,
            joined_by: decoder.array()?,
            role: text(&mut decoder)?,
            name: text(&mut decoder)?,
            hub: text(&mut decoder)?,
            token: text(&mut decoder)?,
            authority_key: decoder.array()?,
            authority: decoder.bytes()?.to_vec(),
            permits: decoder.array()?,
            certificate: decoder.bytes()?.to_vec(),
            issued_ms: decoder.u64()?,
            expires_ms: decoder.u64()?,
        };
        decoder.finish()?;
        Ok(member)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEPT: &[u8] = include_bytes!("../../../tests/fixtures/member-v1.bin");

    fn member() -> Member {
        Member {
            key: [1; 32],
            joined_by: [2; 32],
            role: "node".to_owned(),
            name: "gpu-1.rack-2".to_owned(),
            hub: "hub.example:8081".to_owned(),
            token: "hf_secret".to_owned(),
            authority_key: [3; 32],
            authority: vec![4; 300],
            permits: [5; 32],
            certificate: vec![6; 400],
            issued_ms: 1_700_000_000_123,
            expires_ms: 1_700_086_400_123,
        }
    }

    #[test]
    fn kept_bytes_are_written_and_read_today_and_no_others() {
        assert_eq!(member().encode().expect("small"), KEPT);
        assert_eq!(Member::decode(KEPT).expect("kept"), member());
        for length in 0..KEPT.len() {
            assert!(Member::decode(&KEPT[..length]).is_err(), "{length}");
        }
        for place in 0..KEPT.len() {
            let mut bytes = KEPT.to_vec();
            bytes[place] ^= 1;
            assert!(Member::decode(&bytes).is_err(), "{place}");
        }
    }

    #[test]
    fn no_secret_is_shown() {
        let shown = format!("{:?}", member());
        assert!(!shown.contains("hf_") && !shown.contains("[1, 1"), "{shown}");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(name: String, certificate: Vec<u8>, issued_ms: u64) {
            let member = Member { name, certificate, issued_ms, ..member() };
            prop_assert_eq!(Member::decode(&member.encode().expect("small")).expect("own"), member);
        }

        #[test]
        fn noise_never_panics(noise: Vec<u8>) {
            let _ = Member::decode(&noise);
            let _ = FORMAT.encode(|encoder| encoder.array(&noise)).map(|b| Member::decode(&b));
        }
    }
}
