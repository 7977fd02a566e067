//! What rules ask about a repo and about a file. What is not known is `None`, which is not the
//! same as known to be nothing.

use std::collections::BTreeSet;
use std::sync::Arc;

use ballast_format::name::{RepoKind, RepoName};
use serde_json::{Map, Value};

use crate::scan::Scan;

/// What is known of a repo.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RepoFacts {
    /// Its name: `ns/name`, or `datasets/ns/name`, or `spaces/ns/name`.
    pub name: String,
    /// Who publishes it: the part before the slash.
    pub publisher: String,
    /// The licences that its card states, in lower case; empty if it states none.
    pub licenses: Option<Vec<String>>,
    /// Whether readers must ask for its files.
    pub gated: Option<bool>,
    /// Bytes of all its files.
    pub bytes: Option<u64>,
}

impl RepoFacts {
    /// A repo of which nothing but the name is known.
    pub fn of(kind: RepoKind, name: &RepoName) -> Self {
        let publisher = name.namespace().as_str().to_owned();
        let name = match kind {
            RepoKind::Model => name.to_string(),
            kind => format!("{}/{name}", kind.plural()),
        };
        Self { name, publisher, ..Self::default() }
    }

    /// A repo as somebody elsewhere says that it is; `license` is what its card states, if it
    /// states one.
    pub fn told(kind: RepoKind, name: &RepoName, license: Option<&str>, is_gated: bool) -> Self {
        let licenses = license.iter().map(|license| license.to_lowercase()).collect();
        Self { licenses: Some(licenses), gated: Some(is_gated), ..Self::of(kind, name) }
    }
}

/// What is known of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileFacts {
    /// Where it is in the repo; nothing where it is asked for by its hash alone.
    pub path: Option<String>,
    /// Its size in bytes.
    pub bytes: Option<u64>,
    /// What a scan of it found.
    pub scan: Option<Arc<Scan>>,
    /// The names of the keys that vouch for it; empty if none does.
    pub signed_by: Option<Vec<String>>,
}

impl FileFacts {
    /// The last part of its name, in lower case.
    pub(super) fn ending(&self) -> Option<String> {
        let name = self.path.as_deref()?.rsplit('/').next()?;
        name.rsplit_once('.').map(|(_, ending)| ending.to_ascii_lowercase())
    }

    /// What errors call it.
    pub(super) fn called(&self) -> String {
        match &self.path {
            Some(path) => format!("`{path}`"),
            None => "the file".to_owned(),
        }
    }
}

/// The licences that the front matter of a card states, in lower case.
pub fn licenses_of(card: Option<&Map<String, Value>>) -> Vec<String> {
    let Some(card) = card else { return Vec::new() };
    let mut licenses = BTreeSet::new();
    for key in ["license", "license_name"] {
        let stated = card.get(key);
        let many = stated.and_then(Value::as_array).into_iter().flatten();
        for license in many.chain(stated).filter_map(Value::as_str) {
            licenses.insert(license.trim().to_ascii_lowercase());
        }
    }
    licenses.into_iter().collect()
}
