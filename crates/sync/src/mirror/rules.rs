//! The hub's policy, asked about what an upstream offers.

use ballast_node::access::Repo;
use ballast_node::error::Result;
use ballast_node::hub::Hub;
use ballast_node::origin::Wanted;
use ballast_node::policy::{FileFacts, RepoFacts, Stage};

use super::upstream::{self, Facts, Gating};

/// Refuses a repo of the upstream that a rule denies; `bytes` of all its files, if known.
pub(super) fn may_come(
    hub: &Hub,
    there: &upstream::Repo,
    facts: &Facts,
    bytes: Option<u64>,
) -> Result<()> {
    let is_gated = facts.gating != Gating::Open;
    let told = RepoFacts::told(there.kind, &there.name, facts.licence.as_deref(), is_gated);
    hub.may_enter(Stage::Mirror, &RepoFacts { bytes, ..told }, &[])
}

/// Refuses a file of a mirror that a rule denies.
pub(crate) fn may_fetch(hub: &Hub, repo: &Repo, wanted: &Wanted) -> Result<()> {
    // What is here of it says nothing of how large it is there.
    let facts = RepoFacts { bytes: None, ..hub.repo_facts(repo) };
    let (path, bytes) = (Some(wanted.path.clone()), Some(wanted.size));
    hub.may_enter(Stage::Mirror, &facts, &[FileFacts { path, bytes, ..FileFacts::default() }])
}
