//! `audit`: who changed what, and whether anything of that was taken away or changed.

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use super::text;
use crate::args::AuditCommand;
use crate::client::Client;
use crate::output::Output;

const AUDIT: &str = "/api/ballast/v1/audit";
/// What each line of a listing has; the rest is told as it is.
const COMMON: &[&str] = &["type", "time", "log", "number", "by", "act"];

/// `ballast audit …`.
pub(crate) fn audit(command: AuditCommand, output: &mut Output) -> Result<ExitCode> {
    match command {
        AuditCommand::List { repo, remote } => {
            let mut is_whole = false;
            Client::new(&remote).lines(AUDIT, &json!({"repo": repo}), |line| {
                match line["type"].as_str() {
                    Some("entry") if remote.json => output.line(line.to_string())?,
                    Some("entry") => output.line(describe(&line))?,
                    Some("summary") => is_whole = true,
                    Some("error") => bail!("{}", text(&line, "message")),
                    _ => {}
                }
                Ok(())
            })?;
            anyhow::ensure!(is_whole, "the hub stopped before it was done; run it again");
            Ok(ExitCode::SUCCESS)
        }
        AuditCommand::Verify { heads, remote } => {
            let kept = heads.as_deref().map(read_heads).transpose()?.unwrap_or_else(|| json!([]));
            let (mut summary, mut heads, mut findings) = (None, Vec::new(), Vec::new());
            let path = format!("{AUDIT}/verify");
            Client::new(&remote).lines(&path, &json!({"heads": kept}), |line| {
                match line["type"].as_str() {
                    Some("head") => heads.push(line),
                    Some("finding") => findings.push(line),
                    Some("summary") => summary = Some(line),
                    Some("error") => bail!("{}", text(&line, "message")),
                    _ => {}
                }
                Ok(())
            })?;
            let summary: Value =
                summary.context("the hub stopped before it was done; run it again")?;
            if remote.json {
                output.json(&json!({"heads": heads, "findings": findings, "summary": summary}))?;
            } else {
                for finding in &findings {
                    output.line(format!(
                        "{}: {}",
                        text(finding, "object"),
                        text(finding, "problem")
                    ))?;
                }
                let (logs, found) = (&summary["logs"], &summary["findings"]);
                output.line(format!("{logs} logs are whole, {found} findings"))?;
            }
            let is_sound = summary["findings"] == json!(0);
            Ok(if is_sound { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
    }
}

/// The heads in what `audit verify --json` printed.
fn read_heads(file: &Path) -> Result<Value> {
    let text = fs::read_to_string(file).with_context(|| format!("reading `{}`", file.display()))?;
    let printed: Value = serde_json::from_str(&text).with_context(|| {
        format!("`{}` is not what `audit verify --json` prints", file.display())
    })?;
    let heads = printed["heads"].as_array();
    let heads = heads.with_context(|| format!("there are no heads in `{}`", file.display()))?;
    let head =
        |head: &Value| json!({"log": head["log"], "number": head["number"], "hash": head["hash"]});
    Ok(heads.iter().map(head).collect())
}

/// An entry in one line: when, who, what, and about what.
fn describe(line: &Value) -> String {
    let by = line["by"].as_str().unwrap_or("-");
    let mut said = format!("{} {by} {}", text(line, "time"), text(line, "act"));
    for (name, value) in line.as_object().into_iter().flatten() {
        if !COMMON.contains(&name.as_str()) && !value.is_null() {
            said.push_str(&format!(" {name}={}", text(line, name)));
        }
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_fits_a_line() {
        let line = json!({
            "type": "entry", "time": "2026-11-25T10:00:00.000Z", "log": "log/accounts", "number": 4,
            "by": "admin", "act": "quota set", "owner": "ann", "bytes": 5, "repos": null,
        });
        let said = "2026-11-25T10:00:00.000Z admin quota set owner=ann bytes=5";
        assert_eq!(describe(&line), said);
    }
}
