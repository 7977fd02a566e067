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

use super::heard::{Heard, Teller};
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
        self.put_told_xorb(caller, hash, length, body, None).await
    }

    /// The same; the teller tells of its chunks while they come. That they make this xorb is known
    /// only when this has returned.
    pub async fn put_told_xorb(
        self: &Arc<Self>,
        caller: &Caller,
        hash: XorbHash,
        length: Option<u64>,
        body: ByteStream,
        teller: Option<Teller>,
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
        match self.check_xorb(hash, body, new, teller).await? {
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

    /// Reads the whole body, checks every chunk, and writes what was checked. While a step is
    /// checked, the one before it is written, and the next one is read.
    pub(super) async fn check_xorb(
        &self,
        hash: XorbHash,
        body: ByteStream,
        mut new: Option<NewXorb>,
        mut teller: Option<Teller>,
    ) -> Result<(XorbFooter, Option<NewXorb>)> {
        let mut intake = Intake::new(body, WHAT, LIMIT);
        let mut checking = Checking::default();
        let (mut unwritten, mut checked) = (Unwritten::default(), Checked::default());
        let mut step = intake.next().await?;
        while let Some(pieces) = step {
            unwritten.pieces.extend(pieces.iter().cloned());
            let is_heard = teller.as_ref().is_some_and(Teller::is_heard);
            let check = self.pool().run(move || checking.check(&pieces, is_heard));
            let ((now, heard), next, ()) = tokio::try_join!(
                async { check.await? },
                intake.next(),
                checked.hand_on(new.as_mut(), teller.as_mut()),
            )?;
            // Only what was checked is written; a client's footer never is.
            let pieces = unwritten.take(now.validator.serialized_length());
            (checking, checked, step) = (now, Checked { pieces, heard }, next);
        }
        checked.hand_on(new.as_mut(), teller.as_mut()).await?;
        let footer = self.pool().run(move || checking.validator.finish(hash)).await??;
        Ok((footer, new))
    }

    /// Checks a body and keeps it as one more copy. It is nobody's.
    pub(crate) async fn copy_xorb(&self, hash: XorbHash, body: ByteStream) -> Result<()> {
        let new = self.new_xorb(hash).await?;
        let (footer, new) = self.check_xorb(hash, body, Some(new), None).await?;
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

/// A xorb while it is checked.
#[derive(Default)]
struct Checking {
    validator: XorbValidator,
    /// How many chunks of it were checked.
    chunks: u32,
}

impl Checking {
    /// Checks the next step; what its chunks hold, if anybody wants to hear that.
    fn check(mut self, step: &[Bytes], is_heard: bool) -> Result<(Self, Heard)> {
        let mut heard = Heard { first: self.chunks, chunks: Vec::new() };
        for piece in step {
            self.validator.feed_each(piece, &mut |chunk| {
                self.chunks += 1;
                if is_heard {
                    heard.chunks.push(part_of(piece, chunk));
                }
            })?;
        }
        Ok((self, heard))
    }
}

/// A chunk that need not be copied if it lies in this piece.
fn part_of(piece: &Bytes, chunk: &[u8]) -> Bytes {
    let (whole, part) = (piece.as_ptr_range(), chunk.as_ptr_range());
    if whole.start <= part.start && part.end <= whole.end {
        piece.slice_ref(chunk)
    } else {
        Bytes::copy_from_slice(chunk)
    }
}

/// What was checked and is to be written and told of.
#[derive(Default)]
struct Checked {
    pieces: Vec<Bytes>,
    heard: Heard,
}

impl Checked {
    async fn hand_on(self, new: Option<&mut NewXorb>, teller: Option<&mut Teller>) -> Result<()> {
        let write = async {
            if let Some(new) = new {
                for piece in self.pieces {
                    new.writer.write(piece).await?;
                }
            }
            Ok(())
        };
        let tell = async {
            if let Some(teller) = teller {
                teller.tell(self.heard).await;
            }
            Ok(())
        };
        tokio::try_join!(write, tell).map(|((), ())| ())
    }
}

/// What came and was not written yet.
#[derive(Default)]
struct Unwritten {
    pieces: VecDeque<Bytes>,
    written: u64,
}

impl Unwritten {
    /// What is not written yet of the first `checked` bytes of the body.
    fn take(&mut self, checked: u64) -> Vec<Bytes> {
        let mut taken = Vec::new();
        while self.written < checked
            && let Some(first) = self.pieces.front_mut()
        {
            let wanted = (checked - self.written).min(first.len() as u64);
            taken.push(first.split_to(usize::try_from(wanted).unwrap_or(first.len())));
            if first.is_empty() {
                self.pieces.pop_front();
            }
            self.written += wanted;
        }
        taken
    }
}
