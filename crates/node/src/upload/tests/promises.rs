//! What a promise protects, what it does not open, and what nobody learns from the time it takes.

use std::sync::Arc;
use std::time::Duration;

use ballast_format::ErrorKind;
use ballast_format::hash::{FileHash, ShardHash, XorbHash};
use ballast_format::id::RepoId;
use ballast_format::log::Visibility;
use ballast_format::manifest::ManifestId;
use ballast_store::index::schema::{self, ChunkRow, RunsRow, Scope};
use ballast_store::index::{Batch, Table};
use ballast_store::keyspace::{Leased, PinName};
use ballast_testkit::clock::SimEnv;
use ballast_testkit::content::splitmix;
use ballast_testkit::fault::{Call, Fault, FaultStore};
use futures_util::TryStreamExt as _;
use object_store::memory::InMemory;

use super::client::{Session, encode, put_shard, put_xorb};
use crate::access::Caller;
use crate::error::Result;
use crate::repo::Settings;
use crate::rig::{Rig, header, path, sha256};

const DAY: Duration = Duration::from_hours(24);

/// Whether each pin of theirs on a xorb is for having sent it.
async fn pins_of(rig: &Rig, caller: &Caller) -> Vec<bool> {
    let pins = ballast_store::pin::pins(rig.hub.store());
    let pins: Vec<PinName> = pins.try_collect().await.expect("it lists");
    let own = pins.into_iter().filter(|pin| Some(pin.owner) == caller.user_id());
    let of_xorb = |pin: PinName| match pin.leased {
        Leased::Registered(_) => None,
        Leased::Sent(_) => Some(true),
        Leased::Told(_) => Some(false),
    };
    own.filter_map(of_xorb).collect()
}

#[tokio::test]
async fn to_be_told_that_a_xorb_is_there_keeps_it_and_opens_nothing() -> Result<()> {
    let rig = Rig::start().await;
    let (alice, bob) = (rig.user("alice").await, rig.user("bob").await);
    let repo = rig.repo(&alice, "alice/model").await;
    let own = rig.repo(&bob, "bob/model").await;
    let session = Session::of(&splitmix(1, 500_000));
    session.commit(&rig, &alice, &repo, "w.bin").await;
    let hash = session.xorbs[0].hash();

    assert!(rig.hub.xorb_known(&bob, hash).await?, "the repo is public");
    assert_eq!(pins_of(&rig, &bob).await, [false; 0], "to know is no promise");
    assert!(rig.hub.grant_xorb(&bob, hash).await?);
    assert!(rig.hub.grant_xorb(&bob, hash).await?);
    assert_eq!(pins_of(&rig, &bob).await, [false], "one promise is enough for a while");
    rig.env.advance(DAY * 2);
    assert!(rig.hub.grant_xorb(&bob, hash).await?);
    assert_eq!(pins_of(&rig, &bob).await.len(), 2);

    let private = Settings { visibility: Some(Visibility::Private), ..Settings::default() };
    rig.hub.change_settings(&alice, &repo, &private).await?;
    let anew = rig.another().await;
    for hub in [&rig.hub, &anew] {
        assert!(!hub.xorb_known(&bob, hash).await?);
        assert!(!hub.grant_xorb(&bob, hash).await?);
        let shard = encode(&session.files, &[]);
        assert!(put_shard(hub, &bob, &own, shard).await.is_err());
    }
    Ok(())
}

#[tokio::test]
async fn what_one_process_said_another_keeps_although_it_has_not_read_the_repo_since() -> Result<()>
{
    let rig = Rig::start().await;
    let (alice, bob) = (rig.user("alice").await, rig.user("bob").await);
    let repo = rig.repo(&alice, "alice/model").await;
    let own = rig.repo(&bob, "bob/model").await;
    // They read every log as it is now.
    let (second, third) = (rig.another().await, rig.another().await);
    let content = splitmix(1, 500_000);
    let session = Session::of(&content);
    session.commit(&rig, &alice, &repo, "w.bin").await;
    assert!(rig.hub.grant_xorb(&bob, session.xorbs[0].hash()).await?);
    let put = put_shard(&second, &bob, &own, encode(&session.files, &[])).await?;
    assert!(put.stored);

    let carl = rig.user("carl").await;
    let theirs = rig.repo(&carl, "carl/model").await;
    assert!(rig.hub.has_file(&carl, &theirs, &sha256(&content), 500_000).await?);
    third.freshen().await?;
    let mut draft = third.begin_commit(&carl, theirs, header()).await?;
    draft.add_large(path("w.bin"), sha256(&content), Some(500_000)).await?;
    draft.finish().await?;
    Ok(())
}

#[tokio::test]
async fn while_logs_can_not_be_read_nothing_is_said_to_be_unknown() -> Result<()> {
    let objects = FaultStore::new(Arc::new(InMemory::new()), 1);
    let rig = Rig::over(Arc::clone(&objects) as _, SimEnv::new(7)).await;
    let (alice, bob) = (rig.user("alice").await, rig.user("bob").await);
    let repo = rig.repo(&alice, "alice/model").await;
    let own = rig.repo(&bob, "bob/model").await;
    let second = rig.another().await;
    let session = Session::of(&splitmix(1, 500_000));
    session.commit(&rig, &alice, &repo, "w.bin").await;
    let shard = encode(&session.files, &[]);
    for _ in 0..2 {
        objects.fail_next(Call::Get, Fault::Refused);
    }
    let put = put_shard(&second, &bob, &own, shard.clone()).await;
    assert_eq!(put.expect_err("a log was not read").kind(), ErrorKind::Unavailable);
    while let Err(error) = put_shard(&second, &bob, &own, shard.clone()).await {
        assert_eq!(error.kind(), ErrorKind::Unavailable);
    }
    Ok(())
}

#[tokio::test]
async fn only_sending_makes_an_upload_last_longer() -> Result<()> {
    let rig = Rig::start().await;
    let bob = rig.user("bob").await;
    let session = Session::of(&splitmix(1, 500_000));
    let hash = session.xorbs[0].hash();
    session.send_xorbs(&rig.hub, &bob).await?;
    assert!(rig.hub.grant_xorb(&bob, hash).await?);
    assert_eq!(pins_of(&rig, &bob).await, [true], "that one holds for long enough");
    rig.env.advance(DAY * 2);
    assert!(rig.hub.xorb_known(&bob, hash).await?);
    assert!(!rig.hub.grant_xorb(&bob, hash).await?, "it would be forgotten too early");
    assert!(!put_xorb(&rig.hub, &bob, &session.xorbs[0]).await?, "it is known");
    assert!(rig.hub.grant_xorb(&bob, hash).await?);
    assert_eq!(pins_of(&rig, &bob).await, [true; 2]);
    rig.env.advance(DAY * 21);
    assert!(rig.hub.xorb_known(&bob, hash).await?);
    rig.env.advance(DAY);
    assert!(!rig.hub.xorb_known(&bob, hash).await?);
    Ok(())
}

/// Rows of so many repos that nobody may read, before all others.
fn crowd(count: u8) -> impl Iterator<Item = RepoId> {
    (0..4).flat_map(move |high: u8| {
        (0..count).map(move |low| {
            let mut id = [0; 16];
            (id[14], id[15]) = (high, low);
            RepoId::from_bytes(id)
        })
    })
}

#[tokio::test]
async fn a_crowd_of_others_does_not_hide_ones_own() -> Result<()> {
    let rig = Rig::start().await;
    let (alice, bob) = (rig.user("alice").await, rig.user("bob").await);
    let repo = rig.repo(&alice, "alice/model").await;
    let other = rig.repo(&alice, "alice/other").await;
    let session = Session::of(&splitmix(1, 500_000));
    session.commit(&rig, &alice, &repo, "w.bin").await;
    session.send(&rig.hub, &bob, &rig.repo(&bob, "bob/model").await).await?;
    let footer = &session.xorbs[0].footer;
    let (xorb, chunk) = (footer.hash(), footer.chunk_hash(0));

    let (file, mut batch) = (FileHash::from_bytes([9; 32]), Batch::new());
    let nowhere = XorbHash::from_bytes([8; 32]);
    let manifest = ManifestId { file, shard: ShardHash::from_bytes([7; 32]) };
    let row = ChunkRow { manifest, xorb: nowhere, index: 0, until_ms: 0 };
    for id in crowd(150) {
        let key = schema::chunk_key(&chunk, &Scope::Repo(id));
        batch.put(Table::Chunk, key, row.encode());
        let key = schema::xorb_file_key(&xorb, &id, &file);
        batch.put(Table::XorbScope, key, RunsRow::default().encode());
    }
    rig.hub.index().apply(batch).await?;

    // What he sent and did not commit, and what a repo at hand has.
    assert!(rig.hub.dedup_answer(&bob, None, chunk).await?.is_some());
    rig.env.advance(DAY * 23);
    assert!(rig.hub.dedup_answer(&alice, Some(repo.id()), chunk).await?.is_some());
    // Of another repo than that at hand: it is used where it was offered.
    let put = put_shard(&rig.hub, &alice, &other, encode(&session.files, &[])).await?;
    assert!(put.stored);
    Ok(())
}

#[tokio::test]
async fn storing_costs_the_same_whether_others_have_it_or_not() -> Result<()> {
    let objects = FaultStore::new(Arc::new(InMemory::new()), 1);
    let rig = Rig::over(Arc::clone(&objects) as _, SimEnv::new(7)).await;
    let content = splitmix(1, 20_000_000);
    let session = Session::of(&content);
    let mut costs = Vec::new();
    for name in ["alice", "bob"] {
        let caller = rig.user(name).await;
        let repo = rig.repo(&caller, &format!("{name}/model")).await;
        let plain = splitmix(2, 900_000);
        let before = objects.counts();
        assert!(put_xorb(&rig.hub, &caller, &session.xorbs[0]).await?);
        rig.upload(&caller, &repo, &plain).await;
        let after = objects.counts();
        let written = [
            after.puts - before.puts,
            after.parts - before.parts,
            after.completions - before.completions,
        ];
        costs.push(written);
    }
    assert_eq!(costs[0], costs[1]);
    // And what was not needed goes away.
    rig.hub.runner().stop(rig.env.as_ref(), DAY).await;
    let stored = rig.stored().await;
    let is_part = |path: &str| path.contains("/part/");
    assert!(stored.iter().all(|meta| !is_part(meta.location.as_ref())));
    Ok(())
}

#[tokio::test]
async fn nobody_in_particular_is_told_nothing() -> Result<()> {
    let rig = Rig::start().await;
    let repo = rig.repo(&rig.admin, "admin/model").await;
    let session = Session::of(&splitmix(1, 500_000));
    session.commit(&rig, &rig.admin, &repo, "w.bin").await;
    let (home, nobody) = (Some(repo.id()), Caller::Anonymous);
    let chunk = session.xorbs[0].footer.chunk_hash(0);
    assert!(rig.hub.dedup_answer(&rig.admin, home, chunk).await?.is_some());
    assert!(rig.hub.dedup_answer(&nobody, home, chunk).await?.is_none());
    let other = session.xorbs[0].footer.chunk_hash(1);
    assert!(rig.hub.dedup_guess(&nobody, &repo, other, "session").await?.is_none());
    Ok(())
}
