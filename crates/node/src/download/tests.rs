use ballast_format::hash::ObjectHash;
use ballast_format::name::RefName;
use ballast_testkit::content::splitmix;
use futures_util::TryStreamExt as _;
use proptest::prelude::*;

use super::*;
use crate::access::{Caller, Repo};
use crate::error::Error;
use crate::rig::{Rig, header, path};
use crate::upload::commit::CommitHeader;

mod changes;

async fn rig() -> (Rig, Caller, Repo) {
    let rig = Rig::start().await;
    let anna = rig.user("anna").await;
    let repo = rig.repo(&anna, "anna/model").await;
    (rig, anna, repo)
}

/// Commits these files, each with its path as content.
async fn put_all(rig: &Rig, caller: &Caller, repo: &Repo, paths: &[&str]) -> Result<ObjectHash> {
    let mut draft = rig.draft(caller, repo).await;
    for name in paths {
        draft.add_file(path(name), (*name).to_owned().into()).await?;
    }
    Ok(draft.finish().await?.commit)
}

#[tokio::test]
async fn a_revision_is_a_branch_a_tag_a_full_ref_or_a_commit() -> Result<()> {
    let (rig, anna, repo) = rig().await;
    let first = rig.main(&repo).await;
    let second = put_all(&rig, &anna, &repo, &["a"]).await?;
    for (name, commit) in [
        (RefName::branch("old")?, first),
        (RefName::branch("feature/x/y")?, first),
        (RefName::tag("both")?, first),
        (RefName::branch("both")?, second),
        (RefName::tag("v1.0")?, first),
    ] {
        rig.hub.create_ref(&anna, &repo, &name, commit, false).await?;
    }
    let hex = first.to_string();
    for (revision, commit, reference) in [
        ("main", second, Some("refs/heads/main")),
        ("refs/heads/main", second, Some("refs/heads/main")),
        ("both", second, Some("refs/heads/both")),
        ("refs/tags/both", first, Some("refs/tags/both")),
        ("v1.0", first, Some("refs/tags/v1.0")),
        ("feature/x/y", first, Some("refs/heads/feature/x/y")),
        (&hex, first, None),
        (&hex.to_uppercase(), first, None),
    ] {
        let found = rig.hub.resolve(&repo, revision).await?;
        let name = found.reference.as_ref().map(RefName::as_str);
        assert_eq!((found.commit, name), (commit, reference), "{revision}");
    }
    let tree = rig.hub.commit(repo.id(), &first).await?.tree.to_string();
    for revision in ["", "nowhere", &"0".repeat(40), &tree, &hex[..10], "refs/pr/1", "a b", "\u{7}"]
    {
        let refused = rig.hub.resolve(&repo, revision).await;
        assert!(matches!(refused, Err(Error::RevisionNotFound { .. })), "{revision}");
    }
    let long = rig.hub.resolve(&repo, &"x".repeat(5000)).await;
    assert!(matches!(long, Err(Error::RevisionNotFound { revision }) if revision.len() == 100));
    Ok(())
}

#[tokio::test]
async fn a_commit_of_another_repo_is_no_revision() -> Result<()> {
    let (rig, anna, repo) = rig().await;
    let other = rig.repo(&anna, "anna/other").await;
    let commit = put_all(&rig, &anna, &other, &["a"]).await?;
    rig.hub.item(&other, commit, &path("a")).await?;
    let refused = rig.hub.resolve(&repo, &commit.to_string()).await;
    assert!(matches!(refused, Err(Error::RevisionNotFound { .. })));
    assert_eq!(rig.hub.resolve(&other, &commit.to_string()).await?.commit, commit);
    Ok(())
}

#[tokio::test]
async fn the_longest_ref_that_a_path_begins_with_is_meant() -> Result<()> {
    let (rig, anna, repo) = rig().await;
    let first = rig.main(&repo).await;
    let proposal = CommitHeader { create_pull: true, ..header() };
    let mut draft = rig.hub.begin_commit(&anna, repo.clone(), proposal).await?;
    draft.add_file(path("p"), "p".into()).await?;
    draft.finish().await?;
    // Git would not have `a` beside `a/b`; nothing here depends on that.
    for name in ["a/b", "a/b/c", "d"] {
        rig.hub.create_ref(&anna, &repo, &RefName::branch(name)?, first, false).await?;
    }
    for (segments, used, revision) in [
        (vec!["a", "b", "c", "file"], 3, "a/b/c"),
        (vec!["a", "b", "x", "file"], 2, "a/b"),
        (vec!["d", "b"], 1, "d"),
        (vec!["a/b", "c"], 2, "a/b/c"),
        (vec!["refs", "pr", "1", "file"], 3, "refs/pr/1"),
        (vec!["refs/pr/1", "file"], 1, "refs/pr/1"),
        (vec!["refs", "heads", "main"], 3, "refs/heads/main"),
    ] {
        let owned: Vec<String> = segments.iter().map(ToString::to_string).collect();
        let (_, took, text) = rig.hub.resolve_longest(&repo, &owned).await?;
        assert_eq!((took, text.as_str()), (used, revision), "{segments:?}");
    }
    for segments in [vec![], vec!["a".to_owned(), "x".to_owned()]] {
        let refused = rig.hub.resolve_longest(&repo, &segments).await;
        assert!(matches!(refused, Err(Error::RevisionNotFound { .. })));
    }
    Ok(())
}

/// Folders beside files whose names sort between them and their slash.
const PATHS: &[&str] =
    &["a-b", "a.txt", "a/1", "a/b/2", "a/b/3", "a/b.txt", "a0", "b/c/d/e/f/g", "z", "ä/ö", "b c/d"];

#[tokio::test]
async fn pages_of_any_size_make_the_whole_listing() -> Result<()> {
    let (rig, anna, repo) = rig().await;
    let commit = put_all(&rig, &anna, &repo, PATHS).await?;
    for (folder, recursive, count) in
        [(None, true, 21), (None, false, 9), (Some("a"), true, 5), (Some("a"), false, 3)]
    {
        let folder = folder.map(path);
        let page = |after: Option<String>, limit| {
            let (hub, repo, at) = (&rig.hub, &repo, folder.as_ref());
            async move { hub.tree_page(repo, commit, at, recursive, after.as_deref(), limit).await }
        };
        let whole = page(None, 1000).await?;
        assert_eq!((whole.items.len(), &whole.next), (count, &None));
        for limit in 1..=count {
            let (mut after, mut joined, mut pages) = (None, Vec::new(), 0);
            loop {
                let part = page(after, limit).await?;
                assert!(part.items.len() <= limit && !part.items.is_empty());
                joined.extend(part.items);
                pages += 1;
                after = part.next;
                if after.is_none() {
                    break;
                }
            }
            assert_eq!((&joined, pages), (&whole.items, count.div_ceil(limit)), "{limit}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_cursor_belongs_to_its_listing() -> Result<()> {
    let (rig, anna, repo) = rig().await;
    let commit = put_all(&rig, &anna, &repo, PATHS).await?;
    let (a, hub) = (path("a"), &rig.hub);
    for (folder, recursive, cursor) in [
        (None, true, "nowhere"),
        (None, true, ""),
        (None, true, "a.txt/b"),
        (None, false, "a/1"),
        (Some(&a), true, "z"),
        (Some(&a), true, "a"),
        (Some(&a), true, "a/"),
    ] {
        let refused = hub.tree_page(&repo, commit, folder, recursive, Some(cursor), 10).await;
        assert!(matches!(refused, Err(Error::Invalid { .. })), "{cursor}");
    }
    let after_last = hub.tree_page(&repo, commit, None, true, Some("ä/ö"), 10).await?;
    assert_eq!(after_last, Page { items: Vec::new(), next: None });
    for absent in ["nowhere", "a.txt", "a/1/x"] {
        let refused = hub.tree_page(&repo, commit, Some(&path(absent)), true, None, 10).await;
        let Err(Error::EntryNotFound { path, commit: at }) = refused else { panic!("{absent}") };
        assert_eq!((path.as_str(), at), (absent, Some(commit)));
    }
    Ok(())
}

#[tokio::test]
async fn items_are_found_by_path_and_the_same_the_second_time() -> Result<()> {
    let (rig, anna, repo) = rig().await;
    let weights = splitmix(1, 150_000);
    rig.put_large(&anna, &repo, "w/model.bin", &weights).await;
    let commit = put_all(&rig, &anna, &repo, PATHS).await?;
    for item in rig.listing(&repo).await {
        for _ in 0..2 {
            assert_eq!(*rig.hub.item(&repo, commit, &path(&item.path)).await?, item);
        }
    }
    assert_eq!(rig.hub.item(&repo, commit, &path("b")).await?.kind, ItemKind::Directory);
    for absent in ["a/c", "a0/x", "A.TXT", "w/model.bin/x"] {
        let refused = rig.hub.item(&repo, commit, &path(absent)).await;
        assert!(matches!(refused, Err(Error::EntryNotFound { .. })), "{absent}");
    }
    let ask = ["w/model.bin", "nowhere", "a", "w/model.bin"].map(path);
    let items = rig.hub.items(&repo, commit, &ask).await?;
    let sizes: Vec<u64> = items.iter().map(|item| item.size).collect();
    assert_eq!(sizes, [150_000, 0, 150_000]);
    Ok(())
}

#[tokio::test]
async fn ranges_of_small_and_large_files_are_their_bytes() -> Result<()> {
    let (rig, anna, repo) = rig().await;
    let weights = splitmix(2, 500_000);
    rig.put_large(&anna, &repo, "large.bin", &weights).await;
    rig.put(&anna, &repo, "small.txt", weights[..70_000].to_vec()).await?;
    rig.put(&anna, &repo, "empty.txt", "").await?;
    let main = rig.main(&repo).await;
    for (name, whole) in
        [("large.bin", &weights[..]), ("small.txt", &weights[..70_000]), ("empty.txt", &[])]
    {
        let item = rig.hub.item(&repo, main, &path(name)).await?;
        let size = whole.len();
        for (start, end) in [(0, size), (0, 1), (1, 66_000), (69_999, 70_001), (size, size + 5)] {
            let pieces = rig.hub.open_item(&repo, &item, start as u64..end as u64).await?;
            let pieces: Vec<Bytes> = pieces.try_collect().await?;
            let expected = whole.get(start..end.min(size)).unwrap_or_default();
            assert_eq!(pieces.concat(), expected, "{name} {start}..{end}");
        }
    }
    Ok(())
}

/// R4.
#[tokio::test]
async fn a_damaged_object_is_refused_and_another_copy_of_its_pack_read() -> Result<()> {
    use ballast_store::keyspace::Key;
    use object_store::ObjectStoreExt as _;
    let (rig, anna, repo) = rig().await;
    rig.put(&anna, &repo, "a.txt", "precious words").await?;
    let main = rig.main(&repo).await;
    let item = rig.hub.item(&repo, main, &path("a.txt")).await?;
    let row = rig.hub.object_row(repo.id(), &item.id).await?.expect("it is there");
    let sound = rig.objects.get(&Key::Copy(row.pack).path()).await.expect("it is there");
    let mut bytes = sound.bytes().await.expect("it is read").to_vec();
    let good = bytes.clone();
    bytes[usize::try_from(row.offset).expect("small")] ^= 1;
    rig.objects.put(&Key::Copy(row.pack).path(), bytes.into()).await.expect("it is damaged");
    let refused = rig.read(&repo, "a.txt").await;
    assert!(matches!(refused, Err(Error::Corrupt { .. })));
    let another = rig.hub.store().new_copy(row.pack.kind, row.pack.hash, row.pack.epoch);
    rig.objects.put(&Key::Copy(another).path(), good.into()).await.expect("another copy");
    assert_eq!(rig.text(&repo, "a.txt").await, "precious words");
    rig.objects.delete(&Key::Copy(row.pack).path()).await.expect("the damaged one goes");
    assert_eq!(rig.text(&repo, "a.txt").await, "precious words");
    rig.objects.delete(&Key::Copy(another).path()).await.expect("the other goes too");
    let refused = rig.read(&repo, "a.txt").await;
    assert!(matches!(refused, Err(Error::Corrupt { .. })));
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn an_entry_is_found_in_gits_order(
        names in prop::collection::btree_map("[a-c.-]{1,4}", any::<bool>(), 0..20),
    ) {
        use ballast_format::object::{EntryMode, Tree, TreeEntry};
        let mut tree = Tree::default();
        for (name, is_folder) in &names {
            let name = name.clone();
            let mode = if *is_folder { EntryMode::Directory } else { EntryMode::File };
            tree.insert(TreeEntry { name, mode, id: ObjectHash::ZERO });
        }
        for name in names.keys() {
            let name = name.clone();
            let found = tree::position(&tree, &name).map(|index| tree.entries[index].name.clone());
            prop_assert_eq!(found, Some(name));
        }
        for absent in ["", "d", "a", "b.", "c-"] {
            let found = tree::position(&tree, absent).is_some();
            prop_assert_eq!(found, tree.get(absent).is_some());
        }
    }
}
