//! What all actors share: the servers' addresses, what was acknowledged, clocks, and how it goes.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Result, ensure};
use ballast_store::env::{Env as _, RealEnv};
use ballast_testkit::clock::Dice;
use ballast_testkit::s3::S3Server;

use crate::SERVERS;
use crate::plan::Planned;

const DAY: i64 = 24 * 60 * 60;
/// A repo is known to all servers so long after it was made: six times what the settings say.
const KNOWN_AFTER: Duration = Duration::from_secs(3);
/// Longer than a server takes to look at its clock file again.
const CLOCKS_FOLLOW: Duration = Duration::from_secs(3);

/// A commit that a server acknowledged.
#[derive(Clone, Debug)]
pub(crate) struct Acked {
    pub(crate) oid: String,
    pub(crate) files: Vec<Planned>,
}

/// Whether a repo is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Living,
    /// Somebody asked for its end, and was not told that it came.
    Doomed,
    Gone,
}

/// A repo that a server acknowledged.
#[derive(Clone, Debug)]
pub(crate) struct Repo {
    pub(crate) name: String,
    pub(crate) fate: Fate,
    pub(crate) acked: Vec<Acked>,
    /// The last acknowledged commit of each writer.
    pub(crate) latest: BTreeMap<usize, u64>,
    made: Duration,
}

/// The state of the whole.
pub(crate) struct World {
    pub(crate) seed: u64,
    endpoints: Mutex<Vec<String>>,
    pub(crate) token: String,
    pub(crate) s3: Arc<S3Server>,
    env: RealEnv,
    until: Duration,
    clocks: PathBuf,
    /// Seconds by which all clocks are ahead of the machine's.
    ahead: AtomicI64,
    /// When days went by, and how many it were in all.
    passed: Mutex<Vec<(Duration, i64)>>,
    skews: [AtomicI64; SERVERS + 1],
    repos: Mutex<Vec<Repo>>,
    names: AtomicU64,
    counts: Mutex<BTreeMap<String, u64>>,
    violations: Mutex<Vec<String>>,
    /// Whether the run ends with the first violation.
    ends_early: bool,
    /// Requests that were answered.
    answered: Mutex<u64>,
    moved: Condvar,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl World {
    pub(crate) fn new(
        seed: u64,
        lasts: Duration,
        s3: Arc<S3Server>,
        clocks: &Path,
    ) -> Result<Self> {
        let env = RealEnv::new();
        let world = Self {
            seed,
            endpoints: Mutex::default(),
            token: String::new(),
            s3,
            until: env.monotonic() + lasts,
            env,
            clocks: clocks.to_owned(),
            ahead: AtomicI64::new(0),
            passed: Mutex::default(),
            skews: [const { AtomicI64::new(0) }; SERVERS + 1],
            repos: Mutex::default(),
            names: AtomicU64::new(0),
            counts: Mutex::default(),
            violations: Mutex::default(),
            ends_early: std::env::var_os("TORTURE_GOES_ON").is_none(),
            answered: Mutex::new(0),
            moved: Condvar::new(),
        };
        world.pass_days(0)?;
        Ok(world)
    }

    /// Where this server is.
    pub(crate) fn endpoint(&self, server: usize) -> String {
        lock(&self.endpoints)[server].clone()
    }

    pub(crate) fn set_endpoints(&self, endpoints: Vec<String>) {
        *lock(&self.endpoints) = endpoints;
    }

    pub(crate) fn is_over(&self) -> bool {
        let is_violated = || self.ends_early && !lock(&self.violations).is_empty();
        self.env.monotonic() > self.until || is_violated()
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.env.monotonic()
    }

    /// Waits until so many more requests were answered, but not longer than this.
    pub(crate) fn wait(&self, answers: u64, at_most: Duration) {
        let answered = lock(&self.answered);
        let enough = *answered + answers;
        let waiting = |answered: &mut u64| *answered < enough;
        drop(self.moved.wait_timeout_while(answered, at_most, waiting));
    }

    pub(crate) fn answered(&self) {
        *lock(&self.answered) += 1;
        self.moved.notify_all();
    }

    pub(crate) fn count(&self, what: &str) {
        self.count_more(what, 1);
    }

    pub(crate) fn count_more(&self, what: &str, more: u64) {
        *lock(&self.counts).entry(what.to_owned()).or_default() += more;
    }

    pub(crate) fn counted(&self, what: &str) -> u64 {
        lock(&self.counts).get(what).copied().unwrap_or(0)
    }

    /// Notes what must not be. The run ends then.
    pub(crate) fn violated(&self, what: String) {
        eprintln!("VIOLATION {what}");
        lock(&self.violations).push(what);
    }

    pub(crate) fn no_violations(&self) -> Result<()> {
        let violations = lock(&self.violations);
        ensure!(violations.is_empty(), "SEED={}: {violations:#?}", self.seed);
        Ok(())
    }

    pub(crate) fn report(&self) {
        println!("{:#?}", lock(&self.counts));
        let repos = self.repos();
        let living = repos.iter().filter(|repo| repo.fate == Fate::Living);
        let commits: usize = living.clone().map(|repo| repo.acked.len()).sum();
        let days = self.ahead.load(Ordering::Relaxed) / DAY;
        let (all, living) = (repos.len(), living.count());
        println!("{all} repos, {living} living with {commits} commits; {days} days");
    }

    // Clocks

    pub(crate) fn clock_file(&self, server: usize) -> PathBuf {
        self.clocks.join(server.to_string())
    }

    /// Days by which all clocks are ahead.
    pub(crate) fn days(&self) -> i64 {
        self.ahead.load(Ordering::Relaxed) / DAY
    }

    /// Days by which the clocks of all servers are ahead at least: they look once a second.
    pub(crate) fn settled_days(&self) -> i64 {
        let now = self.env.monotonic();
        let passed = lock(&self.passed);
        let settled = passed.iter().rev().find(|(at, _)| now > *at + CLOCKS_FOLLOW);
        settled.map_or(0, |(_, days)| *days)
    }

    /// Days go by, everywhere.
    pub(crate) fn pass_days(&self, days: i64) -> Result<()> {
        let ahead = self.ahead.fetch_add(days * DAY, Ordering::Relaxed) + days * DAY;
        lock(&self.passed).push((self.env.monotonic(), ahead / DAY));
        self.s3.set_ahead(Duration::from_secs(ahead.unsigned_abs()));
        (0..=SERVERS).try_for_each(|server| self.set_clock(server))
    }

    /// One server's clock is so many seconds off.
    pub(crate) fn skew(&self, server: usize, seconds: i64) -> Result<()> {
        self.skews[server].store(seconds, Ordering::Relaxed);
        self.set_clock(server)
    }

    fn set_clock(&self, server: usize) -> Result<()> {
        let ahead = self.ahead.load(Ordering::Relaxed);
        let seconds = ahead + self.skews[server].load(Ordering::Relaxed);
        let file = self.clock_file(server);
        // Whoever reads it finds the old text or the new one.
        fs::write(file.with_extension("new"), format!("{seconds:+}\n"))?;
        Ok(fs::rename(file.with_extension("new"), &file)?)
    }

    // Repos

    pub(crate) fn repos(&self) -> Vec<Repo> {
        lock(&self.repos).clone()
    }

    pub(crate) fn new_name(&self) -> String {
        format!("admin/r{}", self.names.fetch_add(1, Ordering::Relaxed))
    }

    pub(crate) fn living(&self) -> usize {
        lock(&self.repos).iter().filter(|repo| repo.fate == Fate::Living).count()
    }

    pub(crate) fn made(&self, name: &str) {
        lock(&self.repos).push(Repo {
            name: name.to_owned(),
            fate: Fate::Living,
            acked: Vec::new(),
            latest: BTreeMap::new(),
            made: self.env.monotonic(),
        });
    }

    pub(crate) fn set_fate(&self, name: &str, fate: Fate) {
        let mut repos = lock(&self.repos);
        repos.iter_mut().filter(|repo| repo.name == name).for_each(|repo| repo.fate = fate);
    }

    /// A living repo that every server knows of.
    pub(crate) fn pick(&self, dice: &mut Dice) -> Option<String> {
        let known = |repo: &&Repo| {
            repo.fate == Fate::Living && self.env.monotonic() > repo.made + KNOWN_AFTER
        };
        let repos = lock(&self.repos);
        let names: Vec<&str> = repos.iter().filter(known).map(|repo| repo.name.as_str()).collect();
        let place = usize::try_from(dice.below(names.len().max(1) as u64)).ok()?;
        names.get(place).map(|name| (*name).to_owned())
    }

    pub(crate) fn is_living(&self, name: &str) -> bool {
        let repos = lock(&self.repos);
        repos.iter().any(|repo| repo.name == name && repo.fate == Fate::Living)
    }

    pub(crate) fn acked(&self, name: &str, writer: usize, serial: u64, acked: Acked) {
        self.count("commits acknowledged");
        let mut repos = lock(&self.repos);
        if let Some(repo) = repos.iter_mut().find(|repo| repo.name == name) {
            repo.acked.push(acked);
            repo.latest.insert(writer, serial);
        }
    }

    /// Some acknowledged commit of a repo.
    pub(crate) fn any_acked(&self, name: &str, dice: &mut Dice) -> Option<Acked> {
        let repos = lock(&self.repos);
        let repo = repos.iter().find(|repo| repo.name == name)?;
        let place = usize::try_from(dice.below(repo.acked.len().max(1) as u64)).ok()?;
        repo.acked.get(place).cloned()
    }
}
