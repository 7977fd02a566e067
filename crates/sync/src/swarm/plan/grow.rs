//! Finding parents for those who have none.

use std::collections::{BTreeMap, VecDeque};

use super::candidates::{Candidates, Pass};
use super::forest::Forest;
use super::host::{Host, HostId, Parent};

/// What the hub may have to send to several in one stripe, where the hosts have no more room: so
/// many children for each stripe, over all.
const HUB_CHILDREN: u32 = 4;
/// A host may have more children than slots by so many 16ths, before others are looked for in other
/// sites, or the hub has another one.
const STRETCHED: u32 = 16;

/// So many hosts of a site pass each stripe on from one to the next, if each lacks so many pieces
/// for each hop, so that the last one waits for a sixteenth at most; more of them in trees, and
/// more than these in low ones.
const CHAINED: usize = 16;
const PIECES_A_HOP: usize = 32;
const MANY: usize = 512;

impl Forest {
    /// Finds parents for all who lack something and have none; those whose parents are others than
    /// at the last call. The time that it takes grows with the number of hosts, so call it once for
    /// many events.
    pub fn settle(&mut self) -> Vec<HostId> {
        if std::mem::take(&mut self.has_newcomers) {
            self.plan_fresh();
        }
        // Who asks the hub first: what share of its slots a host has for a stripe depends on that.
        for stripe in 0..self.totals.len() {
            self.place_first(stripe);
        }
        let mut left = Vec::new();
        for stripe in 0..self.totals.len() {
            let loose = self.loose(stripe);
            if !loose.is_empty() {
                left.push((stripe, self.place_meant(stripe, loose)));
            }
        }
        for (stripe, loose) in left {
            if !loose.is_empty() {
                self.place_any(stripe, loose.into());
            }
        }
        self.changed()
    }

    /// Those who lack pieces of a stripe and have no parent, in the order in which they should be
    /// given one: who passes on before who does not, the hub's site first, who has most first. Of
    /// those who are as good as each other, the first is who has most room for those after it.
    fn loose(&self, stripe: usize) -> Vec<HostId> {
        let slack = self.slack(stripe);
        let key = |host: &Host| {
            let seat = &host.seats[stripe];
            let lacks = (self.totals[stripe] - seat.held) / slack;
            let is_far = host.place.site != self.hub_place.site;
            // In a chain all stripes go the same way: no two hosts share a link.
            let children = if host.is_chained { 0 } else { host.children };
            let rank = (!seat.is_primary, children);
            (!host.may_be_asked(), is_far, host.place.site, lacks, rank)
        };
        let is_loose =
            |host: &Host| host.seats[stripe].parent.is_none() && !self.has_stripe(host, stripe);
        let mut loose: Vec<_> = self
            .ids()
            .filter_map(|id| {
                self.host(id).filter(|host| is_loose(host)).map(|host| (key(host), id))
            })
            .collect();
        loose.sort_unstable();
        loose.into_iter().map(|(_, id)| id).collect()
    }

    /// By how many pieces of a stripe hosts may differ and still be as good as each other.
    fn slack(&self, stripe: usize) -> u32 {
        (self.totals[stripe] / 32).max(2)
    }

    /// Lets the first one ask the hub, if nobody else has a way to the whole of a stripe.
    fn place_first(&mut self, stripe: usize) {
        let is_first = |host: &Host| {
            let is_at_hub = host.seats[stripe].parent == Some(Parent::Hub);
            host.may_be_asked() && (is_at_hub || self.has_stripe(host, stripe))
        };
        if self.hosts.iter().flatten().any(is_first) {
            return;
        }
        let may_ask = |id: &HostId| self.host(*id).is_some_and(|host| !host.avoids(Parent::Hub));
        if let Some(first) = self.loose(stripe).first().copied().filter(may_ask) {
            self.seat(first, stripe, Some(Parent::Hub));
        }
    }

    /// Gives parents of those who are meant to pass the stripe on; who finds none of these is left.
    fn place_meant(&mut self, stripe: usize, loose: Vec<HostId>) -> Vec<HostId> {
        let mut candidates = Candidates::new(self, stripe, Pass::Meant);
        let mut left = Vec::new();
        for id in loose {
            let Some(host) = self.host(id) else { continue };
            let near = host.place;
            // To cross from site to site is for the first of a site.
            let site = candidates.are_in(near.site).then_some(near.site);
            let parent = candidates.best(near, site, 0, |parent| self.suits(id, parent, stripe));
            let parent = match parent {
                Some(parent) => Parent::Host(parent),
                None if candidates.is_empty() && !host.avoids(Parent::Hub) => Parent::Hub,
                None => {
                    left.push(id);
                    continue;
                }
            };
            self.seat(id, stripe, Some(parent));
            candidates.attach(self, id, parent);
        }
        left
    }

    /// Gives parents to all.
    fn place_any(&mut self, stripe: usize, mut loose: VecDeque<HostId>) {
        let mut candidates = Candidates::new(self, stripe, Pass::Any);
        while let Some(id) = loose.pop_front() {
            let parent = self.any_parent(stripe, id, &candidates);
            if parent == Parent::Hub {
                // Who has more than the hub's child goes before it: the hub sends to one.
                for behind in self.behind_at_hub(stripe, id) {
                    self.seat(behind, stripe, None);
                    candidates.detach(self, behind);
                    loose.push_back(behind);
                }
            }
            self.seat(id, stripe, Some(parent));
            candidates.attach(self, id, parent);
        }
    }

    fn any_parent(&self, stripe: usize, id: HostId, candidates: &Candidates) -> Parent {
        let Some(host) = self.host(id) else { return Parent::Hub };
        let near = host.place;
        let suits = |parent| self.suits(id, parent, stripe);
        let same_site = candidates.best(near, Some(near.site), STRETCHED, suits);
        if let Some(parent) = same_site.or_else(|| candidates.best(near, None, STRETCHED, suits)) {
            return Parent::Host(parent);
        }
        let stretched = candidates.best(near, None, u32::MAX, suits);
        let has_room = self.hub_children < HUB_CHILDREN * self.cut.stripes();
        if !host.avoids(Parent::Hub) && (stretched.is_none() || has_room) {
            return Parent::Hub;
        }
        let any = || candidates.best(near, None, u32::MAX, |parent| parent != id);
        stretched.or_else(any).map_or(Parent::Hub, Parent::Host)
    }

    /// Whether a host could ask another: it has no reason to avoid it, and is not far ahead of it.
    pub(super) fn suits(&self, id: HostId, parent: HostId, stripe: usize) -> bool {
        let (Some(host), Some(of)) = (self.host(id), self.host(parent)) else { return false };
        let (has, parent_has) = (host.seats[stripe].held, of.seats[stripe].held);
        parent != id
            && !host.avoids(Parent::Host(parent))
            && has <= parent_has.saturating_add(self.slack(stripe))
    }

    /// Children of the hub in a stripe who have less than a host does, and may ask it. Only less:
    /// those who avoid each other in a circle would take turns at the hub for ever.
    fn behind_at_hub(&self, stripe: usize, id: HostId) -> Vec<HostId> {
        let Some(host) = self.host(id).filter(|host| host.may_be_asked()) else {
            return Vec::new();
        };
        let least = host.seats[stripe].held.saturating_sub(self.slack(stripe));
        let is_behind = |other: &HostId| {
            let seat = self.seat_of(*other, stripe);
            seat.is_some_and(|seat| seat.parent == Some(Parent::Hub) && seat.held < least)
                && self.suits(*other, id, stripe)
        };
        self.ids().filter(is_behind).collect()
    }

    /// Others have come: those who have hardly begun are planned anew, together with them.
    fn plan_fresh(&mut self) {
        let is_fresh = |id: &HostId| self.host(*id).is_some_and(|host| self.is_fresh(host));
        let fresh: Vec<_> = self.ids().filter(is_fresh).collect();
        let mut is_fresh = vec![false; self.hosts.len()];
        for id in &fresh {
            is_fresh[id.index()] = true;
        }
        let mut keeps = vec![vec![false; self.totals.len()]; self.hosts.len()];
        // Whoever others who have begun rely on stays where it is.
        for id in self.ids().filter(|id| !is_fresh[id.index()]).collect::<Vec<_>>() {
            for (stripe, parent) in self.parents(id).into_iter().enumerate() {
                if let Some(Parent::Host(parent)) = parent {
                    keeps[parent.index()][stripe] = true;
                }
            }
        }
        for id in &fresh {
            for (stripe, keeps) in keeps[id.index()].iter().enumerate() {
                if !keeps {
                    self.seat(*id, stripe, None);
                }
            }
        }
        let mut by_site: BTreeMap<u32, Vec<HostId>> = BTreeMap::new();
        for id in fresh {
            let passes_on = |host: &&Host| host.may_be_asked() && !self.has_all(host);
            if let Some(host) = self.host(id).filter(passes_on) {
                by_site.entry(host.place.site).or_default().push(id);
            }
        }
        for (site, fresh) in by_site {
            self.deal_stripes(site, &fresh);
        }
    }

    /// Deals out who of a site passes on what, so that a host has few children in each stripe that
    /// it passes on. With more, what comes to it late, since links are never shared equally, would
    /// go out that many times before anybody has it.
    fn deal_stripes(&mut self, site: u32, fresh: &[HostId]) {
        let children = self.children_each(fresh);
        for id in fresh {
            if let Some(host) = self.host_mut(*id) {
                host.seats.iter_mut().for_each(|seat| seat.is_primary = false);
                host.is_chained = children == 1;
            }
        }
        // How many children the others of the site can have in each stripe.
        let mut strength = vec![0_u32; self.totals.len()];
        for host in self.hosts.iter().flatten().filter(|host| host.place.site == site) {
            for (stripe, strength) in strength.iter_mut().enumerate() {
                let share = self.is_meant(host, stripe).then(|| self.share(host));
                *strength += share.unwrap_or(0);
            }
        }
        let stripes = strength.len();
        let each = (stripes / fresh.len()).max(stripes / children).max(1);
        for turn in 0..fresh.len() * each {
            let id = fresh[turn % fresh.len()];
            let Some(host) = self.host_mut(id) else { continue };
            let free = (0..stripes).filter(|stripe| !host.seats[*stripe].is_primary);
            if let Some(weakest) = free.min_by_key(|stripe| strength[*stripe]) {
                host.seats[weakest].is_primary = true;
                strength[weakest] += (host.slots / u32::try_from(each).unwrap_or(1)).max(1);
            }
        }
    }

    /// How many children each of these should have in a stripe that it passes on.
    fn children_each(&self, fresh: &[HostId]) -> usize {
        let pieces: u32 = self.totals.iter().sum();
        let lacks = fresh.iter().filter_map(|id| self.host(*id)).map(|host| pieces - host.brought);
        let hops = fresh.len() - 1;
        let is_far = hops * PIECES_A_HOP > lacks.max().unwrap_or(0) as usize;
        match fresh.len() {
            ..=CHAINED if !is_far => 1,
            ..=MANY => 2,
            _ => self.totals.len(),
        }
    }

    /// Hosts whose parents are others than they were told; now they are told.
    fn changed(&mut self) -> Vec<HostId> {
        let mut changed = Vec::new();
        for (index, host) in self.hosts.iter_mut().enumerate() {
            let Some(host) = host else { continue };
            let mut has_changed = false;
            for seat in &mut host.seats {
                if seat.parent.is_some() && seat.parent != seat.told {
                    seat.told = seat.parent;
                    has_changed = true;
                }
            }
            if has_changed {
                changed.push(HostId::at(index));
            }
        }
        changed
    }
}
