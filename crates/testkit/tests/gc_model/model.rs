//! The whole: who takes part, what may happen next, and what must always be so.

use stateright::Property;

use crate::collector::{self, Collector};
use crate::log::{Change, Entry, Log};
use crate::store::{FIRST, Flight, Store};
use crate::writer::{self, Task, Writer};

/// A rule left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mutant {
    /// A collector does not fence the logs.
    NoFence,
    /// A writer that meets a fence takes its epoch, and does not check again.
    NoRecheck,
    /// It checks again, against the newest list only.
    NewestListOnly,
    /// Copies are named by their hash alone, so that a delete hits whichever is there.
    BareNames,
    /// A collector sweeps what it condemned, without a second look.
    NoSecondMark,
    /// A collector whose list was not the one that got stored goes by its own.
    ListNotAdopted,
    /// Slots of a log are deleted once a snapshot remembers them.
    LogsCut,
    /// An epoch can be seen before its list can be read.
    EpochBeforeList,
    /// What an entry has to name is decided when its writer begins, not on the tail it follows.
    NewDecidedOnce,
    /// A writer reads the epoch again for its entry, after its check.
    EpochReadAgain,
    /// An entry carries the epoch that its writer began with.
    EpochKept,
    /// A writer that begins again does not look for its operation in the log.
    OperationForgotten,
    /// A new log's first entry may be below the epoch of the repo's creation.
    NoFloor,
}

/// Which a writer does first. Both are right: the put fails if the tail has moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// As the protocol is written: check, then find the tail, and again if it is of a later epoch.
    CheckFirst,
    /// Find the tail, take the newest epoch, check, and put the entry behind that tail.
    TailFirst,
}

/// What may take part.
#[derive(Clone, Debug)]
pub(crate) struct Model {
    /// Logs; all live, or log 0 is a catalogue that says which.
    pub(crate) logs: usize,
    pub(crate) has_catalogue: bool,
    /// The log that names the content at the start; without one the first copy is garbage of which
    /// clients still know.
    pub(crate) named_by: Option<usize>,
    /// One writer for each.
    pub(crate) tasks: Vec<Task>,
    pub(crate) collectors: usize,
    pub(crate) cycles: usize,
    /// How often anybody may crash.
    pub(crate) crashes: usize,
    pub(crate) order: Order,
    /// Writers ask an index whether a copy is there, and it never hears of deletions.
    pub(crate) believes_index: bool,
    pub(crate) mutant: Option<Mutant>,
}

impl Model {
    pub(crate) fn is(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    fn first_log(&self, number: usize) -> Log {
        let past = |change| Entry { operation: None, epoch: 0, change };
        let names = Change::Commit { names: true };
        let entry = match self.named_by {
            Some(log) if log == number => Some(past(names)),
            Some(log) if self.has_catalogue && number == 0 => Some(past(Change::Create(log))),
            _ => None,
        };
        Log::holding(entry.into_iter().collect())
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct State {
    store: Store,
    writers: Vec<Writer>,
    collectors: Vec<Collector>,
    crashes_left: usize,
}

/// What may happen next.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Act {
    Write(usize, writer::Move),
    Collect(usize, collector::Move),
    Land(Flight),
    WriterCrashes(usize),
    CollectorCrashes(usize),
    Cut(usize),
}

impl State {
    fn crashes(&self) -> Vec<Act> {
        let works = |(id, writer): (usize, &Writer)| {
            let idle = [writer::Step::Begin, writer::Step::Done].contains(&writer.step);
            (!idle).then_some(Act::WriterCrashes(id))
        };
        let collects = |(id, collector): (usize, &Collector)| {
            let idle = collector.step == collector::Step::Start;
            (!idle).then_some(Act::CollectorCrashes(id))
        };
        let writers = self.writers.iter().enumerate().filter_map(works);
        writers.chain(self.collectors.iter().enumerate().filter_map(collects)).collect()
    }
}

impl stateright::Model for Model {
    type State = State;
    type Action = Act;

    fn init_states(&self) -> Vec<State> {
        let logs = (0..self.logs).map(|number| self.first_log(number)).collect();
        vec![State {
            store: Store::new(logs, self.has_catalogue),
            writers: vec![Writer::default(); self.tasks.len()],
            collectors: vec![Collector::default(); self.collectors],
            crashes_left: self.crashes,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Act>) {
        let store = &state.store;
        for (id, (writer, task)) in state.writers.iter().zip(&self.tasks).enumerate() {
            let moves = writer.moves(*task, store);
            actions.extend(moves.into_iter().map(|chosen| Act::Write(id, chosen)));
        }
        for (id, collector) in state.collectors.iter().enumerate() {
            let moves = collector.moves(self, store);
            actions.extend(moves.into_iter().map(|chosen| Act::Collect(id, chosen)));
        }
        actions.extend(store.flights.iter().cloned().map(Act::Land));
        if state.crashes_left > 0 {
            actions.extend(state.crashes());
        }
        if self.is(Mutant::LogsCut) {
            let cuttable = |log: &usize| store.logs[*log].can_be_cut();
            actions.extend((0..self.logs).filter(cuttable).map(Act::Cut));
        }
    }

    fn next_state(&self, last: &State, action: Act) -> Option<State> {
        let mut state = last.clone();
        let State { store, writers, collectors, crashes_left } = &mut state;
        match action {
            Act::Write(id, chosen) => writers[id].act(id, self, store, chosen),
            Act::Collect(id, chosen) => collectors[id].act(self, store, chosen),
            Act::Land(flight) => store.land(self, flight),
            Act::WriterCrashes(id) => {
                writers[id] = Writer::default();
                *crashes_left -= 1;
            }
            Act::CollectorCrashes(id) => {
                collectors[id] = Collector::default();
                *crashes_left -= 1;
            }
            Act::Cut(log) => store.logs[log].cut(),
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(PRESENT, |_, state: &State| state.is_whole()),
            Property::always(ORDERED, |_, state: &State| {
                state.store.logs.iter().all(Log::epochs_never_fall)
            }),
            Property::always(ONCE, |_, state: &State| state.holds_each_once()),
            Property::sometimes("the first copy is swept", |_, state: &State| state.has_swept()),
            Property::sometimes("all is done after a sweep", |model: &Self, state: &State| {
                state.has_swept() && state.is_all_done(model)
            }),
        ]
    }
}

/// R2, R5.
pub(crate) const PRESENT: &str = "what a committed entry needs is there";
pub(crate) const ORDERED: &str = "epochs never fall in a log";
/// R3.
pub(crate) const ONCE: &str = "an acknowledged operation is in its log, and none is twice";

impl State {
    fn is_whole(&self) -> bool {
        let needs = |(id, log): (usize, &Log)| self.store.lives(id) && log.needs();
        !self.store.copies.is_empty() || !self.store.logs.iter().enumerate().any(needs)
    }

    fn holds_each_once(&self) -> bool {
        self.writers.iter().enumerate().all(|(id, writer)| {
            let count: usize = self.store.logs.iter().map(|log| log.count(id)).sum();
            count == 1 || (count == 0 && writer.step != writer::Step::Done)
        })
    }

    fn has_swept(&self) -> bool {
        !self.store.copies.contains(&FIRST)
    }

    fn is_all_done(&self, model: &Model) -> bool {
        let are_written = self.writers.iter().all(|writer| writer.step == writer::Step::Done);
        are_written && self.store.done == model.cycles
    }
}
