//! `scrub status`: what the hub read again lately, what is damaged, and which files that affects.

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::text;
use super::verify::describe;
use crate::args::ScrubCommand;
use crate::client::Client;
use crate::output::Output;

/// Shows how things are; success only if no file is affected, and no log.
pub(crate) fn scrub(command: &ScrubCommand, output: &mut Output) -> Result<ExitCode> {
    let ScrubCommand::Status { remote } = command;
    let client = Client::new(remote);
    let mut status = client.call("GET", "/api/ballast/v1/scrub", None)?;
    let damaged = status["damaged"].as_array().context("the hub did not say what is damaged")?;
    let logs = damaged.iter().filter(|damaged| !damaged["problem"].is_null()).count();
    let files = if damaged.is_empty() { Vec::new() } else { affected(&client)? };
    let is_sound = logs == 0 && files.is_empty();
    if remote.json {
        status["affected"] = json!(files);
        output.json(&status)?;
    } else {
        show(&status, output)?;
        for damaged in damaged_of(&status) {
            let healed =
                if damaged["healed"] == json!(true) { ", another copy is read" } else { "" };
            let problem = match text(damaged, "problem") {
                problem if problem.is_empty() => String::new(),
                problem => format!(": {problem}"),
            };
            output.line(format!("damaged: {}{healed}{problem}", text(damaged, "object")))?;
        }
        for file in &files {
            output.line(describe(file))?;
        }
    }
    Ok(if is_sound { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn damaged_of(status: &Value) -> impl Iterator<Item = &Value> {
    status["damaged"].as_array().into_iter().flatten()
}

fn show(status: &Value, output: &mut Output) -> Result<()> {
    output.line(match status["intervalSeconds"].as_u64() {
        None => "nothing is read again by itself: `scrub.interval` is empty".to_owned(),
        Some(seconds) => format!(
            "everything is read again every {}, at most {} bytes a second",
            humantime::format_duration(std::time::Duration::from_secs(seconds)),
            status["bytesPerSecond"],
        ),
    })?;
    output.line(match text(status, "oldest") {
        oldest if oldest.is_empty() => "nothing was read again yet".to_owned(),
        oldest => format!(
            "{} objects, {} bytes read again since {oldest}; {} of 1025 shares are due",
            status["objects"], status["bytes"], status["sharesDue"],
        ),
    })
}

/// The files that known damage affects.
fn affected(client: &Client) -> Result<Vec<Value>> {
    let mut files = Vec::new();
    client.lines("/api/ballast/v1/verify", &json!({"known": true}), |line| {
        match line["type"].as_str() {
            Some("finding") if !line["path"].is_null() => files.push(line),
            Some("error") => anyhow::bail!("the files can't be named: {}", text(&line, "message")),
            _ => {}
        }
        Ok(())
    })?;
    Ok(files)
}
