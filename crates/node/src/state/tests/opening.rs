//! A hub that serves before it has read its whole store.

use std::sync::Arc;
use std::time::Duration;

use ballast_format::log::Visibility;
use ballast_store::index::IndexHandle;
use ballast_store::index::memory::Memory;
use ballast_store::index::open::Opened;
use ballast_store::keyspace::{CopyKind, Prefix};
use ballast_testkit::clock::SimEnv;
use ballast_testkit::content::splitmix;
use ballast_testkit::fault::{Call, Decision, Fault, FaultStore};
use object_store::ObjectStore;
use object_store::memory::InMemory;

use crate::access::Repo;
use crate::error::Result;
use crate::hub::{Freshness, Hub};
use crate::rig::{Rig, open_with, path, sha256};

/// How much time passes between two looks.
const HALF_A_SECOND: Duration = Duration::from_millis(500);

/// Lets time pass by such steps until tasks have brought it about.
async fn until(env: &SimEnv, step: Duration, mut holds: impl FnMut() -> bool) {
    let waiting = async {
        while !holds() {
            env.advance(step);
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), waiting).await.expect("it comes about");
}

/// A hub with an empty index on a store that does not say which shards it has.
async fn open_while_held(rig: &Rig, faults: &FaultStore, freshness: Freshness) -> Arc<Hub> {
    faults.hold(Prefix::Copies(CopyKind::Shard).path());
    let index = IndexHandle::over(Memory::new()).expect("an index");
    let opened = Opened::Rebuild { reason: "it is new".to_owned() };
    let opening = open_with(&rig.objects, &rig.env, index, opened, freshness);
    let passing = async {
        until(&rig.env, HALF_A_SECOND, || false).await;
    };
    tokio::select! {
        hub = opening => hub.expect("it opens"),
        () = passing => unreachable!("it ends with the hub or with a panic"),
    }
}

async fn scene() -> (Rig, Arc<FaultStore>) {
    let faults = FaultStore::new(Arc::new(InMemory::new()), 1);
    let objects = Arc::clone(&faults) as Arc<dyn ObjectStore>;
    (Rig::over(objects, SimEnv::new(7)).await, faults)
}

/// The rig, with this hub in place of its own.
fn with(rig: Rig, hub: Arc<Hub>) -> Rig {
    Rig { hub, ..rig }
}

async fn serves_before_it_is_whole(freshness: Freshness) -> Result<()> {
    let (rig, faults) = scene().await;
    let repo = rig.repo_with(&rig.admin, "admin/model", Visibility::Private).await;
    let (first, second) = (splitmix(1, 500_000), splitmix(2, 400_000));
    rig.put_large(&rig.admin, &repo, "w.bin", &first).await;
    rig.put(&rig.admin, &repo, "README.md", "---\nlicense: mit\n---\n").await?;
    rig.upload(&rig.admin, &repo, &second).await;

    let hub = open_while_held(&rig, &faults, freshness).await;
    assert!(!hub.index().is_whole() && faults.held() > 0);
    let rig = with(rig, hub);
    assert_eq!(rig.read(&repo, "w.bin").await?, first);
    let link = rig.hub.find_upload(&rig.admin, &repo, &sha256(&first)).await?.expect("it is here");
    let found = rig.hub.reconstruct(&repo, link.file, None).await?;
    assert!(!found.fetches.is_empty());
    // What was uploaded before may be committed, and something new too.
    let mut draft = rig.draft(&rig.admin, &repo).await;
    draft.add_large(path("v.bin"), sha256(&second), None).await?;
    draft.finish().await?;
    rig.put_large(&rig.admin, &repo, "x.bin", &splitmix(3, 300_000)).await;
    assert_eq!(rig.read(&repo, "v.bin").await?, second);
    assert!(!rig.hub.index().is_whole());
    assert!(rig.hub.repo_by_id(&crate::access::Caller::Anonymous, repo.id(), READ).is_err());

    is_whole_in_the_end(&rig, &faults, &repo).await;
    assert_eq!(rig.read(&repo, "v.bin").await?, second);
    Ok(())
}

const READ: crate::access::Access = crate::access::Access::Read;

/// The store answers again, and fails once more: what was left is tried again.
async fn is_whole_in_the_end(rig: &Rig, faults: &FaultStore, repo: &Repo) {
    faults.fail_next(Call::List, Fault::Refused);
    faults.release();
    // No time passes, so that it is no other task's listing.
    let is_refused = |decision: &Decision| decision.fault == Some(Fault::Refused);
    let was_refused = || faults.decisions().iter().any(is_refused);
    until(&rig.env, Duration::ZERO, was_refused).await;
    until(&rig.env, HALF_A_SECOND, || rig.hub.index().is_whole()).await;
    until(&rig.env, HALF_A_SECOND, || {
        rig.hub.facts(&repo.id()).tags.iter().any(|tag| tag == "license:mit")
    })
    .await;
}

#[tokio::test]
async fn one_of_several_processes_serves_before_it_has_read_all() -> Result<()> {
    serves_before_it_is_whole(Freshness::Within(Duration::ZERO)).await
}

#[tokio::test]
async fn the_only_process_serves_before_it_has_read_all() -> Result<()> {
    serves_before_it_is_whole(Freshness::Exclusive).await
}

#[tokio::test]
async fn a_store_that_fails_at_once_keeps_a_hub_from_opening() {
    let (rig, faults) = scene().await;
    faults.fail_next(Call::List, Fault::Refused);
    let index = IndexHandle::over(Memory::new()).expect("an index");
    let opened = Opened::Rebuild { reason: "it is new".to_owned() };
    let opening = open_with(&rig.objects, &rig.env, index, opened, Freshness::Exclusive);
    assert!(opening.await.is_err());
}

#[tokio::test]
async fn listings_follow_what_other_processes_commit() -> Result<()> {
    let (rig, _) = scene().await;
    let repo = rig.repo(&rig.admin, "admin/model").await;
    let other = rig.another().await;
    rig.put(&rig.admin, &repo, "README.md", "---\nlicense: mit\n---\n").await?;
    assert!(other.facts(&repo.id()).tags.is_empty());
    until(&rig.env, HALF_A_SECOND, || {
        other.facts(&repo.id()).tags.iter().any(|tag| tag == "license:mit")
    })
    .await;
    Ok(())
}

#[tokio::test]
async fn a_file_that_another_process_just_committed_is_reconstructed() -> Result<()> {
    let (rig, _) = scene().await;
    let repo = rig.repo(&rig.admin, "admin/model").await;
    let index = IndexHandle::over(Memory::new()).expect("an index");
    let opened = Opened::Rebuild { reason: "it is new".to_owned() };
    let seldom = Freshness::Within(Duration::from_hours(1));
    let other = open_with(&rig.objects, &rig.env, index, opened, seldom).await?;
    let content = splitmix(1, 500_000);
    rig.put_large(&rig.admin, &repo, "w.bin", &content).await;
    let link = rig.hub.find_upload(&rig.admin, &repo, &sha256(&content)).await?.expect("here");
    assert!(!other.reconstruct(&repo, link.file, None).await?.fetches.is_empty());
    Ok(())
}
