//! Large files on their way: each is fetched once, whoever asks for it, and goes on being fetched
//! when everybody has left.
//!
//! The upstream's bytes go into a spool. From there they go to those who wait, and by the way of
//! every upload into the store; the repo has the file when its log links it. What is not the file
//! that it was said to be is neither stored nor handed out to its end.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ballast_format::hash::Sha256;
use ballast_format::id::RepoId;
use ballast_format::name::FilePath;
use ballast_node::access::Repo;
use ballast_node::error::{Error, Result};
use ballast_node::hub::Hub;
use ballast_node::origin::Wanted;
use bytes::Bytes;
use tokio::sync::{Semaphore, mpsc, watch};

use super::follow::{Share, pieces};
use super::spool::{Filler, Spool};
use super::{Counts, Mirror, fault};
use crate::mirror::upstream::{self, Entry, EntryKind, Large};

/// Pieces of an answer that wait to be written: some MiB.
const PIECES_AHEAD: usize = 64;
/// How long a file that could not be fetched is not asked for again.
const FAILED_FOR: Duration = Duration::from_secs(5);
/// How long clients may come back with the beginning of a file that was wrong.
const WRONG_FOR: Duration = Duration::from_hours(24);
/// Files of which it is known that they could not be fetched.
const KEPT_FAILURES: usize = 1000;

type Key = (RepoId, Sha256);
/// The next bytes of an upstream's answer, or why there are none.
type Incoming = std::result::Result<Bytes, upstream::Error>;

/// A file that is being fetched.
pub(super) struct Flight {
    stage: watch::Sender<Stage>,
}

#[derive(Default)]
struct Stage {
    spool: Option<Arc<Spool>>,
    stored: Option<Result<()>>,
}

impl Flight {
    /// The spool, as soon as there is one.
    pub(super) async fn spool(&self) -> Result<Arc<Spool>> {
        let mut stage = self.stage.subscribe();
        let reached = stage.wait_for(|stage| stage.spool.is_some() || stage.stored.is_some()).await;
        let reached = reached.map_err(|_| fault::closing())?;
        match (&reached.spool, &reached.stored) {
            (Some(spool), _) => Ok(Arc::clone(spool)),
            (None, Some(Err(error))) => Err(error.clone()),
            (None, _) => Err(fault::closing()),
        }
    }

    /// Resolves when the repo has the file.
    pub(super) async fn stored(&self) -> Result<()> {
        let mut stage = self.stage.subscribe();
        let reached = stage.wait_for(|stage| stage.stored.is_some()).await;
        let reached = reached.map_err(|_| fault::closing())?;
        reached.stored.clone().unwrap_or_else(|| Err(fault::closing()))
    }
}

/// All files that are being fetched.
pub(super) struct Fetches {
    flights: Mutex<HashMap<Key, Arc<Flight>>>,
    failed: quick_cache::sync::Cache<Key, (Duration, Error)>,
    /// Files of which wrong bytes may have been handed out.
    wrong: quick_cache::sync::Cache<Key, Duration>,
    slots: Semaphore,
    running: AtomicU64,
    most: usize,
}

/// Takes the entry away, however the task ends, and tells those who wait.
struct Entered {
    mirror: Arc<Mirror>,
    flight: Arc<Flight>,
    key: Key,
    outcome: Result<()>,
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.mirror.fetches.flights().remove(&self.key);
        let outcome = std::mem::replace(&mut self.outcome, Ok(()));
        self.flight.stage.send_modify(|stage| {
            if let (Err(error), Some(spool)) = (&outcome, &stage.spool) {
                spool.fail(error.clone());
            }
            stage.stored = Some(outcome);
        });
    }
}

impl Fetches {
    pub(super) fn new(at_once: usize, waiting: usize) -> Self {
        Self {
            flights: Mutex::default(),
            failed: quick_cache::sync::Cache::new(KEPT_FAILURES),
            wrong: quick_cache::sync::Cache::new(KEPT_FAILURES),
            slots: Semaphore::new(at_once),
            running: AtomicU64::new(0),
            most: at_once + waiting,
        }
    }

    /// Whether somebody may have the beginning of this file with wrong bytes in it.
    pub(super) fn was_wrong(&self, now: Duration, repo: RepoId, sha256: &Sha256) -> bool {
        self.wrong.get(&(repo, *sha256)).is_some_and(|until| until > now)
    }

    /// How many files are being fetched, and how many wait for it.
    pub(super) fn load(&self) -> (u64, u64) {
        let running = self.running.load(Ordering::Relaxed);
        (running, (self.flights().len() as u64).saturating_sub(running))
    }

    /// The flight that brings this file, begun now if there is none.
    pub(super) fn join(
        &self,
        mirror: &Arc<Mirror>,
        hub: &Arc<Hub>,
        repo: &Repo,
        wanted: &Wanted,
    ) -> Result<Arc<Flight>> {
        let key = (repo.id(), wanted.sha256);
        let now = hub.env().monotonic();
        let mut flights = self.flights();
        if let Some(flight) = flights.get(&key) {
            return Ok(Arc::clone(flight));
        }
        if let Some((_, error)) = self.failed.get(&key).filter(|(until, _)| *until > now) {
            return Err(error);
        }
        if flights.len() >= self.most {
            return Err(fault::crowded());
        }
        let (stage, _) = watch::channel(Stage::default());
        let flight = Arc::new(Flight { stage });
        flights.insert(key, Arc::clone(&flight));
        drop(flights);
        let outcome = Err(fault::closing());
        let mut entered =
            Entered { mirror: Arc::clone(mirror), flight: Arc::clone(&flight), key, outcome };
        let (hub, repo, wanted) = (Arc::clone(hub), repo.clone(), wanted.clone());
        let stopping = hub.runner().stopping();
        let runner = hub.runner().clone();
        runner.spawn("mirror a file", async move {
            let mirror = Arc::clone(&entered.mirror);
            entered.outcome = tokio::select! {
                biased;
                () = stopping.cancelled() => Err(fault::closing()),
                ended = mirror.fetch(&hub, &repo, &wanted, &entered.flight) => ended,
            };
            if let Err(error) = &entered.outcome {
                let until = hub.env().monotonic() + FAILED_FOR;
                mirror.fetches.failed.insert(key, (until, error.clone()));
            }
        });
        Ok(flight)
    }

    fn flights(&self) -> MutexGuard<'_, HashMap<Key, Arc<Flight>>> {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts a fetch for as long as it lasts.
struct Running<'a>(&'a AtomicU64);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Mirror {
    async fn fetch(
        &self,
        hub: &Arc<Hub>,
        repo: &Repo,
        wanted: &Wanted,
        flight: &Flight,
    ) -> Result<()> {
        let _slot = self.fetches.slots.acquire().await.map_err(|_| fault::closing())?;
        self.fetches.running.fetch_add(1, Ordering::Relaxed);
        let _running = Running(&self.fetches.running);
        let Wanted { sha256, size, .. } = wanted;
        let spool = Spool::open(hub, &self.settings.folder, repo.id(), sha256, *size).await?;
        flight.stage.send_modify(|stage| stage.spool = Some(Arc::clone(&spool)));
        let store =
            || hub.put_mirrored(repo, *sha256, *size, pieces(hub, &spool, 0..*size, Share::All));
        // What can't be fetched is not waited for in the store.
        let stored = async { Ok(store().await) };
        let stored = match tokio::try_join!(self.fill(hub, repo, wanted, &spool), stored) {
            Ok(((), stored)) => stored,
            Err(error) => {
                Counts::add(&self.counts.failures, 1);
                let (name, path) = (repo.name(), &wanted.path);
                tracing::warn!(repo = %name, path, %error, "a file could not be fetched");
                return Err(error);
            }
        };
        // The store may have been busy while the upstream was not.
        let stored = match stored {
            Err(_) => store().await,
            stored => stored,
        };
        if let Err(error) = stored {
            let (name, path) = (repo.name(), &wanted.path);
            tracing::warn!(repo = %name, path, %error, "a file was fetched and can't be stored");
            return Err(error);
        }
        Counts::add(&self.counts.files, 1);
        if let Err(error) = spool.remove(hub).await {
            tracing::warn!(%error, "a file that has arrived stays on its way as well");
        }
        Ok(())
    }

    /// Fills the spool, and says to those who follow it how that ends.
    async fn fill(
        &self,
        hub: &Arc<Hub>,
        repo: &Repo,
        wanted: &Wanted,
        spool: &Arc<Spool>,
    ) -> Result<()> {
        let filled = self.try_fill(hub, repo, wanted, spool).await;
        match &filled {
            Ok(()) => spool.release(),
            Err(error) => spool.fail(error.clone()),
        }
        filled
    }

    async fn try_fill(
        &self,
        hub: &Arc<Hub>,
        repo: &Repo,
        wanted: &Wanted,
        spool: &Arc<Spool>,
    ) -> Result<()> {
        let mut filler = Filler::resume(hub, spool).await?;
        if filler.at() < wanted.size {
            let mut incoming = self.incoming(hub, repo, wanted, filler.at()).await?;
            let mut pieces = Vec::with_capacity(PIECES_AHEAD);
            while incoming.recv_many(&mut pieces, PIECES_AHEAD).await > 0 {
                // What came before a failure is kept: the next fetch goes on behind it.
                let whole: Vec<Bytes> =
                    pieces.iter().map_while(|piece| piece.as_ref().ok().cloned()).collect();
                let failed = pieces.drain(..).find_map(std::result::Result::err);
                let length: u64 = whole.iter().map(|piece| piece.len() as u64).sum();
                Counts::add(&self.counts.upstream_bytes, length);
                filler = filler.write(hub, whole).await?;
                if let Some(fault) = failed {
                    return Err(fault::of_file(fault));
                }
            }
        }
        let (length, actual) = (filler.at(), filler.finish());
        if length == wanted.size && actual == wanted.sha256 {
            return Ok(());
        }
        // Nothing of it is worth keeping: it may be wrong from its first byte on.
        let until = hub.env().monotonic() + WRONG_FOR;
        self.fetches.wrong.insert((repo.id(), wanted.sha256), until);
        self.patient.distrust(&entry_of(wanted)?);
        spool.remove(hub).await?;
        let (path, said) = (&wanted.path, wanted.sha256);
        Err(fault::again(format!(
            "the upstream cannot be believed: `{path}` has SHA-256 `{actual}` and {length} bytes, \
             not `{said}`"
        )))
    }

    /// The upstream's bytes from an offset on, read ahead a little.
    async fn incoming(
        &self,
        hub: &Arc<Hub>,
        repo: &Repo,
        wanted: &Wanted,
        from: u64,
    ) -> Result<mpsc::Receiver<Incoming>> {
        let there = upstream::Repo { kind: repo.kind(), name: repo.name().clone() };
        let opened =
            self.patient.fetch(hub.pool(), &there, wanted.commit, &entry_of(wanted)?, from).await;
        let mut download = opened.map_err(fault::of_file)?;
        let (send, receive) = mpsc::channel(PIECES_AHEAD);
        hub.runner().spawn("read from an upstream", async move {
            while let Some(piece) = download.chunk().await.transpose() {
                let is_last = piece.is_err();
                if send.send(piece).await.is_err() || is_last {
                    return;
                }
            }
        });
        Ok(receive)
    }
}

/// A file, as the upstream's own listing would have it.
fn entry_of(wanted: &Wanted) -> Result<Entry> {
    let Wanted { path, id, sha256, size, pointer_size, .. } = wanted.clone();
    let (path, large) = (FilePath::parse(&path)?, Some(Large { sha256, pointer_size }));
    Ok(Entry { path, kind: EntryKind::File, oid: id, size, large, xet_hash: None })
}
