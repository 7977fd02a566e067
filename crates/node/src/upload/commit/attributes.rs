//! `.gitattributes`: which paths are kept as large files.
//!
//! Reads what git reads, of the file in the root folder: patterns, of which the last that says
//! something counts. Macros and attribute files further down are not looked at.

use std::collections::HashMap;

use ballast_format::name::{FilePath, RepoKind};
use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder};

/// Endings of files that are large in practice; new repos begin with these.
const LARGE_ENDINGS: &[&str] = &[
    "7z",
    "arrow",
    "avro",
    "bin",
    "bz2",
    "ckpt",
    "ftz",
    "gguf",
    "gz",
    "h5",
    "joblib",
    "lfs.*",
    "mlmodel",
    "model",
    "msgpack",
    "npy",
    "npz",
    "onnx",
    "ot",
    "parquet",
    "pb",
    "pickle",
    "pkl",
    "pt",
    "pth",
    "rar",
    "safetensors",
    "tar",
    "tar.*",
    "tflite",
    "tgz",
    "wasm",
    "xz",
    "zip",
    "zst",
];
/// What datasets are made of besides.
const LARGE_MEDIA: &[&str] = &[
    "lz4", "mds", "pcm", "sam", "raw", "aac", "flac", "mp3", "ogg", "wav", "bmp", "gif", "png",
    "tiff", "jpg", "jpeg", "webp", "mp4", "webm",
];
/// Names that are large whatever they end with.
const LARGE_NAMES: &[&str] = &["saved_model/**/*", "*tfevents*"];
const LARGE: &str = "filter=lfs diff=lfs merge=lfs -text";
/// How git-lfs writes a space in a pattern, since a space ends it.
const SPACE: &str = "[[:space:]]";

/// Patterns with wildcards that are looked at: each makes every look-up dearer.
const MAX_GLOBS: usize = 2000;
const MAX_PATTERN_BYTES: usize = 4096;

/// The file that new repos begin with.
pub(super) fn initial(kind: RepoKind) -> String {
    let media: &[&str] = if kind == RepoKind::Dataset { LARGE_MEDIA } else { &[] };
    let endings = LARGE_ENDINGS.iter().chain(media).map(|ending| format!("*.{ending}"));
    let patterns = endings.chain(LARGE_NAMES.iter().map(ToString::to_string));
    patterns.fold(String::new(), |text, pattern| text + &pattern + " " + LARGE + "\n")
}

/// What a pattern says, and its place in the file.
type Verdict = (usize, bool);

/// Says of paths whether they are large files.
pub(super) struct Attributes {
    /// Patterns that are one path and no other: what commits of large files add.
    paths: HashMap<String, Verdict>,
    globs: Gitignore,
    /// What each pattern of `globs` says.
    verdicts: HashMap<String, Verdict>,
}

impl Attributes {
    /// Reads the file's text; lines that make no sense are passed over, as git does.
    pub(super) fn parse(text: &str) -> Self {
        let (mut paths, mut verdicts) = (HashMap::new(), HashMap::new());
        let mut builder = GitignoreBuilder::new("");
        for (place, line) in text.lines().enumerate() {
            let Some((pattern, large)) = rule(line) else {
                continue;
            };
            if let Some(path) = literal(&pattern) {
                paths.insert(path, (place, large));
            } else if verdicts.len() < MAX_GLOBS
                && let Some(glob) = to_glob(&pattern)
                && builder.add_line(None, &glob).is_ok()
            {
                verdicts.insert(glob, (place, large));
            }
        }
        let globs = builder.build().unwrap_or_else(|error| {
            tracing::warn!(%error, "an attribute file's patterns are too many or too odd");
            Gitignore::empty()
        });
        Self { paths, globs, verdicts }
    }

    /// Whether a path is kept as a large file.
    pub(super) fn is_large(&self, path: &FilePath) -> bool {
        let by_path = self.paths.get(path.as_str()).copied();
        let by_glob = match self.globs.matched(path.as_str(), false) {
            Match::Ignore(glob) => self.verdicts.get(glob.original()).copied(),
            _ => None,
        };
        by_path.max(by_glob).is_some_and(|(_, large)| large)
    }
}

/// The pattern of a line and whether it makes large files; nothing if it says neither.
fn rule(line: &str) -> Option<(String, bool)> {
    let line = line.trim_matches([' ', '\t', '\r']);
    if line.starts_with(['#', '!']) || line.starts_with("[attr]") {
        return None;
    }
    let (pattern, attributes) = match line.strip_prefix('"') {
        Some(quoted) => unquote(quoted)?,
        None => line.split_once([' ', '\t']).map(|(pattern, rest)| (pattern.to_owned(), rest))?,
    };
    // In attribute files a folder's pattern says nothing about the files in it.
    if pattern.is_empty() || pattern.ends_with('/') || pattern.len() > MAX_PATTERN_BYTES {
        return None;
    }
    let says = |attribute: &str| match attribute {
        "filter=lfs" => Some(true),
        "filter" | "-filter" | "!filter" => Some(false),
        other => other.starts_with("filter=").then_some(false),
    };
    let large = attributes.split([' ', '\t']).filter_map(says).next_back()?;
    Some((pattern, large))
}

/// A pattern in quotes, as C writes text, and what follows it.
fn unquote(quoted: &str) -> Option<(String, &str)> {
    let mut pattern = String::new();
    let mut rest = quoted.chars();
    loop {
        match rest.next()? {
            '"' => return Some((pattern, rest.as_str())),
            '\\' => match rest.next()? {
                c @ ('"' | '\\') => pattern.push(c),
                't' => pattern.push('\t'),
                // Other bytes than these are no part of a path of ours.
                _ => return None,
            },
            c => pattern.push(c),
        }
    }
}

/// The one path that a pattern matches, if it has no wildcards and stands for no name in all
/// folders.
fn literal(pattern: &str) -> Option<String> {
    if !pattern.contains('/') {
        return None;
    }
    let mut path = String::with_capacity(pattern.len());
    let text = pattern.strip_prefix('/').unwrap_or(pattern).replace(SPACE, " ");
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '*' | '?' | '[' => return None,
            '\\' => path.push(chars.next()?),
            c => path.push(c),
        }
    }
    Some(path)
}

/// The same pattern for the matcher, which knows braces and no named classes, and in whose lines a
/// leading `#` or `!` and a trailing space mean something. Nothing for one that matches nothing.
fn to_glob(pattern: &str) -> Option<String> {
    let mut glob = String::with_capacity(pattern.len() + 8);
    let text = pattern.replace(SPACE, " ");
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        match c {
            '\\' => glob.extend(['\\', rest.next()?]),
            // A class that is never closed matches nothing; a bracket that comes first is in it.
            '[' => {
                let class = rest.as_str();
                let negated = usize::from(class.starts_with(['!', '^']));
                let first = class[negated..].chars().next()?.len_utf8();
                class[negated + first..].find(']')?;
                glob.push('[');
            }
            '{' | '}' | ' ' => glob.extend(['\\', c]),
            '#' | '!' if glob.is_empty() => glob.extend(['\\', c]),
            c => glob.push(c),
        }
    }
    Some(glob)
}

/// The line that makes exactly this path a large file.
pub(super) fn line_for(path: &FilePath) -> String {
    let path = path.as_str();
    let mut pattern = String::with_capacity(path.len() + LARGE.len() + 8);
    // A pattern without a slash would match in every folder, and some first letters are special.
    if !path.contains('/') || path.starts_with(['#', '!', '"']) || path.starts_with("[attr]") {
        pattern.push('/');
    }
    for c in path.chars() {
        match c {
            ' ' => pattern.push_str(SPACE),
            '*' | '?' | '[' | '\\' => pattern.extend(['\\', c]),
            c => pattern.push(c),
        }
    }
    format!("{pattern} {LARGE}\n")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn path(text: &str) -> FilePath {
        FilePath::parse(text).expect("a path")
    }

    fn is_large(attributes: &str, text: &str) -> bool {
        Attributes::parse(attributes).is_large(&path(text))
    }

    #[test]
    fn weights_are_large_from_the_start() {
        let attributes = Attributes::parse(&initial(RepoKind::Model));
        for large in [
            "a.safetensors",
            "deep/er/b.gguf",
            "x.tar.gz",
            "saved.bin",
            "saved_model/a/b",
            "logs/events.out.tfevents.17",
        ] {
            assert!(attributes.is_large(&path(large)), "{large}");
        }
        for small in ["README.md", "config.json", "bin", "a.bin.txt", "model.py", "cat.png"] {
            assert!(!attributes.is_large(&path(small)), "{small}");
        }
        let attributes = Attributes::parse(&initial(RepoKind::Dataset));
        assert!(attributes.is_large(&path("pictures/cat.png")));
    }

    #[test]
    fn the_last_line_that_says_something_counts() {
        let text = "*.bin filter=lfs diff=lfs merge=lfs -text\n*.bin text\nsmall/*.bin -filter\n\
                    # x\nbad\nsmall/big.bin filter=lfs\n";
        assert!(is_large(text, "a.bin"));
        assert!(!is_large(text, "small/a.bin"));
        assert!(is_large(text, "small/big.bin"));
        assert!(!is_large("/a.bin filter=lfs\n*.bin filter=other\n", "a.bin"));
        assert!(!is_large("*.bin filter=lfs\n*.bin !filter\n", "a.bin"));
    }

    #[test]
    fn a_folders_name_says_nothing_about_the_files_in_it() {
        assert!(!is_large("*.bin filter=lfs\n", "folder.bin/readme.md"));
        assert!(!is_large("folder filter=lfs\nfolder/ filter=lfs\n", "folder/readme.md"));
        assert!(is_large("folder/** filter=lfs\n", "folder/deep/readme.md"));
    }

    #[test]
    fn patterns_mean_what_git_says_they_mean() {
        assert!(is_large("\"with space\\\"s\" filter=lfs", "a/with space\"s"));
        assert!(is_large("a[[:space:]]b filter=lfs", "x/a b"));
        assert!(is_large("a{b,c} filter=lfs", "a{b,c}") && !is_large("a{b,c} filter=lfs", "ab"));
        assert!(is_large("[!a].x filter=lfs", "b.x") && !is_large("[!a].x filter=lfs", "a.x"));
        assert!(!is_large("!a filter=lfs", "a") && is_large("\\!a filter=lfs", "!a"));
        assert!(!is_large("a*c filter=lfs", "a/c"));
        assert!(!is_large("[ filter=lfs\n\" filter=lfs\n\\ filter=lfs\n", "["));
    }

    #[test]
    fn a_line_matches_its_path_and_no_other() {
        for text in
            ["a", "with space.dat", "deep/odd [1]*?.x", "#hash", "!bang/x", "ümlaut", "{b,c}/\"d"]
        {
            let line = line_for(&path(text));
            assert!(is_large(&line, text), "{text}: {line}");
            assert!(!is_large(&line, &format!("other/{text}")), "{text}: {line}");
        }
    }

    proptest! {
        #[test]
        fn every_path_is_matched_by_its_line(text in "[ -~äß]{1,30}") {
            if let Ok(path) = FilePath::parse(&text) {
                prop_assert!(Attributes::parse(&line_for(&path)).is_large(&path));
            }
        }

        #[test]
        fn no_text_is_too_odd_to_read(text in "(.{0,40}\n){0,5}", name in "[a-z]{1,5}") {
            Attributes::parse(&text).is_large(&path(&name));
        }
    }
}
