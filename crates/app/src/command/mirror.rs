//! `mirror`: the hub brings repos from its upstream; this says which, and shows how far it is.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

use super::text;
use crate::args::{ChosenJobsArgs, ChosenSetArgs, MirrorAddArgs, MirrorCommand, RemoteArgs};
use crate::client::Client;
use crate::output::Output;

const ROUTE: &str = "/api/ballast/v1/mirror";

/// One of the commands.
pub(crate) fn mirror(command: &MirrorCommand, output: &mut Output) -> Result<ExitCode> {
    match command {
        MirrorCommand::Add(args) => add(args, output),
        MirrorCommand::Run(args) => run(args, output),
        MirrorCommand::Status(args) => status(args, output),
        MirrorCommand::List(args) => list(args, output),
        MirrorCommand::Remove(args) => remove(args, output),
    }
}

/// Asks, hears each line, and gives back the summary.
fn ask(
    remote: &RemoteArgs,
    body: &Value,
    mut hear: impl FnMut(Value) -> Result<()>,
) -> Result<Value> {
    let mut summary = None;
    Client::new(remote).lines(ROUTE, body, |line| {
        match line["type"].as_str() {
            Some("summary") => summary = Some(line),
            Some("error") => bail!("{}", text(&line, "message")),
            _ => hear(line)?,
        }
        Ok(())
    })?;
    summary.context("the hub stopped before it was done; run it again")
}

/// All lines of one type.
fn gather(remote: &RemoteArgs, body: &Value, kind: &str) -> Result<Vec<Value>> {
    let mut lines = Vec::new();
    ask(remote, body, |line| {
        if line["type"] == kind {
            lines.push(line);
        }
        Ok(())
    })?;
    Ok(lines)
}

fn add(args: &MirrorAddArgs, output: &mut Output) -> Result<ExitCode> {
    let mut addresses = args.repos.clone();
    if let Some(file) = &args.from {
        let read = std::fs::read_to_string(file);
        let named = read.with_context(|| format!("reading `{}`", file.display()))?;
        let lines = named.lines().map(|line| line.split('#').next().unwrap_or("").trim());
        addresses.extend(lines.filter(|line| !line.is_empty()).map(ToOwned::to_owned));
    }
    ensure!(!addresses.is_empty(), "nothing is named\nhint: hf://namespace/name@revision");
    let every = args.every.map_or(0, |every| every.as_secs().max(1));
    let wish = |address: &String| {
        json!({
            "address": address, "include": args.include, "exclude": args.exclude,
            "set": args.set, "everySeconds": every,
        })
    };
    let wishes: Vec<Value> = addresses.iter().map(wish).collect();
    let plans = gather(&args.remote, &json!({"verb": "plan", "wishes": wishes}), "plan")?;
    if !args.remote.json {
        show_plans(&plans, output)?;
    }
    let jobs = if args.dry_run {
        Vec::new()
    } else {
        gather(&args.remote, &json!({"verb": "add", "wishes": wishes}), "job")?
    };
    if args.remote.json {
        output.json(&json!({"plans": plans, "jobs": jobs}))?;
    } else {
        for job in &jobs {
            output.line(format!("added {} {}", text(job, "id"), text(job, "address")))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn show_plans(plans: &[Value], output: &mut Output) -> Result<()> {
    let number = |plan: &Value, key: &str| plan[key].as_u64().unwrap_or(0);
    let row = |plan: &Value| {
        let licence = text(plan, "licence");
        vec![
            text(plan, "repo"),
            text(plan, "commit").chars().take(12).collect(),
            if licence.is_empty() { "none".to_owned() } else { licence },
            if plan["gated"] == json!(true) { "yes" } else { "no" }.to_owned(),
            number(plan, "files").to_string(),
            size(number(plan, "bytes")),
            size(number(plan, "missingBytes")),
        ]
    };
    let rows: Vec<Vec<String>> = plans.iter().map(row).collect();
    output.table(&["REPO", "COMMIT", "LICENCE", "GATED", "FILES", "SIZE", "TO FETCH"], &rows)?;
    let all: u64 = plans.iter().map(|plan| number(plan, "missingBytes")).sum();
    output.line(format!("{} to fetch in all", size(all)))
}

fn chosen(args: &ChosenJobsArgs, verb: &str) -> Result<Value> {
    ensure!(
        args.all || !args.jobs.is_empty() || args.set.is_some(),
        "no job is named\nhint: ids as `mirror list` prints them, --set NAME, or --all"
    );
    Ok(json!({"verb": verb, "jobs": args.jobs, "set": args.set}))
}

fn run(args: &ChosenJobsArgs, output: &mut Output) -> Result<ExitCode> {
    let body = chosen(args, "run")?;
    let mut told = Vec::new();
    let summary = ask(&args.remote, &body, |line| {
        if args.remote.json {
            if line["type"] != "progress" {
                told.push(line);
            }
            return Ok(());
        }
        show_event(&line, output)
    })?;
    let is_complete = summary["complete"] == json!(true);
    if args.remote.json {
        output.json(&json!({"summary": summary, "events": told}))?;
    } else {
        let fetched = size(summary["fetchedBytes"].as_u64().unwrap_or(0));
        let how = if is_complete { "all is here" } else { "not all is here" };
        output.line(format!("{how}; {fetched} fetched"))?;
    }
    Ok(if is_complete { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn show_event(line: &Value, output: &mut Output) -> Result<()> {
    match line["type"].as_str() {
        Some("plan") => show_plans(std::slice::from_ref(line), output),
        Some("file") => {
            let bytes = size(line["bytes"].as_u64().unwrap_or(0));
            output.line(format!("{}/{} ({bytes})", text(line, "repo"), text(line, "path")))
        }
        Some("repo") => output.line(format!("{}: complete", text(line, "repo"))),
        Some("refused") => {
            let (repo, path) = (text(line, "repo"), text(line, "path"));
            output.line(format!("left out: {repo}/{path}: {}", text(line, "reason")))
        }
        Some("failed") => {
            output.line(format!("failed: {}: {}", text(line, "what"), text(line, "reason")))
        }
        Some("elsewhere") => output.line(format!("{}: another run brings it", text(line, "job"))),
        Some("stopped") => output.line(format!("{}: stopped", text(line, "job"))),
        Some("progress") => {
            output.note(progress(line));
            Ok(())
        }
        _ => Ok(()),
    }
}

/// How far a run is, on one line.
fn progress(line: &Value) -> String {
    let number = |key: &str| line[key].as_u64().unwrap_or(0);
    let (done, all) = (number("doneBytes"), number("bytes"));
    let percent = done.saturating_mul(100) / all.max(1);
    let mut told = format!(
        "{} of {} ({percent} %), {}/s",
        size(done),
        size(all),
        size(number("bytesPerSecond"))
    );
    if let Some(eta) = line["etaSeconds"].as_u64() {
        let eta = humantime::format_duration(Duration::from_secs(eta));
        told.push_str(&format!(", about {eta} left"));
    }
    for file in line["coming"].as_array().into_iter().flatten() {
        let part = |key: &str| file[key].as_u64().unwrap_or(0);
        let percent = part("bytes").saturating_mul(100) / part("size").max(1);
        told.push_str(&format!("\n  {} {percent} %", text(file, "file")));
    }
    told
}

fn jobs_of(args: &ChosenSetArgs) -> Result<Vec<Value>> {
    let jobs = gather(&args.remote, &json!({"verb": "list"}), "job")?;
    let of_set = |job: &Value| args.set.as_ref().is_none_or(|set| text(job, "set") == *set);
    Ok(jobs.into_iter().filter(of_set).collect())
}

fn status(args: &ChosenSetArgs, output: &mut Output) -> Result<ExitCode> {
    let jobs = jobs_of(args)?;
    if args.remote.json {
        output.json(&json!(jobs))?;
        return Ok(ExitCode::SUCCESS);
    }
    for job in &jobs {
        let last = &job["last"];
        let state = match (job["running"] == json!(true), last) {
            (true, _) => "running".to_owned(),
            (false, Value::Null) => "waiting for its first run".to_owned(),
            (false, last) if last["complete"] == json!(true) => "complete".to_owned(),
            (false, last) => format!("incomplete: {}", text(last, "message")),
        };
        output.line(format!("{} {}: {state}", text(job, "id"), text(job, "address")))?;
        if !job["progress"].is_null() {
            output.line(format!("  {}", progress(&job["progress"])))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn list(args: &ChosenSetArgs, output: &mut Output) -> Result<ExitCode> {
    let jobs = jobs_of(args)?;
    if args.remote.json {
        output.json(&json!(jobs))?;
        return Ok(ExitCode::SUCCESS);
    }
    let row = |job: &Value| {
        let every = match job["everySeconds"].as_u64().unwrap_or(0) {
            0 => "once".to_owned(),
            seconds => humantime::format_duration(Duration::from_secs(seconds)).to_string(),
        };
        vec![text(job, "id"), text(job, "address"), text(job, "set"), every]
    };
    let rows: Vec<Vec<String>> = jobs.iter().map(row).collect();
    output.table(&["ID", "WHAT", "SET", "EVERY"], &rows)?;
    Ok(ExitCode::SUCCESS)
}

fn remove(args: &ChosenJobsArgs, output: &mut Output) -> Result<ExitCode> {
    let removed = gather(&args.remote, &chosen(args, "remove")?, "job")?;
    if args.remote.json {
        output.json(&json!(removed))?;
        return Ok(ExitCode::SUCCESS);
    }
    for job in &removed {
        output.line(format!("removed {} {}", text(job, "id"), text(job, "address")))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn size(bytes: u64) -> String {
    bytesize::ByteSize::b(bytes).display().si().to_string()
}
