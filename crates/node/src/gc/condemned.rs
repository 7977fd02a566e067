//! Which copies are condemned, as far as the lists were read.

use std::collections::HashSet;
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use ballast_format::gc::CondemnedList;
use ballast_format::hash::XorbHash;
use ballast_store::keyspace::{CopyKind, CopyName, Key};
use tokio::sync::Mutex;

use crate::broken::{Step, is_left_out};
use crate::error::{Error, Result};
use crate::hub::Hub;
use crate::worker::Worker;

/// The longest list that is read.
const LIST_BYTES: u64 = 5_000_000;

/// The lists that were read, all from the first on. Sixteen bytes for each copy that was ever
/// condemned: what is deleted may come back from a request that landed late, and stays condemned.
#[derive(Debug, Default)]
pub(crate) struct Condemned {
    known: RwLock<Known>,
    reading: Mutex<()>,
}

#[derive(Debug, Default)]
struct Known {
    through: u64,
    /// Epoch and nonce of each copy: no two copies share both.
    names: HashSet<(u64, u64)>,
}

impl Condemned {
    fn known<T>(&self, look: impl FnOnce(&Known) -> T) -> T {
        look(&self.known.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether any copy was ever condemned.
    pub(crate) fn is_empty(&self) -> bool {
        self.known(|known| known.names.is_empty())
    }

    /// Whether this copy is: never offered again, and gone soon.
    pub(crate) fn holds(&self, copy: &CopyName) -> bool {
        self.known(|known| known.names.contains(&(copy.epoch, copy.nonce)))
    }

    fn take(&self, epoch: u64, copies: &[CopyName]) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        known.names.extend(copies.iter().map(|copy| (copy.epoch, copy.nonce)));
        known.through = known.through.max(epoch);
    }
}

/// Reads the lists that other processes made, so that nothing of them is offered for long.
#[derive(Debug)]
pub struct FollowLists;

#[async_trait]
impl Worker for FollowLists {
    fn name(&self) -> &'static str {
        "condemned lists"
    }

    fn pause(&self) -> Duration {
        Duration::from_mins(1)
    }

    async fn work(&self, hub: &Hub) {
        if let Err(error) = hub.read_newest_condemned().await {
            tracing::warn!(%error, "what is condemned is read in the next minute");
        }
    }
}

impl Hub {
    /// Reads every list there is; the newest epoch.
    pub(crate) async fn read_newest_condemned(&self) -> Result<u64> {
        let newest = self.store().epoch().await?;
        self.read_condemned(newest).await?;
        Ok(newest)
    }

    /// Reads every list up to this epoch: not the newest only, as each condemned something
    /// (section 4.2, steps 3 and 4).
    pub(crate) async fn read_condemned(&self, epoch: u64) -> Result<()> {
        if self.condemned.known(|known| known.through) >= epoch {
            return Ok(());
        }
        let _reading = self.condemned.reading.lock().await;
        let unread = self.condemned.known(|known| known.through) + 1;
        let first = if is_left_out(Step::EveryList) { epoch } else { unread };
        for next in first..=epoch {
            let list = self.condemned_list(next).await?;
            let (_, copies) = list.ok_or_else(|| {
                Error::corrupt(format!(
                    "`{}` is missing, and a later epoch is there",
                    Key::Gc(next)
                ))
            })?;
            self.condemned.take(next, &copies);
            for copy in copies.iter().filter(|copy| copy.kind == CopyKind::Xorb) {
                self.caches.places.remove(&XorbHash::from_bytes(copy.hash));
            }
        }
        Ok(())
    }

    /// When an epoch was made, and what it condemned.
    pub(crate) async fn condemned_list(&self, epoch: u64) -> Result<Option<(u64, Vec<CopyName>)>> {
        let key = Key::Gc(epoch);
        let Some(bytes) = self.store().get(&key, LIST_BYTES).await? else {
            return Ok(None);
        };
        let damaged = |what: String| Error::corrupt(format!("`{key}`: {what}"));
        let list = CondemnedList::decode(&bytes).map_err(|error| damaged(error.to_string()))?;
        let name = |bytes: &[u8; CopyName::LENGTH]| {
            CopyName::from_bytes(bytes).ok_or_else(|| damaged("it names no copy".to_owned()))
        };
        let copies = list.copies.iter().map(name).collect::<Result<_>>()?;
        Ok(Some((list.time_ms, copies)))
    }
}
