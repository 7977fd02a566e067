//! Reading everything again, slowly, again and again.
//!
//! Disks forget without saying so, and what nobody reads, nobody misses until the last copy is
//! gone. So the whole store is read at a gentle rate and hashed. It is cut into shares; a share
//! that was read to its end leaves a note in the store. The notes say what is due, to this process
//! after a restart and to every other on the same store, so that they share the work. Two that
//! begin the same share at once read it twice; no harm.
//!
//! It finds what is damaged. What is missing is found where something refers to it: by the index
//! here, by a read, or by `verify`.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use ballast_format::log::{AccountChange, AuditChange, CatalogueChange, RepoChange};
use ballast_store::env::nonce;
use ballast_store::index::{Table, schema};
use ballast_store::keyspace::{CopyKind, CopyName, Key, LogId, Prefix, ScrubName, ScrubShare};
use bytes::Bytes;
use futures_util::TryStreamExt as _;
use tokio::sync::mpsc;

use super::{Check, Depth, Fault, Report, Verdict};
use crate::error::Result;
use crate::hub::Hub;
use crate::pace::Pace;
use crate::state::catalogue::CatalogueState;
use crate::worker::Worker;

/// How often it is asked what is due.
const PAUSE: Duration = Duration::from_mins(1);
/// The logs that are no repo's.
const OF_THE_HUB: [LogId; 3] = [LogId::Catalogue, LogId::Accounts, LogId::Audit];
/// Index rows that are read at once.
const ROWS: usize = 1000;
/// Damage to logs that is kept in mind.
const MOST_FAULTS: usize = 1000;
/// Affected files that are written to the log of the process; `scrub status` names all.
const MOST_NAMED: usize = 100;
/// Reports that wait to be written down.
const QUEUE: usize = 16;

/// How everything is read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScrubSettings {
    /// Bytes a second, at most.
    pub rate: u64,
    /// How long after it was read a share is due again; `None`: nothing is ever due.
    pub interval: Option<Duration>,
}

impl Default for ScrubSettings {
    fn default() -> Self {
        Self { rate: 20_000_000, interval: Some(Duration::from_hours(14 * 24)) }
    }
}

/// What this process found.
#[derive(Debug, Default)]
pub(crate) struct Scrubbed {
    objects: AtomicU64,
    bytes: AtomicU64,
    /// When shares without a note were found empty, by the monotonic clock.
    empty: Mutex<HashMap<ScrubShare, Duration>>,
    /// What is wrong with logs and lists, by the share that holds them.
    faults: Mutex<BTreeMap<ScrubShare, Vec<(String, String)>>>,
}

/// How far it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScrubStatus {
    /// Bytes a second, at most.
    pub rate: u64,
    /// How often all is read; nothing: never.
    pub interval: Option<Duration>,
    /// Objects that were read when their share was read last.
    pub objects: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// When the share was read that waits longest, in unix milliseconds.
    pub oldest_ms: Option<u64>,
    /// When the latest was.
    pub latest_ms: Option<u64>,
    /// Shares that are due.
    pub due: u64,
    /// Copies that are damaged or lost.
    pub damaged: Vec<Damaged>,
}

/// Something that is damaged or lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damaged {
    /// Its key.
    pub object: String,
    /// What is wrong, where that is known without reading it.
    pub problem: Option<String>,
    /// Whether the same content is there in another copy, which is read instead.
    pub is_healed: bool,
}

/// Counts since the start, for metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScrubCounts {
    /// Objects that were read again.
    pub objects: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Copies that are known to be damaged or lost.
    pub damaged: u64,
}

impl Scrubbed {
    fn empty(&self, share: ScrubShare) -> Option<Duration> {
        self.empty.lock().unwrap_or_else(PoisonError::into_inner).get(&share).copied()
    }

    fn found_empty(&self, share: ScrubShare, now: Duration) {
        self.empty.lock().unwrap_or_else(PoisonError::into_inner).insert(share, now);
    }

    fn set_faults(&self, share: ScrubShare, found: Vec<(String, String)>) {
        let mut faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        faults.remove(&share);
        let known: usize = faults.values().map(Vec::len).sum();
        if !found.is_empty() && known < MOST_FAULTS {
            faults.insert(share, found);
        }
    }

    fn faults(&self) -> Vec<(String, String)> {
        let faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        faults.values().flatten().cloned().collect()
    }
}

/// What a share held.
#[derive(Default)]
struct Seen {
    objects: u64,
    bytes: u64,
    damaged: u64,
}

impl Hub {
    /// How far reading everything again is, and what is damaged.
    pub async fn scrub_status(&self) -> Result<ScrubStatus> {
        self.read_damage().await?;
        let settings = self.settings().scrub;
        let notes = self.scrub_notes().await?;
        let mut damaged = Vec::new();
        for copy in self.quarantine.noted() {
            let (object, is_healed) =
                (Key::Copy(copy).to_string(), self.has_sound_copy(&copy).await?);
            damaged.push(Damaged { object, problem: None, is_healed });
        }
        let faults = self.scrubbed.faults().into_iter().map(|(object, problem)| Damaged {
            object,
            problem: Some(problem),
            is_healed: false,
        });
        damaged.extend(faults);
        let due = |interval| self.due_shares(&notes, interval).len() as u64;
        let ended = notes.values().map(|note| note.ended_ms);
        Ok(ScrubStatus {
            rate: settings.rate,
            interval: settings.interval,
            objects: notes.values().map(|note| note.objects).sum(),
            bytes: notes.values().map(|note| note.bytes).sum(),
            oldest_ms: ended.clone().min(),
            latest_ms: ended.max(),
            due: settings.interval.map_or(0, due),
            damaged,
        })
    }

    /// Counts since the start.
    pub fn scrub_counts(&self) -> ScrubCounts {
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        ScrubCounts {
            objects: count(&self.scrubbed.objects),
            bytes: count(&self.scrubbed.bytes),
            damaged: self.quarantine.noted().len() as u64,
        }
    }

    /// The latest note of each share.
    async fn scrub_notes(&self) -> Result<HashMap<ScrubShare, ScrubName>> {
        let mut latest: HashMap<ScrubShare, ScrubName> = HashMap::new();
        let mut notes = self.store().list(&Prefix::Scrubbed);
        while let Some(listed) = notes.try_next().await? {
            let Key::Scrubbed(note) = listed.key else { continue };
            let known = latest.entry(note.share).or_insert(note);
            if known.ended_ms < note.ended_ms {
                *known = note;
            }
        }
        Ok(latest)
    }

    /// What is due, first what was never read; those that were read at the same time come in no
    /// order, so that several processes begin with several shares.
    fn due_shares(
        &self,
        notes: &HashMap<ScrubShare, ScrubName>,
        interval: Duration,
    ) -> Vec<ScrubShare> {
        let (now, monotonic) = (self.env().now_ms(), self.env().monotonic());
        let interval_ms = u64::try_from(interval.as_millis()).unwrap_or(u64::MAX);
        let is_due = |share: &ScrubShare| match notes.get(share) {
            // By the clock of whoever read it. One that is ahead of ours proves nothing.
            Some(note) => note.ended_ms > now || now - note.ended_ms >= interval_ms,
            None => self.scrubbed.empty(*share).is_none_or(|at| monotonic >= at + interval),
        };
        let mut due: Vec<(u64, u64, ScrubShare)> = ScrubShare::all()
            .filter(is_due)
            .map(|share| {
                let ended = notes.get(&share).map_or(0, |note| note.ended_ms);
                (ended, nonce(self.env().as_ref()), share)
            })
            .collect();
        due.sort_unstable();
        due.into_iter().map(|(.., share)| share).collect()
    }

    /// Reads again all that was not read for so long, at this pace.
    pub(crate) async fn scrub_due(&self, interval: Duration, pace: &Pace) -> Result<()> {
        let notes = self.scrub_notes().await?;
        for share in self.due_shares(&notes, interval) {
            let before = notes.get(&share).map(|note| note.ended_ms);
            if self.settings().freshness != crate::hub::Freshness::Exclusive
                && self.latest_note(share).await? != before
            {
                // Another process was here meanwhile.
                continue;
            }
            self.scrub_share(share, pace).await?;
        }
        Ok(())
    }

    async fn latest_note(&self, share: ScrubShare) -> Result<Option<u64>> {
        let mut notes = self.store().list(&Prefix::ScrubbedOf(share));
        let mut latest = None;
        while let Some(listed) = notes.try_next().await? {
            if let Key::Scrubbed(note) = listed.key {
                latest = latest.max(Some(note.ended_ms));
            }
        }
        Ok(latest)
    }

    async fn scrub_share(&self, share: ScrubShare, pace: &Pace) -> Result<()> {
        let seen = match share {
            ScrubShare::Copies(kind, at) => self.scrub_copies(share, kind, at, pace).await?,
            ScrubShare::RepoLogs(at) => {
                let repos = self.catalogue.read(CatalogueState::repo_ids);
                let repos = repos.into_iter().filter(|id| id.as_bytes()[0] == at);
                let logs: Vec<LogId> = repos.map(LogId::Repo).collect();
                self.scrub_logs(share, &logs, pace).await?
            }
            ScrubShare::Hub => self.scrub_logs(share, &OF_THE_HUB, pace).await?,
        };
        let Seen { objects, bytes, damaged } = seen;
        if objects == 0 {
            self.scrubbed.found_empty(share, self.env().monotonic());
        } else {
            self.note_scrubbed(share, objects, bytes).await?;
        }
        tracing::debug!(%share, objects, bytes, damaged, "read again");
        if damaged > 0 {
            self.settle_damage().await?;
            self.log_affected().await?;
        }
        Ok(())
    }

    async fn note_scrubbed(&self, share: ScrubShare, objects: u64, bytes: u64) -> Result<()> {
        let (ended_ms, nonce) = (self.env().now_ms(), nonce(self.env().as_ref()));
        let note = ScrubName { share, ended_ms, objects, bytes, nonce };
        self.store().put_new(&Key::Scrubbed(note), Bytes::new()).await?;
        let mut notes = self.store().list(&Prefix::ScrubbedOf(share));
        while let Some(listed) = notes.try_next().await? {
            if listed.key != Key::Scrubbed(note) {
                self.store().sweep(&listed.key).await?;
            }
        }
        Ok(())
    }

    async fn scrub_copies(
        &self,
        share: ScrubShare,
        kind: CopyKind,
        at: u8,
        pace: &Pace,
    ) -> Result<Seen> {
        let (mut seen, mut names) = (Seen::default(), HashSet::new());
        let mut listed = self.store().list(&Prefix::CopiesShare(kind, at));
        while let Some(listed) = listed.try_next().await? {
            let Key::Copy(copy) = listed.key else { continue };
            names.insert(copy);
            match self.check_copy(&copy, pace).await? {
                Verdict::Sound { bytes } => {
                    seen.bytes += bytes;
                    self.scrubbed.bytes.fetch_add(bytes, Ordering::Relaxed);
                    if self.distrusts(&copy) {
                        self.release_copy(&copy).await?;
                    }
                }
                Verdict::Damaged { what } => {
                    // Somebody may have come across it a moment ago: it is not noted for that.
                    seen.damaged += u64::from(!self.quarantine.is_noted(&copy));
                    self.distrust(&copy, &what);
                }
                // Swept, since it was listed.
                Verdict::Gone => continue,
            }
            seen.objects += 1;
            self.scrubbed.objects.fetch_add(1, Ordering::Relaxed);
        }
        for copy in self.missing_copies(share, kind, &names).await? {
            seen.damaged += u64::from(!self.quarantine.is_noted(&copy));
            self.distrust(&copy, "it is missing");
        }
        Ok(seen)
    }

    /// Copies of a share that the index knows, and that the store does not have.
    async fn missing_copies(
        &self,
        share: ScrubShare,
        kind: CopyKind,
        listed: &HashSet<CopyName>,
    ) -> Result<Vec<CopyName>> {
        let (mut after, mut missing): (Option<Vec<u8>>, _) = (None, Vec::new());
        loop {
            let prefix = [kind.to_byte()];
            let rows = self.index().scan(Table::Copy, &prefix, after.as_deref(), ROWS).await?;
            let Some((last, _)) = rows.last() else {
                return Ok(missing);
            };
            after = Some(last.clone());
            for (key, _) in &rows {
                let copy = schema::copy_of(key)?;
                if share.holds(&copy)
                    && !listed.contains(&copy)
                    && !self.condemned.holds(&copy)
                    && self.store().size(&Key::Copy(copy)).await?.is_none()
                {
                    missing.push(copy);
                }
            }
        }
    }

    async fn scrub_logs(&self, share: ScrubShare, logs: &[LogId], pace: &Pace) -> Result<Seen> {
        let mut check = Check::new(self.strong()?, None, Depth::Whole);
        for log in logs {
            let before = check.summary.bytes;
            match log {
                LogId::Catalogue => check.log::<CatalogueChange>(*log, |_| {}).await?,
                LogId::Accounts => check.log::<AccountChange>(*log, |_| {}).await?,
                LogId::Audit => check.log::<AuditChange>(*log, |_| {}).await?,
                LogId::Repo(_) => check.log::<RepoChange>(*log, |_| {}).await?,
            }
            pace.wait(self.env().as_ref(), check.summary.bytes - before).await;
        }
        if share == ScrubShare::Hub {
            check.lists().await?;
        }
        let fault = |fault: &Arc<Fault>| {
            tracing::error!(key = fault.object, what = fault.problem, "a log is damaged");
            (fault.object.clone(), fault.problem.clone())
        };
        let faults: Vec<(String, String)> = check.faults.iter().map(fault).collect();
        let summary = check.summary;
        self.scrubbed.objects.fetch_add(summary.objects, Ordering::Relaxed);
        self.scrubbed.bytes.fetch_add(summary.bytes, Ordering::Relaxed);
        let damaged = faults.len() as u64;
        self.scrubbed.set_faults(share, faults);
        Ok(Seen { objects: summary.objects, bytes: summary.bytes, damaged })
    }

    /// Writes to the log of the process which files damage affects.
    async fn log_affected(&self) -> Result<()> {
        let (reports, mut heard) = mpsc::channel(QUEUE);
        let hub = self.strong()?;
        let listen = async {
            let mut named = 0;
            while let Some(report) = heard.recv().await {
                let Report::Finding(finding) = report else { continue };
                let Some(path) = finding.path else { continue };
                named += 1;
                if named <= MOST_NAMED {
                    let (repo, revision) = (finding.repo, finding.revision.unwrap_or_default());
                    tracing::error!(repo, revision, path, "damage affects this file");
                }
            }
            if named > MOST_NAMED {
                tracing::error!(files = named, "damage affects more files: see `scrub status`");
            }
        };
        let (named, ()) = tokio::join!(hub.name_damage(reports), listen);
        named.map(|_| ())
    }
}

/// Reads everything again.
#[derive(Debug)]
pub(crate) struct ScrubWorker {
    interval: Duration,
    pace: Pace,
}

impl ScrubWorker {
    /// One that reads everything so often, and so many bytes a second at most.
    pub(crate) fn new(interval: Duration, rate: u64) -> Self {
        Self { interval, pace: Pace::of(rate) }
    }
}

#[async_trait]
impl Worker for ScrubWorker {
    fn name(&self) -> &'static str {
        "scrub"
    }

    fn pause(&self) -> Duration {
        self.interval.min(PAUSE)
    }

    async fn work(&self, hub: &Hub) {
        let stopping = hub.runner().stopping();
        tokio::select! {
            () = stopping.cancelled() => {}
            done = hub.scrub_due(self.interval, &self.pace) => if let Err(error) = done {
                tracing::warn!(%error, "the scrub goes on later");
            }
        }
    }
}

#[cfg(test)]
mod tests;
