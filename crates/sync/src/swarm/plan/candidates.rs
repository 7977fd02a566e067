//! Who may be a parent in one stripe, in the order of how good they are.

use std::collections::{BTreeMap, BTreeSet};

use super::forest::Forest;
use super::host::{Host, HostId, Parent, Place};

/// Who is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pass {
    /// Those who are meant to pass the stripe on, or have it first, each up to its share.
    Meant,
    /// Everybody who has the room, and then everybody.
    Any,
}

/// How good a parent is; the lowest one is the best.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    /// By how much it would have more children than slots, in 16ths of these.
    over: u32,
    is_not_meant: bool,
    depth: u32,
    /// Whether it stands in another rack than who asks.
    is_far: bool,
    /// Its children, as a share of its slots.
    load: u32,
    id: HostId,
}

/// Those of a stripe who have a way to somebody that has all of it.
pub(super) struct Candidates {
    stripe: usize,
    pass: Pass,
    /// By host: hops to the root.
    depths: Vec<Option<u32>>,
    /// By host: who asks it.
    children: Vec<Vec<HostId>>,
    /// By host: how it is ranked, if it is.
    ranked: Vec<Option<Rank>>,
    ranks: BTreeMap<Place, BTreeSet<Rank>>,
    /// Sites in which there are some, with room or not.
    sites: BTreeSet<u32>,
}

impl Candidates {
    pub(super) fn new(forest: &Forest, stripe: usize, pass: Pass) -> Self {
        let mut this = Self {
            stripe,
            pass,
            depths: vec![None; forest.hosts.len()],
            children: vec![Vec::new(); forest.hosts.len()],
            ranked: vec![None; forest.hosts.len()],
            ranks: BTreeMap::new(),
            sites: BTreeSet::new(),
        };
        let mut roots = Vec::new();
        for (index, host) in forest.hosts.iter().enumerate() {
            let (id, Some(host)) = (HostId::at(index), host) else { continue };
            match host.seats[stripe].parent {
                _ if forest.has_stripe(host, stripe) => roots.push((id, 0)),
                Some(Parent::Hub) => roots.push((id, 1)),
                Some(Parent::Host(parent)) => this.children[parent.index()].push(id),
                None => {}
            }
        }
        for (root, depth) in roots {
            this.add(forest, root, depth);
        }
        this
    }

    /// Nobody has a way to the whole stripe.
    pub(super) fn is_empty(&self) -> bool {
        self.sites.is_empty()
    }

    /// Whether there are some in a site.
    pub(super) fn are_in(&self, site: u32) -> bool {
        self.sites.contains(&site)
    }

    /// The best one, in this site if one is named, that would not have more than so many 16ths
    /// more children than slots.
    pub(super) fn best(
        &self,
        near: Place,
        site: Option<u32>,
        most_over: u32,
        fits: impl Fn(HostId) -> bool,
    ) -> Option<HostId> {
        let groups = self.ranks.iter().filter(|(place, _)| site.is_none_or(|at| place.site == at));
        let firsts = groups.filter_map(|(place, ranks)| {
            let fitting = ranks.iter().take_while(|rank| rank.over <= most_over);
            let first = fitting.copied().find(|rank| fits(rank.id))?;
            Some(Rank { is_far: *place != near, ..first })
        });
        firsts.min().map(|rank| rank.id)
    }

    /// A host got a parent: it and all below it have a way now.
    pub(super) fn attach(&mut self, forest: &Forest, id: HostId, parent: Parent) {
        let depth = match parent {
            Parent::Hub => 1,
            Parent::Host(parent) => {
                self.children[parent.index()].push(id);
                let depth = self.depths[parent.index()].unwrap_or(0);
                self.rank_anew(forest, parent);
                depth + 1
            }
        };
        self.add(forest, id, depth);
    }

    /// A host, and all below it, have no way any more.
    pub(super) fn detach(&mut self, forest: &Forest, id: HostId) {
        for children in &mut self.children {
            children.retain(|child| *child != id);
        }
        let mut open = vec![id];
        while let Some(id) = open.pop() {
            self.depths[id.index()] = None;
            if let Some(host) = forest.host(id) {
                self.unrank(host, id);
            }
            open.extend(&self.children[id.index()]);
        }
    }

    fn add(&mut self, forest: &Forest, root: HostId, depth: u32) {
        let mut open = vec![(root, depth)];
        while let Some((id, depth)) = open.pop() {
            self.depths[id.index()] = Some(depth);
            self.rank_anew(forest, id);
            open.extend(self.children[id.index()].iter().map(|child| (*child, depth + 1)));
        }
    }

    fn rank_anew(&mut self, forest: &Forest, id: HostId) {
        let Some(host) = forest.host(id) else { return };
        self.unrank(host, id);
        if !host.may_be_asked() {
            return;
        }
        self.sites.insert(host.place.site);
        if let Some(rank) = self.rank(forest, host, id) {
            self.ranks.entry(host.place).or_default().insert(rank);
            self.ranked[id.index()] = Some(rank);
        }
    }

    fn unrank(&mut self, host: &Host, id: HostId) {
        if let Some(rank) = self.ranked[id.index()].take()
            && let Some(ranks) = self.ranks.get_mut(&host.place)
        {
            ranks.remove(&rank);
        }
    }

    fn rank(&self, forest: &Forest, host: &Host, id: HostId) -> Option<Rank> {
        let over = (host.children + 1).saturating_sub(host.slots) * 16 / host.slots;
        let is_meant = forest.is_meant(host, self.stripe);
        let has_share = || over == 0 && host.seats[self.stripe].kids < forest.share(host);
        if self.pass == Pass::Meant && !(is_meant && has_share()) {
            return None;
        }
        let load = host.children * 64 / host.slots;
        let depth = self.depths[id.index()]?;
        Some(Rank { over, is_not_meant: !is_meant, depth, is_far: false, load, id })
    }
}
