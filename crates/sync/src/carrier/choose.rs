//! Which carrier leads to which peer, and the links that are kept.
//!
//! TCP costs a quarter to four tenths of QUIC's CPU, and where the kernel has BBR it goes on
//! through loss that stops QUIC's CUBIC: so it comes first. QUIC is for peers that TCP does not
//! reach, and for long paths on which TCP would have no more than CUBIC either, where one
//! connection with its windows is better than several. What has worked for a peer is tried first
//! the next time.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use ballast_store::env::SharedEnv;

use super::quic::is_near;
use super::shared::Shared;
use super::{Carrier, Error, Link, Result};
use crate::cluster::PeerName;

/// A link that nobody uses for so long is closed.
const KEPT_FOR: Duration = Duration::from_mins(5);
/// How often links are looked through.
const ROUND: Duration = Duration::from_mins(1);
/// Peers that are known at once; whoever is not used is forgotten.
const MOST_PEERS: usize = 4096;
/// The first carrier has so long to connect, before the other is tried.
const FIRST_TAKES: Duration = Duration::from_secs(2);
/// A path is long if a connection, two round trips and a handshake's arithmetic, takes so long.
const FAR_CONNECT: Duration = Duration::from_millis(40);

/// How the carrier is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// For each peer, by the path to it.
    #[default]
    Auto,
    /// QUIC, and nothing else.
    Quic,
    /// TCP, and nothing else.
    Tcp,
}

impl FromStr for Choice {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "quic" => Ok(Self::Quic),
            "tcp" => Ok(Self::Tcp),
            other => Err(format!("`{other}` is no carrier; hint: `auto`, `quic` or `tcp`")),
        }
    }
}

/// All ways to peers.
pub struct Carriers {
    env: SharedEnv,
    tcp: Arc<dyn Carrier>,
    quic: Arc<dyn Carrier>,
    choice: Choice,
    /// Whether the kernel's TCP goes on through loss.
    tcp_bears_loss: bool,
    peers: Mutex<HashMap<PeerName, Arc<Peer>>>,
}

/// A peer. Whoever connects holds the lock, and the others wait for what comes of it.
#[derive(Default)]
struct Peer {
    known: tokio::sync::Mutex<Known>,
}

#[derive(Default)]
struct Known {
    /// What has worked, where.
    works: Option<(SocketAddr, Kind)>,
    link: Option<Arc<dyn Link>>,
    used_at: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Tcp,
    Quic,
}

impl Kind {
    fn other(self) -> Self {
        match self {
            Self::Tcp => Self::Quic,
            Self::Quic => Self::Tcp,
        }
    }
}

impl Carriers {
    /// Both carriers, and which may be used.
    pub fn new(
        shared: &Shared,
        tcp: Arc<dyn Carrier>,
        quic: Arc<dyn Carrier>,
        choice: Choice,
    ) -> Arc<Self> {
        Self::with(shared, tcp, quic, choice, kernel_has_bbr())
    }

    fn with(
        shared: &Shared,
        tcp: Arc<dyn Carrier>,
        quic: Arc<dyn Carrier>,
        choice: Choice,
        tcp_bears_loss: bool,
    ) -> Arc<Self> {
        let (env, peers) = (SharedEnv::clone(&shared.env), Mutex::default());
        let carriers = Arc::new(Self { env, tcp, quic, choice, tcp_bears_loss, peers });
        let (weak, env) = (Arc::downgrade(&carriers), SharedEnv::clone(&shared.env));
        let stopping = shared.runner.stopping();
        shared.runner.spawn("links", async move {
            loop {
                tokio::select! {
                    biased;
                    () = stopping.cancelled() => return,
                    () = env.sleep(ROUND) => {}
                }
                let Some(carriers) = weak.upgrade() else { return };
                carriers.look_through();
            }
        });
        carriers
    }

    /// A link to a peer: the one that is kept, if it is open, or a new one. A new one knows nothing
    /// of permits that were shown before.
    pub async fn link(&self, address: SocketAddr, peer: &PeerName) -> Result<Arc<dyn Link>> {
        let entry = {
            let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
            if peers.len() >= MOST_PEERS {
                peers.retain(|_, peer| Arc::strong_count(peer) > 1);
            }
            Arc::clone(peers.entry(peer.clone()).or_default())
        };
        let mut known = entry.known.lock().await;
        known.used_at = self.env.monotonic();
        if let Some(link) = known.link.as_ref().filter(|link| link.is_open()) {
            return Ok(Arc::clone(link));
        }
        known.link = None;
        let works = known.works.filter(|(there, _)| *there == address).map(|(_, kind)| kind);
        let (link, kind) = self.reach(address, peer, works).await?;
        known.works = Some((address, kind));
        known.link = Some(Arc::clone(&link));
        Ok(link)
    }

    async fn reach(
        &self,
        address: SocketAddr,
        peer: &PeerName,
        works: Option<Kind>,
    ) -> Result<(Arc<dyn Link>, Kind)> {
        match self.choice {
            Choice::Quic => return self.reach_by(Kind::Quic, address, peer).await,
            Choice::Tcp => return self.reach_by(Kind::Tcp, address, peer).await,
            Choice::Auto => {}
        }
        let (first, began) = (works.unwrap_or(Kind::Tcp), self.env.monotonic());
        // What is blocked often does not say so.
        let tried = tokio::select! {
            biased;
            tried = self.reach_by(first, address, peer) => tried,
            () = self.env.sleep(FIRST_TAKES) => {
                let reason = format!("{address} does not answer");
                Err(Error::Unreachable { peer: peer.to_string(), reason })
            }
        };
        let connected = match tried {
            // What answers under another name does so whatever the carrier.
            Err(Error::Unreachable { .. }) => {
                return self.reach_by(first.other(), address, peer).await;
            }
            other => other?,
        };
        let took = self.env.monotonic().saturating_sub(began);
        let is_far = !is_near(address.ip()) && took >= FAR_CONNECT;
        if works.is_none() && is_far && !self.tcp_bears_loss {
            // UDP may be blocked; TCP is not.
            let by_quic = self.reach_by(Kind::Quic, address, peer).await;
            return Ok(by_quic.unwrap_or(connected));
        }
        Ok(connected)
    }

    async fn reach_by(
        &self,
        kind: Kind,
        address: SocketAddr,
        peer: &PeerName,
    ) -> Result<(Arc<dyn Link>, Kind)> {
        let carrier = match kind {
            Kind::Tcp => &self.tcp,
            Kind::Quic => &self.quic,
        };
        Ok((carrier.connect(address, peer).await?, kind))
    }

    /// Closes links that nobody has used for long. What has worked is remembered.
    fn look_through(&self) {
        let now = self.env.monotonic();
        let peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        for peer in peers.values() {
            // Somebody who connects at the moment uses it.
            let Ok(mut known) = peer.known.try_lock() else { continue };
            let is_old = now.saturating_sub(known.used_at) >= KEPT_FOR;
            known.link.take_if(|link| !link.is_open() || (is_old && Arc::strong_count(link) == 1));
        }
    }
}

#[async_trait]
impl Carrier for Carriers {
    fn name(&self) -> &'static str {
        "auto"
    }

    /// The same as [`link`](Self::link): a link that is open is not made again.
    async fn connect(&self, address: SocketAddr, peer: &PeerName) -> Result<Arc<dyn Link>> {
        self.link(address, peer).await
    }
}

/// Whether the kernel sends by BBR. What counts is the peer's kernel, which sends; hosts of one
/// cluster are most likely set up alike.
fn kernel_has_bbr() -> bool {
    let name = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_congestion_control");
    name.is_ok_and(|name| name.trim().starts_with("bbr"))
}

#[cfg(test)]
mod tests;
