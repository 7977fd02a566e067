//! What a repo's log has at its home and has not arrived here, for those who ask for a commit.
//!
//! It is in memory only, and nothing counts for it: refs, dedup, collections and whoever writes see
//! what has arrived. Copies of its packs are in the store, and no log refers to them; one that is
//! condemned is not read any more.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ballast_format::hash::{ObjectHash, Sha256};
use ballast_format::id::RepoId;
use ballast_format::log::{Entry, RepoChange};
use ballast_format::name::RefName;
use ballast_format::pack::FileLink;
use ballast_store::index::schema::ObjectRow;
use ballast_store::keyspace::CopyName;
use ballast_store::reflog::Tail;

use crate::download::Resolved;
use crate::download::resolve::by_ref;
use crate::error::{Error, Result};
use crate::hub::Hub;
use crate::state::repo::NewPack;

/// Objects and files of all repos, some 60 MB. Those of the repo that was read on longest ago go.
const MOST_ROWS: usize = 300_000;
/// Repos.
const MOST_REPOS: usize = 256;
/// When to ask again for what has to come again.
const AGAIN_SECONDS: u64 = 2;

/// What one repo's log has at its home behind what had arrived here.
#[derive(Debug)]
struct Ahead {
    /// The home's term.
    term: u64,
    /// The last entry that was read.
    tail: Tail,
    /// When there was no other behind it, by the monotonic clock.
    asked: Option<Duration>,
    refs: BTreeMap<RefName, ObjectHash>,
    objects: HashMap<ObjectHash, ObjectRow>,
    links: HashMap<Sha256, FileLink>,
    packs: Vec<CopyName>,
}

impl Ahead {
    fn new(term: u64) -> Self {
        Self {
            term,
            tail: Tail::EMPTY,
            asked: None,
            refs: BTreeMap::new(),
            objects: HashMap::new(),
            links: HashMap::new(),
            packs: Vec::new(),
        }
    }

    fn rows(&self) -> usize {
        self.objects.len() + self.links.len()
    }

    fn take(&mut self, entry: &Entry<RepoChange>, tail: Tail, packs: &[NewPack]) {
        for change in &entry.changes {
            match change {
                RepoChange::RefSet { name, new, .. } => {
                    self.refs.insert(name.clone(), *new);
                }
                RepoChange::RefDeleted { name, .. } => {
                    self.refs.remove(name);
                }
                _ => {}
            }
        }
        for NewPack { copy, directory } in packs {
            self.packs.push(*copy);
            let objects = directory.objects.iter().map(|object| {
                let (offset, length) = (object.offset, object.length);
                let (kind, pointer) = (object.kind, object.pointer);
                (object.id, ObjectRow { pack: *copy, offset, length, kind, pointer })
            });
            self.objects.extend(objects);
            let links = directory.links.iter().filter(|link| link.size > 0);
            self.links.extend(links.map(|link| (link.sha256, *link)));
        }
        (self.tail, self.asked) = (tail, None);
    }
}

/// What is ahead of repos whose home is another region; those that were read on last come last.
#[derive(Debug, Default)]
pub(crate) struct Aheads(Mutex<Vec<(RepoId, Ahead)>>);

impl Aheads {
    fn lock(&self) -> MutexGuard<'_, Vec<(RepoId, Ahead)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes what is ahead of a repo, which `new` makes if nothing is so far.
    fn change(
        &self,
        id: RepoId,
        new: impl FnOnce() -> Ahead,
        change: impl FnOnce(&mut Ahead),
    ) -> Result<()> {
        let mut all = self.lock();
        let place = all.iter().position(|(known, _)| *known == id);
        let (_, mut ahead) = place.map_or_else(|| (id, new()), |place| all.remove(place));
        change(&mut ahead);
        if ahead.rows() > MOST_ROWS {
            let reason = "so much of this repo has not arrived here that nothing of it is read \
                          through; it comes with its log"
                .to_owned();
            return Err(Error::Busy { reason });
        }
        all.push((id, ahead));
        let mut rows: usize = all.iter().map(|(_, ahead)| ahead.rows()).sum();
        while all.len() > MOST_REPOS || (rows > MOST_ROWS && all.len() > 1) {
            rows -= all.remove(0).1.rows();
        }
        Ok(())
    }

    /// All up to this entry has arrived.
    pub(super) fn forget(&self, id: RepoId, arrived: u64) {
        self.lock().retain(|(known, ahead)| *known != id || ahead.tail.number > arrived);
    }
}

impl Hub {
    /// Behind which entry to read on in the log of a repo whose home is elsewhere, for somebody who
    /// asks for what has not arrived; nothing if the end of it was seen so lately.
    pub async fn ahead_tail(&self, id: RepoId, lately: Duration) -> Result<Option<Tail>> {
        let arrived = self.tail_of(id).await?;
        let (term, now) = (self.homing(id).term, self.env().monotonic());
        let mut all = self.ahead.lock();
        let Some(place) = all.iter().position(|(known, _)| *known == id) else {
            return Ok(Some(arrived));
        };
        let known = &all[place].1;
        let is_sound = known.packs.iter().all(|copy| self.relies_on(copy));
        if !is_sound || known.term != term || known.tail.number < arrived.number {
            all.remove(place);
            return Ok(Some(arrived));
        }
        let was_asked = known.asked.is_some_and(|asked| now.saturating_sub(asked) < lately);
        Ok((!was_asked).then_some(known.tail))
    }

    /// The home has this entry too, which names these packs.
    pub fn add_ahead(
        &self,
        id: RepoId,
        entry: &Entry<RepoChange>,
        tail: Tail,
        packs: &[NewPack],
    ) -> Result<()> {
        let term = self.homing(id).term;
        self.ahead.change(id, || Ahead::new(term), |ahead| ahead.take(entry, tail, packs))
    }

    /// There was nothing behind this entry.
    pub fn end_ahead(&self, id: RepoId, tail: Tail) -> Result<()> {
        let (term, now) = (self.homing(id).term, self.env().monotonic());
        let change = |ahead: &mut Ahead| (ahead.tail, ahead.asked) = (tail, Some(now));
        self.ahead.change(id, || Ahead::new(term), change)
    }

    /// What is known of what is ahead of a repo, as long as its home is where it was.
    fn ahead<T>(&self, id: RepoId, look: impl FnOnce(&Ahead) -> Option<T>) -> Option<T> {
        let record = self.record_of(id)?;
        let homing = &record.homing;
        homing.away.as_ref()?;
        let all = self.ahead.lock();
        let (_, ahead) = all.iter().find(|(known, _)| *known == id)?;
        if ahead.term == homing.term { look(ahead) } else { None }
    }

    /// Where an object is that has not arrived.
    pub(crate) fn ahead_row(&self, id: RepoId, object: &ObjectHash) -> Option<ObjectRow> {
        let row = self.ahead(id, |ahead| ahead.objects.get(object).copied())?;
        self.relies_on(&row.pack).then_some(row)
    }

    /// What to say of an object that can't be read: what is ahead may have been collected.
    pub(crate) fn or_gone_ahead(&self, id: RepoId, object: &ObjectHash, error: Error) -> Error {
        let is_ahead = || self.ahead(id, |ahead| ahead.objects.get(object).copied()).is_some();
        if !error.is_corrupt() || !is_ahead() {
            return error;
        }
        self.ahead.forget(id, u64::MAX);
        let reason = "what had come of this revision is gone; ask again".to_owned();
        Error::Upstream { reason, retry_seconds: AGAIN_SECONDS }
    }

    /// What a large file is made of that has not arrived.
    pub fn ahead_link(&self, id: RepoId, sha256: &Sha256) -> Option<FileLink> {
        self.ahead(id, |ahead| ahead.links.get(sha256).copied())
    }

    /// What a name means at the home, of a repo of which nothing has arrived.
    pub(crate) fn ahead_ref(&self, id: RepoId, name: &str) -> Option<Resolved> {
        self.ahead(id, |ahead| by_ref(&ahead.refs, name))
    }
}
