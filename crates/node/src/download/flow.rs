//! How much memory all that is on its way out may take.
//!
//! What was read holds a part of one budget until its last byte is written to a socket, however
//! slow the reader is. The more readers there are, the smaller are the pieces that each gets, so
//! that slow ones do not keep others waiting. Where there are many, a reader begins with one small
//! piece at a time and earns larger ones, and one read ahead, by taking what it is given, as a
//! sender on a network earns its window: a crowd that takes nothing holds a chunk each. Only when
//! the budget is spent all the same does a reader wait, and not for ever.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ballast_store::env::SharedEnv;
use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::{Error, Result};

/// What may be on its way out at once.
const BUDGET_BYTES: u64 = 96 << 20;
/// The budget is kept in units of this many bytes.
const UNIT_BYTES: u64 = 1024;
/// The largest piece: what was read is still in a core's cache when it is sent, and a client is
/// woken half as often as with pieces half as large, which costs about as much as copying them.
const MOST_BYTES: u64 = 512 * 1024;
/// The smallest: two steps on a blocking thread for each.
const LEAST_BYTES: u64 = 32 * 1024;
/// Pieces of one reader that exist at a time: one being written, its rest of the one before, one
/// being read ahead.
const PIECES_OF_A_READER: u64 = 3;
/// Pieces that must fit into what is left, or they are smaller: large ones take no more than half
/// of the budget.
const PIECES_LEFT: u64 = 192;
/// From this many readers on, each has to earn what it gets. Those that came before may hold two
/// fifths of the budget.
const CROWD: u64 = 32;
/// What a reader in a crowd has taken, in pieces, when it may have one. A socket takes a megabyte
/// or two for a client that reads nothing.
const PIECES_TAKEN: u64 = 32;
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
    /// One for each piece that exists.
    places: Arc<Semaphore>,
    taken_bytes: u64,
}

/// A part of the budget. Given back when the last of what it was taken for is dropped.
pub(crate) type Share = Arc<OwnedSemaphorePermit>;

/// What a piece of a reader holds as long as it exists.
#[derive(Clone, Debug)]
pub(crate) struct Room {
    pub(crate) share: Share,
    _place: Arc<OwnedSemaphorePermit>,
}

impl Flow {
    pub(crate) fn new() -> Arc<Self> {
        let units = usize::try_from(BUDGET_BYTES / UNIT_BYTES).expect("it fits into memory");
        let budget = Arc::new(Semaphore::new(units));
        Arc::new(Self { budget, readers: AtomicU64::new(0) })
    }

    /// One more reader.
    pub(crate) fn enter(self: &Arc<Self>) -> Reader {
        self.readers.fetch_add(1, Ordering::Relaxed);
        let places = usize::try_from(PIECES_OF_A_READER).expect("a few");
        let places = Arc::new(Semaphore::new(places));
        Reader { flow: Arc::clone(self), places, taken_bytes: 0 }
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
        let earned = if readers > CROWD { self.taken_bytes / PIECES_TAKEN } else { MOST_BYTES };
        fair.min(free / PIECES_LEFT).min(earned).clamp(LEAST_BYTES, MOST_BYTES)
    }

    /// Room for a piece that takes so many bytes in memory; waits until there is some. To be asked
    /// for one piece after the other, in the order in which they are sent: a reader that has to
    /// earn more gets none before its last piece is gone.
    pub(crate) async fn room(&mut self, env: &SharedEnv, bytes: u64) -> Result<Room> {
        let readers = self.flow.readers.load(Ordering::Relaxed);
        let is_alone = readers > CROWD && self.taken_bytes < PIECES_TAKEN * MOST_BYTES;
        let places = if is_alone { PIECES_OF_A_READER } else { 1 };
        let places = u32::try_from(places).expect("a few");
        let place = Arc::clone(&self.places).acquire_many_owned(places).await;
        let place = place.map(Arc::new).expect("it is never closed");
        let share = self.flow.share(env, bytes).await?;
        self.taken_bytes += bytes;
        Ok(Room { share, _place: place })
    }
}

impl Room {
    /// The same bytes, holding the room as long as any of them is kept.
    pub(crate) fn hold(&self, bytes: Bytes) -> Bytes {
        hold(bytes, self.clone())
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.flow.readers.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The same bytes, holding a share of the budget as long as any of them is kept.
pub(crate) fn held(bytes: Bytes, share: &Share) -> Bytes {
    hold(bytes, Arc::clone(share))
}

fn hold<T: Send + 'static>(bytes: Bytes, what: T) -> Bytes {
    struct Held<T> {
        bytes: Bytes,
        _what: T,
    }
    impl<T> AsRef<[u8]> for Held<T> {
        fn as_ref(&self) -> &[u8] {
            &self.bytes
        }
    }
    Bytes::from_owner(Held { bytes, _what: what })
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
    async fn a_crowd_that_takes_nothing_leaves_room_for_others() {
        let (flow, env) = (Flow::new(), SimEnv::new(1) as SharedEnv);
        let (mut kept, mut readers) = (Vec::new(), Vec::new());
        // Each asks for as much as it gets without giving anything back. A chunk is the least.
        for number in 0..700 {
            let mut reader = flow.enter();
            for _ in 0..PIECES_OF_A_READER {
                let bytes = reader.piece_bytes().max(64 * 1024);
                let Some(room) = reader.room(&env, bytes).now_or_never() else { break };
                kept.push(room.expect("it fits"));
            }
            assert!(!kept.is_empty(), "{number}");
            readers.push(reader);
        }
        assert!(flow.free_bytes() > BUDGET_BYTES / 8, "{} left", flow.free_bytes());
    }

    #[tokio::test]
    async fn who_takes_what_it_is_given_earns_more_in_a_crowd() {
        let (flow, env) = (Flow::new(), SimEnv::new(1) as SharedEnv);
        let others: Vec<_> = (0..CROWD + 5).map(|_| flow.enter()).collect();
        let mut reader = flow.enter();
        assert_eq!(reader.piece_bytes(), LEAST_BYTES);
        let first = reader.room(&env, LEAST_BYTES).await.expect("there is plenty");
        let sent = first.hold(Bytes::from_static(b"chunk"));
        drop(first);
        assert!(reader.room(&env, LEAST_BYTES).now_or_never().is_none(), "one at a time");
        drop(sent);
        while reader.taken_bytes < PIECES_TAKEN * MOST_BYTES {
            let bytes = reader.piece_bytes();
            drop(reader.room(&env, bytes).await.expect("there is plenty"));
        }
        assert_eq!(reader.piece_bytes(), MOST_BYTES);
        let ahead = [reader.room(&env, 1).await, reader.room(&env, 1).await];
        assert!(ahead.iter().all(Result::is_ok));
        drop(others);
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
