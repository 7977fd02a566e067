//! The one way in: request → validate → dedup → store → index → ref log.
//!
//! Whatever arrives is verified here before anything can refer to it. What was acknowledged is
//! durable; what was refused or cut leaves nothing that a reader, a dedup query or a later shard
//! can find (R7).

mod chunked;
pub mod commit;
mod dedup;
mod lfs;
mod parts;
pub(crate) mod rows;
mod scope;
mod shard;
mod xorb;

pub use shard::ShardPut;

use tokio::sync::{Semaphore, SemaphorePermit};

use crate::error::{Error, Result};
use crate::hub::HubSettings;

/// How long a client may refer to what it uploaded, without asking again: three weeks by its own
/// rules, and a day for clocks.
pub(crate) const PROMISE_MS: u64 = 22 * 24 * 60 * 60 * 1000;
/// Shards that are checked at once: each may hold 64 MiB, and hashing whole files keeps a core
/// busy.
const SHARDS_AT_ONCE: usize = 2;

/// What uploads share.
pub(crate) struct Uploads {
    slots: Semaphore,
    shards: Semaphore,
    pub(crate) commits: commit::Commits,
}

impl Uploads {
    pub(crate) fn new(settings: &HubSettings) -> Self {
        Self {
            slots: Semaphore::new(settings.upload_slots),
            shards: Semaphore::new(SHARDS_AT_ONCE),
            commits: commit::Commits::new(),
        }
    }

    /// A place for one more upload; waits for it.
    async fn slot(&self) -> Result<SemaphorePermit<'_>> {
        self.slots.acquire().await.map_err(|_| closing())
    }

    async fn shard_slot(&self) -> Result<SemaphorePermit<'_>> {
        self.shards.acquire().await.map_err(|_| closing())
    }
}

fn closing() -> Error {
    Error::Busy { reason: "shutting down".to_owned() }
}
