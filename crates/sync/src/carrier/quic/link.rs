//! A peer that is reached over QUIC.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use ballast_format::hash::XorbHash;
use bytes::Bytes;

use super::connection::Connection;
use super::stream::Stream;
use crate::carrier::ask::{Asker, Line, check_permit, check_xorbs, unreachable};
use crate::carrier::claim::Claims;
use crate::carrier::shared::Shared;
use crate::carrier::{Arrivals, Error, Link, Request, Result};
use crate::cluster::PeerName;

/// A connection of ours: closed when the link and all that arrives over it are gone.
struct Owned {
    connection: Arc<Connection>,
    /// Something went wrong: nobody should use it again.
    is_spent: AtomicBool,
}

impl Drop for Owned {
    fn drop(&mut self) {
        self.connection.close();
    }
}

/// What users hold.
pub(super) struct QuicLink {
    shared: Shared,
    owned: Arc<Owned>,
    peer: PeerName,
}

impl QuicLink {
    pub(super) fn new(shared: Shared, connection: Arc<Connection>, peer: PeerName) -> Self {
        let owned = Arc::new(Owned { connection, is_spent: AtomicBool::new(false) });
        Self { shared, owned, peer }
    }

    async fn asker(&self) -> Result<Asker<Lent>> {
        if self.owned.is_spent.load(Ordering::Relaxed) {
            let closed = io::Error::new(io::ErrorKind::NotConnected, "the connection was closed");
            return Err(unreachable(&self.peer, &closed));
        }
        let connection = &self.owned.connection;
        let id = connection.open().await.map_err(|error| unreachable(&self.peer, &error))?;
        let stream = Stream::new(Arc::clone(connection), id);
        let line = Lent { stream, owned: Arc::clone(&self.owned) };
        Ok(Asker { shared: self.shared.clone(), peer: self.peer.clone(), line })
    }
}

/// A stream for one call.
struct Lent {
    stream: Stream,
    owned: Arc<Owned>,
}

impl Line for Lent {
    type Pipe = Stream;

    fn pipe(&mut self) -> &mut Stream {
        &mut self.stream
    }

    fn done(self) {}

    fn closer(&self) -> impl Fn() + Send + 'static {
        let owned = Arc::clone(&self.owned);
        move || owned.is_spent.store(true, Ordering::Relaxed)
    }
}

#[async_trait]
impl Link for QuicLink {
    fn peer(&self) -> &PeerName {
        &self.peer
    }

    async fn show(&self, permit: Bytes) -> Result<()> {
        check_permit(&permit)?;
        self.asker().await?.show(&permit).await
    }

    async fn request(&self, request: Request) -> Result<Arrivals> {
        let claims = Claims::new(request).map_err(Error::Invalid)?;
        self.asker().await?.request(claims).await
    }

    async fn holdings(&self, xorbs: &[XorbHash]) -> Result<Vec<Vec<Range<u32>>>> {
        check_xorbs(xorbs)?;
        self.asker().await?.holdings(xorbs).await
    }

    fn is_open(&self) -> bool {
        !self.owned.is_spent.load(Ordering::Relaxed) && !self.owned.connection.is_lost()
    }

    fn round_trip(&self) -> Duration {
        self.owned.connection.state().inner.stats().path.min_rtt
    }
}
