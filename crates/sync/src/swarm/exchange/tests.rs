use ballast_node::error::Result;
use ballast_store::env::Env as _;
use futures_util::{FutureExt as _, StreamExt as _, TryStreamExt as _, future};

use super::*;
use crate::swarm::sample::Sample;
use crate::swarm::world::{HUB, Manners, Node, PIECE, World, known, plan, who};

/// 400 chunks in 40 pieces of 10, in five xorbs.
fn sample() -> Sample {
    Sample::new(1, 400, 90)
}

const SIZE: u64 = 400_000;

fn came(node: &Node) -> HashMap<String, u64> {
    let figures = node.means.ledger.figures().into_iter();
    figures.map(|figure| (figure.name.into_owned(), figure.value)).collect()
}

const WASTED: &str = "swarm_wasted_bytes_total";
const FROM_SITE: &str = "swarm_received_bytes_total{from=\"site\"}";

#[tokio::test]
async fn a_node_alone_gets_all_from_the_hub_once() -> Result<()> {
    let sample = sample();
    let world = World::new(&[&sample]);
    let node = world.node("a").await;
    node.tell.send_replace(plan(&[], HUB));
    world.drive(node.fetch(&sample)).await?;
    node.check(&sample);
    assert_eq!((world.hub.sent(), came(&node)[WASTED]), (SIZE, 0));
    let mut said = node.said.lock().await;
    let said: Vec<Say> = std::iter::from_fn(|| said.try_recv().ok()).map(|said| said.1).collect();
    assert_eq!(said.last(), Some(&Say::Whole));
    assert_eq!(said[said.len() - 2], Say::Held(vec![10; 4]));
    Ok(())
}

#[tokio::test]
async fn a_tree_of_eight_takes_the_file_from_the_hub_once() -> Result<()> {
    let sample = sample();
    let world = World::new(&[&sample]);
    let names = ["a", "b", "c", "d", "e", "f", "g", "h"];
    let mut nodes = Vec::new();
    for name in names {
        nodes.push(world.node(name).await);
    }
    for (number, node) in nodes.iter().enumerate() {
        // In stripe s the hub's child is node s, and everybody else's parent is the one before.
        let others: Vec<&str> = names.iter().copied().filter(|name| *name != node.name).collect();
        let parent = |stripe: usize| {
            let before = (number + names.len() - 1) % names.len();
            let place = others.iter().position(|name| *name == names[before]);
            if number == stripe { None } else { place }
        };
        node.tell.send_replace(plan(&others, [0, 1, 2, 3].map(parent)));
    }
    // The tracker names nobody who has not begun.
    let begun = future::join_all(nodes.iter().map(|node| node.begin(&sample))).await;
    let fetching = nodes.iter().zip(begun).map(|(node, filling)| node.go_on(&sample, filling));
    world.drive(future::try_join_all(fetching)).await?;
    for node in &nodes {
        node.check(&sample);
        assert_eq!((came(node)[WASTED], node.complaints()), (0, Vec::new()), "{}", node.name);
    }
    assert_eq!(world.hub.sent(), SIZE);
    Ok(())
}

#[tokio::test]
async fn a_new_version_moves_only_what_is_new() -> Result<()> {
    let old = sample();
    let new = old.with_new(100..120, 7);
    let world = World::new(&[&old, &new]);
    let node = world.node("a").await;
    node.tell.send_replace(plan(&[], HUB));
    world.drive(node.fetch(&old)).await?;
    let filling = node.begin(&new).await;
    filling.take_local().await?;
    world.drive(node.go_on(&new, filling)).await?;
    node.check(&new);
    assert_eq!(world.hub.sent(), SIZE + 20_000);
    Ok(())
}

#[tokio::test]
async fn whoever_stands_in_another_site_is_reached_as_one_that_may_be_far() -> Result<()> {
    let sample = sample();
    let world = World::new(&[&sample]);
    let (near, far, node) = (world.node("a").await, world.node("b").await, world.node("c").await);
    let _kept = (near.has(&sample, &[0..400]).await, far.has(&sample, &[0..400]).await);
    let mut told = plan(&["a", "b"], [Some(0), Some(1), Some(0), Some(1)]);
    told.peers[1].who.is_near = false;
    node.tell.send_replace(told);
    world.drive(node.fetch(&sample)).await?;
    let called_far = world.called_far.lock().expect("no panic").clone();
    assert_eq!(called_far.into_iter().collect::<Vec<_>>(), [who("b").name]);
    let from_site = came(&node)[FROM_SITE];
    assert!(from_site > 0 && from_site < SIZE, "{from_site} of {SIZE}");
    Ok(())
}

#[tokio::test]
async fn a_parent_that_lies_is_told_of_and_no_wrong_byte_is_kept() -> Result<()> {
    let sample = sample();
    let world = World::new(&[&sample]);
    let (liar, good, node) = (world.node("a").await, world.node("b").await, world.node("c").await);
    let _kept = (liar.has(&sample, &[0..400]).await, good.has(&sample, &[0..400]).await);
    Manners::set(&liar.manners.lies);
    node.tell.send_replace(plan(&["a", "b"], [Some(0); 4]));
    world.drive(node.fetch(&sample)).await?;
    node.check(&sample);
    let bad = who("a");
    let lies = |say: &Say| matches!(say, Say::Wrong { wrong: Wrong::Lied, who, .. } if *who == bad);
    assert!(node.complaints().iter().any(lies));
    // The tracker said nothing new: the other one had it.
    assert_eq!((came(&node)[FROM_SITE], world.hub.sent()), (SIZE, 0));
    Ok(())
}

#[tokio::test]
async fn who_lies_three_times_is_shut_out_for_an_hour() {
    let world = World::new(&[]);
    let node = world.node("a").await;
    let (peers, liar) = (&node.means.peers, who("b"));
    for _ in 0..2 {
        peers.lied(&liar);
    }
    assert!(!peers.is_shut_out(&liar.name));
    peers.lied(&liar);
    assert!(peers.is_shut_out(&liar.name));
    world.env.advance(Duration::from_mins(59));
    assert!(peers.is_shut_out(&liar.name));
    world.env.advance(Duration::from_mins(2));
    assert!(!peers.is_shut_out(&liar.name));
}

#[tokio::test]
async fn a_dead_parent_is_replaced_by_the_tracker_and_until_then_by_others() -> Result<()> {
    let sample = sample();
    for is_told in [false, true] {
        let world = World::new(&[&sample]);
        let (dead, other, node) =
            (world.node("a").await, world.node("b").await, world.node("c").await);
        let _kept = (dead.has(&sample, &[0..400]).await, other.has(&sample, &[0..400]).await);
        dead.manners.dies_after.store(150_000, std::sync::atomic::Ordering::Relaxed);
        node.tell.send_replace(plan(&["a", "b"], [Some(0); 4]));
        let tracker = async {
            let mut said = node.said.lock().await;
            while let Some((_, say)) = said.recv().await {
                if let (true, Say::Wrong { wrong, .. }) = (is_told, &say) {
                    assert_eq!(*wrong, Wrong::Unreachable);
                    node.tell.send_replace(plan(&["a", "b"], [Some(1); 4]));
                }
            }
        };
        let fetched = async {
            tokio::select! {
                fetched = node.fetch(&sample) => fetched.map(|_| ()),
                () = tracker => Ok(()),
            }
        };
        world.drive(fetched).await?;
        node.check(&sample);
        assert!(dead.manners.sent() < SIZE && other.manners.sent() > 0);
        assert_eq!((world.hub.sent(), came(&node)[WASTED]), (0, 0));
    }
    Ok(())
}

#[tokio::test]
async fn what_was_asked_of_a_parent_before_is_asked_of_the_next_at_once() -> Result<()> {
    let sample = sample();
    let world = World::new(&[&sample]);
    let (before, next, node) =
        (world.node("a").await, world.node("b").await, world.node("c").await);
    let _kept = (before.begin(&sample).await, next.has(&sample, &[0..400]).await);
    node.tell.send_replace(plan(&["a", "b"], [Some(0); 4]));
    let began = world.env.monotonic();
    let filling = node.begin(&sample).await;
    let mut fetching = Box::pin(node.go_on(&sample, filling));
    // It has asked the first one, which has nothing yet.
    while before.manners.asked() < 4 {
        assert!(fetching.as_mut().now_or_never().is_none());
        tokio::task::yield_now().await;
    }
    node.tell.send_replace(plan(&["a", "b"], [Some(1); 4]));
    world.drive(fetching).await?;
    node.check(&sample);
    assert!(world.env.monotonic() - began < Duration::from_millis(500));
    assert_eq!((world.hub.sent(), node.complaints()), (0, Vec::new()));
    Ok(())
}

#[tokio::test]
async fn a_parent_that_stands_still_is_told_of() -> Result<()> {
    let sample = sample();
    let world = World::new(&[&sample]);
    let (still, node) = (world.node("a").await, world.node("b").await);
    let _kept = still.has(&sample, &[0..400]).await;
    Manners::set(&still.manners.is_frozen);
    // One stripe from the one that stands still, the others from the hub.
    node.tell.send_replace(plan(&["a"], [Some(0), None, None, None]));
    let tracker = async {
        let mut said = node.said.lock().await;
        while let Some((_, say)) = said.recv().await {
            if let Say::Wrong { stripe, who: told, wrong } = say {
                assert_eq!((stripe, told, wrong), (0, who("a"), Wrong::Slow));
                node.tell.send_replace(plan(&["a"], HUB));
            }
        }
    };
    let fetched = async {
        tokio::select! {
            fetched = node.fetch(&sample) => fetched.map(|_| ()),
            () = tracker => Ok(()),
        }
    };
    world.drive(fetched).await?;
    node.check(&sample);
    assert_eq!(world.hub.sent(), SIZE);
    Ok(())
}

#[tokio::test]
async fn a_stripe_that_goes_on_last_after_all_stood_still_is_nobodys_fault() -> Result<()> {
    let sample = Sample::new(1, 1600, 90);
    let world = World::new(&[&sample]);
    let (parent, node) = (world.node("a").await, world.node("b").await);
    let kept = parent.has(&sample, &[0..900]).await;
    node.tell.send_replace(plan(&["a"], [Some(0); 4]));
    let write = async |is_last: bool| {
        for chunk in (900..1600).filter(|chunk| (chunk / 10 % 4 == 3) == is_last) {
            kept.write(chunk..chunk + 1, sample.bytes(chunk..chunk + 1)).await?;
        }
        Ok::<_, Error>(())
    };
    let goes_on = async {
        world.env.sleep(Duration::from_secs(8)).await;
        write(false).await?;
        world.env.sleep(Duration::from_secs(1)).await;
        write(true).await
    };
    let (done, written) = world.drive(future::join(node.fetch(&sample), goes_on)).await;
    done?;
    written?;
    node.check(&sample);
    assert_eq!((world.hub.sent(), node.complaints()), (0, Vec::new()));
    Ok(())
}

#[tokio::test]
async fn without_hub_and_tracker_nodes_finish_from_each_other() -> Result<()> {
    let sample = sample();
    let world = World::new(&[&sample]);
    let names = ["a", "b", "c"];
    let thirds: [&[Range<u32>]; 3] = [&[0..140], &[130..270, 390..400], &[265..395]];
    let mut nodes = Vec::new();
    for name in names {
        nodes.push(world.node(name).await);
    }
    Manners::set(&world.hub.is_dead);
    let mut fetching = Vec::new();
    for (node, runs) in nodes.iter().zip(thirds) {
        let others: Vec<&str> = names.iter().copied().filter(|name| *name != node.name).collect();
        // It was heard once, and is not any more.
        node.tell.send_replace(Told { is_heard: false, ..plan(&others, HUB) });
        let filling = node.has(&sample, runs).await;
        fetching.push(node.go_on(&sample, filling));
    }
    world.drive(future::try_join_all(fetching)).await?;
    for node in &nodes {
        node.check(&sample);
        assert_eq!(came(node)[WASTED], 0, "{}", node.name);
    }
    assert_eq!(world.hub.sent(), 0);
    Ok(())
}

#[tokio::test]
async fn a_hub_that_dies_at_half_leaves_a_file_that_waits_for_it() -> Result<()> {
    let sample = sample();
    let world = World::new(&[&sample]);
    let node = world.node("a").await;
    node.tell.send_replace(plan(&[], HUB));
    world.hub.dies_after.store(SIZE / 2, std::sync::atomic::Ordering::Relaxed);
    let failed = world.drive(node.fetch(&sample)).await;
    assert!(matches!(failed, Err(Error::Upstream { .. })));
    assert!(!node.cache.is_whole(&sample.sha256()));
    // What came is not fetched again.
    world.hub.dies_after.store(0, std::sync::atomic::Ordering::Relaxed);
    world.hub.is_dead.store(false, std::sync::atomic::Ordering::Relaxed);
    let filling = node.begin(&sample).await;
    assert!(filling.believe().await? >= SIZE / 2 - 2 * PIECE);
    world.drive(node.go_on(&sample, filling)).await?;
    node.check(&sample);
    assert!(world.hub.sent() <= SIZE + PIECE, "{}", world.hub.sent());
    Ok(())
}

#[tokio::test]
async fn what_a_client_waits_for_out_of_order_is_asked_for_directly() -> Result<()> {
    let sample = sample();
    let world = World::new(&[&sample]);
    let (slow, node) = (world.node("a").await, world.node("b").await);
    // Its parent has a little, and gets nothing more for now.
    let kept = slow.has(&sample, &[0..20]).await;
    node.tell.send_replace(plan(&["a"], [Some(0); 4]));
    let filling = node.begin(&sample).await;
    let file = Arc::clone(filling.file());
    let client = async {
        let read = node.cache.stream(&file, 390_500..392_500);
        let read: Vec<_> = read.try_collect().await?;
        Ok::<_, Error>(read.concat())
    };
    let mut fetching = Box::pin(node.go_on(&sample, filling));
    let read = async {
        tokio::select! {
            _ = &mut fetching => panic!("its parent does not have it all"),
            read = client => read,
        }
    };
    let read = world.drive(read).await?;
    assert_eq!(read, sample.content[390_500..392_500]);
    let to_clients = world.hub.sent_to_clients.load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!((to_clients, world.hub.sent()), (3000, 3000));
    // The rest comes from the parent, when that has it.
    let rest = async {
        for chunk in 20..400 {
            kept.write(chunk..chunk + 1, sample.bytes(chunk..chunk + 1)).await?;
        }
        Ok::<_, Error>(())
    };
    let (done, written) = world.drive(future::join(fetching, rest)).await;
    done?;
    written?;
    node.check(&sample);
    assert_eq!(came(&node)[FROM_SITE], SIZE - 3000);
    // They may have been on their way from the parent, too.
    assert!(came(&node)[WASTED] <= 3000);
    Ok(())
}

#[tokio::test]
async fn a_client_reads_while_the_file_comes() -> Result<()> {
    let sample = sample();
    let world = World::new(&[&sample]);
    let node = world.node("a").await;
    node.tell.send_replace(plan(&[], HUB));
    let filling = node.begin(&sample).await;
    let mut read = node.cache.stream(filling.file(), 0..SIZE);
    assert!(read.next().now_or_never().is_none());
    let (done, read) =
        world.drive(future::join(node.go_on(&sample, filling), read.try_collect::<Vec<_>>())).await;
    done?;
    assert_eq!(read?.concat(), sample.content);
    // Being next in line is nothing to be asked for directly.
    assert_eq!(world.hub.sent_to_clients.load(std::sync::atomic::Ordering::Relaxed), 0);
    Ok(())
}

#[tokio::test]
async fn a_swarm_that_does_not_take_the_node_says_why() {
    let sample = sample();
    let world = World::new(&[&sample]);
    let node = world.node("a").await;
    let refused = Some("the ticket is over".to_owned());
    let told = async {
        tokio::task::yield_now().await;
        node.tell.send_replace(Told { is_heard: true, refused, ..Told::default() });
    };
    let (failed, ()) = world.drive(future::join(node.fetch(&sample), told)).await;
    assert!(failed.err().is_some_and(|error| error.to_string().contains("the ticket is over")));
}

#[tokio::test]
async fn who_has_the_file_is_asked_when_the_end_does_not_come() -> Result<()> {
    let sample = sample();
    let world = World::new(&[&sample]);
    let (parent, node) = (world.node("a").await, world.node("b").await);
    // All but the last chunk, which it never gets.
    let _kept = parent.has(&sample, &[0..399]).await;
    let told = plan(&["a"], [Some(0); 4]);
    node.tell.send_replace(told);
    world.drive(node.fetch(&sample)).await?;
    node.check(&sample);
    assert_eq!((world.hub.sent(), came(&node)[FROM_SITE]), (1000, SIZE - 1000));
    assert_eq!(known("a", true).who, who("a"));
    Ok(())
}
