//! The collector. Every step may be repeated, may run twice at once, and may be the last before a
//! crash: the next one reads from the store how far it came.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use ballast_format::gc::{Collected, CondemnedList};
use ballast_store::keyspace::{CopyName, Key};
use ballast_store::objects::Put;
use ballast_store::pin::pins;
use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::Plan;
use super::mark::Marked;
use crate::broken::{Step, is_left_out};
use crate::error::{Error, Result};
use crate::hub::Hub;
use crate::state::catalogue::CatalogueState;
use crate::worker::Worker;

/// Logs that are fenced, and copies that are deleted, at the same time.
const AT_ONCE: usize = 8;
/// How often an unfinished collection is looked at.
const PAUSE: Duration = Duration::from_mins(10);
/// A process that has just started has other things to do.
const FIRST: Duration = Duration::from_hours(1);
/// The longest sign that a sweep is over.
const DONE_BYTES: u64 = 4096;
/// Pins are taken away so long after they ran out.
const PIN_MARGIN_MS: u64 = 2 * 24 * 60 * 60 * 1000;

/// How far a collection came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Collection {
    /// Nothing is unreachable.
    Nothing,
    /// An epoch is made and every log knows of it; the sweep may begin then, in unix
    /// milliseconds by the clock of whoever made the epoch.
    Waiting {
        /// The epoch.
        epoch: u64,
        /// From when on its copies may be deleted.
        until_ms: u64,
    },
    /// An epoch is over.
    Done {
        /// The epoch.
        epoch: u64,
        /// What came of it.
        collected: Collected,
    },
}

impl Hub {
    /// What a collection would condemn now. Changes nothing.
    pub async fn plan_collection(&self) -> Result<Plan> {
        let newest = self.read_newest_condemned().await?;
        self.plan_after(newest).await
    }

    async fn plan_after(&self, newest: u64) -> Result<Plan> {
        let marked = self.mark().await?;
        self.plan(&self.settings().gc, newest, &marked).await
    }

    /// Goes on with the collection that is under way, or begins one (section 4.3).
    pub async fn collect(&self) -> Result<Collection> {
        let newest = self.read_newest_condemned().await?;
        let is_open = self.is_open(newest).await?;
        let epoch = if is_open { newest } else { newest + 1 };
        if !is_open && !self.condemn(newest).await? {
            return Ok(Collection::Nothing);
        }
        let list = self.condemned_list(epoch).await?;
        let (time_ms, copies) =
            list.ok_or_else(|| Error::corrupt(format!("`{}` is gone", Key::Gc(epoch))))?;
        self.read_condemned(epoch).await?;
        if !copies.is_empty() {
            if !is_left_out(Step::Fence) {
                self.fence_all(epoch).await?;
            }
            let wait_ms = u64::try_from(self.settings().gc.wait.as_millis()).unwrap_or(u64::MAX);
            let until_ms = time_ms.saturating_add(wait_ms);
            if self.env().now_ms() < until_ms {
                return Ok(Collection::Waiting { epoch, until_ms });
            }
        }
        let collected = self.sweep_condemned(&copies).await?;
        let done = Bytes::from(collected.encode()?);
        // Another collector may have been first; both did the same.
        self.store().put_absent(&Key::GcDone(epoch), done).await?;
        self.sweep_pins().await?;
        Ok(Collection::Done { epoch, collected })
    }

    /// Whether the collection of the newest epoch is not over yet.
    async fn is_open(&self, newest: u64) -> Result<bool> {
        Ok(newest > 0 && self.collected(newest).await?.is_none())
    }

    /// What came of an epoch, if it is over.
    pub(crate) async fn collected(&self, epoch: u64) -> Result<Option<Collected>> {
        let key = Key::GcDone(epoch);
        let bytes = self.store().get(&key, DONE_BYTES).await?;
        let decode = |bytes: Bytes| {
            Collected::decode(&bytes).map_err(|error| Error::corrupt(format!("`{key}`: {error}")))
        };
        bytes.map(decode).transpose()
    }

    /// Makes the next epoch with its list; whether there was anything to make it for. If another
    /// collector made it first, its list counts.
    async fn condemn(&self, newest: u64) -> Result<bool> {
        let mut plan = self.plan_after(newest).await?;
        match self.strong()?.rewrite(&plan.thin).await {
            Ok(0) => {}
            Ok(files) => {
                tracing::info!(files, "rewrote xorbs in which little was alive");
                plan = self.plan_after(newest).await?;
            }
            // A full disk is no reason not to make room on it.
            Err(error) => tracing::warn!(%error, "xorbs in which little is alive stay for now"),
        }
        if plan.copies.is_empty() && !plan.needs_epoch {
            return Ok(false);
        }
        let copies = plan.copies.iter().map(|condemning| condemning.copy.to_bytes()).collect();
        let list = CondemnedList { time_ms: self.env().now_ms(), copies };
        let bytes = Bytes::from(list.encode()?);
        if self.store().put_absent(&Key::Gc(plan.epoch), bytes).await? == Put::Stored {
            let (copies, later) = (plan.copies.len(), plan.later);
            tracing::info!(epoch = plan.epoch, copies, later, "condemned what nothing refers to");
        }
        Ok(true)
    }

    /// After this nobody can append who has not read the list: their number is taken, and what
    /// took it tells them to read on.
    async fn fence_all(&self, epoch: u64) -> Result<()> {
        // It reads the catalogue to its end: who makes a repo later has read the list.
        self.catalogue.fence(self, epoch).await?;
        let repos = self.catalogue.read(CatalogueState::repo_ids);
        let fence = |repo| self.fence_repo(repo, epoch);
        stream::iter(repos).map(fence).buffer_unordered(AT_ONCE).try_collect::<()>().await
    }

    async fn sweep_condemned(&self, copies: &[CopyName]) -> Result<Collected> {
        let mut collected = Collected { time_ms: self.env().now_ms(), ..Collected::default() };
        if copies.is_empty() {
            return Ok(collected);
        }
        let marked = match is_left_out(Step::SecondMark) {
            true => Marked::default(),
            false => self.mark().await?,
        };
        let (kept, gone): (Vec<CopyName>, Vec<CopyName>) =
            copies.iter().partition(|copy| marked.holds(copy));
        collected.kept = kept.len() as u64;
        let sweep = |copy| self.sweep_copy(copy);
        let mut swept = stream::iter(gone).map(sweep).buffer_unordered(AT_ONCE);
        while let Some(bytes) = swept.try_next().await? {
            collected.swept += 1;
            collected.swept_bytes += bytes;
        }
        Ok(collected)
    }

    async fn sweep_copy(&self, copy: CopyName) -> Result<u64> {
        let key = Key::Copy(copy);
        let bytes = self.store().size(&key).await?.unwrap_or(0);
        self.store().sweep(&key).await?;
        self.drop_copy(&copy).await?;
        if self.distrusts(&copy) {
            self.release_copy(&copy).await?;
        }
        tracing::debug!(%key, bytes, "swept");
        Ok(bytes)
    }

    /// Takes away pins that ran out long ago.
    async fn sweep_pins(&self) -> Result<()> {
        let now = self.env().now_ms();
        let mut pins = pins(self.store());
        while let Some(pin) = pins.try_next().await? {
            if pin.until_ms.saturating_add(PIN_MARGIN_MS) < now {
                self.store().sweep(&Key::Pin(pin)).await?;
            }
        }
        Ok(())
    }
}

/// Collects again and again: begins a collection now and then, and goes on with one that is open.
#[derive(Debug)]
pub struct CollectWorker {
    interval: Duration,
    /// When the next may begin, in seconds of the monotonic clock.
    due: AtomicU64,
}

impl CollectWorker {
    /// One that begins a collection so often, and the first after a while.
    pub fn new(interval: Duration) -> Self {
        Self { interval, due: AtomicU64::new(FIRST.min(interval).as_secs()) }
    }

    async fn go_on(&self, hub: &Hub) -> Result<Collection> {
        let now = hub.env().monotonic().as_secs();
        let newest = hub.store().epoch().await?;
        if !hub.is_open(newest).await? && now < self.due.load(Ordering::Relaxed) {
            return Ok(Collection::Nothing);
        }
        let came = hub.collect().await?;
        if !matches!(came, Collection::Waiting { .. }) {
            self.due.store(now + self.interval.as_secs(), Ordering::Relaxed);
        }
        Ok(came)
    }
}

#[async_trait]
impl Worker for CollectWorker {
    fn name(&self) -> &'static str {
        "gc"
    }

    fn pause(&self) -> Duration {
        PAUSE
    }

    async fn work(&self, hub: &Hub) {
        match self.go_on(hub).await {
            Ok(Collection::Done { epoch, collected }) if collected.swept + collected.kept > 0 => {
                let Collected { swept, swept_bytes, kept, .. } = collected;
                tracing::info!(epoch, swept, swept_bytes, kept, "garbage is collected");
            }
            Ok(_) => {}
            Err(error) if error.is_corrupt() => {
                tracing::error!(%error, "gc stopped: nothing is deleted while this is damaged");
            }
            Err(error) => tracing::warn!(%error, "gc goes on later"),
        }
    }
}
