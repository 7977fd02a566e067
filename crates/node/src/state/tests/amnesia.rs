//! R8: without its index, and after every kind of restart, a hub says the same.

use std::fmt::Write as _;
use std::sync::Arc;

use ballast_format::log::{
    AccessStatus, CatalogueChange, Gating, PullRequestStatus, Role, ScopeEntity, TokenRole,
    TokenScope, Visibility,
};
use ballast_format::name::{Namespace, RefName, RepoKind, RepoName};
use ballast_store::index::open::Opened;
use ballast_testkit::fault::FaultStore;
use object_store::ObjectStore;
use object_store::memory::InMemory;

use super::{Kept, branch};
use crate::access::{Access, Caller, Repo};
use crate::account::NewToken;
use crate::error::{Error, Result};
use crate::hub::{Freshness, Hub};
use crate::repo::{NewPull, NewRepo, Settings};
use crate::rig::{Rig, open_with};
use crate::state::ledger::New;

/// All that state says, as one text.
async fn view(hub: &Arc<Hub>, callers: &[&Caller]) -> Result<String> {
    let mut text = String::new();
    hub.freshen().await?;
    let mut say = |line: &dyn std::fmt::Debug| writeln!(text, "{line:?}").expect("memory");
    hub.accounts.read(|state| {
        for user in state.users() {
            say(user);
            say(&state.orgs_of(&user.id));
        }
        state.orgs().for_each(|org| say(org));
        state.tokens().for_each(|token| say(token));
    });
    let records = hub.records(|_| true);
    for record in &records {
        say(record);
        hub.catalogue.read(|state| {
            let mut likers = state.likers(&record.id);
            likers.sort_unstable();
            say(&likers);
            say(&state.requests(&record.id));
        });
        let repo = Repo { record: Arc::clone(record) };
        say(&hub.repo_state(&repo).await?);
        say(&hub.downloads(&record.id));
        for caller in callers {
            let allowed = hub.repo_by_id(caller, record.id, Access::Write);
            say(&(allowed.map(|repo| repo.id()), hub.may_read_files(caller, &repo)));
        }
    }
    for caller in callers {
        let who = caller.user_id();
        say(&who.map(|id| hub.likes_of(caller, id)));
    }
    Ok(text)
}

fn name(text: &str) -> RepoName {
    RepoName::parse(text).expect("a name")
}

/// One of everything. Who takes part.
async fn everything(rig: &Rig) -> Result<[Caller; 3]> {
    let (hub, admin) = (&rig.hub, &rig.admin);
    let (anna, bert) = (rig.user("anna").await, rig.user("Bert").await);
    let carl = rig.user("carl").await;
    hub.create_org(admin, "lab", "The Lab", Visibility::Private).await?;
    hub.set_member(admin, "lab", "anna", Some(Role::Write)).await?;
    hub.set_member(admin, "lab", "carl", Some(Role::Read)).await?;
    hub.set_member(admin, "lab", "carl", None).await?;
    hub.set_disabled(admin, "carl", true).await?;
    let repo = rig.repo(&anna, "anna/first").await;
    hub.move_repo(&anna, &repo, &name("anna/second")).await?;
    let gone = rig.repo(&anna, "anna/gone").await;
    hub.set_like(&bert, &gone, true).await?;
    hub.delete_repo(&anna, &gone).await?;
    let gated = rig.repo_with(&anna, "lab/gated", Visibility::Public).await;
    let settings = Settings {
        gating: Some(Gating::Manual),
        description: Some("by asking".to_owned()),
        ..Settings::default()
    };
    hub.change_settings(admin, &gated, &settings).await?;
    let gated = rig.repo_for(&bert, &gated);
    hub.ask_access(&bert, &gated, r#"{"why":"because"}"#).await?;
    hub.decide_access(&anna, &gated, "bert", AccessStatus::Accepted, None, false).await?;
    for (who, what) in [(&bert, &repo), (&anna, &gated), (&bert, &gated), (&anna, &repo)] {
        hub.set_like(who, what, true).await?;
    }
    hub.set_like(&anna, &repo, false).await?;
    let main = rig.main(&repo).await;
    hub.create_ref(&anna, &repo, &branch("next"), main, false).await?;
    hub.create_ref(&anna, &repo, &RefName::tag("v1")?, main, false).await?;
    hub.delete_ref(&anna, &repo, &branch("next")).await?;
    rig.put(&anna, &repo, "README.md", "hello").await?;
    let seen = rig.repo_for(&bert, &repo);
    let new = NewPull { title: "a thought", description: "at length" };
    let pull = hub.open_pull(&bert, &seen, new).await?;
    hub.comment(&anna, &repo, pull.number, "hm").await?;
    hub.set_pull_status(&bert, &seen, pull.number, PullRequestStatus::Closed).await?;
    let scope =
        TokenScope { entity: ScopeEntity::Namespace(Namespace::parse("lab")?), role: Role::Read };
    let token = NewToken {
        name: "fine",
        role: TokenRole::FineGrained { scopes: vec![scope] },
        expires_ms: None,
    };
    let (id, _) = hub.create_token(&anna, "anna", &token).await?;
    hub.create_token(&anna, "anna", &token).await?;
    hub.revoke_token(&anna, id).await?;
    hub.count_download(&repo, "somebody");
    hub.count_download(&gated, "somebody");
    hub.flush_tallies().await?;
    Ok([anna, bert, carl])
}

#[tokio::test]
async fn a_hub_without_its_index_says_the_same() -> Result<()> {
    let rig = Rig::start().await;
    let [anna, bert, carl] = everything(&rig).await?;
    let callers = [&Caller::Anonymous, &rig.admin, &anna, &bert, &carl];
    let expected = view(&rig.hub, &callers).await?;
    let again = view(&rig.another().await, &callers).await?;
    assert_eq!(again, expected);
    Ok(())
}

#[tokio::test]
async fn a_hub_with_its_index_says_the_same_and_reads_no_entry_again() -> Result<()> {
    let faulty = FaultStore::new(Arc::new(InMemory::new()), 1);
    let objects: Arc<dyn ObjectStore> = Arc::clone(&faulty) as _;
    let rig = Rig::over(objects, ballast_testkit::clock::SimEnv::new(1)).await;
    let [anna, bert, carl] = everything(&rig).await?;
    let callers = [&Caller::Anonymous, &rig.admin, &anna, &bert, &carl];
    let expected = view(&rig.hub, &callers).await?;
    let index = Kept::default();
    let rebuild = Opened::Rebuild { reason: "new".into() };
    let (objects, env, alone) = (&rig.objects, &rig.env, Freshness::Exclusive);
    let hub = open_with(objects, env, index.handle(), rebuild, alone).await?;
    assert_eq!(view(&hub, &callers).await?, expected);
    hub.close().await?;
    let before = faulty.counts().gets;
    let hub = open_with(objects, env, index.handle(), Opened::Clean, alone).await?;
    assert_eq!(view(&hub, &callers).await?, expected);
    // Layout and secret, the open day's record, and one look behind the end of each log.
    let logs = 2 + hub.records(|_| true).len() as u64;
    let reads = faulty.counts().gets - before;
    assert!(reads <= logs + 6, "{reads} reads for {logs} logs");
    Ok(())
}

/// The catalogue's entry of a new repo, without what should follow.
async fn half_a_repo(rig: &Rig, text: &str) -> Result<()> {
    let change = CatalogueChange::RepoCreated {
        id: ballast_format::id::RepoId::from_bytes([9; 16]),
        kind: RepoKind::Model,
        name: name(text),
        visibility: Visibility::Private,
        creator: rig.admin.user_id().expect("a user"),
        sdk: None,
    };
    let rule = |_: &_| Ok(vec![change.clone()]);
    rig.hub.catalogue.append(&rig.hub, New::by(rig.admin.user_id()), rule).await
}

async fn assert_whole(hub: &Arc<Hub>, caller: &Caller, text: &str) -> Result<()> {
    let repo = hub.repo(caller, RepoKind::Model, &name(text), Access::Read)?;
    let state = hub.repo_state(&repo).await?;
    let main = state.main().expect("its first commit");
    assert_eq!(state.entries, 1);
    let (commits, count) = hub.history(&repo, main, 0, 10).await?;
    assert_eq!((commits[0].title.as_str(), count), ("initial commit", 1));
    assert_eq!(commits[0].author, "admin");
    let files = hub.siblings(&repo, main).await?;
    assert_eq!(files.len(), 1);
    assert_eq!(files[0].path, ".gitattributes");
    Ok(())
}

#[tokio::test]
async fn half_a_repo_is_completed_by_whoever_reads_it() -> Result<()> {
    let rig = Rig::start().await;
    half_a_repo(&rig, "admin/half").await?;
    let readers = (0..4).map(|_| assert_whole(&rig.hub, &rig.admin, "admin/half"));
    for done in futures_util::future::join_all(readers).await {
        done?;
    }
    Ok(())
}

#[tokio::test]
async fn half_a_repo_is_completed_by_creating_it_again() -> Result<()> {
    let rig = Rig::start().await;
    half_a_repo(&rig, "admin/half").await?;
    let new =
        NewRepo { kind: RepoKind::Model, name: name("admin/Half"), visibility: None, sdk: None };
    let again = rig.hub.create_repo(&rig.admin, &new).await;
    assert!(matches!(again, Err(Error::Exists { .. })), "{again:?}");
    let id = rig.hub.records(|_| true)[0].id;
    assert!(rig.hub.state_of(id).await?.main().is_some());
    assert_whole(&rig.hub, &rig.admin, "admin/half").await
}

#[tokio::test]
async fn half_a_repo_is_completed_by_the_next_start() -> Result<()> {
    let rig = Rig::start().await;
    half_a_repo(&rig, "admin/half").await?;
    let again = rig.another().await;
    let id = again.records(|_| true)[0].id;
    assert!(again.state_of(id).await?.main().is_some());
    assert_whole(&again, &rig.admin, "admin/half").await
}

#[tokio::test]
async fn half_a_repo_is_completed_by_the_first_commit_to_it() -> Result<()> {
    let rig = Rig::start().await;
    half_a_repo(&rig, "admin/half").await?;
    let half = name("admin/half");
    let repo = rig.hub.repo(&rig.admin, RepoKind::Model, &half, Access::Write)?;
    rig.put(&rig.admin, &repo, "a", "content").await?;
    assert_eq!(rig.paths(&repo).await, [".gitattributes", "a"]);
    assert_eq!(rig.hub.repo_state(&repo).await?.entries, 2);
    Ok(())
}

#[tokio::test]
async fn half_a_repo_of_somebody_who_is_gone_is_completed_too() -> Result<()> {
    let rig = Rig::start().await;
    let change = CatalogueChange::RepoCreated {
        id: ballast_format::id::RepoId::from_bytes([9; 16]),
        kind: RepoKind::Model,
        name: name("admin/orphan"),
        visibility: Visibility::Public,
        creator: ballast_format::id::UserId::from_bytes([9; 16]),
        sdk: None,
    };
    let rule = |_: &_| Ok(vec![change.clone()]);
    rig.hub.catalogue.append(&rig.hub, New::by(None), rule).await?;
    let orphan = name("admin/orphan");
    let repo = rig.hub.repo(&Caller::Anonymous, RepoKind::Model, &orphan, Access::Read)?;
    assert!(rig.hub.repo_state(&repo).await?.main().is_some());
    Ok(())
}
