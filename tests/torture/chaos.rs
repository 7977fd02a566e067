//! What goes wrong, one thing after another, from a seed.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use ballast_testkit::clock::Dice;
use ballast_testkit::s3::S3Faults;

use crate::SERVERS;
use crate::support::disk;
use crate::support::server::Server;
use crate::world::World;

const HOURS: i64 = 60 * 60;
/// How often a server is started before somebody must look.
const STARTS: usize = 12;

/// Makes trouble until it is over, and then makes everything well again. Nobody restarts a server
/// that runs.
pub(crate) fn run(world: &World, servers: &[Mutex<Server>], dice: Dice) {
    let mut chaos = Chaos { world, servers, dice };
    while !world.is_over() {
        if let Err(error) = chaos.event() {
            world.violated(format!("{error:#}"));
        }
        world.wait(60, Duration::from_secs(3));
    }
    if let Err(error) = chaos.heal() {
        world.violated(format!("{error:#}"));
    }
}

struct Chaos<'w> {
    world: &'w World,
    servers: &'w [Mutex<Server>],
    dice: Dice,
}

impl Chaos<'_> {
    fn server(&self, number: usize) -> MutexGuard<'_, Server> {
        self.servers[number].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn say(&self, what: &str) {
        self.world.count(&format!("event: {}", what.split(':').next().unwrap_or(what)));
        println!("{:>7.1} s  {what}", self.world.elapsed().as_secs_f64());
    }

    fn event(&mut self) -> Result<()> {
        for number in 0..SERVERS {
            let mut server = self.server(number);
            ensure!(server.is_running(), "server {number} ended by itself\n{}", server.log());
        }
        let number = usize::try_from(self.dice.below(SERVERS as u64))?;
        match self.dice.below(24) {
            0..=3 => self.crash(number),
            4 => {
                self.say("all servers are killed");
                for number in 0..SERVERS {
                    self.server(number).kill()?;
                }
                (0..SERVERS).try_for_each(|number| self.start(number))
            }
            5..=7 => {
                self.say(&format!("server stands still: {number}"));
                self.server(number).signal("-STOP")?;
                let seconds = 1 + self.dice.below(4);
                self.world.wait(400, Duration::from_secs(seconds));
                self.server(number).signal("-CONT")
            }
            8..=9 => self.full_disk(number),
            10..=14 => {
                let days = 1 + i64::try_from(self.dice.below(9))?;
                self.say(&format!("days pass: {days}"));
                self.world.pass_days(days)
            }
            15 | 16 => {
                let off = [-24, -3, 0, 3, 24][usize::try_from(self.dice.below(5))?];
                self.say(&format!("clock of a server steps: {number} by {off} h"));
                self.world.skew(number, off * HOURS)
            }
            17 => {
                self.say("store can't be reached");
                self.world.s3.set_reachable(false);
                let seconds = self.dice.below(4);
                self.world.wait(200, Duration::from_secs(seconds));
                self.world.s3.set_reachable(true);
                Ok(())
            }
            _ => {
                self.store_fails();
                Ok(())
            }
        }
    }

    fn crash(&mut self, number: usize) -> Result<()> {
        let forgets = self.dice.happens(300);
        self.say(&format!("server is killed: {number}{}", if forgets { ", no index" } else { "" }));
        let mut server = self.server(number);
        server.kill()?;
        if forgets {
            server.forget()?;
        }
        drop(server);
        self.start(number)
    }

    /// As whatever supervises it would: again, if it ends before it is ready.
    fn start(&self, number: usize) -> Result<()> {
        for start in 0..STARTS {
            let started = self.server(number).restart();
            let Err(error) = started else { return Ok(()) };
            let told = format!("{error:#}");
            let last: Vec<&str> = told.lines().rev().take(3).collect();
            self.say(&format!("server did not start: {number}: {last:?}"));
            self.server(number).kill()?;
            if start == STARTS / 2 {
                self.world.s3.set_faults(S3Faults::default());
            }
            self.world.wait(50, Duration::from_millis(500));
        }
        bail!("server {number} does not start any more\n{}", self.server(number).log())
    }

    /// Of the disk with the index; the objects are elsewhere.
    fn full_disk(&mut self, number: usize) -> Result<()> {
        self.say(&format!("disk is full: {number}"));
        let data = self.server(number).data();
        disk::fill(&data)?;
        let seconds = 1 + self.dice.below(4);
        self.world.wait(300, Duration::from_secs(seconds));
        disk::free(&data)
    }

    /// The store fails in some way, until it fails in another.
    fn store_fails(&mut self) {
        let often = 20 + u32::from(self.dice.permille()) / 5;
        let none = S3Faults::default();
        let (what, faults) = match self.dice.below(6) {
            0 => ("refuses", S3Faults { refused: often, ..none }),
            1 => ("loses answers", S3Faults { answer_lost: often, ..none }),
            2 => {
                let late_by = Duration::from_secs(1 + self.dice.below(20));
                ("is late", S3Faults { late: often, late_by, ..none })
            }
            3 => {
                let (latency, jitter) = (Duration::from_millis(20), Duration::from_millis(200));
                ("is slow", S3Faults { latency, jitter, ..none })
            }
            4 => {
                let (refused, answer_lost, late) = (often / 3, often / 3, often / 3);
                let (late_by, jitter) = (Duration::from_secs(5), Duration::from_millis(100));
                let faults = S3Faults { refused, answer_lost, late, late_by, jitter, ..none };
                ("does all of it", faults)
            }
            _ => ("is well", none),
        };
        self.say(&format!("store {what}: {often} of 1000"));
        self.world.s3.set_faults(faults);
    }

    fn heal(&self) -> Result<()> {
        self.say("all is well again");
        self.world.s3.set_faults(S3Faults::default());
        self.world.s3.set_reachable(true);
        for number in 0..SERVERS {
            self.world.skew(number, 0)?;
            if self.server(number).pid().is_none() {
                self.start(number)?;
            }
        }
        Ok(())
    }
}
