//! The tags of a repo: what filters match and listings show.
//!
//! They come from the card, from the names of the files and from what the files say. Their order
//! is that of their sources, each stands once, and there are never more than [`MAX_TAGS`].

use std::collections::HashSet;

use ballast_format::name::RepoKind;
use serde_json::{Map, Value};

use super::card::texts;
use super::facts::Facts;

/// Tags of one repo.
pub const MAX_TAGS: usize = 400;
/// Bytes of one tag.
const MAX_TAG_BYTES: usize = 200;
/// Papers that a text may name.
const MAX_PAPERS: usize = 20;

/// Collects tags, each once.
#[derive(Default)]
struct Tags {
    list: Vec<String>,
    seen: HashSet<String>,
}

impl Tags {
    fn add(&mut self, tag: impl Into<String>) {
        let tag = tag.into();
        let tag = tag.trim();
        let is_fit =
            !tag.is_empty() && tag.len() <= MAX_TAG_BYTES && !tag.contains(char::is_control);
        if is_fit && self.list.len() < MAX_TAGS && self.seen.insert(tag.to_owned()) {
            self.list.push(tag.to_owned());
        }
    }

    fn add_all<'a>(&mut self, prefix: &str, texts: impl Iterator<Item = &'a str>) {
        for text in texts {
            self.add(format!("{prefix}{text}"));
        }
    }
}

/// What the ends of file names say of the frameworks that can load them.
const FORMATS: &[(&str, &str)] = &[
    (".safetensors", "safetensors"),
    (".gguf", "gguf"),
    ("pytorch_model.bin", "pytorch"),
    (".pt", "pytorch"),
    (".pth", "pytorch"),
    (".ckpt", "pytorch"),
    ("tf_model.h5", "tf"),
    ("flax_model.msgpack", "jax"),
    ("rust_model.ot", "rust"),
    (".onnx", "onnx"),
    (".tflite", "tflite"),
    (".mlmodel", "coreml"),
    (".keras", "keras"),
    (".joblib", "joblib"),
    (".nemo", "nemo"),
    ("openvino_model.xml", "openvino"),
];

/// Whether a file is weights in a format that has a tag.
pub fn format_of(file: &str) -> Option<&'static str> {
    // Split PyTorch files are called `pytorch_model-00001-of-00002.bin`.
    let name = file.rsplit('/').next().unwrap_or(file);
    if name.starts_with("pytorch_model") && name.ends_with(".bin") {
        return Some("pytorch");
    }
    FORMATS.iter().find(|(end, _)| name.ends_with(end)).map(|(_, tag)| *tag)
}

/// The tags of a repo of this kind, from its other facts and the text of its card.
pub fn of<'a>(
    kind: RepoKind,
    facts: &Facts,
    files: impl Iterator<Item = &'a str>,
    text: &str,
) -> Vec<String> {
    let empty = Map::new();
    let card = facts.card.as_ref().unwrap_or(&empty);
    let mut tags = Tags::default();
    match kind {
        RepoKind::Model => of_model(&mut tags, facts, card, files),
        RepoKind::Dataset => of_dataset(&mut tags, card),
        RepoKind::Space => of_space(&mut tags, facts, card),
    }
    tags.add_all("arxiv:", papers(text).iter().map(String::as_str));
    tags.list
}

fn of_model<'a>(
    tags: &mut Tags,
    facts: &Facts,
    card: &Map<String, Value>,
    files: impl Iterator<Item = &'a str>,
) {
    tags.add_all("", facts.library_name.as_deref().into_iter());
    for format in files.filter_map(format_of) {
        tags.add(format);
    }
    let config = facts.config.as_ref();
    let family = config.and_then(|config| config.get("model_type")?.as_str());
    tags.add_all("", family.into_iter());
    tags.add_all("", facts.pipeline_tag.as_deref().into_iter());
    tags.add_all("", texts(card, "tags"));
    if config.is_some_and(|config| config.contains_key("auto_map")) {
        tags.add("custom_code");
    }
    if facts.config.as_ref().is_some_and(|config| config.contains_key("quantization_config")) {
        let method =
            config.and_then(|c| c.get("quantization_config")?.get("quant_method")?.as_str());
        tags.add_all("", method.into_iter());
    }
    tags.add_all("", texts(card, "language"));
    tags.add_all("dataset:", texts(card, "datasets"));
    let bases: Vec<&str> = texts(card, "base_model").collect();
    tags.add_all("base_model:", bases.iter().copied());
    if !bases.is_empty() {
        let relation = relation(facts, card, bases.len());
        tags.add_all(&format!("base_model:{relation}:"), bases.into_iter());
    }
    tags.add_all("license:", texts(card, "license"));
    if !facts.metrics.is_empty() {
        tags.add("model-index");
    }
    if !facts.eval_results.is_empty() {
        tags.add("eval-results");
    }
}

/// How a model came from its base: as the card says, or as its files suggest.
pub fn relation<'a>(facts: &Facts, card: &'a Map<String, Value>, bases: usize) -> &'a str {
    if let Some(relation) = card.get("base_model_relation").and_then(Value::as_str) {
        return relation;
    }
    let is_quantized = facts.gguf.is_some()
        || facts.config.as_ref().is_some_and(|c| c.contains_key("quantization_config"));
    if facts.library_name.as_deref() == Some("peft") {
        "adapter"
    } else if bases > 1 {
        "merge"
    } else if is_quantized {
        "quantized"
    } else {
        "finetune"
    }
}

/// The fields of a dataset's card whose values are tags with the field's name before them.
const DATASET_FIELDS: &[&str] = &[
    "task_categories",
    "task_ids",
    "annotations_creators",
    "language_creators",
    "multilinguality",
    "source_datasets",
    "language",
    "license",
    "size_categories",
    "benchmark",
];

fn of_dataset(tags: &mut Tags, card: &Map<String, Value>) {
    for field in DATASET_FIELDS {
        tags.add_all(&format!("{field}:"), texts(card, field));
    }
    tags.add_all("", texts(card, "tags"));
}

fn of_space(tags: &mut Tags, facts: &Facts, card: &Map<String, Value>) {
    tags.add_all("", facts.sdk.as_deref().into_iter());
    tags.add_all("", texts(card, "tags"));
    tags.add_all("license:", texts(card, "license"));
}

/// The papers that a text links to: `arxiv.org/abs/2106.09685`, `arXiv:1810.04805`.
fn papers(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let lower = text.to_ascii_lowercase();
    for (at, word) in lower.match_indices("arxiv") {
        let rest = &lower[at + word.len()..];
        let rest = rest.strip_prefix(".org").unwrap_or(rest);
        let rest = rest.strip_prefix("/abs/").or_else(|| rest.strip_prefix("/pdf/"));
        let rest = rest.or_else(|| lower[at + word.len()..].strip_prefix(':'));
        let Some(rest) = rest.map(str::trim_start) else {
            continue;
        };
        let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
        let Some((year, number)) = rest.split_once('.') else {
            continue;
        };
        let count = digits(number);
        if year.len() == 4 && digits(year) == 4 && (4..=5).contains(&count) {
            let paper = format!("{year}.{}", &number[..count]);
            if !found.contains(&paper) {
                found.push(paper);
            }
        }
        if found.len() == MAX_PAPERS {
            break;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn facts(card: &Value) -> Facts {
        Facts { card: card.as_object().cloned(), ..Facts::default() }
    }

    #[test]
    fn a_models_tags_name_all_that_filters_ask_for() {
        let facts = Facts {
            library_name: Some("transformers".into()),
            pipeline_tag: Some("text-generation".into()),
            config: json!({"model_type": "llama"}).as_object().cloned(),
            ..facts(&json!({
                "language": ["en", "fr"], "license": "mit", "datasets": ["a/b"],
                "base_model": "meta/llama", "tags": ["mine", "transformers"],
            }))
        };
        let files = ["model.safetensors", "onnx/model.onnx", "pytorch_model-00001-of-00002.bin"];
        let text = "see [the paper](https://arxiv.org/abs/2307.09288) and arXiv:1706.03762v5";
        let tags = of(RepoKind::Model, &facts, files.into_iter(), text);
        let expected = [
            "transformers",
            "safetensors",
            "onnx",
            "pytorch",
            "llama",
            "text-generation",
            "mine",
            "en",
            "fr",
            "dataset:a/b",
            "base_model:meta/llama",
            "base_model:finetune:meta/llama",
            "license:mit",
            "arxiv:2307.09288",
            "arxiv:1706.03762",
        ];
        assert_eq!(tags, expected);
    }

    #[test]
    fn a_datasets_tags_carry_their_field() {
        let facts = facts(&json!({
            "language": "fr", "task_categories": ["text-classification"],
            "size_categories": ["1K<n<10K"], "license": "mit", "tags": ["x"],
        }));
        let tags = of(RepoKind::Dataset, &facts, [].into_iter(), "");
        let expected = [
            "task_categories:text-classification",
            "language:fr",
            "license:mit",
            "size_categories:1K<n<10K",
            "x",
        ];
        assert_eq!(tags, expected);
    }

    #[test]
    fn the_relation_to_a_base_is_said_or_seen() {
        let of = |facts: &Facts, bases| {
            relation(facts, facts.card.as_ref().expect("it has one"), bases).to_owned()
        };
        assert_eq!(of(&facts(&json!({"base_model_relation": "merge"})), 1), "merge");
        assert_eq!(of(&facts(&json!({})), 2), "merge");
        let adapter = Facts { library_name: Some("peft".into()), ..facts(&json!({})) };
        assert_eq!(of(&adapter, 1), "adapter");
        let quantized =
            Facts { gguf: Some(crate::discovery::gguf::Gguf::default()), ..facts(&json!({})) };
        assert_eq!(of(&quantized, 1), "quantized");
    }

    #[test]
    fn tags_are_few_short_and_plain() {
        let many: Vec<String> = (0..1000).map(|n| format!("t{n}")).collect();
        let crowded = facts(&json!({ "tags": many }));
        assert_eq!(of(RepoKind::Model, &crowded, [].into_iter(), "").len(), MAX_TAGS);
        let bad = facts(&json!({"tags": ["", " ", "a\nb", "x".repeat(201), "ok"]}));
        assert_eq!(of(RepoKind::Model, &bad, [].into_iter(), ""), ["ok"]);
    }

    #[test]
    fn what_is_no_paper_is_left_out() {
        for text in ["arxiv", "arxiv.org/abs/", "arxiv:12.34", "arxiv.org/abs/abcd.12345", "arxiv:"]
        {
            assert!(papers(text).is_empty(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_searched(text in "(arxiv|\\.org|/abs/|:|[0-9.]{0,6}|\\PC){0,40}") {
            let _ = papers(&text);
        }
    }
}
