//! Stores that fail: whatever they do, a success is a success, and an error leaves nothing that
//! anyone can find.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use ballast_format::ErrorKind;
use ballast_store::env::{Env, SharedEnv};
use ballast_store::index::IndexHandle;
use ballast_store::index::memory::Memory;
use ballast_store::index::open::Opened;
use ballast_store::keyspace::{CopyKind, Prefix};
use ballast_store::objects::{Store, Writing};
use ballast_testkit::clock::SimEnv;
use ballast_testkit::content::splitmix;
use ballast_testkit::fault::{Call, Fault, FaultStore, Rates};
use bytes::Bytes;
use futures_util::TryStreamExt as _;
use futures_util::future::join_all;
use object_store::memory::InMemory;

use super::client::{Session, Xorb, all_of, body, commit, put_shard, put_xorb};
use crate::access::Repo;
use crate::error::Result;
use crate::gc::Collection;
use crate::hub::{Freshness, Hub, HubSettings};
use crate::rig::{Rig, sha256};
use crate::verify::ScrubSettings;

/// Short waits, as between two tries, are over at once; background work waits for the test.
#[derive(Debug)]
struct Brisk(Arc<SimEnv>);

#[async_trait]
impl Env for Brisk {
    fn now_ms(&self) -> u64 {
        self.0.now_ms()
    }

    fn monotonic(&self) -> Duration {
        self.0.monotonic()
    }

    fn fill_random(&self, into: &mut [u8]) {
        self.0.fill_random(into);
    }

    async fn sleep(&self, duration: Duration) {
        if duration < Duration::from_secs(20) {
            self.0.advance(duration);
            tokio::task::yield_now().await;
        } else {
            self.0.sleep(duration).await;
        }
    }
}

/// A hub on a store that fails as it is told, with parts so small that xorbs have several.
async fn start(seed: u64) -> (Rig, Arc<FaultStore>, Repo) {
    let objects = FaultStore::new(Arc::new(InMemory::new()), seed);
    let sim = SimEnv::new(seed);
    let env: SharedEnv = Arc::new(Brisk(Arc::clone(&sim)));
    let writing = Writing { part_bytes: 200_000, parts_in_flight: 2 };
    let store = Store::new(Arc::clone(&objects) as _, Arc::clone(&env));
    let index = IndexHandle::over(Memory::new()).expect("an index");
    // Nothing else writes, so that what is scripted hits what it is for.
    let scrub = ScrubSettings { interval: None, ..ScrubSettings::default() };
    let freshness = Freshness::Exclusive;
    let audit_interval = None;
    let settings = HubSettings { freshness, scrub, audit_interval, ..HubSettings::default() };
    let store = store.with_writing(writing);
    let hub = Hub::open(store, index, &Opened::Clean, env, settings).await;
    let rig = Rig::of(Arc::clone(&objects) as _, sim, hub.expect("a hub")).await;
    let repo = rig.repo(&rig.admin, "admin/model").await;
    (rig, objects, repo)
}

#[tokio::test]
async fn a_xorb_or_its_pin_that_is_not_stored_is_no_success() -> Result<()> {
    let xorb = Session::of(&splitmix(1, 900_000)).xorbs.remove(0);
    let chunk = xorb.footer.chunk_hash(0);
    for (call, fault) in [
        (Call::Part, Fault::Refused),
        (Call::Complete, Fault::Refused),
        (Call::Complete, Fault::ReplyLost),
    ] {
        let (rig, objects, _) = start(1).await;
        // As often as anybody tries.
        for _ in 0..10 {
            objects.fail_next(call, fault);
        }
        let put = put_xorb(&rig.hub, &rig.admin, &xorb).await;
        assert_eq!(put.expect_err("it failed").kind(), ErrorKind::Unavailable, "{call:?}");
        assert!(rig.hub.dedup_answer(&rig.admin, None, chunk).await?.is_none());
        put_again(&objects, &rig, &xorb).await;
        assert!(rig.hub.xorb_known(&rig.admin, xorb.hash()).await?);
    }
    Ok(())
}

/// Once the store works again.
async fn put_again(objects: &Arc<FaultStore>, rig: &Rig, xorb: &Xorb) {
    // Uses up what was scripted.
    for _ in 0..40 {
        if put_xorb(&rig.hub, &rig.admin, xorb).await.is_ok() {
            return;
        }
    }
    panic!("{:?}", objects.decisions().last());
}

/// Sends two files by Xet and one as plain bytes, each until it works, on a store that fails often.
async fn survive(seed: u64) -> Result<()> {
    let (rig, objects, repo) = start(seed).await;
    let contents =
        [splitmix(seed, 1_500_000), splitmix(seed + 1, 700_000), splitmix(seed + 2, 1_200_000)];
    let mut session = Session::of(&contents[0]);
    session.add(&contents[1]);
    let rates =
        Rates { refused: 60, reply_lost: 60, late: 40, landing: 100, stale: 50, flipped: 0 };
    objects.set_rates(rates);
    let mut failures = 0;
    let mut tries = 0;
    loop {
        tries += 1;
        assert!(tries < 200, "seed {seed}: it never works");
        let sent = session.send(&rig.hub, &rig.admin, &repo).await;
        let plain = Bytes::copy_from_slice(&contents[2]);
        let (digest, size) = (sha256(&plain), plain.len() as u64);
        let put = rig.hub.put_file(&rig.admin, &repo, digest, size, body(&plain)).await;
        let both = [sent.err(), put.err()];
        let failed: Vec<_> = both.into_iter().flatten().collect();
        for error in &failed {
            assert_ne!(error.kind(), ErrorKind::Invalid, "seed {seed}: {error}");
            assert_ne!(error.kind(), ErrorKind::Corrupt, "seed {seed}: {error}");
        }
        failures += failed.len();
        if failed.is_empty() {
            break;
        }
    }
    objects.set_rates(Rates::default());
    objects.land_all().await;
    assert!(failures > 0 || tries == 1);
    // What was acknowledged is whole, also for somebody who knows only the store.
    for (number, content) in contents.iter().enumerate() {
        let digest = sha256(content);
        commit(&rig, &rig.admin, &repo, &format!("{number}.bin"), digest).await?;
    }
    let anew = rig.another().await;
    let repo = anew.repo_by_id(&rig.admin, repo.id(), crate::access::Access::Read)?;
    for content in &contents {
        let link = anew.find_upload(&rig.admin, &repo, &sha256(content)).await?;
        let link = link.expect("it was acknowledged");
        let read = all_of(anew.read_file(&link, 0..link.size).await?).await?;
        assert!(&read == content, "seed {seed}");
    }
    Ok(())
}

#[tokio::test]
async fn uploads_survive_a_store_that_fails_in_every_way() -> Result<()> {
    for seed in 0..30 {
        survive(seed).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_shard_that_is_not_stored_registers_nothing() -> Result<()> {
    let (rig, objects, repo) = start(3).await;
    let content = splitmix(1, 300_000);
    let session = Session::of(&content);
    session.send_xorbs(&rig.hub, &rig.admin).await?;
    for _ in 0..10 {
        objects.fail_next(Call::Put, Fault::Refused);
    }
    let put = put_shard(&rig.hub, &rig.admin, &repo, session.shard()).await;
    assert_eq!(put.expect_err("it failed").kind(), ErrorKind::Unavailable);
    assert!(rig.hub.find_upload(&rig.admin, &repo, &sha256(&content)).await?.is_none());
    let listed = rig.hub.store().list(&Prefix::Copies(CopyKind::Shard));
    assert!(listed.try_collect::<Vec<_>>().await?.is_empty());
    while put_shard(&rig.hub, &rig.admin, &repo, session.shard()).await.is_err() {}
    assert!(rig.hub.find_upload(&rig.admin, &repo, &sha256(&content)).await?.is_some());
    Ok(())
}

#[tokio::test]
async fn who_can_not_copy_what_is_condemned_now_is_told_to_come_again() -> Result<()> {
    let (rig, objects, _) = start(11).await;
    // The memory store dates objects by this machine's clock.
    rig.env.set_wall_ms(ballast_store::env::RealEnv::new().now_ms());
    let doomed = rig.repo(&rig.admin, "admin/doomed").await;
    let content = splitmix(1, 500_000);
    rig.put_large(&rig.admin, &doomed, "w.bin", &content).await;
    let link = rig.hub.find_upload(&rig.admin, &doomed, &sha256(&content)).await?;
    let manifest = link.expect("it is a file of the repo").manifest();
    let xorb = Session::of(&content).xorbs[0].hash();
    rig.hub.delete_repo(&rig.admin, &doomed).await?;
    rig.env.advance(Duration::from_hours(24 * 60));
    // The first epoch condemns nothing: a writer may be at work.
    for _ in 0..10 {
        if matches!(rig.hub.collect().await?, Collection::Waiting { .. }) {
            break;
        }
    }
    let epoch = rig.hub.read_newest_condemned().await?;
    // Many ask at once, on a store that refuses every third call.
    objects.set_rates(Rates { refused: 300, ..Rates::default() });
    let (mut refused, mut confirmed) = (0, 0);
    for _ in 0..20 {
        let xorbs = join_all((0..4).map(|_| rig.hub.confirm_xorb(xorb, epoch)));
        let shards = join_all((0..4).map(|_| rig.hub.confirm_shard(manifest.shard, epoch)));
        let (xorbs, shards) = tokio::join!(xorbs, shards);
        for asked in xorbs.into_iter().chain(shards) {
            match asked {
                Ok(()) => confirmed += 1,
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
                    refused += 1;
                }
            }
        }
    }
    assert!(refused > 10 && confirmed > 10, "{refused} refused, {confirmed} confirmed");
    objects.set_rates(Rates::default());
    rig.hub.confirm_xorb(xorb, epoch).await?;
    rig.hub.confirm_shard(manifest.shard, epoch).await
}
