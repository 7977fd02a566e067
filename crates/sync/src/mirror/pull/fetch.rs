//! Large files on their way: each is fetched once, whoever asks for it, and goes on being fetched
//! when everybody has left.
//!
//! The upstream's bytes go into a spool. From there they go to those who wait, and by the way of
//! every upload into the store; the repo has the file when its log links it. What is not the file
//! that it was said to be is neither stored nor handed out to its end.

use std::sync::Arc;
use std::time::Duration;

use ballast_format::hash::Sha256;
use ballast_format::id::RepoId;
use ballast_format::name::FilePath;
use ballast_node::access::Repo;
use ballast_node::error::{Error, Result};
use ballast_node::hub::Hub;
use ballast_node::origin::Wanted;
use ballast_node::upload::Keeping;
use bytes::Bytes;
use tokio::sync::mpsc;

use super::follow::{Share, pieces};
use super::spool::{Filler, Spool};
use super::{Counts, Mirror, fault};
use crate::flights::{self, Flights};
use crate::mirror::upstream::{self, Entry, EntryKind, Here, Large};

/// Pieces of an answer that wait to be written: some MiB.
const PIECES_AHEAD: usize = 64;
/// How long clients may come back with the beginning of a file that was wrong.
const WRONG_FOR: Duration = Duration::from_hours(24);
/// Files of which it is known that they were wrong.
const KEPT_WRONG: usize = 1000;

type Key = (RepoId, Sha256);
/// The next bytes of an upstream's answer, or why there are none.
type Incoming = std::result::Result<Bytes, upstream::Error>;

/// A file that is being fetched.
pub(super) type Flight = flights::Flight<Arc<Spool>>;

impl Flight {
    /// The spool, as soon as there is one.
    pub(super) async fn spool(&self) -> Result<Arc<Spool>> {
        self.begun().await
    }

    /// Whether all of it is on the disk and verified.
    pub(super) fn is_verified(&self) -> bool {
        self.so_far().is_some_and(|spool| spool.is_verified())
    }

    /// Resolves when the repo has the file.
    pub(super) async fn stored(&self) -> Result<()> {
        self.ended().await
    }
}

/// All files that are being fetched.
pub(super) struct Fetches {
    flights: Arc<Flights<Key, Arc<Spool>>>,
    /// Files of which wrong bytes may have been handed out.
    wrong: quick_cache::sync::Cache<Key, Duration>,
}

impl Fetches {
    pub(super) fn new(at_once: usize, waiting: usize) -> Self {
        let give_up = |spool: &Arc<Spool>, error: &Error| spool.fail(error.clone());
        let wrong = quick_cache::sync::Cache::new(KEPT_WRONG);
        Self { flights: Flights::new(at_once, waiting, give_up), wrong }
    }

    /// Whether somebody may have the beginning of this file with wrong bytes in it.
    pub(super) fn was_wrong(&self, now: Duration, repo: RepoId, sha256: &Sha256) -> bool {
        self.wrong.get(&(repo, *sha256)).is_some_and(|until| until > now)
    }

    /// How many files are being fetched, and how many wait for it.
    pub(super) fn load(&self) -> (u64, u64) {
        self.flights.load()
    }

    /// The flight that brings this file, begun now if there is none.
    pub(super) fn join(
        &self,
        mirror: &Arc<Mirror>,
        hub: &Arc<Hub>,
        repo: &Repo,
        wanted: &Wanted,
    ) -> Result<Arc<Flight>> {
        self.flights.join(hub, (repo.id(), wanted.sha256), |flight| {
            let (mirror, hub) = (Arc::clone(mirror), Arc::clone(hub));
            let (repo, wanted) = (repo.clone(), wanted.clone());
            async move {
                let ended = mirror.fetch(&hub, &repo, &wanted, &flight).await;
                let (running, waiting) = mirror.fetches.load();
                if running + waiting <= 1 {
                    mirror.proofs.clear();
                }
                ended
            }
        })
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
        let Wanted { sha256, size, .. } = wanted;
        let path = Spool::path(&self.settings.folder, repo.id(), sha256);
        let _room = self.room.take(hub.pool(), path.clone(), *size).await?;
        let spool = Spool::open(hub, path, *size).await?;
        flight.begin(Arc::clone(&spool));
        let store = || {
            let (what, growing) = ((*sha256, *size), Arc::clone(spool.growing()));
            hub.put_mirrored(repo, what, pieces(hub, &spool, 0..*size, Share::All), growing)
        };
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
        Counts::add(&self.counts.kept_bytes, spool.growing().kept_bytes());
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
            let mut incoming = self.incoming(hub, repo, wanted, (spool, filler.at())).await?;
            let mut pieces = Vec::with_capacity(PIECES_AHEAD);
            while incoming.recv_many(&mut pieces, PIECES_AHEAD).await > 0 {
                // What came before a failure is kept: the next fetch goes on behind it.
                let whole: Vec<Bytes> =
                    pieces.iter().map_while(|piece| piece.as_ref().ok().cloned()).collect();
                let failed = pieces.drain(..).find_map(std::result::Result::err);
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

    /// The upstream's bytes from an offset on, read ahead a little; what is here of them in another
    /// file of the repo is not fetched, and xorbs that the file uses as a whole are kept.
    async fn incoming(
        &self,
        hub: &Arc<Hub>,
        repo: &Repo,
        wanted: &Wanted,
        (spool, from): (&Spool, u64),
    ) -> Result<mpsc::Receiver<Incoming>> {
        let there = upstream::Repo { kind: repo.kind(), name: repo.name().clone() };
        let (at, entry) = ((&there, wanted.commit), entry_of(wanted)?);
        let here = Here::of(hub, repo, wanted.size).await?;
        let opened = self.patient.fetch_beside(hub.pool(), here, at, &entry, from).await;
        let mut download = opened.map_err(fault::of_file)?;
        let (send, receive) = mpsc::channel(PIECES_AHEAD);
        let this = self.this.upgrade().ok_or_else(fault::closing)?;
        let mut keeping = Keeping::new(hub, repo, spool.growing(), from);
        hub.runner().spawn("read from an upstream", async move {
            loop {
                let piece = download.chunk().await.transpose();
                for came in download.take_came() {
                    keeping.take(came).await;
                }
                let Some(piece) = piece else { return };
                let is_last = piece.is_err();
                let length = piece.as_ref().map_or(0, |piece| piece.len() as u64);
                let Counts { upstream_bytes, reused_bytes, .. } = &this.counts;
                let counter = if download.was_here() { reused_bytes } else { upstream_bytes };
                Counts::add(counter, length);
                if send.send(piece).await.is_err() || is_last {
                    return;
                }
            }
        });
        Ok(receive)
    }
}

/// A file, as the upstream's own listing would have it.
pub(super) fn entry_of(wanted: &Wanted) -> Result<Entry> {
    let Wanted { path, id, sha256, size, pointer_size, .. } = wanted.clone();
    let (path, large) = (FilePath::parse(&path)?, Some(Large { sha256, pointer_size }));
    Ok(Entry { path, kind: EntryKind::File, oid: id, size, large, xet_hash: None })
}
