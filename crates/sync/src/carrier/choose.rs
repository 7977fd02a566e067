//! Which carrier leads to which peer, and the links that are kept.
//!
//! TCP costs a quarter to four tenths of QUIC's CPU, so it leads to peers that are near. On a long
//! path each of its connections begins anew, with two round trips for its handshakes and a window
//! of ten packets; QUIC has one for all calls, which is in use one round trip after its first
//! packet. To peers that may be far both are tried at once, and what answers says how long it is.
//! What has worked for a peer is tried first the next time, and the other one if that fails.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::pin::pin;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use ballast_store::env::SharedEnv;

use super::quic::is_near;
use super::shared::Shared;
use super::{Carrier, Distance, Error, Link, Result};
use crate::cluster::PeerName;

/// A link that nobody uses for so long is closed.
const KEPT_FOR: Duration = Duration::from_mins(5);
/// How often links are looked through.
const ROUND: Duration = Duration::from_mins(1);
/// Peers that are known at once; whoever is not used is forgotten.
const MOST_PEERS: usize = 4096;
/// The first carrier has so long to connect, before the other is tried.
const FIRST_TAKES: Duration = Duration::from_secs(2);
/// A path is long from this round trip on.
pub const QUIC_FROM: Duration = Duration::from_millis(50);

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

/// A link, and what leads there.
type Reached = (Arc<dyn Link>, Kind);

/// All ways to peers.
pub struct Carriers {
    env: SharedEnv,
    tcp: Arc<dyn Carrier>,
    quic: Arc<dyn Carrier>,
    choice: Choice,
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
    fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Quic => "quic",
        }
    }

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
        let (env, peers) = (SharedEnv::clone(&shared.env), Mutex::default());
        let carriers = Arc::new(Self { env, tcp, quic, choice, peers });
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

    async fn reach(
        &self,
        address: SocketAddr,
        peer: &PeerName,
        works: Option<Kind>,
        distance: Distance,
    ) -> Result<Reached> {
        match (self.choice, works) {
            (Choice::Quic, _) => self.reach_by(Kind::Quic, address, peer).await,
            (Choice::Tcp, _) => self.reach_by(Kind::Tcp, address, peer).await,
            (Choice::Auto, None) if distance == Distance::Unknown && !is_near(address.ip()) => {
                self.explore(address, peer).await
            }
            (Choice::Auto, works) => {
                let first = works.unwrap_or(Kind::Tcp);
                let tried = self.within(FIRST_TAKES, self.reach_by(first, address, peer)).await;
                let reached = match tried {
                    // What answers under another name does so whatever the carrier.
                    None | Some(Err(Error::Unreachable { .. })) => {
                        return self.reach_by(first.other(), address, peer).await;
                    }
                    Some(tried) => tried?,
                };
                if works.is_none() && distance == Distance::Unknown && is_long(&reached) {
                    // UDP may be blocked; TCP is not.
                    let by_quic = self.reach_by(Kind::Quic, address, peer).await;
                    return Ok(by_quic.unwrap_or(reached));
                }
                Ok(reached)
            }
        }
    }

    /// Tries both ways at once to a peer that may be far.
    async fn explore(&self, address: SocketAddr, peer: &PeerName) -> Result<Reached> {
        let began = self.env.monotonic();
        let mut tcp = pin!(self.reach_by(Kind::Tcp, address, peer));
        let mut quic = pin!(self.reach_by(Kind::Quic, address, peer));
        tokio::select! {
            biased;
            tried = &mut quic => match tried {
                Ok(reached) if is_long(&reached) => Ok(reached),
                Ok(reached) => {
                    let by_tcp = self.within(FIRST_TAKES, tcp).await;
                    Ok(by_tcp.and_then(Result::ok).unwrap_or(reached))
                }
                Err(error @ Error::Unreachable { .. }) => {
                    self.within(FIRST_TAKES, tcp).await.unwrap_or(Err(error))
                }
                Err(error) => Err(error),
            },
            tried = &mut tcp => match tried {
                Ok(reached) if is_long(&reached) => {
                    // QUIC needs half the time, unless something was lost, or UDP is blocked.
                    let took = self.env.monotonic().saturating_sub(began);
                    let by_quic = self.within(took, quic).await;
                    Ok(by_quic.and_then(Result::ok).unwrap_or(reached))
                }
                Err(Error::Unreachable { .. }) => quic.await,
                tried => tried,
            },
        }
    }

    /// The outcome, if it comes in time: what is blocked often does not say so.
    async fn within(
        &self,
        limit: Duration,
        tried: impl Future<Output = Result<Reached>>,
    ) -> Option<Result<Reached>> {
        tokio::select! {
            biased;
            tried = tried => Some(tried),
            () = self.env.sleep(limit) => None,
        }
    }

    async fn reach_by(&self, kind: Kind, address: SocketAddr, peer: &PeerName) -> Result<Reached> {
        let carrier = match kind {
            Kind::Tcp => &self.tcp,
            Kind::Quic => &self.quic,
        };
        Ok((carrier.connect(address, peer, Distance::Unknown).await?, kind))
    }

    /// How many peers are called now by which carrier.
    pub fn called(&self) -> [(&'static str, u64); 2] {
        let peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        // Whom somebody connects to at the moment is not called yet.
        let known = peers.values().filter_map(|peer| peer.known.try_lock().ok());
        let open = known.filter(|known| known.link.as_ref().is_some_and(|link| link.is_open()));
        let kinds: Vec<Kind> = open.filter_map(|known| Some(known.works?.1)).collect();
        [Kind::Tcp, Kind::Quic].map(|kind| {
            let count = kinds.iter().filter(|other| **other == kind).count();
            (kind.name(), count as u64)
        })
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

    /// The link that is kept, if it is open, or a new one, which knows nothing of permits that were
    /// shown before.
    async fn connect(
        &self,
        address: SocketAddr,
        peer: &PeerName,
        distance: Distance,
    ) -> Result<Arc<dyn Link>> {
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
        let (link, kind) = self.reach(address, peer, works, distance).await?;
        known.works = Some((address, kind));
        known.link = Some(Arc::clone(&link));
        Ok(link)
    }
}

fn is_long((link, _): &Reached) -> bool {
    link.round_trip() >= QUIC_FROM
}

#[cfg(test)]
mod tests;
