//! Collections over a whole hub: what stays, what goes, and what happens in between.

use std::sync::Arc;
use std::time::Duration;

use ballast_format::log::Visibility;
use ballast_store::env::Env as _;
use ballast_store::keyspace::{CopyKind, Key, Leased, Prefix};
use ballast_testkit::content::splitmix;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::Collection;
use crate::access::Repo;
use crate::error::{Error, Result};
use crate::rig::{Rig, path, sha256};
use crate::upload::tests::client::{Session, put_shard, put_xorb};

/// More than a promise lasts, with every margin.
const LONG: Duration = Duration::from_hours(24 * 60);

async fn copies(rig: &Rig, kind: CopyKind) -> usize {
    let listed = rig.hub.store().list(&Prefix::Copies(kind));
    listed.try_collect::<Vec<_>>().await.expect("it lists").len()
}

/// One collection to its end, through all its waits.
async fn collect(rig: &Rig) -> Result<Collection> {
    loop {
        match rig.hub.collect().await? {
            Collection::Waiting { .. } => rig.env.advance(Duration::from_hours(80)),
            other => return Ok(other),
        }
    }
}

/// As many collections as it takes until nothing is left to collect.
async fn collect_all(rig: &Rig) -> Result<u64> {
    let mut swept = 0;
    for _ in 0..10 {
        match collect(rig).await? {
            Collection::Done { collected, .. } => swept += collected.swept,
            _ => return Ok(swept),
        }
    }
    panic!("it never ends");
}

/// A hub with two repos of a large file each.
async fn scene() -> (Rig, Repo, Repo, [Vec<u8>; 2]) {
    let rig = Rig::start().await;
    // The memory store dates objects by this machine's clock.
    rig.env.set_wall_ms(real_ms());
    let (kept, doomed) =
        (rig.repo(&rig.admin, "admin/kept").await, rig.repo(&rig.admin, "admin/doomed").await);
    let contents = [splitmix(1, 600_000), splitmix(2, 600_000)];
    rig.put_large(&rig.admin, &kept, "w.bin", &contents[0]).await;
    rig.put_large(&rig.admin, &doomed, "w.bin", &contents[1]).await;
    (rig, kept, doomed, contents)
}

fn real_ms() -> u64 {
    ballast_store::env::RealEnv::new().now_ms()
}

/// Deletes a repo, and lets all promises about it run out.
async fn delete(rig: &Rig, repo: &Repo) {
    rig.hub.delete_repo(&rig.admin, repo).await.expect("it is ours");
    rig.env.advance(LONG);
}

#[tokio::test]
async fn what_a_living_repo_names_stays_and_a_deleted_ones_goes() -> Result<()> {
    let (rig, kept, doomed, contents) = scene().await;
    assert_eq!(collect_all(&rig).await?, 0, "everything is in use");
    let before = copies(&rig, CopyKind::Xorb).await;
    delete(&rig, &doomed).await;
    let swept = collect_all(&rig).await?;
    assert!(swept >= 3, "a xorb, a shard and packs: {swept}");
    assert_eq!(copies(&rig, CopyKind::Xorb).await, before - 1);
    assert_eq!(rig.read(&kept, "w.bin").await?, contents[0]);
    let another = rig.another().await;
    let item = another.item(&kept, rig.main(&kept).await, &path("w.bin")).await?;
    assert_eq!(item.size, 600_000, "a new index finds the same");
    Ok(())
}

#[tokio::test]
async fn pins_and_recent_registrations_protect_what_no_log_names() -> Result<()> {
    let (rig, kept, ..) = scene().await;
    let content = splitmix(3, 400_000);
    let session = Session::of(&content);
    session.send(&rig.hub, &rig.admin, &kept).await?;
    assert_eq!(collect_all(&rig).await?, 0, "it may be committed at any moment");
    let found = rig.hub.find_upload(&rig.admin, &kept, &sha256(&content)).await?;
    assert!(found.is_some());
    rig.env.advance(LONG);
    assert!(collect_all(&rig).await? >= 2, "its xorb and its shard, when the promise is over");
    Ok(())
}

#[tokio::test]
async fn what_is_named_between_condemnation_and_sweep_stays() -> Result<()> {
    let (rig, kept, doomed, contents) = scene().await;
    delete(&rig, &doomed).await;
    // The first epoch condemns nothing: what there is may be a writer's that is still at work.
    collect(&rig).await?;
    let mut waiting = rig.hub.collect().await?;
    while !matches!(waiting, Collection::Waiting { .. }) {
        waiting = rig.hub.collect().await?;
    }
    // The same content comes again, while its only copy is condemned.
    let other = rig.user("other").await;
    let theirs = rig.repo_with(&other, "other/model", Visibility::Private).await;
    rig.put_large(&other, &theirs, "w.bin", &contents[1]).await;
    rig.env.advance(Duration::from_hours(80));
    assert!(matches!(rig.hub.collect().await?, Collection::Done { .. }));
    collect_all(&rig).await?;
    assert_eq!(rig.read(&theirs, "w.bin").await?, contents[1]);
    assert_eq!(rig.read(&kept, "w.bin").await?, contents[0]);
    Ok(())
}

#[tokio::test]
async fn a_commit_that_slept_through_the_condemnation_copies_what_it_names() -> Result<()> {
    let (rig, kept, doomed, contents) = scene().await;
    // A second process that has read no list, and takes the file over from the doomed repo.
    let another = rig.another().await;
    let mut draft = another.begin_commit(&rig.admin, kept.clone(), crate::rig::header()).await?;
    let size = Some(contents[1].len() as u64);
    draft.add_large(path("over.bin"), sha256(&contents[1]), size).await?;
    delete(&rig, &doomed).await;
    collect(&rig).await?;
    let mut came = rig.hub.collect().await?;
    while !matches!(came, Collection::Waiting { .. }) {
        came = rig.hub.collect().await?;
    }
    draft.finish().await?;
    rig.env.advance(Duration::from_hours(80));
    collect_all(&rig).await?;
    assert_eq!(rig.read(&kept, "over.bin").await?, contents[1], "its copy has a name of its own");
    Ok(())
}

#[tokio::test]
async fn a_commit_that_names_what_is_gone_is_refused() -> Result<()> {
    let (rig, kept, doomed, contents) = scene().await;
    let another = rig.another().await;
    let mut draft = another.begin_commit(&rig.admin, kept.clone(), crate::rig::header()).await?;
    let size = Some(contents[1].len() as u64);
    draft.add_large(path("late.bin"), sha256(&contents[1]), size).await?;
    delete(&rig, &doomed).await;
    collect_all(&rig).await?;
    let refused = draft.finish().await;
    assert!(matches!(refused, Err(Error::Invalid { .. })), "{refused:?}");
    assert_eq!(rig.paths(&kept).await.iter().filter(|path| *path == "late.bin").count(), 0);
    Ok(())
}

#[tokio::test]
async fn two_collectors_and_a_crash_at_any_step_do_no_harm() -> Result<()> {
    let (rig, kept, doomed, contents) = scene().await;
    delete(&rig, &doomed).await;
    let another = rig.another().await;
    for _ in 0..6 {
        let (one, two) = tokio::join!(rig.hub.collect(), another.collect());
        one?;
        two?;
        rig.env.advance(Duration::from_hours(40));
        // Polled a few times and dropped, as a crash would.
        let mut collecting = Box::pin(rig.hub.collect());
        for _ in 0..5 {
            if futures_util::poll!(collecting.as_mut()).is_ready() {
                break;
            }
        }
    }
    collect_all(&rig).await?;
    assert_eq!(copies(&rig, CopyKind::Xorb).await, 1);
    assert_eq!(rig.read(&kept, "w.bin").await?, contents[0]);
    Ok(())
}

#[tokio::test]
async fn nothing_is_deleted_while_a_log_is_damaged() -> Result<()> {
    let (rig, kept, doomed, _) = scene().await;
    delete(&rig, &doomed).await;
    let log = ballast_store::keyspace::LogId::Repo(kept.id());
    let entry = Key::LogEntry(log, 1).path();
    object_store::ObjectStoreExt::put(&rig.objects, &entry, "nonsense".into()).await.expect("put");
    let before = rig.stored().await.len();
    let stopped = rig.hub.collect().await;
    assert!(matches!(&stopped, Err(error) if error.is_corrupt()), "{stopped:?}");
    assert_eq!(rig.stored().await.len(), before);
    Ok(())
}

#[tokio::test]
async fn a_plan_says_what_would_go_and_why_and_changes_nothing() -> Result<()> {
    let (rig, _, doomed, _) = scene().await;
    delete(&rig, &doomed).await;
    collect(&rig).await?;
    let before = rig.stored().await;
    let plan = rig.hub.plan_collection().await?;
    assert_eq!(rig.stored().await, before);
    assert!(plan.copies.iter().any(|condemning| condemning.copy.kind == CopyKind::Xorb));
    assert!(plan.copies.iter().all(|condemning| !condemning.reason().is_empty()));
    assert!(plan.reachable >= 3);
    Ok(())
}

/// Collects until an epoch waits for its sweep.
async fn condemn(rig: &Rig) -> Result<()> {
    while !matches!(rig.hub.collect().await?, Collection::Waiting { .. }) {}
    Ok(())
}

#[tokio::test]
async fn a_promise_that_a_collector_did_not_see_in_time_is_kept() -> Result<()> {
    let (rig, kept, doomed, contents) = scene().await;
    let session = Session::of(&contents[1]);
    delete(&rig, &doomed).await;
    condemn(&rig).await?;
    // Written before the list was published, and after the collector had read the pins.
    let leased = Leased::Sent(session.xorbs[0].hash());
    let until = rig.env.now_ms() + crate::upload::PROMISE_MS;
    let owner = rig.admin.user_id().expect("a user");
    ballast_store::pin::pin(rig.hub.store(), owner, leased, until).await?;
    let another = rig.another().await;
    put_shard(&another, &rig.admin, &kept, session.shard()).await?;
    rig.env.advance(Duration::from_hours(80));
    assert!(matches!(rig.hub.collect().await?, Collection::Done { .. }));
    collect_all(&rig).await?;
    let mut draft = another.begin_commit(&rig.admin, kept.clone(), crate::rig::header()).await?;
    draft.add_large(path("late.bin"), sha256(&contents[1]), None).await?;
    draft.finish().await?;
    assert_eq!(rig.read(&kept, "late.bin").await?, contents[1]);
    Ok(())
}

#[tokio::test]
async fn a_xorb_that_went_while_it_came_in_again_is_not_acknowledged() -> Result<()> {
    let (rig, _, doomed, contents) = scene().await;
    let bert = rig.user("bert").await;
    let xorb = Session::of(&contents[1]).xorbs.remove(0);
    delete(&rig, &doomed).await;
    collect(&rig).await?;
    // It is there when the upload begins, and its sender may not know.
    let (hub, env, rest) = (Arc::clone(&rig.hub), Arc::clone(&rig.env), xorb.body.slice(99..));
    let slow = stream::once(async move {
        let mut came = hub.collect().await?;
        while !matches!(came, Collection::Done { .. }) {
            env.advance(Duration::from_hours(80));
            came = hub.collect().await?;
        }
        Ok(rest)
    });
    let body = stream::iter([Ok(xorb.body.slice(..99))]).chain(slow);
    let put = rig.hub.put_xorb(&bert, xorb.hash(), None, Box::pin(body)).await;
    assert!(matches!(put, Err(Error::Busy { .. })), "{put:?}");
    put_xorb(&rig.hub, &bert, &xorb).await?;
    assert!(rig.hub.xorb_known(&bert, xorb.hash()).await?);
    Ok(())
}

#[tokio::test]
async fn what_little_is_alive_of_a_xorb_moves_and_reads_as_before() -> Result<()> {
    let (rig, kept, doomed, contents) = scene().await;
    let (small, large) = (splitmix(5, 150_000), splitmix(6, 1_500_000));
    let mut session = Session::default();
    session.add_all(&[&large, &small]);
    session.send(&rig.hub, &rig.admin, &doomed).await?;
    for (repo, place, content) in [(&kept, "small.bin", &small), (&doomed, "large.bin", &large)] {
        let mut draft = rig.draft(&rig.admin, repo).await;
        draft.add_large(path(place), sha256(content), None).await?;
        draft.finish().await?;
    }
    let before = rig.hub.find_upload(&rig.admin, &kept, &sha256(&small)).await?.expect("a link");
    let another = rig.another().await;
    assert_eq!(rig.hub.plan_collection().await?.thin, []);
    delete(&rig, &doomed).await;
    assert_eq!(rig.hub.plan_collection().await?.thin.len(), 1);
    collect_all(&rig).await?;
    assert_eq!(rig.hub.plan_collection().await?.thin, []);

    let after = rig.hub.find_upload(&rig.admin, &kept, &sha256(&small)).await?.expect("a link");
    assert_eq!(after.file, before.file);
    assert!(after.shard != before.shard);
    let xorbs: Vec<u64> = rig
        .hub
        .store()
        .list(&Prefix::Copies(CopyKind::Xorb))
        .map_ok(|listed| listed.size)
        .try_collect()
        .await
        .expect("it lists");
    assert_eq!(xorbs.len(), 2, "the kept repo's first, and a new one");
    assert!(xorbs.iter().sum::<u64>() < 1_000_000, "{xorbs:?}");
    assert_eq!(rig.read(&kept, "small.bin").await?, small);
    assert_eq!(rig.read(&kept, "w.bin").await?, contents[0]);
    // On a process that knew it by the old manifest, and with a new index.
    for hub in [another, rig.another().await] {
        assert!(!hub.reconstruct(&kept, before.file, None).await?.fetches.is_empty());
        let main = rig.main(&kept).await;
        let item = hub.item(&kept, main, &path("small.bin")).await?;
        let bytes = hub.open_item(&kept, &item, 0..item.size).await?;
        let read: Vec<u8> = bytes.map_ok(|piece| piece.to_vec()).try_concat().await?;
        assert_eq!(read, small);
    }
    Ok(())
}

#[tokio::test]
async fn what_clients_may_refer_to_is_not_rewritten() -> Result<()> {
    let (rig, kept, ..) = scene().await;
    let (small, large) = (splitmix(5, 150_000), splitmix(6, 1_500_000));
    let mut session = Session::default();
    session.add_all(&[&large, &small]);
    session.send(&rig.hub, &rig.admin, &kept).await?;
    let mut draft = rig.draft(&rig.admin, &kept).await;
    draft.add_large(path("small.bin"), sha256(&small), None).await?;
    draft.finish().await?;
    rig.env.advance(Duration::from_hours(48));
    assert_eq!(rig.hub.plan_collection().await?.thin, [], "its sender may commit the rest");
    rig.env.advance(LONG);
    assert_eq!(rig.hub.plan_collection().await?.thin.len(), 1);
    Ok(())
}
