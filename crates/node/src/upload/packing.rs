//! Memory for xorbs that are being packed here: a xorb's name is known only when it is whole.
//!
//! Every upload may pack small xorbs; larger ones grow from one budget that all share. Nobody
//! waits for it: who gets nothing more closes the xorb at hand, so a slow client costs others
//! nothing but larger numbers of smaller xorbs.

use std::sync::Arc;

use ballast_format::limits::MAX_XORB_BYTES;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What all uploads together may pack at once, beyond what each has for itself.
const BUDGET_BYTES: usize = 96 << 20;
/// What each xorb may have without asking: a few chunks at least.
const FREE_BYTES: usize = 512 * 1024;
/// A xorb's room grows by this much: the budget's unit.
const STEP_BYTES: usize = 4 << 20;

/// The budget.
#[derive(Debug)]
pub(super) struct Packing {
    budget: Arc<Semaphore>,
}

impl Packing {
    pub(super) fn new() -> Self {
        let budget = Arc::new(Semaphore::new(BUDGET_BYTES / STEP_BYTES));
        Self { budget }
    }

    /// Room for one xorb at a time.
    pub(super) fn room(&self) -> Room {
        Room { budget: Arc::clone(&self.budget), taken: None }
    }
}

/// Room for a xorb, which grows as far as there is any and is given back when this is dropped.
#[derive(Debug)]
pub(super) struct Room {
    budget: Arc<Semaphore>,
    taken: Option<OwnedSemaphorePermit>,
}

impl Room {
    /// Whether so many bytes have room, after growing it if need be.
    pub(super) fn holds(&mut self, bytes: usize) -> bool {
        debug_assert!(bytes <= MAX_XORB_BYTES, "a full xorb is closed before");
        while bytes > self.bytes() {
            let Ok(more) = Arc::clone(&self.budget).try_acquire_owned() else {
                return false;
            };
            match &mut self.taken {
                Some(taken) => taken.merge(more),
                None => self.taken = Some(more),
            }
        }
        true
    }

    fn bytes(&self) -> usize {
        let steps = self.taken.as_ref();
        FREE_BYTES + steps.map_or(0, OwnedSemaphorePermit::num_permits) * STEP_BYTES
    }

    /// The room of a xorb that is whole; what is left has none but what is free.
    pub(super) fn take(&mut self) -> Self {
        Self { budget: Arc::clone(&self.budget), taken: self.taken.take() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_grows_while_there_is_any_and_comes_back() {
        let packing = Packing::new();
        let (mut first, mut second) = (packing.room(), packing.room());
        assert!(first.holds(64 << 20));
        assert!(second.holds(30 << 20) && !second.holds(40 << 20));
        assert!(packing.room().holds(FREE_BYTES) && !packing.room().holds(FREE_BYTES + 1));
        let whole = first.take();
        assert!(first.holds(FREE_BYTES) && !first.holds(FREE_BYTES + 1));
        drop(whole);
        assert!(second.holds(64 << 20));
    }
}
