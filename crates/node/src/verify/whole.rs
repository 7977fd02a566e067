//! One copy, from its first byte to its last.

use std::sync::Arc;

use ballast_format::pack::{PackBuilder, PackDirectory, PackedObject};
use ballast_format::xorb::{ChunkDecoder, XorbFooter};
use ballast_store::keyspace::{CopyKind, CopyName, Key};
use ballast_store::objects::{ObjectWriter, Store};
use bytes::Bytes;

use super::is_damage;
use super::packs::{judge, piece_from};
use super::xorbs::piece_end;
use crate::error::{Error, Result};
use crate::hub::Hub;
use crate::pace::Pace;
use crate::state::rows;

/// Bytes of a shard object that are read at once.
const PIECE_BYTES: u64 = 4 << 20;

/// What became of looking at a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Every byte of it is what it must be.
    Sound {
        /// How many.
        bytes: u64,
    },
    /// Something in it is not.
    Damaged {
        /// What.
        what: String,
    },
    /// The store does not have it.
    Gone,
}

/// Where what was read goes as well, if anywhere.
#[derive(Default)]
struct Sink(Option<ObjectWriter>);

impl Sink {
    /// Takes bytes that were checked, in order.
    async fn take(&mut self, bytes: Bytes) -> Result<()> {
        if let Some(writer) = &mut self.0 {
            // Never to be taken for damage to what is read.
            writer.write(bytes).await.map_err(|error| match Error::from(error) {
                Error::Full => Error::Full,
                error => Error::Busy { reason: format!("what is read can't be kept: {error}") },
            })?;
        }
        Ok(())
    }
}

impl Hub {
    /// Reads a copy whole, past every cache, and hashes all of it.
    pub(crate) async fn check_copy(&self, copy: &CopyName, pace: &Pace) -> Result<Verdict> {
        match self.read_whole(copy, pace, &mut Sink::default()).await {
            Ok(bytes) => Ok(Verdict::Sound { bytes }),
            Err(error) => self.verdict(copy, error).await,
        }
    }

    /// Copies a copy to the same name in another store, hashing every byte on its way. What is not
    /// sound does not get there.
    pub(crate) async fn send_copy(&self, copy: &CopyName, to: &Store) -> Result<Verdict> {
        self.send_copy_as(copy, to, copy).await
    }

    /// The same to another name.
    pub(crate) async fn send_copy_as(
        &self,
        copy: &CopyName,
        to: &Store,
        name: &CopyName,
    ) -> Result<Verdict> {
        let mut sink = Sink(Some(to.writer(&Key::Copy(*name))?));
        let read = self.read_whole(copy, &Pace::unlimited(), &mut sink).await;
        let writer = sink.0.ok_or_else(|| Error::internal("a writer went astray"))?;
        match read {
            Ok(_) => Ok(Verdict::Sound { bytes: writer.finish().await? }),
            Err(error) => {
                writer.abort().await;
                self.verdict(copy, error).await
            }
        }
    }

    async fn read_whole(&self, copy: &CopyName, pace: &Pace, sink: &mut Sink) -> Result<u64> {
        match copy.kind {
            CopyKind::Xorb => self.read_whole_xorb(copy, pace, sink).await,
            CopyKind::Shard => self.read_whole_shard(copy, pace, sink).await,
            CopyKind::Pack => self.read_whole_pack(copy, pace, sink).await,
        }
    }

    /// What an error says about the copy that was read.
    async fn verdict(&self, copy: &CopyName, error: Error) -> Result<Verdict> {
        if !is_damage(&error) {
            return Err(error);
        }
        let what = error.to_string();
        match self.store().size(&Key::Copy(*copy)).await? {
            None => Ok(Verdict::Gone),
            Some(_) => Ok(Verdict::Damaged { what }),
        }
    }

    /// From the first chunk to the end of the footer; how many bytes these are.
    pub(super) async fn check_xorb_copy(&self, copy: &CopyName) -> Result<u64> {
        self.read_whole_xorb(copy, &Pace::unlimited(), &mut Sink::default()).await
    }

    async fn read_whole_xorb(&self, copy: &CopyName, pace: &Pace, sink: &mut Sink) -> Result<u64> {
        let footer = self.read_footer(copy).await?;
        let (mut first, mut decoder) = (0, ChunkDecoder::new());
        while first < footer.chunk_count() {
            let end = piece_end(&footer, first);
            let range = footer.byte_range(first..end)?;
            let length = range.end - range.start;
            let piece = self.store().get_range(&Key::Copy(*copy), range).await?;
            let (shared, checked) = (Arc::clone(&footer), piece.clone());
            let checking = self.pool().run(move || {
                decoder.decode_chunks(&checked, &shared, first..end, true, |_| Ok(()))?;
                Ok(decoder)
            });
            decoder = checking.await?.map_err(|error: ballast_format::Error| {
                Error::corrupt(format!("among the chunks {first} to {end}: {error}"))
            })?;
            sink.take(piece).await?;
            pace.wait(self.env().as_ref(), length).await;
            first = end;
        }
        if sink.0.is_some() {
            let tail = self.tail_from(copy, footer.serialized_length()).await?;
            let again = XorbFooter::decode(&tail);
            if !again.is_ok_and(|again| again == *footer) {
                return Err(Error::corrupt(format!(
                    "`{}` changes while it is read",
                    Key::Copy(*copy)
                )));
            }
            sink.take(tail).await?;
        }
        Ok(footer.serialized_length())
    }

    /// All bytes of a copy from here on.
    async fn tail_from(&self, copy: &CopyName, start: u64) -> Result<Bytes> {
        let key = Key::Copy(*copy);
        let size = self.store().size(&key).await?;
        let size = size.filter(|size| *size >= start);
        let size = size.ok_or_else(|| Error::corrupt(format!("`{key}` is cut short")))?;
        Ok(self.store().get_range(&key, start..size).await?)
    }

    async fn read_whole_shard(&self, copy: &CopyName, pace: &Pace, sink: &mut Sink) -> Result<u64> {
        let key = Key::Copy(*copy);
        let size = self.store().size(&key).await?;
        let size = size.ok_or_else(|| Error::corrupt(format!("`{key}` is gone")))?;
        let (mut hasher, mut start) = (blake3::Hasher::new(), 0);
        while start < size {
            let end = size.min(start + PIECE_BYTES);
            let piece = self.store().get_range(&key, start..end).await?;
            let hashed = piece.clone();
            let hashing = self.pool().run(move || {
                hasher.update(&hashed);
                hasher
            });
            hasher = hashing.await?;
            sink.take(piece).await?;
            pace.wait(self.env().as_ref(), end - start).await;
            start = end;
        }
        if *hasher.finalize().as_bytes() != copy.hash {
            return Err(Error::corrupt(format!("`{key}` has another hash")));
        }
        Ok(size)
    }

    async fn read_whole_pack(&self, copy: &CopyName, pace: &Pace, sink: &mut Sink) -> Result<u64> {
        let key = Key::Copy(*copy);
        let directory = rows::read_directory(self, copy).await?;
        if *directory.hash.as_bytes() != copy.hash {
            return Err(Error::corrupt(format!("`{key}` holds another pack")));
        }
        let header = PackBuilder::new().header();
        let front = self.store().get_range(&key, 0..header.len() as u64).await?;
        if front != header {
            return Err(Error::corrupt(format!("`{key}` does not begin as a pack")));
        }
        sink.take(front).await?;
        let (mut next, mut bytes) = (0, header.len() as u64);
        while next < directory.objects.len() {
            let piece: Vec<PackedObject> = piece_from(&directory.objects[next..]).to_vec();
            next += piece.len();
            let (Some(first), Some(last)) = (piece.first(), piece.last()) else { break };
            let (start, end) = (first.offset, last.offset + last.length);
            let read = self.store().get_range(&key, start..end).await?;
            let judged = read.clone();
            let sound = self.pool().run(move || {
                let verdicts = judge(&piece, &judged, start)?;
                let bad = piece.iter().zip(verdicts).find(|(_, is_sound)| !is_sound);
                Ok::<_, Error>(bad.map(|(object, _)| object.id))
            });
            if let Some(id) = sound.await?? {
                return Err(Error::corrupt(format!("`{key}`: the object `{id}` has other bytes")));
            }
            sink.take(read).await?;
            bytes += end - start;
            pace.wait(self.env().as_ref(), end - start).await;
        }
        if sink.0.is_some() {
            let tail = self.tail_from(copy, bytes).await?;
            let again = PackDirectory::decode(&tail, bytes + tail.len() as u64);
            if !again.is_ok_and(|again| again == directory) {
                return Err(Error::corrupt(format!("`{key}` changes while it is read")));
            }
            sink.take(tail).await?;
        }
        Ok(bytes)
    }
}
