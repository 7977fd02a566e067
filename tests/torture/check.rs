//! What must be so when it is over.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use ballast_testkit::clock::Dice;
use serde_json::{Value, json};

use crate::client::{Client, Done, Trouble};
use crate::plan::{half_commits, latest_path};
use crate::reader::{collect_once, compare};
use crate::support::objects::Objects;
use crate::support::server::Server;
use crate::world::{Fate, Repo, World};
use crate::{SERVERS, server};

/// Longer than anything is kept that nothing refers to.
const MONTHS: i64 = 60;
/// How often something is tried that needs no luck any more.
const TRIES: usize = 200;
const READERS: usize = 4;

fn again<T>(
    client: &mut Client<'_>,
    mut work: impl FnMut(&mut Client<'_>) -> Done<T>,
) -> Result<T> {
    for _ in 0..TRIES {
        match work(client) {
            Ok(done) => return Ok(done),
            Err(Trouble::Refused { status, why }) => bail!("{status} {why}"),
            Err(_) => client.breathe(),
        }
    }
    bail!("the servers do not recover")
}

/// All servers take writes again, without a restart (R9).
pub(crate) fn servers_recovered(world: &World) -> Result<()> {
    let mut client = Client::new(world, Dice::new(world.seed));
    let name = world.new_name();
    let short = name.strip_prefix("admin/").context("it is the administrator's")?;
    for server in 0..SERVERS {
        let body = json!({"type": "model", "name": format!("{short}-{server}")}).to_string();
        let ask = crate::client::Ask {
            what: "create at the end",
            method: "POST",
            path: "/api/repos/create",
            token: &world.token,
            headers: &[("content-type", "application/json")],
            body: body.as_bytes(),
        };
        let made = again(&mut client, |client| match client.send_to(server, &ask) {
            Err(Trouble::Refused { status: 409, .. }) => Ok(()),
            made => made.map(|_| ()),
        });
        made.with_context(|| format!("server {server}, after all was well again"))?;
    }
    Ok(())
}

/// A server that begins with nothing finds everything; time passes, and what is not needed goes;
/// all repos go, and nothing is left.
pub(crate) fn everything(world: &World, objects: &Objects) -> Result<()> {
    while world.s3.landing() > 0 {
        world.wait(1, Duration::from_millis(100));
    }
    let mut fresh = server(objects, world, SERVERS)?;
    fresh.begin()?;
    fresh.token.clone_from(&world.token);
    world.set_endpoints(vec![fresh.endpoint.clone(); SERVERS]);
    println!("a new server compares everything");
    compare_all(world)?;
    is_sound(&fresh)?;

    println!("months pass, and what is not needed goes");
    let mut client = Client::new(world, Dice::new(world.seed));
    pass_days(&mut client, MONTHS)?;
    for _ in 0..2 {
        sweep_all(&mut client)?;
    }
    let plan = fresh.admin(&["gc", "--dry-run"])?["summary"].clone();
    ensure!(plan["copies"] == json!(0) && plan["later"] == json!(0), "{plan}");
    compare_all(world)?;
    is_sound(&fresh)?;
    let swept = world.counted("gc: copies swept") + world.counted("gc: copies swept at the end");
    ensure!(swept > 0, "nothing was ever collected: no test of it");
    ensure!(world.counted("commits acknowledged") > 20, "hardly anything was committed");
    ensure!(world.counted("held") > 0, "nothing was sent ahead of its commit");

    println!("all repos go, and nothing is left");
    let listed = again(&mut client, |client| client.json("models", "/api/models?limit=1000"))?;
    for repo in listed.as_array().context("a list of repos")? {
        let body = json!({"type": "model", "name": repo["id"]}).to_string();
        let delete = |client: &mut Client<'_>| {
            client.hub("delete", "DELETE", "/api/repos/delete", body.as_bytes())
        };
        again(&mut client, delete)?;
    }
    for _ in 0..2 {
        pass_days(&mut client, MONTHS)?;
        sweep_all(&mut client)?;
    }
    let left = fresh.objects()?;
    let may_go = |name: &&String| {
        ["/xorb/", "/shard/", "/pack/", "/pin/"].iter().any(|kind| name.contains(kind))
    };
    let left: Vec<&String> = left.keys().filter(may_go).collect();
    ensure!(left.is_empty(), "nothing needs these, and they stay: {left:#?}");
    is_sound(&fresh)
}

/// Days go by, and the server has seen it: it looks at its clock file once a second.
fn pass_days(client: &mut Client<'_>, days: i64) -> Result<()> {
    let date = |client: &mut Client<'_>| {
        let answer = again(client, |client| client.hub("health", "GET", "/health", b""))?;
        let date = answer.header("date").context("every answer says when it was made")?;
        Ok::<String, anyhow::Error>(date.chars().take("Wed, 25 Nov 2026".len()).collect())
    };
    let before = date(client)?;
    client.world.pass_days(days)?;
    for _ in 0..TRIES {
        if date(client)? != before {
            return Ok(());
        }
        client.world.wait(u64::from(u32::MAX), Duration::from_millis(50));
    }
    bail!("the server's clock does not move on")
}

/// Steps of a collection until nothing is left to do.
fn sweep_all(client: &mut Client<'_>) -> Result<()> {
    for _ in 0..20 {
        pass_days(client, 1)?;
        let summary = again(client, collect_once)?;
        if summary["state"] == json!("nothing") {
            return Ok(());
        }
        let swept = summary["swept"].as_u64().unwrap_or(0);
        client.world.count_more("gc: copies swept at the end", swept);
    }
    bail!("the collection does not end")
}

fn is_sound(server: &Server) -> Result<()> {
    let verified: Value = server.admin(&["verify"])?;
    ensure!(verified["summary"]["damaged"] == json!(0), "{verified:#}");
    Ok(())
}

/// Each acknowledged commit, and each file of each branch.
fn compare_all(world: &World) -> Result<()> {
    let repos = world.repos();
    let next = AtomicUsize::new(0);
    let work = || {
        let mut client = Client::new(world, Dice::new(world.seed));
        while let Some(repo) = repos.get(next.fetch_add(1, Ordering::Relaxed)) {
            if let Err(error) = compare_repo(&mut client, repo) {
                world.violated(format!("{}: {error:#}", repo.name));
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..READERS {
            scope.spawn(work);
        }
    });
    world.no_violations()
}

fn compare_repo(client: &mut Client<'_>, repo: &Repo) -> Result<()> {
    let name = repo.name.as_str();
    if repo.fate != Fate::Living {
        let found = client.tip(name);
        let is_gone = found.as_ref().is_err_and(|trouble| trouble.status() == 404);
        ensure!(is_gone || repo.fate == Fate::Doomed, "it was deleted, and is there: {found:?}");
        return Ok(());
    }
    let tip = again(client, |client| client.tip(name))?;
    let paths: BTreeSet<String> =
        again(client, |client| client.paths(name, &tip))?.into_iter().collect();
    let half = half_commits(paths.iter().map(String::as_str));
    ensure!(half.is_empty(), "half commits: {half:?}");
    for path in &paths {
        again(client, |client| compare(client, name, &tip, path)).with_context(|| path.clone())?;
    }
    let chain = history(client, name)?;
    for acked in &repo.acked {
        ensure!(chain.contains(&acked.oid), "the acknowledged commit {} is lost", acked.oid);
        for planned in &acked.files {
            let path = &planned.path;
            ensure!(paths.contains(path), "`{path}` was acknowledged, and the branch lacks it");
            again(client, |client| compare(client, name, &acked.oid, path))
                .with_context(|| format!("the acknowledged `{path}` at {}", acked.oid))?;
        }
    }
    for (writer, serial) in &repo.latest {
        let path = latest_path(*writer);
        let text = again(client, |client| client.read(name, &tip, &path))?;
        let found: u64 = String::from_utf8(text)?.parse()?;
        ensure!(found >= *serial, "`{path}` is {found}, and {serial} was acknowledged");
    }
    Ok(())
}

/// The commits of the branch: a chain, as each writer sees what was there before.
fn history(client: &mut Client<'_>, repo: &str) -> Result<BTreeSet<String>> {
    let (mut chain, mut expected) = (BTreeSet::new(), None::<String>);
    for page in 0.. {
        let path = format!("/api/models/{repo}/commits/main?limit=1000&p={page}");
        let commits = again(client, |client| client.json("commits", &path))?;
        let commits = commits.as_array().context("a list of commits")?;
        for commit in commits {
            let id = commit["id"].as_str().context("a commit has an id")?.to_owned();
            let follows = expected.as_ref().is_none_or(|expected| *expected == id);
            ensure!(follows, "{id} is not the parent of the commit after it");
            expected = Some(commit["parents"][0].as_str().unwrap_or_default().to_owned());
            ensure!(chain.insert(id), "a commit is there twice");
        }
        if commits.is_empty() {
            break;
        }
    }
    Ok(chain)
}
