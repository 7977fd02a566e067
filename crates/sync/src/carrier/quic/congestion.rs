//! What finds out how much a path takes, and bears that some of it is lost.
//!
//! CUBIC takes each lost packet for a full queue: at a round trip of 100 ms one lost packet in a
//! thousand leaves it a thirtieth of 400 Mbit/s. Here some loss is chance, and more is a queue that
//! is full: then as much stays on its way as arrived in the last round trip, without what stood in
//! the queue. No more than the window is ever on its way, and `quinn-proto` paces it.

mod by_path;

use std::any::Any;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quinn_proto::RttEstimator;
use quinn_proto::congestion::{Controller, ControllerFactory};

pub(super) use self::by_path::ByPath;

/// One byte in so many may be lost by chance.
const BY_CHANCE: u64 = 50;
/// How much more is sent each round trip: a share of the window, and at most so many packets, so
/// that those who share a path come to equal shares.
const STEP_SHARE: u64 = 16;
const STEP_PACKETS: u64 = 16;
/// The same where no queue was seen for so many round trips: somebody else has left.
const LEAP_SHARE: u64 = 8;
const CALM_ROUNDS: u32 = 16;
/// The beginning, in which each round trip has twice of the last, ends when so many
/// acknowledgements in a row come late: the queue begins to fill.
const LATE_IN_A_ROW: u32 = 8;
/// Late is an eighth of a round trip, within these bounds.
const LATE: (Duration, Duration) = (Duration::from_millis(4), Duration::from_millis(16));
/// Packets that are sent when all that was sent is lost, and never less.
const LEAST_PACKETS: u64 = 4;

/// Makes a controller for each path.
pub(super) struct Tolerant {
    /// Bytes that are sent before anything is known of the path.
    pub(super) burst: u64,
}

impl ControllerFactory for Tolerant {
    fn build(self: Arc<Self>, now: Instant, mtu: u16) -> Box<dyn Controller> {
        Box::new(Pilot::new(self.burst, now, mtu))
    }
}

#[derive(Clone)]
struct Pilot {
    burst: u64,
    mtu: u64,
    /// Bytes that may be on their way.
    window: u64,
    /// The beginning: nothing has told how much the path takes.
    is_beginning: bool,
    /// The quickest round trip so far: without a queue.
    quickest: Option<Duration>,
    /// The quickest of the acknowledgement that is being read, and the bytes that it tells of.
    latest: Option<Duration>,
    news: u64,
    late_in_a_row: u32,
    /// When the window was made smaller: what was sent before is lost for the same reason.
    cut_at: Option<Instant>,
    /// Round trips since the path was full.
    calm: u32,
    last_sent: u64,
    round: Round,
}

/// What came of a round trip.
#[derive(Clone)]
struct Round {
    began: Instant,
    /// It ends when a packet behind this one is acknowledged.
    until: u64,
    arrived: u64,
    lost: u64,
    /// A router has said that its queue is full.
    is_marked: bool,
    /// There was not always something to send.
    is_idle: bool,
    /// At least half of the window was on its way: what is not used says nothing of the path.
    is_used: bool,
    quickest: Option<Duration>,
}

impl Round {
    fn new(began: Instant, until: u64) -> Self {
        let (arrived, lost, quickest) = (0, 0, None);
        let (is_marked, is_idle, is_used) = (false, false, false);
        Self { began, until, arrived, lost, is_marked, is_idle, is_used, quickest }
    }

    fn is_over_full(&self) -> bool {
        self.is_marked || self.lost * BY_CHANCE > self.lost + self.arrived
    }
}

impl Pilot {
    fn new(burst: u64, now: Instant, mtu: u16) -> Self {
        Self {
            burst,
            mtu: mtu.into(),
            window: burst,
            is_beginning: true,
            quickest: None,
            latest: None,
            news: 0,
            late_in_a_row: 0,
            cut_at: None,
            calm: 0,
            last_sent: 0,
            round: Round::new(now, 0),
        }
    }

    fn least(&self) -> u64 {
        LEAST_PACKETS * self.mtu
    }

    fn is_late(&self, round_trip: Duration) -> bool {
        let quickest = self.quickest.unwrap_or(round_trip);
        round_trip > quickest + (quickest / 8).clamp(LATE.0, LATE.1)
    }

    fn arrived(&mut self, round_trip: Duration, bytes: u64, is_idle: bool) {
        for least in [&mut self.quickest, &mut self.latest, &mut self.round.quickest] {
            *least = Some(least.map_or(round_trip, |least| least.min(round_trip)));
        }
        self.round.arrived += bytes;
        self.round.is_idle |= is_idle;
        self.news += bytes;
    }

    /// An acknowledgement was read whole; so much is still on its way.
    fn read(&mut self, now: Instant, newest: u64, on_its_way: u64) {
        let news = std::mem::take(&mut self.news);
        let Some(latest) = self.latest.take() else { return };
        let is_used = 2 * (on_its_way + news) >= self.window;
        self.round.is_used |= is_used;
        if self.is_beginning && is_used && !self.round.is_idle {
            self.window += news;
        }
        self.late_in_a_row = if self.is_late(latest) { self.late_in_a_row + 1 } else { 0 };
        if self.is_beginning && self.late_in_a_row >= LATE_IN_A_ROW {
            // What came late was sent a round trip ago, when the window was half of this.
            self.cut(self.window / 2, now);
        }
        if newest >= self.round.until {
            let round = std::mem::replace(&mut self.round, Round::new(now, self.last_sent + 1));
            self.end(&round, now);
        }
    }

    fn cut(&mut self, window: u64, now: Instant) {
        self.is_beginning = false;
        self.cut_at = Some(now);
        self.calm = 0;
        self.window = window.max(self.least());
    }

    fn end(&mut self, round: &Round, now: Instant) {
        if round.is_over_full() {
            let took = now.saturating_duration_since(round.began).as_micros().max(1);
            let quickest = self.quickest.unwrap_or_default().as_micros();
            let fits = u128::from(round.arrived) * quickest / took;
            let fits = u64::try_from(fits).unwrap_or(u64::MAX);
            self.cut(fits.clamp(self.window / 2, self.window) + self.step(), now);
            return;
        }
        self.calm = self.calm.saturating_add(1);
        if self.is_beginning || round.is_idle || !round.is_used {
            return;
        }
        let has_queue = round.quickest.is_none_or(|quickest| self.is_late(quickest));
        let leaps = self.calm >= CALM_ROUNDS && !has_queue;
        self.window += if leaps {
            // What comes of it is seen in the round trip behind the next.
            self.calm -= 3;
            self.window / LEAP_SHARE
        } else {
            self.step()
        };
    }

    fn step(&self) -> u64 {
        (self.window / STEP_SHARE).clamp(self.mtu, STEP_PACKETS * self.mtu)
    }

    fn lost(&mut self, now: Instant, sent: Instant, bytes: u64, is_all: bool) {
        if is_all {
            self.cut(self.least(), now);
            self.is_beginning = true;
        }
        if self.cut_at.is_some_and(|at| sent <= at) {
            return;
        }
        self.round.lost += bytes;
        self.round.is_marked |= bytes == 0;
        if self.is_beginning && self.round.lost * BY_CHANCE > self.window {
            // Waiting for the end of the round trip would double the window once more.
            self.cut(self.window / 2, now);
        }
    }
}

impl Controller for Pilot {
    fn on_sent(&mut self, _: Instant, _: u64, last_packet_number: u64) {
        self.last_sent = last_packet_number;
    }

    fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64, idle: bool, _: &RttEstimator) {
        self.arrived(now.saturating_duration_since(sent), bytes, idle);
    }

    fn on_end_acks(&mut self, now: Instant, in_flight: u64, _: bool, newest: Option<u64>) {
        self.read(now, newest.unwrap_or(0), in_flight);
    }

    fn on_congestion_event(&mut self, now: Instant, sent: Instant, is_all: bool, bytes: u64) {
        self.lost(now, sent, bytes, is_all);
    }

    fn on_mtu_update(&mut self, mtu: u16) {
        self.mtu = mtu.into();
        self.window = self.window.max(self.least());
    }

    fn window(&self) -> u64 {
        self.window
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(self.clone())
    }

    fn initial_window(&self) -> u64 {
        self.burst
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

#[cfg(test)]
mod tests;
