//! Names that people and clients choose.
#![no_main]

use ballast_format::name::{FilePath, Namespace, RefName, RepoName};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(name) = RepoName::parse(text) {
        assert_eq!(name.to_string(), text);
        assert_eq!(name.folded(), name.folded().to_ascii_lowercase());
        let namespace = Namespace::parse(name.namespace().as_str()).expect("a part of a name");
        assert_eq!(
            RepoName::new(namespace, name.name()).expect("its parts"),
            name
        );
    }
    if let Ok(name) = RefName::parse(text) {
        assert_eq!(name.as_str(), text);
        assert!(!text.contains("..") && !text.contains("//") && text.starts_with("refs/"));
        if name.is_branch() {
            assert_eq!(RefName::branch(name.short()).expect("its short name"), name);
        }
        if name.is_tag() {
            assert_eq!(RefName::tag(name.short()).expect("its short name"), name);
        }
        if let Some(number) = name.pull_number() {
            assert_eq!(RefName::pull(number), name);
        }
    }
    if let Ok(path) = FilePath::parse(text) {
        assert_eq!(path.as_str(), text);
        for part in path.components() {
            let seen = part.trim_end_matches(['.', ' ']).to_lowercase();
            assert!(!matches!(seen.as_str(), "" | ".git" | "git~1"));
            FilePath::parse(part).expect("a part of a path");
        }
        if let Some(parent) = path.parent() {
            assert_eq!(FilePath::parse(parent.as_str()).expect("a prefix"), parent);
            assert_eq!(format!("{parent}/{}", path.name()), text);
        }
    }
});
