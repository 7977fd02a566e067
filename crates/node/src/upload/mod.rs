//! The one way in: request → validate → dedup → store → index → ref log.
//!
//! Whatever arrives is verified here before anything can refer to it. What was acknowledged is
//! durable; what was refused or cut leaves nothing that a reader, a dedup query or a later shard
//! can find (R7).

mod carried;
mod chunked;
pub mod commit;
mod dedup;
mod growing;
mod intake;
mod kept;
mod leases;
mod lfs;
mod mirrored;
mod packing;
mod parts;
pub(crate) mod repack;
pub(crate) mod rows;
mod scope;
mod shard;
mod storing;
#[cfg(test)]
pub(crate) mod tests;
mod xorb;

pub(crate) use carried::runs_of;
pub use carried::{ChunkRun, Proof, ProvedFile, TakenFile};
pub use growing::Growing;
pub use kept::{Came, Keeping};
pub use parts::SweepParts;
pub use shard::{ShardPut, ShardTurn};

use std::sync::Arc;
use std::time::Duration;

use ballast_format::hash::ChunkHash;
use ballast_format::id::{RepoId, UserId};
use ballast_store::env::SharedEnv;
use quick_cache::sync::Cache;
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore, SemaphorePermit};

use self::packing::Packing;
use crate::error::{Error, Result};
use crate::hub::HubSettings;

/// How long clients remember what they uploaded, and refer to it without asking again.
const REMEMBERED_MS: u64 = 21 * 24 * 60 * 60 * 1000;
/// How long they may: a day more, for clocks.
pub(crate) const PROMISE_MS: u64 = REMEMBERED_MS + 24 * 60 * 60 * 1000;
/// Files of shards that are checked at once: hashing whole files keeps a core busy.
const SHARDS_AT_ONCE: usize = 2;
/// Answers about chunks that are put together at once: each takes up to 26 MB until it is sent.
const ANSWERS_AT_ONCE: usize = 4;
/// Users whose shards are known to be waiting for each other.
const KEPT_TURNS: usize = 10_000;
/// How long an upload waits for others to end. Clients wait longer before they give up, and try
/// again when they are told to.
const PATIENCE: Duration = Duration::from_mins(2);
/// One chunk in so many answers dedup queries, besides each file's first.
const SAMPLE_EVERY: u64 = 1024;

/// Whether clients ask about this chunk wherever it stands in a file.
fn is_sample(chunk: &ChunkHash) -> bool {
    chunk.modulo(SAMPLE_EVERY) == 0
}

/// A place among the uploads that are in flight.
struct UploadSlot<'a> {
    _own: OwnedSemaphorePermit,
    _slot: SemaphorePermit<'a>,
}

/// What uploads share.
pub(crate) struct Uploads {
    slots: Semaphore,
    /// Those that each user may hold: half of them, since a place is held as slowly as a body
    /// comes.
    slots_of: Cache<UserId, Arc<Semaphore>>,
    slots_each: usize,
    shards: Semaphore,
    answering: Semaphore,
    turns: Cache<UserId, Arc<Mutex<()>>>,
    guessed: Cache<[u8; 32], ()>,
    packing: Packing,
    pub(crate) commits: commit::Commits,
}

impl Uploads {
    pub(crate) fn new(settings: &HubSettings) -> Self {
        Self {
            slots: Semaphore::new(settings.upload_slots),
            slots_of: Cache::new(KEPT_TURNS),
            slots_each: settings.upload_slots.div_ceil(2),
            shards: Semaphore::new(SHARDS_AT_ONCE),
            answering: Semaphore::new(ANSWERS_AT_ONCE),
            turns: Cache::new(KEPT_TURNS),
            guessed: Cache::new(KEPT_TURNS),
            packing: Packing::new(),
            commits: commit::Commits::new(),
        }
    }

    /// A place for one more upload of this user; waits for it, but not for ever.
    async fn slot(&self, env: &SharedEnv, user: UserId) -> Result<UploadSlot<'_>> {
        let new = || Ok::<_, std::convert::Infallible>(Arc::new(Semaphore::new(self.slots_each)));
        let own = match self.slots_of.get_or_insert_with(&user, new) {
            Ok(own) => own,
            Err(never) => match never {},
        };
        let take = async {
            let own = own.acquire_owned().await.map_err(|_| closing())?;
            let slot = self.slots.acquire().await.map_err(|_| closing())?;
            Ok(UploadSlot { _own: own, _slot: slot })
        };
        tokio::select! {
            biased;
            slot = take => slot,
            () = env.sleep(PATIENCE) => Err(Error::Busy {
                reason: "too many uploads are in flight".to_owned(),
            }),
        }
    }

    /// A place for one more file of a shard to be checked.
    async fn shard_slot(&self) -> Result<shard::ShardSlot<'_>> {
        shard::ShardSlot::take(&self.shards).await
    }

    /// Whether this client session has not yet been told what may be in its files.
    fn is_first_guess(&self, user: UserId, repo: RepoId, session: &str) -> bool {
        let mut hasher = blake3::Hasher::new();
        hasher.update(user.as_bytes());
        hasher.update(repo.as_bytes());
        hasher.update(session.as_bytes());
        let key = *hasher.finalize().as_bytes();
        let is_first = self.guessed.get(&key).is_none();
        self.guessed.insert(key, ());
        is_first
    }

    /// What lets one user's shards be checked one after another, so that a person with many large
    /// files does not keep others waiting.
    fn turn(&self, user: UserId) -> Arc<Mutex<()>> {
        let new = || Ok::<_, std::convert::Infallible>(Arc::default());
        match self.turns.get_or_insert_with(&user, new) {
            Ok(turn) => turn,
            Err(never) => match never {},
        }
    }
}

fn closing() -> Error {
    Error::Busy { reason: "shutting down".to_owned() }
}
