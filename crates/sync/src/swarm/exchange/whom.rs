//! Whom to ask for what: the parents that the tracker names, and others where these fail.
//!
//! A stripe whose parent fails is an *orphan* until the tracker names another one or some time has
//! passed. Its pieces are taken from known peers that have them, those first that the fewest have;
//! the hub is asked for what none of them has.

use std::collections::HashMap;
use std::ops::Range;
use std::time::Duration;

use super::peers::Who;
use super::seat::Told;
use super::work::Work;
use crate::swarm::cache::Bits;

/// How long a parent that failed in a stripe is not asked for that.
const BAD_FOR: Duration = Duration::from_secs(5);
/// How long the tracker has to name another parent.
const TRACKER_TAKES: Duration = Duration::from_secs(1);
/// How long the hub, which is to send each piece once, is not asked for an orphan's while the
/// tracker can be heard.
const HUB_WAITS: Duration = Duration::from_secs(20);
/// How long what a peer said that it has is believed to be all.
const HOLDINGS_LAST: Duration = Duration::from_secs(1);

/// Who is asked for what.
pub(super) struct Whom {
    hub: Who,
    pub(super) told: Told,
    bad: HashMap<(Who, Option<u32>), Duration>,
    /// Since when a stripe has no parent that can be asked.
    orphans: HashMap<u32, Duration>,
    holdings: HashMap<Who, Holdings>,
}

/// What a peer said that it has.
struct Holdings {
    chunks: Bits,
    at: Duration,
    is_asked: bool,
}

impl Holdings {
    fn has_all(&self, runs: &[Range<u32>]) -> bool {
        runs.iter().all(|run| self.chunks.has_all(run.clone()))
    }
}

/// A piece in which there is something to ask for.
pub(super) struct Open {
    piece: u32,
    missing: Vec<Range<u32>>,
    /// How many peers have all of that.
    holders: usize,
}

impl Whom {
    pub(super) fn new(hub: Who, told: Told) -> Self {
        Self { hub, told, bad: HashMap::new(), orphans: HashMap::new(), holdings: HashMap::new() }
    }

    pub(super) fn hub(&self) -> &Who {
        &self.hub
    }

    /// The parent of a stripe, if it can be asked.
    pub(super) fn parent(&self, stripe: u32, now: Duration) -> Option<&Who> {
        let parent = match self.told.parents.get(stripe as usize)? {
            None => &self.hub,
            Some(place) => &self.told.peers.get(*place)?.who,
        };
        self.is_good(parent, Some(stripe), now).then_some(parent)
    }

    /// Whether somebody may be asked, about a stripe or at all.
    pub(super) fn is_good(&self, who: &Who, stripe: Option<u32>, now: Duration) -> bool {
        let is_bad =
            |stripe| self.bad.get(&(who.clone(), stripe)).is_some_and(|until| *until > now);
        !(is_bad(None) || stripe.is_some() && is_bad(stripe))
    }

    /// Somebody failed, in a stripe or altogether.
    pub(super) fn mark_bad(&mut self, who: &Who, stripe: Option<u32>, now: Duration) {
        self.bad.retain(|_, until| *until > now);
        self.bad.insert((who.clone(), stripe), now + BAD_FOR);
    }

    /// Somebody lied: it is not asked for this file any more.
    pub(super) fn never(&mut self, who: &Who) {
        self.bad.insert((who.clone(), None), Duration::MAX);
        self.holdings.remove(who);
    }

    /// The tracker says something new.
    pub(super) fn tell(&mut self, told: Told) {
        self.told = told;
        let peers = &self.told.peers;
        self.holdings.retain(|who, _| peers.iter().any(|peer| peer.who == *who));
    }

    /// The stripes of which some parent must be found: those that nobody can be asked for, for long
    /// enough that the tracker could have named another.
    pub(super) fn orphans(&mut self, work: &Work, now: Duration) -> Vec<u32> {
        for stripe in 0..work.stripes() {
            if self.parent(stripe, now).is_some() {
                self.orphans.remove(&stripe);
            } else {
                self.orphans.entry(stripe).or_insert(now);
            }
        }
        let grace = if self.told.is_heard { TRACKER_TAKES } else { Duration::ZERO };
        let old = self.orphans.iter().filter(|(_, since)| **since + grace <= now);
        let mut old: Vec<u32> = old.map(|(stripe, _)| *stripe).collect();
        old.sort_unstable();
        old
    }

    /// Peers that should be asked what they have.
    pub(super) fn questions(&mut self, now: Duration) -> Vec<Who> {
        let known = self.told.peers.iter().map(|peer| peer.who.clone());
        let known: Vec<Who> = known.filter(|who| self.is_good(who, None, now)).collect();
        let mut asked = Vec::new();
        for who in known {
            let held = self.holdings.get_mut(&who);
            if held.as_ref().is_some_and(|held| held.is_asked || held.at + HOLDINGS_LAST > now) {
                continue;
            }
            if let Some(held) = held {
                held.is_asked = true;
            } else {
                let none = Holdings { chunks: Bits::none(0), at: now, is_asked: true };
                self.holdings.insert(who.clone(), none);
            }
            asked.push(who);
        }
        asked
    }

    /// A peer said what it has; or it did not answer.
    pub(super) fn answered(&mut self, who: &Who, chunks: Option<Bits>, now: Duration) {
        if let Some(chunks) = chunks {
            let held = Holdings { chunks, at: now, is_asked: false };
            self.holdings.insert(who.clone(), held);
        } else {
            self.holdings.remove(who);
            self.mark_bad(who, None, now);
        }
    }

    /// Peers that may be asked for an orphan's pieces.
    pub(super) fn holders(&self, now: Duration) -> Vec<Who> {
        let held = self.holdings.iter().filter(|(_, held)| held.chunks.ones() > 0);
        let mut held: Vec<Who> = held.map(|(who, _)| who.clone()).collect();
        held.retain(|who| self.is_good(who, None, now));
        held.sort_unstable();
        held
    }

    /// The pieces of these stripes in which there is something to ask for: first those that the
    /// fewest have; among equals each node begins elsewhere.
    pub(super) fn rarest(&self, stripes: &[u32], work: &Work, seed: u64) -> Vec<Open> {
        let is_ours = |piece: &u32| stripes.contains(&(piece % work.stripes()));
        let open = (0..work.pieces()).filter(is_ours).filter_map(|piece| {
            let missing = Some(work.open(piece)).filter(|missing| !missing.is_empty())?;
            let holders = self.holdings.values().filter(|held| held.has_all(&missing)).count();
            Some(Open { piece, missing, holders })
        });
        let mut open: Vec<Open> = open.collect();
        let shuffled = |piece: u32| u64::from(piece).wrapping_add(seed).wrapping_mul(SPREAD);
        open.sort_unstable_by_key(|open| (open.holders, shuffled(open.piece), open.piece));
        open
    }

    /// Those of these pieces that a peer has, in their order.
    pub(super) fn of<'a>(&'a self, who: &Who, open: &'a [Open]) -> impl Iterator<Item = u32> + 'a {
        let held = self.holdings.get(who);
        let has = move |open: &&Open| held.is_some_and(|held| held.has_all(&open.missing));
        open.iter().filter(has).map(|open| open.piece)
    }

    /// Those of these pieces that only the hub can have, if it may be asked: all peers that could
    /// have them have said that they do not, and the tracker had its time.
    pub(super) fn for_the_hub(&self, open: &[Open], work: &Work, now: Duration) -> Vec<u32> {
        let waits = self.holdings.values().any(|held| held.is_asked && held.chunks.ones() == 0);
        if waits || !self.is_good(&self.hub, None, now) {
            return Vec::new();
        }
        let patience = if self.told.is_heard { HUB_WAITS } else { Duration::ZERO };
        let is_old =
            |stripe: u32| self.orphans.get(&stripe).is_some_and(|since| *since + patience <= now);
        let nobody_has = open.iter().filter(|open| open.holders == 0).map(|open| open.piece);
        let mut pieces: Vec<u32> =
            nobody_has.filter(|piece| is_old(piece % work.stripes())).collect();
        pieces.sort_unstable();
        pieces
    }

    /// Somebody other than this one who has everything, or the hub.
    pub(super) fn other(&self, than: Option<&Who>, now: Duration) -> Option<Who> {
        let whole = self.told.peers.iter().filter(|peer| peer.is_whole);
        let whole = whole.map(|peer| &peer.who).filter(|who| Some(*who) != than);
        let mut may = whole.chain([&self.hub]).filter(|who| self.is_good(who, None, now));
        may.next().cloned()
    }
}

/// An odd number that spreads what it multiplies.
const SPREAD: u64 = 0x9E37_79B9_7F4A_7C15;
