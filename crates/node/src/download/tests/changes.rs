//! History, and what changed when.

use super::*;
use crate::rig::Git;

#[tokio::test]
async fn history_is_newest_first_and_counted() -> Result<()> {
    let (rig, anna, repo) = rig().await;
    for number in 0..9 {
        let summary = format!("change {number}");
        let description = if number % 2 == 0 { "because\nof that" } else { "" }.to_owned();
        let header = CommitHeader { summary, description, ..header() };
        let mut draft = rig.hub.begin_commit(&anna, repo.clone(), header).await?;
        draft.add_file(path("a"), format!("{number}").into()).await?;
        draft.finish().await?;
        let main = rig.main(&repo).await;
        assert_eq!(rig.hub.history(&repo, main, 0, 1).await?.1, number + 2);
    }
    let main = rig.main(&repo).await;
    let (all, total) = rig.hub.history(&repo, main, 0, 100).await?;
    assert_eq!((all.len(), total), (10, 10));
    assert_eq!((all[0].title.as_str(), all[0].message.as_str()), ("change 8", "because\nof that"));
    assert_eq!((all[1].title.as_str(), all[1].message.as_str()), ("change 7", ""));
    assert_eq!((all[9].title.as_str(), all[9].parents.len()), ("initial commit", 0));
    for (skip, limit) in [(0, 3), (3, 3), (9, 5), (10, 5), (usize::MAX, 5), (0, 0)] {
        let (page, total) = rig.hub.history(&repo, main, skip, limit).await?;
        let expected: Vec<_> = all.iter().skip(skip).take(limit).cloned().collect();
        assert_eq!((page, total), (expected, 10), "{skip} {limit}");
    }
    assert_eq!(rig.hub.history(&repo, all[4].id, 0, 100).await?, (all[4..].to_vec(), 6));
    Ok(())
}

#[tokio::test]
async fn each_path_knows_the_commit_that_last_touched_it() -> Result<()> {
    let (rig, anna, repo) = rig().await;
    let mut commits = Vec::new();
    for (number, changed) in [
        vec!["a", "deep/b", "deep/er/c", "other/x"],
        vec!["deep/b"],
        vec!["new"],
        vec!["deep/er/c", "a"],
        vec!["other/y"],
        vec!["new"],
    ]
    .into_iter()
    .enumerate()
    {
        let mut draft = rig.draft(&anna, &repo).await;
        for name in changed {
            draft.add_file(path(name), format!("{number}").into()).await?;
        }
        commits.push(draft.finish().await?.commit);
    }
    // Back to what it was before: that is a touch, too.
    for content in ["other", "2"] {
        let made = rig.put(&anna, &repo, "back", content).await?;
        commits.push(made.commit);
    }
    let main = rig.main(&repo).await;
    let last = [
        ("a", 3),
        ("deep", 3),
        ("deep/b", 1),
        ("deep/er", 3),
        ("deep/er/c", 3),
        ("other", 4),
        ("other/x", 0),
        ("other/y", 4),
        ("new", 5),
        ("back", 7),
    ];
    let mut ask: Vec<_> = last.map(|(name, _)| path(name)).to_vec();
    ask.push(path("absent"));
    for _ in 0..2 {
        let found = rig.hub.last_commits(&repo, main, &ask).await?;
        assert_eq!(found.len(), last.len());
        for (name, number) in last {
            assert_eq!(found[name].id, commits[number], "{name}");
        }
    }
    let attributes = rig.hub.last_commits(&repo, main, &[path(".gitattributes")]).await?;
    assert_eq!(attributes[".gitattributes"].title, "initial commit");
    let git = Git::of(&rig, &repo).await;
    for (name, number) in last {
        let theirs = git.run(&["log", "-1", "--format=%H", "main", "--", name]);
        assert_eq!(theirs.trim(), commits[number].to_string(), "{name}");
    }
    Ok(())
}

#[tokio::test]
async fn git_applies_our_differences() -> Result<()> {
    let (rig, anna, repo) = rig().await;
    let lines = |from: usize, to: usize| -> String {
        (from..to).fold(String::new(), |text, number| text + &format!("line {number}\n"))
    };
    let states: [&[(&str, Option<String>)]; 5] = [
        &[
            ("text", Some(lines(0, 40))),
            ("gone", Some("old\n".to_owned())),
            ("no end", Some("a\nb".to_owned())),
            ("is/a/file", Some("x\n".to_owned())),
            ("\"quoted\" name", Some("q\n".to_owned())),
        ],
        &[
            ("text", Some(lines(0, 5) + "new\n" + &lines(5, 30) + &lines(32, 40) + "end\n")),
            ("gone", None),
            ("no end", Some("a\nb\n".to_owned())),
            ("new", Some("n\n".to_owned())),
            ("\"quoted\" name", Some("r\n".to_owned())),
        ],
        &[("text", Some(lines(3, 6))), ("no end", Some("b\nc".to_owned())), ("new", None)],
        &[("text", Some(String::new())), ("no end", Some("b\nd".to_owned()))],
        &[("text", Some(lines(0, 2))), ("is/a/file", None), ("is/a", Some("y".to_owned()))],
    ];
    let mut commits = vec![rig.main(&repo).await];
    for state in states {
        let mut draft = rig.draft(&anna, &repo).await;
        for (name, content) in state {
            match content {
                Some(content) => draft.add_file(path(name), content.clone().into()).await?,
                None => draft.delete_file(path(name))?,
            }
        }
        commits.push(draft.finish().await?.commit);
    }
    let git = Git::of(&rig, &repo).await;
    for old in &commits {
        for new in &commits {
            let diff = rig.hub.diff(&repo, Some(*old), *new).await?;
            assert_eq!(diff.is_empty(), old == new);
            git.run(&["read-tree", &old.to_string()]);
            if !diff.is_empty() {
                git.feed(&["apply", "--cached", "--unidiff-zero"], diff.as_bytes());
            }
            let tree = rig.hub.commit(repo.id(), new).await?.tree.to_string();
            assert_eq!(git.run(&["write-tree"]).trim(), tree, "{diff}");
            let theirs = git.run(&["diff", "--numstat", &old.to_string(), &new.to_string()]);
            let ours = rig.hub.compare(&repo, Some(*old), *new).await?;
            assert_eq!(ours.len(), theirs.lines().count());
        }
    }
    Ok(())
}

#[tokio::test]
async fn of_what_is_no_short_text_it_is_said_that_it_differs() -> Result<()> {
    let (rig, anna, repo) = rig().await;
    let before = rig.main(&repo).await;
    rig.put(&anna, &repo, "binary", vec![0, 1, 2]).await?;
    rig.put(&anna, &repo, "long text", "line\n".repeat(200_000)).await?;
    rig.put_large(&anna, &repo, "weights.bin", &splitmix(3, 100_000)).await;
    let diff = rig.hub.diff(&repo, Some(before), rig.main(&repo).await).await?;
    assert!(diff.contains("Binary files /dev/null and b/binary differ\n"), "{diff}");
    assert!(diff.contains("Binary files /dev/null and b/long text differ\n"));
    assert!(diff.contains("+version https://git-lfs.github.com/spec/v1\n+oid sha256:"));
    assert!(diff.len() < 3000);
    Ok(())
}
