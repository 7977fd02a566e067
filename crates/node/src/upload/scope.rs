//! What a caller may build on: what they may read, and what they uploaded themselves lately.
//!
//! Everything else is unknown to them, even with the right hashes in hand
//! (`SECURITY.md`; a right hash grants nothing, R17).

use ballast_format::hash::{Sha256, XorbHash};
use ballast_format::pack::FileLink;
use ballast_store::index::Table;
use ballast_store::index::schema::{self, FileRow, Scope, UploadRow};

use super::PROMISE_MS;
use crate::access::{Caller, Repo};
use crate::error::Result;
use crate::hub::Hub;

/// Repos that are tried for one hash: one that more repos hold is uploaded once more, no harm.
pub(super) const TRIED_SCOPES: usize = 256;

impl Hub {
    /// Whether something in this reach is in the caller's.
    pub(super) fn reaches(&self, caller: &Caller, scope: &Scope, until_ms: u64) -> bool {
        match scope {
            Scope::User(user) => {
                caller.user_id() == Some(*user) && until_ms > self.env().now_ms()
            }
            Scope::Repo(repo) => self.readable(caller, *repo),
        }
    }

    /// Whether the caller may refer to this xorb.
    pub(super) async fn may_use_xorb(&self, caller: &Caller, xorb: &XorbHash) -> Result<bool> {
        if let Some(user) = caller.user_id() {
            let key = schema::xorb_scope_key(xorb, &Scope::User(user));
            if let Some(row) = self.index().get(Table::XorbScope, &key).await?
                && schema::read_number(&row)? > self.env().now_ms()
            {
                return Ok(true);
            }
        }
        let prefix = xorb.as_bytes();
        let rows = self.index().scan(Table::XorbScope, prefix, None, TRIED_SCOPES).await?;
        for (key, row) in rows {
            let (scope, until) = (schema::scope_of(&key)?, schema::read_number(&row)?);
            if self.reaches(caller, &scope, until) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The large file of this SHA-256, if this repo holds it, the caller uploaded it lately, or
    /// it is in a repo that they may read.
    pub async fn find_upload(
        &self,
        caller: &Caller,
        repo: &Repo,
        sha256: &Sha256,
    ) -> Result<Option<FileLink>> {
        let key = schema::file_key(&repo.id(), sha256);
        if let Some(row) = self.index().get(Table::File, &key).await? {
            return Ok(Some(link(sha256, &FileRow::decode(&row)?)));
        }
        if let Some(user) = caller.user_id() {
            let row = self.index().get(Table::Upload, &schema::upload_key(&user, sha256)).await?;
            if let Some(row) = row.map(|row| UploadRow::decode(&row)).transpose()?
                && row.time_ms + PROMISE_MS > self.env().now_ms()
            {
                return Ok(Some(FileLink { sha256: *sha256, file: row.file, size: row.size }));
            }
        }
        let prefix = schema::sha256_repo_prefix(sha256);
        for (key, _) in self.index().scan(Table::FileRepo, &prefix, None, TRIED_SCOPES).await? {
            let other = schema::repo_of(&key)?;
            if !self.readable(caller, other) {
                continue;
            }
            let row = self.index().get(Table::File, &schema::file_key(&other, sha256)).await?;
            if let Some(row) = row {
                return Ok(Some(link(sha256, &FileRow::decode(&row)?)));
            }
        }
        Ok(None)
    }

    /// Whether the caller need not send this file.
    pub async fn has_file(
        &self,
        caller: &Caller,
        repo: &Repo,
        sha256: &Sha256,
        size: u64,
    ) -> Result<bool> {
        let found = self.find_upload(caller, repo, sha256).await?;
        Ok(found.is_some_and(|link| link.size == size))
    }
}

fn link(sha256: &Sha256, row: &FileRow) -> FileLink {
    FileLink { sha256: *sha256, file: row.file, size: row.size }
}
