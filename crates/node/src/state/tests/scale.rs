//! Ten thousand repos: what they take in memory, and what making the index anew takes.

use std::fs;

use ballast_format::hash::ObjectHash;
use ballast_format::id::{RepoId, UserId};
use ballast_format::log::{CatalogueChange, Entry, RepoChange, Visibility};
use ballast_format::name::{RefName, RepoKind, RepoName};
use ballast_format::{hash::EntryHash, id::OperationId};
use ballast_store::index::Batch;

use crate::access::{Access, Caller};
use crate::error::Result;
use crate::rig::Rig;
use crate::state::catalogue::CatalogueState;
use crate::state::ledger::State as _;

const REPOS: u32 = 10_000;

fn id(number: u32) -> RepoId {
    let mut bytes = [0; 16];
    bytes[..4].copy_from_slice(&number.wrapping_mul(0x9E37_79B9).to_be_bytes());
    bytes[12..].copy_from_slice(&number.to_be_bytes());
    RepoId::from_bytes(bytes)
}

fn created(number: u32) -> CatalogueChange {
    let name = format!("owner-{}/a-model-with-a-name-of-usual-length-{number}", number % 100);
    CatalogueChange::RepoCreated {
        id: id(number),
        kind: RepoKind::Model,
        name: RepoName::parse(&name).expect("a name"),
        visibility: Visibility::Public,
        creator: UserId::from_bytes([1; 16]),
        sdk: None,
    }
}

/// Memory of this process that is in use, in bytes.
fn resident() -> usize {
    let pages = fs::read_to_string("/proc/self/statm").expect("this is Linux");
    let pages = pages.split(' ').nth(1).expect("the second number");
    pages.parse::<usize>().expect("a number") * 4096
}

#[test]
fn the_catalogue_of_ten_thousand_repos_is_small() {
    let before = resident();
    let mut state = CatalogueState::default();
    for number in 0..REPOS {
        let user = UserId::from_bytes([u8::try_from(number % 50).expect("small"); 16]);
        let like = CatalogueChange::Liked { id: id(number), user };
        state.apply(&Entry {
            operation: OperationId::from_bytes([0; 16]),
            previous: EntryHash::ZERO,
            epoch: 0,
            term: 1,
            time_ms: 1,
            author: None,
            changes: vec![created(number), like],
        });
    }
    let taken = resident() - before;
    assert_eq!(state.repo_count(), REPOS as usize);
    assert!(taken < 20 << 20, "{taken} bytes");
}

/// A hub whose repos have one ref each and nothing behind it.
async fn large_hub() -> Result<Rig> {
    let rig = Rig::start().await;
    let numbers: Vec<u32> = (0..REPOS).collect();
    for some in numbers.chunks(1000) {
        let changes: Vec<_> = some.iter().map(|number| created(*number)).collect();
        let rule = |_: &_| Ok(changes.clone());
        rig.hub.catalogue.append(&rig.hub, None, Batch::new(), rule).await?;
    }
    let commit = ObjectHash::from_bytes([3; 20]);
    for record in rig.hub.records(|_| true) {
        let repo = crate::access::Repo { record };
        let set =
            |_: &_| Ok(vec![RepoChange::RefSet { name: RefName::main(), old: None, new: commit }]);
        rig.hub.append_repo(&repo, None, &[], set).await?;
    }
    Ok(rig)
}

#[tokio::test]
async fn an_index_of_ten_thousand_repos_is_made_anew_in_seconds() -> Result<()> {
    let rig = large_hub().await?;
    let clock = ballast_store::env::RealEnv::shared();
    let (before, began) = (resident(), clock.monotonic());
    let again = rig.another().await;
    let took = clock.monotonic().checked_sub(began).unwrap();
    let taken = resident().saturating_sub(before);
    assert_eq!(again.records(|_| true).len(), REPOS as usize);
    for number in [0, 1, REPOS / 2, REPOS - 1] {
        let repo = again.repo_by_id(&Caller::Anonymous, id(number), Access::Read)?;
        assert!(again.state_of(repo.id()).await?.main().is_some());
    }
    // An unoptimised build on a busy machine; a third of it is usual.
    assert!(took.as_secs() < 20, "{took:?}");
    // With the index, which is in memory here.
    assert!(taken < 100 << 20, "{taken} bytes");
    Ok(())
}
