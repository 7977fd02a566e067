//! A large file comes in as plain bytes.

use std::sync::Arc;

use ballast_format::hash::{FileHash, Sha256};
use ballast_format::manifest::Manifest;
use ballast_store::keyspace::{CopyKind, Key};
use bytes::Bytes;
use futures_util::StreamExt as _;

use super::chunked::{Cut, Cutter, Packed, Placer};
use crate::access::{Caller, Repo};
use crate::download::ByteStream;
use crate::error::{Error, Result};
use crate::hub::Hub;

/// Bytes that are cut at once on the pool.
const STEP_BYTES: usize = 1 << 20;
/// Bytes of a packed xorb that are handed to the store at once.
const WRITE_BYTES: usize = 1 << 20;
/// Xorbs of a known file whose chunks are looked at: some 16 GB.
const LEARNT_XORBS: usize = 256;

impl Hub {
    /// Takes in a large file. It is the file that it is said to be, or nothing is registered.
    pub async fn put_file(
        self: &Arc<Self>,
        caller: &Caller,
        repo: &Repo,
        sha256: Sha256,
        size: u64,
        mut body: ByteStream,
    ) -> Result<()> {
        let user = caller.user()?.user;
        tracing::debug!(repo = %repo.name(), hash = %sha256, bytes = size, "a file comes in");
        let _slot = self.uploads.slot().await?;
        let (mut cutter, mut placer) = (Cutter::new(), Placer::new());
        let (mut seen, mut ended) = (0_u64, false);
        while !ended {
            let (mut step, mut step_bytes) = (Vec::new(), 0);
            while step_bytes < STEP_BYTES {
                let Some(piece) = body.next().await.transpose()? else {
                    ended = true;
                    break;
                };
                step_bytes += piece.len();
                step.push(piece);
            }
            seen += step_bytes as u64;
            if seen > size {
                return Err(Error::invalid(format!("more than the {size} bytes that were said")));
            }
            let job = self.pool().run(move || {
                let cuts: Vec<Cut> = step.iter().flat_map(|piece| cutter.feed(piece)).collect();
                (cutter, cuts)
            });
            let cuts;
            (cutter, cuts) = job.await?;
            placer = self.place(caller, placer, cuts).await?;
        }
        let (last, actual, length) = self.pool().run(move || cutter.finish()).await?;
        placer = self.place(caller, placer, last.into_iter().collect()).await?;
        if length != size || actual != sha256 {
            let reason = format!("`{sha256}` was said, `{actual}` of {length} bytes came");
            return Err(Error::invalid(reason));
        }
        let (packed, file, terms, samples) = self.pool().run(move || placer.finish()).await??;
        if let Some(packed) = packed {
            self.store_packed(user, packed).await?;
        }
        if file == FileHash::ZERO {
            return Ok(());
        }
        let manifest = Manifest::new(file, sha256, size, terms, samples)?;
        self.register(caller, vec![manifest]).await?;
        Ok(())
    }

    async fn place(
        self: &Arc<Self>,
        caller: &Caller,
        mut placer: Placer,
        cuts: Vec<Cut>,
    ) -> Result<Placer> {
        for cut in cuts.iter().filter(|cut| cut.is_sample) {
            if placer.knows(&cut.hash) {
                continue;
            }
            if let Some(row) = self.find_chunk(caller, &cut.hash).await?
                && let Some(manifest) = self.manifest(&row.file).await?
            {
                let footers = self.footers_around(&manifest, &row.xorb).await?;
                for footer in footers.iter().take(LEARNT_XORBS) {
                    placer.learn(footer);
                }
            }
        }
        let (placer, full) = self
            .pool()
            .run(move || {
                let full = placer.place(&cuts);
                (placer, full)
            })
            .await?;
        for packed in full {
            self.store_packed(caller.user()?.user, packed).await?;
        }
        Ok(placer)
    }

    async fn store_packed(
        &self,
        user: ballast_format::id::UserId,
        (mut bytes, footer): Packed,
    ) -> Result<()> {
        let hash = footer.hash();
        if self.xorb_copy(&hash).await?.is_some() {
            return self.pin_xorb(user, hash).await;
        }
        let epoch = self.store().epoch().await?;
        let copy = self.store().new_copy(CopyKind::Xorb, *hash.as_bytes(), epoch);
        let mut writer = self.store().writer(&Key::Copy(copy))?;
        while !bytes.is_empty() {
            let piece: Bytes = bytes.split_to(bytes.len().min(WRITE_BYTES));
            writer.write(piece).await?;
        }
        self.store_xorb(user, copy, &footer, writer).await
    }
}
