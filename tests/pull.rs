//! A repo's files on a host: as a folder, and as the Hugging Face clients' cache has them.

mod support;

#[path = "support/gap.rs"]
mod gap;

use std::fs;

use anyhow::{Context as _, Result, ensure};
use gap::{REPO, put, sha256};
use serde_json::{Value, json};
use support::noise;
use support::objects::Objects;
use support::server::Server;

const WEIGHTS: &str = "model.safetensors";
const CONFIG: &str = "a folder/config.json";

fn counts(told: &Value, names: &[&str]) -> u64 {
    names.iter().filter_map(|name| told[*name].as_u64()).sum()
}

#[test]
fn a_pull_takes_from_the_node_what_that_has() -> Result<()> {
    let hub = Server::on_set(&Objects::disk(), &[("BALLAST_CLUSTER_LISTEN", "127.0.0.1:0")])?;
    hub.admin(&["repo", "create", REPO])?;
    let (weights, config) = (noise(1, 6 << 20), b"{\"model_type\": \"tiny\"}");
    let commit = put(&hub, &[(WEIGHTS, &weights), (CONFIG, config)])?;
    let mut node = Server::node_of(&hub, "n1")?;
    node.begin()?;

    // A folder: the large file comes out of the node's cache, and is no second copy of it there.
    let folder = node.scratch("folder")?;
    let to = folder.to_str().context("a plain path")?;
    let told = node.admin(&["pull", REPO, "--to", to]).with_context(|| node.log())?;
    ensure!(told["commit"] == json!(commit), "{told}");
    ensure!(counts(&told, &["reflinked", "linked"]) == 1, "{told}");
    ensure!(fs::read(folder.join(WEIGHTS))? == weights, "the weights are others");
    ensure!(fs::read(folder.join(CONFIG))? == config, "the configuration is another");

    // The cache of the clients: contents by their names, links to them, and the branch.
    let cache = node.scratch("hf")?;
    let into = cache.to_str().context("a plain path")?;
    let told = node.admin(&["pull", &format!("{REPO}@main"), "--cache", into])?;
    let repo = cache.join("models--admin--model");
    ensure!(told["folder"] == json!(repo.join("snapshots").join(&commit)), "{told}");
    ensure!(fs::read_to_string(repo.join("refs/main"))? == commit, "another commit");
    let link = fs::read_link(repo.join("snapshots").join(&commit).join(WEIGHTS))?;
    ensure!(link.ends_with(format!("blobs/{}", sha256(&weights))), "{link:?}");
    ensure!(fs::read(repo.join("snapshots").join(&commit).join(CONFIG))? == config, "another");
    let again = node.admin(&["pull", REPO, "--cache", into])?;
    ensure!(counts(&again, &["alreadyHere"]) == again["files"].as_u64().unwrap_or(0), "{again}");

    // Without a node there is only downloading.
    let plain = hub.scratch("plain")?;
    let to = plain.to_str().context("a plain path")?;
    let told = hub.admin(&["pull", REPO, "--to", to])?;
    ensure!(counts(&told, &["reflinked", "linked", "copied"]) == 0, "{told}");
    ensure!(fs::read(plain.join(WEIGHTS))? == weights, "the weights are others");

    // What a disk has damaged is as long as it was, and comes anew; nothing else does.
    for (path, content) in [(CONFIG, &config[..]), (WEIGHTS, &weights[..])] {
        let mut damaged = content.to_vec();
        damaged[5] ^= 1;
        fs::write(plain.join(path), damaged)?;
        let told = hub.admin(&["pull", REPO, "--to", to])?;
        ensure!(counts(&told, &["downloaded"]) == 1, "{told}");
        ensure!(counts(&told, &["alreadyHere"]) + 1 == told["files"], "{told}");
        ensure!(fs::read(plain.join(path))? == content, "`{path}` is damaged still");
    }
    Ok(())
}

#[test]
fn a_node_that_was_warmed_serves_without_its_hub_and_says_what_it_keeps() -> Result<()> {
    let mut hub = Server::on_set(&Objects::disk(), &[("BALLAST_CLUSTER_LISTEN", "127.0.0.1:0")])?;
    hub.admin(&["repo", "create", REPO])?;
    let weights = noise(2, 6 << 20);
    let commit = put(&hub, &[(WEIGHTS, &weights)])?;
    let mut node = Server::node_of(&hub, "n1")?;
    node.begin()?;
    let told = node.admin(&["node", "warm", REPO, "--pin"]).with_context(|| node.log())?;
    ensure!(told[0]["commit"] == json!(commit), "{told}");
    let pins = node.admin(&["node", "pins"])?;
    ensure!(
        pins[0]["sha256"] == json!(sha256(&weights)) && pins[0]["whole"] == json!(true),
        "{pins}"
    );
    hub.kill()?;
    // What the hub can't be asked for is warned about.
    node.expect_in_log("WARN");
    let path = format!("/{REPO}/resolve/{commit}/{WEIGHTS}");
    let answer = node.request("GET", &path, "", &[], &[])?;
    ensure!(answer.status == 200 && answer.body == weights, "{}", answer.status);
    let pins = node.admin(&["node", "pins", "--release", &format!("{REPO}@{commit}")])?;
    ensure!(pins == json!([]), "{pins}");
    Ok(())
}
