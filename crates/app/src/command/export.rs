//! `export-metadata`: all that a person would need to know of the hub, a JSON object a line.

use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use super::text;
use crate::args::ExportArgs;
use crate::client::Client;
use crate::output::Output;

/// Prints everything; success only if all of it could be read.
pub(crate) fn export(args: &ExportArgs, output: &mut Output) -> Result<ExitCode> {
    let (mut summary, mut is_whole) = (None::<Value>, true);
    Client::new(&args.remote).lines("/api/ballast/v1/export", &json!({}), |line| {
        match line["type"].as_str() {
            Some("summary") => summary = Some(line),
            Some("error") => bail!("{}", text(&line, "message")),
            kind => {
                is_whole &= kind != Some("unreadable");
                output.line(line.to_string())?;
            }
        }
        Ok(())
    })?;
    let summary = summary.context("the hub stopped before it was done; run it again")?;
    output.note(format!("{} lines", summary["lines"]));
    Ok(if is_whole { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
