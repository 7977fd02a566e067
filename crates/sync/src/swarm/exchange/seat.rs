//! A node's seat in one swarm: what the tracker says, and what it is told.

use ballast_format::hash::Sha256;
use tokio::sync::{mpsc, watch};

use super::peers::Who;

/// Another node of the swarm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// Which.
    pub who: Who,
    /// Whether it has the whole file.
    pub is_whole: bool,
}

/// What the tracker says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Whether the tracker can be heard now. What it said before is kept.
    pub is_heard: bool,
    /// Other nodes of the swarm.
    pub peers: Vec<Known>,
    /// By stripe, whom to ask: a place in `peers`, or nothing for the hub. Empty until it has said.
    pub parents: Vec<Option<usize>>,
    /// Why it does not take the node into the swarm.
    pub refused: Option<String>,
}

/// What was wrong with a parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Wrong {
    /// It cannot be reached, or broke off.
    Unreachable,
    /// It sends too little.
    Slow,
    /// It sent wrong bytes.
    Lied,
    /// It does not have what it was asked for.
    Absent,
}

/// What the tracker is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Say {
    /// How many pieces are here, by stripe.
    Held(Vec<u32>),
    /// All is here, and is right.
    Whole,
    /// A parent does not do its part in a stripe.
    Wrong {
        /// In which stripe.
        stripe: u32,
        /// Who.
        who: Who,
        /// How.
        wrong: Wrong,
    },
}

/// The seat.
pub struct Seat {
    /// The file.
    pub sha256: Sha256,
    /// What the tracker says.
    pub told: watch::Receiver<Told>,
    /// To tell it something.
    pub say: mpsc::Sender<(Sha256, Say)>,
}

impl Seat {
    /// Tells the tracker. Should it be behind, it misses this: it is told the whole state again and
    /// again.
    pub(super) fn say(&self, what: Say) {
        drop(self.say.try_send((self.sha256, what)));
    }
}
