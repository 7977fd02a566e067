//! Making the index anew from the store (Invariant 6, R8).
//!
//! Reads the logs, the directories of packs and the manifests of shard objects, pins and tallies.
//! Never a xorb: what the index says about xorbs follows from manifests and pins.

use std::collections::HashMap;

use ballast_format::id::UserId;
use ballast_store::index::Batch;
use ballast_store::keyspace::{CopyKind, Key, Leased, Prefix};
use futures_util::{StreamExt as _, TryStreamExt as _};

use super::catalogue::CatalogueState;
use super::ledger::Damage;
use crate::error::{Error, Result};
use crate::hub::Hub;
use crate::upload::rows;

/// Objects that are read at the same time.
const AT_ONCE: usize = 32;
/// Rows that are put at once.
const ROWS: usize = 1000;

impl Hub {
    /// Fills an index that knows nothing yet, or a part. What is damaged is named in the log and
    /// left out, so that it does not keep the hub from serving everything else.
    pub(crate) async fn rebuild(&self) -> Result<()> {
        let shards = self.rebuild_shards().await?;
        tracing::info!(shards, "read what was uploaded");
        let pins = self.rebuild_pins().await?;
        tracing::info!(pins, "read the pins");
        self.catalogue.look(self, Damage::Stops).await?;
        let repos = self.catalogue.read(CatalogueState::repo_count);
        let damaged = self.rebuild_repos().await?;
        tracing::info!(repos, damaged, "read the logs of all repos");
        self.index().mark_whole();
        Ok(())
    }

    /// Reads every repo's log; how many could not be read.
    async fn rebuild_repos(&self) -> Result<usize> {
        let repos = self.catalogue.read(CatalogueState::repo_ids);
        let mut damaged = 0;
        let mut read = futures_util::stream::iter(repos)
            .map(|id| async move { (id, self.restore_state(id).await) })
            .buffer_unordered(AT_ONCE);
        while let Some((repo, done)) = read.next().await {
            match done {
                Ok(()) => {}
                Err(error) if error.is_corrupt() => {
                    damaged += 1;
                    tracing::error!(%repo, %error, "a repo's log is damaged");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(damaged)
    }

    async fn rebuild_shards(&self) -> Result<usize> {
        let listed = self.store().list(&Prefix::Copies(CopyKind::Shard));
        let mut batches = listed
            .map_err(Error::from)
            .map_ok(|listed| async move {
                let Key::Copy(copy) = listed.key else {
                    return Ok(Batch::new());
                };
                match rows::of_stored_shard(self, &copy).await {
                    Err(error) if error.is_corrupt() => {
                        // It may have been swept since it was listed.
                        if self.store().size(&listed.key).await?.is_some() {
                            tracing::error!(%error, "a shard object is damaged");
                        }
                        Ok(Batch::new())
                    }
                    other => other,
                }
            })
            .try_buffer_unordered(AT_ONCE);
        let mut count = 0;
        while let Some(batch) = batches.try_next().await? {
            self.index().apply(batch).await?;
            count += 1;
        }
        Ok(count)
    }

    async fn rebuild_pins(&self) -> Result<usize> {
        let now = self.env().now_ms();
        let mut pins = ballast_store::pin::pins(self.store());
        // One for each 64 MiB of three weeks' uploads: some tens of thousands at most.
        let mut longest: HashMap<(UserId, Leased), u64> = HashMap::new();
        while let Some(pin) = pins.try_next().await? {
            if pin.until_ms > now {
                let until = longest.entry((pin.owner, pin.leased)).or_default();
                *until = pin.until_ms.max(*until);
            }
        }
        let count = longest.len();
        let mut batch = Batch::new();
        for ((owner, leased), until_ms) in longest {
            rows::of_lease(&mut batch, owner, leased, until_ms);
            if batch.len() >= ROWS {
                self.index().apply(std::mem::take(&mut batch)).await?;
            }
        }
        self.index().apply(batch).await?;
        Ok(count)
    }
}
