//! One look at what is missing, what is coming and who waits: what to ask for next, and what to
//! stop.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use ballast_node::error::{Error, Result};

use super::{AGAIN_SECONDS, Active, BATCH, Exchange, GIVE_UP, Kind, Pace, Say, Who, Wrong};
use crate::carrier::QUIC_FROM;

/// Lanes to a peer: requests that go on side by side, of some stripes each, since a connection may
/// get little of a link next to others. The hub has one. All that it sends then comes in the file's
/// order, and no stripe runs ahead: hosts that pass on the quick ones would have more to send than
/// their links carry, and others less.
///
/// A piece that a peer waits for holds up what is behind it in its lane. Peers that wait for each
/// other get on all the same: lanes are in the file's order, so whoever waits for the first piece
/// of all waits for somebody who does not wait.
const PEER_LANES: u32 = 4;
/// The next request of a lane begins when one in so many bytes of the last one, and what comes in a
/// round trip, are left. Sooner, and what is used later takes the place of what comes first.
const NEXT_AT: u64 = 16;
/// How much the hub is asked for at once when nothing has come.
const FIRST_BYTES: u64 = 256 << 10;
/// How much more than has come it is asked for then on a long path.
const FAR_AHEAD: u64 = 4;
/// The last moments are so long.
const PACE_OVER: Duration = Duration::from_millis(500);
/// How much is asked at once for stripes without a parent.
const ORPHAN_BYTES: u64 = 4 << 20;
/// How long a request goes on whose peer is not the parent any more.
const GRACE: Duration = Duration::from_secs(1);
/// How long a client waits for what the swarm is about to bring, from when it brings nothing at
/// all: in rounds, and at least. While something comes, what stands still is found as for all
/// others: where many clients lose patience at once, what they ask for keeps the swarm from getting
/// on.
const CLIENT_WAITS: (u32, Duration) = (8, Duration::from_secs(4));
/// A request that brings nothing while others bring so many pieces of each stripe stands still, if
/// that takes so many rounds, and at least so long.
const STILL_PIECES: u64 = 4;
const STILL_FOR: (u32, Duration) = (16, Duration::from_secs(4));
/// So does one that brings nothing for longer than its peer may wait, or its link can take.
const SILENT_FOR: (u32, Duration) = (4, Duration::from_secs(12));
/// How long nothing comes until the last chunks are asked of somebody else too.
const LATE_AFTER: Duration = Duration::from_secs(1);

impl Exchange {
    /// So many rounds, and at least so long. In a round each stripe brings a piece, at the rate
    /// that the file has come at so far: what is long on one network is a moment on another.
    fn time(&self, (rounds, least): (u32, Duration), now: Duration) -> Duration {
        let bytes = u64::from(self.work.stripes()) * self.work.piece_bytes();
        let round = self.takes(bytes, now);
        if self.came < bytes { least } else { least.max(round.saturating_mul(rounds)) }
    }

    /// How long so many bytes take at the rate at which the file has come so far.
    fn takes(&self, bytes: u64, now: Duration) -> Duration {
        let took = now.saturating_sub(self.began).as_millis();
        let takes = took.saturating_mul(bytes.into()) / u128::from(self.came.max(1));
        Duration::from_millis(u64::try_from(takes).unwrap_or(u64::MAX))
    }

    /// How many bytes come in so long, at that rate or, if it is higher, that of the last moments.
    fn comes_in(&self, time: Duration, now: Duration) -> u64 {
        let took = now.saturating_sub(self.began).as_millis().max(1);
        let rate = (u128::from(self.came) / took).max(u128::from(self.pace.rate));
        u64::try_from(rate * time.as_millis()).unwrap_or(u64::MAX)
    }

    /// Looks how fast it has come in the last moments.
    fn look_at_pace(&mut self, now: Duration) {
        let took = now.saturating_sub(self.pace.since).as_millis();
        if took >= PACE_OVER.as_millis() {
            let rate = u128::from(self.came - self.pace.came) / took;
            let rate = u64::try_from(rate).unwrap_or(u64::MAX);
            self.pace = Pace { since: now, came: self.came, rate };
        }
    }

    /// Asks for what can be asked for now.
    pub(super) fn ask(&mut self, now: Duration) {
        self.ask_for_clients(now);
        self.ask_parents(now);
        if std::mem::take(&mut self.look_for_orphans) {
            self.ask_for_orphans(now);
        }
    }

    /// Each parent for the next pieces of its stripes.
    fn ask_parents(&mut self, now: Duration) {
        let mut lanes: BTreeMap<(Who, u32), Vec<u32>> = BTreeMap::new();
        for stripe in 0..self.work.stripes() {
            if let Some(parent) = self.whom.parent(stripe, now) {
                let lane = if parent.is_hub { 0 } else { stripe % PEER_LANES };
                lanes.entry((parent.clone(), lane)).or_default().push(stripe);
            }
        }
        for ((who, _), stripes) in lanes {
            let kind = Kind::Lane { stripes: stripes.clone() };
            let batch = (self.batch_bytes * stripes.len() as u64).min(BATCH.end);
            let active = self.active.values().filter(|active| active.is_as(&who, &kind));
            let left: Vec<u64> = active.map(|active| active.left).collect();
            let is_soon = match left[..] {
                [] => true,
                [left] => {
                    let round_trip = self.peers.round_trip(&who);
                    left <= batch / NEXT_AT + self.comes_in(round_trip, now)
                }
                _ => false,
            };
            if !is_soon {
                continue;
            }
            let most = if who.is_hub { self.most_of_the_hub(&who) } else { u64::MAX };
            let runs = self.work.batch(&stripes, batch.min(most));
            if !runs.is_empty() {
                self.start(who, kind, runs, now);
            }
        }
    }

    /// At first there may be another plan in a moment, and what was asked of the hub comes all the
    /// same: little is asked of it until something has come. Where that is slow to be seen, a long
    /// path would stand empty meanwhile.
    fn most_of_the_hub(&self, hub: &Who) -> u64 {
        let is_long = self.peers.round_trip(hub) >= QUIC_FROM;
        let ahead = if is_long { FAR_AHEAD } else { 1 };
        self.came.saturating_mul(ahead).max(FIRST_BYTES)
    }

    /// Others, for stripes whose parent fails.
    fn ask_for_orphans(&mut self, now: Duration) {
        let orphans = self.whom.orphans(&self.work, now);
        if orphans.is_empty() {
            return;
        }
        for who in self.whom.questions(now) {
            self.question(who);
        }
        let open = self.whom.rarest(&orphans, &self.work, self.seed);
        for who in self.whom.holders(now) {
            if self.is_asked(&who, &Kind::Orphans) {
                continue;
            }
            let pieces = self.whom.of(&who, &open);
            let runs = self.work.batch_of(pieces, ORPHAN_BYTES.min(self.batch_bytes));
            if !runs.is_empty() {
                self.start(who, Kind::Orphans, runs, now);
            }
        }
        let hub = self.whom.hub().clone();
        if !self.is_asked(&hub, &Kind::Orphans) {
            let pieces = self.whom.for_the_hub(&open, &self.work, now);
            let runs = self.work.batch_of(pieces, ORPHAN_BYTES.min(self.batch_bytes));
            if !runs.is_empty() {
                self.start(hub, Kind::Orphans, runs, now);
            }
        }
    }

    fn is_asked(&self, who: &Who, kind: &Kind) -> bool {
        self.active.values().any(|active| active.who == *who && active.kind == *kind)
    }

    /// Somebody who has all of it, for what clients wait for and the swarm does not bring soon.
    fn ask_for_clients(&mut self, now: Duration) {
        let wanted: Vec<Range<u32>> = self.wants.borrow().chunks().cloned().collect();
        self.waited.retain(|chunk, _| wanted.iter().any(|want| want.start == *chunk));
        for active in self.active.values().filter(|active| active.kind == Kind::Client) {
            let is_wanted = |run: &Range<u32>| {
                let overlaps = |want: &Range<u32>| want.start < run.end && run.start < want.end;
                wanted.iter().any(overlaps) && !self.filling.file().has_sound(run.clone())
            };
            if !active.runs.iter().any(is_wanted) {
                active.stop.cancel();
            }
        }
        let client_waits = self.time(CLIENT_WAITS, now);
        for want in wanted {
            if self.filling.file().has_sound(want.start..want.start + 1) {
                continue;
            }
            let since = *self.waited.entry(want.start).or_insert(now);
            let is_coming = self.work.is_asked(want.start) || self.is_next(want.start);
            let is_asked = self.active.values().any(|active| {
                active.kind == Kind::Client
                    && active.runs.iter().any(|run| run.contains(&want.start))
            });
            if is_asked || (is_coming && since.max(self.came_at) + client_waits > now) {
                continue;
            }
            let Some(who) = self.whom.other(None, now) else { continue };
            let mut want = want;
            if is_coming {
                // What is behind that comes with the stripes.
                let piece = self.work.piece_bytes();
                want.end = self.filling.file().within(want.start, want.end, piece);
            }
            let runs = self.work.absent(&want);
            for run in &runs {
                self.work.ask(run);
            }
            self.start(who, Kind::Client, runs, now);
        }
    }

    /// Whether the stripes bring a chunk soon, as the file's front is near it.
    fn is_next(&self, chunk: u32) -> bool {
        let about = &self.filling.file().about;
        let count = about.head.chunk_count();
        let front = self.filling.file().next_unsound(0, count);
        let place = |chunk: u32| about.bytes_of(chunk..chunk + 1).start;
        let ahead = 2 * u64::from(self.work.stripes()) * self.work.piece_bytes();
        place(chunk) < place(front.min(count - 1)) + ahead
    }

    /// The tracker named other parents: what is asked of the old ones ends. Those who are sending
    /// may finish what comes in a moment, or else the piece that they are at; the rest is asked of
    /// the new ones in the file's order, or those who ask for that here would wait for what comes
    /// last.
    pub(super) fn end_what_is_not_planned(&mut self, now: Duration) {
        let file = Arc::clone(self.filling.file());
        let (mut over, mut ending) = (Vec::new(), Vec::new());
        for (id, active) in &self.active {
            let Kind::Lane { stripes } = &active.kind else { continue };
            let is_parent =
                |stripe: &u32| self.whom.parent(*stripe, now).is_some_and(|who| *who == active.who);
            match () {
                () if stripes.iter().all(is_parent) || active.ends.is_some() => {}
                () if active.has_come => ending.push(*id),
                () => over.push(*id),
            }
        }
        for id in over {
            self.stop(id);
        }
        let ending = ending.into_iter();
        let left: u64 = ending.clone().map(|id| self.active[&id].left).sum();
        let comes_soon = self.takes(left, now) <= GRACE;
        for id in ending {
            let Some(active) = self.active.get_mut(&id) else { continue };
            active.ends = Some(now + GRACE);
            if !comes_soon {
                let at = active.runs.iter().position(|run| !file.has_sound(run.clone()));
                for run in active.runs.drain(at.map_or(0, |at| at + 1)..) {
                    self.work.release(&run);
                }
            }
        }
    }

    /// One that ends has sent the piece that it was at.
    pub(super) fn stop_what_was_finished(&mut self, id: u64) {
        let file = self.filling.file();
        let is_here = |run: &Range<u32>| file.has_sound(run.clone());
        let is_over = |active: &Active| active.ends.is_some() && active.runs.iter().all(is_here);
        if self.active.get(&id).is_some_and(is_over) {
            self.stop(id);
        }
    }

    /// Stops a request. What it asked for can be asked for at once, in its turn.
    pub(super) fn stop(&mut self, id: u64) {
        let Some(active) = self.active.get_mut(&id) else { return };
        active.stop.cancel();
        for run in active.runs.drain(..) {
            self.work.release(&run);
        }
    }

    /// Looks for what stands still.
    pub(super) fn tick(&mut self, now: Duration) -> Result<()> {
        self.say_held(now);
        self.look_at_pace(now);
        self.look_for_orphans = true;
        self.stop_what_stands_still(now);
        self.ask_for_the_last(now);
        if self.came_at + GIVE_UP <= now {
            let reason = "neither the hub nor a peer sends the rest of this file".to_owned();
            return Err(Error::Upstream { reason, retry_seconds: AGAIN_SECONDS });
        }
        Ok(())
    }

    fn stop_what_stands_still(&mut self, now: Duration) {
        let others_bring = STILL_PIECES * u64::from(self.work.stripes()) * self.work.piece_bytes();
        let (still_for, silent_for) = (self.time(STILL_FOR, now), self.time(SILENT_FOR, now));
        let (mut still, mut over) = (Vec::new(), Vec::new());
        for (id, active) in &self.active {
            let silent = now.saturating_sub(active.heard);
            // What was silent while nothing came at all may come as soon as others do.
            let alone = silent.min(now.saturating_sub(self.flows_since));
            let is_behind = self.came - active.heard_bytes >= others_bring;
            if (alone >= still_for && is_behind) || silent >= silent_for {
                still.push((active.who.clone(), active.kind.clone()));
                over.push(*id);
            } else if active.ends.is_some_and(|ends| ends <= now) {
                over.push(*id);
            }
        }
        for id in over {
            self.stop(id);
        }
        for (who, kind) in still {
            tracing::debug!(peer = %who.name, "a request stands still");
            let Kind::Lane { stripes } = kind else {
                self.whom.mark_bad(&who, None, now);
                continue;
            };
            for stripe in stripes {
                self.whom.mark_bad(&who, Some(stripe), now);
                let who = who.clone();
                self.seat.say(Say::Wrong { stripe, who, wrong: Wrong::Slow });
            }
        }
    }

    /// At the very end, what has been asked for and does not come is asked of somebody else too: a
    /// hundredth of the file at most.
    fn ask_for_the_last(&mut self, now: Duration) {
        let file = self.filling.file();
        if self.came_at + LATE_AFTER > now || self.active.values().any(|a| a.kind == Kind::Late) {
            return;
        }
        let runs = self.work.absent(&(0..file.about.head.chunk_count()));
        let bytes = runs.iter().map(|run| file.about.bytes_of(run.clone()));
        let bytes: u64 = bytes.map(|bytes| bytes.end - bytes.start).sum();
        let most = (file.about.head.size / 100).max(self.work.piece_bytes());
        let Some(first) = runs.first().map(|run| run.start) else { return };
        if bytes > most || runs.iter().any(|run| !self.work.is_asked(run.start)) {
            return;
        }
        let has_it =
            self.active.values().find(|active| active.runs.iter().any(|run| run.contains(&first)));
        let slow = has_it.map(|active| active.who.clone());
        let Some(who) = self.whom.other(slow.as_ref(), now) else { return };
        if slow.as_ref() != Some(&who) {
            self.start(who, Kind::Late, runs, now);
        }
    }
}
