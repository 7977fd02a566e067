//! `repo`: the same routes of the hub API that other clients use.

use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use serde_json::{Map, Value, json};

use super::account::{done, list};
use crate::args::{RemoteArgs, RepoCommand};
use crate::client::Client;
use crate::output::Output;

/// A repo as a person names it: `ns/name`, `datasets/ns/name`, `spaces/ns/name`.
pub(super) struct RepoArg {
    /// `model`, `dataset` or `space`.
    pub(super) kind: &'static str,
    /// `ns/name`.
    pub(super) name: String,
}

impl RepoArg {
    /// Reads what the person wrote; the hub judges the name itself.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let (kind, name) = match text.split_once('/') {
            Some(("models", rest)) if rest.contains('/') => ("model", rest),
            Some(("datasets", rest)) if rest.contains('/') => ("dataset", rest),
            Some(("spaces", rest)) if rest.contains('/') => ("space", rest),
            _ => ("model", text),
        };
        if name.split('/').count() != 2 {
            bail!(
                "`{text}` is not a repo\nhint: `ns/name`, `datasets/ns/name` or `spaces/ns/name`"
            );
        }
        Ok(Self { kind, name: name.to_owned() })
    }

    fn split(&self) -> (&str, &str) {
        self.name.split_once('/').unwrap_or(("", &self.name))
    }

    fn path(&self) -> String {
        format!("/api/{}s/{}", self.kind, self.name)
    }
}

/// `ballast repo …`.
pub(crate) fn repo(command: RepoCommand, output: &mut Output) -> Result<ExitCode> {
    match command {
        RepoCommand::List { kind, author, remote } => {
            list_repos(kind, author.as_deref(), &remote, output)
        }
        RepoCommand::Create { repo, visibility, sdk, remote } => {
            let repo = RepoArg::parse(&repo)?;
            let (namespace, name) = repo.split();
            let mut body = json!({"type": repo.kind, "organization": namespace, "name": name});
            if let Some(visibility) = visibility {
                body["visibility"] = json!(visibility.as_str());
            }
            if let Some(sdk) = sdk {
                body["sdk"] = json!(sdk);
            }
            let answer = Client::new(&remote).call("POST", "/api/repos/create", Some(&body))?;
            let url = answer["url"].as_str().context("no `url` in the answer")?.to_owned();
            done(output, remote.json, &answer, &format!("created {url}"))
        }
        RepoCommand::Delete { repo, remote } => {
            let repo = RepoArg::parse(&repo)?;
            let (namespace, name) = repo.split();
            let body = json!({"type": repo.kind, "organization": namespace, "name": name});
            let answer = Client::new(&remote).call("DELETE", "/api/repos/delete", Some(&body))?;
            done(
                output,
                remote.json,
                &answer,
                &format!("deleted the {} `{}`", repo.kind, repo.name),
            )
        }
        RepoCommand::Move { from, to, remote } => {
            let (from, to) = (RepoArg::parse(&from)?, RepoArg::parse(&to)?);
            if from.kind != to.kind {
                bail!("a {} can't become a {}", from.kind, to.kind);
            }
            let body = json!({"fromRepo": from.name, "toRepo": to.name, "type": from.kind});
            let answer = Client::new(&remote).call("POST", "/api/repos/move", Some(&body))?;
            done(output, remote.json, &answer, &format!("moved `{}` to `{}`", from.name, to.name))
        }
        RepoCommand::Settings { repo, visibility, gated, description, remote } => {
            let repo = RepoArg::parse(&repo)?;
            let mut body = Map::new();
            if let Some(visibility) = visibility {
                body.insert("visibility".to_owned(), json!(visibility.as_str()));
            }
            if let Some(gated) = gated {
                let value = if gated == "none" { json!(false) } else { json!(gated) };
                body.insert("gated".to_owned(), value);
            }
            if let Some(description) = description {
                body.insert("description".to_owned(), json!(description));
            }
            if body.is_empty() {
                bail!("nothing to change\nhint: --visibility, --gated or --description");
            }
            let path = format!("{}/settings", repo.path());
            let answer = Client::new(&remote).call("PUT", &path, Some(&Value::Object(body)))?;
            done(
                output,
                remote.json,
                &answer,
                &format!("changed the {} `{}`", repo.kind, repo.name),
            )
        }
    }
}

fn list_repos(
    kind: Option<String>,
    author: Option<&str>,
    remote: &RemoteArgs,
    output: &mut Output,
) -> Result<ExitCode> {
    let kinds = match kind {
        Some(kind) => vec![kind],
        None => ["model", "dataset", "space"].map(str::to_owned).to_vec(),
    };
    let client = Client::new(remote);
    let mut repos = Vec::new();
    for kind in kinds {
        for mut repo in client.list(&listing(&kind, author))? {
            repo["kind"] = json!(kind);
            repos.push(repo);
        }
    }
    let columns = ["kind", "id", "private", "gated", "downloads", "likes", "lastModified"];
    list(output, remote.json, repos, &columns)
}

/// The address of a listing. What is shown of a repo is told without asking for all of it, which
/// would cost the hub a walk through the files of each.
fn listing(kind: &str, author: Option<&str>) -> String {
    match author {
        Some(author) => format!("/api/{kind}s?author={author}"),
        None => format!("/api/{kind}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repo_is_named_with_its_kind_before_it() -> Result<()> {
        for (text, kind, name) in [
            ("me/gpt", "model", "me/gpt"),
            ("models/me/gpt", "model", "me/gpt"),
            ("datasets/me/words", "dataset", "me/words"),
            ("spaces/me/app", "space", "me/app"),
            ("datasets/words", "model", "datasets/words"),
        ] {
            let repo = RepoArg::parse(text)?;
            assert_eq!((repo.kind, repo.name.as_str()), (kind, name));
        }
        Ok(())
    }

    #[test]
    fn a_listing_asks_for_no_more_than_is_shown() {
        assert_eq!(listing("model", None), "/api/models");
        assert_eq!(listing("space", Some("me")), "/api/spaces?author=me");
    }

    #[test]
    fn what_is_not_a_repo_is_refused() {
        for text in ["", "gpt", "a/b/c", "datasets/a/b/c"] {
            assert!(RepoArg::parse(text).is_err(), "{text}");
        }
    }
}
