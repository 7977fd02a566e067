//! Repos and revisions of an upstream: looked up, compared with what is here, and brought.
//!
//! An answer is believed for a while, and so is an absence; a failure only for as long as it takes
//! not to ask again for each request. A revision is one entry of the repo's log, so that a reader
//! sees all of it or nothing.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use ballast_format::hash::ObjectHash;
use ballast_format::id::RepoId;
use ballast_format::log::{Gating, Visibility};
use ballast_format::name::{RefName, RepoKind, RepoName};
use ballast_format::object::{ObjectKind, Pointer, hash_object};
use ballast_node::access::Repo;
use ballast_node::error::{Error, Result};
use ballast_node::hub::Hub;
use ballast_node::repo::NewMirror;
use ballast_node::upload::commit::{Import, UpstreamFacts};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};

use super::once::is_absence;
use super::{Counts, Mirror, fault};
use crate::mirror::rules;
use crate::mirror::upstream::{self, Entry, EntryKind, Facts, Large, Missing, Upstream};

/// The longest that an absence is believed: a repo may be published at any moment.
const ABSENT_FOR: Duration = Duration::from_mins(1);
/// How long an upstream that failed is not asked the same again.
const FAILED_FOR: Duration = Duration::from_secs(15);
/// How long what was learnt about a repo saves asking when its revision is brought.
const FACTS_FOR: Duration = Duration::from_secs(5);
/// How long a request waits for an upstream when an older answer is here.
const STALE_AFTER: Duration = Duration::from_secs(2);
/// Answers that are kept.
const KEPT: usize = 20_000;
/// Small files that are fetched at once for one revision.
const BLOBS_AT_ONCE: usize = 8;
/// The largest file that an upstream may keep outside of LFS: with all that are fetched at once,
/// 128 MiB.
const MAX_SMALL_BYTES: u64 = 16 << 20;
/// Files of one revision.
const MAX_FILES: usize = 100_000;
/// The longest pointer.
const MAX_POINTER_BYTES: usize = 1024;

/// What is asked about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Key {
    /// Whether there is a repo of this name, folded.
    Repo(RepoKind, String),
    /// What a revision is.
    Revision(RepoId, String),
}

/// What an upstream said, and until when that is believed, by the monotonic clock.
#[derive(Clone)]
struct Said {
    until: Duration,
    outcome: Result<()>,
}

/// What is known of an upstream's repos, within bounds.
pub(super) struct Known {
    said: quick_cache::sync::Cache<Key, Said>,
    facts: quick_cache::sync::Cache<Key, (Duration, Arc<Facts>)>,
}

impl Default for Known {
    fn default() -> Self {
        let (said, facts) =
            (quick_cache::sync::Cache::new(KEPT), quick_cache::sync::Cache::new(KEPT / 100));
        Self { said, facts }
    }
}

impl Known {
    fn outcome(&self, hub: &Hub, key: &Key) -> Option<Result<()>> {
        let now = hub.env().monotonic();
        Some(self.said.get(key).filter(|said| said.until > now)?.outcome)
    }

    fn note(&self, hub: &Hub, key: &Key, outcome: &Result<()>, lasts: Duration) {
        let lasts = match outcome {
            Ok(()) => lasts,
            Err(error) if is_absence(error) => lasts.min(ABSENT_FOR),
            Err(_) => lasts.min(FAILED_FOR),
        };
        let until = hub.env().monotonic() + lasts;
        self.said.insert(key.clone(), Said { until, outcome: outcome.clone() });
    }
}

impl Mirror {
    /// Makes a repo known here, if the upstream has it.
    pub(super) async fn repo_here(
        &self,
        hub: &Arc<Hub>,
        kind: RepoKind,
        name: &RepoName,
    ) -> Result<()> {
        let key = Key::Repo(kind, name.folded());
        // That it is there is told by the catalogue.
        if let Some(Err(error)) = self.known.outcome(hub, &key) {
            return Err(error);
        }
        let this = self.this.upgrade().ok_or_else(fault::closing)?;
        let task = {
            let (hub, key, name) = (Arc::clone(hub), key.clone(), name.clone());
            async move {
                let made = this.make_repo(&hub, kind, &name).await;
                this.known.note(&hub, &key, &made, ABSENT_FOR);
                this.count_failure(&made);
                made
            }
        };
        self.once.done(hub, key, self.settings.patience, task).await
    }

    async fn make_repo(&self, hub: &Arc<Hub>, kind: RepoKind, name: &RepoName) -> Result<()> {
        let there = upstream::Repo { kind, name: name.clone() };
        let facts = match self.upstream.revision(&there, "main").await {
            Ok(facts) => Some(facts),
            // A repo may have no `main`.
            Err(upstream::Error::NotThere { missing: Missing::Revision, .. }) => {
                self.upstream.refs(&there).await.map_err(|error| fault::of(error, "main"))?;
                None
            }
            Err(error) => return Err(fault::of(error, "main")),
        };
        if let Some(facts) = &facts {
            rules::may_come(hub, &there, facts, None)?;
        }
        let (visibility, gating) = terms(facts.as_ref());
        // The upstream may write the name in other letters.
        let spelled = facts.as_ref().and_then(|facts| RepoName::parse(&facts.name).ok());
        let spelled = spelled.filter(|spelled| spelled.folded() == name.folded());
        let new = NewMirror {
            kind,
            name: spelled.unwrap_or_else(|| name.clone()),
            upstream: self.upstream.endpoint().to_owned(),
            visibility,
            gating,
            sdk: None,
        };
        let repo = hub.create_mirror(&new).await?;
        if let Some(facts) = facts {
            let until = hub.env().monotonic() + FACTS_FOR;
            let key = Key::Revision(repo.id(), "main".to_owned());
            self.known.facts.insert(key, (until, Arc::new(facts)));
        }
        let (name, upstream) = (repo.name(), self.upstream.endpoint());
        tracing::info!(repo = %name, upstream, ?visibility, ?gating, "a repo is mirrored");
        Ok(())
    }

    /// Sees to it that a revision is here, and no older than the settings want.
    pub(super) async fn revision_here(
        &self,
        hub: &Arc<Hub>,
        repo: &Repo,
        revision: &str,
        is_here: bool,
    ) -> Result<()> {
        let key = Key::Revision(repo.id(), revision.to_owned());
        if let Some(outcome) = self.known.outcome(hub, &key) {
            return outcome;
        }
        let this = self.this.upgrade().ok_or_else(fault::closing)?;
        let task = {
            let (hub, key, repo) = (Arc::clone(hub), key.clone(), repo.clone());
            let revision = revision.to_owned();
            async move {
                let brought = this.bring(&hub, &repo, &revision).await;
                this.known.note(&hub, &key, &brought, this.settings.revalidate);
                this.count_failure(&brought);
                match &brought {
                    Ok(()) => this.mark_fresh(repo.id()),
                    Err(error) => {
                        this.mark_stale(&hub, repo.id());
                        let name = repo.name();
                        tracing::info!(repo = %name, revision, %error, "nothing newer comes");
                    }
                }
                brought
            }
        };
        let patience = self.settings.patience;
        let patience = if is_here { patience.min(STALE_AFTER) } else { patience };
        let done = self.once.done(hub, key, patience, task).await;
        // What takes too long is stale as well, until it is done.
        if is_here && done.is_err() {
            self.mark_stale(hub, repo.id());
        }
        done
    }

    /// Brings a revision as it is at the upstream now.
    async fn bring(&self, hub: &Arc<Hub>, repo: &Repo, revision: &str) -> Result<()> {
        let revision = if revision == "HEAD" { "main" } else { revision };
        let there = upstream::Repo { kind: repo.kind(), name: repo.name().clone() };
        let of = |error| fault::of(error, revision);
        let facts = match self.facts(hub, repo, revision) {
            Some(facts) => facts,
            None => Arc::new(self.upstream.revision(&there, revision).await.map_err(of)?),
        };
        if facts.disabled {
            return Err(Error::denied("the upstream has disabled this repo"));
        }
        rules::may_come(hub, &there, &facts, None)?;
        let (visibility, gating) = terms(Some(&facts));
        hub.restrict_mirror(repo, visibility, gating).await?;
        let commit = facts.commit;
        let refs = self.refs_of(hub, repo, &there, revision).await?;
        let mut import = hub.begin_import(repo)?;
        if hub.has_commit(repo, &commit).await? {
            let known = UpstreamFacts::known(commit);
            return import.finish(known, &refs).await;
        }
        let about = self.upstream.commit(&there, commit).await.map_err(of)?;
        let entries = self.list(&there, commit).await?;
        let bytes = entries.iter().map(|entry| entry.size).sum();
        rules::may_come(hub, &there, &facts, Some(bytes))?;
        self.bring_blobs(&mut import, &there, commit, &entries).await?;
        for entry in &entries {
            import.put(&entry.path, entry.oid).await?;
        }
        let about = UpstreamFacts {
            id: commit,
            authors: about.authors.into_iter().map(|author| author.user).collect(),
            time_seconds: i64::try_from(about.date_ms / 1000).unwrap_or(i64::MAX),
            title: about.title,
            message: about.message,
        };
        import.finish(about, &refs).await?;
        Counts::add(&self.counts.revisions, 1);
        let (name, files) = (repo.name(), entries.len());
        tracing::info!(repo = %name, %commit, revision, files, "a revision was brought");
        Ok(())
    }

    /// What was learnt a moment ago.
    fn facts(&self, hub: &Hub, repo: &Repo, revision: &str) -> Option<Arc<Facts>> {
        let key = Key::Revision(repo.id(), revision.to_owned());
        let (_, (until, facts)) = self.known.facts.remove(&key)?;
        (until > hub.env().monotonic()).then_some(facts)
    }

    /// The refs that a revision is by name: none, if it is a commit.
    async fn refs_of(
        &self,
        hub: &Hub,
        repo: &Repo,
        there: &upstream::Repo,
        revision: &str,
    ) -> Result<BTreeSet<RefName>> {
        if revision.parse::<ObjectHash>().is_ok() {
            return Ok(BTreeSet::new());
        }
        let named =
            if revision.starts_with("refs/") { RefName::parse(revision).ok() } else { None };
        if let Some(name) = named {
            return Ok([name].into());
        }
        let short = [RefName::branch(revision), RefName::tag(revision)];
        let short: Vec<RefName> = short.into_iter().flatten().collect();
        if short.first() == Some(&RefName::main()) {
            return Ok([RefName::main()].into());
        }
        let state = hub.repo_state(repo).await?;
        if let Some(known) = short.iter().find(|name| state.refs.contains_key(*name)) {
            return Ok([known.clone()].into());
        }
        let refs = self.upstream.refs(there).await.map_err(|error| fault::of(error, revision))?;
        let mut targets = refs.branches.iter().chain(&refs.tags);
        let found = targets.find(|target| short.contains(&target.name));
        Ok(found.map(|target| target.name.clone()).into_iter().collect())
    }

    /// The files of a commit.
    async fn list(&self, there: &upstream::Repo, commit: ObjectHash) -> Result<Vec<Entry>> {
        let of = |error| fault::of(error, "");
        let (mut pages, mut files) = (self.upstream.tree(there, commit), Vec::new());
        while let Some(page) = pages.next().await.map_err(of)? {
            files.extend(page.into_iter().filter(|entry| entry.kind == EntryKind::File));
            if files.len() > MAX_FILES {
                let reason = format!("a mirror has at most {MAX_FILES} files in a revision");
                return Err(Error::denied(reason));
            }
        }
        Ok(files)
    }

    /// Brings what is not here of these files, large ones by their pointers.
    async fn bring_blobs(
        &self,
        import: &mut Import,
        there: &upstream::Repo,
        commit: ObjectHash,
        entries: &[Entry],
    ) -> Result<()> {
        let ids: Vec<ObjectHash> = entries.iter().map(|entry| entry.oid).collect();
        let known = import.known(&ids).await?;
        let mut seen = HashSet::new();
        let missing = entries.iter().zip(known).filter(|(_, is_known)| !is_known);
        let missing = missing.filter(|(entry, _)| seen.insert(entry.oid)).map(|(entry, _)| entry);
        let missing: Vec<Entry> = missing.cloned().collect();
        if let Some(entry) =
            missing.iter().find(|entry| entry.large.is_none() && entry.size > MAX_SMALL_BYTES)
        {
            let reason = format!("`{}` is too large to be outside of LFS", entry.path);
            return Err(Error::denied(reason));
        }
        let upstream = self.upstream.clone();
        let fetch = |entry: Entry| {
            let (upstream, there) = (upstream.clone(), there.clone());
            async move { (blob(&upstream, &there, commit, &entry).await, entry) }
        };
        let mut blobs = stream::iter(missing).map(fetch).buffer_unordered(BLOBS_AT_ONCE);
        while let Some((blob, entry)) = blobs.next().await {
            let (oid, blob) = (entry.oid, blob?);
            Counts::add(&self.counts.upstream_bytes, blob.len() as u64);
            let added = match entry.large {
                Some(_) => import.add_pointer(oid, blob).await,
                None => import.add_blob(oid, blob).await,
            };
            added.map_err(|error| match error {
                Error::Invalid { reason } => {
                    tracing::warn!(repo = %there, path = %entry.path, reason, "the upstream lied");
                    fault::again(format!("the upstream cannot be believed: {reason}"))
                }
                other => other,
            })?;
        }
        Ok(())
    }

    fn count_failure(&self, outcome: &Result<()>) {
        if outcome.as_ref().is_err_and(|error| !is_absence(error)) {
            Counts::add(&self.counts.failures, 1);
        }
    }
}

/// Who may see a mirror and have its files: no more than at the upstream. Of a gated repo the terms
/// were accepted by whoever's token we have, and not by our readers. What is not known is shut.
fn terms(facts: Option<&Facts>) -> (Visibility, Gating) {
    let is_private = facts.is_none_or(|facts| facts.private);
    let is_gated = facts.is_none_or(|facts| facts.gating != upstream::Gating::Open);
    (
        if is_private { Visibility::Private } else { Visibility::Public },
        if is_gated { Gating::Manual } else { Gating::None },
    )
}

/// A blob: of a large file, its pointer, which most writers write in the same way.
async fn blob(
    upstream: &Upstream,
    there: &upstream::Repo,
    commit: ObjectHash,
    entry: &Entry,
) -> Result<Bytes> {
    let path = &entry.path;
    let pointer = entry.large.map(|Large { sha256, .. }| Pointer { sha256, size: entry.size });
    let limit = match &pointer {
        Some(pointer) => {
            let text = pointer.encode();
            if hash_object(ObjectKind::Blob, text.as_bytes()).ok() == Some(entry.oid) {
                return Ok(Bytes::from(text));
            }
            MAX_POINTER_BYTES
        }
        None => usize::try_from(entry.size).unwrap_or(usize::MAX),
    };
    let blob = upstream.raw(there, commit, path, limit).await.map_err(fault::of_file)?;
    if pointer.is_some() && Pointer::parse(&blob) != pointer {
        return Err(fault::again(format!("the upstream has another pointer at `{path}`")));
    }
    Ok(blob)
}
