//! Who reads and compares, and who collects garbage.

use std::time::Duration;

use ballast_testkit::clock::Dice;
use serde_json::Value;

use crate::client::{Client, Done, Trouble};
use crate::plan::{half_commits, said};
use crate::support::server::ballast;
use crate::world::World;

/// Reads until it is over.
pub(crate) fn run(world: &World, dice: Dice) {
    let mut client = Client::new(world, dice);
    while !world.is_over() {
        client.turn();
        let Some(repo) = world.pick(&mut client.dice) else {
            client.breathe();
            continue;
        };
        let done = match client.dice.happens(500) {
            true => acknowledged(&mut client, &repo),
            false => newest(&mut client, &repo),
        };
        match done {
            Ok(()) => {}
            Err(Trouble::Unknown | Trouble::Busy) => client.breathe(),
            // Links and tokens run out when time passes.
            Err(Trouble::Refused { status: 401 | 403, .. }) => {}
            Err(Trouble::Refused { status, why }) => {
                if world.is_living(&repo) {
                    world.violated(format!("reading {repo}: {status} {why}"));
                }
            }
        }
    }
}

/// What was acknowledged is there at once, on every server.
fn acknowledged(client: &mut Client<'_>, repo: &str) -> Done<()> {
    let Some(acked) = client.world.any_acked(repo, &mut client.dice) else {
        return Ok(());
    };
    for planned in &acked.files {
        compare(client, repo, &acked.oid, &planned.path)?;
    }
    Ok(())
}

/// What the branch shows is made of whole commits.
fn newest(client: &mut Client<'_>, repo: &str) -> Done<()> {
    let tip = client.tip(repo)?;
    let paths = client.paths(repo, &tip)?;
    let half = half_commits(paths.iter().map(String::as_str));
    if !half.is_empty() {
        client.world.violated(format!("{repo} at {tip} shows half commits: {half:?}"));
    }
    for _ in 0..2.min(paths.len()) {
        let place = usize::try_from(client.dice.below(paths.len() as u64)).expect("few");
        compare(client, repo, &tip, &paths[place])?;
    }
    Ok(())
}

/// Reads a file in one of the ways that there are, and holds it against what its path says.
pub(crate) fn compare(client: &mut Client<'_>, repo: &str, revision: &str, path: &str) -> Done<()> {
    let Some(said) = said(path) else { return Ok(()) };
    let expected = said.content.bytes();
    let (found, expected) = match client.dice.below(4) {
        0 => match client.read_xet(repo, revision, path)? {
            Some(found) => (found, &expected[..]),
            None => (client.read(repo, revision, path)?, &expected[..]),
        },
        1 => {
            let start = client.dice.below(expected.len() as u64);
            let length = 1 + client.dice.below(expected.len() as u64 - start);
            let bounds = |at: u64| usize::try_from(at).expect("small");
            let (start, end) = (bounds(start), bounds(start + length));
            let found = client.read_range(repo, revision, path, (start, end))?;
            (found, &expected[start..end])
        }
        _ => (client.read(repo, revision, path)?, &expected[..]),
    };
    client.world.count("files compared");
    if found != expected {
        let (has, wants) = (found.len(), expected.len());
        let what = format!("{repo} at {revision}: `{path}` has other bytes ({has} for {wants})");
        client.world.violated(what);
    }
    Ok(())
}

/// One step of a collection, by the route or by the command; its summary.
pub(crate) fn collect_once(client: &mut Client<'_>) -> Done<Value> {
    if client.dice.happens(900) {
        let answer = client.hub("gc", "POST", "/api/ballast/v1/gc", b"{}")?;
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        let mut lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let last = lines.next_back().unwrap_or_default();
        return if last["type"] == "summary" { Ok(last) } else { Err(Trouble::Busy) };
    }
    let server = usize::try_from(client.dice.below(3)).expect("few");
    let mut command = ballast(&["gc", "--json"]);
    command.env("HF_ENDPOINT", client.world.endpoint(server));
    command.env("HF_TOKEN", &client.world.token);
    let output = command.output().map_err(|_| Trouble::Unknown)?;
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    match output.status.success() {
        true => Ok(answer["summary"].clone()),
        false => Err(Trouble::Busy),
    }
}

/// Collects again and again.
pub(crate) fn collect(world: &World, dice: Dice) {
    let mut client = Client::new(world, dice);
    while !world.is_over() {
        client.turn();
        match collect_once(&mut client) {
            Ok(summary) => {
                let state = summary["state"].as_str().unwrap_or("?");
                world.count(&format!("gc state: {state}"));
                world.count_more("gc: copies swept", summary["swept"].as_u64().unwrap_or(0));
                world.count_more("gc: copies kept", summary["kept"].as_u64().unwrap_or(0));
            }
            Err(trouble) => world.count(&format!("gc state: {trouble:?}")),
        }
        world.wait(30, Duration::from_secs(1));
    }
}
