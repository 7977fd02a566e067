//! Following a home: what it offers is looked at every moment, and what is missing is brought.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ballast_format::hash::Sha256;
use ballast_format::id::RepoId;
use ballast_format::log::{Head, Replication};
use ballast_format::name::RegionName;
use ballast_format::pack::FileLink;
use ballast_node::hub::Hub;
use ballast_node::region::Offered;
use ballast_node::state::homing::Away;
use ballast_node::{Error, Result};
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _, stream};
use tokio_util::sync::CancellationToken;

use super::chunks::{Chunks, Counts, Links};
use super::home::{HomeLog, Offer, Offers};
use super::plan::Step;
use super::pull::Pull;
use super::status::{Board, Status};
use super::turns::Turns;

/// Repos that are followed at the same time.
const REPOS: usize = 4;
/// Files of which it is kept what came for them.
const MOST_COMING: usize = 10_000;
/// Between two looks at a region.
const PAUSE: Duration = Duration::from_secs(2);
/// Before the next look at one that could not be asked.
const FAILED_PAUSE: Duration = Duration::from_secs(5);

/// What came of a look at everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pass {
    /// Repos of which something came.
    pub moved: usize,
    /// Repos that could not be followed.
    pub failed: usize,
}

/// A large file of a repo.
pub(super) type FileName = (RepoId, Sha256);

/// A file that is not whole yet, in bytes: it comes in several tries.
#[derive(Clone, Copy, Debug, Default)]
struct Coming {
    came: u64,
    /// How much is missing, once that is known.
    missing: Option<u64>,
}

/// Follows one other region.
pub struct Follower {
    hub: Arc<Hub>,
    home: Arc<dyn HomeLog>,
    links: Arc<dyn Links>,
    chunks: Mutex<HashMap<RegionName, Arc<Chunks>>>,
    coming: Mutex<HashMap<FileName, Coming>>,
    board: Board,
    /// What was offered last, and when, by the monotonic clock.
    offers: Mutex<Option<(Duration, Arc<Offers>)>>,
    /// Whoever looks.
    looking: tokio::sync::Mutex<()>,
    /// Those who read on in a repo's log, ahead of what has arrived.
    pub(super) reading: Turns<RepoId>,
}

impl Follower {
    /// Follows that region.
    pub fn new(hub: Arc<Hub>, home: Arc<dyn HomeLog>, links: Arc<dyn Links>) -> Self {
        Self {
            hub,
            home,
            links,
            chunks: Mutex::default(),
            coming: Mutex::default(),
            board: Board::default(),
            offers: Mutex::default(),
            looking: tokio::sync::Mutex::default(),
            reading: Turns::default(),
        }
    }

    pub(super) fn hub(&self) -> &Arc<Hub> {
        &self.hub
    }

    pub(super) fn home(&self) -> &dyn HomeLog {
        self.home.as_ref()
    }

    pub(super) fn board(&self) -> &Board {
        &self.board
    }

    fn change_coming(&self, file: FileName, change: impl FnOnce(&mut Coming)) {
        let mut coming = self.coming.lock().unwrap_or_else(PoisonError::into_inner);
        if coming.len() >= MOST_COMING {
            coming.clear();
        }
        change(coming.entry(file).or_default());
    }

    /// Bytes of chunks came for a file, of which so many were known to be missing.
    pub(super) fn came(&self, file: FileName, bytes: u64, missing: u64) {
        let now_ms = self.hub.env().now_ms();
        self.board.change_repo(file.0, |repo| repo.came(bytes, missing, now_ms));
        self.change_coming(file, |coming| {
            coming.came += bytes;
            coming.missing = coming.missing.map(|known| known.saturating_sub(missing));
        });
    }

    /// Of a file so many bytes are missing, and not so many as was thought.
    pub(super) fn misses(&self, file: FileName, known: u64, guessed: u64) {
        self.board.change_repo(file.0, |repo| {
            repo.missing = repo.missing.saturating_sub(guessed) + known;
        });
        self.change_coming(file, |coming| {
            let before = coming.missing.unwrap_or(guessed);
            coming.missing = Some(before.saturating_sub(guessed) + known);
        });
    }

    /// How many bytes of a file are missing, as far as that is known: before it was looked at, all
    /// that it has.
    pub(super) fn expects(&self, link: &FileLink, repo: RepoId) -> u64 {
        let coming = self.coming.lock().unwrap_or_else(PoisonError::into_inner);
        let known = coming.get(&(repo, link.sha256)).and_then(|coming| coming.missing);
        known.unwrap_or(link.size)
    }

    /// All of a file is here: how many bytes came for it.
    pub(super) fn has_come(&self, file: FileName) -> u64 {
        let mut coming = self.coming.lock().unwrap_or_else(PoisonError::into_inner);
        coming.remove(&file).map_or(0, |coming| coming.came)
    }

    /// How far everything is.
    pub fn status(&self) -> Status {
        self.board.read(Status::clone)
    }

    /// Follows until it is told to stop. It goes on looking while much is on its way, so that what
    /// is new of other repos need not wait for that.
    pub async fn run(&self, name: &RegionName, stop: &CancellationToken) {
        let mut queue = Queue::default();
        let mut running: FuturesUnordered<BoxFuture<'_, (RepoId, bool)>> = FuturesUnordered::new();
        let mut look = self.look_after(Duration::ZERO).boxed();
        let (mut was_heard, mut has_moved) = (true, false);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                Some((id, moved)) = running.next(), if !running.is_empty() => {
                    queue.end(id);
                    has_moved |= moved;
                    if queue.is_empty() && std::mem::take(&mut has_moved) {
                        // Who has written lately may be writing on.
                        look = self.look_after(Duration::ZERO).boxed();
                    }
                }
                looked = &mut look => {
                    if let Err(error) = &looked
                        && was_heard
                    {
                        // Once, and again when it was heard of in between.
                        tracing::warn!(region = %name, %error, "another region can't be followed");
                    }
                    was_heard = looked.is_ok();
                    let pause = if was_heard { PAUSE } else { FAILED_PAUSE };
                    look = self.look_after(pause).boxed();
                    if let Ok(offers) = looked {
                        queue.take(offers);
                    }
                }
            }
            while running.len() < REPOS
                && let Some((offers, place)) = queue.next()
            {
                let followed = async move {
                    let offer = &offers.repos[place];
                    let moved = self.follow_offer(&offers, offer).await;
                    (offer.repo.id, moved.unwrap_or(false))
                };
                running.push(followed.boxed());
            }
        }
    }

    async fn look_after(&self, pause: Duration) -> Result<Arc<Offers>> {
        self.hub.env().sleep(pause).await;
        self.look(Duration::ZERO).await
    }

    /// Looks at everything that the region offers, and brings what is missing.
    pub async fn pass(&self) -> Result<Pass> {
        let offers = &self.look(Duration::ZERO).await?;
        let followed: Vec<BoxFuture<'_, Result<bool>>> =
            offers.repos.iter().map(|offer| self.follow_offer(offers, offer).boxed()).collect();
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
        let done = match rules {
            Some(rules) => self.follow(&offers.home, &offer.repo, (&offer.by, rules)).await,
            None => Err(Error::internal("an offer is of no replication")),
        };
        if let Err(error) = &done {
            tracing::debug!(repo = %offer.repo.name, %error, "a repo is not followed on");
        }
        let problem = done.as_ref().err().map(ToString::to_string);
        self.board.note(offer.repo.id, problem);
        done
    }

    /// What the region offers, as it said so long ago at most.
    pub(super) async fn look(&self, no_older: Duration) -> Result<Arc<Offers>> {
        let _one = self.looking.lock().await;
        let now = self.hub.env().monotonic();
        let known = self.offers.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((_, offers)) = known.filter(|(when, _)| now.saturating_sub(*when) < no_older) {
            return Ok(offers);
        }
        // What other processes of this region did meanwhile.
        self.hub.freshen().await?;
        let asked = self.ask().await;
        let offers = asked.inspect_err(|error| {
            self.board.change(|status| status.problem = Some(error.to_string()));
        })?;
        let offers = Arc::new(offers);
        *self.offers.lock().unwrap_or_else(PoisonError::into_inner) =
            Some((now, Arc::clone(&offers)));
        for id in &offers.gone {
            let away = self.hub.record_of(*id).and_then(|record| record.homing.away.clone());
            if away.is_some_and(|away| away.region == offers.home.region) {
                self.hub.follow_deletion(*id).await?;
                self.board.change(|status| drop(status.repos.remove(id)));
            }
        }
        Ok(offers)
    }

    /// What was offered last.
    pub(super) fn offers(&self) -> Option<Arc<Offers>> {
        let offers = self.offers.lock().unwrap_or_else(PoisonError::into_inner);
        offers.as_ref().map(|(_, offers)| Arc::clone(offers))
    }

    /// Asks what is offered, and notes it.
    async fn ask(&self) -> Result<Offers> {
        let now_ms = self.hub.env().now_ms();
        let status = self.status();
        let progress = |id: &RepoId| {
            let repo = status.repos.get(id);
            repo.map(|repo| repo.progress(now_ms)).unwrap_or_default()
        };
        let mine = self.followed_from(status.region.as_ref());
        let told: BTreeMap<_, _> = mine.iter().map(|id| (*id, progress(id))).collect();
        let offers = self.home.offers(&told).await?;
        let heard_ms = self.hub.env().now_ms();
        self.board.change(|status| {
            status.region = Some(offers.home.region.clone());
            status.heard_ms = Some(heard_ms);
            status.problem = None;
            let offered: HashSet<RepoId> = offers.repos.iter().map(|offer| offer.repo.id).collect();
            status.repos.retain(|id, _| offered.contains(id));
            for Offer { repo, by } in &offers.repos {
                if let Some(known) = self.arrived(&offers.home, repo) {
                    let status = status.repos.entry(repo.id).or_default();
                    status.stand(by, (repo.tail.number, known), heard_ms);
                }
            }
        });
        Ok(offers)
    }

    /// The last entry that has arrived of a repo that comes from this home.
    fn arrived(&self, home: &Away, offered: &Offered) -> Option<u64> {
        let Some(record) = self.hub.record_of(offered.id) else { return Some(0) };
        let homing = &record.homing;
        let is_followed = homing.away.as_ref().is_some_and(|away| away.region == home.region);
        (is_followed && homing.term == offered.term).then_some(homing.known.number)
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
        let us = self.hub.settings().region.as_ref().map(|us| &us.region);
        match Step::of(here.as_ref(), (us, &home.region), offered) {
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
        let chunks = self.chunks(by, rules);
        Pull { follower: self, chunks, rules, repo: id, offered }.run(by).await
    }

    /// What brings chunks by a replication.
    pub(super) fn chunks(&self, by: &RegionName, rules: &Replication) -> Arc<Chunks> {
        let mut all = self.chunks.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || Arc::new(Chunks::new(Arc::clone(&self.hub), Arc::clone(&self.links)));
        let chunks = Arc::clone(all.entry(by.clone()).or_insert_with(new));
        chunks.set_limit(rules.limit);
        chunks
    }

    /// By each replication: bytes of chunks that came, and of files whose chunks were here, since
    /// the process began.
    pub(super) fn bytes(&self) -> Vec<(RegionName, u64, u64)> {
        let all = self.chunks.lock().unwrap_or_else(PoisonError::into_inner);
        let mut bytes: Vec<_> = all
            .iter()
            .map(|(by, chunks)| {
                let Counts { fetched, saved } = &chunks.counts;
                (by.clone(), fetched.load(Ordering::Relaxed), saved.load(Ordering::Relaxed))
            })
            .collect();
        bytes.sort();
        bytes
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

/// Repos that wait until somebody follows them: each once, in the order in which they came.
#[derive(Default)]
struct Queue {
    offers: Option<Arc<Offers>>,
    places: HashMap<RepoId, usize>,
    waiting: VecDeque<RepoId>,
    /// Those that wait, and those that are followed now.
    taken: HashSet<RepoId>,
}

impl Queue {
    fn take(&mut self, offers: Arc<Offers>) {
        let ids = offers.repos.iter().map(|offer| offer.repo.id);
        self.places = ids.clone().zip(0..).collect();
        let taken = &mut self.taken;
        self.waiting.extend(ids.filter(|id| taken.insert(*id)));
        self.offers = Some(offers);
    }

    /// The next one, as it was offered last.
    fn next(&mut self) -> Option<(Arc<Offers>, usize)> {
        let offers = self.offers.as_ref()?;
        while let Some(id) = self.waiting.pop_front() {
            if let Some(place) = self.places.get(&id) {
                return Some((Arc::clone(offers), *place));
            }
            self.taken.remove(&id);
        }
        None
    }

    /// It is not followed any more.
    fn end(&mut self, id: RepoId) {
        self.taken.remove(&id);
    }

    fn is_empty(&self) -> bool {
        self.taken.is_empty()
    }
}
