//! What a user sent and registered through other processes on the same store.
//!
//! A client may send its xorbs through one server, its shard through another and commit through a
//! third. What each took is in the store, with a pin of the user's; whoever does not know of it
//! reads the pins first. So does one whose index is not whole yet.

use std::collections::HashMap;

use ballast_format::id::UserId;
use ballast_store::index::{Batch, Table, schema};
use ballast_store::keyspace::{CopyKind, Leased};
use ballast_store::pin::pins_of;
use futures_util::TryStreamExt as _;

use super::rows;
use crate::access::{Caller, Repo};
use crate::error::Result;
use crate::hub::{Freshness, Hub};

/// Rows that are put at once.
const ROWS: usize = 1000;

impl Hub {
    /// Learns what others did to this repo, and what they took from this caller: for who was about
    /// to say that something is not there.
    pub async fn catch_up(&self, caller: &Caller, repo: &Repo) -> Result<()> {
        self.newest_state(repo.id()).await?;
        match caller.user_id() {
            Some(user) => self.learn_leases(user).await,
            None => Ok(()),
        }
    }

    /// Learns what a user may build on, where other processes may have taken some of it.
    pub(super) async fn learn_leases(&self, user: UserId) -> Result<()> {
        if self.settings().freshness == Freshness::Exclusive && self.index().is_whole() {
            return Ok(());
        }
        let now = self.env().now_ms();
        let mut longest: HashMap<Leased, u64> = HashMap::new();
        let mut pins = pins_of(self.store(), user);
        while let Some(pin) = pins.try_next().await? {
            if pin.until_ms > now {
                let until = longest.entry(pin.leased).or_default();
                *until = pin.until_ms.max(*until);
            }
        }
        let mut batch = Batch::new();
        for (leased, until_ms) in longest {
            rows::of_lease(&mut batch, user, leased, until_ms);
            if batch.len() >= ROWS {
                self.index().apply(std::mem::take(&mut batch)).await?;
            }
            if let Leased::Registered(shard) = leased {
                let prefix = schema::copies_prefix(CopyKind::Shard, shard.as_bytes());
                if self.index().scan(Table::Copy, &prefix, None, 1).await?.is_empty() {
                    self.learn_shard(&shard).await?;
                }
            }
        }
        Ok(self.index().apply(batch).await?)
    }
}
