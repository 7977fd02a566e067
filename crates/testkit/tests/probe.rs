//! The probe must find the stores that cannot carry a log, and must not accuse one that only has
//! a bad day.

use std::sync::Arc;

use ballast_store::keyspace::Prefix;
use ballast_store::objects::Store;
use ballast_store::probe::{Promises, probe};
use ballast_store::{Error, Result};
use ballast_testkit::clock::SimEnv;
use ballast_testkit::fault::{Call, Conditions, Fault, FaultStore, Rates};
use futures_util::StreamExt;
use object_store::ObjectStore;
use object_store::memory::InMemory;

const KEPT: Promises = Promises {
    refuses_second: true,
    single_winner: true,
    reads_its_write: true,
    lists_its_write: true,
};

fn store(seed: u64) -> (Store, Arc<FaultStore>) {
    let faults = FaultStore::new(Arc::new(InMemory::new()), seed);
    let inner = Arc::clone(&faults) as Arc<dyn ObjectStore>;
    (Store::new(inner, SimEnv::hasty(seed)), faults)
}

#[tokio::test]
async fn a_store_that_ignores_conditions_is_found_out() -> Result<()> {
    let (store, faults) = store(1);
    faults.set_conditions(Conditions::Ignored);
    let promises = probe(&store).await?;
    assert!(!promises.refuses_second);
    assert!(!promises.single_winner);
    Ok(())
}

#[tokio::test]
async fn a_store_that_checks_and_then_writes_is_found_out_by_the_race_only() -> Result<()> {
    for seed in 0..50 {
        let (store, faults) = store(seed);
        faults.set_conditions(Conditions::CheckedThenWritten);
        let promises = probe(&store).await?;
        assert_eq!(promises, Promises { single_winner: false, ..KEPT }, "seed {seed}");
    }
    Ok(())
}

#[tokio::test]
async fn a_stale_listing_is_noticed() -> Result<()> {
    let (store, faults) = store(1);
    faults.fail_next(Call::List, Fault::Stale);
    assert_eq!(probe(&store).await?, Promises { lists_its_write: false, ..KEPT });
    Ok(())
}

#[tokio::test]
async fn an_honest_store_that_loses_answers_is_not_accused() {
    let mut finished = 0;
    for seed in 0..200 {
        let (store, faults) = store(seed);
        faults.set_rates(Rates { refused: 20, reply_lost: 60, late: 20, ..Rates::default() });
        match probe(&store).await {
            Ok(promises) => {
                assert_eq!(promises, KEPT, "seed {seed}");
                finished += 1;
            }
            Err(Error::Unavailable { .. }) => {}
            Err(error) => panic!("seed {seed}: {error}"),
        }
    }
    assert!(finished > 50, "only {finished} probes came to an end");
}

#[tokio::test]
async fn a_probe_cleans_up_behind_itself() -> Result<()> {
    for conditions in [Conditions::Kept, Conditions::Ignored, Conditions::CheckedThenWritten] {
        let (store, faults) = store(1);
        faults.set_conditions(conditions);
        probe(&store).await?;
        assert_eq!(store.list(&Prefix::All).count().await, 0);
    }
    Ok(())
}
