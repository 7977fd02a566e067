//! Whose shards are checked when.
//!
//! A user's shards are taken in one after another, so that a person with many large files keeps
//! one body in memory and nobody else waiting; among users, files take turns.

use std::time::Duration;

use tokio::sync::{OwnedMutexGuard, Semaphore, SemaphorePermit};

use crate::access::Caller;
use crate::error::{Error, Result};
use crate::hub::Hub;
use crate::upload::closing;

/// How long a shard waits for its user's others: clients give up after five minutes without a
/// byte, and send a shard again when they are told to.
const PATIENCE: Duration = Duration::from_mins(4);
/// Bytes after which a file makes way for those of others that wait: a second of hashing.
const TURN_BYTES: u64 = 1 << 30;

/// The right to send one shard now, as long as it lives.
#[derive(Debug)]
pub struct ShardTurn {
    _turn: OwnedMutexGuard<()>,
}

impl Hub {
    /// Waits until no other shard of the caller's is being taken in. Ask for it before the body is
    /// read, so that those that wait are nowhere in memory.
    pub async fn shard_turn(&self, caller: &Caller) -> Result<ShardTurn> {
        let turn = self.uploads.turn(caller.user()?.user);
        tokio::select! {
            biased;
            turn = turn.lock_owned() => Ok(ShardTurn { _turn: turn }),
            () = self.env().sleep(PATIENCE) => {
                let reason = "another shard of yours is still being checked".to_owned();
                Err(Error::Busy { reason })
            }
        }
    }
}

/// A place among the files that are checked at once.
pub(crate) struct ShardSlot<'a> {
    slots: &'a Semaphore,
    held: Option<SemaphorePermit<'a>>,
    /// Bytes that were hashed since it was its turn.
    spent: u64,
}

impl<'a> ShardSlot<'a> {
    /// Waits for a place, behind those that came before.
    pub(in crate::upload) async fn take(slots: &'a Semaphore) -> Result<Self> {
        let mut slot = Self { slots, held: None, spent: 0 };
        slot.make_way().await?;
        Ok(slot)
    }

    /// So many bytes were hashed; after enough of them it makes way.
    pub(super) async fn spend(&mut self, bytes: u64) -> Result<()> {
        self.spent += bytes;
        if self.spent < TURN_BYTES { Ok(()) } else { self.make_way().await }
    }

    /// Lets those go first that wait.
    async fn make_way(&mut self) -> Result<()> {
        (self.held, self.spent) = (None, 0);
        self.held = Some(self.slots.acquire().await.map_err(|_| closing())?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;
    use crate::rig::Rig;

    #[tokio::test]
    async fn who_makes_way_goes_behind_those_that_wait() -> Result<()> {
        let slots = Semaphore::new(1);
        let mut long = ShardSlot::take(&slots).await?;
        let mut short = Box::pin(ShardSlot::take(&slots));
        assert!(short.as_mut().now_or_never().is_none());
        long.spend(TURN_BYTES - 1).await?;
        let mut back = Box::pin(long.spend(1));
        assert!(back.as_mut().now_or_never().is_none(), "it is the other's turn");
        drop(short.now_or_never().expect("its turn")?);
        back.now_or_never().expect("nobody else waits")
    }

    #[tokio::test]
    async fn a_user_sends_one_shard_at_a_time_and_waits_for_no_other_user() -> Result<()> {
        let rig = Rig::start().await;
        let bob = rig.user("bob").await;
        let first = rig.hub.shard_turn(&rig.admin).await?;
        let mut second = Box::pin(rig.hub.shard_turn(&rig.admin));
        assert!(second.as_mut().now_or_never().is_none());
        rig.hub.shard_turn(&bob).now_or_never().expect("nobody is before him")?;
        drop(first);
        let _second = second.await?;
        let mut third = Box::pin(rig.hub.shard_turn(&rig.admin));
        assert!(third.as_mut().now_or_never().is_none());
        rig.env.advance(PATIENCE);
        assert!(matches!(third.await, Err(Error::Busy { .. })));
        Ok(())
    }
}
