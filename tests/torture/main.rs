//! Torture of the built binary: three servers on one bucket, writers, readers and collectors at
//! once, while servers are killed, stopped and run out of disk, the store fails in every way that
//! it can, clocks step and months go by.
//!
//! At the end everything that was acknowledged is there, whole and byte for byte, for a server that
//! begins with nothing; what was not acknowledged is there entirely or not at all; `verify` finds
//! nothing; and when all repos are deleted and time has passed, nothing is left in the bucket.
//!
//! `SEED` repeats the decisions, `TORTURE_SECONDS` says how long (120 if nothing is said; an hour
//! by hand), `TORTURE_GOES_ON` lets a run go on after a violation, to see others. A file's path
//! says what must be in it, so whoever finds a file can check it.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a long test says how it goes")]

#[path = "../support/mod.rs"]
mod support;

mod chaos;
mod check;
mod client;
mod plan;
mod reader;
mod world;
mod writer;

use std::fs;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context as _, Result};
use ballast_testkit::clock::Dice;
use support::objects::Objects;
use support::server::Server;
use world::World;

const SERVERS: usize = 3;
const WRITERS: usize = 8;
const READERS: usize = 8;
const COLLECTORS: usize = 2;

/// A number from the environment.
fn setting(name: &str, default: u64) -> Result<u64> {
    let text = std::env::var(name).ok().filter(|text| !text.is_empty());
    text.map_or(Ok(default), |text| text.parse().with_context(|| format!("`{name}` is `{text}`")))
}

/// A server that is not started yet, with a small disk and a clock of its own.
pub(crate) fn server(objects: &Objects, world: &World, number: usize) -> Result<Server> {
    let mut server = Server::unstarted(objects)?;
    server.mount("size=256m")?;
    server.follow_clock(&world.clock_file(number));
    server.set("BALLAST_GC_WAIT", "1s");
    // Whatever happens to a server here is worth a warning. Nothing is worth an error.
    server.expect_in_log(" WARN ");
    // Who holds a link to a part of a file whose last repo went away, when months went by since.
    server.expect_in_log("` is not there");
    // The index's engine, when its disk is full.
    server.expect_in_log(" ERROR sled::");
    Ok(server)
}

#[test]
fn whatever_happens_nothing_acknowledged_is_lost_and_nothing_else_is_kept() -> Result<()> {
    let seed = setting("SEED", 20_261_125)?;
    let seconds = setting("TORTURE_SECONDS", 120)?;
    println!("SEED={seed} TORTURE_SECONDS={seconds}");
    let clocks = tempfile::tempdir()?;
    let objects = Objects::s3()?;
    let s3 = objects.s3.clone().context("it is ours")?;
    s3.ignore_clocks();
    let mut world = World::new(seed, Duration::from_secs(seconds), s3, clocks.path())?;
    let (mut servers, mut endpoints) = (Vec::new(), Vec::new());
    for number in 0..SERVERS {
        let mut server = server(&objects, &world, number)?;
        server.begin()?;
        if number == 0 {
            world.token.clone_from(&server.token);
        }
        server.token.clone_from(&world.token);
        endpoints.push(server.endpoint.clone());
        servers.push(Mutex::new(server));
    }
    world.set_endpoints(endpoints);
    let dice = |salt: u64| Dice::new(seed ^ (salt << 32));
    let (world, all) = (&world, &servers);
    std::thread::scope(|scope| {
        scope.spawn(move || chaos::run(world, all, dice(1)));
        for number in 0..WRITERS {
            scope.spawn(move || writer::run(world, number, dice(100 + number as u64)));
        }
        for number in 0..READERS {
            scope.spawn(move || reader::run(world, dice(200 + number as u64)));
        }
        for number in 0..COLLECTORS {
            scope.spawn(move || reader::collect(world, dice(300 + number as u64)));
        }
    });
    world.report();
    if std::env::var_os("TORTURE_GOES_ON").is_none() {
        world.no_violations()?;
    }
    check::servers_recovered(world)?;
    for server in &servers {
        let mut server = server.lock().expect("nobody panicked");
        server.check_no_panic()?;
        server.kill()?;
    }
    check::everything(world, &objects)?;
    world.no_violations()?;
    fs::remove_dir_all(clocks.path())?;
    Ok(())
}
