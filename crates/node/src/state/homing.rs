//! Where a repo's log grows: in one region, its home (Invariant 9, ADR 53).
//!
//! The catalogue of each region says of which repos it is not the home, and how far their logs have
//! come here. An entry that is stored and not said to have come does not count.

use ballast_format::id::RepoId;
use ballast_format::log::Head;
use ballast_format::name::RegionName;
use ballast_store::keyspace::LogId;
use ballast_store::reflog::{Course, Line, Log, Tail};

use crate::error::Error;
use crate::hub::Hub;
use crate::state::catalogue::{CatalogueState, RepoRecord};

/// Where a repo's home is, if it is not here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Away {
    /// Which region.
    pub region: RegionName,
    /// Where clients reach it.
    pub address: String,
}

impl Away {
    /// What a writer hears who should write there.
    pub(crate) fn error(&self, record: &RepoRecord) -> Error {
        Error::AwayFromHome {
            repo: format!("{} `{}`", record.kind, record.name),
            region: self.region.to_string(),
            address: self.address.clone(),
        }
    }
}

/// Where a repo's log grows, and which of its entries count here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Homing {
    /// The home, if it is another region.
    pub away: Option<Away>,
    /// The home's term.
    pub term: u64,
    /// If the home came here from elsewhere: the gc epoch of the entry by which it did. Whoever
    /// writes must know of it.
    pub epoch: u64,
    /// The last entry that is known to have come; if the home is away, the last that counts.
    pub known: Head,
    /// Where entries are that took the place of others.
    pub lines: Vec<Line>,
}

impl Default for Homing {
    fn default() -> Self {
        Self { away: None, term: 1, epoch: 0, known: Head::NOTHING, lines: Vec::new() }
    }
}

impl Homing {
    /// The log goes on behind this entry under another id.
    pub(super) fn turn_off(&mut self, behind: u64, line: RepoId) {
        let is_same = self.lines.last().is_some_and(|last| last.id == LogId::Repo(line));
        if !is_same {
            self.lines.retain(|line| line.first <= behind);
            self.lines.push(Line { first: behind + 1, id: LogId::Repo(line) });
        }
    }

    fn course(&self) -> Course {
        let until = self.away.is_some().then_some(self.known.number);
        Course { until, lines: self.lines.clone() }
    }
}

/// Whether this region may append to a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It is the log's home.
    Home {
        /// The term of what it writes.
        term: u64,
        /// The newest gc epoch of which whoever writes must know.
        epoch: u64,
    },
    /// Another one is.
    Away(Away),
}

impl Standing {
    /// Of logs that have no other home.
    pub(super) const HERE: Self = Self::Home { term: 1, epoch: 0 };

    /// The highest epoch that a writer had read who appended, or may append, behind this tail.
    pub(super) fn epoch_at(&self, tail: &Tail) -> u64 {
        match self {
            Self::Home { term, epoch } if tail.term == *term => tail.epoch.max(*epoch),
            Self::Home { epoch, .. } => *epoch,
            Self::Away(_) => 0,
        }
    }
}

impl Hub {
    /// A log, with those of its entries that count here.
    pub(crate) fn log_of(&self, id: LogId) -> Log {
        let course = match id {
            LogId::Repo(repo) => self.homing(repo).course(),
            LogId::Catalogue | LogId::Accounts | LogId::Audit => Course::default(),
        };
        Log::on_course(self.store().clone(), id, course)
    }

    /// Where a repo's log grows; one that nobody knows grows here.
    pub(crate) fn homing(&self, repo: RepoId) -> Homing {
        let homing = |state: &CatalogueState| Some(state.by_id(&repo)?.homing.clone());
        self.catalogue.read(homing).unwrap_or_default()
    }

    /// What a writer hears who should write elsewhere.
    pub(super) fn away_error(&self, log: LogId, away: &Away) -> Error {
        let record = match log {
            LogId::Repo(id) => self.record_of(id),
            LogId::Catalogue | LogId::Accounts | LogId::Audit => None,
        };
        record.map_or(Error::RepoNotFound, |record| away.error(&record))
    }
}
