//! Creating: reads a hub's store, while it serves or not, and writes a folder.
//!
//! Volumes are written first, each under a name of its own until it is durable; the signed
//! statement comes last, and with it the folder is a bundle. What an interrupted run had written is
//! found again by the next one.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use ballast_format::bundle::{
    CarriedRef, CarriedRepo, Contents, Directory, Receipt, SIGNATURE_BYTES, SignedStatement,
    Statement, TAIL_BYTES, VolumeHead, VolumeRecord, VolumeSum,
};
use ballast_format::hash::{BundleHash, ObjectHash, Sha256, XorbHash};
use ballast_format::name::{RefName, RepoKind, RepoName};
use ballast_node::access::Repo;
use ballast_node::discovery::card::{Card, MAX_README_BYTES, texts};
use ballast_node::hub::Hub;
use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::error::{Error, Result};
use super::folder::{CONTENTS, Folder, MATERIALS, NewFile, STATEMENT, volume_name};
use super::key::SigningKey;
use super::materials::bill;
use super::plan::{Chosen, Plan, Source, There, plan};
use super::verify::{check_chunks, hash_of, ranges};

/// Volumes are at least so long: the longest git object, and some chunks.
const MIN_SPLIT_BYTES: u64 = 16 << 20;
/// Chunks that are read at once: 2 MiB as they are usually cut.
const CHUNKS_AT_ONCE: u32 = 32;
/// Reads on their way.
const AHEAD: usize = 4;

/// A repo to carry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// What it holds.
    pub kind: RepoKind,
    /// Its name.
    pub name: RepoName,
    /// A branch, a tag or a commit; `main` if nothing is said.
    pub revision: Option<String>,
    /// Whether large files of a mirror that are not here may be left out.
    pub is_partial: bool,
}

/// A bundle to make.
#[derive(Debug)]
pub struct NewBundle<'a> {
    /// What is to be in it.
    pub wishes: &'a [Wish],
    /// What the other side has already.
    pub since: Option<&'a Receipt>,
    /// The most bytes of a volume.
    pub split: u64,
    /// Who makes it.
    pub key: &'a SigningKey,
}

/// A bundle that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Created {
    /// What was signed.
    pub statement: Statement,
    /// Volumes that an earlier run had written.
    pub kept: usize,
    /// Revisions of the receipt that are not here any more: what they had is carried again.
    pub forgotten: usize,
    /// Whether the whole bundle was there already.
    pub was_there: bool,
    /// Repos of which large files are left out.
    pub left_out: Vec<LeftOut>,
}

/// What is left out of a repo.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// The repo, with its kind in front unless it is a model.
    pub repo: String,
    /// How many large files.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
}

impl LeftOut {
    /// What a bundle leaves out of its repos.
    pub fn of(contents: &Contents) -> Vec<Self> {
        let partial = contents.repos.iter().filter(|repo| !repo.absent.is_empty());
        let left_out = |repo: &CarriedRepo| Self {
            repo: format!("{}{}", repo.kind.url_prefix(), repo.name),
            files: repo.absent.len(),
            bytes: repo.absent.iter().map(|pointer| pointer.size).sum(),
        };
        partial.map(left_out).collect()
    }
}

/// Hears how many bytes of how many are written.
pub type Heard<'a> = &'a dyn Fn(u64, u64);

/// Makes a bundle in a folder.
pub async fn create(
    hub: &Arc<Hub>,
    folder: &Path,
    new: &NewBundle<'_>,
    heard: Heard<'_>,
) -> Result<Created> {
    check(new)?;
    let chosen = choose(hub, new.wishes).await?;
    let (there, forgotten) = base(hub, new.since).await?;
    let plan = plan(hub, &chosen, &there, new.split).await?;
    let (contents, left_out) = (plan.contents.encode()?, LeftOut::of(&plan.contents));
    let bundle = BundleHash::of(&contents);
    let folder = Folder::new(folder, hub.pool());
    folder.create().await?;
    if let Some(statement) = finished(&folder, &bundle, new.key).await? {
        return Ok(Created { statement, kept: 0, forgotten, was_there: true, left_out });
    }
    let materials = bill(hub, bundle, &chosen).await?;
    let materials_hash = *blake3::hash(&materials).as_bytes();
    let contents_bytes = contents.len() as u64;
    folder.write(CONTENTS, contents).await?;
    folder.write(MATERIALS, materials).await?;
    let mut writer = Writer { hub, folder: &folder, plan: &plan, bundle, heard, done: 0, kept: 0 };
    let volumes = writer.volumes().await?;
    let kept = writer.kept;
    let now = hub.env().now_ms();
    let statement = Statement {
        bundle,
        contents_bytes,
        materials: materials_hash,
        creator: *new.key.public().as_bytes(),
        // Clocks may go back; the order must not.
        sequence: new.since.map_or(now, |since| now.max(since.sequence.saturating_add(1))),
        created_ms: now,
        previous: new.since.map(|since| since.bundle),
        volumes,
    };
    let mut signed = statement.encode()?;
    let signature: [u8; SIGNATURE_BYTES] = new.key.sign(&signed);
    signed.extend_from_slice(&signature);
    // Names of volumes are durable before the name that makes the folder a bundle is.
    folder.sync().await?;
    folder.write(STATEMENT, signed).await?;
    folder.sync().await?;
    Ok(Created { statement, kept, forgotten, was_there: false, left_out })
}

fn check(new: &NewBundle<'_>) -> Result<()> {
    if new.wishes.is_empty() {
        return Err(Error::refused("a bundle of nothing is none: name a repo"));
    }
    if new.split < MIN_SPLIT_BYTES {
        let reason = format!("volumes have at least {MIN_SPLIT_BYTES} bytes");
        return Err(Error::refused(format!("{reason}\nhint: a larger `--split`")));
    }
    let creator = *new.key.public().as_bytes();
    if new.since.is_some_and(|since| since.creator != creator) {
        return Err(Error::refused("the receipt is for bundles that another key signed"));
    }
    Ok(())
}

/// The commits and refs that were wished for, each repo once.
async fn choose(hub: &Hub, wishes: &[Wish]) -> Result<Vec<Chosen>> {
    let mut chosen: Vec<Chosen> = Vec::new();
    for Wish { kind, name, revision, is_partial } in wishes {
        let full = || format!("{}{name}", kind.url_prefix());
        let repo = hub.carried_repo(*kind, name);
        let repo = repo.ok_or_else(|| Error::refused(format!("there is no repo `{}`", full())))?;
        let revision = revision.as_deref().unwrap_or("main");
        let unknown = |error: ballast_node::Error| {
            Error::refused(format!("`{}` at `{revision}`: {error}", full()))
        };
        let resolved = hub.resolve(&repo, revision).await.map_err(unknown)?;
        let commit = resolved.commit;
        let refs = refs_to(hub, &repo, commit, resolved.reference).await?;
        let license = license(hub, &repo, commit).await?;
        let known = chosen.iter_mut().find(|chosen| chosen.repo.id() == repo.id());
        let Some(known) = known else {
            let (commits, is_partial) = (vec![commit], *is_partial);
            chosen.push(Chosen { repo, commits, refs, license, is_partial });
            continue;
        };
        if !known.commits.contains(&commit) {
            known.commits.push(commit);
        }
        known.refs.extend(refs);
        known.refs.sort_by(|a, b| a.name.cmp(&b.name));
        known.refs.dedup();
        known.is_partial &= is_partial;
    }
    // In one order, whatever the order of the wishes: the same bundle.
    chosen.sort_by(|a, b| {
        let name = |chosen: &Chosen| (chosen.repo.kind(), chosen.repo.name().clone());
        name(a).cmp(&name(b))
    });
    for chosen in &mut chosen {
        chosen.commits.sort_unstable();
    }
    Ok(chosen)
}

/// The ref that was asked for; of a commit, the branches and tags that are at it.
async fn refs_to(
    hub: &Hub,
    repo: &Repo,
    commit: ObjectHash,
    reference: Option<RefName>,
) -> Result<Vec<CarriedRef>> {
    if let Some(name) = reference.filter(|name| name.is_branch() || name.is_tag()) {
        return Ok(vec![CarriedRef { name, commit }]);
    }
    let state = hub.repo_state(repo).await?;
    let at = state
        .refs
        .iter()
        .filter(|(name, at)| **at == commit && (name.is_branch() || name.is_tag()));
    Ok(at.map(|(name, commit)| CarriedRef { name: name.clone(), commit: *commit }).collect())
}

/// What the card of a commit says of its licence.
async fn license(hub: &Hub, repo: &Repo, commit: ObjectHash) -> Result<Option<String>> {
    let path = ballast_format::name::FilePath::parse("README.md")?;
    let item = match hub.item(repo, commit, &path).await {
        Err(ballast_node::Error::EntryNotFound { .. }) => return Ok(None),
        item => item?,
    };
    if item.large.is_some() || item.size > MAX_README_BYTES {
        return Ok(None);
    }
    let readme = hub.raw_blob(repo, &item, MAX_README_BYTES).await?;
    let card = String::from_utf8_lossy(&readme).into_owned();
    let data = Card::read(&card).data.unwrap_or_default();
    Ok(texts(&data, "license").next().map(ToOwned::to_owned))
}

/// The revisions of a receipt that are still here, and how many are not.
async fn base(hub: &Hub, since: Option<&Receipt>) -> Result<(Vec<There>, usize)> {
    let (mut there, mut forgotten): (Vec<There>, usize) = (Vec::new(), 0);
    for revision in since.iter().flat_map(|since| &since.revisions) {
        let Some(repo) = hub.carried_repo(revision.kind, &revision.name) else {
            forgotten += 1;
            continue;
        };
        if !hub.has_commit(&repo, &revision.commit).await? {
            forgotten += 1;
            continue;
        }
        let absent: BTreeSet<Sha256> = revision.absent.iter().copied().collect();
        // Those that lack the same are looked through together: they have most in common.
        let known =
            there.iter_mut().find(|known| known.repo.id() == repo.id() && known.absent == absent);
        match known {
            Some(known) => known.commits.push(revision.commit),
            None => there.push(There { repo, commits: vec![revision.commit], absent }),
        }
    }
    Ok((there, forgotten))
}

/// What was signed, if the folder holds this bundle already. Another one is not touched.
async fn finished(
    folder: &Folder,
    bundle: &BundleHash,
    key: &SigningKey,
) -> Result<Option<Statement>> {
    let Some(bytes) = folder.read(STATEMENT, SignedStatement::MAX_BYTES).await? else {
        return Ok(None);
    };
    match SignedStatement::decode(&bytes) {
        Ok(found)
            if found.statement.bundle == *bundle
                && key.public().has_signed(&found.signed, &found.signature) =>
        {
            Ok(Some(found.statement))
        }
        _ => Err(Error::refused("the folder holds another bundle\nhint: use an empty one")),
    }
}

/// Writes volumes.
struct Writer<'a> {
    hub: &'a Arc<Hub>,
    folder: &'a Folder,
    plan: &'a Plan,
    bundle: BundleHash,
    heard: Heard<'a>,
    done: u64,
    kept: usize,
}

/// Something that is read at once.
enum Job {
    Objects(Repo, Vec<ObjectHash>),
    Chunks(XorbHash, std::ops::Range<u32>),
}

impl Writer<'_> {
    async fn volumes(&mut self) -> Result<Vec<VolumeSum>> {
        let Contents { records, .. } = &self.plan.contents;
        let mut sums = Vec::new();
        let mut start = 0;
        for number in 1..=self.plan.contents.volume_count() {
            let end = records.partition_point(|record| record.volume <= number);
            let records = records[start..end].iter();
            let records = records.map(|record| {
                let (kind, hash, bytes) = (record.kind, record.hash, record.bytes);
                VolumeRecord { kind, hash, bytes }
            });
            let directory = Directory { records: records.collect() };
            let sources = &self.plan.sources[start..end];
            let sum = match self.kept(number, &directory, sources).await? {
                Some(sum) => {
                    self.kept += 1;
                    sum
                }
                None => self.volume(number, &directory, sources).await?,
            };
            debug_assert!(sum.bytes <= self.plan.split, "records were put where they have room");
            sums.push(sum);
            start = end;
        }
        Ok(sums)
    }

    fn advance(&mut self, bytes: u64) {
        self.done += bytes;
        (self.heard)(self.done, self.plan.contents.records.iter().map(|r| r.bytes).sum());
    }

    /// A volume that an earlier run wrote, if it is the same and nothing in it is damaged.
    async fn kept(
        &mut self,
        number: u32,
        directory: &Directory,
        sources: &[Source],
    ) -> Result<Option<VolumeSum>> {
        let volume = match self.folder.volume(number).await {
            Err(Error::Damaged { .. }) => None,
            opened => opened?,
        };
        let Some(volume) = volume else { return Ok(None) };
        let head = VolumeHead { bundle: self.bundle, number };
        if volume.head != head || volume.directory != *directory {
            return Ok(None);
        }
        let mut done = 0;
        for ((record, range), source) in directory.records.iter().zip(ranges(&volume)).zip(sources)
        {
            let checked = match source {
                Source::Chunks(chunks) => check_chunks(&volume, range, chunks.hash).await,
                Source::Objects(repo, ids) => {
                    let same = read(self.hub, Job::Objects(repo.clone(), ids.clone())).await?;
                    volume.read(range).await.map(|found| found == same)
                }
            };
            match checked {
                Ok(true) => done += record.bytes,
                Ok(false) | Err(Error::Damaged { .. }) => return Ok(None),
                Err(error) => return Err(error),
            }
        }
        let hash = hash_of(&volume, &|_| ()).await?;
        self.advance(done);
        let (bytes, directory) = (volume.bytes, volume.directory_hash);
        Ok(Some(VolumeSum { bytes, hash, directory }))
    }

    async fn volume(
        &mut self,
        number: u32,
        directory: &Directory,
        sources: &[Source],
    ) -> Result<VolumeSum> {
        let name = volume_name(number);
        self.folder.clear(&name).await?;
        let mut file = self.folder.begin(&name).await?;
        file.write(Bytes::from(VolumeHead { bundle: self.bundle, number }.encode())).await?;
        let planned: u64 = directory.records.iter().map(|record| record.bytes).sum();
        self.records(&mut file, sources).await?;
        if file.sum().0 != planned + VolumeHead::BYTES as u64 {
            let reason = "the store was rearranged while it was read\nhint: run it again";
            return Err(Error::refused(reason));
        }
        let tail = directory.encode()?;
        let directory = tail[tail.len() - TAIL_BYTES..][..32].try_into();
        let directory = directory.expect("32 bytes were cut");
        file.write(Bytes::from(tail)).await?;
        let (bytes, hash) = file.sum();
        let sum = VolumeSum { bytes, hash, directory };
        file.publish().await?;
        Ok(sum)
    }

    /// Reads ahead while what was read is written.
    async fn records(&mut self, file: &mut NewFile, sources: &[Source]) -> Result<()> {
        let hub = self.hub;
        let jobs = stream::iter(sources.iter().flat_map(jobs));
        let mut pieces = Box::pin(jobs.map(|job| read(hub, job)).buffered(AHEAD));
        let mut next = pieces.try_next().await?;
        while let Some(piece) = next {
            let bytes = piece.len() as u64;
            let (written, read) = tokio::join!(file.write(piece), pieces.try_next());
            written?;
            next = read?;
            self.advance(bytes);
        }
        Ok(())
    }
}

/// The reads that a record takes.
fn jobs(source: &Source) -> Box<dyn Iterator<Item = Job> + Send + '_> {
    match source {
        Source::Objects(repo, ids) => {
            Box::new(std::iter::once(Job::Objects(repo.clone(), ids.clone())))
        }
        Source::Chunks(record) => Box::new(record.sources.iter().flat_map(|(xorb, chunks)| {
            let (end, xorb) = (chunks.end, *xorb);
            chunks
                .clone()
                .step_by(CHUNKS_AT_ONCE as usize)
                .map(move |start| Job::Chunks(xorb, start..end.min(start + CHUNKS_AT_ONCE)))
        })),
    }
}

async fn read(hub: &Arc<Hub>, job: Job) -> Result<Bytes> {
    match job {
        Job::Chunks(xorb, chunks) => Ok(hub.carried_chunks(&xorb, chunks).await?),
        Job::Objects(repo, ids) => {
            let mut contents = BytesMut::new();
            for id in ids {
                contents.extend_from_slice(&hub.carried_object(&repo, &id).await?);
            }
            Ok(contents.freeze())
        }
    }
}
