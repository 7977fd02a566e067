//! Writing an object of unknown size as a stream.
//!
//! Nothing is visible before [`ObjectWriter::finish`] returns; a writer that is dropped or aborted
//! leaves nothing behind that anyone can read (Invariant 11). Memory is bounded by the parts that
//! are on their way plus the one being filled. Parts go their way however slowly the next bytes
//! come in. Small objects go in one piece.
//!
//! The name must be one that nobody else can have chosen: parts are published by replacing, not
//! by put-if-absent.

use bytes::{Bytes, BytesMut};
use object_store::{MultipartUpload, ObjectStoreExt, PutPayload};
use tokio::task::JoinSet;

use super::Store;
use crate::error::{Error, Result};
use crate::keyspace::Key;

/// Pieces shorter than this are gathered, so that a sender of single bytes does not cost a record
/// of each.
const GATHER_BYTES: usize = 16 * 1024;

/// What is read back after a write in parts, as the store's own word is not enough.
const READ_BACK_BYTES: usize = 4096;

/// How writers cut what they write.
#[derive(Clone, Copy, Debug)]
pub struct Writing {
    /// The size of a part. Remote stores refuse parts under 5 MiB.
    pub part_bytes: usize,
    /// How many parts may be on their way at once.
    pub parts_in_flight: usize,
}

impl Writing {
    /// For remote stores: few, large requests.
    pub const REMOTE: Self = Self { part_bytes: 8 * 1024 * 1024, parts_in_flight: 2 };

    /// For a disk of this machine: little memory, and one part at a time, as there is one file.
    pub const LOCAL: Self = Self { part_bytes: 1024 * 1024, parts_in_flight: 1 };
}

impl Default for Writing {
    fn default() -> Self {
        Self::REMOTE
    }
}

/// Writes one object, piece by piece.
#[derive(Debug)]
pub struct ObjectWriter {
    store: Store,
    key: Key,
    writing: Writing,
    /// The part being filled.
    pending: Vec<Bytes>,
    /// The end of it, while it is made of small pieces.
    gathered: BytesMut,
    pending_bytes: usize,
    /// The first bytes of the object, to compare with what is read back.
    head: BytesMut,
    written: u64,
    upload: Option<Box<dyn MultipartUpload>>,
    /// The parts on their way, which end with the writer.
    in_flight: JoinSet<object_store::Result<()>>,
    /// Set while a call runs: one that failed or was dropped half-way leaves it set.
    broken: bool,
}

impl ObjectWriter {
    pub(super) fn new(store: Store, key: Key, writing: Writing) -> Self {
        Self {
            store,
            key,
            writing,
            pending: Vec::new(),
            gathered: BytesMut::new(),
            pending_bytes: 0,
            head: BytesMut::new(),
            written: 0,
            upload: None,
            in_flight: JoinSet::new(),
            broken: false,
        }
    }

    /// The name of what is written.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// How many bytes were taken so far.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Did it take more than one part so far?
    pub fn is_in_parts(&self) -> bool {
        self.upload.is_some()
    }

    /// Sends parts here.
    #[cfg(test)]
    pub(super) fn take_upload(&mut self, upload: Box<dyn MultipartUpload>) {
        self.upload = Some(upload);
    }

    /// Takes the next bytes; waits while too many parts are on their way. After an error, or if
    /// the call was cancelled, the writer can only be aborted.
    pub async fn write(&mut self, mut bytes: Bytes) -> Result<()> {
        self.begin()?;
        self.written += bytes.len() as u64;
        let unseen = READ_BACK_BYTES - self.head.len();
        self.head.extend_from_slice(&bytes[..unseen.min(bytes.len())]);
        while !bytes.is_empty() {
            let room = self.writing.part_bytes - self.pending_bytes;
            self.push(bytes.split_to(room.min(bytes.len())));
            if self.pending_bytes == self.writing.part_bytes {
                self.send_part().await?;
            }
        }
        self.broken = false;
        Ok(())
    }

    /// Makes the object visible, whole and durable. Says how many bytes it has.
    pub async fn finish(mut self) -> Result<u64> {
        self.begin()?;
        if self.upload.is_none() {
            let bytes = self.take_pending_whole();
            self.store.put_new(&self.key, bytes).await?;
            return Ok(self.written);
        }
        let done = self.complete().await;
        if done.is_err() {
            self.abort().await;
            return done.map(|()| 0);
        }
        self.upload = None;
        self.read_back().await?;
        Ok(self.written)
    }

    /// Gives up; what was written goes away.
    pub async fn abort(mut self) {
        self.in_flight.shutdown().await;
        if let Some(mut upload) = self.upload.take()
            && let Err(error) = upload.abort().await
        {
            // It is invisible all the same; the store or the next start removes it.
            tracing::debug!(key = %self.key, %error, "an aborted write left parts behind");
        }
    }

    fn begin(&mut self) -> Result<()> {
        if self.broken {
            return Err(Error::invalid(format!("the write of `{}` has failed already", self.key)));
        }
        self.broken = true;
        Ok(())
    }

    fn push(&mut self, piece: Bytes) {
        self.pending_bytes += piece.len();
        if piece.len() < GATHER_BYTES {
            self.gathered.extend_from_slice(&piece);
        } else {
            self.close_gathered();
            self.pending.push(piece);
        }
    }

    fn close_gathered(&mut self) {
        if !self.gathered.is_empty() {
            self.pending.push(self.gathered.split().freeze());
        }
    }

    fn take_pending(&mut self) -> PutPayload {
        self.close_gathered();
        self.pending_bytes = 0;
        std::mem::take(&mut self.pending).into_iter().collect()
    }

    fn take_pending_whole(&mut self) -> Bytes {
        self.close_gathered();
        if self.pending.len() == 1 {
            return self.pending.swap_remove(0);
        }
        let mut whole = BytesMut::with_capacity(self.pending_bytes);
        for piece in self.pending.drain(..) {
            whole.extend_from_slice(&piece);
        }
        whole.freeze()
    }

    async fn send_part(&mut self) -> Result<()> {
        while self.in_flight.len() >= self.writing.parts_in_flight {
            self.await_part().await?;
        }
        let payload = self.take_pending();
        if self.upload.is_none() {
            let begun = self.store.shared.inner.put_multipart(&self.key.path()).await;
            self.upload = Some(begun.map_err(|error| self.failure(&error))?);
        }
        if let Some(upload) = &mut self.upload {
            self.in_flight.spawn(upload.put_part(payload));
        }
        Ok(())
    }

    async fn await_part(&mut self) -> Result<()> {
        match self.in_flight.join_next().await {
            Some(Ok(Err(error))) => Err(self.failure(&error)),
            Some(Err(error)) => Err(self.failure(&error.into())),
            Some(Ok(Ok(()))) | None => Ok(()),
        }
    }

    async fn complete(&mut self) -> Result<()> {
        if self.pending_bytes > 0 {
            self.send_part().await?;
        }
        while !self.in_flight.is_empty() {
            self.await_part().await?;
        }
        if let Some(upload) = &mut self.upload {
            let completed = upload.complete().await;
            completed.map_err(|error| self.failure(&error))?;
        }
        Ok(())
    }

    /// The store said yes; see whether it has what it was given.
    async fn read_back(&mut self) -> Result<()> {
        let size = self.store.size(&self.key).await?;
        let head = self.store.get_range(&self.key, 0..self.head.len() as u64).await?;
        if size == Some(self.written) && head == self.head {
            Ok(())
        } else {
            Err(Error::corrupt(self.key, "what the store holds is not what was just written"))
        }
    }

    fn failure(&self, error: &object_store::Error) -> Error {
        Error::from_backend(self.key, error)
    }
}

impl Drop for ObjectWriter {
    fn drop(&mut self) {
        let Some(mut upload) = self.upload.take() else { return };
        let (mut in_flight, key) = (std::mem::take(&mut self.in_flight), self.key);
        self.store.shared.cleanups.begin(async move {
            in_flight.shutdown().await;
            if let Err(error) = upload.abort().await {
                tracing::debug!(%key, %error, "a dropped write left parts behind");
            }
        });
    }
}
