//! The administration that the command line drives: users, organisations, tokens, checks.
//!
//! Repos are administered by the hub API's own routes, as every other client does it.

use ballast_format::id::TokenId;
use ballast_format::log::{Role, ScopeEntity, TokenRole, TokenScope, Visibility};
use ballast_format::name::{Namespace, RepoKind, RepoName};
use ballast_node::account::{NewToken, NewUser, TokenView};
use ballast_node::state::accounts::{Org, User};
use http::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    audit, bundle, export, gc, keep, mirror, nodes, policy, quotas, regions, scrub, verify,
};
use crate::call::{Call, decode};
use crate::error::{Answer, Failure};
use crate::hub::commits::date_of;
use crate::reply;

const BODY_BYTES: u64 = 1_000_000;
/// The longest life that a token may be given: a century of seconds.
const LONGEST_LIFE_SECONDS: u64 = 100 * 366 * 24 * 60 * 60;

/// `/api/ballast/v1/…`
pub(crate) async fn route(call: Call, segments: &[&str]) -> Answer {
    match (segments, &call.method) {
        (["users"], &Method::GET) => list_users(&call),
        (["users"], &Method::POST) => create_user(call).await,
        (["users", name], &Method::PATCH) => change_user(call, &decode(name)?).await,
        (["orgs"], &Method::POST) => create_org(call).await,
        (["orgs", org, "members", user], &Method::PUT | &Method::DELETE) => {
            set_member(call, &decode(org)?, &decode(user)?).await
        }
        (["tokens"], &Method::GET) => list_tokens(&call),
        (["tokens"], &Method::POST) => create_token(call).await,
        (["tokens", id], &Method::DELETE) => revoke_token(&call, &decode(id)?).await,
        (["nodes"], &Method::GET) => nodes::list(&call),
        (["nodes", "overview"], &Method::GET) => nodes::overview(&call),
        (["nodes"], &Method::POST) => nodes::invite(call).await,
        (["nodes", name], &Method::DELETE) => nodes::revoke(&call, &decode(name)?).await,
        (["quotas", name], &Method::GET) => quotas::show(&call, &decode(name)?).await,
        (["quotas", name], &Method::PATCH) => quotas::change(call, &decode(name)?).await,
        (["audit"], &Method::POST) => audit::list(call).await,
        (["audit", "verify"], &Method::POST) => audit::verify(call).await,
        (["verify"], &Method::POST) => verify::answer(call).await,
        (["policy", "check"], &Method::POST) => policy::answer(call).await,
        (["gc"], &Method::POST) => gc::answer(call).await,
        (["export"], &Method::POST) => export::answer(call).await,
        (["bundle", "import"], &Method::POST) => bundle::answer(call).await,
        (["mirror"], &Method::POST) => mirror::answer(call).await,
        (["node"], &Method::POST) => keep::answer(call).await,
        (["regions"], &Method::POST) => regions::answer(call).await,
        (["scrub"], &Method::GET) => scrub::answer(&call).await,
        _ => Err(Failure::no_route()),
    }
}

pub(super) fn user_view(user: &User) -> Value {
    json!({
        "id": user.id.to_string(),
        "name": user.name.as_str(),
        "fullname": user.fullname,
        "email": user.email,
        "admin": user.admin,
        "disabled": user.disabled,
        "createdAt": date_of(user.created_ms),
    })
}

fn list_users(call: &Call) -> Answer {
    let users = call.gateway.hub.list_users(&call.caller);
    let users = users.map_err(|error| Failure::of(error, &call.caller))?;
    reply::json(&users.iter().map(|user| user_view(user)).collect::<Vec<_>>())
}

#[derive(Deserialize)]
struct CreateUser {
    name: String,
    fullname: Option<String>,
    email: Option<String>,
    #[serde(default)]
    admin: bool,
}

async fn create_user(mut call: Call) -> Answer {
    let body: CreateUser = call.json(BODY_BYTES).await?;
    let user = NewUser {
        name: &body.name,
        fullname: body.fullname.as_deref().unwrap_or_default(),
        email: body.email.as_deref(),
        admin: body.admin,
    };
    let created = call.gateway.hub.create_user(&call.caller, &user).await;
    let created = created.map_err(|error| Failure::of(error, &call.caller))?;
    reply::json_as(StatusCode::CREATED, "application/json", &user_view(&created))
}

#[derive(Deserialize)]
struct ChangeUser {
    disabled: bool,
}

async fn change_user(mut call: Call, name: &str) -> Answer {
    let body: ChangeUser = call.json(BODY_BYTES).await?;
    let of = |error| Failure::of(error, &call.caller);
    let hub = &call.gateway.hub;
    hub.set_disabled(&call.caller, name, body.disabled).await.map_err(of)?;
    reply::json(&user_view(hub.user_of_name(name).map_err(of)?.as_ref()))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct CreateOrg {
    name: String,
    fullname: Option<String>,
    default_visibility: Option<String>,
}

pub(super) fn org_view(org: &Org) -> Value {
    let visibility = match org.default_visibility {
        Visibility::Public => "public",
        Visibility::Private => "private",
    };
    json!({
        "id": org.id.to_string(),
        "name": org.name.as_str(),
        "fullname": org.fullname,
        "defaultVisibility": visibility,
        "createdAt": date_of(org.created_ms),
    })
}

async fn create_org(mut call: Call) -> Answer {
    let body: CreateOrg = call.json(BODY_BYTES).await?;
    let visibility = match body.default_visibility.as_deref() {
        None | Some("public") => Visibility::Public,
        Some("private") => Visibility::Private,
        Some(other) => return Err(Failure::invalid(format!("`{other}` is no visibility"))),
    };
    let fullname = body.fullname.unwrap_or_default();
    let hub = &call.gateway.hub;
    let created = hub.create_org(&call.caller, &body.name, &fullname, visibility).await;
    let created = created.map_err(|error| Failure::of(error, &call.caller))?;
    reply::json_as(StatusCode::CREATED, "application/json", &org_view(&created))
}

fn role_of(text: &str) -> Result<Role, Failure> {
    match text {
        "read" => Ok(Role::Read),
        "write" => Ok(Role::Write),
        "admin" => Ok(Role::Admin),
        other => Err(Failure::invalid(format!("`{other}` is no role: read, write or admin"))),
    }
}

pub(super) fn role_word(role: Role) -> &'static str {
    match role {
        Role::Read => "read",
        Role::Write => "write",
        Role::Admin => "admin",
    }
}

#[derive(Deserialize)]
struct Member {
    role: String,
}

async fn set_member(mut call: Call, org: &str, user: &str) -> Answer {
    // Before anything is looked up: a stranger hears the same whether there is such a place.
    call.caller.user().map_err(|error| Failure::of(error, &call.caller))?;
    let role = if call.method == Method::PUT {
        let body: Member = call.json(BODY_BYTES).await?;
        Some(role_of(&body.role)?)
    } else {
        None
    };
    let changed = call.gateway.hub.set_member(&call.caller, org, user, role).await;
    changed.map_err(|error| Failure::of(error, &call.caller))?;
    reply::json(&json!({"org": org, "user": user, "member": role.is_some()}))
}

pub(super) fn token_view(view: &TokenView) -> Value {
    let role = match &view.token.role {
        TokenRole::Read => "read",
        TokenRole::Write => "write",
        TokenRole::FineGrained { .. } => "fineGrained",
    };
    json!({
        "id": view.token.id.to_string(),
        "user": view.user.name.as_str(),
        "name": view.token.name,
        "role": role,
        "scopes": scopes_view(&view.token.role),
        "createdAt": date_of(view.token.created_ms),
        "expiresAt": view.token.expires_ms.map(date_of),
    })
}

/// Scopes as they were asked for; none: the token is for all that its user may.
fn scopes_view(role: &TokenRole) -> Vec<Value> {
    let TokenRole::FineGrained { scopes } = role else { return Vec::new() };
    let view = |scope: &TokenScope| {
        let (kind, name) = match &scope.entity {
            ScopeEntity::Repo { kind, name } => (kind.singular(), name.to_string()),
            ScopeEntity::Namespace(name) => ("namespace", name.to_string()),
        };
        let entity = json!({"type": kind, "name": name});
        json!({"entity": entity, "role": role_word(scope.role)})
    };
    scopes.iter().map(view).collect()
}

fn list_tokens(call: &Call) -> Answer {
    let tokens = call.gateway.hub.list_tokens(&call.caller, call.query.first("user"));
    let tokens = tokens.map_err(|error| Failure::of(error, &call.caller))?;
    reply::json(&tokens.iter().map(token_view).collect::<Vec<_>>())
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct CreateToken {
    user: String,
    name: Option<String>,
    role: String,
    #[serde(default)]
    scopes: Vec<Scope>,
    expires_in_seconds: Option<u64>,
}

#[derive(Deserialize)]
struct Scope {
    entity: Entity,
    role: String,
}

#[derive(Deserialize)]
struct Entity {
    #[serde(rename = "type")]
    kind: String,
    name: String,
}

impl Scope {
    fn read(&self) -> Result<TokenScope, Failure> {
        let bad = |error: ballast_format::Error| Failure::invalid(error.to_string());
        let name = &self.entity.name;
        let entity = match (self.entity.kind.as_str(), RepoKind::from_singular(&self.entity.kind)) {
            ("namespace", _) => ScopeEntity::Namespace(Namespace::parse(name).map_err(bad)?),
            (_, Some(kind)) => {
                ScopeEntity::Repo { kind, name: RepoName::parse(name).map_err(bad)? }
            }
            (other, None) => {
                return Err(Failure::invalid(format!("`{other}` is nothing a token is for")));
            }
        };
        Ok(TokenScope { entity, role: role_of(&self.role)? })
    }
}

async fn create_token(mut call: Call) -> Answer {
    let body: CreateToken = call.json(BODY_BYTES).await?;
    let role = match (role_of(&body.role)?, body.scopes.as_slice()) {
        (Role::Read, []) => TokenRole::Read,
        // What the user may, the token may; an administrator's role is the user's own.
        (Role::Write | Role::Admin, []) => TokenRole::Write,
        (_, scopes) => {
            let scopes = scopes.iter().map(Scope::read).collect::<Result<_, Failure>>()?;
            TokenRole::FineGrained { scopes }
        }
    };
    let hub = &call.gateway.hub;
    let life = match body.expires_in_seconds {
        Some(life) if life > LONGEST_LIFE_SECONDS => {
            return Err(Failure::invalid("the token would live longer than a century"));
        }
        life => life,
    };
    let expires_ms = life.map(|life| hub.env().now_ms() + life * 1000);
    let name = body.name.as_deref().unwrap_or("token");
    let new = NewToken { name, role, expires_ms };
    let made = hub.create_token(&call.caller, &body.user, &new).await;
    let (id, secret) = made.map_err(|error| Failure::of(error, &call.caller))?;
    let answer = json!({
        "id": id.to_string(),
        "user": body.user,
        "name": name,
        "token": secret,
        "expiresAt": expires_ms.map(date_of),
    });
    reply::json_as(StatusCode::CREATED, "application/json", &answer)
}

async fn revoke_token(call: &Call, id: &str) -> Answer {
    let of = |error| Failure::of(error, &call.caller);
    let missing = || ballast_node::Error::NotFound { what: format!("the token `{id}`") };
    let parsed: TokenId = id.parse().map_err(|_| of(missing()))?;
    call.gateway.hub.revoke_token(&call.caller, parsed).await.map_err(of)?;
    reply::json(&json!({"id": id, "revoked": true}))
}
