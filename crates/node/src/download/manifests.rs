//! Large manifests in memory: each once, however many read its file, and only so many at once.
//!
//! Small ones are the cache's. A large one would push all others out of it, or not fit at all, so
//! that each request for a part of its file would read and decode it anew, and hold its own.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use ballast_format::manifest::Manifest;
use ballast_store::env::SharedEnv;
use ballast_store::keyspace::CopyName;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::{Error, Result};

/// Stored manifests from this length on are large: those of 5,000 terms, or 5,000 runs of a file
/// that is cut up badly.
pub(super) const LARGE_BYTES: u64 = 256 * 1024;
/// What all large ones may take: three of the largest that are read, or one that is decoded.
const BUDGET_BYTES: u64 = 256 << 20;
/// The budget is kept in units of this many bytes.
const UNIT_BYTES: u64 = 1024;
/// Large ones that stay although nobody reads them, as the next part is often asked for soon.
const KEPT: usize = 4;
/// How long a reader waits for others, and how often it looks whether they are done.
const PATIENCE: Duration = Duration::from_secs(30);
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Where a manifest is stored: a shard object, and where in it.
pub(super) type Place = (CopyName, u64);

/// The large manifests that somebody reads.
pub(crate) struct LargeManifests {
    budget: Arc<Semaphore>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    live: HashMap<Place, Live>,
    kept: VecDeque<Arc<Manifest>>,
    /// Those that are being read right now.
    turns: HashMap<Place, Weak<tokio::sync::Mutex<()>>>,
}

struct Live {
    manifest: Weak<Manifest>,
    _share: OwnedSemaphorePermit,
}

impl LargeManifests {
    pub(crate) fn new() -> Self {
        Self {
            budget: Arc::new(Semaphore::new(units(BUDGET_BYTES) as usize)),
            state: Mutex::default(),
        }
    }

    /// The manifest of so many bytes at this place, read by `read` if nobody holds it.
    pub(super) async fn get(
        &self,
        env: &SharedEnv,
        place: Place,
        bytes: u64,
        read: impl Future<Output = Result<Manifest>>,
    ) -> Result<Arc<Manifest>> {
        let turn = self.turn(place);
        let _turn = turn.lock().await;
        if let Some(manifest) = self.live(&place) {
            return Ok(manifest);
        }
        // The stored bytes and what is made of them, which is about as much.
        let mut share = self.room(env, 2 * bytes).await?;
        let manifest = Arc::new(read.await?);
        drop(share.split(share.num_permits() / 2));
        let mut state = self.state();
        state.kept.push_back(Arc::clone(&manifest));
        let oldest = if state.kept.len() > KEPT { state.kept.pop_front() } else { None };
        let live = Live { manifest: Arc::downgrade(&manifest), _share: share };
        state.live.insert(place, live);
        drop((state, oldest));
        Ok(manifest)
    }

    /// Lets go of those that nobody reads.
    pub(super) fn let_go(&self) {
        self.make_room();
    }

    fn live(&self, place: &Place) -> Option<Arc<Manifest>> {
        self.state().live.get(place)?.manifest.upgrade()
    }

    /// What lets one reader of a place go first.
    fn turn(&self, place: Place) -> Arc<tokio::sync::Mutex<()>> {
        let mut state = self.state();
        if let Some(turn) = state.turns.get(&place).and_then(Weak::upgrade) {
            return turn;
        }
        state.turns.retain(|_, turn| turn.strong_count() > 0);
        let turn = Arc::default();
        state.turns.insert(place, Arc::downgrade(&turn));
        turn
    }

    /// Room for so many bytes, after waiting for a while.
    async fn room(&self, env: &SharedEnv, bytes: u64) -> Result<OwnedSemaphorePermit> {
        let units = units(bytes.min(BUDGET_BYTES));
        let until = env.monotonic() + PATIENCE;
        loop {
            if let Ok(share) = Arc::clone(&self.budget).try_acquire_many_owned(units) {
                return Ok(share);
            }
            if self.make_room() {
                continue;
            }
            if env.monotonic() >= until {
                let reason = "too many files with long lists of pieces are being read".to_owned();
                return Err(Error::Busy { reason });
            }
            env.sleep(LOOK_AGAIN).await;
        }
    }

    /// Gives up what nobody reads; whether there was anything.
    fn make_room(&self) -> bool {
        let mut state = self.state();
        state.kept.clear();
        let before = state.live.len();
        state.live.retain(|_, live| live.manifest.strong_count() > 0);
        state.live.len() < before
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn units(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use ballast_format::hash::{FileHash, Sha256};
    use ballast_store::keyspace::CopyKind;
    use ballast_testkit::clock::SimEnv;
    use futures_util::FutureExt as _;

    use super::*;

    fn place(number: u64) -> Place {
        (CopyName { kind: CopyKind::Shard, hash: [1; 32], epoch: 0, nonce: 1 }, number)
    }

    async fn read() -> Result<Manifest> {
        let manifest = Manifest::new(FileHash::ZERO, Sha256::ZERO, 0, Vec::new(), Vec::new());
        Ok(manifest.expect("an empty one"))
    }

    #[tokio::test]
    async fn those_that_read_one_share_it_and_it_stays_for_a_while() -> Result<()> {
        let (large, env) = (LargeManifests::new(), SimEnv::new(1) as SharedEnv);
        let first = large.get(&env, place(1), LARGE_BYTES, read()).await?;
        let never = std::future::pending();
        let second = large.get(&env, place(1), LARGE_BYTES, never).await?;
        assert!(Arc::ptr_eq(&first, &second));
        drop((first, second));
        large.get(&env, place(1), LARGE_BYTES, std::future::pending()).await?;
        Ok(())
    }

    #[tokio::test]
    async fn who_comes_when_all_room_is_taken_waits_and_is_told_so() -> Result<()> {
        let sim = SimEnv::new(1);
        let (large, env) = (LargeManifests::new(), Arc::clone(&sim) as SharedEnv);
        let most = BUDGET_BYTES / 4;
        let mut held = Vec::new();
        for number in 0..3 {
            held.push(large.get(&env, place(number), most, read()).await?);
        }
        let mut waiting = Box::pin(large.get(&env, place(9), most, read()));
        assert!(waiting.as_mut().now_or_never().is_none());
        drop(held.pop());
        sim.advance(LOOK_AGAIN);
        held.push(waiting.await?);
        let mut waiting = Box::pin(large.get(&env, place(8), most, read()));
        assert!(waiting.as_mut().now_or_never().is_none());
        sim.advance(PATIENCE);
        assert!(matches!(waiting.await, Err(Error::Busy { .. })));
        Ok(())
    }
}
