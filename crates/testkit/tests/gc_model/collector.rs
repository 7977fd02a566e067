//! A collector: mark, condemn, fence, mark again, sweep, done; and from the start again.
//!
//! There are no clocks in it. What it condemns is any part of what it may: that stands for listings
//! that miss something, for the ages that spare young copies, and for pins.

use std::collections::BTreeSet;

use crate::log::{Change, Entry};
use crate::model::{Model, Mutant};
use crate::store::{CopyName, Flight, Store};

/// A walk over the logs, one at a time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Walk {
    left: BTreeSet<usize>,
    /// Whether a log that was read names the content.
    is_reached: bool,
}

impl Walk {
    fn over(store: &Store) -> Self {
        Self { left: store.first_logs(), is_reached: false }
    }

    fn visit(&mut self, store: &Store, log: usize) {
        self.left.remove(&log);
        self.left.extend(store.logs_behind(log));
    }

    fn read(&mut self, store: &Store, log: usize) {
        self.visit(store, log);
        self.is_reached |= store.logs[log].names();
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum Step {
    #[default]
    Start,
    Mark(Walk),
    Fence(Walk),
    MarkAgain(Walk),
    Close,
}

/// What a collector may do next.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Move {
    /// Begins a cycle, or goes on with one that was begun.
    Start,
    Mark(usize),
    /// Sends the list.
    Condemn(Vec<CopyName>),
    /// Looks whether this log is fenced, and if it is not sends a fence.
    Fence(usize),
    MarkAgain(usize),
    /// Sends the deletes, and waits for none of them.
    Sweep,
    Close,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Collector {
    pub(crate) step: Step,
    cycle: usize,
    /// For a mutant only: the list that it sent.
    sent: Vec<CopyName>,
}

impl Collector {
    pub(crate) fn moves(&self, model: &Model, store: &Store) -> Vec<Move> {
        let has_list = matches!(store.lists.get(self.cycle.wrapping_sub(1)), Some(Some(_)));
        match &self.step {
            Step::Start => {
                let newest = store.newest_epoch();
                let has_work = newest > store.done || newest < model.cycles;
                if has_work { vec![Move::Start] } else { Vec::new() }
            }
            Step::Mark(walk) if walk.left.is_empty() => Self::lists(walk, store),
            Step::Mark(walk) => walk.left.iter().copied().map(Move::Mark).collect(),
            // Whether the list is ours or another's: what is stored counts.
            Step::Fence(_) | Step::MarkAgain(_) if !has_list => Vec::new(),
            Step::Fence(walk) => walk.left.iter().copied().map(Move::Fence).collect(),
            Step::MarkAgain(walk) if walk.left.is_empty() => vec![Move::Sweep],
            Step::MarkAgain(walk) => walk.left.iter().copied().map(Move::MarkAgain).collect(),
            Step::Close => vec![Move::Close],
        }
    }

    /// Every list that this mark allows.
    fn lists(walk: &Walk, store: &Store) -> Vec<Move> {
        let mut lists = vec![Vec::new()];
        for copy in store.copies.iter().filter(|_| !walk.is_reached) {
            let mut longer = lists.clone();
            for list in &mut longer {
                list.push(*copy);
            }
            lists.append(&mut longer);
        }
        lists.into_iter().map(Move::Condemn).collect()
    }

    pub(crate) fn act(&mut self, model: &Model, store: &mut Store, chosen: Move) {
        match (chosen, &mut self.step) {
            (Move::Start, step) if store.newest_epoch() > store.done => {
                self.cycle = store.newest_epoch();
                *step = Self::fence(model, store);
            }
            (Move::Start, step) => {
                self.cycle = store.newest_epoch() + 1;
                *step = Step::Mark(Walk::over(store));
            }
            (Move::Mark(log), Step::Mark(walk)) => walk.read(store, log),
            (Move::Condemn(list), step) => {
                if model.is(Mutant::ListNotAdopted) {
                    self.sent.clone_from(&list);
                }
                store.send(model, Flight::Condemn { epoch: self.cycle, list });
                *step = Self::fence(model, store);
            }
            (Move::Fence(log), Step::Fence(walk)) => {
                Self::fence_one(self.cycle, walk, model, store, log);
                if walk.left.is_empty() {
                    self.step = Self::second_mark(model, store);
                }
            }
            (Move::MarkAgain(log), Step::MarkAgain(walk)) => walk.read(store, log),
            (Move::Sweep, Step::MarkAgain(walk)) => {
                let is_reached = walk.is_reached;
                self.sweep(model, store, is_reached);
            }
            (Move::Close, _) => {
                store.done = store.done.max(self.cycle);
                *self = Self::default();
            }
            (chosen, step) => panic!("{chosen:?} in {step:?}"),
        }
    }

    fn fence(model: &Model, store: &Store) -> Step {
        if model.is(Mutant::NoFence) {
            return Self::second_mark(model, store);
        }
        Step::Fence(Walk::over(store))
    }

    fn fence_one(cycle: usize, walk: &mut Walk, model: &Model, store: &mut Store, log: usize) {
        if store.logs[log].epoch() >= cycle {
            walk.visit(store, log);
            return;
        }
        let entry = Entry { operation: None, epoch: cycle, change: Change::Fence };
        let slot = store.logs[log].next();
        store.send(model, Flight::Append { log, slot, entry });
    }

    fn second_mark(model: &Model, store: &Store) -> Step {
        if model.is(Mutant::NoSecondMark) {
            return Step::MarkAgain(Walk::default());
        }
        Step::MarkAgain(Walk::over(store))
    }

    fn sweep(&mut self, model: &Model, store: &mut Store, is_reached: bool) {
        self.step = Step::Close;
        let stored = store.lists[self.cycle - 1].iter().flatten().copied();
        let doomed: Vec<_> = self.sent.drain(..).chain(stored).collect();
        for copy in doomed.into_iter().filter(|_| !is_reached) {
            store.send(model, Flight::Delete(copy));
        }
    }
}
