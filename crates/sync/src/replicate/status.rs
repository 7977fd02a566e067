//! How far a region is with the repos that it follows.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use ballast_format::id::RepoId;
use ballast_format::name::RegionName;
use ballast_node::origin::Figure;

use super::home::{Progress, Told};

/// How long a speed is measured back, at least.
const SPEED_WINDOW_MS: u64 = 10_000;

/// How fast bytes came lately.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Speed {
    /// Since when it is measured, and how many bytes had come; the window before and this one.
    windows: Option<[(u64, u64); 2]>,
}

impl Speed {
    /// So many bytes have come in all.
    fn note(&mut self, now_ms: u64, bytes: u64) {
        let [_, last] = *self.windows.get_or_insert([(now_ms, bytes); 2]);
        if now_ms.saturating_sub(last.0) >= SPEED_WINDOW_MS {
            self.windows = Some([last, (now_ms, bytes)]);
        }
    }

    /// How long so many bytes more may take, in seconds, if it goes on like this.
    fn eta(&self, now_ms: u64, bytes: u64, more: u64) -> Option<u64> {
        let [(since_ms, had), _] = self.windows?;
        let took_ms = u128::from(now_ms.saturating_sub(since_ms));
        let came = u128::from(bytes.saturating_sub(had));
        // Less than a whole second says nothing.
        let takes_ms =
            (u128::from(more) * took_ms).checked_div(came).filter(|_| took_ms >= 1000)?;
        u64::try_from(takes_ms.div_ceil(1000)).ok()
    }
}

/// How far one repo is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RepoStatus {
    /// By which replication it comes, if by any now.
    pub by: Option<RegionName>,
    /// The number of the last entry that the home has.
    pub tail: u64,
    /// The number of the last entry that has arrived.
    pub known: u64,
    /// When the first entry was written that is not here, or when it was heard of, in unix
    /// milliseconds.
    pub behind_since_ms: Option<u64>,
    /// Bytes of chunks that are known to be missing.
    pub missing: u64,
    /// Bytes of chunks that came, since this process began.
    pub fetched: u64,
    /// Bytes of chunks that were here anyhow, since this process began.
    pub saved: u64,
    /// Why it does not go on, if it does not.
    pub problem: Option<String>,
    speed: Speed,
}

impl RepoStatus {
    /// The home has entries up to `tail`, and those up to `known` are here.
    pub(super) fn stand(&mut self, by: &RegionName, (tail, known): (u64, u64), now_ms: u64) {
        self.by = Some(by.clone());
        (self.tail, self.known) = (tail.max(known), known);
        if self.tail == self.known {
            (self.behind_since_ms, self.missing) = (None, 0);
            self.speed = Speed::default();
        } else {
            self.behind_since_ms.get_or_insert(now_ms);
        }
    }

    /// Chunks came, and so many bytes of them were missing.
    pub(super) fn came(&mut self, bytes: u64, missing: u64, now_ms: u64) {
        self.speed.note(now_ms, self.fetched);
        self.fetched += bytes;
        self.missing = self.missing.saturating_sub(missing);
    }

    /// As the home hears it; `now_ms` is the clock.
    pub fn progress(&self, now_ms: u64) -> Progress {
        let behind = self.behind_since_ms.map_or(0, |since| now_ms.saturating_sub(since) / 1000);
        Progress {
            lag_entries: self.tail.saturating_sub(self.known),
            lag_bytes: self.missing,
            lag_seconds: behind,
            fetched: self.fetched,
            saved: self.saved,
            eta_seconds: match self.missing {
                0 => None,
                more => self.speed.eta(now_ms, self.fetched, more),
            },
        }
    }
}

/// How far everything is that comes from one region.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// The region's own name, once it was heard.
    pub region: Option<RegionName>,
    /// When it was last heard of, in unix milliseconds.
    pub heard_ms: Option<u64>,
    /// Why it can't be asked, if it can't.
    pub problem: Option<String>,
    /// The repos.
    pub repos: BTreeMap<RepoId, RepoStatus>,
}

impl Status {
    /// How far all repos of each replication are.
    pub(super) fn lags(&self, now_ms: u64) -> BTreeMap<RegionName, Lag> {
        let mut lags: BTreeMap<RegionName, Lag> = BTreeMap::new();
        for repo in self.repos.values() {
            let Some(by) = &repo.by else { continue };
            lags.entry(by.clone()).or_default().add(&repo.progress(now_ms));
        }
        lags
    }
}

/// How far several repos are: entries and bytes of all, seconds of the one that is furthest behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Lag {
    entries: u64,
    bytes: u64,
    seconds: u64,
}

impl Lag {
    fn add(&mut self, progress: &Progress) {
        self.entries += progress.lag_entries;
        self.bytes += progress.lag_bytes;
        self.seconds = self.seconds.max(progress.lag_seconds);
    }
}

/// Lags as metrics, each under these labels.
pub(super) fn lag_figures(lags: &[(String, Lag)]) -> Vec<Figure> {
    let of = |what: &str, read: fn(&Lag) -> u64| {
        let figure = |(labels, lag): &(String, Lag)| {
            Figure::gauge(format!("replicate_lag_{what}{{{labels}}}"), read(lag))
        };
        lags.iter().map(figure).collect::<Vec<_>>()
    };
    let (entries, bytes) = (of("entries", |lag| lag.entries), of("bytes", |lag| lag.bytes));
    [entries, bytes, of("seconds", |lag| lag.seconds)].concat()
}

/// How far other regions are, as they told it last.
pub(super) fn told_figures(told: &Told) -> Vec<Figure> {
    let told = told.lock().unwrap_or_else(PoisonError::into_inner);
    let lag = |repos: &BTreeMap<RepoId, Progress>| {
        let mut lag = Lag::default();
        for progress in repos.values() {
            lag.add(progress);
        }
        lag
    };
    let lags = told.iter().map(|(region, repos)| (format!("to=\"{region}\""), lag(repos)));
    lag_figures(&lags.collect::<Vec<_>>())
}

/// A status that is being written.
#[derive(Debug, Default)]
pub(super) struct Board(Mutex<Status>);

impl Board {
    fn lock(&self) -> MutexGuard<'_, Status> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn read<T>(&self, read: impl FnOnce(&Status) -> T) -> T {
        read(&self.lock())
    }

    pub(super) fn change(&self, change: impl FnOnce(&mut Status)) {
        change(&mut self.lock());
    }

    /// Notes why a repo does not go on, or that it does.
    pub(super) fn note(&self, id: RepoId, problem: Option<String>) {
        let mut status = self.lock();
        match (status.repos.get_mut(&id), problem) {
            (Some(repo), problem) => repo.problem = problem,
            (None, None) => {}
            (None, problem) => {
                status.repos.insert(id, RepoStatus { problem, ..RepoStatus::default() });
            }
        }
    }

    pub(super) fn change_repo(&self, id: RepoId, change: impl FnOnce(&mut RepoStatus)) {
        change(self.lock().repos.entry(id).or_default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> RegionName {
        RegionName::parse(text).expect("a name")
    }

    #[test]
    fn what_is_missing_takes_as_long_as_bytes_came_lately() {
        let mut repo = RepoStatus { missing: 100_000, ..RepoStatus::default() };
        repo.stand(&name("all"), (2, 1), 1000);
        assert_eq!(repo.progress(1000).eta_seconds, None, "nothing came so far");
        for second in 1..=30 {
            repo.came(1000, 1000, second * 1000);
        }
        assert_eq!(repo.progress(30_000).eta_seconds, Some(67), "{repo:?}");
        // A cut: the longer it is, the later it will be there.
        let later = repo.progress(60_000).eta_seconds;
        assert!(later > Some(100), "{later:?}");
        repo.stand(&name("all"), (2, 2), 61_000);
        assert_eq!(repo.progress(61_000), Progress { fetched: 30_000, ..Progress::default() });
    }

    #[test]
    fn lags_are_added_up_for_each_replication() {
        let mut status = Status::default();
        for (number, (by, tail, missing)) in
            [("a", 3, 10), ("a", 1, 0), ("b", 9, 7)].into_iter().enumerate()
        {
            let mut repo = RepoStatus { missing, ..RepoStatus::default() };
            repo.stand(&name(by), (tail, 1), 1000 * (number as u64 + 1));
            let id = u8::try_from(number).expect("small");
            status.repos.insert(RepoId::from_bytes([id; 16]), repo);
        }
        let lags = status.lags(11_000);
        assert_eq!(lags[&name("a")], Lag { entries: 2, bytes: 10, seconds: 10 });
        let labelled: Vec<_> =
            lags.iter().map(|(by, lag)| (format!("by=\"{by}\""), *lag)).collect();
        let figures = lag_figures(&labelled);
        assert!(
            figures.contains(&Figure::gauge("replicate_lag_bytes{by=\"b\"}", 7)),
            "{figures:?}"
        );
        assert_eq!(figures.len(), 6);
    }
}
