//! Which commit a commit is made on, and what becomes of several on one.

use ballast_format::log::Gating;

use super::*;

async fn commit_on(
    rig: &Rig,
    caller: &Caller,
    repo: &Repo,
    parent: &str,
    name: &str,
) -> Result<Committed> {
    let header = CommitHeader { parent: Some(parent.to_owned()), ..header() };
    let mut draft = rig.hub.begin_commit(caller, repo.clone(), header).await?;
    draft.add_file(path(name), name.to_owned().into()).await?;
    draft.finish().await
}

#[tokio::test]
async fn a_parent_must_be_the_tip() -> Result<()> {
    let (rig, anna, repo) = rig().await;
    let first = rig.main(&repo).await.to_string();
    let second = commit_on(&rig, &anna, &repo, &first, "a").await?.commit.to_string();
    let third = commit_on(&rig, &anna, &repo, &second[..7].to_uppercase(), "b").await?;
    for parent in [&first, &second[..5], &"f".repeat(40)] {
        let refused = commit_on(&rig, &anna, &repo, parent, "c").await;
        let Err(Error::ParentMoved { tip, .. }) = refused else { panic!("{parent}") };
        assert_eq!(tip, third.commit.to_string());
    }
    for parent in ["main", "abcd", "", &"0".repeat(41)] {
        let refused = commit_on(&rig, &anna, &repo, parent, "c").await;
        assert!(matches!(refused, Err(Error::Invalid { .. })), "{parent}");
    }
    assert_eq!(rig.paths(&repo).await, [".gitattributes", "a", "b"]);
    Ok(())
}

/// R3.
#[tokio::test]
async fn of_several_commits_on_one_parent_one_wins() {
    let (rig, anna, repo) = rig().await;
    let another = rig.another().await;
    let tip = rig.main(&repo).await.to_string();
    let commits = (0..8).map(|number| {
        let hub = Arc::clone(if number % 2 == 0 { &rig.hub } else { &another });
        let (anna, repo, parent) = (anna.clone(), repo.clone(), Some(tip.clone()));
        async move {
            let header = CommitHeader { parent, ..header() };
            let mut draft = hub.begin_commit(&anna, repo, header).await?;
            draft.add_file(path(&format!("{number}")), "x".into()).await?;
            draft.finish().await
        }
    });
    let answers = join_all(commits).await;
    let won = answers.iter().filter(|answer| answer.is_ok()).count();
    let lost = |answer: &&Result<Committed>| matches!(answer, Err(Error::ParentMoved { .. }));
    assert_eq!((won, answers.iter().filter(lost).count()), (1, 7));
    assert_eq!(rig.paths(&repo).await.len(), 2);
}

#[tokio::test]
async fn without_a_parent_all_win_one_after_the_other() -> Result<()> {
    let (rig, anna, repo) = rig().await;
    let another = rig.another().await;
    let commits = (0..12).map(|number| {
        let hub = Arc::clone(if number % 2 == 0 { &rig.hub } else { &another });
        let (anna, repo) = (anna.clone(), repo.clone());
        async move {
            let mut draft = hub.begin_commit(&anna, repo, header()).await?;
            draft.add_file(path(&format!("folder/{number}")), "x".into()).await?;
            draft.finish().await
        }
    });
    let answers: Vec<Committed> = join_all(commits).await.into_iter().collect::<Result<_>>()?;
    assert_eq!(rig.paths(&repo).await.len(), 13);
    let main = rig.main(&repo).await;
    // The other hears of the last commits when it is asked for a revision.
    assert_eq!(another.resolve(&repo, "main").await?.commit, main);
    let (history, total) = another.history(&repo, main, 0, 100).await?;
    assert_eq!(total, 13);
    for answer in answers {
        assert!(history.iter().any(|view| view.id == answer.commit));
    }
    // Nothing that lost became the repo's.
    let objects = rig.git_objects(&repo).await;
    let commits = objects.iter().filter(|(_, row)| row.kind.to_byte() == 2).count();
    assert_eq!(commits, 13);
    Ok(())
}

#[tokio::test]
async fn a_commit_can_open_a_pull_request() -> Result<()> {
    let (rig, anna, repo) = rig().await;
    let old = rig.main(&repo).await;
    rig.put(&anna, &repo, "a.txt", "one").await?;
    let tip = rig.main(&repo).await;
    let bert = rig.user("bert").await;
    let theirs = rig.repo_for(&bert, &repo);
    for (number, parent) in [(1, None), (2, Some(old)), (3, Some(tip))] {
        let summary = format!("proposal {number}");
        let parent_text = parent.map(|id| id.to_string()[..9].to_owned());
        let create_pull = true;
        let header = CommitHeader { summary, parent: parent_text, create_pull, ..header() };
        let mut draft = rig.hub.begin_commit(&bert, theirs.clone(), header).await?;
        draft.add_file(path("b.txt"), format!("{number}").into()).await?;
        let made = draft.finish().await?;
        assert_eq!(made.pull, Some(number));
        let found = rig.hub.resolve(&repo, &format!("refs/pr/{number}")).await?;
        assert_eq!(found.commit, made.commit);
        let view = rig.hub.commit_view(&repo, made.commit).await?;
        assert_eq!(view.parents, [parent.unwrap_or(tip)]);
        let (pull, _) = rig.hub.pull(&repo, number).await?;
        assert_eq!(pull.title, format!("proposal {number}"));
    }
    assert_eq!(rig.main(&repo).await, tip);
    let unknown = "1".repeat(40);
    let header = CommitHeader { parent: Some(unknown), create_pull: true, ..header() };
    let mut draft = rig.hub.begin_commit(&bert, theirs, header).await?;
    draft.add_file(path("b.txt"), "x".into()).await?;
    assert!(matches!(draft.finish().await, Err(Error::ParentMoved { .. })));
    Ok(())
}

#[tokio::test]
async fn its_author_and_writers_commit_to_a_pull_request() -> Result<()> {
    let (rig, anna, repo) = rig().await;
    let base = rig.main(&repo).await;
    let (bert, carl) = (rig.user("bert").await, rig.user("carl").await);
    let opened = CommitHeader { create_pull: true, ..header() };
    let mut draft = rig.hub.begin_commit(&bert, rig.repo_for(&bert, &repo), opened).await?;
    draft.add_file(path("b.txt"), "b".into()).await?;
    let first = draft.finish().await?.commit;
    let on = |parent: Option<String>| CommitHeader {
        revision: "refs/pr/1".to_owned(),
        parent,
        ..header()
    };
    let mut number = 0;
    for (caller, parent) in [(&bert, None), (&anna, None), (&bert, Some(base.to_string()))] {
        number += 1;
        let repo = rig.repo_for(caller, &repo);
        let mut draft = rig.hub.begin_commit(caller, repo.clone(), on(parent)).await?;
        draft.add_file(path(&format!("{number}.txt")), "x".into()).await?;
        let made = draft.finish().await?;
        assert_eq!(rig.hub.resolve(&repo, "refs/pr/1").await?.commit, made.commit);
    }
    // A commit of the request itself that is no longer its tip has been overtaken.
    let header = on(Some(first.to_string()));
    let mut draft = rig.hub.begin_commit(&bert, rig.repo_for(&bert, &repo), header).await?;
    draft.add_file(path("late.txt"), "x".into()).await?;
    assert!(matches!(draft.finish().await, Err(Error::ParentMoved { .. })));
    let reading = rig.token("bert", TokenRole::Read).await;
    for caller in [&carl, &reading] {
        let theirs = rig.repo_for(caller, &repo);
        let refused = rig.hub.begin_commit(caller, theirs, on(None)).await.err();
        assert!(matches!(refused, Some(Error::Denied { .. })));
    }
    let opening = CommitHeader { create_pull: true, ..on(None) };
    let refused = rig.hub.begin_commit(&reading, rig.repo_for(&reading, &repo), opening).await;
    assert!(matches!(refused.err(), Some(Error::Denied { .. })));
    assert_eq!(rig.main(&repo).await, base);
    Ok(())
}

#[tokio::test]
async fn who_may_not_read_a_gated_repos_files_proposes_nothing() -> Result<()> {
    let (rig, _, repo) = rig().await;
    let gated = Settings { gating: Some(Gating::Manual), ..Settings::default() };
    rig.hub.change_settings(&rig.admin, &repo, &gated).await?;
    let bert = rig.user("bert").await;
    let theirs = rig.hub.repo_by_id(&bert, repo.id(), Access::Read)?;
    let header = CommitHeader { create_pull: true, ..header() };
    let refused = rig.hub.begin_commit(&bert, theirs, header).await.err();
    assert!(matches!(refused, Some(Error::Gated { .. })));
    Ok(())
}

#[tokio::test]
async fn a_ref_that_is_deleted_meanwhile_is_not_made_again() -> Result<()> {
    let (rig, anna, repo) = rig().await;
    let branch = RefName::branch("short")?;
    rig.hub.create_ref(&anna, &repo, &branch, rig.main(&repo).await, false).await?;
    let header = CommitHeader { revision: "short".to_owned(), ..header() };
    let mut draft = rig.hub.begin_commit(&anna, repo.clone(), header).await?;
    draft.add_file(path("a"), "x".into()).await?;
    let old = rig.main(&repo).await;
    let gone = |_: &crate::state::repo::RepoState| {
        Ok(vec![RepoChange::RefDeleted { name: RefName::branch("short")?, old }])
    };
    rig.hub.append_repo(&repo, None, &[], gone).await?;
    let refused = draft.finish().await.expect_err("its branch is gone");
    assert!(matches!(refused, Error::RevisionNotFound { .. }), "{refused}");
    assert!(rig.hub.resolve(&repo, "short").await.is_err());
    Ok(())
}
