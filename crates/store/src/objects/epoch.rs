//! The newest epoch.
//!
//! An epoch is one object that also holds its list, so both appear in one step. Whoever writes
//! anything that can be swept reads the newest epoch first.

use std::sync::atomic::Ordering;

use futures_util::TryStreamExt;

use super::Store;
use crate::error::Result;
use crate::keyspace::{Key, Prefix};

impl Store {
    /// The newest epoch; 0 before the first. Asks the store each time, starting from the newest
    /// one that was seen here.
    pub async fn epoch(&self) -> Result<u64> {
        let known = &self.shared.epoch;
        let mut newest = known.load(Ordering::Acquire);
        if !self.shared.is_epoch_listed.load(Ordering::Acquire) {
            newest = newest.max(self.listed_epoch().await?);
            self.shared.is_epoch_listed.store(true, Ordering::Release);
        }
        // A listing may be stale; the names themselves are not.
        while self.size(&Key::Gc(newest + 1)).await?.is_some() {
            newest += 1;
        }
        Ok(known.fetch_max(newest, Ordering::AcqRel).max(newest))
    }

    /// Where to start in a store that has been through many epochs.
    async fn listed_epoch(&self) -> Result<u64> {
        self.list(&Prefix::Gc)
            .try_fold(0, |newest, listed| {
                let epoch = if let Key::Gc(epoch) = listed.key { epoch } else { 0 };
                std::future::ready(Ok(epoch.max(newest)))
            })
            .await
    }
}
