use std::collections::HashMap;
use std::time::Duration;

use ballast_format::hash::XorbHash;
use bytes::Bytes;

use super::*;
use crate::carrier::{Arrivals, Request};
use crate::cluster::Hint;

/// Who answers where, and who was tried.
#[derive(Default)]
struct Net {
    there: Mutex<HashMap<SocketAddr, PeerName>>,
    tried: Mutex<Vec<SocketAddr>>,
    /// What the hub's host name leads to.
    hub: Mutex<Vec<SocketAddr>>,
    asked_names: Mutex<Vec<SocketAddr>>,
    /// Who was called as one that may be far.
    far: Mutex<Vec<SocketAddr>>,
    sighting: Mutex<Option<Sighting>>,
    hints: Vec<Hint>,
    looks: Mutex<u32>,
}

struct Open(PeerName);

#[async_trait]
impl Link for Open {
    fn peer(&self) -> &PeerName {
        &self.0
    }

    async fn show(&self, _: Bytes) -> Result<()> {
        Ok(())
    }

    async fn request(&self, _: Request) -> Result<Arrivals> {
        Err(Error::Invalid("nothing is asked".to_owned()))
    }

    async fn holdings(&self, _: &[XorbHash]) -> Result<Vec<Vec<std::ops::Range<u32>>>> {
        Ok(Vec::new())
    }

    fn is_open(&self) -> bool {
        true
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[async_trait]
impl Carrier for Net {
    fn name(&self) -> &'static str {
        "calls"
    }

    async fn connect(
        &self,
        address: SocketAddr,
        peer: &PeerName,
        distance: Distance,
    ) -> Result<Arc<dyn Link>> {
        lock(&self.tried).push(address);
        if distance == Distance::Unknown {
            lock(&self.far).push(address);
        }
        let (peer, there) = (peer.clone(), lock(&self.there).get(&address).cloned());
        match there {
            Some(there) if there == peer => Ok(Arc::new(Open(peer))),
            Some(there) => {
                let reason = format!("`{there}` answers");
                Err(Error::Lied { peer: peer.to_string(), reason })
            }
            None => Err(unreachable(&"nobody answers")),
        }
    }
}

#[async_trait]
impl FindHub for Net {
    async fn addresses(&self) -> cluster::Result<Vec<SocketAddr>> {
        Ok(lock(&self.hub).clone())
    }

    async fn name_at(&self, address: SocketAddr) -> cluster::Result<PeerName> {
        lock(&self.asked_names).push(address);
        let nobody = || cluster::Error::Invalid("nobody answers".to_owned());
        lock(&self.there).get(&address).cloned().ok_or_else(nobody)
    }

    fn sighting(&self) -> Option<Sighting> {
        lock(&self.sighting).clone()
    }
}

impl Hints for Net {
    fn hints(&self) -> Vec<Hint> {
        self.hints.clone()
    }

    fn look(&self) {
        *lock(&self.looks) += 1;
    }
}

fn at(number: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, number], 8081))
}

fn hub(name: &str) -> PeerName {
    PeerName::new(PeerRole::Hub, name).expect("a name")
}

fn node(name: &str) -> PeerName {
    PeerName::parse(name).expect("a name")
}

fn ways(net: &Arc<Net>) -> Arc<Ways> {
    let net = Arc::clone(net);
    Ways::new(Arc::clone(&net) as _, Arc::clone(&net) as _, net)
}

async fn reached(ways: &Ways) -> Option<PeerName> {
    let link = ways.connect(at(0), &hub("hub"), Distance::Unknown).await;
    link.ok().map(|link| link.peer().clone())
}

#[tokio::test]
async fn a_hub_that_moved_is_found_where_its_name_leads_now() {
    let net = Arc::new(Net::default());
    let ways = ways(&net);
    assert_eq!(reached(&ways).await, None, "its name leads nowhere");
    *lock(&net.hub) = vec![at(1)];
    assert_eq!(reached(&ways).await, None, "nobody is there");
    lock(&net.there).insert(at(1), hub("first"));
    assert_eq!(reached(&ways).await, Some(hub("first")));
    assert_eq!(reached(&ways).await, Some(hub("first")));
    assert_eq!(lock(&net.asked_names).len(), 2, "what it is called there is known");
    // Another host took its place, and then the name leads elsewhere.
    lock(&net.there).insert(at(1), hub("second"));
    assert_eq!(reached(&ways).await, None);
    assert_eq!(reached(&ways).await, Some(hub("second")));
    *lock(&net.hub) = vec![at(2)];
    lock(&net.there).insert(at(2), hub("third"));
    assert_eq!(reached(&ways).await, Some(hub("third")));
}

#[tokio::test]
async fn of_several_gateways_the_one_that_answered_is_asked_and_then_the_others() {
    let net = Arc::new(Net::default());
    let ways = ways(&net);
    *lock(&net.hub) = vec![at(1), at(2), at(3)];
    lock(&net.there).insert(at(2), hub("two"));
    assert_eq!(reached(&ways).await, Some(hub("two")));
    lock(&net.there).insert(at(1), hub("one"));
    assert_eq!(reached(&ways).await, Some(hub("two")), "it stays with that");
    lock(&net.there).remove(&at(2));
    assert_eq!(reached(&ways).await, Some(hub("one")));
    // Whoever gave up at an address begins behind it.
    ways.known().tried = Some(at(1));
    let order = ways.in_order(vec![at(1), at(2), at(3)]);
    assert_eq!(order, [at(2), at(3), at(1)]);
}

#[tokio::test]
async fn a_peer_that_is_elsewhere_now_is_found_by_its_hint_and_did_not_lie() {
    let hint = Hint { name: node("gpu-2"), addresses: vec![at(7), at(8), at(9)] };
    let net = Arc::new(Net { hints: vec![hint], ..Net::default() });
    let ways = ways(&net);
    lock(&net.there).insert(at(7), node("gpu-3"));
    lock(&net.there).insert(at(8), node("gpu-2"));
    let link = ways
        .connect(at(7), &node("gpu-2"), Distance::Near)
        .await
        .expect("it is at another address");
    assert_eq!(link.peer(), &node("gpu-2"));
    assert_eq!(*lock(&net.tried), [at(7), at(8)]);
    assert_eq!(*lock(&net.looks), 0, "it was known already");
    // Nobody knows where this one is.
    let failed = ways.connect(at(7), &node("gpu-4"), Distance::Near).await.err();
    assert!(matches!(failed, Some(Error::Unreachable { .. })), "{failed:?}");
    assert_eq!(*lock(&net.looks), 1);
}

#[tokio::test]
async fn what_a_connection_has_told_of_the_hub_need_not_be_asked() {
    for (round_trip, far) in [(Duration::from_millis(1), vec![]), (QUIC_FROM, vec![at(1)])] {
        let net = Arc::new(Net::default());
        let ways = ways(&net);
        *lock(&net.hub) = vec![at(1)];
        lock(&net.there).insert(at(1), hub("first"));
        let sighting = Sighting { address: at(1), hub: hub("first"), round_trip };
        *lock(&net.sighting) = Some(sighting);
        assert_eq!(reached(&ways).await, Some(hub("first")));
        assert_eq!((lock(&net.asked_names).len(), lock(&net.far).clone()), (0, far));
    }
}

#[tokio::test]
async fn what_a_connection_has_told_may_be_old() {
    let net = Arc::new(Net::default());
    let ways = ways(&net);
    *lock(&net.hub) = vec![at(1)];
    lock(&net.there).insert(at(1), hub("second"));
    let round_trip = Duration::ZERO;
    *lock(&net.sighting) = Some(Sighting { address: at(1), hub: hub("first"), round_trip });
    assert_eq!(reached(&ways).await, None);
    assert_eq!(reached(&ways).await, Some(hub("second")));
    assert_eq!(*lock(&net.asked_names), [at(1)]);
}

#[tokio::test]
async fn a_peer_of_another_site_may_be_far() {
    let net = Arc::new(Net::default());
    let ways = ways(&net);
    lock(&net.there).insert(at(7), node("gpu-2"));
    ways.connect(at(7), &node("gpu-2"), Distance::Near).await.expect("it is there");
    assert!(lock(&net.far).is_empty());
    ways.connect(at(7), &node("gpu-2"), Distance::Unknown).await.expect("it is there");
    assert_eq!(*lock(&net.far), [at(7)]);
}
