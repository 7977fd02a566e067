//! What goes wrong with requests, from a seed.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::Dice;

/// How often what happens, out of a thousand requests.
#[derive(Clone, Copy, Debug, Default)]
pub struct S3Faults {
    /// Nothing happens, and the client is told to slow down.
    pub refused: u32,
    /// It happens, and the client hears of an internal error.
    pub answer_lost: u32,
    /// The client hears of an internal error, and it happens later: a write that was sent may land
    /// long after whoever sent it has given up, and be refused then.
    pub late: u32,
    /// How much later at most.
    pub late_by: Duration,
    /// How long every request takes at least.
    pub latency: Duration,
    /// How much longer it takes at most.
    pub jitter: Duration,
    /// Put-if-absent puts, whether something is there or not.
    pub ignores_conditions: bool,
}

/// What becomes of one request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Verdict {
    pub(super) is_refused: bool,
    pub(super) is_answer_lost: bool,
    /// How much later a write happens than it is answered.
    pub(super) late_by: Option<Duration>,
    pub(super) latency: Duration,
    pub(super) ignores_conditions: bool,
}

/// Decides about requests.
#[derive(Debug)]
pub(super) struct Faults {
    state: Mutex<(Dice, S3Faults)>,
}

impl Faults {
    pub(super) fn new(seed: u64) -> Self {
        Self { state: Mutex::new((Dice::new(seed), S3Faults::default())) }
    }

    pub(super) fn set(&self, faults: S3Faults) {
        self.state().1 = faults;
    }

    pub(super) fn decide(&self) -> Verdict {
        let (dice, faults) = &mut *self.state();
        let mut up_to = |most: Duration| most.mul_f64(f64::from(dice.permille()) / 1000.0);
        let (late_by, longer) = (up_to(faults.late_by), up_to(faults.jitter));
        Verdict {
            is_refused: dice.happens(faults.refused),
            is_answer_lost: dice.happens(faults.answer_lost),
            late_by: dice.happens(faults.late).then_some(late_by),
            latency: faults.latency + longer,
            ignores_conditions: faults.ignores_conditions,
        }
    }

    fn state(&self) -> MutexGuard<'_, (Dice, S3Faults)> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
