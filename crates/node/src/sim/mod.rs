//! The real code in a simulated world: processes that sleep, die and read wrong clocks, on a store
//! that fails.

#![allow(clippy::large_futures, reason = "a run is one future")]

mod book;
mod check;
mod client;
mod mishap;
mod scene;
mod tests;

use std::sync::Arc;
use std::time::Duration;

use ballast_format::log::Visibility;
use ballast_format::name::{RepoKind, RepoName};
use ballast_store::index::IndexHandle;
use ballast_store::index::memory::Memory;
use ballast_store::index::open::Opened;
use ballast_store::layer::retry::Retry;
use ballast_store::objects::Store;
use ballast_testkit::sim::{Process, World};
use futures_util::future::join_all;

use self::client::Client;
use self::scene::Scene;
use crate::access::{Caller, Repo};
use crate::error::Result;
use crate::gc::GcSettings;
use crate::hub::{Freshness, Hub, HubSettings};
use crate::repo::NewRepo;

/// Who does what at the same time.
const CLIENTS: usize = 6;
const READERS: usize = 2;
const COLLECTORS: usize = 2;

/// A hub in a process, with a new index. It does nothing by itself.
pub(crate) async fn open(process: &Arc<Process>) -> Result<Arc<Hub>> {
    open_with(process, GcSettings::default()).await
}

pub(crate) async fn open_with(process: &Arc<Process>, gc: GcSettings) -> Result<Arc<Hub>> {
    let env = process.env();
    let retried = Retry::new(process.objects(), Arc::clone(&env));
    let store = Store::new(Arc::new(retried), Arc::clone(&env));
    let settings = HubSettings {
        freshness: Freshness::Within(Duration::ZERO),
        pool_threads: 0,
        gc: GcSettings { interval: None, ..gc },
        ..HubSettings::default()
    };
    let index = IndexHandle::without_threads(Memory::new());
    let opened = Opened::Rebuild { reason: "it is new".to_owned() };
    let hub = Hub::open(store, index, &opened, env, settings).await?;
    // What it would do now and then, the simulation asks it for.
    hub.runner().stop(hub.env().as_ref(), Duration::ZERO).await;
    Ok(hub)
}

pub(crate) async fn create_repo(hub: &Arc<Hub>, caller: &Caller, name: &str) -> Result<Repo> {
    let new = NewRepo {
        kind: RepoKind::Model,
        name: RepoName::parse(name)?,
        visibility: Some(Visibility::Public),
        sdk: None,
    };
    hub.create_repo(caller, &new).await
}

/// One run, from its beginning to its end.
async fn live(world: &Arc<World>, days: u64) -> Result<Scene> {
    let scene = Scene::begin(world, days).await?;
    let clients: Vec<Client<'_>> = (0..CLIENTS)
        .map(|number| {
            let caller = scene.callers[number % scene.callers.len()].clone();
            Client { scene: &scene, caller, number }
        })
        .collect();
    let collectors = join_all((0..COLLECTORS).map(|_| mishap::collect(&scene)));
    let readers = join_all((0..READERS).map(|_| client::read(&scene)));
    let living = join_all(clients.iter().map(Client::live));
    tokio::join!(living, readers, collectors, mishap::befall(&scene));
    check::end(&scene).await?;
    Ok(scene)
}

/// What came of a run.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    digest: u64,
    decisions: u64,
    wishes: usize,
    reads: usize,
}

/// Runs a seed. It panics if anything is not as it must be, and with `STORY` in the environment it
/// says what happened last.
fn run(seed: u64, days: u64) -> Outcome {
    let world = World::new(seed);
    let told = Told { world: Arc::clone(&world), is_over: false };
    let scene = world.run(live(&world, days)).unwrap_or_else(|error| panic!("at the end: {error}"));
    told.over();
    let book = scene.book.borrow();
    Outcome {
        digest: world.digest(),
        decisions: world.decisions(),
        wishes: book.wishes.len(),
        reads: book.reads,
    }
}

/// Says what happened, unless all went well.
struct Told {
    world: Arc<World>,
    is_over: bool,
}

impl Told {
    fn over(mut self) {
        self.is_over = true;
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        if !self.is_over && std::env::var_os("STORY").is_some() {
            eprintln!("{}", self.world.story());
        }
    }
}
