//! Nodes that join the built binary, and what becomes of those who may not.
//!
//! A node is here the library that `ballast node` is made of.

mod support;

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use ballast_proto::v1::nodes_client::NodesClient;
use ballast_store::env::RealEnv;
use ballast_sync::cluster::{self, JoinToken, Member, member_file};
use serde_json::{Value, json};
use support::objects::Objects;
use support::server::{Server, ballast};
use tempfile::tempdir;

/// A hub with a door on a port that is free.
fn start() -> Result<Server> {
    Server::start_set(&[("BALLAST_CLUSTER_LISTEN", "127.0.0.1:0")])
}

/// The word with which a node of this name joins.
fn token(server: &Server, name: &str, further: &[&str]) -> Result<String> {
    let made = server.admin(&[&["node", "join-token", name], further].concat())?;
    Ok(made["token"].as_str().context("no token")?.to_owned())
}

async fn join(token: &str, folder: &Path) -> cluster::Result<Member> {
    cluster::join(None, token, folder, &RealEnv::shared()).await
}

fn is_refused<T>(done: cluster::Result<T>, reason: &str) -> Result<()> {
    let error = done.err().context("it must be refused")?.to_string();
    ensure!(error.contains(reason), "{error}");
    Ok(())
}

fn node(server: &Server, name: &str) -> Result<Value> {
    let nodes = server.admin(&["node", "list"])?;
    let nodes = nodes.as_array().context("a list")?;
    Ok(nodes.iter().find(|node| node["name"] == name).cloned().unwrap_or(Value::Null))
}

#[tokio::test]
async fn a_node_joins_reads_as_its_user_and_is_shut_out_at_once() -> Result<()> {
    let server = start()?;
    server.user("ann", "write")?;
    server.admin(&["repo", "create", "ann/net", "--visibility", "private"])?;
    server.admin(&["repo", "create", "admin/own", "--visibility", "private"])?;
    let word = token(&server, "gpu-1", &["--as", "ann"])?;
    ensure!(word.starts_with("ballast-join-"), "{word}");
    ensure!(node(&server, "gpu-1")?["state"] == json!("invited"));
    let folder = tempdir()?;
    let member = join(&word, folder.path()).await?;
    ensure!(member.hello().await?.cluster == member.identity().cluster().as_str());
    let mut calls = NodesClient::new(member.channel()?);
    member.beat(&mut calls, "10.0.0.7:8081").await?;
    let listed = node(&server, "gpu-1")?;
    ensure!(listed["state"] == json!("joined") && listed["user"] == json!("ann"), "{listed}");
    ensure!(listed["address"] == json!("10.0.0.7:8081"), "{listed}");
    ensure!(listed["seenAt"].is_string() && listed["joinedAt"].is_string(), "{listed}");
    let read = |repo: &str| server.request("GET", repo, &member.token(), &[], &[]);
    ensure!(read("/api/models/ann/net")?.status == 200, "it may read what ann may");
    ensure!(read("/api/models/admin/own")?.status == 404, "and nothing else");
    let like = server.request("POST", "/api/models/ann/net/like", &member.token(), &[], &[])?;
    ensure!(like.status == 403, "it only reads: {like:?}");

    server.admin(&["node", "revoke", "gpu-1"])?;
    is_refused(member.beat(&mut calls, "").await, "")?;
    is_refused(member.hello().await, "does not accept our certificate")?;
    is_refused(member.renew().await, "join again")?;
    ensure!(read("/api/models/ann/net")?.status == 401, "its token has ended too");
    ensure!(node(&server, "gpu-1")?.is_null());
    let audit = ballast(&["audit", "list", "--json"])
        .env("HF_ENDPOINT", &server.endpoint)
        .env("HF_TOKEN", &server.token)
        .output()?;
    let audit = String::from_utf8(audit.stdout)?;
    for act in ["node invited", "node joined", "node revoked"] {
        ensure!(audit.contains(act), "{audit}");
    }
    ensure!(!audit.contains(&word) && !server.log().contains(&word), "a secret is told");
    Ok(())
}

#[tokio::test]
async fn a_token_is_good_once_also_over_a_crash_and_who_joined_stays_known() -> Result<()> {
    let mut server = start()?;
    // The same port after the crash: the word has it.
    let word = token(&server, "gpu-1", &[])?;
    server.set("BALLAST_CLUSTER_LISTEN", &JoinToken::parse(&word)?.address);
    let (folder, other) = (tempdir()?, tempdir()?);
    let member = join(&word, folder.path()).await?;
    server.kill()?;
    server.forget()?;
    server.restart()?;
    is_refused(join(&word, other.path()).await, "was used")?;
    member.hello().await?;
    member.renew().await?;
    let opened = cluster::open(folder.path(), &RealEnv::shared()).await?.context("it joined")?;
    ensure!(opened.identity().issued() == member.identity().issued());
    opened.hello().await?;
    Ok(())
}

#[tokio::test]
async fn who_is_not_of_the_cluster_gets_nothing() -> Result<()> {
    let (server, other) = (start()?, start()?);
    let folders = [tempdir()?, tempdir()?];
    let word = token(&server, "gpu-1", &[])?;
    let elsewhere = token(&other, "gpu-1", &[])?;
    // Another hub answers where the token says.
    let wrong =
        JoinToken { address: JoinToken::parse(&elsewhere)?.address, ..JoinToken::parse(&word)? };
    is_refused(join(&wrong.to_text(), folders[0].path()).await, "is not a hub of this cluster")?;
    let ours = join(&word, folders[0].path()).await?;
    let theirs = join(&elsewhere, folders[1].path()).await?;
    // Its file says that it belongs here, and its certificate does not.
    let address = JoinToken::parse(&word)?.address;
    let channel = cluster::hub_channel(theirs.identity(), &address)?;
    let said = NodesClient::new(channel).hello(ballast_proto::v1::HelloRequest {}).await;
    ensure!(said.is_err(), "another cluster's identity was let in");
    ours.hello().await?;
    Ok(())
}

#[tokio::test]
async fn every_gateway_on_a_bucket_knows_the_same_nodes() -> Result<()> {
    let objects = Objects::s3()?;
    let (listen, free) = ("BALLAST_CLUSTER_LISTEN", "127.0.0.1:0");
    let one = Server::on_set(&objects, &[(listen, free)])?;
    let mut two = Server::unstarted(&objects)?;
    two.set(listen, free);
    two.begin()?;
    two.token.clone_from(&one.token);
    let (folder, other) = (tempdir()?, tempdir()?);
    let at_two = JoinToken::parse(&token(&two, "gpu-2", &[])?)?.address;
    let word = token(&one, "gpu-1", &[])?;
    let env = RealEnv::shared();
    let member = cluster::join(Some(&at_two), &word, folder.path(), &env).await?;
    is_refused(join(&word, other.path()).await, "was used")?;
    one.admin(&["node", "revoke", "gpu-1"])?;
    // The other one looks by itself.
    while member.hello().await.is_ok() {}
    is_refused(member.renew().await, "join again")?;
    Ok(())
}

#[test]
fn commands_say_what_is_missing() -> Result<()> {
    let server = Server::start()?;
    let run = |arguments: &[&str]| {
        ballast(arguments)
            .env("HF_ENDPOINT", &server.endpoint)
            .env("HF_TOKEN", &server.token)
            .output()
    };
    let output = run(&["node", "join-token", "gpu-1"])?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(!output.status.success() && error.contains("hint: set `cluster.listen`"), "{error}");
    let output = run(&["node", "revoke", "gpu-1"])?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(!output.status.success() && error.contains("the node `gpu-1` not found"), "{error}");
    Ok(())
}

#[tokio::test]
async fn a_nodes_file_is_its_own() -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let (server, folder) = (start()?, tempdir()?);
    let member = join(&token(&server, "eu", &["--role", "region"])?, folder.path()).await?;
    ensure!(member.identity().name().to_string() == "region/eu");
    let file = member_file(folder.path());
    ensure!(fs::metadata(&file)?.permissions().mode() & 0o777 == 0o600);
    ensure!(!String::from_utf8_lossy(&fs::read(&file)?).contains("ballast-join-"));
    Ok(())
}
