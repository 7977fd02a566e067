//! The rules of the house that a compiler does not know: who may import whom, how long a file may
//! be, what must be said at the top of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

/// Which of our crates each crate may use, outside tests.
const MAY_USE: &[(&str, &[&str])] = &[
    ("format", &[]),
    ("store", &["format"]),
    ("node", &["format", "store"]),
    ("gateway", &["format", "node"]),
    ("proto", &["format"]),
    ("sync", &["format", "proto", "store", "node"]),
    ("app", &["format", "proto", "store", "node", "gateway", "sync"]),
    ("testkit", &["format", "store"]),
];
/// What else `format` must not touch: it does no input or output and reads no clock.
const PURE: &[&str] = &["tokio", "object_store", "sled", "futures-util", "getrandom"];
/// Names that say nothing.
const EMPTY_NAMES: &[&str] = &["util", "utils", "helper", "helpers", "common", "manager", "misc"];
const LONGEST_FILE: usize = 600;
const LONGEST_FUNCTION: usize = 70;
const WIDEST_LINE: usize = 100;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust file of ours, with its text.
fn sources() -> Result<Vec<(PathBuf, String)>> {
    let mut folders = ["src", "crates", "tests", "benches"].map(|name| root().join(name)).to_vec();
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).with_context(|| format!("{}", folder.display()))? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path)?;
                found.push((path, text));
            }
        }
    }
    ensure!(found.len() > 50, "found only {} files: wrong folder?", found.len());
    Ok(found)
}

/// A file without the unit tests at its end.
fn without_tests(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod ").next().unwrap_or(text)
}

fn is_test(path: &Path) -> bool {
    let text = path.to_string_lossy();
    text.ends_with("tests.rs") || text.contains("/tests/") || text.contains("/benches/")
}

fn assert_none(faults: &BTreeSet<String>) {
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn crates_look_down_only() -> Result<()> {
    let mut faults = BTreeSet::new();
    for (name, allowed) in MAY_USE {
        let manifest = fs::read_to_string(root().join("crates").join(name).join("Cargo.toml"))?;
        let mut section = "";
        for line in manifest.lines() {
            if line.starts_with('[') {
                section = line;
            }
            let dependency = line.split([' ', '=', '.']).next().unwrap_or("");
            if section != "[dependencies]" || dependency.is_empty() {
                continue;
            }
            if let Some(ours) = dependency.strip_prefix("ballast-")
                && !allowed.contains(&ours)
            {
                faults.insert(format!("{name} must not use {dependency}"));
            }
            if *name == "format" && PURE.contains(&dependency) {
                faults.insert(format!("{name} must not use {dependency}"));
            }
        }
    }
    assert_none(&faults);
    Ok(())
}

#[test]
fn every_crate_has_a_rule_and_a_line_in_the_architecture() -> Result<()> {
    let architecture = fs::read_to_string(root().join("ARCHITECTURE.md"))?;
    let rules: BTreeMap<_, _> = MAY_USE.iter().copied().collect();
    let mut faults = BTreeSet::new();
    for entry in fs::read_dir(root().join("crates"))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if !rules.contains_key(name.as_str()) {
            faults.insert(format!("{name} has no line in MAY_USE"));
        }
        if !architecture.contains(&format!("`crates/{name}`")) {
            faults.insert(format!("{name} is not in ARCHITECTURE.md's code map"));
        }
    }
    assert_none(&faults);
    Ok(())
}

#[test]
fn each_flow_has_its_module_test_and_line() -> Result<()> {
    let architecture = fs::read_to_string(root().join("ARCHITECTURE.md"))?;
    let mut faults = BTreeSet::new();
    for (place, flow) in [
        ("crates/node/src", "upload"),
        ("crates/node/src", "download"),
        ("crates/node/src", "gc"),
        ("crates/sync/src", "mirror"),
        ("crates/sync/src", "bundle"),
        ("crates/sync/src", "replicate"),
        ("crates/sync/src", "swarm"),
    ] {
        for place in [format!("{place}/{flow}"), format!("tests/{flow}.rs")] {
            if !root().join(&place).exists() {
                faults.insert(format!("{flow}: no {place}"));
            }
        }
        if !architecture.contains(&format!("| {flow} |")) {
            faults.insert(format!("{flow}: no line in ARCHITECTURE.md"));
        }
    }
    assert_none(&faults);
    Ok(())
}

#[test]
fn files_functions_and_lines_are_short() -> Result<()> {
    let mut faults = BTreeSet::new();
    for (path, text) in sources()? {
        let shown = path.strip_prefix(root())?.display().to_string();
        let code = if is_test(&path) { "" } else { without_tests(&text) };
        if code.lines().count() > LONGEST_FILE {
            faults.insert(format!("{shown} has {} lines", code.lines().count()));
        }
        for (number, line) in text.lines().enumerate() {
            if line.chars().count() > WIDEST_LINE && !line.contains("http") {
                faults.insert(format!("{shown}:{} is wider than {WIDEST_LINE}", number + 1));
            }
        }
        for (name, length) in functions(code) {
            if length > LONGEST_FUNCTION {
                faults.insert(format!("{shown}: `{name}` has {length} lines"));
            }
        }
    }
    assert_none(&faults);
    Ok(())
}

/// Functions and their lengths: the formatter puts a function's last brace under its first word.
fn functions(code: &str) -> Vec<(String, usize)> {
    let lines: Vec<&str> = code.lines().collect();
    let mut found = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let bare = line.trim_start();
        let Some(position) = bare.find("fn ") else {
            continue;
        };
        let before = &bare[..position];
        let words = ["pub", "async", "const", "pub(crate)", "pub(super)"];
        if !before.split_whitespace().all(|word| words.contains(&word)) {
            continue;
        }
        let indent = &line[..line.len() - bare.len()];
        let end = format!("{indent}}}");
        if let Some(length) = lines[start..].iter().position(|line| *line == end) {
            let name = bare[position + 3..].split(['(', '<']).next().unwrap_or("");
            found.push((name.to_owned(), length + 1));
        }
    }
    found
}

#[test]
fn modules_say_what_they_are_and_have_names_that_say_something() -> Result<()> {
    let mut faults = BTreeSet::new();
    for (path, text) in sources()? {
        let shown = path.strip_prefix(root())?.display().to_string();
        let first = text.lines().next().unwrap_or("");
        let says = first.starts_with("//!") || text.contains("\n//! ");
        if !says && !shown.ends_with("tests.rs") {
            faults.insert(format!("{shown} does not begin with what it is"));
        }
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        if EMPTY_NAMES.contains(&stem.as_ref()) {
            faults.insert(format!("{shown} has a name that says nothing"));
        }
    }
    assert_none(&faults);
    Ok(())
}

#[test]
fn one_file_spells_object_keys_and_one_names_the_index_engine() -> Result<()> {
    let mut faults = BTreeSet::new();
    for (path, text) in sources()? {
        let shown = path.strip_prefix(root())?.display().to_string();
        if is_test(&path) || shown.contains("testkit") {
            continue;
        }
        let code = without_tests(&text);
        let store = shown.starts_with("crates/store/src/");
        if code.contains("sled::") && shown != "crates/store/src/index/sled.rs" {
            faults.insert(format!("{shown} names the index engine"));
        }
        if code.contains("object_store::path") && !store {
            faults.insert(format!("{shown} spells an object key"));
        }
        // What no commit ever refers to (parts of an upload, counts that were added up, notes of
        // what is damaged and of what was read again, old versions of mirror jobs), and what two
        // marks found to be garbage.
        let sweeps = [
            "crates/node/src/quarantine.rs",
            "crates/node/src/verify/scrub.rs",
            "crates/node/src/upload/parts.rs",
            "crates/node/src/tally/record.rs",
            "crates/node/src/gc/collect.rs",
            "crates/sync/src/mirror/jobs/store.rs",
        ];
        if code.contains(".sweep(") && !store && !sweeps.contains(&shown.as_str()) {
            faults.insert(format!("{shown} deletes"));
        }
    }
    assert_none(&faults);
    Ok(())
}

#[test]
fn nothing_is_left_for_later() -> Result<()> {
    let mut faults = BTreeSet::new();
    let marks =
        ["TO", "FIX"].map(|start| format!("{start}{}", if start == "TO" { "DO" } else { "ME" }));
    for (path, text) in sources()? {
        for (number, line) in text.lines().enumerate() {
            let calls = ["todo!(", "unimplemented!("].iter().any(|call| line.contains(call));
            if !path.ends_with("tidy.rs") && (calls || marks.iter().any(|mark| line.contains(mark)))
            {
                faults.insert(format!("{}:{}", path.strip_prefix(root())?.display(), number + 1));
            }
        }
    }
    assert_none(&faults);
    Ok(())
}

/// What the page of guarantees names as shown is a test.
#[test]
fn guarantees_are_shown_by_tests_that_there_are() -> Result<()> {
    let page = fs::read_to_string(root().join("docs/operating/guarantees.md"))?;
    let mut tests = BTreeSet::new();
    for (_, text) in sources()? {
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            // A test, or a property, has its name a few lines on at most.
            if line.trim_start().starts_with("#[") && line.contains("test") {
                let named = lines.clone().take(4).find_map(|line| line.split_once("fn "));
                tests.extend(named.and_then(|(_, rest)| rest.split('(').next()).map(str::to_owned));
            }
        }
    }
    let is_name = |word: &&str| {
        word.len() > 20 && word.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'))
    };
    let named: Vec<&str> = page.split('`').filter(is_name).collect();
    assert!(named.len() > 50, "the page names {} tests", named.len());
    let faults = named.iter().filter(|name| !tests.contains(**name));
    assert_none(&faults.map(|name| format!("guarantees.md names `{name}`")).collect());
    Ok(())
}
