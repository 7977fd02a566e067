use ballast_format::log::{RepoChange, TokenRole, Visibility};
use ballast_format::name::RefName;
use ballast_format::object::{EntryMode, Pointer};
use ballast_testkit::clock::SimEnv;
use ballast_testkit::content::{repetitive, splitmix};
use ballast_testkit::fault::{FaultStore, Rates};
use futures_util::future::join_all;
use object_store::memory::InMemory;

use super::*;
use crate::access::{Access, Caller, Repo};
use crate::error::{Error, Result};
use crate::repo::Settings;
use crate::rig::{Git, Rig, header, path, sha256};

mod import;
mod parents;
mod preupload;
mod real_git;

/// Two users; the first has a repo.
async fn rig() -> (Rig, Caller, Repo) {
    let rig = Rig::start().await;
    let anna = rig.user("anna").await;
    let repo = rig.repo(&anna, "anna/model").await;
    (rig, anna, repo)
}

#[tokio::test]
async fn operations_apply_in_the_order_in_which_they_came() -> Result<()> {
    let (rig, anna, repo) = rig().await;
    rig.put(&anna, &repo, "a.txt", "one").await?;
    let mut draft = rig.draft(&anna, &repo).await;
    draft.delete_file(path("a.txt"))?;
    draft.add_file(path("a.txt"), "two".into()).await?;
    draft.add_file(path("b.txt"), "b".into()).await?;
    draft.delete_file(path("b.txt"))?;
    draft.add_file(path("deep/er/c.txt"), "c".into()).await?;
    draft.copy(path("deep/er/c.txt"), path("deep/d.txt"))?;
    draft.rename(path("deep/er/c.txt"), path("e.txt"))?;
    draft.delete_folder(path("deep"))?;
    assert!(draft.finish().await?.changed);
    assert_eq!(rig.paths(&repo).await, [".gitattributes", "a.txt", "e.txt"]);
    assert_eq!(rig.text(&repo, "a.txt").await, "two");
    assert_eq!(rig.text(&repo, "e.txt").await, "c");
    Ok(())
}

#[tokio::test]
async fn what_is_not_there_cannot_be_deleted() -> Result<()> {
    let (rig, anna, repo) = rig().await;
    rig.put(&anna, &repo, "folder/a.txt", "one").await?;
    let tip = rig.main(&repo).await;
    let mut failures = Vec::new();
    for (name, folder) in
        [("b.txt", false), ("folder", false), ("folder/a.txt", true), ("folder/a.txt/x", false)]
    {
        let mut draft = rig.draft(&anna, &repo).await;
        if folder {
            draft.delete_folder(path(name))?;
        } else {
            draft.delete_file(path(name))?;
        }
        failures.push((name, draft.finish().await.expect_err(name)));
    }
    let mut draft = rig.draft(&anna, &repo).await;
    draft.add_file(path("c.txt"), "c".into()).await?;
    draft.delete_file(path("folder/a.txt"))?;
    draft.delete_folder(path("folder"))?;
    failures.push(("folder", draft.finish().await.expect_err("it is empty, and so not there")));
    for (name, failure) in failures {
        let Error::EntryNotFound { path, commit } = &failure else { panic!("{failure}") };
        assert_eq!((path.as_str(), *commit), (name, Some(tip)));
        assert!(failure.to_string().contains("A file with this name doesn't exist"));
    }
    assert_eq!(rig.main(&repo).await, tip);
    Ok(())
}

#[tokio::test]
async fn a_path_is_a_file_or_a_folder() -> Result<()> {
    let (rig, anna, repo) = rig().await;
    rig.put(&anna, &repo, "a/b/c.txt", "c").await?;
    for (name, words) in [("a/b", "is a folder"), ("a", "is a folder"), ("a/b/c.txt/d", "a file")] {
        let refused = rig.put(&anna, &repo, name, "x").await.expect_err(name);
        assert!(matches!(&refused, Error::Invalid { reason } if reason.contains(words)), "{name}");
    }
    let mut draft = rig.draft(&anna, &repo).await;
    draft.delete_file(path("a/b/c.txt"))?;
    draft.add_file(path("a"), "now a file".into()).await?;
    draft.finish().await?;
    assert_eq!(rig.paths(&repo).await, [".gitattributes", "a"]);
    let mut draft = rig.draft(&anna, &repo).await;
    draft.delete_file(path("a"))?;
    draft.add_file(path("a/b"), "a folder again".into()).await?;
    draft.finish().await?;
    assert_eq!(rig.paths(&repo).await, [".gitattributes", "a/b"]);
    Ok(())
}

#[tokio::test]
async fn what_changes_nothing_makes_no_commit() -> Result<()> {
    let (rig, anna, repo) = rig().await;
    let first = rig.put(&anna, &repo, "a.txt", "one").await?;
    let stored = rig.stored().await.len();
    let again = rig.put(&anna, &repo, "a.txt", "one").await?;
    assert_eq!(again, Committed { commit: first.commit, pull: None, changed: false });
    let empty = rig.draft(&anna, &repo).await.finish().await?;
    assert_eq!((empty.commit, empty.changed), (first.commit, false));
    assert_eq!(rig.stored().await.len(), stored);
    Ok(())
}

#[tokio::test]
async fn deleting_everything_leaves_an_empty_folder() -> Result<()> {
    let (rig, anna, repo) = rig().await;
    let mut draft = rig.draft(&anna, &repo).await;
    draft.delete_file(path(".gitattributes"))?;
    draft.finish().await?;
    assert_eq!(rig.listing(&repo).await, []);
    rig.put(&anna, &repo, "a.txt", "one").await?;
    assert_eq!(rig.paths(&repo).await, ["a.txt"]);
    Ok(())
}

#[tokio::test]
async fn large_files_get_a_pointer_and_a_line_of_attributes() -> Result<()> {
    let (rig, anna, repo) = rig().await;
    let weights = splitmix(1, 300_000);
    let before = rig.text(&repo, ".gitattributes").await;
    rig.put_large(&anna, &repo, "model.safetensors", &weights).await;
    assert_eq!(rig.text(&repo, ".gitattributes").await, before);
    rig.put_large(&anna, &repo, "odd name[1]", &weights).await;
    let line = "/odd[[:space:]]name\\[1] filter=lfs diff=lfs merge=lfs -text\n";
    assert_eq!(rig.text(&repo, ".gitattributes").await, format!("{before}{line}"));
    let mut draft = rig.draft(&anna, &repo).await;
    draft.rename(path("model.safetensors"), path("weights/first"))?;
    draft.copy(path("odd name[1]"), path("weights/second.bin"))?;
    draft.finish().await?;
    let after = rig.text(&repo, ".gitattributes").await;
    let added = "weights/first filter=lfs diff=lfs merge=lfs -text\n";
    assert_eq!(after, format!("{before}{line}{added}"));
    for name in ["odd name[1]", "weights/first", "weights/second.bin"] {
        assert_eq!(rig.read(&repo, name).await?, weights, "{name}");
        let item = rig.hub.item(&repo, rig.main(&repo).await, &path(name)).await?;
        let large = item.large.expect("it is large");
        assert_eq!((large.sha256, large.size), (sha256(&weights), 300_000));
        let pointer = rig.hub.raw_blob(&repo, &item, 1024).await?;
        assert_eq!(large.pointer_size, pointer.len() as u64);
        let says = Pointer { sha256: sha256(&weights), size: 300_000 };
        assert_eq!(Pointer::parse(&pointer), Some(says));
    }
    Ok(())
}

#[tokio::test]
async fn attributes_of_the_same_commit_count() -> Result<()> {
    let (rig, anna, repo) = rig().await;
    let weights = splitmix(2, 100_000);
    let sha256 = rig.upload(&anna, &repo, &weights).await;
    let mut draft = rig.draft(&anna, &repo).await;
    draft.add_large(path("a.weights"), sha256, None).await?;
    draft.add_file(path(".gitattributes"), "*.weights filter=lfs".into()).await?;
    draft.add_large(path("b.other"), sha256, None).await?;
    // What was deleted or replaced in the end gets no line.
    draft.add_large(path("c.other"), sha256, None).await?;
    draft.add_large(path("d.other"), sha256, None).await?;
    draft.delete_file(path("c.other"))?;
    draft.add_file(path("d.other"), "small".into()).await?;
    draft.finish().await?;
    let text = rig.text(&repo, ".gitattributes").await;
    assert_eq!(text, "*.weights filter=lfs\n/b.other filter=lfs diff=lfs merge=lfs -text\n");
    assert_eq!(rig.read(&repo, "a.weights").await?, weights);
    assert_eq!(rig.text(&repo, "d.other").await, "small");
    Ok(())
}

#[tokio::test]
async fn a_large_file_must_be_known_to_the_caller_and_have_its_size() -> Result<()> {
    let (rig, anna, repo) = rig().await;
    let bert = rig.user("bert").await;
    let secret = rig.repo_with(&bert, "bert/secret", Visibility::Private).await;
    let weights = splitmix(3, 200_000);
    rig.put_large(&bert, &secret, "weights.bin", &weights).await;
    let mut draft = rig.draft(&anna, &repo).await;
    // Another's private file and no file at all are the same (R17).
    for sha256 in [sha256(&weights), sha256(b"never sent")] {
        let refused = draft.add_large(path("stolen.bin"), sha256, Some(200_000)).await;
        let Err(Error::Invalid { reason }) = refused else { panic!("{refused:?}") };
        assert!(reason.contains("`stolen.bin`") && reason.contains(&sha256.to_string()));
        let pointer = Pointer { sha256, size: 200_000 }.encode();
        let refused = draft.add_file(path("stolen.bin"), pointer.into()).await;
        assert!(matches!(refused, Err(Error::Invalid { .. })), "{refused:?}");
    }
    let own = rig.upload(&anna, &repo, b"anna's own").await;
    let refused = draft.add_large(path("own.bin"), own, Some(11)).await;
    assert!(matches!(&refused, Err(Error::Invalid { reason }) if reason.contains("10 bytes")));
    draft.add_large(path("own.bin"), own, Some(10)).await?;
    draft.finish().await?;
    assert_eq!(rig.text(&repo, "own.bin").await, "anna's own");
    Ok(())
}

#[tokio::test]
async fn contents_are_written_as_packs_and_once_each() -> Result<()> {
    let (rig, anna, repo) = rig().await;
    let mut draft = rig.draft(&anna, &repo).await;
    let contents: Vec<Vec<u8>> = (0..20).map(|seed| splitmix(seed, 1 << 20)).collect();
    for (number, content) in contents.iter().enumerate() {
        for copy in ["a", "b"] {
            draft.add_file(path(&format!("{copy}/{number}")), content.clone().into()).await?;
        }
    }
    draft.finish().await?;
    for (number, content) in contents.iter().enumerate() {
        assert_eq!(rig.read(&repo, &format!("b/{number}")).await?, *content, "{number}");
    }
    let stored = || async {
        let stored = rig.stored().await;
        stored.iter().map(|meta| meta.size).sum::<u64>()
    };
    let before = stored().await;
    assert!((20 << 20..21 << 20).contains(&before), "{before}");
    let mut draft = rig.draft(&anna, &repo).await;
    draft.add_file(path("c"), contents[3].clone().into()).await?;
    draft.finish().await?;
    assert!(stored().await - before < 10_000, "what the repo has is not stored again");
    Ok(())
}

#[tokio::test]
async fn drafts_that_find_no_memory_write_at_once() -> Result<()> {
    let (rig, anna, repo) = rig().await;
    let buffers = &rig.hub.uploads.commits.buffers;
    let mut waiting = rig.draft(&anna, &repo).await;
    waiting.add_file(path("waits"), splitmix(1, 1 << 20).into()).await?;
    assert_eq!((buffers.available_permits(), waiting.spool.packs().len()), (BUFFER_KIB - 1024, 0));
    let others = buffers
        .try_acquire_many(u32::try_from(BUFFER_KIB).expect("small") - 1024)
        .expect("what is left");
    let mut hurried = rig.draft(&anna, &repo).await;
    for seed in 2..4 {
        hurried.add_file(path(&seed.to_string()), splitmix(seed, 1000).into()).await?;
    }
    assert_eq!((hurried.spool.waiting_count(), hurried.spool.packs().len()), (0, 2));
    hurried.finish().await?;
    drop(others);
    waiting.finish().await?;
    assert_eq!(buffers.available_permits(), BUFFER_KIB);
    assert_eq!(rig.paths(&repo).await, [".gitattributes", "2", "3", "waits"]);
    assert_eq!(rig.read(&repo, "3").await?, splitmix(3, 1000));
    Ok(())
}

#[tokio::test]
async fn a_draft_that_is_dropped_or_fails_leaves_nothing_to_find() -> Result<()> {
    let (rig, anna, repo) = rig().await;
    let before = rig.git_objects(&repo).await;
    let tip = rig.main(&repo).await;
    let mut dropped = rig.draft(&anna, &repo).await;
    let mut failing = rig.draft(&anna, &repo).await;
    for seed in 0..10 {
        let content = splitmix(seed, 1 << 20);
        dropped.add_file(path(&format!("{seed}")), content.clone().into()).await?;
        failing.add_file(path(&format!("{seed}")), content.into()).await?;
    }
    drop(dropped);
    failing.delete_file(path("absent"))?;
    assert!(matches!(failing.finish().await, Err(Error::EntryNotFound { .. })));
    assert_eq!(rig.git_objects(&repo).await, before);
    assert_eq!(rig.main(&repo).await, tip);
    let another = rig.another().await;
    let state = another.repo_state(&repo).await?;
    assert_eq!(state.main(), Some(tip));
    let orphan = another.object_row(repo.id(), &blob_of(&splitmix(1, 1 << 20))).await?;
    assert_eq!(orphan, None, "a pack that no log names is no repo's");
    Ok(())
}

fn blob_of(content: &[u8]) -> ballast_format::hash::ObjectHash {
    use ballast_format::object::{ObjectKind, hash_object};
    hash_object(ObjectKind::Blob, content).expect("a hash")
}

#[tokio::test]
async fn more_than_a_commit_may_have_is_refused() -> Result<()> {
    let (rig, anna, repo) = rig().await;
    let mut draft = rig.draft(&anna, &repo).await;
    let big = vec![0; (10 << 20) + 1];
    let refused = draft.add_file(path("big"), big.into()).await;
    assert!(matches!(refused, Err(Error::TooLarge { .. })));
    let refused = draft.add_file(path(".gitattributes"), vec![b'a'; 5 << 20].into()).await;
    assert!(matches!(refused, Err(Error::TooLarge { .. })));
    for seed in 0..15 {
        draft.add_file(path("a"), splitmix(seed, 10 << 20).into()).await?;
    }
    let refused = draft.add_file(path("a"), splitmix(99, 10 << 20).into()).await;
    assert!(matches!(refused, Err(Error::TooLarge { .. })), "over 150 MiB in all");

    let mut draft = rig.draft(&anna, &repo).await;
    for number in 0..25_000 {
        draft.delete_file(path(&number.to_string()))?;
    }
    assert!(matches!(draft.delete_file(path("x")), Err(Error::TooLarge { .. })));
    let refused = draft.add_file(path("x"), "x".into()).await;
    assert!(matches!(refused, Err(Error::TooLarge { .. })));

    let mut long = header();
    long.description = "x".repeat(70_000);
    let refused = rig.hub.begin_commit(&anna, repo.clone(), long).await.err();
    assert!(matches!(refused, Some(Error::Invalid { .. })));
    let empty = CommitHeader { summary: " ".to_owned(), ..header() };
    let refused = rig.hub.begin_commit(&anna, repo.clone(), empty).await.err();
    assert!(matches!(refused, Some(Error::Invalid { .. })));
    Ok(())
}

#[tokio::test]
async fn a_file_that_may_be_run_stays_so_and_a_link_does_not() -> Result<()> {
    let (rig, _, repo) = rig().await;
    let hub = &rig.hub;
    let mut folder = folder::Folder::default();
    let id = blob_of(b"");
    let file = |mode| folder::File { id, mode };
    for (name, mode) in [("run", EntryMode::Executable), ("link", EntryMode::Symlink)] {
        folder.put(hub, repo.id(), &path(name), file(mode)).await?;
        folder.put(hub, repo.id(), &path(name), file(EntryMode::File)).await?;
    }
    let mode = |found: Option<folder::File>| found.map(|file| file.mode);
    assert_eq!(mode(folder.get(hub, repo.id(), &path("run")).await?), Some(EntryMode::Executable));
    assert_eq!(mode(folder.get(hub, repo.id(), &path("link")).await?), Some(EntryMode::File));
    Ok(())
}

#[tokio::test]
async fn a_squashed_branch_has_one_commit_with_the_same_files() -> Result<()> {
    let (rig, anna, repo) = rig().await;
    rig.put_large(&anna, &repo, "weights.bin", &splitmix(4, 100_000)).await;
    rig.put(&anna, &repo, "a.txt", "one").await?;
    let (before, old) = (rig.listing(&repo).await, rig.main(&repo).await);
    let new = rig.hub.squash(&anna, &repo, &RefName::main(), "all of it").await?;
    assert_eq!((rig.main(&repo).await, rig.listing(&repo).await), (new, before));
    let (history, total) = rig.hub.history(&repo, new, 0, 10).await?;
    assert_eq!((history.len(), total), (1, 1));
    assert_eq!((history[0].title.as_str(), history[0].author.as_str()), ("all of it", "anna"));
    assert_eq!(rig.hub.resolve(&repo, &old.to_string()).await?.commit, old);
    let reader = rig.token("anna", TokenRole::Read).await;
    let refused = rig.hub.squash(&reader, &repo, &RefName::main(), "no").await;
    assert!(matches!(refused, Err(Error::Denied { .. })));
    Ok(())
}

#[tokio::test]
async fn an_index_that_is_made_anew_knows_the_same() -> Result<()> {
    let (rig, anna, repo) = rig().await;
    rig.put_large(&anna, &repo, "deep/weights.bin", &splitmix(5, 400_000)).await;
    rig.put(&anna, &repo, "a.txt", "one").await?;
    let mut proposal = header();
    proposal.create_pull = true;
    let mut draft = rig.hub.begin_commit(&anna, repo.clone(), proposal).await?;
    draft.add_file(path("b.txt"), repetitive(1, 5000).into()).await?;
    let pull = draft.finish().await?;
    let another = rig.another().await;
    for commit in [rig.main(&repo).await, pull.commit] {
        let page = |hub: Arc<crate::hub::Hub>| {
            let repo = repo.clone();
            async move { hub.tree_page(&repo, commit, None, true, None, 100).await }
        };
        assert_eq!(page(Arc::clone(&another)).await?, page(Arc::clone(&rig.hub)).await?);
        let history = another.history(&repo, commit, 0, 10).await?;
        assert_eq!(history, rig.hub.history(&repo, commit, 0, 10).await?);
    }
    assert_eq!(another.files_of(&repo).await?, rig.hub.files_of(&repo).await?);
    Ok(())
}

#[tokio::test]
async fn lost_answers_make_no_commit_twice_and_lose_none() {
    for seed in 0..12 {
        let faulty = FaultStore::new(Arc::new(InMemory::new()), seed);
        let env = SimEnv::hasty(seed);
        let rig = Rig::over(Arc::clone(&faulty) as _, env).await;
        let anna = rig.user("anna").await;
        let repo = rig.repo(&anna, "anna/model").await;
        faulty.set_rates(Rates { refused: 100, reply_lost: 200, ..Rates::default() });
        let mut acknowledged = Vec::new();
        for number in 0..15 {
            let name = format!("{number}.txt");
            let content = format!("content {number}");
            match rig.put(&anna, &repo, &name, content).await {
                Ok(committed) => acknowledged.push((name, committed.commit)),
                Err(error) => assert!(
                    matches!(error.kind(), ballast_format::ErrorKind::Unavailable),
                    "seed {seed}: {error}"
                ),
            }
        }
        faulty.set_rates(Rates::default());
        assert!(acknowledged.len() > 3, "seed {seed}");
        for hub in [Arc::clone(&rig.hub), rig.another().await] {
            let main = hub.repo_state(&repo).await.expect("the log").main().expect("main");
            let (history, _) = hub.history(&repo, main, 0, 100).await.expect("the history");
            for (name, commit) in &acknowledged {
                let times = history.iter().filter(|view| view.id == *commit).count();
                assert_eq!(times, 1, "seed {seed}: {name}");
                let item = hub.item(&repo, main, &path(name)).await;
                assert!(item.is_ok(), "seed {seed}: {name}");
            }
            let files = hub.siblings(&repo, main).await.expect("the listing").len();
            // The first commit, and one for each file that is there.
            assert_eq!(files, history.len(), "seed {seed}: a commit was made twice");
        }
    }
}

#[tokio::test]
async fn who_may_not_write_may_not_commit() -> Result<()> {
    let (rig, anna, repo) = rig().await;
    let bert = rig.user("bert").await;
    let reader = rig.token("anna", TokenRole::Read).await;
    for caller in [&bert, &reader] {
        let refused = rig.hub.begin_commit(caller, repo.clone(), header()).await.err();
        assert!(matches!(refused, Some(Error::Denied { .. })));
    }
    let nobody = rig.hub.begin_commit(&Caller::Anonymous, repo.clone(), header()).await.err();
    assert!(matches!(nobody, Some(Error::LoginNeeded)));
    let disabled = Settings { disabled: Some(true), ..Settings::default() };
    rig.hub.change_settings(&rig.admin, &repo, &disabled).await?;
    let repo = rig.repo_for(&anna, &repo);
    let refused = rig.hub.begin_commit(&anna, repo, header()).await.err();
    assert!(matches!(refused, Some(Error::Disabled)));
    Ok(())
}

#[tokio::test]
async fn a_commit_to_a_branch_that_is_not_there_is_refused() -> Result<()> {
    let (rig, anna, repo) = rig().await;
    for revision in ["nowhere", "refs/pr/1", "refs/tags/v1", "v1", ""] {
        let tag = RefName::tag("v1")?;
        rig.hub.create_ref(&anna, &repo, &tag, rig.main(&repo).await, true).await?;
        let header = CommitHeader { revision: revision.to_owned(), ..header() };
        let refused = rig.hub.begin_commit(&anna, repo.clone(), header).await.err();
        assert!(matches!(refused, Some(Error::RevisionNotFound { .. })), "{revision}");
    }
    let branch = RefName::branch("feature/x")?;
    rig.hub.create_ref(&anna, &repo, &branch, rig.main(&repo).await, false).await?;
    for revision in ["feature/x", "refs/heads/feature/x"] {
        let header = CommitHeader { revision: revision.to_owned(), ..header() };
        let mut draft = rig.hub.begin_commit(&anna, repo.clone(), header).await?;
        draft.add_file(path(&revision.replace('/', "-")), "x".into()).await?;
        let committed = draft.finish().await?;
        assert_eq!(rig.hub.resolve(&repo, "feature/x").await?.commit, committed.commit);
    }
    assert_eq!(rig.paths(&repo).await, [".gitattributes"]);
    Ok(())
}
