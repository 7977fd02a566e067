//! What a hub does when it opens beside serving: make the index anew where it must, read the counts
//! of downloads and the facts of all repos.
//!
//! A store of many terabytes takes a while to read, so that requests do not wait for it. A repo
//! that is asked for is read at once, whatever has been read by then: its log leads to all that it
//! needs. What is less until the end: chunks of other repos are not offered yet, and listings know
//! repos without what their cards say.

use std::sync::Arc;
use std::time::Duration;

use ballast_store::index::open::Opened;
use tokio::sync::oneshot;

use crate::error::{Error, Result};
use crate::hub::Hub;
use crate::tally::Flush;

/// How long opening waits for it: a hub of ordinary size is whole from the first request on.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long after a failure it is tried again.
const TRIED_AGAIN_AFTER: Duration = Duration::from_secs(10);

/// What is still to be done.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Index,
    Tallies,
    Facts,
}

impl Hub {
    /// Begins what a hub does when it opens, and waits for it a moment. What fails in that moment
    /// keeps the hub from opening; later it is tried again.
    pub(crate) async fn prepare(self: &Arc<Self>, opened: &Opened) -> Result<()> {
        let first = match opened {
            Opened::Rebuild { reason } => {
                tracing::info!(reason, "making the index anew");
                Step::Index
            }
            Opened::Clean => {
                self.index().mark_whole();
                Step::Tallies
            }
        };
        let (told, mut done) = oneshot::channel();
        let (hub, stopping) = (Arc::clone(self), self.runner().stopping());
        self.runner().spawn("prepare", async move {
            tokio::select! {
                () = stopping.cancelled() => {}
                () = hub.prepare_from(first, told) => {}
            }
        });
        tokio::select! {
            biased;
            outcome = &mut done => {
                let stopped = |_| Err(Error::Busy { reason: "shutting down".to_owned() });
                outcome.unwrap_or_else(stopped)
            }
            () = self.env().sleep(PATIENCE) => {
                tracing::info!("the store is large: serving while it is still being read");
                Ok(())
            }
        }
    }

    async fn prepare_from(self: &Arc<Self>, first: Step, told: oneshot::Sender<Result<()>>) {
        let (mut step, mut told) = (first, Some(told));
        while let Err(error) = self.prepare_on(&mut step).await {
            let unheard = match told.take() {
                Some(told) => told.send(Err(error)),
                None => Err(Err(error)),
            };
            match unheard {
                Err(Err(error)) => tracing::warn!(%error, "reading the store is tried again"),
                // The hub does not open, and says why.
                _ => return,
            }
            self.env().sleep(TRIED_AGAIN_AFTER).await;
        }
        if !self.store().is_read_only() {
            self.runner().start(self, Flush::default());
        }
        if told.is_none_or(|told| told.send(Ok(())).is_err()) {
            tracing::info!("everything was read");
        }
    }

    /// Does what is left; `step` says how far it came.
    async fn prepare_on(self: &Arc<Self>, step: &mut Step) -> Result<()> {
        if *step == Step::Index {
            self.rebuild().await?;
            *step = Step::Tallies;
        }
        if *step == Step::Tallies {
            self.load_tallies().await?;
            *step = Step::Facts;
        }
        self.load_facts().await
    }
}
