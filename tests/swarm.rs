//! Hosts that need the same weights give them to each other: a hub, and nodes of it, as processes.

mod support;

#[path = "support/gap.rs"]
mod gap;

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use anyhow::{Context as _, Result, ensure};
use gap::{REPO, put};
use support::noise;
use support::objects::Objects;
use support::server::Server;

const WEIGHTS: &str = "model.safetensors";

/// Whose processes run: beside those of others, nodes are late, and the hub sends more.
static TURN: Mutex<()> = Mutex::new(());

fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A hub that nodes can join.
fn hub(more: &[(&str, &str)]) -> Result<Server> {
    let mut all = vec![("BALLAST_CLUSTER_LISTEN", "127.0.0.1:0")];
    all.extend(more);
    let hub = Server::on_set(&Objects::disk(), &all)?;
    hub.admin(&["repo", "create", REPO])?;
    Ok(hub)
}

fn nodes(hub: &Server, names: &[&str]) -> Result<Vec<Server>> {
    nodes_with(hub, names, &[])
}

fn nodes_with(hub: &Server, names: &[&str], more: &[(&str, &str)]) -> Result<Vec<Server>> {
    let begun = |name: &&str| {
        let mut node = Server::node_of(hub, name)?;
        for (variable, value) in more {
            node.set(variable, value);
        }
        node.begin()?;
        Ok(node)
    };
    names.iter().map(begun).collect()
}

/// What a server counts, by name.
fn figures(server: &Server) -> Result<BTreeMap<String, u64>> {
    let answer = server.request("GET", "/metrics", "", &[], &[])?;
    ensure!(answer.status == 200, "{answer:?}");
    let text = String::from_utf8(answer.body)?;
    let lines = text.lines().filter_map(|line| line.rsplit_once(' '));
    Ok(lines.filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?))).collect())
}

fn figure(server: &Server, name: &str) -> Result<u64> {
    figures(server)?.get(name).copied().with_context(|| format!("there is no `{name}`"))
}

/// A file, as a client on the node's host gets it.
fn read(node: &Server, revision: &str) -> Result<Vec<u8>> {
    let path = format!("/{REPO}/resolve/{revision}/{WEIGHTS}");
    let answer = node.request("GET", &path, "", &[], &[])?;
    ensure!(answer.status == 200, "{} {}", answer.status, String::from_utf8_lossy(&answer.body));
    Ok(answer.body)
}

/// All of them want it at once.
fn read_all(nodes: &[Server], revision: &str, content: &[u8]) -> Result<()> {
    let check = |node: &Server| {
        let got = read(node, revision).with_context(|| node.log())?;
        ensure!(got == content, "{} bytes, and not those of the file", got.len());
        Ok(())
    };
    thread::scope(|scope| {
        let readers: Vec<_> = nodes.iter().map(|node| scope.spawn(move || check(node))).collect();
        readers.into_iter().try_for_each(|reader| reader.join().expect("a reader that ends"))
    })
}

#[test]
fn nodes_give_each_other_what_the_hub_sends_once() -> Result<()> {
    let _turn = turn();
    let hub = hub(&[])?;
    let first = noise(1, 24 << 20);
    put(&hub, &[(WEIGHTS, &first)])?;
    let nodes = nodes(&hub, &["n1", "n2", "n3", "n4"])?;
    read_all(&nodes, "main", &first)?;
    let sent = figure(&hub, "swarm_hub_sent_bytes_total")?;
    ensure!(sent * 100 <= first.len() as u64 * 110, "the hub sent {sent} bytes");

    // A second version moves what is new in it, and no more.
    let mut second = first.clone();
    second[8 << 20..9 << 20].copy_from_slice(&noise(2, 1 << 20));
    let changed = put(&hub, &[(WEIGHTS, &second)])?;
    let before: Vec<u64> = nodes.iter().map(received).collect::<Result<_>>()?;
    read_all(&nodes, &changed, &second)?;
    for (node, before) in nodes.iter().zip(before) {
        let moved = received(node)? - before;
        ensure!(moved <= 2 << 20, "{moved} bytes came for 1 MiB that is new");
    }
    Ok(())
}

/// `benches/crowd.py` does it with 64 of them and a larger file.
#[test]
fn a_crowd_with_small_caps_gets_the_file_and_the_hub_sends_a_small_part_of_that() -> Result<()> {
    let _turn = turn();
    let caps = [("BALLAST_CLUSTER_UPLOAD", "300kB/s"), ("BALLAST_CLUSTER_DOWNLOAD", "300kB/s")];
    let hub = hub(&caps)?;
    let content = noise(4, 4 << 20);
    put(&hub, &[(WEIGHTS, &content)])?;
    let names: Vec<String> = (0..16).map(|number| format!("n{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let nodes = nodes_with(&hub, &names, &caps)?;
    read_all(&nodes, "main", &content)?;
    let sent = figure(&hub, "swarm_hub_sent_bytes_total")?;
    ensure!(sent <= content.len() as u64 * 5 / 4, "the hub sent {sent} bytes");
    // However slow it is, all get on, and nobody has to complain.
    ensure!(figure(&hub, "swarm_complaints_total")? == 0, "a host complained");
    Ok(())
}

#[test]
fn whoever_watches_sees_bytes_come_while_they_come() -> Result<()> {
    let _turn = turn();
    let hub = hub(&[("BALLAST_CLUSTER_UPLOAD", "4MB/s")])?;
    let content = noise(3, 16 << 20);
    put(&hub, &[(WEIGHTS, &content)])?;
    let nodes = nodes(&hub, &["n1"])?;
    thread::scope(|scope| {
        let reader = scope.spawn(|| read_all(&nodes, "main", &content));
        let mut was_seen = false;
        while !was_seen && !reader.is_finished() {
            let now = figures(&hub)?;
            let figure = |name: &str| now.get(name).copied().unwrap_or(0);
            was_seen = figure("swarm_fetching_nodes") == 1
                && figure("swarm_nodes_received_bytes_total{from=\"hub\"}") > 0
                && figure("swarm_slowest_node_bytes_per_second") > 0;
        }
        reader.join().expect("a reader that ends")?;
        ensure!(was_seen, "the hub heard of nothing while the node fetched");
        Ok(())
    })
}

/// Bytes that came over the network.
fn received(node: &Server) -> Result<u64> {
    let figures = figures(node)?;
    let from =
        |place: &str| figures.get(&format!("swarm_received_bytes_total{{from=\"{place}\"}}"));
    Ok(["site", "peer", "hub", "upstream"].into_iter().filter_map(from).sum())
}
