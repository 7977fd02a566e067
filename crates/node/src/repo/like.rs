//! Likes.

use std::sync::Arc;

use ballast_format::id::UserId;
use ballast_format::log::CatalogueChange;

use crate::access::{Access, Caller, Repo};
use crate::error::Result;
use crate::hub::Hub;
use crate::state::accounts::User;
use crate::state::catalogue::Like;
use crate::state::ledger::New;

impl Hub {
    /// Likes a repo, or takes it back. Saying it twice changes nothing.
    pub async fn set_like(&self, caller: &Caller, repo: &Repo, like: bool) -> Result<()> {
        self.may_take_part(caller, repo)?;
        let (user, id) = (caller.user()?.user, repo.id());
        self.catalogue
            .append(self, New::by(Some(user)), |state| {
                self.confirm(caller, state.by_id(&id), Access::Read)?;
                if state.is_liked(&id, &user) == like {
                    return Ok(Vec::new());
                }
                let change = if like {
                    CatalogueChange::Liked { id, user }
                } else {
                    CatalogueChange::Unliked { id, user }
                };
                Ok(vec![change])
            })
            .await
    }

    /// How many people like a repo.
    pub fn like_count(&self, repo: &Repo) -> u64 {
        self.catalogue.read(|state| state.like_count(&repo.id()))
    }

    /// Who likes a repo, by name.
    pub fn likers(&self, repo: &Repo) -> Vec<Arc<User>> {
        let ids = self.catalogue.read(|state| state.likers(&repo.id()));
        let mut users: Vec<_> = ids.into_iter().filter_map(|id| self.user_of_id(id)).collect();
        users.sort_by_key(|user| user.name.folded());
        users
    }

    /// What somebody likes, latest first, of what the caller may see; with when they said so.
    pub fn likes_of(&self, caller: &Caller, user: UserId) -> Vec<(Repo, u64)> {
        let likes = self.catalogue.read(|state| state.likes_of(&user));
        let visible = |like: &Like| {
            Some((self.repo_by_id(caller, like.repo, Access::Read).ok()?, like.time_ms))
        };
        likes.iter().filter_map(visible).collect()
    }
}
