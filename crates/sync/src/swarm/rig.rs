//! What tests of a hub's side stand on: a hub in memory with one large file, and members whose
//! permits anybody could write.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use ballast_format::hash::{Sha256, XorbHash};
use ballast_format::log::Visibility;
use ballast_format::manifest::Manifest;
use ballast_format::name::{FilePath, RepoKind, RepoName};
use ballast_node::access::Caller;
use ballast_node::account::NewUser;
use ballast_node::hub::{Hub, HubSettings};
use ballast_node::repo::NewRepo;
use ballast_node::upload::commit::CommitHeader;
use ballast_store::backend::{self, Access, Location};
use ballast_store::env::RealEnv;
use ballast_store::index::IndexHandle;
use ballast_store::index::memory::Memory;
use ballast_store::index::open::Opened;
use ballast_store::objects::Store;
use ballast_testkit::content::splitmix;
use bytes::Bytes;
use futures_util::stream;

use super::cache::{CheckPermit, Permitted};
use super::tracker::Members;
use crate::cluster::PeerName;

/// Where the large file is.
pub(super) const REPO: &str = "acme/weights";
pub(super) const PATH: &str = "model.safetensors";

pub(super) struct Rig {
    pub(super) hub: Arc<Hub>,
    pub(super) token: String,
    pub(super) members: Arc<FakeMembers>,
    pub(super) content: Vec<u8>,
}

impl Rig {
    /// A hub with a private file of so many bytes.
    pub(super) async fn start(bytes: usize) -> Self {
        let backend = backend::open(&Location::Memory, &Access::default(), 0).expect("memory");
        let env = RealEnv::shared();
        let store = Store::new(backend.objects, Arc::clone(&env)).with_writing(backend.writing);
        let index = IndexHandle::over(Memory::new()).expect("an index");
        let settings = HubSettings { pool_threads: 2, ..HubSettings::default() };
        let hub = Hub::open(store, index, &Opened::Clean, env, settings).await.expect("a hub");
        let first = hub.bootstrap().await.expect("it can write").expect("there was no user");
        let admin = hub.authenticate(&first.token).expect("the first token is good");
        let user = NewUser { name: "acme", fullname: "", email: None, admin: false };
        hub.create_user(&admin, &user).await.expect("a new user");
        let content = splitmix(7, bytes);
        put(&hub, &admin, &content).await;
        let members = Arc::new(FakeMembers::default());
        members.set("reader", admin);
        members.set("stranger", Caller::Anonymous);
        Self { hub, token: first.token, members, content }
    }

    /// What the large file is made of.
    pub(super) async fn manifest(&self) -> Arc<Manifest> {
        let (kind, name) = (RepoKind::Model, RepoName::parse(REPO).expect("a name"));
        let repo = self.hub.carried_repo(kind, &name).expect("it is here");
        let commit = self.hub.resolve(&repo, "main").await.expect("it has a commit").commit;
        let path = FilePath::parse(PATH).expect("a path");
        let item = self.hub.item(&repo, commit, &path).await.expect("it is here");
        let id = item.large.and_then(|large| large.manifest()).expect("it is a large file");
        self.hub.carried_manifest(&id).await.expect("it is here")
    }

    pub(super) fn sha256(&self) -> Sha256 {
        ballast_testkit::xet::sha256(&self.content)
    }
}

async fn put(hub: &Arc<Hub>, admin: &Caller, content: &[u8]) {
    let (kind, name) = (RepoKind::Model, RepoName::parse(REPO).expect("a name"));
    let new = NewRepo { kind, name, visibility: Some(Visibility::Private), sdk: None };
    let repo = hub.create_repo(admin, &new).await.expect("a new repo");
    let (sha256, size) = (ballast_testkit::xet::sha256(content), content.len() as u64);
    let pieces: Vec<_> =
        content.chunks(100_000).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
    let body = Box::pin(stream::iter(pieces));
    hub.put_file(admin, &repo, sha256, size, body).await.expect("it is taken");
    let header = CommitHeader {
        summary: "weights".to_owned(),
        revision: "main".to_owned(),
        ..CommitHeader::default()
    };
    let mut draft = hub.begin_commit(admin, repo, header).await.expect("a draft");
    let path = FilePath::parse(PATH).expect("a path");
    draft.add_large(path, sha256, Some(size)).await.expect("it was uploaded");
    let small = FilePath::parse("config.json").expect("a path");
    draft.add_file(small, Bytes::from_static(b"{}")).await.expect("it is small");
    draft.finish().await.expect("a commit");
}

/// Members by their names.
#[derive(Default)]
pub(super) struct FakeMembers(Mutex<HashMap<String, Caller>>);

impl FakeMembers {
    /// The node reads with these rights.
    pub(super) fn set(&self, node: &str, caller: Caller) {
        let mut members = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        members.insert(node.to_owned(), caller);
    }
}

impl Members for FakeMembers {
    fn caller(&self, node: &PeerName) -> Option<Caller> {
        let members = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        members.get(node.as_str()).cloned()
    }

    fn permit(&self, node: &PeerName, xorbs: &[XorbHash], until_ms: u64) -> Bytes {
        let mut permit = until_ms.to_le_bytes().to_vec();
        permit.extend(xorbs.iter().flat_map(XorbHash::as_bytes));
        permit.extend_from_slice(node.as_str().as_bytes());
        permit.into()
    }
}

/// Believes what [`FakeMembers`] wrote.
pub(super) fn check() -> CheckPermit {
    Box::new(|peer, permit| {
        let permit = permit.strip_suffix(peer.as_str().as_bytes());
        let permit = permit.and_then(<[u8]>::split_first_chunk::<8>);
        let (until, xorbs) = permit.ok_or_else(|| "it is for another".to_owned())?;
        let xorbs = xorbs.as_chunks().0.iter().copied().map(XorbHash::from_bytes).collect();
        Ok(Permitted { xorbs, until_ms: u64::from_le_bytes(*until) })
    })
}

/// A node's name.
pub(super) fn node(name: &str) -> PeerName {
    PeerName::parse(name).expect("it is a name")
}
