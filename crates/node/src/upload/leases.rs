//! What a user sent, registered and was told through other processes on the same store.
//!
//! A client may send its xorbs through one server, its shard through another and commit through a
//! third. What each took is in the store, with a pin of the user's; whoever does not know of it
//! reads the pins first. So does one whose index is not whole yet. What a client was told may rest
//! on a repo to which another process wrote and whose log this one has not read since; before
//! anybody is told that what they name is unknown, the logs of the repos that they may read are
//! read.

use std::collections::BTreeMap;

use ballast_format::ErrorKind;
use ballast_format::hash::Sha256;
use ballast_format::id::{RepoId, UserId};
use ballast_format::pack::FileLink;
use ballast_store::index::{Batch, Table, schema};
use ballast_store::keyspace::{CopyKind, Leased};
use ballast_store::pin::pins_of;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::rows;
use crate::access::{Caller, Repo};
use crate::error::Result;
use crate::hub::{Freshness, Hub};
use crate::state::catalogue::CatalogueState;

/// Rows that are put at once.
const ROWS: usize = 1000;
/// Repos whose logs are read before something is said to be unknown, and how many at the same time.
const LEARNT_REPOS: usize = 1000;
const LEARNT_AT_ONCE: usize = 16;

impl Hub {
    /// Learns what others did to this repo, and what they took from this caller: for who was about
    /// to say that something is not there.
    pub async fn catch_up(&self, caller: &Caller, repo: &Repo) -> Result<()> {
        self.newest_state(repo.id()).await?;
        match caller.user_id() {
            Some(user) => self.learn_leases(user).await,
            None => Ok(()),
        }
    }

    /// [`Hub::find_upload`], and once more after catching up if it finds nothing: the file may have
    /// come through another process.
    pub async fn find_upload_anywhere(
        &self,
        caller: &Caller,
        repo: &Repo,
        sha256: &Sha256,
    ) -> Result<Option<FileLink>> {
        let found = self.find_upload(caller, repo, sha256).await?;
        if found.is_some() {
            return Ok(found);
        }
        self.catch_up(caller, repo).await?;
        self.find_upload(caller, repo, sha256).await
    }

    /// Learns what a user may build on, where other processes may have taken some of it.
    pub(super) async fn learn_leases(&self, user: UserId) -> Result<()> {
        if self.settings().freshness == Freshness::Exclusive && self.index().is_whole() {
            return Ok(());
        }
        let now = self.env().now_ms();
        let mut longest: BTreeMap<Leased, u64> = BTreeMap::new();
        let mut pins = pins_of(self.store(), user);
        while let Some(pin) = pins.try_next().await? {
            if pin.until_ms > now {
                let until = longest.entry(pin.leased).or_default();
                *until = pin.until_ms.max(*until);
            }
        }
        let mut batch = Batch::new();
        for (leased, until_ms) in longest {
            rows::of_lease(&mut batch, user, leased, until_ms);
            if batch.len() >= ROWS {
                self.index().apply(std::mem::take(&mut batch)).await?;
            }
            if let Leased::Registered(shard) = leased {
                let prefix = schema::copies_prefix(CopyKind::Shard, shard.as_bytes());
                if self.index().scan(Table::Copy, &prefix, None, 1).await?.is_empty() {
                    self.learn_shard(&shard).await?;
                }
            }
        }
        Ok(self.index().apply(batch).await?)
    }

    /// Learns what other processes wrote to repos that the caller may read, this one first; whether
    /// more is known than when so many entries had been learnt.
    pub(super) async fn learn_repos(
        &self,
        caller: &Caller,
        first: RepoId,
        before: u64,
    ) -> Result<bool> {
        if self.settings().freshness == Freshness::Exclusive && self.index().is_whole() {
            return Ok(false);
        }
        let others = self.catalogue.read(CatalogueState::repo_ids);
        let others = others.into_iter().filter(|id| *id != first && self.readable(caller, *id));
        let repos: Vec<RepoId> = std::iter::once(first).chain(others).take(LEARNT_REPOS).collect();
        let mut read = stream::iter(repos)
            .map(|id| async move { (id, self.newest_state(id).await) })
            .buffer_unordered(LEARNT_AT_ONCE);
        while let Some((repo, state)) = read.next().await {
            match state {
                Ok(_) => {}
                // Who may be right is not told that they are wrong.
                Err(error) if error.kind() == ErrorKind::Unavailable => return Err(error),
                // What it holds stays unknown; the others matter as much.
                Err(error) => {
                    tracing::warn!(%repo, %error, "what others wrote to a repo is not known");
                }
            }
        }
        Ok(self.repos.learnt() != before)
    }
}
