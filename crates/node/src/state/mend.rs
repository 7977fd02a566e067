//! An index that failed while the hub runs is made anew, without a person and without a restart
//! (R9): its disk may have been full for a moment, and it is never the only place of anything.
//!
//! Until it is there again questions that need it are answered with "come again".

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;

use crate::error::Result;
use crate::hub::Hub;
use crate::worker::Worker;

const PAUSE: Duration = Duration::from_secs(1);

/// Replaces an index that failed, and fills it.
#[derive(Debug, Default)]
pub(crate) struct MendIndex {
    /// One was replaced, and is not filled yet.
    is_under_way: AtomicBool,
}

impl MendIndex {
    async fn mend(&self, hub: &Hub) -> Result<()> {
        if hub.index().is_broken() {
            self.is_under_way.store(true, Ordering::Relaxed);
            hub.index().replace().await?;
        }
        if self.is_under_way.load(Ordering::Relaxed) {
            hub.rebuild().await?;
            self.is_under_way.store(false, Ordering::Relaxed);
            tracing::info!("the index was made anew");
        }
        Ok(())
    }
}

#[async_trait]
impl Worker for MendIndex {
    fn name(&self) -> &'static str {
        "mend index"
    }

    fn pause(&self) -> Duration {
        PAUSE
    }

    async fn work(&self, hub: &Hub) {
        if let Err(error) = self.mend(hub).await {
            tracing::warn!(%error, "the index is made anew in a moment");
        }
    }
}
