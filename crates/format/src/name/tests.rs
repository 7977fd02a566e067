use proptest::prelude::*;

use super::*;

#[test]
fn repo_names_follow_the_public_hubs_rules() {
    let longest = format!("{0}/{0}", "b".repeat(96));
    for good in ["a/b", "Org-1/my_model.v2", "_a_/b_-_c", "a/b.c-d", "a/git", "a/x.gitx", &longest]
    {
        assert!(RepoName::parse(good).is_ok(), "{good}");
    }
    let long = format!("a/{}", "b".repeat(97));
    for bad in [
        "", "/", "a", "a/", "/b", "a/b/c", "a/-b", "a/b-", "a/.b", "a/b.", "a/b--c", "a/b..c",
        "a/b.git", "a/b.GIT", "a.git/b", "a/b c", "a/ü", "a/b\0", "../b", "a/%62", "a/b\n", &long,
    ] {
        assert!(RepoName::parse(bad).is_err(), "{bad}");
    }
}

#[test]
fn names_of_nodes_are_parts_of_the_names_of_hosts() {
    for good in ["a", "gpu-1", "10.0.0.1", &"x".repeat(63)] {
        assert_eq!(NodeName::parse(good).expect("valid").to_string(), good);
    }
    for bad in ["", "A", "a/b", "a b", "ä", "a_b", "a\n", &"x".repeat(64)] {
        assert!(NodeName::parse(bad).is_err(), "{bad}");
    }
}

#[test]
fn names_that_differ_in_case_alone_are_the_same_when_folded() {
    let name: RepoName = "Aa/Bb".parse().expect("valid");
    assert_eq!(name.to_string(), "Aa/Bb");
    assert_eq!(name.folded(), "aa/bb");
    assert_eq!((name.namespace().as_str(), name.name()), ("Aa", "Bb"));
    assert_eq!(name.namespace().folded(), "aa");
    assert_eq!(RepoName::new(name.namespace().clone(), "Bb").expect("valid"), name);
    assert!(RepoName::new(name.namespace().clone(), "b/c").is_err());
}

#[test]
fn kinds_are_found_by_each_of_their_names() {
    for kind in RepoKind::ALL {
        assert_eq!(RepoKind::from_plural(kind.plural()), Some(kind));
        assert_eq!(RepoKind::from_singular(kind.singular()), Some(kind));
        assert_eq!(RepoKind::from_byte(kind.to_byte()), Some(kind));
    }
    assert_eq!(RepoKind::from_plural("model"), None);
    assert_eq!(RepoKind::from_byte(3), None);
}

#[test]
fn refs_follow_gits_rules() {
    for good in ["main", "feature/x", "v1.0", "a@b", "x/@", "ü", "a{", "a-b", "lock", "a.locks"] {
        assert!(RefName::branch(good).is_ok(), "{good}");
        assert!(RefName::tag(good).is_ok(), "{good}");
    }
    let long = "a".repeat(250);
    for bad in [
        "", "a b", "a..b", "a~1", "a^", "a:b", "a?", "a*", "a[", "a\\b", ".a", "a/.b", "a.lock",
        "a.lock/b", "a/", "/a", "a//b", "a.", "a@{0}", "a\x7f", "a\tb", "a\0", &long,
    ] {
        assert!(RefName::branch(bad).is_err(), "{bad}");
        assert!(RefName::tag(bad).is_err(), "{bad}");
    }
}

#[test]
fn refs_are_in_one_of_four_places() {
    for bad in [
        "",
        "main",
        "refs",
        "refs/",
        "refs/heads",
        "refs/heads/",
        "refs/pr/x",
        "refs/pr/0",
        "refs/pr/01",
        "refs/pr/+1",
        "refs/pr/1/x",
        "refs/pr/4294967296",
        "refs/notes/x",
        "HEAD",
        "Refs/heads/x",
        "refs/HEADS/x",
    ] {
        assert!(RefName::parse(bad).is_err(), "{bad}");
    }
    let parse = |text| RefName::parse(text).expect("valid");
    let main = RefName::main();
    assert_eq!((main.as_str(), main.short(), main.is_branch()), ("refs/heads/main", "main", true));
    assert_eq!(RefName::branch("main").expect("valid"), main);
    let tag = RefName::tag("v/1").expect("valid");
    assert_eq!((tag.as_str(), tag.short(), tag.is_tag()), ("refs/tags/v/1", "v/1", true));
    assert_eq!(parse("refs/pr/7"), RefName::pull(7));
    assert_eq!((RefName::pull(7).pull_number(), RefName::pull(7).short()), (Some(7), "refs/pr/7"));
    let conversion = parse("refs/convert/parquet");
    assert!(!conversion.is_branch() && !conversion.is_tag() && conversion.pull_number().is_none());
}

#[test]
fn no_branch_or_tag_is_taken_for_a_commit_an_option_or_the_head() {
    let commit = "ce013625030ba8dba906f756967f9e9ca394464a";
    for bad in [commit, &commit.to_uppercase(), "-x", "--force", "HEAD", "@"] {
        assert!(RefName::branch(bad).is_err(), "{bad}");
        assert!(RefName::tag(bad).is_err(), "{bad}");
        assert!(RefName::branch(&format!("x/{bad}")).is_ok(), "{bad}");
    }
    assert!(RefName::branch(&commit[1..]).is_ok());
    assert!(RefName::branch(&format!("{commit}0")).is_ok());
}

#[test]
fn paths_that_anything_reads_as_special_are_refused() {
    for good in [
        "a",
        "a/b.txt",
        "ümlaut/ß",
        ".gitattributes",
        ".github/x",
        "git",
        "a b",
        "...a",
        "a.",
        " a",
        "git~2",
        ".git2",
        "x.git",
        "模型/权重.safetensors",
        "👩\u{200d}🔬.md",
        "a:b",
    ] {
        assert!(FilePath::parse(good).is_ok(), "{good}");
    }
    for bad in [
        "", "/", "/a", "a/", "a//b", ".", "..", "a/../b", "a/./b", "...", "a/.. /b", " ", ". .",
        "a\\b", "a\nb", "a\0", "a\x7f", "a\u{85}", "u\u{308}", "..:x",
    ] {
        assert!(FilePath::parse(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn every_spelling_of_gits_own_folder_is_refused() {
    for bad in [
        ".git",
        ".GIT",
        ".Git",
        ".git.",
        ".git ",
        ".git. . ",
        "git~1",
        "GIT~1",
        "git~1.",
        ".git::$INDEX_ALLOCATION",
        ".git:x",
        "git~1:x",
        ".g\u{200c}it",
        "\u{feff}.git",
        ".git\u{200b}",
        ".gi\u{ad}t",
        ".git\u{e0020}",
        ".g\u{2060}it",
        ".g\u{fe0f}it",
        ".\u{200d}.",
        ".git\u{200e}. ",
    ] {
        for path in [bad.to_owned(), format!("{bad}/config"), format!("a/{bad}/b")] {
            assert!(FilePath::parse(&path).is_err(), "{path:?}");
        }
    }
}

#[test]
fn paths_have_limits_in_bytes_and_in_depth() {
    let part = "a".repeat(255);
    assert!(FilePath::parse(&part).is_ok());
    assert!(FilePath::parse(&format!("{part}a")).is_err());
    assert!(FilePath::parse(&"ü".repeat(128)).is_err());
    assert!(FilePath::parse(&vec!["a"; 64].join("/")).is_ok());
    assert!(FilePath::parse(&vec!["a"; 65].join("/")).is_err());
    let longest = format!("a/{}", [part.as_str(); 4].join("/"));
    assert_eq!(longest.len(), 1025);
    assert!(FilePath::parse(&longest[1..]).is_err(), "it begins with a slash");
    assert!(FilePath::parse(&longest[2..]).is_ok());
    assert!(FilePath::parse(&longest).is_err());
}

#[test]
fn paths_come_apart() {
    let path: FilePath = "a/b/c.bin".parse().expect("valid");
    assert_eq!(path.name(), "c.bin");
    assert_eq!(path.components().collect::<Vec<_>>(), ["a", "b", "c.bin"]);
    let parent = path.parent().expect("it lies in a folder");
    assert_eq!(parent.as_str(), "a/b");
    assert_eq!(parent.parent().and_then(|folder| folder.parent()), None);
    assert_eq!(parent.parent().map(|folder| folder.name().to_owned()), Some("a".to_owned()));
}

#[test]
fn errors_repeat_no_more_than_a_line_of_what_was_sent() {
    let error = RefName::parse(&"\u{7}ü".repeat(10_000)).expect_err("too long").to_string();
    assert!(error.chars().count() < 250 && !error.contains('\u{7}'), "{error}");
}

proptest! {
    #[test]
    fn what_parses_prints_as_it_was(text in "\\PC{0,40}|[a-z./@-]{1,12}|refs/heads/\\PC{1,9}") {
        if let Ok(name) = RepoName::parse(&text) {
            prop_assert_eq!(name.to_string(), text.clone());
        }
        if let Ok(name) = RefName::parse(&text) {
            prop_assert_eq!(name.as_str(), &text);
        }
        if let Ok(path) = FilePath::parse(&text) {
            prop_assert_eq!(path.components().collect::<Vec<_>>().join("/"), text);
        }
    }

    #[test]
    fn a_part_of_a_path_is_a_path(text in "[a-c.~g:it /]{1,12}") {
        if let Ok(path) = FilePath::parse(&text) {
            for part in path.components() {
                prop_assert!(FilePath::parse(part).is_ok(), "{part}");
            }
            if let Some(parent) = path.parent() {
                prop_assert_eq!(FilePath::parse(parent.as_str()).expect("a prefix"), parent);
            }
        }
    }

    #[test]
    fn noise_never_panics(text: String) {
        let _ = RepoName::parse(&text);
        let _ = RefName::parse(&text);
        let _ = FilePath::parse(&text);
    }
}
