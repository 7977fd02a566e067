//! What a log of another region names comes in: each byte is hashed before it is kept, under a name
//! that nothing refers to until an entry has arrived.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use ballast_format::hash::{PackHash, ShardHash};
use ballast_format::id::{RepoId, UserId};
use ballast_format::pack::{PackBuilder, PackDirectory, PackedObject};
use ballast_store::keyspace::{CopyKind, Key, Leased};
use ballast_store::objects::ObjectWriter;
use ballast_store::pin::pin;
use bytes::Bytes;
use futures_util::StreamExt as _;

use crate::download::ByteStream;
use crate::error::{Error, Result};
use crate::hub::Hub;
use crate::state::repo::NewPack;
use crate::state::rows;
use crate::upload::PROMISE_MS;
use crate::verify::packs::{judge, piece_from};

/// The longest object in a pack: the largest file that is no large file, or folder.
const MAX_OBJECT_BYTES: u64 = 256 << 20;
/// The longest shard object.
const MAX_SHARD_BYTES: u64 = 2 << 30;

/// Bytes of something in another region.
#[async_trait]
pub trait Pieces: Send + Sync {
    /// These.
    async fn read(&self, range: Range<u64>) -> Result<Bytes>;
}

impl Hub {
    /// Whether this region has a pack, and what is in it.
    pub async fn known_pack(&self, repo: RepoId, pack: PackHash) -> Result<Option<NewPack>> {
        match rows::find_pack(self, repo, pack).await {
            Ok((copy, directory)) if !self.condemned.holds(&copy) => {
                Ok(Some(NewPack { copy, directory: Arc::new(directory) }))
            }
            Ok(_) => Ok(None),
            Err(error) if error.is_corrupt() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Takes in a pack of `size` bytes that ends so.
    pub async fn take_pack(
        &self,
        pack: PackHash,
        (size, tail): (u64, Bytes),
        pieces: &dyn Pieces,
    ) -> Result<NewPack> {
        let directory = PackDirectory::decode(&tail, size)?;
        if directory.hash != pack {
            return Err(Error::invalid(format!("not the pack `{pack}` came, but another")));
        }
        let epoch = self.store().epoch().await?;
        let copy = self.store().new_copy(CopyKind::Pack, *pack.as_bytes(), epoch);
        let mut writer = self.store().writer(&Key::Copy(copy))?;
        match self.write_pack(&mut writer, &directory, tail, pieces).await {
            Ok(()) => writer.finish().await?,
            Err(error) => {
                writer.abort().await;
                return Err(error);
            }
        };
        Ok(NewPack { copy, directory: Arc::new(directory) })
    }

    async fn write_pack(
        &self,
        writer: &mut ObjectWriter,
        directory: &PackDirectory,
        tail: Bytes,
        pieces: &dyn Pieces,
    ) -> Result<()> {
        writer.write(Bytes::from_static(PackBuilder::new().header())).await?;
        let mut next = 0;
        while next < directory.objects.len() {
            let piece: Vec<PackedObject> = piece_from(&directory.objects[next..]).to_vec();
            next += piece.len();
            let (Some(first), Some(last)) = (piece.first(), piece.last()) else { break };
            let (start, end) = (first.offset, last.offset + last.length);
            if end - start > MAX_OBJECT_BYTES {
                let (what, size) = (format!("the object `{}`", first.id), end - start);
                return Err(Error::TooLarge { what, size, limit: MAX_OBJECT_BYTES });
            }
            let bytes = if start == end { Bytes::new() } else { pieces.read(start..end).await? };
            let judged = bytes.clone();
            // Invariant 12
            let bad = self.pool().run(move || {
                let verdicts = judge(&piece, &judged, start)?;
                let bad = piece.iter().zip(verdicts).find(|(_, is_sound)| !is_sound);
                Ok::<_, Error>(bad.map(|(object, _)| object.id))
            });
            if let Some(id) = bad.await?? {
                return Err(Error::invalid(format!("the object `{id}` came with other bytes")));
            }
            writer.write(bytes).await?;
        }
        Ok(writer.write(tail).await?)
    }

    /// Takes in a shard object that a repo's log leads to.
    pub async fn take_shard(&self, repo: RepoId, shard: ShardHash, body: ByteStream) -> Result<()> {
        let epoch = self.store().epoch().await?;
        let copy = self.store().new_copy(CopyKind::Shard, *shard.as_bytes(), epoch);
        let mut writer = self.store().writer(&Key::Copy(copy))?;
        match self.write_shard(&mut writer, shard, body).await {
            Ok(()) => writer.finish().await?,
            Err(error) => {
                writer.abort().await;
                return Err(error);
            }
        };
        // It may take long until an entry arrives that needs it.
        let until = self.env().now_ms() + PROMISE_MS;
        let owner = UserId::from_bytes(*repo.as_bytes());
        pin(self.store(), owner, Leased::Registered(shard), until).await?;
        self.learn_copy(&copy).await
    }

    /// Whether a shard object is here, in a copy that nobody condemned.
    pub async fn has_shard(&self, shard: &ShardHash) -> Result<bool> {
        let copies = self.copies_by_trust(CopyKind::Shard, *shard.as_bytes()).await?;
        Ok(copies.iter().any(|copy| self.relies_on(copy)))
    }

    async fn write_shard(
        &self,
        writer: &mut ObjectWriter,
        shard: ShardHash,
        mut body: ByteStream,
    ) -> Result<()> {
        let (mut hasher, mut size) = (blake3::Hasher::new(), 0);
        while let Some(piece) = body.next().await.transpose()? {
            size += piece.len() as u64;
            if size > MAX_SHARD_BYTES {
                let what = format!("the shard object `{shard}`");
                return Err(Error::TooLarge { what, size, limit: MAX_SHARD_BYTES });
            }
            let hashed = piece.clone();
            let hashing = self.pool().run(move || {
                hasher.update(&hashed);
                hasher
            });
            hasher = hashing.await?;
            writer.write(piece).await?;
        }
        if hasher.finalize().as_bytes() != shard.as_bytes() {
            return Err(Error::invalid(format!(
                "the shard object `{shard}` came with other bytes"
            )));
        }
        Ok(())
    }
}
