//! Files that are being fetched: each once, whoever asks for it.

use std::collections::HashMap;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use ballast_format::hash::Sha256;
use ballast_format::name::FilePath;
use ballast_node::access::Repo;
use ballast_node::error::{Error, Result};
use ballast_node::hub::Hub;
use ballast_node::origin::Wanted;
use tokio::sync::watch;

use super::hub_side::{Answer, Described};
use super::{FETCHES, NodeOrigin, WAITING};
use crate::mirror::upstream::{self, Entry, EntryKind, Large};
use crate::swarm::cache::{Begun, OpenFile};
use crate::swarm::exchange::fetch;
use crate::swarm::ledger::Place;

/// How long a file that could not be fetched is not asked for again.
const FAILED_FOR: Duration = Duration::from_secs(5);
/// How often fetching is tried again without anything having come.
const TRIES: u32 = 4;
const TRY_AGAIN: Duration = Duration::from_secs(2);
/// How often the hub is asked whether it has fetched a file from its own upstream, and how many
/// times: it may take hours.
const ASK_AGAIN: Duration = Duration::from_secs(2);
const ASKED: u32 = 10_000;

/// A file that is being fetched.
pub(super) struct Flight {
    stage: watch::Sender<FlightStage>,
}

#[derive(Default)]
struct FlightStage {
    file: Option<Arc<OpenFile>>,
    ended: Option<Result<()>>,
}

impl Flight {
    /// The file, as soon as it is known what it is made of.
    pub(super) async fn file(&self) -> Result<Arc<OpenFile>> {
        let mut stage = self.stage.subscribe();
        let reached = stage.wait_for(|stage| stage.file.is_some() || stage.ended.is_some()).await;
        let reached = reached.map_err(|_| closing())?;
        match (&reached.file, &reached.ended) {
            (_, Some(Err(error))) => Err(error.clone()),
            (Some(file), _) => Ok(Arc::clone(file)),
            (None, _) => Err(closing()),
        }
    }

    /// Resolves when all of it is here.
    pub(super) async fn ended(&self) -> Result<()> {
        let mut stage = self.stage.subscribe();
        let reached = stage.wait_for(|stage| stage.ended.is_some()).await;
        let reached = reached.map_err(|_| closing())?;
        reached.ended.clone().unwrap_or_else(|| Err(closing()))
    }
}

/// Takes the entry away, however the task ends, and tells those who wait.
struct Entered {
    origin: Arc<NodeOrigin>,
    flight: Arc<Flight>,
    sha256: Sha256,
    outcome: Result<()>,
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.origin.flights().remove(&self.sha256);
        let outcome = std::mem::replace(&mut self.outcome, Ok(()));
        self.flight.stage.send_modify(|stage| stage.ended = Some(outcome));
    }
}

impl NodeOrigin {
    pub(super) fn flights(&self) -> MutexGuard<'_, HashMap<Sha256, Arc<Flight>>> {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn running(&self) -> u64 {
        (FETCHES - self.slots.available_permits()) as u64
    }

    /// The flight that brings this file, begun now if there is none.
    pub(super) fn join(&self, hub: &Arc<Hub>, repo: &Repo, wanted: &Wanted) -> Result<Arc<Flight>> {
        let (sha256, now) = (wanted.sha256, hub.env().monotonic());
        let mut flights = self.flights();
        if let Some(flight) = flights.get(&sha256) {
            return Ok(Arc::clone(flight));
        }
        if let Some((_, error)) = self.failed.get(&sha256).filter(|(until, _)| *until > now) {
            return Err(error);
        }
        if flights.len() >= FETCHES + WAITING {
            let reason = "too many files are being fetched at once".to_owned();
            return Err(Error::Busy { reason });
        }
        let origin = self.this.upgrade().ok_or_else(closing)?;
        let flight = Arc::new(Flight { stage: watch::Sender::default() });
        flights.insert(sha256, Arc::clone(&flight));
        drop(flights);
        let outcome = Err(closing());
        let mut entered = Entered { origin, flight: Arc::clone(&flight), sha256, outcome };
        let (hub, repo, wanted) = (Arc::clone(hub), repo.clone(), wanted.clone());
        let (runner, stopping) = (hub.runner().clone(), hub.runner().stopping());
        runner.spawn("fetch a file", async move {
            let origin = Arc::clone(&entered.origin);
            entered.outcome = tokio::select! {
                biased;
                () = stopping.cancelled() => Err(closing()),
                ended = origin.bring(&hub, &repo, &wanted, &entered.flight) => ended,
            };
            if let Err(error) = &entered.outcome {
                let (name, path) = (repo.name(), &wanted.path);
                tracing::warn!(repo = %name, path, %error, "a file could not be fetched");
                let until = hub.env().monotonic() + FAILED_FOR;
                origin.failed.insert(sha256, (until, error.clone()));
            }
        });
        Ok(flight)
    }

    /// Fetches a file, and tries again as long as something comes.
    async fn bring(
        &self,
        hub: &Arc<Hub>,
        repo: &Repo,
        wanted: &Wanted,
        flight: &Flight,
    ) -> Result<()> {
        let _slot = self.slots.acquire().await.map_err(|_| closing())?;
        let (mut tries, mut before) = (0, 0);
        loop {
            let error = match self.try_bring(hub, repo, wanted, flight).await {
                Err(error @ (Error::Upstream { .. } | Error::Busy { .. })) => error,
                ended => return ended,
            };
            let file = flight.stage.borrow().file.clone();
            let here = file.map_or(0, |file| file.sound_bytes());
            tries = if here > before { 0 } else { tries + 1 };
            before = here;
            if tries >= TRIES {
                return Err(error);
            }
            tracing::info!(path = wanted.path, %error, "fetching is tried again");
            hub.env().sleep(TRY_AGAIN).await;
        }
    }

    async fn try_bring(
        &self,
        hub: &Arc<Hub>,
        repo: &Repo,
        wanted: &Wanted,
        flight: &Flight,
    ) -> Result<()> {
        let described = match self.describe(hub, repo, wanted).await {
            // What the hub said before is good for a day: the rest may come from peers.
            Err(error @ Error::Upstream { .. }) => self.recall(wanted).await?.ok_or(error)?,
            described => described?,
        };
        let filling = match self.cache.begin(described.about.clone()).await? {
            Begun::Filling(filling) => filling,
            Begun::Whole(file) => {
                flight.stage.send_modify(|stage| stage.file = Some(file));
                return Ok(());
            }
        };
        let file = Arc::clone(filling.file());
        flight.stage.send_modify(|stage| stage.file = Some(file));
        filling.keep_pass(described.kept_pass()).await;
        let before = filling.believe().await?;
        let shared = filling.take_local().await?;
        self.means.ledger.came(Place::Disk, before + shared, before + shared);
        let seat = self.hub_side.sit(&described);
        fetch(&self.means, filling, described.terms, seat).await.map(|_| ())
    }

    /// What the hub said of a file when it was begun, if that was kept and is good still.
    async fn recall(&self, wanted: &Wanted) -> Result<Option<Described>> {
        let kept = self.cache.recall(&wanted.sha256).await?;
        let kept = kept.filter(|(about, _)| about.head.size == wanted.size);
        Ok(kept.map(|(about, pass)| {
            tracing::info!(path = wanted.path, "the hub is away: the rest is asked of peers");
            Described::recalled(about, pass)
        }))
    }

    /// What a file is made of. If the hub has to fetch it from its own upstream, that is waited
    /// for.
    pub(super) async fn describe(
        &self,
        hub: &Arc<Hub>,
        repo: &Repo,
        wanted: &Wanted,
    ) -> Result<Described> {
        for _ in 0..ASKED {
            match self.hub_side.describe(repo, wanted).await? {
                Answer::Here(described) => {
                    let head = &described.about.head;
                    if head.sha256 != wanted.sha256 || head.size != wanted.size {
                        let path = &wanted.path;
                        let reason = format!("the hub says of `{path}` what is of another file");
                        return Err(Error::corrupt(reason));
                    }
                    return Ok(*described);
                }
                Answer::Elsewhere => self.make_the_hub_fetch(hub, repo, wanted).await,
            }
            hub.env().sleep(ASK_AGAIN).await;
        }
        let reason = format!("the hub does not get `{}` from its upstream", wanted.path);
        Err(Error::Upstream { reason, retry_seconds: 60 })
    }

    /// Asks the hub for the last byte of a file, as a client: it comes when the hub has all of it.
    async fn make_the_hub_fetch(&self, hub: &Arc<Hub>, repo: &Repo, wanted: &Wanted) {
        let there = upstream::Repo { kind: repo.kind(), name: repo.name().clone() };
        let Wanted { commit, path, id, pointer_size, sha256, size } = wanted.clone();
        let Ok(path) = FilePath::parse(&path) else { return };
        let large = Some(Large { sha256, pointer_size });
        let entry = Entry { path, kind: EntryKind::File, oid: id, size, large, xet_hash: None };
        let last = async {
            let upstream = self.mirror.upstream();
            let mut came = upstream.fetch(hub.pool(), &there, commit, &entry, size - 1).await?;
            came.chunk().await
        };
        if let Err(error) = last.await {
            tracing::debug!(%error, "the hub is still fetching a file");
        }
    }
}

fn closing() -> Error {
    let reason = "the node is being stopped".to_owned();
    Error::Upstream { reason, retry_seconds: super::SOON_SECONDS }
}
