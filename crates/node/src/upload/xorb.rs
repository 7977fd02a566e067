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
use bytes::Bytes;

use super::PROMISE_MS;
use super::intake::Intake;
use crate::access::Caller;
use crate::download::ByteStream;
use crate::error::{Error, Result};
use crate::hub::Hub;

const WHAT: &str = "the xorb";
const LIMIT: u64 = MAX_XORB_UPLOAD_BYTES as u64;

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
        if let Some(size) = length.filter(|length| *length > LIMIT) {
            return Err(Error::TooLarge { what: WHAT.to_owned(), size, limit: LIMIT });
        }
        let _slot = self.uploads.slot(self.env()).await?;
        let existing = self.present_copy(&hash).await?;
        let known = existing.is_some() && self.may_know_xorb(caller, &hash).await?;
        // Who may not know of it sees us store it, as far as time tells.
        let new = if known { None } else { Some(self.new_xorb(hash).await?) };
        let (footer, new) = self.check_xorb(hash, body, new).await?;
        match (new, existing) {
            (Some(new), None) => self.keep_xorb(user, &footer, new).await?,
            (Some((_, writer)), Some(_)) => {
                writer.abort().await;
                self.pin_xorb(user, hash).await?;
            }
            (None, _) => self.pin_xorb(user, hash).await?,
        }
        Ok(!known)
    }

    /// Whether the caller need not send this xorb; saying so is a promise.
    pub async fn xorb_known(&self, caller: &Caller, hash: XorbHash) -> Result<bool> {
        let user = caller.user()?.user;
        let known = self.may_know_xorb(caller, &hash).await?;
        if known {
            self.pin_xorb(user, hash).await?;
        }
        Ok(known)
    }

    /// Whether a xorb is there and every chunk of it is within the caller's reach.
    async fn may_know_xorb(&self, caller: &Caller, hash: &XorbHash) -> Result<bool> {
        let now = self.env().now_ms();
        let found = self.find_xorb(caller, None, *hash, now).await?;
        Ok(found.is_some_and(|found| found.reach.holds(&(0..found.footer.chunk_count()))))
    }

    /// A writer for a copy of this xorb.
    pub(super) async fn new_xorb(&self, hash: XorbHash) -> Result<(CopyName, ObjectWriter)> {
        let epoch = self.store().epoch().await?;
        let copy = self.store().new_copy(CopyKind::Xorb, *hash.as_bytes(), epoch);
        Ok((copy, self.store().writer(&Key::Copy(copy))?))
    }

    /// Reads the whole body, checks every chunk, and writes what was checked.
    async fn check_xorb(
        &self,
        hash: XorbHash,
        body: ByteStream,
        mut new: Option<(CopyName, ObjectWriter)>,
    ) -> Result<(XorbFooter, Option<(CopyName, ObjectWriter)>)> {
        let mut intake = Intake::new(body, WHAT, LIMIT);
        let mut validator = XorbValidator::new();
        let mut unwritten = Unwritten::default();
        while let Some(step) = intake.next().await? {
            unwritten.pieces.extend(step.iter().cloned());
            let checked = self.pool().run(move || {
                step.iter().try_for_each(|piece| validator.feed(piece)).map(|()| validator)
            });
            validator = checked.await??;
            // Only what was checked is written; a client's footer never is.
            while let Some(piece) = unwritten.next(validator.serialized_length()) {
                if let Some((_, writer)) = &mut new {
                    writer.write(piece).await?;
                }
            }
        }
        let footer = self.pool().run(move || validator.finish(hash)).await??;
        Ok((footer, new))
    }

    /// Ends a copy with its footer and makes it durable, with a pin; then it is there.
    async fn keep_xorb(
        &self,
        user: UserId,
        footer: &XorbFooter,
        (copy, writer): (CopyName, ObjectWriter),
    ) -> Result<()> {
        // A pin without its xorb means nothing, so both may be written at once (ADR 10).
        let hash = footer.hash();
        let until = self.env().now_ms() + PROMISE_MS;
        let (size, _) = tokio::try_join!(self.finish_xorb(footer, writer), async {
            Ok(pin(self.store(), user, hash, until).await?)
        })?;
        let mut batch = self.rows_of_copy(&copy, footer, size);
        let key = schema::xorb_scope_key(&hash, &Scope::User(user));
        batch.put(Table::XorbScope, key, schema::number_row(until));
        Ok(self.index().apply(batch).await?)
    }

    /// Ends a copy with its footer and makes it durable; its size.
    pub(super) async fn finish_xorb(
        &self,
        footer: &XorbFooter,
        mut writer: ObjectWriter,
    ) -> Result<u64> {
        let nonce = u32::from_le_bytes(random_bytes(self.env().as_ref()));
        writer.write(Bytes::from(footer.encode(nonce))).await?;
        Ok(writer.finish().await?)
    }

    /// What is known of a copy that was just checked and stored.
    pub(super) fn rows_of_copy(&self, copy: &CopyName, footer: &XorbFooter, size: u64) -> Batch {
        self.caches.places.insert(footer.hash(), *copy);
        self.caches.footers.insert(*copy, Arc::new(footer.clone()));
        self.sound(copy, footer).add(0..footer.chunk_count());
        let mut batch = Batch::new();
        batch.put(Table::Copy, schema::copy_key(copy), schema::number_row(size));
        batch
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
}

/// What came and was not written yet.
#[derive(Default)]
struct Unwritten {
    pieces: VecDeque<Bytes>,
    written: u64,
}

impl Unwritten {
    /// The next piece of the first `checked` bytes of the body.
    fn next(&mut self, checked: u64) -> Option<Bytes> {
        let first = self.pieces.front_mut()?;
        let wanted = (checked - self.written).min(first.len() as u64);
        let piece = first.split_to(usize::try_from(wanted).unwrap_or(first.len()));
        if first.is_empty() {
            self.pieces.pop_front();
        }
        self.written += wanted;
        (!piece.is_empty()).then_some(piece)
    }
}
