//! Who may do what, and what a stranger is told: the one place that decides.
//!
//! A repo that the caller may not read and one that does not exist give the same answer, made
//! here. A [`Repo`] is the proof that a check was passed; verbs take it instead of a name.

use std::sync::Arc;

use ballast_format::id::{RepoId, TokenId, UserId};
use ballast_format::log::{
    AccessStatus, Gating, Role, ScopeEntity, TokenRole, TokenScope, Visibility,
};
use ballast_format::name::{Namespace, RepoKind, RepoName};

use crate::error::{Error, Result};
use crate::hub::Hub;
use crate::state::accounts::{AccountsState, Owner};
use crate::state::catalogue::RepoRecord;

/// Who asks.
#[derive(Clone, Debug)]
pub enum Caller {
    /// Nobody we know.
    Anonymous,
    /// A user, by one of their tokens.
    User(Arc<UserCaller>),
}

/// A user, as one of their tokens shows them.
#[derive(Clone, Debug)]
pub struct UserCaller {
    /// Who.
    pub user: UserId,
    /// Their name.
    pub name: String,
    /// Whether they administer the hub.
    pub admin: bool,
    /// By which token.
    pub token: TokenId,
    /// What the token may do of what they may.
    pub role: TokenRole,
    /// When the token ends, in unix milliseconds.
    pub expires_ms: Option<u64>,
}

impl Caller {
    /// Who it is, if that is known.
    pub fn user_id(&self) -> Option<UserId> {
        match self {
            Self::Anonymous => None,
            Self::User(user) => Some(user.user),
        }
    }

    /// The user, or the demand to say who they are.
    pub fn user(&self) -> Result<&Arc<UserCaller>> {
        match self {
            Self::Anonymous => Err(Error::LoginNeeded),
            Self::User(user) => Ok(user),
        }
    }

    /// Whether this is an administrator, by a token that may do all they may.
    pub fn is_admin(&self) -> bool {
        matches!(self, Self::User(user) if user.admin && user.role == TokenRole::Write)
    }
}

/// What somebody wants to do with a repo; each includes the one before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Access {
    /// See it.
    Read,
    /// Change its content.
    Write,
    /// Change its settings, move or delete it.
    Admin,
}

impl From<Role> for Access {
    fn from(role: Role) -> Self {
        match role {
            Role::Read => Self::Read,
            Role::Write => Self::Write,
            Role::Admin => Self::Admin,
        }
    }
}

/// A repo that an access check let somebody at.
#[derive(Clone, Debug)]
pub struct Repo {
    /// What is known about it.
    pub record: Arc<RepoRecord>,
}

impl Repo {
    /// Its name for ever.
    pub fn id(&self) -> RepoId {
        self.record.id
    }

    /// What it holds.
    pub fn kind(&self) -> RepoKind {
        self.record.kind
    }

    /// Its name, as it is written now.
    pub fn name(&self) -> &RepoName {
        &self.record.name
    }

    /// Whether it is a mirror of an upstream's.
    pub fn is_mirror(&self) -> bool {
        self.record.upstream.is_some()
    }

    /// Whether its home is another region.
    pub fn is_away(&self) -> bool {
        self.record.homing.away.is_some()
    }

    /// Refuses what would change the content of a mirror: that comes from its upstream only.
    pub(crate) fn is_ours_to_change(&self) -> Result<()> {
        let Some(upstream) = &self.record.upstream else { return Ok(()) };
        let (kind, name) = (self.kind(), self.name());
        Err(Error::denied(format!(
            "the {kind} `{name}` is a mirror of the one at {upstream}, and changes only with that; \
             hint: commit there, or to a repo of your own"
        )))
    }
}

impl Hub {
    /// Brings what decisions rest on up to what the settings ask for: who there is, and which
    /// repos. Where others write to the same store, ask for it before each request; what is
    /// decided below rests on memory alone.
    pub async fn freshen(&self) -> Result<()> {
        tokio::try_join!(self.accounts.refresh(self), self.catalogue.refresh(self))?;
        Ok(())
    }

    /// Who has this token. Unknown, expired and revoked ones cost and answer the same.
    pub fn authenticate(&self, secret: &str) -> Result<Caller> {
        let hash = self.token_hash(secret);
        let token = self.accounts.read(|state| state.token_by_hash(&hash));
        self.caller(token.map(|token| (token.user, token.id)))
    }

    /// The token that this secret is of, even if it has ended: for those who note that it did not
    /// open anything.
    pub(crate) fn token_by_secret(&self, secret: &str) -> Option<TokenId> {
        let hash = self.token_hash(secret);
        self.accounts.read(|state| state.token_by_hash(&hash)).map(|token| token.id)
    }

    /// The same person by the same token as before, if both are still good.
    pub fn caller_of(&self, user: UserId, token: TokenId) -> Result<Caller> {
        self.caller(Some((user, token)))
    }

    fn caller(&self, who: Option<(UserId, TokenId)>) -> Result<Caller> {
        let now = self.env().now_ms();
        self.accounts
            .read(|state| {
                let (user, token) = who?;
                let token = state.token(&token).filter(|token| token.user == user)?;
                let user = state.user(&user).filter(|user| !user.disabled)?;
                if token.expires_ms.is_some_and(|end| end <= now) {
                    return None;
                }
                Some(Caller::User(Arc::new(UserCaller {
                    user: user.id,
                    name: user.name.as_str().to_owned(),
                    admin: user.admin,
                    token: token.id,
                    role: token.role.clone(),
                    expires_ms: token.expires_ms,
                })))
            })
            .ok_or(Error::BadToken)
    }

    /// The repo of this name, now or formerly, if the caller may do this with it.
    pub fn repo(
        &self,
        caller: &Caller,
        kind: RepoKind,
        name: &RepoName,
        want: Access,
    ) -> Result<Repo> {
        self.admit_to_repo(caller)?;
        let record = self.catalogue.read(|state| state.by_name(kind, name));
        self.check(caller, record, want)
    }

    /// The repo of this id, if the caller may do this with it.
    pub fn repo_by_id(&self, caller: &Caller, id: RepoId, want: Access) -> Result<Repo> {
        self.admit_to_repo(caller)?;
        let record = self.catalogue.read(|state| state.by_id(&id));
        self.check(caller, record, want)
    }

    /// The one repo with this name in whatever namespace, among those that the caller may read.
    pub fn find_legacy(&self, caller: &Caller, kind: RepoKind, name: &str) -> Option<RepoName> {
        self.admit(caller).ok()?;
        let found = self.catalogue.read(|state| state.by_last_part(kind, name));
        let mut readable =
            found.into_iter().filter(|record| self.allowed(caller, record).is_some());
        let first = readable.next()?;
        readable.next().is_none().then(|| first.name.clone())
    }

    /// On a closed hub no repo is there for strangers: clients know that answer, and act on it,
    /// where a demand for a token is an error like any other to them.
    fn admit_to_repo(&self, caller: &Caller) -> Result<()> {
        self.admit(caller).map_err(|_| Error::RepoNotFound)
    }

    fn check(
        &self,
        caller: &Caller,
        record: Option<Arc<RepoRecord>>,
        want: Access,
    ) -> Result<Repo> {
        let Some(record) = record else {
            return Err(Error::RepoNotFound);
        };
        match self.allowed(caller, &record) {
            None => Err(Error::RepoNotFound),
            Some(allowed) if allowed >= want => {
                // Invariant 9
                match &record.homing.away {
                    Some(away) if want > Access::Read => Err(away.error(&record)),
                    _ => Ok(Repo { record }),
                }
            }
            Some(_) if matches!(caller, Caller::Anonymous) => Err(Error::LoginNeeded),
            Some(_) => {
                let what = if want == Access::Write { "write to" } else { "administer" };
                let (kind, name) = (record.kind, &record.name);
                Err(Error::denied(format!("your token may not {what} the {kind} `{name}`")))
            }
        }
    }

    /// Decides at the moment of a change what was decided when the request came: a right that was
    /// taken away meanwhile is gone (R18). For the rules of appends.
    pub(crate) fn confirm(
        &self,
        caller: &Caller,
        record: Option<Arc<RepoRecord>>,
        want: Access,
    ) -> Result<Repo> {
        self.check(&self.again(caller)?, record, want)
    }

    /// [`Hub::confirm`] for a repo of which only the id is known.
    pub(crate) fn confirm_by_id(&self, caller: &Caller, id: RepoId, want: Access) -> Result<Repo> {
        let record = self.catalogue.read(|state| state.by_id(&id));
        self.confirm(caller, record, want)
    }

    /// The caller as they are now.
    pub(crate) fn again(&self, caller: &Caller) -> Result<Caller> {
        match caller {
            Caller::Anonymous => Ok(Caller::Anonymous),
            Caller::User(user) => self.caller_of(user.user, user.token),
        }
    }

    /// May the caller leave something of their own at a repo that they can see, such as a like, a
    /// request or a comment? A token that may only read may not (R18).
    pub fn may_take_part(&self, caller: &Caller, repo: &Repo) -> Result<()> {
        if cap(&caller.user()?.role, &repo.record) >= Some(Access::Write) {
            return Ok(());
        }
        let (kind, name) = (repo.kind(), repo.name());
        Err(Error::denied(format!("your token may only read the {kind} `{name}`")))
    }

    /// The most that the caller may do with a repo; nothing: they may not know of it.
    fn allowed(&self, caller: &Caller, record: &RepoRecord) -> Option<Access> {
        let owner = record.name.namespace();
        let granted = self.accounts.read(|state| granted(state, caller, owner));
        let is_open = record.visibility == Visibility::Public || self.shows_all();
        let open = is_open.then_some(Access::Read);
        let granted = granted.max(open);
        match caller {
            Caller::Anonymous => granted,
            Caller::User(user) => granted.min(cap(&user.role, record).max(open)),
        }
    }

    /// May the caller have the content of this repo's files?
    pub fn may_read_files(&self, caller: &Caller, repo: &Repo) -> Result<()> {
        let record = &repo.record;
        if record.disabled && !caller.is_admin() {
            return Err(Error::Disabled);
        }
        let is_open = record.gating == Gating::None || self.shows_all();
        if is_open || self.is_let_in(caller, record) {
            return Ok(());
        }
        Err(Error::Gated { repo: record.name.to_string() })
    }

    /// Whether somebody was let into a gated repo: they belong to its owner, or were accepted. A
    /// token that is good for other repos only lets nobody in, whoever holds it.
    fn is_let_in(&self, caller: &Caller, record: &RepoRecord) -> bool {
        let Caller::User(user) = caller else {
            return false;
        };
        if cap(&user.role, record).is_none() {
            return false;
        }
        let owner = record.name.namespace();
        let belongs = self.accounts.read(|state| granted(state, caller, owner));
        let status = self.catalogue.read(|state| state.access_status(&record.id, &user.user));
        belongs.is_some() || status == Some(AccessStatus::Accepted)
    }

    /// May the caller read the files of this repo? What dedup may build on.
    pub fn readable(&self, caller: &Caller, id: RepoId) -> bool {
        let repo = self.repo_by_id(caller, id, Access::Read);
        repo.is_ok_and(|repo| self.may_read_files(caller, &repo).is_ok())
    }

    /// Whether the caller may see this repo in a listing.
    pub fn may_see(&self, caller: &Caller, record: &RepoRecord) -> bool {
        self.allowed(caller, record).is_some()
    }

    /// May the caller have new repos in this namespace? Those of others and those that do not exist
    /// give the same answer.
    pub fn may_create_in(&self, caller: &Caller, namespace: &Namespace) -> Result<()> {
        let user = caller.user()?;
        let granted = self.accounts.read(|state| {
            state.owner(namespace)?;
            granted(state, caller, namespace)
        });
        let token = match &user.role {
            TokenRole::Read => Some(Access::Read),
            TokenRole::Write => Some(Access::Admin),
            TokenRole::FineGrained { scopes } => {
                best(scopes, |entity| is_namespace(entity, namespace))
            }
        };
        if granted.min(token) >= Some(Access::Write) {
            return Ok(());
        }
        let reason = format!("you may not create repos in `{namespace}`");
        Err(Error::denied(reason))
    }
}

/// What being who they are gives somebody in a namespace.
fn granted(state: &AccountsState, caller: &Caller, namespace: &Namespace) -> Option<Access> {
    let Caller::User(user) = caller else {
        return None;
    };
    if user.admin {
        return Some(Access::Admin);
    }
    match state.owner(namespace)? {
        Owner::User(id) => (id == user.user).then_some(Access::Admin),
        Owner::Org(id) => state.role(&id, &user.user).map(Access::from),
    }
}

/// The most that a token may do with a repo.
fn cap(role: &TokenRole, record: &RepoRecord) -> Option<Access> {
    match role {
        TokenRole::Read => Some(Access::Read),
        TokenRole::Write => Some(Access::Admin),
        TokenRole::FineGrained { scopes } => best(scopes, |entity| match entity {
            ScopeEntity::Namespace(_) => is_namespace(entity, record.name.namespace()),
            ScopeEntity::Repo { kind, name } => {
                *kind == record.kind && name.folded() == record.name.folded()
            }
        }),
    }
}

/// The most that those scopes give whose entity fits.
fn best(scopes: &[TokenScope], fits: impl Fn(&ScopeEntity) -> bool) -> Option<Access> {
    let fitting = scopes.iter().filter(|scope| fits(&scope.entity));
    fitting.map(|scope| Access::from(scope.role)).max()
}

fn is_namespace(entity: &ScopeEntity, namespace: &Namespace) -> bool {
    matches!(entity, ScopeEntity::Namespace(name) if name.folded() == namespace.folded())
}

#[cfg(test)]
mod tests;
