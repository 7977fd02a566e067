//! Bringing what is missing of one repo: entries, behind all that they name.
//!
//! Every step may be the last before a crash, and is harmless when it is done again.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use ballast_format::hash::PackHash;
use ballast_format::id::RepoId;
use ballast_format::log::{Head, Replication};
use ballast_format::name::RegionName;
use ballast_format::pack::FileLink;
use ballast_format::xorb::XorbFooter;
use ballast_node::hub::Hub;
use ballast_node::region::{Arrival, Offered, Pieces};
use ballast_node::state::repo::NewPack;
use ballast_node::{Error, Result};
use ballast_store::reflog::Tail;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, StreamExt as _, TryStreamExt as _, stream};

use super::chunks::Chunks;
use super::files::{Held, bytes_in};
use super::follower::{FileName, Follower};
use super::home::{HomeLog, MOST_XORBS};
use super::plan::{Planned, PlannedPack, last_links, read};
use super::status::Board;
use super::window_is_open;

/// Large files of one entry that come at the same time.
const FILES: usize = 4;
/// Xorbs of one file that come at the same time.
const XORBS: usize = 4;
/// Entries that are read ahead to find out what took a file's place.
const MOST_AHEAD: usize = 100_000;

/// A repo while it is followed.
pub(super) struct Pull<'a> {
    pub(super) follower: &'a Follower,
    pub(super) chunks: Arc<Chunks>,
    pub(super) rules: &'a Replication,
    pub(super) repo: RepoId,
    pub(super) offered: &'a Offered,
}

/// A file's manifest is not at the home any more: another took its place.
struct Gone;

impl Pull<'_> {
    fn hub(&self) -> &Arc<Hub> {
        self.follower.hub()
    }

    fn home(&self) -> &dyn HomeLog {
        self.follower.home()
    }

    fn board(&self) -> &Board {
        self.follower.board()
    }

    /// Brings entries until all that the home had are here.
    pub(super) async fn run(&self, by: &RegionName) -> Result<bool> {
        let mut has_moved = false;
        loop {
            let tail = self.hub().tail_of(self.repo).await?;
            let now_ms = self.hub().env().now_ms();
            self.board().change_repo(self.repo, |repo| {
                // A look may have heard of more meanwhile.
                repo.stand(by, (self.offered.tail.number.max(repo.tail), tail.number), now_ms);
            });
            if self.offered.tail.number <= tail.number {
                self.take_home(tail).await?;
                return Ok(has_moved);
            }
            let mut page = read(self.home(), self.repo, tail, usize::MAX).await?;
            let Some(first) = page.first() else { return Ok(has_moved) };
            let (since, missing) =
                (first.entry.time_ms, page.iter().map(|planned| self.waits(planned)).sum());
            self.board().change_repo(self.repo, |repo| {
                (repo.behind_since_ms, repo.missing) = (Some(since), missing);
            });
            self.may_go()?;
            while let Err(Gone) = self.bring(&page).await? {
                self.read_ahead(&mut page).await?;
            }
            has_moved = true;
        }
    }

    /// All that the home had is here. If it ended its term for this region, this one begins the
    /// next.
    async fn take_home(&self, tail: Tail) -> Result<()> {
        let known = Head { number: tail.number, hash: tail.hash };
        let region = self.hub().settings().region.as_ref();
        match region {
            Some(here) if !self.offered.is_home && self.offered.tail == known => {
                self.hub().take_home(self.repo, &here.region, known).await
            }
            _ => Ok(()),
        }
    }

    /// Whether anything may be moved now.
    fn may_go(&self) -> Result<()> {
        let reason = if self.rules.is_paused {
            "the replication is paused"
        } else if !window_is_open(self.rules.window, self.hub().env().now_ms()) {
            "the replication waits for its window"
        } else {
            return Ok(());
        };
        Err(Error::Busy { reason: reason.to_owned() })
    }

    /// Reads more entries: in one of them is what took the place of something that is gone.
    async fn read_ahead(&self, page: &mut Vec<Planned>) -> Result<()> {
        let tail = page.last().map(|last| last.tail).unwrap_or_default();
        let more = read(self.home(), self.repo, tail, usize::MAX).await?;
        if more.is_empty() || page.len() > MOST_AHEAD {
            let name = &self.offered.name;
            let reason = format!("the home of `{name}` does not have all that its log names");
            return Err(Error::Upstream { reason, retry_seconds: super::AGAIN_SECONDS });
        }
        page.extend(more);
        Ok(())
    }

    /// Brings what these entries name, and lets them arrive.
    async fn bring(&self, page: &[Planned]) -> Result<std::result::Result<(), Gone>> {
        let last = last_links(page);
        let waits: Vec<u64> = page.iter().map(|planned| self.waits(planned)).collect();
        let mut packs: Vec<NewPack> = Vec::new();
        // A file of an entry comes by the manifest of a later one: they arrive together.
        let mut hold = 0;
        for (at, planned) in page.iter().enumerate() {
            let waiting = waits[at..].iter().sum();
            self.board().change_repo(self.repo, |repo| repo.missing = waiting);
            let mut links: Vec<FileLink> = Vec::new();
            for link in planned.links() {
                match last.get(&link.sha256) {
                    Some((later, replaced)) if replaced.manifest() != link.manifest() => {
                        hold = hold.max(*later);
                    }
                    _ => links.push(*link),
                }
            }
            let brought: Vec<BoxFuture<'_, Result<std::result::Result<(), Gone>>>> =
                links.iter().map(|link| self.bring_file(link).boxed()).collect();
            let mut brought = stream::iter(brought).buffer_unordered(FILES);
            while let Some(came) = brought.try_next().await? {
                if came.is_err() {
                    return Ok(Err(Gone));
                }
            }
            for pack in &planned.packs {
                let mut taken = bring_pack(self.hub(), self.home(), self.repo, pack).await?;
                let directory = Arc::make_mut(&mut taken.directory);
                directory.links.retain(|link| {
                    link.size == 0 || last.get(&link.sha256).is_some_and(|(_, by)| by == link)
                });
                packs.push(taken);
            }
            let (number, bytes) = (planned.number, planned.bytes.clone());
            self.hub().keep_entry(self.repo, number, bytes).await?;
            if hold <= at {
                self.arrive(planned, std::mem::take(&mut packs)).await?;
                let since = page.get(at + 1).map(|next| next.entry.time_ms);
                self.board().change_repo(self.repo, |repo| repo.behind_since_ms = since);
            }
        }
        Ok(Ok(()))
    }

    /// Bytes of large files that an entry waits for.
    fn waits(&self, planned: &Planned) -> u64 {
        planned.links().map(|link| self.follower.expects(link, self.repo)).sum()
    }

    async fn arrive(&self, planned: &Planned, packs: Vec<NewPack>) -> Result<()> {
        let known = planned.head();
        let (repo, term) = (self.repo, self.offered.term);
        self.hub().arrive(Arrival { repo, term, known, packs }).await?;
        self.board().change_repo(repo, |repo| {
            (repo.known, repo.tail) = (known.number, repo.tail.max(known.number));
        });
        Ok(())
    }

    /// Brings a large file; when this returns, all of it is here and is what the log says.
    async fn bring_file(&self, link: &FileLink) -> Result<std::result::Result<(), Gone>> {
        let (id, follower) = (link.manifest(), self.follower);
        let Some(manifest) = follower.manifest(self.repo, link).await? else {
            return Ok(Err(Gone));
        };
        let lacking = follower.lacking(&manifest.terms).await?;
        let held = match lacking.is_empty() {
            true => Held::new(),
            false => follower.held(self.repo, (link, &manifest), &lacking).await?,
        };
        // So far all of it counted as missing, or as much as the last try has left.
        let (file, thought) = ((self.repo, link.sha256), follower.expects(link, self.repo));
        follower.misses(file, bytes_in(&manifest.terms, &lacking).min(thought), thought);
        for xorbs in lacking.chunks(MOST_XORBS) {
            let Some(footers) = follower.footers(self.repo, &id, xorbs).await? else {
                return Ok(Err(Gone));
            };
            let lacks = footers.iter().map(|footer| self.chunks.lacks(footer, &held));
            let lacks: Vec<u64> = lacks.collect();
            let thought = bytes_in(&manifest.terms, xorbs).min(follower.expects(link, self.repo));
            follower.misses(file, lacks.iter().sum(), thought);
            self.bring_xorbs(file, (&footers, &lacks), &held).await?;
        }
        let saved = link.size.saturating_sub(follower.has_come(file));
        self.chunks.counts.saved.fetch_add(saved, Ordering::Relaxed);
        self.board().change_repo(self.repo, |repo| repo.saved += saved);
        // Invariant 12: what the chunks make is what the log says.
        self.hub().prove_link(link).await?;
        Ok(Ok(()))
    }

    async fn bring_xorbs(
        &self,
        file: FileName,
        (footers, lacks): (&[Arc<XorbFooter>], &[u64]),
        held: &Held,
    ) -> Result<()> {
        let bring = |(footer, lacks): (_, &u64)| {
            let lacks = *lacks;
            let brought = async move {
                self.may_go()?;
                let left = AtomicU64::new(lacks);
                let told = |bytes: u64| {
                    let missing = bytes.min(left.load(Ordering::Relaxed));
                    left.fetch_sub(missing, Ordering::Relaxed);
                    self.follower.came(file, bytes, missing);
                };
                self.chunks.bring(self.repo, footer, held, &told).await?;
                // What else of it came, came for somebody else.
                self.follower.misses(file, 0, left.load(Ordering::Relaxed));
                Ok(())
            };
            brought.boxed()
        };
        let brought: Vec<BoxFuture<'_, Result<()>>> =
            footers.iter().zip(lacks).map(bring).collect();
        stream::iter(brought).buffer_unordered(XORBS).try_collect::<()>().await
    }
}

/// Brings a pack that is not here.
pub(super) async fn bring_pack(
    hub: &Hub,
    home: &dyn HomeLog,
    repo: RepoId,
    pack: &PlannedPack,
) -> Result<NewPack> {
    let hash = pack.directory.hash;
    if let Some(known) = hub.known_pack(repo, hash).await? {
        return Ok(known);
    }
    let pieces = PackAtHome { home, repo, pack: hash };
    hub.take_pack(hash, (pack.size, pack.tail.clone()), &pieces).await
}

struct PackAtHome<'a> {
    home: &'a dyn HomeLog,
    repo: RepoId,
    pack: PackHash,
}

#[async_trait]
impl Pieces for PackAtHome<'_> {
    async fn read(&self, range: Range<u64>) -> Result<Bytes> {
        self.home.pack_bytes(self.repo, self.pack, range).await
    }
}
