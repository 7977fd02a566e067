//! Which repos belong to a set: those of this hub that the set's jobs are about.

use ballast_node::access::Repo;
use ballast_node::error::{Error, Result};
use ballast_node::hub::Hub;
use ballast_node::origin::Wanted;

use super::spec::{Selection, is_pattern, name_matcher};
use super::store;

/// A mirror of a set.
#[derive(Clone, Debug)]
pub struct Member {
    /// The mirror.
    pub repo: Repo,
    /// The revision that its job is about.
    pub revision: String,
    /// Whether all large files that are not here are some that the job leaves out.
    pub is_partial: bool,
}

/// The mirrors of a set that are here.
pub async fn members_of_set(hub: &Hub, set: &str) -> Result<Vec<Member>> {
    let jobs = store::all(hub).await?;
    let jobs: Vec<_> =
        jobs.into_iter().map(|stored| stored.job).filter(|job| job.set == set).collect();
    if set.is_empty() || jobs.is_empty() {
        return Err(Error::NotFound { what: format!("a mirror job of the set `{set}`") });
    }
    let mut members = Vec::new();
    for job in &jobs {
        let matches = name_matcher(&job.name)?;
        let is_one = |name: &str| match is_pattern(&job.name) {
            true => matches(name),
            false => name.eq_ignore_ascii_case(&job.name),
        };
        let records = hub.records(|record| {
            let (namespace, name) = (record.name.namespace().as_str(), record.name.name());
            record.kind == job.kind
                && record.upstream.is_some()
                && namespace.eq_ignore_ascii_case(&job.namespace)
                && is_one(name)
        });
        let selection = Selection::of(job)?;
        for record in records {
            let (repo, revision) = (Repo { record }, job.revision.clone());
            let is_partial = lacks_only_unwanted(hub, &repo, &revision, &selection).await?;
            members.push(Member { repo, revision, is_partial });
        }
    }
    Ok(members)
}

async fn lacks_only_unwanted(
    hub: &Hub,
    repo: &Repo,
    revision: &str,
    selection: &Selection,
) -> Result<bool> {
    let commit = match hub.resolve(repo, revision).await {
        Ok(found) => found.commit,
        // Whoever wants it is told.
        Err(Error::RevisionNotFound { .. }) => return Ok(false),
        Err(error) => return Err(error),
    };
    let items = hub.siblings(repo, commit).await?;
    let mut missing = items.iter().filter(|item| Wanted::of(item).is_some());
    Ok(missing.all(|item| !selection.has(&item.path)))
}
