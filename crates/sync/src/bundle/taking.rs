//! Files are taken in while their chunks arrive: what has come of a file is hashed, while the
//! records behind it are read and stored.

use std::collections::BTreeSet;
use std::sync::Arc;

use ballast_format::bundle::{CarriedFile, Run};
use ballast_format::hash::{ShardHash, XorbHash};
use ballast_format::pack::FileLink;
use ballast_node::access::Caller;
use ballast_node::hub::Hub;
use ballast_node::upload::{ChunkRun, Proof, ProvedFile, TakenFile};
use tokio::sync::watch;

use super::error::{Error, Result};
use super::open::OpenBundle;

/// Files that are registered together.
const FILES_AT_ONCE: usize = 64;
/// Runs of a file that are hashed together.
const RUNS_AT_ONCE: usize = 4096;

/// What is known of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nothing yet.
    Awaited,
    /// It is stored.
    Here,
    /// It is missing or damaged.
    Lost,
}

/// Which records of a bundle have come.
#[derive(Debug)]
pub(super) struct Records(watch::Sender<Vec<State>>);

impl Records {
    /// None of so many so far.
    pub(super) fn new(records: usize) -> Self {
        Self(watch::Sender::new(vec![State::Awaited; records]))
    }

    /// This one is stored.
    pub(super) fn came(&self, record: u32) {
        self.0.send_modify(|records| records[record as usize] = State::Here);
    }

    /// This one will not come.
    pub(super) fn is_lost(&self, record: u32) {
        self.0.send_modify(|records| records[record as usize] = State::Lost);
    }

    /// Those that will not come.
    pub(super) fn lost(&self) -> BTreeSet<u32> {
        let records = self.0.borrow();
        let lost = (0..).zip(&*records).filter(|(_, state)| **state == State::Lost);
        lost.map(|(record, _)| record).collect()
    }

    fn is_awaited(&self, record: u32) -> bool {
        self.0.borrow()[record as usize] == State::Awaited
    }

    /// Waits until it is known what became of a record; whether it is stored.
    async fn is_here(&self, record: u32) -> bool {
        let mut records = self.0.subscribe();
        let known = records.wait_for(|records| records[record as usize] != State::Awaited).await;
        known.is_ok_and(|records| records[record as usize] == State::Here)
    }
}

/// Takes in the files of a bundle.
pub(super) struct Taking<'a> {
    pub(super) hub: &'a Arc<Hub>,
    pub(super) caller: &'a Caller,
    pub(super) bundle: &'a OpenBundle,
    pub(super) records: &'a Records,
}

impl Taking<'_> {
    /// Registers these files, by their numbers; those that are registered already are not hashed
    /// again. Waits for their chunks.
    pub(super) async fn files(&self, numbers: &[u32]) -> Result<Vec<FileLink>> {
        let (mut links, mut proved) = (Vec::new(), Vec::new());
        for number in numbers {
            let file = &self.bundle.contents.files[*number as usize];
            let CarriedFile { sha256, file: hash, size, .. } = *file;
            let taken = TakenFile { sha256, file: hash, size };
            if size == 0 {
                links.push(FileLink { sha256, file: hash, shard: ShardHash::ZERO, size });
            } else if let Some(link) = self.hub.taken_file(self.caller, &taken).await? {
                links.push(link);
            } else {
                proved.push(self.prove(file, &taken).await?);
            }
            if proved.len() == FILES_AT_ONCE {
                links.extend(self.hub.take_proved(self.caller, std::mem::take(&mut proved)).await?);
            }
        }
        links.extend(self.hub.take_proved(self.caller, proved).await?);
        Ok(links)
    }

    async fn prove(&self, file: &CarriedFile, taken: &TakenFile) -> Result<ProvedFile> {
        let (mut proof, mut runs) = (Proof::default(), Vec::new());
        for run in &file.runs {
            // Before it waits for a record it hashes what has come.
            let is_awaited =
                matches!(run, Run::Record(record, _) if self.records.is_awaited(*record));
            if is_awaited || runs.len() >= RUNS_AT_ONCE {
                proof = proof.go_on(self.hub, &std::mem::take(&mut runs)).await?;
            }
            self.find(run, &mut runs).await?;
        }
        Ok(proof.go_on(self.hub, &runs).await?.finish(taken)?)
    }

    /// Where these chunks are here.
    async fn find(&self, run: &Run, runs: &mut Vec<ChunkRun>) -> Result<()> {
        match run {
            Run::Record(record, chunks) => {
                if !self.records.is_here(*record).await {
                    return Err(Error::refused("a part of it is missing or damaged"));
                }
                let record = &self.bundle.contents.records[*record as usize];
                runs.push((XorbHash::from_bytes(record.hash), chunks.clone()));
            }
            Run::Base(base, chunks) => {
                let base = &self.bundle.contents.bases[*base as usize];
                let chunks = u64::from(chunks.start)..u64::from(chunks.end);
                let found = self.hub.runs_of_file(&base.file, chunks).await?;
                runs.extend(found.ok_or_else(|| {
                    let sha256 = base.sha256;
                    let reason = format!("the bundle builds on the file `{sha256}`");
                    let hint = "ask for one without `--since`";
                    Error::refused(format!("{reason}, which is not here\nhint: {hint}"))
                })?);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn who_waits_for_a_record_hears_what_became_of_it() {
        let records = Records::new(3);
        let mut waiting = [0, 1].map(|record| Box::pin(records.is_here(record)));
        assert!(waiting.iter_mut().all(|wait| wait.as_mut().now_or_never().is_none()));
        records.came(2);
        assert!(waiting.iter_mut().all(|wait| wait.as_mut().now_or_never().is_none()));
        records.came(1);
        records.is_lost(0);
        let [first, second] = waiting;
        assert_eq!((first.await, second.await), (false, true));
        assert!(records.is_here(2).await);
        assert_eq!(records.lost(), BTreeSet::from([0]));
        assert!(!records.is_awaited(0));
    }
}
