//! Many seeds; that one seed is one run; and that a step that is left out is noticed.

use std::panic::catch_unwind;

use ballast_testkit::sim::seeds;

use super::run;
use crate::broken::{Step, without};

/// How long a run lasts in the world.
const DAYS: u64 = 60;
/// Seeds in which a step that is left out must be noticed.
const MOST_SEEDS: u64 = 60;
/// Steps for which few seeds are enough; `STEP=Fence` in the environment tries another one.
const QUICK: [Step; 1] = [Step::Pins];

#[test]
fn whatever_happens_nothing_that_was_acknowledged_is_lost_and_all_else_goes_away() {
    let (mut wishes, mut reads) = (0, 0);
    for seed in seeds(20, 0) {
        // Shown if it fails; `SEED=… STORY=1` shows what happened before.
        println!("SEED={seed}");
        let outcome = run(seed, DAYS);
        wishes += outcome.wishes;
        reads += outcome.reads;
    }
    assert!(wishes > 0 && reads > 0);
    println!("{wishes} commits, {reads} files read");
}

#[test]
fn a_seed_is_the_same_run_each_time() {
    for seed in 0..2 {
        assert_eq!(run(seed, 20), run(seed, 20), "seed {seed}");
    }
    assert_ne!(run(0, 10).digest, run(1, 10).digest);
}

/// The simulation can fail: without such a step it does.
#[test]
fn a_step_that_is_left_out_is_noticed() {
    let all = [
        Step::Fence,
        Step::SecondMark,
        Step::Pins,
        Step::Behind,
        Step::Check,
        Step::EpochFirst,
        Step::EveryList,
        Step::OfferNone,
        Step::PinThenLook,
    ];
    let only = std::env::var("STEP").ok();
    let mut unnoticed = Vec::new();
    for step in all {
        let is_asked = match &only {
            Some(only) => *only == format!("{step:?}"),
            None => QUICK.contains(&step),
        };
        if !is_asked {
            continue;
        }
        let is_noticed = |seed: &u64| catch_unwind(|| without(step, || run(*seed, DAYS))).is_err();
        match (0..MOST_SEEDS).find(is_noticed) {
            Some(seed) => println!("{step:?}: noticed with seed {seed}"),
            None => unnoticed.push(step),
        }
    }
    assert!(unnoticed.is_empty(), "{unnoticed:?}");
}
