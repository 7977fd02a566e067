//! What a job would bring, before it moves a byte.

use std::sync::Arc;

use ballast_format::hash::ObjectHash;
use ballast_format::mirror_job::MirrorJob;
use ballast_format::name::{Namespace, RepoName};
use ballast_node::access::{Access, Repo};
use ballast_node::error::{Error, Result};
use ballast_node::hub::Hub;

use super::spec::{Selection, is_pattern, name_matcher};
use super::{administrator, again};
use crate::mirror::upstream::{self, Entry, EntryKind, Gating, Upstream};

/// Repos that one job may be about.
const MAX_REPOS: usize = 10_000;

/// What a job would bring of one repo.
#[derive(Clone, Debug)]
pub struct RepoPlan {
    /// The repo, as the upstream calls it.
    pub repo: upstream::Repo,
    /// The commit that its revision is at the moment.
    pub commit: ObjectHash,
    /// The licence that its card names.
    pub licence: Option<String>,
    /// Whether its files are for everybody there.
    pub gating: Gating,
    /// Files that the job is about.
    pub files: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Files of them that are not here.
    pub missing_files: u64,
    /// Bytes that would be fetched; of small files, at most.
    pub missing_bytes: u64,
}

/// The repos that a job is about now.
pub(super) async fn targets(upstream: &Upstream, job: &MirrorJob) -> Result<Vec<upstream::Repo>> {
    let namespace = Namespace::parse(&job.namespace)?;
    if !is_pattern(&job.name) {
        let name = RepoName::new(namespace, &job.name)?;
        return Ok(vec![upstream::Repo { kind: job.kind, name }]);
    }
    let matches = name_matcher(&job.name)?;
    let (mut pages, mut found) = (upstream.list(job.kind, &namespace), Vec::new());
    while let Some(page) = pages.next().await.map_err(again)? {
        let ours = page.into_iter().filter(|name| matches(name.name()));
        found.extend(ours.map(|name| upstream::Repo { kind: job.kind, name }));
        if found.len() > MAX_REPOS {
            let reason = format!("the pattern stands for more than {MAX_REPOS} repos");
            return Err(Error::invalid(reason));
        }
    }
    Ok(found)
}

/// What a job would bring of one repo.
pub(super) async fn plan_repo(
    hub: &Arc<Hub>,
    upstream: &Upstream,
    job: &MirrorJob,
    there: &upstream::Repo,
) -> Result<RepoPlan> {
    let facts = upstream.revision(there, &job.revision).await.map_err(again)?;
    if facts.disabled {
        return Err(Error::denied(format!("the upstream has disabled `{there}`")));
    }
    let selection = Selection::of(job)?;
    let here = here(hub, there)?;
    let is_known = match &here {
        Some(repo) => hub.has_commit(repo, &facts.commit).await?,
        None => false,
    };
    let mut plan = RepoPlan {
        repo: there.clone(),
        commit: facts.commit,
        licence: facts.licence,
        gating: facts.gating,
        files: 0,
        bytes: 0,
        missing_files: 0,
        missing_bytes: 0,
    };
    let mut pages = upstream.tree(there, facts.commit);
    while let Some(page) = pages.next().await.map_err(again)? {
        let files = page.into_iter().filter(|entry| entry.kind == EntryKind::File);
        for entry in files.filter(|entry| selection.has(entry.path.as_str())) {
            plan.files += 1;
            plan.bytes += entry.size;
            if !is_here(hub, here.as_ref(), is_known, &entry).await? {
                plan.missing_files += 1;
                plan.missing_bytes += entry.size;
            }
        }
    }
    Ok(plan)
}

async fn is_here(hub: &Hub, repo: Option<&Repo>, is_known: bool, entry: &Entry) -> Result<bool> {
    match (repo, &entry.large) {
        (Some(repo), Some(large)) => hub.has_mirrored(repo, &large.sha256).await,
        // Small files come with their commit.
        (Some(_), None) => Ok(is_known),
        (None, _) => Ok(false),
    }
}

/// The mirror that is here of a repo, if there is one.
pub(super) fn here(hub: &Hub, there: &upstream::Repo) -> Result<Option<Repo>> {
    match hub.repo(&administrator(), there.kind, &there.name, Access::Read) {
        Ok(repo) if repo.is_mirror() => Ok(Some(repo)),
        Ok(_) => Err(Error::invalid(format!("`{there}` is a repo of this hub, not a mirror"))),
        Err(Error::RepoNotFound) => Ok(None),
        Err(error) => Err(error),
    }
}
