//! How the text of two commits differs, as `git diff` writes it and `git apply` reads it.
//!
//! Only short texts are compared line by line; of other files it is said that they differ. Of a
//! large file, its pointer is compared.

use std::fmt::Write as _;
use std::ops::Range;

use ballast_format::hash::ObjectHash;
use ballast_format::id::RepoId;
use ballast_format::object::{EntryMode, ObjectKind, TreeEntry};
use imara_diff::{Algorithm, Diff, Hunk, InternedInput};

use super::compare::PathChange;
use crate::access::Repo;
use crate::error::{Error, Result};
use crate::hub::Hub;

/// Longer files are not compared line by line.
const MAX_TEXT_BYTES: u64 = 512 << 10;
/// What one answer may have.
const MAX_DIFF_BYTES: usize = 8 << 20;
/// Lines around a change that are shown.
const CONTEXT: u32 = 3;

impl Hub {
    /// What two commits have differently; without an old one, all of the new one.
    pub async fn diff(
        &self,
        repo: &Repo,
        old: Option<ObjectHash>,
        new: ObjectHash,
    ) -> Result<String> {
        let mut text = String::new();
        for change in self.compare(repo, old, new).await? {
            let PathChange { path, old, new } = &change;
            text.push_str(&head(path, old.as_ref(), new.as_ref()));
            let before = self.text_of(repo.id(), old.as_ref()).await?;
            let after = self.text_of(repo.id(), new.as_ref()).await?;
            let (from, to) = (side('a', path, old.is_some()), side('b', path, new.is_some()));
            match (before, after) {
                (Some(before), Some(after)) if before != after => {
                    // Writing to a string does not fail.
                    let _ = writeln!(text, "--- {from}\n+++ {to}");
                    text.push_str(&self.pool().run(move || unified(&before, &after)).await?);
                }
                (Some(_), Some(_)) => {}
                _ => {
                    let (from, to) = (from.trim_end(), to.trim_end());
                    let _ = writeln!(text, "Binary files {from} and {to} differ");
                }
            }
            if text.len() > MAX_DIFF_BYTES {
                let reason = format!("the commits differ in more than {MAX_DIFF_BYTES} bytes");
                return Err(Error::invalid(reason));
            }
        }
        Ok(text)
    }

    /// The text behind an entry: empty where there is none; nothing for what is no short text.
    async fn text_of(&self, repo: RepoId, entry: Option<&TreeEntry>) -> Result<Option<String>> {
        let Some(entry) = entry else {
            return Ok(Some(String::new()));
        };
        if entry.mode == EntryMode::Submodule {
            return Ok(Some(format!("Subproject commit {}\n", entry.id)));
        }
        match self.object(repo, &entry.id, ObjectKind::Blob, MAX_TEXT_BYTES).await {
            Ok(content) if content.contains(&0) => Ok(None),
            Ok(content) => Ok(String::from_utf8(content.into()).ok()),
            Err(Error::TooLarge { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// The lines before the names: modes and ids.
fn head(path: &str, old: Option<&TreeEntry>, new: Option<&TreeEntry>) -> String {
    let id = |entry: Option<&TreeEntry>| entry.map_or(ObjectHash::ZERO, |entry| entry.id);
    let ids = format!("index {}..{}", id(old), id(new));
    let lines = match (old, new) {
        (None, Some(new)) => format!("new file mode {}\n{ids}\n", digits(new.mode)),
        (Some(old), None) => format!("deleted file mode {}\n{ids}\n", digits(old.mode)),
        (Some(old), Some(new)) if old.mode != new.mode => {
            let modes = format!("old mode {}\nnew mode {}\n", digits(old.mode), digits(new.mode));
            if old.id == new.id { modes } else { format!("{modes}{ids}\n") }
        }
        (Some(old), _) => format!("{ids} {}\n", digits(old.mode)),
        (None, None) => String::new(),
    };
    format!("diff --git {} {}\n{lines}", quoted('a', path), quoted('b', path))
}

fn digits(mode: EntryMode) -> &'static str {
    match mode {
        EntryMode::File => "100644",
        EntryMode::Executable => "100755",
        EntryMode::Symlink => "120000",
        EntryMode::Directory => "040000",
        EntryMode::Submodule => "160000",
    }
}

/// A name as git writes it: in quotes if there are quotes in it.
fn quoted(side: char, path: &str) -> String {
    if path.contains('"') {
        return format!("\"{side}/{}\"", path.replace('"', "\\\""));
    }
    format!("{side}/{path}")
}

/// The name of one side; a tab ends one with spaces.
fn side(side: char, path: &str, is_there: bool) -> String {
    match is_there {
        true if path.contains(' ') => format!("{}\t", quoted(side, path)),
        true => quoted(side, path),
        false => "/dev/null".to_owned(),
    }
}

/// The hunks between two texts.
fn unified(before: &str, after: &str) -> String {
    let input = InternedInput::new(before, after);
    let mut diff = Diff::compute(Algorithm::Histogram, &input);
    diff.postprocess_lines(&input);
    let mut text = String::new();
    let mut group: Vec<Hunk> = Vec::new();
    for hunk in diff.hunks() {
        if group.last().is_some_and(|last| hunk.before.start - last.before.end > 2 * CONTEXT) {
            write_group(&mut text, &input, &group);
            group.clear();
        }
        group.push(hunk);
    }
    write_group(&mut text, &input, &group);
    text
}

/// Changes that are close to each other, with the lines around and between them.
fn write_group(text: &mut String, input: &InternedInput<&str>, group: &[Hunk]) {
    let (Some(first), Some(last)) = (group.first(), group.last()) else {
        return;
    };
    let lines = u32::try_from(input.before.len()).unwrap_or(u32::MAX);
    let lead = first.before.start.min(CONTEXT);
    let trail = (lines - last.before.end).min(CONTEXT);
    let old = first.before.start - lead..last.before.end + trail;
    let new = first.after.start - lead..last.after.end + trail;
    let _ = writeln!(text, "@@ -{} +{} @@", place(&old), place(&new));
    let mut next = old.start;
    for hunk in group {
        write_lines(text, input, ' ', next..hunk.before.start, true);
        write_lines(text, input, '-', hunk.before.clone(), true);
        write_lines(text, input, '+', hunk.after.clone(), false);
        next = hunk.before.end;
    }
    write_lines(text, input, ' ', next..old.end, true);
}

/// A range of lines as hunks are headed: of no lines, the line before them.
fn place(lines: &Range<u32>) -> String {
    match lines.end - lines.start {
        0 => format!("{},0", lines.start),
        1 => format!("{}", lines.start + 1),
        count => format!("{},{count}", lines.start + 1),
    }
}

fn write_lines(
    text: &mut String,
    input: &InternedInput<&str>,
    mark: char,
    lines: Range<u32>,
    is_before: bool,
) {
    let tokens = if is_before { &input.before } else { &input.after };
    for token in tokens.get(lines.start as usize..lines.end as usize).into_iter().flatten() {
        let line = input.interner[*token];
        text.push(mark);
        text.push_str(line);
        if !line.ends_with('\n') {
            text.push_str("\n\\ No newline at end of file\n");
        }
    }
}
