//! What a tracker knows, and whom it tells what, without a network.

use std::time::Duration;

use ballast_format::hash::{Sha256, XorbHash};
use ballast_proto::v1;
use bytes::Bytes;

use super::super::overview::Slowest;
use super::super::read::Senseless;
use super::super::roster::{NodeNumber, Roster, Told};
use super::super::ticket::Tickets;
use crate::swarm::plan::{Cut, STRIPES};
use crate::swarm::rig::node;

const SIZE: u64 = 128 << 20;
const UNTIL: u64 = 1000;

struct Scene {
    roster: Roster,
    now: Duration,
}

fn file() -> Sha256 {
    ballast_testkit::xet::sha256(b"weights")
}

fn bytes(hash: &Sha256) -> Bytes {
    Bytes::copy_from_slice(hash.as_bytes())
}

impl Scene {
    fn new() -> Self {
        Self { roster: Roster::new(Tickets::new([1; 32]), ""), now: Duration::ZERO }
    }

    fn say(&mut self, number: NodeNumber, report: v1::Report) -> Result<bool, Senseless> {
        self.roster.report(number, &report, (self.now, 1))
    }

    /// A node attends, from this site.
    fn attend(&mut self, name: &str, site: &str) -> NodeNumber {
        let from = Some([10, 0, 0, 9].into());
        let (number, _) = self.roster.attend(node(name), from).expect("there is room");
        let (address, site) = ("0.0.0.0:8081".to_owned(), site.to_owned());
        let presence = Some(v1::Presence { address, site, ..v1::Presence::default() });
        self.say(number, v1::Report { presence, ..v1::Report::default() }).expect("it is sound");
        number
    }

    fn join(&mut self, number: NodeNumber, held: &[u32]) {
        let name = self.roster.nodes[&number].name.clone();
        let ticket = self.roster.ticket(&name, (&file(), SIZE), UNTIL);
        let (sha256, held) = (bytes(&file()), held.to_vec());
        let joins = vec![v1::JoinSwarm { sha256, size: SIZE, ticket, held }];
        self.say(number, v1::Report { joins, ..v1::Report::default() }).expect("it is sound");
    }

    fn progress(&mut self, number: NodeNumber, held: u32, whole: bool) {
        let (sha256, held) = (bytes(&file()), vec![held; STRIPES as usize]);
        let progress = vec![v1::Progress { sha256, held, whole }];
        self.say(number, v1::Report { progress, ..v1::Report::default() }).expect("it is sound");
    }

    fn plan(&mut self, number: NodeNumber) -> Option<v1::Plan> {
        match self.roster.next_told(number) {
            Told::Plan(plan) => Some(plan),
            Told::Nothing => None,
            Told::Replaced => panic!("it has not called again"),
        }
    }

    fn settle(&mut self) -> bool {
        self.roster.settle(self.now)
    }
}

/// Whom a plan names as parents; the hub is nobody.
fn parents(plan: &v1::Plan) -> Vec<Option<&str>> {
    let name = |parent: &u32| match parent {
        0 => None,
        place => Some(plan.peers[*place as usize - 1].name.as_str()),
    };
    plan.parents.iter().map(name).collect()
}

#[test]
fn nodes_that_join_are_told_whom_to_ask_once() {
    let mut scene = Scene::new();
    let (a, b) = (scene.attend("a", ""), scene.attend("b", ""));
    scene.join(a, &[]);
    scene.join(b, &[]);
    assert!(scene.plan(a).is_none(), "nothing is planned yet");
    assert!(scene.settle());
    let plans = [a, b].map(|number| scene.plan(number).expect("a plan"));
    for (plan, asked) in plans.iter().zip([None, Some("a")]) {
        assert_eq!(plan.sha256, bytes(&file()));
        assert_eq!(plan.parents.len(), STRIPES as usize);
        assert!(parents(plan).iter().all(|name| *name == asked), "one asks the hub for both");
        // The address that it calls from, and the port that it said.
        assert_eq!(plan.peers[0].address, "10.0.0.9:8081");
        assert!(plan.peers[0].near && !plan.peers[0].whole);
    }
    scene.settle();
    assert!(scene.plan(a).is_none() && scene.plan(b).is_none(), "they have been told");
}

#[test]
fn without_a_ticket_nobody_comes_into_a_swarm() {
    let mut scene = Scene::new();
    let (a, b) = (scene.attend("a", ""), scene.attend("b", ""));
    scene.join(a, &[]);
    let of_a = scene.roster.ticket(&node("a"), (&file(), SIZE), UNTIL);
    let mut before = 0;
    for ticket in [Bytes::new(), of_a] {
        let (sha256, held) = (bytes(&file()), vec![]);
        let joins = vec![v1::JoinSwarm { sha256, size: SIZE, ticket, held }];
        scene.say(b, v1::Report { joins, ..v1::Report::default() }).expect("it is sound");
        let plan = scene.plan(b).expect("it hears of it");
        assert!(plan.refused.contains("ticket") && plan.peers.is_empty(), "{plan:?}");
        assert!(plan.number > before, "it is news");
        before = plan.number;
    }
    scene.settle();
    assert!(scene.plan(b).is_none());
}

#[test]
fn what_makes_no_sense_ends_the_call() {
    let mut scene = Scene::new();
    let (number, _) = scene.roster.attend(node("a"), None).expect("there is room");
    let silent = scene.say(number, v1::Report::default());
    assert!(silent.is_err(), "the first report says where it is");
    for address in ["", "nowhere", "10.0.0.1:0", "0.0.0.0:8081"] {
        let presence = v1::Presence { address: address.to_owned(), ..v1::Presence::default() };
        let report = v1::Report { presence: Some(presence), ..v1::Report::default() };
        assert!(scene.say(number, report).is_err(), "`{address}`");
    }
    let a = scene.attend("b", "");
    let progress = |sha256: &'static [u8], stripes| v1::Progress {
        sha256: Bytes::from_static(sha256),
        held: vec![1; stripes],
        whole: false,
    };
    for progress in [progress(b"short", 1), progress(&[7; 32], STRIPES as usize + 1)] {
        let report = v1::Report { progress: vec![progress], ..v1::Report::default() };
        assert!(scene.say(a, report).is_err());
    }
}

#[test]
fn a_tracker_that_begins_anew_plans_with_what_nodes_say_again() {
    let mut scene = Scene::new();
    let numbers = ["a", "b", "c"].map(|name| scene.attend(name, ""));
    // They say how far they are: `b` is ahead.
    for (number, held) in numbers.into_iter().zip([10, 20, 12]) {
        scene.join(number, &[held; STRIPES as usize]);
    }
    scene.settle();
    let [a, b, c] = numbers.map(|number| scene.plan(number).expect("a plan"));
    assert!(parents(&b).iter().all(Option::is_none), "who has most asks the hub");
    assert!(parents(&a).iter().chain(&parents(&c)).all(Option::is_some));
}

#[test]
fn who_is_silent_is_nobodys_parent_until_it_is_heard_again() {
    let mut scene = Scene::new();
    let (a, b) = (scene.attend("a", ""), scene.attend("b", ""));
    for number in [a, b] {
        scene.join(number, &[]);
    }
    scene.settle();
    assert!(scene.plan(a).is_some() && scene.plan(b).is_some());
    for second in 1..8 {
        scene.now = Duration::from_secs(second);
        scene.progress(b, 1, false);
        scene.settle();
    }
    let plan = scene.plan(b).expect("it has others");
    assert!(parents(&plan).iter().all(Option::is_none), "only the hub is left");
    scene.say(a, v1::Report::default()).expect("a report may be empty");
    scene.settle();
    assert!(parents(&scene.plan(a).expect("it is back")).contains(&Some("b")));
}

#[test]
fn who_has_the_file_serves_it_and_who_has_lost_it_does_not() {
    let mut scene = Scene::new();
    let (rich, poor) = (scene.attend("rich", "x"), scene.attend("poor", "x"));
    let files = vec![bytes(&file())];
    let holding = Some(v1::Holding { files, ..v1::Holding::default() });
    scene.say(rich, v1::Report { holding, ..v1::Report::default() }).expect("it is sound");
    scene.join(poor, &[]);
    scene.settle();
    let plan = scene.plan(poor).expect("a plan");
    assert!(parents(&plan).iter().all(|name| *name == Some("rich")), "{plan:?}");
    assert!(plan.peers[0].whole && plan.peers[0].near);
    assert!(scene.plan(rich).is_none(), "it lacks nothing");

    let complaint = v1::Complaint {
        sha256: bytes(&file()),
        stripe: 3,
        peer: "rich".to_owned(),
        wrong: v1::Wrong::Absent.into(),
    };
    let complaints = vec![complaint];
    scene.say(poor, v1::Report { complaints, ..v1::Report::default() }).expect("it is sound");
    scene.settle();
    let plan = scene.plan(poor).expect("a plan");
    assert!(parents(&plan).iter().all(Option::is_none), "{plan:?}");
}

#[test]
fn a_swarm_ends_when_all_have_the_file_and_begins_with_them_again() {
    let mut scene = Scene::new();
    let (a, b) = (scene.attend("a", ""), scene.attend("b", ""));
    for number in [a, b] {
        scene.join(number, &[]);
    }
    assert!(scene.settle());
    scene.progress(a, u32::MAX, true);
    // Of a whole file it need not be said how much it is.
    let progress = vec![v1::Progress { sha256: bytes(&file()), held: vec![], whole: true }];
    scene.say(b, v1::Report { progress, ..v1::Report::default() }).expect("it is sound");
    assert!(!scene.settle(), "nobody fetches");
    assert!(scene.roster.swarms.is_empty());
    let c = scene.attend("c", "");
    scene.join(c, &[]);
    scene.settle();
    let plan = scene.plan(c).expect("a plan");
    let names = parents(&plan);
    assert!(names.contains(&Some("a")) && names.contains(&Some("b")) && !names.contains(&None));
    // Those who are gone hold nothing.
    for number in [a, b, c] {
        scene.roster.gone(number);
    }
    assert!(!scene.settle());
    let d = scene.attend("d", "");
    scene.join(d, &[]);
    scene.settle();
    assert!(parents(&scene.plan(d).expect("a plan")).iter().all(Option::is_none));
}

#[test]
fn a_node_that_calls_again_ends_its_call_before() {
    let mut scene = Scene::new();
    let before = scene.attend("a", "");
    let now = scene.attend("a", "");
    assert!(matches!(scene.roster.next_told(before), Told::Replaced));
    scene.roster.gone(before);
    assert!(scene.plan(now).is_none());
    assert_eq!(scene.roster.nodes.len(), 1);
}

#[test]
fn it_is_known_which_nodes_have_a_xorb() {
    let mut scene = Scene::new();
    let (a, _) = (scene.attend("a", "x"), scene.attend("b", "x"));
    let xorb = XorbHash::from_bytes([5; 32]);
    let xorbs = vec![Bytes::copy_from_slice(xorb.as_bytes())];
    let holding = v1::Holding { xorbs: xorbs.clone(), ..v1::Holding::default() };
    let report = v1::Report { holding: Some(holding), ..v1::Report::default() };
    scene.say(a, report).expect("it is sound");
    let answer = scene.roster.who_has(&node("b"), &[xorb, XorbHash::from_bytes([6; 32])]);
    assert_eq!(answer.peers.len(), 1);
    assert!(answer.peers[0].name == "a" && answer.peers[0].near);
    assert_eq!((answer.holders[0].peers.as_slice(), answer.holders[1].peers.len()), (&[0][..], 0));
    let nobody = scene.roster.who_has(&node("a"), &[xorb]);
    assert!(nobody.peers.is_empty(), "it does not ask for itself");
    let holding = v1::Holding { lost_xorbs: xorbs, ..v1::Holding::default() };
    let report = v1::Report { holding: Some(holding), ..v1::Report::default() };
    scene.say(a, report).expect("it is sound");
    assert!(scene.roster.who_has(&node("b"), &[xorb]).peers.is_empty());
}

#[test]
fn bytes_are_counted_by_where_they_came_from_across_restarts_of_nodes() {
    let mut scene = Scene::new();
    for (peer, hub) in [(5, 1), (9, 1), (2, 2)] {
        let number = match scene.roster.nodes.keys().next() {
            Some(number) => *number,
            None => scene.attend("a", ""),
        };
        let ledger = Some(v1::Ledger { peer, hub, ..v1::Ledger::default() });
        scene.say(number, v1::Report { ledger, ..v1::Report::default() }).expect("it is sound");
    }
    let ledger = scene.roster.counts.ledger;
    assert_eq!((ledger.peer, ledger.hub), (9 + 2, 1 + 1));
    let view = scene.roster.overview();
    assert_eq!(view.nodes[0].ledger.map(|ledger| ledger.peer), Some(2));
}

#[test]
fn whoever_watches_is_told_who_is_last_and_how_much_the_hub_is_spared() {
    let mut scene = Scene::new();
    assert_eq!(scene.roster.slowest(), Slowest::default());
    assert_eq!(scene.roster.speed_up_percent(), 0);
    let (a, b) = (scene.attend("a", ""), scene.attend("b", ""));
    scene.join(a, &[]);
    scene.join(b, &[]);
    scene.settle();
    scene.now = Duration::from_secs(2);
    let in_stripe = SIZE / Cut::of(SIZE).piece_bytes() / u64::from(STRIPES);
    let in_stripe = u32::try_from(in_stripe).expect("few");
    scene.progress(a, in_stripe / 2, false);
    scene.progress(b, in_stripe / 4, false);
    scene.settle();
    let slowest = scene.roster.slowest();
    assert_eq!(slowest, Slowest { percent: 25, rate: SIZE / 4 / 2, eta_ms: 6000 });
    let ledger = v1::Ledger { disk: 99, site: 5, peer: 1, hub: 2, ..v1::Ledger::default() };
    let report = v1::Report { ledger: Some(ledger), ..v1::Report::default() };
    scene.say(a, report).expect("it is sound");
    assert_eq!(scene.roster.speed_up_percent(), 400);
    scene.progress(a, 0, true);
    scene.progress(b, 0, true);
    scene.settle();
    assert_eq!(scene.roster.slowest(), Slowest::default(), "all have it");
}

/// Whether, in a row, the second node goes before the first one in some stripe, where another node
/// was many times as quick as both, so many seconds before.
fn is_doubted(seconds: u64) -> bool {
    let asks_hub = |scene: &mut Scene, node| {
        scene.plan(node).is_some_and(|plan| parents(&plan).contains(&None))
    };
    let mut scene = Scene::new();
    let quick = scene.attend("quick", "");
    scene.join(quick, &[]);
    scene.settle();
    scene.now = Duration::from_secs(2);
    scene.progress(quick, 64, false);
    scene.settle();
    scene.roster.gone(quick);
    for _ in 0..seconds {
        scene.now += Duration::from_secs(1);
        scene.settle();
    }
    let row = ["a", "b", "c"].map(|name| scene.attend(name, ""));
    for node in row {
        scene.join(node, &[]);
    }
    scene.settle();
    let heads = row.map(|node| asks_hub(&mut scene, node));
    let head = row[heads.iter().position(|asks| *asks).expect("one asks the hub")];
    for held in 1..=2 {
        scene.now += Duration::from_secs(2);
        for node in row {
            scene.progress(node, held, false);
        }
        scene.settle();
    }
    row.into_iter().any(|node| node != head && asks_hub(&mut scene, node))
}

#[test]
fn how_quick_nodes_were_long_ago_says_nothing_of_those_of_today() {
    assert!(is_doubted(10));
    assert!(!is_doubted(24 * 3600));
}
