//! `node`: who belongs to the hub.

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use serde_json::json;

use super::account::{done, list};
use super::{pull, text};
use crate::args::NodeCommand;
use crate::client::Client;
use crate::output::Output;

const NODES: &str = "/api/ballast/v1/nodes";

/// `ballast node …`.
pub(crate) fn node(command: NodeCommand, output: &mut Output) -> Result<ExitCode> {
    match command {
        NodeCommand::JoinToken { name, user, role, remote } => {
            let body = json!({"name": name, "role": role.as_str(), "user": user});
            let answer = Client::new(&remote).call("POST", NODES, Some(&body))?;
            if remote.json {
                output.json(&answer)?;
            } else {
                let (user, end) = (text(&answer, "user"), text(&answer, "expiresAt"));
                output.note(format!("good for one join as `{name}` until {end}"));
                output.note(format!("it will read what `{user}` may read"));
                output.line(answer["token"].as_str().context("no token in the answer")?)?;
            }
            Ok(ExitCode::SUCCESS)
        }
        NodeCommand::List { remote } => {
            let nodes = Client::new(&remote).list(NODES)?;
            let columns = ["name", "role", "user", "state", "joinedAt", "seenAt", "address"];
            list(output, remote.json, nodes, &columns)
        }
        NodeCommand::Warm { repos, pin, remote } => pull::warm(&repos, pin, &remote, output),
        NodeCommand::Pins { release, remote } => pull::pins(&release, &remote, output),
        NodeCommand::Revoke { name, remote } => {
            let path = format!("{NODES}/{name}");
            let answer = Client::new(&remote).call("DELETE", &path, None)?;
            done(output, remote.json, &answer, &format!("revoked the node `{name}`"))
        }
    }
}
