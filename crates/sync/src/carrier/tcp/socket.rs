//! Settings of TCP sockets.

use std::io;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

/// A peer that is silent is asked whether it lives after so long, so often, so many times.
const QUIET: Duration = Duration::from_secs(10);
const ASK_EVERY: Duration = Duration::from_secs(5);
const ASK_TIMES: u32 = 3;
/// A peer that does not confirm what was sent for so long is dead.
const UNCONFIRMED: Duration = Duration::from_secs(30);

/// Makes a connection notice a dead peer within half a minute, and send what is small at once.
///
/// The sizes of its buffers stay as they are: the kernel lets them grow as the path needs, and a
/// fixed size would end that.
pub(super) fn tune(stream: &TcpStream) -> io::Result<()> {
    let socket = SockRef::from(stream);
    socket.set_tcp_nodelay(true)?;
    let keepalive =
        TcpKeepalive::new().with_time(QUIET).with_interval(ASK_EVERY).with_retries(ASK_TIMES);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_tcp_user_timeout(Some(UNCONFIRMED))
}
