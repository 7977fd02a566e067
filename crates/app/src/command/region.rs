//! `remote`, `replicate` and `region`: what goes to other regions, what comes, and where homes are.

use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use super::account::list;
use super::text;
use crate::args::{RegionCommand, RemoteArgs, RemoteCommand, ReplicateArgs, ReplicateCommand};
use crate::client::Client;
use crate::output::Output;

const ROUTE: &str = "/api/ballast/v1/regions";

/// Asks; each line, and the summary.
fn ask(remote: &RemoteArgs, body: &Value) -> Result<(Vec<Value>, Value)> {
    let (mut lines, mut summary) = (Vec::new(), None);
    Client::new(remote).lines(ROUTE, body, |line| {
        match line["type"].as_str() {
            Some("summary") => summary = Some(line),
            Some("error") => bail!("{}", text(&line, "message")),
            _ => lines.push(line),
        }
        Ok(())
    })?;
    Ok((lines, summary.context("the hub stopped before it was done; run it again")?))
}

/// Asks for something that is done or not.
fn tell(
    remote: &RemoteArgs,
    body: &Value,
    output: &mut Output,
    what: impl FnOnce(&Value) -> String,
) -> Result<ExitCode> {
    let (_, summary) = ask(remote, body)?;
    if remote.json {
        output.json(&summary)?;
    } else {
        output.note(what(&summary));
    }
    Ok(ExitCode::SUCCESS)
}

/// `ballast remote …`.
pub(crate) fn remote(command: &RemoteCommand, output: &mut Output) -> Result<ExitCode> {
    match command {
        RemoteCommand::Add { name, join_token, remote } => {
            let body = json!({"verb": "addRemote", "name": name, "token": join_token});
            tell(remote, &body, output, |_| format!("this hub follows the region `{name}`"))
        }
        RemoteCommand::Remove { name, remote } => {
            let body = json!({"verb": "removeRemote", "name": name});
            tell(remote, &body, output, |_| format!("`{name}` is followed no more"))
        }
    }
}

/// `ballast replicate …`.
pub(crate) fn replicate(command: &ReplicateCommand, output: &mut Output) -> Result<ExitCode> {
    match command {
        ReplicateCommand::Create(args) => create(args, output),
        ReplicateCommand::Status { remote } => status(remote, output),
        ReplicateCommand::Pause { name, remote } => {
            let body = json!({"verb": "pause", "name": name, "paused": true});
            tell(remote, &body, output, |_| format!("`{name}` rests"))
        }
        ReplicateCommand::Resume { name, remote } => {
            let body = json!({"verb": "pause", "name": name, "paused": false});
            tell(remote, &body, output, |_| format!("`{name}` goes on"))
        }
        ReplicateCommand::Remove { name, remote } => {
            let body = json!({"verb": "remove", "name": name});
            tell(remote, &body, output, |_| format!("`{name}` is over"))
        }
        ReplicateCommand::Verify { name, remote } => verify(name, remote, output),
    }
}

fn create(args: &ReplicateArgs, output: &mut Output) -> Result<ExitCode> {
    let ReplicateArgs { name, patterns, to, limit, window, residency, remote } = args;
    let body = json!({
        "verb": "create", "name": name, "patterns": patterns, "to": to, "limit": limit,
        "window": window, "residency": residency,
    });
    tell(remote, &body, output, |_| {
        format!("what matches goes to `{to}` when that region follows this one")
    })
}

fn status(remote: &RemoteArgs, output: &mut Output) -> Result<ExitCode> {
    let (lines, _) = ask(remote, &json!({"verb": "status"}))?;
    let of = |kind: &str| -> Vec<Value> {
        lines.iter().filter(|line| line["type"] == kind).cloned().collect()
    };
    if remote.json {
        output.json(&json!({
            "replications": of("replication"), "sent": of("sent"),
            "remotes": of("remote"), "received": of("received"),
        }))?;
        return Ok(ExitCode::SUCCESS);
    }
    let progress = [
        "region",
        "repo",
        "lagEntries",
        "lagBytes",
        "lagSeconds",
        "etaSeconds",
        "fetched",
        "saved",
    ];
    let received = [&progress[..], &["problem"]].concat();
    for (title, kind, columns) in [
        ("what goes to other regions", "replication", &["name", "to", "match", "paused"][..]),
        ("how far they are", "sent", &progress[..]),
        ("other regions", "remote", &["name", "heardSeconds", "findings", "problem"][..]),
        ("what comes from them", "received", &received[..]),
    ] {
        let rows = of(kind);
        if !rows.is_empty() {
            output.note(format!("{title}:"));
            list(output, false, rows, columns)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn verify(name: &str, remote: &RemoteArgs, output: &mut Output) -> Result<ExitCode> {
    let (lines, summary) = ask(remote, &json!({"verb": "verify", "remote": name}))?;
    let findings = summary["findings"].as_u64().unwrap_or(0);
    if remote.json {
        output.json(&json!({"repos": lines, "findings": findings}))?;
    } else {
        for line in &lines {
            for fault in line["faults"].as_array().into_iter().flatten() {
                output.line(format!("{}: {}", text(line, "repo"), fault.as_str().unwrap_or("")))?;
            }
        }
        let repos = &summary["repos"];
        output.note(format!("{repos} repos compared with `{name}`, {findings} faults"));
    }
    Ok(if findings == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// `ballast region …`.
pub(crate) fn region(command: &RegionCommand, output: &mut Output) -> Result<ExitCode> {
    match command {
        RegionCommand::Move { repo, to, address, remote } => {
            let asked = asked_repo(repo);
            let body = json!({"verb": "move", "repo": asked, "to": to, "address": address});
            tell(remote, &body, output, |summary| {
                format!("`{repo}` goes to `{to}`, in term {}", summary["term"])
            })
        }
        RegionCommand::Promote { repo, remote } => {
            let body = json!({"verb": "promote", "repo": asked_repo(repo)});
            tell(remote, &body, output, |summary| {
                let (term, behind) = (&summary["term"], &summary["behind"]);
                format!(
                    "this region is the home of `{repo}`, in term {term}, behind entry {behind}"
                )
            })
        }
    }
}

fn asked_repo(repo: &str) -> Value {
    let kinds = [("datasets/", "dataset"), ("spaces/", "space")];
    let found = kinds.iter().find_map(|(prefix, kind)| Some((*kind, repo.strip_prefix(prefix)?)));
    let (kind, name) = found.unwrap_or(("model", repo));
    json!({"kind": kind, "name": name})
}
