//! `.gitattributes`: which paths are kept as large files.

use ballast_format::name::FilePath;
use ignore::gitignore::{Gitignore, GitignoreBuilder};

/// Endings of files that are large in practice; new repos begin with these.
const LARGE_ENDINGS: &[&str] = &[
    "7z", "arrow", "avro", "bin", "bz2", "ckpt", "ftz", "gguf", "gz", "h5", "joblib", "lfs.*",
    "mlmodel", "model", "msgpack", "npy", "npz", "onnx", "ot", "parquet", "pb", "pickle", "pkl",
    "pt", "pth", "rar", "safetensors", "tar", "tar.*", "tflite", "tgz", "wasm", "xz", "zip", "zst",
];
const LARGE: &str = "filter=lfs diff=lfs merge=lfs -text";
/// Lines that are looked at; more make no sense and cost time.
const MAX_LINES: usize = 5000;

/// The file that new repos begin with.
pub(super) fn initial() -> String {
    LARGE_ENDINGS.iter().map(|ending| format!("*.{ending} {LARGE}\n")).collect()
}

/// Says of paths whether they are large files.
pub(super) struct Attributes {
    /// Patterns with what they say, in the order of the file; the last that matches counts.
    rules: Vec<(Gitignore, bool)>,
}

impl Attributes {
    /// Reads the file's text; lines that make no sense are passed over, as git does.
    pub(super) fn parse(text: &str) -> Self {
        Self { rules: text.lines().take(MAX_LINES).filter_map(rule).collect() }
    }

    /// Whether a path is kept as a large file.
    pub(super) fn is_large(&self, path: &FilePath) -> bool {
        let last = self.rules.iter().rev().find(|(pattern, _)| {
            pattern.matched_path_or_any_parents(path.as_str(), false).is_ignore()
        });
        last.is_some_and(|(_, large)| *large)
    }
}

fn rule(line: &str) -> Option<(Gitignore, bool)> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') || line.starts_with('!') {
        return None;
    }
    let (pattern, attributes) = match line.strip_prefix('"') {
        Some(quoted) => quoted.split_once('"')?,
        None => line.split_once([' ', '\t'])?,
    };
    let says = |attribute: &str| match attribute {
        "filter=lfs" => Some(true),
        "-filter" | "!filter" => Some(false),
        other => other.starts_with("filter=").then_some(false),
    };
    let large = attributes.split_whitespace().filter_map(says).next_back()?;
    let mut builder = GitignoreBuilder::new("");
    builder.add_line(None, &pattern.replace("[[:space:]]", "\\ ")).ok()?;
    Some((builder.build().ok()?, large))
}

/// The line that makes exactly this path a large file.
pub(super) fn line_for(path: &FilePath) -> String {
    let mut pattern = String::new();
    for c in path.as_str().chars() {
        match c {
            ' ' => pattern.push_str("[[:space:]]"),
            '*' | '?' | '[' => pattern.extend(['\\', c]),
            '#' | '!' | '"' if pattern.is_empty() => pattern.extend(['\\', c]),
            c => pattern.push(c),
        }
    }
    // A pattern without a slash would match in every folder.
    let anchor = if path.as_str().contains('/') { "" } else { "/" };
    let anchored = format!("{anchor}{pattern}");
    format!("{anchored} {LARGE}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> FilePath {
        FilePath::parse(text).expect("a path")
    }

    #[test]
    fn weights_are_large_from_the_start() {
        let attributes = Attributes::parse(&initial());
        for large in ["a.safetensors", "deep/er/b.gguf", "x.tar.gz", "saved.bin"] {
            assert!(attributes.is_large(&path(large)), "{large}");
        }
        for small in ["README.md", "config.json", "bin", "a.bin.txt", "model.py"] {
            assert!(!attributes.is_large(&path(small)), "{small}");
        }
    }

    #[test]
    fn the_last_line_that_matches_counts() {
        let text = "*.bin filter=lfs diff=lfs merge=lfs -text\nsmall/*.bin -filter\n# x\nbad\n";
        let attributes = Attributes::parse(text);
        assert!(attributes.is_large(&path("a.bin")));
        assert!(!attributes.is_large(&path("small/a.bin")));
    }

    #[test]
    fn a_line_matches_its_path_and_no_other() {
        for text in ["a", "with space.dat", "deep/odd [1]*?.x", "#hash", "!bang", "ümlaut"] {
            let attributes = Attributes::parse(&line_for(&path(text)));
            assert!(attributes.is_large(&path(text)), "{text}: {}", line_for(&path(text)));
            assert!(!attributes.is_large(&path(&format!("other/{text}"))), "{text}");
        }
    }
}
