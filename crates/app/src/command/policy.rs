//! `policy check`: the hub judges; this shows what it says of each repo, and why.

use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use super::repo::RepoArg;
use super::text;
use crate::args::PolicyCommand;
use crate::client::Client;
use crate::output::Output;

const PATH: &str = "/api/ballast/v1/policy/check";

/// Runs the check; success only if nothing is refused.
pub(crate) fn policy(command: PolicyCommand, output: &mut Output) -> Result<ExitCode> {
    let PolicyCommand::Check { repos, all, stage, remote } = command;
    let bodies: Vec<Value> = match (repos.as_slice(), all) {
        ([], true) => vec![json!({"stage": stage.as_str()})],
        ([], false) => bail!("name a repo, or --all"),
        (repos, _) => repos.iter().map(|repo| body(repo, stage.as_str())).collect::<Result<_>>()?,
    };
    let client = Client::new(&remote);
    let (mut checked, mut refused) = (Vec::new(), 0);
    for body in &bodies {
        let mut summary = None;
        client.lines(PATH, body, |line| {
            match line["type"].as_str() {
                Some("repo") => {
                    if !remote.json {
                        show(&line, output)?;
                    }
                    checked.push(line);
                }
                Some("summary") => summary = Some(line),
                Some("error") => bail!("the check stopped: {}", text(&line, "message")),
                _ => {}
            }
            Ok(())
        })?;
        let summary = summary.context("the hub stopped before the check was done; run it again")?;
        refused += summary["refused"].as_u64().unwrap_or(0);
    }
    if remote.json {
        output.json(&json!({"stage": stage.as_str(), "refused": refused, "repos": checked}))?;
    } else {
        output.line(format!("{} repos, {refused} refused", checked.len()))?;
    }
    Ok(if refused == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn body(repo: &str, stage: &str) -> Result<Value> {
    let (name, revision) = match repo.split_once('@') {
        Some((name, revision)) => (name, Some(revision)),
        None => (repo, None),
    };
    let repo = RepoArg::parse(name)?;
    Ok(json!({"type": repo.kind, "name": repo.name, "revision": revision, "stage": stage}))
}

fn show(repo: &Value, output: &mut Output) -> Result<()> {
    let rules: Vec<&str> =
        repo["allowedBy"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let rules: Vec<String> = rules
        .into_iter()
        .map(|rule| if rule.is_empty() { "default".to_owned() } else { format!("`{rule}`") })
        .collect();
    let by = if rules.is_empty() { String::new() } else { format!(" by {}", rules.join(", ")) };
    output.line(match text(repo, "verdict").as_str() {
        "allowed" => format!(
            "allowed: {}@{}, {} files{by}",
            text(repo, "repo"),
            text(repo, "revision"),
            repo["files"],
        ),
        _ => format!(
            "refused: {}@{}, {} of {} files",
            text(repo, "repo"),
            text(repo, "revision"),
            repo["filesRefused"],
            repo["files"],
        ),
    })?;
    for signed in repo["signatures"].as_array().into_iter().flatten() {
        let differ = signed["differ"].as_array().map_or(0, Vec::len);
        let differ = if differ == 0 { String::new() } else { format!(", {differ} differ") };
        let (by, files) = (text(signed, "by"), &signed["files"]);
        output.line(format!("  signed by `{by}`: {files} files{differ}"))?;
    }
    for (path, reason) in repo["badSignatures"].as_object().into_iter().flatten() {
        output.line(format!("  `{path}` does not count: {}", reason.as_str().unwrap_or("")))?;
    }
    let files = repo["told"].as_array().into_iter().flatten();
    for file in files {
        let path = text(file, "path");
        let status = text(&file["securityFileStatus"], "status");
        match file["rule"].as_str() {
            Some(rule) => output.line(format!("  `{rule}`: {}", text(file, "reason")))?,
            None => output.line(format!("  `{path}` is {status}: {}", text(file, "found")))?,
        }
    }
    Ok(())
}
