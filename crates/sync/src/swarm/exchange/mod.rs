//! Fetching one file from whoever has it.
//!
//! What other files of the cache have is taken from them. For the rest the node takes its seat in
//! the file's swarm: the tracker names a parent for each stripe, and the parent is asked for the
//! stripe's pieces in file order, with patience, so that it answers each as soon as it has it.
//! Where a parent fails the tracker is told, and until it names another one the pieces come from
//! whichever peer has them. What a client waits for out of order is asked for directly.
//!
//! Whatever arrives was hashed by the carrier. Whom not to believe is kept in [`Peers`], what is
//! missing in `work`, whom to ask in `whom`; this puts them together.

mod passing;
mod peers;
mod round;
mod seat;
mod transfer;
mod whom;
mod work;

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use ballast_node::error::{Error, Result};
use ballast_store::env::SharedEnv;
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream, SelectAll};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub use self::passing::passing;
pub use self::peers::{Pass, Peers, Who};
pub use self::seat::{Known, Say, Seat, Told, Wrong};
use self::transfer::{Ask, Event, Fault, Over, transfer};
use self::whom::Whom;
use self::work::Work;
use crate::carrier::{self, Urgency};
use crate::swarm::cache::{Bits, Filling, OpenFile, Wants};
use crate::swarm::ledger::{Ledger, Place};

/// How long a parent may wait for what it is itself getting.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often it is looked whether something stands still.
const TICK: Duration = Duration::from_millis(100);
/// How often the tracker is told of progress, unless so many pieces have come.
const SAY_EACH: Duration = Duration::from_millis(50);
const SAY_PIECES: u32 = 16;
/// When nothing comes for so long, all stands still, and not one request.
const PAUSE: Duration = Duration::from_secs(1);
/// When nothing new came for so long, nobody will send it.
const GIVE_UP: Duration = Duration::from_mins(1);
/// When to ask again for a file that nobody sends, in seconds.
const AGAIN_SECONDS: u64 = 5;
/// The least and the most that is asked for at once, for each stripe, and the most for several.
const BATCH: Range<u64> = 1 << 20..16 << 20;

/// What fetching needs, whichever file it is.
pub struct Means {
    /// Links to others.
    pub peers: Arc<Peers>,
    /// Where bytes are counted.
    pub ledger: Arc<Ledger>,
    /// The clock.
    pub env: SharedEnv,
    /// The hub.
    pub hub: Who,
}

/// How a file is cut, and what proves that the node may have it.
#[derive(Clone, Debug)]
pub struct Terms {
    /// What is shown to whoever is asked.
    pub pass: Pass,
    /// How long its pieces are.
    pub piece_bytes: u64,
    /// How many stripes they are dealt to.
    pub stripes: u32,
}

/// Fetches all of a file that is not here, and finishes it.
pub async fn fetch(
    means: &Means,
    filling: Filling,
    terms: Terms,
    seat: Seat,
) -> Result<Arc<OpenFile>> {
    let filling = Arc::new(filling);
    let mut exchange = Exchange::new(means, &filling, terms, seat);
    let fetched = exchange.run().await;
    let seat = exchange.leave();
    // Nobody else has it: what is still being written holds the file, not this.
    let gone = || Error::internal("a file on its way is held by somebody else");
    let filling = Arc::try_unwrap(filling).map_err(|_| gone())?;
    match fetched {
        Ok(()) => {
            let file = filling.finish().await?;
            seat.say(Say::Whole);
            Ok(file)
        }
        Err(error) => {
            filling.rest(Some(error.clone())).await?;
            Err(error)
        }
    }
}

/// What is asked for it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    /// The pieces of these stripes, in the file's order, from their parent.
    Lane { stripes: Vec<u32> },
    /// Pieces whose parent fails.
    Orphans,
    /// What a client waits for.
    Client,
    /// What was asked of somebody else already, at the very end.
    Late,
}

/// A request that is being answered.
struct Active {
    who: Who,
    kind: Kind,
    runs: Vec<Range<u32>>,
    /// Bytes that have not come.
    left: u64,
    has_come: bool,
    stop: CancellationToken,
    /// When something came of it, or of others in its lane, the last time, and how much had come in
    /// all by then.
    heard: Duration,
    heard_bytes: u64,
    /// When it is stopped, as its peer is not the parent any more.
    ends: Option<Duration>,
}

impl Active {
    /// Whether it asks the same one for the same reason.
    fn is_as(&self, who: &Who, kind: &Kind) -> bool {
        self.who == *who && self.kind == *kind
    }
}

/// How fast new bytes came when that was looked at last.
struct Pace {
    since: Duration,
    came: u64,
    /// In a millisecond.
    rate: u64,
}

/// What is waited for.
enum Happened {
    Event(u64, Event),
    Holds(Who, Option<Bits>),
}

struct Exchange {
    peers: Arc<Peers>,
    ledger: Arc<Ledger>,
    env: SharedEnv,
    filling: Arc<Filling>,
    pass: Arc<Pass>,
    seat: Seat,
    work: Work,
    whom: Whom,
    running: SelectAll<BoxStream<'static, Happened>>,
    active: HashMap<u64, Active>,
    wants: watch::Receiver<Wants>,
    /// Since when clients wait for a chunk.
    waited: HashMap<u32, Duration>,
    next_id: u64,
    batch_bytes: u64,
    seed: u64,
    began: Duration,
    /// New bytes that came, when the last of them did, and since when they come without a pause.
    came: u64,
    pace: Pace,
    came_at: Duration,
    flows_since: Duration,
    tick_at: Duration,
    said_at: Duration,
    unsaid: u32,
    look_for_orphans: bool,
}

impl Exchange {
    fn new(means: &Means, filling: &Arc<Filling>, terms: Terms, seat: Seat) -> Self {
        let (now, file) = (means.env.monotonic(), filling.file());
        let mut seed = [0; 8];
        means.env.fill_random(&mut seed);
        let told = seat.told.borrow().clone();
        Self {
            peers: Arc::clone(&means.peers),
            ledger: Arc::clone(&means.ledger),
            env: Arc::clone(&means.env),
            filling: Arc::clone(filling),
            pass: Arc::new(terms.pass),
            work: Work::new(Arc::clone(file), terms.piece_bytes, terms.stripes),
            whom: Whom::new(means.hub.clone(), told),
            running: SelectAll::new(),
            active: HashMap::new(),
            wants: file.wants(),
            waited: HashMap::new(),
            next_id: 0,
            batch_bytes: (file.about.head.size / 64).clamp(BATCH.start, BATCH.end),
            seed: u64::from_le_bytes(seed),
            began: now,
            came: 0,
            pace: Pace { since: now, came: 0, rate: 0 },
            came_at: now,
            flows_since: now,
            tick_at: now + TICK,
            said_at: now,
            unsaid: 0,
            look_for_orphans: true,
            seat,
        }
    }

    /// Lets go of everything but the seat.
    fn leave(self) -> Seat {
        self.seat
    }

    async fn run(&mut self) -> Result<()> {
        self.seat.say(Say::Held(self.work.held().to_vec()));
        while !self.work.is_done() {
            let now = self.env.monotonic();
            self.ask(now);
            tokio::select! {
                biased;
                Some(happened) = self.running.next() => self.handle(happened)?,
                Ok(()) = self.seat.told.changed() => self.hear()?,
                Ok(()) = self.wants.changed() => {}
                () = self.env.sleep(self.tick_at.saturating_sub(now)) => {}
            }
            let now = self.env.monotonic();
            if now >= self.tick_at {
                self.tick_at = now + TICK;
                self.tick(now)?;
            }
        }
        self.seat.say(Say::Held(self.work.held().to_vec()));
        Ok(())
    }

    /// The tracker says something new.
    fn hear(&mut self) -> Result<()> {
        let (told, now) = (self.seat.told.borrow_and_update().clone(), self.env.monotonic());
        if let Some(reason) = &told.refused {
            let reason = format!("the hub does not let this node fetch the file: {reason}");
            return Err(Error::Upstream { reason, retry_seconds: AGAIN_SECONDS });
        }
        self.whom.tell(told);
        self.look_for_orphans = true;
        self.end_what_is_not_planned(now);
        Ok(())
    }

    fn handle(&mut self, happened: Happened) -> Result<()> {
        let now = self.env.monotonic();
        match happened {
            Happened::Holds(who, chunks) => {
                self.whom.answered(&who, chunks, now);
                self.look_for_orphans = true;
                Ok(())
            }
            Happened::Event(id, Event::Came { chunks, bytes, new }) => {
                self.came(id, &chunks, bytes, new, now);
                Ok(())
            }
            Happened::Event(id, Event::Absent(chunks)) => {
                self.absent(id, &chunks, now);
                Ok(())
            }
            Happened::Event(id, Event::Over(over)) => self.over(id, over, now),
        }
    }

    fn came(&mut self, id: u64, chunks: &Range<u32>, bytes: u64, new: u64, now: Duration) {
        self.came += new;
        if new > 0 {
            if now.saturating_sub(self.came_at) >= PAUSE {
                self.flows_since = now;
            }
            self.came_at = now;
        }
        if let Some(active) = self.active.get_mut(&id) {
            active.left = active.left.saturating_sub(bytes);
            active.has_come = true;
            let from = match () {
                () if active.who.is_hub => Place::Hub,
                () if active.who.is_near => Place::Site,
                () => Place::Peer,
            };
            self.ledger.came(from, bytes, new);
            let (who, kind) = (active.who.clone(), active.kind.clone());
            // The next request of a lane waits for this one: it does not stand still meanwhile.
            for active in self.active.values_mut().filter(|other| other.is_as(&who, &kind)) {
                (active.heard, active.heard_bytes) = (now, self.came);
            }
        }
        if self.work.arrived(chunks) {
            self.unsaid += 1;
            self.say_held(now);
            self.stop_what_was_finished(id);
        }
    }

    /// Tells the tracker how far this is, now and then.
    fn say_held(&mut self, now: Duration) {
        let is_time = self.said_at + SAY_EACH <= now || self.unsaid >= SAY_PIECES;
        if self.unsaid > 0 && is_time {
            self.seat.say(Say::Held(self.work.held().to_vec()));
            (self.said_at, self.unsaid) = (now, 0);
        }
    }

    /// A peer does not have what it was asked for.
    fn absent(&mut self, id: u64, chunks: &Range<u32>, now: Duration) {
        self.work.release(chunks);
        let Some(active) = self.active.get_mut(&id) else { return };
        let bytes = self.filling.file().about.bytes_of(chunks.clone());
        active.left = active.left.saturating_sub(bytes.end - bytes.start);
        active.heard = now;
        let (who, is_lane) = (active.who.clone(), matches!(active.kind, Kind::Lane { .. }));
        let stripe = self.work.stripe_of(chunks.start);
        if self.whom.is_good(&who, Some(stripe), now) {
            self.whom.mark_bad(&who, Some(stripe), now);
            if is_lane {
                self.seat.say(Say::Wrong { stripe, who, wrong: Wrong::Absent });
            }
        }
        self.look_for_orphans = true;
    }

    /// A request has ended.
    fn over(&mut self, id: u64, over: Over, now: Duration) -> Result<()> {
        let Some(active) = self.active.remove(&id) else { return Ok(()) };
        for run in &active.runs {
            self.work.release(run);
        }
        self.look_for_orphans = true;
        match over {
            Ok(()) if active.left > 0 && !active.stop.is_cancelled() => {
                self.whom.mark_bad(&active.who, None, now);
                Ok(())
            }
            Ok(()) => Ok(()),
            Err(Fault::Here(error)) => Err(error),
            Err(Fault::Peer(error)) => {
                self.failed(&active, &error, now);
                Ok(())
            }
        }
    }

    fn failed(&mut self, active: &Active, error: &carrier::Error, now: Duration) {
        let who = &active.who;
        tracing::debug!(peer = %who.name, %error, "a request failed");
        let wrong = if let carrier::Error::Lied { .. } = error {
            tracing::warn!(peer = %who.name, %error, "a peer sent wrong bytes");
            self.peers.lied(who);
            if who.is_hub {
                self.whom.mark_bad(who, None, now);
            } else {
                self.whom.never(who);
            }
            Wrong::Lied
        } else {
            self.peers.broke(who);
            self.whom.mark_bad(who, None, now);
            Wrong::Unreachable
        };
        let others = self.active.iter().filter(|(_, other)| other.who == *who);
        for id in others.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.stop(id);
        }
        if let Kind::Lane { stripes } = &active.kind {
            for stripe in stripes {
                self.seat.say(Say::Wrong { stripe: *stripe, who: who.clone(), wrong });
            }
        }
    }

    /// Begins a request.
    fn start(&mut self, who: Who, kind: Kind, runs: Vec<Range<u32>>, now: Duration) {
        let (id, stop) = (self.next_id, CancellationToken::new());
        self.next_id += 1;
        let (urgency, patience) = match kind {
            Kind::Lane { .. } => (Urgency::Swarm, PATIENCE),
            Kind::Client => (Urgency::Client, Duration::ZERO),
            Kind::Orphans | Kind::Late => (Urgency::Swarm, Duration::ZERO),
        };
        let bytes = runs.iter().map(|run| self.filling.file().about.bytes_of(run.clone()));
        let left = bytes.map(|bytes| bytes.end - bytes.start).sum();
        tracing::trace!(peer = %who.name, ?kind, bytes = left, "asks");
        let ask = Ask {
            peers: Arc::clone(&self.peers),
            who: who.clone(),
            pass: Arc::clone(&self.pass),
            filling: Arc::clone(&self.filling),
            runs: runs.clone(),
            urgency,
            patience,
            stop: stop.clone(),
        };
        self.running.push(transfer(ask).map(move |event| Happened::Event(id, event)).boxed());
        let heard_bytes = self.came;
        let (heard, has_come, ends) = (now, false, None);
        let active = Active { who, kind, runs, left, has_come, stop, heard, heard_bytes, ends };
        self.active.insert(id, active);
    }

    /// Asks a peer what it has.
    fn question(&mut self, who: Who) {
        let (peers, pass) = (Arc::clone(&self.peers), Arc::clone(&self.pass));
        let file = Arc::clone(self.filling.file());
        let asked = async move {
            let held = held_by(&peers, &who, &pass, &file).await;
            if let Err(error) = &held {
                tracing::debug!(peer = %who.name, %error, "a peer does not say what it has");
            }
            Happened::Holds(who, held.ok())
        };
        self.running.push(stream::once(asked).boxed());
    }
}

/// Which chunks of a file a peer has, of those that are missing here.
async fn held_by(peers: &Peers, who: &Who, pass: &Pass, file: &OpenFile) -> carrier::Result<Bits> {
    let link = peers.link(who, pass).await?;
    let head = &file.about.head;
    let mut xorbs = Vec::new();
    for (term, said) in head.terms.iter().enumerate() {
        if !file.has_sound(head.chunks_of(term)) {
            xorbs.push(said.xorb);
        }
    }
    xorbs.sort_unstable();
    xorbs.dedup();
    let mut held = Bits::none(head.chunk_count());
    for xorbs in xorbs.chunks(carrier::MOST_ASKED_XORBS) {
        let answers = link.holdings(xorbs).await?;
        for (xorb, ranges) in xorbs.iter().zip(answers) {
            for range in ranges {
                for (place, _) in file.places_of(xorb, &range) {
                    held.set(place);
                }
            }
        }
    }
    Ok(held)
}

#[cfg(test)]
mod tests;
