//! Following a home: one look at what it offers, and what is missing of it.
//!
//! Every step may be the last before a crash, and is harmless when it is done again.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use ballast_format::hash::{PackHash, XorbHash};
use ballast_format::id::RepoId;
use ballast_format::log::{Head, Replication};
use ballast_format::manifest::Manifest;
use ballast_format::name::RegionName;
use ballast_format::pack::FileLink;
use ballast_format::xorb::XorbFooter;
use ballast_node::hub::Hub;
use ballast_node::region::{Arrival, Offered, Pieces};
use ballast_node::state::homing::Away;
use ballast_node::state::repo::NewPack;
use ballast_node::{Error, Result};
use ballast_store::reflog::Tail;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, StreamExt as _, TryStreamExt as _, stream};

use super::chunks::{Chunks, Held, Links};
use super::home::{HomeLog, MOST_XORBS, Offer, Offers};
use super::plan::{Planned, Step, last_links, read};
use super::status::{Board, Status};
use super::window_is_open;

/// Repos that are followed at the same time.
const REPOS: usize = 4;
/// Large files of one entry that come at the same time.
const FILES: usize = 4;
/// Xorbs of one file that come at the same time.
const XORBS: usize = 4;
/// Chunks of files that are here, by hash, for one file that comes: some 70 MB.
const MOST_HELD: usize = 1 << 20;
/// Entries that are read ahead to find out what took a file's place.
const MOST_AHEAD: usize = 100_000;

/// What came of a look at everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pass {
    /// Repos of which something came.
    pub moved: usize,
    /// Repos that could not be followed.
    pub failed: usize,
}

/// Follows one other region.
pub struct Follower {
    hub: Arc<Hub>,
    home: Arc<dyn HomeLog>,
    links: Arc<dyn Links>,
    chunks: Mutex<HashMap<RegionName, Arc<Chunks>>>,
    board: Board,
}

/// A repo while it is followed.
struct Pull<'a> {
    follower: &'a Follower,
    chunks: Arc<Chunks>,
    rules: &'a Replication,
    repo: RepoId,
    offered: &'a Offered,
}

/// A file's manifest is not at the home any more: another took its place.
struct Gone;

impl Follower {
    /// Follows that region.
    pub fn new(hub: Arc<Hub>, home: Arc<dyn HomeLog>, links: Arc<dyn Links>) -> Self {
        Self { hub, home, links, chunks: Mutex::default(), board: Board::default() }
    }

    /// How far everything is.
    pub fn status(&self) -> Status {
        self.board.status()
    }

    /// Looks at everything that the region offers, and brings what is missing.
    pub async fn pass(&self) -> Result<Pass> {
        // What other processes of this region did meanwhile.
        self.hub.freshen().await?;
        let offers = match self.look().await {
            Ok(offers) => offers,
            Err(error) => {
                self.board.change(|status| status.problem = Some(error.to_string()));
                return Err(error);
            }
        };
        for id in &offers.gone {
            let away = self.hub.record_of(*id).and_then(|record| record.homing.away.clone());
            if away.is_some_and(|away| away.region == offers.home.region) {
                self.hub.follow_deletion(*id).await?;
                self.board.change(|status| drop(status.repos.remove(id)));
            }
        }
        let followed: Vec<BoxFuture<'_, Result<bool>>> =
            offers.repos.iter().map(|offer| self.follow_offer(&offers, offer).boxed()).collect();
        let mut followed = stream::iter(followed).buffer_unordered(REPOS);
        let mut pass = Pass::default();
        while let Some(done) = followed.next().await {
            match done {
                Ok(has_moved) => pass.moved += usize::from(has_moved),
                Err(_) => pass.failed += 1,
            }
        }
        Ok(pass)
    }

    /// Follows one repo; whether anything of it came.
    async fn follow_offer(&self, offers: &Offers, offer: &Offer) -> Result<bool> {
        let rules = offers.replications.get(&offer.by);
        let rules = rules.ok_or_else(|| Error::internal("an offer is of no replication"));
        let done = match rules {
            Ok(rules) => self.follow(&offers.home, &offer.repo, (&offer.by, rules)).await,
            Err(error) => Err(error),
        };
        if let Err(error) = &done {
            tracing::debug!(repo = %offer.repo.name, %error, "a repo is not followed on");
        }
        let problem = done.as_ref().err().map(ToString::to_string);
        self.board.note(offer.repo.id, problem);
        done
    }

    /// Asks what is offered, and notes it.
    async fn look(&self) -> Result<Offers> {
        let now_ms = self.hub.env().now_ms();
        let progress = |id: &RepoId, status: &Status| {
            let repo = status.repos.get(id);
            repo.map(|repo| repo.progress(now_ms)).unwrap_or_default()
        };
        let status = self.board.status();
        let mine = self.followed_from(status.region.as_ref());
        let told: BTreeMap<_, _> = mine.iter().map(|id| (*id, progress(id, &status))).collect();
        let offers = self.home.offers(&told).await?;
        let heard_ms = self.hub.env().now_ms();
        self.board.change(|status| {
            status.region = Some(offers.home.region.clone());
            status.heard_ms = Some(heard_ms);
            status.problem = None;
            let offered: HashSet<RepoId> = offers.repos.iter().map(|offer| offer.repo.id).collect();
            status.repos.retain(|id, _| offered.contains(id));
        });
        Ok(offers)
    }

    /// The repos that this region follows from that one.
    fn followed_from(&self, region: Option<&RegionName>) -> Vec<RepoId> {
        let records = self.hub.records(|record| {
            let away = record.homing.away.as_ref();
            away.is_some_and(|away| Some(&away.region) == region)
        });
        records.iter().map(|record| record.id).collect()
    }

    /// Follows one repo; whether anything came.
    async fn follow(
        &self,
        home: &Away,
        offered: &Offered,
        (by, rules): (&RegionName, &Replication),
    ) -> Result<bool> {
        let id = offered.id;
        let here = self.hub.record_of(id).map(|record| record.homing.clone());
        match Step::of(here.as_ref(), &home.region, offered) {
            Step::Leave => {
                self.board.change(|status| drop(status.repos.remove(&id)));
                return Ok(false);
            }
            Step::Torn => {
                return Err(Error::Conflict {
                    reason: format!(
                        "both `{}` and this region are the home of `{}` in term {}\n\
                         hint: say which by `ballast region promote` in that one",
                        home.region, offered.name, offered.term
                    ),
                });
            }
            Step::Begin => drop(self.hub.begin_to_follow(offered, home).await?),
            Step::Turn => {
                let common = self.common(offered).await?;
                self.hub.follow_another(id, home, offered.term, common).await?;
            }
            Step::Pull => {}
        }
        if offered.is_home {
            self.hub.follow_settings(offered).await?;
        }
        let chunks = self.chunks(by);
        chunks.set_limit(rules.limit);
        Pull { follower: self, chunks, rules, repo: id, offered }.run(by).await
    }

    fn chunks(&self, by: &RegionName) -> Arc<Chunks> {
        let mut all = self.chunks.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || Arc::new(Chunks::new(Arc::clone(&self.hub), Arc::clone(&self.links)));
        Arc::clone(all.entry(by.clone()).or_insert_with(new))
    }

    /// The last entry that both regions have. Entries prove those before them, so there is one
    /// number up to which all are the same.
    async fn common(&self, offered: &Offered) -> Result<Head> {
        let id = offered.id;
        let mut low = 0;
        let mut high = self.hub.tail_of(id).await?.number.min(offered.tail.number);
        while low < high {
            let middle = high - (high - low) / 2;
            let (here, there) =
                (self.hub.entry_head(id, middle).await?, self.home.entry(id, middle).await?);
            if here.is_some() && here == there {
                low = middle;
            } else {
                high = middle - 1;
            }
        }
        let head = self.hub.entry_head(id, low).await?;
        head.ok_or_else(|| Error::internal("an entry that was there is not"))
    }
}

impl Pull<'_> {
    fn hub(&self) -> &Arc<Hub> {
        &self.follower.hub
    }

    fn home(&self) -> &dyn HomeLog {
        self.follower.home.as_ref()
    }

    fn board(&self) -> &Board {
        &self.follower.board
    }

    /// Brings entries until all that the home had are here.
    async fn run(&self, by: &RegionName) -> Result<bool> {
        let mut has_moved = false;
        loop {
            let tail = self.hub().tail_of(self.repo).await?;
            self.board().change_repo(self.repo, |repo| {
                repo.by = Some(by.clone());
                repo.tail = self.offered.tail.number.max(tail.number);
                repo.known = tail.number;
                if repo.tail == repo.known {
                    (repo.behind_since_ms, repo.missing) = (None, 0);
                }
            });
            if self.offered.tail.number <= tail.number {
                self.take_home(tail).await?;
                return Ok(has_moved);
            }
            let mut page = read(self.home(), self.repo, tail).await?;
            let Some(first) = page.first() else { return Ok(has_moved) };
            let since = first.entry.time_ms;
            self.board().change_repo(self.repo, |repo| repo.behind_since_ms = Some(since));
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
        let more = read(self.home(), self.repo, tail).await?;
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
        let waits = |planned: &Planned| planned.links().map(|link| link.size).sum::<u64>();
        let mut waiting: u64 = page.iter().map(waits).sum();
        let mut packs: Vec<NewPack> = Vec::new();
        // A file of an entry comes by the manifest of a later one: they arrive together.
        let mut hold = 0;
        for (at, planned) in page.iter().enumerate() {
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
                let mut taken = self.bring_pack(pack).await?;
                let directory = Arc::make_mut(&mut taken.directory);
                directory.links.retain(|link| {
                    link.size == 0 || last.get(&link.sha256).is_some_and(|(_, by)| by == link)
                });
                packs.push(taken);
            }
            let (number, bytes) = (planned.number, planned.bytes.clone());
            self.hub().keep_entry(self.repo, number, bytes).await?;
            waiting -= waits(planned);
            if hold <= at {
                self.arrive(planned, std::mem::take(&mut packs)).await?;
            }
        }
        Ok(Ok(()))
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

    async fn bring_pack(&self, pack: &super::plan::PlannedPack) -> Result<NewPack> {
        let hash = pack.directory.hash;
        if let Some(known) = self.hub().known_pack(self.repo, hash).await? {
            return Ok(known);
        }
        let pieces = PackAtHome { home: self.home(), repo: self.repo, pack: hash };
        self.hub().take_pack(hash, (pack.size, pack.tail.clone()), &pieces).await
    }

    /// Brings a large file; when this returns, all of it is here and is what the log says.
    async fn bring_file(&self, link: &FileLink) -> Result<std::result::Result<(), Gone>> {
        let id = link.manifest();
        let known = match self.hub().has_shard(&id.shard).await? {
            true => self.hub().known_manifest(&id).await?,
            false => None,
        };
        let manifest = if let Some(manifest) = known {
            manifest
        } else {
            let Some(body) = self.home().shard(self.repo, &id).await? else {
                return Ok(Err(Gone));
            };
            self.hub().take_shard(self.repo, id.shard, body).await?;
            let manifest = self.hub().known_manifest(&id).await?;
            manifest.ok_or_else(|| {
                Error::invalid(format!("the shard `{}` has no file `{}`", id.shard, id.file))
            })?
        };
        let mut lacking: Vec<XorbHash> = Vec::new();
        let mut seen: HashSet<XorbHash> = HashSet::new();
        for term in &manifest.terms {
            if seen.insert(term.xorb) && !self.hub().has_xorb(&term.xorb).await? {
                lacking.push(term.xorb);
            }
        }
        let held = match lacking.is_empty() {
            true => Held::new(),
            false => self.held(link, &manifest, &lacking).await?,
        };
        // So far all of it counted as missing.
        self.board().change_repo(self.repo, |repo| {
            repo.missing = repo.missing.saturating_sub(link.size);
        });
        let mut missing = 0;
        for xorbs in lacking.chunks(MOST_XORBS) {
            let footers = self.home().footers(self.repo, &id, xorbs).await?;
            let there: Option<Vec<Arc<XorbFooter>>> = footers.into_iter().collect();
            let Some(there) = there.filter(|there| there.len() == xorbs.len()) else {
                return Ok(Err(Gone));
            };
            for (footer, xorb) in there.iter().zip(xorbs) {
                if footer.hash() != *xorb {
                    return Err(Error::invalid(format!("not the xorb `{xorb}` was described")));
                }
                let lacks = self.chunks.lacks(footer, &held);
                missing += lacks;
                self.board().change_repo(self.repo, |repo| repo.missing += lacks);
            }
            self.bring_xorbs(&there, &held).await?;
        }
        let saved = link.size.saturating_sub(missing);
        self.board().change_repo(self.repo, |repo| repo.saved += saved);
        // Invariant 12: what the chunks make is what the log says.
        self.hub().prove_link(link).await?;
        Ok(Ok(()))
    }

    async fn bring_xorbs(&self, footers: &[Arc<XorbFooter>], held: &Held) -> Result<()> {
        let told = |bytes: u64| {
            self.board().change_repo(self.repo, |repo| {
                repo.missing = repo.missing.saturating_sub(bytes);
                repo.fetched += bytes;
            });
        };
        let told = &told;
        let bring = |footer| {
            let brought = async move {
                self.may_go()?;
                self.chunks.bring(self.repo, footer, held, told).await
            };
            brought.boxed()
        };
        let brought: Vec<BoxFuture<'_, Result<()>>> = footers.iter().map(bring).collect();
        stream::iter(brought).buffer_unordered(XORBS).try_collect::<()>().await
    }

    /// Where chunks are that the file may share with what is here.
    async fn held(
        &self,
        link: &FileLink,
        manifest: &Manifest,
        lacking: &[XorbHash],
    ) -> Result<Held> {
        let mut held = Held::new();
        for xorb in self.hub().resembling(self.repo, link, manifest).await? {
            if lacking.contains(&xorb) || !self.hub().has_xorb(&xorb).await? {
                continue;
            }
            let footer = self.hub().carried_footer(&xorb).await?;
            if held.len() + footer.chunk_count() as usize > MOST_HELD {
                break;
            }
            held.extend((0..).zip(footer.chunk_hashes()).map(|(at, hash)| (*hash, (xorb, at))));
        }
        Ok(held)
    }
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
