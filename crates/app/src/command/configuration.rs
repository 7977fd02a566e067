//! `check-config`: reads what `serve` would read and starts nothing.

use std::process::ExitCode;

use anyhow::Result;
use serde_json::json;

use crate::args::CheckConfigArgs;
use crate::config::Config;
use crate::output::Output;

/// Prints the settings in force, or what is wrong with them.
pub(crate) fn check_config(args: &CheckConfigArgs, output: &mut Output) -> Result<ExitCode> {
    let config = match Config::load(&args.config) {
        Ok(config) => config,
        Err(error) if args.json => {
            output.json(&json!({"ok": false, "error": format!("{error:#}")}))?;
            return Ok(ExitCode::FAILURE);
        }
        Err(error) => return Err(error),
    };
    if args.json {
        output.json(&json!({"ok": true, "config": config}))?;
    } else {
        output.note("the configuration is good; the settings in force:");
        output.line(config.to_toml()?.trim_end())?;
    }
    Ok(ExitCode::SUCCESS)
}
