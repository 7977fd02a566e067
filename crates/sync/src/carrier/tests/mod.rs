//! One suite for all carriers: what arrives is what was asked for, whatever the other side does.

mod path;
mod world;

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ballast_format::hash::XorbHash;
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::future::join_all;
use tokio::sync::{Barrier, Notify};

use self::world::{
    Cluster, Kind, Manner, Shelf, World, Xorb, any, bytes_of, carrier, name, request, shared,
};
use super::frame::{AnswerHead, AnswerKind};
use super::{
    Carrier as _, Choice, Distance, Error, LONGEST_RUN, MOST_ASKED_XORBS, MOST_PERMIT_BYTES,
    QuicSettings, Request, Source, Urgency, start,
};
use crate::cluster::{Door, DoorLimits, Services, TakeStreams};

/// Each case, with each carrier.
macro_rules! suite {
    ($($case:ident),* $(,)?) => {
        mod tcp {
            $(
                #[tokio::test]
                async fn $case() {
                    super::$case(super::Kind::Tcp).await;
                }
            )*
        }

        mod quic {
            $(
                #[tokio::test]
                async fn $case() {
                    super::$case(super::Kind::Quic).await;
                }
            )*
        }
    };
}

suite! {
    chunks_arrive_in_order_and_are_what_they_should_be,
    what_is_not_there_is_absent_and_the_rest_arrives,
    the_peer_learns_who_asks_and_what_for,
    a_chunk_that_the_peer_is_getting_arrives_when_it_has_it,
    many_spans_and_the_longest_runs_arrive,
    eight_requests_run_at_once,
    a_wrong_byte_is_a_lie_and_ends_the_link,
    lying_heads_are_lies,
    a_cut_in_the_middle_of_a_run_is_an_error_and_what_came_before_it_arrives,
    a_refusal_is_told_in_the_peers_words,
    dropping_what_arrives_stops_the_sender,
    permits_are_kept_under_the_callers_name_or_refused,
    holdings_are_told,
    what_is_beyond_a_limit_is_not_asked_for,
    who_answers_under_another_name_is_refused,
    who_is_of_another_cluster_is_refused,
    a_dead_peer_ends_the_link,
    who_is_revoked_is_cut_off,
}

async fn chunks_arrive_in_order_and_are_what_they_should_be(kind: Kind) {
    let xorb = Xorb::new(1, &[65_536, 100, 131_072, 1, 70_000, 8192, 65_536]);
    for stored in [false, true] {
        let shelf = Shelf { stored, ..Shelf::of(&[&xorb]) };
        let (world, _) = World::honest(kind, shelf).await;
        let (arrived, error) = world.fetch(request(&[(&xorb, 1..7)])).await;
        assert!(error.is_none(), "{error:?}");
        let runs: Vec<_> = arrived.iter().map(|run| (run.span, run.chunks.clone())).collect();
        assert_eq!(runs, [(0, 1..4), (0, 4..7)]);
        assert_eq!(bytes_of(&arrived), xorb.bytes(1..7));
    }
}

async fn what_is_not_there_is_absent_and_the_rest_arrives(kind: Kind) {
    let (here, absent) = (Xorb::new(1, &[10, 20, 30]), Xorb::new(2, &[40; 5]));
    let (world, _) = World::honest(kind, Shelf::of(&[&here])).await;
    let request = request(&[(&here, 0..1), (&absent, 0..5), (&here, 2..3)]);
    let (arrived, error) = world.fetch(request).await;
    assert!(error.is_none(), "{error:?}");
    let told: Vec<_> = arrived
        .iter()
        .map(|run| (run.span, run.chunks.clone(), run.bytes.as_ref().map(Bytes::len)))
        .collect();
    assert_eq!(told, [(0, 0..1, Some(10)), (1, 0..3, None), (1, 3..5, None), (2, 2..3, Some(30))]);
}

async fn the_peer_learns_who_asks_and_what_for(kind: Kind) {
    let xorb = Xorb::new(1, &[10, 20, 30]);
    let (world, shelf) = World::honest(kind, Shelf::of(&[&xorb])).await;
    let wanted = Request { urgency: Urgency::Client, ..request(&[(&xorb, 1..3)]) };
    let (_, error) = world.fetch(wanted.clone()).await;
    assert!(error.is_none(), "{error:?}");
    let seen = shelf.seen.lock().expect("no panic");
    let [(peer, request)] = seen.as_slice() else { panic!("{} requests", seen.len()) };
    assert_eq!(peer, &name("client"));
    assert_eq!((&request.spans, request.patience), (&wanted.spans, wanted.patience));
    assert_eq!((request.urgency, request.expected.len()), (Urgency::Client, 0));
    assert_eq!((world.link.peer(), world.link.is_open()), (&name("server"), true));
}

async fn a_chunk_that_the_peer_is_getting_arrives_when_it_has_it(kind: Kind) {
    let (xorb, gate) = (Xorb::new(1, &[10, 20]), Arc::new(Notify::new()));
    let shelf = Shelf { gate: Some(Arc::clone(&gate)), per_run: 1, ..Shelf::of(&[&xorb]) };
    let (world, _) = World::honest(kind, shelf).await;
    let mut arrivals = world.link.request(request(&[(&xorb, 0..2)])).await.expect("asked");
    for chunks in [0..1, 1..2] {
        assert!(futures_util::poll!(arrivals.next()).is_pending(), "the peer does not have it");
        gate.notify_one();
        let run = arrivals.next().await.expect("a run").expect("sound");
        assert_eq!(run.chunks, chunks);
    }
    assert!(arrivals.next().await.is_none());
}

async fn many_spans_and_the_longest_runs_arrive(kind: Kind) {
    let (small, large) = (Xorb::new(1, &[300; 900]), Xorb::new(2, &[131_072; 64]));
    for stored in [false, true] {
        let shelf = Shelf { per_run: 64, stored, ..Shelf::of(&[&small, &large]) };
        let (world, _) = World::honest(kind, shelf).await;
        let spans = (0..800).map(|at| (&small, at..at + 1 + at % 3));
        let spans: Vec<(&Xorb, Range<u32>)> = spans.chain([(&large, 0..64)]).collect();
        let (arrived, error) = world.fetch(request(&spans)).await;
        assert!(error.is_none(), "{error:?}");
        let expected: Vec<u8> =
            spans.iter().flat_map(|(xorb, chunks)| xorb.bytes(chunks.clone())).collect();
        assert!(bytes_of(&arrived) == expected);
        let longest = arrived.iter().filter_map(|run| run.bytes.as_ref()).map(Bytes::len).max();
        // Chunks that are stored have eight bytes more, which leaves room for one less.
        let full = if stored { LONGEST_RUN - 131_072 } else { LONGEST_RUN };
        assert_eq!(longest, Some(full), "a source's run of 8 MiB is cut");
    }
}

async fn eight_requests_run_at_once(kind: Kind) {
    let xorb = Xorb::new(1, &[65_536; 16]);
    let shelf = Shelf { together: Some(Barrier::new(8)), ..Shelf::of(&[&xorb]) };
    let (world, _) = World::honest(kind, shelf).await;
    let fetches = (0..8).map(|_| world.fetch(request(&[(&xorb, 0..16)])));
    for (arrived, error) in join_all(fetches).await {
        assert!(error.is_none(), "{error:?}");
        assert!(bytes_of(&arrived) == xorb.bytes(0..16));
    }
}

/// The head of a run of the first span, and bytes behind it.
fn answer(kind: AnswerKind, chunks: Range<u32>, bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).expect("short");
    let head = AnswerHead { kind, span: 0, first: chunks.start, end: chunks.end, length };
    [&head.encode(), bytes].concat()
}

async fn told(kind: Kind, bytes: Vec<u8>, ends: bool) -> World {
    World::new(kind, Manner::Says { bytes: bytes.into(), ends }).await
}

async fn a_wrong_byte_is_a_lie_and_ends_the_link(kind: Kind) {
    let xorb = Xorb::new(1, &[5000, 6000, 7000]);
    for (encoding, wrong_chunks) in [(AnswerKind::Plain, 1..3), (AnswerKind::Plain, 2..3)] {
        let mut wrong = xorb.bytes(wrong_chunks.clone());
        *wrong.last_mut().expect("not empty") ^= 1;
        let bytes = [
            answer(encoding, 0..wrong_chunks.start, &xorb.bytes(0..wrong_chunks.start)),
            answer(encoding, wrong_chunks, &wrong),
        ];
        let world = told(kind, bytes.concat(), false).await;
        let (arrived, error) = world.fetch(request(&[(&xorb, 0..3)])).await;
        assert_eq!(arrived.len(), 1, "what is right arrives");
        assert!(matches!(&error, Some(Error::Lied { peer, .. }) if peer == "server"), "{error:?}");
        assert!(!world.link.is_open());
        let (_, error) = world.fetch(request(&[(&xorb, 0..3)])).await;
        assert!(matches!(error, Some(Error::Unreachable { .. })), "{error:?}");
    }
}

async fn lying_heads_are_lies(kind: Kind) {
    let xorb = Xorb::new(1, &[5000, 6000]);
    let whole = xorb.bytes(0..2);
    let mut endless = answer(AnswerKind::Plain, 0..2, &whole);
    endless[13..17].copy_from_slice(&u32::MAX.to_le_bytes());
    for (bytes, why) in [
        (answer(AnswerKind::Plain, 0..2, &whole[1..]), "another length"),
        (answer(AnswerKind::Plain, 1..2, &xorb.bytes(1..2)), "another chunk"),
        (answer(AnswerKind::Plain, 0..3, &whole), "more chunks"),
        (answer(AnswerKind::Stored, 0..2, &whole), "chunks without headers"),
        (answer(AnswerKind::Held, 0..2, &whole), "another answer"),
        (endless, "4 GiB"),
        (vec![77; 400], "noise"),
    ] {
        let world = told(kind, bytes, false).await;
        let (arrived, error) = world.fetch(request(&[(&xorb, 0..2)])).await;
        assert!(
            arrived.is_empty() && matches!(error, Some(Error::Lied { .. })),
            "{why}: {error:?}"
        );
        assert!(!world.link.is_open(), "{why}");
    }
    let world = told(kind, answer(AnswerKind::Held, 0..0, &[9; 20]), false).await;
    let holdings = world.link.holdings(&[xorb.hash]).await;
    assert!(matches!(holdings, Err(Error::Lied { .. })), "{holdings:?}");
    assert!(!world.link.is_open());
}

async fn a_cut_in_the_middle_of_a_run_is_an_error_and_what_came_before_it_arrives(kind: Kind) {
    let xorb = Xorb::new(1, &[50_000, 60_000]);
    let mut bytes = [
        answer(AnswerKind::Plain, 0..1, &xorb.bytes(0..1)),
        answer(AnswerKind::Plain, 1..2, &xorb.bytes(1..2)),
    ]
    .concat();
    bytes.truncate(80_000);
    let world = told(kind, bytes, true).await;
    let (arrived, error) = world.fetch(request(&[(&xorb, 0..2)])).await;
    assert!(bytes_of(&arrived) == xorb.bytes(0..1));
    assert!(matches!(error, Some(Error::Unreachable { .. })), "{error:?}");
}

async fn a_refusal_is_told_in_the_peers_words(kind: Kind) {
    let words = answer(AnswerKind::Refused, 0..0, b"no \x1b[2Jpermit");
    let world = told(kind, words, false).await;
    let xorb = Xorb::new(1, &[5000]);
    let (arrived, error) = world.fetch(request(&[(&xorb, 0..1)])).await;
    assert!(arrived.is_empty());
    let error = error.expect("refused");
    assert!(matches!(&error, Error::Refused { .. }));
    assert_eq!(error.to_string(), "`server` refused: no  [2Jpermit");
    assert!(world.link.is_open(), "a peer that refuses is a peer");
}

async fn dropping_what_arrives_stops_the_sender(kind: Kind) {
    let xorb = Xorb::new(1, &vec![65_536; 1024]);
    let (world, shelf) = World::honest(kind, Shelf::of(&[&xorb])).await;
    let mut arrivals = world.link.request(request(&[(&xorb, 0..1024)])).await.expect("asked");
    arrivals.next().await.expect("a run").expect("sound");
    drop(arrivals);
    shelf.dropped.notified().await;
    let handed_out = shelf.handed_out.load(Ordering::Relaxed);
    assert!(handed_out < 900, "{handed_out} chunks of 1024");
    let sent = shelf.sent.load(Ordering::Relaxed);
    assert!((1..=handed_out as u64 * 65_536).contains(&sent), "{sent} bytes");
    // While it waits for its source too.
    let (gate, xorb) = (Arc::new(Notify::new()), Xorb::new(1, &[10, 20]));
    let shelf = Shelf { gate: Some(Arc::clone(&gate)), per_run: 1, ..Shelf::of(&[&xorb]) };
    let (world, shelf) = World::honest(kind, shelf).await;
    let mut arrivals = world.link.request(request(&[(&xorb, 0..2)])).await.expect("asked");
    gate.notify_one();
    arrivals.next().await.expect("a run").expect("sound");
    drop(arrivals);
    shelf.dropped.notified().await;
    assert_eq!(shelf.sent.load(Ordering::Relaxed), 10);
    // The link goes on.
    gate.notify_one();
    let (arrived, error) = world.fetch(request(&[(&xorb, 1..2)])).await;
    assert!(error.is_none() && bytes_of(&arrived) == xorb.bytes(1..2), "{error:?}");
}

async fn permits_are_kept_under_the_callers_name_or_refused(kind: Kind) {
    let (world, shelf) = World::honest(kind, Shelf::default()).await;
    let longest = Bytes::from(vec![7; MOST_PERMIT_BYTES]);
    world.link.show(longest.clone()).await.expect("kept");
    let refused = world.link.show(Bytes::from_static(b"forged")).await;
    let refused = refused.expect_err("forged").to_string();
    assert_eq!(refused, "`server` refused: its signature is wrong");
    let permits = shelf.permits.lock().expect("no panic");
    assert!(*permits == [(name("client"), longest.to_vec())]);
}

async fn holdings_are_told(kind: Kind) {
    let (here, absent) = (Xorb::new(1, &[10; 30]), Xorb::new(2, &[40]));
    let (world, _) = World::honest(kind, Shelf::of(&[&here])).await;
    let held = world.link.holdings(&[absent.hash, here.hash]).await.expect("told");
    assert_eq!(held, [vec![], vec![0..30]]);
    assert!(world.link.holdings(&[]).await.expect("told").is_empty());
    let many = vec![here.hash; MOST_ASKED_XORBS];
    assert_eq!(world.link.holdings(&many).await.expect("told").len(), MOST_ASKED_XORBS);
}

async fn what_is_beyond_a_limit_is_not_asked_for(kind: Kind) {
    let (world, shelf) = World::honest(kind, Shelf::default()).await;
    let xorb = Xorb::new(1, &[10, 20]);
    let expects_less = Request { expected: Vec::new(), ..request(&[(&xorb, 0..2)]) };
    for invalid in [request(&[]), expects_less] {
        let (_, error) = world.fetch(invalid).await;
        assert!(matches!(error, Some(Error::Invalid(_))), "{error:?}");
    }
    let long = Bytes::from(vec![0; MOST_PERMIT_BYTES + 1]);
    assert!(matches!(world.link.show(long).await, Err(Error::Invalid(_))));
    let many = vec![XorbHash::ZERO; MOST_ASKED_XORBS + 1];
    assert!(matches!(world.link.holdings(&many).await, Err(Error::Invalid(_))));
    assert!(shelf.seen.lock().expect("no panic").is_empty() && world.link.is_open());
}

async fn who_answers_under_another_name_is_refused(kind: Kind) {
    let (world, _) = World::honest(kind, Shelf::default()).await;
    let link = world.carrier.connect(world.address, &name("somebody"), Distance::Near).await;
    let error = link.map(drop).expect_err("it is not");
    assert!(matches!(&error, Error::Lied { peer, .. } if peer == "somebody"), "{error}");
    assert!(error.to_string().contains("`server` answers"), "{error}");
}

async fn who_is_of_another_cluster_is_refused(kind: Kind) {
    let xorb = Xorb::new(1, &[10]);
    let (world, shelf) = World::honest(kind, Shelf::of(&[&xorb])).await;
    let stranger = Cluster::new(2).credentials("client");
    let carrier = carrier(kind, &world.shared, &stranger);
    let link = carrier.connect(world.address, &name("server"), Distance::Near).await;
    assert!(matches!(link.map(drop), Err(Error::Unreachable { .. })));
    assert!(shelf.seen.lock().expect("no panic").is_empty());
}

async fn a_dead_peer_ends_the_link(kind: Kind) {
    let (xorb, gate) = (Xorb::new(1, &[10, 20]), Arc::new(Notify::new()));
    let shelf = Shelf { gate: Some(Arc::clone(&gate)), per_run: 1, ..Shelf::of(&[&xorb]) };
    let (world, _) = World::honest(kind, shelf).await;
    let mut arrivals = world.link.request(request(&[(&xorb, 0..2)])).await.expect("asked");
    gate.notify_one();
    arrivals.next().await.expect("a run").expect("sound");
    assert!(world.server.stop(&*shared().env, Duration::from_mins(1)).await, "it ends");
    let error = arrivals.next().await.expect("an error").expect_err("it is dead");
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
    assert!(!world.link.is_open());
    let again = world.carrier.connect(world.address, &name("server"), Distance::Near).await;
    assert!(matches!(again.map(drop), Err(Error::Unreachable { .. })));
}

async fn who_is_revoked_is_cut_off(kind: Kind) {
    let (xorb, gate) = (Xorb::new(1, &[10, 20]), Arc::new(Notify::new()));
    let shelf = Shelf { gate: Some(Arc::clone(&gate)), per_run: 1, ..Shelf::of(&[&xorb]) };
    let (world, shelf) = World::honest(kind, shelf).await;
    let mut arrivals = world.link.request(request(&[(&xorb, 0..2)])).await.expect("asked");
    gate.notify_one();
    arrivals.next().await.expect("a run").expect("sound");
    world.revocations.replace([world.key]);
    let error = arrivals.next().await.expect("an error").expect_err("it is cut off");
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
    assert!(!world.link.is_open());
    // By TCP a client is whole before the server has looked at its certificate.
    if let Ok(link) = world.carrier.connect(world.address, &name("server"), Distance::Near).await {
        assert!(link.holdings(&[xorb.hash]).await.is_err());
    }
    assert_eq!(shelf.seen.lock().expect("no panic").len(), 1);
}

#[tokio::test]
async fn connections_are_used_again() {
    let xorb = Xorb::new(1, &[10, 20]);
    let (world, _) = World::honest(Kind::Tcp, Shelf::of(&[&xorb])).await;
    for _ in 0..5 {
        let (_, error) = world.fetch(request(&[(&xorb, 0..2)])).await;
        assert!(error.is_none(), "{error:?}");
        world.link.holdings(&[xorb.hash]).await.expect("told");
    }
    assert_eq!(world.accepted.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn the_next_call_on_a_connection_is_not_taken_for_leaving() {
    let xorb = Xorb::new(1, &[10, 20]);
    let shelf = Shelf { lingers: true, ..Shelf::of(&[&xorb]) };
    let (world, _) = World::honest(Kind::Tcp, shelf).await;
    for _ in 0..20 {
        let (arrived, error) = world.fetch(request(&[(&xorb, 0..2)])).await;
        assert!(error.is_none(), "{error:?}");
        assert!(bytes_of(&arrived) == xorb.bytes(0..2));
    }
    assert_eq!(world.accepted.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_process_starts_both_carriers_and_is_reached_by_each() {
    let (cluster, xorb) = (Cluster::new(1), Xorb::new(1, &[1000, 2000]));
    let shelf: Arc<dyn Source> = Arc::new(Arc::new(Shelf::of(&[&xorb])));
    let (identity, shared) = (cluster.identity("server"), shared());
    let (door, settings) = (Door::bind(any()).await.expect("a door"), QuicSettings::default());
    let (address, udp) = (door.address(), door.udp().expect("a socket"));
    let server = start(&shared, &identity, udp, Some(shelf), Choice::Auto, settings);
    let server = server.expect("it starts");
    let (runner, limits) = (&shared.runner, DoorLimits::default());
    let streams: Arc<dyn TakeStreams> = server.server.expect("it answers");
    let opened = door.open(runner, &shared.env, &identity, Services::new(), Some(streams), limits);
    opened.expect("it opens");
    for choice in [Choice::Auto, Choice::Tcp, Choice::Quic] {
        let identity = cluster.identity("client");
        let udp = std::net::UdpSocket::bind(any()).expect("a port");
        let client = start(&shared, &identity, udp, None, choice, settings).expect("it starts");
        let link = client
            .carriers
            .connect(address, &name("server"), Distance::Near)
            .await
            .expect("connected");
        let arrivals = link.request(request(&[(&xorb, 0..2)])).await.expect("asked");
        let arrived: Vec<_> = arrivals.map(|run| run.expect("sound")).collect().await;
        assert!(bytes_of(&arrived) == xorb.bytes(0..2), "{choice:?}");
        let paths = client.quic.paths().len();
        assert_eq!(paths, usize::from(choice == Choice::Quic), "{choice:?}");
        let figures = client.figures()();
        let figure = |name: &str| {
            figures.iter().find(|figure| figure.name == name).expect("it is counted").value
        };
        let by_quic = u64::from(choice == Choice::Quic);
        assert_eq!(figure("carrier_links{carrier=\"tcp\"}"), 1 - by_quic, "{choice:?}");
        assert_eq!(figure("carrier_links{carrier=\"quic\"}"), by_quic, "{choice:?}");
        assert_eq!(figure("quic_sent_packets_total").min(1), by_quic, "{choice:?}");
        assert_eq!(figure("quic_send_calls_total").min(1), by_quic, "{choice:?}");
    }
}
