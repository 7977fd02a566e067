//! One region's hub: the store, its index, the state that is folded from the logs, and what all
//! verbs share.
//!
//! A hub can be opened on an empty store, on one that others use at the same moment, and with an
//! index that is gone.

use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use ballast_store::env::{SharedEnv, random_bytes};
use ballast_store::index::memory::Memory;
use ballast_store::index::{IndexHandle, open::Opened};
use ballast_store::keyspace::{Key, LogId, Prefix};
use ballast_store::objects::Store;
use bytes::Bytes;
use futures_util::TryStreamExt as _;

use crate::access::Caller;
use crate::account::{Attempts, NewUser};
use crate::audit::{AuditState, FailedLogins, KeepAudit};
use crate::discovery::{Discovery, FollowFacts};
use crate::download::Caches;
use crate::error::{Error, Result};
use crate::figures::Figures;
use crate::gc::{CollectWorker, Condemned, FollowLists, GcSettings};
use crate::origin::Seam;
use crate::policy::Policy;
use crate::pool::Pool;
use crate::quarantine::{FollowDamage, Quarantine};
use crate::quota::Quotas;
use crate::region::Aheads;
use crate::scan::{ScanWorker, Scans};
use crate::signature::SignedCache;
use crate::state::accounts::AccountsState;
use crate::state::catalogue::CatalogueState;
use crate::state::homing::Away;
use crate::state::ledger::Ledger;
use crate::state::mend::MendIndex;
use crate::state::repo::RepoStates;
use crate::tally::Tallies;
use crate::upload::{SweepParts, Uploads};
use crate::verify::{ScrubSettings, ScrubWorker, Scrubbed};
use crate::worker::Runner;

/// What an object of every store says about the arrangement of the others.
const LAYOUT: &[u8] = b"ballast store, layout 1\n";

/// How old an answer about moving names may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// No other process writes to this store, so what this one knows is so.
    Exclusive,
    /// Others write: what is known for longer than this is looked up again.
    Within(Duration),
}

/// How long closing waits for tasks.
const STOPPING_TAKES: Duration = Duration::from_secs(20);

/// What a hub may be told.
#[derive(Clone, Debug)]
pub struct HubSettings {
    /// Which region this is, if there are others.
    pub region: Option<Away>,
    /// Whether public repos may be read without a token.
    pub anonymous_reading: bool,
    /// Whether everybody may read all that is here: on a node, whoever is on its host.
    pub shows_all: bool,
    /// How old an answer about moving names may be.
    pub freshness: Freshness,
    /// Memory for cached manifests, footers and trees.
    pub cache_bytes: u64,
    /// Uploads that may be in flight at once.
    pub upload_slots: usize,
    /// Threads for hashing, chunking and compression.
    pub pool_threads: usize,
    /// How patient the collector of garbage is.
    pub gc: GcSettings,
    /// How everything is read again.
    pub scrub: ScrubSettings,
    /// Which files may come in and go out.
    pub policy: Policy,
    /// Whether files are scanned after each commit, and not only where a rule asks for it.
    pub scan: bool,
    /// How often failed logins are written down; nothing: at a stop. A crash takes those since.
    pub audit_interval: Option<Duration>,
}

impl Default for HubSettings {
    fn default() -> Self {
        let threads = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
        Self {
            region: None,
            anonymous_reading: true,
            shows_all: false,
            freshness: Freshness::Exclusive,
            cache_bytes: 64 << 20,
            upload_slots: 64,
            pool_threads: threads,
            gc: GcSettings::default(),
            scrub: ScrubSettings::default(),
            policy: Policy::default(),
            scan: false,
            audit_interval: Some(Duration::from_mins(5)),
        }
    }
}

/// The administrator that the first start made.
#[derive(Debug)]
pub struct FirstAdmin {
    /// Their name.
    pub name: String,
    /// Their token; it is stored nowhere.
    pub token: String,
}

/// Keys that are derived from the hub's one secret, each for one purpose.
pub struct Secrets {
    secret: [u8; 32],
}

impl Secrets {
    /// The key for this purpose.
    pub fn key(&self, purpose: &str) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_derive_key("ballast 2026-11 hub secret to one key");
        hasher.update(&self.secret);
        hasher.update(purpose.as_bytes());
        *hasher.finalize().as_bytes()
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secrets(***)")
    }
}

/// A region's hub.
pub struct Hub {
    /// Itself: some verbs begin tasks, or commits, that hold on to the hub.
    this: Weak<Self>,
    store: Store,
    index: IndexHandle,
    env: SharedEnv,
    settings: HubSettings,
    secrets: Secrets,
    pool: Pool,
    runner: Runner,
    pub(crate) catalogue: Ledger<CatalogueState>,
    pub(crate) accounts: Ledger<AccountsState>,
    pub(crate) repos: RepoStates,
    pub(crate) tallies: Tallies,
    pub(crate) quotas: Quotas,
    pub(crate) audit: Ledger<AuditState>,
    pub(crate) failed_logins: FailedLogins,
    pub(crate) attempts: Attempts,
    pub(crate) uploads: Uploads,
    pub(crate) caches: Caches,
    pub(crate) discovery: Discovery,
    pub(crate) condemned: Condemned,
    pub(crate) quarantine: Quarantine,
    pub(crate) scrubbed: Scrubbed,
    pub(crate) scanning: Scans,
    pub(crate) origin: Seam,
    pub(crate) ahead: Aheads,
    pub(crate) figures: Figures,
    pub(crate) signed: SignedCache,
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hub").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Hub {
    /// Opens the hub in this store; an empty store becomes a hub. Where the index can't be
    /// trusted it is made anew from the store; what that takes longer than a moment goes on while
    /// the hub serves.
    pub async fn open(
        store: Store,
        index: IndexHandle,
        opened: &Opened,
        env: SharedEnv,
        settings: HubSettings,
    ) -> Result<Arc<Self>> {
        let secrets = Secrets { secret: read_or_make_secret(&store, &env).await? };
        let hub = Self::assemble(store, index, env, settings, secrets);
        // Who may do what: no request can be answered without it.
        hub.freshen().await?;
        hub.read_all_condemned().await?;
        hub.read_damage().await?;
        hub.prepare(opened).await?;
        hub.start_workers();
        Ok(hub)
    }

    fn start_workers(self: &Arc<Self>) {
        let (runner, settings) = (&self.runner, &self.settings);
        runner.start(self, FollowLists);
        runner.start(self, FollowDamage);
        runner.start(self, MendIndex::default());
        if settings.freshness != Freshness::Exclusive {
            runner.start(self, FollowFacts::default());
        }
        if self.store.is_read_only() {
            return;
        }
        runner.start(self, SweepParts);
        if settings.scan {
            runner.start(self, ScanWorker::default());
        }
        if let Some(interval) = settings.audit_interval {
            runner.start(self, KeepAudit::new(interval));
        }
        if let Some(interval) = settings.scrub.interval {
            runner.start(self, ScrubWorker::new(interval, settings.scrub.rate));
        }
        if let Some(interval) = settings.gc.interval {
            runner.start(self, CollectWorker::new(interval));
        }
    }

    /// Opens the hub in this store for those who read all of it: nothing is written, nothing runs
    /// beside, and no index is kept.
    pub async fn open_to_read(store: Store, env: SharedEnv) -> Result<Arc<Self>> {
        if store.size(&Key::Layout).await?.is_none() {
            let reason = "there is no hub, or only a part of one: a copy that was cut short is \
                          gone on with by the command that began it";
            return Err(Error::invalid(reason));
        }
        let store = store.read_only("it is only read");
        let secrets = Secrets { secret: read_or_make_secret(&store, &env).await? };
        let freshness = Freshness::Within(Duration::ZERO);
        let settings = HubSettings { freshness, ..HubSettings::default() };
        let index = IndexHandle::over(Memory::new())?;
        let hub = Self::assemble(store, index, env, settings, secrets);
        hub.freshen().await?;
        hub.read_all_condemned().await?;
        hub.read_damage().await?;
        Ok(hub)
    }

    /// Makes the index anew from the store, and closes it; nothing is served. How many repos there
    /// are.
    pub async fn remake_index(store: Store, index: IndexHandle, env: SharedEnv) -> Result<usize> {
        if store.size(&Key::Layout).await?.is_none() {
            return Err(Error::invalid("there is no hub in this store"));
        }
        let secrets = Secrets { secret: read_or_make_secret(&store, &env).await? };
        let hub = Self::assemble(store, index, env, HubSettings::default(), secrets);
        hub.freshen().await?;
        hub.read_all_condemned().await?;
        hub.rebuild().await?;
        hub.index.close().await?;
        Ok(hub.catalogue.read(CatalogueState::repo_count))
    }

    fn assemble(
        store: Store,
        index: IndexHandle,
        env: SharedEnv,
        settings: HubSettings,
        secrets: Secrets,
    ) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            this: Weak::clone(this),
            catalogue: Ledger::new(LogId::Catalogue),
            accounts: Ledger::new(LogId::Accounts),
            repos: RepoStates::new(),
            tallies: Tallies::default(),
            quotas: Quotas::new(),
            audit: Ledger::new(LogId::Audit),
            failed_logins: FailedLogins::default(),
            attempts: Attempts::default(),
            uploads: Uploads::new(&settings),
            caches: Caches::new(&settings),
            discovery: Discovery::default(),
            condemned: Condemned::default(),
            quarantine: Quarantine::default(),
            scrubbed: Scrubbed::default(),
            scanning: Scans::default(),
            origin: Seam::default(),
            ahead: Aheads::default(),
            figures: Figures::default(),
            signed: SignedCache::default(),
            pool: Pool::new(settings.pool_threads),
            runner: Runner::new(),
            store,
            index,
            env,
            settings,
            secrets,
        })
    }

    /// Reads what is condemned, at a start. Where a list is damaged, reading goes on all the same:
    /// commits and collections read the list again, and stop there.
    async fn read_all_condemned(&self) -> Result<()> {
        match self.read_newest_condemned().await {
            Err(error) if error.is_corrupt() => {
                tracing::error!(%error, "nothing is committed or collected while this is damaged");
                Ok(())
            }
            read => read.map(|_| ()),
        }
    }

    /// Ends the background work, writes down what is only in memory, and closes the index.
    pub async fn close(&self) -> Result<()> {
        if !self.runner.stop(self.env.as_ref(), STOPPING_TAKES).await {
            tracing::warn!("some tasks did not end in time, and are left behind");
        }
        if !self.store.is_read_only()
            && let Err(error) = self.flush_tallies().await
        {
            tracing::warn!(%error, "the latest downloads are not counted");
        }
        if !self.store.is_read_only()
            && let Err(error) = self.flush_audit().await
        {
            tracing::warn!(%error, "the latest failed logins are not in the audit log");
        }
        Ok(self.index.close().await?)
    }

    /// The hub, to hold on to.
    pub(crate) fn strong(&self) -> Result<Arc<Self>> {
        let gone = || Error::Busy { reason: "shutting down".to_owned() };
        self.this.upgrade().ok_or_else(gone)
    }

    /// On a hub without users: makes an administrator with a token.
    pub async fn bootstrap(&self) -> Result<Option<FirstAdmin>> {
        if self.accounts.read(AccountsState::has_users) || self.store.is_read_only() {
            return Ok(None);
        }
        let name = "admin";
        let user = NewUser { name, fullname: "Administrator", email: None, admin: true };
        match self.create_first_user(&user).await {
            Ok(token) => Ok(Some(FirstAdmin { name: name.to_owned(), token })),
            // Another process on the same store was first.
            Err(Error::Exists { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The truth.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// What makes the truth quick to find.
    pub fn index(&self) -> &IndexHandle {
        &self.index
    }

    /// Grows when the index failed and was replaced by an empty one.
    pub fn index_generation(&self) -> u64 {
        self.index.generation()
    }

    /// Clock and randomness.
    pub fn env(&self) -> &SharedEnv {
        &self.env
    }

    /// The bounded blocking pool.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// The owner of every task.
    pub fn runner(&self) -> &Runner {
        &self.runner
    }

    /// The keys.
    pub fn secrets(&self) -> &Secrets {
        &self.secrets
    }

    /// What the hub was told.
    pub fn settings(&self) -> &HubSettings {
        &self.settings
    }

    /// Whether everybody may read all that is here.
    pub fn shows_all(&self) -> bool {
        self.settings.shows_all
    }

    /// Refuses whoever may not use the hub at all.
    pub fn admit(&self, caller: &Caller) -> Result<()> {
        match caller {
            Caller::Anonymous if !self.settings.anonymous_reading => Err(Error::LoginNeeded),
            _ => Ok(()),
        }
    }
}

/// The hub's one secret: drawn once, by whoever is first. It is there before the layout is, so that
/// a store with a layout and without a secret is damaged, and not new.
async fn read_or_make_secret(store: &Store, env: &SharedEnv) -> Result<[u8; 32]> {
    let layout = store.get(&Key::Layout, 1024).await?;
    if layout.is_none() {
        check_nothing_is_there(store).await?;
        let drawn: [u8; 32] = random_bytes(env.as_ref());
        let drawn = Bytes::copy_from_slice(&drawn);
        store.put_absent(&Key::Secret, drawn).await?;
        store.put_absent(&Key::Layout, Bytes::from_static(LAYOUT)).await?;
    }
    // Whoever won, what is stored counts.
    let layout = store.get(&Key::Layout, 1024).await?.unwrap_or_default();
    if layout != LAYOUT {
        let layout = String::from_utf8_lossy(&layout).into_owned();
        let reason = format!("this store has another layout: `{layout}`");
        return Err(Error::invalid(reason));
    }
    let secret = store.get(&Key::Secret, 32).await?;
    read_secret(&secret.ok_or_else(|| Error::corrupt("the hub's secret is gone"))?)
}

/// A store that has objects and no layout was filled by a restore that is not done, or lost it.
async fn check_nothing_is_there(store: &Store) -> Result<()> {
    let mut listed = store.list(&Prefix::All);
    while let Some(listed) = listed.try_next().await? {
        if matches!(listed.key, Key::Copy(_) | Key::LogEntry(..)) {
            if store.size(&Key::Layout).await?.is_some() {
                // Another process began this hub just now.
                return Ok(());
            }
            let reason = "this store has a part of a hub\nhint: a restore was cut short: run it \
                          again with the same arguments";
            return Err(Error::invalid(reason));
        }
    }
    Ok(())
}

fn read_secret(bytes: &[u8]) -> Result<[u8; 32]> {
    bytes.try_into().map_err(|_| Error::corrupt("the hub's secret does not have 32 bytes"))
}
