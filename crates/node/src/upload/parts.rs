//! A large file that comes in parts, each by a request of its own, maybe through other gateways.
//!
//! Parts lie in the store until the upload is completed; then they are read in order as one file
//! and taken away, by the upload that owns them. A part's tag is the random half of its name.

use std::sync::Arc;

use ballast_format::hash::Sha256;
use ballast_format::id::UploadId;
use ballast_store::env::{nonce, random_bytes};
use ballast_store::keyspace::{Key, Prefix};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use crate::access::{Caller, Repo};
use crate::download::ByteStream;
use crate::error::{Error, Result};
use crate::hub::Hub;

/// Parts of one upload.
const MAX_PARTS: u32 = 10_000;
/// Bytes of a part that are read at once.
const READ_BYTES: u64 = 1 << 20;

impl Hub {
    /// A name for an upload in parts.
    pub fn begin_parts(&self) -> UploadId {
        UploadId::from_bytes(random_bytes(self.env().as_ref()))
    }

    /// Stores a part of at most `limit` bytes; its tag.
    pub async fn put_part(
        &self,
        upload: UploadId,
        number: u32,
        limit: u64,
        mut body: ByteStream,
    ) -> Result<String> {
        if number == 0 || number > MAX_PARTS {
            return Err(Error::invalid(format!("parts are numbered from 1 to {MAX_PARTS}")));
        }
        let _slot = self.uploads.slot().await?;
        let nonce = nonce(self.env().as_ref());
        let mut writer = self.store().writer(&Key::Part { upload, number, nonce })?;
        while let Some(piece) = body.next().await.transpose()? {
            if writer.written() + piece.len() as u64 > limit {
                writer.abort().await;
                return Err(Error::invalid(format!("more than the {limit} bytes of a part")));
            }
            writer.write(piece).await?;
        }
        writer.finish().await?;
        Ok(format!("{nonce:016x}"))
    }

    /// Makes a file of its parts: these, by number and tag.
    pub async fn complete_parts(
        self: &Arc<Self>,
        caller: &Caller,
        repo: &Repo,
        upload: UploadId,
        (sha256, size): (Sha256, u64),
        parts: &[(u32, String)],
    ) -> Result<()> {
        let mut keys = Vec::with_capacity(parts.len().min(MAX_PARTS as usize));
        for (index, (number, tag)) in parts.iter().enumerate() {
            if usize::try_from(*number).ok() != Some(index + 1) || *number > MAX_PARTS {
                return Err(Error::invalid("parts must be numbered from 1 on, without gaps"));
            }
            let nonce = u64::from_str_radix(tag.trim_matches('"'), 16);
            let nonce = nonce.map_err(|_| Error::invalid(format!("`{tag}` is no part's tag")))?;
            let key = Key::Part { upload, number: *number, nonce };
            let missing = || Error::invalid(format!("part {number} was not uploaded"));
            let length = self.store().size(&key).await?.ok_or_else(missing)?;
            keys.push((key, length));
        }
        let body = self.read_parts(keys);
        self.put_file(caller, repo, sha256, size, body).await?;
        // The file is durable; what is left of its parts is only in the way.
        let mut listed = self.store().list(&Prefix::Parts(upload));
        while let Some(part) = listed.try_next().await? {
            self.store().sweep(&part.key).await?;
        }
        Ok(())
    }

    fn read_parts(self: &Arc<Self>, keys: Vec<(Key, u64)>) -> ByteStream {
        let ranges = keys.into_iter().flat_map(|(key, length)| {
            let starts = (0..length).step_by(READ_BYTES as usize);
            starts.map(move |start| (key, start..length.min(start + READ_BYTES)))
        });
        let hub = Arc::clone(self);
        Box::pin(stream::iter(ranges).then(move |(key, range)| {
            let hub = Arc::clone(&hub);
            async move { Ok(hub.store().get_range(&key, range).await?) }
        }))
    }
}
