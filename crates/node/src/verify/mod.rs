//! Reading and hashing again everything that a repo, or the whole hub, refers to.
//!
//! Damage never stops it: it goes on, and at the end every affected file has been named. It changes
//! nothing but the notes of what is damaged (`quarantine`), and reads from the store, past every
//! cache. Each distinct object is read once; a large
//! file once more, as a whole, for its SHA-256.
//!
//! Memory: some 100 bytes for each git object of the repo at hand, and for each xorb, shard object
//! and large file of all: 200 MB for a repo of a million files and a history to match.

mod files;
mod log;
pub(crate) mod packs;
mod scrub;
#[cfg(test)]
mod tests;
mod walk;
mod whole;
mod xorbs;

pub use scrub::{Damaged, ScrubCounts, ScrubSettings, ScrubStatus};
pub(crate) use scrub::{ScrubWorker, Scrubbed};
pub(crate) use whole::Verdict;

use std::collections::{HashMap, HashSet};
use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ballast_format::hash::{ObjectHash, XorbHash};
use ballast_format::log::{AccountChange, AuditChange, CatalogueChange};
use ballast_format::manifest::ManifestId;
use ballast_store::keyspace::{CopyKind, CopyName, Key, LogId};
use tokio::sync::mpsc;

use crate::access::Repo;
use crate::error::{Error, Result};
use crate::hub::Hub;

/// Objects between two reports of progress.
const PROGRESS_EVERY: u64 = 200;

/// Something that is not what it must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The repo that refers to it; empty for what is the whole hub's.
    pub repo: String,
    /// The commit that refers to it: the newest, of the branch that moved last.
    pub revision: Option<String>,
    /// The file that is affected; `folder/*` where nobody can say which.
    pub path: Option<String>,
    /// The object that is damaged.
    pub object: String,
    /// What is wrong with it.
    pub problem: String,
}

/// What was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Repos.
    pub repos: u64,
    /// Objects, each counted once.
    pub objects: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Objects that are damaged or missing.
    pub damaged: u64,
    /// Files that are affected, each counted once for each repo.
    pub files_affected: u64,
}

/// What a check says while it goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// So far.
    Progress(Summary),
    /// Damage.
    Finding(Finding),
}

impl Hub {
    /// Checks one repo, or all with what belongs to none. What it finds goes into `reports`; if
    /// nobody listens any more, it stops.
    pub async fn verify(
        self: &Arc<Self>,
        scope: Option<&Repo>,
        reports: mpsc::Sender<Report>,
    ) -> Result<Summary> {
        let mut check = Check::new(Arc::clone(self), Some(reports), Depth::Whole);
        let repos = if let Some(repo) = scope {
            vec![repo.clone()]
        } else {
            check.log::<CatalogueChange>(LogId::Catalogue, |_| {}).await?;
            check.log::<AccountChange>(LogId::Accounts, |_| {}).await?;
            check.log::<AuditChange>(LogId::Audit, |_| {}).await?;
            check.lists().await?;
            check.tell_the_rest(None).await?;
            self.records(|_| true).into_iter().map(|record| Repo { record }).collect()
        };
        for repo in repos {
            check.repo(&repo).await?;
            check.tell_the_rest(Some(&repo)).await?;
            check.summary.repos += 1;
        }
        if scope.is_none() {
            check.all_shards().await?;
            check.tell_the_rest(None).await?;
            self.settle_notes().await?;
        } else {
            self.settle_damage().await?;
        }
        Ok(check.summary)
    }

    /// Names the files that the damage affects which is known already. Reads logs, folders and
    /// what is known to be damaged; nothing else.
    pub async fn name_damage(self: &Arc<Self>, reports: mpsc::Sender<Report>) -> Result<Summary> {
        let mut check = Check::new(Arc::clone(self), Some(reports), Depth::Known);
        for record in self.records(|_| true) {
            let repo = Repo { record };
            check.repo(&repo).await?;
            check.tell_the_rest(Some(&repo)).await?;
            check.summary.repos += 1;
        }
        Ok(check.summary)
    }
}

/// What is wrong with an object.
#[derive(Debug)]
struct Fault {
    object: String,
    problem: String,
    /// Whether a finding named it.
    is_told: AtomicBool,
}

/// What became of looking at something; nothing: it is sound.
type Found = Option<Arc<Fault>>;

/// How much is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Depth {
    /// Everything.
    Whole,
    /// What leads to files, and what is known to be damaged.
    Known,
}

struct Check {
    hub: Arc<Hub>,
    /// Who listens; nobody where only the faults are wanted.
    reports: Option<mpsc::Sender<Report>>,
    depth: Depth,
    /// Content of which a copy is known to be damaged.
    suspects: HashSet<(CopyKind, [u8; 32])>,
    summary: Summary,
    /// Those of the repo at hand.
    faults: Vec<Arc<Fault>>,
    shards: HashMap<CopyName, Found>,
    /// Manifests that were looked at, by their place.
    manifests: HashSet<(CopyName, u64)>,
    xorbs: HashMap<XorbHash, Found>,
    files: HashMap<ManifestId, Found>,
}

impl Check {
    fn new(hub: Arc<Hub>, reports: Option<mpsc::Sender<Report>>, depth: Depth) -> Self {
        Self {
            suspects: hub.quarantine.contents(),
            hub,
            reports,
            depth,
            summary: Summary::default(),
            faults: Vec::new(),
            shards: HashMap::new(),
            manifests: HashSet::new(),
            xorbs: HashMap::new(),
            files: HashMap::new(),
        }
    }

    /// Whether this is passed over, as no damage to it is known.
    fn passes_over(&self, kind: CopyKind, hash: &[u8; 32]) -> bool {
        self.depth == Depth::Known && !self.suspects.contains(&(kind, *hash))
    }

    /// Notes damage.
    fn damaged(&mut self, object: &dyn Display, problem: &dyn Display) -> Arc<Fault> {
        let (object, problem) = (object.to_string(), problem.to_string());
        let fault = Arc::new(Fault { object, problem, is_told: AtomicBool::new(false) });
        self.summary.damaged += 1;
        self.faults.push(Arc::clone(&fault));
        fault
    }

    /// An error that means damage is a finding; any other ends the check.
    fn fault(&mut self, object: &dyn Display, error: Error) -> Result<Arc<Fault>> {
        if is_damage(&error) { Ok(self.damaged(object, &error)) } else { Err(error) }
    }

    /// The same of a copy, which is set aside.
    fn copy_fault(&mut self, copy: &CopyName, error: Error) -> Result<Arc<Fault>> {
        let fault = self.fault(&Key::Copy(*copy), error)?;
        self.hub.distrust(copy, &fault.problem);
        Ok(fault)
    }

    async fn count(&mut self, bytes: u64) -> Result<()> {
        self.summary.objects += 1;
        self.summary.bytes += bytes;
        if self.summary.objects.is_multiple_of(PROGRESS_EVERY) {
            self.report(Report::Progress(self.summary)).await?;
        }
        Ok(())
    }

    async fn finding(
        &self,
        repo: Option<&Repo>,
        revision: Option<ObjectHash>,
        path: Option<String>,
        fault: &Fault,
    ) -> Result<()> {
        fault.is_told.store(true, Ordering::Relaxed);
        let name = |repo: &Repo| format!("{}{}", repo.kind().url_prefix(), repo.name());
        let finding = Finding {
            repo: repo.map(name).unwrap_or_default(),
            revision: revision.map(|id| id.to_string()),
            path,
            object: fault.object.clone(),
            problem: fault.problem.clone(),
        };
        self.report(Report::Finding(finding)).await
    }

    /// Names the damage that affects no file: there is another copy, or nothing leads to it.
    async fn tell_the_rest(&mut self, repo: Option<&Repo>) -> Result<()> {
        for fault in std::mem::take(&mut self.faults) {
            if !fault.is_told.load(Ordering::Relaxed) {
                self.finding(repo, None, None, &fault).await?;
            }
        }
        Ok(())
    }

    async fn report(&self, report: Report) -> Result<()> {
        let Some(reports) = &self.reports else { return Ok(()) };
        let gone = |_| Error::Busy { reason: "nobody listens to the check any more".to_owned() };
        reports.send(report).await.map_err(gone)
    }
}

/// Damage and absence, as opposed to a store that can't be reached now.
fn is_damage(error: &Error) -> bool {
    match error {
        Error::Corrupt { .. } | Error::Format { .. } | Error::TooLarge { .. } => true,
        Error::Store(error) => is_stored_damage(error),
        _ => false,
    }
}

/// The same of what the store said.
fn is_stored_damage(error: &ballast_store::Error) -> bool {
    use ballast_format::ErrorKind::{Corrupt, Invalid, NotFound};
    matches!(error.kind(), Corrupt | NotFound | Invalid)
}
