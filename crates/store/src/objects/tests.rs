//! Tests of the store over memory; `tests/backends.rs` runs what depends on the backend.

use object_store::memory::InMemory;

use super::*;
use crate::env::quick::QuickEnv;
use crate::keyspace::LogId;

fn store() -> Store {
    Store::new(Arc::new(InMemory::new()), QuickEnv::shared())
}

fn small_parts() -> Store {
    store().with_writing(Writing { part_bytes: 32 * 1024, parts_in_flight: 2 })
}

fn bytes_of(length: usize) -> Bytes {
    (0..length).map(|i| u8::try_from(i % 251).expect("under 251")).collect()
}

fn copy(store: &Store) -> Key {
    store.new_copy(CopyKind::Xorb, [7; 32], 3).into()
}

#[tokio::test]
async fn the_second_put_finds_the_first() -> Result<()> {
    let store = store();
    let key = Key::LogEntry(LogId::Catalogue, 1);
    assert_eq!(store.put_absent(&key, Bytes::from_static(b"one")).await?, Put::Stored);
    assert_eq!(store.put_absent(&key, Bytes::from_static(b"two")).await?, Put::Exists);
    assert_eq!(store.get(&key, 3).await?, Some(Bytes::from_static(b"one")));
    Ok(())
}

#[tokio::test]
async fn a_name_of_our_own_may_be_put_again_but_not_with_other_bytes() -> Result<()> {
    let store = store();
    let key = copy(&store);
    store.put_new(&key, Bytes::from_static(b"one")).await?;
    store.put_new(&key, Bytes::from_static(b"one")).await?;
    let other = store.put_new(&key, Bytes::from_static(b"two")).await;
    assert!(matches!(other, Err(Error::Corrupt { .. })));
    Ok(())
}

#[tokio::test]
async fn what_is_absent_or_too_large_is_said_to_be() -> Result<()> {
    let store = store();
    let key = copy(&store);
    assert_eq!(store.get(&key, 10).await?, None);
    assert_eq!(store.size(&key).await?, None);
    assert!(matches!(store.get_range(&key, 0..1).await, Err(Error::NotFound { .. })));
    assert!(matches!(store.get_tail(&key, 1).await, Err(Error::NotFound { .. })));
    store.put_new(&key, bytes_of(11)).await?;
    assert_eq!(store.size(&key).await?, Some(11));
    assert!(matches!(store.get(&key, 10).await, Err(Error::TooLarge { size: 11, limit: 10, .. })));
    Ok(())
}

#[tokio::test]
async fn a_range_is_exact_or_an_error() -> Result<()> {
    let store = store();
    let key = copy(&store);
    store.put_new(&key, bytes_of(100)).await?;
    assert_eq!(store.get_range(&key, 10..30).await?, bytes_of(100).slice(10..30));
    assert_eq!(store.get_range(&key, 100..100).await?, Bytes::new());
    for beyond in [90..101, 100..101, 1000..1001] {
        let error = store.get_range(&key, beyond).await.expect_err("beyond the end");
        assert!(matches!(error, Error::Corrupt { .. }), "{error}");
    }
    #[expect(clippy::reversed_empty_ranges, reason = "the point of the case")]
    for senseless in [30..10, 0..u64::MAX] {
        let error = store.get_range(&key, senseless).await.expect_err("makes no sense");
        assert!(matches!(error, Error::Invalid { .. }), "{error}");
    }
    Ok(())
}

#[tokio::test]
async fn a_tail_comes_with_the_whole_length() -> Result<()> {
    let store = store();
    let key = copy(&store);
    store.put_new(&key, bytes_of(100)).await?;
    assert_eq!(store.get_tail(&key, 8).await?, (bytes_of(100).slice(92..), 100));
    assert_eq!(store.get_tail(&key, 800).await?, (bytes_of(100), 100));
    Ok(())
}

#[tokio::test]
async fn copies_are_listed_by_hash_and_foreign_objects_are_not() -> Result<()> {
    let inner = Arc::new(InMemory::new());
    let store = Store::new(Arc::clone(&inner) as Arc<dyn ObjectStore>, QuickEnv::shared());
    let names: Vec<CopyName> =
        (0..3).map(|epoch| store.new_copy(CopyKind::Pack, [9; 32], epoch)).collect();
    for name in &names {
        store.put_new(&Key::Copy(*name), bytes_of(5)).await?;
    }
    store.put_new(&copy(&store), bytes_of(5)).await?;
    let foreign = Prefix::CopiesOf(CopyKind::Pack, [9; 32]).path().join("README");
    inner.put(&foreign, PutPayload::from_static(b"x")).await.expect("memory takes it");

    let found = store.copies(CopyKind::Pack, [9; 32]).await?;
    let mut keys: Vec<Key> = found.iter().map(|listed| listed.key).collect();
    keys.sort();
    let mut wanted: Vec<Key> = names.into_iter().map(Key::Copy).collect();
    wanted.sort();
    assert_eq!(keys, wanted);
    assert!(found.iter().all(|listed| listed.size == 5 && listed.modified_ms > 0));
    Ok(())
}

#[tokio::test]
async fn the_sweep_deletes_copies_and_never_a_log() -> Result<()> {
    let store = store();
    let key = copy(&store);
    store.put_new(&key, bytes_of(1)).await?;
    store.sweep(&key).await?;
    store.sweep(&key).await?;
    assert_eq!(store.size(&key).await?, None);

    let entry = Key::LogEntry(LogId::Catalogue, 1);
    assert!(store.writer(&entry).is_err());
    store.put_absent(&entry, bytes_of(1)).await?;
    assert!(matches!(store.sweep(&entry).await, Err(Error::Invalid { .. })));
    assert_eq!(store.size(&entry).await?, Some(1));
    Ok(())
}

#[tokio::test]
async fn the_epoch_is_the_last_without_a_gap() -> Result<()> {
    let store = store();
    assert_eq!(store.epoch().await?, 0);
    for epoch in 1..=3 {
        store.put_absent(&Key::Gc(epoch), Bytes::new()).await?;
        store.put_absent(&Key::GcDone(epoch), Bytes::new()).await?;
        assert_eq!(store.epoch().await?, epoch);
    }
    let fresh = Store::new(Arc::clone(&store.shared.inner), QuickEnv::shared());
    assert_eq!(fresh.epoch().await?, 3);
    Ok(())
}

#[tokio::test]
async fn a_writer_puts_its_pieces_together_whatever_their_sizes() -> Result<()> {
    let store = small_parts();
    let whole = bytes_of(300_000);
    for piece in [1_000, 16 * 1024, 20_000, 32 * 1024, 70_001, 300_000] {
        let mut writer = store.writer(&copy(&store))?;
        let mut rest = whole.clone();
        while !rest.is_empty() {
            writer.write(rest.split_to(piece.min(rest.len()))).await?;
        }
        let key = *writer.key();
        assert_eq!(store.size(&key).await?, None, "not visible yet");
        assert_eq!(writer.finish().await?, 300_000);
        assert_eq!(store.get(&key, 300_000).await?.as_ref(), Some(&whole), "{piece}");
    }
    Ok(())
}

#[tokio::test]
async fn a_small_object_and_an_empty_one_go_in_one_piece() -> Result<()> {
    let store = small_parts();
    for length in [0, 1, 100, 20_000] {
        let mut writer = store.writer(&copy(&store))?;
        for byte in bytes_of(length).chunks(7_000) {
            writer.write(Bytes::copy_from_slice(byte)).await?;
        }
        assert!(!writer.is_in_parts());
        let key = *writer.key();
        assert_eq!(writer.finish().await?, length as u64);
        assert_eq!(store.get(&key, 20_000).await?, Some(bytes_of(length)));
    }
    Ok(())
}

#[tokio::test]
async fn after_a_cancelled_write_nothing_can_be_finished() -> Result<()> {
    use crate::layer::limit::{Limit, Limits};

    // Nobody ever gets a turn to write, so the first part waits for ever.
    let limits = Limits { reads: 1, writes: 0 };
    let inner = Limit::new(Arc::new(InMemory::new()), limits);
    let writing = Writing { part_bytes: 1024, parts_in_flight: 1 };
    let store = Store::new(Arc::new(inner), QuickEnv::shared()).with_writing(writing);
    let mut writer = store.writer(&copy(&store))?;
    let write = writer.write(bytes_of(5000));
    assert!(tokio::time::timeout(std::time::Duration::ZERO, write).await.is_err());
    assert!(matches!(writer.write(bytes_of(1)).await, Err(Error::Invalid { .. })));
    assert!(matches!(writer.finish().await, Err(Error::Invalid { .. })));
    Ok(())
}

#[tokio::test]
async fn an_aborted_or_dropped_writer_leaves_nothing() -> Result<()> {
    let store = small_parts();
    let mut aborted = store.writer(&copy(&store))?;
    aborted.write(bytes_of(100_000)).await?;
    aborted.abort().await;
    let mut dropped = store.writer(&copy(&store))?;
    dropped.write(bytes_of(100_000)).await?;
    drop(dropped);
    assert_eq!(store.list(&Prefix::All).count().await, 0);
    Ok(())
}

#[tokio::test]
async fn parts_go_their_way_while_the_next_bytes_are_awaited() -> Result<()> {
    use futures_util::FutureExt;
    use object_store::MultipartUpload;
    use tokio::sync::Notify;

    /// Says when a part has arrived.
    #[derive(Debug)]
    struct Arrivals(Arc<Notify>, Arc<Notify>);

    #[async_trait::async_trait]
    impl MultipartUpload for Arrivals {
        fn put_part(&mut self, _: PutPayload) -> object_store::UploadPart {
            let arrived = Arc::clone(&self.0);
            // Needs to be polled more than once, as all that waits for a network.
            async move {
                tokio::task::yield_now().await;
                arrived.notify_one();
                Ok(())
            }
            .boxed()
        }

        async fn complete(&mut self) -> object_store::Result<object_store::PutResult> {
            Err(object_store::Error::NotImplemented {
                operation: "complete".into(),
                implementer: "Arrivals".into(),
            })
        }

        async fn abort(&mut self) -> object_store::Result<()> {
            self.1.notify_one();
            Ok(())
        }
    }

    let store = small_parts();
    let (arrived, aborted) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let mut writer = store.writer(&copy(&store))?;
    writer.take_upload(Box::new(Arrivals(Arc::clone(&arrived), Arc::clone(&aborted))));
    writer.write(bytes_of(32 * 1024)).await?;
    // Nobody touches the writer from here on.
    arrived.notified().await;
    drop(writer);
    aborted.notified().await;
    store.finish_cleanups().await;
    Ok(())
}

#[tokio::test]
async fn a_store_opened_for_reading_only_reads_and_says_why_it_does_no_more() -> Result<()> {
    let store = store();
    let key = copy(&store);
    store.put_new(&key, bytes_of(5)).await?;
    let reader = store.clone().read_only("it lets two writers win");
    assert!(reader.is_read_only() && !store.is_read_only());
    assert_eq!(reader.get(&key, 5).await?, Some(bytes_of(5)));
    let refused = [
        reader.put_absent(&Key::Gc(1), Bytes::new()).await.err(),
        reader.put_new(&copy(&store), Bytes::new()).await.err(),
        reader.writer(&key).err(),
        reader.sweep(&key).await.err(),
    ];
    for error in refused {
        let error = error.expect("it is refused");
        assert_eq!(error.kind(), ballast_format::ErrorKind::Unavailable);
        assert!(error.to_string().contains("it lets two writers win"), "{error}");
    }
    Ok(())
}

#[tokio::test]
async fn a_listing_can_begin_behind_a_key_or_at_a_set() -> Result<()> {
    let store = store();
    let owner = |id: u8| ballast_format::id::UserId::from_bytes([id; 16]);
    let pin = |id: u8| {
        let xorb = ballast_format::hash::XorbHash::from_bytes([2; 32]);
        let (owner, leased) = (owner(id), crate::keyspace::Leased::Sent(xorb));
        Key::Pin(crate::keyspace::PinName { owner, leased, until_ms: 3, nonce: 1 })
    };
    for id in 1..=4 {
        store.put_new(&pin(id), Bytes::new()).await?;
    }
    let found = |listing: BoxStream<'static, Result<Listed>>| async {
        let mut keys: Vec<_> = listing.map_ok(|listed| listed.key).try_collect().await?;
        keys.sort();
        Result::Ok(keys)
    };
    let behind = found(store.list_with_offset(&Prefix::Pins, &pin(2))).await?;
    assert_eq!(behind, [pin(3), pin(4)]);
    let from = found(store.list_with_offset(&Prefix::Pins, &Prefix::PinsOf(owner(2)))).await?;
    assert_eq!(from, [pin(2), pin(3), pin(4)]);
    Ok(())
}

#[tokio::test]
async fn without_epochs_the_store_is_listed_once_only() -> Result<()> {
    use crate::layer::trace::Trace;

    let (traced, counters) = Trace::new(Arc::new(InMemory::new()), QuickEnv::shared());
    let store = Store::new(Arc::new(traced), QuickEnv::shared());
    for _ in 0..3 {
        assert_eq!(store.epoch().await?, 0);
    }
    let counts = counters.counts();
    assert_eq!((counts.lists, counts.reads), (1, 3));
    Ok(())
}

#[tokio::test]
async fn a_store_without_a_signer_has_no_addresses_to_give() -> Result<()> {
    let store = store();
    let lifetime = std::time::Duration::from_mins(1);
    assert_eq!(store.signed_get(&copy(&store), None, lifetime).await?, None);
    Ok(())
}
