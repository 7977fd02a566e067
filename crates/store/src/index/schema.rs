//! What the rows of the index look like: keys and values of fixed size, big end first, so that
//! keys sort as their parts do.
//!
//! The index is local and rebuildable, so this layout may change with [`SCHEMA`]: another number
//! means a rebuild, never a guess.

use std::ops::Range;

use ballast_format::hash::{ChunkHash, FileHash, ObjectHash, Sha256, ShardHash, XorbHash};
use ballast_format::id::{RepoId, UserId};
use ballast_format::manifest::ManifestId;
use ballast_format::object::{ObjectKind, Pointer};

use crate::error::{Error, Result};
use crate::keyspace::{CopyKind, CopyName, LogId};

/// The number of this layout.
pub const SCHEMA: u32 = 3;

const OF_REPO: u8 = 1;
const OF_USER: u8 = 2;

const FILE_TO_REPO: u8 = 1;
const SHA256_TO_REPO: u8 = 2;

/// Within whose reach something is: a repo's readers, or one user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// Who may read the files of the repo.
    Repo(RepoId),
    /// The user who brought it.
    User(UserId),
}

impl Scope {
    /// The length of [`Scope::to_bytes`].
    pub const LENGTH: usize = 17;

    /// The form in keys.
    pub fn to_bytes(&self) -> [u8; Self::LENGTH] {
        let (tag, id) = match self {
            Self::Repo(id) => (OF_REPO, id.as_bytes()),
            Self::User(id) => (OF_USER, id.as_bytes()),
        };
        let mut bytes = [tag; Self::LENGTH];
        bytes[1..].copy_from_slice(id);
        bytes
    }

    /// The mirror of [`Scope::to_bytes`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let mut fields = Fields::of("scope", bytes);
        let (tag, id) = (fields.u8()?, fields.array()?);
        fields.end()?;
        match tag {
            OF_REPO => Ok(Self::Repo(RepoId::from_bytes(id))),
            OF_USER => Ok(Self::User(UserId::from_bytes(id))),
            _ => Err(malformed("scope")),
        }
    }
}

/// Table `Log`: the key of an entry; the value is the entry's bytes.
pub fn log_key(log: &LogId, number: u64) -> Vec<u8> {
    join(&[&log.to_bytes(), &number.to_be_bytes()])
}

/// Table `Log`: the prefix of a log, under which keys sort by number.
pub fn log_prefix(log: &LogId) -> Vec<u8> {
    log.to_bytes().to_vec()
}

/// Table `Log`: the number in a key.
pub fn log_number(key: &[u8]) -> Result<u64> {
    let mut fields = Fields::of("log key", key);
    fields.array::<{ LogId::LENGTH }>()?;
    let number = fields.u64()?;
    fields.end()?;
    Ok(number)
}

/// Table `Object`: the key of a git object of a repo; the value is an [`ObjectRow`].
pub fn object_key(repo: &RepoId, object: &ObjectHash) -> Vec<u8> {
    join(&[repo.as_bytes(), object.as_bytes()])
}

/// Table `File`: the key of a large file of a repo; the value is a [`FileRow`].
pub fn file_key(repo: &RepoId, sha256: &Sha256) -> Vec<u8> {
    join(&[repo.as_bytes(), sha256.as_bytes()])
}

/// Table `FileRepo`: the key that says that a repo has a file; the value is its SHA-256.
pub fn file_repo_key(file: &FileHash, repo: &RepoId) -> Vec<u8> {
    join(&[&file_repo_prefix(file), repo.as_bytes()])
}

/// Table `FileRepo`: the prefix of the repos that have a file; [`repo_of`] reads the key.
pub fn file_repo_prefix(file: &FileHash) -> Vec<u8> {
    join(&[&[FILE_TO_REPO], file.as_bytes()])
}

/// Table `FileRepo`: the key that says that a repo has a SHA-256; the value is the file's hash.
pub fn sha256_repo_key(sha256: &Sha256, repo: &RepoId) -> Vec<u8> {
    join(&[&sha256_repo_prefix(sha256), repo.as_bytes()])
}

/// Table `FileRepo`: the prefix of the repos that have a SHA-256; [`repo_of`] reads the key.
pub fn sha256_repo_prefix(sha256: &Sha256) -> Vec<u8> {
    join(&[&[SHA256_TO_REPO], sha256.as_bytes()])
}

/// Table `FileRepo`: the repo in a key of either form.
pub fn repo_of(key: &[u8]) -> Result<RepoId> {
    let mut fields = Fields::of("file key", key);
    fields.array::<33>()?;
    let repo = RepoId::from_bytes(fields.array()?);
    fields.end()?;
    Ok(repo)
}

/// Table `Manifest`: the key of a manifest; the value is a [`ManifestRow`].
pub fn manifest_key(id: &ManifestId) -> Vec<u8> {
    join(&[id.file.as_bytes(), id.shard.as_bytes()])
}

/// Table `Manifest`: the prefix of all manifests of one content.
pub fn manifests_prefix(file: &FileHash) -> Vec<u8> {
    file.as_bytes().to_vec()
}

/// Table `Upload`: the key of what a user uploaded in one shard; the value is an [`UploadRow`].
pub fn upload_key(user: &UserId, sha256: &Sha256, shard: &ShardHash) -> Vec<u8> {
    join(&[&uploads_prefix(user, sha256), shard.as_bytes()])
}

/// Table `Upload`: the prefix of a user's uploads of one content.
pub fn uploads_prefix(user: &UserId, sha256: &Sha256) -> Vec<u8> {
    join(&[user.as_bytes(), sha256.as_bytes()])
}

/// Table `XorbScope`: the key that puts all of a xorb within a user's reach, who sent it; the value
/// is the time in milliseconds until which it is so ([`number_row`]).
pub fn xorb_scope_key(xorb: &XorbHash, scope: &Scope) -> Vec<u8> {
    join(&[xorb.as_bytes(), &scope.to_bytes()])
}

/// Table `XorbScope`: the key that says that a user was told that a xorb is there, which puts
/// nothing within reach; the value is the time in milliseconds until which it stays for that
/// ([`number_row`]).
pub fn xorb_told_key(xorb: &XorbHash, user: &UserId) -> Vec<u8> {
    join(&[&xorb_scope_key(xorb, &Scope::User(*user)), b"told"])
}

/// Table `XorbScope`: the prefix of what puts chunks of a xorb within reach of any repo.
pub fn xorb_repos_prefix(xorb: &XorbHash) -> Vec<u8> {
    join(&[xorb.as_bytes(), &[OF_REPO]])
}

/// Table `XorbScope`: the key that puts those chunks of a xorb within a repo's reach that a file
/// of the repo is made of; the value is a [`RunsRow`].
pub fn xorb_file_key(xorb: &XorbHash, repo: &RepoId, file: &FileHash) -> Vec<u8> {
    join(&[&xorb_scope_key(xorb, &Scope::Repo(*repo)), file.as_bytes()])
}

/// Table `XorbScope`: the repo and the file in a key of [`xorb_file_key`].
pub fn xorb_file_of(key: &[u8]) -> Result<(RepoId, FileHash)> {
    let mut fields = Fields::of("xorb file key", key);
    fields.array::<33>()?;
    let found = (RepoId::from_bytes(fields.array()?), FileHash::from_bytes(fields.array()?));
    fields.end()?;
    Ok(found)
}

/// Table `XorbScope` and `Chunk`: the reach in a key.
pub fn scope_of(key: &[u8]) -> Result<Scope> {
    Scope::from_bytes(key.get(32..32 + Scope::LENGTH).unwrap_or_default())
}

/// Table `Chunk`: the key of a sampled chunk within a reach; the value is a [`ChunkRow`].
pub fn chunk_key(chunk: &ChunkHash, scope: &Scope) -> Vec<u8> {
    join(&[chunk.as_bytes(), &scope.to_bytes()])
}

/// Table `Chunk`: the prefix of what puts a chunk within reach of any repo.
pub fn chunk_repos_prefix(chunk: &ChunkHash) -> Vec<u8> {
    join(&[chunk.as_bytes(), &[OF_REPO]])
}

/// Table `Copy`: the key of a copy; the value is its size ([`number_row`]).
pub fn copy_key(name: &CopyName) -> Vec<u8> {
    name.to_bytes().to_vec()
}

/// Table `Copy`: the prefix of the copies of a hash.
pub fn copies_prefix(kind: CopyKind, hash: &[u8; 32]) -> Vec<u8> {
    join(&[&[kind.to_byte()], hash])
}

/// Table `Copy`: the name in a key.
pub fn copy_of(key: &[u8]) -> Result<CopyName> {
    CopyName::from_bytes(key).ok_or_else(|| malformed("copy key"))
}

/// Table `Fact`: the key of a repo; the value is the caller's own.
pub fn fact_key(repo: &RepoId) -> Vec<u8> {
    repo.as_bytes().to_vec()
}

/// By what content is named that a scan is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ContentId {
    /// A large file.
    Sha256(Sha256),
    /// A blob.
    Object(ObjectHash),
}

/// Table `Scan`: the key of a file's content under a kind of name; the value is JSON, which says
/// itself by which rules it was made.
pub fn scan_key(content: &ContentId, class: u8) -> Vec<u8> {
    match content {
        ContentId::Sha256(sha256) => join(&[&[1, class], sha256.as_bytes()]),
        ContentId::Object(object) => join(&[&[2, class], object.as_bytes()]),
    }
}

/// Table `Tally`: the key of a day of a repo; the value is a count ([`number_row`]).
pub fn tally_key(repo: &RepoId, day: u32) -> Vec<u8> {
    join(&[repo.as_bytes(), &day.to_be_bytes()])
}

/// Table `Tally`: the day in a key.
pub fn tally_day(key: &[u8]) -> Result<u32> {
    let mut fields = Fields::of("tally key", key);
    fields.array::<16>()?;
    let day = fields.u32()?;
    fields.end()?;
    Ok(day)
}

/// Table `Meta`: the key that says that the counts of a tally object were added already. It sorts
/// apart from names, none of which begins with a zero byte.
pub fn folded_tally_key(day: u32, nonce: u64) -> Vec<u8> {
    join(&[&[0], &day.to_be_bytes(), &nonce.to_be_bytes()])
}

/// Table `Tally`: the repo in a key.
pub fn tally_repo(key: &[u8]) -> Result<RepoId> {
    let mut fields = Fields::of("tally key", key);
    let repo = RepoId::from_bytes(fields.array::<16>()?);
    fields.u32()?;
    fields.end()?;
    Ok(repo)
}

/// The value of [`file_repo_key`].
pub fn read_sha256(row: &[u8]) -> Result<Sha256> {
    let mut fields = Fields::of("file row", row);
    let sha256 = Sha256::from_bytes(fields.array()?);
    fields.end()?;
    Ok(sha256)
}

/// A value that is one number.
pub fn number_row(number: u64) -> Vec<u8> {
    number.to_be_bytes().to_vec()
}

/// The mirror of [`number_row`].
pub fn read_number(row: &[u8]) -> Result<u64> {
    let mut fields = Fields::of("number row", row);
    let number = fields.u64()?;
    fields.end()?;
    Ok(number)
}

/// Where a git object of a repo is: a range of a pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObjectRow {
    /// The pack.
    pub pack: CopyName,
    /// Where its content begins in the pack.
    pub offset: u64,
    /// How many bytes it has.
    pub length: u64,
    /// What it is.
    pub kind: ObjectKind,
    /// The large file that it stands for, if it does.
    pub pointer: Option<Pointer>,
}

impl ObjectRow {
    /// The value in the index.
    pub fn encode(&self) -> Vec<u8> {
        let mut row = join(&[
            &self.pack.to_bytes(),
            &self.offset.to_be_bytes(),
            &self.length.to_be_bytes(),
            &[self.kind.to_byte()],
        ]);
        if let Some(pointer) = &self.pointer {
            row.extend_from_slice(pointer.sha256.as_bytes());
            row.extend_from_slice(&pointer.size.to_be_bytes());
        }
        row
    }

    /// The mirror of [`ObjectRow::encode`].
    pub fn decode(row: &[u8]) -> Result<Self> {
        let mut fields = Fields::of("object row", row);
        let (pack, offset, length) = (fields.copy_name()?, fields.u64()?, fields.u64()?);
        let kind = ObjectKind::from_byte(fields.u8()?).ok_or_else(|| malformed("object row"))?;
        let pointer = if fields.rest.is_empty() {
            None
        } else {
            Some(Pointer { sha256: Sha256::from_bytes(fields.array()?), size: fields.u64()? })
        };
        fields.end()?;
        Ok(Self { pack, offset, length, kind, pointer })
    }
}

/// A large file of a repo.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileRow {
    /// The manifest by which the repo reads it.
    pub manifest: ManifestId,
    /// Its size in bytes.
    pub size: u64,
}

impl FileRow {
    /// The value in the index.
    pub fn encode(&self) -> Vec<u8> {
        join(&[&manifest_key(&self.manifest), &self.size.to_be_bytes()])
    }

    /// The mirror of [`FileRow::encode`].
    pub fn decode(row: &[u8]) -> Result<Self> {
        let mut fields = Fields::of("file row", row);
        let row = Self { manifest: fields.manifest_id()?, size: fields.u64()? };
        fields.end()?;
        Ok(row)
    }
}

/// Where the manifest of a file is: a range of a shard object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ManifestRow {
    /// The shard object.
    pub shard: CopyName,
    /// Where the manifest begins in it.
    pub offset: u64,
    /// How many bytes it has.
    pub length: u32,
    /// The size of the file in bytes.
    pub size: u64,
    /// The SHA-256 of the file.
    pub sha256: Sha256,
}

impl ManifestRow {
    /// The value in the index.
    pub fn encode(&self) -> Vec<u8> {
        join(&[
            &self.shard.to_bytes(),
            &self.offset.to_be_bytes(),
            &self.length.to_be_bytes(),
            &self.size.to_be_bytes(),
            self.sha256.as_bytes(),
        ])
    }

    /// The mirror of [`ManifestRow::encode`].
    pub fn decode(row: &[u8]) -> Result<Self> {
        let mut fields = Fields::of("manifest row", row);
        let row = Self {
            shard: fields.copy_name()?,
            offset: fields.u64()?,
            length: fields.u32()?,
            size: fields.u64()?,
            sha256: Sha256::from_bytes(fields.array()?),
        };
        fields.end()?;
        Ok(row)
    }
}

/// What a user uploaded, whole and verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UploadRow {
    /// Its manifest.
    pub manifest: ManifestId,
    /// Its size in bytes.
    pub size: u64,
    /// When it was uploaded, in milliseconds since 1970.
    pub time_ms: u64,
}

impl UploadRow {
    /// The value in the index.
    pub fn encode(&self) -> Vec<u8> {
        join(&[
            &manifest_key(&self.manifest),
            &self.size.to_be_bytes(),
            &self.time_ms.to_be_bytes(),
        ])
    }

    /// The mirror of [`UploadRow::encode`].
    pub fn decode(row: &[u8]) -> Result<Self> {
        let mut fields = Fields::of("upload row", row);
        let row =
            Self { manifest: fields.manifest_id()?, size: fields.u64()?, time_ms: fields.u64()? };
        fields.end()?;
        Ok(row)
    }
}

/// Which chunks of a xorb a file is made of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunsRow {
    /// Runs of chunks, half open, none of them empty: a few, so that rows stay small.
    pub runs: Vec<Range<u16>>,
}

impl RunsRow {
    /// The most runs that a row should hold. Whoever has more keeps the longest.
    pub const MOST: usize = 64;

    /// The value in the index.
    pub fn encode(&self) -> Vec<u8> {
        let run = |run: &Range<u16>| [run.start.to_be_bytes(), run.end.to_be_bytes()].concat();
        self.runs.iter().flat_map(run).collect()
    }

    /// The mirror of [`RunsRow::encode`].
    pub fn decode(row: &[u8]) -> Result<Self> {
        let mut fields = Fields::of("runs row", row);
        let mut runs = Vec::with_capacity(row.len().min(4 * Self::MOST) / 4);
        while !fields.rest.is_empty() {
            let run = u16::from_be_bytes(fields.array()?)..u16::from_be_bytes(fields.array()?);
            if run.is_empty() {
                return Err(malformed("runs row"));
            }
            runs.push(run);
        }
        Ok(Self { runs })
    }
}

/// Where a sampled chunk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkRow {
    /// A manifest that names it.
    pub manifest: ManifestId,
    /// The xorb that holds it.
    pub xorb: XorbHash,
    /// Which of the xorb's chunks it is.
    pub index: u32,
    /// Until when it may be told, in milliseconds since 1970; 0 for ever.
    pub until_ms: u64,
}

impl ChunkRow {
    /// The value in the index.
    pub fn encode(&self) -> Vec<u8> {
        join(&[
            &manifest_key(&self.manifest),
            self.xorb.as_bytes(),
            &self.index.to_be_bytes(),
            &self.until_ms.to_be_bytes(),
        ])
    }

    /// The mirror of [`ChunkRow::encode`].
    pub fn decode(row: &[u8]) -> Result<Self> {
        let mut fields = Fields::of("chunk row", row);
        let row = Self {
            manifest: fields.manifest_id()?,
            xorb: XorbHash::from_bytes(fields.array()?),
            index: fields.u32()?,
            until_ms: fields.u64()?,
        };
        fields.end()?;
        Ok(row)
    }
}

fn join(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

fn malformed(what: &str) -> Error {
    Error::index(format!("a {what} in it is malformed"))
}

/// Reads fields off the front of a row.
struct Fields<'a> {
    what: &'static str,
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    fn of(what: &'static str, rest: &'a [u8]) -> Self {
        Self { what, rest }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (field, rest) = self.rest.split_first_chunk().ok_or_else(|| malformed(self.what))?;
        self.rest = rest;
        Ok(*field)
    }

    fn u8(&mut self) -> Result<u8> {
        self.array().map(u8::from_be_bytes)
    }

    fn u32(&mut self) -> Result<u32> {
        self.array().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Result<u64> {
        self.array().map(u64::from_be_bytes)
    }

    fn manifest_id(&mut self) -> Result<ManifestId> {
        let (file, shard) = (self.array()?, self.array()?);
        Ok(ManifestId { file: FileHash::from_bytes(file), shard: ShardHash::from_bytes(shard) })
    }

    fn copy_name(&mut self) -> Result<CopyName> {
        let bytes: [u8; CopyName::LENGTH] = self.array()?;
        CopyName::from_bytes(&bytes).ok_or_else(|| malformed(self.what))
    }

    fn end(&self) -> Result<()> {
        if self.rest.is_empty() { Ok(()) } else { Err(malformed(self.what)) }
    }
}

#[cfg(test)]
mod tests;
