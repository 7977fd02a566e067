//! What a caller may build on: what they may read, and what they sent themselves lately.
//!
//! Everything else is unknown to them, even with the right hashes in hand (`SECURITY.md`; a right
//! hash grants nothing, R17). Being told that something is there adds nothing to it: nobody keeps
//! what they may not read any more by asking again. A xorb may hold chunks of several files, so a
//! repo brings only those chunks of it into reach that its own files are made of.

use std::collections::HashMap;
use std::ops::Range;

use ballast_format::hash::{FileHash, Sha256, XorbHash};
use ballast_format::id::RepoId;
use ballast_format::pack::FileLink;
use ballast_store::index::Table;
use ballast_store::index::schema::{self, FileRow, RunsRow, Scope, UploadRow};

use super::PROMISE_MS;
use crate::access::{Caller, Repo};
use crate::error::Result;
use crate::hub::Hub;

/// Repos that are tried for one hash: one that more repos hold is uploaded once more, no harm.
pub(super) const TRIED_SCOPES: usize = 256;
/// How many times as many rows of one xorb are looked at: where something is offered, and where it
/// is used. More there, so that what was offered stays in sight although other files were committed
/// meanwhile that use the same xorb; and of the repo at hand, of which most is offered.
const OFFERED_SCANS: usize = 4;
const USED_SCANS: usize = 64;
const HOME_SCANS: usize = 64;

/// For what it is asked what is within reach.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look {
    /// The repo at hand, which is looked at first.
    pub(super) home: Option<RepoId>,
    /// Until when what is found must stay within reach.
    pub(super) then_ms: u64,
    scans: usize,
}

impl Look {
    /// To tell somebody about it, who may use it until then.
    pub(super) fn to_offer(home: Option<RepoId>, then_ms: u64) -> Self {
        Self { home, then_ms, scans: OFFERED_SCANS }
    }

    /// To use it now.
    pub(super) fn to_use(home: Option<RepoId>, now_ms: u64) -> Self {
        Self { home, then_ms: now_ms, scans: USED_SCANS }
    }
}

/// Which chunks of a xorb somebody may build on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// All of them: they sent it.
    Whole,
    /// These runs, in order, none of which touch.
    Runs(Vec<Range<u32>>),
}

impl Reach {
    fn of(runs: Vec<Range<u32>>) -> Self {
        Self::Runs(merged(runs))
    }

    /// Whether all of these chunks are in it.
    pub(super) fn holds(&self, chunks: &Range<u32>) -> bool {
        match self {
            Self::Whole => true,
            Self::Runs(runs) => {
                let after = runs.partition_point(|run| run.start <= chunks.start);
                after > 0 && runs[after - 1].end >= chunks.end
            }
        }
    }

    /// The runs of a xorb of so many chunks that are not in it.
    pub(super) fn hidden(&self, chunk_count: u32) -> Vec<Range<u32>> {
        let Self::Runs(runs) = self else {
            return Vec::new();
        };
        let mut hidden = Vec::new();
        let mut start = 0;
        for run in runs {
            hidden.push(start..run.start.min(chunk_count));
            start = run.end;
        }
        hidden.push(start..chunk_count);
        hidden.retain(|run| !run.is_empty());
        hidden
    }
}

fn merged(mut runs: Vec<Range<u32>>) -> Vec<Range<u32>> {
    runs.sort_unstable_by_key(|run| (run.start, run.end));
    let mut merged: Vec<Range<u32>> = Vec::new();
    for run in runs {
        match merged.last_mut() {
            Some(last) if last.end >= run.start => last.end = last.end.max(run.end),
            _ => merged.push(run),
        }
    }
    merged
}

/// What is gathered from the rows of one xorb.
#[derive(Default)]
struct Gathered {
    readable: HashMap<RepoId, bool>,
    runs: Vec<Range<u32>>,
}

impl Hub {
    /// Whether something in this scope is within the caller's reach, and still is then.
    pub(super) fn reaches(
        &self,
        caller: &Caller,
        scope: &Scope,
        until_ms: u64,
        then_ms: u64,
    ) -> bool {
        match scope {
            Scope::User(user) => caller.user_id() == Some(*user) && until_ms > then_ms,
            Scope::Repo(repo) => self.readable(caller, *repo),
        }
    }

    /// Which chunks of this xorb the caller may refer to, now and then.
    pub(super) async fn reach(
        &self,
        caller: &Caller,
        look: Look,
        xorb: &XorbHash,
    ) -> Result<Reach> {
        if let Some(user) = caller.user_id() {
            let key = schema::xorb_scope_key(xorb, &Scope::User(user));
            if let Some(row) = self.index().get(Table::XorbScope, &key).await?
                && schema::read_number(&row)? > look.then_ms
            {
                return Ok(Reach::Whole);
            }
        }
        let mut found = Gathered::default();
        if let Some(home) = look.home {
            let prefix = schema::xorb_scope_key(xorb, &Scope::Repo(home));
            self.gather(caller, &prefix, HOME_SCANS, &mut found).await?;
        }
        let prefix = schema::xorb_repos_prefix(xorb);
        self.gather(caller, &prefix, look.scans, &mut found).await?;
        Ok(Reach::of(found.runs))
    }

    /// Adds what these rows put within the caller's reach.
    async fn gather(
        &self,
        caller: &Caller,
        prefix: &[u8],
        scans: usize,
        found: &mut Gathered,
    ) -> Result<()> {
        let mut after: Option<Vec<u8>> = None;
        for _ in 0..scans {
            let rows = self.index().scan(Table::XorbScope, prefix, after.as_deref(), TRIED_SCOPES);
            let rows = rows.await?;
            let is_last = rows.len() < TRIED_SCOPES;
            after = rows.last().map(|(key, _)| key.clone());
            for (key, row) in rows {
                let Scope::Repo(repo) = schema::scope_of(&key)? else {
                    continue;
                };
                let may_read = || self.readable(caller, repo);
                if *found.readable.entry(repo).or_insert_with(may_read) {
                    let runs = RunsRow::decode(&row)?.runs;
                    let wide = |run: Range<u16>| u32::from(run.start)..u32::from(run.end);
                    found.runs.extend(runs.into_iter().map(wide));
                }
            }
            found.runs = merged(std::mem::take(&mut found.runs));
            if is_last {
                break;
            }
        }
        Ok(())
    }

    /// The large file of this SHA-256, if this repo holds it, the caller uploaded it lately, or
    /// it is in a repo that they may read.
    pub async fn find_upload(
        &self,
        caller: &Caller,
        repo: &Repo,
        sha256: &Sha256,
    ) -> Result<Option<FileLink>> {
        // What is damaged is told only if nothing else is there.
        let mut damaged = None;
        if let Some(row) = self.file_row(repo.id(), sha256).await? {
            let found = link(sha256, &row);
            if self.is_whole(&found).await? {
                return Ok(Some(found));
            }
            damaged = Some(found);
        }
        if let Some(UploadRow { manifest, size, .. }) = self.recent_upload(caller, sha256).await? {
            let found = link(sha256, &FileRow { manifest, size });
            if self.is_whole(&found).await? {
                return Ok(Some(found));
            }
            damaged = damaged.or(Some(found));
        }
        let prefix = schema::sha256_repo_prefix(sha256);
        let rows = self.index().scan(Table::FileRepo, &prefix, None, TRIED_SCOPES);
        for (key, _) in rows.await? {
            let other = schema::repo_of(&key)?;
            if !self.readable(caller, other) {
                continue;
            }
            if let Some(row) = self.file_row(other, sha256).await? {
                let found = link(sha256, &row);
                if self.is_whole(&found).await? {
                    return Ok(Some(found));
                }
                damaged = damaged.or(Some(found));
            }
        }
        Ok(damaged)
    }

    /// A large file as a repo's log has it now.
    async fn file_row(&self, repo: RepoId, sha256: &Sha256) -> Result<Option<FileRow>> {
        self.state_of(repo).await?;
        let row = self.index().get(Table::File, &schema::file_key(&repo, sha256)).await?;
        Ok(row.map(|row| FileRow::decode(&row)).transpose()?)
    }

    /// What the caller uploaded lately with this SHA-256.
    pub(super) async fn recent_upload(
        &self,
        caller: &Caller,
        sha256: &Sha256,
    ) -> Result<Option<UploadRow>> {
        let Some(user) = caller.user_id() else {
            return Ok(None);
        };
        let prefix = schema::uploads_prefix(&user, sha256);
        let rows = self.index().scan(Table::Upload, &prefix, None, TRIED_SCOPES).await?;
        let mut latest: Option<UploadRow> = None;
        for (_, row) in rows {
            let row = UploadRow::decode(&row)?;
            if latest.is_none_or(|latest| latest.time_ms < row.time_ms) {
                latest = Some(row);
            }
        }
        let now = self.env().now_ms();
        Ok(latest.filter(|row| row.time_ms + PROMISE_MS > now))
    }

    /// The SHA-256 of a file of which the caller may know that we have it. Of any other file it is
    /// computed again, since how long we take must not tell either.
    pub(super) async fn known_sha256(
        &self,
        caller: &Caller,
        repo: &Repo,
        file: &FileHash,
    ) -> Result<Option<Sha256>> {
        let digest = |row: Vec<u8>| row.try_into().ok().map(Sha256::from_bytes);
        let key = schema::file_repo_key(file, &repo.id());
        if let Some(row) = self.index().get(Table::FileRepo, &key).await? {
            return Ok(digest(row));
        }
        if let Some(row) = self.any_manifest_row(file).await?
            && let Some(upload) = self.recent_upload(caller, &row.sha256).await?
            && upload.manifest.file == *file
        {
            return Ok(Some(row.sha256));
        }
        let prefix = schema::file_repo_prefix(file);
        let rows = self.index().scan(Table::FileRepo, &prefix, None, TRIED_SCOPES);
        for (key, row) in rows.await? {
            if self.readable(caller, schema::repo_of(&key)?) {
                return Ok(digest(row));
            }
        }
        Ok(None)
    }

    /// Whether the caller need not send this file. A damaged one is sent again, which heals it.
    pub async fn has_file(
        &self,
        caller: &Caller,
        repo: &Repo,
        sha256: &Sha256,
        size: u64,
    ) -> Result<bool> {
        match self.find_upload(caller, repo, sha256).await? {
            Some(link) if link.size == size => self.is_whole(&link).await,
            _ => Ok(false),
        }
    }
}

fn link(sha256: &Sha256, row: &FileRow) -> FileLink {
    let FileRow { manifest, size } = *row;
    FileLink { sha256: *sha256, file: manifest.file, shard: manifest.shard, size }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reach_holds_what_its_runs_cover_together_and_hides_the_rest() {
        let reach = Reach::of(vec![10..20, 3..5, 15..30, 5..7, 40..41]);
        assert_eq!(reach, Reach::Runs(vec![3..7, 10..30, 40..41]));
        assert!(reach.holds(&(3..7)) && reach.holds(&(12..30)) && reach.holds(&(40..41)));
        assert!(!reach.holds(&(2..4)) && !reach.holds(&(6..11)) && !reach.holds(&(29..31)));
        assert!(!reach.holds(&(50..51)) && !Reach::of(Vec::new()).holds(&(0..1)));
        assert_eq!(reach.hidden(50), [0..3, 7..10, 30..40, 41..50]);
        assert_eq!(reach.hidden(41), [0..3, 7..10, 30..40]);
        assert!(Reach::Whole.hidden(9).is_empty() && Reach::Whole.holds(&(0..9)));
        assert_eq!(Reach::of(Vec::new()).hidden(9), std::slice::from_ref(&(0..9)));
    }
}
