//! An object store that fails as real ones do.
//!
//! It wraps another store and decides for each call, from a seed or from a script, whether it
//! fails and how: the effect happens and the answer is lost; the effect happens much later; the
//! call is refused before any effect; a listing is stale; a bit of what is read is wrong. It can
//! also break its word on put-if-absent, as some stores do. Every decision is written down with
//! the seed; a test that fails prints both.

use std::collections::VecDeque;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures_util::future::FutureExt;
use futures_util::stream::{self, BoxStream, StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload,
    ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutMultipartOptions, PutOptions, PutPayload,
    PutResult, Result, UploadPart,
};

use tokio::sync::watch;

use crate::clock::Dice;

/// How many decisions are kept; older ones are forgotten.
const KEPT_DECISIONS: usize = 4096;

/// How many puts a stale listing has not heard of.
const STALE_BY: usize = 32;

/// What goes wrong with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing happens, and the caller hears of an error.
    Refused,
    /// It happens, and the caller hears of an error.
    ReplyLost,
    /// The caller hears of an error; it happens later, or never. Puts and deletes only.
    Late,
    /// One bit of what was read is wrong.
    Flipped,
    /// A listing does not know of the latest puts.
    Stale,
}

/// Kinds of calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// An object in one piece.
    Put,
    /// A part of an object.
    Part,
    /// The end of a write in parts.
    Complete,
    /// An object, a range of one, or its size.
    Get,
    /// A listing.
    List,
    /// A delete.
    Delete,
}

/// How often what happens, out of a thousand calls for which it can happen.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rates {
    /// [`Fault::Refused`], of all calls.
    pub refused: u32,
    /// [`Fault::ReplyLost`], of puts, completions and deletes.
    pub reply_lost: u32,
    /// [`Fault::Late`], of puts and deletes.
    pub late: u32,
    /// How often, before a call, one late effect lands.
    pub landing: u32,
    /// [`Fault::Flipped`], of reads with a body.
    pub flipped: u32,
    /// [`Fault::Stale`], of listings.
    pub stale: u32,
}

/// What the store makes of put-if-absent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Conditions {
    /// It keeps its word.
    #[default]
    Kept,
    /// It never heard of conditions, overwrites, and answers that all is well.
    Ignored,
    /// It looks first, and writes then; in between others may do the same.
    CheckedThenWritten,
}

/// How many calls there were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CallCounts {
    /// Puts.
    pub puts: u64,
    /// Parts.
    pub parts: u64,
    /// Completions.
    pub completions: u64,
    /// Reads of all kinds.
    pub gets: u64,
    /// Listings.
    pub lists: u64,
    /// Deletes.
    pub deletes: u64,
}

/// One decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The kind of the call.
    pub call: Call,
    /// On what.
    pub path: Path,
    /// What went wrong, if anything.
    pub fault: Option<Fault>,
}

#[derive(Debug)]
enum Effect {
    Put { path: Path, payload: PutPayload, options: PutOptions },
    Delete { path: Path },
}

#[derive(Debug)]
struct State {
    dice: Dice,
    rates: Rates,
    conditions: Conditions,
    /// Faults that are due, whatever the dice say.
    script: VecDeque<(Call, Fault)>,
    late: Vec<Effect>,
    latest: VecDeque<Path>,
    decisions: VecDeque<Decision>,
    counts: CallCounts,
    /// Listings of exactly this begin when they are released.
    held: Option<Path>,
    released: watch::Sender<u64>,
}

/// An object store that fails as it is told.
#[derive(Debug)]
pub struct FaultStore {
    inner: Arc<dyn ObjectStore>,
    seed: u64,
    state: Arc<Mutex<State>>,
}

impl FaultStore {
    /// Wraps a store. It works until it is told to fail.
    pub fn new(inner: Arc<dyn ObjectStore>, seed: u64) -> Arc<Self> {
        let state = State {
            dice: Dice::new(seed),
            rates: Rates::default(),
            conditions: Conditions::Kept,
            script: VecDeque::new(),
            late: Vec::new(),
            latest: VecDeque::new(),
            decisions: VecDeque::new(),
            counts: CallCounts::default(),
            held: None,
            released: watch::Sender::new(0),
        };
        Arc::new(Self { inner, seed, state: Arc::new(Mutex::new(state)) })
    }

    /// Fails at random from now on; all zero ends it.
    pub fn set_rates(&self, rates: Rates) {
        self.state().rates = rates;
    }

    /// Breaks its word on put-if-absent from now on.
    pub fn set_conditions(&self, conditions: Conditions) {
        self.state().conditions = conditions;
    }

    /// The next call of that kind fails like this. Faults for one kind are used up in order.
    pub fn fail_next(&self, call: Call, fault: Fault) {
        self.state().script.push_back((call, fault));
    }

    /// How many effects have not landed yet.
    pub fn late_effects(&self) -> usize {
        self.state().late.len()
    }

    /// Lets every late effect land now, in a random order. What is refused then is gone: whoever
    /// sent it stopped listening long ago.
    pub async fn land_all(&self) {
        while self.land_one().await {}
    }

    /// Listings of exactly this begin when they are released.
    pub fn hold(&self, prefix: Path) {
        self.state().held = Some(prefix);
    }

    /// How many listings wait to be released.
    pub fn held(&self) -> usize {
        self.state().released.receiver_count()
    }

    /// Lets listings begin that wait until now, and holds no others.
    pub fn release(&self) {
        let state = &mut *self.state();
        state.held = None;
        state.released.send_modify(|times| *times += 1);
    }

    /// What was decided lately, oldest first.
    pub fn decisions(&self) -> Vec<Decision> {
        self.state().decisions.iter().cloned().collect()
    }

    /// How many calls there were.
    pub fn counts(&self) -> CallCounts {
        self.state().counts
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    async fn land_one(&self) -> bool {
        let effect = {
            let mut state = self.state();
            if state.late.is_empty() {
                return false;
            }
            let waiting = state.late.len() as u64;
            let which = usize::try_from(state.dice.below(waiting)).unwrap_or(0);
            state.late.swap_remove(which)
        };
        match effect {
            Effect::Put { path, payload, options } => {
                drop(self.put_now(&path, payload, options).await);
            }
            Effect::Delete { path } => drop(self.inner.delete(&path).await),
        }
        true
    }

    /// Decides about a call. Before it others get a turn, as many as the dice say, so that each
    /// seed is another order of events; and something late lands now and then.
    async fn decide(&self, call: Call, path: &Path) -> Option<Fault> {
        let (turns, lands) = {
            let state = &mut *self.state();
            (state.dice.below(4), state.dice.happens(state.rates.landing))
        };
        for _ in 0..turns {
            tokio::task::yield_now().await;
        }
        if lands {
            self.land_one().await;
        }
        self.state().decide(call, path)
    }

    async fn put_now(
        &self,
        path: &Path,
        payload: PutPayload,
        mut options: PutOptions,
    ) -> Result<PutResult> {
        let conditions = self.state().conditions;
        if matches!(options.mode, PutMode::Create) && conditions != Conditions::Kept {
            if conditions == Conditions::CheckedThenWritten {
                if self.inner.head(path).await.is_ok() {
                    return Err(Error::AlreadyExists {
                        path: path.to_string(),
                        source: "checked".into(),
                    });
                }
                tokio::task::yield_now().await;
            }
            options.mode = PutMode::Overwrite;
        }
        let done = self.inner.put_opts(path, payload, options).await;
        if done.is_ok() {
            self.state().remember(path);
        }
        done
    }

    fn flip(&self, bytes: &Bytes) -> Bytes {
        if bytes.is_empty() {
            return bytes.clone();
        }
        let mut flipped = BytesMut::from(bytes.as_ref());
        let state = &mut *self.state();
        let at = usize::try_from(state.dice.below(bytes.len() as u64)).unwrap_or(0);
        flipped[at] ^= 1 << state.dice.below(8);
        flipped.freeze()
    }
}

impl State {
    fn decide(&mut self, call: Call, path: &Path) -> Option<Fault> {
        self.count(call);
        let due = self.script.iter().position(|(kind, _)| *kind == call);
        let fault = match due.and_then(|at| self.script.remove(at)) {
            Some((_, fault)) => Some(fault),
            None => self.roll(call),
        };
        if self.decisions.len() == KEPT_DECISIONS {
            self.decisions.pop_front();
        }
        self.decisions.push_back(Decision { call, path: path.clone(), fault });
        fault
    }

    fn roll(&mut self, call: Call) -> Option<Fault> {
        let rates = self.rates;
        let changes = matches!(call, Call::Put | Call::Complete | Call::Delete);
        let may_be_late = matches!(call, Call::Put | Call::Delete);
        let possible = [
            (true, rates.refused, Fault::Refused),
            (changes, rates.reply_lost, Fault::ReplyLost),
            (may_be_late, rates.late, Fault::Late),
            (call == Call::Get, rates.flipped, Fault::Flipped),
            (call == Call::List, rates.stale, Fault::Stale),
        ];
        let mut chosen = None;
        for (can_happen, rate, fault) in possible {
            if can_happen && chosen.is_none() && self.dice.happens(rate) {
                chosen = Some(fault);
            }
        }
        chosen
    }

    fn count(&mut self, call: Call) {
        let counts = &mut self.counts;
        let counter = match call {
            Call::Put => &mut counts.puts,
            Call::Part => &mut counts.parts,
            Call::Complete => &mut counts.completions,
            Call::Get => &mut counts.gets,
            Call::List => &mut counts.lists,
            Call::Delete => &mut counts.deletes,
        };
        *counter += 1;
    }

    fn remember(&mut self, path: &Path) {
        if self.latest.len() == STALE_BY {
            self.latest.pop_front();
        }
        self.latest.push_back(path.clone());
    }
}

impl Drop for FaultStore {
    #[expect(clippy::print_stderr, reason = "a test that fails must say how to repeat it")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("SEED={}", self.seed);
            for decision in self.decisions().iter().filter(|decision| decision.fault.is_some()) {
                eprintln!("{:?} {}: {:?}", decision.call, decision.path, decision.fault);
            }
        }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn no_answer() -> Error {
    Error::Generic { store: "fault", source: "the connection was reset".into() }
}

impl fmt::Display for FaultStore {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "FaultStore({}, seed {})", self.inner, self.seed)
    }
}

#[async_trait]
impl ObjectStore for FaultStore {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        match self.decide(Call::Put, location).await {
            Some(Fault::Refused) => Err(no_answer()),
            Some(Fault::Late) => {
                let path = location.clone();
                self.state().late.push(Effect::Put { path, payload, options });
                Err(no_answer())
            }
            Some(Fault::ReplyLost) => {
                drop(self.put_now(location, payload, options).await);
                Err(no_answer())
            }
            _ => self.put_now(location, payload, options).await,
        }
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let inner = self.inner.put_multipart_opts(location, options).await?;
        let (path, state) = (location.clone(), Arc::clone(&self.state));
        Ok(Box::new(FaultUpload { inner, path, state }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let fault = self.decide(Call::Get, location).await;
        if matches!(fault, Some(Fault::Refused | Fault::ReplyLost)) {
            return Err(no_answer());
        }
        let without_body = options.head;
        let found = self.inner.get_opts(location, options).await?;
        if fault != Some(Fault::Flipped) || without_body {
            return Ok(found);
        }
        let (meta, range, attributes, extensions) = (
            found.meta.clone(),
            found.range.clone(),
            found.attributes.clone(),
            found.extensions.clone(),
        );
        let bytes = self.flip(&found.bytes().await?);
        let payload = GetResultPayload::Stream(stream::iter([Ok(bytes)]).boxed());
        Ok(GetResult { payload, meta, range, attributes, extensions })
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let fault = self.decide(Call::Get, location).await;
        if matches!(fault, Some(Fault::Refused | Fault::ReplyLost)) {
            return Err(no_answer());
        }
        let mut found = self.inner.get_ranges(location, ranges).await?;
        if fault == Some(Fault::Flipped)
            && let Some(first) = found.first_mut()
        {
            *first = self.flip(first);
        }
        Ok(found)
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let (inner, state) = (Arc::clone(&self.inner), Arc::clone(&self.state));
        locations
            .and_then(move |path| {
                let (inner, state) = (Arc::clone(&inner), Arc::clone(&state));
                async move {
                    let fault = lock(&state).decide(Call::Delete, &path);
                    match fault {
                        Some(Fault::Refused) => return Err(no_answer()),
                        Some(Fault::Late) => {
                            lock(&state).late.push(Effect::Delete { path });
                            return Err(no_answer());
                        }
                        _ => {}
                    }
                    let deleted = inner.delete(&path).await;
                    if fault == Some(Fault::ReplyLost) {
                        return Err(no_answer());
                    }
                    deleted.map(|()| path)
                }
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let root = Path::default();
        let (fault, unheard_of, held) = {
            let state = &mut *self.state();
            let fault = state.decide(Call::List, prefix.unwrap_or(&root));
            let is_held = state.held.is_some() && state.held.as_ref() == prefix;
            (fault, state.latest.clone(), is_held.then(|| state.released.subscribe()))
        };
        if let Some(mut released) = held {
            let (inner, prefix) = (Arc::clone(&self.inner), prefix.cloned());
            let begins = async move {
                drop(released.changed().await);
                inner.list(prefix.as_ref())
            };
            return begins.flatten_stream().boxed();
        }
        match fault {
            Some(Fault::Refused | Fault::ReplyLost) => stream::iter([Err(no_answer())]).boxed(),
            Some(Fault::Stale) => self
                .inner
                .list(prefix)
                .try_filter(move |meta| std::future::ready(!unheard_of.contains(&meta.location)))
                .boxed(),
            _ => self.inner.list(prefix),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let root = Path::default();
        let fault = self.decide(Call::List, prefix.unwrap_or(&root)).await;
        if matches!(fault, Some(Fault::Refused | Fault::ReplyLost)) {
            return Err(no_answer());
        }
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

#[derive(Debug)]
struct FaultUpload {
    inner: Box<dyn MultipartUpload>,
    path: Path,
    state: Arc<Mutex<State>>,
}

#[async_trait]
impl MultipartUpload for FaultUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let fault = lock(&self.state).decide(Call::Part, &self.path);
        if fault.is_some() {
            return async { Err(no_answer()) }.boxed();
        }
        self.inner.put_part(data)
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let fault = lock(&self.state).decide(Call::Complete, &self.path);
        match fault {
            Some(Fault::ReplyLost) => {
                drop(self.inner.complete().await);
                lock(&self.state).remember(&self.path);
                Err(no_answer())
            }
            Some(_) => Err(no_answer()),
            None => {
                let done = self.inner.complete().await;
                lock(&self.state).remember(&self.path);
                done
            }
        }
    }

    async fn abort(&mut self) -> Result<()> {
        self.inner.abort().await
    }
}

#[cfg(test)]
mod tests;
