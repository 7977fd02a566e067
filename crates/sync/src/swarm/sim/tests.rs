//! How fast a swarm is, and what it costs the hub. `--nocapture` prints the figures.

use ballast_testkit::sim::seeds;

use super::*;

const MIB: u64 = 1 << 20;
/// 100 Mbit/s.
const RATE: f64 = 12.5e6;

struct Outcome {
    /// When the last host had all, in times of what a link takes for the file, since it came.
    last: f64,
    mean: f64,
    /// What the hub sent, as a share of the file.
    hub: f64,
}

impl World {
    /// Hosts that come within so many seconds.
    fn start(seed: u64, size: u64, count: usize, within: f64) -> Self {
        let mut world = Self::new(seed, size, RATE);
        for _ in 0..count {
            let at = within * world.dice.below(1000) as f64 / 1000.0;
            world.add(at, 0);
        }
        world
    }

    fn ideal(&self) -> f64 {
        self.cut.size() as f64 / RATE
    }

    /// Runs to the end, and says what came out.
    fn finish(mut self, what: &str) -> Outcome {
        let ideal = self.ideal();
        assert!(self.run(20.0 * ideal), "{what}: not all hosts have all");
        let took = |node: &Node| Some((node.done? - node.joined).max(0.0) / ideal);
        let took: Vec<f64> =
            self.nodes.iter().filter(|node| !node.is_gone()).filter_map(took).collect();
        let outcome = Outcome {
            last: took.iter().copied().fold(0.0, f64::max),
            mean: took.iter().sum::<f64>() / took.len() as f64,
            hub: self.hub_sent / self.cut.size() as f64,
        };
        let Outcome { last, mean, hub } = outcome;
        println!("{what}: last {last:.3}, mean {mean:.3} x F/u, hub {hub:.3} x F");
        outcome
    }
}

#[test]
fn hosts_that_come_at_once_take_hardly_longer_than_one() {
    for seed in seeds(2, 0) {
        println!("SEED={seed}");
        let cases = [(1, 128, 1.05), (2, 128, 1.1), (4, 128, 1.1), (8, 128, 1.15), (16, 128, 1.2)];
        for (count, mib, most) in cases.into_iter().chain([(64, 128, 1.3), (64, 1024, 1.2)]) {
            let world = World::start(seed, mib * MIB, count, 0.1);
            let outcome = world.finish(&format!("1 to {count}, {mib} MiB"));
            assert!(outcome.last <= most, "{count} hosts: {}", outcome.last);
            assert!(outcome.hub <= 1.02, "{count} hosts: {}", outcome.hub);
        }
    }
}

#[test]
fn a_thousand_hosts_take_less_than_twice_as_long_as_one() {
    for seed in seeds(1, 0) {
        println!("SEED={seed}");
        let outcome = World::start(seed, 64 * MIB, 1000, 0.5).finish("1 to 1,000, 64 MiB");
        assert!(outcome.last <= 2.0 && outcome.hub <= 1.05);
    }
}

#[test]
fn hosts_that_come_one_after_the_other_are_as_fast() {
    for seed in seeds(3, 0) {
        println!("SEED={seed}");
        for (count, within) in [(8, 1.0), (8, 10.0), (16, 5.0), (32, 20.0)] {
            let what = format!("1 to {count} within {within} s");
            let outcome = World::start(seed, 128 * MIB, count, within).finish(&what);
            assert!(outcome.last <= 1.25, "{what}: {}", outcome.last);
            assert!(outcome.hub <= 1.02, "{what}: {}", outcome.hub);
        }
    }
}

#[test]
fn links_that_are_shared_unfairly_do_not_cost_much() {
    for seed in seeds(2, 0) {
        println!("SEED={seed}");
        let cases =
            [(4, 0.1, 1.1), (8, 0.1, 1.1), (16, 0.1, 1.15), (16, 0.7, 1.15), (64, 0.1, 1.3)];
        for (count, within, most) in cases {
            let mut world = World::start(seed, 128 * MIB, count, within);
            world.unfair = 4.0;
            let outcome = world.finish(&format!("1 to {count} within {within} s, one to four"));
            assert!(outcome.last <= most, "{count} hosts: {}", outcome.last);
            assert!(outcome.hub <= 1.02, "{count} hosts: {}", outcome.hub);
        }
    }
}

#[test]
fn who_comes_when_the_others_are_nearly_done_is_as_fast_and_costs_the_hub_little() {
    for seed in seeds(2, 0) {
        println!("SEED={seed}");
        for count in [2, 8, 16] {
            let mut world = World::start(seed, 128 * MIB, count, 0.1);
            world.add(0.8 * world.ideal(), 0);
            let outcome = world.finish(&format!("a late one after {count}"));
            assert!(outcome.last <= 1.15, "{count}: {}", outcome.last);
            assert!(outcome.hub <= 1.05, "{count}: {}", outcome.hub);
        }
    }
}

#[test]
fn a_host_that_dies_or_stops_does_not_keep_the_others() {
    for seed in seeds(2, 0) {
        println!("SEED={seed}");
        for who in 0..3 {
            let mut world = World::start(seed, 128 * MIB, 8, 0.1);
            world.events.push((0.5 * world.ideal(), Event::Kill(who)));
            let outcome = world.finish("one of 8 dies");
            assert!(outcome.last <= 1.3 && outcome.hub <= 1.15, "{who}: {}", outcome.last);

            let mut world = World::start(seed, 128 * MIB, 8, 0.1);
            world.events.push((0.5 * world.ideal(), Event::Pause(who)));
            let outcome = world.finish("one of 8 stops");
            assert!(outcome.last <= 1.6 && outcome.hub <= 1.15, "{who}: {}", outcome.last);

            let mut world = World::start(seed, 128 * MIB, 8, 0.1);
            world.events.push((0.3 * world.ideal(), Event::Pause(who)));
            world.events.push((0.9 * world.ideal(), Event::Resume(who)));
            let outcome = world.finish("one of 8 stops for a while");
            assert!(outcome.last <= 1.9 && outcome.hub <= 1.15, "{who}: {}", outcome.last);
        }
    }
}

#[test]
fn many_that_die_do_not_keep_the_others() {
    for seed in seeds(2, 0) {
        println!("SEED={seed}");
        let mut world = World::start(seed, 128 * MIB, 32, 2.0);
        for who in (0..32).filter(|who| who % 3 == 0) {
            let at = (2 + world.dice.below(8)) as f64;
            world.events.push((at, Event::Kill(who)));
        }
        let outcome = world.finish("11 of 32 die");
        assert!(outcome.last <= 1.8 && outcome.hub <= 1.3, "{} {}", outcome.last, outcome.hub);
    }
}

#[test]
fn a_slow_host_keeps_nobody_else() {
    for seed in seeds(2, 0) {
        println!("SEED={seed}");
        let mut world = World::start(seed, 256 * MIB, 16, 0.1);
        world.links.scale(5, 0.1, 0.1);
        assert!(!world.run(2.0 * world.ideal()), "the slow one takes ten times as long");
        let others = world.nodes.iter().enumerate().filter(|(index, _)| *index != 5);
        let last = others.map(|(_, node)| node.done.map_or(f64::INFINITY, |at| at - node.joined));
        let last = last.fold(0.0, f64::max) / world.ideal();
        println!("a slow one of 16: the others {last:.3} x F/u");
        assert!(last <= 1.5, "{last}");
    }
}

#[test]
fn when_the_hub_dies_the_hosts_finish_with_what_they_have_together() {
    for seed in seeds(2, 0) {
        println!("SEED={seed}");
        // Together they have all: one came with what the hub had not sent by then, and more.
        let mut world = World::start(seed, 128 * MIB, 8, 0.1);
        let brings = world.cut.pieces() * 2 / 5..world.cut.pieces();
        let rich = world.add(0.0, 0);
        world.nodes[rich].bring(brings);
        world.events.push((0.5 * world.ideal(), Event::KillHub));
        let outcome = world.finish("the hub dies at half");
        assert!(outcome.last <= 1.5 && outcome.hub <= 1.0, "{}", outcome.last);

        // Nobody has what it did not send: all get as far as that.
        let mut world = World::start(seed, 128 * MIB, 8, 0.1);
        world.events.push((0.5 * world.ideal(), Event::KillHub));
        assert!(!world.run(4.0 * world.ideal()));
        let lacks: Vec<_> = world.nodes.iter().map(|node| node.lacks).collect();
        let somewhere = |piece: &usize| world.nodes.iter().any(|node| node.has[*piece] < 1e9);
        let nowhere = (0..world.cut.pieces() as usize).filter(|piece| !somewhere(piece)).count();
        assert!(lacks.iter().all(|lacks| *lacks == nowhere as u64), "{lacks:?}, {nowhere}");
    }
}

#[test]
fn between_sites_goes_hardly_more_than_the_file() {
    for seed in seeds(2, 0) {
        println!("SEED={seed}");
        let mut world = World::new(seed, 128 * MIB, RATE);
        (world.latency, world.links.wan) = (0.02, Some(RATE));
        for host in 0..16 {
            let at = world.dice.below(100) as f64 / 1000.0;
            world.add(at, host % 2);
        }
        let ideal = world.ideal();
        assert!(world.run(4.0 * ideal));
        let last = world.nodes.iter().filter_map(|node| node.done).fold(0.0, f64::max) / ideal;
        let size = world.cut.size() as f64;
        let (crossed, hub) = (world.crossed / size, world.hub_sent / size);
        println!(
            "two sites of 8: last {last:.3} x F/u, hub {hub:.3} x F, between {crossed:.3} x F"
        );
        assert!(last <= 1.3 && hub <= 1.02 && crossed <= 1.02, "{last} {hub} {crossed}");
    }
}

#[test]
fn those_who_have_the_version_before_get_only_what_is_new() {
    let mut world = World::start(0, 128 * MIB, 8, 0.1);
    for node in &mut world.nodes {
        // Every twentieth is new, here and there.
        node.bring((0..world.cut.pieces()).filter(|piece| piece * 7919 % 101 % 20 != 0));
    }
    let share = world.nodes[0].lacks as f64 / world.cut.pieces() as f64;
    let outcome = world.finish("8 that have all but 6 %");
    assert!(
        outcome.last <= 0.15 && outcome.hub <= share + 0.01,
        "{} {}",
        outcome.last,
        outcome.hub
    );
}
