//! A follower's side of gRPC: a home in another process.
//!
//! What comes is not believed: whoever asked hashes it. Here it has its form and its bounds.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use ballast_format::hash::{EntryHash, PackHash, XorbHash};
use ballast_format::id::{RepoId, UserId};
use ballast_format::limits::{MAX_ENTRY_BYTES, MAX_PACK_DIRECTORY_BYTES};
use ballast_format::log::{Gating, Head, Replication, Visibility};
use ballast_format::manifest::ManifestId;
use ballast_format::name::{RegionName, RepoKind};
use ballast_format::xorb::XorbFooter;
use ballast_node::download::ByteStream;
use ballast_node::region::{Entries, Offered};
use ballast_node::state::homing::Away;
use ballast_node::{Error, Result};
use ballast_proto::v1 as wire;
use ballast_proto::v1::offers_part::Part;
use ballast_proto::v1::regions_client::RegionsClient;
use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt as _, stream};
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

use super::chunks::Links;
use super::home::{Footers, HomeLog, Offer, Offers, Progress};
use super::service::bytes_of;
use super::{of_carrier, unreachable};
use crate::carrier::{Carrier as _, Carriers, Distance, Link};
use crate::cluster::{PeerName, PeerRole, look_up, timed};

/// Repos that a home may offer: as many as a hub has.
const MOST_REPOS: usize = 1_000_000;
/// Entries that come at once, and their bytes.
const MOST_ENTRIES: usize = 4096;
const MOST_ENTRY_BYTES: usize = 64 << 20;
/// What is around a pack's directory.
const AROUND: usize = 4096;

/// A home that is reached by gRPC.
pub struct RemoteHome {
    channel: Channel,
    /// What its hub is called among its peers, once it said so.
    peer: Arc<Mutex<Option<PeerName>>>,
}

impl RemoteHome {
    /// The home at the other end of this channel.
    pub fn new(channel: Channel) -> Self {
        Self { channel, peer: Arc::default() }
    }

    fn client(&self) -> RegionsClient<Channel> {
        RegionsClient::new(self.channel.clone())
    }

    /// The way to its chunks: by these carriers, at this address (`host:port`).
    pub fn links(&self, carriers: Arc<Carriers>, address: String) -> CarrierLinks {
        CarrierLinks { carriers, address, peer: Arc::clone(&self.peer) }
    }
}

/// What a call that failed means to whoever follows.
fn error_of(status: Status) -> Error {
    let reason = status.message().to_owned();
    match status.code() {
        Code::NotFound => Error::NotFound { what: reason },
        Code::PermissionDenied | Code::Unauthenticated => Error::denied(reason),
        Code::InvalidArgument => Error::invalid(reason),
        Code::FailedPrecondition => Error::Conflict { reason },
        _ => unreachable(format!("the home does not answer: {reason}")),
    }
}

fn wrong(what: &str) -> Error {
    Error::invalid(format!("the home says {what} that is none"))
}

fn array<const N: usize>(bytes: &[u8], what: &str) -> Result<[u8; N]> {
    bytes.try_into().map_err(|_| wrong(what))
}

fn head_of(head: Option<&wire::Head>) -> Result<Head> {
    let head = head.ok_or_else(|| wrong("a tail"))?;
    let hash = EntryHash::from_bytes(array(&head.hash, "the hash of an entry")?);
    Ok(Head { number: head.number, hash })
}

fn offered(repo: wire::OfferedRepo) -> Result<Offer> {
    let kind = RepoKind::from_singular(&repo.kind).ok_or_else(|| wrong("a kind of repo"))?;
    let gating = match repo.gating {
        0 => Gating::None,
        1 => Gating::Automatic,
        2 => Gating::Manual,
        _ => return Err(wrong("a gate")),
    };
    let by = RegionName::parse(&repo.by)?;
    let repo = Offered {
        id: RepoId::from_bytes(array(&repo.id, "the id of a repo")?),
        kind,
        name: repo.name.parse()?,
        visibility: if repo.private { Visibility::Private } else { Visibility::Public },
        gating,
        creator: UserId::from_bytes(array(&repo.creator, "the id of a user")?),
        disabled: repo.disabled,
        description: repo.description,
        sdk: repo.sdk,
        discussions_disabled: repo.discussions_disabled,
        is_home: repo.is_home,
        given_to: repo.given_to.as_deref().map(RegionName::parse).transpose()?,
        term: repo.term,
        tail: head_of(repo.tail.as_ref())?,
    };
    Ok(Offer { repo, by })
}

/// What goes by a replication, as far as who follows must know.
fn rules(told: &wire::Replication, to: &RegionName) -> Replication {
    Replication {
        patterns: Vec::new(),
        to: to.clone(),
        residency: Vec::new(),
        limit: Some(told.limit).filter(|limit| *limit > 0),
        window: told.window_start.zip(told.window_end),
        is_paused: told.paused,
    }
}

/// Puts pieces together that have so many bytes at most; the first piece's size too.
async fn collect(mut pieces: Streaming<wire::Piece>, most: usize) -> Result<(u64, Bytes)> {
    let (mut size, mut bytes) = (0, BytesMut::new());
    while let Some(piece) = pieces.message().await.map_err(error_of)? {
        size = size.max(piece.size);
        if bytes.len() + piece.bytes.len() > most {
            return Err(Error::invalid("the home sends more than was asked for"));
        }
        bytes.extend_from_slice(&piece.bytes);
    }
    Ok((size, bytes.freeze()))
}

fn manifest_request(repo: RepoId, manifest: &ManifestId) -> wire::ManifestRequest {
    wire::ManifestRequest {
        repo: bytes_of(repo.as_bytes()),
        file: bytes_of(manifest.file.as_bytes()),
        shard: bytes_of(manifest.shard.as_bytes()),
    }
}

#[async_trait]
impl HomeLog for RemoteHome {
    async fn offers(&self, progress: &BTreeMap<RepoId, Progress>) -> Result<Offers> {
        let told: Vec<wire::RepoProgress> = progress
            .iter()
            .map(|(repo, how)| wire::RepoProgress {
                repo: bytes_of(repo.as_bytes()),
                lag_entries: how.lag_entries,
                lag_bytes: how.lag_bytes,
                lag_seconds: how.lag_seconds,
                fetched: how.fetched,
                saved: how.saved,
                eta_seconds: how.eta_seconds,
            })
            .collect();
        let answer = self.client().offers(timed(stream::iter(told))).await.map_err(error_of)?;
        let mut parts = answer.into_inner();
        let (mut home, mut repos, mut gone) = (None, Vec::new(), Vec::new());
        let mut replications = BTreeMap::new();
        while let Some(part) = parts.message().await.map_err(error_of)? {
            match part.part {
                Some(Part::Home(told)) => {
                    let peer = PeerName::new(PeerRole::Hub, &told.peer);
                    *self.peer.lock().unwrap_or_else(PoisonError::into_inner) = peer;
                    let region = RegionName::parse(&told.name)?;
                    home = Some(Away { region, address: told.address });
                }
                Some(Part::Replication(told)) => {
                    let name = RegionName::parse(&told.name)?;
                    replications.insert(name.clone(), rules(&told, &name));
                }
                Some(Part::Repo(told)) => repos.push(offered(told)?),
                Some(Part::Gone(id)) => {
                    gone.push(RepoId::from_bytes(array(&id, "the id of a repo")?));
                }
                None => {}
            }
            if repos.len() + gone.len() + replications.len() > MOST_REPOS {
                return Err(Error::invalid("the home offers more than a hub can have"));
            }
        }
        let home = home.ok_or_else(|| wrong("a region"))?;
        Ok(Offers { home, replications, repos, gone })
    }

    async fn entries(&self, repo: RepoId, behind: u64) -> Result<Entries> {
        let request = wire::EntriesRequest { repo: bytes_of(repo.as_bytes()), behind };
        let answer = self.client().entries(timed(request)).await.map_err(error_of)?;
        let mut pieces = answer.into_inner();
        let (mut entries, mut all): (Vec<(u64, BytesMut)>, usize) = (Vec::new(), 0);
        while let Some(piece) = pieces.message().await.map_err(error_of)? {
            all += piece.bytes.len();
            if piece.number > 0 {
                entries.push((piece.number, BytesMut::new()));
            }
            let is_too_much = all > MOST_ENTRY_BYTES || entries.len() > MOST_ENTRIES;
            let last = entries.last_mut().filter(|_| !is_too_much);
            let (_, bytes) = last.ok_or_else(|| wrong("an entry"))?;
            bytes.extend_from_slice(&piece.bytes);
            if bytes.len() > MAX_ENTRY_BYTES {
                return Err(wrong("an entry"));
            }
        }
        Ok(entries.into_iter().map(|(number, bytes)| (number, bytes.freeze())).collect())
    }

    async fn entry(&self, repo: RepoId, number: u64) -> Result<Option<Head>> {
        let request = wire::EntryRequest { repo: bytes_of(repo.as_bytes()), number };
        let answer = self.client().entry(timed(request)).await.map_err(error_of)?.into_inner();
        answer.head.as_ref().map(|head| head_of(Some(head))).transpose()
    }

    async fn pack_end(&self, repo: RepoId, pack: PackHash) -> Result<(u64, Bytes)> {
        let (repo, pack) = (bytes_of(repo.as_bytes()), bytes_of(pack.as_bytes()));
        let answer = self.client().pack_end(timed(wire::PackRequest { repo, pack })).await;
        let pieces = answer.map_err(error_of)?.into_inner();
        collect(pieces, MAX_PACK_DIRECTORY_BYTES + AROUND).await
    }

    async fn pack_bytes(&self, repo: RepoId, pack: PackHash, range: Range<u64>) -> Result<Bytes> {
        let Range { start, end } = range;
        let (repo, pack) = (bytes_of(repo.as_bytes()), bytes_of(pack.as_bytes()));
        let request = wire::PackBytesRequest { repo, pack, start, end };
        // As long as it takes: a connection that is cut is noticed.
        let answer = self.client().pack_bytes(tonic::Request::new(request)).await;
        let answer = answer.map_err(error_of)?;
        let most = usize::try_from(end.saturating_sub(start)).unwrap_or(usize::MAX);
        let (_, bytes) = collect(answer.into_inner(), most).await?;
        if bytes.len() != most {
            return Err(Error::invalid("the home sends less than was asked for"));
        }
        Ok(bytes)
    }

    async fn shard(&self, repo: RepoId, manifest: &ManifestId) -> Result<Option<ByteStream>> {
        let request = tonic::Request::new(manifest_request(repo, manifest));
        let answer = self.client().shard(request).await.map_err(error_of)?;
        let mut pieces = answer.into_inner();
        let Some(first) = pieces.message().await.map_err(error_of)? else { return Ok(None) };
        let rest = pieces.map(|piece| piece.map(|piece| piece.bytes).map_err(error_of));
        Ok(Some(Box::pin(stream::iter([Ok(first.bytes)]).chain(rest))))
    }

    async fn footers(
        &self,
        repo: RepoId,
        manifest: &ManifestId,
        xorbs: &[XorbHash],
    ) -> Result<Footers> {
        let manifest = Some(manifest_request(repo, manifest));
        let asked = xorbs.iter().map(|xorb| bytes_of(xorb.as_bytes())).collect();
        let request = wire::FootersRequest { manifest, xorbs: asked };
        let answer = self.client().footers(timed(request)).await.map_err(error_of)?;
        let mut told = answer.into_inner();
        let mut footers = Footers::new();
        while let Some(footer) = told.message().await.map_err(error_of)? {
            let footer = match footer.bytes.is_empty() {
                true => None,
                false => Some(Arc::new(XorbFooter::decode(&footer.bytes)?)),
            };
            footers.push(footer);
            if footers.len() > xorbs.len() {
                return Err(wrong("a xorb"));
            }
        }
        Ok(footers)
    }
}

/// Links to a home, by whatever carrier leads there.
pub struct CarrierLinks {
    carriers: Arc<Carriers>,
    address: String,
    peer: Arc<Mutex<Option<PeerName>>>,
}

#[async_trait]
impl Links for CarrierLinks {
    async fn link(&self) -> Result<Arc<dyn Link>> {
        let peer = self.peer.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let peer = peer.ok_or_else(|| unreachable("the home did not say its name so far"))?;
        let mut ended = Err(unreachable("the home has no address"));
        for address in look_up(&self.address).await.map_err(unreachable)? {
            let link = self.carriers.connect(address, &peer, Distance::Unknown).await;
            ended = link.map_err(of_carrier);
            if ended.is_ok() {
                break;
            }
        }
        ended
    }
}
