//! Two regions: what is pushed in one appears in the other when all of it is there, and is written
//! at its home only.

mod support;

#[path = "support/gap.rs"]
mod gap;

use std::fs;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use gap::{REPO, must_hold, put, read};
use serde_json::{Value, json};
use support::client::{Python, finish};
use support::noise;
use support::objects::Objects;
use support::server::Server;

const WEIGHTS: &str = "model.safetensors";

/// A hub that is a region. Where it is, it must know before it starts as one.
fn region(name: &str) -> Result<Server> {
    let mut server = Server::on(&Objects::disk())?;
    server.stop()?;
    let endpoint = server.endpoint.clone();
    server.set("BALLAST_REGION_NAME", name);
    server.set("BALLAST_PUBLIC_URL", &endpoint);
    server.set("BALLAST_CLUSTER_LISTEN", "127.0.0.1:0");
    // At the end of a test one of them is gone before the other.
    server.expect_in_log("another region can't be followed");
    server.expect_in_log("the hub does not know that this node is here");
    server.restart()?;
    Ok(server)
}

/// Lets `to` follow all that `from` has.
fn follow(from: &Server, to: &Server, from_name: &str, to_name: &str) -> Result<()> {
    let token = from.admin(&["node", "join-token", to_name, "--role", "region"])?;
    let token = token["token"].as_str().context("no token")?;
    from.admin(&["replicate", "create", "all", "--match", "**", "--to", to_name])?;
    to.admin(&["remote", "add", from_name, "--join-token", token])?;
    Ok(())
}

/// Asks again and again, until it is so.
fn until<T>(what: &str, mut ask: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    for _ in 0..600 {
        if let Some(found) = ask()? {
            return Ok(found);
        }
        thread::park_timeout(Duration::from_millis(100));
    }
    bail!("it never came to this: {what}")
}

fn has(server: &Server, content: &[u8]) -> Result<()> {
    until("the other region has it", || {
        Ok(read(server, "main", WEIGHTS)?.is_ok_and(|got| got == content).then_some(()))
    })
}

fn metrics(server: &Server) -> Result<String> {
    let answer = server.request("GET", "/metrics", "", &[], &[])?;
    Ok(String::from_utf8_lossy(&answer.body).into_owned())
}

/// A commit of a small file, as a client sends it; how it was answered.
fn commit(server: &Server, text: &str) -> Result<support::server::Answer> {
    let lines = [
        json!({"key": "header", "value": {"summary": "a change"}}),
        json!({"key": "file", "value": {"path": "a.txt", "content": text, "encoding": "utf-8"}}),
    ];
    let body = lines.iter().map(Value::to_string).collect::<Vec<_>>().join("\n");
    let headers = [("content-type", "application/x-ndjson")];
    let url = format!("/api/models/{REPO}/commit/main");
    server.request("POST", &url, &server.token, &headers, body.as_bytes())
}

#[test]
fn what_is_pushed_in_one_region_appears_in_the_other_and_is_written_at_home_only() -> Result<()> {
    let (us, eu) = (region("us")?, region("eu")?);
    us.admin(&["repo", "create", REPO])?;
    follow(&us, &eu, "us", "eu")?;
    let mut weights = noise(1, 4 << 20);
    put(&us, &[(WEIGHTS, &weights)])?;
    has(&eu, &weights)?;

    // Only what is new goes over.
    weights[1 << 20..(1 << 20) + 1000].copy_from_slice(&noise(2, 1000));
    put(&us, &[(WEIGHTS, &weights)])?;
    has(&eu, &weights)?;
    let status = eu.admin(&["replicate", "status"])?;
    let fetched = status["received"][0]["fetched"].as_u64().context("a count")?;
    ensure!((4 << 20..5 << 20).contains(&fetched), "{fetched} bytes came: {status}");
    let verified = eu.admin(&["replicate", "verify", "us"])?;
    ensure!(verified["findings"] == 0, "both have the same: {verified}");
    ensure!(verified["repos"][0]["repo"] == REPO, "{verified}");
    for (server, label) in [(&eu, r#"from="us",replication="all""#), (&us, r#"to="eu""#)] {
        until("the metrics say that nothing is missing", || {
            let metrics = metrics(server)?;
            let line = format!("replicate_lag_entries{{{label}}} 0\n");
            Ok(metrics.contains(&line).then_some(()))
        })?;
    }
    let moved = r#"replicate_bytes_total{from="us",replication="all",kind="moved"} "#;
    let metrics = metrics(&eu)?;
    ensure!(metrics.contains(&format!("{moved}{fetched}\n")), "{metrics}");

    let refused = commit(&eu, "from eu")?;
    ensure!(refused.status == 421, "{refused:?}");
    let said = refused.json()?;
    ensure!(said["home"]["address"] == us.endpoint.as_str(), "{said}");
    ensure!(commit(&us, "from us")?.status == 200);
    // Clients show the words.
    let (folder, home) = (eu.scratch("folder")?, tempfile::tempdir()?);
    fs::write(folder.join("mine.txt"), "mine")?;
    let mut upload = Python::with("hub-2.4")?.command("hf", &eu, &eu.token, home.path());
    let refused = finish(upload.args(["upload", REPO]).arg(&folder).arg("."));
    let shown = refused.err().context("a region took a commit that is not the home")?.to_string();
    ensure!(shown.contains(&format!("write to {}", us.endpoint)), "{shown}");

    // The home moves, and the old one refuses from then on.
    follow(&eu, &us, "eu", "us")?;
    us.admin(&["region", "move", REPO, "--to", "eu", "--address", &eu.endpoint])?;
    until("the other region is the home", || {
        Ok((commit(&eu, "from its new home")?.status == 200).then_some(()))
    })?;
    ensure!(commit(&us, "from its old home")?.status == 421);
    until("the old home follows", || {
        Ok(read(&us, "main", "a.txt")?.is_ok_and(|got| got == b"from its new home").then_some(()))
    })
}

#[test]
fn what_has_not_arrived_is_read_through_and_need_not_come_again() -> Result<()> {
    let (us, eu) = (region("us")?, region("eu")?);
    us.admin(&["repo", "create", REPO])?;
    follow(&us, &eu, "us", "eu")?;
    put(&us, &[("a.txt", b"first")])?;
    until("the first commit arrives", || {
        Ok(read(&eu, "main", "a.txt")?.is_ok_and(|got| got == b"first").then_some(()))
    })?;
    us.admin(&["replicate", "pause", "all"])?;
    let weights = noise(3, 3 << 20);
    let pushed = put(&us, &[("a.txt", b"second"), (WEIGHTS, &weights)])?;
    must_hold(&eu, &pushed, &[("a.txt", b"second"), (WEIGHTS, &weights)])?;
    let stranger = eu.user("stranger", "read")?;
    let url = format!("/{REPO}/resolve/{pushed}/a.txt");
    us.admin(&["repo", "settings", REPO, "--visibility", "private"])?;
    until("it is private here too", || {
        let answer = eu.request("GET", &url, &stranger, &[], &[])?;
        Ok((answer.header("x-error-code") == Some("RepoNotFound")).then_some(()))
    })?;
    // A name shows what has arrived.
    must_hold(&eu, "main", &[("a.txt", b"first")])?;
    ensure!(read(&eu, "main", WEIGHTS)? == Err(404));
    let status = eu.admin(&["replicate", "status"])?;
    let received = &status["received"][0];
    ensure!(received["lagEntries"] == 1 && received["fetched"] == weights.len(), "{status}");
    us.admin(&["replicate", "resume", "all"])?;
    has(&eu, &weights)?;
    let status = eu.admin(&["replicate", "status"])?;
    let received = &status["received"][0];
    ensure!(received["lagEntries"] == 0 && received["fetched"] == weights.len(), "{status}");
    // Without its home there is no telling.
    drop(us);
    let unknown = read(&eu, &"0".repeat(40), "a.txt")?;
    ensure!(unknown == Err(503), "{unknown:?}");
    has(&eu, &weights)
}
