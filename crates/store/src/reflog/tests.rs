//! Tests of logs over a store that works; those over one that fails are in the testkit.

use std::sync::Arc;

use ballast_format::id::{OperationId, UserId};
use ballast_format::log::{Entry, RepoChange};
use futures_util::future;
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};

use super::*;
use crate::env::quick::QuickEnv;
use crate::env::random_bytes;

type RepoEntry = Entry<RepoChange>;

fn log() -> (Log, Arc<InMemory>) {
    let inner = Arc::new(InMemory::new());
    let store = Store::new(Arc::clone(&inner) as Arc<dyn ObjectStore>, QuickEnv::shared());
    (Log::new(store, LogId::Catalogue), inner)
}

fn entry(log: &Log, tail: &Tail, epoch: u64) -> RepoEntry {
    Entry {
        operation: OperationId::from_bytes(random_bytes(log.store.env())),
        previous: tail.hash,
        epoch,
        term: 1,
        time_ms: 1_700_000_000_000,
        author: Some(UserId::from_bytes([1; 16])),
        changes: Vec::new(),
    }
}

async fn append(log: &Log, tail: &Tail, epoch: u64) -> Result<Tail> {
    match log.append(tail, &entry(log, tail, epoch)).await? {
        Append::Won(tail) => Ok(tail),
        Append::Lost => Err(Error::Internal { reason: "nobody else appends here".into() }),
    }
}

async fn read_all(log: &Log) -> Result<Vec<Stored<RepoChange>>> {
    let mut all: Vec<Stored<RepoChange>> = Vec::new();
    loop {
        let tail = all.last().map_or(Tail::EMPTY, |stored| stored.tail);
        let page = log.read_after(&tail).await?;
        if page.is_empty() {
            return Ok(all);
        }
        all.extend(page);
    }
}

#[tokio::test]
async fn entries_are_read_in_the_order_they_were_appended() -> Result<()> {
    let (log, _) = log();
    assert!(read_all(&log).await?.is_empty());
    let mut tails = vec![Tail::EMPTY];
    // More than one page, and more than the widest look ahead.
    for i in 0..300 {
        let tail = append(&log, &tails[i], i as u64 / 100).await?;
        tails.push(tail);
    }
    let all = read_all(&log).await?;
    assert!(all.iter().map(|stored| stored.tail).eq(tails[1..].iter().copied()));
    let one = log.read::<RepoChange>(7).await?.expect("it is there");
    assert_eq!(one.tail, tails[7]);
    assert!(log.read::<RepoChange>(301).await?.is_none());
    Ok(())
}

#[tokio::test]
async fn pages_of_large_entries_are_short() -> Result<()> {
    let (log, _) = log();
    let mut tail = Tail::EMPTY;
    for _ in 0..20 {
        let said = RepoChange::Comment {
            number: 1,
            id: OperationId::from_bytes([0; 16]),
            author: UserId::from_bytes([1; 16]),
            text: "x".repeat(1_000_000),
        };
        let large = RepoEntry { changes: vec![said], ..entry(&log, &tail, 0) };
        let Append::Won(next) = log.append(&tail, &large).await? else {
            return Err(Error::Internal { reason: "nobody else appends here".into() });
        };
        tail = next;
    }
    let page = log.read_after::<RepoChange>(&Tail::EMPTY).await?;
    assert_eq!(page.len(), 9, "as soon as they have 8 MiB together");
    assert_eq!(read_all(&log).await?.len(), 20);
    Ok(())
}

#[tokio::test]
async fn the_second_at_a_number_loses_and_may_try_behind_it() -> Result<()> {
    let (log, _) = log();
    let first = append(&log, &Tail::EMPTY, 0).await?;
    let late = entry(&log, &Tail::EMPTY, 0);
    assert_eq!(log.append(&Tail::EMPTY, &late).await?, Append::Lost);
    let again = RepoEntry { previous: first.hash, ..late };
    assert!(matches!(log.append(&first, &again).await?, Append::Won(Tail { number: 2, .. })));
    Ok(())
}

#[tokio::test]
async fn an_operation_sent_twice_is_one_entry() -> Result<()> {
    let (log, _) = log();
    let ours = entry(&log, &Tail::EMPTY, 0);
    let first = log.append(&Tail::EMPTY, &ours).await?;
    assert_eq!(log.append(&Tail::EMPTY, &ours).await?, first);
    // A later try may carry another time; its operation is what counts.
    let later = RepoEntry { time_ms: ours.time_ms + 5, ..ours };
    assert_eq!(log.append(&Tail::EMPTY, &later).await?, first);
    assert_eq!(read_all(&log).await?.len(), 1);
    Ok(())
}

#[tokio::test]
async fn a_new_term_counts_epochs_anew_and_no_term_comes_back() -> Result<()> {
    let (log, _) = log();
    let first = append(&log, &Tail::EMPTY, 9).await?;
    let second = RepoEntry { term: 2, ..entry(&log, &first, 1) };
    let Append::Won(second) = log.append(&first, &second).await? else { panic!("it is alone") };
    let late = entry(&log, &second, 9);
    let error = log.append(&second, &late).await.expect_err("its term is over");
    assert_eq!(error.kind(), ballast_format::ErrorKind::Conflict);
    let behind = RepoEntry { term: 2, ..entry(&log, &second, 0) };
    assert!(log.append(&second, &behind).await.is_err());
    assert_eq!(read_all(&log).await?.len(), 2);
    Ok(())
}

#[tokio::test]
async fn of_a_log_on_a_course_only_that_counts() -> Result<()> {
    let (old, inner) = log();
    let mut tails = vec![Tail::EMPTY];
    for i in 0..6 {
        tails.push(append(&old, &tails[i], 0).await?);
    }
    let line = LogId::Repo(ballast_format::id::RepoId::from_bytes([9; 16]));
    let course = Course { until: None, lines: vec![Line { first: 4, id: line }] };
    let new = Log::on_course(old.store.clone(), old.id, course.clone());
    // The log that went another way behind entry 3.
    assert_eq!(read_all(&new).await?.len(), 3);
    let other = append(&new, &tails[3], 7).await?;
    append(&new, &other, 7).await?;
    assert_eq!(read_all(&new).await?[3].tail, other);
    assert_eq!(read_all(&old).await?.len(), 6, "nothing is overwritten");
    let until = Log::on_course(old.store.clone(), old.id, Course { until: Some(4), ..course });
    assert_eq!(read_all(&until).await?.len(), 4);
    assert!(until.read::<RepoChange>(5).await?.is_none());
    let tail = read_all(&until).await?[3].tail;
    assert!(append(&until, &tail, 7).await.is_err(), "it does not grow here");
    drop(inner);
    Ok(())
}

#[tokio::test]
async fn a_copied_entry_is_there_once_and_no_other_takes_its_place() -> Result<()> {
    let ((home, _), (copy, _)) = (log(), log());
    let first = append(&home, &Tail::EMPTY, 0).await?;
    append(&home, &first, 0).await?;
    for stored in read_all(&home).await? {
        copy.copy(stored.tail.number, stored.bytes.clone()).await?;
        copy.copy(stored.tail.number, stored.bytes).await?;
    }
    let bytes = |all: Vec<Stored<RepoChange>>| all.into_iter().map(|one| one.bytes);
    assert!(bytes(read_all(&home).await?).eq(bytes(read_all(&copy).await?)));
    let other = Bytes::from(entry(&home, &first, 5).encode().expect("small"));
    let error = copy.copy(2, other).await.expect_err("there is another");
    assert_eq!(error.kind(), ballast_format::ErrorKind::Conflict);
    Ok(())
}

#[tokio::test]
async fn an_entry_that_does_not_follow_or_knows_too_little_is_refused() -> Result<()> {
    let (log, _) = log();
    let tail = append(&log, &Tail::EMPTY, 3).await?;
    let astray = entry(&log, &Tail::EMPTY, 3);
    assert!(matches!(log.append(&tail, &astray).await, Err(Error::Invalid { .. })));
    let stale = entry(&log, &tail, 2);
    let error = log.append(&tail, &stale).await.expect_err("it has not read list 3");
    assert_eq!(error.kind(), ballast_format::ErrorKind::Conflict);
    assert_eq!(read_all(&log).await?.len(), 1);
    Ok(())
}

#[tokio::test]
async fn a_hole_a_broken_link_and_damage_are_reported() -> Result<()> {
    let overwrite = |inner: Arc<InMemory>, number, bytes: Vec<u8>| async move {
        let path = Key::LogEntry(LogId::Catalogue, number).path();
        inner.put(&path, PutPayload::from(bytes)).await.expect("memory takes it");
    };
    for damage in ["hole", "link", "noise", "epoch", "size"] {
        let (log, inner) = log();
        let mut tail = Tail::EMPTY;
        let mut tails = vec![tail];
        for _ in 0..9 {
            tail = append(&log, &tail, 4).await?;
            tails.push(tail);
        }
        match damage {
            "hole" => {
                let path = Key::LogEntry(LogId::Catalogue, 5).path();
                inner.delete(&path).await.expect("deletes");
            }
            "link" => {
                let other = entry(&log, &tails[4], 4).encode().expect("valid");
                overwrite(inner, 5, other).await;
            }
            "noise" => overwrite(inner, 5, b"nonsense".to_vec()).await,
            "epoch" => {
                let lower = entry(&log, &tails[4], 1).encode().expect("valid");
                overwrite(inner, 5, lower).await;
            }
            _ => overwrite(inner, 5, vec![0; 6_000_000]).await,
        }
        let error = read_all(&log).await.expect_err(damage);
        assert!(matches!(error, Error::Corrupt { .. }), "{damage}: {error}");
        let named = if damage == "link" { "0006" } else { "0005" };
        assert!(error.to_string().contains(named), "{damage}: {error}");
    }
    Ok(())
}

#[tokio::test]
async fn many_writers_make_one_chain_without_gaps() -> Result<()> {
    const WRITERS: usize = 8;
    const EACH: usize = 12;
    let (log, _) = log();
    let writer = |log: Log| async move {
        let mut tail = Tail::EMPTY;
        let mut won = Vec::new();
        while won.len() < EACH {
            let mine = entry(&log, &tail, 0);
            match log.append(&tail, &mine).await? {
                Append::Won(next) => {
                    won.push((next.number, mine.operation));
                    tail = next;
                }
                Append::Lost => {
                    let page = log.read_after::<RepoChange>(&tail).await?;
                    tail = page.last().map_or(tail, |stored| stored.tail);
                }
            }
        }
        Ok::<_, Error>(won)
    };
    let writers = (0..WRITERS).map(|_| writer(log.clone()));
    let mut won = future::try_join_all(writers).await?.concat();
    won.sort_by_key(|(number, _)| *number);
    let stored = read_all(&log).await?;
    let there: Vec<_> =
        stored.iter().map(|stored| (stored.tail.number, stored.entry.operation)).collect();
    assert_eq!(there, won);
    assert_eq!(there.len(), WRITERS * EACH);
    Ok(())
}
