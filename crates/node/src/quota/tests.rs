use ballast_format::log::Visibility;
use ballast_testkit::content::splitmix;

use super::*;
use crate::rig::{Rig, header, path, sha256};

fn bytes(limit: impl Into<Option<u64>>) -> QuotaChange {
    QuotaChange { bytes: Some(limit.into()), repos: None }
}

fn repos(limit: impl Into<Option<u64>>) -> QuotaChange {
    QuotaChange { bytes: None, repos: Some(limit.into()) }
}

async fn usage(hub: &Hub, rig: &Rig, name: &str) -> Usage {
    hub.quota_of(&rig.admin, name).await.expect("an administrator may see it").usage
}

/// What a refusal says: used, more, limit.
#[track_caller]
fn refusal<T: fmt::Debug>(answer: Result<T>) -> (Measure, u64, u64, u64) {
    match answer {
        Err(Error::QuotaExceeded { measure, used, more, limit, .. }) => {
            (measure, used, more, limit)
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_is_used_is_counted_once_for_each_repo_and_the_same_without_an_index() -> Result<()> {
    let rig = Rig::start().await;
    let ann = rig.user("ann").await;
    let one = rig.repo_with(&ann, "ann/one", Visibility::Private).await;
    let first = usage(&rig.hub, &rig, "ann").await;
    let content = splitmix(1, 300_000);
    rig.put_large(&ann, &one, "w.bin", &content).await;
    rig.put(&ann, &one, "a.txt", "twelve bytes").await?;
    let before = usage(&rig.hub, &rig, "ann").await;
    // Large files may add a line to the attribute file.
    let grown = before.bytes - first.bytes;
    assert!((300_012..301_000 + first.bytes).contains(&grown), "{grown}");
    // The same content again, at another place, is nothing more; a deleted file stays in history.
    rig.put(&ann, &one, "b.txt", "twelve bytes").await?;
    let mut draft = rig.draft(&ann, &one).await;
    draft.delete_file(path("w.bin"))?;
    draft.finish().await?;
    assert_eq!(usage(&rig.hub, &rig, "ann").await, before);
    // In another repo it counts once more, though it is stored once.
    let two = rig.repo(&ann, "ann/two").await;
    rig.put_large(&ann, &two, "w.bin", &content).await;
    let after = usage(&rig.hub, &rig, "ann").await;
    assert!(after.bytes >= before.bytes + 300_000 && after.repos == 2);
    // Another process, whose index knows nothing, counts the same.
    let another = rig.another().await;
    assert_eq!(usage(&another, &rig, "ann").await, after);
    rig.hub.delete_repo(&ann, &two).await?;
    assert_eq!(usage(&rig.hub, &rig, "ann").await, before);
    Ok(())
}

#[tokio::test]
async fn a_commit_that_would_be_too_much_is_refused_whole_and_one_that_fits_is_not() -> Result<()> {
    let rig = Rig::start().await;
    let ann = rig.user("ann").await;
    let repo = rig.repo(&ann, "ann/m").await;
    let used = usage(&rig.hub, &rig, "ann").await.bytes;
    rig.hub.set_quota(&rig.admin, "ann", bytes(used + 1000)).await?;
    let main = rig.main(&repo).await;
    let refused = rig.put(&ann, &repo, "a.txt", "x".repeat(1001)).await;
    assert_eq!(refusal(refused), (Measure::Bytes, used, 1001, used + 1000));
    assert_eq!(rig.main(&repo).await, main);
    assert!(!rig.paths(&repo).await.contains(&"a.txt".to_owned()));
    rig.put(&ann, &repo, "a.txt", "x".repeat(1000)).await?;
    // Full; what brings nothing new goes on.
    assert_eq!(refusal(rig.put(&ann, &repo, "b.txt", "y").await).2, 1);
    rig.put(&ann, &repo, "c.txt", "x".repeat(1000)).await?;
    let mut draft = rig.draft(&ann, &repo).await;
    draft.delete_file(path("a.txt"))?;
    draft.finish().await?;
    // A large file is refused before it is sent, and also by a process that was told of nothing.
    let another = rig.another().await;
    for hub in [&rig.hub, &another] {
        assert_eq!(
            refusal(hub.check_room(&repo, 5000).await),
            (Measure::Bytes, used + 1000, 5000, used + 1000)
        );
    }
    let content = splitmix(1, 200_000);
    let uploaded = rig.upload(&ann, &repo, &content).await;
    let mut draft = another.begin_commit(&ann, repo.clone(), header()).await?;
    draft.add_large(path("w.bin"), uploaded, None).await?;
    assert!(refusal(draft.finish().await).2 >= 200_000);
    // More room, and it is there.
    rig.hub.set_quota(&rig.admin, "ann", bytes(None)).await?;
    another.freshen().await?;
    let mut draft = another.begin_commit(&ann, repo.clone(), header()).await?;
    draft.add_large(path("w.bin"), sha256(&content), None).await?;
    draft.finish().await?;
    assert_eq!(rig.read(&repo, "w.bin").await?, content);
    Ok(())
}

#[tokio::test]
async fn of_commits_at_once_only_those_that_fit_are_made() -> Result<()> {
    let rig = Rig::start().await;
    let ann = rig.user("ann").await;
    let mut made = Vec::new();
    for number in 0..6 {
        made.push(rig.repo(&ann, &format!("ann/m{number}")).await);
    }
    let used = usage(&rig.hub, &rig, "ann").await.bytes;
    rig.hub.set_quota(&rig.admin, "ann", bytes(used + 2500)).await?;
    let puts = made.iter().map(|repo| rig.put(&ann, repo, "a.txt", "x".repeat(1000)));
    let answers = futures_util::future::join_all(puts).await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 2);
    assert_eq!(usage(&rig.hub, &rig, "ann").await.bytes, used + 2000);
    Ok(())
}

#[tokio::test]
async fn repos_are_counted_where_they_are_made_and_where_they_go() -> Result<()> {
    let rig = Rig::start().await;
    let ann = rig.user("ann").await;
    rig.hub.create_org(&rig.admin, "lab", "", Visibility::Public).await?;
    rig.hub.set_member(&rig.admin, "lab", "ann", Some(ballast_format::log::Role::Admin)).await?;
    rig.hub.set_quota(&rig.admin, "LAB", repos(1)).await?;
    let first = rig.repo(&ann, "lab/first").await;
    let new = |name: &str| crate::repo::NewRepo {
        kind: ballast_format::name::RepoKind::Model,
        name: ballast_format::name::RepoName::parse(name).expect("a name"),
        visibility: None,
        sdk: None,
    };
    let another = rig.another().await;
    for hub in [&rig.hub, &another] {
        let refused = hub.create_repo(&ann, &new("lab/second")).await;
        assert_eq!(refusal(refused), (Measure::Repos, 1, 1, 1));
    }
    let own = rig.repo(&ann, "ann/own").await;
    let to = new("lab/own").name;
    assert_eq!(refusal(rig.hub.move_repo(&ann, &own, &to).await).0, Measure::Repos);
    // Within the namespace it moves as before.
    rig.hub.move_repo(&ann, &first, &new("lab/renamed").name).await?;
    rig.hub.delete_repo(&ann, &first).await?;
    rig.hub.set_quota(&rig.admin, "lab", bytes(10)).await?;
    assert_eq!(refusal(rig.hub.move_repo(&ann, &own, &to).await).0, Measure::Bytes);
    rig.hub.set_quota(&rig.admin, "lab", bytes(None)).await?;
    rig.hub.move_repo(&ann, &own, &to).await?;
    let view = rig.hub.quota_of(&ann, "lab").await?;
    assert_eq!((view.quota.bytes, view.quota.repos, view.usage.repos), (None, Some(1), 1));
    Ok(())
}

#[tokio::test]
async fn only_administrators_set_quotas_and_only_those_they_are_for_see_them() -> Result<()> {
    let rig = Rig::start().await;
    let (ann, bert) = (rig.user("ann").await, rig.user("bert").await);
    let refused = rig.hub.set_quota(&ann, "ann", bytes(None)).await;
    assert!(matches!(refused, Err(Error::Denied { .. })), "{refused:?}");
    rig.hub.quota_of(&ann, "ann").await?;
    let there = rig.hub.quota_of(&bert, "ann").await.expect_err("not theirs").to_string();
    let missing = rig.hub.quota_of(&bert, "nobody").await.expect_err("nobody's").to_string();
    assert_eq!(there.replace("ann", "nobody"), missing);
    let missing = rig.hub.set_quota(&rig.admin, "nobody", bytes(1)).await;
    assert!(matches!(missing, Err(Error::NotFound { .. })), "{missing:?}");
    Ok(())
}
