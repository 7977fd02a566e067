//! What is known of a repo without looking into it again: its card, its configuration, the headers
//! of its weights, and the tags that follow.
//!
//! Facts are of `main` at one commit. They are rows of the index and can be made again at any time;
//! a file that can't be read, or says nonsense, leaves its fact out and nothing else.

use std::sync::Arc;

use ballast_format::hash::ObjectHash;
use ballast_format::name::RepoKind;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::card::{Card, MAX_README_BYTES};
use super::feed::Feed;
use super::gguf::{self, Gguf};
use super::safetensors::{self, Parameters};
use super::tags;
use super::task::{self, TransformersInfo};
use crate::access::Repo;
use crate::download::TreeItem;
use crate::error::Result;
use crate::hub::Hub;

/// How much of a card's text is searched.
const MAX_TEXT_BYTES: usize = 16 * 1024;
/// How large a configuration may be that is read.
const MAX_CONFIG_BYTES: u64 = 4 << 20;
/// Files of one model whose headers are read.
const MAX_SHARDS: usize = 200;
/// Metrics that are kept of one card.
const MAX_METRICS: usize = 200;
/// What of `config.json` is shown; the rest is long.
const CONFIG_KEYS: &[&str] = &["architectures", "model_type", "auto_map", "quantization_config"];
/// What of the tokenizer's configuration is shown.
const TOKENIZER_KEYS: &[&str] = &[
    "bos_token",
    "cls_token",
    "eos_token",
    "mask_token",
    "pad_token",
    "sep_token",
    "unk_token",
    "chat_template",
    "tokenizer_class",
];

/// A figure that a card gives for its model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Metric {
    /// What the model does.
    pub task: Option<String>,
    /// On what data.
    pub dataset: Option<String>,
    /// What is measured.
    pub name: String,
    /// How much.
    pub value: Value,
}

/// What is known of a repo.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Facts {
    /// The commit that they are of.
    pub commit: Option<String>,
    /// When that was made, in unix milliseconds.
    pub modified_ms: u64,
    /// The front matter of its card.
    pub card: Option<Map<String, Value>>,
    /// The card's heading.
    pub title: Option<String>,
    /// Parts of its `config.json` and tokenizer configuration.
    pub config: Option<Map<String, Value>>,
    /// The library that loads it.
    pub library_name: Option<String>,
    /// What it does.
    pub pipeline_tag: Option<String>,
    /// For a space: what runs it.
    pub sdk: Option<String>,
    /// The token that stands for a missing word.
    pub mask_token: Option<String>,
    /// How `transformers` loads it.
    pub transformers_info: Option<TransformersInfo>,
    /// Parameters in its safetensors files.
    pub safetensors: Option<Parameters>,
    /// What its GGUF file says.
    pub gguf: Option<Gguf>,
    /// Figures of its card.
    pub metrics: Vec<Metric>,
    /// Results in the card's newer form.
    pub eval_results: Vec<Value>,
    /// What filters match.
    pub tags: Vec<String>,
    /// What is searched: the card's text in lower case.
    pub text: String,
    /// Bytes of the files of `main`.
    pub used_storage: u64,
}

impl Facts {
    /// How many parameters the model has, if its files say so.
    pub fn parameters(&self) -> Option<u64> {
        let safetensors = self.safetensors.as_ref().map(|parameters| parameters.total);
        safetensors.or_else(|| self.gguf.as_ref().map(|gguf| gguf.total))
    }
}

impl Hub {
    /// Reads what a commit says.
    pub(super) async fn read_facts(self: &Arc<Self>, repo: &Repo, id: ObjectHash) -> Result<Facts> {
        let commit = self.commit(repo.id(), &id).await?;
        let items = self.siblings(repo, id).await?;
        let seconds = u64::try_from(commit.committer.time_seconds).unwrap_or(0);
        let mut facts = Facts {
            commit: Some(id.to_string()),
            modified_ms: seconds * 1000,
            sdk: repo.record.sdk.clone(),
            used_storage: items.iter().map(|item| item.size).sum(),
            ..Facts::default()
        };
        let readme = self.read_text(repo, &items, "README.md", MAX_README_BYTES).await;
        let readme = readme.unwrap_or_default();
        let card = Card::read(&readme);
        facts.title = card.title();
        facts.text = cut(&card.text.to_lowercase(), MAX_TEXT_BYTES);
        facts.card = card.data.clone();
        if let Some(data) = &card.data {
            facts.metrics = metrics(data);
            let results = data.get("eval_results").and_then(Value::as_array);
            facts.eval_results = results.map_or_else(Vec::new, Clone::clone);
            let sdk = data.get("sdk").and_then(Value::as_str).map(ToOwned::to_owned);
            facts.sdk = facts.sdk.or(sdk);
        }
        if repo.kind() == RepoKind::Model {
            self.read_model(repo, &items, &mut facts).await;
        }
        let names = items.iter().map(|item| item.path.as_str());
        facts.tags = tags::of(repo.kind(), &facts, names, card.text);
        Ok(facts)
    }

    async fn read_model(self: &Arc<Self>, repo: &Repo, items: &[TreeItem], facts: &mut Facts) {
        let config = self.read_json(repo, items, "config.json").await;
        let tokenizer = self.read_json(repo, items, "tokenizer_config.json").await;
        let pipeline = self.read_json(repo, items, "model_index.json").await;
        let mut shown = Map::new();
        if let Some(config) = &config {
            shown.extend(pick(config, CONFIG_KEYS));
            facts.transformers_info = task::transformers_info(config);
        }
        if let Some(tokenizer) = &tokenizer {
            let picked: Map<String, Value> = pick(tokenizer, TOKENIZER_KEYS).collect();
            let mask = picked.get("mask_token");
            let mask = mask.and_then(|mask| mask.as_str().or_else(|| mask["content"].as_str()));
            facts.mask_token = mask.map(ToOwned::to_owned);
            shown.insert("tokenizer_config".to_owned(), Value::Object(picked));
        }
        let class = pipeline.as_ref().and_then(|index| index.get("_class_name")?.as_str());
        facts.config = (!shown.is_empty()).then_some(shown);
        facts.safetensors = self.read_safetensors(repo, items).await;
        facts.gguf = self.read_gguf(repo, items).await;
        let said = |name: &str| {
            let data = facts.card.as_ref()?;
            data.get(name)?.as_str().map(ToOwned::to_owned)
        };
        let has = |name: &str| items.iter().any(|item| item.path == name);
        let guess = if pipeline.is_some() {
            Some("diffusers")
        } else if has("adapter_config.json") {
            Some("peft")
        } else if has("modules.json") && has("config_sentence_transformers.json") {
            Some("sentence-transformers")
        } else if facts.transformers_info.is_some() {
            Some("transformers")
        } else {
            None
        };
        facts.library_name = said("library_name").or_else(|| guess.map(ToOwned::to_owned));
        let by_config = facts.transformers_info.as_ref().and_then(|info| info.pipeline_tag.clone());
        let by_class = class.and_then(task::of_pipeline).map(ToOwned::to_owned);
        let by_library =
            (guess == Some("sentence-transformers")).then(|| "sentence-similarity".to_owned());
        facts.pipeline_tag = said("pipeline_tag").or(by_class).or(by_library).or(by_config);
    }

    async fn read_text(
        self: &Arc<Self>,
        repo: &Repo,
        items: &[TreeItem],
        name: &str,
        limit: u64,
    ) -> Option<String> {
        let item = items.iter().find(|item| item.path == name && item.size > 0)?;
        let mut feed = self.feed(repo, item, item.size.min(limit)).await?;
        let bytes = feed.bytes(item.size.min(limit)).await.ok()?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }

    async fn read_json(
        self: &Arc<Self>,
        repo: &Repo,
        items: &[TreeItem],
        name: &str,
    ) -> Option<Map<String, Value>> {
        let text = self.read_text(repo, items, name, MAX_CONFIG_BYTES).await?;
        match serde_json::from_str(&text).ok()? {
            Value::Object(object) => Some(object),
            _ => None,
        }
    }

    async fn feed(self: &Arc<Self>, repo: &Repo, item: &TreeItem, limit: u64) -> Option<Feed> {
        match self.open_item(repo, item, 0..limit.min(item.size)).await {
            Ok(stream) => Some(Feed::new(stream, limit)),
            Err(error) => {
                let (name, path) = (repo.name(), &item.path);
                tracing::debug!(repo = %name, path, %error, "no fact from a file");
                None
            }
        }
    }

    /// The parameters of `model.safetensors`, or of the files that its index names.
    async fn read_safetensors(
        self: &Arc<Self>,
        repo: &Repo,
        items: &[TreeItem],
    ) -> Option<Parameters> {
        let mut names = vec!["model.safetensors".to_owned()];
        let index = "model.safetensors.index.json";
        if let Some(text) = self.read_text(repo, items, index, MAX_CONFIG_BYTES * 8).await {
            names = safetensors::shards(text.as_bytes())?;
        }
        let mut sum: Option<Parameters> = None;
        for name in names.iter().take(MAX_SHARDS) {
            let item = items.iter().find(|item| item.path == *name)?;
            let mut feed = self.feed(repo, item, safetensors::MAX_HEADER_BYTES).await?;
            let header = safetensors::header(&mut feed).await.ok()?;
            let counted = safetensors::tally(&header).ok()?;
            match &mut sum {
                None => sum = Some(counted),
                Some(sum) => sum.merge(&counted).ok()?,
            }
        }
        sum
    }

    /// What the first GGUF file says; of a split model, its first part.
    async fn read_gguf(self: &Arc<Self>, repo: &Repo, items: &[TreeItem]) -> Option<Gguf> {
        let is_weights = |item: &&TreeItem| {
            item.path.ends_with(".gguf") && !item.path.to_lowercase().contains("mmproj")
        };
        let item = items.iter().find(is_weights)?;
        let mut feed = self.feed(repo, item, gguf::MAX_HEADER_BYTES).await?;
        gguf::read(&mut feed).await.ok()
    }
}

fn pick<'a>(
    object: &'a Map<String, Value>,
    keys: &'a [&str],
) -> impl Iterator<Item = (String, Value)> + 'a {
    keys.iter().filter_map(|key| Some(((*key).to_owned(), object.get(*key)?.clone())))
}

/// The figures of a card's `model-index`.
fn metrics(card: &Map<String, Value>) -> Vec<Metric> {
    let list = |value: &Value, name: &str| {
        value.get(name).and_then(Value::as_array).cloned().unwrap_or_default()
    };
    let text = |value: &Value, outer: &str, inner: &str| {
        Some(value.get(outer)?.get(inner)?.as_str()?.to_owned())
    };
    let mut found = Vec::new();
    let models = card.get("model-index").and_then(Value::as_array);
    for result in models.into_iter().flatten().flat_map(|model| list(model, "results")) {
        for metric in list(&result, "metrics") {
            let name = metric.get("type").or_else(|| metric.get("name")).and_then(Value::as_str);
            if let (Some(name), Some(value)) = (name, metric.get("value"))
                && found.len() < MAX_METRICS
            {
                found.push(Metric {
                    task: text(&result, "task", "type"),
                    dataset: text(&result, "dataset", "type")
                        .or_else(|| text(&result, "dataset", "name")),
                    name: name.to_owned(),
                    value: value.clone(),
                });
            }
        }
    }
    found
}

/// Text up to a number of bytes, cut between letters.
fn cut(text: &str, limit: usize) -> String {
    let mut end = text.len().min(limit);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn metrics_of_a_model_index_are_found_and_nonsense_is_passed_over() {
        let card = json!({"model-index": [
            {"name": "m", "results": [
                {"task": {"type": "text-generation"}, "dataset": {"type": "mmlu", "name": "MMLU"},
                 "metrics": [{"type": "accuracy", "value": 0.7}, {"value": 1}, "no"]},
                7,
            ]},
            "no",
        ]});
        let found = metrics(card.as_object().expect("an object"));
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].dataset.as_deref(), Some("mmlu"));
        assert_eq!(found[0].value, json!(0.7));
    }

    #[test]
    fn text_is_cut_between_letters() {
        assert_eq!(cut("grün", 3), "gr");
        assert_eq!(cut("grün", 99), "grün");
    }
}
