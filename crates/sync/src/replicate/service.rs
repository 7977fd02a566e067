//! A home's side of gRPC: each region is told what goes to it.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use ballast_format::ErrorKind;
use ballast_format::hash::{FileHash, PackHash, ShardHash, XorbHash};
use ballast_format::id::RepoId;
use ballast_format::log::{Gating, Head, Visibility};
use ballast_format::manifest::ManifestId;
use ballast_format::name::RegionName;
use ballast_node::Error;
use ballast_node::hub::Hub;
use ballast_proto::v1 as wire;
use ballast_proto::v1::offers_part::Part;
use ballast_proto::v1::regions_server::{Regions, RegionsServer};
use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt as _, stream};
use tonic::{Code, Request, Response, Status, Streaming};

use super::home::{Grants, HomeLog as _, LocalHome, Offers, Progress, Told};
use super::status::told_figures;
use crate::cluster::{PeerName, PeerRole, caller_of};

/// Bytes of a message.
const PIECE: usize = 512 << 10;
/// Repos that a region may follow: as many as a hub has.
const MOST_REPOS: usize = 1_000_000;

type Answer<T> = Result<Response<T>, Status>;
type Parts<T> = BoxStream<'static, Result<T, Status>>;

/// Tells regions what they may know.
pub struct Service {
    hub: Arc<Hub>,
    /// What this process is called among its peers.
    peer: PeerName,
    homes: Mutex<HashMap<RegionName, Arc<LocalHome>>>,
    told: Told,
    grants: Arc<Grants>,
}

impl Service {
    /// For this hub, which is called `peer` among its peers. `told` gets what regions say of their
    /// progress; `grants`, which xorbs they may ask a carrier for.
    pub fn new(
        hub: &Arc<Hub>,
        peer: &PeerName,
        told: &Told,
        grants: &Arc<Grants>,
    ) -> RegionsServer<Self> {
        let shown = Told::clone(told);
        hub.show_figures(move || told_figures(&shown));
        RegionsServer::new(Self {
            hub: Arc::clone(hub),
            peer: peer.clone(),
            homes: Mutex::default(),
            told: Arc::clone(told),
            grants: Arc::clone(grants),
        })
    }

    fn home<T>(&self, request: &Request<T>) -> Result<Arc<LocalHome>, Status> {
        let peer = caller_of(request)?;
        if peer.name.role() != PeerRole::Region {
            let reason = "only another region may ask for this";
            return Err(Status::new(Code::PermissionDenied, reason));
        }
        let region = RegionName::parse(peer.name.as_str());
        let region = region.map_err(|error| Status::new(Code::Internal, error.to_string()))?;
        let mut homes = self.homes.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || {
            let (hub, told) = (Arc::clone(&self.hub), Arc::clone(&self.told));
            Arc::new(LocalHome::new(hub, region.clone(), told, Some(Arc::clone(&self.grants))))
        };
        Ok(Arc::clone(homes.entry(region.clone()).or_insert_with(new)))
    }
}

/// What a region hears when something goes wrong.
fn status_of(error: Error) -> Status {
    let code = match error.kind() {
        ErrorKind::NotFound => Code::NotFound,
        ErrorKind::Denied => Code::PermissionDenied,
        ErrorKind::Invalid => Code::InvalidArgument,
        ErrorKind::Conflict => Code::FailedPrecondition,
        ErrorKind::Unavailable => Code::Unavailable,
        ErrorKind::Corrupt => Code::DataLoss,
        ErrorKind::Internal => Code::Internal,
    };
    if matches!(code, Code::DataLoss | Code::Internal) {
        tracing::error!(%error, "another region could not be answered");
    }
    Status::new(code, error.to_string())
}

fn array<const N: usize>(bytes: &Bytes, what: &str) -> Result<[u8; N], Status> {
    let wrong = || Status::new(Code::InvalidArgument, format!("{what} has {N} bytes"));
    bytes.as_ref().try_into().map_err(|_| wrong())
}

fn repo(bytes: &Bytes) -> Result<RepoId, Status> {
    Ok(RepoId::from_bytes(array(bytes, "a repo's id")?))
}

fn manifest(request: &wire::ManifestRequest) -> Result<ManifestId, Status> {
    let file = FileHash::from_bytes(array(&request.file, "a file's hash")?);
    let shard = ShardHash::from_bytes(array(&request.shard, "a shard's hash")?);
    Ok(ManifestId { file, shard })
}

pub(super) fn bytes_of(id: &[u8]) -> Bytes {
    Bytes::copy_from_slice(id)
}

fn head(head: Head) -> wire::Head {
    wire::Head { number: head.number, hash: bytes_of(head.hash.as_bytes()) }
}

/// Bytes in pieces of one message each; one piece at least.
fn pieces(bytes: &Bytes) -> Vec<Bytes> {
    let starts = (0..bytes.len().max(1)).step_by(PIECE);
    starts.map(|start| bytes.slice(start..bytes.len().min(start + PIECE))).collect()
}

fn parts<T: Send + 'static>(parts: Vec<T>) -> Answer<Parts<T>> {
    Ok(Response::new(stream::iter(parts.into_iter().map(Ok)).boxed()))
}

fn offers_parts(offers: Offers, peer: &PeerName) -> Vec<wire::OffersPart> {
    let home = wire::Region {
        name: offers.home.region.to_string(),
        address: offers.home.address,
        peer: peer.as_str().to_owned(),
    };
    let replications = offers.replications.into_iter().map(|(name, rules)| {
        Part::Replication(wire::Replication {
            name: name.to_string(),
            paused: rules.is_paused,
            limit: rules.limit.unwrap_or(0),
            window_start: rules.window.map(|(start, _)| start),
            window_end: rules.window.map(|(_, end)| end),
        })
    });
    let repos = offers.repos.into_iter().map(|offer| {
        let by = offer.by.to_string();
        let repo = offer.repo;
        Part::Repo(wire::OfferedRepo {
            id: bytes_of(repo.id.as_bytes()),
            kind: repo.kind.singular().to_owned(),
            name: repo.name.to_string(),
            private: repo.visibility == Visibility::Private,
            gating: match repo.gating {
                Gating::None => 0,
                Gating::Automatic => 1,
                Gating::Manual => 2,
            },
            creator: bytes_of(repo.creator.as_bytes()),
            disabled: repo.disabled,
            description: repo.description,
            sdk: repo.sdk,
            discussions_disabled: repo.discussions_disabled,
            is_home: repo.is_home,
            term: repo.term,
            tail: Some(head(repo.tail)),
            by,
            given_to: repo.given_to.map(|region| region.to_string()),
        })
    });
    let gone = offers.gone.into_iter().map(|id| Part::Gone(bytes_of(id.as_bytes())));
    let all = [Part::Home(home)].into_iter().chain(replications).chain(repos).chain(gone);
    all.map(|part| wire::OffersPart { part: Some(part) }).collect()
}

#[tonic::async_trait]
impl Regions for Service {
    type OffersStream = Parts<wire::OffersPart>;
    type EntriesStream = Parts<wire::EntryPiece>;
    type PackEndStream = Parts<wire::Piece>;
    type PackBytesStream = Parts<wire::Piece>;
    type ShardStream = Parts<wire::Piece>;
    type FootersStream = Parts<wire::Footer>;

    async fn offers(
        &self,
        request: Request<Streaming<wire::RepoProgress>>,
    ) -> Answer<Self::OffersStream> {
        let home = self.home(&request)?;
        let mut told = request.into_inner();
        let mut progress: BTreeMap<RepoId, Progress> = BTreeMap::new();
        while let Some(one) = told.message().await? {
            if progress.len() >= MOST_REPOS {
                let reason = format!("a region follows at most {MOST_REPOS} repos");
                return Err(Status::new(Code::ResourceExhausted, reason));
            }
            let how = Progress {
                lag_entries: one.lag_entries,
                lag_bytes: one.lag_bytes,
                lag_seconds: one.lag_seconds,
                fetched: one.fetched,
                saved: one.saved,
                eta_seconds: one.eta_seconds,
            };
            progress.insert(repo(&one.repo)?, how);
        }
        let offers = home.offers(&progress).await.map_err(status_of)?;
        parts(offers_parts(offers, &self.peer))
    }

    async fn entries(&self, request: Request<wire::EntriesRequest>) -> Answer<Self::EntriesStream> {
        let home = self.home(&request)?;
        let wire::EntriesRequest { repo: id, behind } = request.into_inner();
        let entries = home.entries(repo(&id)?, behind).await.map_err(status_of)?;
        let told = entries.into_iter().flat_map(|(number, bytes)| {
            let pieces = pieces(&bytes).into_iter().enumerate();
            pieces.map(move |(at, bytes)| {
                let number = if at == 0 { number } else { 0 };
                wire::EntryPiece { number, bytes }
            })
        });
        parts(told.collect())
    }

    async fn entry(&self, request: Request<wire::EntryRequest>) -> Answer<wire::EntryAnswer> {
        let home = self.home(&request)?;
        let wire::EntryRequest { repo: id, number } = request.into_inner();
        let found = home.entry(repo(&id)?, number).await.map_err(status_of)?;
        Ok(Response::new(wire::EntryAnswer { head: found.map(head) }))
    }

    async fn pack_end(&self, request: Request<wire::PackRequest>) -> Answer<Self::PackEndStream> {
        let home = self.home(&request)?;
        let wire::PackRequest { repo: id, pack } = request.into_inner();
        let pack = PackHash::from_bytes(array(&pack, "a pack's hash")?);
        let (size, tail) = home.pack_end(repo(&id)?, pack).await.map_err(status_of)?;
        let pieces = pieces(&tail).into_iter();
        parts(pieces.map(|bytes| wire::Piece { bytes, size }).collect())
    }

    async fn pack_bytes(
        &self,
        request: Request<wire::PackBytesRequest>,
    ) -> Answer<Self::PackBytesStream> {
        let home = self.home(&request)?;
        let wire::PackBytesRequest { repo: id, pack, start, end } = request.into_inner();
        let pack = PackHash::from_bytes(array(&pack, "a pack's hash")?);
        let id = repo(&id)?;
        if start > end {
            return Err(Status::new(Code::InvalidArgument, "the range ends before it begins"));
        }
        // Each piece is read when the one before has gone.
        let starts = (start..end).step_by(PIECE);
        let read = stream::iter(starts).then(move |from| {
            let home = Arc::clone(&home);
            async move {
                let range = from..end.min(from + PIECE as u64);
                let bytes = home.pack_bytes(id, pack, range).await.map_err(status_of)?;
                Ok(wire::Piece { bytes, size: 0 })
            }
        });
        Ok(Response::new(read.boxed()))
    }

    async fn shard(&self, request: Request<wire::ManifestRequest>) -> Answer<Self::ShardStream> {
        let home = self.home(&request)?;
        let request = request.into_inner();
        let (id, manifest) = (repo(&request.repo)?, manifest(&request)?);
        let body = home.shard(id, &manifest).await.map_err(status_of)?;
        let Some(body) = body else { return parts(Vec::new()) };
        let told = body.flat_map(|piece| {
            let pieces = match piece {
                Ok(bytes) => pieces(&bytes)
                    .into_iter()
                    .map(|bytes| Ok(wire::Piece { bytes, size: 0 }))
                    .collect(),
                Err(error) => vec![Err(status_of(error))],
            };
            stream::iter(pieces)
        });
        Ok(Response::new(told.boxed()))
    }

    async fn footers(&self, request: Request<wire::FootersRequest>) -> Answer<Self::FootersStream> {
        let home = self.home(&request)?;
        let wire::FootersRequest { manifest: of, xorbs } = request.into_inner();
        let of = of.ok_or_else(|| Status::new(Code::InvalidArgument, "no manifest is named"))?;
        let (id, manifest) = (repo(&of.repo)?, manifest(&of)?);
        let xorb = |bytes: &Bytes| Ok::<_, Status>(XorbHash::from_bytes(array(bytes, "a hash")?));
        let xorbs = xorbs.iter().map(xorb).collect::<Result<Vec<_>, _>>()?;
        let found = home.footers(id, &manifest, &xorbs).await.map_err(status_of)?;
        let bytes = found.into_iter().map(|footer| {
            let bytes = footer.map(|footer| Bytes::from(footer.encode(0))).unwrap_or_default();
            wire::Footer { bytes }
        });
        parts(bytes.collect())
    }
}
