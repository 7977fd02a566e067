//! Clients: they upload, commit, build on what they were promised, make repos and delete them.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ballast_format::ErrorKind;
use ballast_format::hash::ObjectHash;
use ballast_format::id::RepoId;
use ballast_format::name::{RefName, RepoKind, RepoName};
use bytes::Bytes;

use super::book::{Content, Told};
use super::scene::Scene;
use super::{check, create_repo};
use crate::access::{Access, Caller};
use crate::error::{Error, Result};
use crate::hub::Hub;
use crate::rig::path;
use crate::upload::commit::{CommitHeader, Committed};
use crate::upload::tests::client::{Session, body, put_shard, put_xorb};

/// How long clients build on what they were told: less than they may, as clocks are wrong.
const REMEMBERED: Duration = Duration::from_hours(24 * 18);
/// The same for files that they registered: what was registered lately is not registered again.
const REGISTERED: Duration = Duration::from_hours(24 * 7);
/// Pieces that large files are made of, in all.
const PIECES: u64 = 10;
/// Small files, in all.
const PATHS: u64 = 12;

/// A client of a user.
pub(super) struct Client<'a> {
    pub(super) scene: &'a Scene,
    pub(super) caller: Caller,
    pub(super) number: usize,
}

/// What a client may rely on.
struct Promise {
    until: Duration,
    /// How many repos were deleted for certain: what was told of another's files may go with their
    /// repo.
    deletions: Option<usize>,
}

impl Client<'_> {
    /// Does one thing after another, until the run ends.
    pub(super) async fn live(&self) {
        while self.scene.goes_on() {
            self.rest(Duration::from_secs(30), Duration::from_hours(24 * 5)).await;
            let living = self.scene.book.borrow().living();
            if living.is_empty() || self.scene.world.happens(100) {
                self.make_repo().await;
                continue;
            }
            let repo = *self.scene.world.pick(&living);
            match self.scene.world.below(100) {
                0..6 if living.len() > 1 => self.delete_repo(repo).await,
                6..16 => self.change_branches(repo).await,
                16..60 => self.commit(repo, &[]).await,
                _ => self.commit_large(repo).await,
            }
        }
    }

    async fn rest(&self, shortest: Duration, longest: Duration) {
        let time = self.scene.world.between(shortest, longest);
        self.scene.world.pass(time).await;
    }

    async fn make_repo(&self) {
        let (book, world) = (&self.scene.book, &self.scene.world);
        let name = format!("lab/r{}", world.below(1 << 40));
        let made = self
            .scene
            .insist(None, "making a repo", |hub| {
                let (name, caller) = (name.clone(), self.caller.clone());
                async move {
                    match create_repo(&hub, &caller, &name).await {
                        // An earlier try of ours.
                        Err(Error::Exists { .. }) => {
                            hub.freshen().await?;
                            let name = RepoName::parse(&name)?;
                            hub.repo(&caller, RepoKind::Model, &name, Access::Read)
                        }
                        made => made,
                    }
                }
            })
            .await;
        if let Ok(repo) = made {
            book.borrow_mut().know(&repo);
        }
    }

    async fn delete_repo(&self, id: RepoId) {
        self.scene.book.borrow_mut().doom(id);
        let deleted = self
            .scene
            .insist(Some(id), "deleting a repo", |hub| async move {
                hub.freshen().await?;
                let repo = hub.repo_by_id(&self.caller, id, Access::Admin)?;
                hub.delete_repo(&self.caller, &repo).await
            })
            .await;
        if deleted.is_ok() {
            let book = &mut *self.scene.book.borrow_mut();
            book.deleted += 1;
            book.repos.entry(id).and_modify(|note| note.is_gone = true);
        }
    }

    async fn change_branches(&self, id: RepoId) {
        let (scene, world) = (self.scene, &self.scene.world);
        let branches: Vec<RefName> =
            scene.book.borrow().repos[&id].branches.iter().cloned().collect();
        if !branches.is_empty() && world.happens(400) {
            let name = world.pick(&branches).clone();
            scene.book.borrow_mut().repos.entry(id).and_modify(|note| {
                note.branches.remove(&name);
            });
            let _ = scene
                .insist(Some(id), "deleting a branch", async |hub| {
                    let repo = scene.visit(&hub, &self.caller, id).await?;
                    hub.delete_ref(&self.caller, &repo, &name).await
                })
                .await;
            return;
        }
        let name = RefName::branch(&format!("b{}", world.below(1 << 40))).expect("a name");
        let made = scene
            .insist(Some(id), "making a branch", async |hub| {
                let repo = scene.visit(&hub, &self.caller, id).await?;
                let tip = hub.repo_state(&repo).await?.main().expect("it has a first commit");
                hub.create_ref(&self.caller, &repo, &name, tip, true).await
            })
            .await;
        if made.is_ok() {
            scene.book.borrow_mut().repos.entry(id).and_modify(|note| {
                note.branches.insert(name);
            });
        }
    }

    /// Brings one or two large files and commits them, maybe weeks later.
    async fn commit_large(&self, repo: RepoId) {
        let world = &self.scene.world;
        let mut brought = Vec::new();
        for _ in 0..=world.below(2) {
            let known = self.scene.book.borrow().large.clone();
            let content = if !known.is_empty() && world.happens(350) {
                world.pick(&known).clone()
            } else {
                let pieces = (0..=world.below(2)).map(|_| world.below(PIECES));
                Content::Large(pieces.collect())
            };
            if let Some(promise) = self.bring(&content, repo).await {
                brought.push((content, promise));
            }
        }
        if brought.is_empty() {
            return;
        }
        let longest = brought.iter().map(|(_, promise)| promise.until).min();
        let longest = longest.expect("one").saturating_sub(world.time().now());
        self.rest(Duration::from_secs(1), longest / 2).await;
        self.commit(repo, &brought).await;
    }

    /// Uploads a large file; until when it may be committed.
    async fn bring(&self, content: &Content, repo: RepoId) -> Option<Promise> {
        let brought = match self.scene.world.below(3) {
            0 => self.bring_plain(content, repo).await,
            _ => self.bring_chunked(content, repo).await,
        };
        brought.ok()
    }

    fn promise(&self) -> Promise {
        Promise { until: self.scene.world.time().now() + REMEMBERED, deletions: None }
    }

    async fn bring_plain(&self, content: &Content, id: RepoId) -> Result<Promise> {
        let (bytes, sha256) = (Bytes::from(content.bytes()), content.sha256());
        // From when it is known that it may be asked for.
        let promise = RefCell::new(None);
        self.scene
            .insist(Some(id), "putting a file", async |hub| {
                let repo = self.scene.visit(&hub, &self.caller, id).await?;
                *promise.borrow_mut() = Some(self.promise());
                let size = bytes.len() as u64;
                hub.put_file(&self.caller, &repo, sha256, size, body(&bytes)).await
            })
            .await?;
        Ok(promise.into_inner().expect("it was asked"))
    }

    async fn bring_chunked(&self, content: &Content, id: RepoId) -> Result<Promise> {
        let (scene, world) = (self.scene, &self.scene.world);
        let session = Session::of(&content.bytes());
        let mut promise = self.promise();
        for xorb in &session.xorbs {
            let asks = world.happens(500);
            let known = asks
                && scene
                    .insist(None, "asking for a xorb", async |hub| {
                        hub.freshen().await?;
                        hub.grant_xorb(&self.caller, xorb.hash()).await
                    })
                    .await?;
            if known {
                promise.deletions = Some(scene.book.borrow().deleted);
            } else {
                scene
                    .insist(None, "putting a xorb", async |hub| {
                        hub.freshen().await?;
                        put_xorb(&hub, &self.caller, xorb).await
                    })
                    .await?;
            }
        }
        let longest = promise.until - REMEMBERED / 4;
        let longest = longest.saturating_sub(world.time().now());
        self.rest(Duration::from_secs(1), longest).await;
        let registered = world.time().now() + REGISTERED;
        let put = scene
            .insist(Some(id), "putting a shard", async |hub| {
                let repo = scene.visit(&hub, &self.caller, id).await?;
                put_shard(&hub, &self.caller, &repo, session.shard()).await
            })
            .await;
        if let Err(error) = put {
            self.expect_promise(&promise, id, &error, "putting a shard");
            return Err(error);
        }
        Ok(Promise { until: registered, deletions: promise.deletions })
    }

    /// Whoever was promised something is not told that it is not there.
    fn expect_promise(&self, promise: &Promise, repo: RepoId, error: &Error, what: &str) {
        let book = self.scene.book.borrow();
        let excused = promise.deletions.is_some_and(|before| before < book.deletions)
            || book.is_doomed(repo)
            || self.scene.world.time().now() > promise.until;
        let is_liar = matches!(error.kind(), ErrorKind::Invalid | ErrorKind::Denied);
        assert!(!is_liar || excused, "{what}: promised, and then: {error}");
    }

    /// Makes one commit of these large files and some small ones.
    async fn commit(&self, id: RepoId, large: &[(Content, Promise)]) {
        let (scene, world) = (self.scene, &self.scene.world);
        let mut changes = BTreeMap::new();
        for (content, _) in large {
            changes.insert(format!("w{}.bin", world.below(PATHS)), Some(content.clone()));
        }
        for _ in 0..=world.below(2) {
            let content = Some(Content::Small(world.below(1 << 40)));
            let content = if world.happens(150) { None } else { content };
            changes.insert(format!("folder/f{}", world.below(PATHS)), content);
        }
        let branches: Vec<RefName> =
            scene.book.borrow().repos[&id].branches.iter().cloned().collect();
        let branch = match branches.is_empty() || world.happens(700) {
            true => RefName::main(),
            false => world.pick(&branches).clone(),
        };
        let parent = if world.happens(500) { self.tip(id, &branch).await } else { None };
        let wish = scene.book.borrow_mut().wish(id, changes.clone());
        let header = CommitHeader {
            summary: format!("wish {wish}"),
            revision: branch.short().to_owned(),
            parent: parent.map(|tip| tip.to_string()),
            ..CommitHeader::default()
        };
        // Tries, and those of which nobody can know what became of them.
        let (tries, unclear) = (Cell::new(0), Cell::new(0));
        let committed = scene
            .insist(Some(id), "committing", async |hub| {
                tries.set(tries.get() + 1);
                unclear.set(unclear.get() + 1);
                let answer = self.try_commit(&hub, id, &header, &changes).await;
                let is_clear = match &answer {
                    Ok(_) => true,
                    Err(error) => error.kind() != ErrorKind::Unavailable,
                };
                unclear.set(unclear.get() - usize::from(is_clear));
                answer
            })
            .await;
        let may_repeat = parent.is_none() && tries.get() > 1;
        scene.book.borrow_mut().wishes[wish].may_repeat = may_repeat;
        self.write_down(wish, committed, large, unclear.get() > 0);
    }

    fn write_down(
        &self,
        wish: usize,
        committed: Result<Committed>,
        large: &[(Content, Promise)],
        is_unclear: bool,
    ) {
        let id = self.scene.book.borrow().wishes[wish].repo;
        self.scene.world.note(&format!("c{} wish {wish}: {committed:?}", self.number));
        match committed {
            Ok(committed) => self.scene.book.borrow_mut().done(wish, committed),
            Err(error) => {
                for (_, promise) in large {
                    self.expect_promise(promise, id, &error, "committing");
                }
                let wish = &mut self.scene.book.borrow_mut().wishes[wish];
                wish.is_unclear = is_unclear;
                if error.kind() != ErrorKind::Unavailable {
                    wish.told = Told::Refused;
                }
            }
        }
    }

    async fn try_commit(
        &self,
        hub: &Arc<Hub>,
        id: RepoId,
        header: &CommitHeader,
        changes: &BTreeMap<String, Option<Content>>,
    ) -> Result<Committed> {
        let repo = self.scene.visit(hub, &self.caller, id).await?;
        let mut draft = hub.begin_commit(&self.caller, repo, header.clone()).await?;
        for (place, content) in changes {
            match content {
                Some(content) if content.is_large() => {
                    let size = content.bytes().len() as u64;
                    draft.add_large(path(place), content.sha256(), Some(size)).await?;
                }
                Some(content) => draft.add_file(path(place), content.bytes().into()).await?,
                None => draft.delete_file(path(place))?,
            }
            if self.scene.world.happens(50) {
                // The rest of the request is slow to come.
                self.rest(Duration::from_secs(1), Duration::from_hours(60)).await;
            }
        }
        draft.finish().await
    }

    /// The tip of a branch, if anybody says it.
    async fn tip(&self, id: RepoId, branch: &RefName) -> Option<ObjectHash> {
        let node = self.scene.any();
        let look = async {
            let repo = self.scene.visit(&node.hub, &self.caller, id).await?;
            Ok(node.hub.repo_state(&repo).await?.refs.get(branch).copied())
        };
        let tip = self.scene.ask(&node, look).await.ok().flatten();
        self.rest(Duration::from_millis(1), Duration::from_hours(1)).await;
        tip
    }
}

/// Reads what was acknowledged, and whatever branches point to, until the run ends.
pub(super) async fn read(scene: &Scene) {
    while scene.goes_on() {
        let time = scene.world.between(Duration::from_mins(1), Duration::from_hours(24 * 4));
        scene.world.pass(time).await;
        let (node, living) = (scene.any(), scene.book.borrow().living());
        if living.is_empty() {
            continue;
        }
        let id = *scene.world.pick(&living);
        let of_repo: Vec<ObjectHash> = {
            let book = scene.book.borrow();
            let of_repo = book.acknowledged.iter().filter(|(repo, _)| *repo == id);
            of_repo.map(|(_, commit)| *commit).collect()
        };
        let reading = async {
            let repo = scene.visit(&node.hub, &scene.callers[0], id).await?;
            if of_repo.is_empty() || scene.world.happens(500) {
                let state = node.hub.repo_state(&repo).await?;
                for tip in state.refs.values() {
                    check::commit(scene, &node.hub, &repo, *tip, false).await?;
                }
                return Ok(());
            }
            let commit = *scene.world.pick(&of_repo);
            check::commit(scene, &node.hub, &repo, commit, false).await
        };
        if let Err(error) = scene.ask(&node, reading).await {
            let passes = scene.may_pass(&error) || scene.book.borrow().is_doomed(id);
            assert!(passes, "reading {id}: {error}");
        }
    }
}
