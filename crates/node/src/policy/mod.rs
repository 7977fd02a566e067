//! The policy: rules that say which files may come in and go out.
//!
//! [`Policy::judge_repo`] and [`Policy::judge_file`] are pure: facts in, judgement out. They are
//! for everything that brings files in or gives them out: uploads, downloads, mirrors, imports of
//! bundles. The hub's own verbs (in `judge.rs` and `check.rs`) gather the facts, scan where a rule
//! needs it, and refuse by name.

mod check;
mod facts;
mod judge;
mod rules;
#[cfg(test)]
mod tests;

pub use check::{Checked, CheckedFile, MAX_FILES_TOLD};
pub use facts::{FileFacts, RepoFacts, licenses_of};
pub use rules::{Action, Globs, Judgement, Need, Refusal, Rule, Stage};

pub(crate) use judge::{named, settled};
use rules::{Subject, judge};

use crate::signature::Key;

/// The rules, in the order in which they are asked.
#[derive(Clone, Debug)]
pub struct Policy {
    rules: Vec<Rule>,
    /// What is done with that of which no rule says anything.
    otherwise: Action,
    /// Keys whose signatures count.
    keys: Vec<Key>,
}

impl Default for Policy {
    fn default() -> Self {
        Self::new(Vec::new(), Action::Allow)
    }
}

impl Policy {
    /// A policy of these rules. The first one that fits decides; if none does, `otherwise`.
    pub fn new(rules: Vec<Rule>, otherwise: Action) -> Self {
        Self { rules, otherwise, keys: Vec::new() }
    }

    /// The same with keys whose signatures count.
    #[must_use]
    pub fn with_keys(self, keys: Vec<Key>) -> Self {
        Self { keys, ..self }
    }

    /// Keys whose signatures count.
    pub fn keys(&self) -> &[Key] {
        &self.keys
    }

    /// Whether nothing is ever refused at this stage.
    pub fn allows_all(&self, stage: Stage) -> bool {
        let denies = |rule: &Rule| rule.action == Action::Deny && rule.is_for(stage);
        self.otherwise == Action::Allow && !self.rules.iter().any(denies)
    }

    /// Whether a rule of this stage asks how large a repo is.
    pub fn asks_repo_bytes(&self, stage: Stage) -> bool {
        self.rules.iter().any(|rule| rule.is_for(stage) && rule.repo_larger_than.is_some())
    }

    /// Judges a repo before its files are known. [`Judgement::Undecided`] with [`Need::File`]: it
    /// depends on the files, so judge each one.
    pub fn judge_repo(&self, stage: Stage, repo: &RepoFacts) -> Judgement {
        judge(&self.rules, self.otherwise, stage, &Subject { repo, file: None })
    }

    /// Judges a file of a repo. [`Judgement::Undecided`] names the fact that is missing; once it is
    /// there, judge again.
    pub fn judge_file(&self, stage: Stage, repo: &RepoFacts, file: &FileFacts) -> Judgement {
        judge(&self.rules, self.otherwise, stage, &Subject { repo, file: Some(file) })
    }
}
