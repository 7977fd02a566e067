//! What the rules say of repos as they are: which file is refused by which rule, and why.

use std::collections::BTreeMap;
use std::sync::Arc;

use ballast_format::hash::ObjectHash;

use super::facts::licenses_of;
use super::judge::named;
use super::rules::{Judgement, Need, Refusal, Stage};
use super::{FileFacts, RepoFacts};
use crate::access::Repo;
use crate::error::Result;
use crate::hub::Hub;
use crate::scan::{Scan, Status};
use crate::signature::Vouched;

/// Files of one repo that are named.
pub const MAX_FILES_TOLD: usize = 1000;

/// A file that is refused, or not safe.
#[derive(Clone, Debug)]
pub struct CheckedFile {
    /// Where it is.
    pub path: String,
    /// Its size in bytes.
    pub bytes: u64,
    /// Why it is refused, if it is.
    pub refusal: Option<Refusal>,
    /// What its scan found.
    pub scan: Arc<Scan>,
}

/// What the rules say of a repo at one commit.
#[derive(Clone, Debug)]
pub struct Checked {
    /// What was known of it.
    pub repo: RepoFacts,
    /// The commit; nothing if there is none.
    pub commit: Option<ObjectHash>,
    /// How many files it has.
    pub files: usize,
    /// How many of them are refused.
    pub refused: usize,
    /// The rules that let the others pass, each once; nothing stands for no rule.
    pub allowed_by: Vec<String>,
    /// The keys that signed it, with how many files are as they were signed.
    pub vouched: Vec<Vouched>,
    /// Signatures of which nothing counts, each with the reason.
    pub bad_signatures: BTreeMap<String, String>,
    /// Those that are refused or not safe; at most [`MAX_FILES_TOLD`].
    pub told: Vec<CheckedFile>,
}

impl Hub {
    /// Judges all files of a commit as this stage would. All of them are scanned.
    pub async fn check_policy(
        self: &Arc<Self>,
        stage: Stage,
        repo: &Repo,
        commit: Option<ObjectHash>,
    ) -> Result<Checked> {
        let mut checked = Checked {
            repo: named(repo),
            commit,
            files: 0,
            refused: 0,
            allowed_by: Vec::new(),
            vouched: Vec::new(),
            bad_signatures: BTreeMap::new(),
            told: Vec::new(),
        };
        let Some(commit) = commit else { return Ok(checked) };
        let listed = self.listed_at(repo, commit).await?;
        checked.repo.licenses = Some(licenses_of(listed.facts.card.as_ref()));
        checked.repo.bytes = Some(listed.facts.used_storage);
        let items = self.siblings(repo, commit).await?;
        checked.vouched = self.vouched(repo, commit, &items).await?;
        checked.bad_signatures = self.signatures(repo, commit).await?.bad.clone();
        for item in items {
            checked.files += 1;
            // What a mirror has not brought is not brought for this.
            let is_here = item.is_here();
            let scan = if is_here { self.scan(repo, &item).await? } else { Arc::default() };
            let file = FileFacts {
                path: Some(item.path.clone()),
                bytes: Some(item.size),
                scan: is_here.then(|| Arc::clone(&scan)),
                signed_by: Some(self.signed_by(repo, commit, &item).await?),
            };
            let refusal = match self.policy().judge_file(stage, &checked.repo, &file) {
                Judgement::Allowed { rule } => {
                    let rule = rule.unwrap_or_default();
                    if !checked.allowed_by.contains(&rule) {
                        checked.allowed_by.push(rule);
                    }
                    None
                }
                Judgement::Denied(refusal) => Some(refusal),
                Judgement::Undecided { needs: Need::Scan, .. } if !is_here => None,
                Judgement::Undecided { rule, needs } => Some(unknown(rule, needs)),
            };
            checked.refused += usize::from(refusal.is_some());
            let is_told = refusal.is_some() || scan.status != Status::Safe;
            if is_told && checked.told.len() < MAX_FILES_TOLD {
                let (path, bytes) = (item.path, item.size);
                checked.told.push(CheckedFile { path, bytes, refusal, scan });
            }
        }
        Ok(checked)
    }
}

fn unknown(rule: String, needs: Need) -> Refusal {
    Refusal { rule, reason: format!("{needs:?} is not known of it") }
}
