//! One swarm: its forest, and which node each host of it is.

use std::collections::HashMap;
use std::time::Duration;

use ballast_proto::v1;

use super::roster::NodeNumber;
use crate::swarm::plan::{Cut, Forest, HostId, Newcomer, Parent, Place};

/// A node that fetches and says nothing for so long is taken to be dead.
const SILENCE: Duration = Duration::from_secs(4);
/// How long rates are taken over.
const PACE_WINDOW: Duration = Duration::from_secs(2);
/// Peers that a node is told of, besides its parents.
const KNOWN: usize = 16;

/// A node in a swarm.
#[derive(Debug)]
struct Member {
    /// Its place in the forest; none while it is silent.
    host: Option<HostId>,
    place: Place,
    upload: Option<u64>,
    held: Vec<u32>,
    heard: Duration,
    /// Whether it only serves what it has: it has not joined.
    is_seed: bool,
    /// Pieces that it had, and when.
    marked: (u32, Duration),
    /// Bytes a second that it takes.
    rate: u64,
}

/// A swarm.
#[derive(Debug)]
pub(super) struct Crowd {
    forest: Forest,
    members: HashMap<NodeNumber, Member>,
    by_host: HashMap<HostId, NodeNumber>,
}

/// Who comes into a swarm.
#[derive(Clone, Debug)]
pub(super) struct Coming {
    pub(super) place: Place,
    pub(super) upload: Option<u64>,
    pub(super) held: Vec<u32>,
    pub(super) is_seed: bool,
}

/// How a member stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Standing {
    pub(super) node: NodeNumber,
    pub(super) held: u64,
    /// Bytes a second.
    pub(super) rate: u64,
    pub(super) eta_ms: u64,
    pub(super) children: u32,
    pub(super) is_whole: bool,
}

impl Crowd {
    pub(super) fn new(size: u64, hub: Place) -> Self {
        let forest = Forest::new(Cut::of(size), hub);
        Self { forest, members: HashMap::new(), by_host: HashMap::new() }
    }

    pub(super) fn size(&self) -> u64 {
        self.forest.cut().size()
    }

    /// A node comes, or says again how it stands.
    pub(super) fn join(&mut self, node: NodeNumber, coming: Coming, now: Duration) {
        let Coming { place, upload, held, is_seed } = coming;
        self.leave(node);
        let host = Some(self.forest.join(Newcomer { place, upload, held: &held }));
        self.by_host.extend(host.map(|host| (host, node)));
        let has = host.map_or(0, |host| self.forest.held(host));
        let marked = (has, now);
        let member = Member { host, place, upload, held, heard: now, is_seed, marked, rate: 0 };
        self.members.insert(node, member);
    }

    /// A node says how many pieces it has; one that was taken to be dead is back.
    pub(super) fn progress(&mut self, node: NodeNumber, held: Vec<u32>, now: Duration) {
        let Some(member) = self.members.get_mut(&node) else { return };
        (member.held, member.heard) = (held, now);
        if let Some(host) = member.host {
            self.forest.report(host, &member.held);
            return;
        }
        let (place, upload) = (member.place, member.upload);
        let host = self.forest.join(Newcomer { place, upload, held: &member.held });
        member.host = Some(host);
        self.by_host.insert(host, node);
    }

    /// A node is alive; whether it was taken to be dead.
    pub(super) fn hear(&mut self, node: NodeNumber, now: Duration) -> bool {
        let Some(member) = self.members.get_mut(&node) else { return false };
        member.heard = now;
        if member.host.is_some() {
            return false;
        }
        let held = member.held.clone();
        self.progress(node, held, now);
        true
    }

    /// A node leaves, or is gone.
    pub(super) fn leave(&mut self, node: NodeNumber) {
        if let Some(host) = self.members.remove(&node).and_then(|member| member.host) {
            self.by_host.remove(&host);
            self.forest.leave(host);
        }
    }

    /// A node complains about a parent of a stripe.
    pub(super) fn complain(
        &mut self,
        node: NodeNumber,
        stripe: u32,
        about: Option<NodeNumber>,
        has_lied: bool,
    ) {
        let host = |node: NodeNumber| self.members.get(&node)?.host;
        let about = match about {
            None => Some(Parent::Hub),
            Some(about) => host(about).map(Parent::Host),
        };
        if let (Some(by), Some(about)) = (host(node), about) {
            self.forest.complain(by, stripe, about, has_lied);
        }
    }

    /// Whether a node is here only because it has the file.
    pub(super) fn is_seed(&self, node: NodeNumber) -> bool {
        self.members.get(&node).is_some_and(|member| member.is_seed)
    }

    /// Takes those who fetch and are silent out of the forest, and looks who is slow, when some
    /// node was once seen to take `quickest` bytes a second.
    pub(super) fn watch(&mut self, now: Duration, quickest: u64) {
        let piece_bytes = self.forest.cut().piece_bytes();
        for member in self.members.values_mut() {
            let Some(host) = member.host else { continue };
            let (has, since) = (self.forest.held(host), now.saturating_sub(member.marked.1));
            if since >= PACE_WINDOW {
                let taken = u64::from(has.saturating_sub(member.marked.0)) * piece_bytes;
                let ms = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
                member.rate = taken.saturating_mul(1000) / ms.max(1);
                member.marked = (has, now);
            }
            let is_silent = now.saturating_sub(member.heard) > SILENCE;
            if is_silent && !self.forest.is_done(host) {
                member.host = None;
                self.by_host.remove(&host);
                self.forest.leave(host);
            }
        }
        self.forest.watch(now, quickest);
    }

    /// Finds parents for all who need some; those who must be told.
    pub(super) fn settle(&mut self) -> Vec<NodeNumber> {
        let changed = self.forest.settle();
        changed.iter().filter_map(|host| self.by_host.get(host).copied()).collect()
    }

    /// Whether nobody here lacks anything.
    pub(super) fn is_over(&self) -> bool {
        let lacks = |member: &Member| match member.host {
            Some(host) => !self.forest.is_done(host),
            // It may come back.
            None => true,
        };
        !self.members.values().any(lacks)
    }

    /// Those who have not only come to serve.
    pub(super) fn members(&self) -> impl Iterator<Item = NodeNumber> + '_ {
        self.members.keys().copied()
    }

    /// How many have something to fetch.
    pub(super) fn fetching(&self) -> usize {
        self.standings().filter(|standing| !standing.is_whole).count()
    }

    /// Whom a node asks; nothing before that is settled. Peers are written by the caller, who knows
    /// their addresses.
    pub(super) fn plan(
        &self,
        node: NodeNumber,
        peer: impl Fn(NodeNumber) -> Option<v1::Peer>,
    ) -> Option<v1::Plan> {
        let member = self.members.get(&node)?;
        let host = member.host.filter(|host| self.forest.is_settled(*host))?;
        let mut peers = Vec::new();
        let mut places = HashMap::new();
        for other in self.forest.peers(host, KNOWN) {
            let number = *self.by_host.get(&other)?;
            let Some(mut peer) = peer(number) else { continue };
            peer.whole = self.forest.is_done(other);
            let place = self.members.get(&number).map(|other| other.place);
            peer.near = place.is_some_and(|place| place.site == member.place.site);
            peers.push(peer);
            places.insert(other, u32::try_from(peers.len()).unwrap_or(0));
        }
        let place = |parent: Option<Parent>| match parent {
            Some(Parent::Host(parent)) => places.get(&parent).copied().unwrap_or(0),
            Some(Parent::Hub) | None => 0,
        };
        let parents = self.forest.parents(host).into_iter().map(place).collect();
        Some(v1::Plan { peers, parents, ..v1::Plan::default() })
    }

    /// How all stand.
    pub(super) fn standings(&self) -> impl Iterator<Item = Standing> + '_ {
        let piece = self.forest.cut().piece_bytes();
        self.members.iter().filter_map(move |(node, member)| {
            let host = member.host?;
            let held = (u64::from(self.forest.held(host)) * piece).min(self.size());
            let lacks = (self.size() - held).saturating_mul(1000);
            let eta_ms = lacks.checked_div(member.rate).unwrap_or(0);
            Some(Standing {
                node: *node,
                held,
                rate: member.rate,
                eta_ms,
                children: self.forest.children(host),
                is_whole: self.forest.is_done(host),
            })
        })
    }
}
