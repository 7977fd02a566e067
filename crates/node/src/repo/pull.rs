//! Pull requests, as far as commits that open one need them.

use std::sync::Arc;

use ballast_format::hash::ObjectHash;
use ballast_format::id::OperationId;
use ballast_format::log::{PullRequestStatus, RepoChange};
use ballast_format::name::RefName;
use ballast_store::env::random_bytes;

use crate::access::{Access, Caller, Repo};
use crate::error::{Error, Result};
use crate::hub::Hub;
use crate::state::repo::{Comment, Pull, RepoState};

const MAX_TITLE_BYTES: usize = 500;
const MAX_TEXT_BYTES: usize = 64 * 1024;
/// What all refs, pull requests and comments of a repo may take: they are in memory together.
const MAX_STATE_BYTES: usize = 32 << 20;

/// A pull request to open.
#[derive(Clone, Copy, Debug)]
pub struct NewPull<'a> {
    /// Its title.
    pub title: &'a str,
    /// What its author says about it.
    pub description: &'a str,
}

impl NewPull<'_> {
    /// The changes that open it at this commit. Whoever may read a repo may propose a change.
    pub(crate) fn changes(
        &self,
        caller: &Caller,
        repo: &Repo,
        state: &RepoState,
        at: ObjectHash,
    ) -> Result<(u32, Vec<RepoChange>)> {
        let author = caller.user()?.user;
        repo.is_ours_to_change()?;
        if repo.record.discussions_disabled {
            return Err(closed());
        }
        if self.title.is_empty() || self.title.len() > MAX_TITLE_BYTES {
            let reason = format!("a title has 1 to {MAX_TITLE_BYTES} bytes");
            return Err(Error::invalid(reason));
        }
        check_text(self.description)?;
        check_room(state)?;
        let number = state.next_pull();
        let opened = RepoChange::PullRequestOpened {
            number,
            title: self.title.to_owned(),
            description: self.description.to_owned(),
            author,
        };
        let set = RepoChange::RefSet { name: RefName::pull(number), old: None, new: at };
        Ok((number, vec![opened, set]))
    }
}

fn check_text(text: &str) -> Result<()> {
    if text.len() > MAX_TEXT_BYTES {
        let (what, size) = ("the text".to_owned(), text.len() as u64);
        return Err(Error::TooLarge { what, size, limit: MAX_TEXT_BYTES as u64 });
    }
    Ok(())
}

fn check_room(state: &RepoState) -> Result<()> {
    if state.memory_bytes() > MAX_STATE_BYTES {
        return Err(Error::invalid("the discussions of this repo are full"));
    }
    Ok(())
}

impl Hub {
    /// Opens a pull request at the tip of `main`.
    pub async fn open_pull(&self, caller: &Caller, repo: &Repo, new: NewPull<'_>) -> Result<Pull> {
        self.may_take_part(caller, repo)?;
        let mut number = 0;
        let state = self
            .append_repo(repo, caller.user_id(), &[], |state| {
                self.confirm_by_id(caller, repo.id(), Access::Read)?;
                let revision = || Error::RevisionNotFound { revision: "main".to_owned() };
                let tip = state.main().ok_or_else(revision)?;
                let (next, changes) = new.changes(caller, repo, state, tip)?;
                number = next;
                Ok(changes)
            })
            .await?;
        let opened = state.pulls.get(&number).cloned();
        opened.ok_or_else(|| Error::internal("the pull request is not there"))
    }

    /// Every pull request, latest first.
    pub async fn pulls(&self, repo: &Repo) -> Result<Vec<Pull>> {
        let state = self.repo_state(repo).await?;
        Ok(state.pulls.values().rev().cloned().collect())
    }

    /// One pull request, with the state that it is part of.
    pub async fn pull(&self, repo: &Repo, number: u32) -> Result<(Pull, Arc<RepoState>)> {
        let state = self.repo_state(repo).await?;
        let pull = state.pulls.get(&number).cloned().ok_or_else(|| missing(number))?;
        Ok((pull, state))
    }

    /// Changes a pull request's status; its author may, and who may write.
    pub async fn set_pull_status(
        &self,
        caller: &Caller,
        repo: &Repo,
        number: u32,
        status: PullRequestStatus,
    ) -> Result<()> {
        let by = caller.user()?.user;
        self.may_take_part(caller, repo)?;
        if status == PullRequestStatus::Merged {
            return Err(Error::invalid("a pull request is merged by merging it"));
        }
        self.append_repo(repo, Some(by), &[], |state| {
            self.confirm_by_id(caller, repo.id(), Access::Read)?;
            let writer = self.confirm_by_id(caller, repo.id(), Access::Write).is_ok();
            let pull = state.pulls.get(&number).ok_or_else(|| missing(number))?;
            if pull.author != by && !writer {
                return Err(Error::denied("this pull request is somebody else's"));
            }
            if pull.status == PullRequestStatus::Merged {
                return Err(Error::invalid("this pull request is merged"));
            }
            if pull.status == status {
                return Ok(Vec::new());
            }
            Ok(vec![RepoChange::PullRequestStatus { number, status }])
        })
        .await?;
        Ok(())
    }

    /// Says something about a pull request.
    pub async fn comment(
        &self,
        caller: &Caller,
        repo: &Repo,
        number: u32,
        text: &str,
    ) -> Result<Comment> {
        let author = caller.user()?.user;
        self.may_take_part(caller, repo)?;
        check_text(text)?;
        if repo.record.discussions_disabled {
            return Err(closed());
        }
        let id = OperationId::from_bytes(random_bytes(self.env().as_ref()));
        let state = self
            .append_repo(repo, Some(author), &[], |state| {
                self.confirm_by_id(caller, repo.id(), Access::Read)?;
                check_room(state)?;
                state.pulls.get(&number).ok_or_else(|| missing(number))?;
                Ok(vec![RepoChange::Comment { number, id, author, text: text.to_owned() }])
            })
            .await?;
        let comments = state.pulls.get(&number).map(|pull| &pull.comments);
        let said = comments.and_then(|all| all.iter().rfind(|said| said.id == id));
        said.cloned().ok_or_else(|| Error::internal("the comment is not there"))
    }
}

fn closed() -> Error {
    Error::denied("discussions are turned off for this repo")
}

fn missing(number: u32) -> Error {
    Error::NotFound { what: format!("the discussion {number}") }
}
