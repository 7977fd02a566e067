//! Both carriers of a process, as it needs them when it starts.

use std::io;
use std::net::UdpSocket;
use std::sync::Arc;

use ballast_node::origin::Figure;

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

impl Started {
    /// What there is to tell of them; it does not keep them.
    pub fn figures(&self) -> impl Fn() -> Vec<Figure> + Send + Sync + 'static {
        let (carriers, quic) = (Arc::downgrade(&self.carriers), Arc::downgrade(&self.quic));
        move || {
            let Some((carriers, quic)) = carriers.upgrade().zip(quic.upgrade()) else {
                return Vec::new();
            };
            let link = |(carrier, count)| {
                Figure::gauge(format!("carrier_links{{carrier=\"{carrier}\"}}"), count)
            };
            let (mut figures, sent) = (carriers.called().map(link).to_vec(), quic.sent());
            figures.extend([
                Figure::counter("quic_sent_packets_total", sent.packets),
                Figure::counter("quic_lost_packets_total", sent.lost_packets),
                Figure::counter("quic_send_calls_total", sent.calls),
                Figure::counter("quic_black_holes_total", sent.black_holes),
            ]);
            figures
        }
    }
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
