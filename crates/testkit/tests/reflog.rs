//! Appending to a log when the store fails: nothing is done twice, and what is done is never
//! reported as lost.
//!
//! `SEED=n` runs the seeded cases with that seed only.

use std::collections::BTreeMap;
use std::sync::Arc;

use ballast_format::id::{OperationId, UserId};
use ballast_format::log::{Entry, RepoChange};
use ballast_store::env::{SharedEnv, random_bytes};
use ballast_store::keyspace::LogId;
use ballast_store::local::LocalStore;
use ballast_store::objects::Store;
use ballast_store::reflog::{Append, Log, Stored, Tail};
use ballast_store::{Error, Result};
use ballast_testkit::clock::SimEnv;
use ballast_testkit::fault::{Call, Fault, FaultStore, Rates};
use futures_util::future;
use object_store::ObjectStore;
use object_store::memory::InMemory;

const LOG: LogId = LogId::Accounts;

fn faulty(inner: Arc<dyn ObjectStore>, seed: u64) -> (Log, Arc<FaultStore>, SharedEnv) {
    let faults = FaultStore::new(inner, seed);
    let env: SharedEnv = SimEnv::hasty(seed);
    let store = Store::new(Arc::clone(&faults) as Arc<dyn ObjectStore>, Arc::clone(&env));
    (Log::new(store, LOG), faults, env)
}

fn in_memory() -> (Log, Arc<FaultStore>, SharedEnv) {
    faulty(Arc::new(InMemory::new()), 1)
}

fn entry(env: &SharedEnv, tail: &Tail) -> Entry<RepoChange> {
    Entry {
        operation: OperationId::from_bytes(random_bytes(env.as_ref())),
        previous: tail.hash,
        epoch: 0,
        term: 1,
        time_ms: env.now_ms(),
        author: Some(UserId::from_bytes([1; 16])),
        changes: Vec::new(),
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
async fn a_put_whose_reply_was_lost_is_won_and_not_done_twice() -> Result<()> {
    let (log, faults, env) = in_memory();
    faults.fail_next(Call::Put, Fault::ReplyLost);
    let ours = entry(&env, &Tail::EMPTY);
    let Append::Won(tail) = log.append(&Tail::EMPTY, &ours).await? else { panic!("it is there") };
    assert_eq!(faults.counts().puts, 1, "the answer was found by reading");
    let all = read_all(&log).await?;
    assert_eq!(all.len(), 1);
    assert_eq!(all[0].tail, tail);
    Ok(())
}

#[tokio::test]
async fn a_put_that_was_refused_is_sent_again() -> Result<()> {
    let (log, faults, env) = in_memory();
    for _ in 0..4 {
        faults.fail_next(Call::Put, Fault::Refused);
    }
    let ours = entry(&env, &Tail::EMPTY);
    assert!(matches!(log.append(&Tail::EMPTY, &ours).await?, Append::Won(_)));
    assert_eq!(faults.counts().puts, 5);
    Ok(())
}

#[tokio::test]
async fn a_late_put_meets_its_own_repetition_and_dies() -> Result<()> {
    let (log, faults, env) = in_memory();
    faults.fail_next(Call::Put, Fault::Late);
    let ours = entry(&env, &Tail::EMPTY);
    assert!(matches!(log.append(&Tail::EMPTY, &ours).await?, Append::Won(_)));
    faults.land_all().await;
    assert_eq!(read_all(&log).await?.len(), 1);
    Ok(())
}

#[tokio::test]
async fn an_outcome_that_nobody_knows_is_said_to_be_so_and_the_retry_finds_out() -> Result<()> {
    let (log, faults, env) = in_memory();
    for _ in 0..5 {
        faults.fail_next(Call::Put, Fault::Late);
    }
    let ours = entry(&env, &Tail::EMPTY);
    let error = log.append(&Tail::EMPTY, &ours).await.expect_err("nobody knows");
    assert!(matches!(error, Error::Unavailable { .. }), "{error}");
    assert!(error.to_string().contains(&ours.operation.to_string()), "{error}");
    assert_eq!(faults.counts().puts, 5, "bounded");
    // Lands long after everybody gave up; a retry with the same operation recognises it.
    faults.land_all().await;
    assert!(matches!(log.append(&Tail::EMPTY, &ours).await?, Append::Won(_)));
    assert_eq!(read_all(&log).await?.len(), 1);
    Ok(())
}

#[tokio::test]
async fn a_late_put_whose_place_was_taken_dies_and_its_writer_learns_that_it_lost() -> Result<()> {
    let (log, faults, env) = in_memory();
    for _ in 0..5 {
        faults.fail_next(Call::Put, Fault::Late);
    }
    let ours = entry(&env, &Tail::EMPTY);
    assert!(log.append(&Tail::EMPTY, &ours).await.is_err());
    let theirs = entry(&env, &Tail::EMPTY);
    assert!(matches!(log.append(&Tail::EMPTY, &theirs).await?, Append::Won(_)));
    faults.land_all().await;
    assert_eq!(log.append(&Tail::EMPTY, &ours).await?, Append::Lost);
    let all = read_all(&log).await?;
    assert_eq!(all.len(), 1);
    assert_eq!(all[0].entry.operation, theirs.operation);
    Ok(())
}

#[tokio::test]
async fn doubt_outlasts_reads_that_fail() -> Result<()> {
    let (log, faults, env) = in_memory();
    faults.fail_next(Call::Put, Fault::ReplyLost);
    for _ in 0..3 {
        faults.fail_next(Call::Get, Fault::Refused);
    }
    let ours = entry(&env, &Tail::EMPTY);
    assert!(matches!(log.append(&Tail::EMPTY, &ours).await?, Append::Won(_)));
    assert_eq!(read_all(&log).await?.len(), 1);
    Ok(())
}

#[tokio::test]
async fn one_wrong_bit_on_the_way_never_says_lost() -> Result<()> {
    for seed in 0..2000 {
        let (log, faults, env) = faulty(Arc::new(InMemory::new()), seed);
        let ours = entry(&env, &Tail::EMPTY);
        faults.fail_next(Call::Put, Fault::ReplyLost);
        faults.fail_next(Call::Get, Fault::Flipped);
        let answer = log.append(&Tail::EMPTY, &ours).await?;
        assert!(matches!(answer, Append::Won(_)), "seed {seed}");
    }
    Ok(())
}

fn seeds(count: u64) -> Vec<u64> {
    match std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()) {
        Some(seed) => vec![seed],
        None => (0..count).collect(),
    }
}

const WRITERS: usize = 5;
const EACH: usize = 5;

/// What the writers of one run were told.
#[derive(Default)]
struct Told {
    /// Acknowledged operations and their numbers.
    won: BTreeMap<OperationId, u64>,
    /// Operations and a number that they were told they did not get.
    lost: Vec<(OperationId, u64)>,
}

/// Does one operation as the node does: the same id until it is done, reading on after each loss
/// and each doubt.
async fn operate(log: &Log, env: &SharedEnv, tail: &mut Tail, told: &mut Told) {
    let mut ours = entry(env, tail);
    for _ in 0..200 {
        ours.previous = tail.hash;
        match log.append(tail, &ours).await {
            Ok(Append::Won(won)) => {
                told.won.insert(ours.operation, won.number);
                *tail = won;
                return;
            }
            Ok(Append::Lost) => told.lost.push((ours.operation, tail.number + 1)),
            Err(Error::Unavailable { .. }) => {}
            Err(error) => panic!("{error}"),
        }
        match log.read_after::<RepoChange>(tail).await {
            Ok(page) => {
                for stored in page {
                    *tail = stored.tail;
                    if stored.entry.operation == ours.operation {
                        told.won.insert(ours.operation, stored.tail.number);
                        return;
                    }
                }
            }
            Err(Error::Unavailable { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
    panic!("200 tries are not enough");
}

async fn run(inner: Arc<dyn ObjectStore>, seed: u64) -> (Vec<Stored<RepoChange>>, Told) {
    let (log, faults, env) = faulty(inner, seed);
    faults.set_rates(Rates {
        refused: 80,
        reply_lost: 150,
        late: 120,
        landing: 150,
        ..Rates::default()
    });
    let writers = (0..WRITERS).map(|_| async {
        let (mut tail, mut told) = (Tail::EMPTY, Told::default());
        for _ in 0..EACH {
            operate(&log, &env, &mut tail, &mut told).await;
        }
        told
    });
    let mut told = Told::default();
    for one in future::join_all(writers).await {
        told.won.extend(one.won);
        told.lost.extend(one.lost);
    }
    faults.set_rates(Rates::default());
    faults.land_all().await;
    (read_all(&log).await.expect("one chain without gaps"), told)
}

fn check(seed: u64, chain: &[Stored<RepoChange>], told: &Told) {
    let mut places: BTreeMap<OperationId, Vec<u64>> = BTreeMap::new();
    for stored in chain {
        places.entry(stored.entry.operation).or_default().push(stored.tail.number);
    }
    assert_eq!(told.won.len(), WRITERS * EACH, "seed {seed}: every operation was acknowledged");
    for (operation, number) in &told.won {
        let found = places.get(operation).map(Vec::as_slice);
        assert_eq!(found, Some([*number].as_slice()), "seed {seed}: {operation} once, as told");
    }
    for (operation, number) in &told.lost {
        let found = &places[operation];
        assert!(!found.contains(number), "seed {seed}: {operation} was told it lost {number}");
    }
    assert_eq!(chain.len(), WRITERS * EACH, "seed {seed}: nothing else is in the log");
}

#[tokio::test]
async fn writers_on_a_failing_store_do_everything_once() {
    let mut losses = 0;
    for seed in seeds(300) {
        let (chain, told) = run(Arc::new(InMemory::new()), seed).await;
        check(seed, &chain, &told);
        losses += told.lost.len();
    }
    assert!(losses > 0, "they never met, so this shows nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_on_a_failing_disk_do_everything_once() {
    for seed in seeds(6) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (disk, _lock) = LocalStore::open(folder.path()).expect("opens");
        let (chain, told) = run(disk, seed).await;
        check(seed, &chain, &told);
    }
}
