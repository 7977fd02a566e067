//! Links to the hub and to peers, and whom not to believe.
//!
//! A link is kept for whoever needs it next, with what was shown over it. Whoever sends a wrong
//! chunk loses the link at once, and after three of them is not asked again for an hour.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ballast_format::hash::Sha256;
use ballast_store::env::SharedEnv;
use bytes::Bytes;

use crate::carrier::{Carrier, Distance, Error, Link, Result};
use crate::cluster::PeerName;

/// How long connecting may take.
const CONNECTING_TAKES: Duration = Duration::from_secs(4);
/// Wrong chunks that a peer may send before it is shut out.
const MOST_LIES: u32 = 3;
/// How long it is shut out, and wrong chunks are remembered.
const SHUT_OUT_FOR: Duration = Duration::from_hours(1);
/// Links that are kept.
const MOST_LINKS: usize = 256;
/// How long a link is kept that nobody uses.
const KEPT_FOR: Duration = Duration::from_mins(2);

/// Whom chunks are asked of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Who {
    /// Its name.
    pub name: PeerName,
    /// Where it is.
    pub address: SocketAddr,
    /// Whether it is the hub.
    pub is_hub: bool,
    /// Whether it is a node of the same site.
    pub is_near: bool,
}

/// What is shown to whoever is asked for a file's chunks.
#[derive(Clone, Debug)]
pub struct Pass {
    /// The file.
    pub sha256: Sha256,
    /// What the hub signed.
    pub permits: Vec<Bytes>,
    /// Until when that is good, in unix milliseconds.
    pub until_ms: u64,
}

/// All peers of a node.
pub struct Peers {
    carrier: Arc<dyn Carrier>,
    env: SharedEnv,
    links: Mutex<HashMap<(PeerName, SocketAddr), Arc<Slot>>>,
    lies: Mutex<HashMap<PeerName, Lies>>,
}

#[derive(Default)]
struct Slot {
    kept: tokio::sync::Mutex<Option<Kept>>,
    used: Mutex<Duration>,
}

/// A link, and what was shown over it.
struct Kept {
    link: Arc<dyn Link>,
    shown: HashSet<(Sha256, u64)>,
}

struct Lies {
    count: u32,
    until: Duration,
}

impl Peers {
    /// Nobody is connected yet.
    pub fn new(carrier: Arc<dyn Carrier>, env: SharedEnv) -> Arc<Self> {
        Arc::new(Self { carrier, env, links: Mutex::default(), lies: Mutex::default() })
    }

    /// A link over which a file's chunks may be asked for.
    pub async fn link(&self, who: &Who, pass: &Pass) -> Result<Arc<dyn Link>> {
        if self.is_shut_out(&who.name) {
            let peer = who.name.to_string();
            return Err(Error::Unreachable { peer, reason: "it sent wrong bytes".to_owned() });
        }
        let slot = self.slot(who);
        let mut kept = slot.kept.lock().await;
        if kept.as_ref().is_some_and(|kept| !kept.link.is_open()) {
            *kept = None;
        }
        let mut open = match kept.take() {
            Some(open) => open,
            None => Kept { link: self.connect(who).await?, shown: HashSet::new() },
        };
        if open.shown.insert((pass.sha256, pass.until_ms)) {
            for permit in &pass.permits {
                open.link.show(permit.clone()).await?;
            }
        }
        let link = Arc::clone(&open.link);
        *kept = Some(open);
        Ok(link)
    }

    /// How long it takes until one who is connected hears something and can be heard.
    pub fn round_trip(&self, who: &Who) -> Duration {
        let slot = lock(&self.links).get(&(who.name.clone(), who.address)).cloned();
        let kept = slot.as_ref().and_then(|slot| slot.kept.try_lock().ok());
        let link = kept.as_ref().and_then(|kept| kept.as_ref());
        link.map_or(Duration::ZERO, |kept| kept.link.round_trip())
    }

    async fn connect(&self, who: &Who) -> Result<Arc<dyn Link>> {
        let distance = if who.is_near { Distance::Near } else { Distance::Unknown };
        tokio::select! {
            biased;
            link = self.carrier.connect(who.address, &who.name, distance) => link,
            () = self.env.sleep(CONNECTING_TAKES) => {
                let reason = format!("`{}` does not answer", who.address);
                Err(Error::Unreachable { peer: who.name.to_string(), reason })
            }
        }
    }

    fn slot(&self, who: &Who) -> Arc<Slot> {
        let now = self.env.monotonic();
        let mut links = lock(&self.links);
        if links.len() >= MOST_LINKS {
            let is_used = |slot: &mut Arc<Slot>| Arc::strong_count(slot) > 1;
            links.retain(|_, slot| is_used(slot));
        }
        let slot = links.entry((who.name.clone(), who.address)).or_default();
        *lock(&slot.used) = now;
        Arc::clone(slot)
    }

    /// A peer sent bytes that are not what they should be.
    pub fn lied(&self, who: &Who) {
        let now = self.env.monotonic();
        lock(&self.links).remove(&(who.name.clone(), who.address));
        if who.is_hub {
            tracing::error!(
                hub = %who.name,
                "the hub sent wrong bytes\nhint: run `ballast verify` there"
            );
            return;
        }
        let mut all = lock(&self.lies);
        all.retain(|_, lies| lies.until > now);
        let lies = all.entry(who.name.clone()).or_insert(Lies { count: 0, until: now });
        lies.count += 1;
        lies.until = now + SHUT_OUT_FOR;
        if lies.count == MOST_LIES {
            tracing::warn!(peer = %who.name, "sent wrong bytes again and again: shut out");
        }
    }

    /// Whether a peer is not to be asked.
    pub fn is_shut_out(&self, name: &PeerName) -> bool {
        let lies = lock(&self.lies);
        let lies = lies.get(name).filter(|lies| lies.until > self.env.monotonic());
        lies.is_some_and(|lies| lies.count >= MOST_LIES)
    }

    /// A link broke: the next one who needs it connects anew.
    pub fn broke(&self, who: &Who) {
        lock(&self.links).remove(&(who.name.clone(), who.address));
    }

    /// Lets go of links that nobody used lately. Once in a while, by whoever runs the node.
    pub fn let_go(&self) {
        let now = self.env.monotonic();
        lock(&self.links)
            .retain(|_, slot| Arc::strong_count(slot) > 1 || *lock(&slot.used) + KEPT_FOR > now);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
