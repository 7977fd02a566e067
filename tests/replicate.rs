//! Two regions: what is pushed in one appears in the other when all of it is there, and is written
//! at its home only.

mod support;

#[path = "support/gap.rs"]
mod gap;

use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use gap::{REPO, put, read};
use serde_json::{Value, json};
use support::noise;
use support::objects::Objects;
use support::server::{Server, ballast};

const WEIGHTS: &str = "model.safetensors";

/// A hub that is a region. Where it is, it must know before it starts as one.
fn region(name: &str) -> Result<Server> {
    let mut server = Server::on(&Objects::disk())?;
    server.stop()?;
    let endpoint = server.endpoint.clone();
    server.set("BALLAST_REGION_NAME", name);
    server.set("BALLAST_PUBLIC_URL", &endpoint);
    server.set("BALLAST_CLUSTER_LISTEN", "127.0.0.1:0");
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
    let status = told(&eu, &["replicate", "status"])?;
    let fetched: u64 = status.iter().filter_map(|line| line["fetched"].as_u64()).sum();
    ensure!((4 << 20..5 << 20).contains(&fetched), "{fetched} bytes came: {status:?}");
    told(&eu, &["replicate", "verify", "us"]).context("both have the same")?;

    let refused = commit(&eu, "from eu")?;
    ensure!(refused.status == 421, "{refused:?}");
    let said = refused.json()?;
    ensure!(said["home"]["address"] == us.endpoint.as_str(), "{said}");
    ensure!(commit(&us, "from us")?.status == 200);

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

/// All that a command says, which must go through.
fn told(server: &Server, arguments: &[&str]) -> Result<Vec<Value>> {
    let mut command = ballast(arguments);
    command.arg("--json").env("HF_ENDPOINT", &server.endpoint).env("HF_TOKEN", &server.token);
    let output = command.output()?;
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "`ballast {arguments:?}` failed: {error}");
    let values = serde_json::Deserializer::from_slice(&output.stdout).into_iter::<Value>();
    Ok(values.collect::<Result<_, _>>()?)
}
