use ballast_format::hash::{ObjectHash, Sha256};
use ballast_format::name::{RepoKind, RepoName};
use ballast_node::hub::HubSettings;
use ballast_node::origin::Wanted;
use ballast_store::env::SharedEnv;
use ballast_store::index::IndexHandle;
use ballast_store::index::memory::Memory;
use ballast_store::index::open::Opened;
use ballast_store::keyspace::Prefix;
use ballast_store::objects::Store;
use ballast_testkit::clock::SimEnv;
use futures_util::TryStreamExt as _;
use object_store::memory::InMemory;

use super::live::RATE_WINDOW;
use super::*;
use crate::mirror::upstream::{Gating, Repo};

fn job(address: &str, every_seconds: u64) -> MirrorJob {
    Wish { address: address.to_owned(), every_seconds, ..Wish::default() }.to_job(0).expect("right")
}

fn ended(ended_ms: u64, is_complete: bool) -> Option<JobRun> {
    Some(JobRun {
        ended_ms,
        is_complete,
        repos: 1,
        files: 1,
        fetched_bytes: 0,
        message: String::new(),
    })
}

#[test]
fn a_job_runs_until_all_is_here_and_then_when_its_time_comes() {
    let mut once = job("org/model", 0);
    assert!(is_due(&once, 0), "it never ran");
    once.last = ended(1000, false);
    assert!(!is_due(&once, 1000 + RETRY_MS - 1), "not at once");
    assert!(is_due(&once, 1000 + RETRY_MS));
    once.last = ended(1000, true);
    assert!(!is_due(&once, u64::MAX), "all is here");
    let mut hourly = job("org/model", 3600);
    hourly.last = ended(1000, true);
    assert!(!is_due(&hourly, 3_600_999));
    assert!(is_due(&hourly, 3_601_000));
    hourly.is_removed = true;
    assert!(!is_due(&hourly, u64::MAX));
}

#[test]
fn a_claim_keeps_others_away_until_it_ends() {
    let mut claimed = job("org/model", 0);
    let run = OperationId::from_bytes([1; 16]);
    claimed.claim = Some(JobClaim { run, until_ms: 5000 });
    assert!(!is_due(&claimed, 4999));
    assert!(is_due(&claimed, 5000), "whoever had it is gone");
}

#[tokio::test]
async fn versions_that_count_no_more_go_and_the_job_stays() -> Result<()> {
    let env = SimEnv::new(1);
    let shared: SharedEnv = Arc::<SimEnv>::clone(&env);
    let objects = Store::new(Arc::new(InMemory::new()), Arc::clone(&shared));
    let index = IndexHandle::over(Memory::new()).expect("an index");
    let settings = HubSettings { pool_threads: 1, ..HubSettings::default() };
    let hub = Hub::open(objects, index, &Opened::Clean, shared, settings).await?;
    let versions = async || {
        let listed = hub.store().list(&Prefix::MirrorJobs);
        listed.map_ok(|found| found.modified_ms).try_collect::<Vec<_>>().await
    };
    let first = store::add(&hub, job("org/one", 0)).await?;
    let other = store::add(&hub, job("org/two", 0)).await?;
    let name_set = |job: &mut MirrorJob| {
        job.set.push('x');
        true
    };
    for _ in 0..3 {
        // Who has read an old version changes the newest one.
        store::change(&hub, &first, name_set).await?.expect("it is there");
    }
    let all = versions().await?;
    assert_eq!(all.len(), 5);
    // The store in memory has the real time; the hub's is set to it first.
    env.set_wall_ms(all.into_iter().max().expect("some"));
    env.advance(Duration::from_hours(23));
    assert_eq!(store::sweep(&hub).await?, 0, "somebody may still be about to write the next one");
    env.advance(Duration::from_hours(2));
    assert_eq!(store::sweep(&hub).await?, 3);
    let sets: Vec<String> = store::all(&hub).await?.into_iter().map(|one| one.job.set).collect();
    assert_eq!(sets.len(), 2);
    assert!(sets.contains(&"xxx".to_owned()) && sets.contains(&String::new()), "{sets:?}");
    let changed = store::change(&hub, &first, name_set).await?.expect("it is there");
    assert_eq!((changed.number, changed.job.set.as_str()), (5, "xxxx"));

    let remove = |job: &mut MirrorJob| {
        job.is_removed = true;
        true
    };
    store::change(&hub, &other, remove).await?.expect("it is there");
    env.advance(Duration::from_hours(6 * 24));
    store::sweep(&hub).await?;
    assert_eq!(versions().await?.len(), 2, "the last of each");
    assert!(store::change(&hub, &other, name_set).await?.is_none(), "it is still known");
    env.advance(Duration::from_hours(24));
    assert_eq!(store::sweep(&hub).await?, 1);
    assert_eq!(store::all(&hub).await?.len(), 1);
    assert!(store::change(&hub, &other, name_set).await?.is_none());
    Ok(())
}

fn wanted(path: &str, size: u64) -> Wanted {
    Wanted {
        commit: ObjectHash::ZERO,
        path: path.to_owned(),
        id: ObjectHash::ZERO,
        pointer_size: 130,
        sha256: Sha256::ZERO,
        size,
    }
}

#[test]
fn progress_tells_how_much_is_here_how_fast_and_how_long_still() {
    let sim = SimEnv::new(1);
    let env: SharedEnv = Arc::<SimEnv>::clone(&sim);
    let live = Live::new(&env);
    let name = RepoName::parse("org/model").expect("a name");
    live.plan(&RepoPlan {
        repo: Repo { kind: RepoKind::Model, name: name.clone() },
        commit: ObjectHash::ZERO,
        licence: None,
        gating: Gating::Open,
        files: 3,
        bytes: 10_000,
        missing_files: 2,
        missing_bytes: 8000,
    });
    let (first, second) =
        (live.file(&name, &wanted("a", 5000)), live.file(&name, &wanted("b", 3000)));
    assert_eq!(live.progress().rate, 0, "nothing is known yet");
    first.reached(1000);
    second.reached(1000);
    sim.advance(Duration::from_secs(2));
    let progress = live.progress();
    assert_eq!((progress.done_bytes, progress.bytes, progress.rate), (2000, 8000, 1000));
    assert_eq!(progress.eta, Some(Duration::from_secs(6)));
    assert_eq!(progress.coming[0], ("org/model/a".to_owned(), 1000, 5000));
    second.done();
    drop(second);
    let progress = live.progress();
    assert_eq!((progress.done_files, progress.done_bytes, progress.coming.len()), (1, 4000, 1));
    // What was slow long ago does not count.
    for _ in 0..2 {
        sim.advance(RATE_WINDOW + Duration::from_secs(1));
        live.progress();
    }
    first.reached(1000 + 2200);
    assert_eq!(live.progress().rate, 200);
    drop(first);
    assert_eq!(live.progress().done_bytes, 4000 - 1000, "what failed is not here");
}
