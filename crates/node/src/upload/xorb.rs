//! A xorb comes in: checked chunk by chunk while it streams, stored, pinned, then acknowledged.

use std::collections::VecDeque;
use std::sync::Arc;

use ballast_format::hash::XorbHash;
use ballast_format::id::UserId;
use ballast_format::limits::MAX_XORB_UPLOAD_BYTES;
use ballast_format::xorb::{XorbFooter, XorbValidator};
use ballast_store::env::random_bytes;
use ballast_store::index::schema::{self, Scope};
use ballast_store::index::{Batch, Table};
use ballast_store::keyspace::{CopyKind, CopyName, Key};
use ballast_store::objects::ObjectWriter;
use ballast_store::pin::pin;
use bytes::{Buf as _, Bytes};
use futures_util::StreamExt as _;

use super::PROMISE_MS;
use crate::access::Caller;
use crate::download::ByteStream;
use crate::error::{Error, Result};
use crate::hub::Hub;

/// Bytes that are checked at once on the pool: enough that the hop costs nothing.
const STEP_BYTES: usize = 1 << 20;

impl Hub {
    /// Takes in an uploaded xorb. Whether it is new is told only to those who may know; everybody
    /// else hears that it is.
    pub async fn put_xorb(
        self: &Arc<Self>,
        caller: &Caller,
        hash: XorbHash,
        length: Option<u64>,
        body: ByteStream,
    ) -> Result<bool> {
        let user = caller.user()?.user;
        let limit = MAX_XORB_UPLOAD_BYTES as u64;
        if let Some(size) = length.filter(|length| *length > limit) {
            return Err(Error::TooLarge { what: "the xorb".to_owned(), size, limit });
        }
        let _slot = self.uploads.slot().await?;
        let existing = self.xorb_copy(&hash).await?;
        let known = existing.is_some() && self.may_use_xorb(caller, &hash).await?;
        // Who may not know of it sees us store it, as far as time tells.
        let writer = if known { None } else { Some(self.new_xorb(hash).await?) };
        let (footer, writer) = self.check_xorb(hash, body, writer).await?;
        match (writer, existing) {
            (Some((copy, writer)), None) => self.store_xorb(user, copy, &footer, writer).await?,
            (Some((_, writer)), Some(_)) => {
                writer.abort().await;
                self.pin_xorb(user, hash).await?;
            }
            (None, _) => self.pin_xorb(user, hash).await?,
        }
        Ok(!known)
    }

    async fn new_xorb(&self, hash: XorbHash) -> Result<(CopyName, ObjectWriter)> {
        let epoch = self.store().epoch().await?;
        let copy = self.store().new_copy(CopyKind::Xorb, *hash.as_bytes(), epoch);
        Ok((copy, self.store().writer(&Key::Copy(copy))?))
    }

    /// Reads the whole body, checks every chunk, and writes what was checked.
    async fn check_xorb(
        &self,
        hash: XorbHash,
        mut body: ByteStream,
        mut writer: Option<(CopyName, ObjectWriter)>,
    ) -> Result<(XorbFooter, Option<(CopyName, ObjectWriter)>)> {
        let mut validator = XorbValidator::new();
        let mut unwritten: VecDeque<Bytes> = VecDeque::new();
        let (mut seen, mut written) = (0_u64, 0_u64);
        let mut ended = false;
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
            let limit = MAX_XORB_UPLOAD_BYTES as u64;
            if seen > limit {
                return Err(Error::TooLarge { what: "the xorb".to_owned(), size: seen, limit });
            }
            unwritten.extend(step.iter().cloned());
            validator = self
                .pool()
                .run(move || {
                    step.iter().try_for_each(|piece| validator.feed(piece)).map(|()| validator)
                })
                .await??;
            // Only what was checked is written; a client's footer never is.
            let checked = validator.serialized_length();
            while written < checked {
                let Some(first) = unwritten.front_mut() else { break };
                let wanted = (checked - written).min(first.len() as u64);
                let piece = first.split_to(usize::try_from(wanted).unwrap_or(first.len()));
                if !first.has_remaining() {
                    unwritten.pop_front();
                }
                written += wanted;
                if let Some((_, writer)) = &mut writer {
                    writer.write(piece).await?;
                }
            }
        }
        let footer = self.pool().run(move || validator.finish(hash)).await??;
        Ok((footer, writer))
    }

    /// Ends a copy with its footer and makes it durable, with a pin; then it is there.
    pub(super) async fn store_xorb(
        &self,
        user: UserId,
        copy: CopyName,
        footer: &XorbFooter,
        mut writer: ObjectWriter,
    ) -> Result<()> {
        let nonce = u32::from_le_bytes(random_bytes(self.env().as_ref()));
        writer.write(Bytes::from(footer.encode(nonce))).await?;
        // A pin without its xorb means nothing, so both may be written at once (ADR 10).
        let hash = footer.hash();
        let until = self.env().now_ms() + PROMISE_MS;
        let (size, _) = tokio::try_join!(
            async { Ok::<_, Error>(writer.finish().await?) },
            async { Ok(pin(self.store(), user, hash, until).await?) },
        )?;
        let mut batch = Batch::new();
        batch.put(Table::Copy, schema::copy_key(&copy), schema::number_row(size));
        let key = schema::xorb_scope_key(&hash, &Scope::User(user));
        batch.put(Table::XorbScope, key, schema::number_row(until));
        self.index().apply(batch).await?;
        self.caches.places.insert(hash, copy);
        self.caches.footers.insert(copy, Arc::new(footer.clone()));
        self.sound(&copy, footer).add(0..footer.chunk_count());
        Ok(())
    }

    /// Promises somebody that a xorb which is there stays.
    pub(super) async fn pin_xorb(&self, user: UserId, hash: XorbHash) -> Result<()> {
        let until = self.env().now_ms() + PROMISE_MS;
        pin(self.store(), user, hash, until).await?;
        let mut batch = Batch::new();
        let key = schema::xorb_scope_key(&hash, &Scope::User(user));
        batch.put(Table::XorbScope, key, schema::number_row(until));
        Ok(self.index().apply(batch).await?)
    }

    /// Whether the caller need not send this xorb; saying so is a promise.
    pub async fn xorb_known(&self, caller: &Caller, hash: XorbHash) -> Result<bool> {
        let user = caller.user()?.user;
        if self.xorb_copy(&hash).await?.is_none() || !self.may_use_xorb(caller, &hash).await? {
            return Ok(false);
        }
        self.pin_xorb(user, hash).await?;
        Ok(true)
    }
}
