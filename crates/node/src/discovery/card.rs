//! The card of a repo: the front matter of its `README.md`, and the text behind it.
//!
//! A card that can't be read says nothing; it never breaks the repo that it is in. What a card
//! says is kept as it is written; its meaning for filters is made in `tags.rs`.

use ballast_format::name::RepoKind;
use serde_json::{Map, Value};

use super::task;
use super::words::cut;
use super::yaml::{self, Fault};

/// How much of a `README.md` is read.
pub const MAX_README_BYTES: u64 = 2 << 20;
/// How much of a citation is kept.
const MAX_CITATION_BYTES: usize = 4 << 10;

/// What a card says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Card<'a> {
    /// The front matter; `None` where there is none or it can't be read.
    pub data: Option<Map<String, Value>>,
    /// The text behind it.
    pub text: &'a str,
}

impl<'a> Card<'a> {
    /// Reads a `README.md`.
    pub fn read(readme: &'a str) -> Self {
        let Some(front) = Front::of(readme) else {
            return Self { data: None, text: readme };
        };
        match yaml::parse(front.yaml) {
            Ok(Value::Object(data)) => Self { data: Some(data), text: front.text },
            Ok(_) | Err(_) => Self { data: None, text: front.text },
        }
    }

    /// The first heading of the text, or the `title` of the front matter.
    pub fn title(&self) -> Option<String> {
        let named = self.data.as_ref().and_then(|data| data.get("title")?.as_str());
        let heading = || self.text.lines().find_map(|line| line.trim().strip_prefix("# "));
        let title = named.or_else(heading)?.trim();
        (!title.is_empty()).then(|| title.chars().take(200).collect())
    }

    /// The first block of the text that is a BibTeX entry.
    pub fn citation(&self) -> Option<String> {
        let blocks = self.text.split("```").skip(1).step_by(2);
        let entries = blocks.filter_map(|block| {
            // The language of a block stands before it, on its first line.
            let entry = block[block.find('@')?..].trim();
            let head = block[..block.find('@')?].trim();
            (head.bytes().all(|b| b.is_ascii_alphanumeric()) && entry.contains('{'))
                .then(|| cut(entry, MAX_CITATION_BYTES).to_owned())
        });
        entries.into_iter().next()
    }
}

/// The two halves of a file that begins with front matter.
struct Front<'a> {
    yaml: &'a str,
    text: &'a str,
    /// The line of the file on which the YAML begins, from 1.
    line: u64,
}

impl<'a> Front<'a> {
    /// Between a first line `---` (blank lines may come before it) and the next one.
    fn of(readme: &'a str) -> Option<Self> {
        let readme = readme.strip_prefix('\u{feff}').unwrap_or(readme);
        let start = readme.trim_start();
        let blank = readme[..readme.len() - start.len()].matches('\n').count() as u64;
        let (first, rest) = start.split_once('\n')?;
        if first.trim_end() != "---" {
            return None;
        }
        let mut at = 0;
        for line in rest.split_inclusive('\n') {
            if line.trim_end() == "---" {
                let (yaml, text) = (&rest[..at], &rest[at + line.len()..]);
                return Some(Self { yaml, text, line: blank + 2 });
            }
            at += line.len();
        }
        None
    }
}

/// What is wrong with a card, for whoever wants to know before it is committed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Review {
    /// Why the card can't be read.
    pub errors: Vec<Fault>,
    /// What it says that has no effect.
    pub warnings: Vec<Fault>,
}

/// Looks at the content of a `README.md` for a repo of this kind.
pub fn review(readme: &str, kind: RepoKind) -> Review {
    let mut review = Review::default();
    let Some(front) = Front::of(readme) else {
        let message = "empty or missing yaml metadata in repo card".to_owned();
        review.warnings.push(Fault { line: None, message });
        return review;
    };
    match yaml::parse(front.yaml) {
        Ok(Value::Object(data)) => review.warnings = doubts(&data, kind),
        Ok(Value::Null) => {
            let message = "empty or missing yaml metadata in repo card".to_owned();
            review.warnings.push(Fault { line: Some(front.line), message });
        }
        Ok(_) => {
            let message = "the metadata is not a mapping of names to values".to_owned();
            review.errors.push(Fault { line: Some(front.line), message });
        }
        Err(fault) => {
            let line = fault.line.map(|line| line + front.line - 1);
            review.errors.push(Fault { line, message: fault.message });
        }
    }
    review
}

/// Fields whose value is of a kind that we can't use.
fn doubts(data: &Map<String, Value>, kind: RepoKind) -> Vec<Fault> {
    let mut doubts = Vec::new();
    let mut doubt = |message: String| {
        doubts.push(Fault { line: None, message });
    };
    for name in ["pipeline_tag", "library_name", "license_name", "pretty_name", "title", "sdk"] {
        if data.get(name).is_some_and(|value| !value.is_string() && !value.is_null()) {
            doubt(format!("\"{name}\" must be a string"));
        }
    }
    for name in ["language", "license", "tags", "datasets", "metrics", "base_model"] {
        let is_texts = |value: &Value| match value {
            Value::String(_) | Value::Null => true,
            Value::Array(items) => items.iter().all(Value::is_string),
            _ => false,
        };
        if data.get(name).is_some_and(|value| !is_texts(value)) {
            doubt(format!("\"{name}\" must be a string or a list of strings"));
        }
    }
    if data.get("model-index").is_some_and(|value| !value.is_array()) {
        doubt("\"model-index\" must be a list".to_owned());
    }
    if kind == RepoKind::Model
        && let Some(tag) = data.get("pipeline_tag").and_then(Value::as_str)
        && !task::is_known(tag)
    {
        doubt(format!("\"pipeline_tag\": `{tag}` is not a task that is known here"));
    }
    doubts
}

/// The texts of a field that may be one text or a list of them.
pub fn texts<'a>(data: &'a Map<String, Value>, name: &str) -> impl Iterator<Item = &'a str> {
    let (one, many) = match data.get(name) {
        Some(Value::String(text)) => (Some(text.as_str()), [].as_slice()),
        Some(Value::Array(items)) => (None, items.as_slice()),
        _ => (None, [].as_slice()),
    };
    one.into_iter().chain(many.iter().filter_map(Value::as_str))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn front_matter_and_text_are_told_apart() {
        let card = Card::read("---\nlicense: mit\ntags:\n- a\n---\n# A model\ntext\n");
        assert_eq!(card.data.as_ref().map(|data| data["license"].clone()), Some(json!("mit")));
        assert_eq!(card.text, "# A model\ntext\n");
        assert_eq!(card.title().as_deref(), Some("A model"));
    }

    #[test]
    fn a_citation_is_the_first_block_of_bibtex() {
        let of = |text: &str| Card::read(text).citation();
        let text = "# T\n```py\nx = 1\n```\n```bibtex\n@misc{a,\n title={b}}\n```\n```\n@x{}\n```";
        assert_eq!(of(text).as_deref(), Some("@misc{a,\n title={b}}"));
        assert_eq!(of("```\n@article{z}\n```").as_deref(), Some("@article{z}"));
        for text in ["", "@misc{a}", "```\n@decorated\n```", "```py\nx @ {}\n```"] {
            assert_eq!(of(text), None, "{text}");
        }
    }

    #[test]
    fn windows_line_ends_and_a_byte_order_mark_do_not_matter() {
        let card = Card::read("\u{feff}---\r\nlicense: mit\r\n---\r\ntext");
        assert_eq!(card.data.map(|data| data["license"].clone()), Some(json!("mit")));
        assert_eq!(card.text, "text");
    }

    #[test]
    fn a_card_without_front_matter_is_all_text() {
        for readme in ["", "text", "--- not front matter\n---\n", "---\nnever: ends\n"] {
            let card = Card::read(readme);
            assert_eq!((card.data, card.text), (None, readme));
        }
    }

    #[test]
    fn a_card_that_can_not_be_read_says_nothing() {
        let card = Card::read("---\n: [\n---\ntext");
        assert_eq!((card.data, card.text), (None, "text"));
        let card = Card::read("---\n- a list\n---\ntext");
        assert_eq!((card.data, card.text), (None, "text"));
    }

    #[test]
    fn a_review_counts_lines_of_the_file() {
        let review = review("\n---\na: 1\na: 2\n---\n", RepoKind::Model);
        assert_eq!(review.errors[0].line, Some(4));
        assert!(review.warnings.is_empty());
    }

    #[test]
    fn a_review_warns_of_what_has_no_effect() {
        let of = |yaml: &str| review(&format!("---\n{yaml}\n---\n"), RepoKind::Model);
        assert_eq!(of("license: mit\ntags: [a, b]\npipeline_tag: fill-mask"), Review::default());
        for yaml in ["tags: 5", "pipeline_tag: [a]", "pipeline_tag: juggling", "model-index: 1"] {
            let review = of(yaml);
            assert!(review.errors.is_empty() && review.warnings.len() == 1, "{yaml}: {review:?}");
        }
        assert_eq!(of("").warnings.len(), 1);
        assert_eq!(of("- a").errors.len(), 1);
        assert_eq!(review("text", RepoKind::Model).warnings.len(), 1);
    }

    proptest! {
        #[test]
        fn any_readme_is_read(readme in any::<String>()) {
            let _ = Card::read(&readme).title();
            let _ = review(&readme, RepoKind::Dataset);
        }

        #[test]
        fn any_front_matter_is_read(yaml in any::<String>()) {
            let readme = format!("---\n{yaml}\n---\ntext");
            let _ = Card::read(&readme);
            let _ = review(&readme, RepoKind::Model);
        }
    }
}
