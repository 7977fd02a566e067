//! Peers on the local network, found by multicast (mDNS, `_ballast._tcp.local`).
//!
//! What is found is a hint: an address at which somebody says that a peer of this name is. Whoever
//! connects there believes the certificate and nothing else. Nothing is sent but multicast, and the
//! cluster is told as a hash, so that its name is no one else's business.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ballast_node::worker::Runner;
use mdns_sd::{Receiver, ResolvedService, ServiceDaemon, ServiceEvent, ServiceInfo};

use super::{ClusterId, Error, PeerName, PeerRole, Result};

/// What is announced and looked for.
const SERVICE: &str = "_ballast._tcp.local.";
/// The port of mDNS.
const PORT: u16 = 5353;
/// How often it is looked what addresses this host has: those of servers hardly change.
const LOOKED_THROUGH_SECONDS: u32 = 60;
/// Peers that are remembered: anybody on the network may announce as many as they like.
const MOST_FOUND: usize = 1024;
/// Addresses of one peer that are remembered.
const MOST_ADDRESSES: usize = 8;
/// Hexadecimal digits of what tells clusters and processes apart.
const TAG_DIGITS: usize = 32;

/// Who may be where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hint {
    /// Who they say they are.
    pub name: PeerName,
    /// Where.
    pub addresses: Vec<SocketAddr>,
}

/// Who knows of peers without asking the hub.
pub trait Hints: Send + Sync + 'static {
    /// Who may be where, in the order of names.
    fn hints(&self) -> Vec<Hint>;
}

/// What was found so far. All clones share it; one that was not started finds nobody.
#[derive(Clone, Default)]
pub struct Discovery(Arc<Mutex<HashMap<String, Hint>>>);

impl fmt::Debug for Discovery {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Discovery({})", self.found().len())
    }
}

impl Discovery {
    /// Announces this process, whose peers reach it at `port`, and looks for others of its cluster,
    /// until the runner stops.
    pub fn start(cluster: &ClusterId, name: &PeerName, port: u16, runner: &Runner) -> Result<Self> {
        Self::start_on(PORT, cluster, name, port, runner)
    }

    fn start_on(
        multicast: u16,
        cluster: &ClusterId,
        name: &PeerName,
        port: u16,
        runner: &Runner,
    ) -> Result<Self> {
        let failed = |error| Error::unusable("mDNS", error);
        let daemon = ServiceDaemon::new_with_port(multicast).map_err(failed)?;
        daemon.set_ip_check_interval(LOOKED_THROUGH_SECONDS).map_err(failed)?;
        let us = Announced { cluster: tag(&[cluster.as_str()]), name: name.clone(), port };
        daemon.register(us.service().map_err(failed)?).map_err(failed)?;
        let events = daemon.browse(SERVICE).map_err(failed)?;
        let (found, stop) = (Self::default(), runner.stopping());
        let hints = found.clone();
        runner.spawn("discovery", async move {
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = hints.follow(&us, &events) => {}
            }
            // Says good-bye, so that nobody looks for us.
            if let Ok(done) = daemon.shutdown() {
                let _ = done.recv_async().await;
            }
        });
        Ok(found)
    }

    async fn follow(&self, us: &Announced, events: &Receiver<ServiceEvent>) {
        while let Ok(event) = events.recv_async().await {
            match event {
                ServiceEvent::ServiceResolved(service) => self.learn(us, &service),
                ServiceEvent::ServiceRemoved(_, name) => drop(self.found().remove(&name)),
                _ => {}
            }
        }
        tracing::info!("peers are not looked for on the local network any more");
    }

    fn learn(&self, us: &Announced, service: &ResolvedService) {
        let Some(hint) = us.read(service) else { return };
        let mut found = self.found();
        if found.len() < MOST_FOUND || found.contains_key(service.get_fullname()) {
            found.insert(service.get_fullname().to_owned(), hint);
        }
    }

    fn found(&self) -> MutexGuard<'_, HashMap<String, Hint>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Hints for Discovery {
    fn hints(&self) -> Vec<Hint> {
        let mut hints: Vec<Hint> = self.found().values().cloned().collect();
        hints.sort_by(|a, b| a.name.cmp(&b.name));
        hints
    }
}

/// What a process says of itself.
struct Announced {
    cluster: String,
    name: PeerName,
    port: u16,
}

impl Announced {
    fn service(&self) -> mdns_sd::Result<ServiceInfo> {
        // No two processes of all clusters are called the same, whatever their names are.
        let label = tag(&[&self.cluster, self.name.role().as_str(), self.name.as_str()]);
        let properties = [
            ("cluster", self.cluster.as_str()),
            ("role", self.name.role().as_str()),
            ("name", self.name.as_str()),
        ];
        let host = format!("{label}.local.");
        let service = ServiceInfo::new(SERVICE, &label, &host, "", self.port, &properties[..])?;
        Ok(service.enable_addr_auto())
    }

    /// What another says of itself, if it is of our cluster and makes sense.
    fn read(&self, service: &ResolvedService) -> Option<Hint> {
        let said = |key| service.get_property_val_str(key);
        let name = PeerName::new(PeerRole::parse(said("role")?)?, said("name")?)?;
        if said("cluster")? != self.cluster || name == self.name || service.get_port() == 0 {
            return None;
        }
        let ips = service.get_addresses().iter().map(mdns_sd::ScopedIp::to_ip_addr);
        let mut ips: Vec<IpAddr> = ips.filter(|ip| is_of_use(*ip)).collect();
        // One's own host last: it is another's own, too.
        ips.sort_unstable_by_key(|ip| (ip.is_loopback(), *ip));
        ips.truncate(MOST_ADDRESSES);
        let addresses = ips.into_iter().map(|ip| SocketAddr::new(ip, service.get_port()));
        Some(Hint { name, addresses: addresses.collect() })
    }
}

/// Link-local addresses are of use only with an interface, which others do not know.
fn is_of_use(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => !ip.is_unspecified() && !ip.is_multicast() && !ip.is_link_local(),
        IpAddr::V6(ip) => !ip.is_unspecified() && !ip.is_multicast() && !ip.is_unicast_link_local(),
    }
}

/// What stands for these words, and does not tell them.
fn tag(words: &[&str]) -> String {
    let mut hasher = blake3::Hasher::new_derive_key("ballast 2026-11 name on the local network");
    for word in words {
        hasher.update(word.as_bytes());
        hasher.update(&[0]);
    }
    let mut text = hasher.finalize().to_hex().to_string();
    text.truncate(TAG_DIGITS);
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ballast_store::env::RealEnv;

    use super::*;

    fn cluster(byte: u8) -> ClusterId {
        ClusterId::of(&super::super::PeerKey::from_bytes([byte; 32]))
    }

    fn start(multicast: u16, cluster: &ClusterId, name: &str, port: u16) -> (Discovery, Runner) {
        let (name, runner) = (PeerName::parse(name).expect("a name"), Runner::new());
        let found = Discovery::start_on(multicast, cluster, &name, port, &runner);
        (found.expect("multicast"), runner)
    }

    #[tokio::test]
    async fn peers_of_a_cluster_find_each_other_and_nobody_else() {
        // A port of our own: other programs of this machine may speak mDNS too.
        let multicast = 20_000 + u16::try_from(std::process::id() % 10_000).expect("small");
        let (ours, theirs) = (cluster(1), cluster(2));
        let (one, first) = start(multicast, &ours, "gpu-1", 1001);
        let (two, second) = start(multicast, &ours, "gpu-2", 1002);
        let (other, third) = start(multicast, &theirs, "gpu-1", 1003);
        let is_found = |found: &Discovery, name: &str, port: u16| match found.hints().as_slice() {
            [hint] => {
                assert_eq!(hint.name.as_str(), name);
                assert!(hint.addresses.iter().all(|address| address.port() == port));
                !hint.addresses.is_empty()
            }
            hints => {
                assert!(hints.is_empty(), "{hints:?}");
                false
            }
        };
        while !is_found(&one, "gpu-2", 1002) || !is_found(&two, "gpu-1", 1001) {
            tokio::task::yield_now().await;
        }
        assert_eq!(other.hints(), []);
        // Who stops says so.
        let env = RealEnv::new();
        assert!(second.stop(&env, Duration::from_secs(10)).await);
        while !one.hints().is_empty() {
            tokio::task::yield_now().await;
        }
        for runner in [first, third] {
            assert!(runner.stop(&env, Duration::from_secs(10)).await);
        }
    }

    #[test]
    fn what_is_announced_does_not_tell_the_cluster() {
        let name = PeerName::parse("gpu-1").expect("a name");
        let us = Announced { cluster: tag(&[cluster(1).as_str()]), name, port: 1 };
        let service = us.service().expect("it fits");
        assert!(!format!("{service:?}").contains(cluster(1).as_str()));
        let longest = PeerName::parse(&"x".repeat(63)).expect("a name");
        let us = Announced { name: longest, ..us };
        us.service().expect("the longest fits");
    }

    #[test]
    fn addresses_of_no_use_are_left_out() {
        for (ip, is_good) in [
            ("10.0.0.1", true),
            ("127.0.0.1", true),
            ("0.0.0.0", false),
            ("224.0.0.1", false),
            ("169.254.0.1", false),
            ("fe80::1", false),
            ("fd00::1", true),
        ] {
            assert_eq!(is_of_use(ip.parse().expect("an address")), is_good, "{ip}");
        }
    }
}
