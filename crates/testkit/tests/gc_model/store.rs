//! The object store: what is in it, and the requests that are on their way to it.
//!
//! A request takes effect when it lands, which may be long after its sender died, or never. Reads
//! of one key are exact.

use std::collections::BTreeSet;

use crate::log::{Entry, Log};
use crate::model::{Model, Mutant};

/// `<hash>/<epoch>-<nonce>`, without the hash: there is one content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct CopyName {
    pub(crate) epoch: usize,
    pub(crate) nonce: usize,
}

/// The copy that is there at the start.
pub(crate) const FIRST: CopyName = CopyName { epoch: 0, nonce: 0 };

/// A request that was sent.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Flight {
    Put(CopyName),
    Delete(CopyName),
    /// Put-if-absent of a log's entry.
    Append {
        log: usize,
        slot: usize,
        entry: Entry,
    },
    /// Put-if-absent of `gc/<epoch>` with its list.
    Condemn {
        epoch: usize,
        list: Vec<CopyName>,
    },
    /// The list of an epoch that is visible already; a mutant's doing.
    List {
        epoch: usize,
        list: Vec<CopyName>,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Store {
    pub(crate) copies: BTreeSet<CopyName>,
    /// Deleted copies, where writers go by an index that does not hear of it.
    gone: BTreeSet<CopyName>,
    /// Epochs 1, 2, … and their lists; `None` is a mutant's doing.
    pub(crate) lists: Vec<Option<Vec<CopyName>>>,
    /// Cycles up to this one are done.
    pub(crate) done: usize,
    pub(crate) logs: Vec<Log>,
    /// Log 0 is the catalogue and says which of the others live; else all do.
    has_catalogue: bool,
    pub(crate) flights: BTreeSet<Flight>,
}

impl Store {
    pub(crate) fn new(logs: Vec<Log>, has_catalogue: bool) -> Self {
        Self {
            copies: BTreeSet::from([FIRST]),
            gone: BTreeSet::new(),
            lists: Vec::new(),
            done: 0,
            logs,
            has_catalogue,
            flights: BTreeSet::new(),
        }
    }

    pub(crate) fn newest_epoch(&self) -> usize {
        self.lists.len()
    }

    pub(crate) fn lives(&self, log: usize) -> bool {
        !self.has_catalogue || log == 0 || self.logs[0].birth(log).is_some()
    }

    /// The logs that a walk over all of them knows at first: the catalogue, which leads to others.
    pub(crate) fn first_logs(&self) -> BTreeSet<usize> {
        if self.has_catalogue { BTreeSet::from([0]) } else { (0..self.logs.len()).collect() }
    }

    /// The logs that this one leads to, as it stands.
    pub(crate) fn logs_behind(&self, log: usize) -> BTreeSet<usize> {
        let is_catalogue = self.has_catalogue && log == 0;
        (1..self.logs.len()).filter(|other| is_catalogue && self.lives(*other)).collect()
    }

    /// The epoch that an entry of this log must not be below: that of its tail, or that of the
    /// repo's creation.
    pub(crate) fn floor(&self, model: &Model, log: usize) -> usize {
        let is_repo = self.has_catalogue && log > 0 && !model.is(Mutant::NoFloor);
        let birth = if is_repo { self.logs[0].birth(log) } else { None };
        self.logs[log].epoch().max(birth.unwrap_or(0))
    }

    /// Whether a copy is there, or believed to be, that is in none of the lists of these epochs.
    pub(crate) fn has_good_copy(&self, above: usize, through: usize) -> bool {
        let lists = || self.lists[above..through].iter().flatten();
        let is_condemned = |copy: &CopyName| lists().any(|list| list.contains(copy));
        self.copies.iter().chain(&self.gone).any(|copy| !is_condemned(copy))
    }

    /// A name that nobody else writes. One that nothing mentions any more is as good as a new one.
    pub(crate) fn fresh_name(&self, epoch: usize) -> CopyName {
        let mut name = CopyName { epoch, nonce: 0 };
        while self.mentions(name) {
            name.nonce += 1;
        }
        name
    }

    fn mentions(&self, name: CopyName) -> bool {
        let flies = |flight: &Flight| match flight {
            Flight::Put(copy) | Flight::Delete(copy) => *copy == name,
            Flight::Condemn { list, .. } | Flight::List { list, .. } => list.contains(&name),
            Flight::Append { .. } => false,
        };
        self.copies.contains(&name)
            || self.gone.contains(&name)
            || self.lists.iter().flatten().any(|list| list.contains(&name))
            || self.flights.iter().any(flies)
    }

    pub(crate) fn send(&mut self, model: &Model, flight: Flight) {
        self.flights.insert(flight);
        self.drop_dead_flights(model);
    }

    pub(crate) fn land(&mut self, model: &Model, flight: Flight) {
        self.flights.remove(&flight);
        match flight {
            Flight::Put(copy) => {
                self.copies.insert(copy);
            }
            Flight::Delete(_) if model.is(Mutant::BareNames) => self.copies.clear(),
            Flight::Delete(copy) => {
                if self.copies.remove(&copy) && model.believes_index {
                    self.gone.insert(copy);
                }
            }
            Flight::Append { log, slot, entry } => self.logs[log].put(slot, entry),
            Flight::Condemn { epoch, .. } if epoch <= self.lists.len() => {}
            Flight::Condemn { epoch, list } if model.is(Mutant::EpochBeforeList) => {
                self.lists.push(None);
                self.flights.insert(Flight::List { epoch, list });
            }
            Flight::Condemn { list, .. } => self.lists.push(Some(list)),
            Flight::List { epoch, list } => self.lists[epoch - 1] = Some(list),
        }
        self.drop_dead_flights(model);
    }

    /// A put to a taken slot, or a delete of what is gone, never has an effect: two states that
    /// differ in such requests only are one.
    fn drop_dead_flights(&mut self, model: &Model) {
        let Self { copies, lists, logs, flights, .. } = self;
        flights.retain(|flight| match flight {
            Flight::Put(_) | Flight::List { .. } => true,
            Flight::Delete(copy) => copies.contains(copy) || model.is(Mutant::BareNames),
            Flight::Append { log, slot, .. } => {
                logs[*log].read(*slot).is_none() || model.is(Mutant::LogsCut)
            }
            Flight::Condemn { epoch, .. } => *epoch > lists.len(),
        });
    }
}
