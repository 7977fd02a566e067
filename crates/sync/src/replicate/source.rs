//! The chunks that regions ask a hub for: those of xorbs of which they were told.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use ballast_format::hash::XorbHash;
use ballast_format::name::RegionName;
use ballast_format::xorb::XorbFooter;
use ballast_node::Error;
use ballast_node::hub::Hub;
use futures_util::{StreamExt as _, stream};

use super::home::Grants;
use crate::carrier::{self, Content, Encoding, Request, Run, Runs, Source, Span};
use crate::cluster::{PeerName, PeerRole};

/// Runs that are read ahead of what is sent.
const AHEAD: usize = 4;

/// A hub's chunks, for regions.
pub struct RegionSource {
    hub: Arc<Hub>,
    grants: Arc<Grants>,
}

impl RegionSource {
    /// Of this hub, for those who were told.
    pub fn new(hub: Arc<Hub>, grants: Arc<Grants>) -> Self {
        Self { hub, grants }
    }

    fn is_told(&self, peer: &PeerName, xorb: &XorbHash) -> bool {
        let region = RegionName::parse(peer.as_str());
        let is_region = peer.role() == PeerRole::Region;
        is_region && region.is_ok_and(|region| self.grants.opens(&region, xorb))
    }

    /// The runs of a span, each with the footer that says where it is; without: it is not here.
    async fn runs_of(
        &self,
        peer: &PeerName,
        (at, span): (u32, Span),
    ) -> carrier::Result<Vec<(u32, Span, Option<Arc<XorbFooter>>)>> {
        let is_here =
            self.is_told(peer, &span.xorb) && self.hub.has_xorb(&span.xorb).await.map_err(fault)?;
        if !is_here {
            return Ok(vec![(at, span, None)]);
        }
        let footer = self.hub.carried_footer(&span.xorb).await.map_err(fault)?;
        if span.chunks.end > footer.chunk_count() {
            return Ok(vec![(at, span, None)]);
        }
        let xorb = span.xorb;
        let runs = cut(&footer, span.chunks).into_iter();
        Ok(runs.map(|chunks| (at, Span { xorb, chunks }, Some(Arc::clone(&footer)))).collect())
    }
}

fn fault(error: Error) -> carrier::Error {
    carrier::Error::Source(error.to_string())
}

/// Cuts chunks into runs that are no longer than one may be.
fn cut(footer: &XorbFooter, chunks: Range<u32>) -> Vec<Range<u32>> {
    let mut runs: Vec<Range<u32>> = Vec::new();
    let mut bytes = usize::MAX;
    for chunk in chunks {
        let length = footer.serialized_chunk_length(chunk).max(footer.chunk_length(chunk)) as usize;
        let room = runs.last_mut().filter(|_| bytes.saturating_add(length) <= carrier::LONGEST_RUN);
        if let Some(run) = room {
            run.end += 1;
            bytes += length;
        } else {
            runs.push(chunk..chunk + 1);
            bytes = length;
        }
    }
    runs
}

async fn read(
    hub: Arc<Hub>,
    (at, span, footer): (u32, Span, Option<Arc<XorbFooter>>),
) -> carrier::Result<Run> {
    let Span { xorb, chunks } = span;
    let Some(footer) = footer else {
        return Ok(Run { span: at, chunks, content: Content::Absent });
    };
    let bytes = hub.carried_chunks(&xorb, chunks.clone()).await.map_err(fault)?;
    let lengths = chunks.clone().map(|chunk| footer.serialized_chunk_length(chunk)).collect();
    let content = Content::Here { encoding: Encoding::Stored, lengths, bytes };
    Ok(Run { span: at, chunks, content })
}

#[async_trait]
impl Source for RegionSource {
    async fn admit(&self, _peer: &PeerName, _permit: &[u8]) -> carrier::Result<()> {
        // Who was told may ask; there is nothing to show.
        Ok(())
    }

    async fn open(&self, peer: &PeerName, request: Request) -> carrier::Result<Runs> {
        let mut runs = Vec::new();
        for span in (0..).zip(request.spans) {
            runs.extend(self.runs_of(peer, span).await?);
        }
        let hub = Arc::clone(&self.hub);
        let read = stream::iter(runs).map(move |run| read(Arc::clone(&hub), run));
        Ok(Box::pin(read.buffered(AHEAD)))
    }

    async fn holdings(
        &self,
        peer: &PeerName,
        xorbs: &[XorbHash],
    ) -> carrier::Result<Vec<Vec<Range<u32>>>> {
        let mut all = Vec::with_capacity(xorbs.len());
        for xorb in xorbs {
            let is_here =
                self.is_told(peer, xorb) && self.hub.has_xorb(xorb).await.map_err(fault)?;
            all.push(match is_here {
                true => {
                    let footer = self.hub.carried_footer(xorb).await.map_err(fault)?;
                    vec![0..footer.chunk_count()]
                }
                false => Vec::new(),
            });
        }
        Ok(all)
    }

    fn sent(&self, _peer: &PeerName, _bytes: u64) {
        // The region that asks counts what comes, by remote.
    }
}

/// A hub's chunks for regions, and what others may have of it.
pub struct ByRole {
    /// For regions.
    pub regions: RegionSource,
    /// For everybody else.
    pub others: Arc<dyn Source>,
}

impl ByRole {
    fn source(&self, peer: &PeerName) -> &dyn Source {
        match peer.role() {
            PeerRole::Region => &self.regions,
            PeerRole::Hub | PeerRole::Node => self.others.as_ref(),
        }
    }
}

#[async_trait]
impl Source for ByRole {
    async fn admit(&self, peer: &PeerName, permit: &[u8]) -> carrier::Result<()> {
        self.source(peer).admit(peer, permit).await
    }

    async fn open(&self, peer: &PeerName, request: Request) -> carrier::Result<Runs> {
        self.source(peer).open(peer, request).await
    }

    async fn holdings(
        &self,
        peer: &PeerName,
        xorbs: &[XorbHash],
    ) -> carrier::Result<Vec<Vec<Range<u32>>>> {
        self.source(peer).holdings(peer, xorbs).await
    }

    fn sent(&self, peer: &PeerName, bytes: u64) {
        self.source(peer).sent(peer, bytes);
    }
}
