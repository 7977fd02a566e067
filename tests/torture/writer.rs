//! Who writes: makes and deletes repos, commits, and builds on what was promised.

use ballast_testkit::clock::Dice;
use ballast_testkit::xet::{Packed, pack};
use serde_json::{Value, json};

use crate::client::{Client, Done, Trouble};
use crate::plan::{Content, Kind, Planned, latest_path};
use crate::world::{Acked, Fate, World};

/// How often a piece of work is tried.
const TRIES: usize = 8;
/// Repos that there are at least, and what is above this many may be deleted.
const FEW: usize = 4;
const ENOUGH: usize = 7;
/// Clients may build on what they sent for three weeks; clocks differ by a day on either side.
const PROMISED_DAYS: i64 = 17;
const MOST_HELD: usize = 12;

/// Something that was sent and not committed.
struct Held {
    packed: Packed,
    content: Content,
    since: i64,
    /// Whether its shard was sent too.
    is_registered: bool,
}

struct Writer<'w> {
    world: &'w World,
    client: Client<'w>,
    number: usize,
    serial: u64,
    held: Vec<Held>,
}

/// Writes until it is over.
pub(crate) fn run(world: &World, number: usize, dice: Dice) {
    let client = Client::new(world, dice);
    let mut writer = Writer { world, client, number, serial: 0, held: Vec::new() };
    while !world.is_over() {
        writer.step();
    }
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let at = |place: usize| u32::from(group.get(place).copied().unwrap_or(0));
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        for place in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * place) & 63) as usize];
            text.push(if place > group.len() { '=' } else { char::from(digit) });
        }
    }
    text
}

/// The line of a commit that adds a file.
fn operation(planned: &Planned, bytes: &[u8], packed: Option<&Packed>) -> Value {
    match packed {
        None => json!({"key": "file", "value": {
            "path": planned.path, "content": base64(bytes), "encoding": "base64",
        }}),
        Some(packed) => json!({"key": "lfsFile", "value": {
            "path": planned.path, "algo": "sha256", "oid": packed.sha256.to_string(),
            "size": bytes.len(),
        }}),
    }
}

impl Writer<'_> {
    fn step(&mut self) {
        self.client.turn();
        let living = self.world.living();
        let roll = self.client.dice.below(100);
        if living < FEW || roll < 3 {
            self.create();
            return;
        }
        let Some(repo) = self.world.pick(&mut self.client.dice) else {
            self.client.breathe();
            return;
        };
        match roll {
            3..6 if living > ENOUGH => self.delete(&repo),
            6..16 => self.hold(&repo),
            16..32 if !self.held.is_empty() => self.keep_promise(&repo),
            _ => self.commit_some(&repo),
        }
    }

    fn create(&mut self) {
        let name = self.world.new_name();
        let short = name.strip_prefix("admin/").unwrap_or(&name);
        let body = json!({"type": "model", "name": short}).to_string();
        for _ in 0..TRIES {
            match self.client.hub("create", "POST", "/api/repos/create", body.as_bytes()) {
                // Nobody else uses the name: it was this one, when no answer came.
                Ok(_) | Err(Trouble::Refused { status: 409, .. }) => {
                    return self.world.made(&name);
                }
                Err(Trouble::Refused { status, why }) => {
                    return self.world.violated(format!("create {name}: {status} {why}"));
                }
                Err(_) => self.client.breathe(),
            }
        }
    }

    fn delete(&mut self, repo: &str) {
        self.world.set_fate(repo, Fate::Doomed);
        let short = repo.strip_prefix("admin/").unwrap_or(repo);
        let body = json!({"type": "model", "name": short}).to_string();
        for _ in 0..TRIES {
            match self.client.hub("delete", "DELETE", "/api/repos/delete", body.as_bytes()) {
                Ok(_) | Err(Trouble::Refused { status: 404, .. }) => {
                    return self.world.set_fate(repo, Fate::Gone);
                }
                Err(Trouble::Refused { status, why }) => {
                    return self.world.violated(format!("delete {repo}: {status} {why}"));
                }
                Err(_) => self.client.breathe(),
            }
        }
    }

    /// A new content, mostly one that others have too.
    fn large(&mut self) -> Content {
        let dice = &mut self.client.dice;
        if dice.happens(600) {
            return Content::pool(dice.draw() >> 8);
        }
        let most = if dice.happens(20) { 12_000_000 } else { 600_000 };
        let length = usize::try_from(20_000 + dice.below(most)).expect("small");
        Content::Own { seed: dice.draw(), length }
    }

    fn plan(&mut self) -> Vec<Planned> {
        self.serial += 1;
        let files = 1 + usize::try_from(self.client.dice.below(3)).expect("small");
        let mut plan = Vec::new();
        for place in 1..=files {
            let kind = match self.client.dice.below(4) {
                0 => Kind::Lfs,
                1 => Kind::Xet,
                _ => Kind::Inline,
            };
            let dice = &mut self.client.dice;
            let content = if kind == Kind::Inline {
                let length = usize::try_from(1 + dice.below(4000)).expect("small");
                Content::Own { seed: dice.draw(), length }
            } else {
                self.large()
            };
            plan.push(Planned::new((self.number, self.serial), (place, files), kind, content));
        }
        plan
    }

    fn commit_some(&mut self, repo: &str) {
        let plan = self.plan();
        let contents: Vec<Vec<u8>> = plan.iter().map(|planned| planned.content.bytes()).collect();
        let is_large = |planned: &Planned| planned.kind != Kind::Inline;
        let packed: Vec<Option<Packed>> = plan
            .iter()
            .zip(&contents)
            .map(|(planned, bytes)| is_large(planned).then(|| pack(bytes)))
            .collect();
        let with_parent = self.client.dice.happens(400);
        for _ in 0..TRIES {
            let tried = self.try_commit(repo, &plan, &contents, &packed, with_parent);
            if self.is_settled(repo, &plan, tried, false) {
                return;
            }
        }
        self.world.count("commits given up");
    }

    /// One try, from the beginning: what was sent may be gone, and need not be sent again if not.
    fn try_commit(
        &mut self,
        repo: &str,
        plan: &[Planned],
        contents: &[Vec<u8>],
        packed: &[Option<Packed>],
        with_parent: bool,
    ) -> Done<String> {
        let mut operations = Vec::new();
        for ((planned, bytes), packed) in plan.iter().zip(contents).zip(packed) {
            match (planned.kind, packed) {
                (Kind::Lfs, Some(packed)) => {
                    self.client.send_lfs(repo, &packed.sha256.to_string(), bytes)?;
                }
                (_, Some(packed)) => {
                    self.client.send_xorb(repo, packed)?;
                    self.client.send_shard(repo, packed)?;
                }
                (_, None) => {}
            }
            operations.push(operation(planned, bytes, packed.as_ref()));
        }
        self.finish_commit(repo, operations, with_parent)
    }

    fn finish_commit(
        &mut self,
        repo: &str,
        mut operations: Vec<Value>,
        with_parent: bool,
    ) -> Done<String> {
        operations.push(json!({"key": "file", "value": {
            "path": latest_path(self.number), "content": self.serial.to_string(),
        }}));
        let parent = if with_parent { Some(self.client.tip(repo)?) } else { None };
        self.client.commit(repo, parent.as_deref(), &operations)
    }

    /// Takes in how a try ended; whether that is the end of it.
    fn is_settled(
        &mut self,
        repo: &str,
        plan: &[Planned],
        tried: Done<String>,
        is_promised: bool,
    ) -> bool {
        let trouble = match tried {
            Ok(oid) => {
                let acked = Acked { oid, files: plan.to_vec() };
                self.world.acked(repo, self.number, self.serial, acked);
                return true;
            }
            Err(trouble) => trouble,
        };
        match trouble {
            Trouble::Unknown | Trouble::Busy => self.client.breathe(),
            // The branch moved, or a link or token ran out when time passed.
            Trouble::Refused { status: 401 | 403 | 409 | 412, .. } => {}
            // It was there when we asked, and its last repo went away.
            Trouble::Refused { status: 400, ref why }
                if !is_promised && (why.contains("upload") || why.contains("no longer")) =>
            {
                self.world.count("commits: send it again");
            }
            Trouble::Refused { status, why } => {
                if self.world.is_living(repo) {
                    let promised = if is_promised { ", which was promised" } else { "" };
                    let what = format!("a commit to {repo}{promised}: {status} {why}");
                    self.world.violated(what);
                }
                return true;
            }
        }
        !self.world.is_living(repo) || self.world.is_over()
    }

    /// Sends something, and does not commit it.
    fn hold(&mut self, repo: &str) {
        let content = self.large();
        let bytes = content.bytes();
        let packed = pack(&bytes);
        // Days may pass while it is sent.
        let since = self.world.settled_days();
        let way = self.client.dice.below(3);
        let sent = match way {
            0 => self.client.send_xorb(repo, &packed).map(|()| true),
            1 => {
                let sent = self.client.send_xorb(repo, &packed);
                sent.and_then(|()| self.client.send_shard(repo, &packed)).map(|()| true)
            }
            _ => self.client.send_lfs(repo, &packed.sha256.to_string(), &bytes),
        };
        // Only what was really sent is promised.
        if sent == Ok(true) {
            self.world.count("held");
            self.held.push(Held { packed, content, since, is_registered: way > 0 });
            if self.held.len() > MOST_HELD {
                self.held.remove(0);
            }
        }
    }

    /// Commits what was sent in the last weeks: nobody may say that it has to come again.
    fn keep_promise(&mut self, repo: &str) {
        let place = usize::try_from(self.client.dice.below(self.held.len() as u64)).expect("few");
        let Held { packed, content, since, is_registered } = self.held.swap_remove(place);
        self.serial += 1;
        let plan = vec![Planned::new((self.number, self.serial), (1, 1), Kind::Xet, content)];
        let bytes = content.bytes();
        for _ in 0..TRIES {
            let registered = match is_registered {
                true => Ok(()),
                false => self.client.send_shard(repo, &packed),
            };
            let tried = registered.and_then(|()| {
                self.finish_commit(repo, vec![operation(&plan[0], &bytes, Some(&packed))], false)
            });
            let is_promised = self.world.days() - since <= PROMISED_DAYS;
            if tried.is_ok() && is_promised {
                self.world.count("promises kept");
            }
            let is_late = !is_promised && tried.as_ref().is_err_and(|why| why.status() == 400);
            if is_late || self.is_settled(repo, &plan, tried, is_promised) {
                return;
            }
        }
    }
}

#[test]
fn bytes_are_written_as_base64() {
    for (bytes, text) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v")] {
        assert_eq!(base64(bytes.as_bytes()), text);
    }
}
