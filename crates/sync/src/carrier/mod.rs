//! Chunks on their way between two processes of ours: one framing, two carriers.
//!
//! Who wants chunks names spans, which are runs of chunks of xorbs, and gets them in that order as
//! runs of whole chunks. A request is one stream of a connection that is kept; several are
//! outstanding at once. What arrives is hashed before anybody sees it (Invariant 12): a peer that
//! sends wrong bytes is an error and never data.
//!
//! This does not know what a file is, who has what, or what to ask for. How it is written on the
//! wire: `docs/protocol/carrier.md`.

mod ask;
mod caps;
mod choose;
mod claim;
mod frame;
mod pipe;
mod quic;
mod serve;
mod shared;
mod start;
mod tcp;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use ballast_format::hash::{ChunkHash, XorbHash};
use bytes::Bytes;
use futures_util::Stream;

pub use self::choose::{Carriers, Choice, QUIC_FROM};
pub use self::quic::{Path, QuicCarrier, QuicSettings};
pub use self::shared::{Credentials, Shared};
pub use self::start::{Started, start};
pub use self::tcp::{TcpCarrier, TcpServer};
use crate::buffers::BUFFER_BYTES;
use crate::cluster::PeerName;

/// A run of chunks of a xorb.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Span {
    /// The xorb.
    pub xorb: XorbHash,
    /// The chunks, by their place in it; not empty.
    pub chunks: Range<u32>,
}

/// What a chunk must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expected {
    /// Its hash.
    pub hash: ChunkHash,
    /// How long it is, in bytes, when it is not compressed.
    pub length: u32,
}

/// How urgent a request is; the lower one is served first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Urgency {
    /// A client waits for it.
    Client,
    /// A host fetches what it will need.
    Swarm,
    /// Another region follows.
    Region,
}

/// What is asked of a peer in one stream: a batch of 4 to 16 MiB.
#[derive(Clone, Debug)]
pub struct Request {
    /// The spans, in the order in which they shall come.
    pub spans: Vec<Span>,
    /// What each chunk of them must be, in the same order.
    pub expected: Vec<Expected>,
    /// How long the peer may wait for a chunk that it is itself getting, before it says that the
    /// chunk is absent.
    pub patience: Duration,
    /// How urgent it is.
    pub urgency: Urgency,
}

/// How the chunks of a run are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// As they are.
    Plain,
    /// As a xorb has them: each with its header, compressed or not.
    Stored,
}

/// Consecutive chunks of a span, as a source hands them out. What is longer than [`LONGEST_RUN`],
/// as written or when it is not compressed, is cut on the way.
#[derive(Clone, Debug)]
pub struct Run {
    /// Which of the request's spans.
    pub span: u32,
    /// Which chunks of the xorb.
    pub chunks: Range<u32>,
    /// What is in the run.
    pub content: Content,
}

/// What is in a run.
#[derive(Clone, Debug)]
pub enum Content {
    /// The chunks, one after the other.
    Here {
        /// How they are written.
        encoding: Encoding,
        /// How long each is, as written.
        lengths: Vec<u32>,
        /// All of them.
        bytes: Bytes,
    },
    /// The source does not have these.
    Absent,
}

/// Consecutive chunks that have arrived and are what they should be.
#[derive(Clone, Debug)]
pub struct Arrived {
    /// Which of the request's spans.
    pub span: u32,
    /// Which chunks of the xorb.
    pub chunks: Range<u32>,
    /// Their bytes, not compressed, one after the other; `None`: the peer does not have them.
    pub bytes: Option<Bytes>,
}

/// The longest run that arrives, in bytes, as written and when it is not compressed.
pub const LONGEST_RUN: usize = BUFFER_BYTES;
/// The most spans of a request.
pub const MOST_SPANS: usize = 4096;
/// The most chunks of a request.
pub const MOST_CHUNKS: usize = 16 * 1024;
/// The most xorbs that a peer is asked about at once.
pub const MOST_ASKED_XORBS: usize = 1024;
/// The longest permit: it names 32,768 xorbs, and says a little more.
pub const MOST_PERMIT_BYTES: usize = (32_768 * 32) + (64 << 10);

/// What a source hands out.
pub type Runs = Pin<Box<dyn Stream<Item = Result<Run>> + Send>>;
/// What arrives.
pub type Arrivals = Pin<Box<dyn Stream<Item = Result<Arrived>> + Send>>;

/// Who has chunks, and answers for them.
#[async_trait]
pub trait Source: Send + Sync + 'static {
    /// A peer shows that it may have some xorbs (`cluster::permit`). Kept under the peer's name by
    /// whoever implements this, since a link may be several connections.
    async fn admit(&self, peer: &PeerName, permit: &[u8]) -> Result<()>;

    /// The chunks of a request, in its order; those that are not here, or not for this peer, are
    /// absent. `expected` of the request is empty.
    async fn open(&self, peer: &PeerName, request: Request) -> Result<Runs>;

    /// Which chunks of these xorbs are here: a list of ranges for each, empty for what is not here
    /// or not for this peer.
    async fn holdings(&self, peer: &PeerName, xorbs: &[XorbHash]) -> Result<Vec<Vec<Range<u32>>>>;

    /// So many bytes of chunks went to a peer: what it stopped before that is not among them.
    fn sent(&self, peer: &PeerName, bytes: u64);
}

/// A connection to a peer that is kept.
#[async_trait]
pub trait Link: Send + Sync + 'static {
    /// Whom it leads to.
    fn peer(&self) -> &PeerName;

    /// Shows the peer that we may have some xorbs; before anything of them is asked for.
    async fn show(&self, permit: Bytes) -> Result<()>;

    /// Asks for chunks. Dropping the stream tells the peer to stop.
    async fn request(&self, request: Request) -> Result<Arrivals>;

    /// What the peer has of these xorbs, at most [`MOST_ASKED_XORBS`]. A hint: it may have more.
    async fn holdings(&self, xorbs: &[XorbHash]) -> Result<Vec<Vec<Range<u32>>>>;

    /// Whether it can still be used.
    fn is_open(&self) -> bool;

    /// How long a packet and its answer take, as far as that is known; without what both sides do
    /// with them.
    fn round_trip(&self) -> Duration {
        Duration::ZERO
    }
}

/// A way to reach peers.
#[async_trait]
pub trait Carrier: Send + Sync + 'static {
    /// Its name: `quic` or `tcp`.
    fn name(&self) -> &'static str;

    /// Connects to a peer; whoever answers under another name is refused.
    async fn connect(
        &self,
        address: SocketAddr,
        peer: &PeerName,
        distance: Distance,
    ) -> Result<Arc<dyn Link>>;
}

/// How far a peer is, before anybody has connected to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Distance {
    /// It is near, however long connecting takes: while many hosts begin at once, full queues are
    /// as slow as a long path.
    Near,
    /// It may be far: whoever has the choice of a carrier chooses by how long the path is.
    Unknown,
}

/// What a carrier, or whoever is at its other end, did wrong.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// Nobody answers, or the connection ended; may pass.
    #[error("`{peer}` cannot be reached: {reason}")]
    Unreachable {
        /// Whom.
        peer: String,
        /// Why.
        reason: String,
    },
    /// The peer refused, and said why.
    #[error("`{peer}` refused: {reason}")]
    Refused {
        /// Who.
        peer: String,
        /// Its words.
        reason: String,
    },
    /// The peer sent what it was not asked for, or other bytes than those.
    #[error("`{peer}` cannot be believed: {reason}")]
    Lied {
        /// Who.
        peer: String,
        /// What was wrong.
        reason: String,
    },
    /// What is asked is beyond a limit, or contradicts itself.
    #[error("no peer is asked for this: {0}")]
    Invalid(String),
    /// A source could not read what it has.
    #[error("reading chunks: {0}")]
    Source(String),
}

/// What a carrier returns.
pub type Result<T> = std::result::Result<T, Error>;
