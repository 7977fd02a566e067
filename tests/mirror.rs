//! Mirroring: what a hub lacks comes from its upstream while the client waits, and is the same.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use support::client::{Python, finish};
use support::noise;
use support::objects::Objects;
use support::relay::{Relay, Way};
use support::server::{Answer, Server, files};

const LARGE: &str = "weights/model.safetensors";
/// A file that is fetched as it is; larger ones come out of xorbs.
const PLAIN: usize = 8_000_000;
const REPO: &str = "acme/m";

/// A hub with one model, the content of its files, and the wire that leads to it.
struct World {
    upstream: Server,
    relay: Relay,
    content: BTreeMap<String, Vec<u8>>,
}

impl World {
    fn new(large: usize) -> Result<Self> {
        let upstream = Server::on(&Objects::disk())?;
        upstream.admin(&["org", "create", "acme"])?;
        let relay = Relay::to(upstream.address())?;
        let mut content: BTreeMap<String, Vec<u8>> = BTreeMap::new();
        content.insert("README.md".to_owned(), b"---\nlicense: mit\n---\n# A model\n".to_vec());
        content.insert("config.json".to_owned(), br#"{"model_type": "bert"}"#.to_vec());
        content.insert("sub/empty.txt".to_owned(), Vec::new());
        content.insert(LARGE.to_owned(), noise(7, large));
        let world = Self { upstream, relay, content };
        world.upload(&world.content)?;
        Ok(world)
    }

    fn upload(&self, content: &BTreeMap<String, Vec<u8>>) -> Result<()> {
        let folder = tempfile::tempdir()?;
        for (path, bytes) in content {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().context("it is in a folder")?)?;
            fs::write(path, bytes)?;
        }
        let home = tempfile::tempdir()?;
        let client = Python::with("hub-2.4")?;
        let mut command = client.command("hf", &self.upstream, &self.upstream.token, home.path());
        finish(command.args(["upload", REPO]).arg(folder.path()).arg("."))?;
        Ok(())
    }

    /// An empty hub that has this one as its upstream.
    fn mirror(&self, variables: &[(&str, &str)]) -> Result<Server> {
        let url = self.relay.endpoint();
        let mut all = vec![("BALLAST_UPSTREAM_URL", url.as_str())];
        all.extend(variables);
        Server::on_set(&Objects::chosen()?, &all)
    }

    fn large(&self) -> &[u8] {
        &self.content[LARGE]
    }
}

/// The whole repo, as the client everybody has downloads it.
fn download(server: &Server, token: &str, revision: &str, xet: bool) -> Result<tempfile::TempDir> {
    let folder = tempfile::tempdir()?;
    let home = tempfile::tempdir()?;
    let mut command = Python::with("hub-2.4")?.command("hf", server, token, home.path());
    command.args(["download", REPO, "--revision", revision, "--local-dir"]).arg(folder.path());
    finish(command.env("HF_HUB_DISABLE_XET", if xet { "0" } else { "1" }))?;
    Ok(folder)
}

fn compare(folder: &Path, content: &BTreeMap<String, Vec<u8>>) -> Result<()> {
    for (path, bytes) in content {
        ensure!(fs::read(folder.join(path))? == *bytes, "`{path}` is another one");
    }
    Ok(())
}

fn ask(server: &Server, method: &str, path: &str) -> Result<Answer> {
    server.request(method, path, &server.token, &[], &[])
}

fn commit(server: &Server) -> Result<String> {
    let facts = server.get(&format!("/api/models/{REPO}"))?;
    Ok(facts["sha"].as_str().context("no commit")?.to_owned())
}

fn address(path: &str) -> String {
    format!("/{REPO}/resolve/main/{path}")
}

/// Asks until it is so; the clock only ends what hangs.
fn until(what: &str, mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
    for _ in 0..60_000 {
        if is_so()? {
            return Ok(());
        }
        thread::park_timeout(Duration::from_millis(1));
    }
    bail!("it never came to this: {what}")
}

fn in_spools(server: &Server) -> Result<u64> {
    let folder = server.data().join("mirror");
    let spools = if folder.exists() { files(&folder)? } else { Vec::new() };
    Ok(spools.iter().filter_map(|path| path.metadata().ok()).map(|about| about.len()).sum())
}

#[test]
fn a_cold_mirror_gives_what_the_upstream_has_under_the_same_names() -> Result<()> {
    let world = World::new(9_000_000)?;
    let commit = commit(&world.upstream)?;
    for xet in [true, false] {
        let mut mirror = world.mirror(&[])?;
        let cold = download(&mirror, &mirror.token, "main", xet)?;
        compare(cold.path(), &world.content)?;
        ensure!(self::commit(&mirror)? == commit, "the commit has another id");
        // The client had its last byte before all was in the store.
        until("the file is stored", || Ok(mirror.figure("mirror_files_total")? == 1))?;
        let tree = format!("/api/models/{REPO}/tree/{commit}?recursive=true");
        let (mut here, there) = (mirror.get(&tree)?, world.upstream.get(&tree)?);
        for (here, there) in here
            .as_array_mut()
            .context("a list")?
            .iter_mut()
            .zip(there.as_array().context("a list")?)
        {
            for name in ["path", "oid", "size", "lfs", "xetHash"] {
                ensure!(here[name] == there[name], "{here} is not {there}");
            }
        }
        for path in world.content.keys() {
            let [here, there] = [&mirror, &world.upstream].map(|hub| {
                let head = ask(hub, "HEAD", &address(path))?;
                let value = |name: &str| head.header(name).map(str::to_owned);
                let names = ["etag", "x-linked-etag", "x-repo-commit", "content-length"];
                anyhow::Ok(names.map(value))
            });
            let (here, there) = (here?, there?);
            ensure!(here == there, "{path}: {here:?} is not {there:?}");
        }
        // What is here needs no upstream, and no index.
        world.relay.set(Way::Shut);
        mirror.lose_index()?;
        mirror.expect_in_log("upstream");
        let warm = download(&mirror, &mirror.token, &commit, xet)?;
        compare(warm.path(), &world.content)?;
        let report = mirror.admin(&["verify"])?;
        ensure!(report["summary"]["damaged"].as_u64().unwrap_or(0) == 0, "{report}");
        world.relay.set(Way::Open);
    }
    Ok(())
}

#[test]
fn many_who_ask_for_one_cold_file_cause_one_download() -> Result<()> {
    let world = World::new(40_000_000)?;
    let mirror = world.mirror(&[])?;
    commit(&mirror)?;
    let before = world.relay.passed();
    thread::scope(|scope| {
        let clients: Vec<_> = (0..32)
            .map(|number| {
                let (mirror, large) = (&mirror, world.large());
                scope.spawn(move || {
                    // Some leave at once, and what they began goes on.
                    if number % 8 == 7 {
                        return leave(mirror, &address(LARGE));
                    }
                    let answer = ask(mirror, "GET", &address(LARGE))?;
                    ensure!(answer.status == 200 && answer.body == large, "{}", answer.status);
                    Ok(())
                })
            })
            .collect();
        for client in clients {
            client.join().map_err(|_| anyhow::anyhow!("a client panicked"))??;
        }
        anyhow::Ok(())
    })?;
    let passed = world.relay.passed() - before;
    ensure!(passed * 100 <= world.large().len() as u64 * 102, "{passed} bytes came");
    until("the file is stored", || Ok(mirror.figure("mirror_files_total")? == 1))?;
    ensure!(in_spools(&mirror)? == 0, "a spool was left behind");
    ensure!(mirror.figure("mirror_fetches_running")? == 0);
    Ok(())
}

/// Asks for something, and is gone.
fn leave(server: &Server, path: &str) -> Result<()> {
    let mut stream = std::net::TcpStream::connect(server.address())?;
    let (host, token) = (server.address(), &server.token);
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {token}\r\n\r\n")?;
    stream.read_exact(&mut [0; 12])?;
    Ok(())
}

#[test]
fn ranges_of_a_cold_file_come_from_where_they_are() -> Result<()> {
    let world = World::new(12_000_000)?;
    let mirror = world.mirror(&[])?;
    let large = world.large();
    for (range, start, end) in [
        ("bytes=0-0", 0, 1),
        ("bytes=8-100000", 8, 100_001),
        ("bytes=-1000", large.len() - 1000, large.len()),
        ("bytes=5000000-", 5_000_000, large.len()),
    ] {
        let answer =
            mirror.request("GET", &address(LARGE), &mirror.token, &[("range", range)], &[])?;
        ensure!(answer.status == 206, "{range}: {answer:?}");
        ensure!(answer.body == large[start..end], "{range}: other bytes");
    }
    Ok(())
}

#[test]
fn a_mirror_that_was_killed_goes_on_where_it_was() -> Result<()> {
    const HELD: u64 = 4_000_000;
    let world = World::new(PLAIN)?;
    let mut mirror = world.mirror(&[])?;
    commit(&mirror)?;
    world.relay.set(Way::HoldAfter(HELD));
    let before = world.relay.passed();
    leave(&mirror, &address(LARGE))?;
    until("half of the file is there", || Ok(in_spools(&mirror)? > HELD / 2))?;
    let had = in_spools(&mirror)?;
    mirror.kill()?;
    world.relay.set(Way::Open);
    mirror.restart()?;
    let answer = ask(&mirror, "GET", &address(LARGE))?;
    ensure!(answer.status == 200 && answer.body == world.large(), "it is another file");
    let (passed, size) = (world.relay.passed() - before, world.large().len() as u64);
    // What was on its way at the moment of the crash is sent twice, and what is asked about refs.
    ensure!(passed < size + (HELD - had) + 1_000_000, "{passed} bytes came, {had} were there");
    Ok(())
}

#[test]
fn a_connection_that_breaks_again_and_again_costs_no_byte_twice() -> Result<()> {
    let world = World::new(PLAIN)?;
    let mirror = world.mirror(&[])?;
    commit(&mirror)?;
    world.relay.set(Way::CutAfter(1_500_000));
    let before = world.relay.passed();
    let answer = ask(&mirror, "GET", &address(LARGE))?;
    ensure!(answer.status == 200 && answer.body == world.large(), "it is another file");
    let passed = world.relay.passed() - before;
    ensure!(passed * 100 <= world.large().len() as u64 * 102, "{passed} bytes came");
    Ok(())
}

#[test]
fn what_is_here_is_served_when_the_upstream_is_gone_and_said_to_be_old() -> Result<()> {
    let world = World::new(1_000_000)?;
    let mut mirror = world.mirror(&[("BALLAST_UPSTREAM_REVALIDATE", "0s")])?;
    mirror.expect_in_log("could not be fetched");
    mirror.expect_in_log("an answer breaks off");
    let first = commit(&mirror)?;
    let small = ask(&mirror, "GET", &address("config.json"))?;
    ensure!(small.status == 200 && small.header("x-ballast-stale").is_none(), "{small:?}");

    for way in [Way::Shut, Way::Garbage] {
        world.relay.set(way);
        let small = ask(&mirror, "GET", &address("config.json"))?;
        ensure!(small.status == 200 && small.body == world.content["config.json"], "{small:?}");
        ensure!(small.header("x-ballast-stale").is_some(), "{small:?}");
        ensure!(small.header("warning").is_some_and(|text| text.starts_with("110")), "{small:?}");
        // What can't be had is not called missing.
        for path in [
            address(LARGE),
            "/api/models/acme/other".to_owned(),
            format!("/api/models/{REPO}/revision/other"),
        ] {
            let refused = ask(&mirror, "GET", &path)?;
            ensure!(refused.status == 503, "{way:?} {path}: {refused:?}");
            ensure!(refused.header("retry-after").is_some(), "{path}: {refused:?}");
            ensure!(refused.header("x-error-code").is_none(), "{path}: {refused:?}");
        }
    }

    // What moved meanwhile is noticed.
    world.relay.set(Way::Open);
    world.upload(&BTreeMap::from([("new.txt".to_owned(), b"new".to_vec())]))?;
    until("the branch has moved", || Ok(commit(&mirror)? != first))?;
    let new = ask(&mirror, "GET", &address("new.txt"))?;
    ensure!(new.status == 200 && new.body == b"new", "{new:?}");
    ensure!(new.header("x-ballast-stale").is_none(), "{new:?}");
    // The former commit is still what it was.
    let gone = ask(&mirror, "GET", &format!("/{REPO}/resolve/{first}/new.txt"))?;
    ensure!(gone.header("x-error-code") == Some("EntryNotFound"), "{gone:?}");
    // What the upstream says is missing is missing, and what it deleted stays.
    let missing = ask(&mirror, "GET", "/api/models/acme/another")?;
    ensure!(missing.header("x-error-code") == Some("RepoNotFound"), "{missing:?}");
    let revision = ask(&mirror, "GET", &format!("/api/models/{REPO}/revision/another"))?;
    ensure!(revision.header("x-error-code") == Some("RevisionNotFound"), "{revision:?}");
    world.upstream.admin(&["repo", "delete", REPO])?;
    let kept = ask(&mirror, "GET", &address("config.json"))?;
    ensure!(kept.status == 200 && kept.header("x-ballast-stale").is_some(), "{kept:?}");
    Ok(())
}

#[test]
fn a_wrong_byte_is_neither_stored_nor_handed_out_to_the_end() -> Result<()> {
    let world = World::new(5_000_000)?;
    let mut mirror = world.mirror(&[])?;
    mirror.expect_in_log("could not be fetched");
    mirror.expect_in_log("an answer breaks off");
    commit(&mirror)?;
    let size = world.large().len() as u64;
    for place in [2000, 70_000, size / 2, size - 100] {
        world.relay.set(Way::FlipAfter(place));
        let failures = mirror.figure("mirror_failures_total")?;
        // What failed a moment ago is not asked for again at once.
        until("it is given up", || {
            if let Ok(answer) = ask(&mirror, "GET", &address(LARGE)) {
                ensure!(answer.status != 200, "a file with a wrong byte at {place} was served");
            }
            Ok(mirror.figure("mirror_failures_total")? > failures)
        })?;
        ensure!(in_spools(&mirror)? == 0, "what is wrong is kept");
        ensure!(mirror.figure("mirror_files_total")? == 0, "what is wrong is stored");
    }
    // Who has a wrong beginning is not given the right rest: clients begin anew on a 200.
    world.relay.set(Way::Open);
    until("the rest is all of it", || {
        let rest = [("range", "bytes=1000000-")];
        let answer = mirror.request("GET", &address(LARGE), &mirror.token, &rest, &[])?;
        Ok(answer.status == 200 && answer.body == world.large())
    })?;
    until("the right file comes", || {
        Ok(ask(&mirror, "GET", &address(LARGE)).is_ok_and(|answer| answer.body == world.large()))
    })?;
    Ok(())
}

#[test]
fn a_mirror_takes_changes_from_its_upstream_only() -> Result<()> {
    let world = World::new(100_000)?;
    let mirror = world.mirror(&[])?;
    commit(&mirror)?;
    let folder = mirror.scratch("folder")?;
    fs::write(folder.join("mine.txt"), "mine")?;
    let home = tempfile::tempdir()?;
    let mut upload = Python::with("hub-2.4")?.command("hf", &mirror, &mirror.token, home.path());
    let refused = finish(upload.args(["upload", REPO]).arg(&folder).arg("."));
    let told = refused.err().context("a mirror took a commit")?.to_string();
    ensure!(told.contains("is a mirror of the one at"), "{told}");
    let body = br#"{"startingPoint": "main"}"#;
    let branch = format!("/api/models/{REPO}/branch/mine");
    let json = [("content-type", "application/json")];
    let branch = mirror.request("POST", &branch, &mirror.token, &json, body)?;
    ensure!(branch.status == 403, "{branch:?}");
    // Namespaces with an owner here are ours: nothing is looked for upstream.
    mirror.admin(&["org", "create", "ours"])?;
    world.upstream.admin(&["org", "create", "ours"])?;
    world.upstream.admin(&["repo", "create", "ours/m"])?;
    let ours = ask(&mirror, "GET", "/api/models/ours/m")?;
    ensure!(ours.header("x-error-code") == Some("RepoNotFound"), "{ours:?}");
    Ok(())
}

#[test]
fn what_is_gated_or_private_there_is_so_here() -> Result<()> {
    let world = World::new(100_000)?;
    let token = world.upstream.scratch("token")?.join("token");
    fs::write(&token, &world.upstream.token)?;
    fs::set_permissions(&token, fs::Permissions::from_mode(0o600))?;
    let mirror = world.mirror(&[
        ("BALLAST_UPSTREAM_TOKEN_FILE", &token.to_string_lossy()),
        ("BALLAST_UPSTREAM_REVALIDATE", "0s"),
    ])?;
    let reader = mirror.user("reader", "read")?;
    let asks =
        |server: &Server, token: &str, path: &str| server.request("GET", path, token, &[], &[]);
    let open = asks(&mirror, &reader, &address("config.json"))?;
    ensure!(open.status == 200, "{open:?}");
    world.upstream.admin(&["repo", "settings", REPO, "--gated", "auto"])?;
    until("it is gated here", || {
        Ok(asks(&mirror, &reader, &address("config.json"))?.status == 403)
    })?;
    let facts = asks(&mirror, &reader, &format!("/api/models/{REPO}"))?;
    ensure!(facts.status == 200, "what it is may be known: {facts:?}");
    let file = asks(&mirror, &reader, &address("config.json"))?;
    ensure!(file.header("x-error-code") == Some("GatedRepo"), "{file:?}");
    // Without a token of our own the files of a gated repo can't be had at all.
    let blind = world.mirror(&[])?;
    let refused = asks(&blind, &blind.token, &format!("/api/models/{REPO}"))?;
    ensure!(refused.status == 403, "{refused:?}");

    world.upstream.admin(&["org", "create", "closed"])?;
    world.upstream.admin(&["repo", "create", "closed/m", "--visibility", "private"])?;
    for (token, code) in [(&reader, Some("RepoNotFound")), (&mirror.token, None)] {
        let found = asks(&mirror, token, "/api/models/closed/m")?;
        ensure!(found.header("x-error-code") == code, "{found:?}");
    }
    let hidden = asks(&blind, &blind.token, "/api/models/closed/m")?;
    ensure!(hidden.header("x-error-code") == Some("RepoNotFound"), "{hidden:?}");
    Ok(())
}

#[test]
fn offline_it_opens_no_socket_but_the_one_to_listen_on() -> Result<()> {
    let world = World::new(2_000_000)?;
    let url = world.relay.endpoint();
    let mut mirror = Server::on_set(&Objects::disk(), &[("BALLAST_UPSTREAM_URL", &url)])?;
    let commit = commit(&mirror)?;
    compare(download(&mirror, &mirror.token, "main", true)?.path(), &world.content)?;
    until("the file is stored", || Ok(mirror.figure("mirror_files_total")? == 1))?;
    mirror.stop()?;
    let trace = mirror.scratch("trace")?.join("calls");
    let calls = trace.to_string_lossy().into_owned();
    mirror.set("BALLAST_OFFLINE", "true");
    mirror.set("BALLAST_UPSTREAM_REVALIDATE", "0s");
    // The tracer stands aside, so that signals go to the program.
    mirror.wrap(&["strace", "-D", "-f", "-qq", "-e", "trace=socket,connect,sendto", "-o", &calls]);
    mirror.restart()?;
    for (revision, xet) in [("main", true), (commit.as_str(), false)] {
        let here = download(&mirror, &mirror.token, revision, xet)?;
        compare(here.path(), &world.content)?;
    }
    let missing = ask(&mirror, "GET", "/api/models/acme/other")?;
    ensure!(missing.header("x-error-code") == Some("RepoNotFound"), "{missing:?}");
    mirror.stop()?;
    let calls = fs::read_to_string(trace)?;
    let of = |name: &str| calls.lines().filter(|line| line.contains(name)).collect::<Vec<_>>();
    ensure!(of("socket(").len() == 1, "{:#?}", of("socket("));
    ensure!(of("connect(").is_empty(), "{:#?}", of("connect("));
    Ok(())
}

/// `SEED` chooses what happens, `MIRROR_ROUNDS` for how long.
#[test]
fn whatever_an_upstream_does_no_wrong_byte_comes_out() -> Result<()> {
    let number = |name: &str, default| -> Result<u64> {
        std::env::var(name).map_or(Ok(default), |text| Ok(text.parse()?))
    };
    let (seed, rounds) = (number("SEED", 11)?, number("MIRROR_ROUNDS", 8)?);
    println!("SEED={seed}");
    let mut world = World::new(300_000)?;
    let lengths = [2_000_000, 3_000_000, 5_000_000, 7_000_000, 9_000_000, 11_000_000];
    let more: BTreeMap<String, Vec<u8>> = (100_u64..)
        .zip(lengths)
        .map(|(seed, length)| (format!("w{seed}.bin"), noise(seed, length)))
        .collect();
    world.upload(&more)?;
    world.content.extend(more);
    let mut mirror = world.mirror(&[("BALLAST_UPSTREAM_REVALIDATE", "0s")])?;
    mirror.expect_in_log("could not be fetched");
    mirror.expect_in_log("an answer breaks off");
    commit(&mirror)?;
    let mut dice = Dice(seed);
    for round in 0..rounds {
        let place = dice.below(8_000_000);
        let way = match dice.below(5) {
            0 => Way::Shut,
            1 => Way::Garbage,
            2 => Way::CutAfter(place),
            3 => Way::FlipAfter(place),
            _ => Way::HoldAfter(place),
        };
        world.relay.set(way);
        if dice.below(4) == 0 {
            mirror.kill()?;
            mirror.restart()?;
        }
        let asked: Vec<(&String, u64)> =
            world.content.keys().map(|path| (path, dice.below(4))).collect();
        thread::scope(|scope| {
            let clients: Vec<_> = asked
                .iter()
                .map(|(path, how)| {
                    let (mirror, content) = (&mirror, &world.content[*path]);
                    scope.spawn(move || one(mirror, path, content, *how))
                })
                .collect();
            // What stands still goes on after a while.
            if matches!(way, Way::HoldAfter(_)) {
                thread::park_timeout(Duration::from_secs(3));
                world.relay.set(Way::Open);
            }
            for client in clients {
                let read = client.join().map_err(|_| anyhow::anyhow!("a client panicked"))?;
                read.with_context(|| format!("SEED={seed}, round {round}, {way:?}"))?;
            }
            anyhow::Ok(())
        })?;
    }
    world.relay.set(Way::Open);
    until("all of it is there", || {
        let ok = |path: &String| {
            let answer = ask(&mirror, "GET", &address(path));
            answer.is_ok_and(|answer| answer.status == 200 && answer.body == world.content[path])
        };
        Ok(world.content.keys().all(ok))
    })?;
    compare(download(&mirror, &mirror.token, "main", true)?.path(), &world.content)?;
    let report = mirror.admin(&["verify"])?;
    ensure!(report["summary"]["damaged"].as_u64().unwrap_or(0) == 0, "{report}");
    Ok(())
}

/// Small numbers that follow from a seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        let drawn = noise(self.0, 8);
        self.0 = self.0.wrapping_add(1);
        u64::from_le_bytes(drawn.try_into().unwrap_or_default()) % bound
    }
}

/// One client: it gets what is right, or an answer that says to come again, or one that breaks off.
fn one(mirror: &Server, path: &str, content: &[u8], how: u64) -> Result<()> {
    let last = content.len().saturating_sub(1);
    let (from, to) = (last / 3, last / 2);
    let range = format!("bytes={from}-{to}");
    let headers = [("range", range.as_str())];
    let headers = if how == 0 { &headers[..] } else { &[] };
    let Ok(answer) = mirror.request("GET", &address(path), &mirror.token, headers, &[]) else {
        return Ok(());
    };
    let is_right = match answer.status {
        200 => answer.body == content,
        206 => answer.body == content[from..=to],
        503 => true,
        _ => false,
    };
    ensure!(is_right, "`{path}`: {} with {} bytes", answer.status, answer.body.len());
    Ok(())
}
