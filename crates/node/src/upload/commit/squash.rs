//! Commits that are not made of operations: the first of a repo, and a history made one.

use std::sync::Arc;

use ballast_format::hash::ObjectHash;
use ballast_format::id::TokenId;
use ballast_format::log::TokenRole;
use ballast_format::name::{FilePath, RefName};
use bytes::Bytes;

use super::draft::{CommitHeader, Draft};
use super::{ATTRIBUTES_PATH, attributes};
use crate::access::{Access, Caller, Repo, UserCaller};
use crate::error::{Error, Result};
use crate::hub::Hub;
use crate::state::repo::NewPack;

impl Hub {
    /// The first commit of a new repo. Whoever came upon the repo first has it made: it is the
    /// hub's own, in the name of the repo's creator, and asks for nobody's rights.
    pub(crate) async fn first_commit(self: &Arc<Self>, repo: &Repo) -> Result<()> {
        let header =
            CommitHeader { summary: "initial commit".to_owned(), ..CommitHeader::default() };
        let creator = self.creator(repo);
        let main = RefName::main();
        let mut draft = Draft::new(self, &creator, repo.clone(), header, main);
        draft.is_ours = true;
        let path = FilePath::parse(ATTRIBUTES_PATH)?;
        let content = attributes::initial(repo.kind());
        draft.add_file(path, Bytes::from(content)).await?;
        draft.finish().await?;
        Ok(())
    }

    /// A repo's creator, as the author of a commit; they may be gone.
    fn creator(&self, repo: &Repo) -> Caller {
        let Some(user) = self.user_of_id(repo.record.creator) else {
            return Caller::Anonymous;
        };
        Caller::User(Arc::new(UserCaller {
            user: user.id,
            name: user.name.as_str().to_owned(),
            admin: false,
            token: TokenId::from_bytes([0; 16]),
            role: TokenRole::Write,
            expires_ms: None,
        }))
    }

    /// Writes a commit without files and without a parent, which nothing names so far.
    pub(crate) async fn write_empty_commit(
        self: &Arc<Self>,
        caller: &Caller,
        repo: &Repo,
    ) -> Result<(ObjectHash, NewPack)> {
        let header = CommitHeader { summary: "empty branch".to_owned(), ..CommitHeader::default() };
        Draft::new(self, caller, repo.clone(), header, RefName::main()).write_nothing().await
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
        let missing = || Error::RevisionNotFound { revision: branch.short().to_owned() };
        let state = self.repo_state(repo).await?;
        let tip = state.refs.get(branch).copied().ok_or_else(missing)?;
        let header = CommitHeader {
            summary: if message.trim().is_empty() { "squash" } else { message }.to_owned(),
            revision: branch.as_str().to_owned(),
            ..CommitHeader::default()
        };
        let draft = self.begin_commit(caller, repo.clone(), header).await?;
        draft.squash(tip).await
    }
}
