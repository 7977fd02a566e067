//! The hub over gRPC: descriptions of files, and one call that tells the tracker how this node
//! stands and hears whom to ask.
//!
//! The call is made anew whenever it ends, and the first report of each says all there is to say.
//! While it is away the exchange goes on with what it heard before, and with peers that are found
//! on the local network.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use ballast_format::hash::{Sha256, XorbHash};
use ballast_node::access::Repo;
use ballast_node::error::{Error, Result};
use ballast_node::origin::Wanted;
use ballast_proto::v1;
use ballast_proto::v1::swarm_client::SwarmClient;
use ballast_store::env::SharedEnv;
use bytes::Bytes;
use tokio::sync::{Notify, mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tonic::{Code, Status};

use super::describe::read_description;
use super::hub_side::{Answer, Described, HubSide};
use crate::cluster::{Hint, Hints, PeerName, PeerRole, timed};
use crate::swarm::cache::Cache;
use crate::swarm::exchange::{Known, Say, Seat, Told, Who, Wrong};
use crate::swarm::ledger::Ledger;

/// How often the tracker hears that the node is alive, and how often while it fetches.
const ALIVE: Duration = Duration::from_secs(10);
const ALIVE_FETCHING: Duration = Duration::from_secs(1);
/// How long a node that has all of a file stays in its swarm: it is the best parent there is.
const STAYS: Duration = Duration::from_mins(10);
/// How long to wait until the call is made again: at first, and at most.
const AGAIN: Duration = Duration::from_millis(500);
const AGAIN_AT_MOST: Duration = Duration::from_secs(10);
/// How long nobody looks for others on the local network though the hub is not heard: a node that
/// has just begun hears it within that, and so does one whose hub is started again.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often it is looked who was found there while the hub is away.
const LOOK_EACH: Duration = Duration::from_secs(1);
/// Peers that are asked at once while it is away.
const MOST_ASKED: usize = 64;
/// What is said to the tracker and waits to be sent.
const SAID_AHEAD: usize = 1024;
const REPORTS_AHEAD: usize = 16;
/// Things that are said in one report.
const SAID_AT_ONCE: usize = 64;
/// Names in one report: a fifth of the longest message.
const NAMES_AT_ONCE: usize = 6000;

/// The hub, as a node hears and asks it.
pub struct GrpcHub {
    client: SwarmClient<Channel>,
    env: SharedEnv,
    presence: v1::Presence,
    cache: Arc<Cache>,
    ledger: Arc<Ledger>,
    hints: Arc<dyn Hints>,
    seats: Mutex<HashMap<Sha256, Taken>>,
    /// Whether the tracker is heard now.
    heard: watch::Sender<bool>,
    say: mpsc::Sender<(Sha256, Say)>,
    said: tokio::sync::Mutex<mpsc::Receiver<(Sha256, Say)>>,
    joined: Notify,
}

/// A seat that is taken.
struct Taken {
    size: u64,
    ticket: Bytes,
    held: Vec<u32>,
    number: u64,
    is_new: bool,
    /// Since when all of the file is here.
    whole_at: Option<Duration>,
    told: watch::Sender<Told>,
}

/// What the tracker was told of the cache.
#[derive(Default)]
struct Names {
    generation: Option<u64>,
    files: HashSet<Sha256>,
    xorbs: HashSet<XorbHash>,
}

impl GrpcHub {
    /// The hub at the other end of a channel (`cluster::hub_channel`).
    pub fn new(
        channel: Channel,
        env: SharedEnv,
        presence: v1::Presence,
        cache: Arc<Cache>,
        ledger: Arc<Ledger>,
        hints: Arc<dyn Hints>,
    ) -> Arc<Self> {
        let (say, said) = mpsc::channel(SAID_AHEAD);
        Arc::new(Self {
            client: SwarmClient::new(channel),
            env,
            presence,
            cache,
            ledger,
            hints,
            seats: Mutex::default(),
            heard: watch::Sender::new(false),
            say,
            said: tokio::sync::Mutex::new(said),
            joined: Notify::new(),
        })
    }

    /// Attends until it is stopped.
    pub async fn attend(&self, stop: CancellationToken) {
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = self.attend_again() => {}
            () = self.look_around() => {}
        }
    }

    async fn attend_again(&self) {
        let mut wait = AGAIN;
        loop {
            let ended = self.attend_once().await;
            let was_heard = *self.heard.borrow();
            self.set_heard(false);
            match ended {
                Ok(()) => tracing::info!("the hub ended the call of this node"),
                Err(status) if was_heard => tracing::info!(%status, "the hub is not heard"),
                Err(status) => tracing::debug!(%status, "the hub is not heard"),
            }
            wait = if was_heard { AGAIN } else { (wait * 2).min(AGAIN_AT_MOST) };
            self.env.sleep(wait).await;
        }
    }

    /// While the hub is not heard, whoever is found without it may be asked too.
    async fn look_around(&self) {
        let mut heard = self.heard.subscribe();
        while heard.wait_for(|is_heard| !is_heard).await.is_ok() {
            tokio::select! {
                biased;
                _ = heard.wait_for(|is_heard| *is_heard) => continue,
                () = self.env.sleep(PATIENCE) => {}
            }
            while !*self.heard.borrow() {
                self.hints.look();
                let found = self.found();
                for taken in self.seats().values() {
                    taken.told.send_if_modified(|told| add(told, &found));
                }
                self.env.sleep(LOOK_EACH).await;
            }
        }
    }

    /// Nodes that say that they are on the local network. Whoever connects to one sees whether it
    /// is so.
    fn found(&self) -> Vec<Known> {
        let known = |hint: Hint| {
            let (name, address) = (hint.name, *hint.addresses.first()?);
            // What multicast reaches is near.
            let who = Who { name, address, is_hub: false, is_near: true };
            Some(Known { who, is_whole: false })
        };
        let hints = self.hints.hints().into_iter();
        hints.filter(|hint| hint.name.role() == PeerRole::Node).filter_map(known).collect()
    }

    async fn attend_once(&self) -> std::result::Result<(), Status> {
        let (reports, reported) = mpsc::channel(REPORTS_AHEAD);
        let gone = |_| Status::unavailable("the call ended");
        let mut names = Names::default();
        let first = v1::Report { presence: Some(self.presence.clone()), ..self.joins(true) };
        reports.send(first).await.map_err(gone)?;
        let mut client = self.client.clone();
        let mut plans = client.attend(ReceiverStream::new(reported)).await?.into_inner();
        self.set_heard(true);
        for report in self.holding(&mut names) {
            reports.send(report).await.map_err(gone)?;
        }
        let mut said = self.said.lock().await;
        let mut told_at = self.env.monotonic();
        loop {
            let is_idle = self.seats().values().all(|taken| taken.whole_at.is_some());
            let alive = if is_idle { ALIVE } else { ALIVE_FETCHING };
            // Counted from the last time, and not from when something else was said.
            let due_in = (told_at + alive).saturating_sub(self.env.monotonic());
            let report = tokio::select! {
                biased;
                plan = plans.message() => {
                    let Some(plan) = plan? else { return Ok(()) };
                    self.hear(&plan);
                    continue;
                }
                () = self.joined.notified() => self.joins(false),
                () = self.env.sleep(due_in) => {
                    told_at = self.env.monotonic();
                    for report in self.holding(&mut names) {
                        reports.send(report).await.map_err(gone)?;
                    }
                    v1::Report { ledger: Some(self.ledger.report()), ..self.leaves() }
                }
                Some(first) = said.recv() => self.report(first, &mut said),
            };
            reports.send(report).await.map_err(gone)?;
        }
    }

    /// Takes its place in all swarms, or in those that are new.
    fn joins(&self, all: bool) -> v1::Report {
        let mut seats = self.seats();
        let mut joins = Vec::new();
        for (sha256, taken) in seats.iter_mut() {
            if all || std::mem::take(&mut taken.is_new) {
                taken.is_new = false;
                taken.number = 0;
                let (size, ticket, held) = (taken.size, taken.ticket.clone(), taken.held.clone());
                joins.push(v1::JoinSwarm { sha256: bytes(sha256.as_bytes()), size, ticket, held });
            }
        }
        v1::Report { joins, ..v1::Report::default() }
    }

    /// Leaves those in whose seats nobody sits any more, but stays where it has all of the file.
    fn leaves(&self) -> v1::Report {
        let now = self.env.monotonic();
        let mut leaves = Vec::new();
        self.seats().retain(|sha256, taken| {
            let stays = taken.whole_at.is_some_and(|at| at + STAYS > now);
            let stays = stays && self.cache.is_whole(sha256);
            let is_left = taken.told.is_closed() && !stays;
            if is_left {
                leaves.push(bytes(sha256.as_bytes()));
            }
            !is_left
        });
        v1::Report { leaves, ..v1::Report::default() }
    }

    /// What was said, put together.
    fn report(&self, first: (Sha256, Say), said: &mut mpsc::Receiver<(Sha256, Say)>) -> v1::Report {
        let mut report = v1::Report::default();
        let mut held: HashMap<Sha256, v1::Progress> = HashMap::new();
        let more = std::iter::from_fn(|| said.try_recv().ok()).take(SAID_AT_ONCE);
        for (sha256, say) in std::iter::once(first).chain(more) {
            let name = bytes(sha256.as_bytes());
            match say {
                Say::Held(pieces) => {
                    if let Some(taken) = self.seats().get_mut(&sha256) {
                        taken.held.clone_from(&pieces);
                    }
                    held.entry(sha256).or_default().held = pieces;
                }
                Say::Whole => {
                    if let Some(taken) = self.seats().get_mut(&sha256) {
                        taken.whole_at = Some(self.env.monotonic());
                    }
                    held.entry(sha256).or_default().whole = true;
                }
                Say::Wrong { stripe, who, wrong } => {
                    let peer =
                        if who.is_hub { String::new() } else { who.name.as_str().to_owned() };
                    let wrong = wrong_of(wrong).into();
                    report.complaints.push(v1::Complaint { sha256: name, stripe, peer, wrong });
                }
            }
        }
        let progress = held.into_iter().map(|(sha256, progress)| {
            let sha256 = bytes(sha256.as_bytes());
            v1::Progress { sha256, ..progress }
        });
        report.progress = progress.collect();
        if report.progress.iter().any(|progress| progress.whole) {
            report.ledger = Some(self.ledger.report());
        }
        report
    }

    /// What of the cache has changed since it was told.
    fn holding(&self, names: &mut Names) -> Vec<v1::Report> {
        let generation = self.cache.generation();
        if names.generation == Some(generation) {
            return Vec::new();
        }
        let (files, xorbs) = self.cache.names();
        let hash = |hash: &[u8; 32]| bytes(hash);
        let (new_files, old_files) = changes(&names.files, &files, |name| hash(name.as_bytes()));
        let (new_xorbs, old_xorbs) = changes(&names.xorbs, &xorbs, |name| hash(name.as_bytes()));
        let is_first = names.generation.is_none();
        *names = Names { generation: Some(generation), files, xorbs };
        let mut holdings = Vec::new();
        let parts = [new_files, old_files, new_xorbs, old_xorbs];
        let most = parts.iter().map(|part| part.len().div_ceil(NAMES_AT_ONCE)).max().unwrap_or(0);
        for part in 0..most.max(usize::from(is_first)) {
            let cut = |names: &[Bytes]| {
                names.chunks(NAMES_AT_ONCE).nth(part).map(<[_]>::to_vec).unwrap_or_default()
            };
            let [files, lost_files, xorbs, lost_xorbs] = [0, 1, 2, 3].map(|at| cut(&parts[at]));
            let afresh = is_first && part == 0;
            let holding = v1::Holding { afresh, files, lost_files, xorbs, lost_xorbs };
            holdings.push(v1::Report { holding: Some(holding), ..v1::Report::default() });
        }
        holdings
    }

    /// The tracker says whom to ask.
    fn hear(&self, plan: &v1::Plan) {
        let sha256: Option<[u8; 32]> = plan.sha256.as_ref().try_into().ok();
        let mut seats = self.seats();
        let taken = sha256.and_then(|name| seats.get_mut(&Sha256::from_bytes(name)));
        let Some(taken) = taken.filter(|taken| taken.number < plan.number) else { return };
        taken.number = plan.number;
        if let Some(told) = told(plan) {
            taken.told.send_replace(told);
        } else {
            tracing::warn!("the hub's plan makes no sense: it is left aside");
        }
    }

    fn set_heard(&self, is_heard: bool) {
        self.heard.send_replace(is_heard);
        for taken in self.seats().values() {
            taken.told.send_if_modified(|told| {
                let changed = told.is_heard != is_heard;
                told.is_heard = is_heard;
                changed
            });
        }
    }

    fn seats(&self) -> MutexGuard<'_, HashMap<Sha256, Taken>> {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl HubSide for GrpcHub {
    async fn describe(&self, repo: &Repo, wanted: &Wanted) -> Result<Answer> {
        let asked = v1::DescribeRequest {
            kind: repo.kind().singular().to_owned(),
            repo: repo.name().to_string(),
            revision: wanted.commit.to_string(),
            path: wanted.path.clone(),
        };
        let mut client = self.client.clone();
        let told = client.describe(timed(asked)).await.map_err(|status| failed(&status))?;
        read_description(told.into_inner()).await
    }

    fn sit(&self, described: &Described) -> Seat {
        let head = &described.about.head;
        let mut told = Told { is_heard: *self.heard.borrow(), ..Told::default() };
        if !told.is_heard {
            add(&mut told, &self.found());
        }
        let told = watch::Sender::new(told);
        let seat = Seat { sha256: head.sha256, told: told.subscribe(), say: self.say.clone() };
        let taken = Taken {
            size: head.size,
            ticket: described.ticket.clone(),
            held: Vec::new(),
            number: 0,
            is_new: true,
            whole_at: None,
            told,
        };
        self.seats().insert(head.sha256, taken);
        self.joined.notify_one();
        seat
    }
}

/// What a plan says; nothing if it contradicts itself.
fn told(plan: &v1::Plan) -> Option<Told> {
    if !plan.refused.is_empty() {
        let refused = Some(plan.refused.clone());
        return Some(Told { is_heard: true, refused, ..Told::default() });
    }
    let known = |peer: &v1::Peer| {
        let who = Who {
            name: PeerName::parse(&peer.name)?,
            address: peer.address.parse().ok()?,
            is_hub: false,
            is_near: peer.near,
        };
        Some(Known { who, is_whole: peer.whole })
    };
    let peers: Vec<Known> = plan.peers.iter().map(known).collect::<Option<_>>()?;
    let place = |parent: &u32| {
        let place = (*parent as usize).checked_sub(1);
        place.is_none_or(|place| place < peers.len()).then_some(place)
    };
    let parents = plan.parents.iter().map(place).collect::<Option<_>>()?;
    Some(Told { is_heard: true, peers, parents, refused: None })
}

/// Adds peers to those that the tracker named; whether there are more now. Where a peer is that
/// both name, the tracker knows, and whoever does not find it there asks the network.
fn add(told: &mut Told, found: &[Known]) -> bool {
    let before = told.peers.len();
    for known in found {
        let is_new = told.peers.iter().all(|peer| peer.who.name != known.who.name);
        if is_new && told.peers.len() < MOST_ASKED {
            told.peers.push(known.clone());
        }
    }
    told.peers.len() > before
}

fn wrong_of(wrong: Wrong) -> v1::Wrong {
    match wrong {
        Wrong::Unreachable => v1::Wrong::Unreachable,
        Wrong::Slow => v1::Wrong::Slow,
        Wrong::Lied => v1::Wrong::Lied,
        Wrong::Absent => v1::Wrong::Absent,
    }
}

/// What is new and what is gone.
fn changes<T: Eq + std::hash::Hash>(
    before: &HashSet<T>,
    now: &HashSet<T>,
    name: impl Fn(&T) -> Bytes,
) -> (Vec<Bytes>, Vec<Bytes>) {
    (now.difference(before).map(&name).collect(), before.difference(now).map(&name).collect())
}

/// What the hub answered, for whoever asked for the file.
pub(super) fn failed(status: &Status) -> Error {
    match status.code() {
        Code::NotFound => Error::RepoNotFound,
        Code::PermissionDenied | Code::Unauthenticated => {
            Error::denied(format!("the hub does not let this node read it: {}", status.message()))
        }
        _ => {
            tracing::info!(%status, "the hub does not say what a file is made of");
            let reason = "the hub does not answer as it should; ask again".to_owned();
            Error::Upstream { reason, retry_seconds: 5 }
        }
    }
}

fn bytes(hash: &[u8; 32]) -> Bytes {
    Bytes::copy_from_slice(hash)
}
