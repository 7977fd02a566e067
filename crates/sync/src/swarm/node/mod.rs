//! A node is a hub whose large files come from its swarm.
//!
//! Repos, revisions and small files come from the node's hub as from any upstream
//! (`mirror::pull`). Where a large file is asked for, it is fetched into the cache, once whoever
//! asks for it, and handed out while it comes; fetching goes on when everybody has left, and from
//! where it was after a restart. A file that is larger than the whole cache passes through.

mod attend;
mod describe;
mod flight;
mod hub_side;
mod start;
mod ways;

use std::ops::Range;
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use ballast_format::hash::Sha256;
use ballast_format::id::RepoId;
use ballast_format::name::{RepoKind, RepoName};
use ballast_node::access::Repo;
use ballast_node::download::ByteStream;
use ballast_node::error::{Error, Result};
use ballast_node::hub::Hub;
use ballast_node::origin::{Figure, Origin, Wanted};
use futures_util::{StreamExt as _, future, stream};

pub use self::attend::GrpcHub;
use self::flight::Flight;
pub use self::hub_side::{Answer, Described, HubSide};
pub use self::start::{NodeCache, NodeSettings};
use super::cache::{Cache, OpenFile};
use super::exchange::{Means, passing};
use crate::flights::Flights;
use crate::mirror::pull::Mirror;
use crate::mirror::rules;

/// How long a client waits until there is something to hand out, before it is told to come again.
const PATIENCE: Duration = Duration::from_secs(8);
/// When to ask for what is being begun, in seconds.
const SOON_SECONDS: u64 = 2;
/// Files that are fetched at once, and that may wait for that.
const FETCHES: usize = 8;
const WAITING: usize = 1024;

/// The origin of a node's hub.
pub struct NodeOrigin {
    mirror: Arc<Mirror>,
    cache: Arc<Cache>,
    means: Means,
    hub_side: Arc<dyn HubSide>,
    flights: Arc<Flights<Sha256, Arc<OpenFile>>>,
    this: Weak<Self>,
}

impl NodeOrigin {
    /// A node that keeps files in `cache`; `mirror` has the node's hub as its upstream.
    pub fn new(
        mirror: Arc<Mirror>,
        cache: Arc<Cache>,
        means: Means,
        hub_side: Arc<dyn HubSide>,
    ) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            mirror,
            cache,
            means,
            hub_side,
            // Whoever follows a file sees that no more of it comes.
            flights: Flights::new(FETCHES, WAITING, |_, _| {}),
            this: Weak::clone(this),
        })
    }

    /// The node's cache.
    pub fn cache(&self) -> &Arc<Cache> {
        &self.cache
    }

    /// Sees to it that all of a file is in the cache; `told` hears how many bytes of it are.
    pub async fn bring_file(
        &self,
        hub: &Arc<Hub>,
        repo: &Repo,
        wanted: &Wanted,
        told: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<()> {
        if self.cache.is_whole(&wanted.sha256) {
            return Ok(());
        }
        let flight = self.flight(hub, repo, wanted)?;
        let mut ended = std::pin::pin!(flight.ended());
        let file = tokio::select! {
            biased;
            ended = &mut ended => return ended,
            file = flight.begun() => file?,
        };
        let mut stage = file.watch();
        loop {
            tokio::select! {
                biased;
                ended = &mut ended => return ended,
                Ok(()) = stage.changed() => told(file.sound_bytes()),
            }
        }
    }

    fn flight(&self, hub: &Arc<Hub>, repo: &Repo, wanted: &Wanted) -> Result<Arc<Flight>> {
        rules::may_fetch(hub, repo, wanted)?;
        self.join(hub, repo, wanted)
    }

    /// These bytes of a file that is here, or comes. Its first ones are waited for, so that a
    /// failure before them can still be told.
    async fn read(&self, hub: &Hub, file: &Arc<OpenFile>, range: Range<u64>) -> Result<ByteStream> {
        let mut pieces = self.cache.stream(file, range);
        let first = tokio::select! {
            biased;
            first = pieces.next() => first,
            // What is far ahead is on its way.
            () = hub.env().sleep(PATIENCE) => return Ok(pieces),
        };
        match first.transpose()? {
            None => Ok(pieces),
            Some(first) => Ok(Box::pin(stream::once(future::ready(Ok(first))).chain(pieces))),
        }
    }
}

#[async_trait]
impl Origin for NodeOrigin {
    async fn bring_repo(&self, hub: &Arc<Hub>, kind: RepoKind, name: &RepoName) -> Result<()> {
        self.mirror.bring_repo(hub, kind, name).await
    }

    async fn bring_revision(
        &self,
        hub: &Arc<Hub>,
        repo: &Repo,
        revision: &str,
        is_here: bool,
    ) -> Result<()> {
        self.mirror.bring_revision(hub, repo, revision, is_here).await
    }

    async fn open(
        &self,
        hub: &Arc<Hub>,
        repo: &Repo,
        wanted: &Wanted,
        range: Range<u64>,
    ) -> Result<ByteStream> {
        if self.cache.is_whole(&wanted.sha256)
            && let Some(file) = self.cache.file(&wanted.sha256).await?
        {
            match self.read(hub, &file, range.clone()).await {
                // Its disk has damaged it: it is fetched again.
                Err(_) if !self.cache.is_whole(&wanted.sha256) => {}
                read => return read,
            }
        }
        if wanted.size > self.cache.fill().cap_bytes {
            rules::may_fetch(hub, repo, wanted)?;
            let described = self.describe(hub, repo, wanted).await?;
            let Described { about, terms, .. } = described;
            return Ok(passing(&self.means, Arc::new(about), terms.pass, range));
        }
        let flight = self.flight(hub, repo, wanted)?;
        let file = tokio::select! {
            biased;
            file = flight.begun() => file?,
            () = hub.env().sleep(PATIENCE) => {
                let reason = "this file is being fetched; ask again".to_owned();
                return Err(Error::Upstream { reason, retry_seconds: SOON_SECONDS });
            }
        };
        self.read(hub, &file, range).await
    }

    fn stale_since(&self, repo: RepoId) -> Option<u64> {
        self.mirror.stale_since(repo)
    }

    // What is handed out was verified chunk by chunk.
    fn was_wrong(&self, _: &Hub, _: RepoId, _: &Sha256) -> bool {
        false
    }

    fn figures(&self) -> Vec<Figure> {
        let fill = self.cache.fill();
        let mut figures = self.mirror.figures();
        figures.extend(self.means.ledger.figures());
        figures.extend([
            Figure::gauge("swarm_cache_files", fill.files),
            Figure::gauge("swarm_cache_bytes", fill.bytes),
            Figure::gauge("swarm_cache_cap_bytes", fill.cap_bytes),
            Figure::gauge("swarm_fetches_running", self.flights.load().0),
            Figure::counter("swarm_evicted_files_total", fill.evicted),
        ]);
        figures
    }
}

#[cfg(test)]
mod tests;
