//! A cluster for tests: an authority and as many identities as one likes.

use std::path::Path;
use std::sync::Arc;

use ballast_format::log::NodeRole;
use ballast_node::access::Caller;
use ballast_node::account::NewNode;
use ballast_node::hub::{Hub, HubSettings};
use ballast_store::env::SharedEnv;
use ballast_store::index::IndexHandle;
use ballast_store::index::memory::Memory;
use ballast_store::index::open::Opened;
use ballast_store::objects::Store;
use object_store::memory::InMemory;

use super::identity::Roots;
use super::{
    Authority, Door, DoorLimits, Identity, JoinToken, Member, PeerName, PeerRole, Registry,
    SecretKey, Services, TakeStreams, join,
};

/// An authority, for a key of this byte.
pub(crate) fn authority(byte: u8) -> Authority {
    Authority::with(&[byte; 32], &[byte ^ 0x80; 32]).expect("an authority")
}

/// What others know of it.
pub(super) fn roots(authority: &Authority) -> Roots {
    Roots {
        authority: authority.key(),
        certificate: authority.certificate().clone(),
        permits: authority.permits().public(),
    }
}

/// An identity that this authority gave.
pub(crate) fn identity(
    authority: &Authority,
    role: PeerRole,
    name: &str,
    env: &SharedEnv,
) -> Arc<Identity> {
    let name = PeerName::new(role, name).expect("a name");
    let key = SecretKey::draw(env.as_ref());
    let issued = authority.issue(&name, &key.public(), env.now_ms()).expect("issued");
    let identity = Identity::new(name, key, roots(authority), issued, Arc::clone(env));
    Arc::new(identity.expect("an identity"))
}

/// A hub with a door on a port of its own.
pub(crate) struct Served {
    pub(crate) hub: Arc<Hub>,
    pub(crate) admin: Caller,
    pub(crate) registry: Arc<Registry>,
    pub(crate) address: String,
}

impl Served {
    /// One with its store in memory.
    pub(crate) async fn start(env: &SharedEnv) -> Self {
        Self::with(env, None, DoorLimits::default()).await
    }

    /// The same with who takes the carrier's streams, and with these limits.
    pub(crate) async fn with(
        env: &SharedEnv,
        streams: Option<Arc<dyn TakeStreams>>,
        limits: DoorLimits,
    ) -> Self {
        let store = Store::new(Arc::new(InMemory::new()), Arc::clone(env));
        let index = IndexHandle::over(Memory::new()).expect("an index");
        let settings = HubSettings { pool_threads: 1, ..HubSettings::default() };
        let hub = Hub::open(store, index, &Opened::Clean, Arc::clone(env), settings).await;
        let hub = hub.expect("a hub");
        let first = hub.bootstrap().await.expect("bootstrap").expect("there was no user");
        let admin = hub.authenticate(&first.token).expect("the first token is good");
        let registry = Registry::start(&hub, "hub").expect("a registry");
        let listen = "127.0.0.1:0".parse().expect("an address");
        let door = Door::bind(listen).await.expect("a door");
        let address = door.address().to_string();
        let services = Services::new().with(registry.service());
        let opened = door.open(hub.runner(), env, registry.identity(), services, streams, limits);
        opened.expect("it opens");
        Self { hub, admin, registry, address }
    }

    /// What lets a node of this name join.
    pub(crate) async fn token(&self, name: &str) -> JoinToken {
        let new = NewNode { name, role: NodeRole::Node, user: None };
        let invited = self.hub.invite_node(&self.admin, &new).await.expect("an invitation");
        self.registry.join_token(invited.secret, self.address.clone())
    }

    /// A node of this name that has joined, with its data in this folder.
    pub(crate) async fn member(&self, name: &str, folder: &Path) -> Arc<Member> {
        let token = self.token(name).await.to_text();
        Arc::new(join(None, &token, folder, self.hub.env()).await.expect("it joins"))
    }

    /// Shuts a node out.
    pub(crate) async fn revoke(&self, name: &str) {
        self.hub.revoke_node(&self.admin, name).await.expect("revoked");
        self.registry.look_again();
    }
}
