//! The forest of a swarm: what happens to its hosts.
//!
//! Events change what is known and take hosts off parents that are of no use to them;
//! [`Forest::settle`] finds parents for all who have none.

use super::cut::Cut;
use super::host::{Host, HostId, Parent, Place, Seat};
use super::watch::Marks;

/// A host that has taken no more than one in so many of the pieces that it lacked when it came is
/// planned anew when others come: trees stay low, and what it is sent again is little. With more,
/// it would wait for those behind it.
const FRESH: u32 = 256;

/// Who comes.
#[derive(Clone, Copy, Debug)]
pub struct Newcomer<'a> {
    /// Where it stands.
    pub place: Place,
    /// The most bytes that it sends in a second, if that is limited.
    pub upload: Option<u64>,
    /// How many pieces of each stripe it has; stripes that are not told of have none.
    pub held: &'a [u32],
}

/// The plan of one swarm.
#[derive(Clone, Debug)]
pub struct Forest {
    pub(super) cut: Cut,
    /// Where the hub stands.
    pub(super) hub_place: Place,
    /// How many ask the hub.
    pub(super) hub_children: u32,
    /// How many pieces each stripe has.
    pub(super) totals: Vec<u32>,
    pub(super) hosts: Vec<Option<Host>>,
    vacant: Vec<u32>,
    pub(super) has_newcomers: bool,
    pub(super) marks: Marks,
}

impl Forest {
    /// A swarm of nobody, for a file that is cut so.
    pub fn new(cut: Cut, hub_place: Place) -> Self {
        let count = |stripe| u32::try_from(cut.pieces_of(stripe)).unwrap_or(u32::MAX);
        Self {
            cut,
            hub_place,
            hub_children: 0,
            totals: (0..cut.stripes()).map(count).collect(),
            hosts: Vec::new(),
            vacant: Vec::new(),
            has_newcomers: false,
            marks: Marks::default(),
        }
    }

    /// How the file is cut.
    pub fn cut(&self) -> Cut {
        self.cut
    }

    /// A host comes.
    pub fn join(&mut self, newcomer: Newcomer<'_>) -> HostId {
        let held = |stripe: usize| newcomer.held.get(stripe).copied().unwrap_or(0);
        let seat = |(stripe, total): (usize, &u32)| Seat {
            held: held(stripe).min(*total),
            ..Seat::default()
        };
        let seats = self.totals.iter().enumerate().map(seat).collect();
        let pieces = |bytes: u64| u32::try_from(bytes / self.cut.piece_bytes()).unwrap_or(u32::MAX);
        let host = Host::new(newcomer.place, newcomer.upload.map(pieces), seats);
        self.has_newcomers = true;
        if let Some(vacant) = self.vacant.pop() {
            self.hosts[vacant as usize] = Some(host);
            return HostId(vacant);
        }
        self.hosts.push(Some(host));
        HostId::at(self.hosts.len() - 1)
    }

    /// A host says how many pieces of each stripe it has.
    pub fn report(&mut self, id: HostId, held: &[u32]) {
        for stripe in 0..self.totals.len() {
            let total = self.totals[stripe];
            let Some(host) = self.host_mut(id) else { return };
            let Some(now) = held.get(stripe) else { return };
            host.seats[stripe].held = (*now).min(total);
            if *now >= total {
                self.seat(id, stripe, None);
            }
        }
    }

    /// A host leaves, or is taken to be dead.
    pub fn leave(&mut self, id: HostId) {
        self.sink(id);
        if self.hosts.get_mut(id.index()).is_some_and(|host| host.take().is_some()) {
            self.vacant.push(id.0);
        }
        for host in self.hosts.iter_mut().flatten() {
            host.forget(id);
        }
    }

    /// A host says that its parent of a stripe is of no use to it: it gets another one. A parent of
    /// which several say so, or that sent wrong bytes to one, is nobody's parent any more.
    pub fn complain(&mut self, by: HostId, stripe: u32, about: Parent, has_lied: bool) {
        let stripe = stripe as usize;
        if self.seat_of(by, stripe).is_none_or(|seat| seat.parent != Some(about)) {
            // It was given another one meanwhile.
            return;
        }
        self.seat(by, stripe, None);
        if let Some(host) = self.host_mut(by) {
            host.avoid(about);
        }
        let Parent::Host(about) = about else { return };
        let Some(host) = self.host_mut(about) else { return };
        host.strike(by, has_lied);
        if host.is_distrusted() {
            self.sink(about);
        }
    }

    /// Whom a host asks, by stripe; nobody for what it has.
    pub fn parents(&self, id: HostId) -> Vec<Option<Parent>> {
        let seats = self.host(id).map(|host| host.seats.iter().map(|seat| seat.parent).collect());
        seats.unwrap_or_default()
    }

    /// Whether a host has a parent wherever it lacks something.
    pub fn is_settled(&self, id: HostId) -> bool {
        let Some(host) = self.host(id) else { return false };
        let has_way = |stripe| self.has_stripe(host, stripe) || host.seats[stripe].parent.is_some();
        (0..self.totals.len()).all(has_way)
    }

    /// How many others ask a host, counted once for each stripe.
    pub fn children(&self, id: HostId) -> u32 {
        self.host(id).map_or(0, |host| host.children)
    }

    /// How many ask the hub, counted once for each stripe.
    pub fn hub_children(&self) -> u32 {
        self.hub_children
    }

    /// How many pieces a host has.
    pub fn held(&self, id: HostId) -> u32 {
        self.host(id).map_or(0, Host::held)
    }

    /// Whether a host has all pieces.
    pub fn is_done(&self, id: HostId) -> bool {
        self.host(id).is_some_and(|host| self.has_all(host))
    }

    /// All hosts.
    pub fn ids(&self) -> impl Iterator<Item = HostId> + '_ {
        let here = |(index, host): (usize, &Option<Host>)| host.as_ref().map(|_| index);
        self.hosts.iter().enumerate().filter_map(here).map(HostId::at)
    }

    /// Whom a host may ask when its parents fail: its parents, then holders of the whole and others
    /// of its site, then others; each host is told of others.
    pub fn peers(&self, id: HostId, most: usize) -> Vec<HostId> {
        let Some(host) = self.host(id) else { return Vec::new() };
        let mut peers = Vec::with_capacity(most);
        for seat in &host.seats {
            if let Some(Parent::Host(parent)) = seat.parent
                && !peers.contains(&parent)
            {
                peers.push(parent);
            }
        }
        let others = self.sample(id, 4 * most.max(4));
        let mut others: Vec<_> = others
            .filter(|(other, about)| !peers.contains(other) && !about.is_distrusted())
            .map(|(other, about)| {
                let far = about.place.site != host.place.site;
                let near_rack = about.place.rack == host.place.rack;
                ((!self.has_all(about), far, !near_rack), other)
            })
            .collect();
        others.sort_by_key(|(rank, _)| *rank);
        peers.extend(others.into_iter().map(|(_, other)| other));
        peers.truncate(most.max(host.seats.len()));
        peers
    }

    /// Some of the others, beginning at a place that differs from host to host.
    fn sample(&self, id: HostId, most: usize) -> impl Iterator<Item = (HostId, &Host)> {
        let count = self.hosts.len().max(1);
        // A stride that spreads neighbours over the whole: the golden ratio's.
        let start = id.index().wrapping_mul(0x9E37_79B9) % count;
        let turn = (0..count.min(most)).map(move |step| (start + step) % count);
        turn.filter_map(move |index| {
            let other = HostId::at(index);
            (other != id).then_some(())?;
            Some((other, self.host(other)?))
        })
    }

    pub(super) fn host(&self, id: HostId) -> Option<&Host> {
        self.hosts.get(id.index())?.as_ref()
    }

    pub(super) fn host_mut(&mut self, id: HostId) -> Option<&mut Host> {
        self.hosts.get_mut(id.index())?.as_mut()
    }

    pub(super) fn seat_of(&self, id: HostId, stripe: usize) -> Option<&Seat> {
        self.host(id)?.seats.get(stripe)
    }

    pub(super) fn has_stripe(&self, host: &Host, stripe: usize) -> bool {
        host.seats[stripe].held >= self.totals[stripe]
    }

    /// Whether a host should pass a stripe on: it was chosen to, or has it before others.
    pub(super) fn is_meant(&self, host: &Host, stripe: usize) -> bool {
        let seat = &host.seats[stripe];
        seat.is_primary || seat.parent == Some(Parent::Hub) || self.has_stripe(host, stripe)
    }

    /// How many children a host should have in a stripe that it should pass on.
    pub(super) fn share(&self, host: &Host) -> u32 {
        let is_meant = |stripe| u32::from(self.is_meant(host, stripe));
        let stripes: u32 = (0..self.totals.len()).map(is_meant).sum();
        (host.slots / stripes.max(1)).max(1)
    }

    pub(super) fn has_all(&self, host: &Host) -> bool {
        (0..self.totals.len()).all(|stripe| self.has_stripe(host, stripe))
    }

    /// Whether a host came so recently that others who come may still be put before it.
    pub(super) fn is_fresh(&self, host: &Host) -> bool {
        let pieces = self.totals.iter().sum::<u32>();
        let (wanted, taken) = (pieces - host.brought, host.held().saturating_sub(host.brought));
        taken <= wanted / FRESH
    }

    /// Gives a host a parent in a stripe, or takes it off its parent.
    pub(super) fn seat(&mut self, id: HostId, stripe: usize, parent: Option<Parent>) {
        let Some(seat) = self.host_mut(id).map(|host| &mut host.seats[stripe]) else { return };
        let before = std::mem::replace(&mut seat.parent, parent);
        if before == parent {
            return;
        }
        match before {
            None => {}
            Some(Parent::Hub) => self.hub_children -= 1,
            Some(Parent::Host(before)) => {
                if let Some(before) = self.host_mut(before) {
                    before.children -= 1;
                    before.seats[stripe].kids -= 1;
                }
            }
        }
        match parent {
            None => {}
            Some(Parent::Hub) => self.hub_children += 1,
            Some(Parent::Host(parent)) => {
                if let Some(parent) = self.host_mut(parent) {
                    parent.children += 1;
                    parent.seats[stripe].kids += 1;
                }
            }
        }
    }

    /// A host shall not pass anything on: nobody asks it, and others come before it wherever it
    /// stood.
    pub(super) fn sink(&mut self, id: HostId) {
        self.drop_children(id);
        for stripe in 0..self.totals.len() {
            self.seat(id, stripe, None);
        }
    }

    /// Takes all who ask a host off it.
    pub(super) fn drop_children(&mut self, of: HostId) {
        for id in (0..self.hosts.len()).map(HostId::at) {
            for stripe in 0..self.totals.len() {
                let seat = self.seat_of(id, stripe);
                if seat.is_some_and(|seat| seat.parent == Some(Parent::Host(of))) {
                    self.seat(id, stripe, None);
                }
            }
        }
    }
}
