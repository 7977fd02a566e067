//! A writer: carries out one task by one entry of one log, as often as it has to begin anew.
//!
//! A step is as long as nobody else could tell it from several: between a look and the request that
//! follows from it time may pass, but that is the same as the request's being on its way.

use crate::log::{Change, Entry};
use crate::model::{Model, Mutant, Order};
use crate::store::{CopyName, Flight, Store};

/// What a client asks for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wish {
    /// A commit that needs the content.
    Commit,
    Forget,
    Create(usize),
    Delete(usize),
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Task {
    pub(crate) log: usize,
    pub(crate) wish: Wish,
}

impl Task {
    fn needs_content(self) -> bool {
        matches!(self.wish, Wish::Commit)
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum Step {
    #[default]
    Begin,
    /// Waits for a copy to be stored; then goes on, for this slot if it has chosen one.
    Storing(CopyName, Option<usize>),
    /// Is about to look for a good copy.
    Check(Option<usize>),
    /// Is about to read the log to its end.
    Tail,
    /// Has sent the entry to this slot, and has no answer.
    Doubt(usize),
    /// Told the client that it is done.
    Done,
}

/// What a writer may do next.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Move {
    /// Reads the newest epoch. The client may send the content, or rely on what it was told once:
    /// that the content is there.
    Begin {
        sends_content: bool,
    },
    Stored,
    Check,
    FindTail,
    ReadBack,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Writer {
    pub(crate) step: Step,
    /// The lists up to this epoch are read.
    epoch: usize,
    /// There was a good copy, by these lists.
    has_checked: bool,
    /// For mutants only: the epoch read at the beginning, whether the content was new to the log
    /// then, whether this check is a later one.
    began: usize,
    was_new: bool,
    checks_again: bool,
}

impl Writer {
    pub(crate) fn moves(&self, task: Task, store: &Store) -> Vec<Move> {
        match self.step {
            Step::Begin if task.needs_content() => {
                [true, false].map(|sends_content| Move::Begin { sends_content }).to_vec()
            }
            Step::Begin => vec![Move::Begin { sends_content: false }],
            Step::Storing(copy, _) if !store.flights.contains(&Flight::Put(copy)) => {
                vec![Move::Stored]
            }
            Step::Check(_) => vec![Move::Check],
            Step::Tail if store.lives(task.log) => vec![Move::FindTail],
            // Sending the same entry to the same slot again changes nothing.
            Step::Doubt(slot) if store.logs[task.log].read(slot).is_some() => vec![Move::ReadBack],
            _ => Vec::new(),
        }
    }

    pub(crate) fn act(&mut self, id: usize, model: &Model, store: &mut Store, chosen: Move) {
        let task = model.tasks[id];
        match (chosen, self.step) {
            (Move::Begin { sends_content }, _) => self.begin(task, model, store, sends_content),
            (Move::Stored, Step::Storing(_, slot)) => {
                let is_early = slot.is_none() && model.order == Order::TailFirst;
                self.step = if is_early { Step::Tail } else { Step::Check(slot) };
            }
            (Move::Check, Step::Check(slot)) => self.check(id, model, store, slot),
            (Move::FindTail, _) => self.find_tail(id, model, store),
            (Move::ReadBack, Step::Doubt(slot)) => {
                let found = store.logs[task.log].read(slot).and_then(|entry| entry.operation);
                if found == Some(id) { self.end() } else { self.step = Step::Tail }
            }
            (chosen, step) => panic!("{chosen:?} in {step:?}"),
        }
    }

    fn end(&mut self) {
        *self = Self { step: Step::Done, ..Self::default() };
    }

    fn begin(&mut self, task: Task, model: &Model, store: &mut Store, sends_content: bool) {
        self.epoch = store.newest_epoch();
        let is_new = task.needs_content() && !store.logs[task.log].names();
        self.was_new = is_new && model.is(Mutant::NewDecidedOnce);
        self.began = if model.is(Mutant::EpochKept) { self.epoch } else { 0 };
        let checks = is_new && model.order == Order::CheckFirst;
        if sends_content {
            self.store_copy(model, store, None);
        } else {
            self.step = if checks { Step::Check(None) } else { Step::Tail };
        }
    }

    /// The client's bytes, or those of a condemned copy: either way a copy of a new name.
    fn store_copy(&mut self, model: &Model, store: &mut Store, slot: Option<usize>) {
        let copy = store.fresh_name(self.epoch);
        store.send(model, Flight::Put(copy));
        self.step = Step::Storing(copy, slot);
    }

    fn check(&mut self, id: usize, model: &Model, store: &mut Store, slot: Option<usize>) {
        let newest_only = self.checks_again && model.is(Mutant::NewestListOnly);
        let above = if newest_only { self.epoch - 1 } else { 0 };
        if !store.has_good_copy(above, self.epoch) {
            self.store_copy(model, store, slot);
        } else if let Some(slot) = slot {
            self.send(id, model, store, (slot, true));
        } else {
            self.has_checked = true;
            self.step = Step::Tail;
        }
    }

    fn find_tail(&mut self, id: usize, model: &Model, store: &mut Store) {
        let task = model.tasks[id];
        let log = &store.logs[task.log];
        if log.count(id) > 0 && !model.is(Mutant::OperationForgotten) {
            return self.end();
        }
        let slot = log.next();
        let is_new = task.needs_content() && !log.names();
        let names = if model.is(Mutant::NewDecidedOnce) { self.was_new } else { is_new };
        let floor = store.floor(model, task.log);
        match model.order {
            Order::CheckFirst => self.learn(model, store, floor),
            Order::TailFirst => self.epoch = store.newest_epoch().max(floor),
        }
        match model.order {
            _ if !names => self.send(id, model, store, (slot, false)),
            Order::TailFirst => self.step = Step::Check(Some(slot)),
            Order::CheckFirst if self.has_checked => self.send(id, model, store, (slot, true)),
            Order::CheckFirst => self.step = Step::Check(None),
        }
    }

    /// The log has seen an epoch whose lists this writer has not.
    fn learn(&mut self, model: &Model, store: &Store, floor: usize) {
        if model.is(Mutant::EpochReadAgain) {
            self.epoch = store.newest_epoch();
        }
        if floor > self.epoch {
            self.epoch = floor;
            self.has_checked &= model.is(Mutant::NoRecheck);
            self.checks_again = model.is(Mutant::NewestListOnly);
        }
    }

    fn send(&mut self, id: usize, model: &Model, store: &mut Store, to: (usize, bool)) {
        let (slot, names) = to;
        let Task { log, wish } = model.tasks[id];
        let change = match wish {
            Wish::Commit => Change::Commit { names },
            Wish::Forget => Change::Forget,
            Wish::Create(log) => Change::Create(log),
            Wish::Delete(log) => Change::Delete(log),
        };
        let epoch = if model.is(Mutant::EpochKept) { self.began } else { self.epoch };
        let entry = Entry { operation: Some(id), epoch, change };
        store.send(model, Flight::Append { log, slot, entry });
        self.step = Step::Doubt(slot);
    }
}
