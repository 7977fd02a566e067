//! `verify`: the hub reads and hashes; this shows what it finds while it goes on.

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::repo::RepoArg;
use super::text;
use crate::args::VerifyArgs;
use crate::client::Client;
use crate::output::Output;

/// Runs the check; success only if nothing is damaged.
pub(crate) fn verify(args: &VerifyArgs, output: &mut Output) -> Result<ExitCode> {
    let mut body = json!({});
    if let Some(repo) = &args.repo {
        let repo = RepoArg::parse(repo)?;
        body = json!({"type": repo.kind, "name": repo.name});
    }
    let mut findings = Vec::new();
    let mut summary = None;
    Client::new(&args.remote).lines("/api/ballast/v1/verify", &body, |line| {
        match line["type"].as_str() {
            Some("finding") => {
                if !args.remote.json {
                    output.line(describe(&line))?;
                }
                findings.push(line);
            }
            Some("summary") => summary = Some(line),
            Some("error") => anyhow::bail!("the check stopped: {}", text(&line, "message")),
            Some("progress") if !args.remote.json => {
                output.note(format!("{} objects read, {} bytes", line["objects"], line["bytes"]));
            }
            _ => {}
        }
        Ok(())
    })?;
    let summary = summary.context("the hub stopped before the check was done; run it again")?;
    let sound = summary["damaged"] == json!(0);
    if args.remote.json {
        output.json(&json!({"summary": summary, "findings": findings}))?;
    } else {
        output.line(format!(
            "{} objects, {} bytes read; {} damaged, {} files affected",
            summary["objects"], summary["bytes"], summary["damaged"], summary["filesAffected"],
        ))?;
    }
    Ok(if sound { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A finding as a line.
pub(super) fn describe(finding: &Value) -> String {
    let place = [text(finding, "repo"), text(finding, "revision"), text(finding, "path")]
        .into_iter()
        .filter(|part| !part.is_empty())
        .collect::<Vec<_>>()
        .join(" ");
    let place = if place.is_empty() { String::new() } else { format!("{place}: ") };
    format!("damaged: {place}{} ({})", text(finding, "problem"), text(finding, "object"))
}
