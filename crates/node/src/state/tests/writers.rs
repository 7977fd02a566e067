//! Many who write to one log.

use std::collections::BTreeSet;
use std::future::Future as _;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use ballast_format::hash::ObjectHash;
use ballast_format::log::RepoChange;
use ballast_format::name::RefName;
use ballast_store::index::IndexHandle;
use ballast_store::index::memory::Memory;
use ballast_store::index::open::Opened;
use ballast_testkit::clock::SimEnv;
use ballast_testkit::fault::FaultStore;
use ballast_testkit::sim::{Habits, World};
use futures_util::future::join_all;
use object_store::ObjectStore;
use object_store::memory::InMemory;

use super::{RepoState, branch, make_branch};
use crate::access::{Access, Caller, Repo};
use crate::broken::{Step, without};
use crate::error::{Error, Result};
use crate::hub::{Freshness, Hub};
use crate::rig::{Rig, header, open_with, path};
use crate::sim;

const WRITERS: usize = 8;
const EACH: usize = 12;

/// Hubs on one store that gives everybody turns in an order of its own.
async fn several(seed: u64, hubs: usize, age: Duration) -> (Rig, Repo, Vec<Arc<Hub>>) {
    let objects: Arc<dyn ObjectStore> = FaultStore::new(Arc::new(InMemory::new()), seed);
    let rig = Rig::over(objects, SimEnv::new(seed)).await;
    let repo = rig.repo(&rig.admin, "admin/busy").await;
    let mut others = Vec::new();
    for _ in 0..hubs {
        let index = IndexHandle::over(Memory::new()).expect("an index");
        let opened = Opened::Rebuild { reason: "new".into() };
        let freshness = Freshness::Within(age);
        let hub = open_with(&rig.objects, &rig.env, index, opened, freshness).await;
        others.push(hub.expect("a hub"));
    }
    (rig, repo, others)
}

#[tokio::test]
async fn of_eight_writers_in_one_process_everybody_gets_through_in_one_try() -> Result<()> {
    let (rig, repo, _) = several(1, 0, Duration::ZERO).await;
    let main = rig.main(&repo).await;
    let write = |writer: usize| {
        let (hub, repo) = (&rig.hub, &repo);
        async move {
            for i in 0..EACH {
                let name = branch(&format!("w{writer}-{i}"));
                hub.append_repo(repo, None, &[], make_branch(&name, main)).await?;
            }
            Ok::<_, Error>(())
        }
    };
    for done in join_all((0..WRITERS).map(write)).await {
        done?;
    }
    let state = rig.hub.repo_state(&repo).await?;
    assert_eq!(state.refs.len(), WRITERS * EACH + 1);
    assert_eq!(state.entries as usize, WRITERS * EACH + 1);
    Ok(())
}

/// Eight processes that write without rest, until all of them have written so often.
fn eight_write(
    seed: u64,
    write: impl AsyncFn(usize, Arc<Hub>, Caller, Repo, usize) -> Result<()>,
) -> Result<Arc<RepoState>> {
    let world = World::new(seed);
    world.run(async {
        let first = sim::open(&world.process(Habits::default())).await?;
        let rig = first.bootstrap().await?.expect("there was no user");
        let admin = first.authenticate(&rig.token)?;
        let repo = sim::create_repo(&first, &admin, "admin/busy").await?;
        let mut hubs = Vec::new();
        for _ in 0..WRITERS {
            hubs.push(sim::open(&world.process(Habits::default())).await?);
        }
        let all = hubs.iter().enumerate().map(|(writer, hub)| {
            let (write, admin, repo) = (&write, admin.clone(), repo.clone());
            async move {
                for number in 0..EACH {
                    let (hub, admin, repo) = (Arc::clone(hub), admin.clone(), repo.clone());
                    write(writer, hub, admin, repo, number).await?;
                }
                Ok::<_, Error>(())
            }
        });
        for done in join_all(all).await {
            done.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        }
        let expected = first.repo_state(&repo).await?;
        for hub in &hubs {
            assert_eq!(hub.repo_state(&repo).await?, expected, "seed {seed}");
        }
        Ok(expected)
    })
}

#[test]
fn of_eight_processes_that_write_to_one_log_nobody_starves_and_nothing_is_lost() -> Result<()> {
    for seed in 0..20 {
        let state = eight_write(seed, async |writer, hub, _, repo, number| {
            let main = hub.repo_state(&repo).await?.main().expect("a first commit");
            let name = branch(&format!("w{writer}-{number}"));
            hub.append_repo(&repo, None, &[], make_branch(&name, main)).await.map(drop)
        })?;
        assert_eq!(state.refs.len(), WRITERS * EACH + 1, "seed {seed}");
    }
    Ok(())
}

/// The same, each with commits to `main`.
fn eight_commit(seed: u64) -> Result<Arc<RepoState>> {
    eight_write(seed, async |writer, hub, admin, repo, number| {
        let mut draft = hub.begin_commit(&admin, repo, header()).await?;
        let place = path(&format!("w{writer}-{number}"));
        draft.add_file(place, "a line".into()).await?;
        draft.finish().await.map(drop)
    })
}

#[test]
fn of_eight_processes_that_commit_to_one_branch_nobody_starves_and_nothing_is_lost() -> Result<()> {
    for seed in 0..6 {
        let state = eight_commit(seed)?;
        assert_eq!(state.entries as usize, WRITERS * EACH + 1, "seed {seed}");
    }
    Ok(())
}

#[test]
fn if_nobody_who_lost_waits_somebody_starves() {
    let starves = |seed: u64| {
        std::panic::catch_unwind(|| without(Step::Wait, || eight_commit(seed))).is_err()
    };
    assert!((0..6).any(starves));
}

/// Invariant 3, R3
#[tokio::test]
async fn of_many_who_move_a_ref_from_one_place_exactly_one_wins() -> Result<()> {
    for seed in 0..20 {
        let (rig, repo, hubs) = several(seed, WRITERS, Duration::from_mins(1)).await;
        let tip = rig.main(&repo).await;
        let race = |(writer, hub): (usize, &Arc<Hub>)| {
            let (hub, repo) = (Arc::clone(hub), repo.clone());
            let new = ObjectHash::from_bytes([u8::try_from(writer).expect("few"); 20]);
            async move {
                let moved = hub
                    .append_repo(&repo, None, &[], |state| {
                        if state.main() != Some(tip) {
                            return Err(Error::Conflict { reason: "moved".to_owned() });
                        }
                        let (name, old) = (RefName::main(), Some(tip));
                        Ok(vec![RepoChange::RefSet { name, old, new }])
                    })
                    .await;
                (new, moved)
            }
        };
        let done = join_all(hubs.iter().enumerate().map(race)).await;
        let winners: Vec<_> = done.iter().filter(|(_, moved)| moved.is_ok()).collect();
        assert_eq!(winners.len(), 1, "seed {seed}");
        for (_, moved) in &done {
            let lost = matches!(moved, Err(Error::Conflict { .. }));
            assert!(moved.is_ok() || lost, "seed {seed}: {moved:?}");
        }
        let state = rig.hub.repo_state(&repo).await?;
        assert_eq!(state.main(), Some(winners[0].0), "seed {seed}");
    }
    Ok(())
}

#[tokio::test]
async fn a_refusal_is_never_said_from_an_old_state() -> Result<()> {
    let (rig, repo, hubs) = several(3, 1, Duration::from_hours(1)).await;
    let (other, tip) = (&hubs[0], rig.main(&repo).await);
    // The other hub looks, and then does not look again for an hour.
    assert_eq!(other.repo_state(&repo).await?.refs.len(), 1);
    let name = branch("late");
    rig.hub.append_repo(&repo, None, &[], make_branch(&name, tip)).await?;
    assert_eq!(other.repo_state(&repo).await?.refs.len(), 1);
    let delete = |state: &RepoState| match state.refs.get(&name) {
        Some(old) => Ok(vec![RepoChange::RefDeleted { name: name.clone(), old: *old }]),
        None => Err(Error::RevisionNotFound { revision: "late".to_owned() }),
    };
    other.append_repo(&repo, None, &[], delete).await?;
    // Nor is "there is nothing to change".
    let tag = RefName::tag("v1").expect("a tag");
    rig.hub.append_repo(&repo, None, &[], make_branch(&tag, tip)).await?;
    let undo = |state: &RepoState| {
        let gone =
            state.refs.get(&tag).map(|old| RepoChange::RefDeleted { name: tag.clone(), old: *old });
        Ok(gone.into_iter().collect())
    };
    other.append_repo(&repo, None, &[], undo).await?;
    assert_eq!(rig.hub.repo_state(&repo).await?.refs.len(), 1);
    Ok(())
}

#[tokio::test]
async fn what_others_wrote_is_seen_when_the_last_look_is_too_old() -> Result<()> {
    let age = Duration::from_secs(5);
    let rig = Rig::start().await;
    let repo = rig.repo(&rig.admin, "admin/seen").await;
    let index = IndexHandle::over(Memory::new()).expect("an index");
    let opened = Opened::Rebuild { reason: "new".into() };
    let freshness = Freshness::Within(age);
    let other = open_with(&rig.objects, &rig.env, index, opened, freshness).await?;
    let refs = async || other.repo_state(&repo).await.map(|state| state.refs.len());
    assert_eq!(refs().await?, 1);
    let tip = rig.main(&repo).await;
    rig.hub.append_repo(&repo, None, &[], make_branch(&branch("b"), tip)).await?;
    let anna = rig.user("anna").await;
    let theirs = rig.repo(&anna, "anna/new").await;
    rig.env.advance(age.checked_sub(Duration::from_millis(1)).unwrap());
    other.freshen().await?;
    assert_eq!(refs().await?, 1);
    assert!(other.repo_by_id(&Caller::Anonymous, theirs.id(), Access::Read).is_err());
    rig.env.advance(Duration::from_millis(1));
    other.freshen().await?;
    assert_eq!(refs().await?, 2);
    other.repo_by_id(&Caller::Anonymous, theirs.id(), Access::Read)?;
    Ok(())
}

#[tokio::test]
async fn readers_do_not_wait_for_a_writer() -> Result<()> {
    let (rig, repo, _) = several(4, 0, Duration::ZERO).await;
    let tip = rig.main(&repo).await;
    let name = branch("slow");
    let rule = make_branch(&name, tip);
    let mut writing = Box::pin(rig.hub.append_repo(&repo, None, &[], rule));
    // As soon as the writer waits for the store, everybody else goes on.
    std::future::poll_fn(|context| {
        assert!(writing.as_mut().poll(context).is_pending());
        Poll::Ready(())
    })
    .await;
    assert_eq!(rig.hub.repo_state(&repo).await?.main(), Some(tip));
    writing.await?;
    Ok(())
}

#[tokio::test]
async fn an_append_that_is_dropped_half_way_leaves_no_wrong_answer() -> Result<()> {
    for polls in 1..40 {
        let objects: Arc<dyn ObjectStore> = FaultStore::new(Arc::new(InMemory::new()), polls);
        let env = SimEnv::new(polls);
        let rig = Rig::over(Arc::clone(&objects), Arc::clone(&env)).await;
        let repo = rig.repo(&rig.admin, "admin/dropped").await;
        let tip = rig.main(&repo).await;
        let index = IndexHandle::over(Memory::new()).expect("an index");
        let opened = Opened::Rebuild { reason: "new".into() };
        // Nobody else writes while it lives, so only doubt makes it look again.
        let alone = open_with(&objects, &env, index, opened, Freshness::Exclusive).await?;
        let name = branch("dropped");
        let mut append = Box::pin(alone.append_repo(&repo, None, &[], make_branch(&name, tip)));
        let mut left = polls;
        let ended = std::future::poll_fn(|context| {
            if append.as_mut().poll(context).is_ready() {
                return Poll::Ready(true);
            }
            left -= 1;
            if left == 0 {
                return Poll::Ready(false);
            }
            context.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
        drop(append);
        // What was sent goes on without its caller: a look in between must not settle the doubt.
        alone.repo_state(&repo).await?;
        for _ in 0..500 {
            tokio::task::yield_now().await;
        }
        let (seen, truth) = (alone.repo_state(&repo).await?, rig.hub.repo_state(&repo).await?);
        assert_eq!(seen, truth, "after {polls} polls");
        assert!(!ended || seen.refs.contains_key(&name));
    }
    Ok(())
}

#[tokio::test]
async fn accounts_and_repos_of_one_name_are_made_once_whoever_tries() -> Result<()> {
    for seed in 0..10 {
        let (rig, _, hubs) = several(seed, WRITERS, Duration::from_mins(1)).await;
        let create = |hub: &Arc<Hub>| {
            let (hub, admin) = (Arc::clone(hub), rig.admin.clone());
            async move {
                let user = crate::account::NewUser {
                    name: "Clara",
                    fullname: "",
                    email: None,
                    admin: false,
                };
                hub.create_user(&admin, &user).await
            }
        };
        let done = join_all(hubs.iter().map(create)).await;
        let made: BTreeSet<_> = done.iter().flatten().map(|user| user.id).collect();
        assert_eq!(made.len(), 1, "seed {seed}");
        let refused = |made: &Result<_>| matches!(made, Err(Error::Exists { .. }));
        assert_eq!(done.iter().filter(|made| refused(made)).count(), WRITERS - 1);
    }
    Ok(())
}

#[tokio::test]
async fn a_repo_has_one_ledger_as_long_as_somebody_holds_it() -> Result<()> {
    let mut tried = 0;
    for seed in 0..8 {
        let (rig, repo, _) = several(seed, 0, Duration::ZERO).await;
        let index = IndexHandle::over(Memory::new()).expect("an index");
        let opened = Opened::Rebuild { reason: "new".into() };
        let (objects, env) = (&rig.objects, &rig.env);
        let hub = open_with(objects, env, index, opened, Freshness::Exclusive).await?;
        let tip = hub.repo_state(&repo).await?.main().expect("a commit");
        let name = branch("held");
        let mut writing = Box::pin(hub.append_repo(&repo, None, &[], make_branch(&name, tip)));
        let first =
            std::future::poll_fn(|context| Poll::Ready(writing.as_mut().poll(context))).await;
        if first.is_ready() {
            // The store answered at once.
            continue;
        }
        // While somebody writes, the cache forgets the repo and somebody reads it.
        hub.repos.forget(repo.id());
        assert_eq!(hub.repo_state(&repo).await?.refs.len(), 1);
        writing.await?;
        assert_eq!(hub.repo_state(&repo).await?.refs.len(), 2);
        tried += 1;
    }
    assert!(tried > 0, "somebody has to be held up");
    Ok(())
}
