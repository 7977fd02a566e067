//! Garbage collection of a large hub: how long it takes, how much memory, and how both grow.
//!
//! Makes a store of so many repos in a folder (each with a pack, a shard object and some xorbs, one
//! repo in ten of them deleted), opens a hub on it and collects to the end. Sizes of xorbs do not
//! matter, as a collection reads none. The folder is kept, so that a second run only measures.
//!
//!     cargo bench --bench gc -- --repos 100000 --xorbs 8 --folder /some/where

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use ballast_format::hash::{FileHash, ObjectHash, Sha256, XorbHash};
use ballast_format::id::{OperationId, RepoId, UserId};
use ballast_format::log::{CatalogueChange, Entry, RepoChange, Visibility};
use ballast_format::manifest::{Manifest, ShardObject, Term};
use ballast_format::name::{RefName, RepoKind, RepoName};
use ballast_format::pack::{FileLink, PackBuilder};
use ballast_node::gc::{Collection, GcSettings};
use ballast_node::hub::{Freshness, Hub, HubSettings};
use ballast_store::backend::{self, Access, Location};
use ballast_store::env::{Env as _, RealEnv, SharedEnv};
use ballast_store::index::open as index;
use ballast_store::keyspace::{CopyKind, Key, LogId};
use ballast_store::layer::limit::{Limit, Limits};
use ballast_store::local::FolderLock;
use ballast_store::objects::Store;
use ballast_store::reflog::{Append, Log, Tail};
use ballast_testkit::clock::Dice;
use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use object_store::local::LocalFileSystem;

/// Repos that are made at the same time.
const AT_ONCE: usize = 64;
/// Changes in one entry of the catalogue.
const CHANGES: usize = 1000;
/// One repo in so many is deleted.
const DELETED: usize = 10;

struct Asked {
    repos: usize,
    xorbs: usize,
    folder: PathBuf,
}

impl Asked {
    fn read() -> Result<Self> {
        let mut asked =
            Self { repos: 2000, xorbs: 8, folder: std::env::temp_dir().join("ballast-gc") };
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            let mut value = || words.next().with_context(|| format!("`{word}` wants a value"));
            match word.as_str() {
                "--repos" => asked.repos = value()?.parse()?,
                "--xorbs" => asked.xorbs = value()?.parse()?,
                "--folder" => asked.folder = value()?.into(),
                // What cargo adds.
                "--bench" => {}
                other => anyhow::bail!("what is `{other}`?"),
            }
        }
        asked.folder = asked.folder.join(format!("{}x{}", asked.repos, asked.xorbs));
        Ok(asked)
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let asked = Asked::read()?;
    if std::env::var_os("BALLAST_GC_BENCH_MEASURES").is_some() {
        return measure(&asked).await;
    }
    let made = asked.folder.join("made");
    if !made.exists() {
        make(&asked).await?;
        std::fs::write(&made, "")?;
    }
    // A process of its own, so that what making took does not count.
    let status = std::process::Command::new(std::env::current_exe()?)
        .args(std::env::args().skip(1))
        .env("BALLAST_GC_BENCH_MEASURES", "1")
        .status()?;
    ensure!(status.success(), "measuring failed");
    Ok(())
}

fn id(number: usize) -> RepoId {
    let mut dice = Dice::new(number as u64);
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&dice.draw().to_be_bytes());
    bytes[8..].copy_from_slice(&(number as u64).to_be_bytes());
    RepoId::from_bytes(bytes)
}

fn entry<C>(tail: &Tail, number: u64, changes: Vec<C>) -> Entry<C> {
    let mut operation = [7; 16];
    operation[..8].copy_from_slice(&number.to_be_bytes());
    Entry {
        operation: OperationId::from_bytes(operation),
        previous: tail.hash,
        epoch: 0,
        term: 1,
        time_ms: 1_700_000_000_000,
        author: None,
        changes,
    }
}

async fn append<C: ballast_format::log::Change>(
    log: &Log,
    tail: &mut Tail,
    changes: Vec<C>,
) -> Result<()> {
    let entry = entry(tail, tail.number, changes);
    match log.append(tail, &entry).await? {
        Append::Won(won) => *tail = won,
        Append::Lost => anyhow::bail!("the folder is not new"),
    }
    Ok(())
}

/// Fills a folder, without making anything durable.
async fn make(asked: &Asked) -> Result<()> {
    let began = Watch::start();
    drop(std::fs::remove_dir_all(&asked.folder));
    std::fs::create_dir_all(&asked.folder)?;
    let (hub, lock) = open(&asked.folder).await?;
    hub.bootstrap().await?;
    hub.close().await?;
    drop((hub, lock));
    let objects = LocalFileSystem::new_with_prefix(asked.folder.join("objects"))?;
    let store = Store::new(Arc::new(objects), RealEnv::shared());
    stream::iter(0..asked.repos)
        .map(|number| make_repo(&store, number, asked.xorbs))
        .buffer_unordered(AT_ONCE)
        .try_collect::<()>()
        .await?;
    let (log, mut tail) = (Log::new(store, LogId::Catalogue), Tail::EMPTY);
    let numbers: Vec<usize> = (0..asked.repos).collect();
    for some in numbers.chunks(CHANGES) {
        append(&log, &mut tail, some.iter().map(|number| created(*number)).collect()).await?;
    }
    let doomed: Vec<usize> = numbers.into_iter().step_by(DELETED).collect();
    for some in doomed.chunks(CHANGES) {
        let deleted = |number: &usize| CatalogueChange::RepoDeleted { id: id(*number) };
        append(&log, &mut tail, some.iter().map(deleted).collect()).await?;
    }
    report(&format!("made {} repos", asked.repos), began.elapsed());
    Ok(())
}

fn created(number: usize) -> CatalogueChange {
    let name = format!("owner-{}/a-model-with-a-name-of-usual-length-{number}", number % 100);
    CatalogueChange::RepoCreated {
        id: id(number),
        kind: RepoKind::Model,
        name: RepoName::parse(&name).expect("a name"),
        visibility: Visibility::Public,
        creator: UserId::from_bytes([1; 16]),
        sdk: None,
    }
}

async fn make_repo(store: &Store, number: usize, xorbs: usize) -> Result<()> {
    let mut dice = Dice::new(1 + number as u64);
    let mut hash = || {
        let mut bytes = [0; 32];
        bytes.chunks_mut(8).for_each(|part| part.copy_from_slice(&dice.draw().to_be_bytes()));
        bytes
    };
    let (file, sha256) = (FileHash::from_bytes(hash()), Sha256::from_bytes(hash()));
    let mut terms = Vec::with_capacity(xorbs);
    for _ in 0..xorbs {
        let xorb = hash();
        let copy = store.new_copy(CopyKind::Xorb, xorb, 0);
        store.put_new(&Key::Copy(copy), Bytes::from_static(b"x")).await?;
        terms.push(Term { xorb: XorbHash::from_bytes(xorb), chunks: 0..1000, length: 60_000_000 });
    }
    let size = terms.iter().map(|term| u64::from(term.length)).sum();
    let manifest = Manifest::new(file, sha256, size, terms, Vec::new())?;
    let uploader = UserId::from_bytes([1; 16]);
    let object = ShardObject { uploader, time_ms: 1_700_000_000_000, manifests: vec![manifest] };
    let (bytes, shard, _) = object.encode()?;
    let copy = store.new_copy(CopyKind::Shard, *shard.as_bytes(), 0);
    store.put_new(&Key::Copy(copy), Bytes::from(bytes)).await?;

    let mut pack = PackBuilder::new();
    pack.link(FileLink { sha256, file, shard, size });
    let mut bytes = pack.header().to_vec();
    let (tail, directory) = pack.finish()?;
    bytes.extend_from_slice(&tail);
    let copy = store.new_copy(CopyKind::Pack, *directory.hash.as_bytes(), 0);
    store.put_new(&Key::Copy(copy), Bytes::from(bytes)).await?;

    let commit = ObjectHash::from_bytes([3; 20]);
    let moved = RepoChange::RefSet { name: RefName::main(), old: None, new: commit };
    let changes = vec![RepoChange::PackAdded { pack: directory.hash }, moved];
    append(&Log::new(store.clone(), LogId::Repo(id(number))), &mut Tail::EMPTY.clone(), changes)
        .await
}

/// A hub on a folder, and the lock that keeps others out of it.
async fn open(folder: &Path) -> Result<(Arc<Hub>, Option<FolderLock>)> {
    let env: SharedEnv = RealEnv::shared();
    let location = Location::Folder(folder.to_owned());
    let backend = backend::open(&location, &Access::default(), 0)?;
    let limited = Limit::new(backend.objects, Limits { reads: 64, writes: 32 });
    let store = Store::new(Arc::new(limited), Arc::clone(&env)).with_writing(backend.writing);
    let (index, opened) = index::open_for(&folder.join("index"), "bench")?;
    let (wait, floor) = (Duration::ZERO, Duration::ZERO);
    let gc = GcSettings { wait, floor, interval: None, ..GcSettings::default() };
    let settings = HubSettings { freshness: Freshness::Exclusive, gc, ..HubSettings::default() };
    Ok((Hub::open(store, index, &opened, env, settings).await?, backend.lock))
}

async fn measure(asked: &Asked) -> Result<()> {
    let began = Watch::start();
    let (hub, _lock) = open(&asked.folder).await?;
    report("opened, and serves", began.elapsed());
    while !hub.index().is_whole() {
        RealEnv::new().sleep(Duration::from_millis(100)).await;
    }
    report("index whole", began.elapsed());
    forget_peak()?;
    let began = Watch::start();
    let plan = hub.plan_collection().await?;
    let seen = plan.reachable + plan.copies.len() as u64 + plan.later;
    report(&format!("marked and planned over {seen} copies"), began.elapsed());
    loop {
        let began = Watch::start();
        match hub.collect().await? {
            Collection::Done { epoch, collected } => {
                let what = format!("epoch {epoch}: swept {}", collected.swept);
                report(&what, began.elapsed());
            }
            Collection::Nothing => break,
            Collection::Waiting { .. } => {}
        }
    }
    hub.close().await?;
    Ok(())
}

struct Watch {
    env: RealEnv,
    began: Duration,
}

impl Watch {
    fn start() -> Self {
        let env = RealEnv::new();
        let began = env.monotonic();
        Self { env, began }
    }

    fn elapsed(&self) -> Duration {
        self.env.monotonic() - self.began
    }
}

/// Forgets the most memory that this process ever used.
fn forget_peak() -> Result<()> {
    Ok(std::fs::write("/proc/self/clear_refs", "5")?)
}

#[expect(clippy::print_stdout, reason = "it is what it is for")]
fn report(what: &str, took: Duration) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok()).unwrap_or(0)
    };
    let (now, peak) = (field("VmRSS:") / 1024, field("VmHWM:") / 1024);
    println!("{what}: {:.1} s, {now} MiB now, {peak} MiB at most", took.as_secs_f64());
}
