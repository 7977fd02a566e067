//! Over gRPC, as nodes call it.

use std::sync::Arc;

use ballast_format::hash::{ChunkHash, XorbHash};
use ballast_proto::v1;
use ballast_proto::v1::described::What;
use ballast_proto::v1::swarm_client::SwarmClient;
use ballast_proto::v1::swarm_server::SwarmServer;
use futures_util::TryStreamExt as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataValue;
use tonic::service::interceptor::InterceptedService;
use tonic::{Code, Request, Status};

use super::super::Tracker;
use super::super::service::Service;
use crate::cluster::{Guest, Peer, PeerKey};
use crate::swarm::cache::Permitted;
use crate::swarm::rig::{PATH, REPO, Rig, check, node};

type Door = fn(Request<()>) -> Result<Request<()>, Status>;
/// Speaks to a tracker of this process, without a network.
type Client = SwarmClient<InterceptedService<SwarmServer<Service>, Door>>;

/// A tracker that believes who says in a header who it is.
fn client(rig: &Rig) -> Client {
    let members = Arc::clone(&rig.members);
    let tracker = Tracker::start(Arc::clone(&rig.hub), members, "");
    let door: Door = |mut request| {
        let name = request.metadata().get("x-node").and_then(|name| name.to_str().ok());
        let key = PeerKey::from_bytes([7; 32]);
        let peer = name.map(|name| Peer { name: node(name), key });
        let address = ([127, 0, 0, 1], 1).into();
        request.extensions_mut().insert(Guest { peer, address });
        Ok(request)
    };
    SwarmClient::new(InterceptedService::new(tracker.service(), door))
}

fn by<T>(name: &'static str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("x-node", MetadataValue::from_static(name));
    request
}

fn asked(path: &str) -> v1::DescribeRequest {
    let (kind, repo, revision) = ("model".to_owned(), REPO.to_owned(), "main".to_owned());
    v1::DescribeRequest { kind, repo, revision, path: path.to_owned() }
}

struct Description {
    head: v1::FileHead,
    permits: Vec<v1::FilePermit>,
    terms: Vec<v1::FileTerm>,
}

async fn describe(client: &mut Client, name: &'static str) -> Description {
    let answer = client.describe(by(name, asked(PATH))).await.expect("it is there");
    let parts: Vec<v1::Described> = answer.into_inner().try_collect().await.expect("all of it");
    let mut parts = parts.into_iter().map(|part| part.what.expect("it says something"));
    let Some(What::Head(head)) = parts.next() else { panic!("the head comes first") };
    let (mut permits, mut terms) = (Vec::new(), Vec::new());
    for part in parts {
        match part {
            What::Permit(permit) => permits.push(permit),
            What::Terms(more) => terms.extend(more.terms),
            What::Head(_) | What::Elsewhere(_) => panic!("it comes once"),
        }
    }
    Description { head, permits, terms }
}

#[tokio::test]
async fn a_node_hears_what_a_file_is_made_of() {
    let rig = Rig::start(3 << 20).await;
    let mut client = client(&rig);
    let Description { head, permits, terms } = describe(&mut client, "reader").await;
    assert_eq!(head.sha256, rig.sha256().as_bytes().as_slice());
    assert_eq!((head.size, head.terms as usize), (3 << 20, terms.len()));
    assert_eq!((head.piece_bytes, head.stripes), (256 << 10, 8));
    let mut offset = 0;
    let mut chunks = 0;
    for term in &terms {
        for (hash, length) in term.hashes.chunks(32).zip(&term.lengths) {
            let chunk = &rig.content[offset..offset + *length as usize];
            assert_eq!(hash, ChunkHash::of(chunk).as_bytes(), "at {offset}");
            (offset, chunks) = (offset + chunk.len(), chunks + 1);
        }
        assert_eq!(term.hashes.len(), 32 * term.lengths.len());
    }
    assert_eq!((offset, chunks), (rig.content.len(), head.chunks));
    let xorbs: Vec<_> = terms.iter().map(|term| term.xorb.clone()).collect();
    let read = check()(&node("reader"), &permits[0].permit);
    let Permitted { xorbs: permitted, until_ms } = read.expect("it is this node's");
    assert!(xorbs.iter().all(|xorb| {
        let xorb = XorbHash::from_bytes(xorb.as_ref().try_into().expect("a hash"));
        permitted.contains(&xorb)
    }));
    assert_eq!(until_ms, head.until_ms);
}

#[tokio::test]
async fn who_may_not_know_of_a_file_hears_what_is_said_of_one_that_is_not_there() {
    let rig = Rig::start(1 << 20).await;
    let mut client = client(&rig);
    let mut heard = Vec::new();
    for (name, repo) in [("stranger", REPO), ("reader", "acme/nothing"), ("unknown", REPO)] {
        let request = v1::DescribeRequest { repo: repo.to_owned(), ..asked(PATH) };
        let status = client.describe(by(name, request)).await.expect_err("it is not there");
        heard.push((status.code(), status.message().to_owned()));
    }
    assert_eq!(heard[0].0, Code::NotFound);
    assert!(heard.iter().all(|status| *status == heard[0]), "{heard:?}");
    let nobody = client.describe(asked(PATH)).await.expect_err("it has no name");
    assert_eq!(nobody.code(), Code::Unauthenticated);
    let missing = client.describe(by("reader", asked("none"))).await.expect_err("no such file");
    assert_eq!(missing.code(), Code::NotFound);
    let small = client.describe(by("reader", asked("config.json"))).await.expect_err("it is small");
    assert_eq!(small.code(), Code::InvalidArgument);
}

/// A node's call.
struct Attending {
    reports: mpsc::Sender<v1::Report>,
    plans: tonic::Streaming<v1::Plan>,
}

async fn attend(client: &mut Client, name: &'static str, port: u16) -> Attending {
    let (reports, receiver) = mpsc::channel(8);
    let address = format!("0.0.0.0:{port}");
    let presence = Some(v1::Presence { address, ..v1::Presence::default() });
    let first = v1::Report { presence, ..v1::Report::default() };
    reports.send(first).await.expect("there is room");
    let stream = ReceiverStream::new(receiver);
    let plans = client.attend(by(name, stream)).await.expect("it may attend").into_inner();
    Attending { reports, plans }
}

impl Attending {
    async fn join(&self, head: &v1::FileHead) {
        let (sha256, ticket) = (head.sha256.clone(), head.ticket.clone());
        let joins = vec![v1::JoinSwarm { sha256, size: head.size, ticket, held: vec![] }];
        let report = v1::Report { joins, ..v1::Report::default() };
        self.reports.send(report).await.expect("it listens");
    }

    async fn plan(&mut self) -> v1::Plan {
        self.plans.message().await.expect("it goes on").expect("it goes on")
    }
}

#[tokio::test]
async fn nodes_are_told_whom_to_ask_and_hear_of_it_when_one_is_gone() {
    let rig = Rig::start(8 << 20).await;
    rig.members.set("second", rig.hub.authenticate(&rig.token).expect("it is good"));
    let mut client = client(&rig);
    let first_head = describe(&mut client, "reader").await.head;
    let second_head = describe(&mut client, "second").await.head;
    let mut first = attend(&mut client, "reader", 7001).await;
    first.join(&first_head).await;
    let plan = first.plan().await;
    assert!(plan.parents.iter().all(|parent| *parent == 0), "it is alone: {plan:?}");
    let mut second = attend(&mut client, "second", 7002).await;
    second.join(&second_head).await;
    let plan = second.plan().await;
    assert_eq!(plan.peers[0].address, "127.0.0.1:7001");
    assert!(plan.parents.contains(&1));

    let mut watched = Request::new(v1::WatchRequest { every_ms: 0 });
    let refused = client.watch(by("reader", v1::WatchRequest::default())).await;
    assert_eq!(refused.expect_err("it is no administrator").code(), Code::PermissionDenied);
    let token = MetadataValue::try_from(format!("Bearer {}", rig.token)).expect("it is text");
    watched.metadata_mut().insert("authorization", token);
    let views = client.watch(watched).await.expect("an administrator").into_inner();
    let views: Vec<v1::Overview> = views.try_collect().await.expect("one");
    assert_eq!((views.len(), views[0].nodes.len(), views[0].swarms.len()), (1, 2, 1));
    assert_eq!((views[0].swarms[0].fetching, views[0].swarms[0].size), (2, 8 << 20));

    // The call breaks: its children are told at once.
    drop(first);
    loop {
        let plan = second.plan().await;
        if plan.peers.is_empty() {
            assert!(plan.parents.iter().all(|parent| *parent == 0), "{plan:?}");
            break;
        }
    }
}

#[tokio::test]
async fn who_guesses_an_administrators_token_waits() {
    let rig = Rig::start(1 << 20).await;
    let mut client = client(&rig);
    let watched = |token: &str| {
        let mut request = Request::new(v1::WatchRequest { every_ms: 0 });
        let token = MetadataValue::try_from(format!("Bearer {token}")).expect("it is text");
        request.metadata_mut().insert("authorization", token);
        request
    };
    for _ in 0..20 {
        client.watch(watched(&rig.token)).await.expect("it is right");
        let refused = client.watch(watched("hf_made_up")).await.expect_err("it is wrong");
        assert_ne!(refused.code(), Code::ResourceExhausted);
    }
    let refused = client.watch(watched(&rig.token)).await.expect_err("its address waits");
    assert_eq!(refused.code(), Code::ResourceExhausted);
}

#[tokio::test]
async fn a_node_that_does_not_belong_here_may_not_attend() {
    let rig = Rig::start(1 << 20).await;
    let mut client = client(&rig);
    let reports = tokio_stream::once(v1::Report::default());
    let refused = client.attend(by("unknown", reports)).await;
    assert_eq!(refused.expect_err("it is unknown").code(), Code::PermissionDenied);
    let reports = tokio_stream::once(v1::Report::default());
    let plans = client.attend(by("reader", reports)).await.expect("it may attend");
    let ended = plans.into_inner().message().await.expect_err("it said nothing of itself");
    assert_eq!(ended.code(), Code::InvalidArgument);
}
