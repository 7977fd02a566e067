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

use super::card::{Card, MAX_README_BYTES, texts};
use super::feed::Feed;
use super::gguf::{self, Gguf};
use super::metrics::{self, Metric};
use super::safetensors::{self, Parameters};
use super::tags;
use super::task::{self, TransformersInfo};
use super::{words, yaml};
use crate::access::Repo;
use crate::download::TreeItem;
use crate::error::Result;
use crate::hub::Hub;

/// How large a configuration may be that is read.
const MAX_CONFIG_BYTES: u64 = 4 << 20;
/// Files of one model whose headers are read.
const MAX_SHARDS: usize = 200;
/// Files of results of one model that are read, and how long each may be.
const MAX_RESULT_FILES: usize = 100;
const MAX_RESULT_BYTES: u64 = 1 << 20;
/// What this program makes of files; facts that another one wrote down are made anew.
const FORM: u32 = 2;
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

/// What is known of a repo.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Facts {
    /// What made them; see [`Facts::is_current`].
    pub(super) form: u32,
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
    /// A dataset's own words on how to cite it.
    pub citation: Option<String>,
    /// What is searched: the words of the card, in lower case, each once.
    pub text: String,
    /// Bytes of the files of `main`.
    pub used_storage: u64,
}

impl Facts {
    /// Whether they are what would be read of this commit now.
    pub(super) fn is_current(&self, main: Option<&String>) -> bool {
        self.commit.as_ref() == main && (self.form == FORM || main.is_none())
    }

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
            form: FORM,
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
        facts.citation = card.citation();
        facts.card = card.data.clone();
        if let Some(data) = &card.data {
            facts.metrics = metrics::of_card(data);
            metrics::add_results(&mut facts.eval_results, data.get("eval_results"));
            let sdk = data.get("sdk").and_then(Value::as_str).map(ToOwned::to_owned);
            facts.sdk = facts.sdk.or(sdk);
        }
        if repo.kind() == RepoKind::Model {
            self.read_model(repo, &items, &mut facts).await;
            self.read_results(repo, &items, &mut facts).await;
        }
        facts.text = searched(&card, &facts);
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

    /// Results that lie in files of their own, as newer tools write them.
    async fn read_results(self: &Arc<Self>, repo: &Repo, items: &[TreeItem], facts: &mut Facts) {
        let is_results = |item: &&TreeItem| {
            item.path.starts_with(".eval_results/")
                && (item.path.ends_with(".yaml") || item.path.ends_with(".yml"))
        };
        for item in items.iter().filter(is_results).take(MAX_RESULT_FILES) {
            let text = self.read_text(repo, items, &item.path, MAX_RESULT_BYTES).await;
            let results = text.and_then(|text| yaml::parse(&text).ok());
            metrics::add_results(&mut facts.eval_results, results.as_ref());
        }
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
        // What is only at an upstream is not fetched for this.
        if item.large.is_some_and(|large| large.manifest().is_none()) {
            return None;
        }
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

    /// What the first GGUF file says. A split model's parameters are those of all of its parts;
    /// where one is missing, nobody knows how many these are.
    async fn read_gguf(self: &Arc<Self>, repo: &Repo, items: &[TreeItem]) -> Option<Gguf> {
        let is_weights = |item: &&TreeItem| {
            item.path.ends_with(".gguf") && !item.path.to_lowercase().contains("mmproj")
        };
        let first = items.iter().find(is_weights)?;
        let names = gguf::parts(&first.path).unwrap_or_else(|| vec![first.path.clone()]);
        if names.len() > MAX_SHARDS {
            return None;
        }
        let mut whole: Option<Gguf> = None;
        for name in &names {
            let item = items.iter().find(|item| item.path == *name)?;
            let mut feed = self.feed(repo, item, gguf::MAX_HEADER_BYTES).await?;
            let part = gguf::read(&mut feed).await.ok()?;
            match &mut whole {
                None => whole = Some(part),
                Some(whole) => whole.total = whole.total.checked_add(part.total)?,
            }
        }
        whole
    }
}

/// The words that a card is found by: what it is called, what was measured, and its text.
fn searched(card: &Card<'_>, facts: &Facts) -> String {
    let empty = Map::new();
    let data = card.data.as_ref().unwrap_or(&empty);
    let measured = metrics::names(data, &facts.eval_results);
    let called = texts(data, "pretty_name").chain(texts(data, "title"));
    words::each_once(called.chain(measured).chain([card.text]))
}

fn pick<'a>(
    object: &'a Map<String, Value>,
    keys: &'a [&str],
) -> impl Iterator<Item = (String, Value)> + 'a {
    keys.iter().filter_map(|key| Some(((*key).to_owned(), object.get(*key)?.clone())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_that_another_program_wrote_are_made_anew() {
        let main = "11".repeat(20);
        let facts = Facts { commit: Some(main.clone()), form: FORM, ..Facts::default() };
        assert!(facts.is_current(Some(&main)) && !facts.is_current(None));
        let former = Facts { form: FORM - 1, ..facts };
        assert!(!former.is_current(Some(&main)));
        assert!(Facts::default().is_current(None));
    }
}
