//! The program on a terminal: help, errors, exit codes, start and stop.

mod support;

use anyhow::{Result, ensure};
use serde_json::json;
use support::server::{Server, ballast};

/// What a command printed, and how it ended.
fn run(arguments: &[&str]) -> Result<(bool, String, String)> {
    let output = ballast(arguments).output()?;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ok((output.status.success(), text(output.stdout), text(output.stderr)))
}

#[test]
fn help_names_every_command_and_what_it_is_for() -> Result<()> {
    let (ok, help, _) = run(&["--help"])?;
    ensure!(ok);
    for command in [
        "serve",
        "check-config",
        "user",
        "org",
        "token",
        "repo",
        "quota",
        "policy",
        "audit",
        "verify",
        "scrub",
        "gc",
        "backup",
        "restore",
        "index",
        "mirror",
        "bundle",
        "node",
        "key",
        "export-metadata",
    ] {
        ensure!(help.contains(command), "no `{command}` in:\n{help}");
        let (ok, own, _) = run(&[command, "--help"])?;
        ensure!(ok && own.contains("Usage: ballast"), "{own}");
    }
    Ok(())
}

#[test]
fn a_bad_configuration_is_named() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("ballast.toml");
    std::fs::write(&file, "listen = \"127.0.0.1:8080\"\nmirror = true\n")?;
    let file = file.to_string_lossy();
    let (ok, _, error) = run(&["check-config", "--config", &file])?;
    ensure!(!ok && error.contains("mirror") && error.contains("line 2"), "{error}");
    let (ok, _, error) = run(&["serve", "--config", &file])?;
    ensure!(!ok && error.contains("mirror"), "{error}");
    let (ok, printed, _) = run(&["check-config", "--json", "--config", &file])?;
    ensure!(!ok && serde_json::from_str::<serde_json::Value>(&printed)?["ok"] == json!(false));
    Ok(())
}

#[test]
fn a_second_process_on_the_same_folder_is_refused() -> Result<()> {
    let server = Server::start()?;
    let data = server.data();
    let data = data.to_string_lossy();
    let (ok, _, error) = run(&["serve", "--listen", "127.0.0.1:0", "--data", &data])?;
    ensure!(!ok && error.contains(data.as_ref()), "{error}");
    ensure!(server.get("/health").is_ok(), "the first one goes on");
    Ok(())
}

#[test]
fn a_fresh_hub_stops_cleanly_and_starts_again() -> Result<()> {
    let mut server = Server::start()?;
    ensure!(server.get("/api/whoami-v2")?["name"] == json!("admin"));
    server.stop()?;
    server.restart()?;
    ensure!(server.get("/api/whoami-v2")?["name"] == json!("admin"), "the token still works");
    Ok(())
}

#[test]
fn administration_works_from_afar_and_says_what_is_missing() -> Result<()> {
    let server = Server::start()?;
    server.admin(&["user", "create", "ada", "--fullname", "Ada L."])?;
    let users = server.admin(&["user", "list"])?;
    ensure!(users.as_array().is_some_and(|users| users.iter().any(|u| u["fullname"] == "Ada L.")));
    let made = server.admin(&["token", "create", "--user", "ada", "--role", "read"])?;
    let token = made["token"].as_str().unwrap_or_default().to_owned();
    ensure!(token.starts_with("hf_") && token.len() >= 37, "{made}");
    let whoami = || server.request("GET", "/api/whoami-v2", &token, &[], &[]);
    ensure!(whoami()?.json()?["name"] == json!("ada"));
    let tokens = server.admin(&["token", "list", "--user", "ada"])?;
    let id = tokens[0]["id"].as_str().unwrap_or_default().to_owned();
    ensure!(!tokens.to_string().contains(&token), "a listing must not show secrets");
    server.admin(&["token", "revoke", &id])?;
    ensure!(whoami()?.status == 401, "a revoked token still works");

    server.admin(&["repo", "create", "ada/net", "--visibility", "private"])?;
    server.admin(&["repo", "settings", "ada/net", "--gated", "auto", "--description", "a net"])?;
    server.admin(&["repo", "move", "ada/net", "ada/grid"])?;
    let repos = server.admin(&["repo", "list", "--author", "ada"])?;
    ensure!(repos[0]["id"] == json!("ada/grid") && repos[0]["gated"] == json!("auto"), "{repos}");
    server.admin(&["repo", "delete", "ada/grid"])?;
    ensure!(server.admin(&["repo", "list"])? == json!([]));

    let (ok, _, error) = run(&["user", "list", "--endpoint", &server.endpoint])?;
    ensure!(!ok && error.contains("hint:"), "{error}");
    let (ok, _, error) = run(&["user", "list", "--endpoint", "http://127.0.0.1:9"])?;
    ensure!(!ok && error.contains("cannot reach"), "{error}");
    Ok(())
}
