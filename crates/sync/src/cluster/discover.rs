//! Peers on the local network, found by multicast (mDNS, `_ballast._tcp.local`).
//!
//! What is found is a hint: an address at which somebody says that a peer of this name is. Whoever
//! connects there believes the certificate and nothing else. Nothing is sent but multicast, and the
//! cluster is told as a hash, so that its name is no one else's business.
//!
//! Everybody announces itself and answers, but looks for others only when it needs them. Whoever
//! looks asks again and again after each of the others, and each hears every question and every
//! answer: with all looking all the time, hosts that do nothing else would be busy with that.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ballast_node::worker::Runner;
use ballast_store::env::SharedEnv;
use mdns_sd::{Receiver, ResolvedService, ServiceDaemon, ServiceEvent, ServiceInfo};
use tokio::sync::Notify;

use super::{ClusterId, Error, PeerName, PeerRole, Result};

/// What is announced and looked for.
const SERVICE: &str = "_ballast._tcp.local.";
/// The port of mDNS.
const PORT: u16 = 5353;
/// How often it is looked what addresses this host has: those of servers hardly change.
const LOOKED_THROUGH_SECONDS: u32 = 60;
/// How long others are looked for when they are needed: long enough that one is heard whose first
/// answers are lost.
const LOOKS_FOR: Duration = Duration::from_secs(20);
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
    /// Who may be where, as far as it is known, in the order of names.
    fn hints(&self) -> Vec<Hint>;

    /// Somebody is needed: for a while, hints come of who is there now.
    fn look(&self);
}

/// What was found so far. All clones share it; one that was not started finds nobody.
#[derive(Clone, Default)]
pub struct Discovery(Arc<Shared>);

#[derive(Default)]
struct Shared {
    found: Mutex<HashMap<String, Hint>>,
    needed: Notify,
}

impl fmt::Debug for Discovery {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Discovery({})", self.found().len())
    }
}

impl Discovery {
    /// Announces this process, whose peers reach it at `port`, and looks for others of its cluster
    /// when they are needed, until the runner stops.
    pub fn start(
        cluster: &ClusterId,
        name: &PeerName,
        port: u16,
        (env, runner): (&SharedEnv, &Runner),
    ) -> Result<Self> {
        let us = Announced { cluster: tag(&[cluster.as_str()]), name: name.clone(), port };
        Self::start_on(PORT, us, (env, runner))
    }

    fn start_on(
        multicast: u16,
        us: Announced,
        (env, runner): (&SharedEnv, &Runner),
    ) -> Result<Self> {
        let failed = |error| Error::unusable("mDNS", error);
        let daemon = ServiceDaemon::new_with_port(multicast).map_err(failed)?;
        daemon.set_ip_check_interval(LOOKED_THROUGH_SECONDS).map_err(failed)?;
        daemon.register(us.service().map_err(failed)?).map_err(failed)?;
        let (found, stop) = (Self::default(), runner.stopping());
        let (hints, env) = (found.clone(), Arc::clone(env));
        runner.spawn("discovery", async move {
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = hints.look_when_needed(&us, &daemon, &env) => {}
            }
            // Says good-bye, so that nobody looks for us.
            if let Ok(done) = daemon.shutdown() {
                let _ = done.recv_async().await;
            }
        });
        Ok(found)
    }

    async fn look_when_needed(&self, us: &Announced, daemon: &ServiceDaemon, env: &SharedEnv) {
        loop {
            self.0.needed.notified().await;
            match daemon.browse(SERVICE) {
                Ok(events) => self.look_now(us, &events, env).await,
                Err(mdns_sd::Error::Again) => continue,
                Err(error) => return tracing::info!(%error, "the local network is not searched"),
            }
            // Should it be too busy to hear this, it stops when it finds that nobody listens.
            let _ = daemon.stop_browse(SERVICE);
        }
    }

    /// Learns who is there, until nobody has been needed for a while.
    async fn look_now(&self, us: &Announced, events: &Receiver<ServiceEvent>, env: &SharedEnv) {
        let mut heard = HashSet::new();
        let mut over = pin!(env.sleep(LOOKS_FOR));
        loop {
            let event = tokio::select! {
                biased;
                () = self.0.needed.notified() => {
                    over.set(env.sleep(LOOKS_FOR));
                    continue;
                }
                () = &mut over => break,
                event = events.recv_async() => event,
            };
            match event {
                Ok(ServiceEvent::ServiceResolved(service)) => {
                    if self.learn(us, &service) {
                        heard.insert(service.get_fullname().to_owned());
                    }
                }
                Ok(ServiceEvent::ServiceRemoved(_, name)) => drop(self.found().remove(&name)),
                Ok(_) => {}
                Err(_) => break,
            }
        }
        // Whoever was found another time and said nothing now is not there any more.
        self.found().retain(|name, _| heard.contains(name));
    }

    /// Whether it is one of ours and is remembered.
    fn learn(&self, us: &Announced, service: &ResolvedService) -> bool {
        let Some(hint) = us.read(service) else { return false };
        let mut found = self.found();
        let is_kept = found.len() < MOST_FOUND || found.contains_key(service.get_fullname());
        if is_kept {
            found.insert(service.get_fullname().to_owned(), hint);
        }
        is_kept
    }

    fn found(&self) -> MutexGuard<'_, HashMap<String, Hint>> {
        self.0.found.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Hints for Discovery {
    fn hints(&self) -> Vec<Hint> {
        let mut hints: Vec<Hint> = self.found().values().cloned().collect();
        hints.sort_by(|a, b| a.name.cmp(&b.name));
        hints
    }

    fn look(&self) {
        self.0.needed.notify_one();
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
    use ballast_store::env::RealEnv;
    use ballast_testkit::clock::SimEnv;

    use super::*;

    fn cluster(byte: u8) -> ClusterId {
        ClusterId::of(&super::super::PeerKey::from_bytes([byte; 32]))
    }

    /// Processes of this machine that hear each other and nobody else.
    struct Lan {
        multicast: u16,
        env: Arc<SimEnv>,
    }

    impl Lan {
        /// On a port of its own: other programs of this machine may speak mDNS too.
        fn new(number: u32) -> Self {
            let port = 20_000 + (2 * std::process::id() + number) % 20_000;
            Self { multicast: u16::try_from(port).expect("small"), env: SimEnv::new(1) }
        }

        fn start(&self, cluster: &ClusterId, name: &str, port: u16) -> (Discovery, Runner) {
            let name = PeerName::parse(name).expect("a name");
            let us = Announced { cluster: tag(&[cluster.as_str()]), name, port };
            let (env, runner) = (Arc::clone(&self.env) as SharedEnv, Runner::new());
            let found = Discovery::start_on(self.multicast, us, (&env, &runner));
            (found.expect("multicast"), runner)
        }
    }

    async fn stop(runner: Runner) {
        assert!(runner.stop(&RealEnv::new(), Duration::from_secs(10)).await);
    }

    async fn until(is_so: impl Fn() -> bool) {
        while !is_so() {
            tokio::task::yield_now().await;
        }
    }

    /// Whether this one is found, and nobody else.
    fn is_found(found: &Discovery, name: &str, port: u16) -> bool {
        match found.hints().as_slice() {
            [hint] => {
                assert_eq!(hint.name.as_str(), name);
                assert!(hint.addresses.iter().all(|address| address.port() == port));
                !hint.addresses.is_empty()
            }
            hints => {
                assert!(hints.is_empty(), "{hints:?}");
                false
            }
        }
    }

    #[tokio::test]
    async fn peers_of_a_cluster_find_each_other_and_nobody_else() {
        let lan = Lan::new(0);
        let (ours, theirs) = (cluster(1), cluster(2));
        let (one, first) = lan.start(&ours, "gpu-1", 1001);
        let (two, second) = lan.start(&ours, "gpu-2", 1002);
        let (other, third) = lan.start(&theirs, "gpu-1", 1003);
        for looks in [&one, &two, &other] {
            looks.look();
        }
        until(|| is_found(&one, "gpu-2", 1002) && is_found(&two, "gpu-1", 1001)).await;
        assert_eq!(other.hints(), []);
        // Who stops says so.
        stop(second).await;
        until(|| one.hints().is_empty()).await;
        stop(first).await;
        stop(third).await;
    }

    #[tokio::test]
    async fn who_needs_nobody_does_not_look_and_is_found() {
        let (lan, ours) = (Lan::new(1), cluster(1));
        let (one, first) = lan.start(&ours, "gpu-1", 1001);
        let (two, second) = lan.start(&ours, "gpu-2", 1002);
        one.look();
        until(|| is_found(&one, "gpu-2", 1002)).await;
        assert_eq!(two.hints(), [], "it heard the announcements, and did not ask");
        // What was found stays; whoever has gone is forgotten after the next time.
        until(|| lan.env.sleepers() == 1).await;
        lan.env.advance(LOOKS_FOR);
        until(|| lan.env.sleepers() == 0).await;
        stop(second).await;
        assert!(is_found(&one, "gpu-2", 1002));
        one.look();
        until(|| lan.env.sleepers() == 1).await;
        lan.env.advance(LOOKS_FOR);
        until(|| one.hints().is_empty()).await;
        stop(first).await;
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
