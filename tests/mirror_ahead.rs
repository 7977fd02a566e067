//! Files that clients take by Xet only come from a mirror while they arrive there.

mod support;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use ballast_testkit::hub::PublicHub;
use serde_json::Value;
use support::client::{Python, finish};
use support::noise;
use support::objects::Objects;
use support::relay::{Relay, Way};
use support::server::{Answer, Server, files};

const REPO: &str = "acme/one";
const LARGE: &str = "weights/model.safetensors";
/// Two xorbs, almost.
const SIZE: usize = 120_000_000;
/// Behind the first xorb, and before the end.
const HELD: u64 = 100_000_000;

/// A public hub, the wire that leads to it, and a mirror that offers files of this size ahead.
struct World {
    public: PublicHub,
    relay: Relay,
    content: Vec<u8>,
    mirror: Server,
}

impl World {
    fn new(seed: u64) -> Result<Self> {
        let public = PublicHub::start(seed)?;
        public.offer_xet();
        let content = noise(seed, SIZE);
        public.push(REPO, &[(LARGE, &content), ("small.bin", &content[..3_000_000])]);
        public.push("acme/two", &[("small.bin", &content[..1_000_000])]);
        let relay = Relay::to(public.endpoint().trim_start_matches("http://"))?;
        let url = relay.endpoint();
        let variables = [
            ("BALLAST_UPSTREAM_URL", url.as_str()),
            ("BALLAST_UPSTREAM_OFFERED_FROM", "100MB"),
            // So that all of it passes the wire, in order.
            ("BALLAST_UPSTREAM_XET", "false"),
        ];
        let mirror = Server::on_set(&Objects::chosen()?, &variables)?;
        Ok(Self { public, relay, content, mirror })
    }

    fn head(&self, path: &str) -> Result<Answer> {
        let path = format!("/{REPO}/resolve/main/{path}");
        self.mirror.request("HEAD", &path, &self.mirror.token, &[], &[])
    }

    /// What the file is called, if it is offered.
    fn offered(&self) -> Result<Option<String>> {
        Ok(self.head(LARGE)?.header("x-xet-hash").map(str::to_owned))
    }

    /// Bytes that came from the upstream and are on the disk.
    fn arrived(&self) -> Result<u64> {
        let folder = self.mirror.data().join("mirror");
        let spools = if folder.exists() { files(&folder)? } else { Vec::new() };
        Ok(spools.iter().filter_map(|path| path.metadata().ok()).map(|about| about.len()).sum())
    }

    /// A token for the files of a repo, at a revision.
    fn token(&self, repo: &str, revision: &str) -> Result<String> {
        let path = format!("/api/models/{repo}/xet-read-token/{revision}");
        let token = self.mirror.get(&path)?;
        Ok(token["accessToken"].as_str().context("no token")?.to_owned())
    }

    fn reconstruction(
        &self,
        version: &str,
        file: &str,
        token: &str,
        range: &str,
    ) -> Result<Answer> {
        let path = format!("/xet/{version}/reconstructions/{file}");
        self.mirror.request("GET", &path, token, &[("range", range)], &[])
    }
}

/// Asks until it is so; the clock only ends what hangs.
fn until(what: &str, mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
    for _ in 0..60_000 {
        if is_so()? {
            return Ok(());
        }
        thread::park_timeout(Duration::from_millis(2));
    }
    bail!("it never came to this: {what}")
}

/// The client everybody has, with blocks that are small for a small file.
fn client(mirror: &Server, home: &Path, folder: &Path) -> Result<Command> {
    let mut command = Python::with("hub-2.4")?.command("hf", mirror, &mirror.token, home);
    command.args(["download", REPO, LARGE, "--local-dir"]).arg(folder);
    command
        .env("HF_XET_RECONSTRUCTION_MIN_RECONSTRUCTION_FETCH_SIZE", "8mb")
        .env("HF_XET_RECONSTRUCTION_MAX_RECONSTRUCTION_FETCH_SIZE", "16mb")
        .env("HF_XET_RECONSTRUCTION_MIN_PREFETCH_BUFFER", "8mb");
    Ok(command)
}

/// The file, as it downloads it.
fn download(mirror: &Server, folder: &Path) -> Result<()> {
    let home = tempfile::tempdir()?;
    finish(&mut client(mirror, home.path(), folder)?).map(drop)
}

/// Bytes that a download has written so far.
fn downloaded(folder: &Path) -> Result<u64> {
    let lengths = files(folder)?.into_iter().filter_map(|path| {
        let is_part = path.extension().is_some_and(|ending| ending == "incomplete");
        path.metadata().ok().filter(|_| is_part).map(|about| about.len())
    });
    Ok(lengths.sum())
}

/// The xorbs that an answer names.
fn xorbs(document: &Value) -> Result<Vec<String>> {
    let terms = document["terms"].as_array().context("no terms")?;
    let hashes = terms.iter().filter_map(|term| term["hash"].as_str());
    Ok(hashes.map(str::to_owned).collect())
}

#[test]
fn a_cold_file_comes_by_xet_before_all_of_it_is_here() -> Result<()> {
    let mut world = World::new(21)?;
    let file = world.offered()?.context("it is not offered")?;
    ensure!(world.head("small.bin")?.header("x-xet-hash").is_none(), "bytes as they are do");
    ensure!(world.arrived()? == 0 && world.public.sent(REPO) == 0, "an offer moves no file");
    world.relay.set(Way::HoldAfter(HELD));
    let folder = tempfile::tempdir()?;
    thread::scope(|scope| {
        let client = scope.spawn(|| download(&world.mirror, folder.path()));
        let held =
            until("the client has what is here", || Ok(downloaded(folder.path())? >= 24_000_000))
                .and_then(|()| while_it_arrives(&world, &file));
        world.relay.set(Way::Open);
        let ended = client.join().map_err(|_| anyhow::anyhow!("the client panicked"))?;
        held?;
        ended
    })?;
    ensure!(fs::read(folder.path().join(LARGE))? == world.content, "it is another file");
    let mirror = &mut world.mirror;
    ensure!(mirror.figure("mirror_files_total")? == 1, "its end came before all was verified");
    ensure!(mirror.figure("mirror_followed_bytes_total")? == 0, "it came as plain bytes");
    ensure!(mirror.figure("mirror_parts_ahead_total")? > 1);
    let sent = world.public.sent(&format!("{REPO}/{LARGE}"));
    ensure!(sent <= SIZE as u64 + 10_000_000, "{sent} bytes came");
    let report = mirror.admin(&["verify"])?;
    ensure!(report["summary"]["damaged"].as_u64().unwrap_or(0) == 0, "{report}");
    // From now on it is a file like any other.
    world.relay.set(Way::Shut);
    world.mirror.expect_in_log("upstream");
    ensure!(world.offered()? == Some(file), "it has another name");
    let folder = tempfile::tempdir()?;
    download(&world.mirror, folder.path())?;
    ensure!(fs::read(folder.path().join(LARGE))? == world.content, "it is another file");
    Ok(())
}

/// What can be asked of a file of which the end is not here.
fn while_it_arrives(world: &World, file: &str) -> Result<()> {
    let arrived = world.arrived()?;
    ensure!(arrived < SIZE as u64, "{arrived} bytes are here");
    ensure!(world.mirror.figure("mirror_files_total")? == 0, "it is stored");
    let head = world.head(LARGE)?;
    let commit = head.header("x-repo-commit").context("no commit")?;
    let token = world.token(REPO, commit)?;
    let ask = |version, range| world.reconstruction(version, file, &token, range);
    let one = ask("v1", "bytes=5-1000000")?;
    let two = ask("v2", "bytes=5-1000000")?;
    ensure!(one.status == 200 && two.status == 200, "{one:?} {two:?}");
    let (one, two): (Value, Value) =
        (serde_json::from_slice(&one.body)?, serde_json::from_slice(&two.body)?);
    let named = xorbs(&two)?;
    ensure!(xorbs(&one)? == named && one["offset_into_first_range"] == 5, "{one} {two}");
    let objects = world.mirror.objects()?;
    for xorb in &named {
        ensure!(two["xorbs"][xorb].is_array() && one["fetch_info"][xorb].is_array(), "{two}");
        ensure!(objects.keys().any(|name| name.contains(xorb)), "{xorb}: {objects:?}");
    }
    let past = ask("v2", &format!("bytes={SIZE}-"))?;
    ensure!(past.status == 416, "{past:?}");
    // Nothing is told to who asks for another repo, for no commit, or for another name.
    let facts = world.mirror.get("/api/models/acme/two")?;
    let other = facts["sha"].as_str().context("no commit")?;
    let unknown = "5".repeat(64);
    for (file, token) in [
        (file, world.token("acme/two", other)?),
        (file, world.token("acme/two", commit)?),
        (file, world.token(REPO, "main")?),
        (file, world.token(REPO, &"1".repeat(40))?),
        (&unknown, token.clone()),
    ] {
        let answer = world.reconstruction("v2", file, &token, "bytes=0-1000")?;
        ensure!(answer.status == 404, "{answer:?}");
    }
    Ok(())
}

#[test]
fn what_the_upstream_has_no_name_for_comes_as_it_is() -> Result<()> {
    let (public, content) = (PublicHub::start(24)?, noise(24, 2_000_000));
    public.push(REPO, &[(LARGE, &content)]);
    let variables =
        [("BALLAST_UPSTREAM_URL", public.endpoint()), ("BALLAST_UPSTREAM_OFFERED_FROM", "1MB")];
    let mirror = Server::on_set(&Objects::disk(), &variables)?;
    let folder = tempfile::tempdir()?;
    download(&mirror, folder.path())?;
    ensure!(fs::read(folder.path().join(LARGE))? == content, "it is another file");
    ensure!(mirror.figure("mirror_followed_bytes_total")? == content.len() as u64);
    Ok(())
}

#[test]
fn nobody_gets_all_of_a_wrong_file_by_xet() -> Result<()> {
    let mut world = World::new(22)?;
    world.mirror.expect_in_log("could not be fetched");
    world.mirror.expect_in_log("an answer breaks off");
    ensure!(world.offered()?.is_some(), "it is not offered");
    world.relay.set(Way::FlipAfter(HELD));
    let folder = tempfile::tempdir()?;
    let told = download(&world.mirror, folder.path()).err();
    let told = told.context("a wrong file was downloaded")?.to_string();
    ensure!(!folder.path().join(LARGE).exists(), "a wrong file is there: {told}");
    ensure!(downloaded(folder.path())? < SIZE as u64, "all of a wrong file is there");
    ensure!(world.mirror.figure("mirror_files_total")? == 0, "what is wrong is stored");
    ensure!(world.arrived()? == 0, "what is wrong is kept");
    world.relay.set(Way::Open);
    ensure!(world.offered()?.is_none(), "it is offered again: {told}");
    Ok(())
}

#[test]
fn a_mirror_that_was_killed_makes_the_terms_anew() -> Result<()> {
    let mut world = World::new(23)?;
    let head = world.head(LARGE)?;
    let header = |name: &str| head.header(name).with_context(|| format!("no {name}"));
    let file = header("x-xet-hash")?;
    let token = world.token(REPO, header("x-repo-commit")?)?;
    world.relay.set(Way::HoldAfter(HELD));
    let folder = tempfile::tempdir()?;
    let before = world.public.sent(&format!("{REPO}/{LARGE}"));
    let home = tempfile::tempdir()?;
    let mut command = client(&world.mirror, home.path(), folder.path())?;
    let client = thread::spawn(move || finish(&mut command));
    let held =
        until("the client has what is here", || Ok(downloaded(folder.path())? >= 24_000_000));
    world.mirror.kill()?;
    world.mirror.expect_in_log("not stopped cleanly");
    // The end is still not here.
    world.relay.set(Way::HoldAfter(1_000_000));
    world.mirror.restart()?;
    let known = held.and_then(|()| world.reconstruction("v2", file, &token, "bytes=0-60000000"));
    let stored = world.mirror.figure("mirror_files_total");
    world.relay.set(Way::Open);
    let ended = client.join().map_err(|_| anyhow::anyhow!("the client panicked"))?;
    let (known, stored) = (known?, stored?);
    ensure!(known.status == 200 && stored == 0, "{known:?}");
    ended?;
    ensure!(fs::read(folder.path().join(LARGE))? == world.content, "it is another file");
    let sent = world.public.sent(&format!("{REPO}/{LARGE}")) - before;
    ensure!(sent <= SIZE as u64 + 20_000_000, "{sent} bytes came");
    Ok(())
}
