//! Hosts that are as far from each other as real ones: each behind a link of its own, at a rate at
//! which a file takes seconds. What each host gives and takes is counted on its link.

mod support;

#[path = "support/gap.rs"]
mod gap;
#[path = "support/lab.rs"]
mod lab;

use std::thread;

use anyhow::{Context as _, Result, bail, ensure};
use gap::{REPO, put};
use lab::Lab;
use support::noise;
use support::objects::Objects;
use support::server::{Server, ballast};

const WEIGHTS: &str = "model.safetensors";
const MBIT: u32 = 80;
const HUB: u32 = 1;
const LOOKS: usize = 30_000;

/// A hub with a file in it, and nodes that have none of it, each on a host of its own.
struct Site {
    hub: Server,
    nodes: Vec<Server>,
    content: Vec<u8>,
    commit: String,
    lab: Lab,
}

impl Site {
    fn new(nodes: u32, bytes: usize) -> Result<Self> {
        let lab = Lab::up(1 + nodes, MBIT)?;
        let mut hub = Server::unstarted(&Objects::disk())?;
        lab.place(&mut hub, HUB);
        hub.begin()?;
        hub.admin(&["repo", "create", REPO])?;
        let content = noise(7, bytes);
        let commit = put(&hub, &[(WEIGHTS, &content)])?;
        let begun = |host: u32| -> Result<Server> {
            let mut node = Server::node_of(&hub, &format!("n{host}"))?;
            lab.place(&mut node, host);
            node.begin()?;
            Ok(node)
        };
        let nodes = (HUB + 1..=HUB + nodes).map(begun).collect::<Result<_>>()?;
        Ok(Self { hub, nodes, content, commit, lab })
    }

    /// The file, as a client on a node's host gets it.
    fn read(&self, node: usize) -> Result<()> {
        let (server, host) = (&self.nodes[node], HUB + 1 + u32::try_from(node)?);
        let folder = server.scratch("pulled")?;
        let to = folder.to_str().context("a plain path")?;
        let mut pull = ballast(&["pull", &format!("{REPO}@{}", self.commit), "--to", to]);
        pull.env("HF_ENDPOINT", &server.endpoint);
        let ran = self.lab.command(host, &pull).output()?;
        let said = String::from_utf8_lossy(&ran.stderr);
        ensure!(ran.status.success(), "{said}\n{}", server.log());
        ensure!(std::fs::read(folder.join(WEIGHTS))? == self.content, "other bytes");
        Ok(())
    }

    /// The file on some hosts at once, and what else happens meanwhile.
    fn read_all(&self, nodes: &[usize], meanwhile: impl FnOnce() -> Result<()>) -> Result<()> {
        thread::scope(|scope| {
            let begin = |node: &usize| {
                scope.spawn({
                    let node = *node;
                    move || self.read(node)
                })
            };
            let readers: Vec<_> = nodes.iter().map(begin).collect();
            let happened = meanwhile();
            for reader in readers {
                reader.join().expect("a reader that ends")?;
            }
            happened
        })
    }

    /// Waits until a node has taken so many bytes.
    fn wait_for(&self, node: usize, bytes: u64) -> Result<()> {
        let server = &self.nodes[node];
        // Each look takes a moment: these are a minute or more.
        for _ in 0..LOOKS {
            if took(server)? >= bytes {
                return Ok(());
            }
            thread::yield_now();
        }
        bail!("it took {} of {bytes} bytes\n{}", took(server)?, server.log())
    }

    /// What the hub has sent of files.
    fn payload(&self) -> Result<u64> {
        figure(&self.hub, "swarm_hub_sent_bytes_total")
    }
}

/// The sum of what a server counts under a name.
fn figure(server: &Server, name: &str) -> Result<u64> {
    let answer = server.request("GET", "/metrics", "", &[], &[])?;
    let text = String::from_utf8(answer.body)?;
    let lines = text.lines().filter(|line| line.starts_with(name));
    Ok(lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok()).sum())
}

fn took(node: &Server) -> Result<u64> {
    figure(node, "swarm_received_bytes_total")
}

#[test]
fn four_hosts_that_begin_at_once_take_each_byte_from_the_hub_once() -> Result<()> {
    let site = Site::new(4, 48 << 20)?;
    let before = site.lab.sent(HUB)?;
    site.read_all(&[0, 1, 2, 3], || Ok(()))?;
    let wire = site.lab.sent(HUB)? - before;
    let (file, payload) = (site.content.len() as u64, site.payload()?);
    ensure!(payload * 100 <= file * 105, "the hub sent {payload} bytes of a file of {file}");
    ensure!(wire * 100 <= file * 112, "{wire} bytes on the hub's link for {file}");
    let mut links = [0, 0];
    for node in &site.nodes {
        links[0] += figure(node, "carrier_links{carrier=\"tcp\"}")?;
        links[1] += figure(node, "carrier_links{carrier=\"quic\"}")?;
    }
    ensure!(links[0] >= 4 && links[1] == 0, "hosts of one site use TCP: {links:?}");
    Ok(())
}

#[test]
fn a_late_host_costs_the_hub_next_to_nothing() -> Result<()> {
    let site = Site::new(3, 24 << 20)?;
    let file = site.content.len() as u64;
    site.read_all(&[0, 1], || {
        site.wait_for(0, file * 8 / 10)?;
        site.read(2)
    })?;
    let payload = site.payload()?;
    ensure!(payload * 100 <= file * 110, "the hub sent {payload} bytes of a file of {file}");
    Ok(())
}

#[test]
fn hosts_finish_without_their_hub_what_one_of_them_has() -> Result<()> {
    let mut site = Site::new(3, 8 << 20)?;
    site.read(0)?;
    let half = site.content.len() as u64 / 2;
    let hub = site.hub.pid().context("it runs")?.to_string();
    for node in &mut site.nodes {
        node.expect_in_log("WARN");
    }
    site.read_all(&[1, 2], || {
        site.wait_for(1, half)?;
        let killed = std::process::Command::new("kill").args(["-KILL", &hub]).status()?;
        ensure!(killed.success(), "it could not be killed");
        Ok(())
    })?;
    site.hub.kill()
}

#[test]
fn a_host_that_stands_still_keeps_nobody_from_finishing() -> Result<()> {
    let site = Site::new(4, 8 << 20)?;
    let quarter = site.content.len() as u64 / 4;
    site.read_all(&[0], || {
        let others = site.read_all(&[1, 2, 3], || {
            site.wait_for(0, quarter)?;
            site.nodes[0].signal("-STOP")
        });
        // It wakes up, and gets the rest too.
        site.nodes[0].signal("-CONT")?;
        others
    })
}
