//! Pull-through: what a client asks for and is not here is brought while the client waits.
//!
//! A revision is brought whole but for its large files: these come when somebody asks for them, and
//! whoever asks gets the bytes as they arrive. However many ask for the same thing at once, the
//! upstream is asked once. What is here goes on being served when the upstream does not answer.

mod ahead;
mod fault;
mod fetch;
mod follow;
mod once;
mod revision;
mod room;
mod spool;

use std::collections::HashMap;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use ballast_format::hash::{FileHash, ObjectHash, Sha256};
use ballast_format::id::RepoId;
use ballast_format::name::{FilePath, RepoKind, RepoName};
use ballast_format::range::RangeRequest;
use ballast_node::access::Repo;
use ballast_node::download::{ByteStream, Reconstruction};
use ballast_node::error::Result;
use ballast_node::hub::Hub;
use ballast_node::origin::{Figure, Origin, Wanted};

use self::ahead::Offers;
use self::fetch::{Fetches, Flight};
use self::once::Once;
use self::revision::{Key, Known};
use self::room::Room;
use super::rules;
use super::upstream::{Class, Patience, Proofs, Upstream};

/// How patient a fetch is with an upstream: clients wait for it, but so does what was fetched.
const FETCH_PATIENCE: Patience = Patience {
    tries: 6,
    first_wait: Duration::from_millis(500),
    longest_wait: Duration::from_secs(15),
};

/// Python's client takes nothing longer as plain bytes.
const LONGEST_PLAIN: u64 = 50_000_000_000;

/// What pulling through may be told.
#[derive(Clone, Debug)]
pub struct PullSettings {
    /// The folder for files on their way.
    pub folder: PathBuf,
    /// Bytes that these may take; 0 for as many as there are.
    pub spool_limit: u64,
    /// How old an answer about a branch may be.
    pub revalidate: Duration,
    /// How long a request waits for what is being brought before it is told to come again.
    pub patience: Duration,
    /// Files that are fetched at once.
    pub fetches: usize,
    /// Files that may wait for that.
    pub waiting: usize,
    /// From which size on files are offered by Xet before they are here, in bytes.
    pub offered_from: u64,
}

impl PullSettings {
    /// The defaults, with files on their way in this folder.
    pub fn in_folder(folder: PathBuf) -> Self {
        Self {
            folder,
            spool_limit: 0,
            revalidate: Duration::from_mins(1),
            patience: Duration::from_secs(8),
            fetches: 8,
            waiting: 256,
            offered_from: LONGEST_PLAIN,
        }
    }
}

/// What is counted, from the start of the process.
#[derive(Debug, Default)]
struct Counts {
    upstream_bytes: AtomicU64,
    reused_bytes: AtomicU64,
    kept_bytes: AtomicU64,
    followed_bytes: AtomicU64,
    revisions: AtomicU64,
    files: AtomicU64,
    failures: AtomicU64,
    parts_ahead: AtomicU64,
}

impl Counts {
    fn add(counter: &AtomicU64, more: u64) {
        counter.fetch_add(more, Ordering::Relaxed);
    }
}

/// An upstream as the origin of a hub.
pub struct Mirror {
    upstream: Upstream,
    patient: Upstream,
    settings: PullSettings,
    once: Arc<Once<Key>>,
    known: Known,
    fetches: Fetches,
    room: Room,
    proofs: Proofs,
    offers: Offers,
    stale: Mutex<HashMap<RepoId, u64>>,
    counts: Counts,
    this: std::sync::Weak<Self>,
}

impl Mirror {
    /// Pulls from this upstream.
    pub fn new(upstream: Upstream, settings: PullSettings) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            patient: upstream.with_patience(FETCH_PATIENCE),
            upstream,
            once: Arc::default(),
            known: Known::default(),
            fetches: Fetches::new(settings.fetches, settings.waiting),
            room: Room::new(&settings.folder, settings.spool_limit),
            settings,
            proofs: Proofs::default(),
            offers: Offers::default(),
            stale: Mutex::default(),
            counts: Counts::default(),
            this: std::sync::Weak::clone(this),
        })
    }

    /// The upstream.
    pub fn upstream(&self) -> &Upstream {
        &self.upstream
    }

    /// Takes away files on their way that nobody asked for in a week. At a start.
    pub async fn forget_old_spools(&self, hub: &Hub) -> Result<()> {
        let (folder, now_ms) = (self.settings.folder.clone(), hub.env().now_ms());
        hub.pool().run(move || spool::sweep(&folder, now_ms)).await?
    }

    /// Sees to it that a file of a mirror is here, whole and verified.
    pub async fn bring_file(&self, hub: &Arc<Hub>, repo: &Repo, wanted: &Wanted) -> Result<()> {
        if hub.has_mirrored(repo, &wanted.sha256).await? {
            return Ok(());
        }
        self.flight(hub, repo, wanted)?.stored().await
    }

    /// The same, telling how many bytes of it are here.
    pub(in crate::mirror) async fn bring_file_telling(
        &self,
        hub: &Arc<Hub>,
        repo: &Repo,
        wanted: &Wanted,
        told: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<()> {
        if hub.has_mirrored(repo, &wanted.sha256).await? {
            return Ok(());
        }
        let flight = self.flight(hub, repo, wanted)?;
        let mut progress = flight.spool().await?.watch();
        let mut stored = std::pin::pin!(flight.stored());
        loop {
            tokio::select! {
                biased;
                ended = &mut stored => return ended,
                Ok(()) = progress.changed() => told(progress.borrow_and_update().written),
            }
        }
    }

    /// Whether a repo is a mirror of this upstream, and not of one that was configured before, or
    /// of one that a bundle came from.
    fn is_source_of(&self, repo: &Repo) -> bool {
        repo.record.upstream.as_deref() == Some(self.upstream.endpoint())
    }

    fn flight(&self, hub: &Arc<Hub>, repo: &Repo, wanted: &Wanted) -> Result<Arc<Flight>> {
        rules::may_fetch(hub, repo, wanted)?;
        if !self.is_source_of(repo) {
            let (name, path) = (repo.name(), &wanted.path);
            let reason = format!("`{path}` of `{name}` is not here, nor at the hub's upstream");
            return Err(fault::again(reason));
        }
        let this = self.this.upgrade().ok_or_else(fault::closing)?;
        self.fetches.join(&this, hub, repo, wanted)
    }

    fn stale(&self) -> MutexGuard<'_, HashMap<RepoId, u64>> {
        self.stale.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The upstream could not be asked about a mirror, or has lost it.
    fn mark_stale(&self, hub: &Hub, repo: RepoId) {
        self.stale().entry(repo).or_insert_with(|| hub.env().now_ms());
    }

    fn mark_fresh(&self, repo: RepoId) {
        self.stale().remove(&repo);
    }
}

#[async_trait]
impl Origin for Mirror {
    async fn bring_repo(&self, hub: &Arc<Hub>, kind: RepoKind, name: &RepoName) -> Result<()> {
        self.repo_here(hub, kind, name).await
    }

    async fn bring_revision(
        &self,
        hub: &Arc<Hub>,
        repo: &Repo,
        revision: &str,
        is_here: bool,
    ) -> Result<()> {
        // Another hub's mirror is what it is: two histories under one name are none.
        if !self.is_source_of(repo) {
            return Ok(());
        }
        self.revision_here(hub, repo, revision, is_here).await
    }

    async fn open(
        &self,
        hub: &Arc<Hub>,
        repo: &Repo,
        wanted: &Wanted,
        range: Range<u64>,
    ) -> Result<ByteStream> {
        if hub.has_mirrored(repo, &wanted.sha256).await? {
            // It came since the caller looked.
            let path = FilePath::parse(&wanted.path)?;
            let item = hub.item(repo, wanted.commit, &path).await?;
            return hub.open_item(repo, &item, range).await;
        }
        let flight = self.flight(hub, repo, wanted)?;
        if let Some(part) = self.part_ahead(hub, repo, wanted, (&flight, &range)).await {
            return Ok(part);
        }
        self.follow(hub, flight, range).await
    }

    async fn xet_name(
        &self,
        hub: &Arc<Hub>,
        repo: &Repo,
        wanted: &Wanted,
    ) -> Result<Option<FileHash>> {
        self.offer(hub, repo, wanted).await
    }

    async fn reconstruct(
        &self,
        hub: &Arc<Hub>,
        repo: &Repo,
        what: (ObjectHash, FileHash),
        range: Option<&RangeRequest>,
    ) -> Result<Reconstruction> {
        self.reconstruct_ahead(hub, repo, what, range).await
    }

    fn stale_since(&self, repo: RepoId) -> Option<u64> {
        self.stale().get(&repo).copied()
    }

    fn was_wrong(&self, hub: &Hub, repo: RepoId, sha256: &Sha256) -> bool {
        self.fetches.was_wrong(hub.env().monotonic(), repo, sha256)
    }

    fn figures(&self) -> Vec<Figure> {
        let counter = |name: &'static str, value: &AtomicU64| {
            Figure::counter(name, value.load(Ordering::Relaxed))
        };
        let gauge = |name: &'static str, value| Figure::gauge(name, value);
        let (running, waiting) = self.fetches.load();
        let mut figures = vec![
            counter("mirror_upstream_bytes_total", &self.counts.upstream_bytes),
            counter("mirror_reused_bytes_total", &self.counts.reused_bytes),
            counter("mirror_kept_bytes_total", &self.counts.kept_bytes),
            counter("mirror_followed_bytes_total", &self.counts.followed_bytes),
            counter("mirror_revisions_total", &self.counts.revisions),
            counter("mirror_files_total", &self.counts.files),
            counter("mirror_failures_total", &self.counts.failures),
            counter("mirror_parts_ahead_total", &self.counts.parts_ahead),
            gauge("mirror_fetches_running", running),
            gauge("mirror_fetches_waiting", waiting),
        ];
        figures.extend(self.upstream.budget().into_iter().map(|(class, budget)| {
            let name = match class {
                Class::Api => "mirror_rate_remaining_requests{class=\"api\"}",
                Class::Files => "mirror_rate_remaining_requests{class=\"files\"}",
            };
            gauge(name, budget.remaining)
        }));
        figures
    }
}
