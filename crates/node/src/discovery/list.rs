//! Listings: which repos the caller may see, filtered, sorted, page by page.

use std::cmp::Ordering;
use std::sync::Arc;

use ballast_format::hash::ObjectHash;
use ballast_format::log::Gating;
use ballast_format::name::RepoKind;

use super::card::texts;
use super::{Facts, apps};
use crate::access::{Caller, Repo};
use crate::error::{Error, Result};
use crate::hub::Hub;
use crate::state::catalogue::RepoRecord;
use crate::tally::Downloads;

/// Repos on one page.
const MAX_PAGE: usize = 1000;

/// By what a listing is ordered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sort {
    /// By what is wanted now: likes and recent downloads.
    #[default]
    Trending,
    /// By the last commit.
    LastModified,
    /// By when it was created.
    CreatedAt,
    /// By downloads of the last 30 days.
    Downloads,
    /// By likes.
    Likes,
    /// By parameters.
    Parameters,
    /// By the size of its files.
    Size,
    /// By name.
    Name,
}

/// What to list.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Query {
    /// Words that must all be in the name, the title, the tags or the card.
    pub search: Vec<String>,
    /// A namespace.
    pub author: Option<String>,
    /// Tags that must all be there.
    pub tags: Vec<String>,
    /// What the model does.
    pub pipeline_tag: Option<String>,
    /// Whether it is gated.
    pub gated: Option<bool>,
    /// The fewest and the most parameters.
    pub parameters: (Option<u64>, Option<u64>),
    /// Repos that its card must all name: what a space uses.
    pub linked: Vec<String>,
    /// Whether its card must name any repo at all.
    pub is_linked: bool,
    /// Programs of which one must be able to run it; none: whatever.
    pub apps: Vec<String>,
    /// The order.
    pub sort: Sort,
    /// Smallest first.
    pub ascending: bool,
}

/// A repo in a listing.
#[derive(Clone, Debug)]
pub struct Listed {
    /// The repo.
    pub repo: Repo,
    /// What is known of it.
    pub facts: Arc<Facts>,
    /// How often it was downloaded.
    pub downloads: Downloads,
    /// How many like it.
    pub likes: u64,
}

impl Listed {
    /// A figure that follows what people want now.
    pub fn trending(&self) -> u64 {
        self.likes * 10 + self.downloads.recent
    }
}

impl Hub {
    /// A repo with what listings show of it.
    pub fn listed(&self, repo: &Repo) -> Listed {
        Listed {
            repo: repo.clone(),
            facts: self.facts(&repo.id()),
            downloads: self.downloads(&repo.id()),
            likes: self.like_count(repo),
        }
    }

    /// The same with what one of its commits says, which costs reading that.
    pub async fn listed_at(self: &Arc<Self>, repo: &Repo, commit: ObjectHash) -> Result<Listed> {
        let mut listed = self.listed(repo);
        if listed.facts.commit != Some(commit.to_string()) {
            listed.facts = Arc::new(self.read_facts(repo, commit).await?);
        }
        Ok(listed)
    }

    /// A page of the repos of a kind that fit; `after` is how many came before. Also says whether
    /// there are more.
    pub fn list(
        &self,
        caller: &Caller,
        kind: RepoKind,
        query: &Query,
        after: usize,
        limit: usize,
    ) -> Result<(Vec<Listed>, bool)> {
        self.admit(caller)?;
        let author = query.author.as_ref().map(|author| author.to_lowercase());
        let records = self.records(|record| {
            let namespace = record.name.namespace();
            record.kind == kind
                && author.as_ref().is_none_or(|author| namespace.folded() == *author)
                && query.gated.is_none_or(|gated| gated == (record.gating != Gating::None))
                && self.may_see(caller, record)
        });
        let wanted = Wanted::new(query);
        let mut found: Vec<Listed> = records
            .into_iter()
            .filter_map(|record| {
                let facts = self.facts(&record.id);
                wanted.fits(&record, &facts).then(|| self.listed(&Repo { record }))
            })
            .collect();
        found.sort_by(|a, b| order(query, a, b));
        if limit == 0 || limit > MAX_PAGE {
            return Err(Error::invalid(format!("a page has 1 to {MAX_PAGE} repos")));
        }
        let more = found.len() > after.saturating_add(limit);
        Ok((found.into_iter().skip(after).take(limit).collect(), more))
    }

    /// Repos of a namespace that the caller may see: models, datasets, spaces.
    pub fn count_repos(&self, caller: &Caller, namespace: &str) -> (u64, u64, u64) {
        let mut counts = (0, 0, 0);
        let own = |record: &RepoRecord| {
            record.name.namespace().as_str().eq_ignore_ascii_case(namespace)
                && self.may_see(caller, record)
        };
        for record in self.records(own) {
            match record.kind {
                RepoKind::Model => counts.0 += 1,
                RepoKind::Dataset => counts.1 += 1,
                RepoKind::Space => counts.2 += 1,
            }
        }
        counts
    }

    /// Every tag of the repos of a kind that the caller may see, each once, with its group.
    pub fn tags(&self, caller: &Caller, kind: RepoKind) -> Vec<(&'static str, String)> {
        let records = self.records(|record| record.kind == kind && self.may_see(caller, record));
        let mut tags = std::collections::BTreeSet::new();
        for record in records {
            let facts = self.facts(&record.id);
            for tag in &facts.tags {
                let group = match tag.split_once(':') {
                    Some(("license", _)) => "license",
                    Some(("language", _)) => "language",
                    Some(("dataset", _)) => "dataset",
                    Some(("base_model", _)) => "base_model",
                    Some(("task_categories", _)) => "task_categories",
                    Some(("size_categories", _)) => "size_categories",
                    _ if facts.pipeline_tag.as_ref() == Some(tag) => "pipeline_tag",
                    _ if facts.library_name.as_ref() == Some(tag) => "library",
                    _ if tag.len() == 2 => "language",
                    _ => "other",
                };
                tags.insert((group, tag.clone()));
            }
        }
        tags.into_iter().collect()
    }
}

/// A query, made ready to be compared with many repos.
struct Wanted<'a> {
    query: &'a Query,
    words: Vec<String>,
    tags: Vec<String>,
}

impl<'a> Wanted<'a> {
    fn new(query: &'a Query) -> Self {
        let words = query.search.iter().flat_map(|text| {
            let lower = text.to_lowercase();
            lower.split_whitespace().map(ToOwned::to_owned).collect::<Vec<_>>()
        });
        let tags = query.tags.iter().map(|tag| tag.to_lowercase());
        Self { query, words: words.collect(), tags: tags.collect() }
    }

    fn fits(&self, record: &RepoRecord, facts: &Facts) -> bool {
        let (least, most) = self.query.parameters;
        if least.is_some() || most.is_some() {
            let Some(count) = facts.parameters() else {
                return false;
            };
            if least.is_some_and(|least| count < least) || most.is_some_and(|most| count > most) {
                return false;
            }
        }
        if self.query.pipeline_tag.is_some() && self.query.pipeline_tag != facts.pipeline_tag {
            return false;
        }
        let apps = &self.query.apps;
        if !apps.is_empty() && !apps.iter().any(|app| apps::runs(app, facts)) {
            return false;
        }
        if self.query.is_linked && named(facts).next().is_none() {
            return false;
        }
        if !self.query.linked.iter().all(|name| links(facts, name)) {
            return false;
        }
        // `language:fr` and `fr` are the same question, asked by different clients.
        let has = |tag: &String| {
            let bare = tag.strip_prefix("language:").unwrap_or(tag);
            facts.tags.iter().any(|own| {
                let own = own.to_lowercase();
                own == *tag || own == bare || own.strip_prefix("language:") == Some(bare)
            })
        };
        self.tags.iter().all(has) && self.words.iter().all(|word| says(record, facts, word))
    }
}

/// Whether a card names this repo among what it uses.
fn links(facts: &Facts, name: &str) -> bool {
    named(facts).any(|other| other.eq_ignore_ascii_case(name))
}

/// The repos that a card names as what it uses.
fn named(facts: &Facts) -> impl Iterator<Item = &str> {
    let lists = facts.card.iter().flat_map(|card| ["models", "datasets"].map(|list| (card, list)));
    lists.flat_map(|(card, list)| texts(card, list))
}

/// Whether a word is in what is known of a repo.
fn says(record: &RepoRecord, facts: &Facts, word: &str) -> bool {
    record.name.folded().contains(word)
        || facts.title.as_ref().is_some_and(|title| title.to_lowercase().contains(word))
        || record.description.as_ref().is_some_and(|text| text.to_lowercase().contains(word))
        || facts.tags.iter().any(|tag| tag.to_lowercase().contains(word))
        || facts.text.contains(word)
}

fn order(query: &Query, a: &Listed, b: &Listed) -> Ordering {
    let by = match query.sort {
        Sort::Trending => a.trending().cmp(&b.trending()),
        Sort::LastModified => modified(a).cmp(&modified(b)),
        Sort::CreatedAt => a.repo.record.created_ms.cmp(&b.repo.record.created_ms),
        Sort::Downloads => a.downloads.recent.cmp(&b.downloads.recent),
        Sort::Likes => a.likes.cmp(&b.likes),
        Sort::Parameters => a.facts.parameters().cmp(&b.facts.parameters()),
        Sort::Size => a.facts.used_storage.cmp(&b.facts.used_storage),
        Sort::Name => a.repo.name().folded().cmp(&b.repo.name().folded()),
    };
    let by = if query.ascending { by } else { by.reverse() };
    // Pages must not shuffle what is equal.
    by.then_with(|| b.repo.record.created_ms.cmp(&a.repo.record.created_ms))
        .then_with(|| a.repo.id().cmp(&b.repo.id()))
}

fn modified(listed: &Listed) -> u64 {
    listed.facts.modified_ms.max(listed.repo.record.created_ms)
}
