//! Who is too slow to pass anything on, and who may pass on less than others.

use std::time::Duration;

use super::forest::Forest;
use super::host::{Host, HostId};

/// How long rates are taken over.
const WINDOW: Duration = Duration::from_secs(2);
/// A host that takes less than one in so many of the median is slow.
const SLOW: u32 = 4;
/// It is not slow any more when it takes one in so many again.
const RECOVERED: u32 = 2;
/// Of fewer hosts there is no median that says anything.
const FEWEST: usize = 3;

/// After so long, complaints count no more: networks recover.
const PARDONED: Duration = Duration::from_mins(1);

/// When the rates were last looked at.
#[derive(Clone, Debug, Default)]
pub(super) struct Marks {
    at: Option<Duration>,
    pardoned: Duration,
}

impl Forest {
    /// Looks how fast the hosts are, at most once in two seconds: one that takes less than a
    /// quarter of what the others do becomes a leaf, and one whose upload is limited to less than
    /// that has fewer children. The time is that of any clock that does not go back.
    pub fn watch(&mut self, now: Duration) {
        let since = self.marks.at.map(|at| now.saturating_sub(at));
        if since.is_some_and(|since| since < WINDOW) {
            return;
        }
        self.marks.at = Some(now);
        if now.saturating_sub(self.marks.pardoned) >= PARDONED {
            self.marks.pardoned = now;
            self.hosts.iter_mut().flatten().for_each(Host::pardon);
        }
        let taken: Vec<(HostId, u32)> = self.taken();
        for host in self.hosts.iter_mut().flatten() {
            host.marked = Some(host.held());
        }
        let (Some(since), true) = (since, taken.len() >= FEWEST) else { return };
        let mut sorted: Vec<_> = taken.iter().map(|(_, taken)| *taken).collect();
        sorted.sort_unstable();
        let median = sorted[sorted.len() / 2];
        for (id, taken) in taken {
            self.judge(id, taken, median);
        }
        self.limit_slots(median, since);
    }

    /// What each host that lacks something took since it was last looked at.
    fn taken(&self) -> Vec<(HostId, u32)> {
        let took = |host: &Host| {
            let marked = host.marked.filter(|_| !self.has_all(host))?;
            Some(host.held().saturating_sub(marked))
        };
        self.ids().filter_map(|id| Some((id, took(self.host(id)?)?))).collect()
    }

    fn judge(&mut self, id: HostId, taken: u32, median: u32) {
        let Some(host) = self.host_mut(id) else { return };
        if host.is_slow {
            host.is_slow = taken < median / RECOVERED;
        } else if taken < median / SLOW {
            host.is_slow = true;
            self.sink(id);
        }
    }

    /// Children as the upload allows, where a host may send less than hosts take.
    fn limit_slots(&mut self, median: u32, since: Duration) {
        let stripes = self.cut.stripes();
        let ms = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        for id in self.ids().collect::<Vec<_>>() {
            let Some(host) = self.host_mut(id) else { continue };
            let Some(upload) = host.upload else { continue };
            let sends = u64::from(upload).saturating_mul(ms) / 1000;
            let slots = (sends * u64::from(stripes)).checked_div(u64::from(median));
            let slots = slots.map_or(stripes, |slots| u32::try_from(slots).unwrap_or(stripes));
            host.slots = slots.min(stripes);
            if host.children > 2 * host.slots {
                self.drop_children(id);
            }
        }
    }
}
