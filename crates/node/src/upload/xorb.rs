//! A xorb comes in: checked chunk by chunk while it streams, stored, pinned, then acknowledged.

use std::collections::VecDeque;
use std::sync::Arc;

use ballast_format::hash::XorbHash;
use ballast_format::id::UserId;
use ballast_format::limits::MAX_XORB_UPLOAD_BYTES;
use ballast_format::xorb::{XorbFooter, XorbValidator};
use ballast_store::env::{nonce, random_bytes};
use ballast_store::index::schema::{self, Scope};
use ballast_store::index::{Batch, Table};
use ballast_store::keyspace::{CopyKind, CopyName, Key, Leased};
use ballast_store::objects::ObjectWriter;
use ballast_store::pin::pin;
use bytes::Bytes;

use super::intake::Intake;
use super::scope::Look;
use super::{PROMISE_MS, REMEMBERED_MS};
use crate::access::Caller;
use crate::broken::{Step, is_left_out};
use crate::download::ByteStream;
use crate::error::{Error, Result};
use crate::hub::Hub;

const WHAT: &str = "the xorb";
const LIMIT: u64 = MAX_XORB_UPLOAD_BYTES as u64;

/// A xorb while it is written.
pub(super) struct NewXorb {
    /// The copy that it becomes. A spare one becomes none: it is written as if it were needed, for
    /// those who must not learn that it is not.
    copy: Option<CopyName>,
    pub(super) writer: ObjectWriter,
}

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
        let _slot = self.uploads.slot(self.env(), user).await?;
        let is_there = self.present_copy(&hash).await?.is_some();
        let known = is_there && self.may_know_xorb(caller, &hash, self.env().now_ms()).await?;
        // Who may not know of it sees us store it, as far as time tells.
        let new = match (known, is_there) {
            (true, _) => None,
            (false, true) => Some(self.spare_xorb().await?),
            (false, false) => Some(self.new_xorb(hash).await?),
        };
        match self.check_xorb(hash, body, new).await? {
            (footer, Some(new)) => self.keep_xorb(user, &footer, new).await?,
            (_, None) => self.pin_xorb(user, Leased::Sent(hash), hash).await?,
        }
        Ok(!known)
    }

    /// Whether the caller knows of this xorb. To hear it changes nothing.
    pub async fn xorb_known(&self, caller: &Caller, hash: XorbHash) -> Result<bool> {
        caller.user()?;
        self.may_know_xorb(caller, &hash, self.env().now_ms()).await
    }

    /// Whether the caller need not send this xorb; saying so is a promise, as long as clients
    /// remember it. Whose own upload would be forgotten before is asked to send it again, since
    /// nothing but sending makes it theirs for longer.
    pub async fn grant_xorb(&self, caller: &Caller, hash: XorbHash) -> Result<bool> {
        let user = caller.user()?.user;
        let then = self.env().now_ms() + REMEMBERED_MS;
        let known = self.may_know_xorb(caller, &hash, then).await?;
        if known {
            self.pin_xorb(user, Leased::Told(hash), hash).await?;
        }
        Ok(known)
    }

    /// Whether a xorb is there and every chunk of it is within the caller's reach, until then.
    async fn may_know_xorb(&self, caller: &Caller, hash: &XorbHash, then_ms: u64) -> Result<bool> {
        let found = self.find_xorb(caller, Look::to_offer(None, then_ms), *hash).await?;
        Ok(found.is_some_and(|found| found.reach.holds(&(0..found.footer.chunk_count()))))
    }

    /// A writer for a copy of this xorb.
    pub(super) async fn new_xorb(&self, hash: XorbHash) -> Result<NewXorb> {
        let epoch = self.store().epoch().await?;
        let copy = self.store().new_copy(CopyKind::Xorb, *hash.as_bytes(), epoch);
        Ok(NewXorb { copy: Some(copy), writer: self.store().writer(&Key::Copy(copy))? })
    }

    /// A writer for a copy that nobody needs. It looks like the part of an upload, so that it is
    /// taken away even if we stop before we do it.
    pub(super) async fn spare_xorb(&self) -> Result<NewXorb> {
        // A copy would be named by it, after a look at the store that takes its time.
        self.store().epoch().await?;
        let key =
            Key::Part { upload: self.begin_parts(), number: 1, nonce: nonce(self.env().as_ref()) };
        Ok(NewXorb { copy: None, writer: self.store().writer(&key)? })
    }

    /// Reads the whole body, checks every chunk, and writes what was checked.
    pub(super) async fn check_xorb(
        &self,
        hash: XorbHash,
        body: ByteStream,
        mut new: Option<NewXorb>,
    ) -> Result<(XorbFooter, Option<NewXorb>)> {
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
                if let Some(new) = &mut new {
                    new.writer.write(piece).await?;
                }
            }
        }
        let footer = self.pool().run(move || validator.finish(hash)).await??;
        Ok((footer, new))
    }

    /// Checks a body and keeps it as one more copy. It is nobody's.
    pub(crate) async fn copy_xorb(&self, hash: XorbHash, body: ByteStream) -> Result<()> {
        let new = self.new_xorb(hash).await?;
        let (footer, new) = self.check_xorb(hash, body, Some(new)).await?;
        let new = new.ok_or_else(|| Error::internal("the copy went astray"))?;
        let batch = self.finish_xorb(&footer, new).await?;
        Ok(self.index().apply(batch).await?)
    }

    /// Ends a copy with its footer and makes it durable, with a pin; then it is there.
    async fn keep_xorb(&self, user: UserId, footer: &XorbFooter, new: NewXorb) -> Result<()> {
        // A pin without its xorb means nothing, so both may be written at once (ADR 10).
        let hash = footer.hash();
        let until = self.env().now_ms() + PROMISE_MS;
        let (mut batch, _) = tokio::try_join!(self.finish_xorb(footer, new), async {
            Ok(pin(self.store(), user, Leased::Sent(hash), until).await?)
        })?;
        self.look_behind_pin(&hash).await?;
        let key = schema::xorb_scope_key(&hash, &Scope::User(user));
        batch.put(Table::XorbScope, key, schema::number_row(until));
        Ok(self.index().apply(batch).await?)
    }

    /// Ends a copy with its footer and makes it durable; the rows of it. A spare one has none, and
    /// goes away when nobody waits for it any more.
    pub(super) async fn finish_xorb(&self, footer: &XorbFooter, new: NewXorb) -> Result<Batch> {
        let NewXorb { copy, mut writer } = new;
        let nonce = u32::from_le_bytes(random_bytes(self.env().as_ref()));
        writer.write(Bytes::from(footer.encode(nonce))).await?;
        let key = *writer.key();
        let size = writer.finish().await?;
        if let Some(copy) = copy {
            return Ok(self.rows_of_copy(&copy, footer, size));
        }
        self.drop_part(key);
        Ok(Batch::new())
    }

    /// What is known of a copy that was just checked and stored.
    fn rows_of_copy(&self, copy: &CopyName, footer: &XorbFooter, size: u64) -> Batch {
        self.caches.places.insert(footer.hash(), *copy);
        self.caches.footers.insert(*copy, Arc::new(footer.clone()));
        self.sound(copy, footer).add(0..footer.chunk_count());
        let mut batch = Batch::new();
        batch.put(Table::Copy, schema::copy_key(copy), schema::number_row(size));
        batch
    }

    /// Promises somebody that a xorb which is there stays. A promise that holds for long enough is
    /// not made again.
    pub(super) async fn pin_xorb(
        &self,
        user: UserId,
        leased: Leased,
        hash: XorbHash,
    ) -> Result<()> {
        let now = self.env().now_ms();
        let sent = schema::xorb_scope_key(&hash, &Scope::User(user));
        let key = match leased {
            Leased::Told(_) => schema::xorb_told_key(&hash, &user),
            Leased::Sent(_) | Leased::Registered(_) => sent.clone(),
        };
        // What they sent themselves stays for them anyhow.
        let rows = self.index().get_many(Table::XorbScope, vec![sent, key.clone()]).await?;
        for row in rows.into_iter().flatten() {
            if schema::read_number(&row)? >= now + REMEMBERED_MS {
                return Ok(());
            }
        }
        let until = now + PROMISE_MS;
        pin(self.store(), user, leased, until).await?;
        self.look_behind_pin(&hash).await?;
        let mut batch = Batch::new();
        batch.put(Table::XorbScope, key, schema::number_row(until));
        Ok(self.index().apply(batch).await?)
    }

    /// Makes sure that a xorb whose pin is there now is there too, and stays: a collector that did
    /// not see the pin has published its list by now (Invariant 8).
    async fn look_behind_pin(&self, hash: &XorbHash) -> Result<()> {
        if !is_left_out(Step::PinThenLook) {
            self.read_newest_condemned().await?;
        }
        if self.present_copy(hash).await?.is_none() {
            let reason = "the xorb is about to go: send it again".to_owned();
            return Err(Error::Busy { reason });
        }
        Ok(())
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
