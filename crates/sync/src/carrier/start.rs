//! Both carriers of a process, as it needs them when it starts.

use std::io;
use std::net::UdpSocket;
use std::sync::Arc;

use super::{
    Carriers, Choice, Credentials, QuicCarrier, QuicSettings, Shared, Source, TcpCarrier, TcpServer,
};
use crate::cluster::Identity;

/// Both carriers of a process.
pub struct Started {
    /// Calls peers, by whichever carrier leads to them.
    pub carriers: Arc<Carriers>,
    /// Answers those who come by TCP, if anybody is answered: what the door gives its streams to.
    pub server: Option<Arc<TcpServer>>,
    /// Answers those who come by QUIC as long as somebody holds it, and knows the paths to them.
    pub quic: Arc<QuicCarrier>,
}

/// Starts both carriers of the process that has this identity. `socket` is the door's for UDP, and
/// `source` answers whoever calls; without it nobody is answered.
pub fn start(
    shared: &Shared,
    identity: &Identity,
    socket: UdpSocket,
    source: Option<Arc<dyn Source>>,
    choice: Choice,
    settings: QuicSettings,
) -> io::Result<Started> {
    let credentials = Credentials::of(identity).map_err(io::Error::other)?;
    let server = source.as_ref().map(|source| TcpServer::new(shared, Arc::clone(source)));
    let quic = QuicCarrier::over(shared, &credentials, socket, source, settings)?;
    let tcp = TcpCarrier::new(shared, &credentials);
    let by_quic = Arc::<QuicCarrier>::clone(&quic);
    let carriers = Carriers::new(shared, tcp, by_quic, choice);
    Ok(Started { carriers, server, quic })
}
