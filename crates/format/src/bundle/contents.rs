//! The list of contents: which records there are, how files are made of them, and which repos name
//! these files.
//!
//! A file is a list of runs: chunks of a record, or chunks of a file that whoever takes the bundle
//! in has already. So a bundle carries no chunk that is there, wherever it is stored.

use std::collections::BTreeSet;
use std::ops::Range;

use super::receipt::repo_kind;
use crate::codec::{Decoder, Encoder, Format};
use crate::error::{Error, Result};
use crate::hash::{FileHash, ObjectHash, Sha256};
use crate::limits::{
    MAX_BUNDLE_CONTENTS_BYTES, MAX_BUNDLE_VOLUMES, MAX_FILE_BYTES, MAX_XORB_CHUNKS,
    MAX_XORB_SERIALIZED_BYTES,
};
use crate::log::{Gating, Visibility};
use crate::name::{FilePath, RefName, RepoKind, RepoName};
use crate::object::{MAX_POINTER_BYTES, ObjectKind, Pointer};

const FORMAT: Format = Format {
    what: "list of a bundle's contents",
    magic: *b"BLSTBNDC",
    version: 2,
    limit: MAX_BUNDLE_CONTENTS_BYTES,
    has_checksum: false,
};
/// The version from which on repos say which of their large files are left out.
const WITH_ABSENT: u16 = 2;

/// What a record holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordKind {
    /// Chunks, as a xorb holds them.
    Chunks,
    /// Git objects of one repo, back to back.
    Objects,
}

impl RecordKind {
    pub(super) fn to_byte(self) -> u8 {
        match self {
            Self::Chunks => 0,
            Self::Objects => 1,
        }
    }

    pub(super) fn decode(from: &mut Decoder<'_>) -> Result<Self> {
        match from.u8()? {
            0 => Ok(Self::Chunks),
            1 => Ok(Self::Objects),
            other => Err(from.malformed(format!("{other} is no kind of record"))),
        }
    }
}

/// A record, and the volume that it is in. Those of one volume stand there in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// The volume; the first is 1.
    pub volume: u32,
    /// What it holds.
    pub kind: RecordKind,
    /// The name of that: of chunks the hash of the xorb that they make, of objects the BLAKE3 of
    /// their ids one after another.
    pub hash: [u8; 32],
    /// Its length.
    pub bytes: u64,
}

/// A file that is there already where the bundle goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BaseFile {
    /// Its SHA-256.
    pub sha256: Sha256,
    /// The hash of its content.
    pub file: FileHash,
}

/// A run of chunks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Run {
    /// Chunks of a record, counted from its first.
    Record(u32, Range<u32>),
    /// Chunks of a file that is there, counted from its first.
    Base(u32, Range<u32>),
}

/// A large file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CarriedFile {
    /// Its SHA-256.
    pub sha256: Sha256,
    /// The hash of its content.
    pub file: FileHash,
    /// Its size in bytes.
    pub size: u64,
    /// What it is made of, in order.
    pub runs: Vec<Run>,
}

/// A git object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CarriedObject {
    /// Its id.
    pub id: ObjectHash,
    /// What it is.
    pub kind: ObjectKind,
    /// How long its content is.
    pub length: u32,
    /// The large file that it stands for, if it is a pointer.
    pub pointer: Option<Pointer>,
}

/// So many objects are in this record; the runs are in the order of the objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObjectRun {
    /// The record.
    pub record: u32,
    /// How many of the repo's objects.
    pub count: u32,
}

/// A branch or a tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CarriedRef {
    /// Its name.
    pub name: RefName,
    /// Where it points.
    pub commit: ObjectHash,
}

/// Where a large file is in a repo.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedFile {
    /// The path in a commit that the bundle brings.
    pub path: FilePath,
    /// Which of the bundle's files.
    pub file: u32,
}

/// What a bundle brings of a repo.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CarriedRepo {
    /// What it holds.
    pub kind: RepoKind,
    /// Its name.
    pub name: RepoName,
    /// Who may see it.
    pub visibility: Visibility,
    /// Whether readers must ask for its files.
    pub gating: Gating,
    /// A line about it.
    pub description: Option<String>,
    /// For a space: what runs it.
    pub sdk: Option<String>,
    /// What its card says of its licence.
    pub license: Option<String>,
    /// The address of the hub that it mirrors.
    pub upstream: Option<String>,
    /// The commits that were asked for.
    pub revisions: Vec<ObjectHash>,
    /// The refs that lead to them.
    pub refs: Vec<CarriedRef>,
    /// Its objects that are not there yet.
    pub objects: Vec<CarriedObject>,
    /// The records that hold them.
    pub object_runs: Vec<ObjectRun>,
    /// Its large files that it does not have there yet.
    pub links: Vec<u32>,
    /// Where they are, for people.
    pub paths: Vec<NamedFile>,
    /// Large files that its commits name and that are left out: whoever made the bundle does not
    /// have them.
    pub absent: Vec<Pointer>,
}

/// Everything that a bundle brings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// The records, volume by volume.
    pub records: Vec<Record>,
    /// The files that must be there already.
    pub bases: Vec<BaseFile>,
    /// The large files.
    pub files: Vec<CarriedFile>,
    /// The repos.
    pub repos: Vec<CarriedRepo>,
}

impl Contents {
    /// The stored bytes.
    pub fn encode(&self) -> Result<Vec<u8>> {
        FORMAT.encode(|to| {
            to.list(&self.records, encode_record);
            to.list(&self.bases, |to, base| {
                to.array(base.sha256.as_bytes());
                to.array(base.file.as_bytes());
            });
            to.list(&self.files, encode_file);
            to.list(&self.repos, encode_repo);
        })
    }

    /// Reads stored bytes. What comes out fits together: every number is one of something that is
    /// there.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let (version, mut from) = FORMAT.decode_since(1, bytes)?;
        let records = from.list(4 + 1 + 32 + 8, decode_record)?;
        let bases = from.list(64, |from| {
            let sha256 = Sha256::from_bytes(from.array()?);
            Ok(BaseFile { sha256, file: FileHash::from_bytes(from.array()?) })
        })?;
        let files = from.list(32 + 32 + 8 + 4, decode_file)?;
        let repos = from.list(32, |from| decode_repo(from, version))?;
        from.finish()?;
        let contents = Self { records, bases, files, repos };
        contents.check()?;
        Ok(contents)
    }

    /// How many volumes there are.
    pub fn volume_count(&self) -> u32 {
        self.records.last().map_or(0, |record| record.volume)
    }

    fn check(&self) -> Result<()> {
        let mut volume = 0;
        for record in &self.records {
            if record.volume < volume || record.volume > volume + 1 || record.volume == 0 {
                return fault("its volumes are not in order");
            }
            volume = record.volume;
            let most = match record.kind {
                RecordKind::Chunks => MAX_XORB_SERIALIZED_BYTES as u64,
                RecordKind::Objects => u64::from(u32::MAX),
            };
            if record.bytes > most {
                return fault("a record is longer than it can be");
            }
        }
        if volume as usize > MAX_BUNDLE_VOLUMES {
            return fault("it has too many volumes");
        }
        self.files.iter().try_for_each(|file| self.check_file(file))?;
        self.repos.iter().try_for_each(|repo| self.check_repo(repo))
    }

    fn check_file(&self, file: &CarriedFile) -> Result<()> {
        if file.size > MAX_FILE_BYTES || (file.size == 0) != file.runs.is_empty() {
            return fault("a file has an impossible size");
        }
        for run in &file.runs {
            let (is_there, chunks) = match run {
                Run::Record(record, chunks) => {
                    (self.is_record(*record, RecordKind::Chunks), chunks)
                }
                Run::Base(base, chunks) => ((*base as usize) < self.bases.len(), chunks),
            };
            if !is_there || chunks.is_empty() {
                return fault("a file is made of what is not there");
            }
            if matches!(run, Run::Record(..)) && chunks.end as usize > MAX_XORB_CHUNKS {
                return fault("a file is made of more chunks than a record has");
            }
        }
        Ok(())
    }

    fn is_record(&self, number: u32, kind: RecordKind) -> bool {
        self.records.get(number as usize).is_some_and(|record| record.kind == kind)
    }

    fn check_repo(&self, repo: &CarriedRepo) -> Result<()> {
        let mut objects = repo.objects.iter();
        for run in &repo.object_runs {
            if !self.is_record(run.record, RecordKind::Objects) {
                return fault("a repo's objects are in no record of objects");
            }
            let mut bytes = 0;
            for _ in 0..run.count {
                let Some(object) = objects.next() else {
                    return fault("a record has more objects than its repo");
                };
                bytes += u64::from(object.length);
            }
            if bytes != self.records[run.record as usize].bytes {
                return fault("a record does not have the length of its objects");
            }
        }
        if objects.next().is_some() {
            return fault("an object is in no record");
        }
        let named = repo.paths.iter().map(|path| path.file).chain(repo.links.iter().copied());
        if named.into_iter().any(|file| file as usize >= self.files.len()) {
            return fault("a repo names a file that is not there");
        }
        let linked = repo.links.iter().map(|file| self.files[*file as usize].sha256);
        let linked: BTreeSet<Sha256> = linked.collect();
        for absent in &repo.absent {
            if absent.size == 0 || absent.size > MAX_FILE_BYTES {
                return fault("a file that is left out has an impossible size");
            }
            if linked.contains(&absent.sha256) {
                return fault("a file is both carried and left out");
            }
        }
        Ok(())
    }
}

fn fault<T>(reason: &str) -> Result<T> {
    Err(Error::malformed(FORMAT.what, reason))
}

fn encode_record(to: &mut Encoder, record: &Record) {
    to.u32(record.volume);
    to.u8(record.kind.to_byte());
    to.array(&record.hash);
    to.u64(record.bytes);
}

fn decode_record(from: &mut Decoder<'_>) -> Result<Record> {
    Ok(Record {
        volume: from.u32()?,
        kind: RecordKind::decode(from)?,
        hash: from.array()?,
        bytes: from.u64()?,
    })
}

fn encode_file(to: &mut Encoder, file: &CarriedFile) {
    to.array(file.sha256.as_bytes());
    to.array(file.file.as_bytes());
    to.u64(file.size);
    to.list(&file.runs, |to, run| {
        let (tag, number, chunks) = match run {
            Run::Record(number, chunks) => (0, number, chunks),
            Run::Base(number, chunks) => (1, number, chunks),
        };
        to.u8(tag);
        to.u32(*number);
        to.u32(chunks.start);
        to.u32(chunks.end);
    });
}

fn decode_file(from: &mut Decoder<'_>) -> Result<CarriedFile> {
    Ok(CarriedFile {
        sha256: Sha256::from_bytes(from.array()?),
        file: FileHash::from_bytes(from.array()?),
        size: from.u64()?,
        runs: from.list(13, |from| {
            let tag = from.u8()?;
            let (number, chunks) = (from.u32()?, from.u32()?..from.u32()?);
            match tag {
                0 => Ok(Run::Record(number, chunks)),
                1 => Ok(Run::Base(number, chunks)),
                other => Err(from.malformed(format!("{other} is no kind of run"))),
            }
        })?,
    })
}

fn encode_repo(to: &mut Encoder, repo: &CarriedRepo) {
    to.u8(repo.kind.to_byte());
    to.str(&repo.name.to_string());
    to.bool(repo.visibility == Visibility::Private);
    to.u8(match repo.gating {
        Gating::None => 0,
        Gating::Automatic => 1,
        Gating::Manual => 2,
    });
    for text in [&repo.description, &repo.sdk, &repo.license, &repo.upstream] {
        to.option(text.as_ref(), |to, text| to.str(text));
    }
    to.list(&repo.revisions, |to, commit| to.array(commit.as_bytes()));
    to.list(&repo.refs, |to, reference| {
        to.str(reference.name.as_str());
        to.array(reference.commit.as_bytes());
    });
    to.list(&repo.objects, |to, object| {
        to.array(object.id.as_bytes());
        to.u8(object.kind.to_byte());
        to.u32(object.length);
        to.option(object.pointer.as_ref(), |to, pointer| {
            to.array(pointer.sha256.as_bytes());
            to.u64(pointer.size);
        });
    });
    to.list(&repo.object_runs, |to, run| {
        to.u32(run.record);
        to.u32(run.count);
    });
    to.list(&repo.links, |to, file| to.u32(*file));
    to.list(&repo.paths, |to, named| {
        to.str(named.path.as_str());
        to.u32(named.file);
    });
    to.list(&repo.absent, |to, pointer| {
        to.array(pointer.sha256.as_bytes());
        to.u64(pointer.size);
    });
}

fn decode_repo(from: &mut Decoder<'_>, version: u16) -> Result<CarriedRepo> {
    let text = |from: &mut Decoder<'_>| from.option(|from| Ok(from.str()?.to_owned()));
    let (kind, name) = (repo_kind(from)?, RepoName::parse(from.str()?)?);
    let visibility = if from.bool()? { Visibility::Private } else { Visibility::Public };
    let gating = match from.u8()? {
        0 => Gating::None,
        1 => Gating::Automatic,
        2 => Gating::Manual,
        other => return Err(from.malformed(format!("{other} is no gating"))),
    };
    Ok(CarriedRepo {
        kind,
        name,
        visibility,
        gating,
        description: text(from)?,
        sdk: text(from)?,
        license: text(from)?,
        upstream: text(from)?,
        revisions: from.list(20, |from| Ok(ObjectHash::from_bytes(from.array()?)))?,
        refs: from.list(24, decode_ref)?,
        objects: from.list(26, decode_object)?,
        object_runs: from
            .list(8, |from| Ok(ObjectRun { record: from.u32()?, count: from.u32()? }))?,
        links: from.list(4, Decoder::u32)?,
        paths: from.list(8, |from| {
            Ok(NamedFile { path: FilePath::parse(from.str()?)?, file: from.u32()? })
        })?,
        absent: match version {
            WITH_ABSENT.. => from.list(40, decode_pointer)?,
            _ => Vec::new(),
        },
    })
}

fn decode_pointer(from: &mut Decoder<'_>) -> Result<Pointer> {
    Ok(Pointer { sha256: Sha256::from_bytes(from.array()?), size: from.u64()? })
}

fn decode_ref(from: &mut Decoder<'_>) -> Result<CarriedRef> {
    let name = RefName::parse(from.str()?)?;
    if !name.is_branch() && !name.is_tag() {
        return Err(from.malformed(format!("`{}` is no branch and no tag", name.as_str())));
    }
    Ok(CarriedRef { name, commit: ObjectHash::from_bytes(from.array()?) })
}

fn decode_object(from: &mut Decoder<'_>) -> Result<CarriedObject> {
    let (id, kind) = (ObjectHash::from_bytes(from.array()?), from.u8()?);
    let kind = ObjectKind::from_byte(kind)
        .ok_or_else(|| from.malformed(format!("{kind} is no kind of object")))?;
    let length = from.u32()?;
    let pointer = from.option(decode_pointer)?;
    if pointer.is_some() && (kind != ObjectKind::Blob || length as usize > MAX_POINTER_BYTES) {
        return Err(from.malformed("what can't be a pointer is said to be one"));
    }
    Ok(CarriedObject { id, kind, length, pointer })
}
