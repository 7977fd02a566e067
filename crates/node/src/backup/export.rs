//! Everything that a person would need to know of a hub without its program: who there is, which
//! repos, their refs and commits, and which files with which hashes. No secrets, no contents.

use std::collections::HashSet;
use std::sync::Arc;

use ballast_format::hash::ObjectHash;
use ballast_format::name::RefName;
use ballast_format::object::Commit;
use tokio::sync::mpsc;

use crate::access::{Caller, Repo};
use crate::account::TokenView;
use crate::download::{ItemKind, TreeItem};
use crate::error::{Error, Result};
use crate::hub::Hub;
use crate::state::accounts::{AccountsState, Org, User};

/// Items of a listing that are read at once.
const PAGE: usize = 1000;

/// One thing.
#[derive(Clone, Debug)]
pub enum Exported {
    /// A user.
    User(Arc<User>),
    /// An organisation with its members.
    Org(Arc<Org>),
    /// A token, without its secret.
    Token(TokenView),
    /// A repo.
    Repo(Repo),
    /// A ref of a repo.
    Ref {
        /// The repo.
        repo: Repo,
        /// Its name.
        name: RefName,
        /// Where it points.
        commit: ObjectHash,
    },
    /// A commit that a ref leads to.
    Commit {
        /// The repo.
        repo: Repo,
        /// Its id.
        id: ObjectHash,
        /// What it says.
        commit: Arc<Commit>,
    },
    /// A file: of a commit that a ref points to each one, of those before what differs from the
    /// one behind it.
    File {
        /// The repo.
        repo: Repo,
        /// The newest commit that has it so.
        commit: ObjectHash,
        /// What it is.
        item: TreeItem,
    },
    /// Something that could not be read.
    Unreadable {
        /// The repo.
        repo: Repo,
        /// Why.
        problem: String,
    },
}

impl Hub {
    /// Tells everything, for an administrator. Damage does not stop it.
    pub async fn export(&self, caller: &Caller, to: mpsc::Sender<Exported>) -> Result<()> {
        caller.user()?;
        if !caller.is_admin() {
            return Err(Error::denied("only an administrator of the hub may export all of it"));
        }
        let accounts = self.accounts.read(|state: &AccountsState| {
            let users = state.users().map(|user| Exported::User(Arc::clone(user)));
            let orgs = state.orgs().map(|org| Exported::Org(Arc::clone(org)));
            users.chain(orgs).collect::<Vec<_>>()
        });
        let tokens = self.list_tokens(caller, None)?.into_iter().map(Exported::Token);
        for account in accounts.into_iter().chain(tokens) {
            send(&to, account).await?;
        }
        for record in self.records(|_| true) {
            let repo = Repo { record };
            send(&to, Exported::Repo(repo.clone())).await?;
            match self.export_repo(&repo, &to).await {
                Err(error) if error.is_corrupt() => {
                    let problem = error.to_string();
                    send(&to, Exported::Unreadable { repo, problem }).await?;
                }
                done => done?,
            }
        }
        Ok(())
    }

    async fn export_repo(&self, repo: &Repo, to: &mpsc::Sender<Exported>) -> Result<()> {
        let state = self.repo_state(repo).await?;
        for (name, commit) in &state.refs {
            let (repo, name, commit) = (repo.clone(), name.clone(), *commit);
            send(to, Exported::Ref { repo, name, commit }).await?;
        }
        let mut seen: HashSet<ObjectHash> = HashSet::new();
        for commit in state.refs.values() {
            if seen.insert(*commit) {
                self.export_files(repo, *commit, to).await?;
            }
        }
        let mut open: Vec<ObjectHash> = state.refs.values().copied().collect();
        let mut told: HashSet<ObjectHash> = HashSet::new();
        while let Some(id) = open.pop() {
            if !told.insert(id) {
                continue;
            }
            let commit = self.commit(repo.id(), &id).await?;
            send(to, Exported::Commit { repo: repo.clone(), id, commit: Arc::clone(&commit) })
                .await?;
            for parent in &commit.parents {
                if !seen.contains(parent) && seen.insert(*parent) {
                    self.export_older(repo, *parent, id, to).await?;
                }
                open.push(*parent);
            }
        }
        Ok(())
    }

    /// Every file of a commit.
    async fn export_files(
        &self,
        repo: &Repo,
        commit: ObjectHash,
        to: &mpsc::Sender<Exported>,
    ) -> Result<()> {
        let mut after: Option<String> = None;
        loop {
            let page = self.tree_page(repo, commit, None, true, after.as_deref(), PAGE).await?;
            for item in page.items {
                if item.kind == ItemKind::File {
                    send(to, Exported::File { repo: repo.clone(), commit, item }).await?;
                }
            }
            match page.next {
                Some(next) => after = Some(next),
                None => return Ok(()),
            }
        }
    }

    /// The files that an older commit has otherwise than the one behind it.
    async fn export_older(
        &self,
        repo: &Repo,
        commit: ObjectHash,
        behind: ObjectHash,
        to: &mpsc::Sender<Exported>,
    ) -> Result<()> {
        for change in self.compare(repo, Some(commit), behind).await? {
            if change.old.is_none() {
                continue;
            }
            let path = ballast_format::name::FilePath::parse(&change.path)?;
            let item = Arc::unwrap_or_clone(self.item(repo, commit, &path).await?);
            send(to, Exported::File { repo: repo.clone(), commit, item }).await?;
        }
        Ok(())
    }
}

async fn send(to: &mpsc::Sender<Exported>, what: Exported) -> Result<()> {
    let gone = |_| Error::Busy { reason: "nobody listens to the export any more".to_owned() };
    to.send(what).await.map_err(gone)
}
