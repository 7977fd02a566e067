//! What the fake hub holds: repos with their history, as git would name all of it.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;

use ballast_format::hash::{FileHash, ObjectHash, Sha256, XorbHash};
use ballast_format::name::{RepoKind, RepoName};
use ballast_format::object::{
    Commit, EntryMode, ObjectKind, Pointer, Signature, Tree, TreeEntry, hash_object,
};
use ballast_format::xorb::{XorbFooter, XorbWriter};
use ballast_format::{chunk::Chunker, hash::ChunkHash, hash_tree};
use bytes::Bytes;

use crate::xet::sha256;

/// Files with these endings are large ones, whatever their size.
const LARGE: [&str; 5] = [".safetensors", ".bin", ".gguf", ".pt", ".onnx"];
/// Content of one xorb: small, so that files are of several.
const XORB_BYTES: usize = 4 << 20;
/// When the first commit was made, in seconds since 1970: the start of 2026.
const FIRST_COMMIT: i64 = 1_767_225_600;

/// How a Xet client would have sent a file.
#[derive(Debug)]
pub(super) struct Packed {
    pub(super) file: FileHash,
    /// Xorbs and, of each, which chunks.
    pub(super) terms: Vec<(XorbHash, Range<u32>)>,
}

/// A file.
#[derive(Clone, Debug)]
pub(super) struct File {
    pub(super) content: Bytes,
    /// The git blob: of a large file, its pointer.
    pub(super) oid: ObjectHash,
    pub(super) large: Option<(Sha256, Bytes)>,
    pub(super) packed: Option<Arc<Packed>>,
}

/// A commit.
#[derive(Clone, Debug)]
pub(super) struct Revision {
    pub(super) id: ObjectHash,
    pub(super) title: String,
    pub(super) author: String,
    pub(super) time_seconds: i64,
    pub(super) files: BTreeMap<String, File>,
    pub(super) folders: BTreeMap<String, ObjectHash>,
}

/// A repo. Its fields may be changed through [`PublicHub::change`](super::PublicHub::change).
#[derive(Clone, Debug)]
pub struct Repo {
    /// What it holds.
    pub kind: RepoKind,
    /// Its name.
    pub name: RepoName,
    /// Who may read its files: `auto` or `manual`.
    pub gated: Option<&'static str>,
    /// Whether those with the hub's token may read its files though it is gated.
    pub granted: bool,
    /// Whether only those with the hub's token may know of it.
    pub private: bool,
    /// Whether it is closed.
    pub disabled: bool,
    /// The licence in its card.
    pub licence: Option<&'static str>,
    /// Where it went, if it was renamed.
    pub moved_to: Option<RepoName>,
    pub(super) branches: BTreeMap<String, ObjectHash>,
    pub(super) tags: BTreeMap<String, ObjectHash>,
    pub(super) revisions: HashMap<ObjectHash, Arc<Revision>>,
}

/// Xorbs, with where their chunks lie.
pub(super) type Xorbs = HashMap<XorbHash, (Bytes, XorbFooter)>;

impl Repo {
    pub(super) fn new(kind: RepoKind, name: RepoName) -> Self {
        Self {
            kind,
            name,
            gated: None,
            granted: false,
            private: false,
            disabled: false,
            licence: None,
            moved_to: None,
            branches: BTreeMap::new(),
            tags: BTreeMap::new(),
            revisions: HashMap::new(),
        }
    }

    /// A commit on a branch that sets some files and takes away those with no content.
    pub(super) fn commit(
        &mut self,
        branch: &str,
        changes: &[(&str, Option<Bytes>)],
        mut xorbs: Option<&mut Xorbs>,
    ) -> ObjectHash {
        let parent = self.branches.get(branch).copied();
        let before = parent.and_then(|parent| self.revisions.get(&parent));
        let mut files = before.map(|before| before.files.clone()).unwrap_or_default();
        for (path, content) in changes {
            let made = content.clone().map(|content| file(path, content, xorbs.as_deref_mut()));
            match made {
                Some(made) => drop(files.insert((*path).to_owned(), made)),
                None => drop(files.remove(*path)),
            }
        }
        let mut folders = BTreeMap::new();
        let tree = folder("", &files, &mut folders);
        let number = i64::try_from(self.revisions.len()).expect("few");
        let who = Signature {
            name: "ada".to_owned(),
            email: "ada@hub.invalid".to_owned(),
            time_seconds: FIRST_COMMIT + 60 * number,
        };
        let title = format!("change {number} of {branch}");
        let commit = Commit {
            tree,
            parents: parent.into_iter().collect(),
            author: who.clone(),
            committer: who.clone(),
            message: title.clone(),
        };
        let id = hash_object(ObjectKind::Commit, &commit.encode()).expect("not made to collide");
        let (author, time_seconds) = (who.name, who.time_seconds);
        let revision = Revision { id, title, author, time_seconds, files, folders };
        self.revisions.insert(id, Arc::new(revision));
        self.branches.insert(branch.to_owned(), id);
        id
    }

    /// What a revision means: a branch, a tag or a commit.
    pub(super) fn resolve(&self, revision: &str) -> Option<&Arc<Revision>> {
        let short = revision.trim_start_matches("refs/heads/").trim_start_matches("refs/tags/");
        let named = self.branches.get(short).or_else(|| self.tags.get(short)).copied();
        self.revisions.get(&named.or_else(|| revision.parse().ok())?)
    }
}

fn file(path: &str, content: Bytes, xorbs: Option<&mut Xorbs>) -> File {
    let blob = |bytes: &[u8]| hash_object(ObjectKind::Blob, bytes).expect("not made to collide");
    if !LARGE.iter().any(|ending| path.ends_with(ending)) {
        return File { oid: blob(&content), content, large: None, packed: None };
    }
    let sha256 = sha256(&content);
    let pointer = Pointer { sha256, size: content.len() as u64 }.encode();
    let packed = xorbs.map(|xorbs| Arc::new(pack(&content, xorbs)));
    let oid = blob(pointer.as_bytes());
    File { content, oid, large: Some((sha256, Bytes::from(pointer))), packed }
}

/// Packs a file as a client does that knows all xorbs: chunks that are in one are not sent again.
fn pack(content: &[u8], xorbs: &mut Xorbs) -> Packed {
    let mut known: HashMap<ChunkHash, (XorbHash, u32)> = HashMap::new();
    for (hash, (_, footer)) in xorbs.iter() {
        known.extend((0..).zip(footer.chunk_hashes()).map(|(at, chunk)| (*chunk, (*hash, at))));
    }
    let (mut leaves, mut places) = (Vec::new(), Vec::new());
    let mut terms: Vec<(XorbHash, Range<u32>)> = Vec::new();
    let (mut chunker, mut rest) = (Chunker::new(), content);
    let (mut writer, mut filled) = (XorbWriter::new(), 0);
    while !rest.is_empty() {
        let length = chunker.next_boundary(rest).unwrap_or(rest.len());
        let (chunk, after) = rest.split_at(length);
        let hash = ChunkHash::of(chunk);
        leaves.push((hash, length as u64));
        rest = after;
        if let Some((xorb, at)) = known.get(&hash) {
            places.push((Some(*xorb), *at));
            continue;
        }
        if filled + length > XORB_BYTES {
            close(std::mem::take(&mut writer), &mut places, xorbs);
            filled = 0;
        }
        filled += length;
        places.push((None, writer.push(chunk, hash)));
    }
    if filled > 0 {
        close(writer, &mut places, xorbs);
    }
    for (xorb, at) in places {
        let xorb = xorb.expect("every xorb was closed");
        match terms.last_mut() {
            Some((last, chunks)) if *last == xorb && chunks.end == at => chunks.end += 1,
            _ => terms.push((xorb, at..at + 1)),
        }
    }
    Packed { file: hash_tree::file_hash(leaves), terms }
}

/// Keeps a xorb that is full, and says of its chunks that they are in it.
fn close(writer: XorbWriter, places: &mut [(Option<XorbHash>, u32)], xorbs: &mut Xorbs) {
    let (bytes, footer) = writer.finish();
    let hash = footer.hash();
    for (xorb, _) in places {
        xorb.get_or_insert(hash);
    }
    xorbs.insert(hash, (Bytes::from(bytes.to_vec()), footer));
}

/// The tree of a folder, and of all below it.
fn folder(
    path: &str,
    files: &BTreeMap<String, File>,
    folders: &mut BTreeMap<String, ObjectHash>,
) -> ObjectHash {
    let mut tree = Tree { entries: Vec::new() };
    let mut below: Vec<String> = Vec::new();
    for (file_path, file) in files {
        let prefix = if path.is_empty() { String::new() } else { format!("{path}/") };
        let Some(rest) = file_path.strip_prefix(&prefix) else { continue };
        match rest.split_once('/') {
            None => tree.insert(entry(rest, EntryMode::File, file.oid)),
            Some((name, _)) if below.iter().all(|known| known != name) => below.push(name.into()),
            Some(_) => {}
        }
    }
    for name in below {
        let inner = if path.is_empty() { name.clone() } else { format!("{path}/{name}") };
        let id = folder(&inner, files, folders);
        folders.insert(inner, id);
        tree.insert(entry(&name, EntryMode::Directory, id));
    }
    hash_object(ObjectKind::Tree, &tree.encode()).expect("not made to collide")
}

fn entry(name: &str, mode: EntryMode, id: ObjectHash) -> TreeEntry {
    TreeEntry { name: name.to_owned(), mode, id }
}
