//! The S3 server of the tests, by the client that the program uses.

use std::time::Duration;

use ballast_store::backend::{self, Access, Secret};
use ballast_store::env::RealEnv;
use ballast_store::keyspace::{CopyKind, Key, Prefix};
use ballast_store::objects::{Store, Writing};
use ballast_store::probe::probe;
use ballast_store::{Error, Result};
use ballast_testkit::content::splitmix;
use ballast_testkit::s3::{BUCKET, S3Faults, S3Server};
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, future};

fn open(url: &str, access: &Access) -> Result<Store> {
    let backend = backend::open(&url.parse()?, access, 0)?;
    let store = Store::new(backend.objects, RealEnv::shared());
    Ok(store.with_writing(Writing::REMOTE).with_signer(backend.signer))
}

fn start() -> (S3Server, Store) {
    let server = S3Server::start(1).expect("a port is free");
    let store = open(&format!("s3://{BUCKET}/hubs/one"), &server.access()).expect("opens");
    (server, store)
}

fn copy(store: &Store) -> Key {
    store.new_copy(CopyKind::Xorb, [1; 32], 0).into()
}

#[tokio::test]
async fn it_keeps_its_promises_below_a_prefix() -> Result<()> {
    let (server, store) = start();
    let promises = probe(&store).await?;
    assert!(promises.all_kept(), "{promises}");
    let key = copy(&store);
    store.put_new(&key, Bytes::from_static(b"x")).await?;
    assert_eq!(server.keys(), [format!("hubs/one/{key}")]);
    Ok(())
}

#[tokio::test]
async fn a_wrong_secret_opens_nothing() -> Result<()> {
    let (server, _store) = start();
    let access = Access { secret: Secret::new("another"), ..server.access() };
    let store = open(&format!("s3://{BUCKET}"), &access)?;
    let refused = store.put_absent(&copy(&store), Bytes::new()).await;
    assert!(matches!(refused, Err(Error::Unavailable { .. })), "{refused:?}");
    assert!(server.keys().is_empty());
    Ok(())
}

#[tokio::test]
async fn listings_have_several_pages_and_begin_where_they_are_told() -> Result<()> {
    let (_server, store) = start();
    let mut keys: Vec<Key> = (0..120).map(|_| copy(&store)).collect();
    let puts = keys.iter().map(|key| store.put_new(key, Bytes::new()));
    future::try_join_all(puts).await?;
    keys.sort_by_key(ToString::to_string);
    assert_eq!(store.list(&Prefix::All).count().await, 120);
    let behind = store.list_with_offset(&Prefix::All, &keys[69]);
    let behind: Vec<_> = behind.map_ok(|listed| listed.key).try_collect().await?;
    assert_eq!(behind, keys[70..]);
    Ok(())
}

#[tokio::test]
async fn a_dropped_writer_leaves_no_parts_behind() -> Result<()> {
    let (server, store) = start();
    let whole = Bytes::from(splitmix(1, 20_000_000));
    let mut writer = store.writer(&copy(&store))?;
    writer.write(whole.clone()).await?;
    assert_eq!(server.open_uploads(), 1);
    drop(writer);
    store.finish_cleanups().await;
    assert_eq!(server.open_uploads(), 0);

    let mut writer = store.writer(&copy(&store))?;
    let key = *writer.key();
    writer.write(whole.clone()).await?;
    writer.finish().await?;
    assert_eq!(store.get_range(&key, 9_000_000..19_000_000).await?, whole[9_000_000..19_000_000]);
    assert_eq!((server.open_uploads(), server.keys().len()), (0, 1));
    Ok(())
}

#[tokio::test]
async fn refusals_and_lost_answers_are_survived() -> Result<()> {
    let (server, store) = start();
    server.set_faults(S3Faults { refused: 100, answer_lost: 100, ..S3Faults::default() });
    let (mut stored, mut attempts) = (Vec::new(), 0);
    for _ in 0..40 {
        let key = copy(&store);
        attempts += 1;
        match store.put_new(&key, Bytes::from_static(b"mine")).await {
            Ok(()) => stored.push(key),
            Err(Error::Unavailable { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    server.set_faults(S3Faults::default());
    assert!(stored.len() > attempts / 2, "{} of {attempts}", stored.len());
    for key in stored {
        assert_eq!(store.get(&key, 10).await?, Some(Bytes::from_static(b"mine")));
    }
    Ok(())
}

#[tokio::test]
async fn a_signed_address_works_for_its_range_and_no_other() -> Result<()> {
    let (_server, store) = start();
    let key = copy(&store);
    store.put_new(&key, Bytes::from_static(b"0123456789")).await?;
    let signed = store.signed_get(&key, Some(2..5), Duration::from_mins(1)).await?;
    let signed = signed.expect("this store signs");
    assert_eq!(signed.range.as_deref(), Some("bytes=2-4"));
    assert!(!format!("{signed:?}").contains("http"));
    for (range, status, body) in [("bytes=2-4", 206, "234"), ("bytes=0-9", 403, "")] {
        let request = reqwest::Client::new().get(&signed.url).header("range", range);
        let answer = request.send().await.expect("it answers");
        assert_eq!(answer.status().as_u16(), status, "{range}");
        if !body.is_empty() {
            assert_eq!(answer.text().await.expect("a body"), body);
        }
    }
    Ok(())
}
