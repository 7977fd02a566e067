//! Xorbs that were packed here go into the store, a few at a time, while the next one is packed.

use std::collections::VecDeque;
use std::sync::Arc;

use ballast_format::hash::XorbHash;
use bytes::Bytes;
use tokio::sync::oneshot;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::chunked::Packed;
use super::growing::Growing;
use crate::error::{Error, Result};
use crate::hub::Hub;

/// Xorbs of one upload that are written at the same time.
const AT_ONCE: usize = 2;
/// Bytes that are handed to the store at once.
const WRITE_BYTES: usize = 1 << 20;

/// The xorbs of one upload. Dropped before the end, it takes what is not whole with it.
pub(super) struct Storing {
    hub: Arc<Hub>,
    growing: Arc<Growing>,
    running: VecDeque<oneshot::Receiver<Result<()>>>,
    stored: Vec<XorbHash>,
    stop: CancellationToken,
    _guard: DropGuard,
}

impl Storing {
    /// Stores the xorbs of this file.
    pub(super) fn new(hub: &Arc<Hub>, growing: Arc<Growing>) -> Self {
        let stop = CancellationToken::new();
        Self {
            hub: Arc::clone(hub),
            growing,
            running: VecDeque::new(),
            stored: Vec::new(),
            _guard: stop.clone().drop_guard(),
            stop,
        }
    }

    /// Begins to store a xorb; waits while too many are on their way.
    pub(super) async fn store(&mut self, packed: Packed) -> Result<()> {
        while self.running.len() >= AT_ONCE {
            self.wait().await?;
        }
        let hash = packed.footer.hash();
        self.stored.push(hash);
        let (reply, outcome) = oneshot::channel();
        let (hub, stop) = (Arc::clone(&self.hub), self.stop.clone());
        let growing = Arc::clone(&self.growing);
        self.hub.runner().spawn("store a xorb", async move {
            let stored = tokio::select! {
                biased;
                stored = hub.store_packed(packed) => stored,
                () = stop.cancelled() => return,
            };
            if stored.is_ok() {
                growing.stored(&hash);
            }
            // Whoever asked may have given up.
            drop(reply.send(stored));
        });
        self.running.push_back(outcome);
        Ok(())
    }

    async fn wait(&mut self) -> Result<()> {
        match self.running.pop_front() {
            None => Ok(()),
            Some(outcome) => {
                outcome.await.map_err(|_| Error::internal("a xorb was not stored to its end"))?
            }
        }
    }

    /// The xorbs, when all of them are durable.
    pub(super) async fn finish(mut self) -> Result<Vec<XorbHash>> {
        while !self.running.is_empty() {
            self.wait().await?;
        }
        Ok(std::mem::take(&mut self.stored))
    }
}

impl Hub {
    /// Stores a xorb that was packed here. It is nobody's yet.
    async fn store_packed(&self, packed: Packed) -> Result<()> {
        let Packed { mut bytes, footer, room } = packed;
        let hash = footer.hash();
        let is_there = self.present_copy(&hash).await?.is_some();
        // Who sends a file must not see by the time whether others have what is in it.
        let mut new = if is_there { self.spare_xorb().await? } else { self.new_xorb(hash).await? };
        while !bytes.is_empty() {
            let piece: Bytes = bytes.split_to(bytes.len().min(WRITE_BYTES));
            new.writer.write(piece).await?;
        }
        let batch = self.finish_xorb(&footer, new).await?;
        drop(room);
        Ok(self.index().apply(batch).await?)
    }
}
