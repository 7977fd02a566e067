//! Files that clients refuse to take as plain bytes, by Xet while they arrive.
//!
//! The upstream says what such a file is called in Xet: its chunks make that name, whoever packs
//! them. A part of it is told as soon as it is in durable xorbs of ours, and the end of it when the
//! SHA-256 of all was right and the repo has the file. Which files of a commit are offered is asked
//! of the upstream again after a restart, and by other processes: nothing is kept.

use std::sync::Arc;
use std::time::Duration;

use ballast_format::ErrorKind;
use ballast_format::hash::{FileHash, ObjectHash, Sha256};
use ballast_format::id::RepoId;
use ballast_format::name::FilePath;
use ballast_format::range::RangeRequest;
use ballast_node::access::Repo;
use ballast_node::download::Reconstruction;
use ballast_node::error::{Error, Result};
use ballast_node::hub::Hub;
use ballast_node::origin::Wanted;

use super::{Counts, Mirror, fault};
use crate::mirror::upstream::{self, Error as Fault};

/// Commits of which it is kept what is offered.
const KEPT: usize = 100;
/// Files of one commit that are offered: what the upstream tells in one answer.
const MOST: usize = 500;
/// Entries of a commit that are looked at at once.
const PAGE: usize = 1000;
/// How long it is believed that the upstream has no name for a file.
const BELIEVED: Duration = Duration::from_mins(1);
/// How long somebody waits for a part. Clients that hear nothing meanwhile give up sooner.
const LONGEST: Duration = Duration::from_hours(1);

/// What is offered of commits.
pub(super) struct Offers(quick_cache::sync::Cache<(RepoId, ObjectHash), Arc<Offered>>);

impl Default for Offers {
    fn default() -> Self {
        Self(quick_cache::sync::Cache::new(KEPT))
    }
}

/// What is offered of a commit.
struct Offered {
    files: Vec<Offer>,
    /// Until when it is believed that there is no more.
    until: Duration,
}

struct Offer {
    file: FileHash,
    sha256: Sha256,
    path: FilePath,
}

impl Mirror {
    /// The name by which Xet clients may ask for a file that is not here.
    pub(super) async fn offer(
        &self,
        hub: &Hub,
        repo: &Repo,
        wanted: &Wanted,
    ) -> Result<Option<FileHash>> {
        if wanted.size < self.settings.offered_from || !self.may_offer(hub, repo, &wanted.sha256) {
            return Ok(None);
        }
        let is_it = |offer: &Offer| offer.sha256 == wanted.sha256;
        let offered = self.offered(hub, repo, wanted.commit, is_it);
        let offered = tokio::select! {
            biased;
            offered = offered => offered?,
            () = hub.env().sleep(self.settings.patience) => {
                return Err(fault::on_its_way("what this file is called"));
            }
        };
        Ok(offered.files.iter().find(|offer| is_it(offer)).map(|offer| offer.file))
    }

    fn may_offer(&self, hub: &Hub, repo: &Repo, sha256: &Sha256) -> bool {
        let was_wrong = self.fetches.was_wrong(hub.env().monotonic(), repo.id(), sha256);
        self.is_source_of(repo) && !was_wrong
    }

    /// How to make a part of a file that is on its way, or will be from now on.
    pub(super) async fn reconstruct_ahead(
        &self,
        hub: &Arc<Hub>,
        repo: &Repo,
        (commit, file): (ObjectHash, FileHash),
        range: Option<&RangeRequest>,
    ) -> Result<Reconstruction> {
        let missing = || Error::NotFound { what: format!("the file `{file}`") };
        if !self.is_source_of(repo) || !hub.has_commit(repo, &commit).await? {
            return Err(missing());
        }
        let is_it = |offer: &Offer| offer.file == file;
        let offered = self.offered(hub, repo, commit, is_it).await?;
        let offer = offered.files.iter().find(|offer| is_it(offer)).ok_or_else(missing)?;
        if !self.may_offer(hub, repo, &offer.sha256) {
            return Err(missing());
        }
        let item = hub.item(repo, commit, &offer.path).await?;
        hub.may_download(repo, commit, &item).await?;
        let wanted = Wanted::of(&item);
        let (Some(wanted), false) = (wanted, hub.has_mirrored(repo, &offer.sha256).await?) else {
            return hub.reconstruct(repo, file, range).await;
        };
        let part = match range {
            None => 0..wanted.size,
            Some(range) => range
                .resolve(wanted.size)
                .map_err(|past| Error::Unsatisfiable { size: past.size })?,
        };
        let flight = self.flight(hub, repo, &wanted)?;
        let so_far = async {
            let spool = flight.spool().await?;
            let found = hub.reconstruct_growing(spool.growing(), part.clone()).await;
            Counts::add(&self.counts.parts_ahead, u64::from(found.is_ok()));
            match found {
                // It is on its way for so long that a collection came by; all is stored anew.
                Err(error) if error.kind() == ErrorKind::Corrupt => {
                    Err(fault::on_its_way("this file"))
                }
                found => found,
            }
        };
        tokio::select! {
            biased;
            // The end is told when all was verified: nobody has all of a wrong file.
            found = so_far, if part.end < wanted.size => found,
            stored = flight.stored() => {
                stored?;
                hub.reconstruct(repo, file, range).await
            }
            () = hub.env().sleep(LONGEST) => Err(fault::on_its_way("this file")),
        }
    }

    /// What is offered of a commit. Where nothing like this is in it, the upstream may be asked
    /// again: it tells the names of files some time after it has them.
    async fn offered(
        &self,
        hub: &Hub,
        repo: &Repo,
        commit: ObjectHash,
        is_it: impl Fn(&Offer) -> bool,
    ) -> Result<Arc<Offered>> {
        let (key, now) = ((repo.id(), commit), hub.env().monotonic());
        let is_old = |known: &Arc<Offered>| known.until <= now && !known.files.iter().any(&is_it);
        self.offers.0.remove_if(&key, is_old);
        self.offers.0.get_or_insert_async(&key, self.ask(hub, repo, commit)).await
    }

    async fn ask(&self, hub: &Hub, repo: &Repo, commit: ObjectHash) -> Result<Arc<Offered>> {
        let (mut cold, mut after) = (Vec::new(), None::<String>);
        loop {
            let page = hub.tree_page(repo, commit, None, true, after.as_deref(), PAGE).await?;
            let large = page.items.iter().filter(|item| item.size >= self.settings.offered_from);
            cold.extend(large.filter_map(Wanted::of));
            after = page.next;
            if after.is_none() || cold.len() >= MOST {
                break;
            }
        }
        cold.truncate(MOST);
        let mut files = Vec::new();
        if !cold.is_empty() {
            let there = upstream::Repo { kind: repo.kind(), name: repo.name().clone() };
            let paths = cold.iter().map(|wanted| FilePath::parse(&wanted.path));
            let paths: Vec<FilePath> = paths.collect::<std::result::Result<_, _>>()?;
            let listed = match self.upstream.paths(&there, commit, &paths).await {
                // It does not tell: then it has no names.
                Err(Fault::NotThere { .. } | Fault::Refused { .. }) => Vec::new(),
                listed => listed.map_err(fault::of_file)?,
            };
            for entry in listed {
                let upstream::Entry { path, size, large, xet_hash, .. } = entry;
                let (Some(large), Some(file)) = (large, xet_hash) else { continue };
                let is_same = |wanted: &Wanted| {
                    (path.as_str(), size, large.sha256)
                        == (&*wanted.path, wanted.size, wanted.sha256)
                };
                if cold.iter().any(is_same) {
                    files.push(Offer { file, sha256: large.sha256, path });
                }
            }
        }
        let is_all = files.len() == cold.len();
        let until = if is_all { Duration::MAX } else { hub.env().monotonic() + BELIEVED };
        Ok(Arc::new(Offered { files, until }))
    }
}
