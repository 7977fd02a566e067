//! Users.

use std::sync::Arc;

use ballast_format::id::UserId;
use ballast_format::log::{AccountChange, Role};
use ballast_format::name::Namespace;
use ballast_store::env::random_bytes;

use super::tokens::{NewToken, Secret};
use super::{check_admin, check_new_name, check_text, confirm_admin};
use crate::access::Caller;
use crate::error::{Error, Result};
use crate::hub::Hub;
use crate::state::accounts::{Org, User};
use crate::state::ledger::New;

/// A user to create.
#[derive(Clone, Copy, Debug)]
pub struct NewUser<'a> {
    /// Their name.
    pub name: &'a str,
    /// The name to show; empty: the same.
    pub fullname: &'a str,
    /// An address to show.
    pub email: Option<&'a str>,
    /// Whether they administer the hub.
    pub admin: bool,
}

/// An organisation that somebody belongs to.
#[derive(Clone, Debug)]
pub struct MembershipView {
    /// The organisation.
    pub org: Arc<Org>,
    /// What they may do there.
    pub role: Role,
}

impl NewUser<'_> {
    fn change(&self, id: UserId) -> Result<AccountChange> {
        check_text("a full name", self.fullname)?;
        check_text("an address", self.email.unwrap_or_default())?;
        let fullname = if self.fullname.is_empty() { self.name } else { self.fullname };
        Ok(AccountChange::UserCreated {
            id,
            name: Namespace::parse(self.name)?,
            fullname: fullname.to_owned(),
            email: self.email.map(ToOwned::to_owned),
            admin: self.admin,
        })
    }
}

impl Hub {
    /// Creates a user; only administrators may.
    pub async fn create_user(&self, caller: &Caller, user: &NewUser<'_>) -> Result<Arc<User>> {
        check_admin(caller)?;
        let id = UserId::from_bytes(random_bytes(self.env().as_ref()));
        let change = user.change(id)?;
        let name = Namespace::parse(user.name)?;
        self.accounts
            .append(self, New::by(caller.user_id()), |state| {
                confirm_admin(state, caller)?;
                check_new_name(state, &name)?;
                Ok(vec![change.clone()])
            })
            .await?;
        let created = self.accounts.read(|state| state.user(&id));
        created.ok_or_else(|| Error::internal("the new user is not there"))
    }

    /// The first user with a token, in one step, on a hub that has none; the token.
    pub(crate) async fn create_first_user(&self, user: &NewUser<'_>) -> Result<String> {
        let id = UserId::from_bytes(random_bytes(self.env().as_ref()));
        let secret = Secret::draw(self.env().as_ref());
        let token = NewToken {
            name: "first",
            role: ballast_format::log::TokenRole::Write,
            expires_ms: None,
        };
        let changes = vec![user.change(id)?, token.change(self, id, &secret)];
        self.accounts
            .append(self, New::by(None), |state| {
                if state.has_users() {
                    return Err(Error::Exists { what: "a user".to_owned() });
                }
                Ok(changes.clone())
            })
            .await?;
        Ok(secret.into_text())
    }

    /// Every user; only administrators may see them all.
    pub fn list_users(&self, caller: &Caller) -> Result<Vec<Arc<User>>> {
        check_admin(caller)?;
        let mut users: Vec<_> = self.accounts.read(|state| state.users().map(Arc::clone).collect());
        users.sort_by_key(|user: &Arc<User>| user.name.folded());
        Ok(users)
    }

    /// Shuts a user out, or lets them in again. Their tokens stop working at once.
    pub async fn set_disabled(&self, caller: &Caller, name: &str, disabled: bool) -> Result<()> {
        check_admin(caller)?;
        let user = self.user_of_name(name)?;
        if Some(user.id) == caller.user_id() {
            return Err(Error::invalid("you can't disable yourself"));
        }
        let change = AccountChange::UserChanged {
            id: user.id,
            fullname: None,
            email: None,
            admin: None,
            disabled: Some(disabled),
        };
        self.accounts
            .append(self, New::by(caller.user_id()), |state| {
                confirm_admin(state, caller)?;
                let now = state.user(&user.id).map(|user| user.disabled);
                if now == Some(disabled) {
                    return Ok(Vec::new());
                }
                Ok(vec![change.clone()])
            })
            .await
    }

    /// The user of this name.
    pub fn user_of_name(&self, name: &str) -> Result<Arc<User>> {
        let missing = || Error::NotFound { what: format!("the user `{name}`") };
        let parsed = Namespace::parse(name).map_err(|_| missing())?;
        self.accounts.read(|state| state.user_by_name(&parsed)).ok_or_else(missing)
    }

    /// The user of this id.
    pub fn user_of_id(&self, id: UserId) -> Option<Arc<User>> {
        self.accounts.read(|state| state.user(&id))
    }

    /// What somebody belongs to.
    pub fn memberships(&self, id: UserId) -> Vec<MembershipView> {
        let orgs = self.accounts.read(|state| state.orgs_of(&id));
        orgs.into_iter().map(|(org, role)| MembershipView { org, role }).collect()
    }
}
