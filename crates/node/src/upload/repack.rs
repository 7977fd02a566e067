//! Chunks that are stored move into new xorbs, as those of a file that comes as plain bytes do.

use std::collections::HashMap;
use std::sync::Arc;

use ballast_format::hash::XorbHash;
use ballast_format::xorb::XorbFooter;
use bytes::{Bytes, BytesMut};

use super::chunked::{Cut, Packed, Placer};
use super::growing::Growing;
use super::storing::Storing;
use crate::download::piece::{Piece, run_end};
use crate::error::{Error, Result};
use crate::hub::Hub;
use crate::pace::Pace;

/// Bytes of a xorb that are read at once.
const RUN_BYTES: u64 = 4 << 20;

/// A chunk of a xorb.
type Place = (XorbHash, u32);

/// Where chunks went, with the bytes that each makes.
pub(crate) type Moved = HashMap<Place, (Place, u32)>;

/// Moves chunks.
pub(crate) struct Repacker {
    hub: Arc<Hub>,
    placer: Placer,
    storing: Storing,
    pace: Pace,
    /// In the order in which they were placed.
    chunks: Vec<(Place, u32)>,
}

impl Repacker {
    pub(crate) fn new(hub: &Arc<Hub>, pace: Pace) -> Self {
        let growing: Arc<Growing> = Arc::default();
        Self {
            hub: Arc::clone(hub),
            placer: Placer::new(&hub.uploads.packing, Arc::clone(&growing)),
            storing: Storing::new(hub, growing),
            pace,
            chunks: Vec::new(),
        }
    }

    /// Moves a run of chunks of a xorb, each checked by its hash.
    pub(crate) async fn take(mut self, xorb: XorbHash, run: (u32, u32)) -> Result<Self> {
        let (mut next, end) = run;
        while next < end {
            let (copy, footer) = self.hub.needed_xorb(&xorb).await?;
            let until = run_end(&footer, next, end, RUN_BYTES);
            let piece = Piece::new(copy, &footer, next..until)?;
            self.pace.wait(self.hub.env().as_ref(), piece.serialized_bytes()).await;
            let decoded = self.hub.read_anywhere(piece).await?;
            let cuts = cuts(&footer, (next, until), decoded)?;
            let lengths = (next..until).map(|index| ((xorb, index), footer.chunk_length(index)));
            self.chunks.extend(lengths);
            let mut placer = self.placer;
            let placing = self.hub.pool().run(move || {
                let full = placer.place(&cuts);
                (placer, full)
            });
            let full: Result<Vec<Packed>>;
            (self.placer, full) = placing.await?;
            for packed in full? {
                self.storing.store(packed).await?;
            }
            next = until;
        }
        Ok(self)
    }

    /// Where all of them are, when they are durable.
    pub(crate) async fn finish(mut self) -> Result<Moved> {
        let placed = self.placer.finish()?;
        if let Some(last) = placed.last {
            self.storing.store(last).await?;
        }
        self.storing.finish().await?;
        let terms = placed.terms.into_iter();
        let places = terms.flat_map(|term| term.chunks.map(move |index| (term.xorb, index)));
        let moved = self.chunks.into_iter().zip(places);
        Ok(moved.map(|((from, length), to)| (from, (to, length))).collect())
    }
}

/// The chunks of a run, one by one.
fn cuts(footer: &XorbFooter, run: (u32, u32), decoded: Vec<Bytes>) -> Result<Vec<Cut>> {
    let mut pieces = decoded.into_iter();
    let mut rest = Bytes::new();
    let mut cuts = Vec::with_capacity((run.1 - run.0) as usize);
    for index in run.0..run.1 {
        let length = footer.chunk_length(index) as usize;
        let mut joined = BytesMut::new();
        while joined.len() + rest.len() < length {
            joined.extend_from_slice(&rest);
            rest = pieces.next().ok_or_else(|| Error::internal("a run of chunks ends early"))?;
        }
        let last = rest.split_to(length - joined.len());
        let bytes = if joined.is_empty() {
            last
        } else {
            joined.extend_from_slice(&last);
            joined.freeze()
        };
        cuts.push(Cut { hash: footer.chunk_hash(index), bytes, is_sample: false });
    }
    Ok(cuts)
}
