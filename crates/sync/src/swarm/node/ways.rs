//! The ways to the hub and to peers, wherever they are now.
//!
//! A node knows its hub by a host name. What address that has is asked whenever a connection is
//! made anew, since a hub moves, and several gateways may share a name. What the hub is called that
//! answers there, and how far it is, the last connection over gRPC has told; else it is asked. A
//! peer that does not answer where the tracker says may be where it was found on the local network.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use crate::carrier::{Carrier, Distance, Error, Link, QUIC_FROM, Result};
use crate::cluster::{self, Hints, Member, PeerName, PeerRole, Sighting, look_up};

/// Addresses at which a peer is tried besides the one that was told.
const MOST_OTHERS: usize = 3;

/// Who knows where the hub is.
#[async_trait]
pub(super) trait FindHub: Send + Sync + 'static {
    /// All addresses that it has now.
    async fn addresses(&self) -> cluster::Result<Vec<SocketAddr>>;

    /// What it is called at one of them.
    async fn name_at(&self, address: SocketAddr) -> cluster::Result<PeerName>;

    /// Where it was found the last time.
    fn sighting(&self) -> Option<Sighting>;
}

#[async_trait]
impl FindHub for Member {
    async fn addresses(&self) -> cluster::Result<Vec<SocketAddr>> {
        look_up(&self.hub_address()).await
    }

    async fn name_at(&self, address: SocketAddr) -> cluster::Result<PeerName> {
        self.hub_at(address).await
    }

    fn sighting(&self) -> Option<Sighting> {
        Self::sighting(self)
    }
}

/// A carrier that finds whom it leads to.
pub(super) struct Ways {
    carrier: Arc<dyn Carrier>,
    hub: Arc<dyn FindHub>,
    hints: Arc<dyn Hints>,
    known: Mutex<Known>,
}

/// What is known of the hub's addresses.
#[derive(Default)]
struct Known {
    /// Where it was reached the last time, and what it is called there.
    works: Option<(SocketAddr, PeerName)>,
    /// Where it was tried the last time, if nothing came of that.
    tried: Option<SocketAddr>,
}

impl Ways {
    pub(super) fn new(
        carrier: Arc<dyn Carrier>,
        hub: Arc<dyn FindHub>,
        hints: Arc<dyn Hints>,
    ) -> Arc<Self> {
        Arc::new(Self { carrier, hub, hints, known: Mutex::default() })
    }

    async fn to_hub(&self) -> Result<Arc<dyn Link>> {
        let addresses = self.hub.addresses().await.map_err(|error| unreachable(&error))?;
        let mut ended = Err(unreachable(&"it has no address"));
        for address in self.in_order(addresses) {
            // Said before: whoever gives up at this one comes back to the next one.
            let before = self.known().tried.replace(address);
            ended = self.hub_at(address, before == Some(address)).await;
            if let Ok(link) = &ended {
                let works = Some((address, link.peer().clone()));
                *self.known() = Known { works, tried: None };
                break;
            }
            self.known().works.take_if(|(there, _)| *there == address);
        }
        ended
    }

    /// The hub at one of its addresses. It is asked for its name where it was `tried` in vain.
    async fn hub_at(&self, address: SocketAddr, tried: bool) -> Result<Arc<dyn Link>> {
        let seen = || self.hub.sighting().filter(|seen| seen.address == address);
        let works = self.known().works.clone().filter(|(there, _)| *there == address);
        let known = works.map(|(_, name)| name);
        let known = known.or_else(|| seen().filter(|_| !tried).map(|seen| seen.hub));
        let name = match known {
            Some(name) => name,
            None => self.hub.name_at(address).await.map_err(|error| unreachable(&error))?,
        };
        // Whoever was asked for its name has been seen, too.
        let is_far = seen().is_some_and(|seen| seen.round_trip >= QUIC_FROM);
        let distance = if is_far { Distance::Unknown } else { Distance::Near };
        self.carrier.connect(address, &name, distance).await.map_err(not_them)
    }

    /// The address that works first; else those behind the one that was tried in vain.
    fn in_order(&self, mut addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
        let known = self.known();
        let place = |wanted: &SocketAddr| addresses.iter().position(|one| one == wanted);
        let first = match (&known.tried, &known.works) {
            (Some(tried), _) => place(tried).map(|place| (place + 1) % addresses.len()),
            (None, Some((works, _))) => place(works),
            (None, None) => None,
        };
        addresses.rotate_left(first.unwrap_or(0));
        addresses
    }

    async fn to_peer(
        &self,
        address: SocketAddr,
        peer: &PeerName,
        distance: Distance,
    ) -> Result<Arc<dyn Link>> {
        let connected = self.carrier.connect(address, peer, distance).await;
        let failed = match connected.map_err(not_them) {
            Err(error @ Error::Unreachable { .. }) => error,
            ended => return ended,
        };
        let hint = self.hints.hints().into_iter().find(|hint| hint.name == *peer);
        let others = hint.into_iter().flat_map(|hint| hint.addresses);
        for other in others.filter(|other| *other != address).take(MOST_OTHERS) {
            if let Ok(link) = self.carrier.connect(other, peer, Distance::Near).await {
                return Ok(link);
            }
        }
        // Whoever tries again may find it.
        self.hints.look();
        Err(failed)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Carrier for Ways {
    fn name(&self) -> &'static str {
        self.carrier.name()
    }

    async fn connect(
        &self,
        address: SocketAddr,
        peer: &PeerName,
        distance: Distance,
    ) -> Result<Arc<dyn Link>> {
        match peer.role() {
            PeerRole::Hub => self.to_hub().await,
            PeerRole::Node | PeerRole::Region => self.to_peer(address, peer, distance).await,
        }
    }
}

fn unreachable(reason: &impl ToString) -> Error {
    Error::Unreachable { peer: "the hub".to_owned(), reason: reason.to_string() }
}

/// That another one answers at an address is no lie of whoever was meant: the address is old.
fn not_them(error: Error) -> Error {
    match error {
        Error::Lied { peer, reason } => Error::Unreachable { peer, reason },
        other => other,
    }
}

#[cfg(test)]
mod tests;
