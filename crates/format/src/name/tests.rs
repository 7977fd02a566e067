use proptest::prelude::*;

use super::*;

#[test]
fn repo_names_follow_the_public_hubs_rules() {
    for good in ["a/b", "Org-1/my_model.v2", "x/y--".trim_end_matches('-')] {
        assert!(RepoName::parse(good).is_ok(), "{good}");
    }
    let long = format!("a/{}", "b".repeat(97));
    for bad in [
        "", "a", "a/", "/b", "a/b/c", "a/-b", "a/b-", "a/.b", "a/b.", "a/b--c", "a/b..c", "a/b.git",
        "a/b c", "a/ü", "a/b\0", "../b", "a/b.GIT", &long,
    ] {
        assert!(RepoName::parse(bad).is_err(), "{bad}");
    }
    assert_eq!(RepoName::parse("Aa/Bb").map(|name| name.folded()).ok(), Some("aa/bb".to_owned()));
}

#[test]
fn refs_follow_gits_rules() {
    for good in ["main", "feature/x", "v1.0", "a@b", "ü"] {
        assert!(RefName::branch(good).is_ok(), "{good}");
        assert!(RefName::tag(good).is_ok(), "{good}");
    }
    for bad in [
        "", "a b", "a..b", "a~1", "a^", "a:b", "a?", "a*", "a[", "a\\b", ".a", "a/.b", "a.lock", "a/",
        "/a", "a//b", "a.", "a@{0}", "@", "a\x7f",
    ] {
        assert!(RefName::branch(bad).is_err(), "{bad}");
    }
    for bad in ["main", "refs/", "refs/heads/", "refs/pr/x", "refs/pr/0", "refs/pr/01", "HEAD"] {
        assert!(RefName::parse(bad).is_err(), "{bad}");
    }
    assert_eq!(RefName::pull(7).pull_number(), Some(7));
    assert_eq!(RefName::main().short(), "main");
}

#[test]
fn paths_that_anything_reads_as_special_are_refused() {
    for good in ["a", "a/b.txt", "ümlaut/ß", ".gitattributes", ".github/x", "git", "a b", "...a"] {
        assert!(FilePath::parse(good).is_ok(), "{good}");
    }
    let (long, deep) = ("a".repeat(256), vec!["a"; 65].join("/"));
    for bad in [
        "", "/a", "a/", "a//b", ".", "..", "a/../b", "a/./b", "a\\b", "a\nb", "a\0", ".git", "a/.GIT/b",
        ".git.", ".git ", "git~1", "GIT~1/x", ".g\u{200c}it", ".git::$INDEX_ALLOCATION", "u\u{308}",
        &long, &deep,
    ] {
        assert!(FilePath::parse(bad).is_err(), "{bad}");
    }
}

proptest! {
    #[test]
    fn what_parses_prints_as_it_was(text in "\\PC{0,40}") {
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
}
