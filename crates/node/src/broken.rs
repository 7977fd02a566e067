//! Steps of the protocols that a test may leave out, to see that the simulation notices.
//!
//! What is shipped leaves out nothing: it has nothing to set, and the question costs nothing.

/// A step that something rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Every log gets an entry of the new epoch.
    Fence,
    /// What is condemned is marked again before it is swept.
    SecondMark,
    /// Pins count as references.
    Pins,
    /// What a writer at work may just have written is left alone.
    Behind,
    /// An append looks whether what it names is condemned.
    Check,
    /// An append reads the epoch before it looks, and not after.
    EpochFirst,
    /// Every list is read, and not the newest only.
    EveryList,
    /// What is condemned is not offered.
    OfferNone,
    /// Who promises reads the lists again when the pin is there.
    PinThenLook,
    /// Who lost to another waits.
    Wait,
}

#[cfg(not(test))]
pub(crate) const fn is_left_out(_: Step) -> bool {
    false
}

#[cfg(test)]
pub(crate) use switch::{is_left_out, without};

#[cfg(test)]
mod switch {
    use std::cell::Cell;

    use super::Step;

    thread_local! {
        static LEFT_OUT: Cell<Option<Step>> = const { Cell::new(None) };
    }

    pub(crate) fn is_left_out(step: Step) -> bool {
        LEFT_OUT.get() == Some(step)
    }

    /// Does something on this thread without a step.
    pub(crate) fn without<T>(step: Step, work: impl FnOnce() -> T) -> T {
        LEFT_OUT.set(Some(step));
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        LEFT_OUT.set(None);
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}
