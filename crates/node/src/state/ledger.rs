//! A log and the state that is folded from it.
//!
//! Appending is a loop: ask the caller's rule what to change, try to append, and where somebody was
//! first read what they wrote and ask again. In one process a mutex for each log keeps writers from
//! losing to each other; between processes the log itself decides (Invariant 3). Readers never
//! wait for writers: entries are folded in by their numbers, whoever reads them first.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use ballast_format::hash::PackHash;
use ballast_format::id::{OperationId, UserId};
use ballast_format::log::{Change, Entry, Head};
use ballast_store::env::random_bytes;
use ballast_store::index::{Batch, Table, schema};
use ballast_store::keyspace::LogId;
use ballast_store::reflog::{Append, Line, Log, Stored, Tail};
use futures_util::{StreamExt as _, TryStreamExt as _};
use tokio::sync::Mutex;

use super::homing::Standing;
use super::sending::{Sending, Sent};
use super::sight::Sight;
use super::turns::Turns;
use crate::broken::{Step, is_left_out};
use crate::error::{Error, Result};
use crate::hub::{Freshness, Hub};
use crate::state::repo::NewPack;
use crate::state::rows;

/// What others do to whom an append loses.
const CHANGE_IT: &str = "are changing the same thing";
/// Index rows that are read or put at once.
const ROWS: usize = 1000;
/// Packs whose directories are read at the same time.
const PACKS_AT_ONCE: usize = 8;

/// What an append brings beside its changes.
#[derive(Default)]
pub(crate) struct New<'a> {
    /// On whose behalf.
    pub(crate) author: Option<UserId>,
    /// Rows for the index, once the entry is there.
    pub(crate) rows: Batch,
    /// What the entry names for the first time.
    pub(crate) packs: &'a [NewPack],
}

impl New<'_> {
    /// Changes that name nothing that is stored.
    pub(crate) fn by(author: Option<UserId>) -> Self {
        Self { author, ..Self::default() }
    }
}

/// What a log is folded into.
pub(crate) trait State: Default + Send + Sync + 'static {
    /// What happens in the log.
    type Change: Change + Clone + Send + Sync + 'static;

    /// Takes an entry in. An entry that makes no sense was written by a faulty program; what it
    /// names and is not there is passed over.
    fn apply(&mut self, entry: &Entry<Self::Change>);

    /// The packs that a change brings: what is in them belongs into the index.
    fn packs(_changes: &[Self::Change]) -> Vec<PackHash> {
        Vec::new()
    }

    /// Whether this region may append to the log (Invariant 9).
    fn standing(&self, _hub: &Hub, _id: LogId) -> Standing {
        Standing::HERE
    }

    /// An entry of the log that is known otherwise: with another one of its number, what is folded
    /// or in the index is of a log that counts no more.
    fn known(_hub: &Hub, _id: LogId) -> Head {
        Head::NOTHING
    }

    /// Takes away what the index knows of a log that counts no more.
    fn forget(hub: &Hub, id: LogId) -> impl Future<Output = Result<()>> + Send {
        let _ = (hub, id);
        std::future::ready(Ok(()))
    }
}

/// What becomes of a log whose packs can't all be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Damage {
    /// The log is not read on: it may be that a pack is only not visible yet.
    Stops,
    /// A person is told, and what the pack held is missing. So that one damaged pack does not
    /// take a whole repo away.
    IsReported,
}

struct Folded<S> {
    state: S,
    tail: Tail,
    /// Where the entries were read.
    lines: Vec<Line>,
    /// Whether an entry was folded that is not the one that is known.
    is_astray: bool,
}

impl<S: State> Default for Folded<S> {
    fn default() -> Self {
        let (state, tail) = (S::default(), Tail::EMPTY);
        Self { state, tail, lines: Vec::new(), is_astray: false }
    }
}

impl<S: State> Folded<S> {
    /// Takes in an entry of this tail, unless it is in already.
    fn take(&mut self, entry: &Entry<S::Change>, tail: Tail, known: Head) {
        if tail.number == self.tail.number + 1 {
            self.state.apply(entry);
            self.tail = tail;
            self.is_astray |= tail.number == known.number && tail.hash != known.hash;
        }
    }
}

/// A log with its state in memory.
pub(crate) struct Ledger<S> {
    id: LogId,
    folded: RwLock<Folded<S>>,
    /// Who appends holds it.
    writing: Mutex<()>,
    /// Who reads what others wrote holds it.
    reading: Mutex<()>,
    sight: Arc<Sight>,
    /// The generation of the index that has the rows of all that is folded.
    indexed_in: AtomicU64,
}

impl<S: State> Ledger<S> {
    pub(crate) fn new(id: LogId) -> Self {
        Self {
            id,
            folded: RwLock::new(Folded::default()),
            writing: Mutex::new(()),
            reading: Mutex::new(()),
            sight: Arc::new(Sight::new()),
            indexed_in: AtomicU64::new(0),
        }
    }

    fn folded(&self) -> RwLockReadGuard<'_, Folded<S>> {
        self.folded.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at the state as it is known now.
    pub(crate) fn read<T>(&self, look: impl FnOnce(&S) -> T) -> T {
        look(&self.folded().state)
    }

    /// How far the log is known.
    pub(crate) fn tail(&self) -> Tail {
        self.folded().tail
    }

    /// Whether the index was replaced, so that its rows are gone.
    fn lost_its_rows(&self, hub: &Hub) -> bool {
        self.indexed_in.load(Ordering::Acquire) != hub.index().generation()
    }

    /// Reads what others wrote, if what is known may be older than the settings allow.
    pub(crate) async fn refresh(&self, hub: &Hub) -> Result<()> {
        let now = hub.env().monotonic();
        let is_stale = self.sight.is_stale(hub.settings().freshness, now);
        if is_stale || self.lost_its_rows(hub) || self.is_behind(hub) {
            self.look(hub, Damage::Stops).await?;
        }
        Ok(())
    }

    /// Whether entries have come from the home, or the log went another way, since somebody looked.
    fn is_behind(&self, hub: &Hub) -> bool {
        let (known, log) = (S::known(hub, self.id), hub.log_of(self.id));
        let folded = self.folded();
        known.number > folded.tail.number || log.course().lines != folded.lines
    }

    /// Reads what others wrote, if others write, however lately somebody looked.
    pub(crate) async fn renew(&self, hub: &Hub) -> Result<()> {
        let others_write = hub.settings().freshness != Freshness::Exclusive;
        let is_behind = others_write || self.is_behind(hub);
        if is_behind || self.sight.is_doubtful() || self.lost_its_rows(hub) {
            self.look(hub, Damage::Stops).await?;
        }
        Ok(())
    }

    /// Reads everything that was written until now.
    pub(crate) async fn look(&self, hub: &Hub, damage: Damage) -> Result<()> {
        let asked = self.sight.began();
        let _reading = self.reading.lock().await;
        let has_looked = self.sight.has_looked_since(asked) && !self.sight.is_doubtful();
        if has_looked && !self.lost_its_rows(hub) && !self.is_behind(hub) {
            return Ok(());
        }
        let generation = hub.index().generation();
        let look = self.sight.begin(hub.env().monotonic());
        let log = hub.log_of(self.id);
        self.take_course(hub, &log).await?;
        if self.lost_its_rows(hub) {
            self.index_again(hub, &log).await?;
        }
        if self.tail() == Tail::EMPTY {
            self.load(hub, &log).await?;
        }
        // A log that is read into an index for the first time may be old, and so may its damage.
        let is_new = self.tail() == Tail::EMPTY && !hub.index().is_whole();
        let damage = if is_new { Damage::IsReported } else { damage };
        loop {
            let page = log.read_after::<S::Change>(&self.tail()).await?;
            if page.is_empty() {
                break;
            }
            self.index_page(hub, &page, damage).await?;
            hub.repos.learn(page.len());
            self.fold(hub, page.iter().map(|stored| (&stored.entry, stored.tail)));
        }
        self.check_known(&log)?;
        self.indexed_in.store(generation, Ordering::Release);
        self.sight.end(&look);
        Ok(())
    }

    /// Where the log went another way than what is folded, everything is read again from there.
    async fn take_course(&self, hub: &Hub, log: &Log) -> Result<()> {
        let lines = &log.course().lines;
        let is_other = {
            let folded = self.folded();
            let same = folded.lines.iter().zip(lines).take_while(|(old, new)| old == new).count();
            let other = [folded.lines.get(same), lines.get(same)];
            other.into_iter().flatten().any(|line| line.first <= folded.tail.number)
        };
        if is_other {
            self.start_over(hub, log).await?;
        }
        let mut folded = self.folded.write().unwrap_or_else(PoisonError::into_inner);
        folded.lines.clone_from(lines);
        Ok(())
    }

    /// Forgets all that is known of a log that went another way.
    async fn start_over(&self, hub: &Hub, log: &Log) -> Result<()> {
        S::forget(hub, self.id).await?;
        let mut folded = self.folded.write().unwrap_or_else(PoisonError::into_inner);
        *folded = Folded { lines: log.course().lines.clone(), ..Folded::default() };
        Ok(())
    }

    /// What was read is the log that is known, as far as that is known.
    fn check_known(&self, log: &Log) -> Result<()> {
        let folded = self.folded();
        let number = folded.tail.number;
        if folded.is_astray || log.course().until.is_some_and(|until| until > number) {
            let what = format!("`{}`: what is behind entry {number} is not what came", self.id);
            return Err(Error::corrupt(what));
        }
        Ok(())
    }

    /// Puts into an index that was replaced what the known entries brought. What is damaged was
    /// there before, and keeps nobody from the rest.
    async fn index_again(&self, hub: &Hub, log: &Log) -> Result<()> {
        let mut tail = Tail::EMPTY;
        while tail.number < self.tail().number {
            let page = log.read_after::<S::Change>(&tail).await?;
            let Some(last) = page.last() else { break };
            tail = last.tail;
            self.index_page(hub, &page, Damage::IsReported).await?;
        }
        Ok(())
    }

    /// Puts into the index what entries bring, and then the entries: rows before the log position
    /// that they reflect.
    async fn index_page(
        &self,
        hub: &Hub,
        page: &[Stored<S::Change>],
        damage: Damage,
    ) -> Result<()> {
        let packs: Vec<PackHash> =
            page.iter().flat_map(|stored| S::packs(&stored.entry.changes)).collect();
        let mut read = futures_util::stream::iter(packs)
            .map(|pack| rows::of_stored_pack(hub, self.id, pack, damage))
            .buffered(PACKS_AT_ONCE);
        let mut batch = Batch::new();
        while let Some(rows) = read.try_next().await? {
            batch.extend(rows);
            if batch.len() > ROWS {
                hub.index().apply(std::mem::take(&mut batch)).await?;
            }
        }
        hub.index().apply(std::mem::take(&mut batch)).await?;
        for stored in page {
            let key = schema::log_key(&self.id, stored.tail.number);
            batch.put(Table::Log, key, stored.bytes.to_vec());
        }
        hub.index().apply(batch).await?;
        hub.quotas.went_on(&self.id);
        Ok(())
    }

    /// Folds the entries that the index kept, as far as they make sense: what does not is read
    /// from the store.
    async fn load(&self, hub: &Hub, log: &Log) -> Result<()> {
        self.load_rows(hub, log).await?;
        let is_astray = self.folded().is_astray;
        if is_astray {
            self.start_over(hub, log).await?;
        }
        Ok(())
    }

    async fn load_rows(&self, hub: &Hub, log: &Log) -> Result<()> {
        let until = log.course().until.unwrap_or(u64::MAX);
        let prefix = schema::log_prefix(&self.id);
        let mut after: Option<Vec<u8>> = None;
        loop {
            let rows = hub.index().scan(Table::Log, &prefix, after.as_deref(), ROWS).await?;
            let Some((last, _)) = rows.last() else {
                return Ok(());
            };
            let last = last.clone();
            let mut tail = self.tail();
            let mut entries = Vec::with_capacity(rows.len());
            for (key, bytes) in &rows {
                if tail.number >= until {
                    break;
                }
                let Some(entry) = follower::<S::Change>(&tail, key, bytes) else {
                    break;
                };
                tail = Tail::of(tail.number + 1, bytes, &entry);
                entries.push((entry, tail));
            }
            self.fold(hub, entries.iter().map(|(entry, tail)| (entry, *tail)));
            if tail.number >= until {
                return Ok(());
            }
            if entries.len() < rows.len() {
                tracing::warn!(log = ?self.id, after = tail.number, "the index has a hole");
                return Ok(());
            }
            after = Some(last);
        }
    }

    fn fold<'a>(&self, hub: &Hub, entries: impl Iterator<Item = (&'a Entry<S::Change>, Tail)>) {
        let known = S::known(hub, self.id);
        let mut folded = self.folded.write().unwrap_or_else(PoisonError::into_inner);
        for (entry, tail) in entries {
            folded.take(entry, tail, known);
        }
    }

    /// Appends what the rule says, as one entry, and puts its rows into the index. A rule that says
    /// nothing changes nothing; it is asked again, with newer state, whenever somebody else was
    /// first, and before it is believed when it refuses. Who lost waits before the next try, if
    /// the rule wants one.
    pub(crate) async fn append(
        &self,
        hub: &Hub,
        mut new: New<'_>,
        mut rule: impl FnMut(&S) -> Result<Vec<S::Change>>,
    ) -> Result<()> {
        let _writing = self.writing.lock().await;
        let mut is_newest = hub.settings().freshness == Freshness::Exclusive;
        let mut turns = Turns::begin(hub.env().as_ref());
        loop {
            if self.sight.is_doubtful() {
                self.look(hub, Damage::Stops).await?;
                is_newest = true;
            }
            let (asked, tail, standing) = {
                let folded = self.folded();
                let standing = folded.state.standing(hub, self.id);
                (rule(&folded.state), folded.tail, standing)
            };
            let asked = match (asked, &standing) {
                (Ok(changes), Standing::Away(away)) if !changes.is_empty() => {
                    Err(hub.away_error(self.id, away))
                }
                (asked, _) => asked,
            };
            let says_nothing = asked.as_ref().is_ok_and(Vec::is_empty);
            if !is_newest && (says_nothing || asked.is_err()) {
                // What others wrote since may make it say something else; a change that it wants
                // is safe, as it would lose.
                self.look(hub, Damage::Stops).await?;
                is_newest = true;
                continue;
            }
            let changes = asked?;
            if changes.is_empty() {
                return Ok(());
            }
            if turns.is_owed() {
                turns.wait(hub.env().as_ref()).await;
                self.look(hub, Damage::Stops).await?;
                is_newest = true;
                continue;
            }
            if self.try_once(hub, changes, (&tail, &standing), &mut new).await? {
                return Ok(());
            }
            turns.lose(hub.env().as_ref(), CHANGE_IT)?;
        }
    }

    /// Makes sure that the log has an entry of this gc epoch or a later one: whoever did not read
    /// the epoch's list can't append any more without reading it (Invariant 8).
    pub(crate) async fn fence(&self, hub: &Hub, epoch: u64) -> Result<()> {
        let _writing = self.writing.lock().await;
        let mut turns = Turns::begin(hub.env().as_ref());
        loop {
            self.look(hub, Damage::Stops).await?;
            let (tail, standing) = {
                let folded = self.folded();
                (folded.tail, folded.state.standing(hub, self.id))
            };
            // Where another region is the home, entries come by the catalogue, which has its fence.
            let is_away = matches!(standing, Standing::Away(_));
            if is_away || standing.epoch_at(&tail) >= epoch {
                return Ok(());
            }
            if turns.is_owed() {
                turns.wait(hub.env().as_ref()).await;
                continue;
            }
            let nothing = Vec::new();
            let place = (&tail, &standing);
            if self.try_once(hub, nothing, place, &mut New::default()).await? {
                return Ok(());
            }
            turns.lose(hub.env().as_ref(), CHANGE_IT)?;
        }
    }

    /// One try to append behind this tail; whether it was ours.
    async fn try_once(
        &self,
        hub: &Hub,
        changes: Vec<S::Change>,
        (tail, standing): (&Tail, &Standing),
        new: &mut New<'_>,
    ) -> Result<bool> {
        let Standing::Home { term, .. } = *standing else {
            return Err(Error::internal("an entry is for a log of another region"));
        };
        // Section 4.2, steps 1, 3 and 4: the lists of all epochs up to the entry's are read, and
        // what it names is in none of them.
        let before = standing.epoch_at(tail);
        let epoch = hub.store().epoch().await?.max(before);
        let checked = if is_left_out(Step::EpochFirst) { before } else { epoch };
        hub.confirm_named(new.packs, checked).await?;
        let entry = Entry {
            operation: OperationId::from_bytes(random_bytes(hub.env().as_ref())),
            previous: tail.hash,
            epoch,
            term,
            time_ms: hub.env().now_ms(),
            author: new.author,
            changes,
        };
        let log = hub.log_of(self.id);
        let sending = Sending::begin(hub.runner(), &self.sight, &log, (*tail, entry));
        let Sent { entry, appended, doubt } = sending.await;
        let Append::Won(won) = appended? else {
            return Ok(false);
        };
        let key = schema::log_key(&self.id, won.number);
        new.rows.put(Table::Log, key, entry.encode()?);
        hub.index().apply(std::mem::take(&mut new.rows)).await?;
        hub.quotas.went_on(&self.id);
        self.fold(hub, std::iter::once((&entry, won)));
        doubt.settle();
        Ok(true)
    }
}

/// The entry of an index row, if it is the one behind this tail.
fn follower<C: Change>(tail: &Tail, key: &[u8], bytes: &[u8]) -> Option<Entry<C>> {
    let number = schema::log_number(key).ok()?;
    let entry = Entry::<C>::decode(bytes).ok()?;
    (number == tail.number + 1 && entry.previous == tail.hash).then_some(entry)
}
