//! What must hold whatever happens to a swarm.

use std::time::Duration;

use proptest::prelude::*;

use super::*;

/// What some host was seen to take, in bytes a second.
const QUICKEST: u64 = 12_500_000;

/// Something that happens.
#[derive(Clone, Debug)]
enum Event {
    Join { site: u32, rack: u32, held: Vec<u32>, upload: Option<u64> },
    Progress { who: usize, by: Vec<u32> },
    Leave { who: usize },
    Complain { who: usize, stripe: u32, lied: bool },
    Watch,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let pieces = || prop::collection::vec(0..40_u32, STRIPES as usize);
    let held =
        prop_oneof![4 => Just(Vec::new()), 1 => pieces(), 1 => Just(vec![999; STRIPES as usize])];
    let upload = prop_oneof![4 => Just(None), 1 => (0..2_000_000_u64).prop_map(Some)];
    let join = (0..3_u32, 0..2_u32, held, upload)
        .prop_map(|(site, rack, held, upload)| Event::Join { site, rack, held, upload });
    let by = prop::collection::vec(0..12_u32, STRIPES as usize);
    let event = prop_oneof![
        4 => join,
        6 => (any::<usize>(), by).prop_map(|(who, by)| Event::Progress { who, by }),
        2 => any::<usize>().prop_map(|who| Event::Leave { who }),
        2 => (any::<usize>(), 0..STRIPES, any::<bool>())
            .prop_map(|(who, stripe, lied)| Event::Complain { who, stripe, lied }),
        1 => Just(Event::Watch),
    ];
    prop::collection::vec(event, 1..120)
}

fn nth(forest: &Forest, who: usize) -> Option<HostId> {
    let ids: Vec<_> = forest.ids().collect();
    Some(ids[who.checked_rem(ids.len())?])
}

fn held_of(forest: &Forest, id: HostId) -> Vec<u32> {
    forest.host(id).expect("it is here").seats.iter().map(|seat| seat.held).collect()
}

fn happen(forest: &mut Forest, event: &Event, now: Duration) {
    match event {
        Event::Join { site, rack, held, upload } => {
            let place = Place { site: *site, rack: *rack };
            forest.join(Newcomer { place, upload: *upload, held });
        }
        Event::Progress { who, by } => {
            if let Some(id) = nth(forest, *who) {
                let held = held_of(forest, id).into_iter().zip(by).map(|(a, b)| a + b);
                forest.report(id, &held.collect::<Vec<_>>());
            }
        }
        Event::Leave { who } => {
            if let Some(id) = nth(forest, *who) {
                forest.leave(id);
            }
        }
        Event::Complain { who, stripe, lied } => {
            if let Some(id) = nth(forest, *who)
                && let Some(about) = forest.parents(id)[*stripe as usize]
            {
                forest.complain(id, *stripe, about, *lied);
            }
        }
        Event::Watch => forest.watch(now, QUICKEST),
    }
}

/// Each host has a way to somebody with the whole stripe, and what is counted is so.
fn check(forest: &Forest) {
    let mut hub = 0;
    let mut children = vec![0; forest.hosts.len()];
    for stripe in 0..forest.totals.len() {
        for id in forest.ids() {
            let host = forest.host(id).expect("it is here");
            match host.seats[stripe].parent {
                Some(Parent::Hub) => hub += 1,
                Some(Parent::Host(parent)) => children[parent.index()] += 1,
                None => assert!(forest.has_stripe(host, stripe), "{id:?} has no parent"),
            }
            let mut at = id;
            for step in 0.. {
                assert!(step <= forest.hosts.len(), "a circle in stripe {stripe} at {id:?}");
                let host = forest.host(at).expect("a parent is here");
                match host.seats[stripe].parent {
                    _ if forest.has_stripe(host, stripe) => break,
                    Some(Parent::Hub) => break,
                    Some(Parent::Host(parent)) => at = parent,
                    None => panic!("no way to the whole of stripe {stripe} from {id:?}"),
                }
            }
        }
    }
    assert_eq!(forest.hub_children(), hub);
    for id in forest.ids() {
        assert_eq!(forest.children(id), children[id.index()]);
        assert!(forest.peers(id, 16).iter().all(|peer| *peer != id));
    }
}

proptest! {
    #[test]
    fn everybody_has_a_way_to_the_whole_whatever_happens(events in events()) {
        let mut forest = Forest::new(Cut::of(128 << 20), Place::default());
        for (number, event) in events.iter().enumerate() {
            happen(&mut forest, event, Duration::from_secs(number as u64));
            if number % 3 == 0 {
                forest.settle();
                check(&forest);
            }
        }
        forest.settle();
        check(&forest);
        prop_assert!(forest.settle().is_empty(), "nothing has happened since");
    }

    #[test]
    fn hosts_that_come_have_hardly_more_children_than_slots_and_the_hub_one_for_each_stripe(
        count in 1..150_usize,
        batch in 1..20_usize,
    ) {
        let mut forest = Forest::new(Cut::of(128 << 20), Place::default());
        for number in 0..count {
            forest.join(Newcomer { place: Place::default(), upload: None, held: &[] });
            if number % batch == 0 {
                forest.settle();
            }
        }
        forest.settle();
        check(&forest);
        prop_assert_eq!(forest.hub_children(), STRIPES);
        for id in forest.ids() {
            // Where none has a slot that is left, some have one or two more than they should.
            let children = forest.children(id);
            prop_assert!(children <= STRIPES + 2, "{id:?}: {children}");
        }
    }
}

fn forest(places: &[u32]) -> (Forest, Vec<HostId>) {
    let mut forest = Forest::new(Cut::of(128 << 20), Place::default());
    let join = |site: &u32| {
        let place = Place { site: *site, rack: 0 };
        forest.join(Newcomer { place, upload: None, held: &[] })
    };
    let ids = places.iter().map(join).collect();
    forest.settle();
    (forest, ids)
}

/// Edges from one site to another, or from the hub to another site than its own.
fn crossings(forest: &Forest) -> usize {
    let site = |id: HostId| forest.host(id).expect("it is here").place.site;
    let crosses = |id: HostId, parent: Option<Parent>| match parent {
        Some(Parent::Host(parent)) => site(parent) != site(id),
        Some(Parent::Hub) => site(id) != 0,
        None => false,
    };
    let of = |id| forest.parents(id).into_iter().filter(|parent| crosses(id, *parent)).count();
    forest.ids().map(of).sum()
}

#[test]
fn each_stripe_goes_to_another_site_once() {
    let (forest, _) = forest(&[0, 1, 0, 1, 1, 0, 1, 0, 2, 2, 2]);
    assert_eq!(crossings(&forest), 2 * STRIPES as usize);
    assert_eq!(forest.hub_children(), STRIPES);
}

#[test]
fn the_children_of_a_dead_host_have_others_at_once_and_nobody_else_moves() {
    let (mut forest, ids) = forest(&[0; 40]);
    let before: Vec<_> = ids.iter().map(|id| forest.parents(*id)).collect();
    forest.leave(ids[3]);
    let changed = forest.settle();
    check(&forest);
    for (id, before) in ids.iter().zip(before) {
        let asked = before.contains(&Some(Parent::Host(ids[3])));
        assert_eq!(changed.contains(id), asked && *id != ids[3], "{id:?}");
    }
    assert_eq!(forest.hub_children(), STRIPES);
}

#[test]
fn a_host_that_comes_late_costs_the_hub_nothing() {
    let (mut forest, ids) = forest(&[0; 8]);
    for id in &ids {
        forest.report(*id, &[25; STRIPES as usize]);
    }
    let late = forest.join(Newcomer { place: Place::default(), upload: None, held: &[] });
    assert_eq!(forest.settle(), [late]);
    assert!(!forest.parents(late).contains(&Some(Parent::Hub)));
    check(&forest);
}

#[test]
fn where_a_host_has_all_the_hub_sends_nothing() {
    let mut forest = Forest::new(Cut::of(128 << 20), Place::default());
    let place = Place::default();
    let whole = forest.join(Newcomer { place, upload: None, held: &[u32::MAX; STRIPES as usize] });
    let others: Vec<_> =
        (0..20).map(|_| forest.join(Newcomer { place, upload: None, held: &[] })).collect();
    forest.settle();
    check(&forest);
    assert_eq!(forest.hub_children(), 0);
    assert!((STRIPES..=STRIPES + 1).contains(&forest.children(whole)));
    forest.leave(whole);
    assert!(!forest.settle().is_empty());
    check(&forest);
    assert_eq!(forest.hub_children(), STRIPES);
    assert!(others.iter().all(|id| !forest.is_done(*id)));
}

#[test]
fn a_host_that_is_slow_or_lies_is_nobodys_parent() {
    let (mut forest, ids) = forest(&[0; 10]);
    forest.watch(Duration::from_secs(1), QUICKEST);
    for (number, id) in ids.iter().enumerate() {
        forest.report(*id, &[if number == 4 { 1 } else { 10 }; STRIPES as usize]);
    }
    forest.watch(Duration::from_secs(4), QUICKEST);
    let child = ids.iter().find(|id| forest.parents(**id).contains(&Some(Parent::Host(ids[6]))));
    let child = *child.expect("somebody asks it");
    let of_six = |parent: &Option<Parent>| *parent == Some(Parent::Host(ids[6]));
    let stripe = forest.parents(child).iter().position(of_six).expect("it does");
    let stripe = u32::try_from(stripe).expect("there are few");
    forest.complain(child, stripe, Parent::Host(ids[6]), true);
    forest.settle();
    check(&forest);
    assert_eq!((forest.children(ids[4]), forest.children(ids[6])), (0, 0));
    // Neither does the hub send to them what others need.
    assert_eq!(forest.hub_children(), STRIPES);
    assert!(!forest.parents(ids[4]).contains(&Some(Parent::Hub)));
}

/// The hosts of a swarm in which each passes all on to the next, from the hub's child on.
fn chain_of(forest: &Forest) -> Vec<HostId> {
    let child = |of| forest.ids().find(|id| forest.parents(*id)[0] == Some(of));
    let first = child(Parent::Hub);
    let chain: Vec<_> = std::iter::successors(first, |id| child(Parent::Host(*id))).collect();
    assert_eq!(chain.len(), forest.ids().count());
    chain
}

#[test]
fn who_stands_behind_a_slow_host_is_not_taken_for_slow() {
    let (mut forest, _) = forest(&[0; 8]);
    let chain = chain_of(&forest);
    forest.watch(Duration::from_secs(1), QUICKEST);
    forest.settle();
    for (number, id) in chain.iter().enumerate() {
        forest.report(*id, &[if number < 2 { 20 } else { 2 }; STRIPES as usize]);
    }
    forest.watch(Duration::from_secs(4), QUICKEST);
    forest.settle();
    check(&forest);
    let [_, second, slow, next, ..] = chain[..] else { panic!("there are eight") };
    assert_eq!(forest.children(slow), 0);
    assert_eq!(forest.parents(next)[0], Some(Parent::Host(second)));
    assert_eq!(forest.parents(slow)[0], Some(Parent::Host(chain[7])));
    assert!(chain[3..7].iter().all(|id| forest.children(*id) > 0));
}

#[test]
fn a_slow_host_that_all_others_stand_behind_is_found_out() {
    let (mut forest, _) = forest(&[0; 8]);
    let chain = chain_of(&forest);
    let (first, second) = (chain[0], chain[1]);
    let last_stripe = STRIPES as usize - 1;
    forest.watch(Duration::from_secs(1), QUICKEST);
    for id in &chain {
        forest.report(*id, &[2; STRIPES as usize]);
    }
    // As quick as others were: nothing changes.
    let mut quick = forest.clone();
    quick.watch(Duration::from_secs(4), 4 * 16 * SHORTEST_PIECE / 3);
    assert_eq!(chain_of(&quick)[0], first);
    assert!(quick.parents(first).iter().all(|parent| *parent == Some(Parent::Hub)));

    forest.watch(Duration::from_secs(4), QUICKEST);
    forest.settle();
    // The hub's child is not the only one that asks it any more.
    assert_eq!(forest.parents(first)[last_stripe], Some(Parent::Host(second)));
    assert_eq!(forest.parents(second)[last_stripe], Some(Parent::Hub));
    assert_eq!(forest.hub_children(), STRIPES);
    check(&forest);
    for id in &chain {
        let mut held = [4; STRIPES as usize];
        held[last_stripe] = if *id == second { 20 } else { 4 };
        forest.report(*id, &held);
    }
    forest.watch(Duration::from_secs(7), QUICKEST);
    forest.settle();
    check(&forest);
    assert_eq!(forest.children(first), 0);
    assert!(!forest.parents(first).contains(&Some(Parent::Hub)));
    assert!(forest.parents(second).iter().all(|parent| *parent == Some(Parent::Hub)));
    assert!(chain[1..7].iter().all(|id| forest.children(*id) > 0));
}

#[test]
fn hosts_that_nobody_may_ask_and_that_avoid_each_other_in_a_circle_all_ask_the_hub() {
    let (mut forest, ids) = forest(&[0; 4]);
    // The last one can be asked, but has less than they.
    let circle = &ids[..3];
    for (number, id) in circle.iter().enumerate() {
        forest.report(*id, &[20; STRIPES as usize]);
        let next = circle[(number + 1) % circle.len()];
        let host = forest.host_mut(*id).expect("it is here");
        host.avoid(Parent::Host(next));
        host.strike(next, true);
        forest.sink(*id);
    }
    forest.settle();
    check(&forest);
    assert_eq!(forest.hub_children(), 4 * STRIPES);
}
