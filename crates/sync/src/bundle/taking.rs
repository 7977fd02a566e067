//! Files are taken in while their chunks arrive: each is hashed as it is heard of, while the
//! records behind it are read and stored. What was missed is read back from the store.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use ballast_format::bundle::{CarriedFile, Run};
use ballast_format::hash::{ShardHash, XorbHash};
use ballast_format::pack::FileLink;
use ballast_node::access::Caller;
use ballast_node::hub::Hub;
use ballast_node::upload::{ChunkRun, Listener, Proof, TakenFile};
use tokio::sync::watch;

use super::error::{Error, Result};
use super::open::OpenBundle;

/// Files that are registered together.
const FILES_AT_ONCE: usize = 64;
/// Runs of a file that are hashed together.
const RUNS_AT_ONCE: usize = 4096;
/// Who reads more chunks than this from the store lets those that come pass: some 256 MiB.
const LONG_CHUNKS: u32 = 4096;

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

    fn state(&self, record: u32) -> State {
        self.0.borrow()[record as usize]
    }

    /// Waits until it is known what became of a record.
    async fn is_known(&self, record: u32) {
        let mut records = self.0.subscribe();
        // Its sender is ours: it is not gone.
        drop(records.wait_for(|records| records[record as usize] != State::Awaited).await);
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
    pub(super) async fn files(
        &self,
        numbers: &[u32],
        listener: &mut Listener,
    ) -> Result<Vec<FileLink>> {
        let (mut links, mut heard) = (Vec::new(), Vec::new());
        for number in numbers {
            let file = &self.bundle.contents.files[*number as usize];
            let CarriedFile { sha256, file: hash, size, .. } = *file;
            let taken = TakenFile { sha256, file: hash, size };
            if size == 0 {
                links.push(FileLink { sha256, file: hash, shard: ShardHash::ZERO, size });
            } else if let Some(link) = self.hub.taken_file(self.caller, &taken).await? {
                links.push(link);
            } else {
                heard.push((file, taken, self.hear(file, listener).await?));
            }
            if heard.len() == FILES_AT_ONCE {
                links.extend(self.register(std::mem::take(&mut heard), listener).await?);
            }
        }
        links.extend(self.register(heard, listener).await?);
        Ok(links)
    }

    /// Hashes a file as its chunks come.
    async fn hear(&self, file: &CarriedFile, listener: &mut Listener) -> Result<Proof> {
        let mut hearing = Hearing { taking: self, listener, proof: Proof::default(), runs: vec![] };
        for run in &file.runs {
            match run {
                Run::Record(record, chunks) => hearing.hear(*record, chunks.clone()).await?,
                Run::Base(base, chunks) => hearing.find(*base, chunks.clone()).await?,
            }
            if hearing.runs.len() >= RUNS_AT_ONCE {
                hearing.read().await?;
            }
        }
        hearing.read().await?;
        Ok(hearing.proof)
    }

    /// Registers files when all that they are made of is stored.
    async fn register(
        &self,
        heard: Vec<(&CarriedFile, TakenFile, Proof)>,
        listener: &Listener,
    ) -> Result<Vec<FileLink>> {
        // The end of a record is not stored before somebody has heard it.
        listener.listen(false);
        let mut proved = Vec::with_capacity(heard.len());
        for (file, taken, proof) in heard {
            for run in &file.runs {
                if let Run::Record(record, _) = run {
                    self.records.is_known(*record).await;
                }
            }
            proved.push(proof.finish(self.hub, &taken).await?);
        }
        let links = self.hub.take_proved(self.caller, proved).await?;
        listener.listen(true);
        Ok(links)
    }
}

/// A file that is being heard.
struct Hearing<'a> {
    taking: &'a Taking<'a>,
    listener: &'a mut Listener,
    proof: Proof,
    /// What is stored and comes next.
    runs: Vec<ChunkRun>,
}

impl Hearing<'_> {
    /// Goes on with chunks of a record.
    async fn hear(&mut self, number: u32, chunks: Range<u32>) -> Result<()> {
        let Taking { hub, bundle, records, .. } = self.taking;
        let xorb = XorbHash::from_bytes(bundle.contents.records[number as usize].hash);
        let mut at = chunks.start;
        while at < chunks.end {
            let heard = self.listener.take(number, at..chunks.end);
            if !heard.is_empty() {
                self.read().await?;
                let next = at + u32::try_from(heard.len()).unwrap_or(u32::MAX);
                let proof = std::mem::take(&mut self.proof);
                self.proof = proof.go_on_with(hub, (xorb, at..next), heard).await?;
                at = next;
                continue;
            }
            match records.state(number) {
                State::Here => {
                    self.runs.push((xorb, at..chunks.end));
                    return Ok(());
                }
                State::Lost => return Err(Error::refused("a part of it is missing or damaged")),
                State::Awaited => {}
            }
            self.read().await?;
            if self.listener.is_past(number) {
                // All of it was told, and it is being made durable.
                records.is_known(number).await;
                continue;
            }
            tokio::select! {
                biased;
                () = self.listener.go_on() => {}
                () = records.is_known(number) => {}
            }
        }
        Ok(())
    }

    /// Goes on with chunks of a file that is here.
    async fn find(&mut self, base: u32, chunks: Range<u32>) -> Result<()> {
        let base = &self.taking.bundle.contents.bases[base as usize];
        let chunks = u64::from(chunks.start)..u64::from(chunks.end);
        let found = self.taking.hub.runs_of_file(&base.file, chunks).await?;
        self.runs.extend(found.ok_or_else(|| {
            let reason = format!("the bundle builds on the file `{}`", base.sha256);
            let hint = "ask for one without `--since`";
            Error::refused(format!("{reason}, which is not here\nhint: {hint}"))
        })?);
        Ok(())
    }

    /// Hashes what is stored and comes next.
    async fn read(&mut self) -> Result<()> {
        if self.runs.is_empty() {
            return Ok(());
        }
        let runs = std::mem::take(&mut self.runs);
        let count = |sum: u32, run: &ChunkRun| sum.saturating_add(run.1.end - run.1.start);
        self.listener.listen(runs.iter().fold(0, count) <= LONG_CHUNKS);
        self.proof = std::mem::take(&mut self.proof).go_on(self.taking.hub, &runs).await?;
        self.listener.listen(true);
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
        let mut waiting = [0, 1].map(|record| Box::pin(records.is_known(record)));
        assert!(waiting.iter_mut().all(|wait| wait.as_mut().now_or_never().is_none()));
        records.came(2);
        assert!(waiting.iter_mut().all(|wait| wait.as_mut().now_or_never().is_none()));
        records.came(1);
        records.is_lost(0);
        futures_util::future::join_all(waiting).await;
        let states = [0, 1, 2].map(|record| records.state(record));
        assert_eq!(states, [State::Lost, State::Here, State::Here]);
        assert_eq!(records.lost(), BTreeSet::from([0]));
    }
}
