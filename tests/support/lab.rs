//! Hosts on a network of their own: namespaces on one bridge, each behind a link of a given rate.
//! Needs root, `ip` and `tc`. The test itself is on the bridge too, behind no such link.

#![allow(dead_code, unreachable_pub, missing_docs, reason = "each test file uses its own part")]

use std::fs;
use std::process::{self, Command};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, Result, ensure};

use crate::support::server::Server;

/// Labs of this process so far: each has names and addresses of its own.
static LABS: AtomicU32 = AtomicU32::new(0);

/// A network that is gone when this is dropped.
pub struct Lab {
    tag: String,
    net: String,
    hosts: u32,
}

impl Lab {
    /// Hosts 1 to `hosts`, each with so many Mbit/s in each direction.
    pub fn up(hosts: u32, mbit: u32) -> Result<Self> {
        let number = LABS.fetch_add(1, Ordering::Relaxed);
        let unique = process::id() * 4 + number % 4;
        let tag = format!("b{:x}", unique & 0x00ff_ffff);
        let net = format!("198.{}.{}", 18 + (unique >> 8 & 1), unique & 0xff);
        let lab = Self { tag, net, hosts };
        let bridge = lab.bridge();
        ip(&format!("link add {bridge} type bridge"))?;
        ip(&format!("address add {}.254/24 dev {bridge}", lab.net))?;
        ip(&format!("link set {bridge} up"))?;
        for host in 1..=hosts {
            lab.connect(host, mbit)?;
        }
        Ok(lab)
    }

    fn connect(&self, host: u32, mbit: u32) -> Result<()> {
        let (space, port) = (self.space(host), self.port(host));
        ip(&format!("netns add {space}"))?;
        ip(&format!("link add {port} type veth peer name eth0 netns {space}"))?;
        ip(&format!("link set {port} master {} up", self.bridge()))?;
        ip(&format!("-n {space} address add {} dev eth0", self.address(host) + "/24"))?;
        ip(&format!("-n {space} link set eth0 up"))?;
        ip(&format!("-n {space} link set lo up"))?;
        let shaped = format!("root tbf rate {mbit}mbit burst 128kb latency 30ms");
        run("tc", &format!("qdisc add dev {port} {shaped}"))?;
        run("tc", &format!("-n {space} qdisc add dev eth0 {shaped}"))
    }

    fn bridge(&self) -> String {
        format!("{}br", self.tag)
    }

    fn port(&self, host: u32) -> String {
        format!("{}p{host}", self.tag)
    }

    fn space(&self, host: u32) -> String {
        format!("{}h{host}", self.tag)
    }

    /// The address of a host.
    pub fn address(&self, host: u32) -> String {
        format!("{}.{host}", self.net)
    }

    /// The server will run on this host, and be reached there.
    pub fn place(&self, server: &mut Server, host: u32) {
        server.wrap(&["ip", "netns", "exec", &self.space(host)]);
        server.listen_on(&format!("{}:8080", self.address(host)));
        server.set("BALLAST_CLUSTER_LISTEN", &format!("{}:8081", self.address(host)));
    }

    /// A program on a host.
    pub fn command(&self, host: u32, program: &Command) -> Command {
        let mut inside = Command::new("ip");
        inside.args(["netns", "exec", &self.space(host)]);
        inside.arg(program.get_program()).args(program.get_args());
        for (name, value) in program.get_envs() {
            match value {
                Some(value) => inside.env(name, value),
                None => inside.env_remove(name),
            };
        }
        inside
    }

    /// Bytes that a host has put on its link.
    pub fn sent(&self, host: u32) -> Result<u64> {
        let path = format!("/sys/class/net/{}/statistics/rx_bytes", self.port(host));
        let text = fs::read_to_string(&path).with_context(|| path.clone())?;
        Ok(text.trim().parse()?)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for host in 1..=self.hosts {
            // Its end of the link goes with it.
            let _ = ip(&format!("netns delete {}", self.space(host)));
        }
        let _ = ip(&format!("link delete {}", self.bridge()));
    }
}

fn ip(words: &str) -> Result<()> {
    run("ip", words)
}

fn run(program: &str, words: &str) -> Result<()> {
    let ran = Command::new(program).args(words.split(' ')).output();
    let ran = ran.with_context(|| format!("`{program}` of iproute2 must be installed"))?;
    let said = String::from_utf8_lossy(&ran.stderr);
    ensure!(ran.status.success(), "`{program} {words}`: {said}");
    Ok(())
}
