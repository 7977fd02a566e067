//! Chooses by how long a path is, where its address only says that it is most likely short.

use std::any::Any;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quinn_proto::RttEstimator;
use quinn_proto::congestion::{Controller, ControllerFactory};

/// Begins as if a path were short, and goes on as what is for long ones if its first
/// acknowledgement says that it is.
pub(in crate::carrier::quic) struct ByPath {
    pub(in crate::carrier::quic) short: Arc<dyn ControllerFactory + Send + Sync>,
    pub(in crate::carrier::quic) long: Arc<dyn ControllerFactory + Send + Sync>,
    /// A path is long from this round trip on.
    pub(in crate::carrier::quic) long_from: Duration,
}

impl ControllerFactory for ByPath {
    fn build(self: Arc<Self>, now: Instant, mtu: u16) -> Box<dyn Controller> {
        Box::new(Chosen::new(self, now, mtu))
    }
}

struct Chosen {
    /// Until the path is known.
    by: Option<Arc<ByPath>>,
    mtu: u16,
    inner: Box<dyn Controller>,
}

impl Chosen {
    fn new(by: Arc<ByPath>, now: Instant, mtu: u16) -> Self {
        let inner = Arc::clone(&by.short).build(now, mtu);
        Self { by: Some(by), mtu, inner }
    }

    fn choose(&mut self, now: Instant, round_trip: Duration) {
        if let Some(by) = self.by.take().filter(|by| round_trip >= by.long_from) {
            self.inner = Arc::clone(&by.long).build(now, self.mtu);
        }
    }
}

impl Controller for Chosen {
    fn on_sent(&mut self, now: Instant, bytes: u64, last_packet_number: u64) {
        self.inner.on_sent(now, bytes, last_packet_number);
    }

    fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64, idle: bool, rtt: &RttEstimator) {
        self.choose(now, now.saturating_duration_since(sent));
        self.inner.on_ack(now, sent, bytes, idle, rtt);
    }

    fn on_end_acks(&mut self, now: Instant, in_flight: u64, idle: bool, newest: Option<u64>) {
        self.inner.on_end_acks(now, in_flight, idle, newest);
    }

    fn on_congestion_event(&mut self, now: Instant, sent: Instant, is_all: bool, bytes: u64) {
        self.inner.on_congestion_event(now, sent, is_all, bytes);
    }

    fn on_mtu_update(&mut self, mtu: u16) {
        self.mtu = mtu;
        self.inner.on_mtu_update(mtu);
    }

    fn window(&self) -> u64 {
        self.inner.window()
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        let inner = self.inner.clone_box();
        Box::new(Self { by: self.by.clone(), mtu: self.mtu, inner })
    }

    fn initial_window(&self) -> u64 {
        self.inner.initial_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

#[cfg(test)]
mod tests {
    use quinn_proto::congestion::CubicConfig;

    use super::super::Tolerant;
    use super::*;

    const LONG_FROM: Duration = Duration::from_millis(5);

    /// Percent of the window that are left of it when a packet was lost, where acknowledgements
    /// took so long.
    #[expect(clippy::disallowed_methods, reason = "`Instant`s count from any one")]
    fn left_after_loss(round_trips: [Duration; 2]) -> u64 {
        let (short, long) =
            (Arc::new(CubicConfig::default()), Arc::new(Tolerant { burst: 1 << 19 }));
        let by = Arc::new(ByPath { short, long, long_from: LONG_FROM });
        let begin = Instant::now();
        let mut path = Chosen::new(by, begin, 1452);
        for round_trip in round_trips {
            path.choose(begin + round_trip, round_trip);
        }
        let before = path.window();
        path.on_congestion_event(begin + round_trips[1], begin + LONG_FROM, false, 1452);
        path.window() * 100 / before
    }

    #[test]
    fn a_path_that_turns_out_to_be_long_bears_loss() {
        let (short, long) = (Duration::from_millis(1), Duration::from_millis(50));
        assert!(left_after_loss([short; 2]) < 100);
        assert_eq!(left_after_loss([long; 2]), 100);
        assert!(left_after_loss([short, long]) < 100, "it is not the path that becomes longer");
    }
}
