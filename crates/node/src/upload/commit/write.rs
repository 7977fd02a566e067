//! The end of a commit: trees, the commit object, packs, and the one entry that makes it visible.

use std::collections::HashSet;
use std::sync::Arc;

use ballast_format::hash::{ObjectHash, Sha256};
use ballast_format::log::RepoChange;
use ballast_format::name::{FilePath, RefName};
use ballast_format::object::{Commit, ObjectKind, Signature, hash_object};
use ballast_format::pack::{FileLink, PackBuilder};
use ballast_store::index::Table;
use ballast_store::index::schema::{self, FileRow};
use ballast_store::keyspace::{CopyKind, Key};
use bytes::Bytes;

use super::ATTRIBUTES_PATH;
use super::attributes::{self, Attributes};
use super::draft::{CommitHeader, Committed, Draft, Operation};
use super::folder::{Folder, NewTree};
use crate::access::{Access, Caller, Repo};
use crate::error::{Error, Result};
use crate::hub::Hub;
use crate::repo::NewPull;
use crate::state::repo::{NewPack, RepoState};

/// Times that a commit without a parent follows a tip that moves.
const MAX_ROUNDS: usize = 20;
const ROWS: usize = 1000;

/// A large file of a repo.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredFile {
    /// Its SHA-256.
    pub sha256: Sha256,
    /// Its size in bytes.
    pub size: u64,
    /// Where `main` has it; nothing if it does not.
    pub path: Option<String>,
}

/// A commit that is written and not yet visible.
struct Written {
    commit: ObjectHash,
    pack: NewPack,
}

impl Draft {
    /// Makes the commit. With a parent it is made on that or not at all; without, on the tip.
    pub async fn finish(mut self) -> Result<Committed> {
        for _ in 0..MAX_ROUNDS {
            let state = self.hub.repo_state(&self.repo).await?;
            let tip = state.refs.get(&self.base).copied();
            let parent = self.parent(&state, tip)?;
            let Some(written) = self.write(parent).await? else {
                let commit = parent.ok_or_else(|| Error::invalid("the commit is empty"))?;
                return Ok(Committed { commit, pull: None, changed: false });
            };
            match self.append(&written, tip).await {
                Err(Error::ParentMoved { .. }) if self.header.parent.is_none() => {}
                other => return other,
            }
        }
        Err(Error::Busy { reason: "too many others commit to the same branch".to_owned() })
    }

    /// The commit to build on.
    fn parent(&self, state: &RepoState, tip: Option<ObjectHash>) -> Result<Option<ObjectHash>> {
        let Some(wanted) = &self.header.parent else { return Ok(tip) };
        let moved = || Error::ParentMoved {
            expected: wanted.clone(),
            tip: tip.map_or_else(|| "nothing".to_owned(), |tip| tip.to_string()),
        };
        let is_hash = (5..=40).contains(&wanted.len())
            && wanted.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !is_hash {
            return Err(Error::invalid(format!("the parent `{wanted}` is no commit")));
        }
        let wanted = wanted.to_ascii_lowercase();
        if tip.is_some_and(|tip| tip.to_string().starts_with(&wanted)) {
            return Ok(tip);
        }
        // On a pull request the parent is what it builds on, which may be older than the branch.
        if self.header.create_pull || self.base.pull_number().is_some() {
            let known = state.refs.values().find(|id| id.to_string().starts_with(&wanted));
            if let Some(known) = known.copied().or_else(|| wanted.parse().ok()) {
                return Ok(if self.header.create_pull { Some(known) } else { tip });
            }
        }
        Err(moved())
    }

    /// Writes what the operations make of the parent; nothing if they change nothing.
    async fn write(&mut self, parent: Option<ObjectHash>) -> Result<Option<Written>> {
        let (hub, repo) = (Arc::clone(&self.hub), self.repo.id());
        let before = match parent {
            Some(parent) => Some(hub.commit(repo, &parent).await?.tree),
            None => None,
        };
        let mut folder = match &before {
            Some(tree) => Folder::open(&hub, repo, tree).await?,
            None => Folder::default(),
        };
        for operation in &self.operations {
            apply(&hub, repo, &mut folder, operation, parent).await?;
        }
        let links = self.links_in(&hub, &mut folder).await?;
        self.note_attributes(&mut folder, parent, &links).await?;
        let trees = folder.into_trees()?;
        let root = trees.last().ok_or_else(|| Error::internal("a commit has no tree"))?.id;
        if before == Some(root) {
            return Ok(None);
        }
        let content = self.commit_object(root, parent).encode();
        let commit = hash_object(ObjectKind::Commit, &content)?;
        let pack = self.pack(trees, commit, content, links).await?;
        Ok(Some(Written { commit, pack }))
    }

    /// The large files that the commit really has, of those that its operations named.
    async fn links_in(
        &self,
        hub: &Hub,
        folder: &mut Folder,
    ) -> Result<Vec<(FilePath, FileLink)>> {
        let mut links = Vec::with_capacity(self.links.len());
        for (path, link) in &self.links {
            if folder.get(hub, self.repo.id(), path).await?.is_some() {
                links.push((path.clone(), *link));
            }
        }
        Ok(links)
    }

    /// Large files that no line of the attribute file matches get one.
    async fn note_attributes(
        &mut self,
        folder: &mut Folder,
        parent: Option<ObjectHash>,
        links: &[(FilePath, FileLink)],
    ) -> Result<()> {
        let text = match &self.attributes {
            Some(text) => String::from_utf8_lossy(text).into_owned(),
            None => self.hub.attributes_of(&self.repo, parent).await?.unwrap_or_default(),
        };
        let attributes = Attributes::parse(&text);
        let unmatched: Vec<&FilePath> =
            links.iter().map(|(path, _)| path).filter(|path| !attributes.is_large(path)).collect();
        if unmatched.is_empty() {
            return Ok(());
        }
        let mut text = text;
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        text.extend(unmatched.into_iter().map(attributes::line_for));
        let hub = Arc::clone(&self.hub);
        let id = self.add_blob(Bytes::from(text), None).await?;
        let path = FilePath::parse(ATTRIBUTES_PATH)?;
        folder.put(&hub, self.repo.id(), &path, id).await
    }

    fn commit_object(&self, tree: ObjectHash, parent: Option<ObjectHash>) -> Commit {
        let name = match &self.caller {
            Caller::User(user) => user.name.clone(),
            Caller::Anonymous => "nobody".to_owned(),
        };
        let seconds = self.hub.env().now_ms() / 1000;
        let author = Signature {
            email: format!("{name}@users.noreply.ballast"),
            name,
            time_seconds: i64::try_from(seconds).unwrap_or(i64::MAX),
        };
        let CommitHeader { summary, description, .. } = &self.header;
        let message = match description.as_str() {
            "" => summary.clone(),
            description => format!("{summary}\n\n{description}"),
        };
        let (committer, parents) = (author.clone(), parent.into_iter().collect());
        Commit { tree, parents, author, committer, message }
    }

    /// The last pack of the commit: what is left in memory, its trees and itself.
    async fn pack(
        &self,
        trees: Vec<NewTree>,
        commit: ObjectHash,
        content: Vec<u8>,
        links: Vec<(FilePath, FileLink)>,
    ) -> Result<NewPack> {
        let (mut pack, mut contents) = (PackBuilder::new(), Vec::new());
        let mut seen = HashSet::new();
        for (id, content, pointer) in &self.blobs {
            if seen.insert(*id) {
                pack.push(*id, ObjectKind::Blob, content.len() as u64, *pointer);
                contents.push(content.clone());
            }
        }
        for tree in trees {
            let is_new = self.hub.object_row(self.repo.id(), &tree.id).await?.is_none();
            if is_new && seen.insert(tree.id) {
                pack.push(tree.id, ObjectKind::Tree, tree.content.len() as u64, None);
                contents.push(Bytes::from(tree.content));
            }
        }
        pack.push(commit, ObjectKind::Commit, content.len() as u64, None);
        contents.push(Bytes::from(content));
        let mut linked = HashSet::new();
        for (_, link) in links {
            let key = schema::file_key(&self.repo.id(), &link.sha256);
            let is_new = self.hub.index().get(Table::File, &key).await?.is_none();
            if is_new && linked.insert(link.sha256) {
                pack.link(link);
            }
        }
        self.hub.store_pack(pack, contents).await
    }

    /// The entry by which everything above becomes visible.
    async fn append(&self, written: &Written, tip: Option<ObjectHash>) -> Result<Committed> {
        let commit = written.commit;
        let mut packs = self.packs.clone();
        packs.push(written.pack.clone());
        let mut pull = None;
        let author = self.caller.user_id();
        self.hub
            .append_repo(&self.repo, author, &packs, |state| {
                let now = state.refs.get(&self.base).copied();
                let Some(name) = self.target.clone() else {
                    let (title, description) = (&*self.header.summary, &*self.header.description);
                    let new = NewPull { title, description };
                    let (number, changes) = new.changes(&self.caller, &self.repo, state, commit)?;
                    pull = Some(number);
                    return Ok(changes);
                };
                if now != tip {
                    let text = |id: Option<ObjectHash>| {
                        id.map_or_else(|| "nothing".to_owned(), |id| id.to_string())
                    };
                    return Err(Error::ParentMoved { expected: text(tip), tip: text(now) });
                }
                Ok(vec![RepoChange::RefSet { name, old: now, new: commit }])
            })
            .await?;
        if self.target == Some(RefName::main()) {
            self.hub.main_moved(&self.repo).await;
        }
        Ok(Committed { commit, pull, changed: true })
    }
}

async fn apply(
    hub: &Hub,
    repo: ballast_format::id::RepoId,
    folder: &mut Folder,
    operation: &Operation,
    commit: Option<ObjectHash>,
) -> Result<()> {
    let missing = |path: &FilePath| Error::EntryNotFound {
        path: format!("{path}: A file with this name doesn't exist"),
        commit,
    };
    match operation {
        Operation::Put { path, id } => folder.put(hub, repo, path, *id).await,
        Operation::Copy { from, to } => {
            let id = folder.get(hub, repo, from).await?.ok_or_else(|| missing(from))?;
            folder.put(hub, repo, to, id).await
        }
        Operation::Rename { from, to } => {
            let id = folder.get(hub, repo, from).await?.ok_or_else(|| missing(from))?;
            folder.remove_file(hub, repo, from).await?;
            folder.put(hub, repo, to, id).await
        }
        Operation::DeleteFile(path) => match folder.remove_file(hub, repo, path).await? {
            true => Ok(()),
            false => Err(missing(path)),
        },
        Operation::DeleteFolder(path) => match folder.remove_folder(hub, repo, path).await? {
            true => Ok(()),
            false => Err(missing(path)),
        },
    }
}

impl Hub {
    /// Writes a pack; it is durable when this returns, and nothing names it yet.
    pub(super) async fn store_pack(
        &self,
        pack: PackBuilder,
        contents: Vec<Bytes>,
    ) -> Result<NewPack> {
        let header = Bytes::from_static(pack.header());
        let (tail, directory) = pack.finish()?;
        let epoch = self.store().epoch().await?;
        let hash = *directory.hash.as_bytes();
        let copy = self.store().new_copy(CopyKind::Pack, hash, epoch);
        let mut writer = self.store().writer(&Key::Copy(copy))?;
        writer.write(header).await?;
        for content in contents {
            writer.write(content).await?;
        }
        writer.write(Bytes::from(tail)).await?;
        writer.finish().await?;
        Ok(NewPack { copy, directory: Arc::new(directory) })
    }

    /// The first commit of a new repo.
    pub(crate) async fn first_commit(
        self: &Arc<Self>,
        caller: &Caller,
        repo: &Repo,
    ) -> Result<()> {
        let header = CommitHeader {
            summary: "initial commit".to_owned(),
            revision: RefName::main().as_str().to_owned(),
            ..CommitHeader::default()
        };
        let mut draft = self.begin_commit(caller, repo.clone(), header).await?;
        let path = FilePath::parse(ATTRIBUTES_PATH)?;
        draft.add_file(path, Bytes::from(attributes::initial())).await?;
        draft.finish().await?;
        Ok(())
    }

    /// Makes a branch's history one commit with the same tree.
    pub async fn squash(
        self: &Arc<Self>,
        caller: &Caller,
        repo: &Repo,
        branch: &RefName,
        message: &str,
    ) -> Result<ObjectHash> {
        self.repo_by_id(caller, repo.id(), Access::Write)?;
        let missing = || Error::RevisionNotFound { revision: branch.short().to_owned() };
        let state = self.repo_state(repo).await?;
        let tip = state.refs.get(branch).copied().ok_or_else(missing)?;
        let header = CommitHeader {
            summary: if message.trim().is_empty() { "squash" } else { message }.to_owned(),
            revision: branch.as_str().to_owned(),
            ..CommitHeader::default()
        };
        let draft = self.begin_commit(caller, repo.clone(), header).await?;
        let tree = self.commit(repo.id(), &tip).await?.tree;
        let content = draft.commit_object(tree, None).encode();
        let commit = hash_object(ObjectKind::Commit, &content)?;
        let pack = draft.pack(Vec::new(), commit, content, Vec::new()).await?;
        draft.append(&Written { commit, pack }, Some(tip)).await?;
        Ok(commit)
    }

    /// The large files of a repo, with where `main` has them.
    pub async fn files_of(&self, repo: &Repo) -> Result<Vec<StoredFile>> {
        let mut files: Vec<StoredFile> = Vec::new();
        let mut named = HashSet::new();
        if let Some(main) = self.repo_state(repo).await?.main() {
            for item in self.siblings(repo, main).await? {
                if let Some(large) = item.large {
                    named.insert(large.sha256);
                    let (sha256, size, path) = (large.sha256, large.size, Some(item.path));
                    files.push(StoredFile { sha256, size, path });
                }
            }
        }
        let mut after: Option<Vec<u8>> = None;
        loop {
            let id = repo.id();
            let rows = self.index().scan(Table::File, id.as_bytes(), after.as_deref(), ROWS).await?;
            let Some((last, _)) = rows.last() else { return Ok(files) };
            after = Some(last.clone());
            for (key, row) in &rows {
                let sha256 = key.last_chunk::<32>().copied().map(Sha256::from_bytes);
                let sha256 = sha256.ok_or_else(|| Error::internal("a file's row has no key"))?;
                if !named.contains(&sha256) {
                    let size = FileRow::decode(row)?.size;
                    files.push(StoredFile { sha256, size, path: None });
                }
            }
        }
    }
}
