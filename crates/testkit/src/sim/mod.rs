//! A simulated world: processes on one store that fail, sleep and die, with clocks that are wrong.
//!
//! Everything that happens follows from one seed: how long each call takes and what becomes of it,
//! and so the order of everything. Time passes only when everybody waits, and then as far as the
//! first who wakes, so that weeks take milliseconds. The code under test must not use threads, and
//! must not call the store in an order that is another in each run.

mod connection;
mod process;
mod time;

pub use process::{Habits, Process};
pub use time::SimTime;

use std::collections::btree_map::OccupiedEntry;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt::Write as _;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::FutureExt as _;
use futures_util::stream::StreamExt as _;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    GetOptions, GetResult, ObjectMeta, ObjectStore, ObjectStoreExt as _, PutMode, PutOptions,
    PutPayload, PutResult, Result,
};

use crate::clock::{Dice, START_MS};

/// Decisions that are kept to be shown.
const KEPT: usize = 400;

/// Something that was sent and has not happened yet.
#[derive(Debug)]
enum Late {
    Put { path: Path, payload: PutPayload, mode: PutMode },
    Delete { path: Path },
}

#[derive(Debug)]
struct State {
    dice: Dice,
    /// When the store got each object, in milliseconds by its own clock.
    modified_ms: HashMap<Path, u64>,
    late: BTreeMap<(Duration, u64), Late>,
    sent: u64,
    processes: usize,
    digest: u64,
    decisions: u64,
    latest: VecDeque<String>,
}

/// The world of one run.
#[derive(Debug)]
pub struct World {
    seed: u64,
    time: Arc<SimTime>,
    objects: InMemory,
    state: Mutex<State>,
}

impl World {
    /// The world of a seed, with an empty store.
    pub fn new(seed: u64) -> Arc<Self> {
        let state = State {
            dice: Dice::new(seed),
            modified_ms: HashMap::new(),
            late: BTreeMap::new(),
            sent: 0,
            processes: 0,
            digest: 0xCBF2_9CE4_8422_2325,
            decisions: 0,
            latest: VecDeque::new(),
        };
        let (time, objects) = (SimTime::new(), InMemory::new());
        Arc::new(Self { seed, time, objects, state: Mutex::new(state) })
    }

    /// Runs this to its end, with everything that it starts.
    pub fn run<T>(&self, work: impl Future<Output = T>) -> T {
        time::run(&self.time, work)
    }

    /// What everything follows from.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// The one time there is, whatever the clocks say.
    pub fn time(&self) -> &Arc<SimTime> {
        &self.time
    }

    /// Waits for so long.
    pub async fn pass(&self, time: Duration) {
        self.time.sleep(time).await;
    }

    /// What the right clock says, in milliseconds since 1970.
    pub fn now_ms(&self) -> u64 {
        START_MS + u64::try_from(self.time.now().as_millis()).unwrap_or(u64::MAX)
    }

    /// A number under `bound`, which must not be zero.
    pub fn below(&self, bound: u64) -> u64 {
        self.state().dice.below(bound)
    }

    /// Does something happen that happens so many times in a thousand?
    pub fn happens(&self, per_mille: u32) -> bool {
        self.state().dice.happens(per_mille)
    }

    /// One of these.
    pub fn pick<'a, T>(&self, from: &'a [T]) -> &'a T {
        &from[usize::try_from(self.below(from.len() as u64)).expect("few")]
    }

    /// A time between these, the short ones as often as the long.
    pub fn between(&self, shortest: Duration, longest: Duration) -> Duration {
        between(&mut self.state().dice, shortest, longest)
    }

    /// One more process, with habits of its own.
    pub fn process(self: &Arc<Self>, habits: Habits) -> Arc<Process> {
        let (number, seed) = {
            let state = &mut *self.state();
            state.processes += 1;
            (state.processes, state.dice.draw())
        };
        Process::new(self, number, seed, habits)
    }

    /// Writes down that something happened: it becomes part of the digest.
    pub fn note(&self, what: &str) {
        let now = self.time.now();
        let state = &mut *self.state();
        for byte in what.bytes().chain(now.as_nanos().to_le_bytes()) {
            state.digest = (state.digest ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3);
        }
        state.decisions += 1;
        if state.latest.len() == KEPT {
            state.latest.pop_front();
        }
        state.latest.push_back(format!("{:>14.3} {what}", now.as_secs_f64()));
    }

    /// A number that two runs share only if the same happened in both.
    pub fn digest(&self) -> u64 {
        self.state().digest
    }

    /// How much was written down.
    pub fn decisions(&self) -> u64 {
        self.state().decisions
    }

    /// What happened last.
    pub fn story(&self) -> String {
        self.state().latest.iter().fold(String::new(), |mut story, line| {
            let _ = writeln!(story, "{line}");
            story
        })
    }

    /// How much was sent and has not happened yet.
    pub fn late(&self) -> usize {
        self.state().late.len()
    }

    /// Lets everything happen now that was sent.
    pub fn land_all(&self) {
        self.land(Duration::MAX);
    }

    /// What is stored, by name.
    pub async fn stored(&self) -> Vec<ObjectMeta> {
        self.land(self.time.now());
        self.objects.list(None).map(|meta| self.dated(meta.expect("memory lists"))).collect().await
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets happen what was to happen until then.
    fn land(&self, until: Duration) {
        loop {
            let late = {
                let state = &mut *self.state();
                let due = state.late.first_entry().filter(|entry| entry.key().0 <= until);
                due.map(OccupiedEntry::remove)
            };
            let Some(late) = late else { return };
            self.note(&format!("lands: {late:?}"));
            match late {
                Late::Put { path, payload, mode } => drop(self.put(&path, payload, mode)),
                Late::Delete { path } => drop(self.delete(&path)),
            }
        }
    }

    /// Something happens so much later.
    fn send_late(&self, after: Duration, late: Late) {
        let at = self.time.now() + after;
        let state = &mut *self.state();
        state.sent += 1;
        let number = state.sent;
        state.late.insert((at, number), late);
    }

    fn put(&self, path: &Path, payload: PutPayload, mode: PutMode) -> Result<PutResult> {
        let options = PutOptions { mode, ..PutOptions::default() };
        let done = self.objects.put_opts(path, payload, options).now_or_never();
        let done = done.expect("memory answers at once")?;
        let now_ms = self.now_ms();
        self.state().modified_ms.insert(path.clone(), now_ms);
        Ok(done)
    }

    fn delete(&self, path: &Path) -> Result<()> {
        self.objects.delete(path).now_or_never().expect("memory answers at once")
    }

    fn get(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        let got = self.objects.get_opts(path, options).now_or_never();
        let mut got = got.expect("memory answers at once")?;
        got.meta = self.dated(got.meta);
        Ok(got)
    }

    /// Its age by the store's clock.
    fn dated(&self, mut meta: ObjectMeta) -> ObjectMeta {
        let ms = self.state().modified_ms.get(&meta.location).copied().unwrap_or(START_MS);
        // 1970, in a type that is not ours to name.
        std::mem::take(&mut meta.last_modified);
        meta.last_modified += Duration::from_millis(ms);
        meta
    }
}

fn between(dice: &mut Dice, shortest: Duration, longest: Duration) -> Duration {
    let shortest = u64::try_from(shortest.as_millis()).unwrap_or(u64::MAX).max(1);
    let longest = u64::try_from(longest.as_millis()).unwrap_or(u64::MAX).max(shortest);
    // A random number of doublings, and what is left of the last one.
    let doublings = u64::from((longest / shortest).ilog2()) + 1;
    let base = shortest << dice.below(doublings);
    Duration::from_millis((base + dice.below(base)).min(longest))
}

/// The seeds of a test: `SEED` from the environment (`7`, or `0..500`), if it is set; so many fixed
/// ones and `FRESH_SEEDS` (or this many) new ones otherwise.
pub fn seeds(fixed: u64, fresh: u64) -> Vec<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    if let Some(seed) = number("SEED") {
        return vec![seed];
    }
    if let Ok(range) = std::env::var("SEED") {
        let ends = range.split_once("..").map(|(from, to)| (from.parse(), to.parse()));
        let Some((Ok(from), Ok(to))) = ends else { panic!("SEED is a number or a range") };
        return (from..to).collect();
    }
    let fresh = number("FRESH_SEEDS").unwrap_or(fresh);
    // The only place where a run differs from the next: its seeds are printed.
    let mut draw = [0; 8];
    ballast_store::env::Env::fill_random(&ballast_store::env::RealEnv::new(), &mut draw);
    let first = u64::from_le_bytes(draw) >> 20;
    (0..fixed).chain((0..fresh).map(|number| first + number)).collect()
}
