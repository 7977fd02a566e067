//! A simulated swarm: links, hosts that come, stop and die, and the real plan of who asks whom.
//!
//! Links are fluid: what a link can carry is shared equally among what goes over it, as TCP does,
//! and a chunk of a piece is passed on when its last byte is here. Hosts do what `swarm/exchange`
//! does: they ask their parent of each stripe for what they lack, in the file's order; when the hub
//! is gone they ask whom they know, for what is rarest first. Everything follows from a seed.

mod links;
mod node;
#[cfg(test)]
mod tests;

use std::time::Duration;

use ballast_testkit::clock::Dice;

use self::links::{Flow, Links, share};
use self::node::{Node, State};
use super::plan::{Cut, Forest, HostId, Newcomer, Parent, Place};

/// How often nodes report, and the tracker plans.
const PLANNED_EVERY: f64 = 0.05;
/// The hub has seen hosts with links of 100 Mbit/s, in bytes a second.
const QUICKEST: u64 = 12_500_000;
/// How long a child waits for a parent that sends nothing though it should.
const PATIENCE: f64 = 2.0;
/// Pieces that a node asks others for at once, without a tracker.
const ASKED_AT_ONCE: u32 = 4;
/// When a node that says nothing is taken to be dead.
const SILENCE: f64 = 3.0;

/// What happens at some moment.
#[derive(Clone, Copy, Debug)]
enum Event {
    Join(usize),
    /// It is gone, and its connections are reset.
    Kill(usize),
    /// It does nothing any more, and nobody is told.
    Pause(usize),
    Resume(usize),
    KillHub,
}

/// A world that is set up.
struct World {
    forest: Option<Forest>,
    cut: Cut,
    nodes: Vec<Node>,
    links: Links,
    /// One way, in seconds.
    latency: f64,
    step: f64,
    now: f64,
    planned: f64,
    events: Vec<(f64, Event)>,
    hub_sent: f64,
    /// Bytes that went from one site to another.
    crossed: f64,
    /// A connection may get so many times less of a link than another one.
    unfair: f64,
    seed: u64,
    dice: Dice,
}

impl World {
    /// Hosts with links of so many bytes a second each way, and a hub with one as fast.
    fn new(seed: u64, size: u64, rate: f64) -> Self {
        let cut = Cut::of(size);
        Self {
            forest: Some(Forest::new(cut, Place::default())),
            cut,
            nodes: Vec::new(),
            links: Links::new(rate),
            latency: 0.0005,
            // In a step a chunk goes over a link, if nothing else does.
            step: cut.piece_bytes() as f64 / rate / 4.0,
            now: 0.0,
            planned: -1.0,
            events: Vec::new(),
            hub_sent: 0.0,
            crossed: 0.0,
            unfair: 1.0,
            seed,
            dice: Dice::new(seed),
        }
    }

    /// Adds a host, which comes at this time.
    fn add(&mut self, at: f64, site: u32) -> usize {
        let node = Node::new(Place { site, rack: 0 }, &self.cut);
        self.nodes.push(node);
        self.links.add(site);
        let index = self.nodes.len() - 1;
        self.events.push((at, Event::Join(index)));
        index
    }

    /// Runs until all who live have all, or until the time is up; whether they have.
    fn run(&mut self, most: f64) -> bool {
        self.events.sort_by(|a, b| a.0.total_cmp(&b.0));
        while self.now < most {
            while let Some((at, event)) = self.events.first().copied() {
                if at > self.now {
                    break;
                }
                self.events.remove(0);
                self.happen(event);
            }
            if self.now - self.planned >= PLANNED_EVERY {
                self.planned = self.now;
                self.plan();
            }
            self.flow();
            self.now += self.step;
            let is_done = |node: &Node| node.done.is_some() || node.state != State::Running;
            if self.events.is_empty() && self.nodes.iter().all(is_done) {
                return self.nodes.iter().all(|node| node.done.is_some() || node.is_gone());
            }
        }
        false
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Join(index) => {
                let node = &mut self.nodes[index];
                (node.state, node.joined, node.heard) = (State::Running, self.now, self.now);
                if let Some(forest) = &mut self.forest {
                    let held = node.held(&self.cut);
                    let newcomer = Newcomer { place: node.place, upload: None, held: &held };
                    node.id = Some(forest.join(newcomer));
                }
            }
            Event::Kill(index) => {
                self.nodes[index].state = State::Dead;
                self.forget(index);
            }
            Event::Pause(index) => self.nodes[index].state = State::Paused,
            Event::Resume(index) => {
                self.nodes[index].state = State::Running;
                if self.nodes[index].id.is_none() {
                    self.happen(Event::Join(index));
                }
            }
            Event::KillHub => self.forest = None,
        }
    }

    fn forget(&mut self, index: usize) {
        if let (Some(forest), Some(id)) = (&mut self.forest, self.nodes[index].id.take()) {
            forest.leave(id);
        }
    }

    /// What the tracker does: it hears how the nodes stand, and tells whose parents have changed.
    fn plan(&mut self) {
        for index in 0..self.nodes.len() {
            let node = &mut self.nodes[index];
            if node.state == State::Running {
                node.heard = self.now;
            } else if node.id.is_some() && self.now - node.heard > SILENCE {
                self.forget(index);
            }
        }
        let Some(forest) = &mut self.forest else { return };
        for node in &mut self.nodes {
            let Some(id) = node.id.filter(|_| node.state == State::Running) else { continue };
            forest.report(id, &node.held(&self.cut));
            for (stripe, about) in node.complaints.drain(..) {
                forest.complain(id, stripe, about, false);
            }
        }
        forest.watch(Duration::from_secs_f64(self.now), QUICKEST);
        let changed = forest.settle();
        let by_id: Vec<(HostId, usize)> = (0..self.nodes.len())
            .filter_map(|index| Some((self.nodes[index].id?, index)))
            .collect();
        let index_of = |id: HostId| by_id.iter().find(|(other, _)| *other == id).map(|(_, at)| *at);
        for (id, index) in &by_id {
            if !changed.contains(id) {
                continue;
            }
            let parents = forest.parents(*id);
            let known = forest.peers(*id, 16);
            let node = &mut self.nodes[*index];
            node.known = known.into_iter().filter_map(index_of).collect();
            node.follow(&parents, index_of, self.now);
        }
    }

    /// Lets time pass: bytes flow.
    fn flow(&mut self) {
        let mut flows = Vec::new();
        for index in 0..self.nodes.len() {
            if self.nodes[index].state != State::Running || self.nodes[index].done.is_some() {
                continue;
            }
            self.nodes[index].asking = 0;
            for stripe in 0..self.cut.stripes() {
                flows.extend(self.wanted(index, stripe));
            }
        }
        share(&self.links, &mut flows);
        for flow in flows {
            let bytes = flow.rate * self.step;
            if flow.from.is_none() {
                self.hub_sent += bytes;
            }
            if self.links.crosses(&flow) {
                self.crossed += bytes;
            }
            let (piece, arrives) = (flow.piece, self.now + self.step + self.latency);
            let length = {
                let starts = self.cut.starts(piece);
                (starts.end - starts.start) as f64
            };
            let node = &mut self.nodes[flow.to];
            if node.receive(flow.stripe, piece, bytes, length, self.now) {
                node.has[piece as usize] = arrives;
                node.lacks -= 1;
                if node.lacks == 0 {
                    node.done = Some(arrives);
                }
            }
        }
    }

    /// What a node asks for in a stripe, if whom it asks has it.
    fn wanted(&mut self, index: usize, stripe: u32) -> Option<Flow> {
        let to = index;
        let (unfair, seed) = (self.unfair, self.seed);
        let flow = move |from, piece| {
            let weight = weight(unfair, seed, (from, to, stripe));
            Flow { from, to, stripe, piece, rate: 0.0, weight, most: f64::INFINITY }
        };
        let piece = self.nodes[index].first_lacking(stripe, &self.cut)?;
        let parent = self.nodes[index].stripes[stripe as usize].parent;
        match parent {
            Some(Parent::Hub) if self.forest.is_some() => return Some(flow(None, piece)),
            Some(Parent::Host(_)) => {
                let from = self.nodes[index].stripes[stripe as usize].from;
                let sender = &self.nodes[from];
                let came = self.nodes[index].came_of(stripe, piece);
                let most = (sender.offers(stripe, piece, self.now) - came) / self.step;
                if sender.state == State::Running && most > 0.0 {
                    return Some(Flow { most, ..flow(Some(from), piece) });
                }
                let is_of_no_use = self.doubt(index, stripe, from);
                if !is_of_no_use {
                    return None;
                }
            }
            Some(Parent::Hub) | None => {}
        }
        if self.forest.is_none() && self.nodes[index].asking < ASKED_AT_ONCE {
            self.nodes[index].asking += 1;
            return self.rarest(index, stripe).map(|(from, piece)| flow(Some(from), piece));
        }
        None
    }

    /// A node gets nothing from its parent: it says so when that is dead, or silent for too long;
    /// and whether it has to look elsewhere.
    fn doubt(&mut self, index: usize, stripe: u32, from: usize) -> bool {
        let is_reset = self.nodes[from].state == State::Dead;
        let is_silent = self.nodes[from].state == State::Paused;
        let seat = &self.nodes[index].stripes[stripe as usize];
        let waited = self.now - seat.moved;
        if (is_reset || is_silent && waited > PATIENCE)
            && let Some(parent) = seat.parent
        {
            self.nodes[index].complaints.push((stripe, parent));
        }
        is_reset || waited > PATIENCE
    }

    /// Without a tracker: what fewest of those whom a node knows have, and one who has it.
    fn rarest(&mut self, index: usize, stripe: u32) -> Option<(usize, u64)> {
        let (node, now) = (&self.nodes[index], self.now);
        if let Some((from, piece)) = node.stripes[stripe as usize].chosen
            && node.has[piece as usize].is_infinite()
            && self.nodes[from].state == State::Running
        {
            return Some((from, piece));
        }
        let holders = |piece: u64| {
            let has = |peer: &usize| {
                let peer = &self.nodes[*peer];
                peer.state == State::Running && peer.has[piece as usize] <= now
            };
            node.known.iter().copied().filter(has).collect::<Vec<_>>()
        };
        let lacking = self.cut.stripe(stripe).filter(|at| node.has[*at as usize].is_infinite());
        // Which of those that are as rare differs from host to host.
        let dice = &mut self.dice;
        let rarest = lacking
            .map(|piece| (holders(piece), piece))
            .filter(|(holders, _)| !holders.is_empty())
            .min_by_key(|(holders, _)| (holders.len(), dice.draw()));
        let (holders, piece) = rarest?;
        let from = holders[self.dice.below(holders.len() as u64) as usize];
        self.nodes[index].stripes[stripe as usize].chosen = Some((from, piece));
        Some((from, piece))
    }
}

/// What a connection gets of a link next to others, always the same.
fn weight(unfair: f64, seed: u64, (from, to, stripe): (Option<usize>, usize, u32)) -> f64 {
    let lane = if from.is_none() { 0 } else { stripe % 4 };
    let from = from.map_or(0, |from| from as u64 + 1);
    let number = from << 40 | (to as u64) << 16 | u64::from(lane) | seed << 8;
    let drawn = Dice::new(number).below(1000) as f64 / 1000.0;
    unfair.powf(-drawn)
}
