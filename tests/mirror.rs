//! Mirroring: what a hub lacks comes from its upstream while the client waits, and is the same.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use support::client::{Python, finish};
use support::objects::Objects;
use support::relay::{Relay, Way};
use support::server::{Answer, Server, files};
use support::{http, noise};

const LARGE: &str = "weights/model.safetensors";
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

/// A count of the server's.
fn figure(server: &Server, name: &str) -> Result<u64> {
    let text = String::from_utf8(server.request("GET", "/metrics", "", &[], &[])?.body)?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    Ok(line.with_context(|| format!("no `{name}` in {text}"))?.parse()?)
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
        until("the file is stored", || Ok(figure(&mirror, "mirror_files_total")? == 1))?;
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
