//! A repo's objects come in, and one entry makes its revisions visible.

use std::collections::{BTreeMap, HashMap, HashSet};

use ballast_format::hash::{ObjectHash, Sha256};
use ballast_format::log::RepoChange;
use ballast_format::name::{FilePath, RefName};
use ballast_format::object::{
    Commit, EntryMode, ObjectKind, Pointer, Tree, UpstreamCommit, hash_object,
};
use ballast_format::pack::{FileLink, PackBuilder};
use bytes::Bytes;

use crate::access::Repo;
use crate::error::{Error, Result};
use crate::hub::Hub;
use crate::repo::MAX_REFS;
use crate::state::repo::NewPack;

/// The refs that are to be set, and where to.
pub type Refs = BTreeMap<RefName, ObjectHash>;

/// An object that came from elsewhere.
#[derive(Clone, Debug)]
pub struct TakenObject {
    /// The id that it is said to have.
    pub id: ObjectHash,
    /// What it is said to be.
    pub kind: ObjectKind,
    /// The large file that it is said to stand for.
    pub pointer: Option<Pointer>,
    /// Its content.
    pub content: Bytes,
}

/// The objects of one repo, taken in part by part. Dropped, it leaves at most packs that nothing
/// names.
#[derive(Debug, Default)]
pub struct Objects {
    packs: Vec<NewPack>,
    kinds: HashMap<ObjectHash, ObjectKind>,
    /// What those that came refer to, and what it must be.
    wanted: HashMap<ObjectHash, ObjectKind>,
    pointers: HashMap<Sha256, u64>,
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Published {
    /// Refs that were made or moved.
    pub moved: Vec<RefName>,
    /// Objects that came.
    pub objects: u64,
}

/// What was learnt of objects while they were checked.
#[derive(Default)]
struct Learnt {
    wanted: Vec<(ObjectHash, ObjectKind)>,
    pointers: Vec<(Sha256, u64)>,
}

impl Objects {
    /// Nothing so far.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes in a part of the objects: each is what it is said to be, or none of them is stored.
    pub async fn take(&mut self, hub: &Hub, objects: Vec<TakenObject>) -> Result<()> {
        let (objects, learnt) = hub.pool().run(move || check(objects)).await??;
        self.wanted.extend(learnt.wanted);
        self.pointers.extend(learnt.pointers);
        let (mut pack, mut contents) = (PackBuilder::new(), Vec::new());
        for TakenObject { id, kind, pointer, content } in objects {
            if self.kinds.insert(id, kind).is_none() {
                pack.push(id, kind, content.len() as u64, pointer);
                contents.push(content);
            }
        }
        if !pack.is_empty() {
            self.packs.push(hub.store_pack(pack, contents).await?);
        }
        Ok(())
    }

    /// Takes in links to files that are stored.
    pub async fn link(&mut self, hub: &Hub, links: &[FileLink]) -> Result<()> {
        if links.is_empty() {
            return Ok(());
        }
        let mut pack = PackBuilder::new();
        for link in links {
            self.pointers.remove(&link.sha256);
            pack.link(*link);
        }
        self.packs.push(hub.store_pack(pack, Vec::new()).await?);
        Ok(())
    }

    /// These large files are known not to come.
    pub fn leave_out(&mut self, absent: &[Pointer]) {
        for pointer in absent {
            self.pointers.remove(&pointer.sha256);
        }
    }

    /// Makes sure that nothing is missing, then makes everything visible at once. A ref that stands
    /// in `refs` is set to what stands there; others stay.
    pub async fn publish(self, hub: &Hub, repo: &Repo, refs: &Refs) -> Result<Published> {
        self.check_whole(hub, repo, refs).await?;
        let mut moved = Vec::new();
        let packs = &self.packs;
        hub.append_packs(repo.id(), None, packs, |state| {
            moved = refs
                .iter()
                .filter(|(name, commit)| state.refs.get(*name) != Some(*commit))
                .map(|(name, _)| name.clone())
                .collect();
            if state.refs.len() + moved.len() > MAX_REFS {
                return Err(Error::invalid(format!("a repo has at most {MAX_REFS} refs")));
            }
            let set = |name: &RefName| RepoChange::RefSet {
                name: name.clone(),
                old: state.refs.get(name).copied(),
                new: refs[name],
            };
            let changes: Vec<_> = moved.iter().map(set).collect();
            Ok((!changes.is_empty() || !packs.is_empty()).then_some(changes))
        })
        .await?;
        if moved.contains(&RefName::main()) {
            hub.strong()?.main_moved(repo).await;
        }
        Ok(Published { moved, objects: self.kinds.len() as u64 })
    }

    /// Children before parents: what came refers to nothing that is not there (Invariant 5).
    async fn check_whole(&self, hub: &Hub, repo: &Repo, refs: &Refs) -> Result<()> {
        hub.state_of(repo.id()).await?;
        let named: HashSet<ObjectHash> = refs.values().copied().collect();
        for commit in &named {
            let is_here = match self.kinds.get(commit) {
                Some(kind) => kind.is_commit(),
                None => hub.has_commit(repo, commit).await?,
            };
            if !is_here {
                return Err(Error::invalid(format!("the commit `{commit}` is missing")));
            }
        }
        let mut elsewhere: Vec<ObjectHash> = Vec::new();
        for (id, kind) in &self.wanted {
            match self.kinds.get(id) {
                Some(found) if found == kind => {}
                Some(_) => return Err(Error::invalid(format!("`{id}` is something else"))),
                None => elsewhere.push(*id),
            }
        }
        let known = hub.known_objects(repo.id(), &elsewhere).await?;
        if let Some((id, _)) = elsewhere.iter().zip(known).find(|(_, is_known)| !is_known) {
            return Err(Error::invalid(format!("the object `{id}` is missing")));
        }
        for (sha256, size) in &self.pointers {
            if *size > 0 && hub.link_of(repo.id(), sha256).await?.is_none() {
                let reason = format!("the large file `{sha256}` is missing");
                return Err(Error::invalid(reason));
            }
        }
        Ok(())
    }
}

/// Hashes objects, and learns what they refer to (Invariant 12).
fn check(objects: Vec<TakenObject>) -> Result<(Vec<TakenObject>, Learnt)> {
    let mut learnt = Learnt::default();
    for object in &objects {
        let TakenObject { id, kind, pointer, content } = object;
        if hash_object(*kind, content)? != *id {
            return Err(Error::invalid(format!("the object `{id}` has other bytes")));
        }
        match kind {
            ObjectKind::Blob => check_pointer(id, *pointer, content, &mut learnt)?,
            ObjectKind::Tree => check_tree(content, &mut learnt)?,
            ObjectKind::Commit => {
                learnt.wanted.push((Commit::decode(content)?.tree, ObjectKind::Tree));
            }
            ObjectKind::UpstreamCommit => {
                learnt.wanted.push((UpstreamCommit::decode(content)?.tree, ObjectKind::Tree));
            }
        }
    }
    Ok((objects, learnt))
}

fn check_pointer(
    id: &ObjectHash,
    pointer: Option<Pointer>,
    content: &[u8],
    learnt: &mut Learnt,
) -> Result<()> {
    let Some(said) = pointer else { return Ok(()) };
    if Pointer::parse(content) != Some(said) {
        return Err(Error::invalid(format!("the blob `{id}` is another pointer")));
    }
    learnt.pointers.push((said.sha256, said.size));
    Ok(())
}

fn check_tree(content: &[u8], learnt: &mut Learnt) -> Result<()> {
    for entry in Tree::decode(content)?.entries {
        // The same names as from anybody else.
        let path = FilePath::parse(&entry.name)?;
        if path.components().count() != 1 {
            return Err(Error::invalid(format!("`{}` is no name in a folder", entry.name)));
        }
        match entry.mode {
            EntryMode::Submodule => {}
            EntryMode::Directory => learnt.wanted.push((entry.id, ObjectKind::Tree)),
            EntryMode::File | EntryMode::Executable | EntryMode::Symlink => {
                learnt.wanted.push((entry.id, ObjectKind::Blob));
            }
        }
    }
    Ok(())
}
