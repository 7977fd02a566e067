//! The policy at the borders: what an upstream or a bundle brings is judged like what a client
//! sends.

#[path = "support/gap.rs"]
mod gap;
mod support;

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use anyhow::{Result, ensure};
use gap::must_hold;
use support::client::{Python, finish};
use support::objects::Objects;
use support::server::Server;
use support::{noise, root};

const RULES: &str = r#"
[[rules]]
name = "no-nc"
action = "deny"
licenses = ["cc-by-nc-4.0"]
stages = ["mirror", "import"]

[[rules]]
name = "no-onnx"
action = "deny"
formats = ["onnx"]
stages = ["mirror"]

[[rules]]
name = "no-pickles"
action = "deny"
formats = ["pickle"]
stages = ["mirror", "import"]
"#;

fn card(license: &str) -> Vec<u8> {
    format!("---\nlicense: {license}\n---\n# A model\n").into_bytes()
}

fn upload(server: &Server, repo: &str, content: &BTreeMap<&str, Vec<u8>>) -> Result<()> {
    let (folder, home) = (tempfile::tempdir()?, tempfile::tempdir()?);
    for (path, bytes) in content {
        fs::write(folder.path().join(path), bytes)?;
    }
    let client = Python::with("hub-2.4")?;
    let mut command = client.command("hf", server, &server.token, home.path());
    finish(command.args(["upload", repo]).arg(folder.path()).arg("."))?;
    Ok(())
}

fn weights() -> Result<BTreeMap<&'static str, Vec<u8>>> {
    let folder = tempfile::tempdir()?;
    let script = root().join("tests/clients/weights.py");
    finish(Command::new("python3").arg(script).arg(folder.path()))?;
    Ok(BTreeMap::from([
        ("README.md", card("mit")),
        ("model.safetensors", noise(1, 3_000_000)),
        ("model.onnx", noise(2, 3_000_000)),
        ("pytorch_model.bin", fs::read(folder.path().join("good/model.pt"))?),
    ]))
}

/// What is said to somebody who asks a hub for a file, if it is not given.
fn refusal(server: &Server, repo: &str, path: &str) -> Result<String> {
    let path = format!("/{repo}/resolve/main/{path}");
    let answer = server.request("GET", &path, &server.token, &[], &[])?;
    ensure!(answer.status == 403, "{path}: {}", answer.status);
    ensure!(answer.header("x-error-code") == Some("PolicyRefused"), "{path}");
    Ok(String::from_utf8(answer.body)?)
}

#[test]
fn what_a_rule_denies_does_not_come_from_an_upstream() -> Result<()> {
    let upstream = Server::on(&Objects::disk())?;
    upstream.admin(&["org", "create", "acme"])?;
    let content = weights()?;
    upload(&upstream, "acme/good", &content)?;
    let closed = BTreeMap::from([("README.md", card("cc-by-nc-4.0")), ("w.bin", noise(3, 100))]);
    upload(&upstream, "acme/nc", &closed)?;

    let rules = upstream.scratch("rules")?.join("policy.toml");
    fs::write(&rules, RULES)?;
    let (url, rules) = (upstream.endpoint.clone(), rules.to_string_lossy().into_owned());
    let variables =
        [("BALLAST_UPSTREAM_URL", url.as_str()), ("BALLAST_POLICY_FILE", rules.as_str())];
    let mirror = Server::on_set(&Objects::disk(), &variables)?;

    ensure!(refusal(&mirror, "acme/nc", "w.bin")?.contains("`no-nc`"));
    ensure!(mirror.admin(&["repo", "list"])?.as_array().is_some_and(Vec::is_empty));
    let path = "/acme/good/resolve/main/model.safetensors";
    let answer = mirror.request("GET", path, &mirror.token, &[], &[])?;
    ensure!(answer.status == 200 && answer.body == content["model.safetensors"]);
    ensure!(refusal(&mirror, "acme/good", "model.onnx")?.contains("`no-onnx`"));
    // Only reading it tells that it is one.
    ensure!(refusal(&mirror, "acme/good", "pytorch_model.bin")?.contains("`no-pickles`"));
    Ok(())
}

#[test]
fn what_a_rule_denies_does_not_come_in_a_bundle() -> Result<()> {
    let rules = tempfile::tempdir()?;
    let file = rules.path().join("policy.toml");
    fs::write(&file, RULES)?;
    let variables = [("BALLAST_POLICY_FILE", &*file.to_string_lossy())];
    let world = gap::World::with(Server::on_set(&Objects::disk(), &variables)?)?;
    let content = weights()?;
    upload(&world.open, gap::REPO, &content)?;
    let folder = world.folder("one")?;
    world.create(&folder, &[gap::REPO])?.sound()?;
    world.import(&folder)?.sound()?;
    must_hold(&world.closed, "main", &[("model.onnx", &content["model.onnx"])])?;
    ensure!(refusal(&world.closed, gap::REPO, "pytorch_model.bin")?.contains("`no-pickles`"));

    upload(&world.open, gap::REPO, &BTreeMap::from([("README.md", card("cc-by-nc-4.0"))]))?;
    let folder = world.folder("two")?;
    world.create(&folder, &[gap::REPO])?.sound()?;
    let refused = world.import(&folder)?;
    ensure!(!refused.ok && refused.json.to_string().contains("`no-nc`"), "{}", refused.json);
    // What was here stays as it was.
    must_hold(&world.closed, "main", &[("README.md", &card("mit"))])?;
    Ok(())
}
