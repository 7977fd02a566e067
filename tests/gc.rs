//! Garbage collection on the built binary, with time passing by.

mod support;

use std::fs;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use support::client::{Python, finish};
use support::noise;
use support::objects::Objects;
use support::server::Server;

/// Stored copies of xorbs.
fn xorbs(server: &Server) -> Result<usize> {
    let objects = server.objects()?;
    Ok(objects.keys().filter(|name| name.contains("/xorb/")).count())
}

/// Steps of `ballast gc` until nothing is left to do; copies that were deleted.
fn collect(server: &Server) -> Result<u64> {
    let mut swept = 0;
    for _ in 0..10 {
        let summary = server.admin(&["gc"])?["summary"].clone();
        if summary["state"] == json!("nothing") {
            return Ok(swept);
        }
        swept += summary["swept"].as_u64().context("a collection says what it deleted")?;
    }
    anyhow::bail!("the collection does not end")
}

#[test]
fn what_a_deleted_repo_held_goes_in_time_and_all_else_stays() -> Result<()> {
    // A bucket would refuse a client whose clock is two months ahead.
    let mut server = Server::on(&Objects::disk())?;
    let client = Python::with("hub-2.4")?;
    let (home, folder) = (server.scratch("home")?, server.scratch("folder")?);
    let hf = |server: &Server, arguments: &[&str]| {
        finish(client.command("hf", server, &server.token, &home).args(arguments))
    };
    for (seed, repo) in [(31, "admin/kept"), (32, "admin/gone")] {
        let file = folder.join("w.bin");
        fs::write(&file, noise(seed, 3_000_000))?;
        hf(&server, &["upload", repo, &file.to_string_lossy(), "w.bin"])?;
    }
    hf(&server, &["repos", "delete", "admin/gone", "--yes"])?;
    ensure!(collect(&server)? == 0, "clients may still build on what they sent");
    ensure!(xorbs(&server)? == 2);

    // Two months later, with no patience left.
    server.stop()?;
    server.pass_days(60);
    server.set("BALLAST_GC_WAIT", "0s");
    server.restart()?;
    let plan = server.admin(&["gc", "--dry-run"])?;
    ensure!(plan["summary"]["reachable"].as_u64() >= Some(3), "{plan}");
    ensure!(xorbs(&server)? == 2, "a dry run deletes nothing");
    let swept = collect(&server)?;
    ensure!(swept >= 3, "its xorb, its shard and its packs: {swept}");
    ensure!(xorbs(&server)? == 1);
    let gone = server.request("GET", "/admin/gone/resolve/main/w.bin", &server.token, &[], &[])?;
    ensure!(gone.status == 404);

    server.lose_index()?;
    let kept = server.request("GET", "/admin/kept/resolve/main/w.bin", &server.token, &[], &[])?;
    ensure!(kept.body == noise(31, 3_000_000), "what a living repo holds came back different");
    let verified = server.admin(&["verify"])?;
    ensure!(verified["summary"]["damaged"] == json!(0), "{verified}");
    Ok(())
}

#[test]
fn only_administrators_of_the_hub_collect() -> Result<()> {
    let server = Server::start()?;
    let writer = server.user("writer", "write")?;
    let body = br#"{"dryRun": true}"#;
    let json_body = [("Content-Type", "application/json")];
    for (token, status) in [(writer.as_str(), 403), ("", 401), (&server.token, 200)] {
        let answer = server.request("POST", "/api/ballast/v1/gc", token, &json_body, body)?;
        ensure!(answer.status == status, "{status} expected: {answer:?}");
    }
    let odd: &[u8] = br#"{"dry": true}"#;
    let answer = server.request("POST", "/api/ballast/v1/gc", &server.token, &json_body, odd)?;
    ensure!(answer.status == 400 && answer.json()?["error"] != Value::Null, "{answer:?}");
    Ok(())
}
