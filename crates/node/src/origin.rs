//! The seam: someone who may have what we lack.
//!
//! A hub may have one origin. It is asked for repos of which nothing is known here, for revisions
//! of mirrors, which may have moved, and for files of mirrors that nobody asked for so far. What it
//! brings comes in through `node/upload`, as everything does.
//!
//! Of repos whose home is another region, their homes are asked for what has not arrived here: a
//! commit by its id, and what it has. A name means what has arrived (ADR 53).

use std::borrow::Cow;
use std::ops::Range;
use std::sync::{Arc, OnceLock, Weak};

use async_trait::async_trait;
use ballast_format::hash::{FileHash, ObjectHash, Sha256};
use ballast_format::id::RepoId;
use ballast_format::name::{RepoKind, RepoName};
use ballast_format::range::RangeRequest;

use crate::access::{Access, Caller, Repo};
use crate::download::{ByteStream, Content, LargeFile, Reconstruction, Resolved, TreeItem};
use crate::error::{Error, Result};
use crate::hub::Hub;

/// A large file of a mirror, or of a repo whose home is another region, whose content is not here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// A commit of the upstream, or of the home, that has it.
    pub commit: ObjectHash,
    /// Where that has it.
    pub path: String,
    /// The pointer's blob.
    pub id: ObjectHash,
    /// The pointer's size in bytes.
    pub pointer_size: u64,
    /// What its content must be.
    pub sha256: Sha256,
    /// How long it must be, in bytes; not 0.
    pub size: u64,
}

impl Wanted {
    /// What is missing of an item; nothing if all of it is here.
    pub fn of(item: &TreeItem) -> Option<Self> {
        let LargeFile { sha256, size, pointer_size, content } = item.large?;
        match content {
            Content::Upstream(commit) if size > 0 => {
                let (path, id) = (item.path.clone(), item.id);
                Some(Self { commit, path, id, pointer_size, sha256, size })
            }
            Content::Upstream(_) | Content::Stored(_) => None,
        }
    }
}

/// A figure of an origin's, for those who watch the hub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Figure {
    /// Its name, with its labels.
    pub name: Cow<'static, str>,
    /// Whether it only grows.
    pub is_counter: bool,
    /// How much.
    pub value: u64,
}

impl Figure {
    /// How much there is now.
    pub fn gauge(name: impl Into<Cow<'static, str>>, value: u64) -> Self {
        Self { name: name.into(), is_counter: false, value }
    }

    /// How much there was in all.
    pub fn counter(name: impl Into<Cow<'static, str>>, value: u64) -> Self {
        Self { name: name.into(), is_counter: true, value }
    }
}

/// Someone who may have what we lack. Whoever calls has asked whether the caller may have it.
#[async_trait]
pub trait Origin: Send + Sync + 'static {
    /// Makes a repo known here, if there is one of this name. `RepoNotFound`: there is none, and
    /// the origin said so itself; anything that may pass is another error.
    async fn bring_repo(&self, hub: &Arc<Hub>, kind: RepoKind, name: &RepoName) -> Result<()>;

    /// Sees to it that a mirror's revision is here, and no older than the settings want; or that
    /// what the log has at its home is known. Where one is here that may do (`is_here`), nobody
    /// should wait for long.
    async fn bring_revision(
        &self,
        hub: &Arc<Hub>,
        repo: &Repo,
        revision: &str,
        is_here: bool,
    ) -> Result<()>;

    /// These bytes of a file, as they arrive. The last of them come when all were verified.
    async fn open(
        &self,
        hub: &Arc<Hub>,
        repo: &Repo,
        wanted: &Wanted,
        range: Range<u64>,
    ) -> Result<ByteStream>;

    /// The name by which Xet clients may ask for a file that is not here; nothing where bytes as
    /// they are do.
    async fn xet_name(
        &self,
        _hub: &Arc<Hub>,
        _repo: &Repo,
        _wanted: &Wanted,
    ) -> Result<Option<FileHash>> {
        Ok(None)
    }

    /// How to make a part of a file of this commit that is not here, once that part has come.
    /// `NotFound`: nobody was told that it may be asked for by this name.
    async fn reconstruct(
        &self,
        _hub: &Arc<Hub>,
        _repo: &Repo,
        (_commit, file): (ObjectHash, FileHash),
        _range: Option<&RangeRequest>,
    ) -> Result<Reconstruction> {
        Err(Error::NotFound { what: format!("the file `{file}`") })
    }

    /// Since when, in unix milliseconds, it could not be asked whether a mirror is as it was;
    /// nothing if all is well.
    fn stale_since(&self, repo: RepoId) -> Option<u64>;

    /// Whether bytes of this file that turned out wrong were handed out lately.
    fn was_wrong(&self, hub: &Hub, repo: RepoId, sha256: &Sha256) -> bool;

    /// What it counts.
    fn figures(&self) -> Vec<Figure>;
}

/// The origin of a hub, if it has one, and the homes of repos that it follows.
#[derive(Default)]
pub(crate) struct Seam {
    origin: OnceLock<Arc<dyn Origin>>,
    /// They know the hub, and must not keep each other alive.
    homes: OnceLock<Weak<dyn Origin>>,
}

impl Hub {
    /// Gives the hub an origin; the first one stays.
    pub fn set_origin(&self, origin: Arc<dyn Origin>) {
        // Whoever wires the program does so once.
        drop(self.origin.origin.set(origin));
    }

    /// The hub's origin.
    pub fn origin(&self) -> Option<&Arc<dyn Origin>> {
        self.origin.origin.get()
    }

    /// Says who asks other regions for what has not arrived here, as long as it lives; the first
    /// one stays.
    pub fn set_homes(&self, homes: &Arc<dyn Origin>) {
        drop(self.origin.homes.set(Arc::downgrade(homes)));
    }

    fn homes(&self) -> Option<Arc<dyn Origin>> {
        self.origin.homes.get()?.upgrade()
    }

    /// The repo of this name, if the caller may read it. One of which nothing is known may be new
    /// in another region, or is looked for at the origin. There a namespace that has an owner here
    /// is nobody else's: what is missing in it is missing.
    pub async fn repo_or_bring(
        self: &Arc<Self>,
        caller: &Caller,
        kind: RepoKind,
        name: &RepoName,
    ) -> Result<Repo> {
        let found = self.repo(caller, kind, name, Access::Read);
        let is_known = || self.catalogue.read(|state| state.by_name(kind, name).is_some());
        if !matches!(found, Err(Error::RepoNotFound)) || is_known() || self.admit(caller).is_err() {
            return found;
        }
        if let Some(homes) = self.homes() {
            homes.bring_repo(self, kind, name).await?;
            if is_known() {
                return self.repo(caller, kind, name, Access::Read);
            }
        }
        let is_owned = self.accounts.read(|state| state.owner(name.namespace()).is_some());
        let Some(origin) = self.origin().filter(|_| !is_owned) else { return found };
        origin.bring_repo(self, kind, name).await?;
        self.repo(caller, kind, name, Access::Read)
    }

    /// The commit that a revision of a mirror names now. What is here goes on being served when
    /// the origin can't be asked, or has lost it.
    pub(crate) async fn resolve_mirror(&self, repo: &Repo, revision: &str) -> Result<Resolved> {
        let here = self.resolve_here(repo, revision).await;
        let Some(origin) = self.origin() else { return here };
        // A commit never changes.
        if here.as_ref().is_ok_and(|found| found.reference.is_none()) {
            return here;
        }
        match origin.bring_revision(&self.strong()?, repo, revision, here.is_ok()).await {
            Ok(()) => self.resolve_here(repo, revision).await,
            Err(error) => here.map_err(|_| error),
        }
    }

    /// The commit that a revision names of a repo whose home is another region. Names mean what
    /// has arrived here; a commit that has not is looked for at the home, and so are the names of a
    /// repo of which nothing has arrived.
    pub(crate) async fn resolve_away(&self, repo: &Repo, revision: &str) -> Result<Resolved> {
        let here = self.resolve_here(repo, revision).await;
        let Some(homes) = self.homes() else { return here };
        let has_arrived = || self.homing(repo.id()).known.number > 0;
        let is_final = revision.parse::<ObjectHash>().is_err() && has_arrived();
        if !matches!(here, Err(Error::RevisionNotFound { .. })) || is_final {
            return here;
        }
        let asked = homes.bring_revision(&self.strong()?, repo, revision, false).await;
        let here = self.resolve_here(repo, revision).await;
        match (here, self.ahead_ref(repo.id(), revision)) {
            (Err(Error::RevisionNotFound { .. }), Some(found)) if !has_arrived() => Ok(found),
            // Whether there is one is not known as long as the home can't be asked.
            (here @ Err(Error::RevisionNotFound { .. }), _) => asked.and(here),
            (here, _) => here,
        }
    }

    /// The commit of `main` now; nothing if there is no such branch.
    pub async fn main_of(&self, repo: &Repo) -> Result<Option<ObjectHash>> {
        if repo.is_away() {
            // A repo whose home can't be asked is there all the same.
            return match self.resolve_away(repo, "main").await {
                Ok(found) => Ok(Some(found.commit)),
                Err(Error::RevisionNotFound { .. } | Error::Upstream { .. }) => Ok(None),
                Err(error) => Err(error),
            };
        }
        if !repo.is_mirror() {
            return Ok(self.repo_state(repo).await?.main());
        }
        match self.resolve_mirror(repo, "main").await {
            Ok(found) => Ok(Some(found.commit)),
            Err(Error::RevisionNotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// These bytes of a file that is not here.
    pub(crate) async fn open_upstream(
        self: &Arc<Self>,
        repo: &Repo,
        wanted: &Wanted,
        range: Range<u64>,
    ) -> Result<ByteStream> {
        let origin = if repo.is_away() { self.homes() } else { self.origin().map(Arc::clone) };
        let Some(origin) = origin else {
            let reason = format!(
                "`{}` of `{}` was never fetched from the upstream, and no upstream is configured",
                wanted.path,
                repo.name()
            );
            return Err(Error::Upstream { reason, retry_seconds: NO_ORIGIN_SECONDS });
        };
        origin.open(self, repo, wanted, range).await
    }

    /// The name by which Xet clients may ask for a large file; nothing if they have to take its
    /// bytes as they are.
    pub async fn xet_name(
        self: &Arc<Self>,
        repo: &Repo,
        item: &TreeItem,
    ) -> Result<Option<FileHash>> {
        let origin = self.origin().filter(|_| repo.is_mirror());
        match (item.large.and_then(|large| large.file()), Wanted::of(item), origin) {
            (None, Some(wanted), Some(origin)) => origin.xet_name(self, repo, &wanted).await,
            (here, ..) => Ok(here),
        }
    }

    /// How to make a file of this repo, or a part of it. One of a mirror that is not here is
    /// brought, if the caller knows a commit that has it.
    pub async fn reconstruct_or_bring(
        self: &Arc<Self>,
        repo: &Repo,
        (commit, file): (Option<ObjectHash>, FileHash),
        range: Option<&RangeRequest>,
    ) -> Result<Reconstruction> {
        let here = self.reconstruct(repo, file, range).await;
        let origin = self.origin().filter(|_| repo.is_mirror());
        match (&here, origin, commit) {
            (Err(Error::NotFound { .. }), Some(origin), Some(commit)) => {
                origin.reconstruct(self, repo, (commit, file), range).await
            }
            _ => here,
        }
    }

    /// Whether somebody who wants the rest of this file may have a wrong beginning of it: then all
    /// of it should be sent.
    pub fn was_wrong(&self, repo: &Repo, item: &TreeItem) -> bool {
        let origin = self.origin().filter(|_| repo.is_mirror());
        let (Some(origin), Some(large)) = (origin, item.large) else { return false };
        origin.was_wrong(self, repo.id(), &large.sha256)
    }

    /// Since when, in unix milliseconds, a mirror may be older than its upstream, because that
    /// could not be asked.
    pub fn stale_since(&self, repo: &Repo) -> Option<u64> {
        self.origin().filter(|_| repo.is_mirror())?.stale_since(repo.id())
    }
}

/// When to ask again for what only somebody who changes the configuration can bring.
const NO_ORIGIN_SECONDS: u64 = 300;
