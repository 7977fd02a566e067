//! Commits that are not made of operations: the first of a repo, and a history made one.

use std::sync::Arc;

use ballast_format::hash::ObjectHash;
use ballast_format::name::{FilePath, RefName};
use bytes::Bytes;

use super::draft::CommitHeader;
use super::{ATTRIBUTES_PATH, attributes};
use crate::access::{Access, Caller, Repo};
use crate::error::{Error, Result};
use crate::hub::Hub;

impl Hub {
    /// The first commit of a new repo.
    pub(crate) async fn first_commit(self: &Arc<Self>, caller: &Caller, repo: &Repo) -> Result<()> {
        let header = CommitHeader {
            summary: "initial commit".to_owned(),
            revision: RefName::main().as_str().to_owned(),
            ..CommitHeader::default()
        };
        let mut draft = self.begin_commit(caller, repo.clone(), header).await?;
        let path = FilePath::parse(ATTRIBUTES_PATH)?;
        draft
            .add_file(path, Bytes::from(attributes::initial(repo.kind())))
            .await?;
        draft.finish().await?;
        Ok(())
    }

    /// Makes a branch's history one commit with the same tree.
    pub async fn squash(
        self: &Arc<Self>,
        caller: &Caller,
        repo: &Repo,
        branch: &RefName,
        message: &str,
    ) -> Result<ObjectHash> {
        self.repo_by_id(caller, repo.id(), Access::Write)?;
        let missing = || Error::RevisionNotFound {
            revision: branch.short().to_owned(),
        };
        let state = self.repo_state(repo).await?;
        let tip = state.refs.get(branch).copied().ok_or_else(missing)?;
        let header = CommitHeader {
            summary: if message.trim().is_empty() {
                "squash"
            } else {
                message
            }
            .to_owned(),
            revision: branch.as_str().to_owned(),
            ..CommitHeader::default()
        };
        let draft = self.begin_commit(caller, repo.clone(), header).await?;
        draft.squash(tip).await
    }
}
