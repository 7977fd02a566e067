//! What each peer may have of a node's cache, or of a hub's chunks.
//!
//! A peer shows what the hub signed for it; until that is over it may have these xorbs. What is
//! kept is bounded: when it is too much, the peer that showed something longest ago shows it again.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use ballast_format::hash::XorbHash;

use crate::cluster::PeerName;

/// Xorbs that all peers may have together, counted for each peer.
const MOST_XORBS: usize = 262_144;

/// What a permit allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permitted {
    /// These xorbs.
    pub xorbs: Vec<XorbHash>,
    /// Until when, in unix milliseconds.
    pub until_ms: u64,
}

/// Tells what a permit allows a peer, or why nothing.
pub type CheckPermit = Box<dyn Fn(&PeerName, &[u8]) -> Result<Permitted, String> + Send + Sync>;

pub(in crate::swarm) struct Permits {
    check: CheckPermit,
    shown: Mutex<Shown>,
}

#[derive(Default)]
struct Shown {
    peers: HashMap<PeerName, Peer>,
    xorbs: usize,
    next: u64,
}

/// What one peer may have, and until when.
#[derive(Default)]
struct Peer {
    xorbs: HashMap<XorbHash, u64>,
    order: u64,
}

impl Permits {
    pub(in crate::swarm) fn new(check: CheckPermit) -> Self {
        Self { check, shown: Mutex::default() }
    }

    /// A peer shows a permit.
    pub(in crate::swarm) fn show(
        &self,
        peer: &PeerName,
        permit: &[u8],
        now_ms: u64,
    ) -> Result<(), String> {
        let Permitted { xorbs, until_ms } = (self.check)(peer, permit)?;
        if until_ms <= now_ms {
            return Err("the permit is over: ask the hub for a new one".to_owned());
        }
        let mut shown = self.shown();
        let mut known = shown.peers.remove(peer).unwrap_or_default();
        shown.xorbs -= known.xorbs.len();
        known.xorbs.retain(|_, until| *until > now_ms);
        for xorb in xorbs {
            let until = known.xorbs.entry(xorb).or_default();
            *until = until_ms.max(*until);
        }
        shown.make_room(known.xorbs.len(), now_ms);
        known.order = shown.next;
        shown.next += 1;
        shown.xorbs += known.xorbs.len();
        shown.peers.insert(peer.clone(), known);
        Ok(())
    }

    /// Whether a peer may have a xorb.
    pub(in crate::swarm) fn allows(&self, peer: &PeerName, xorb: &XorbHash, now_ms: u64) -> bool {
        let shown = self.shown();
        let until = shown.peers.get(peer).and_then(|known| known.xorbs.get(xorb));
        until.is_some_and(|until| *until > now_ms)
    }

    fn shown(&self) -> MutexGuard<'_, Shown> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shown {
    fn make_room(&mut self, more: usize, now_ms: u64) {
        if self.xorbs + more <= MOST_XORBS {
            return;
        }
        self.peers.retain(|_, peer| {
            peer.xorbs.retain(|_, until| *until > now_ms);
            !peer.xorbs.is_empty()
        });
        self.xorbs = self.peers.values().map(|peer| peer.xorbs.len()).sum();
        while self.xorbs + more > MOST_XORBS {
            let oldest = self.peers.iter().min_by_key(|(_, peer)| peer.order);
            let Some(oldest) = oldest.map(|(name, _)| name.clone()) else { return };
            let gone = self.peers.remove(&oldest);
            self.xorbs -= gone.map_or(0, |peer| peer.xorbs.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(name: &str) -> PeerName {
        PeerName::parse(name).expect("a name")
    }

    fn xorb(number: u32) -> XorbHash {
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&number.to_le_bytes());
        XorbHash::from_bytes(bytes)
    }

    /// Permits that allow as many xorbs as their first four bytes say, until 100.
    fn permits() -> Permits {
        Permits::new(Box::new(|peer, permit| {
            let count = permit.first_chunk().ok_or_else(|| format!("not for {peer}"))?;
            let xorbs = (0..u32::from_le_bytes(*count)).map(xorb).collect();
            Ok(Permitted { xorbs, until_ms: 100 })
        }))
    }

    #[test]
    fn a_permit_is_for_one_peer_its_xorbs_and_its_time() {
        let permits = permits();
        permits.show(&peer("a"), &2_u32.to_le_bytes(), 10).expect("it is valid");
        assert!(permits.show(&peer("b"), b"", 10).is_err());
        assert!(permits.show(&peer("b"), &2_u32.to_le_bytes(), 100).is_err());
        assert!(permits.allows(&peer("a"), &xorb(1), 99));
        assert!(!permits.allows(&peer("a"), &xorb(2), 99));
        assert!(!permits.allows(&peer("a"), &xorb(1), 100));
        assert!(!permits.allows(&peer("b"), &xorb(1), 50));
    }

    #[test]
    fn those_that_showed_theirs_longest_ago_show_them_again() {
        let permits = permits();
        let third = u32::try_from(MOST_XORBS / 3).expect("small").to_le_bytes();
        for name in ["a", "b", "c"] {
            permits.show(&peer(name), &third, 1).expect("it is valid");
        }
        permits.show(&peer("a"), &third, 1).expect("it is valid");
        permits.show(&peer("d"), &third, 1).expect("it is valid");
        let allowed = ["a", "b", "c", "d"].map(|name| permits.allows(&peer(name), &xorb(0), 1));
        assert_eq!(allowed, [true, false, true, true]);
        assert!(permits.shown().xorbs <= MOST_XORBS);
    }
}
