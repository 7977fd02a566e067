//! The gRPC services behind a door, and who may call them.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::task::{Context, Poll};

use ballast_node::hub::Hub;
use tonic::body::Body;
use tonic::codegen::http::{Request, Response};
use tonic::codegen::{BoxFuture, Service};
use tonic::server::NamedService;
use tonic::{Code, Status};

use super::{Peer, Revocations};

/// What those may call who show no certificate: each asks for another proof, or says little.
const OPEN: [&str; 4] = [
    "/ballast.v1.Nodes/Hello",
    "/ballast.v1.Nodes/Join",
    "/ballast.v1.Nodes/Renew",
    "/ballast.v1.Swarm/Watch",
];

/// Who is at the other end of a connection; in the extensions of each request.
#[derive(Clone, Debug)]
pub struct Guest {
    /// Who, if they showed a certificate.
    pub peer: Option<Peer>,
    /// From where.
    pub address: SocketAddr,
}

/// Who sent this request. Services that are not open never see a request of nobody.
pub fn caller_of<T>(request: &tonic::Request<T>) -> Result<Peer, Status> {
    let guest = request.extensions().get::<Guest>();
    guest.and_then(|guest| guest.peer.clone()).ok_or_else(nobody)
}

/// From where a request comes that shows a secret: whoever was wrong about them too often waits.
pub fn may_try<T>(hub: &Hub, request: &tonic::Request<T>) -> Result<IpAddr, Status> {
    let guest = request.extensions().get::<Guest>().ok_or_else(nobody)?;
    let address = guest.address.ip();
    let Some(seconds) = hub.must_wait(address) else { return Ok(address) };
    let reason = format!("too many wrong tokens from your address; wait {seconds} seconds");
    Err(Status::new(Code::ResourceExhausted, reason))
}

fn nobody() -> Status {
    Status::new(Code::Unauthenticated, "this needs a certificate of the cluster")
}

type Answer = BoxFuture<Response<Body>, Infallible>;

/// A service, as a door keeps it.
trait Serve: Send + Sync {
    fn answer(&self, request: Request<Body>) -> Answer;
}

impl<S> Serve for S
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + Sync,
    S::Future: Send + 'static,
{
    fn answer(&self, request: Request<Body>) -> Answer {
        // What tonic generates is always ready.
        Box::pin(self.clone().call(request))
    }
}

/// Services by their names.
#[derive(Clone, Default)]
pub struct Services(HashMap<&'static str, Arc<dyn Serve>>);

impl Services {
    /// None.
    pub fn new() -> Self {
        Self::default()
    }

    /// One more: what tonic generates, around whoever answers.
    #[must_use]
    pub fn with<S>(mut self, service: S) -> Self
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>
            + NamedService
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send + 'static,
    {
        self.0.insert(S::NAME, Arc::new(service));
        self
    }

    /// For connections that are made to whoever has these revocations.
    pub(super) fn behind(self, revocations: Revocations) -> Guarded {
        Guarded { services: Arc::new(self.0), revocations }
    }
}

/// Services, for those who may call them.
#[derive(Clone)]
pub(super) struct Guarded {
    services: Arc<HashMap<&'static str, Arc<dyn Serve>>>,
    revocations: Revocations,
}

impl Guarded {
    fn admit(&self, request: &Request<Body>) -> Result<&Arc<dyn Serve>, Status> {
        let path = request.uri().path();
        let peer = request.extensions().get::<Guest>().and_then(|guest| guest.peer.as_ref());
        match peer {
            None if !OPEN.contains(&path) => return Err(nobody()),
            // Its connection ends in a moment.
            Some(peer) if self.revocations.has(&peer.key) => return Err(nobody()),
            _ => {}
        }
        let service = path.split('/').nth(1).and_then(|name| self.services.get(name));
        service.ok_or_else(|| Status::new(Code::Unimplemented, "there is no such service here"))
    }
}

impl Service<Request<Body>> for Guarded {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Answer {
        match self.admit(&request) {
            Ok(service) => service.answer(request),
            Err(status) => Box::pin(std::future::ready(Ok(status.into_http()))),
        }
    }
}
