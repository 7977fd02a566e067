//! Ten thousand repos: an index made anew finds them, and listings are right.

use ballast_format::hash::ObjectHash;
use ballast_format::id::{RepoId, UserId};
use ballast_format::log::{CatalogueChange, RepoChange, TokenRole, Visibility};
use ballast_format::name::{RefName, RepoKind, RepoName};

use crate::access::{Access, Caller};
use crate::discovery::{Query, Sort};
use crate::error::Result;
use crate::rig::Rig;
use crate::state::ledger::New;

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

/// A hub whose repos have one ref each and nothing behind it.
async fn large_hub() -> Result<Rig> {
    let rig = Rig::start().await;
    let numbers: Vec<u32> = (0..REPOS).collect();
    for some in numbers.chunks(1000) {
        let changes: Vec<_> = some.iter().map(|number| created(*number)).collect();
        let rule = |_: &_| Ok(changes.clone());
        rig.hub.catalogue.append(&rig.hub, New::by(None), rule).await?;
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
async fn ten_thousand_repos_are_found_by_an_index_made_anew() -> Result<()> {
    let rig = large_hub().await?;
    let again = rig.another().await;
    assert_eq!(again.records(|_| true).len(), REPOS as usize);
    for number in (0..REPOS).step_by(997) {
        let repo = again.repo_by_id(&Caller::Anonymous, id(number), Access::Read)?;
        assert!(again.state_of(repo.id()).await?.main().is_some());
    }
    Ok(())
}

#[tokio::test]
async fn among_ten_thousand_repos_listings_and_likes_are_right() -> Result<()> {
    let rig = large_hub().await?;
    let liked: Vec<u32> = (0..REPOS).step_by(1250).collect();
    for (number, count) in liked.iter().zip(1..) {
        let repo = rig.hub.repo_by_id(&rig.admin, id(*number), Access::Read)?;
        for person in 0..count {
            let name = format!("fan-{person}");
            let caller = match rig.hub.user_of_name(&name) {
                Ok(_) => rig.token(&name, TokenRole::Write).await,
                Err(_) => rig.user(&name).await,
            };
            rig.hub.set_like(&caller, &repo, true).await?;
        }
    }
    let list = |query: &Query, after, limit| {
        rig.hub.list(&Caller::Anonymous, RepoKind::Model, query, after, limit)
    };
    let query = Query { sort: Sort::Likes, ..Query::default() };
    let (first, more) = list(&query, 0, liked.len() + 1)?;
    let likes: Vec<u64> = first.iter().map(|listed| listed.likes).collect();
    assert_eq!(likes, [8, 7, 6, 5, 4, 3, 2, 1, 0]);
    assert!(more);
    let mut seen = std::collections::HashSet::new();
    for page in 0..10 {
        let (page, more) = list(&query, page * 1000, 1000)?;
        seen.extend(page.iter().map(|listed| listed.repo.id()));
        assert_eq!(more, seen.len() < REPOS as usize);
    }
    assert_eq!(seen.len(), REPOS as usize);
    let author = Query { author: Some("owner-7".to_owned()), ..Query::default() };
    assert_eq!(list(&author, 0, 1000)?.0.len(), REPOS as usize / 100);
    let search = Query { search: vec!["length-4242".to_owned()], ..Query::default() };
    assert_eq!(list(&search, 0, 1000)?.0.len(), 1);
    Ok(())
}
