//! Xorbs of an upstream's that are kept as they come, under their names.
//!
//! A file of a mirror may come out of xorbs. One that it uses from the first chunk to the last has
//! a name that proves it, so it is stored as it is, and not cut, compressed and packed again. It
//! is nobody's until the file has come whole (ADR 20). What comes while a xorb is undecided waits
//! in the file's own way into the store ([`Growing`]), and what proves wrong is packed there as
//! ever: a xorb that is not kept costs nothing but the time.

use std::collections::VecDeque;
use std::sync::Arc;

use ballast_format::hash::XorbHash;
use ballast_format::id::RepoId;
use ballast_format::xorb::XorbFooter;
use bytes::Bytes;
use futures_util::stream;
use tokio::sync::{mpsc, oneshot};

use super::growing::{Growing, Hold};
use super::is_sample;
use super::lfs::DAY_MS;
use super::mirrored::bringer;
use super::scope::Look;
use crate::access::{Caller, Repo};
use crate::download::ByteStream;
use crate::error::Result;
use crate::hub::Hub;

/// Xorbs of one file that are undecided at the same time: one comes, one is made durable.
const AT_ONCE: usize = 2;
/// Pieces of a xorb that wait to be checked.
const PIECES_AHEAD: usize = 1;

/// What comes of an upstream's xorbs, in the order of the file.
#[derive(Debug)]
pub enum Came {
    /// The next bytes of the file are the chunks of this xorb, from its first on; the first one
    /// begins at this byte of the file.
    Begins {
        /// The xorb's name.
        xorb: XorbHash,
        /// The byte.
        at: u64,
    },
    /// The next chunks of the xorb, serialized.
    Chunks(Bytes),
    /// The next bytes of the file go on with no xorb.
    Ends,
}

/// The xorbs of one file that may be kept.
pub struct Keeping {
    hub: Arc<Hub>,
    caller: Caller,
    home: RepoId,
    growing: Arc<Growing>,
    /// While it is not known whether a xorb begins here.
    hold: Option<Hold>,
    open: Option<mpsc::Sender<Bytes>>,
    deciding: VecDeque<oneshot::Receiver<()>>,
}

impl Keeping {
    /// Of a file that comes to a mirror, from this byte on.
    pub fn new(hub: &Arc<Hub>, repo: &Repo, growing: &Arc<Growing>, from: u64) -> Self {
        Self {
            hub: Arc::clone(hub),
            caller: bringer(repo),
            home: repo.id(),
            growing: Arc::clone(growing),
            hold: Some(growing.hold(from)),
            open: None,
            deciding: VecDeque::new(),
        }
    }

    /// Takes in what came. What it says of the file must be told before the bytes of the file.
    pub async fn take(&mut self, came: Came) {
        match came {
            Came::Begins { xorb, at } => self.begin(xorb, at).await,
            Came::Chunks(bytes) => {
                if let Some(open) = &self.open
                    && open.send(bytes).await.is_err()
                {
                    // It is decided already.
                    self.open = None;
                }
            }
            Came::Ends => (self.open, self.hold) = (None, None),
        }
    }

    async fn begin(&mut self, xorb: XorbHash, at: u64) {
        self.open = None;
        while self.deciding.len() >= AT_ONCE
            && let Some(oldest) = self.deciding.pop_front()
        {
            // Whatever was decided: it was told to the file.
            drop(oldest.await);
        }
        let hold = self.growing.hold(at);
        self.hold = None;
        let (send, receive) = mpsc::channel(PIECES_AHEAD);
        let (decided, outcome) = oneshot::channel::<()>();
        let (hub, growing) = (Arc::clone(&self.hub), Arc::clone(&self.growing));
        let candidate = Candidate { caller: self.caller.clone(), home: self.home, xorb, at };
        self.hub.runner().spawn("keep a xorb", async move {
            match hub.keep(&candidate, &growing, body(receive)).await {
                Ok(Some(is_new)) => growing.keep(at, xorb, is_new),
                Ok(None) => {}
                Err(error) => tracing::debug!(%xorb, %error, "a xorb is not kept as it came"),
            }
            drop((hold, decided));
        });
        self.open = Some(send);
        self.deciding.push_back(outcome);
    }
}

/// A body that comes piece by piece, and ends with its sender.
pub(super) fn body(pieces: mpsc::Receiver<Bytes>) -> ByteStream {
    let next = |mut pieces: mpsc::Receiver<Bytes>| async {
        let piece = pieces.recv().await;
        piece.map(|piece| (Ok(piece), pieces))
    };
    Box::pin(stream::unfold(pieces, next))
}

/// A xorb that may be kept, and where in the file it begins.
struct Candidate {
    caller: Caller,
    home: RepoId,
    xorb: XorbHash,
    at: u64,
}

impl Hub {
    /// Checks a xorb and stores it. Whether it was not within reach before; nothing if what is in
    /// it is here already and better found there.
    async fn keep(
        &self,
        candidate: &Candidate,
        growing: &Growing,
        body: ByteStream,
    ) -> Result<Option<bool>> {
        let Candidate { caller, home, xorb, .. } = candidate;
        let look = Look::to_use(Some(*home), self.env().now_ms() + DAY_MS);
        let found = self.find_xorb(caller, look, *xorb).await?;
        if found.is_some_and(|found| found.reach.holds(&(0..found.footer.chunk_count()))) {
            return Ok(Some(false));
        }
        let is_there = self.present_copy(xorb).await?.is_some();
        // What others have must not be seen by the time that it takes.
        let new = if is_there { self.spare_xorb().await? } else { self.new_xorb(*xorb).await? };
        let (footer, new) = self.check_xorb(*xorb, body, Some(new)).await?;
        let Some(new) = new else { return Ok(None) };
        if self.is_elsewhere(candidate, look, &footer, growing).await? {
            return Ok(None);
        }
        let batch = self.finish_xorb(&footer, new).await?;
        self.index().apply(batch).await?;
        Ok(Some(true))
    }

    /// Whether what is in a xorb is within reach in others, as far as samples tell; where there is
    /// none in it, those before it do.
    async fn is_elsewhere(
        &self,
        candidate: &Candidate,
        look: Look,
        footer: &XorbFooter,
        growing: &Growing,
    ) -> Result<bool> {
        let Candidate { caller, xorb, at, .. } = candidate;
        let mut told = None;
        for (index, chunk) in footer.chunk_hashes().enumerate() {
            if is_sample(chunk) || (*at == 0 && index == 0) {
                let row = self.find_chunk(caller, look, chunk).await?;
                told = Some(told == Some(true) || row.is_some_and(|row| row.xorb != *xorb));
            }
        }
        Ok(growing.is_elsewhere(told))
    }
}
