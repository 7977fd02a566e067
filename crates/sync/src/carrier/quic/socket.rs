//! The UDP socket: trains of packets in one system call, both ways.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};

use quinn_proto::{EcnCodepoint, Transmit};
use quinn_udp::{RecvMeta, UdpSockRef, UdpSocketState};
use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::UdpSocket;

/// Packets that one system call sends are at most so many bytes: the kernel refuses a larger
/// datagram, and `quinn-udp` takes that for a lost probe.
pub(super) const LONGEST_TRAIN: usize = 65_507;
/// What the kernel puts together of one sender's packets, and how many of these are read at once.
pub(super) const TRAIN_ROOM: usize = 65_536;
pub(super) const TRAINS: usize = 8;
/// What may wait in the kernel: 32 ms at 1 Gbit/s. Less is loss that nobody sees.
pub(super) const SOCKET_BUFFER: u32 = 4 << 20;

/// A UDP socket.
pub(super) struct Socket {
    socket: UdpSocket,
    state: UdpSocketState,
    is_v6: bool,
}

impl Socket {
    pub(super) fn over(socket: std::net::UdpSocket) -> io::Result<Self> {
        let is_v6 = socket.local_addr()?.is_ipv6();
        let (options, buffer) = (SockRef::from(&socket), SOCKET_BUFFER as usize);
        // The kernel gives as much as its operator allows.
        options.set_recv_buffer_size(buffer)?;
        options.set_send_buffer_size(buffer)?;
        let room = options.recv_buffer_size()?;
        if room < buffer {
            tracing::info!(
                bytes = room,
                "the kernel gives UDP a small buffer; hint: raise net.core.rmem_max and wmem_max \
                 to 4194304 if QUIC is slow"
            );
        }
        // This makes it not block, as tokio wants it.
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
        Ok(Self { socket: UdpSocket::from_std(socket)?, state, is_v6 })
    }

    pub(super) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// The address as this socket has to be told it.
    pub(super) fn reach(&self, address: SocketAddr) -> SocketAddr {
        match address.ip() {
            IpAddr::V4(v4) if self.is_v6 => {
                SocketAddr::new(v4.to_ipv6_mapped().into(), address.port())
            }
            _ => address,
        }
    }

    pub(super) fn may_fragment(&self) -> bool {
        self.state.may_fragment()
    }

    /// How many packets of this size one system call may send.
    pub(super) fn train(&self, packet: usize) -> usize {
        (LONGEST_TRAIN / packet.max(1)).clamp(1, self.state.max_gso_segments())
    }

    /// Sends a train; `false`: the socket is full, so wait until it is writable.
    pub(super) fn send(&self, transmit: &Transmit, contents: &[u8]) -> bool {
        let out = quinn_udp::Transmit {
            destination: transmit.destination,
            ecn: transmit.ecn.map(|ecn| match ecn {
                EcnCodepoint::Ect0 => quinn_udp::EcnCodepoint::Ect0,
                EcnCodepoint::Ect1 => quinn_udp::EcnCodepoint::Ect1,
                EcnCodepoint::Ce => quinn_udp::EcnCodepoint::Ce,
            }),
            contents,
            segment_size: transmit.segment_size,
            src_ip: transmit.src_ip,
        };
        let sent = self.socket.try_io(Interest::WRITABLE, || {
            self.state.try_send(UdpSockRef::from(&self.socket), &out)
        });
        match sent {
            Ok(()) => true,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
            // A probe that is too large for the path, a route that is gone: QUIC counts it as lost.
            Err(error) => {
                tracing::debug!(%error, to = %transmit.destination, "a packet was not sent");
                true
            }
        }
    }

    /// Reads what is there, as many trains as there is room for.
    pub(super) fn receive(
        &self,
        into: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> io::Result<usize> {
        self.socket.try_io(Interest::READABLE, || {
            self.state.recv(UdpSockRef::from(&self.socket), into, metas)
        })
    }

    pub(super) async fn readable(&self) -> io::Result<()> {
        self.socket.readable().await
    }

    pub(super) async fn writable(&self) -> io::Result<()> {
        self.socket.writable().await
    }
}

/// The same in the words of the protocol.
pub(super) fn ecn_of(meta: &RecvMeta) -> Option<EcnCodepoint> {
    meta.ecn.map(|ecn| match ecn {
        quinn_udp::EcnCodepoint::Ect0 => EcnCodepoint::Ect0,
        quinn_udp::EcnCodepoint::Ect1 => EcnCodepoint::Ect1,
        quinn_udp::EcnCodepoint::Ce => EcnCodepoint::Ce,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_train_is_never_longer_than_the_kernel_takes() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("bound");
        let socket = Socket::over(socket).expect("a socket");
        for (packet, most) in [(1200, 54), (1452, 45), (8952, 7), (65_507, 1), (0, 64)] {
            let train = socket.train(packet);
            assert!((1..=most).contains(&train), "{train} packets of {packet} bytes");
            assert!(train * packet <= LONGEST_TRAIN);
        }
        assert!(socket.train(1452) > 10, "this kernel cuts trains into packets");
    }
}
