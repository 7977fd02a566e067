//! Organisations and who belongs to them.

use std::sync::Arc;

use ballast_format::id::OrgId;
use ballast_format::log::{AccountChange, Role, TokenRole, Visibility};
use ballast_format::name::Namespace;
use ballast_store::env::random_bytes;

use super::{check_admin, check_new_name, check_text, confirm_admin, confirm_user};
use crate::access::Caller;
use crate::error::{Error, Result};
use crate::hub::Hub;
use crate::state::accounts::{AccountsState, Org, User};
use crate::state::ledger::New;

/// Members of one organisation.
const MAX_MEMBERS: usize = 10_000;

/// Whether the caller may say who belongs to an organisation, by this state.
fn may_administer(state: &AccountsState, caller: &Caller, org: &Org) -> Result<()> {
    let user = confirm_user(state, caller)?;
    // A token for some repos or one that only reads changes nobody's rights.
    let may_all = caller.user()?.role == TokenRole::Write;
    let is_org_admin = state.role(&org.id, &user.id) == Some(Role::Admin);
    if may_all && (user.admin || is_org_admin) {
        return Ok(());
    }
    let name = &org.name;
    Err(Error::denied(format!("only administrators of `{name}` may do this")))
}

impl Hub {
    /// Creates an organisation; only administrators may. The creator belongs to it.
    pub async fn create_org(
        &self,
        caller: &Caller,
        name: &str,
        fullname: &str,
        default_visibility: Visibility,
    ) -> Result<Arc<Org>> {
        check_admin(caller)?;
        check_text("a full name", fullname)?;
        let user = caller.user()?.user;
        let id = OrgId::from_bytes(random_bytes(self.env().as_ref()));
        let name = Namespace::parse(name)?;
        let fullname = if fullname.is_empty() { name.as_str() } else { fullname };
        let created = AccountChange::OrgCreated {
            id,
            name: name.clone(),
            fullname: fullname.to_owned(),
            default_visibility,
        };
        let member = AccountChange::MemberSet { org: id, user, role: Some(Role::Admin) };
        self.accounts
            .append(self, New::by(Some(user)), |state| {
                confirm_admin(state, caller)?;
                check_new_name(state, &name)?;
                Ok(vec![created.clone(), member.clone()])
            })
            .await?;
        let created = self.accounts.read(|state| state.org(&id));
        created.ok_or_else(|| Error::internal("the new organisation is not there"))
    }

    /// Says what somebody may do in an organisation; nothing: they are out. Its own
    /// administrators may, and those of the hub.
    pub async fn set_member(
        &self,
        caller: &Caller,
        org: &str,
        user: &str,
        role: Option<Role>,
    ) -> Result<()> {
        let org = self.org_of_name(org)?;
        self.accounts.read(|state| may_administer(state, caller, &org))?;
        let user = self.user_of_name(user)?;
        let change = AccountChange::MemberSet { org: org.id, user: user.id, role };
        self.accounts
            .append(self, New::by(caller.user_id()), |state| {
                may_administer(state, caller, &org)?;
                let now = state.role(&org.id, &user.id);
                if role.is_none() && now.is_none() {
                    let (user, org) = (&user.name, &org.name);
                    let what = format!("the member `{user}` of `{org}`");
                    return Err(Error::NotFound { what });
                }
                if role.is_some() && now.is_none() && state.member_count(&org.id) >= MAX_MEMBERS {
                    let reason = format!("`{}` has {MAX_MEMBERS} members", org.name);
                    return Err(Error::invalid(reason));
                }
                if role == now {
                    return Ok(Vec::new());
                }
                Ok(vec![change.clone()])
            })
            .await
    }

    /// The organisation of this name.
    pub fn org_of_name(&self, name: &str) -> Result<Arc<Org>> {
        let missing = || Error::NotFound { what: format!("the organisation `{name}`") };
        let parsed = Namespace::parse(name).map_err(|_| missing())?;
        self.accounts.read(|state| state.org_by_name(&parsed)).ok_or_else(missing)
    }

    /// The organisation of this id.
    pub fn org_of_id(&self, id: OrgId) -> Option<Arc<Org>> {
        self.accounts.read(|state| state.org(&id))
    }

    /// An organisation's members by name, with their role.
    pub fn members(&self, org: &Org) -> Vec<(Arc<User>, Role)> {
        let mut members: Vec<_> = self.accounts.read(|state| {
            let member = |(id, role): (&_, &Role)| Some((state.user(id)?, *role));
            org.members.iter().filter_map(member).collect()
        });
        members.sort_by_key(|(user, _): &(Arc<User>, Role)| user.name.folded());
        members
    }

    /// Who may see a new repo in this namespace where the client does not say.
    pub fn default_visibility(&self, namespace: &Namespace) -> Visibility {
        let org = self.accounts.read(|state| state.org_by_name(namespace));
        org.map_or(Visibility::Public, |org| org.default_visibility)
    }
}
