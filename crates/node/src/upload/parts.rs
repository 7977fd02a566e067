//! A large file that comes in parts, each by a request of its own, maybe through other gateways.
//!
//! Parts lie in the store until the upload is completed; then they are read in order as one file
//! and taken away, by the upload that owns them. A part's tag is the random half of its name.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use ballast_format::hash::Sha256;
use ballast_format::id::UploadId;
use ballast_store::env::{nonce, random_bytes};
use ballast_store::keyspace::{Key, Prefix};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::intake::Intake;
use crate::access::{Caller, Repo};
use crate::download::ByteStream;
use crate::error::{Error, Result};
use crate::hub::Hub;
use crate::worker::Worker;

/// Parts of one upload.
const MAX_PARTS: u32 = 10_000;
/// Bytes of a part that are read at once.
const READ_BYTES: usize = 1 << 20;
/// Reads at the same time: the one that is wanted, and the next.
const AHEAD: usize = 2;
/// Parts that are looked up at the same time.
const LOOKED_UP_AT_ONCE: usize = 8;
/// Parts of an upload that was never completed are taken away after this long: links to upload
/// them live for a day, and clocks may be wrong by another.
const ABANDONED_MS: u64 = 3 * 24 * 60 * 60 * 1000;

impl Hub {
    /// A name for an upload in parts.
    pub fn begin_parts(&self) -> UploadId {
        UploadId::from_bytes(random_bytes(self.env().as_ref()))
    }

    /// Stores a part of at most `limit` bytes; its tag.
    pub async fn put_part(
        &self,
        caller: &Caller,
        upload: UploadId,
        number: u32,
        limit: u64,
        body: ByteStream,
    ) -> Result<String> {
        if number == 0 || number > MAX_PARTS {
            let reason = format!("parts are numbered from 1 to {MAX_PARTS}");
            return Err(Error::invalid(reason));
        }
        let _slot = self.uploads.slot(self.env(), caller.user()?.user).await?;
        let nonce = nonce(self.env().as_ref());
        let key = Key::Part { upload, number, nonce };
        let mut writer = self.store().writer(&key)?;
        let mut intake = Intake::new(body, "the part", limit);
        while let Some(step) = intake.next().await? {
            for piece in step {
                writer.write(piece).await?;
            }
        }
        writer.finish().await?;
        Ok(format!("{nonce:016x}"))
    }

    /// Makes a file of its parts: these, by number and tag. Doing it again changes nothing.
    pub async fn complete_parts(
        self: &Arc<Self>,
        caller: &Caller,
        repo: &Repo,
        upload: UploadId,
        (sha256, size): (Sha256, u64),
        parts: &[(u32, String)],
    ) -> Result<()> {
        // The answer to an earlier call may have been lost, with the parts gone since.
        if !self.has_file(caller, repo, &sha256, size).await? {
            let keys = self.keys_of_parts(upload, size, parts).await?;
            let body = self.read_parts(keys);
            self.put_file(caller, repo, sha256, size, body).await?;
        }
        // The file is durable; what is left of its parts is only in the way.
        let mut listed = self.store().list(&Prefix::Parts(upload));
        while let Some(part) = listed.try_next().await? {
            self.store().sweep(&part.key).await?;
        }
        Ok(())
    }

    /// Where these parts are, and how long each is.
    async fn keys_of_parts(
        &self,
        upload: UploadId,
        size: u64,
        parts: &[(u32, String)],
    ) -> Result<Vec<(Key, u64)>> {
        let named = (1..).zip(parts).map(|(expected, (number, tag))| {
            if *number != expected || *number > MAX_PARTS {
                let reason = "parts must be numbered from 1 on, without gaps";
                return Err(Error::invalid(reason));
            }
            let nonce = u64::from_str_radix(tag.trim_matches('"'), 16);
            let nonce = nonce.map_err(|_| Error::invalid(format!("`{tag}` is no part's tag")))?;
            let number = *number;
            Ok(Key::Part { upload, number, nonce })
        });
        let named: Vec<Key> = named.collect::<Result<_>>()?;
        let keys: Vec<(Key, u64)> = stream::iter((1..).zip(named))
            .map(|(number, key): (u32, Key)| async move {
                let missing = || Error::invalid(format!("part {number} was not uploaded"));
                let length = self.store().size(&key).await?.ok_or_else(missing)?;
                Ok::<_, Error>((key, length))
            })
            .buffered(LOOKED_UP_AT_ONCE)
            .try_collect()
            .await?;
        let total: u64 = keys.iter().map(|(_, length)| length).sum();
        if total != size {
            let reason = format!("{size} bytes were said, the parts have {total}");
            return Err(Error::invalid(reason));
        }
        Ok(keys)
    }

    fn read_parts(self: &Arc<Self>, keys: Vec<(Key, u64)>) -> ByteStream {
        let ranges = keys.into_iter().flat_map(|(key, length)| {
            let starts = (0..length).step_by(READ_BYTES);
            starts.map(move |start| (key, start..length.min(start + READ_BYTES as u64)))
        });
        let hub = Arc::clone(self);
        let read = move |(key, range)| {
            let hub = Arc::clone(&hub);
            async move { Ok(hub.store().get_range(&key, range).await?) }
        };
        Box::pin(stream::iter(ranges).map(read).buffered(AHEAD))
    }

    /// Takes away a part that turned out not to be needed, while nobody waits for it.
    pub(super) fn drop_part(&self, key: Key) {
        let store = self.store().clone();
        self.runner().spawn("take away a part", async move {
            if let Err(error) = store.sweep(&key).await {
                tracing::debug!(%error, "a part stays until abandoned ones are swept");
            }
        });
    }

    async fn sweep_abandoned_parts(&self) -> Result<usize> {
        let mut swept = 0;
        let mut listed = self.store().list(&Prefix::AllParts);
        while let Some(part) = listed.try_next().await? {
            if part.modified_ms.saturating_add(ABANDONED_MS) < self.env().now_ms() {
                self.store().sweep(&part.key).await?;
                swept += 1;
            }
        }
        Ok(swept)
    }
}

/// Takes away the parts of uploads that were never completed.
#[derive(Clone, Copy, Debug)]
pub struct SweepParts;

#[async_trait]
impl Worker for SweepParts {
    fn name(&self) -> &'static str {
        "sweep abandoned parts"
    }

    fn pause(&self) -> Duration {
        Duration::from_hours(6)
    }

    async fn work(&self, hub: &Hub) {
        match hub.sweep_abandoned_parts().await {
            Ok(0) => {}
            Ok(swept) => tracing::info!(swept, "took away parts of abandoned uploads"),
            Err(error) => tracing::warn!(%error, "abandoned parts stay for now"),
        }
    }
}
