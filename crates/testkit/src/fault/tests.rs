//! The faults themselves must be what they say, or tests that pass under them say nothing.

use object_store::memory::InMemory;

use super::*;

fn store() -> Arc<FaultStore> {
    FaultStore::new(Arc::new(InMemory::new()), 1)
}

async fn create(store: &FaultStore, path: &Path, body: &'static str) -> Result<PutResult> {
    let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
    store.put_opts(path, PutPayload::from(body), options).await
}

async fn read(store: &FaultStore, path: &Path) -> Option<Bytes> {
    store.inner.get(path).await.ok()?.bytes().await.ok()
}

#[tokio::test]
async fn a_refused_put_has_no_effect_and_a_lost_reply_has() {
    let store = store();
    let path = Path::from("a");
    store.fail_next(Call::Put, Fault::Refused);
    assert!(create(&store, &path, "one").await.is_err());
    assert_eq!(read(&store, &path).await, None);
    store.fail_next(Call::Put, Fault::ReplyLost);
    assert!(create(&store, &path, "two").await.is_err());
    assert_eq!(read(&store, &path).await, Some("two".into()));
}

#[tokio::test]
async fn a_late_put_lands_later_unless_its_place_is_taken() {
    let store = store();
    let (free, taken) = (Path::from("free"), Path::from("taken"));
    for path in [&free, &taken] {
        store.fail_next(Call::Put, Fault::Late);
        assert!(create(&store, path, "late").await.is_err());
        assert_eq!(read(&store, path).await, None);
    }
    create(&store, &taken, "early").await.expect("nothing is there");
    assert_eq!(store.late_effects(), 2);
    store.land_all().await;
    assert_eq!(store.late_effects(), 0);
    assert_eq!(read(&store, &free).await, Some("late".into()));
    assert_eq!(read(&store, &taken).await, Some("early".into()));
}

#[tokio::test]
async fn a_late_delete_deletes_later() {
    let store = store();
    let path = Path::from("a");
    create(&store, &path, "x").await.expect("stored");
    store.fail_next(Call::Delete, Fault::Late);
    assert!(store.delete(&path).await.is_err());
    assert!(read(&store, &path).await.is_some());
    store.land_all().await;
    assert!(read(&store, &path).await.is_none());
}

#[tokio::test]
async fn a_flipped_read_is_wrong_by_one_bit_and_the_next_is_right() {
    let store = store();
    let path = Path::from("a");
    create(&store, &path, "some bytes").await.expect("stored");
    for ranges in [false, true] {
        store.fail_next(Call::Get, Fault::Flipped);
        let found = if ranges {
            let range = 0..10;
            store.get_ranges(&path, std::slice::from_ref(&range)).await.expect("read").remove(0)
        } else {
            store.get(&path).await.expect("read").bytes().await.expect("read")
        };
        let wrong: u32 = found.iter().zip(b"some bytes").map(|(a, b)| (a ^ b).count_ones()).sum();
        assert_eq!(wrong, 1);
        let again = store.get(&path).await.expect("read").bytes().await.expect("read");
        assert_eq!(again, "some bytes");
    }
}

#[tokio::test]
async fn a_stale_listing_has_not_heard_of_the_latest() {
    let store = store();
    create(&store, &Path::from("a"), "x").await.expect("stored");
    store.fail_next(Call::List, Fault::Stale);
    assert_eq!(store.list(None).count().await, 0);
    assert_eq!(store.list(None).count().await, 1);
}

#[tokio::test]
async fn conditions_are_broken_only_when_told() {
    let store = store();
    let path = Path::from("a");
    create(&store, &path, "one").await.expect("stored");
    assert!(create(&store, &path, "two").await.is_err());
    store.set_conditions(Conditions::CheckedThenWritten);
    assert!(create(&store, &path, "two").await.is_err(), "one after the other is refused");
    let other = Path::from("b");
    let race = (0..4).map(|_| create(&store, &other, "x"));
    let won = futures_util::future::join_all(race).await.into_iter().flatten();
    assert!(won.count() > 1, "at once, several win");
    store.set_conditions(Conditions::Ignored);
    create(&store, &path, "two").await.expect("overwritten");
    assert_eq!(read(&store, &path).await, Some("two".into()));
}

#[tokio::test]
async fn one_seed_decides_alike_and_rates_are_kept_roughly() {
    let run = |seed| async move {
        let store = FaultStore::new(Arc::new(InMemory::new()), seed);
        store.set_rates(Rates { refused: 200, reply_lost: 100, ..Rates::default() });
        for i in 0..500 {
            drop(create(&store, &Path::from(format!("{i}")), "x").await);
        }
        store.decisions()
    };
    let (first, again, other) = (run(1).await, run(1).await, run(2).await);
    assert_eq!(first, again);
    assert_ne!(first, other);
    let refused = first.iter().filter(|decision| decision.fault == Some(Fault::Refused)).count();
    assert!((60..140).contains(&refused), "{refused} of 500");
}

#[tokio::test]
async fn calls_are_counted() {
    let store = store();
    let path = Path::from("a");
    create(&store, &path, "x").await.expect("stored");
    store.head(&path).await.expect("there");
    let mut upload = store.put_multipart(&path).await.expect("begins");
    upload.put_part(PutPayload::from("y")).await.expect("part");
    store.fail_next(Call::Complete, Fault::ReplyLost);
    assert!(upload.complete().await.is_err());
    assert_eq!(read(&store, &path).await, Some("y".into()));
    let wanted = CallCounts { puts: 1, parts: 1, completions: 1, gets: 1, ..CallCounts::default() };
    assert_eq!(store.counts(), wanted);
}
