//! How far runs of this process are, for those who ask.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ballast_format::name::RepoName;
use ballast_node::origin::Wanted;
use ballast_store::env::SharedEnv;

use super::plan::RepoPlan;

/// How long the rate is measured back.
pub(super) const RATE_WINDOW: Duration = Duration::from_secs(10);

/// A run that is going on.
#[derive(Clone, Debug)]
pub(super) struct Live {
    env: SharedEnv,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    planned_files: u64,
    planned_bytes: u64,
    done_files: u64,
    /// Bytes of files that are done.
    done_bytes: u64,
    files: BTreeMap<String, Part>,
    /// Since when the rate is measured, and what was there then; the window before and this one.
    windows: [(Duration, u64); 2],
}

#[derive(Clone, Copy, Debug)]
struct Part {
    size: u64,
    reached: u64,
}

/// How far a run is.
#[derive(Clone, Debug, PartialEq)]
pub struct Progress {
    /// Files that are to be fetched, as far as that is known.
    pub files: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Files that have come.
    pub done_files: u64,
    /// Bytes that have come, of files that are not whole yet too.
    pub done_bytes: u64,
    /// Bytes a second, lately.
    pub rate: u64,
    /// How long it may take, if it goes on like this.
    pub eta: Option<Duration>,
    /// Files that are coming: name, bytes that are here, size.
    pub coming: Vec<(String, u64, u64)>,
}

impl Live {
    pub(super) fn new(env: &SharedEnv) -> Self {
        let now = env.monotonic();
        let state = State { windows: [(now, 0); 2], ..State::default() };
        Self { env: SharedEnv::clone(env), state: Arc::new(Mutex::new(state)) }
    }

    /// More is to be fetched.
    pub(super) fn plan(&self, plan: &RepoPlan) {
        let mut state = self.lock();
        state.planned_files += plan.missing_files;
        state.planned_bytes += plan.missing_bytes;
    }

    /// A file begins to come.
    pub(super) fn file(&self, repo: &RepoName, wanted: &Wanted) -> Coming {
        let name = format!("{repo}/{}", wanted.path);
        let part = Part { size: wanted.size, reached: 0 };
        self.lock().files.insert(name.clone(), part);
        Coming { live: self.clone(), name }
    }

    /// Bytes of whole files that came.
    pub(super) fn fetched_bytes(&self) -> u64 {
        self.lock().done_bytes
    }

    /// How far it is now.
    pub(super) fn progress(&self) -> Progress {
        let now = self.env.monotonic();
        let state = &mut *self.lock();
        let coming: u64 = state.files.values().map(|part| part.reached).sum();
        let done = state.done_bytes + coming;
        if now.saturating_sub(state.windows[1].0) > RATE_WINDOW {
            state.windows = [state.windows[1], (now, done)];
        }
        let (since, had) = state.windows[0];
        let seconds = now.saturating_sub(since).as_secs_f64();
        let gained = done.saturating_sub(had);
        // Less than a whole second says nothing.
        let rate =
            if seconds < 1.0 { 0 } else { Duration::from_secs(gained).div_f64(seconds).as_secs() };
        let bytes = state.planned_bytes.max(done);
        let eta = (bytes - done).checked_div(rate).map(Duration::from_secs);
        Progress {
            files: state.planned_files,
            bytes,
            done_files: state.done_files,
            done_bytes: done,
            rate,
            eta,
            coming: state.files.iter().map(|(name, p)| (name.clone(), p.reached, p.size)).collect(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A file that is coming; when this is dropped, it is no more.
pub(super) struct Coming {
    live: Live,
    name: String,
}

impl Coming {
    pub(super) fn reached(&self, bytes: u64) {
        if let Some(part) = self.live.lock().files.get_mut(&self.name) {
            part.reached = bytes;
        }
    }

    pub(super) fn done(&self) {
        let state = &mut *self.live.lock();
        if let Some(part) = state.files.remove(&self.name) {
            state.done_files += 1;
            state.done_bytes += part.size;
        }
    }
}

impl Drop for Coming {
    fn drop(&mut self) {
        self.live.lock().files.remove(&self.name);
    }
}
