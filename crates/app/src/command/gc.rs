//! `gc`: the hub collects; this shows what it does or would do.

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::text;
use crate::args::GcArgs;
use crate::client::Client;
use crate::output::Output;

/// One step of a collection, or what one would do.
pub(crate) fn gc(args: &GcArgs, output: &mut Output) -> Result<()> {
    let body = json!({"dryRun": args.dry_run});
    let (mut copies, mut summary) = (Vec::new(), None);
    Client::new(&args.remote).lines("/api/ballast/v1/gc", &body, |line| {
        match line["type"].as_str() {
            Some("copy") if args.remote.json => copies.push(line),
            Some("copy") => output.line(describe(&line))?,
            Some("summary") => summary = Some(line),
            Some("error") => anyhow::bail!("{}", text(&line, "message")),
            _ => {}
        }
        Ok(())
    })?;
    let summary = summary.context("the hub stopped before it was done; run it again")?;
    if args.remote.json {
        return output.json(&json!({"summary": summary, "copies": copies}));
    }
    output.line(match summary["state"].as_str() {
        Some("planned") => format!(
            "{} copies, {} bytes would go; {} are for a later collection; {} are in use; {} xorbs, \
             of which little is, would be rewritten",
            summary["copies"],
            summary["bytes"],
            summary["later"],
            summary["reachable"],
            summary["thin"],
        ),
        Some("waiting") => format!(
            "epoch {} is condemned, and is deleted after {}",
            summary["epoch"],
            text(&summary, "until"),
        ),
        Some("done") => format!(
            "epoch {}: {} copies, {} bytes deleted; {} stay, as something refers to them again",
            summary["epoch"], summary["swept"], summary["bytes"], summary["kept"],
        ),
        _ => "nothing to collect".to_owned(),
    })
}

fn describe(copy: &Value) -> String {
    let days = copy["ageSeconds"].as_u64().unwrap_or(0) / 86_400;
    let (key, reason) = (text(copy, "key"), text(copy, "reason"));
    format!("{key} ({} bytes, {days} days old): {reason}", copy["bytes"])
}
