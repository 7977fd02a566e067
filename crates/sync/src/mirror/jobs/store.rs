//! Jobs in the store: versions of each, of which the newest counts.
//!
//! Whoever changes a job has looked for its newest version, and puts the next one if nobody else
//! did. Versions that were followed by others go after a day, and so nobody may take that long.

use std::collections::BTreeMap;

use ballast_format::id::JobId;
use ballast_format::limits::MAX_MIRROR_JOB_BYTES;
use ballast_format::mirror_job::MirrorJob;
use ballast_node::error::{Error, Result};
use ballast_node::hub::Hub;
use ballast_store::env::random_bytes;
use ballast_store::keyspace::{Key, Prefix};
use ballast_store::objects::Put;
use bytes::Bytes;
use futures_util::TryStreamExt as _;

/// Jobs of one hub, removed ones not counted.
const MAX_JOBS: usize = 10_000;
/// How often a change is tried that others make at the same time.
const TRIES: usize = 8;

/// A job, and which version of it that is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredJob {
    /// Its id.
    pub id: JobId,
    /// The version.
    pub number: u64,
    /// The job.
    pub job: MirrorJob,
}

/// How long a version is kept when there is another after it.
const KEPT_MS: u64 = 24 * 60 * 60 * 1000;
/// How long it is kept that a job was removed.
const REMOVED_KEPT_MS: u64 = 7 * KEPT_MS;

/// A job's versions, oldest first, each with when it was written.
type Versions = BTreeMap<u64, u64>;

async fn listed(hub: &Hub) -> Result<BTreeMap<JobId, Versions>> {
    let mut all: BTreeMap<JobId, Versions> = BTreeMap::new();
    let mut listed = hub.store().list(&Prefix::MirrorJobs);
    while let Some(found) = listed.try_next().await? {
        if let Key::MirrorJob { job, number } = found.key {
            all.entry(job).or_default().insert(number, found.modified_ms);
        }
    }
    Ok(all)
}

/// A job's newest version.
async fn newest(hub: &Hub, id: JobId) -> Result<Option<StoredJob>> {
    let all = listed(hub).await?;
    let number = all.get(&id).and_then(|versions| versions.last_key_value());
    match number {
        Some((number, _)) => at(hub, id, *number).await,
        None => Ok(None),
    }
}

/// All jobs that were not removed, in the order in which they were added.
pub(super) async fn all(hub: &Hub) -> Result<Vec<StoredJob>> {
    let mut jobs = Vec::new();
    for (id, versions) in listed(hub).await? {
        let Some((number, _)) = versions.last_key_value() else { continue };
        if let Some(stored) = at(hub, id, *number).await?
            && !stored.job.is_removed
        {
            jobs.push(stored);
        }
    }
    jobs.sort_by_key(|stored| (stored.job.added_ms, stored.id));
    Ok(jobs)
}

/// Takes away versions that count no more; how many.
pub(super) async fn sweep(hub: &Hub) -> Result<usize> {
    let (now, mut swept) = (hub.env().now_ms(), 0);
    let is_past = |time_ms: u64, kept_ms: u64| time_ms.saturating_add(kept_ms) < now;
    for (job, versions) in listed(hub).await? {
        let next = versions.iter().skip(1);
        for (number, _) in versions.keys().zip(next).filter(|(_, (_, ms))| is_past(**ms, KEPT_MS)) {
            hub.store().sweep(&Key::MirrorJob { job, number: *number }).await?;
            swept += 1;
        }
        // The last one goes last: as long as there are others it says that they do not count.
        let (1, Some((number, written_ms))) = (versions.len(), versions.last_key_value()) else {
            continue;
        };
        if is_past(*written_ms, REMOVED_KEPT_MS)
            && at(hub, job, *number).await?.is_some_and(|last| last.job.is_removed)
        {
            hub.store().sweep(&Key::MirrorJob { job, number: *number }).await?;
            swept += 1;
        }
    }
    Ok(swept)
}

/// Adds a job.
pub(super) async fn add(hub: &Hub, job: MirrorJob) -> Result<StoredJob> {
    if all(hub).await?.len() >= MAX_JOBS {
        return Err(Error::invalid(format!("there are {MAX_JOBS} jobs already")));
    }
    let id = JobId::from_bytes(random_bytes(hub.env().as_ref()));
    let stored = StoredJob { id, number: 1, job };
    if put(hub, &stored).await? {
        return Ok(stored);
    }
    Err(Error::internal("a random id was drawn twice"))
}

/// Changes a job as it is now; the change may refuse it. Nothing if there is no such job, or the
/// change wants none.
pub(super) async fn change(
    hub: &Hub,
    known: &StoredJob,
    change: impl Fn(&mut MirrorJob) -> bool,
) -> Result<Option<StoredJob>> {
    for _ in 0..TRIES {
        // Somebody may have changed it since it was read.
        let Some(newest) = newest(hub, known.id).await? else { return Ok(None) };
        let mut next = StoredJob { number: newest.number + 1, ..newest.clone() };
        if newest.job.is_removed || !change(&mut next.job) {
            return Ok(None);
        }
        if put(hub, &next).await? {
            return Ok(Some(next));
        }
    }
    Err(Error::Busy { reason: "others change this job at the same time".to_owned() })
}

async fn at(hub: &Hub, id: JobId, number: u64) -> Result<Option<StoredJob>> {
    let key = Key::MirrorJob { job: id, number };
    let Some(bytes) = hub.store().get(&key, MAX_MIRROR_JOB_BYTES as u64).await? else {
        return Ok(None);
    };
    Ok(Some(StoredJob { id, number, job: MirrorJob::decode(&bytes)? }))
}

/// Whether it is this version that is there now: a put of which nothing was heard may have been
/// one that was done (Invariant 4).
async fn put(hub: &Hub, stored: &StoredJob) -> Result<bool> {
    let key = Key::MirrorJob { job: stored.id, number: stored.number };
    let bytes = Bytes::from(stored.job.encode()?);
    if let Ok(Put::Stored) = hub.store().put_absent(&key, bytes).await {
        return Ok(true);
    }
    let found = at(hub, stored.id, stored.number).await?;
    let found = found.ok_or_else(|| Error::Busy {
        reason: "the store did not say whether it has the job".to_owned(),
    })?;
    Ok(found == *stored)
}
