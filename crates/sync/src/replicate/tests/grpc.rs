//! The same between two hubs that speak gRPC through a door, with chunks by a carrier over TLS.

use ballast_format::log::NodeRole;
use ballast_node::account::NewNode;
use ballast_store::env::{RealEnv, SharedEnv};
use ballast_testkit::content::splitmix;
use object_store::memory::InMemory;

use super::*;
use crate::carrier::{Choice, QuicSettings, Shared, TcpServer, start};
use crate::cluster::{Door, DoorLimits, Registry, Services, join};
use crate::replicate::{Grants, HomeLog as _, RegionSource, RemoteHome, Service, Told};

/// A hub of a region, with its store in memory.
async fn hub(env: &SharedEnv, region: &str) -> Result<(Arc<Hub>, Caller)> {
    let store = Store::new(Arc::new(InMemory::new()), Arc::clone(env));
    let index = IndexHandle::over(Memory::new())?;
    let settings = HubSettings {
        region: Some(away(region)),
        pool_threads: 1,
        audit_interval: None,
        ..HubSettings::default()
    };
    let hub = Hub::open(store, index, &Opened::Clean, Arc::clone(env), settings).await?;
    let first = hub.bootstrap().await?.expect("there was no user");
    let admin = hub.authenticate(&first.token)?;
    Ok((hub, admin))
}

fn shared(hub: &Hub) -> Shared {
    let (env, pool, runner) = (Arc::clone(hub.env()), hub.pool().clone(), hub.runner().clone());
    Shared::new(env, pool, runner, None, None)
}

/// Lets regions in at a door; where that is.
async fn open_door(hub: &Arc<Hub>, told: &Told) -> (Arc<Registry>, String) {
    let registry = Registry::start(hub, "hub").expect("a registry");
    let grants: Arc<Grants> = Arc::default();
    let source = RegionSource::new(Arc::clone(hub), Arc::clone(&grants));
    let streams = TcpServer::new(&shared(hub), Arc::new(source));
    let service = Service::new(hub, registry.identity().name(), told, &grants);
    let services = Services::new().with(registry.service()).with(service);
    let door = Door::bind("127.0.0.1:0".parse().expect("an address")).await.expect("a door");
    let address = door.address().to_string();
    let (identity, streams) = (registry.identity(), Some(streams as _));
    let limits = DoorLimits::default();
    door.open(hub.runner(), hub.env(), identity, services, streams, limits).expect("it opens");
    (registry, address)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_region_follows_through_the_door() -> Result<()> {
    let env: SharedEnv = Arc::new(RealEnv::new());
    let ((us, us_admin), (eu, eu_admin)) = (hub(&env, "us").await?, hub(&env, "eu").await?);
    let told = Told::default();
    let (registry, address) = open_door(&us, &told).await;
    let node = NewNode { name: "eu", role: NodeRole::Region, user: None };
    let invited = us.invite_node(&us_admin, &node).await?;
    let token = registry.join_token(invited.secret, address.clone()).to_text();
    let folder = tempfile::tempdir().expect("a folder");
    let member = join(None, &token, folder.path(), &env).await.expect("it joins");

    let new = NewRepo {
        kind: RepoKind::Model,
        name: RepoName::parse("admin/model")?,
        visibility: Some(Visibility::Private),
        sdk: None,
    };
    let repo = us.create_repo(&us_admin, &new).await?;
    let content = splitmix(1, 3_000_000);
    let large = ("weights.bin".to_owned(), File::Large(content.clone()));
    let small = ("README.md".to_owned(), File::Small(b"read me".to_vec()));
    commit(&us, &us_admin, repo.id(), "first", &[large, small]).await?;
    let mut rules = replication("admin/**", "eu");
    (rules.limit, rules.window) = (Some(1 << 30), Some((0, 0)));
    us.set_replication(&us_admin, &region_name("all"), &rules, true).await?;

    let home = Arc::new(RemoteHome::new(member.channel().expect("a channel")));
    let shared = shared(&eu);
    let udp = std::net::UdpSocket::bind("127.0.0.1:0").expect("bound");
    let (identity, settings) = (member.identity(), QuicSettings::default());
    let started = start(&shared, identity, udp, None, Choice::Auto, settings).expect("it starts");
    let links = Arc::new(home.links(started.carriers, address));
    let follower = Follower::new(Arc::clone(&eu), Arc::clone(&home) as _, links);
    settle(&follower).await?;
    assert_eq!(log(&us, repo.id()).await?, log(&eu, repo.id()).await?);
    let here = files(&eu, &eu_admin, repo.id()).await?;
    assert_eq!(here, files(&us, &us_admin, repo.id()).await?);
    assert!(here.iter().any(|(_, bytes)| *bytes == content));
    let record = eu.record_of(repo.id()).expect("it is known");
    assert_eq!(record.visibility, Visibility::Private);
    // The home hears how far it is.
    follower.pass().await?;
    let heard = told.lock().expect("nobody panicked")[&region_name("eu")][&repo.id()].clone();
    assert_eq!((heard.lag_entries, heard.lag_bytes, heard.lag_seconds), (0, 0, 0));
    assert_eq!(heard.fetched, 3_000_000);
    // What is not the region's is not there for it.
    us.remove_replication(&us_admin, &region_name("all")).await?;
    let refused = home.entries(repo.id(), 0).await;
    assert!(matches!(refused, Err(Error::NotFound { .. })), "{refused:?}");
    for hub in [us, eu] {
        hub.close().await?;
    }
    Ok(())
}
