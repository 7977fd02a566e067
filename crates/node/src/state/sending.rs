//! An append that outlives whoever asked for it.
//!
//! A request that was sent to a store can't be called back. If the caller goes away meanwhile, the
//! append goes on in a task of its own, and until it ends what is known of the log is in doubt.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use ballast_format::log::{Change, Entry};
use ballast_store::reflog::{Append, Log, Tail};

use super::sight::Sight;
use crate::worker::Runner;

/// While it lives, an entry may be in the log that is not folded in. Left behind by whatever stops
/// an append, so that the log is read again before the next answer.
pub(super) struct Doubt {
    sight: Arc<Sight>,
    is_settled: bool,
}

impl Doubt {
    pub(super) fn of(sight: &Arc<Sight>) -> Self {
        Self { sight: Arc::clone(sight), is_settled: false }
    }

    /// What was written is known.
    pub(super) fn settle(mut self) {
        self.is_settled = true;
    }
}

impl Drop for Doubt {
    fn drop(&mut self) {
        if !self.is_settled {
            self.sight.doubt();
        }
    }
}

/// What came of an append, with what was appended.
pub(super) struct Sent<C> {
    pub(super) entry: Entry<C>,
    pub(super) appended: ballast_store::Result<Append>,
    pub(super) doubt: Doubt,
}

type Answer<C> = Pin<Box<dyn Future<Output = Sent<C>> + Send>>;

/// An append on its way.
pub(super) struct Sending<C: Change + Send + Sync + 'static> {
    runner: Runner,
    answer: Option<Answer<C>>,
}

impl<C: Change + Send + Sync + 'static> Sending<C> {
    pub(super) fn begin(
        runner: &Runner,
        sight: &Arc<Sight>,
        log: &Log,
        (tail, entry): (Tail, Entry<C>),
    ) -> Self {
        let (doubt, log) = (Doubt::of(sight), log.clone());
        let answer: Answer<C> = Box::pin(async move {
            let appended = log.append(&tail, &entry).await;
            Sent { entry, appended, doubt }
        });
        Self { runner: runner.clone(), answer: Some(answer) }
    }
}

impl<C: Change + Send + Sync + 'static> Future for Sending<C> {
    type Output = Sent<C>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Sent<C>> {
        let sending = self.get_mut();
        let answer = sending.answer.as_mut().expect("a future is not polled after its end");
        let sent = std::task::ready!(answer.as_mut().poll(context));
        sending.answer = None;
        Poll::Ready(sent)
    }
}

impl<C: Change + Send + Sync + 'static> Drop for Sending<C> {
    fn drop(&mut self) {
        if let Some(answer) = self.answer.take() {
            self.runner.spawn("append", async move { drop(answer.await) });
        }
    }
}
