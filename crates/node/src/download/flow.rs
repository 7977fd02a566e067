//! How much memory all that is on its way out may take.
//!
//! What was read holds a part of one budget until its last byte is written to a socket, however
//! slow the reader is. The more readers there are, the smaller are the pieces that each gets, so
//! that slow ones do not keep others waiting; only when the budget is spent all the same does a
//! reader wait, and not for ever.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ballast_store::env::SharedEnv;
use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::{Error, Result};

/// What may be on its way out at once.
const BUDGET_BYTES: u64 = 64 << 20;
/// The budget is kept in units of this many bytes.
const UNIT_BYTES: u64 = 1024;
/// The largest piece: what was read is still in a core's cache when it is sent.
const MOST_BYTES: u64 = 256 * 1024;
/// The smallest: two steps on a blocking thread for each.
const LEAST_BYTES: u64 = 32 * 1024;
/// Pieces of one reader that exist at a time: one being written, its rest of the one before, one
/// being read ahead.
const PIECES_OF_A_READER: u64 = 3;
/// Pieces that must fit into what is left, or they are smaller: half of the budget is for large
/// ones.
const PIECES_LEFT: u64 = 64;
/// How long a reader waits for others to finish with what they have.
const PATIENCE: Duration = Duration::from_secs(30);

/// The budget of everything that is being read.
#[derive(Debug)]
pub(crate) struct Flow {
    budget: Arc<Semaphore>,
    readers: AtomicU64,
}

/// A reader, as long as it lives.
#[derive(Debug)]
pub(crate) struct Reader {
    flow: Arc<Flow>,
}

/// A part of the budget. Given back when the last of what it was taken for is dropped.
pub(crate) type Share = Arc<OwnedSemaphorePermit>;

impl Flow {
    pub(crate) fn new() -> Arc<Self> {
        let units = usize::try_from(BUDGET_BYTES / UNIT_BYTES).expect("it fits into memory");
        let budget = Arc::new(Semaphore::new(units));
        Arc::new(Self { budget, readers: AtomicU64::new(0) })
    }

    /// One more reader.
    pub(crate) fn enter(self: &Arc<Self>) -> Reader {
        self.readers.fetch_add(1, Ordering::Relaxed);
        Reader { flow: Arc::clone(self) }
    }

    /// What nobody holds.
    #[cfg(test)]
    pub(crate) fn free_bytes(&self) -> u64 {
        self.budget.available_permits() as u64 * UNIT_BYTES
    }

    /// Takes what so many bytes in memory cost; waits until there is enough.
    pub(crate) async fn share(&self, env: &SharedEnv, bytes: u64) -> Result<Share> {
        let units = bytes.min(BUDGET_BYTES / 4).div_ceil(UNIT_BYTES);
        let units = u32::try_from(units).expect("the budget is small");
        let budget = || Arc::clone(&self.budget);
        if let Ok(share) = budget().try_acquire_many_owned(units) {
            return Ok(Arc::new(share));
        }
        let busy = |reason: &str| Error::Busy { reason: reason.to_owned() };
        tokio::select! {
            biased;
            share = budget().acquire_many_owned(units) => {
                share.map(Arc::new).map_err(|_| busy("shutting down"))
            }
            () = env.sleep(PATIENCE) => Err(busy("too much is being read at the moment")),
        }
    }
}

impl Flow {
    /// The same without waiting; nothing if too much is held.
    pub(crate) fn try_share(&self, bytes: u64) -> Option<Share> {
        let units = u32::try_from(bytes.div_ceil(UNIT_BYTES)).ok()?;
        Arc::clone(&self.budget).try_acquire_many_owned(units).ok().map(Arc::new)
    }
}

impl Reader {
    /// How many bytes to read at once now.
    pub(crate) fn piece_bytes(&self) -> u64 {
        let readers = self.flow.readers.load(Ordering::Relaxed).max(1);
        let fair = BUDGET_BYTES / (readers * PIECES_OF_A_READER);
        // Those who came first and take nothing of what they have leave the less the more they are.
        let free = self.flow.budget.available_permits() as u64 * UNIT_BYTES;
        fair.min(free / PIECES_LEFT).clamp(LEAST_BYTES, MOST_BYTES)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.flow.readers.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The same bytes, holding a share of the budget as long as any of them is kept.
pub(crate) fn held(bytes: Bytes, share: &Share) -> Bytes {
    struct Held {
        bytes: Bytes,
        _share: Share,
    }
    impl AsRef<[u8]> for Held {
        fn as_ref(&self) -> &[u8] {
            &self.bytes
        }
    }
    let share = Arc::clone(share);
    Bytes::from_owner(Held { bytes, _share: share })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ballast_testkit::clock::SimEnv;
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn what_is_read_costs_until_the_last_slice_of_it_is_gone() {
        let (flow, env) = (Flow::new(), SimEnv::new(1) as SharedEnv);
        let share = flow.share(&env, 100 * 1024).await.expect("there is plenty");
        let bytes = held(Bytes::from(vec![7; 100 * 1024]), &share);
        drop(share);
        let slice = bytes.slice(5..6);
        drop(bytes);
        assert_eq!(flow.free_bytes(), BUDGET_BYTES - 100 * 1024);
        assert_eq!(slice[0], 7);
        drop(slice);
        assert_eq!(flow.free_bytes(), BUDGET_BYTES);
    }

    #[tokio::test]
    async fn who_waits_too_long_is_told_so() {
        let sim = SimEnv::new(1);
        let (flow, env) = (Flow::new(), Arc::clone(&sim) as SharedEnv);
        let mut shares = Vec::new();
        for _ in 0..4 {
            shares.push(flow.share(&env, BUDGET_BYTES).await.expect("a quarter"));
        }
        let mut waiting = Box::pin(flow.share(&env, 1));
        assert!(waiting.as_mut().now_or_never().is_none());
        drop(shares.pop());
        drop(waiting.await.expect("somebody gave some back"));
        shares.push(flow.share(&env, BUDGET_BYTES).await.expect("a quarter"));
        let mut waiting = Box::pin(flow.share(&env, 1));
        assert!(waiting.as_mut().now_or_never().is_none());
        sim.advance(PATIENCE + Duration::from_secs(1));
        assert!(matches!(waiting.await, Err(Error::Busy { .. })));
    }

    #[tokio::test]
    async fn pieces_shrink_when_others_keep_theirs() {
        let (flow, env) = (Flow::new(), SimEnv::new(1) as SharedEnv);
        let (mut kept, mut readers) = (Vec::new(), Vec::new());
        // Readers come one by one, take three pieces and keep them.
        while flow.free_bytes() > PIECES_OF_A_READER * LEAST_BYTES && readers.len() < 1000 {
            let reader = flow.enter();
            for _ in 0..PIECES_OF_A_READER {
                kept.push(flow.share(&env, reader.piece_bytes()).await.expect("it fits"));
            }
            readers.push(reader);
        }
        assert!(readers.len() > 80, "{} readers hold everything", readers.len());
    }

    #[test]
    fn pieces_shrink_as_readers_come_and_grow_as_they_go() {
        let flow = Flow::new();
        let first = flow.enter();
        assert_eq!(first.piece_bytes(), MOST_BYTES);
        let others: Vec<_> = (0..500).map(|_| flow.enter()).collect();
        let small = first.piece_bytes();
        assert!(small < 64 * 1024 && small * 501 * PIECES_OF_A_READER <= BUDGET_BYTES);
        drop(others);
        assert_eq!(first.piece_bytes(), MOST_BYTES);
    }
}
