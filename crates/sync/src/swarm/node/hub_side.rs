//! What a node asks its hub about files: what they are made of, and who else fetches them.

use async_trait::async_trait;
use ballast_format::cached_file::{CachedFile, KeptPass};
use ballast_node::access::Repo;
use ballast_node::error::Result;
use ballast_node::origin::Wanted;
use bytes::Bytes;

use crate::swarm::exchange::{Pass, Seat, Terms};

/// What a file is made of, and how it is to be had.
#[derive(Clone, Debug)]
pub struct Described {
    /// What it is made of.
    pub about: CachedFile,
    /// How it is cut, and what proves that the node may have it.
    pub terms: Terms,
    /// With this the node joins the swarm.
    pub ticket: Bytes,
}

impl Described {
    /// What is kept of it beside the file.
    pub(super) fn kept_pass(&self) -> KeptPass {
        let Terms { pass, piece_bytes, stripes } = &self.terms;
        KeptPass {
            sha256: pass.sha256,
            until_ms: pass.until_ms,
            piece_bytes: *piece_bytes,
            stripes: *stripes,
            ticket: self.ticket.to_vec(),
            permits: pass.permits.iter().map(|permit| permit.to_vec()).collect(),
        }
    }

    /// The same as it was, from what was kept.
    pub(super) fn recalled(about: CachedFile, kept: KeptPass) -> Self {
        let KeptPass { sha256, until_ms, piece_bytes, stripes, ticket, permits } = kept;
        let permits = permits.into_iter().map(Bytes::from).collect();
        let pass = Pass { sha256, permits, until_ms };
        Self { about, terms: Terms { pass, piece_bytes, stripes }, ticket: ticket.into() }
    }
}

/// What the hub says of a file.
#[derive(Clone, Debug)]
pub enum Answer {
    /// All that there is to be said.
    Here(Box<Described>),
    /// It has not fetched the file from its own upstream: it must be asked for that first.
    Elsewhere,
}

/// The hub's side of a swarm, as a node sees it.
#[async_trait]
pub trait HubSide: Send + Sync + 'static {
    /// What a file is made of. A repo that the node may not read is not found.
    async fn describe(&self, repo: &Repo, wanted: &Wanted) -> Result<Answer>;

    /// Takes the node's seat in a file's swarm; it leaves when the seat is dropped.
    fn sit(&self, described: &Described) -> Seat;
}
