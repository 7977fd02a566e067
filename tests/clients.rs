//! Unmodified clients against the built binary: the flows that people know.

mod support;

use anyhow::{Result, ensure};
use support::client::{Node, Python};
use support::server::Server;

#[test]
fn the_whole_flow_with_the_current_python_client() -> Result<()> {
    let server = Server::start()?;
    Python::with("hub-2.4")?.script(&server, "hub_flow.py", &["admin"])?;
    Ok(())
}

#[test]
fn the_whole_flow_with_xet_turned_off() -> Result<()> {
    let server = Server::start()?;
    let home = server.scratch("home")?;
    let mut python = Python::with("hub-2.4")?.command("python", &server, &server.token, &home);
    python.env("HF_HUB_DISABLE_XET", "1");
    python.arg(support::root().join("tests/clients/hub_flow.py")).arg("admin");
    support::client::finish(&mut python)?;
    Ok(())
}

#[test]
fn a_round_trip_with_each_python_client_with_and_without_xet() -> Result<()> {
    let server = Server::start()?;
    for set in ["hub-0.36", "hub-1.28", "hub-2.4"] {
        for disable_xet in ["0", "1"] {
            let home = tempfile::tempdir()?;
            let client = Python::with(set)?;
            let mut python = client.command("python", &server, &server.token, home.path());
            let repo = format!("admin/{set}-{disable_xet}");
            python.env("HF_HUB_DISABLE_XET", disable_xet);
            python.arg(support::root().join("tests/clients/round_trip.py")).arg(repo);
            let printed = support::client::finish(&mut python)?;
            ensure!(printed.contains(set.trim_start_matches("hub-")), "{printed}");
        }
    }
    Ok(())
}

#[test]
fn private_and_gated_repos_with_the_python_client() -> Result<()> {
    let server = Server::start()?;
    let owner = server.user("owner", "write")?;
    let member = server.user("member", "write")?;
    let stranger = server.user("stranger", "write")?;
    server.admin(&["org", "create", "lab", "--default-visibility", "private"])?;
    server.admin(&["org", "add", "lab", "owner", "--role", "admin"])?;
    server.admin(&["org", "add", "lab", "member", "--role", "read"])?;
    Python::with("hub-2.4")?.script(&server, "access.py", &[&owner, &member, &stranger])?;
    Ok(())
}

#[test]
fn the_command_line_client_uploads_lists_and_downloads() -> Result<()> {
    let server = Server::start()?;
    let client = Python::with("hub-2.4")?;
    let (home, folder) = (server.scratch("home")?, server.scratch("folder")?);
    std::fs::write(folder.join("README.md"), "---\nlicense: mit\n---\n# By hand\n")?;
    std::fs::write(folder.join("model.safetensors"), support::noise(4, 5_000_000))?;
    let hf = |arguments: &[&str]| {
        let mut command = client.command("hf", &server, &server.token, &home);
        support::client::finish(command.args(arguments).current_dir(&folder))
    };
    ensure!(hf(&["auth", "whoami"])?.contains("admin"));
    hf(&["upload", "admin/by-hand", "."])?;
    ensure!(hf(&["models", "ls", "--author", "admin", "--no-truncate"])?.contains("admin/by-hand"));
    ensure!(hf(&["models", "info", "admin/by-hand"])?.contains("by-hand"));
    let target = server.scratch("target")?;
    let target = target.to_string_lossy();
    hf(&["download", "admin/by-hand", "--local-dir", &target])?;
    let got = std::fs::read(format!("{target}/model.safetensors"))?;
    ensure!(got == support::noise(4, 5_000_000), "the file came back different");
    hf(&["repos", "tag", "create", "admin/by-hand", "v1"])?;
    hf(&["repos", "branch", "create", "admin/by-hand", "next"])?;
    hf(&["repos", "settings", "admin/by-hand", "--private"])?;
    hf(&["cache", "verify", "admin/by-hand", "--local-dir", &target])?;
    hf(&["repos", "delete", "admin/by-hand", "--yes"])
        .or_else(|_| hf(&["repos", "delete", "admin/by-hand"]))?;
    Ok(())
}

#[test]
fn a_real_model_in_transformers_for_python_and_javascript() -> Result<()> {
    let server = Server::start()?;
    let python = Python::with("transformers-5.23")?;
    let printed = python.script(&server, "real_model.py", &["admin/minilm"])?;
    let commit = printed.lines().last().unwrap_or_default();
    Node::install()?.script(&server, "pipeline.mjs", &["admin/minilm", commit])?;
    Ok(())
}

#[test]
fn the_javascript_hub_client_with_and_without_xet() -> Result<()> {
    let server = Server::start()?;
    let node = Node::install()?;
    for use_xet in ["0", "1"] {
        let name = format!("admin/javascript-{use_xet}");
        node.script_with(&server, "hub.mjs", &[&name], &[("USE_XET", use_xet)])?;
    }
    Ok(())
}
