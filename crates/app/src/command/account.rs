//! `user`, `org` and `token`: who there is, and what they may do.

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::text;
use crate::args::{OrgCommand, TokenCommand, UserCommand};
use crate::client::Client;
use crate::command::repo::RepoArg;
use crate::output::Output;

const USERS: &str = "/api/ballast/v1/users";
const ORGS: &str = "/api/ballast/v1/orgs";
const TOKENS: &str = "/api/ballast/v1/tokens";

/// `ballast user …`.
pub(crate) fn user(command: UserCommand, output: &mut Output) -> Result<ExitCode> {
    match command {
        UserCommand::Create { name, fullname, email, admin, remote } => {
            let body = json!({"name": name, "fullname": fullname, "email": email, "admin": admin});
            let answer = Client::new(&remote).call("POST", USERS, Some(&body))?;
            done(output, remote.json, &answer, &format!("created the user `{name}`"))
        }
        UserCommand::List { remote } => {
            let users = Client::new(&remote).list(USERS)?;
            let columns = ["name", "fullname", "admin", "disabled", "createdAt"];
            list(output, remote.json, users, &columns)
        }
        UserCommand::Disable { name, undo, remote } => {
            let path = format!("{USERS}/{name}");
            let body = json!({"disabled": !undo});
            let answer = Client::new(&remote).call("PATCH", &path, Some(&body))?;
            let did = if undo { "enabled" } else { "disabled" };
            done(output, remote.json, &answer, &format!("{did} the user `{name}`"))
        }
    }
}

/// `ballast org …`.
pub(crate) fn org(command: OrgCommand, output: &mut Output) -> Result<ExitCode> {
    match command {
        OrgCommand::Create { name, fullname, default_visibility, remote } => {
            let visibility = default_visibility.as_str();
            let body = json!({"name": name, "fullname": fullname, "defaultVisibility": visibility});
            let answer = Client::new(&remote).call("POST", ORGS, Some(&body))?;
            done(output, remote.json, &answer, &format!("created the organisation `{name}`"))
        }
        OrgCommand::Add { org, user, role, remote } => {
            let path = format!("{ORGS}/{org}/members/{user}");
            let body = json!({"role": role.as_str()});
            let answer = Client::new(&remote).call("PUT", &path, Some(&body))?;
            let did = format!("`{user}` may {} in `{org}`", role.as_str());
            done(output, remote.json, &answer, &did)
        }
        OrgCommand::Remove { org, user, remote } => {
            let path = format!("{ORGS}/{org}/members/{user}");
            let answer = Client::new(&remote).call("DELETE", &path, None)?;
            done(output, remote.json, &answer, &format!("removed `{user}` from `{org}`"))
        }
    }
}

/// `ballast token …`.
pub(crate) fn token(command: TokenCommand, output: &mut Output) -> Result<ExitCode> {
    match command {
        TokenCommand::Create { user, role, name, repo, namespace, expires, remote } => {
            let entity = |kind: &str, name: &str| {
                let entity = json!({"type": kind, "name": name});
                json!({"entity": entity, "role": role.as_str()})
            };
            let repos = repo.iter().map(|repo| {
                let repo = RepoArg::parse(repo)?;
                Ok(entity(repo.kind, &repo.name))
            });
            let scopes: Result<Vec<Value>> =
                repos.chain(namespace.iter().map(|name| Ok(entity("namespace", name)))).collect();
            let expires = expires.map(|life| life.as_secs());
            let body = json!({
                "user": user,
                "name": name,
                "role": role.as_str(),
                "scopes": scopes?,
                "expiresInSeconds": expires,
            });
            let answer = Client::new(&remote).call("POST", TOKENS, Some(&body))?;
            if remote.json {
                output.json(&answer)?;
            } else {
                output.note("the token; it is not shown again:");
                output.line(answer["token"].as_str().context("no token in the answer")?)?;
            }
            Ok(ExitCode::SUCCESS)
        }
        TokenCommand::List { user, remote } => {
            let filter = user.map_or_else(String::new, |user| format!("?user={user}"));
            let mut tokens = Client::new(&remote).list(&format!("{TOKENS}{filter}"))?;
            if !remote.json {
                for token in &mut tokens {
                    token["scopes"] = json!(scopes(token));
                }
            }
            let columns = ["id", "user", "name", "role", "scopes", "createdAt", "expiresAt"];
            list(output, remote.json, tokens, &columns)
        }
        TokenCommand::Revoke { id, remote } => {
            let path = format!("{TOKENS}/{id}");
            let answer = Client::new(&remote).call("DELETE", &path, None)?;
            done(output, remote.json, &answer, &format!("revoked the token `{id}`"))
        }
    }
}

/// A token's scopes in one cell: `write:model:me/gpt, read:namespace:lab`.
fn scopes(token: &Value) -> String {
    let scopes = token["scopes"].as_array().map(Vec::as_slice).unwrap_or_default();
    let cell = |scope: &Value| {
        let entity = &scope["entity"];
        [text(scope, "role"), text(entity, "type"), text(entity, "name")].join(":")
    };
    scopes.iter().map(cell).collect::<Vec<_>>().join(", ")
}

/// Says what was done, or prints the hub's answer.
pub(super) fn done(
    output: &mut Output,
    as_json: bool,
    answer: &Value,
    text: &str,
) -> Result<ExitCode> {
    if as_json {
        output.json(answer)?;
    } else {
        output.line(text)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints items as a table of some of their fields, or as they are.
pub(super) fn list(
    output: &mut Output,
    as_json: bool,
    items: Vec<Value>,
    columns: &[&str],
) -> Result<ExitCode> {
    if as_json {
        output.json(&Value::Array(items))?;
        return Ok(ExitCode::SUCCESS);
    }
    let row = |item: &Value| columns.iter().map(|column| text(item, column)).collect();
    let rows: Vec<Vec<String>> = items.iter().map(row).collect();
    output.table(columns, &rows)?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tokens_scopes_fit_one_cell() {
        let scope = |kind: &str, name: &str, role: &str| {
            let entity = json!({"type": kind, "name": name});
            json!({"entity": entity, "role": role})
        };
        let token = json!({"scopes": [
            scope("model", "me/gpt", "write"), scope("namespace", "lab", "read"),
        ]});
        assert_eq!(scopes(&token), "write:model:me/gpt, read:namespace:lab");
        assert_eq!(scopes(&json!({"scopes": []})), "");
        assert_eq!(scopes(&json!({})), "");
    }
}
