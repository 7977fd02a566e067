//! What unit tests of verbs stand on: a hub in memory, with the clock in the test's hands.

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use ballast_format::hash::{ObjectHash, Sha256};
use ballast_format::log::{Gating, TokenRole, Visibility};
use ballast_format::name::{FilePath, RegionName, RepoKind, RepoName};
use ballast_format::object::ObjectKind;
use ballast_store::index::memory::Memory;
use ballast_store::index::open::Opened;
use ballast_store::index::schema::ObjectRow;
use ballast_store::index::{IndexHandle, Table};
use ballast_store::objects::Store;
use ballast_testkit::clock::SimEnv;
use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use object_store::ObjectStore;
use object_store::memory::InMemory;
use sha2::Digest as _;

use crate::access::{Access, Caller, Repo};
use crate::account::{NewToken, NewUser};
use crate::download::TreeItem;
use crate::error::Result;
use crate::gc::GcSettings;
use crate::hub::{Freshness, Hub, HubSettings};
use crate::policy::Policy;
use crate::repo::{NewMirror, NewRepo};
use crate::state::homing::Away;
use crate::upload::commit::{CommitHeader, Committed, Draft};
use crate::verify::ScrubSettings;

pub(crate) struct Rig {
    pub(crate) env: Arc<SimEnv>,
    pub(crate) objects: Arc<dyn ObjectStore>,
    pub(crate) hub: Arc<Hub>,
    pub(crate) admin: Caller,
}

impl Rig {
    pub(crate) async fn start() -> Self {
        Self::over(Arc::new(InMemory::new()), SimEnv::new(7)).await
    }

    /// A hub on this store, which is empty.
    pub(crate) async fn over(objects: Arc<dyn ObjectStore>, env: Arc<SimEnv>) -> Self {
        let hub = open(&objects, &env, Opened::Clean).await;
        Self::of(objects, env, hub).await
    }

    /// A hub with these rules.
    pub(crate) async fn with_policy(policy: Policy) -> Self {
        let objects: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let env = SimEnv::new(7);
        let index = IndexHandle::over(Memory::new()).expect("an index");
        let store = Store::new(Arc::clone(&objects), Arc::clone(&env) as _);
        let settings = HubSettings { pool_threads: 2, policy, ..HubSettings::default() };
        let hub = Hub::open(store, index, &Opened::Clean, Arc::clone(&env) as _, settings).await;
        Self::of(objects, env, hub.expect("a hub")).await
    }

    /// A hub that was just made on this store.
    pub(crate) async fn of(objects: Arc<dyn ObjectStore>, env: Arc<SimEnv>, hub: Arc<Hub>) -> Self {
        let first = hub.bootstrap().await.expect("bootstrap").expect("there was no user");
        let admin = hub.authenticate(&first.token).expect("the first token is good");
        Self { env, objects, hub, admin }
    }

    /// Another process on the same store, with an index of its own.
    pub(crate) async fn another(&self) -> Arc<Hub> {
        let opened = Opened::Rebuild { reason: "it is new".to_owned() };
        open(&self.objects, &self.env, opened).await
    }

    pub(crate) async fn user(&self, name: &str) -> Caller {
        let user = NewUser { name, fullname: "", email: None, admin: false };
        self.hub.create_user(&self.admin, &user).await.expect("a new user");
        self.token(name, TokenRole::Write).await
    }

    pub(crate) async fn token(&self, name: &str, role: TokenRole) -> Caller {
        let token = NewToken { name: "test", role, expires_ms: None };
        let made = self.hub.create_token(&self.admin, name, &token).await;
        let (_, secret) = made.expect("a new token");
        self.hub.authenticate(&secret).expect("it is good")
    }

    pub(crate) async fn repo(&self, caller: &Caller, name: &str) -> Repo {
        self.repo_with(caller, name, Visibility::Public).await
    }

    pub(crate) async fn repo_with(
        &self,
        caller: &Caller,
        name: &str,
        visibility: Visibility,
    ) -> Repo {
        let name = RepoName::parse(name).expect("a name");
        let (kind, visibility) = (RepoKind::Model, Some(visibility));
        let new = NewRepo { kind, name, visibility, sdk: None };
        self.hub.create_repo(caller, &new).await.expect("a new repo")
    }

    /// An empty mirror, of an upstream that is not asked anything.
    pub(crate) async fn mirror(&self, name: &str) -> Repo {
        let new = NewMirror {
            kind: RepoKind::Model,
            name: RepoName::parse(name).expect("a name"),
            upstream: "https://hub.example".to_owned(),
            visibility: Visibility::Public,
            gating: Gating::None,
            sdk: None,
        };
        self.hub.create_mirror(&new).await.expect("a new mirror")
    }

    /// The same repo, as somebody else comes to it.
    pub(crate) fn repo_for(&self, caller: &Caller, repo: &Repo) -> Repo {
        self.hub.repo_by_id(caller, repo.id(), Access::Read).expect("it is readable")
    }

    /// Begins a commit on the tip of `main`.
    pub(crate) async fn draft(&self, caller: &Caller, repo: &Repo) -> Draft {
        self.hub.begin_commit(caller, repo.clone(), header()).await.expect("a draft")
    }

    /// Commits one file to `main`.
    pub(crate) async fn put(
        &self,
        caller: &Caller,
        repo: &Repo,
        place: &str,
        content: impl Into<Bytes>,
    ) -> Result<Committed> {
        let mut draft = self.hub.begin_commit(caller, repo.clone(), header()).await?;
        draft.add_file(path(place), content.into()).await?;
        draft.finish().await
    }

    /// Uploads a large file as plain bytes.
    pub(crate) async fn upload(&self, caller: &Caller, repo: &Repo, content: &[u8]) -> Sha256 {
        let sha256 = sha256(content);
        let pieces: Vec<_> =
            content.chunks(100_000).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
        let body = Box::pin(stream::iter(pieces));
        let size = content.len() as u64;
        self.hub.put_file(caller, repo, sha256, size, body).await.expect("it is taken");
        sha256
    }

    /// Uploads a large file and commits it to `main`.
    pub(crate) async fn put_large(
        &self,
        caller: &Caller,
        repo: &Repo,
        place: &str,
        content: &[u8],
    ) -> Committed {
        let sha256 = self.upload(caller, repo, content).await;
        let mut draft = self.draft(caller, repo).await;
        let size = Some(content.len() as u64);
        draft.add_large(path(place), sha256, size).await.expect("it was uploaded");
        draft.finish().await.expect("a commit")
    }

    pub(crate) async fn main(&self, repo: &Repo) -> ObjectHash {
        let state = self.hub.repo_state(repo).await.expect("the log is sound");
        state.main().expect("it has a first commit")
    }

    /// Everything that `main` has, folders too.
    pub(crate) async fn listing(&self, repo: &Repo) -> Vec<TreeItem> {
        let main = self.main(repo).await;
        let page = self.hub.tree_page(repo, main, None, true, None, 100_000).await;
        page.expect("a listing").items
    }

    /// The paths of files of `main`.
    pub(crate) async fn paths(&self, repo: &Repo) -> Vec<String> {
        let main = self.main(repo).await;
        let siblings = self.hub.siblings(repo, main).await.expect("a listing");
        siblings.into_iter().map(|item| item.path).collect()
    }

    /// The bytes of a file of `main`.
    pub(crate) async fn read(&self, repo: &Repo, place: &str) -> Result<Vec<u8>> {
        let main = self.main(repo).await;
        self.read_at(repo, main, place).await
    }

    pub(crate) async fn read_at(
        &self,
        repo: &Repo,
        commit: ObjectHash,
        place: &str,
    ) -> Result<Vec<u8>> {
        let item = self.hub.item(repo, commit, &path(place)).await?;
        let pieces = self.hub.open_item(repo, &item, 0..item.size).await?;
        pieces
            .try_fold(Vec::new(), |mut all, piece| async move {
                all.extend_from_slice(&piece);
                Ok(all)
            })
            .await
    }

    pub(crate) async fn text(&self, repo: &Repo, place: &str) -> String {
        let content = self.read(repo, place).await.expect("it is there");
        String::from_utf8(content).expect("text")
    }

    /// Every object of a repo.
    pub(crate) async fn git_objects(&self, repo: &Repo) -> Vec<(ObjectHash, ObjectRow)> {
        let id = repo.id();
        let rows = self.hub.index().scan(Table::Object, id.as_bytes(), None, 100_000).await;
        let row = |(key, row): (Vec<u8>, Vec<u8>)| {
            let id = key.last_chunk::<20>().copied().map(ObjectHash::from_bytes);
            (id.expect("a key"), ObjectRow::decode(&row).expect("a row"))
        };
        rows.expect("the index answers").into_iter().map(row).collect()
    }

    /// The paths of all stored objects.
    pub(crate) async fn stored(&self) -> Vec<object_store::ObjectMeta> {
        let mut found: Vec<_> =
            self.objects.list(None).map(|meta| meta.expect("it lists")).collect().await;
        found.sort_by(|a, b| a.location.cmp(&b.location));
        found
    }
}

async fn open(objects: &Arc<dyn ObjectStore>, env: &Arc<SimEnv>, opened: Opened) -> Arc<Hub> {
    let index = IndexHandle::over(Memory::new()).expect("an index");
    let freshness = Freshness::Within(Duration::ZERO);
    let hub = open_with(objects, env, index, opened, freshness).await;
    hub.expect("a hub")
}

/// A hub on this store and this index.
pub(crate) async fn open_with(
    objects: &Arc<dyn ObjectStore>,
    env: &Arc<SimEnv>,
    index: IndexHandle,
    opened: Opened,
    freshness: Freshness,
) -> Result<Arc<Hub>> {
    let store = Store::new(Arc::clone(objects), Arc::clone(env) as _);
    let gc = GcSettings { interval: None, rewrite_below: 25, ..GcSettings::default() };
    let scrub = ScrubSettings { interval: None, ..ScrubSettings::default() };
    let region = RegionName::parse("here").expect("a name");
    let region = Some(Away { region, address: "https://here.example".to_owned() });
    let settings = HubSettings {
        region,
        freshness,
        pool_threads: 2,
        gc,
        scrub,
        audit_interval: None,
        ..HubSettings::default()
    };
    Hub::open(store, index, &opened, Arc::clone(env) as _, settings).await
}

pub(crate) fn path(text: &str) -> FilePath {
    FilePath::parse(text).expect("a path")
}

pub(crate) fn sha256(content: &[u8]) -> Sha256 {
    Sha256::from_bytes(sha2::Sha256::digest(content).into())
}

/// The header of a commit to `main`.
pub(crate) fn header() -> CommitHeader {
    CommitHeader {
        summary: "a change".to_owned(),
        revision: "main".to_owned(),
        ..CommitHeader::default()
    }
}

/// A repository of the git on this machine.
pub(crate) struct Git {
    folder: tempfile::TempDir,
}

impl Git {
    pub(crate) fn new() -> Self {
        let git = Self { folder: tempfile::tempdir().expect("a folder") };
        git.run(&["init", "--quiet", "--initial-branch=main", "."]);
        git
    }

    /// Writes what a repo has into a real one, where each object must get the same id.
    pub(crate) async fn of(rig: &Rig, repo: &Repo) -> Self {
        let git = Self::new();
        let mut objects = rig.git_objects(repo).await;
        // Git looks at what a commit or a tree refers to.
        objects.sort_by_key(|(_, row)| row.kind.to_byte());
        for (id, row) in objects {
            let content = rig.hub.read_object(&id, &row).await.expect("it is sound");
            let kind = match row.kind {
                ObjectKind::Blob => "blob",
                ObjectKind::Tree => "tree",
                ObjectKind::Commit | ObjectKind::UpstreamCommit => "commit",
            };
            let given = git.feed(&["hash-object", "-t", kind, "-w", "--stdin"], &content);
            assert_eq!(given.trim(), id.to_string(), "{kind}");
        }
        let state = rig.hub.repo_state(repo).await.expect("the log is sound");
        for (name, commit) in &state.refs {
            git.run(&["update-ref", name.as_str(), &commit.to_string()]);
        }
        git
    }

    pub(crate) fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> String {
        self.feed(arguments, b"")
    }

    pub(crate) fn feed(&self, arguments: &[&str], input: &[u8]) -> String {
        let mut git = Command::new("git");
        git.current_dir(self.folder.path()).args(arguments);
        git.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", "/dev/null");
        git.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = git.spawn().expect("git is on this machine");
        let mut pipe = child.stdin.take().expect("it was asked for");
        std::io::Write::write_all(&mut pipe, input).expect("git reads");
        drop(pipe);
        let output = child.wait_with_output().expect("it ends");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "git {arguments:?}: {errors}");
        String::from_utf8(output.stdout).expect("text")
    }
}
