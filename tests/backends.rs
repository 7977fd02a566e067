//! What every backend must do, run over each that is here: memory, the disk, our own S3 server and
//! Ceph's; and what becomes of one that does not.
//!
//! A backend that is added is one more line in [`on_each`].

mod support;

use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use ballast_format::id::OperationId;
use ballast_format::log::{CatalogueChange, Entry};
use ballast_store::backend;
use ballast_store::env::{RealEnv, random_bytes};
use ballast_store::keyspace::{CopyKind, Key, Leased, LogId, Prefix};
use ballast_store::local::LocalStore;
use ballast_store::objects::{Put, Store, Writing};
use ballast_store::probe::probe;
use ballast_store::reflog::{Append, Log, Tail};
use ballast_store::{Error, pin};
use ballast_testkit::content::splitmix;
use ballast_testkit::s3::S3Faults;
use bytes::Bytes;
use futures_util::future;
use futures_util::stream::{StreamExt as _, TryStreamExt as _};
use object_store::memory::InMemory;
use support::objects::Objects;
use support::server::Server;

/// Runs a case on each backend, each time on an empty store.
async fn on_each<F>(case: impl Fn(Store) -> F) -> Result<()>
where
    F: Future<Output = Result<()>>,
{
    let memory = Store::new(Arc::new(InMemory::new()), RealEnv::shared());
    let small_parts = Writing { part_bytes: 256 * 1024, parts_in_flight: 2 };
    case(memory.with_writing(small_parts)).await.context("on memory")?;

    let folder = tempfile::tempdir()?;
    let (disk, lock) = LocalStore::open(folder.path())?;
    let disk = Store::new(disk, RealEnv::shared()).with_writing(Writing::LOCAL);
    case(disk).await.context("on disk")?;
    drop(lock);

    let objects = Objects::s3()?;
    case(remote(&objects)?).await.context("on our S3 server")?;
    let objects = Objects::rgw()?;
    case(remote(&objects)?).await.context("on Ceph's S3 server")
}

fn remote(objects: &Objects) -> Result<Store> {
    let backend = backend::open(&objects.url().parse()?, &objects.access(), 0)?;
    // The smallest parts that S3 takes.
    let writing = Writing { part_bytes: 5 * 1024 * 1024, parts_in_flight: 2 };
    let store = Store::new(backend.objects, RealEnv::shared());
    Ok(store.with_writing(writing).with_signer(backend.signer))
}

fn copy(store: &Store, hash: u8) -> Key {
    store.new_copy(CopyKind::Xorb, [hash; 32], 0).into()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn promises_are_kept() -> Result<()> {
    on_each(async |store| {
        let promises = probe(&store).await?;
        ensure!(promises.all_kept(), "{promises}");
        ensure!(store.list(&Prefix::All).count().await == 0, "the probe left something");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_many_wins_a_name_and_its_bytes_are_there() -> Result<()> {
    on_each(async |store| {
        for round in 1..=20 {
            let key = Key::Gc(round);
            let bodies: Vec<Bytes> =
                (0..16).map(|racer| Bytes::from(format!("{round} {racer}"))).collect();
            let puts = bodies.iter().map(|body| store.put_absent(&key, body.clone()));
            let answers = future::try_join_all(puts).await?;
            let winners: Vec<usize> =
                (0..16).filter(|racer| answers[*racer] == Put::Stored).collect();
            ensure!(winners.len() == 1, "round {round}: {winners:?}");
            let found = store.get(&key, 100).await?;
            ensure!(found.as_ref() == Some(&bodies[winners[0]]), "round {round}");
        }
        ensure!(store.epoch().await? == 20);
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn appenders_at_once_make_one_chain() -> Result<()> {
    on_each(async |store| {
        let log = Log::new(store.clone(), LogId::Catalogue);
        let writers = (0..6).map(|_| append_some(&log, &store, 10));
        let mut won = future::try_join_all(writers).await?.concat();
        won.sort_unstable();

        let (mut tail, mut found) = (Tail::EMPTY, Vec::new());
        loop {
            let page = log.read_after::<CatalogueChange>(&tail).await?;
            let Some(last) = page.last() else { break };
            tail = last.tail;
            found.extend(page.iter().map(|stored| (stored.tail.number, stored.entry.operation)));
        }
        ensure!(found == won, "{} found, {} won", found.len(), won.len());
        ensure!(found.iter().map(|(number, _)| *number).eq(1..=60), "there is a gap");
        Ok(())
    })
    .await
}

async fn append_some(log: &Log, store: &Store, count: usize) -> Result<Vec<(u64, OperationId)>> {
    let (mut tail, mut won) = (Tail::EMPTY, Vec::new());
    while won.len() < count {
        let entry = Entry::<CatalogueChange> {
            operation: OperationId::from_bytes(random_bytes(store.env())),
            previous: tail.hash,
            epoch: tail.epoch,
            term: 1,
            time_ms: store.env().now_ms(),
            author: None,
            changes: Vec::new(),
        };
        match log.append(&tail, &entry).await? {
            Append::Won(next) => {
                won.push((next.number, entry.operation));
                tail = next;
            }
            Append::Lost => {
                let page = log.read_after::<CatalogueChange>(&tail).await?;
                tail = page.last().context("whoever won is there")?.tail;
            }
        }
    }
    Ok(won)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ranges_and_tails_are_exact() -> Result<()> {
    on_each(async |store| {
        let content = Bytes::from(splitmix(1, 100_000));
        let key = copy(&store, 1);
        store.put_new(&key, content.clone()).await?;
        for (start, end) in [(0, 0), (0, 1), (99_999, 100_000), (31_337, 77_777), (0, 100_000)] {
            let found = store.get_range(&key, start as u64..end as u64).await?;
            ensure!(found == content.slice(start..end), "{start}..{end}");
        }
        for (start, end) in [(99_999, 100_001), (100_000, 100_001), (500_000, 500_001)] {
            let answer = store.get_range(&key, start..end).await;
            ensure!(matches!(answer, Err(Error::Corrupt { .. })), "{start}..{end}: {answer:?}");
        }
        let (tail, total) = store.get_tail(&key, 1000).await?;
        ensure!(tail == content.slice(99_000..) && total == 100_000);
        let (tail, total) = store.get_tail(&key, 200_000).await?;
        ensure!(tail == content && total == 100_000);
        let absent = copy(&store, 1);
        ensure!(matches!(store.get_range(&absent, 0..1).await, Err(Error::NotFound { .. })));
        ensure!(matches!(store.get_tail(&absent, 1).await, Err(Error::NotFound { .. })));
        ensure!(store.get(&absent, 1).await?.is_none());
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn listings_show_what_is_below_a_prefix_and_nothing_else() -> Result<()> {
    on_each(async |store| {
        ensure!(store.list(&Prefix::Copies(CopyKind::Xorb)).count().await == 0, "empty store");
        let mut keys = Vec::new();
        for hash in 0..40 {
            for _ in 0..2 {
                keys.push(copy(&store, hash));
            }
        }
        let puts = keys.iter().map(|key| store.put_new(key, Bytes::from_static(b"abc")));
        future::try_join_all(puts).await?;
        let owner = ballast_format::id::UserId::from_bytes([1; 16]);
        let xorb = ballast_format::hash::XorbHash::from_bytes([3; 32]);
        let now = store.env().now_ms();
        pin::pin(&store, owner, Leased::Sent(xorb), now).await?;

        let listed: Vec<_> = store.list(&Prefix::Copies(CopyKind::Xorb)).try_collect().await?;
        ensure!(listed.iter().all(|listed| listed.size == 3 && listed.modified_ms > 0));
        let mut found: Vec<Key> = listed.iter().map(|listed| listed.key).collect();
        found.sort();
        keys.sort();
        ensure!(found == keys);
        ensure!(store.copies(CopyKind::Xorb, [7; 32]).await?.len() == 2);
        ensure!(store.copies(CopyKind::Pack, [7; 32]).await?.is_empty());
        let mut shares = 0;
        for share in 0..=255 {
            let prefix = Prefix::CopiesShare(CopyKind::Xorb, share);
            shares += store.list(&prefix).try_collect::<Vec<_>>().await?.len();
        }
        ensure!(shares == 80, "{shares}");
        ensure!(pin::pins(&store).try_collect::<Vec<_>>().await?.len() == 1);

        store.sweep(&keys[0]).await?;
        store.sweep(&keys[0]).await.context("what is gone is gone")?;
        ensure!(store.list(&Prefix::All).count().await == 80);
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_writer_that_gives_up_leaves_nothing() -> Result<()> {
    on_each(async |store| {
        let content = Bytes::from(splitmix(2, 12_000_000));
        for gives_up in ["aborted", "dropped", "cancelled"] {
            let key = copy(&store, 1);
            let mut writer = store.writer(&key)?;
            writer.write(content.clone()).await?;
            ensure!(writer.is_in_parts());
            match gives_up {
                "aborted" => writer.abort().await,
                "dropped" => drop(writer),
                _ => {
                    // Polled once, so that it has begun, and never again.
                    let finish = writer.finish();
                    drop(tokio::time::timeout(std::time::Duration::ZERO, finish).await);
                }
            }
            // A finish that was cancelled may have got through; then it is whole.
            if let Some(found) = store.get(&key, 20_000_000).await? {
                ensure!(gives_up == "cancelled" && found == content, "{gives_up}");
                store.sweep(&key).await?;
            }
        }
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_object_streams_in_and_out() -> Result<()> {
    const PIECE: usize = 100_003;
    const PIECES: usize = 700;
    on_each(async |store| {
        let pieces: Vec<Bytes> = (0..7).map(|seed| Bytes::from(splitmix(seed, PIECE))).collect();
        let key = copy(&store, 1);
        let mut writer = store.writer(&key)?;
        for i in 0..PIECES {
            writer.write(pieces[i % 7].clone()).await?;
        }
        ensure!(store.size(&key).await?.is_none(), "half is not there");
        let size = (PIECE * PIECES) as u64;
        ensure!(writer.finish().await? == size);
        ensure!(store.size(&key).await? == Some(size));
        for i in 0..PIECES {
            let start = (i * PIECE) as u64;
            let found = store.get_range(&key, start..start + PIECE as u64).await?;
            ensure!(found == pieces[i % 7], "piece {i}");
        }
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listing_begins_where_it_is_told() -> Result<()> {
    on_each(async |store| {
        let mut keys: Vec<Key> = (0..60).map(|hash| copy(&store, hash)).collect();
        let puts = keys.iter().map(|key| store.put_new(key, Bytes::new()));
        future::try_join_all(puts).await?;
        keys.sort_by_key(ToString::to_string);
        let listed = store.list_with_offset(&Prefix::Copies(CopyKind::Xorb), &keys[39]);
        let mut found: Vec<Key> = listed.map_ok(|listed| listed.key).try_collect().await?;
        found.sort_by_key(ToString::to_string);
        ensure!(found == keys[40..], "{} found", found.len());
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_loses_answers_breaks_no_promise() -> Result<()> {
    let objects = Objects::s3()?;
    let s3 = objects.s3.clone().context("it is ours")?;
    let store = remote(&objects)?;
    s3.set_faults(S3Faults { answer_lost: 300, ..S3Faults::default() });
    let mut tried = 0;
    for _ in 0..20 {
        // An error says that it could not be tried.
        if let Ok(promises) = probe(&store).await {
            ensure!(promises.all_kept(), "{promises}");
            tried += 1;
        }
    }
    ensure!(tried > 3, "it could be tried {tried} times only");
    Ok(())
}

#[test]
fn a_server_on_a_store_that_breaks_its_word_serves_reads_and_says_why() -> Result<()> {
    let objects = Objects::s3()?;
    let s3 = objects.s3.clone().context("it is ours")?;
    let mut server = Server::on(&objects)?;
    let token = server.token.clone();
    let body = br#"{"type":"model","name":"one"}"#;
    let json = [("content-type", "application/json")];
    let made = server.request("POST", "/api/repos/create", &token, &json, body)?;
    ensure!(made.status == 200, "{made:?}");
    server.stop()?;

    s3.set_faults(S3Faults { ignores_conditions: true, ..S3Faults::default() });
    server.expect_in_log("the store breaks a promise");
    server.expect_in_log("the store is open for reading only");
    server.restart()?;
    ensure!(server.log().contains("it overwrites an object that must not be overwritten"));
    let found = server.get("/api/models/admin/one")?;
    ensure!(found["id"] == "admin/one", "{found}");
    let before = s3.keys();
    let body = br#"{"type":"model","name":"two"}"#;
    let refused = server.request("POST", "/api/repos/create", &token, &json, body)?;
    ensure!(refused.status == 503, "{refused:?}");
    server.stop()?;
    ensure!(s3.keys() == before, "something was written");
    Ok(())
}

#[test]
fn two_servers_on_one_bucket_see_each_others_repos() -> Result<()> {
    for objects in [Objects::s3()?, Objects::rgw()?] {
        let one = Server::on(&objects)?;
        let two = one.beside()?;
        let body = br#"{"type":"model","name":"shared"}"#;
        let json = [("content-type", "application/json")];
        let made = one.request("POST", "/api/repos/create", &one.token, &json, body)?;
        ensure!(made.status == 200, "{made:?}");
        let look = || two.request("GET", "/api/models/admin/shared", &two.token, &[], &[]);
        let mut found = look()?;
        // As often as fits, many times over, into what the second one may be behind.
        for _ in 0..20_000 {
            if found.status == 200 {
                break;
            }
            found = look()?;
        }
        ensure!(found.status == 200, "{found:?}");
    }
    Ok(())
}
