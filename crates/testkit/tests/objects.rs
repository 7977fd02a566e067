//! Putting and streaming objects when the store fails.

use std::sync::Arc;

use ballast_store::keyspace::{CopyKind, Key};
use ballast_store::objects::{Put, Store, Writing};
use ballast_store::{Error, Result};
use ballast_testkit::clock::SimEnv;
use ballast_testkit::content::splitmix;
use ballast_testkit::fault::{Call, Fault, FaultStore, Rates};
use bytes::Bytes;
use object_store::ObjectStore;
use object_store::memory::InMemory;

const WRITING: Writing = Writing { part_bytes: 32 * 1024, parts_in_flight: 2 };

fn store(seed: u64) -> (Store, Arc<FaultStore>) {
    let faults = FaultStore::new(Arc::new(InMemory::new()), seed);
    let inner = Arc::clone(&faults) as Arc<dyn ObjectStore>;
    (Store::new(inner, SimEnv::hasty(seed)).with_writing(WRITING), faults)
}

fn copy(store: &Store) -> Key {
    store.new_copy(CopyKind::Xorb, [1; 32], 0).into()
}

async fn write(store: &Store, key: &Key, content: &Bytes) -> Result<u64> {
    let mut writer = store.writer(key)?;
    for piece in content.chunks(20_000) {
        writer.write(Bytes::copy_from_slice(piece)).await?;
    }
    writer.finish().await
}

#[tokio::test]
async fn a_put_of_our_own_name_survives_lost_late_and_refused_tries() -> Result<()> {
    for fault in [Fault::Refused, Fault::ReplyLost, Fault::Late] {
        let (store, faults) = store(1);
        let key = copy(&store);
        for _ in 0..4 {
            faults.fail_next(Call::Put, fault);
        }
        store.put_new(&key, Bytes::from_static(b"x")).await?;
        faults.land_all().await;
        assert_eq!(store.get(&key, 1).await?, Some(Bytes::from_static(b"x")), "{fault:?}");
        assert!(faults.counts().puts <= 5);
    }
    Ok(())
}

#[tokio::test]
async fn an_unclear_put_if_absent_is_not_repeated_behind_the_callers_back() {
    let (store, faults) = store(1);
    let key = Key::Gc(1);
    faults.fail_next(Call::Put, Fault::ReplyLost);
    let answer = store.put_absent(&key, Bytes::new()).await;
    assert!(matches!(answer, Err(Error::Unavailable { .. })));
    assert_eq!(faults.counts().puts, 1);
    assert_eq!(store.put_absent(&key, Bytes::new()).await.expect("clear now"), Put::Exists);
}

#[tokio::test]
async fn a_stream_is_whole_or_absent_whatever_fails() -> Result<()> {
    let content = Bytes::from(splitmix(7, 200_000));
    let mut outcomes = [0, 0, 0];
    for seed in 0..300 {
        let (store, faults) = store(seed);
        faults.set_rates(Rates { refused: 60, reply_lost: 150, ..Rates::default() });
        let key = copy(&store);
        let written = write(&store, &key, &content).await;
        faults.set_rates(Rates::default());
        let found = store.get(&key, 1_000_000).await?;
        match (&written, &found) {
            (Ok(size), Some(found)) => {
                assert_eq!(*size, 200_000);
                assert_eq!(found, &content, "seed {seed}");
                outcomes[0] += 1;
            }
            (Err(_), Some(found)) => {
                assert_eq!(found, &content, "seed {seed}: half is not there");
                outcomes[1] += 1;
            }
            (Err(_), None) => outcomes[2] += 1,
            (Ok(_), None) => panic!("seed {seed}: promised and not there"),
        }
    }
    assert!(outcomes.iter().all(|outcome| *outcome > 10), "{outcomes:?} shows too little");
    Ok(())
}

#[tokio::test]
async fn a_store_that_took_something_else_is_found_out_by_reading_back() {
    let (store, faults) = store(1);
    let content = Bytes::from(splitmix(7, 200_000));
    // The first read is of the size, the second of the first bytes.
    faults.fail_next(Call::Get, Fault::Flipped);
    faults.fail_next(Call::Get, Fault::Flipped);
    let key = copy(&store);
    let error = write(&store, &key, &content).await.expect_err("it is not what was written");
    assert!(matches!(error, Error::Corrupt { .. }), "{error}");
}
