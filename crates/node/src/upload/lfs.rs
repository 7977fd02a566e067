//! A large file comes in as plain bytes.
//!
//! Its chunks are looked up within the caller's reach; what is new is packed into xorbs, which are
//! stored while more arrives. Nothing of it can be found before all of it is there and is what it
//! was said to be (R7); what a mirror fetches can be read along, but not to its end (`growing`).
//! Of that, some may be in the store before, in xorbs that are kept as they came (`kept`).

use std::collections::HashSet;
use std::sync::Arc;

use ballast_format::hash::{FileHash, Sha256, XorbHash};
use ballast_format::limits::MAX_FILE_BYTES;
use ballast_format::manifest::Manifest;
use ballast_store::keyspace::Leased;
use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::chunked::{Cut, Cutter, Packed, Placer};
use super::growing::Growing;
use super::intake::Intake;
use super::scope::Look;
use super::storing::Storing;
use crate::access::{Caller, Repo};
use crate::download::ByteStream;
use crate::error::{Error, Result};
use crate::hub::Hub;

/// Xorbs of a known file whose chunks are learnt at once: 1 GB of it.
const LEARNT_XORBS: usize = 16;
/// How many of these are left when more are learnt.
const LEARN_BEFORE: usize = 4;
/// How long what is learnt must stay within reach: long enough for the upload to end.
pub(super) const DAY_MS: u64 = 24 * 60 * 60 * 1000;
/// Pins that are written at the same time.
const PINS_AT_ONCE: usize = 4;

/// A file that comes in.
struct Arrival<'a> {
    caller: &'a Caller,
    repo: &'a Repo,
    placer: Placer,
    storing: Storing,
    growing: Arc<Growing>,
    /// Bytes that have come.
    came: u64,
    /// The xorbs of a known file that this one resembles, and how many of them were learnt.
    similar: Vec<XorbHash>,
    learnt: usize,
}

impl Hub {
    /// Takes in a large file. It is the file that it is said to be, or nothing is registered.
    pub async fn put_file(
        self: &Arc<Self>,
        caller: &Caller,
        repo: &Repo,
        sha256: Sha256,
        size: u64,
        body: ByteStream,
    ) -> Result<()> {
        self.put_growing(caller, repo, (sha256, size), body, Arc::default()).await
    }

    /// The same, and others see how it grows.
    pub(super) async fn put_growing(
        self: &Arc<Self>,
        caller: &Caller,
        repo: &Repo,
        (sha256, size): (Sha256, u64),
        body: ByteStream,
        growing: Arc<Growing>,
    ) -> Result<()> {
        let user = caller.user()?.user;
        tracing::debug!(repo = %repo.name(), hash = %sha256, bytes = size, "a file comes in");
        if size > MAX_FILE_BYTES {
            let (what, limit) = (format!("the file `{sha256}`"), MAX_FILE_BYTES);
            return Err(Error::TooLarge { what, size, limit });
        }
        let _slot = self.uploads.slot(self.env(), user).await?;
        growing.begin(size);
        let mut arrival = Arrival {
            caller,
            repo,
            placer: Placer::new(&self.uploads.packing, Arc::clone(&growing)),
            storing: Storing::new(self, Arc::clone(&growing)),
            growing: Arc::clone(&growing),
            came: 0,
            similar: Vec::new(),
            learnt: 0,
        };
        let (length, actual) = self.take_in(&mut arrival, size, body).await?;
        if length != size || actual != sha256 {
            let reason = format!("`{sha256}` was said, `{actual}` of {length} bytes came");
            return Err(Error::invalid(reason));
        }
        let Arrival { placer, mut storing, .. } = arrival;
        let placed = self.pool().run(move || placer.finish()).await??;
        if let Some(last) = placed.last {
            storing.store(last).await?;
        }
        let mut stored = storing.finish().await?;
        let used: HashSet<XorbHash> = placed.terms.iter().map(|term| term.xorb).collect();
        stored.extend(growing.kept_new().into_iter().filter(|xorb| used.contains(xorb)));
        if placed.file == FileHash::ZERO {
            return Ok(());
        }
        let manifest = Manifest::new(placed.file, sha256, size, placed.terms, placed.samples)?;
        stream::iter(stored)
            .map(|xorb| self.pin_xorb(user, Leased::Sent(xorb), xorb))
            .buffer_unordered(PINS_AT_ONCE)
            .try_collect::<()>()
            .await?;
        self.register(caller, vec![manifest]).await?;
        Ok(())
    }

    /// Reads the body to its end; how long it was, and its SHA-256.
    async fn take_in(
        self: &Arc<Self>,
        arrival: &mut Arrival<'_>,
        size: u64,
        body: ByteStream,
    ) -> Result<(u64, Sha256)> {
        let mut intake = Intake::new(body, "the file", size);
        let mut cutter = Cutter::new();
        loop {
            let step = match intake.next().await {
                Ok(None) => break,
                Ok(Some(step)) => step,
                Err(Error::TooLarge { .. }) => {
                    let reason = format!("more than the {size} bytes that were said");
                    return Err(Error::invalid(reason));
                }
                Err(error) => return Err(error),
            };
            let length: usize = step.iter().map(Bytes::len).sum();
            self.expect_kept(arrival, length as u64).await?;
            let job = self.pool().run(move || {
                let cuts = step.iter().flat_map(|piece| cutter.feed(piece));
                let cuts: Vec<Cut> = cuts.collect();
                (cutter, cuts)
            });
            let cuts;
            (cutter, cuts) = job.await?;
            self.place(arrival, cuts).await?;
        }
        let (last, actual, length) = self.pool().run(move || cutter.finish()).await?;
        self.place(arrival, last.into_iter().collect()).await?;
        Ok((length, actual))
    }

    /// Waits until it is known which xorbs begin in the next bytes and are here as they came.
    async fn expect_kept(&self, arrival: &mut Arrival<'_>, length: u64) -> Result<()> {
        let next = arrival.came..arrival.came + length;
        arrival.came = next.end;
        arrival.growing.decided(next.end).await;
        for (at, xorb) in arrival.growing.kept(next) {
            if self.present_copy(&xorb).await?.is_none() {
                continue;
            }
            match self.open_xorb(&xorb).await {
                Ok(Some((_, footer))) => arrival.placer.expect(footer, at),
                Ok(None) | Err(Error::Corrupt { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Finds a place for the next chunks.
    async fn place(self: &Arc<Self>, arrival: &mut Arrival<'_>, cuts: Vec<Cut>) -> Result<()> {
        for cut in cuts.iter().filter(|cut| cut.is_sample) {
            if !arrival.placer.knows(&cut.hash) {
                self.look_up(arrival, cut).await?;
            }
        }
        let placer = Placer::new(&self.uploads.packing, Arc::default());
        let mut placer = std::mem::replace(&mut arrival.placer, placer);
        let job = move || {
            let full = placer.place(&cuts);
            (placer, full)
        };
        let full: Result<Vec<Packed>>;
        (arrival.placer, full) = self.pool().run(job).await?;
        for packed in full? {
            arrival.storing.store(packed).await?;
        }
        // As long as the file goes on as the known one does, so does what is learnt of that.
        if let Some(matched) = arrival.placer.take_matched() {
            let place = arrival.similar.iter().position(|xorb| *xorb == matched);
            if place.is_some_and(|place| place + LEARN_BEFORE >= arrival.learnt) {
                self.learn(arrival).await?;
            }
        }
        Ok(())
    }

    /// Asks the index about a chunk, and learns what comes next to it where it is known.
    async fn look_up(&self, arrival: &mut Arrival<'_>, cut: &Cut) -> Result<()> {
        let then = self.env().now_ms() + DAY_MS;
        let look = Look::to_use(Some(arrival.repo.id()), then);
        let row = self.find_chunk(arrival.caller, look, &cut.hash).await?;
        if let Some(row) = row {
            arrival.similar = self.xorbs_around(&row).await?;
            arrival.learnt = 0;
            self.learn(arrival).await?;
        }
        Ok(())
    }

    async fn learn(&self, arrival: &mut Arrival<'_>) -> Result<()> {
        let then = self.env().now_ms() + DAY_MS;
        let next = arrival.similar.iter().skip(arrival.learnt);
        let next: Vec<XorbHash> = next.take(LEARNT_XORBS).copied().collect();
        arrival.learnt += next.len();
        let look = Look::to_use(Some(arrival.repo.id()), then);
        for xorb in next {
            let found = self.find_xorb(arrival.caller, look, xorb).await?;
            if let Some(found) = found {
                arrival.placer.learn(&found.footer, &found.reach);
            }
        }
        Ok(())
    }
}
