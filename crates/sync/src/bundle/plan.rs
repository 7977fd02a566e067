//! What a bundle is going to hold, down to the place of each record, before any of it is written.
//!
//! The plan depends on the revisions, on what is there already, and on how the store holds it. So
//! a run that was interrupted finds the same plan again, and the volumes that it had written.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use ballast_format::bundle::{
    BaseFile, CarriedFile, CarriedObject, CarriedRef, CarriedRepo, Contents, Directory, NamedFile,
    ObjectRun, Record, RecordKind, Run,
};
use ballast_format::hash::{ObjectHash, Sha256};
use ballast_format::id::RepoId;
use ballast_format::limits::{MAX_BUNDLE_VOLUMES, MAX_OBJECTS_RECORD_BYTES};
use ballast_format::name::FilePath;
use ballast_format::object::Pointer;
use ballast_format::pack::FileLink;
use ballast_node::access::Repo;
use ballast_node::carry::{Reached, ReachedObject};
use ballast_node::download::{ItemKind, TreeItem};
use ballast_node::hub::Hub;

use super::error::{Error, Result};
use super::lookup::{ChunkRecord, Lookup};

/// Items of a listing that are read at once.
const PAGE: usize = 1000;

/// What is carried of a repo.
#[derive(Clone, Debug)]
pub(super) struct Chosen {
    pub(super) repo: Repo,
    /// The commits.
    pub(super) commits: Vec<ObjectHash>,
    /// The refs that lead to them.
    pub(super) refs: Vec<CarriedRef>,
    /// What its card says of its licence.
    pub(super) license: Option<String>,
    /// Whether large files that are not here may be left out.
    pub(super) is_partial: bool,
}

/// Revisions of a repo that are there where the bundle goes.
#[derive(Clone, Debug)]
pub(super) struct There {
    pub(super) repo: Repo,
    pub(super) commits: Vec<ObjectHash>,
    /// Large files of them that are not there.
    pub(super) absent: BTreeSet<Sha256>,
}

/// What a record is made from.
#[derive(Debug)]
pub(super) enum Source {
    /// These objects of a repo.
    Objects(Repo, Vec<ObjectHash>),
    /// Chunks.
    Chunks(ChunkRecord),
}

/// A plan.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) contents: Contents,
    /// One for each record.
    pub(super) sources: Vec<Source>,
    /// The most bytes of a volume.
    pub(super) split: u64,
}

/// What is there already where the bundle goes.
#[derive(Default)]
struct Base {
    /// The objects of each repo.
    objects: HashMap<RepoId, HashSet<ObjectHash>>,
    /// The large files of each repo.
    linked: HashMap<RepoId, HashSet<Sha256>>,
    /// All large files.
    files: BTreeMap<Sha256, FileLink>,
}

impl Base {
    async fn read(hub: &Hub, there: &[There]) -> Result<Self> {
        let mut base = Self::default();
        for There { repo, commits, absent } in there {
            let Reached { objects, mut files, .. } = hub.carried_from(repo, commits).await?;
            files.retain(|sha256, _| !absent.contains(sha256));
            let ids = objects.into_iter().map(|object| object.id);
            base.objects.entry(repo.id()).or_default().extend(ids);
            base.linked.entry(repo.id()).or_default().extend(files.keys());
            base.files.extend(files);
        }
        Ok(base)
    }

    fn has_object(&self, repo: &Repo, id: &ObjectHash) -> bool {
        self.objects.get(&repo.id()).is_some_and(|objects| objects.contains(id))
    }

    fn has_link(&self, repo: &Repo, sha256: &Sha256) -> bool {
        self.linked.get(&repo.id()).is_some_and(|linked| linked.contains(sha256))
    }
}

/// Plans a bundle of these repos for a place that has those revisions.
pub(super) async fn plan(
    hub: &Hub,
    chosen: &[Chosen],
    there: &[There],
    split: u64,
) -> Result<Plan> {
    let base = Base::read(hub, there).await?;
    let mut building = Building::new(split);
    let mut links: BTreeMap<Sha256, FileLink> = BTreeMap::new();
    let mut repos = Vec::new();
    for chosen in chosen {
        let reached = hub.carried_from(&chosen.repo, &chosen.commits).await?;
        let repo = building.repo(chosen, &reached, &base)?;
        let new = reached.files.into_iter();
        let new: BTreeMap<_, _> =
            new.filter(|(sha256, _)| !base.has_link(&chosen.repo, sha256)).collect();
        repos.push((repo, new.keys().copied().collect::<Vec<_>>()));
        for (sha256, link) in new {
            links.entry(sha256).or_insert(link);
        }
    }
    let (files, bases) = building.files(hub, &links, &base).await?;
    let number: HashMap<Sha256, u32> =
        (0..).zip(&files).map(|(at, file)| (file.sha256, at)).collect();
    let mut carried = Vec::with_capacity(repos.len());
    for ((mut repo, new), chosen) in repos.into_iter().zip(chosen) {
        repo.links = new.iter().filter_map(|sha256| number.get(sha256).copied()).collect();
        repo.paths = paths(hub, chosen, &number).await?;
        carried.push(repo);
    }
    let Building { records, sources, .. } = building;
    let contents = Contents { records, bases, files, repos: carried };
    Ok(Plan { contents, sources, split })
}

/// Where a repo's new files are in the commits that were asked for.
async fn paths(
    hub: &Hub,
    chosen: &Chosen,
    number: &HashMap<Sha256, u32>,
) -> Result<Vec<NamedFile>> {
    let mut named: BTreeSet<(String, u32)> = BTreeSet::new();
    for commit in &chosen.commits {
        for item in files_at(hub, &chosen.repo, *commit).await? {
            let large = item.large.as_ref().and_then(|large| number.get(&large.sha256));
            named.extend(large.map(|file| (item.path.clone(), *file)));
        }
    }
    let name = |(path, file): (String, u32)| Ok(NamedFile { path: FilePath::parse(&path)?, file });
    named.into_iter().map(name).collect()
}

/// Every file of a commit.
pub(super) async fn files_at(hub: &Hub, repo: &Repo, commit: ObjectHash) -> Result<Vec<TreeItem>> {
    let (mut files, mut after) = (Vec::new(), None::<String>);
    loop {
        let page = hub.tree_page(repo, commit, None, true, after.as_deref(), PAGE).await?;
        files.extend(page.items.into_iter().filter(|item| item.kind == ItemKind::File));
        match page.next {
            Some(next) => after = Some(next),
            None => return Ok(files),
        }
    }
}

/// Records, one after another, in volumes.
struct Building {
    records: Vec<Record>,
    sources: Vec<Source>,
    split: u64,
    /// The volume at hand: its number, its records and their bytes.
    volume: (u32, usize, u64),
}

impl Building {
    fn new(split: u64) -> Self {
        Self { records: Vec::new(), sources: Vec::new(), split, volume: (1, 0, 0) }
    }

    /// The longest record that a volume has room for.
    fn most_bytes(&self) -> u64 {
        self.split.saturating_sub(Directory::overhead_bytes(1))
    }

    fn push(&mut self, record: (RecordKind, [u8; 32], u64), source: Source) -> Result<u32> {
        let (kind, hash, bytes) = record;
        let (volume, records, length) = self.volume;
        let would_have = length.saturating_add(bytes) + Directory::overhead_bytes(records + 1);
        if records > 0 && would_have > self.split {
            self.volume = (volume + 1, 1, bytes);
        } else {
            self.volume = (volume, records + 1, length + bytes);
        }
        if bytes > self.most_bytes() {
            let reason = format!("a record of {bytes} bytes has no room in a volume");
            return Err(Error::refused(format!("{reason}\nhint: a larger `--split`")));
        }
        if self.volume.0 as usize > MAX_BUNDLE_VOLUMES {
            let reason = format!("there would be more than {MAX_BUNDLE_VOLUMES} volumes");
            return Err(Error::refused(format!("{reason}\nhint: a larger `--split`")));
        }
        let number = u32::try_from(self.records.len()).unwrap_or(u32::MAX);
        self.records.push(Record { volume: self.volume.0, kind, hash, bytes });
        self.sources.push(source);
        Ok(number)
    }

    /// What is carried of a repo, files aside; its objects go into records.
    fn repo(&mut self, chosen: &Chosen, reached: &Reached, base: &Base) -> Result<CarriedRepo> {
        let Chosen { repo, commits, refs, license, is_partial } = chosen;
        let absent = reached.absent.iter().filter(|(_, size)| **size > 0);
        let absent: Vec<Pointer> =
            absent.map(|(sha256, size)| Pointer { sha256: *sha256, size: *size }).collect();
        // Only of a mirror may something be missing that is there elsewhere.
        if let Some(Pointer { sha256, size }) =
            absent.first().filter(|_| !is_partial || !repo.is_mirror())
        {
            let (name, count) = (repo.name(), absent.len());
            let reason = format!(
                "`{name}` is not all here: {count} large files are missing, `{sha256}` of {size} \
                 bytes among them"
            );
            let hint = "fetch them from its upstream, or leave them out with `--partial`";
            return Err(Error::refused(format!("{reason}\nhint: {hint}")));
        }
        let is_new = |object: &&ReachedObject| !base.has_object(repo, &object.id);
        let new: Vec<&ReachedObject> = reached.objects.iter().filter(is_new).collect();
        let mut objects = Vec::with_capacity(new.len());
        for object in &new {
            let length = u32::try_from(object.length)
                .map_err(|_| Error::refused(format!("the object `{}` is too long", object.id)))?;
            let ReachedObject { id, kind, pointer, .. } = **object;
            objects.push(CarriedObject { id, kind, length, pointer });
        }
        let object_runs = self.objects(repo, &objects)?;
        let record = &repo.record;
        Ok(CarriedRepo {
            kind: record.kind,
            name: record.name.clone(),
            visibility: record.visibility,
            gating: record.gating,
            description: record.description.clone(),
            sdk: record.sdk.clone(),
            license: license.clone(),
            upstream: record.upstream.clone(),
            revisions: commits.clone(),
            refs: refs.clone(),
            objects,
            object_runs,
            links: Vec::new(),
            paths: Vec::new(),
            absent,
        })
    }

    fn objects(&mut self, repo: &Repo, objects: &[CarriedObject]) -> Result<Vec<ObjectRun>> {
        let most = MAX_OBJECTS_RECORD_BYTES.min(self.most_bytes());
        let mut runs = Vec::new();
        let mut rest = objects;
        while !rest.is_empty() {
            let (mut count, mut bytes) = (0, 0);
            for object in rest {
                let length = u64::from(object.length);
                if count > 0 && bytes + length > most {
                    break;
                }
                (count, bytes) = (count + 1, bytes + length);
            }
            let (taken, behind) = rest.split_at(count);
            rest = behind;
            let ids: Vec<ObjectHash> = taken.iter().map(|object| object.id).collect();
            let hash = ids_hash(&ids);
            let source = Source::Objects(repo.clone(), ids);
            let record = self.push((RecordKind::Objects, hash, bytes), source)?;
            runs.push(ObjectRun { record, count: u32::try_from(count).unwrap_or(u32::MAX) });
        }
        Ok(runs)
    }

    /// What the large files are made of; their chunks go into records.
    async fn files(
        &mut self,
        hub: &Hub,
        links: &BTreeMap<Sha256, FileLink>,
        base: &Base,
    ) -> Result<(Vec<CarriedFile>, Vec<BaseFile>)> {
        let (mut lookup, mut bases) = (Lookup::default(), Vec::new());
        if links.values().any(|link| link.size > 0) {
            for link in base.files.values().filter(|link| link.size > 0) {
                let number = u32::try_from(bases.len()).unwrap_or(u32::MAX);
                lookup.add_base(number, &*hub.carried_manifest(&link.manifest()).await?);
                bases.push(BaseFile { sha256: link.sha256, file: link.file });
            }
        }
        for link in links.values().filter(|link| link.size > 0) {
            lookup.add_wanted(&*hub.carried_manifest(&link.manifest()).await?);
        }
        let first = u32::try_from(self.records.len()).unwrap_or(u32::MAX);
        for record in lookup.place(hub, first, self.most_bytes()).await? {
            let (hash, bytes) = (*record.hash.as_bytes(), record.bytes);
            self.push((RecordKind::Chunks, hash, bytes), Source::Chunks(record))?;
        }
        let mut files = Vec::with_capacity(links.len());
        for link in links.values() {
            let FileLink { sha256, file, size, .. } = *link;
            let runs = match size {
                0 => Vec::new(),
                _ => lookup.runs_of(&*hub.carried_manifest(&link.manifest()).await?)?,
            };
            files.push(CarriedFile { sha256, file, size, runs });
        }
        let bases = keep_used(&mut files, &bases);
        Ok((files, bases))
    }
}

/// Those files of the base that something is made of, numbered anew.
fn keep_used(files: &mut [CarriedFile], bases: &[BaseFile]) -> Vec<BaseFile> {
    let (mut used, mut numbers) = (Vec::new(), HashMap::new());
    for run in files.iter_mut().flat_map(|file| &mut file.runs) {
        if let Run::Base(number, _) = run {
            let new = numbers.entry(*number).or_insert_with(|| {
                used.push(bases[*number as usize]);
                u32::try_from(used.len() - 1).unwrap_or(u32::MAX)
            });
            *number = *new;
        }
    }
    used
}

/// The name of a record of objects.
pub(super) fn ids_hash(ids: &[ObjectHash]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    for id in ids {
        hasher.update(id.as_bytes());
    }
    *hasher.finalize().as_bytes()
}
