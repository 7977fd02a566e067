//! Xet tokens: given out by two routes of the hub dialect, asked for by all routes of this one.
//!
//! A token is signed, not stored. What it names (user, hub token, repo) is looked up again on each
//! use, so that taking a right away takes effect at once. It is good for a minute longer than it
//! says, because clients treat a refusal as final.

use ballast_format::hash::ObjectHash;
use ballast_format::log::TokenRole;
use ballast_node::Error;
use ballast_node::access::{Access, Caller, Repo};
use http::header::{CACHE_CONTROL, HeaderName, HeaderValue};
use http::{Method, StatusCode};
use serde_json::json;

use crate::auth;
use crate::call::{Call, decode};
use crate::error::{Answer, Failure};
use crate::links::{Holder, Purpose, XetScope, XetToken};
use crate::reply;

/// How long a token is good, and how much longer it is taken.
const LIFE_SECONDS: u64 = 15 * 60;
const GRACE_SECONDS: u64 = 60;

pub(crate) const X_XET_ACCESS_TOKEN: HeaderName = HeaderName::from_static("x-xet-access-token");
pub(crate) const X_XET_CAS_URL: HeaderName = HeaderName::from_static("x-xet-cas-url");
pub(crate) const X_XET_EXPIRATION: HeaderName = HeaderName::from_static("x-xet-token-expiration");

/// A token that has just been made.
pub(crate) struct Issued {
    /// The text that the client sends back.
    pub(crate) token: String,
    /// Unix seconds.
    pub(crate) expires: u64,
    /// Where to use it.
    pub(crate) cas_url: String,
}

/// `GET /api/{kinds}/{repo}/xet-{read,write}-token/{revision}`, for a repo that the caller may
/// read. `revision` is encoded as it came.
pub(crate) fn answer(call: &Call, repo: &Repo, revision: &str, write: bool) -> Answer {
    if call.method != Method::GET && call.method != Method::HEAD {
        return Err(Failure::method("GET"));
    }
    if !call.gateway.settings.xet {
        return Err(Failure::no_route());
    }
    let scope = if write {
        let revision = decode(revision)?;
        let proposes = call.query.flag("create_pr") || revision.starts_with("refs/pr/");
        writing_scope(call, repo, proposes)?
    } else {
        let reading = call.gateway.hub.may_read_files(&call.caller, repo);
        reading.map_err(|error| Failure::of(error, &call.caller))?;
        XetScope::Read
    };
    // What a mirror lacks can be asked for by those who say which commit has it.
    let commit = if repo.is_mirror() { revision.parse().ok() } else { None };
    let issued = issue(call, repo, scope, commit);
    let mut response = reply::json(&json!({
        "accessToken": issued.token,
        "exp": issued.expires,
        "casUrl": issued.cas_url,
    }))?;
    // The Python client reads these, the native one reads the body.
    let headers = response.headers_mut();
    headers.insert(X_XET_EXPIRATION, HeaderValue::from(issued.expires));
    headers.insert(X_XET_ACCESS_TOKEN, value(&issued.token)?);
    headers.insert(X_XET_CAS_URL, value(&issued.cas_url)?);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

fn value(text: &str) -> Result<HeaderValue, Failure> {
    HeaderValue::try_from(text).map_err(|_| Failure::invalid("the `Host` header is malformed"))
}

/// The right to send files for `repo`: for its branches, or for a pull request where that is what
/// the client wants and reading is all that it may. Who may not read a repo's files proposes none:
/// whether they are there would be told by what need not be sent.
pub(crate) fn writing_scope(call: &Call, repo: &Repo, proposes: bool) -> Result<XetScope, Failure> {
    match call.gateway.hub.repo_by_id(&call.caller, repo.id(), Access::Write) {
        Ok(_) => Ok(XetScope::Write),
        Err(Error::Denied { .. }) if proposes && may_propose(&call.caller) => {
            let reading = call.gateway.hub.may_read_files(&call.caller, repo);
            reading.map_err(|error| Failure::of(error, &call.caller))?;
            Ok(XetScope::Propose)
        }
        Err(error) => Err(Failure::of(error, &call.caller)),
    }
}

/// A token that may only read, or only here and there, may not send anything beyond that.
fn may_propose(caller: &Caller) -> bool {
    matches!(caller, Caller::User(user) if user.role == TokenRole::Write)
}

/// Makes a token for the caller.
pub(crate) fn issue(
    call: &Call,
    repo: &Repo,
    scope: XetScope,
    commit: Option<ObjectHash>,
) -> Issued {
    let now = call.gateway.now_seconds();
    let expires = now + LIFE_SECONDS;
    let holder = Holder::of(&call.caller);
    let claims = XetToken { scope, repo: repo.id(), holder, expires, commit };
    Issued {
        token: call.gateway.signer.seal(Purpose::Xet, now, &claims.encode()),
        expires,
        cas_url: format!("{}/xet", call.base()),
    }
}

/// What a route asks of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// Looking up chunks and xorbs.
    Query,
    /// Reading files.
    Files,
    /// Sending.
    Write,
}

/// The repo that the request's token is for; the call goes on in its holder's name.
pub(super) fn open(call: &mut Call, need: Need) -> Result<Repo, Failure> {
    open_at(call, need).map(|(repo, _)| repo)
}

/// The same, with the commit that the token is for.
pub(super) fn open_at(call: &mut Call, need: Need) -> Result<(Repo, Option<ObjectHash>), Failure> {
    let gateway = &call.gateway;
    let Some(secret) = auth::credentials(&call.headers)? else {
        return Err(Failure::new(StatusCode::UNAUTHORIZED, "this needs a Xet token"));
    };
    auth::check_attempts(gateway, call.peer)?;
    let now = gateway.now_seconds();
    let claims = gateway.signer.open(Purpose::Xet, now, secret.as_str());
    let Some(claims) = claims.and_then(|claims| XetToken::decode(&claims).ok()) else {
        gateway.hub.note_wrong_secret(call.peer, secret.as_str());
        return Err(Failure::bad_token());
    };
    if now > claims.expires + GRACE_SECONDS {
        return Err(Failure::new(StatusCode::UNAUTHORIZED, "the Xet token has expired"));
    }
    let caller = caller_of(call, claims.holder)?;
    call.goes_on_as(caller)?;
    let access = match (need, claims.scope) {
        (Need::Write, XetScope::Read) => {
            return Err(Failure::new(StatusCode::FORBIDDEN, "this token may only read"));
        }
        (Need::Write, XetScope::Write) => Access::Write,
        _ => Access::Read,
    };
    let hub = &call.gateway.hub;
    let repo = hub.repo_by_id(&call.caller, claims.repo, access);
    let repo = repo.map_err(|error| Failure::of(error, &call.caller))?;
    if need == Need::Files || claims.scope == XetScope::Propose {
        let reading = hub.may_read_files(&call.caller, &repo);
        reading.map_err(|error| Failure::of(error, &call.caller))?;
    }
    Ok((repo, claims.commit))
}

/// Who holds a token or a link, if the hub still knows them.
pub(crate) fn caller_of(call: &Call, holder: Holder) -> Result<Caller, Failure> {
    match holder.0 {
        None => Ok(Caller::Anonymous),
        Some((user, token)) => {
            let caller = call.gateway.hub.caller_of(user, token);
            caller.map_err(|error| Failure::of(error, &Caller::Anonymous))
        }
    }
}
