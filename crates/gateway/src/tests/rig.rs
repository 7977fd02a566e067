//! A running gateway before a hub in memory, with the clock in the test's hands.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ballast_format::hash::Sha256;
use ballast_format::log::Visibility;
use ballast_format::name::{FilePath, RepoKind, RepoName};
use ballast_node::access::{Access, Caller, Repo};
use ballast_node::hub::{Hub, HubSettings};
use ballast_node::repo::NewRepo;
use ballast_node::upload::commit::CommitHeader;
use ballast_store::env::Env as _;
use ballast_store::index::IndexHandle;
use ballast_store::index::memory::Memory;
use ballast_store::index::open::Opened;
use ballast_store::objects::Store;
use ballast_testkit::clock::SimEnv;
use object_store::memory::InMemory;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::client::{Ask, Reply};
use super::upload::Packed;
use crate::{Gateway, GatewaySettings, serve};

pub(crate) struct Rig {
    pub(crate) env: Arc<SimEnv>,
    pub(crate) gateway: Arc<Gateway>,
    pub(crate) address: SocketAddr,
    /// The administrator's token.
    pub(crate) admin: String,
    stop: CancellationToken,
    served: tokio::task::JoinHandle<std::io::Result<()>>,
}

impl Rig {
    pub(crate) fn settings() -> GatewaySettings {
        GatewaySettings::default()
    }

    pub(crate) async fn start() -> Self {
        Self::start_with(Self::settings()).await
    }

    pub(crate) async fn start_with(settings: GatewaySettings) -> Self {
        Self::start_hub(settings, HubSettings::default()).await
    }

    /// A hub that strangers may not use.
    pub(crate) async fn start_closed() -> Self {
        let closed = HubSettings { anonymous_reading: false, ..HubSettings::default() };
        Self::start_hub(Self::settings(), closed).await
    }

    async fn start_hub(settings: GatewaySettings, hub_settings: HubSettings) -> Self {
        let env = SimEnv::new(7);
        let store = Store::new(Arc::new(InMemory::new()), Arc::clone(&env) as _);
        let index = IndexHandle::over(Memory::new()).expect("an index");
        let opened = Opened::Clean;
        let hub_settings = HubSettings { pool_threads: 2, ..hub_settings };
        let hub = Hub::open(store, index, &opened, Arc::clone(&env) as _, hub_settings).await;
        let hub = hub.expect("a hub on an empty store");
        let admin = hub.bootstrap().await.expect("bootstrap").expect("the first start").token;
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let gateway = Gateway::new(hub, settings);
        let stop = CancellationToken::new();
        let served = {
            let (gateway, stop) = (Arc::clone(&gateway), stop.clone());
            let stopped = async move { stop.cancelled().await };
            #[expect(clippy::disallowed_methods, reason = "a test owns this task and awaits it")]
            tokio::spawn(serve::serve(gateway, listener, stopped))
        };
        Self { env, gateway, address, admin, stop, served }
    }

    pub(crate) fn hub(&self) -> &Arc<Hub> {
        &self.gateway.hub
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.env.monotonic()
    }

    /// Stops the listener in order and closes the hub.
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        self.served.await.expect("no panic").expect("no error");
        self.gateway.hub.close().await.expect("the hub closes");
    }

    /// Waits until no connection is open.
    pub(crate) async fn until_free(&self) {
        while self.gateway.metrics.open_connections.load(Ordering::Relaxed) > 0 {
            tokio::task::yield_now().await;
        }
    }

    /// Waits until so many bodies are being waited for.
    pub(crate) async fn until_waiting_for_bodies(&self, count: u64) {
        while self.gateway.metrics.waiting_bodies.load(Ordering::Relaxed) < count {
            tokio::task::yield_now().await;
        }
    }

    pub(crate) fn ask(&self, method: &str, path: &str) -> Ask {
        Ask::new(self.address, method, path)
    }

    /// A path of the Xet dialect, with a token of it.
    pub(crate) fn xet(&self, method: &str, path: &str, token: &str) -> Ask {
        self.ask(method, &format!("/xet{path}")).bearer(token)
    }

    /// A new user; their name and a token with their full rights.
    pub(crate) async fn user(&self, name: &str) -> String {
        let users = self.ask("POST", "/api/ballast/v1/users").bearer(&self.admin);
        users.json(&json!({"name": name})).send().await.expect(201);
        self.token(name, json!({"role": "write"})).await
    }

    /// Another token of a user.
    pub(crate) async fn token(&self, user: &str, mut wanted: Value) -> String {
        wanted["user"] = json!(user);
        wanted["name"] = json!("test");
        let tokens = self.ask("POST", "/api/ballast/v1/tokens").bearer(&self.admin);
        let answer = tokens.json(&wanted).send().await.expect(201).json();
        answer["token"].as_str().expect("a token").to_owned()
    }

    pub(crate) fn caller(&self, token: &str) -> Caller {
        self.hub().authenticate(token).expect("a good token")
    }

    pub(crate) fn found(&self, token: &str, name: &str) -> Repo {
        let name = RepoName::parse(name).expect("a name");
        let repo = self.hub().repo(&self.caller(token), RepoKind::Model, &name, Access::Read);
        repo.expect("a repo that the caller may read")
    }

    /// A new model of the administrator's.
    pub(crate) async fn repo(&self, name: &str, private: bool) -> String {
        self.repo_of(&self.admin, &format!("admin/{name}"), private).await
    }

    /// A new model.
    pub(crate) async fn repo_of(&self, token: &str, name: &str, private: bool) -> String {
        let visibility = if private { Visibility::Private } else { Visibility::Public };
        let name = RepoName::parse(name).expect("a name");
        let new = NewRepo {
            kind: RepoKind::Model,
            name: name.clone(),
            visibility: Some(visibility),
            sdk: None,
        };
        self.hub().create_repo(&self.caller(token), &new).await.expect("a new repo");
        name.to_string()
    }

    /// The token that the Xet routes want, by the route that clients ask.
    pub(crate) fn xet_token(&self, token: &str, repo: &str, write: bool) -> String {
        use crate::links::{Holder, Purpose, XetScope, XetToken};
        let scope = if write { XetScope::Write } else { XetScope::Read };
        let now = self.gateway.now_seconds();
        let claims = XetToken {
            scope,
            repo: self.found(token, repo).id(),
            holder: Holder::of(&self.caller(token)),
            expires: now + 900,
            commit: None,
        };
        self.gateway.signer.seal(Purpose::Xet, now, &claims.encode())
    }

    /// Sends a file as a Xet client does: xorb, then shard.
    pub(crate) async fn upload(&self, token: &str, repo: &str, packed: &Packed) {
        let token = self.xet_token(token, repo, true);
        let path = format!("/v1/xorbs/default/{}", packed.hash());
        self.xet("POST", &path, &token).body(packed.xorb.clone()).send().await.expect(200);
        self.xet("POST", "/v1/shards", &token).body(packed.shard()).send().await.expect(200);
    }

    /// Makes an uploaded file a file of the repo.
    pub(crate) async fn commit(&self, token: &str, repo: &str, path: &str, sha256: Sha256) {
        let header = CommitHeader {
            summary: "add".to_owned(),
            description: String::new(),
            parent: None,
            revision: "main".to_owned(),
            create_pull: false,
        };
        let (caller, repo) = (self.caller(token), self.found(token, repo));
        let mut draft = self.hub().begin_commit(&caller, repo, header).await.expect("a draft");
        let path = FilePath::parse(path).expect("a path");
        draft.add_large(path, sha256, None).await.expect("an uploaded file");
        draft.finish().await.expect("a commit");
    }

    /// A file that is in the repo.
    pub(crate) async fn publish(&self, token: &str, repo: &str, packed: &Packed) {
        self.upload(token, repo, packed).await;
        self.commit(token, repo, "weights.bin", packed.sha256).await;
    }

    /// A fetch link from a reconstruction, without scheme and host.
    pub(crate) fn local(url: &str) -> &str {
        url.strip_prefix("http://hub.test").expect("our own base")
    }

    pub(crate) async fn reconstruction(&self, token: &str, packed: &Packed) -> Reply {
        self.xet("GET", &format!("/v2/reconstructions/{}", packed.file), token).send().await
    }
}
