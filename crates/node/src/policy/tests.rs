//! Rules on facts, and rules on a hub.

use std::sync::Arc;

use super::*;
use crate::error::{Error, Result};
use crate::scan::{Scan, Status};

fn repo() -> RepoFacts {
    RepoFacts {
        name: "acme/model".to_owned(),
        publisher: "acme".to_owned(),
        licenses: Some(vec!["apache-2.0".to_owned()]),
        gated: Some(false),
        bytes: Some(1000),
    }
}

fn file(path: &str) -> FileFacts {
    FileFacts { path: Some(path.to_owned()), bytes: Some(100), ..FileFacts::default() }
}

fn scanned(path: &str, status: Status, kinds: &[&str]) -> FileFacts {
    let kinds = kinds.iter().map(|kind| (*kind).to_owned()).collect();
    let mut scan = Scan::default();
    (scan.status, scan.kinds) = (status, kinds);
    FileFacts { scan: Some(Arc::new(scan)), ..file(path) }
}

fn deny(name: &str) -> Rule {
    Rule::new(name, Action::Deny)
}

fn policy(rules: impl IntoIterator<Item = Rule>) -> Policy {
    Policy::new(rules.into_iter().collect(), Action::Allow)
}

/// Which rule refuses; nothing if none does.
fn refused(policy: &Policy, repo: &RepoFacts, file: &FileFacts) -> Option<String> {
    match policy.judge_file(Stage::Download, repo, file) {
        Judgement::Denied(refusal) => Some(refusal.rule),
        Judgement::Allowed { .. } => None,
        undecided @ Judgement::Undecided { .. } => panic!("{undecided:?}"),
    }
}

fn globs(patterns: &[&str]) -> Globs {
    let patterns: Vec<String> = patterns.iter().map(|pattern| (*pattern).to_owned()).collect();
    Globs::parse(&patterns).expect("good patterns")
}

fn owned(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

#[test]
fn each_part_of_a_rule_is_asked() {
    let other = || Rule::new("r", Action::Deny);
    let big = FileFacts { bytes: Some(5000), ..file("a.bin") };
    let nobody = RepoFacts { licenses: Some(Vec::new()), ..repo() };
    let gated = RepoFacts { gated: Some(true), bytes: Some(9000), ..repo() };
    for (rule, facts, file, fits) in [
        (Rule { repos: globs(&["acme/*"]), ..other() }, repo(), file("a"), true),
        (Rule { repos: globs(&["acme/x*"]), ..other() }, repo(), file("a"), false),
        (Rule { repos: globs(&["*"]), ..other() }, repo(), file("a"), false),
        (Rule { repos: globs(&["**"]), ..other() }, repo(), file("a"), true),
        (Rule { publishers: owned(&["Acme"]), ..other() }, repo(), file("a"), true),
        (Rule { publishers: owned(&["acm"]), ..other() }, repo(), file("a"), false),
        (Rule { licenses: owned(&["apache-2.0"]), ..other() }, repo(), file("a"), true),
        (Rule { licenses: owned(&["none"]), ..other() }, repo(), file("a"), false),
        (Rule { licenses: owned(&["none"]), ..other() }, nobody, file("a"), true),
        (Rule { gated: Some(true), ..other() }, repo(), file("a"), false),
        (Rule { gated: Some(true), ..other() }, gated.clone(), file("a"), true),
        (Rule { repo_larger_than: Some(1000), ..other() }, repo(), file("a"), false),
        (Rule { repo_larger_than: Some(1000), ..other() }, gated, file("a"), true),
        (Rule { larger_than: Some(4999), ..other() }, repo(), big.clone(), true),
        (Rule { larger_than: Some(5000), ..other() }, repo(), big, false),
        (Rule { files: globs(&["**/*.py"]), ..other() }, repo(), file("x/a.py"), true),
        (Rule { files: globs(&["*.py"]), ..other() }, repo(), file("x/a.py"), false),
        (Rule { formats: owned(&["onnx"]), ..other() }, repo(), file("x/a.ONNX"), true),
        (Rule { formats: owned(&["onnx"]), ..other() }, repo(), file("onnx"), false),
        (
            Rule { formats: owned(&["pickle"]), ..other() },
            repo(),
            scanned("a.txt", Status::Safe, &["pickle"]),
            true,
        ),
        (
            Rule { formats: owned(&["pickle"]), ..other() },
            repo(),
            scanned("a.bin", Status::Safe, &[]),
            false,
        ),
        (
            Rule { scans: vec![Status::Unsafe], ..other() },
            repo(),
            scanned("a", Status::Unsafe, &[]),
            true,
        ),
        (
            Rule { scans: vec![Status::Unsafe], ..other() },
            repo(),
            scanned("a", Status::Suspicious, &[]),
            false,
        ),
        (Rule { stages: vec![Stage::Upload], ..other() }, repo(), file("a"), false),
        (other(), repo(), file("a"), true),
    ] {
        let found = refused(&policy([rule.clone()]), &facts, &file);
        assert_eq!(found.is_some(), fits, "{rule:?} on {facts:?} {file:?}");
    }
}

#[test]
fn the_first_rule_that_fits_decides_and_then_the_default() {
    let allow = Rule { publishers: owned(&["acme"]), ..Rule::new("ours", Action::Allow) };
    let huge = Rule { larger_than: Some(10), ..deny("huge") };
    let rules = policy([allow.clone(), huge.clone()]);
    assert_eq!(refused(&rules, &repo(), &file("a")), None);
    let turned = policy([huge.clone(), allow.clone()]);
    assert_eq!(refused(&turned, &repo(), &file("a")).as_deref(), Some("huge"));
    let closed = Policy::new(vec![allow], Action::Deny);
    assert_eq!(refused(&closed, &repo(), &file("a")), None);
    let stranger = RepoFacts { publisher: "other".to_owned(), ..repo() };
    assert_eq!(refused(&closed, &stranger, &file("a")).as_deref(), Some("default"));
    assert!(!closed.allows_all(Stage::Mirror) && policy([]).allows_all(Stage::Mirror));
    let upload = policy([Rule { stages: vec![Stage::Upload], ..huge }]);
    assert!(upload.allows_all(Stage::Import) && !upload.allows_all(Stage::Upload));
}

#[test]
fn what_is_not_known_is_waited_for_and_never_passed_over() {
    let scans = Rule { scans: vec![Status::Unsafe], ..deny("unsafe") };
    let all = Rule::new("rest", Action::Allow);
    let rules = policy([scans, all]);
    let needs = |judgement: Judgement| match judgement {
        Judgement::Undecided { needs, .. } => Some(needs),
        _ => None,
    };
    let stage = Stage::Mirror;
    assert_eq!(needs(rules.judge_file(stage, &repo(), &file("a"))), Some(Need::Scan));
    assert_eq!(needs(rules.judge_repo(stage, &repo())), Some(Need::File));
    // What is known to be otherwise settles a rule whatever else is not known.
    let both = Rule { scans: vec![Status::Unsafe], larger_than: Some(1000), ..deny("both") };
    assert_eq!(refused(&policy([both]), &repo(), &file("a")), None);
    let unknown = RepoFacts { licenses: None, gated: None, bytes: None, ..repo() };
    for (rule, need) in [
        (Rule { licenses: owned(&["mit"]), ..deny("a") }, Need::Licenses),
        (Rule { gated: Some(true), ..deny("a") }, Need::Gated),
        (Rule { repo_larger_than: Some(1), ..deny("a") }, Need::RepoBytes),
    ] {
        assert_eq!(needs(policy([rule]).judge_repo(stage, &unknown)), Some(need));
    }
    // A refusal that comes in any case does not wait; one that a rule before may prevent does.
    let scan = |action| Rule { scans: vec![Status::Unsafe], ..Rule::new("scan", action) };
    let huge = Rule { larger_than: Some(10), ..deny("huge") };
    let certain = policy([scan(Action::Deny), huge.clone()]);
    assert_eq!(refused(&certain, &repo(), &file("a")).as_deref(), Some("huge"));
    let open = policy([scan(Action::Allow), huge]);
    assert_eq!(needs(open.judge_file(stage, &repo(), &file("a"))), Some(Need::Scan));
    let named = policy([Rule { repos: globs(&["acme/*"]), ..deny("named") }]);
    assert!(matches!(named.judge_repo(stage, &unknown), Judgement::Denied(_)));
}

#[test]
fn a_refusal_names_the_rule_and_says_why() {
    let rule = Rule { formats: owned(&["pkl"]), publishers: owned(&["acme"]), ..deny("no-pickle") };
    let Judgement::Denied(refusal) =
        policy([rule]).judge_file(Stage::Upload, &repo(), &file("a.pkl"))
    else {
        panic!("it fits");
    };
    let expected = "refused by the policy rule `no-pickle`: its publisher is `acme`, and `a.pkl` \
                    has the format `pkl`";
    assert_eq!(refusal.to_string(), expected);
}

#[test]
fn licences_are_read_from_cards_of_all_forms() {
    let card = |text: &str| {
        let value: serde_json::Value = serde_json::from_str(text).expect("it is JSON");
        licenses_of(value.as_object())
    };
    assert_eq!(card(r#"{"license": "MIT"}"#), ["mit"]);
    assert_eq!(card(r#"{"license": ["MIT", "Apache-2.0"]}"#), ["apache-2.0", "mit"]);
    assert_eq!(card(r#"{"license": "other", "license_name": "Llama"}"#), ["llama", "other"]);
    assert_eq!(card(r#"{"license": 5}"#), Vec::<String>::new());
    assert_eq!(licenses_of(None), Vec::<String>::new());
}

#[test]
fn settling_refuses_what_stays_undecided() {
    let undecided = Judgement::Undecided { rule: "a".to_owned(), needs: Need::Bytes };
    assert!(matches!(settled(undecided), Err(Error::Refused { rule, .. }) if rule == "a"));
    let allowed: Result<()> = settled(Judgement::Allowed { rule: None });
    assert!(allowed.is_ok());
}
