//! Files that are being fetched: each once, whoever asks for it.

use std::sync::Arc;
use std::time::Duration;

use ballast_format::name::FilePath;
use ballast_node::access::Repo;
use ballast_node::error::{Error, Result};
use ballast_node::hub::Hub;
use ballast_node::origin::Wanted;

use super::NodeOrigin;
use super::hub_side::{Answer, Described};
use crate::flights;
use crate::mirror::upstream::{self, Entry, EntryKind, Large};
use crate::swarm::cache::{Begun, OpenFile};
use crate::swarm::exchange::fetch;
use crate::swarm::ledger::Place;

/// How often fetching is tried again without anything having come.
const TRIES: u32 = 4;
const TRY_AGAIN: Duration = Duration::from_secs(2);
/// How often the hub is asked whether it has fetched a file from its own upstream, and how many
/// times: it may take hours.
const ASK_AGAIN: Duration = Duration::from_secs(2);
const ASKED: u32 = 10_000;

/// A file that is being fetched: what is here of it is known as soon as it is known what it is made
/// of.
pub(super) type Flight = flights::Flight<Arc<OpenFile>>;

impl NodeOrigin {
    /// The flight that brings this file, begun now if there is none.
    pub(super) fn join(&self, hub: &Arc<Hub>, repo: &Repo, wanted: &Wanted) -> Result<Arc<Flight>> {
        let gone = || Error::internal("the node is asked for a file after its end");
        let origin = self.this.upgrade().ok_or_else(gone)?;
        self.flights.join(hub, wanted.sha256, |flight| {
            let (hub, repo, wanted) = (Arc::clone(hub), repo.clone(), wanted.clone());
            async move {
                let brought = origin.bring(&hub, &repo, &wanted, &flight).await;
                if let Err(error) = &brought {
                    let (name, path) = (repo.name(), &wanted.path);
                    tracing::warn!(repo = %name, path, %error, "a file could not be fetched");
                }
                brought
            }
        })
    }

    /// Fetches a file, and tries again as long as something comes.
    async fn bring(
        &self,
        hub: &Arc<Hub>,
        repo: &Repo,
        wanted: &Wanted,
        flight: &Flight,
    ) -> Result<()> {
        let (mut tries, mut before) = (0, 0);
        loop {
            let error = match self.try_bring(hub, repo, wanted, flight).await {
                Err(error @ (Error::Upstream { .. } | Error::Busy { .. })) => error,
                ended => return ended,
            };
            let here = flight.so_far().map_or(0, |file| file.sound_bytes());
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
                flight.begin(file);
                return Ok(());
            }
        };
        flight.begin(Arc::clone(filling.file()));
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
