//! What must be so, looked at by reading.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use ballast_format::hash::ObjectHash;
use ballast_format::id::RepoId;
use ballast_format::log::RepoChange;
use ballast_format::name::RefName;
use ballast_store::keyspace::{Key, LogId};
use ballast_store::reflog::{Log, Tail};
use ballast_testkit::sim::Habits;
use futures_util::TryStreamExt as _;
use tokio::sync::mpsc;

use super::book::{Book, Files, Told};
use super::open_with;
use super::scene::Scene;
use crate::access::Repo;
use crate::error::Result;
use crate::gc::Collection;
use crate::hub::Hub;
use crate::verify::Report;

/// Longer than any promise holds, with every margin.
const LONG: Duration = Duration::from_hours(24 * 30);
/// Collections until nothing is left: two, and one that began before (R6).
const COLLECTIONS: usize = 3;

/// R1, R2: a commit holds what its history says, byte for byte: all of it, or what is new in it
/// and a file of the others.
pub(super) async fn commit(
    scene: &Scene,
    hub: &Arc<Hub>,
    repo: &Repo,
    id: ObjectHash,
    whole: bool,
) -> Result<()> {
    assert_eq!(hub.resolve(repo, &id.to_string()).await?.commit, id);
    let expected = expected(scene, hub, repo, id).await?;
    let mut items = hub.siblings(repo, id).await?;
    items.retain(|item| item.path != ".gitattributes");
    let found: BTreeSet<&str> = items.iter().map(|item| item.path.as_str()).collect();
    let wanted: BTreeSet<&str> = expected.keys().map(String::as_str).collect();
    assert_eq!(found, wanted, "{id} of {}", repo.name());
    for item in &items {
        if !whole && !scene.world.happens(300) {
            continue;
        }
        let content = expected[&item.path].bytes();
        let pieces = hub.open_item(repo, item, 0..item.size).await?;
        let read = pieces.try_fold(Vec::new(), async |mut all, piece| {
            all.extend_from_slice(&piece);
            Ok(all)
        });
        assert!(read.await? == content, "{} of {id} of {}", item.path, repo.name());
        scene.book.borrow_mut().reads += 1;
    }
    Ok(())
}

/// What a commit must hold.
async fn expected(scene: &Scene, hub: &Arc<Hub>, repo: &Repo, id: ObjectHash) -> Result<Files> {
    let (mut next, mut steps) = (Some(id), Vec::new());
    let mut files = Files::new();
    while let Some(id) = next {
        if let Some(known) = scene.book.borrow().files.get(&(repo.id(), id)) {
            files = known.clone();
            break;
        }
        let found = hub.commit(repo.id(), &id).await?;
        next = found.parents.first().copied();
        steps.push((id, found.message.clone()));
    }
    for (id, message) in steps.into_iter().rev() {
        let book = &mut *scene.book.borrow_mut();
        files = match message.trim() {
            "initial commit" => Files::new(),
            message => book.expected(message, files).expect("nobody wished for this commit"),
        };
        book.files.insert((repo.id(), id), files.clone());
    }
    Ok(files)
}

/// The end of a run: everything works again, and everything is looked at.
pub(super) async fn end(scene: &Scene) -> Result<()> {
    for node in scene.nodes() {
        node.process.set_habits(Habits::default());
        node.process.set_skew_ms(0);
    }
    scene.world.pass(Duration::from_hours(24 * 12)).await;
    scene.world.land_all();
    let fresh = open_with(&scene.world.process(Habits::default()), scene.gc).await?;
    everything(scene, &fresh).await?;
    // R8: with an index that was there all the time, and with a new one.
    for node in scene.nodes() {
        node.hub.freshen().await?;
        assert_eq!(node.hub.records(|_| true), fresh.records(|_| true));
        for repo in repos(&fresh) {
            let (old, new) = (node.hub.repo_state(&repo).await?, fresh.repo_state(&repo).await?);
            assert_eq!(old, new, "process {}", node.process.number());
        }
    }
    scene.world.pass(LONG).await;
    // By one whose index is whole: no other rewrites xorbs in which little is alive.
    collect_all(scene, &fresh).await?;
    let fresh = open_with(&scene.world.process(Habits::default()), scene.gc).await?;
    everything(scene, &fresh).await?;
    nothing_stays_of_nothing(scene, &fresh).await
}

fn repos(hub: &Arc<Hub>) -> Vec<Repo> {
    hub.records(|_| true).into_iter().map(|record| Repo { record }).collect()
}

/// Everything that is acknowledged is there, and all that is there is whole.
async fn everything(scene: &Scene, hub: &Arc<Hub>) -> Result<()> {
    let living: BTreeSet<RepoId> = repos(hub).iter().map(Repo::id).collect();
    let notes = scene.book.borrow().repos.clone();
    for (id, note) in &notes {
        assert!(note.is_doomed || living.contains(id), "the repo {id} is lost");
        assert!(!note.is_gone || !living.contains(id), "the repo {id} was deleted");
        log(hub, *id).await?;
    }
    let mut fulfilled = BTreeMap::new();
    for repo in repos(hub) {
        for id in log(hub, repo.id()).await? {
            commit(scene, hub, &repo, id, false).await?;
            let message = hub.commit(repo.id(), &id).await?.message.clone();
            if let Some(number) = message.strip_prefix("wish ") {
                let number: usize = number.trim().parse().expect("a number");
                let before = fulfilled.insert(number, id);
                let may_repeat = scene.book.borrow().wishes[number].may_repeat;
                assert!(before.is_none() || may_repeat, "wish {number} is fulfilled twice");
            }
        }
        for tip in hub.repo_state(&repo).await?.refs.values() {
            commit(scene, hub, &repo, *tip, true).await?;
        }
    }
    let acknowledged = scene.book.borrow().acknowledged.clone();
    for (id, acknowledged) in acknowledged {
        if let Some(repo) = repos(hub).into_iter().find(|repo| repo.id() == id) {
            commit(scene, hub, &repo, acknowledged, false).await?;
        }
    }
    wishes(&scene.book.borrow(), &living, &fulfilled);
    let (reports, mut read) = mpsc::channel(1000);
    let summary = hub.verify(None, reports).await?;
    while let Ok(report) = read.try_recv() {
        assert!(matches!(report, Report::Progress(_)), "{report:?}");
    }
    assert_eq!(summary.damaged, 0);
    Ok(())
}

/// R3: what was said to be done is done, once; what was refused is not.
fn wishes(book: &Book, living: &BTreeSet<RepoId>, fulfilled: &BTreeMap<usize, ObjectHash>) {
    for (number, wish) in book.wishes.iter().enumerate() {
        if !living.contains(&wish.repo) {
            continue;
        }
        let commit = fulfilled.get(&number);
        match wish.told {
            Told::Done(done) if done.changed => {
                assert!(commit.is_some(), "wish {number} is lost: {done:?}");
            }
            Told::Refused if !wish.is_unclear => {
                assert!(commit.is_none(), "wish {number} was refused, and is {commit:?}");
            }
            _ => {}
        }
    }
}

/// The commits to which a repo's log moves refs, in order, each once. Reading it checks that it is
/// one chain, and that its epochs never fall.
async fn log(hub: &Arc<Hub>, repo: RepoId) -> Result<Vec<ObjectHash>> {
    let log = Log::new(hub.store().clone(), LogId::Repo(repo));
    let (mut tail, mut refs) = (Tail::EMPTY, BTreeMap::<RefName, ObjectHash>::new());
    let (mut seen, mut commits) = (BTreeSet::new(), Vec::new());
    loop {
        let page = log.read_after::<RepoChange>(&tail).await?;
        let Some(last) = page.last() else { return Ok(commits) };
        tail = last.tail;
        for change in page.iter().flat_map(|stored| &stored.entry.changes) {
            match change {
                RepoChange::RefSet { name, old, new } => {
                    // One winner for each parent.
                    assert_eq!(refs.insert(name.clone(), *new), *old, "{name} of {repo}");
                    if seen.insert(*new) {
                        commits.push(*new);
                    }
                }
                RepoChange::RefDeleted { name, old } => {
                    assert_eq!(refs.remove(name), Some(*old), "{name} of {repo}");
                }
                _ => {}
            }
        }
    }
}

/// R6: collects until nothing is left to collect.
async fn collect_all(scene: &Scene, hub: &Arc<Hub>) -> Result<()> {
    let mut done = 0;
    loop {
        match hub.collect().await? {
            Collection::Nothing => break,
            Collection::Waiting { .. } => scene.world.pass(Duration::from_hours(73)).await,
            Collection::Done { .. } => done += 1,
        }
        // What was written just now is too young.
        scene.world.pass(Duration::from_hours(25)).await;
        assert!(done <= COLLECTIONS + 1, "it never ends");
    }
    let plan = hub.plan_collection().await?;
    assert!(plan.copies.is_empty() && plan.later == 0, "{plan:?}");
    Ok(())
}

/// R6: when no repo is left, nothing of them is.
async fn nothing_stays_of_nothing(scene: &Scene, hub: &Arc<Hub>) -> Result<()> {
    for repo in repos(hub) {
        hub.delete_repo(&scene.callers[0], &repo).await?;
    }
    scene.world.pass(LONG).await;
    collect_all(scene, hub).await?;
    for meta in scene.world.stored().await {
        let key = Key::parse(&meta.location);
        let stays = !matches!(key, Some(Key::Copy(_) | Key::Pin(_)));
        assert!(stays, "{} is left", meta.location);
    }
    Ok(())
}
