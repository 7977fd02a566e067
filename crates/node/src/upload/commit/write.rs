//! The end of a commit: trees, the commit object, packs, and the one entry that makes it visible.

use std::sync::Arc;

use ballast_format::hash::ObjectHash;
use ballast_format::id::RepoId;
use ballast_format::log::RepoChange;
use ballast_format::name::{FilePath, RefName};
use ballast_format::object::{Commit, EntryMode, ObjectKind, Signature, hash_object};
use ballast_format::pack::FileLink;

use super::draft::{CommitHeader, Committed, Draft, Operation, is_first};
use super::folder::{File, Folder, NewTree};
use super::spool::NewCommit;
use crate::access::Caller;
use crate::error::{Error, Result};
use crate::hub::Hub;
use crate::repo::NewPull;
use crate::state::repo::{NewPack, RepoState};
use crate::state::turns::Turns;

/// Between so many operations others get a turn.
const OPERATIONS_AT_ONCE: usize = 1000;
/// Commits of a branch among which the base of a pull request is looked for.
const MAX_BASES: usize = 10_000;

/// A commit that is written and not yet visible.
struct Written {
    commit: ObjectHash,
    pack: NewPack,
}

impl Draft {
    /// Makes the commit. With a parent it is made on that or not at all; without, on the tip.
    pub async fn finish(mut self) -> Result<Committed> {
        let hub = Arc::clone(&self.hub);
        let committed = {
            let _turn = hub.uploads.commits.turn(self.repo.id()).await;
            self.try_until_it_fits().await?
        };
        if committed.changed {
            hub.scan_soon(&self.repo, committed.commit);
        }
        if committed.changed && self.target == Some(RefName::main()) {
            hub.main_moved(&self.repo).await;
        }
        Ok(committed)
    }

    async fn try_until_it_fits(&mut self) -> Result<Committed> {
        let mut turns = Turns::begin(self.hub.env().as_ref());
        loop {
            let state = self.hub.newest_state(self.repo.id()).await?;
            let tip = state.refs.get(&self.base).copied();
            if tip.is_none() && !is_first(&state, &self.base) {
                // It was there when the commit began.
                return Err(Error::RevisionNotFound { revision: self.base.short().to_owned() });
            }
            let parent = self.parent(&state, tip).await?;
            let Some(written) = self.write(parent).await? else {
                let commit = parent.ok_or_else(|| Error::invalid("the commit is empty"))?;
                return Ok(Committed { commit, pull: None, changed: false });
            };
            match self.append(&written, tip).await {
                // It follows the tip.
                Err(Error::ParentMoved { .. }) if self.header.parent.is_none() => {
                    turns.lose(self.hub.env().as_ref(), "commit to the same branch")?;
                    turns.wait(self.hub.env().as_ref()).await;
                }
                other => return other,
            }
        }
    }

    /// Makes one commit of the tip's tree. Whoever was first wins.
    pub(super) async fn squash(self, tip: ObjectHash) -> Result<ObjectHash> {
        let hub = Arc::clone(&self.hub);
        let commit = {
            let _turn = hub.uploads.commits.turn(self.repo.id()).await;
            let tree = hub.commit(self.repo.id(), &tip).await?.tree;
            let content = self.commit_object(tree, None).encode();
            let commit = hash_object(ObjectKind::Commit, &content)?;
            let pack = self.pack(Vec::new(), (commit, content), Vec::new()).await?;
            self.append(&Written { commit, pack }, Some(tip)).await?;
            commit
        };
        if self.target == Some(RefName::main()) {
            hub.main_moved(&self.repo).await;
        }
        Ok(commit)
    }

    /// Writes a commit that has no files and no parent.
    pub(super) async fn write_nothing(self) -> Result<(ObjectHash, NewPack)> {
        let trees = Folder::default().into_trees()?;
        let root = trees.last().ok_or_else(|| Error::internal("a commit has no tree"))?.id;
        let content = self.commit_object(root, None).encode();
        let commit = hash_object(ObjectKind::Commit, &content)?;
        let pack = self.pack(trees, (commit, content), Vec::new()).await?;
        Ok((commit, pack))
    }

    /// The commit to build on.
    async fn parent(
        &self,
        state: &RepoState,
        tip: Option<ObjectHash>,
    ) -> Result<Option<ObjectHash>> {
        let Some(wanted) = &self.header.parent else {
            return Ok(tip);
        };
        let is_hash =
            (5..=40).contains(&wanted.len()) && wanted.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !is_hash {
            let wanted: String = wanted.chars().take(100).collect();
            return Err(Error::invalid(format!("the parent `{wanted}` is no commit")));
        }
        let wanted = wanted.to_ascii_lowercase();
        if tip.is_some_and(|tip| tip.to_string().starts_with(&wanted)) {
            return Ok(tip);
        }
        let is_pull = self.base.pull_number().is_some();
        if (self.header.create_pull || is_pull)
            && let Some(known) = self.hub.commit_by_prefix(self.repo.id(), &wanted).await?
        {
            if self.header.create_pull {
                return Ok(Some(known));
            }
            // A pull request's parent may be what it was made from, too.
            if self.is_base(state, known).await? {
                return Ok(tip);
            }
        }
        Err(moved(wanted, tip))
    }

    /// Whether `main` has this commit.
    async fn is_base(&self, state: &RepoState, commit: ObjectHash) -> Result<bool> {
        let mut next = state.main();
        for _ in 0..MAX_BASES {
            let Some(id) = next else { return Ok(false) };
            if id == commit {
                return Ok(true);
            }
            next = self.hub.commit(self.repo.id(), &id).await?.parents.first().copied();
        }
        Ok(false)
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
        for (number, operation) in self.operations.iter().enumerate() {
            apply(&hub, repo, &mut folder, operation, parent).await?;
            if number.is_multiple_of(OPERATIONS_AT_ONCE) {
                tokio::task::yield_now().await;
            }
        }
        self.judge(&mut folder, parent).await?;
        let large = self.large_files(&mut folder).await?;
        self.note_attributes(&mut folder, &large).await?;
        let links = self.new_links(&large).await?;
        let trees = hub.pool().run(move || folder.into_trees()).await??;
        let root = trees.last().ok_or_else(|| Error::internal("a commit has no tree"))?.id;
        // A commit that changes no file may still mend what is damaged.
        if before == Some(root) && links.is_empty() && !self.spool.heals() {
            return Ok(None);
        }
        let content = self.commit_object(root, parent).encode();
        let commit = hash_object(ObjectKind::Commit, &content)?;
        let pack = self.pack(trees, (commit, content), links).await?;
        Ok(Some(Written { commit, pack }))
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
        // Git has no zero bytes in messages.
        let message = match description.as_str() {
            "" => summary.replace('\0', ""),
            description => format!("{summary}\n\n{description}").replace('\0', ""),
        };
        let (committer, parents) = (author.clone(), parent.into_iter().collect());
        Commit { tree, parents, author, committer, message }
    }

    /// The last pack of the commit: what is left in memory, its trees and itself.
    async fn pack(
        &self,
        trees: Vec<NewTree>,
        (id, content): (ObjectHash, Vec<u8>),
        links: Vec<FileLink>,
    ) -> Result<NewPack> {
        let commit = NewCommit { id, kind: ObjectKind::Commit, content };
        self.spool.last_pack(&self.hub, trees, commit, links).await
    }

    /// The entry by which everything above becomes visible.
    async fn append(&self, written: &Written, tip: Option<ObjectHash>) -> Result<Committed> {
        let commit = written.commit;
        let mut packs = self.spool.packs().to_vec();
        packs.push(written.pack.clone());
        let mut pull = None;
        let author = self.caller.user_id();
        // What the hub does by itself is no owner's doing.
        let _room = match self.is_ours {
            true => None,
            false => self.hub.take_room(&self.repo, &packs).await?,
        };
        self.hub
            .append_repo(&self.repo, author, &packs, |state| {
                self.confirm(state)?;
                let Some(name) = self.target.clone() else {
                    let (title, description) = (&*self.header.summary, &*self.header.description);
                    let new = NewPull { title, description };
                    let (number, changes) = new.changes(&self.caller, &self.repo, state, commit)?;
                    pull = Some(number);
                    return Ok(changes);
                };
                let old = state.refs.get(&name).copied();
                if old != tip {
                    let expected = tip.map_or_else(nothing, |tip| tip.to_string());
                    return Err(moved(expected, old));
                }
                Ok(vec![RepoChange::RefSet { name, old, new: commit }])
            })
            .await?;
        Ok(Committed { commit, pull, changed: true })
    }
}

fn nothing() -> String {
    "nothing".to_owned()
}

fn moved(expected: String, tip: Option<ObjectHash>) -> Error {
    Error::ParentMoved { expected, tip: tip.map_or_else(nothing, |tip| tip.to_string()) }
}

async fn apply(
    hub: &Hub,
    repo: RepoId,
    folder: &mut Folder,
    operation: &Operation,
    commit: Option<ObjectHash>,
) -> Result<()> {
    let missing = |path: &FilePath| Error::EntryNotFound { path: path.to_string(), commit };
    match operation {
        Operation::Put { path, id } => {
            folder.put(hub, repo, path, File { id: *id, mode: EntryMode::File }).await
        }
        Operation::Copy { from, to } => {
            let file = folder.get(hub, repo, from).await?.ok_or_else(|| missing(from))?;
            folder.put(hub, repo, to, file).await
        }
        Operation::Rename { from, to } => {
            let file = folder.take(hub, repo, from).await?.ok_or_else(|| missing(from))?;
            folder.put(hub, repo, to, file).await
        }
        Operation::DeleteFile(path) => {
            let taken = folder.take(hub, repo, path).await?;
            taken.map(|_| ()).ok_or_else(|| missing(path))
        }
        Operation::DeleteFolder(path) => {
            let removed = folder.remove_folder(hub, repo, path).await?;
            removed.then_some(()).ok_or_else(|| missing(path))
        }
    }
}
