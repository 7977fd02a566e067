//! Who is too slow to pass anything on, and who may pass on less than others.

use std::time::Duration;

use super::forest::Forest;
use super::host::{Host, HostId, Parent, Seat};

/// How long rates are taken over.
const WINDOW: Duration = Duration::from_secs(2);
/// A host that takes less than one in so many of what its parents do is slow.
const SLOW: u32 = 4;
/// It is not slow any more when it takes one in so many again.
const RECOVERED: u32 = 2;
/// Fewer hosts say nothing of each other.
const FEWEST: usize = 3;

/// After so long, complaints count no more: networks recover.
const PARDONED: Duration = Duration::from_mins(1);

/// When the rates were last looked at.
#[derive(Clone, Debug, Default)]
pub(super) struct Marks {
    at: Option<Duration>,
    pardoned: Duration,
}

impl Forest {
    /// Looks how fast the hosts are, at most once in two seconds: one that takes less than a
    /// quarter of what its parents do becomes a leaf, and one whose upload is limited to less than
    /// others take has fewer children. The time is that of any clock that does not go back; some
    /// host was once seen to take `quickest` bytes a second.
    pub fn watch(&mut self, now: Duration, quickest: u64) {
        let since = self.marks.at.map(|at| now.saturating_sub(at));
        if since.is_some_and(|since| since < WINDOW) {
            return;
        }
        self.marks.at = Some(now);
        if now.saturating_sub(self.marks.pardoned) >= PARDONED {
            self.marks.pardoned = now;
            self.hosts.iter_mut().flatten().for_each(Host::pardon);
        }
        if let Some(since) = since {
            let ms = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
            self.compare(ms);
            self.doubt_the_first(ms, quickest);
        }
        for seat in self.hosts.iter_mut().flatten().flat_map(|host| &mut host.seats) {
            seat.marked = Some((seat.held, seat.parent));
        }
    }

    /// Holds what hosts took since the rates were last looked at against each other.
    fn compare(&mut self, ms: u64) {
        let taken = self.taken();
        if taken.len() < FEWEST {
            return;
        }
        let mut sorted: Vec<_> = taken.iter().map(|(_, taken)| *taken).collect();
        sorted.sort_unstable();
        let median = sorted[sorted.len() / 2];
        let offered: Vec<_> = taken.iter().map(|(id, _)| self.offered(*id)).collect();
        for ((id, taken), offered) in taken.into_iter().zip(offered) {
            let (taken, offered) = offered.unwrap_or((taken, median));
            self.judge(id, taken, offered);
        }
        self.limit_slots(median, ms);
    }

    /// Where all comes from the hub to one host, and each passes everything on to the next, nobody
    /// knows whether that one is slow or the hub. If others were much quicker, the next one goes
    /// before it in one stripe.
    fn doubt_the_first(&mut self, ms: u64, quickest: u64) {
        let stripe = self.totals.len() - 1;
        let asks = |id: &HostId| self.parents(*id).contains(&Some(Parent::Hub));
        let heads: Vec<_> = self.ids().filter(asks).collect();
        let &[head] = heads.as_slice() else { return };
        let pieces = self.host(head).and_then(Host::taken).map_or(u64::MAX, u64::from);
        let rate = pieces.saturating_mul(self.cut.piece_bytes()).saturating_mul(1000) / ms;
        if rate >= quickest / u64::from(SLOW) {
            return;
        }
        let child_of = |parent| {
            let asks = |id: &HostId| {
                self.seat_of(*id, stripe).is_some_and(|seat| seat.parent == Some(parent))
            };
            self.ids().find(asks)
        };
        let Some(next) = child_of(Parent::Host(head)) else { return };
        let asks_here =
            |host: &Host| host.is_chained && host.seats[stripe].parent == Some(Parent::Hub);
        let may_ask = |host: &Host| host.may_be_asked() && !host.avoids(Parent::Hub);
        let is_right = self.host(head).is_some_and(asks_here)
            && self.host(next).is_some_and(may_ask)
            && self.suits(head, next, stripe);
        if !is_right {
            return;
        }
        let third = child_of(Parent::Host(next));
        self.seat(next, stripe, Some(Parent::Hub));
        self.seat(head, stripe, Some(Parent::Host(next)));
        if let Some(third) = third {
            self.seat(third, stripe, Some(Parent::Host(head)));
        }
    }

    /// What each host that lacks something took since it was last looked at.
    fn taken(&self) -> Vec<(HostId, u32)> {
        let took = |id| self.host(id).filter(|host| !self.has_all(host))?.taken();
        self.ids().filter_map(|id| Some((id, took(id)?))).collect()
    }

    /// What a host took from others, and what these did of the same stripes. Whoever stands behind
    /// a slow host is slow too, and not to blame. Nothing, if there are no others, or they took
    /// nothing.
    fn offered(&self, id: HostId) -> Option<(u32, u32)> {
        let of_stripe = |(stripe, seat): (usize, &Seat)| {
            let (_, Some(Parent::Host(parent))) = seat.marked? else { return None };
            let stays = seat.parent == Some(Parent::Host(parent));
            let offered = self.seat_of(parent, stripe).filter(|_| stays)?.taken()?;
            (offered > 0).then_some((seat.taken()?, offered))
        };
        let stripes = self.host(id)?.seats.iter().enumerate().filter_map(of_stripe);
        stripes.reduce(|(taken, offered), (more, of)| (taken + more, offered + of))
    }

    fn judge(&mut self, id: HostId, taken: u32, offered: u32) {
        let Some(host) = self.host_mut(id) else { return };
        if host.is_slow {
            host.is_slow = taken < offered / RECOVERED;
        } else if taken < offered / SLOW {
            host.is_slow = true;
            self.sink(id);
        }
    }

    /// Children as the upload allows, where a host may send less than hosts take.
    fn limit_slots(&mut self, median: u32, ms: u64) {
        let stripes = self.cut.stripes();
        for id in self.ids().collect::<Vec<_>>() {
            let Some(host) = self.host_mut(id) else { continue };
            let Some(upload) = host.upload else { continue };
            let sends = u64::from(upload).saturating_mul(ms) / 1000;
            let slots = (sends * u64::from(stripes)).checked_div(u64::from(median));
            let slots = slots.map_or(stripes, |slots| u32::try_from(slots).unwrap_or(stripes));
            host.slots = slots.min(stripes);
            if host.children > 2 * host.slots {
                self.drop_children(id);
            }
        }
    }
}
