//! Opening a bundle: whose it is, and what is in it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use ballast_format::bundle::{Contents, RecordKind, Run, SignedStatement, Statement};
use ballast_format::hash::BundleHash;
use ballast_format::limits::MAX_BUNDLE_CONTENTS_BYTES;
use ballast_node::pool::Pool;

use super::error::{Error, Result};
use super::folder::{CONTENTS, Folder, MATERIALS, STATEMENT, Volume};
use super::key::{PublicKey, hex};

/// The longest bill of materials that is read.
const MAX_MATERIALS_BYTES: usize = 1 << 30;

/// A bundle whose statement and contents are read and fit together.
#[derive(Debug)]
pub struct OpenBundle {
    /// What was signed.
    pub statement: Statement,
    /// What is in it.
    pub contents: Contents,
    /// Whether one of the keys that were given has signed it.
    pub is_trusted: bool,
    pub(super) folder: Folder,
}

/// What of a repo is affected by damage.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Affected {
    /// Whether commits, folders or small files are.
    pub objects: bool,
    /// The large files, by their paths in the commits that were asked for.
    pub files: BTreeSet<String>,
    /// How many other large files: those of commits before these.
    pub older: usize,
}

/// Opens the bundle in a folder. With keys, one of them must have signed it; without, whoever did
/// is not trusted, and nothing may be taken in.
pub async fn open(folder: &Path, keys: &[PublicKey], pool: &Pool) -> Result<OpenBundle> {
    let folder = Folder::new(folder, pool);
    let bytes = folder.read(STATEMENT, SignedStatement::MAX_BYTES).await?;
    let bytes = bytes.ok_or_else(|| Error::refused(format!("there is no `{STATEMENT}` here")))?;
    let signed = SignedStatement::decode(&bytes);
    let signed = signed.map_err(|error| Error::damaged(STATEMENT, error))?;
    let SignedStatement { statement, signed, signature } = signed;
    let is_trusted = match keys.iter().find(|key| *key.as_bytes() == statement.creator) {
        Some(key) if key.has_signed(&signed, &signature) => true,
        Some(_) => return Err(Error::damaged(STATEMENT, "its signature is wrong")),
        None if keys.is_empty() => false,
        None => {
            let creator = hex(&statement.creator);
            let reason = format!("the bundle is signed by `{creator}`, whose key was not given");
            return Err(Error::refused(reason));
        }
    };
    let bytes = folder.read(CONTENTS, MAX_BUNDLE_CONTENTS_BYTES).await?;
    let bytes = bytes.ok_or_else(|| Error::damaged(CONTENTS, "it is missing"))?;
    if bytes.len() as u64 != statement.contents_bytes || BundleHash::of(&bytes) != statement.bundle
    {
        return Err(Error::damaged(CONTENTS, "it is not what was signed"));
    }
    let decoded = pool.run(move || Contents::decode(&bytes)).await?;
    let contents = decoded.map_err(|error| Error::damaged(CONTENTS, error))?;
    if contents.volume_count() as usize != statement.volumes.len() {
        return Err(Error::damaged(CONTENTS, "it has other volumes than were signed"));
    }
    Ok(OpenBundle { statement, contents, is_trusted, folder })
}

impl OpenBundle {
    /// A volume, if it is there and is the one that was signed, as far as its directory tells.
    pub(super) async fn volume(&self, number: u32) -> Result<Option<Volume>> {
        let Some(volume) = self.folder.volume(number).await? else { return Ok(None) };
        let sum = self.statement.volumes.get(number as usize - 1);
        let is_it = sum.is_some_and(|sum| {
            sum.bytes == volume.bytes
                && sum.directory == volume.directory_hash
                && volume.head.bundle == self.statement.bundle
                && volume.head.number == number
        });
        let same = self.records_of(number).map(|at| self.contents.records[at as usize]);
        let same = same.map(|record| (record.kind, record.hash, record.bytes));
        let there = volume.directory.records.iter();
        if !is_it || !same.eq(there.map(|record| (record.kind, record.hash, record.bytes))) {
            return Err(Error::damaged(&volume.name, "it is another one than was signed"));
        }
        Ok(Some(volume))
    }

    /// The numbers of the records of a volume.
    pub(super) fn records_of(&self, volume: u32) -> std::ops::Range<u32> {
        let records = &self.contents.records;
        let start = records.partition_point(|record| record.volume < volume);
        let end = records.partition_point(|record| record.volume <= volume);
        let number = |at| u32::try_from(at).unwrap_or(u32::MAX);
        number(start)..number(end)
    }

    /// Whether the bill of materials is what was signed.
    pub(super) async fn check_materials(&self) -> Result<()> {
        let bytes = self.folder.read(MATERIALS, MAX_MATERIALS_BYTES).await?;
        let bytes = bytes.ok_or_else(|| Error::damaged(MATERIALS, "it is missing"))?;
        let hash = self.folder.pool().run(move || *blake3::hash(&bytes).as_bytes()).await?;
        if hash != self.statement.materials {
            return Err(Error::damaged(MATERIALS, "it is not what was signed"));
        }
        Ok(())
    }

    /// What is affected if these records can't be read, repo by repo.
    pub fn affected(&self, bad: &BTreeSet<u32>) -> BTreeMap<String, Affected> {
        let mut affected = BTreeMap::new();
        let is_bad_file = |file: &u32| {
            let runs = &self.contents.files[*file as usize].runs;
            runs.iter().any(|run| matches!(run, Run::Record(record, _) if bad.contains(record)))
        };
        for repo in &self.contents.repos {
            let objects = repo.object_runs.iter().any(|run| bad.contains(&run.record));
            let files: BTreeSet<u32> = repo.links.iter().copied().filter(is_bad_file).collect();
            if !objects && files.is_empty() {
                continue;
            }
            let named = repo.paths.iter().filter(|path| files.contains(&path.file));
            let (mut paths, mut seen) = (BTreeSet::new(), BTreeSet::new());
            for path in named {
                paths.insert(path.path.to_string());
                seen.insert(path.file);
            }
            let older = files.len() - seen.len();
            let name = format!("{}{}", repo.kind.url_prefix(), repo.name);
            affected.insert(name, Affected { objects, files: paths, older });
        }
        affected
    }

    /// How many bytes of chunks it carries.
    pub fn chunk_bytes(&self) -> u64 {
        let chunks = self.contents.records.iter();
        let chunks = chunks.filter(|record| record.kind == RecordKind::Chunks);
        chunks.map(|record| record.bytes).sum()
    }

    /// How many bytes all of its volumes have.
    pub fn volume_bytes(&self) -> u64 {
        self.statement.volumes.iter().map(|sum| sum.bytes).sum()
    }
}
