//! What a tracker knows: the nodes that attend, their swarms, and who has what.
//!
//! It is in memory only. Nodes say all of it again in the first report of a call, so a tracker that
//! begins anew knows as much as the one before within a moment.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ballast_format::hash::{Sha256, XorbHash};
use ballast_proto::v1;
use tokio::sync::Notify;

use super::crowd::{Coming, Crowd};
use super::holders::Holders;
use super::read::{Presence, Senseless, number, read_held, read_presence, read_sha256, read_xorb};
use super::ticket::Tickets;
use crate::cluster::PeerName;
use crate::swarm::plan::{Place, STRIPES};

/// The most nodes of one tracker.
const MOST_NODES: usize = 4096;
/// The most swarms at once, and those that one node is in.
const MOST_SWARMS: usize = 4096;
const MOST_JOINED: usize = 256;
/// Files and xorbs of which it is known who has them: some 30 MB, and a hub of 8 TB.
const MOST_THINGS: usize = 1 << 17;
/// Nodes that are known to have one of them: enough to begin a swarm with.
const MOST_HOLDERS: usize = 16;
/// How often it is looked who is silent or slow.
const WATCHED_EVERY: Duration = Duration::from_secs(1);
/// Each time one in so many of what the quickest node took is forgotten: half of it in an hour in
/// which there are swarms, since links may become slower for good.
const FORGOTTEN: u64 = 5000;

/// A node, as long as one call of it lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct NodeNumber(u64);

impl NodeNumber {
    #[cfg(test)]
    pub(super) fn test(number: u64) -> Self {
        Self(number)
    }
}

/// A node that attends.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) name: PeerName,
    /// Where it calls from.
    from: Option<IpAddr>,
    /// What it said of itself; nothing before its first report.
    presence: Option<Presence>,
    pub(super) ledger: v1::Ledger,
    swarms: BTreeSet<Sha256>,
    /// Swarms whose plan for it has changed.
    untold: BTreeSet<Sha256>,
    refused: HashMap<Sha256, &'static str>,
    /// Whether it has said what it has.
    has_said: bool,
    plans: u64,
    wake: Arc<Notify>,
}

/// What is counted, from the start of the process.
#[derive(Clone, Debug, Default)]
pub(super) struct Counts {
    pub(super) ledger: v1::Ledger,
    pub(super) plans: u64,
    pub(super) complaints: u64,
    pub(super) lies: u64,
}

/// What there is for a node to be told.
pub(super) enum Told {
    /// A plan.
    Plan(v1::Plan),
    /// Nothing for now.
    Nothing,
    /// It has called again: this call ends.
    Replaced,
}

/// All of it.
pub(super) struct Roster {
    tickets: Tickets,
    hub: Place,
    next: u64,
    pub(super) nodes: HashMap<NodeNumber, Node>,
    by_name: HashMap<PeerName, NodeNumber>,
    pub(super) swarms: HashMap<Sha256, Crowd>,
    unsettled: BTreeSet<Sha256>,
    watched: Duration,
    /// Bytes a second that the quickest node was seen to take, less what was forgotten since.
    quickest: u64,
    files: Holders<Sha256>,
    xorbs: Holders<XorbHash>,
    pub(super) counts: Counts,
}

impl Roster {
    /// Of nobody; the hub stands at this site.
    pub(super) fn new(tickets: Tickets, site: &str) -> Self {
        Self {
            tickets,
            hub: Place { site: number(&[site]), rack: 0 },
            next: 0,
            nodes: HashMap::new(),
            by_name: HashMap::new(),
            swarms: HashMap::new(),
            unsettled: BTreeSet::new(),
            watched: Duration::ZERO,
            quickest: 0,
            files: Holders::new(MOST_THINGS, MOST_HOLDERS),
            xorbs: Holders::new(MOST_THINGS, MOST_HOLDERS),
            counts: Counts::default(),
        }
    }

    /// A node calls. If it does already, that call is over.
    pub(super) fn attend(
        &mut self,
        name: PeerName,
        from: Option<IpAddr>,
    ) -> Result<(NodeNumber, Arc<Notify>), Senseless> {
        if let Some(before) = self.by_name.get(&name).copied() {
            self.gone(before);
        }
        if self.nodes.len() >= MOST_NODES {
            return Err(Senseless("this gateway has too many nodes: attend another one"));
        }
        self.next += 1;
        let (number, wake) = (NodeNumber(self.next), Arc::new(Notify::new()));
        let node = Node {
            name: name.clone(),
            from,
            presence: None,
            ledger: v1::Ledger::default(),
            swarms: BTreeSet::new(),
            untold: BTreeSet::new(),
            refused: HashMap::new(),
            has_said: false,
            plans: 0,
            wake: Arc::clone(&wake),
        };
        self.nodes.insert(number, node);
        self.by_name.insert(name, number);
        Ok((number, wake))
    }

    /// A node's call is over.
    pub(super) fn gone(&mut self, number: NodeNumber) {
        let Some(node) = self.nodes.remove(&number) else { return };
        if self.by_name.get(&node.name) == Some(&number) {
            self.by_name.remove(&node.name);
        }
        for file in node.swarms {
            self.leave(&file, number);
        }
        // What it has is forgotten when others need the room: its number is nobody's any more.
        node.wake.notify_one();
    }

    /// What a node says; whether plans may change by it.
    pub(super) fn report(
        &mut self,
        number: NodeNumber,
        report: &v1::Report,
        (now, now_ms): (Duration, u64),
    ) -> Result<bool, Senseless> {
        let Some(node) = self.nodes.get_mut(&number) else { return Ok(false) };
        if let Some(presence) = &report.presence {
            node.presence = Some(read_presence(presence, node.from)?);
        }
        if node.presence.is_none() {
            return Err(Senseless("the first report must say where the node is"));
        }
        if let Some(ledger) = &report.ledger {
            self.counts.add(&node.ledger, ledger);
            node.ledger = *ledger;
        }
        for file in &node.swarms {
            if self.swarms.get_mut(file).is_some_and(|swarm| swarm.hear(number, now)) {
                self.unsettled.insert(*file);
            }
        }
        if let Some(holding) = &report.holding {
            self.hold(number, holding)?;
        }
        for join in &report.joins {
            self.join(number, join, (now, now_ms))?;
        }
        for progress in &report.progress {
            self.progress(number, progress, now)?;
        }
        for file in &report.leaves {
            self.leave(&read_sha256(file)?, number);
        }
        for complaint in &report.complaints {
            self.complain(number, complaint)?;
        }
        Ok(!self.unsettled.is_empty())
    }

    fn join(
        &mut self,
        number: NodeNumber,
        join: &v1::JoinSwarm,
        (now, now_ms): (Duration, u64),
    ) -> Result<(), Senseless> {
        let (file, held) = (read_sha256(&join.sha256)?, read_held(&join.held)?);
        let Some(node) = self.nodes.get_mut(&number) else { return Ok(()) };
        let Some(presence) = &node.presence else { return Ok(()) };
        let is_good = self.tickets.is_good(&join.ticket, &node.name, (&file, join.size), now_ms);
        let has_room = self.swarms.contains_key(&file) || self.swarms.len() < MOST_SWARMS;
        let refusal = match () {
            () if !is_good => Some("the ticket is not good, or not any more"),
            () if node.swarms.len() >= MOST_JOINED => Some("the node is in too many swarms"),
            () if !has_room => Some("the hub has too many swarms"),
            () => None,
        };
        if let Some(refusal) = refusal {
            // As many as may be told; whoever joins more hears of these first.
            if node.refused.len() < MOST_JOINED {
                node.refused.insert(file, refusal);
            }
            node.wake.notify_one();
            return Ok(());
        }
        let (place, upload) = (presence.place(), presence.upload);
        node.swarms.insert(file);
        if !self.swarms.contains_key(&file) {
            self.begin(file, join.size, now);
        }
        if let Some(swarm) = self.swarms.get_mut(&file) {
            swarm.join(number, Coming { place, upload, held, is_seed: false }, now);
        }
        self.unsettled.insert(file);
        Ok(())
    }

    /// A swarm begins, with those who have the file already.
    fn begin(&mut self, file: Sha256, size: u64, now: Duration) {
        let mut swarm = Crowd::new(size, self.hub);
        for number in self.files.of(&file) {
            let Some(node) = self.nodes.get_mut(number) else { continue };
            let Some(presence) = &node.presence else { continue };
            let (place, upload) = (presence.place(), presence.upload);
            let held = vec![u32::MAX; STRIPES as usize];
            swarm.join(*number, Coming { place, upload, held, is_seed: true }, now);
            node.swarms.insert(file);
        }
        self.swarms.insert(file, swarm);
    }

    fn progress(
        &mut self,
        number: NodeNumber,
        progress: &v1::Progress,
        now: Duration,
    ) -> Result<(), Senseless> {
        let (file, mut held) = (read_sha256(&progress.sha256)?, read_held(&progress.held)?);
        if progress.whole {
            held = vec![u32::MAX; STRIPES as usize];
            self.files.add(file, number, |other| self.nodes.contains_key(&other));
        }
        if let Some(swarm) = self.swarms.get_mut(&file) {
            swarm.progress(number, held, now);
            self.unsettled.insert(file);
        }
        Ok(())
    }

    fn leave(&mut self, file: &Sha256, number: NodeNumber) {
        if let Some(node) = self.nodes.get_mut(&number) {
            node.swarms.remove(file);
            node.untold.remove(file);
        }
        if let Some(swarm) = self.swarms.get_mut(file) {
            swarm.leave(number);
            self.unsettled.insert(*file);
        }
    }

    fn complain(&mut self, number: NodeNumber, complaint: &v1::Complaint) -> Result<(), Senseless> {
        let file = read_sha256(&complaint.sha256)?;
        self.counts.complaints += 1;
        let has_lied = complaint.wrong() == v1::Wrong::Lied;
        let about = match complaint.peer.as_str() {
            "" => None,
            name => {
                let name = PeerName::parse(name).ok_or(Senseless("a complaint is about nobody"))?;
                let Some(about) = self.by_name.get(&name) else { return Ok(()) };
                Some(*about)
            }
        };
        if let (true, Some(by)) = (has_lied, self.nodes.get(&number)) {
            self.counts.lies += 1;
            let (peer, by) = (&complaint.peer, &by.name);
            tracing::warn!(%peer, %by, %file, "a peer is said to have sent wrong bytes");
        }
        let Some(swarm) = self.swarms.get_mut(&file) else { return Ok(()) };
        swarm.complain(number, complaint.stripe, about, has_lied);
        self.unsettled.insert(file);
        // Who only said that it has the file does not have it after all.
        if let Some(about) = about.filter(|about| swarm.is_seed(*about))
            && complaint.wrong() == v1::Wrong::Absent
        {
            self.files.remove(&file, about);
            self.leave(&file, about);
        }
        Ok(())
    }

    fn hold(&mut self, number: NodeNumber, holding: &v1::Holding) -> Result<(), Senseless> {
        let node = self.nodes.get_mut(&number);
        let has_said = node.is_some_and(|node| std::mem::replace(&mut node.has_said, true));
        if holding.afresh && has_said {
            self.files.remove_all(number);
            self.xorbs.remove_all(number);
        }
        for file in &holding.lost_files {
            let file = read_sha256(file)?;
            self.files.remove(&file, number);
            if self.swarms.get(&file).is_some_and(|swarm| swarm.is_seed(number)) {
                self.leave(&file, number);
            }
        }
        for xorb in &holding.lost_xorbs {
            self.xorbs.remove(&read_xorb(xorb)?, number);
        }
        let is_here = |other: NodeNumber| self.nodes.contains_key(&other);
        for file in &holding.files {
            self.files.add(read_sha256(file)?, number, is_here);
        }
        for xorb in &holding.xorbs {
            self.xorbs.add(read_xorb(xorb)?, number, is_here);
        }
        Ok(())
    }

    /// Finds out who is silent or slow, finds parents for all who need some, and wakes those who
    /// must be told. Whether anybody fetches.
    pub(super) fn settle(&mut self, now: Duration) -> bool {
        if now.saturating_sub(self.watched) >= WATCHED_EVERY {
            self.watched = now;
            self.quickest -= self.quickest / FORGOTTEN;
            for (file, swarm) in &mut self.swarms {
                swarm.watch(now, self.quickest);
                let rates = swarm.standings().map(|standing| standing.rate);
                self.quickest = rates.fold(self.quickest, u64::max);
                self.unsettled.insert(*file);
            }
        }
        for file in std::mem::take(&mut self.unsettled) {
            let Some(swarm) = self.swarms.get_mut(&file) else { continue };
            if swarm.is_over() {
                for number in swarm.members() {
                    if let Some(node) = self.nodes.get_mut(&number) {
                        node.swarms.remove(&file);
                        node.untold.remove(&file);
                    }
                }
                self.swarms.remove(&file);
                continue;
            }
            let changed = swarm.settle();
            for number in &changed {
                self.nodes.get_mut(number).map(|node| node.untold.insert(file));
            }
            let waits = |node: &&Node| node.untold.contains(&file);
            let members = swarm.members().filter_map(|number| self.nodes.get(&number));
            members.filter(waits).for_each(|node| node.wake.notify_one());
        }
        !self.swarms.is_empty()
    }

    /// What a node should be told next.
    pub(super) fn next_told(&mut self, number: NodeNumber) -> Told {
        let Some(node) = self.nodes.get_mut(&number) else { return Told::Replaced };
        if let Some(file) = node.refused.keys().next().copied()
            && let Some(refused) = node.refused.remove(&file)
        {
            node.plans += 1;
            let (sha256, refused) = (file.as_bytes().to_vec().into(), refused.to_owned());
            return Told::Plan(v1::Plan {
                sha256,
                refused,
                number: node.plans,
                ..v1::Plan::default()
            });
        }
        for file in node.untold.clone() {
            // What is not settled is told when it is.
            let Some(swarm) = self.swarms.get(&file) else { continue };
            let peer = |other| peer_of(self.nodes.get(&other)?);
            let Some(plan) = swarm.plan(number, peer) else { continue };
            let Some(node) = self.nodes.get_mut(&number) else { return Told::Replaced };
            node.untold.remove(&file);
            node.plans += 1;
            self.counts.plans += 1;
            let (sha256, number) = (file.as_bytes().to_vec().into(), node.plans);
            return Told::Plan(v1::Plan { sha256, number, ..plan });
        }
        Told::Nothing
    }

    /// Which other nodes have each of these xorbs.
    pub(super) fn who_has(&self, asks: &PeerName, xorbs: &[XorbHash]) -> v1::WhoHasAnswer {
        let mut answer = v1::WhoHasAnswer::default();
        let mut places = HashMap::new();
        let site = |name| {
            let node = self.nodes.get(self.by_name.get(name)?)?;
            node.presence.as_ref().map(|presence| presence.place().site)
        };
        let near = site(asks);
        for xorb in xorbs {
            let mut peers = Vec::new();
            for number in self.xorbs.of(xorb) {
                let Some(node) = self.nodes.get(number).filter(|node| node.name != *asks) else {
                    continue;
                };
                let Some(mut peer) = peer_of(node) else { continue };
                peer.near = near == site(&node.name);
                let place = *places.entry(*number).or_insert_with(|| {
                    answer.peers.push(peer);
                    u32::try_from(answer.peers.len() - 1).unwrap_or(u32::MAX)
                });
                peers.push(place);
            }
            answer.holders.push(v1::XorbHolders { peers });
        }
        answer
    }

    /// Whether a node may hear about a file.
    pub(super) fn is_good(
        &self,
        node: &PeerName,
        file: (&Sha256, u64),
        ticket: &[u8],
        now_ms: u64,
    ) -> bool {
        self.tickets.is_good(ticket, node, file, now_ms)
    }

    /// A ticket for a node and a file.
    pub(super) fn ticket(
        &self,
        node: &PeerName,
        file: (&Sha256, u64),
        until_ms: u64,
    ) -> bytes::Bytes {
        self.tickets.give(node, file, until_ms)
    }
}

impl Node {
    pub(super) fn presence(&self) -> Option<&Presence> {
        self.presence.as_ref()
    }
}

impl Counts {
    /// A node's totals have grown; they begin anew when the node does.
    fn add(&mut self, before: &v1::Ledger, now: &v1::Ledger) {
        let grown = |before: u64, now: u64| now.checked_sub(before).unwrap_or(now);
        let all = &mut self.ledger;
        for (total, before, now) in [
            (&mut all.disk, before.disk, now.disk),
            (&mut all.site, before.site, now.site),
            (&mut all.peer, before.peer, now.peer),
            (&mut all.hub, before.hub, now.hub),
            (&mut all.upstream, before.upstream, now.upstream),
            (&mut all.sent, before.sent, now.sent),
            (&mut all.wasted, before.wasted, now.wasted),
        ] {
            *total = total.saturating_add(grown(before, now));
        }
    }
}

fn peer_of(node: &Node) -> Option<v1::Peer> {
    let address = node.presence.as_ref()?.address.to_string();
    Some(v1::Peer { name: node.name.as_str().to_owned(), address, near: false, whole: false })
}
