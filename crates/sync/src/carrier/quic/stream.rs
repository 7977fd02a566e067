//! A stream of a connection: one call and its answers.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use quinn_proto::StreamId;

use super::connection::Connection;
use crate::buffers::Buffer;
use crate::carrier::Urgency;
use crate::carrier::pipe::Pipe;

/// A stream, left when it is dropped.
pub(in crate::carrier) struct Stream {
    connection: Arc<Connection>,
    id: StreamId,
}

impl Stream {
    pub(super) fn new(connection: Arc<Connection>, id: StreamId) -> Self {
        Self { connection, id }
    }
}

impl Pipe for Stream {
    async fn read(&mut self, into: Buffer) -> io::Result<Buffer> {
        let read = self.connection.read(self.id, into, false).await?;
        read.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    async fn begin(&mut self, into: Buffer) -> io::Result<Option<Buffer>> {
        self.connection.read(self.id, into, true).await
    }

    async fn write(&mut self, head: Bytes, body: Bytes) -> io::Result<()> {
        self.connection.write(self.id, [head, body]).await
    }

    async fn gone(&mut self) {
        self.connection.stopped(self.id).await;
    }

    fn last(&mut self) {
        self.connection.finish(self.id);
    }

    fn hurry(&mut self, urgency: Urgency) {
        self.connection.set_priority(
            self.id,
            match urgency {
                Urgency::Client => 2,
                Urgency::Swarm => 1,
                Urgency::Region => 0,
            },
        );
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.connection.leave(self.id);
    }
}
