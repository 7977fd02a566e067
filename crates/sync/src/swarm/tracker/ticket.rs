//! Tickets: what shows a tracker that a node was told what a file is made of.
//!
//! A tracker remembers nothing for it, so a ticket is good at any gateway of the hub and after a
//! restart. It is for one node: another one's is of no use.

use ballast_format::hash::Sha256;
use bytes::Bytes;

use crate::cluster::PeerName;

/// When it ends, and the proof.
const TICKET_BYTES: usize = 8 + 32;

/// Gives tickets and checks them.
pub(super) struct Tickets {
    key: [u8; 32],
}

impl Tickets {
    /// Tickets by this key, which gateways of one hub share.
    pub(super) fn new(key: [u8; 32]) -> Self {
        Self { key }
    }

    /// A ticket for a node and a file, good until then.
    pub(super) fn give(&self, node: &PeerName, file: (&Sha256, u64), until_ms: u64) -> Bytes {
        let mut ticket = Vec::with_capacity(TICKET_BYTES);
        ticket.extend_from_slice(&until_ms.to_le_bytes());
        ticket.extend_from_slice(self.proof(node, file, until_ms).as_bytes());
        ticket.into()
    }

    /// Whether it is good for a node and a file at this moment.
    pub(super) fn is_good(
        &self,
        ticket: &[u8],
        node: &PeerName,
        file: (&Sha256, u64),
        now_ms: u64,
    ) -> bool {
        let Some((until, proof)) = ticket.split_first_chunk::<8>() else { return false };
        let until_ms = u64::from_le_bytes(*until);
        let Ok(proof) = <[u8; 32]>::try_from(proof) else { return false };
        // Compared in the same time whatever differs.
        now_ms < until_ms && self.proof(node, file, until_ms) == blake3::Hash::from_bytes(proof)
    }

    fn proof(&self, node: &PeerName, (file, size): (&Sha256, u64), until_ms: u64) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        hasher.update(file.as_bytes());
        hasher.update(&size.to_le_bytes());
        hasher.update(&until_ms.to_le_bytes());
        hasher.update(node.to_string().as_bytes());
        hasher.finalize()
    }
}

#[cfg(test)]
mod tests {
    use ballast_testkit::xet::sha256;

    use super::*;

    #[test]
    fn a_ticket_is_good_for_one_node_and_file_and_for_so_long() {
        let tickets = Tickets::new([1; 32]);
        let node = |name| PeerName::parse(name).expect("it is a name");
        let (file, other) = (sha256(b"a"), sha256(b"b"));
        let ticket = tickets.give(&node("a"), (&file, 7), 100);
        let is_good =
            |name, (file, size), now| tickets.is_good(&ticket, &node(name), (file, size), now);
        assert!(is_good("a", (&file, 7), 99));
        assert!(!is_good("a", (&file, 7), 100));
        assert!(!is_good("b", (&file, 7), 99));
        assert!(!is_good("a", (&file, 8), 99));
        assert!(!is_good("a", (&other, 7), 99));
        for cut in 0..ticket.len() {
            assert!(!tickets.is_good(&ticket[..cut], &node("a"), (&file, 7), 99));
        }
        let others = Tickets::new([2; 32]);
        assert!(!others.is_good(&ticket, &node("a"), (&file, 7), 99));
    }
}
