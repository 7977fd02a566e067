//! Reading and hashing again everything that a repo, or the whole hub, refers to.
//!
//! Damage never stops it: it goes on, and at the end every affected file has been named. It changes
//! nothing. Memory: one hash for each distinct object it has looked at, some 100 bytes for each
//! 64 MiB of weights and each small file.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use ballast_format::hash::{FileHash, ObjectHash, XorbHash};
use ballast_format::id::RepoId;
use ballast_format::log::RepoChange;
use ballast_format::object::{EntryMode, ObjectKind};
use ballast_format::xorb::{ChunkDecoder, XorbFooter};
use ballast_store::index::Table;
use ballast_store::index::schema::{self, FileRow};
use ballast_store::keyspace::{CopyName, Key, LogId};
use ballast_store::reflog::{Log, Tail};
use sha2::Digest as _;
use tokio::sync::mpsc;

use crate::access::Repo;
use crate::error::{Error, Result};
use crate::hub::Hub;

/// Serialized bytes that are read at once.
const PIECE_BYTES: u64 = 1 << 20;
/// Objects between two reports of progress.
const PROGRESS_EVERY: u64 = 200;

/// Something that is not what it must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The repo that refers to it.
    pub repo: String,
    /// The commit that refers to it.
    pub revision: Option<String>,
    /// The file that is affected.
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
    /// Checks one repo, or all. What it finds goes into `reports`; if nobody listens any more, it
    /// stops.
    pub async fn verify(
        self: &Arc<Self>,
        scope: Option<&Repo>,
        reports: mpsc::Sender<Report>,
    ) -> Result<Summary> {
        let repos = match scope {
            Some(repo) => vec![repo.clone()],
            None => self.records(|_| true).into_iter().map(|record| Repo { record }).collect(),
        };
        let mut check = Check {
            hub: Arc::clone(self),
            reports,
            summary: Summary::default(),
            objects: HashMap::new(),
            xorbs: HashMap::new(),
            files: HashMap::new(),
        };
        for repo in repos {
            check.repo(&repo).await?;
            check.summary.repos += 1;
        }
        Ok(check.summary)
    }
}

/// What is wrong with something, and where it lies; nothing: it is sound.
type Fault = Option<(String, String)>;

struct Check {
    hub: Arc<Hub>,
    reports: mpsc::Sender<Report>,
    summary: Summary,
    objects: HashMap<(RepoId, ObjectHash), Fault>,
    xorbs: HashMap<XorbHash, Fault>,
    files: HashMap<FileHash, Fault>,
}

impl Check {
    async fn repo(&mut self, repo: &Repo) -> Result<()> {
        let heads = match self.log(repo).await? {
            Ok(heads) => heads,
            Err(problem) => {
                let object = format!("the log of repo `{}`", repo.id());
                self.summary.damaged += 1;
                return self.finding(repo, None, None, (object, problem)).await;
            }
        };
        let (mut commits, mut open) = (HashSet::new(), heads);
        let mut affected = HashSet::new();
        while let Some(id) = open.pop() {
            if !commits.insert(id) {
                continue;
            }
            if let Some(fault) = self.object(repo, &id, ObjectKind::Commit).await? {
                self.finding(repo, Some(id), None, fault).await?;
                continue;
            }
            let commit = self.hub.commit(repo.id(), &id).await?;
            open.extend(commit.parents.iter().copied());
            self.tree(repo, id, commit.tree, &mut affected).await?;
        }
        self.summary.files_affected += affected.len() as u64;
        Ok(())
    }

    /// Reads the log from its beginning; every commit that a ref ever pointed to.
    async fn log(&mut self, repo: &Repo) -> Result<std::result::Result<Vec<ObjectHash>, String>> {
        let log = Log::new(self.hub.store().clone(), LogId::Repo(repo.id()));
        let (mut tail, mut heads) = (Tail::EMPTY, Vec::new());
        loop {
            let page = match log.read_after::<RepoChange>(&tail).await {
                Ok(page) => page,
                Err(error) if is_damage(&error) => return Ok(Err(error.to_string())),
                Err(error) => return Err(error.into()),
            };
            let Some(last) = page.last() else { return Ok(Ok(heads)) };
            tail = last.tail;
            for stored in &page {
                self.count(stored.bytes.len() as u64).await?;
                heads.extend(stored.entry.changes.iter().filter_map(|change| match change {
                    RepoChange::RefSet { new, .. } => Some(*new),
                    _ => None,
                }));
            }
        }
    }

    /// Checks a folder and all below it; a folder that was sound in another commit is passed over
    /// by way of its files, which are looked up and not read again.
    async fn tree(
        &mut self,
        repo: &Repo,
        commit: ObjectHash,
        root: ObjectHash,
        affected: &mut HashSet<String>,
    ) -> Result<()> {
        let mut open = vec![(String::new(), root)];
        while let Some((prefix, id)) = open.pop() {
            if let Some(fault) = self.object(repo, &id, ObjectKind::Tree).await? {
                let path = Some(format!("{prefix}*"));
                affected.insert(format!("{prefix}*"));
                self.finding(repo, Some(commit), path, fault).await?;
                continue;
            }
            let tree = self.hub.tree(repo.id(), &id).await?;
            for entry in &tree.entries {
                let path = format!("{prefix}{}", entry.name);
                match entry.mode {
                    EntryMode::Directory => open.push((format!("{path}/"), entry.id)),
                    EntryMode::Submodule => {}
                    _ => {
                        if let Some(fault) = self.file(repo, &entry.id).await?
                            && affected.insert(path.clone())
                        {
                            self.finding(repo, Some(commit), Some(path), fault).await?;
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// Checks a blob and, if it is a pointer, the file behind it.
    async fn file(&mut self, repo: &Repo, id: &ObjectHash) -> Result<Fault> {
        if let Some(fault) = self.object(repo, id, ObjectKind::Blob).await? {
            return Ok(Some(fault));
        }
        let row = self.hub.object_row(repo.id(), id).await?;
        let Some(pointer) = row.and_then(|row| row.pointer) else { return Ok(None) };
        let key = schema::file_key(&repo.id(), &pointer.sha256);
        let Some(row) = self.hub.index().get(Table::File, &key).await? else { return Ok(None) };
        let file = FileRow::decode(&row)?;
        if file.size == 0 {
            return Ok(None);
        }
        if let Some(known) = self.files.get(&file.file) {
            return Ok(known.clone());
        }
        let fault = self.large_file(&file.file).await?;
        self.files.insert(file.file, fault.clone());
        Ok(fault)
    }

    async fn large_file(&mut self, file: &FileHash) -> Result<Fault> {
        let object = format!("the manifest of `{file}`");
        let manifest = match self.hub.manifest(file).await {
            Ok(Some(manifest)) => manifest,
            Ok(None) => return self.damaged(object, "it is missing".to_owned()),
            Err(error) => return self.fault(object, error),
        };
        let mut fault = None;
        for term in &manifest.terms {
            let found = match self.xorbs.get(&term.xorb) {
                Some(known) => known.clone(),
                None => {
                    let found = self.xorb(&term.xorb).await?;
                    self.xorbs.insert(term.xorb, found.clone());
                    found
                }
            };
            fault = fault.or(found);
        }
        if fault.is_some() {
            return Ok(fault);
        }
        // Every chunk is sound; what is left is that they are the right ones in the right order.
        let mut bytes = self.hub.read_manifest(Arc::clone(&manifest), 0..manifest.size);
        let mut sha256 = sha2::Sha256::new();
        while let Some(piece) = futures_util::StreamExt::next(&mut bytes).await {
            match piece {
                Ok(piece) => sha256.update(&piece),
                Err(error) => return self.fault(object, error),
            }
        }
        if sha256.finalize().as_slice() != manifest.sha256.as_bytes() {
            return self.damaged(object, "its bytes have another SHA-256".to_owned());
        }
        Ok(None)
    }

    /// Reads a xorb from its first chunk to its last.
    async fn xorb(&mut self, xorb: &XorbHash) -> Result<Fault> {
        let object = format!("the xorb `{xorb}`");
        let copy = match self.hub.xorb_copy(xorb).await? {
            Some(copy) => copy,
            None => return self.damaged(object, "it is missing".to_owned()),
        };
        let object = Key::Copy(copy).to_string();
        let footer = match self.hub.footer(&copy).await {
            Ok(footer) => footer,
            Err(error) => return self.fault(object, error),
        };
        match self.chunks(&copy, &footer).await {
            Ok(()) => {
                self.count(footer.serialized_length()).await?;
                Ok(None)
            }
            Err(error) => self.fault(object, error),
        }
    }

    async fn chunks(&self, copy: &CopyName, footer: &Arc<XorbFooter>) -> Result<()> {
        let (mut first, mut decoder) = (0, ChunkDecoder::new());
        while first < footer.chunk_count() {
            let (mut end, mut bytes) = (first, 0);
            while end < footer.chunk_count() && (end == first || bytes < PIECE_BYTES) {
                bytes += u64::from(footer.serialized_chunk_length(end));
                end += 1;
            }
            let range = footer.byte_range(first..end)?;
            let piece = self.hub.store().get_range(&Key::Copy(*copy), range).await?;
            let footer = Arc::clone(footer);
            decoder = self
                .hub
                .pool()
                .run(move || {
                    let checked =
                        decoder.decode_chunks(&piece, &footer, first..end, true, |_| Ok(()));
                    checked.map(|()| decoder)
                })
                .await?
                .map_err(|error| Error::corrupt(error.to_string()))?;
            first = end;
        }
        Ok(())
    }

    /// Reads a git object, from the store and not from a cache.
    async fn object(&mut self, repo: &Repo, id: &ObjectHash, kind: ObjectKind) -> Result<Fault> {
        if let Some(known) = self.objects.get(&(repo.id(), *id)) {
            return Ok(known.clone());
        }
        let object = format!("the {kind:?} `{id}`").to_lowercase();
        let fault = match self.hub.object_row(repo.id(), id).await? {
            None => self.damaged(object, "it is missing".to_owned())?,
            Some(row) if row.kind != kind => {
                self.damaged(object, "it is something else".to_owned())?
            }
            Some(row) => match self.hub.read_object(id, &row).await {
                Ok(content) => {
                    self.count(content.len() as u64).await?;
                    None
                }
                Err(error) => self.fault(Key::Copy(row.pack).to_string(), error)?,
            },
        };
        self.objects.insert((repo.id(), *id), fault.clone());
        Ok(fault)
    }

    /// An error that means damage is a finding; any other ends the check.
    fn fault(&mut self, object: String, error: Error) -> Result<Fault> {
        let is_damage = match &error {
            Error::Corrupt { .. } | Error::Format { .. } => true,
            Error::Store(error) => is_damage(error),
            _ => false,
        };
        if is_damage { self.damaged(object, error.to_string()) } else { Err(error) }
    }

    fn damaged(&mut self, object: String, problem: String) -> Result<Fault> {
        self.summary.damaged += 1;
        Ok(Some((object, problem)))
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
        &mut self,
        repo: &Repo,
        revision: Option<ObjectHash>,
        path: Option<String>,
        (object, problem): (String, String),
    ) -> Result<()> {
        let finding = Finding {
            repo: format!("{}{}", repo.kind().url_prefix(), repo.name()),
            revision: revision.map(|id| id.to_string()),
            path,
            object,
            problem,
        };
        self.report(Report::Finding(finding)).await
    }

    async fn report(&self, report: Report) -> Result<()> {
        let gone = |_| Error::Busy { reason: "nobody listens to the check any more".to_owned() };
        self.reports.send(report).await.map_err(gone)
    }
}

/// Damage and absence, as opposed to a store that can't be reached now.
fn is_damage(error: &ballast_store::Error) -> bool {
    use ballast_format::ErrorKind::{Corrupt, Invalid, NotFound};
    matches!(error.kind(), Corrupt | NotFound | Invalid)
}
