//! Importing: what a bundle brings comes into a hub as uploads do, and one log entry for each repo
//! makes its revisions visible.
//!
//! Chunks first, volume by volume, in any order, and beside them the files that are made of them;
//! then git's objects, links and refs. Until the entry is there nobody sees any of it, and what is
//! stored and pinned so far is found again by the next run. A repo of which something is missing or
//! damaged waits; the others do not wait for it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use ballast_format::ErrorKind;
use ballast_format::bundle::{CarriedRepo, NamedFile, Receipt, RecordKind, Revision};
use ballast_format::hash::{BundleHash, XorbHash};
use ballast_format::log::Gating;
use ballast_format::object::Pointer;
use ballast_format::pack::FileLink;
use ballast_node::access::{Caller, Repo};
use ballast_node::carry::{Objects, Refs, TakenObject};
use ballast_node::hub::Hub;
use ballast_node::policy::{FileFacts, RepoFacts, Stage};
use ballast_node::repo::NewMirror;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::error::{Error, Result};
use super::folder::Volume;
use super::key::PublicKey;
use super::open::{Affected, OpenBundle, open};
use super::receipts::Received;
use super::taking::{Records, Taking};
use super::verify::{ranges, read_pieces};

/// Records that come in at the same time.
const AT_ONCE: usize = 2;
/// Files that are left out of a revision that a receipt names. One that lacks more is not named:
/// what it has is carried again.
const MAX_NOTED_ABSENT: usize = 1000;
/// What imported repos of creators' own are mirrors of; mirrors stay mirrors of their upstream.
const OF_BUNDLES: &str = "bundles";

/// How a bundle stands to those that came before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is the first of its creator, or the one behind the last that came.
    Next,
    /// It came before.
    Again,
    /// A later one came before: refs that are here stay where they are.
    Older,
    /// It was made against one that never came.
    Gap(BundleHash),
}

/// How far an import is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// So many bytes of chunks of so many are here.
    Bytes(u64, u64),
    /// A repo is done.
    Repo(ImportedRepo),
}

/// What came of a repo.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImportedRepo {
    /// Its name, with its kind in front unless it is a model.
    pub name: String,
    /// What became of it.
    pub outcome: Outcome,
}

/// What became of a repo.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is here.
    Here {
        /// Refs that were made or moved.
        moved: Vec<String>,
        /// Its large files that are not here, since they are in no bundle that came.
        absent: Vec<Pointer>,
    },
    /// Something of it is missing or damaged: nothing of it shows.
    Waits(Affected),
    /// It can't be taken in.
    Refused(String),
}

/// What came of an import.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imported {
    /// How it stands to those before.
    pub standing: Standing,
    /// Volumes that are missing or damaged, and what is wrong.
    pub volumes: BTreeMap<u32, String>,
    /// The repos.
    pub repos: Vec<ImportedRepo>,
    /// Bytes of chunks that were here already.
    pub present: u64,
    /// What is here now of this creator's.
    pub receipt: Receipt,
}

/// Brings the bundle in a folder into a hub, for an administrator of it.
pub async fn import(
    hub: &Arc<Hub>,
    caller: &Caller,
    folder: &Path,
    keys: &[PublicKey],
    heard: &(dyn Fn(Step) + Send + Sync),
) -> Result<Imported> {
    if !caller.is_admin() {
        let reason = "only an administrator of the hub may import a bundle";
        return Err(ballast_node::Error::denied(reason).into());
    }
    if keys.is_empty() {
        return Err(Error::refused("without a key nobody knows whose bundle it is"));
    }
    let bundle = open(folder, keys, hub.pool()).await?;
    let mut received = Received::of(hub, &bundle.statement.creator).await?;
    let standing = standing(&bundle, &received);
    // One that came in part goes on; one before the latest moves nothing back.
    let latest = received.bundles.last_key_value().map(|(sequence, _)| *sequence);
    let is_latest = latest.is_none_or(|latest| latest <= bundle.statement.sequence);
    let records = Records::new(bundle.contents.records.len());
    let taking = Taking { hub, caller, bundle: &bundle, records: &records };
    let mut import = Import {
        hub,
        caller,
        bundle: &bundle,
        heard,
        taking: &taking,
        volumes: BTreeMap::new(),
        open: BTreeMap::new(),
        done: 0,
        present: 0,
    };
    tokio::try_join!(import.chunks(), ahead(&taking))?;
    let affected = bundle.affected(&records.lost());
    let mut repos = Vec::new();
    for repo in &bundle.contents.repos {
        let name = format!("{}{}", repo.kind.url_prefix(), repo.name);
        let outcome = match affected.get(&name) {
            Some(affected) => Outcome::Waits(affected.clone()),
            None => match import.repo(repo, is_latest).await {
                Ok((moved, absent)) => Outcome::Here { moved, absent },
                Err(error) => Outcome::Refused(refusal(error)?),
            },
        };
        if let Outcome::Here { absent, .. } = &outcome
            && absent.len() <= MAX_NOTED_ABSENT
        {
            for commit in &repo.revisions {
                let (kind, name, commit) = (repo.kind, repo.name.clone(), *commit);
                let absent = absent.iter().map(|pointer| pointer.sha256).collect();
                received.note(Revision { kind, name, commit, absent });
            }
        }
        let done = ImportedRepo { name, outcome };
        heard(Step::Repo(done.clone()));
        repos.push(done);
    }
    let receipt = received.keep(hub, &bundle.statement).await?;
    let Import { volumes, present, .. } = import;
    Ok(Imported { standing, volumes, repos, present, receipt })
}

fn standing(bundle: &OpenBundle, received: &Received) -> Standing {
    let statement = &bundle.statement;
    if received.has(&statement.bundle) {
        return Standing::Again;
    }
    let latest = received.bundles.last_key_value().map(|(sequence, _)| *sequence);
    if latest.is_some_and(|latest| latest >= statement.sequence) {
        return Standing::Older;
    }
    match statement.previous {
        Some(previous) if !received.has(&previous) => Standing::Gap(previous),
        _ => Standing::Next,
    }
}

/// An error that concerns one repo only, as text; any other ends the import.
fn refusal(error: Error) -> Result<String> {
    match &error {
        Error::Refused(_) | Error::Damaged { .. } | Error::Format(_) => Ok(error.to_string()),
        Error::Node(node) => match node.kind() {
            ErrorKind::Invalid | ErrorKind::Denied | ErrorKind::NotFound | ErrorKind::Conflict => {
                Ok(error.to_string())
            }
            _ => Err(error),
        },
        Error::File { .. } => Err(error),
    }
}

/// Takes in the files of repos while their chunks come. What can't come in is said later, with its
/// repo.
async fn ahead(taking: &Taking<'_>) -> Result<()> {
    for carried in &taking.bundle.contents.repos {
        if let Err(error) = files_of(taking, carried).await {
            refusal(error)?;
        }
    }
    Ok(())
}

struct Import<'a> {
    hub: &'a Arc<Hub>,
    caller: &'a Caller,
    bundle: &'a OpenBundle,
    heard: &'a (dyn Fn(Step) + Send + Sync),
    taking: &'a Taking<'a>,
    volumes: BTreeMap<u32, String>,
    open: BTreeMap<u32, Volume>,
    done: u64,
    present: u64,
}

/// What became of a record of chunks.
enum Came {
    /// It is stored.
    New,
    /// It was here.
    Present,
    /// It is damaged.
    Bad,
}

impl Import<'_> {
    /// Brings in the chunks of every volume that is there.
    async fn chunks(&mut self) -> Result<()> {
        for number in 1..=self.bundle.contents.volume_count() {
            match self.bundle.volume(number).await {
                Ok(Some(volume)) => self.volume(number, volume).await?,
                Ok(None) => self.lose(number, "it is missing".to_owned()).await?,
                Err(Error::Damaged { reason, .. }) => self.lose(number, reason).await?,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// A volume that can't be read at all. What is here of it already is not needed from it.
    async fn lose(&mut self, number: u32, reason: String) -> Result<()> {
        self.volumes.insert(number, reason);
        for at in self.bundle.records_of(number) {
            let record = &self.bundle.contents.records[at as usize];
            let xorb = XorbHash::from_bytes(record.hash);
            let is_chunks = record.kind == RecordKind::Chunks;
            if is_chunks && self.hub.grant_xorb(self.caller, xorb).await? {
                self.present += record.bytes;
                self.done += record.bytes;
                self.taking.records.came(at);
            } else {
                self.taking.records.is_lost(at);
            }
        }
        Ok(())
    }

    async fn volume(&mut self, number: u32, volume: Volume) -> Result<()> {
        let (hub, caller) = (self.hub, self.caller);
        let records = self.bundle.records_of(number).zip(ranges(&volume).collect::<Vec<_>>());
        let chunks = records.filter_map(|(at, range)| {
            let record = self.bundle.contents.records[at as usize];
            (record.kind == RecordKind::Chunks).then_some((at, record, range))
        });
        let mut coming = Box::pin(
            stream::iter(chunks.collect::<Vec<_>>())
                .map(|(at, record, range)| {
                    let xorb = XorbHash::from_bytes(record.hash);
                    let volume = &volume;
                    async move {
                        let came = chunks_of(hub, caller, volume, range, xorb).await?;
                        Ok::<_, Error>((at, record.bytes, came))
                    }
                })
                .buffer_unordered(AT_ONCE),
        );
        let mut bad = 0;
        let total = self.bundle.chunk_bytes();
        while let Some((at, bytes, came)) = coming.try_next().await? {
            self.done += bytes;
            match came {
                Came::New => self.taking.records.came(at),
                Came::Present => {
                    self.present += bytes;
                    self.taking.records.came(at);
                }
                Came::Bad => {
                    bad += 1;
                    self.taking.records.is_lost(at);
                }
            }
            (self.heard)(Step::Bytes(self.done, total));
        }
        drop(coming);
        if bad > 0 {
            self.volumes.insert(number, format!("{bad} of its records are damaged"));
        }
        self.open.insert(number, volume);
        Ok(())
    }

    /// Makes a repo's revisions visible; the refs that moved, and which large files are not here.
    async fn repo(
        &self,
        carried: &CarriedRepo,
        is_latest: bool,
    ) -> Result<(Vec<String>, Vec<Pointer>)> {
        let (known, links) = files_of(self.taking, carried).await?;
        let repo = match known {
            Some(repo) => repo,
            None => self.hub.create_mirror(&new_mirror(carried)).await?,
        };
        let mut objects = Objects::new();
        if !self.has_objects(&repo, carried).await? {
            self.objects(carried, &mut objects).await?;
        }
        objects.link(self.hub, &links).await?;
        objects.leave_out(&carried.absent);
        let refs = self.refs(&repo, carried, is_latest).await?;
        let published = objects.publish(self.hub, &repo, &refs).await?;
        let moved = published.moved.iter().map(|name| name.as_str().to_owned()).collect();
        let mut absent = Vec::new();
        for pointer in &carried.absent {
            if !self.hub.has_mirrored(&repo, &pointer.sha256).await? {
                absent.push(*pointer);
            }
        }
        Ok((moved, absent))
    }

    async fn has_objects(&self, repo: &Repo, carried: &CarriedRepo) -> Result<bool> {
        let ids: Vec<_> = carried.objects.iter().map(|object| object.id).collect();
        Ok(self.hub.has_objects(repo, &ids).await?)
    }

    /// Takes in git's objects, a record at a time.
    async fn objects(&self, carried: &CarriedRepo, into: &mut Objects) -> Result<()> {
        let mut rest = carried.objects.iter();
        for run in &carried.object_runs {
            let record = &self.bundle.contents.records[run.record as usize];
            let first = self.bundle.records_of(record.volume).start;
            let volume = self.open.get(&record.volume);
            let volume = volume.ok_or_else(|| Error::refused("a volume is missing"))?;
            let range = ranges(volume).nth((run.record - first) as usize);
            let range = range.ok_or_else(|| Error::damaged(&volume.name, "a record is missing"))?;
            let mut content = volume.read(range).await?;
            let objects = rest.by_ref().take(run.count as usize).map(|object| TakenObject {
                id: object.id,
                kind: object.kind,
                pointer: object.pointer,
                // The list of contents was checked: lengths make up the record.
                content: content.split_to(object.length as usize),
            });
            let objects = objects.collect();
            into.take(self.hub, objects).await?;
        }
        Ok(())
    }

    /// The refs to set. A repo that has no branch `main` gets one: clients ask for it first.
    async fn refs(&self, repo: &Repo, carried: &CarriedRepo, is_latest: bool) -> Result<Refs> {
        let state = self.hub.repo_state(repo).await?;
        let mut refs: Refs =
            carried.refs.iter().map(|carried| (carried.name.clone(), carried.commit)).collect();
        if !is_latest {
            refs.retain(|name, _| !state.refs.contains_key(name));
        }
        if state.main().is_none()
            && let Some(commit) = carried.revisions.first()
        {
            refs.entry(ballast_format::name::RefName::main()).or_insert(*commit);
        }
        Ok(refs)
    }
}

/// Refuses a repo that a rule of the policy denies, whole or because of one of its files.
fn judge(taking: &Taking<'_>, carried: &CarriedRepo) -> Result<()> {
    let size = |named: &NamedFile| taking.bundle.contents.files[named.file as usize].size;
    let files: Vec<FileFacts> = carried
        .paths
        .iter()
        .map(|named| FileFacts {
            path: Some(named.path.to_string()),
            bytes: Some(size(named)),
            ..FileFacts::default()
        })
        .collect();
    let (license, is_gated) = (carried.license.as_deref(), carried.gating != Gating::None);
    let repo = RepoFacts::told(carried.kind, &carried.name, license, is_gated);
    Ok(taking.hub.may_enter(Stage::Import, &repo, &files)?)
}

/// The repo of this name, if there is one. One that is somebody's own is not touched.
fn known_repo(hub: &Hub, carried: &CarriedRepo) -> Result<Option<Repo>> {
    let Some(repo) = hub.carried_repo(carried.kind, &carried.name) else {
        return Ok(None);
    };
    let name = repo.name();
    match &repo.record.upstream {
        None => {
            let reason = format!("there is a repo `{name}` here that no bundle brought");
            Err(Error::refused(format!("{reason}\nhint: move it to another name first")))
        }
        Some(upstream) if upstream != of(carried) => {
            let theirs = of(carried);
            let reason = format!("`{name}` is a mirror of `{upstream}` here, not of `{theirs}`");
            Err(Error::refused(reason))
        }
        Some(_) => Ok(Some(repo)),
    }
}

/// The repo that a bundle's is here, if there is one, and the large files that it does not have.
async fn files_of(
    taking: &Taking<'_>,
    carried: &CarriedRepo,
) -> Result<(Option<Repo>, Vec<FileLink>)> {
    judge(taking, carried)?;
    let known = known_repo(taking.hub, carried)?;
    let mut lacking = Vec::new();
    for number in &carried.links {
        let sha256 = &taking.bundle.contents.files[*number as usize].sha256;
        let is_here = match &known {
            Some(repo) => taking.hub.has_mirrored(repo, sha256).await?,
            None => false,
        };
        if !is_here {
            lacking.push(*number);
        }
    }
    let links = taking.files(&lacking).await?;
    Ok((known, links))
}

/// What a repo is a mirror of.
fn of(carried: &CarriedRepo) -> &str {
    carried.upstream.as_deref().unwrap_or(OF_BUNDLES)
}

fn new_mirror(carried: &CarriedRepo) -> NewMirror {
    NewMirror {
        kind: carried.kind,
        name: carried.name.clone(),
        upstream: of(carried).to_owned(),
        visibility: carried.visibility,
        gating: carried.gating,
        sdk: carried.sdk.clone(),
    }
}

/// Brings in one record of chunks, unless it is here.
async fn chunks_of(
    hub: &Arc<Hub>,
    caller: &Caller,
    volume: &Volume,
    range: std::ops::Range<u64>,
    xorb: XorbHash,
) -> Result<Came> {
    if hub.grant_xorb(caller, xorb).await? {
        return Ok(Came::Present);
    }
    let length = range.end - range.start;
    let body = read_pieces(volume, range).map_err(|error| match error {
        Error::Node(error) => error,
        error => ballast_node::Error::invalid(error.to_string()),
    });
    match hub.put_xorb(caller, xorb, Some(length), Box::pin(body)).await {
        Ok(_) => Ok(Came::New),
        Err(error) if error.kind() == ErrorKind::Invalid => Ok(Came::Bad),
        Err(error) => Err(error.into()),
    }
}
