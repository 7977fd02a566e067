//! Garbage collection: mark → condemn → fence → wait → mark again → sweep.
//!
//! Nothing here rests on clocks, locks or listings alone (ADR 4). A list of condemned copies is
//! published; every log gets an entry of a writer that has read it, the fence; after that nobody
//! can append who has not read the list, and whoever has read it refers to no condemned copy. What
//! is still unreachable then is deleted. The waits are a kindness to readers.
//!
//! Before a collection begins, xorbs in which little is alive are rewritten (ADR 17).
//!
//! What a living repo's log names is reachable, all of it: packs, the large files that they link,
//! the xorbs that these are made of. So are pinned xorbs, and files that were registered lately.

mod check;
mod collect;
mod condemned;
mod mark;
mod plan;
mod rewrite;
#[cfg(test)]
mod tests;

pub use collect::{CollectWorker, Collection};
pub(crate) use condemned::Condemned;
pub use condemned::FollowLists;
pub use plan::{Condemning, Plan};
#[cfg(test)]
pub(crate) use rewrite::REMEMBERED;
pub use rewrite::Thin;

use std::time::Duration;

use crate::pace::Pace;

/// How far behind the new epoch a copy's own must be before it may be condemned: a writer that is
/// still at work has read one of the two in between.
pub(crate) const EPOCHS_BEHIND: u64 = 2;

/// How long a collector is patient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GcSettings {
    /// How long a copy stays after it was condemned: longer than any download, signed address or
    /// answer about chunks lives.
    pub wait: Duration,
    /// How old a copy must be before it may be condemned.
    pub floor: Duration,
    /// How often a collection begins by itself; `None`: only when somebody asks for it.
    pub interval: Option<Duration>,
    /// A xorb is rewritten if something refers to no more than so many hundredths of it; 0: never.
    pub rewrite_below: u8,
    /// Bytes a second that a collection reads and moves at most; `None`: as fast as it goes.
    pub rate: Option<u64>,
}

impl GcSettings {
    /// How fast one collection reads.
    pub(crate) fn pace(&self) -> Pace {
        self.rate.map_or_else(Pace::unlimited, Pace::of)
    }
}

impl Default for GcSettings {
    fn default() -> Self {
        let hours = Duration::from_hours;
        let (wait, floor, interval) = (hours(72), hours(24), Some(hours(24)));
        Self { wait, floor, interval, rewrite_below: 0, rate: None }
    }
}
