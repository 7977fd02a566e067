//! People and organisations: who am I, who are they, what do they like.

use std::sync::Arc;

use ballast_format::log::{Role, ScopeEntity, TokenRole};
use ballast_node::account::MembershipView;
use ballast_node::state::accounts::{Token, User};
use http::Method;
use serde_json::{Value, json};

use super::commits::date_of;
use super::place::Context;
use crate::Gateway;
use crate::call::{Call, decode};
use crate::error::{Answer, Failure};
use crate::reply;

fn role_word(role: Role) -> &'static str {
    match role {
        Role::Read => "read",
        Role::Write => "write",
        Role::Admin => "admin",
    }
}

fn org_view(view: &MembershipView) -> Value {
    json!({
        "type": "org",
        "id": view.org.id.to_string(),
        "name": view.org.name.as_str(),
        "fullname": view.org.fullname,
        "email": null,
        "canPay": false,
        "periodEnd": null,
        "avatarUrl": "",
        "roleInOrg": role_word(view.role),
        "isEnterprise": false,
    })
}

/// A token as its owner may see it.
fn token_view(gateway: &Gateway, token: &Token) -> Value {
    let role = match &token.role {
        TokenRole::Read => "read",
        TokenRole::Write => "write",
        TokenRole::FineGrained { .. } => "fineGrained",
    };
    let mut view = json!({
        "displayName": token.name,
        "role": role,
        "createdAt": date_of(token.created_ms),
    });
    if let TokenRole::FineGrained { scopes } = &token.role {
        let scoped: Vec<Value> = scopes
            .iter()
            .map(|scope| {
                let (kind, name) = match &scope.entity {
                    ScopeEntity::Repo { kind, name } => (kind.singular(), name.to_string()),
                    ScopeEntity::Namespace(name) => {
                        let is_org = gateway.hub.org_of_name(name.as_str()).is_ok();
                        (if is_org { "org" } else { "user" }, name.to_string())
                    }
                };
                let entity = json!({"_id": name, "type": kind, "name": name});
                json!({"entity": entity, "permissions": [role_word(scope.role)]})
            })
            .collect();
        view["fineGrained"] = json!({"global": [], "scoped": scoped});
    }
    view
}

/// `GET /api/whoami-v2`.
pub(super) fn whoami(gateway: &Arc<Gateway>, call: &Call) -> Answer {
    let of = |error| Failure::of(error, &call.caller);
    let by = call.caller.user().map_err(|_| Failure::bad_token())?;
    let token = gateway.hub.token_of(&call.caller).map_err(of)?;
    let user = gateway.hub.user_of_id(by.user).ok_or_else(Failure::bad_token)?;
    let orgs: Vec<Value> = gateway.hub.memberships(user.id).iter().map(org_view).collect();
    let mut auth = json!({"type": "access_token", "accessToken": token_view(gateway, &token)});
    if let Some(end) = token.expires_ms {
        auth["expiresAt"] = json!(date_of(end));
    }
    reply::json(&json!({
        "type": "user",
        "id": user.id.to_string(),
        "name": user.name.as_str(),
        "fullname": user.fullname,
        "email": user.email,
        "emailVerified": user.email.is_some(),
        "canPay": false,
        "periodEnd": null,
        "isPro": false,
        "avatarUrl": "",
        "orgs": orgs,
        "auth": auth,
    }))
}

fn person(user: &User) -> Value {
    json!({
        "_id": user.id.to_string(),
        "user": user.name.as_str(),
        "fullname": user.fullname,
        "avatarUrl": "",
        "type": "user",
        "isPro": false,
    })
}

/// `GET /api/users/{name}/…`.
pub(super) async fn user(gateway: &Arc<Gateway>, call: Call, name: &str, rest: &[&str]) -> Answer {
    if call.method != Method::GET && call.method != Method::HEAD {
        return Err(Failure::method("GET, HEAD"));
    }
    let of = |error| Failure::of(error, &call.caller);
    let user = gateway.hub.user_of_name(&decode(name)?).map_err(of)?;
    match rest {
        ["overview"] => {
            let (models, datasets, spaces) =
                gateway.hub.count_repos(&call.caller, user.name.as_str());
            let likes = gateway.hub.likes_of(&call.caller, user.id).len();
            let mut view = person(&user);
            let orgs: Vec<Value> = gateway.hub.memberships(user.id).iter().map(org_view).collect();
            let counts = json!({
                "isFollowing": false,
                "numModels": models,
                "numDatasets": datasets,
                "numSpaces": spaces,
                "numDiscussions": 0,
                "numPapers": 0,
                "numUpvotes": 0,
                "numLikes": likes,
                "numFollowers": 0,
                "numFollowing": 0,
                "orgs": orgs,
                "createdAt": date_of(user.created_ms),
            });
            merge(&mut view, counts);
            reply::json(&view)
        }
        ["likes"] => {
            let likes = gateway.hub.likes_of(&call.caller, user.id);
            let likes: Vec<Value> = likes
                .iter()
                .map(|(repo, time)| {
                    let kind = repo.kind().singular();
                    let repo = json!({"name": repo.name().to_string(), "type": kind});
                    json!({"createdAt": date_of(*time), "repo": repo})
                })
                .collect();
            reply::json(&likes)
        }
        ["followers" | "following"] => reply::json(&json!([])),
        _ => Err(Failure::no_route()),
    }
}

fn merge(view: &mut Value, more: Value) {
    if let (Some(view), Value::Object(more)) = (view.as_object_mut(), more) {
        view.extend(more);
    }
}

/// `GET /api/organizations/{name}/…`.
pub(super) fn organization(
    gateway: &Arc<Gateway>,
    call: Call,
    name: &str,
    rest: &[&str],
) -> Answer {
    let of = |error| Failure::of(error, &call.caller);
    let org = gateway.hub.org_of_name(&decode(name)?).map_err(of)?;
    match rest {
        ["overview"] => {
            let (models, datasets, spaces) =
                gateway.hub.count_repos(&call.caller, org.name.as_str());
            reply::json(&json!({
                "_id": org.id.to_string(),
                "name": org.name.as_str(),
                "fullname": org.fullname,
                "avatarUrl": "",
                "type": "org",
                "isVerified": false,
                "isFollowing": false,
                "numUsers": org.members.len(),
                "numModels": models,
                "numDatasets": datasets,
                "numSpaces": spaces,
                "numFollowers": 0,
                "plan": null,
            }))
        }
        ["members"] => {
            let members = gateway.hub.members(&org);
            let views: Vec<Value> = members
                .iter()
                .map(|(user, role)| {
                    let mut view = person(user);
                    view["role"] = json!(role_word(*role));
                    view
                })
                .collect();
            reply::json(&views)
        }
        ["followers"] => reply::json(&json!([])),
        _ => Err(Failure::no_route()),
    }
}

/// `POST` and `DELETE …/like`.
pub(super) async fn like(at: &Context<'_>, call: &Call) -> Answer {
    let like = match call.method {
        Method::POST => true,
        Method::DELETE => false,
        _ => return Err(Failure::method("POST, DELETE")),
    };
    let changed = at.hub().set_like(&call.caller, at.repo(), like).await;
    changed.map_err(|error| Failure::of(error, &call.caller))?;
    Ok(reply::empty())
}

/// `GET …/likers`.
pub(super) fn likers(at: &Context<'_>, _: &Call) -> Answer {
    let likers: Vec<Value> = at.hub().likers(at.repo()).iter().map(|user| person(user)).collect();
    reply::json(&likers)
}
