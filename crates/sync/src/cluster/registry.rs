//! The hub's side: who joins gets a certificate, who is known gets the next one, and who says that
//! it is there is remembered as seen.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use ballast_format::ErrorKind;
use ballast_format::log::NodeRole;
use ballast_node::hub::Hub;
use ballast_node::state::accounts::Node;
use ballast_node::worker::Worker;
use ballast_proto::v1::nodes_server::{Nodes, NodesServer};
use ballast_proto::v1::{
    BeatAnswer, BeatRequest, Certificate, HelloAnswer, HelloRequest, JoinAnswer, JoinRequest,
    RenewAnswer, RenewRequest, Revoked,
};
use bytes::Bytes;
use tokio::sync::Semaphore;
use tonic::{Code, Request, Response, Status};

use super::services::{Guest, caller_of, may_try};
use super::{
    Authority, Error, Identity, Issued, JoinToken, PeerKey, PeerName, PeerRole, Result, is_address,
    join_message, renew_message,
};

/// How often nodes say that they are there.
const BEAT: Duration = Duration::from_secs(30);
/// How often the hub looks whether another process on its store has revoked somebody.
const LOOK: Duration = Duration::from_secs(1);
/// Joins at once: each with a wrong secret costs a look at the store.
const JOINS: usize = 4;

/// When a node was heard of, and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// When, in unix milliseconds.
    pub at_ms: u64,
    /// Where its peers reach it; empty if it did not say.
    pub address: String,
}

/// Who belongs to a hub, for those who ask it.
pub struct Registry {
    hub: Arc<Hub>,
    authority: Authority,
    identity: Arc<Identity>,
    /// What this process has heard: no more than there are nodes.
    seen: Mutex<HashMap<PeerKey, Seen>>,
    joins: Semaphore,
}

impl fmt::Debug for Registry {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Registry({})", self.authority.cluster())
    }
}

impl Registry {
    /// The registry of this hub, which its peers know by this name. It follows what becomes of
    /// nodes for as long as the hub runs.
    pub fn start(hub: &Arc<Hub>, name: &str) -> Result<Arc<Self>> {
        let authority = Authority::of(hub.secrets())?;
        let name = PeerName::new(PeerRole::Hub, name)
            .ok_or_else(|| Error::Invalid(format!("`{name}` is no name of a hub")))?;
        let identity = Arc::new(Identity::of_authority(&authority, name, hub.env())?);
        let registry = Arc::new(Self {
            hub: Arc::clone(hub),
            authority,
            identity,
            seen: Mutex::default(),
            joins: Semaphore::new(JOINS),
        });
        registry.look_again();
        hub.runner().start(hub, Follow(Arc::downgrade(&registry)));
        Ok(registry)
    }

    /// The hub.
    pub fn hub(&self) -> &Arc<Hub> {
        &self.hub
    }

    /// Who this process is among its peers.
    pub fn identity(&self) -> &Arc<Identity> {
        &self.identity
    }

    /// Who gives certificates.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// The services of nodes, for a door.
    pub fn service(self: &Arc<Self>) -> NodesServer<Answers> {
        NodesServer::new(Answers(Arc::clone(self)))
    }

    /// The word with which somebody joins who has this secret.
    pub fn join_token(&self, secret: [u8; 32], address: String) -> JoinToken {
        JoinToken { secret, authority: self.authority.key(), address }
    }

    /// What this process last heard of a node.
    pub fn seen(&self, key: &PeerKey) -> Option<Seen> {
        self.heard().get(key).cloned()
    }

    /// Takes over who is revoked: their connections end, and no new ones are made.
    pub fn look_again(&self) {
        let keys = self.hub.revoked_keys().into_iter().map(PeerKey::from_bytes);
        self.identity.revocations().replace(keys);
        let mut seen = self.heard();
        if !seen.is_empty() {
            seen.retain(|key, _| self.hub.node_of_key(key.as_bytes()).is_some());
        }
    }

    fn heard(&self) -> MutexGuard<'_, HashMap<PeerKey, Seen>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, key: PeerKey, address: String) {
        let at_ms = self.hub.env().now_ms();
        self.heard().insert(key, Seen { at_ms, address });
    }

    fn issue(&self, node: &Node, key: &PeerKey) -> Result<Issued, Status> {
        let name = PeerName::new(role_of(node.role), node.name.as_str()).ok_or_else(fault)?;
        let issued = self.authority.issue(&name, key, self.hub.env().now_ms());
        issued.map_err(|error| {
            tracing::error!(%error, node = %name, "no certificate can be made");
            fault()
        })
    }

    /// Our own certificate, before it ends.
    fn renew_own(&self) {
        if !self.identity.renew_in().is_zero() {
            return;
        }
        let (name, key) = (self.identity.name(), self.identity.key().public());
        let issued = self.authority.issue(name, &key, self.hub.env().now_ms());
        if let Err(error) = issued.and_then(|issued| self.identity.renew(issued)) {
            tracing::error!(%error, "the hub's certificate among its peers is not renewed");
        }
    }
}

fn role_of(role: NodeRole) -> PeerRole {
    match role {
        NodeRole::Node => PeerRole::Node,
        NodeRole::Region => PeerRole::Region,
    }
}

/// Follows what becomes of nodes, and renews what must be.
struct Follow(std::sync::Weak<Registry>);

#[async_trait]
impl Worker for Follow {
    fn name(&self) -> &'static str {
        "nodes"
    }

    fn pause(&self) -> Duration {
        LOOK
    }

    async fn work(&self, hub: &Hub) {
        let Some(registry) = self.0.upgrade() else { return };
        if let Err(error) = hub.freshen().await {
            tracing::debug!(%error, "whether nodes were revoked is not known now");
        }
        registry.look_again();
        registry.renew_own();
    }
}

/// Answers nodes.
#[derive(Clone, Debug)]
pub struct Answers(Arc<Registry>);

#[async_trait]
impl Nodes for Answers {
    async fn hello(&self, _: Request<HelloRequest>) -> Result<Response<HelloAnswer>, Status> {
        let cluster = self.0.authority.cluster().as_str().to_owned();
        let name = self.0.identity.name().as_str().to_owned();
        Ok(Response::new(HelloAnswer { cluster, name }))
    }

    async fn join(&self, asked: Request<JoinRequest>) -> Result<Response<JoinAnswer>, Status> {
        let registry = &self.0;
        let from = may_try(&registry.hub, &asked)?;
        let JoinRequest { secret, key, signature } = asked.into_inner();
        let secret = array(&secret, "the secret")?;
        let key = PeerKey::from_bytes(array(&key, "the key")?);
        if !key.has_signed(&join_message(registry.authority.cluster(), &secret), &signature) {
            return Err(Status::new(Code::InvalidArgument, "the key has not signed this"));
        }
        let busy = || Status::new(Code::ResourceExhausted, "too many join at once; come again");
        let _turn = registry.joins.try_acquire().map_err(|_| busy())?;
        let joined = registry.hub.join_node(&secret, *key.as_bytes()).await;
        if let Err(ballast_node::Error::Denied { .. }) = &joined {
            registry.hub.note_wrong_secret(from, "");
        }
        let welcome = joined.map_err(status_of)?;
        let issued = registry.issue(&welcome.node, &key)?;
        registry.note(key, String::new());
        tracing::info!(peer = %welcome.node.name, "a node has joined");
        Ok(Response::new(JoinAnswer {
            name: welcome.node.name.to_string(),
            role: role_of(welcome.node.role).as_str().to_owned(),
            certificate: Some(certificate(&issued)),
            authority: Bytes::copy_from_slice(registry.authority.certificate()),
            permits: Bytes::copy_from_slice(registry.identity.permits().as_bytes()),
            token: welcome.token,
        }))
    }

    async fn renew(&self, asked: Request<RenewRequest>) -> Result<Response<RenewAnswer>, Status> {
        let RenewRequest { key, signature } = asked.into_inner();
        let key = PeerKey::from_bytes(array(&key, "the key")?);
        let registry = &self.0;
        let has_signed = key.has_signed(&renew_message(registry.authority.cluster()), &signature);
        registry.hub.freshen().await.map_err(status_of)?;
        let known = registry.hub.node_of_key(key.as_bytes()).filter(|_| has_signed);
        let known = known.ok_or_else(|| {
            let message = "no node of this hub has this key: it was revoked, or never joined\n\
                           hint: join again, with a token of `ballast node join-token`";
            Status::new(Code::PermissionDenied, message)
        })?;
        let issued = registry.issue(&known.node, &key)?;
        Ok(Response::new(RenewAnswer { certificate: Some(certificate(&issued)) }))
    }

    async fn beat(&self, asked: Request<BeatRequest>) -> Result<Response<BeatAnswer>, Status> {
        let peer = caller_of(&asked)?;
        let from = asked.extensions().get::<Guest>().map(|guest| guest.address.ip());
        let BeatRequest { address, revoked_digest } = asked.into_inner();
        if !address.is_empty() && !is_address(&address) {
            return Err(Status::new(Code::InvalidArgument, "the address is no host:port"));
        }
        let registry = &self.0;
        registry.note(peer.key, reached_at(address, from));
        let revocations = registry.identity.revocations();
        let knows_all = revoked_digest.as_ref() == revocations.digest();
        let keys = || revocations.keys().iter().flat_map(|key| *key.as_bytes()).collect();
        let revoked = (!knows_all).then(|| Revoked { keys: keys() });
        let again_ms = u64::try_from(BEAT.as_millis()).unwrap_or(u64::MAX);
        Ok(Response::new(BeatAnswer { revoked, again_ms }))
    }
}

/// Where a node is that says `address`, and was heard from there: who listens on all of its
/// addresses does not know by which of them it is reached.
fn reached_at(address: String, from: Option<IpAddr>) -> String {
    match (address.parse::<SocketAddr>(), from) {
        (Ok(told), Some(from)) if told.ip().is_unspecified() => {
            SocketAddr::new(from, told.port()).to_string()
        }
        _ => address,
    }
}

fn array<const N: usize>(bytes: &Bytes, what: &str) -> Result<[u8; N], Status> {
    let wrong = || Status::new(Code::InvalidArgument, format!("{what} does not have {N} bytes"));
    bytes.as_ref().try_into().map_err(|_| wrong())
}

fn certificate(issued: &Issued) -> Certificate {
    let der = Bytes::copy_from_slice(&issued.certificate);
    Certificate { der, issued_ms: issued.issued_ms, expires_ms: issued.expires_ms }
}

fn fault() -> Status {
    Status::new(Code::Internal, "a fault of the hub; see its log")
}

fn status_of(error: ballast_node::Error) -> Status {
    let code = match error.kind() {
        ErrorKind::Denied | ErrorKind::NotFound => Code::PermissionDenied,
        ErrorKind::Invalid => Code::InvalidArgument,
        ErrorKind::Conflict | ErrorKind::Unavailable => Code::Unavailable,
        ErrorKind::Corrupt | ErrorKind::Internal => {
            tracing::error!(%error, "a node is not answered");
            return fault();
        }
    };
    Status::new(code, error.to_string())
}
