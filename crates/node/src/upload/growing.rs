//! What a file that comes in is made of so far, for those who read it before it is registered.
//!
//! A place may be told when its xorb is durable. Such a xorb is young: no collection condemns it
//! before it is a day old, and what is condemned stays readable for longer than an address is good
//! (ADR 4). So those who read along need no pins. That the file is what it was said to be is known
//! at its end only; nothing here reaches that.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ballast_format::hash::XorbHash;
use ballast_format::manifest::Term;
use tokio::sync::watch;

use crate::error::{Error, Result};

/// A xorb that others wait for is closed when the file has gone on for so long since its first
/// chunk: one in which little is new might fill none for gigabytes.
const FOLLOWED_BYTES: u64 = 128 << 20;

/// Where a chunk is: in a xorb that is stored, or in one of those being packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Stored(XorbHash),
    Packed(usize),
}

/// A file that comes in, as far as its chunks have places.
#[derive(Debug)]
pub struct Growing {
    parts: Mutex<Parts>,
    /// How many of its first bytes are in durable xorbs.
    settled: watch::Sender<u64>,
    /// Up to which byte it is known which xorbs are kept as they came.
    decided: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Parts {
    terms: Vec<(Place, Range<u32>, u32)>,
    /// The xorbs that are packed so far, and whether they are durable.
    packed: Vec<(XorbHash, bool)>,
    /// How many of the first terms are in durable xorbs, and how many bytes they make.
    settled: (usize, u64),
    /// How long the file is so far, and how long it will be, once it has begun.
    length: u64,
    size: u64,
    /// Where in the file the xorb at hand begins.
    begun: u64,
    is_followed: bool,
    /// Whether the last term can't grow any more.
    is_ended: bool,
    /// Xorbs that are stored as they came, by where in the file they begin, and whether they are
    /// nobody's yet.
    kept: BTreeMap<u64, (XorbHash, bool)>,
    /// Bytes of the file that are placed in them.
    kept_bytes: u64,
    /// Where xorbs begin of which that is not decided.
    undecided: Vec<u64>,
    /// Whether the last of them that told had chunks that are within reach elsewhere.
    is_elsewhere: bool,
}

impl Parts {
    fn xorb(&self, place: Place) -> Option<(XorbHash, bool)> {
        match place {
            Place::Stored(xorb) => Some((xorb, true)),
            Place::Packed(number) => self.packed.get(number).copied(),
        }
    }

    /// Goes on over terms that became durable. The last one may still grow.
    fn settle(&mut self) -> u64 {
        let (mut terms, mut bytes) = self.settled;
        while let Some(&(place, _, length)) = self.terms.get(terms)
            && (terms + 1 < self.terms.len() || self.is_ended)
            && self.xorb(place).is_some_and(|(_, is_durable)| is_durable)
        {
            terms += 1;
            bytes += u64::from(length);
        }
        self.settled = (terms, bytes);
        bytes
    }
}

impl Default for Growing {
    fn default() -> Self {
        let (settled, decided) = (watch::Sender::new(0), watch::Sender::new(u64::MAX));
        Self { parts: Mutex::default(), settled, decided }
    }
}

impl Growing {
    fn parts(&self) -> MutexGuard<'_, Parts> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, change: impl FnOnce(&mut Parts) -> T) -> T {
        let mut parts = self.parts();
        let changed = change(&mut parts);
        let bytes = parts.settle();
        self.settled.send_if_modified(|settled| std::mem::replace(settled, bytes) != bytes);
        changed
    }

    /// The file comes, from its first byte. If it does so anew, all of it is packed: what was kept
    /// may have gone.
    pub(super) fn begin(&self, size: u64) {
        self.change(|parts| {
            let Parts { size: before, is_followed, mut kept, undecided, is_elsewhere, .. } =
                std::mem::take(parts);
            if before > 0 {
                kept.clear();
            }
            *parts = Parts { size, is_followed, kept, undecided, is_elsewhere, ..Parts::default() };
        });
    }

    /// From this byte on it is not known what is kept, until what this gives is dropped.
    pub(super) fn hold(self: &Arc<Self>, at: u64) -> Hold {
        self.decide(|undecided| undecided.push(at));
        Hold { growing: Arc::clone(self), at }
    }

    fn decide(&self, change: impl FnOnce(&mut Vec<u64>)) {
        let mut parts = self.parts();
        change(&mut parts.undecided);
        self.decided.send_replace(parts.undecided.iter().copied().min().unwrap_or(u64::MAX));
    }

    /// A xorb is stored as it came, which begins at this byte of the file.
    pub(super) fn keep(&self, at: u64, xorb: XorbHash, is_new: bool) {
        self.parts().kept.insert(at, (xorb, is_new));
    }

    /// Waits until it is known which xorbs begin before this byte and are kept.
    pub(super) async fn decided(&self, end: u64) {
        let mut decided = self.decided.subscribe();
        // Its sender is ours: it is not gone.
        drop(decided.wait_for(|decided| *decided >= end).await);
    }

    /// The xorbs that begin in this range and are kept.
    pub(super) fn kept(&self, range: Range<u64>) -> Vec<(u64, XorbHash)> {
        self.parts().kept.range(range).map(|(at, (xorb, _))| (*at, *xorb)).collect()
    }

    /// Those that were stored for this file.
    pub(super) fn kept_new(&self) -> Vec<XorbHash> {
        let parts = self.parts();
        let new = parts.kept.values().filter(|(_, is_new)| *is_new);
        new.map(|(xorb, _)| *xorb).collect()
    }

    /// So many bytes more are placed in a xorb that was kept.
    pub(super) fn count_kept(&self, bytes: u64) {
        self.parts().kept_bytes += bytes;
    }

    /// Bytes of the file that are in xorbs as they came.
    pub fn kept_bytes(&self) -> u64 {
        self.parts().kept_bytes
    }

    /// Whether what comes is within reach in other xorbs: what is told of it now, or was before.
    pub(super) fn is_elsewhere(&self, told: Option<bool>) -> bool {
        let mut parts = self.parts();
        parts.is_elsewhere = told.unwrap_or(parts.is_elsewhere);
        parts.is_elsewhere
    }

    /// The next chunk of the file is here; how many terms there are now.
    pub(super) fn append(&self, place: Place, index: u32, length: u32) -> usize {
        self.change(|parts| {
            parts.length += u64::from(length);
            parts.is_ended = false;
            match parts.terms.last_mut() {
                Some((of, chunks, bytes)) if *of == place && chunks.end == index => {
                    chunks.end += 1;
                    *bytes += length;
                }
                _ => parts.terms.push((place, index..index + 1, length)),
            }
            parts.terms.len()
        })
    }

    /// The last chunk was the last one of its xorb: those who wait for it need not wait for what
    /// comes next. The file's end is not told so.
    pub(super) fn end_term(&self) {
        self.change(|parts| parts.is_ended = parts.length < parts.size);
    }

    /// The place of what the xorb at hand holds; a new one begins at the chunk that comes next.
    pub(super) fn at_hand(&self, is_new: bool) -> Place {
        let mut parts = self.parts();
        if is_new {
            parts.begun = parts.length;
        }
        Place::Packed(parts.packed.len())
    }

    /// The xorb at hand is whole, and has its name.
    pub(super) fn close(&self, xorb: XorbHash) {
        self.parts().packed.push((xorb, false));
    }

    /// A xorb that was packed is durable. One of an earlier beginning is, too.
    pub(super) fn stored(&self, xorb: &XorbHash) {
        self.change(|parts| {
            let packed = parts.packed.iter_mut().filter(|(packed, _)| packed == xorb);
            packed.for_each(|(_, is_durable)| *is_durable = true);
        });
    }

    /// Whether somebody has waited for the xorb at hand for long enough.
    pub(super) fn is_late(&self) -> bool {
        let parts = self.parts();
        parts.is_followed && parts.length - parts.begun >= FOLLOWED_BYTES
    }

    /// The xorb that a place is in, when all of them are packed.
    pub(super) fn xorb(&self, place: Place) -> Result<XorbHash> {
        let found = self.parts().xorb(place);
        found.map(|(xorb, _)| xorb).ok_or_else(never_packed)
    }

    /// All terms, when all xorbs are packed.
    pub(super) fn terms(&self) -> Result<Vec<Term>> {
        let parts = self.parts();
        let all = parts.terms.iter().map(|term| parts.term(term));
        all.collect::<Option<_>>().ok_or_else(never_packed)
    }

    /// Waits until the file has come as far as this range goes, and its xorbs are durable: the
    /// terms that hold it, and where in the file the first of them starts.
    pub(crate) async fn part(&self, range: &Range<u64>) -> (u64, Vec<Term>) {
        self.parts().is_followed = true;
        let mut settled = self.settled.subscribe();
        loop {
            // Its sender is ours: it is not gone.
            drop(settled.wait_for(|settled| *settled >= range.end).await);
            // If the file has begun anew since, there is nothing yet.
            if let Some(part) = self.parts().part(range) {
                return part;
            }
        }
    }
}

/// While it is undecided whether a xorb is kept that begins at some byte of a file.
#[derive(Debug)]
pub(super) struct Hold {
    growing: Arc<Growing>,
    at: u64,
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.growing.decide(|undecided| {
            if let Some(place) = undecided.iter().position(|at| *at == self.at) {
                undecided.swap_remove(place);
            }
        });
    }
}

fn never_packed() -> Error {
    Error::internal("a chunk is in a xorb that was never packed")
}

impl Parts {
    fn term(&self, (place, chunks, length): &(Place, Range<u32>, u32)) -> Option<Term> {
        let (xorb, _) = self.xorb(*place)?;
        Some(Term { xorb, chunks: chunks.clone(), length: *length })
    }

    fn part(&self, range: &Range<u64>) -> Option<(u64, Vec<Term>)> {
        let (terms, bytes) = self.settled;
        if bytes < range.end {
            return None;
        }
        let (mut start, mut found, mut at) = (0, Vec::new(), 0);
        for term in &self.terms[..terms] {
            let end = at + u64::from(term.2);
            if end > range.start && at < range.end {
                if found.is_empty() {
                    start = at;
                }
                found.push(self.term(term)?);
            }
            at = end;
        }
        Some((start, found))
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn xorb(number: u8) -> XorbHash {
        XorbHash::from_bytes([number; 32])
    }

    /// What can be had of a range now: where its first term starts, and the xorbs.
    fn now(growing: &Growing, range: Range<u64>) -> Option<(u64, Vec<XorbHash>)> {
        let (start, terms) = growing.part(&range).now_or_never()?;
        Some((start, terms.iter().map(|term| term.xorb).collect()))
    }

    #[test]
    fn what_is_told_is_durable_from_the_files_first_byte_on() {
        let growing = Growing::default();
        growing.begin(450);
        let first = growing.at_hand(true);
        growing.append(first, 0, 100);
        growing.append(first, 1, 100);
        growing.close(xorb(1));
        let second = growing.at_hand(true);
        growing.append(second, 0, 100);
        growing.append(Place::Stored(xorb(9)), 4, 50);
        growing.append(second, 1, 100);
        assert_eq!(now(&growing, 0..10), None, "nothing is stored");
        growing.close(xorb(2));
        growing.stored(&xorb(2));
        assert_eq!(now(&growing, 200..250), None, "what comes before it is not stored");
        growing.stored(&xorb(1));
        assert_eq!(now(&growing, 0..200), Some((0, vec![xorb(1)])));
        assert_eq!(now(&growing, 199..201), Some((0, vec![xorb(1), xorb(2)])));
        assert_eq!(now(&growing, 250..350), Some((200, vec![xorb(2), xorb(9)])));
        assert_eq!(now(&growing, 250..351), None, "the last one may still grow");
        growing.end_term();
        assert_eq!(now(&growing, 250..351), None, "it is the file's end");
        growing.parts().size = 451;
        growing.end_term();
        assert_eq!(now(&growing, 250..351), Some((200, vec![xorb(2), xorb(9), xorb(2)])));
        let lengths: Vec<u32> =
            growing.terms().expect("all are packed").iter().map(|term| term.length).collect();
        assert_eq!(lengths, [200, 100, 50, 100]);
    }

    #[test]
    fn who_waits_gets_what_came_anew() {
        let growing = Growing::default();
        for place in [Place::Stored(xorb(1)), Place::Stored(xorb(2))] {
            growing.append(place, 0, 100);
        }
        assert_eq!(now(&growing, 0..100), Some((0, vec![xorb(1)])));
        growing.begin(400);
        assert_eq!(now(&growing, 0..100), None);
        let mut waiting = Box::pin(growing.part(&(0..100)));
        assert!(waiting.as_mut().now_or_never().is_none());
        for place in [Place::Stored(xorb(3)), Place::Stored(xorb(4))] {
            growing.append(place, 0, 100);
        }
        let (_, terms) = waiting.now_or_never().expect("it came");
        assert_eq!(terms[0].xorb, xorb(3));
    }

    #[test]
    fn who_places_waits_for_what_is_undecided_and_hears_what_is_kept() {
        let growing = Arc::new(Growing::default());
        assert!(growing.decided(u64::MAX).now_or_never().is_some(), "nothing is undecided");
        let (front, first, second) = (growing.hold(0), growing.hold(0), growing.hold(100));
        drop(front);
        assert!(growing.decided(1).now_or_never().is_none(), "the first one is not decided");
        growing.begin(400);
        growing.keep(100, xorb(2), false);
        drop(second);
        assert!(growing.decided(1).now_or_never().is_none(), "that was the second one");
        growing.keep(0, xorb(1), true);
        drop(first);
        assert!(growing.decided(u64::MAX).now_or_never().is_some());
        assert_eq!(growing.kept(0..101), [(0, xorb(1)), (100, xorb(2))]);
        assert_eq!(growing.kept(1..100), []);
        assert_eq!(growing.kept_new(), [xorb(1)]);
        growing.begin(400);
        assert_eq!(growing.kept(0..101), [], "they may be what is wrong");
    }

    #[test]
    fn a_xorb_is_closed_early_only_for_those_who_wait() {
        let growing = Growing::default();
        let hand = growing.at_hand(true);
        growing.append(hand, 0, 100_000);
        for _ in 0..FOLLOWED_BYTES / 100_000 {
            growing.append(Place::Stored(xorb(1)), 0, 100_000);
        }
        assert!(!growing.is_late(), "nobody waits");
        assert_eq!(now(&growing, 0..1), None);
        assert!(growing.is_late());
        growing.close(xorb(2));
        growing.at_hand(true);
        assert!(!growing.is_late(), "the next one has begun");
    }
}
