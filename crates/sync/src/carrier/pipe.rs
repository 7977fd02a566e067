//! What a call and its answers travel on: a stream of a QUIC connection, or a TCP connection that
//! serves one call after another.

use std::io;
use std::pin::Pin;
use std::task::Context;

use bytes::{Buf as _, Bytes};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::Urgency;
use crate::buffers::Buffer;

/// Both directions between two processes.
pub(super) trait Pipe: Send {
    /// Fills the buffer, whole; `UnexpectedEof` if the other side ends before. It is handed over,
    /// so that whoever has the bytes can put them there.
    fn read(&mut self, into: Buffer) -> impl Future<Output = io::Result<Buffer>> + Send;

    /// The same where a call may begin; `None`: the other side is done.
    fn begin(&mut self, into: Buffer) -> impl Future<Output = io::Result<Option<Buffer>>> + Send;

    /// Hands all of it over, the head first, to be sent before long.
    fn write(&mut self, head: Bytes, body: Bytes) -> impl Future<Output = io::Result<()>> + Send;

    /// Returns when the other side no longer wants what it has asked for. Who calls says nothing
    /// before it is answered, so anything it says is such a sign too, and ends the pipe.
    fn gone(&mut self) -> impl Future<Output = ()> + Send;

    /// Says that no call follows, where each call has a pipe of its own.
    fn last(&mut self) {}

    /// Sends what is written before what is less urgent, where pipes share a connection.
    fn hurry(&mut self, _: Urgency) {}
}

/// A connection that carries one call after another.
#[derive(Debug)]
pub(super) struct Wire<S>(pub(super) S);

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Wire<S> {
    /// Whether nothing has come and the other side is still there: asked before a connection that
    /// was kept is used again.
    pub(super) fn is_quiet(&mut self) -> bool {
        let mut byte = [0; 1];
        let mut byte = tokio::io::ReadBuf::new(&mut byte);
        let mut context = Context::from_waker(std::task::Waker::noop());
        Pin::new(&mut self.0).poll_read(&mut context, &mut byte).is_pending()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Pipe for Wire<S> {
    async fn read(&mut self, mut into: Buffer) -> io::Result<Buffer> {
        self.0.read_exact(into.bytes_mut()).await?;
        Ok(into)
    }

    async fn begin(&mut self, mut into: Buffer) -> io::Result<Option<Buffer>> {
        let read = self.0.read(into.bytes_mut()).await?;
        if read == 0 {
            return Ok(None);
        }
        self.0.read_exact(&mut into.bytes_mut()[read..]).await?;
        Ok(Some(into))
    }

    async fn write(&mut self, head: Bytes, body: Bytes) -> io::Result<()> {
        // Together, or else the head would be a packet of its own.
        let mut both = head.chain(body);
        self.0.write_all_buf(&mut both).await?;
        self.0.flush().await
    }

    async fn gone(&mut self) {
        let mut byte = [0; 1];
        let _ = self.0.read(&mut byte).await;
    }
}
