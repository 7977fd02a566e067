//! A disk or a store that fails: defined answers, reads as long as there is anything to read, and
//! everything as before once it is well again, without a restart.
//!
//! Some of these mount file systems and need root.

mod support;

use std::fs;
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use ballast_testkit::s3::S3Faults;
use ballast_testkit::xet::{pack, sha256};
use serde_json::json;
use support::client::{Python, finish};
use support::disk::{self, Mounted, run};
use support::http::{self, Answer};
use support::noise;
use support::objects::Objects;
use support::server::Server;

const REPO: &str = "admin/m";
/// How often something is asked that may take a moment to be well again.
const TRIES: usize = 600;

/// What is done to a hub over and over while something is wrong with it.
struct Hub<'s> {
    server: &'s Server,
    agent: ureq::Agent,
}

impl<'s> Hub<'s> {
    fn new(server: &'s Server) -> Self {
        Self { server, agent: http::agent(Duration::from_secs(100)) }
    }

    fn send(&self, method: &str, path: &str, body: &[u8]) -> Result<Answer> {
        let path = path.strip_prefix(&self.server.endpoint).unwrap_or(path);
        let token = if path.starts_with("/api/ballast/lfs") { "" } else { &self.server.token };
        let url = format!("{}{path}", self.server.endpoint);
        let kind = [("content-type", "application/json")];
        let answer = http::send(&self.agent, method, &url, token, &kind, body)?;
        let is_defined = answer.status < 500 || [503, 507].contains(&answer.status);
        ensure!(is_defined, "{method} {path}: {answer:?}");
        let says_when = answer.status != 503 || answer.header("retry-after").is_some();
        ensure!(says_when, "{method} {path} without `Retry-After`: {answer:?}");
        Ok(answer)
    }

    fn create(&self, name: &str) -> Result<Answer> {
        let body = json!({"type": "model", "name": name}).to_string();
        self.send("POST", "/api/repos/create", body.as_bytes())
    }

    /// A commit of a small file.
    fn commit(&self, path: &str) -> Result<Answer> {
        let header = json!({"key": "header", "value": {"summary": path}});
        let file = json!({"key": "file", "value": {"path": path, "content": path}});
        let lines = format!("{header}\n{file}");
        self.send("POST", &format!("/api/models/{REPO}/commit/main"), lines.as_bytes())
    }

    /// Sends a file by LFS and commits it; the answer that ended it.
    fn upload(&self, path: &str, content: &[u8]) -> Result<Answer> {
        let oid = sha256(content).to_string();
        let objects = json!([{"oid": oid, "size": content.len()}]);
        let asked = json!({"operation": "upload", "objects": objects}).to_string();
        let batch = format!("/{REPO}.git/info/lfs/objects/batch");
        let answer = self.send("POST", &batch, asked.as_bytes())?;
        if answer.status != 200 {
            return Ok(answer);
        }
        let href = answer.json()?["objects"][0]["actions"]["upload"]["href"].clone();
        if let Some(href) = href.as_str() {
            let put = self.send("PUT", href, content)?;
            if put.status != 200 {
                return Ok(put);
            }
        }
        let header = json!({"key": "header", "value": {"summary": path}});
        let size = content.len();
        let file = json!({"key": "lfsFile", "value": {"path": path, "oid": oid, "size": size}});
        let lines = format!("{header}\n{file}");
        self.send("POST", &format!("/api/models/{REPO}/commit/main"), lines.as_bytes())
    }

    /// Sends a file as a Xet client does, and commits it.
    fn upload_xet(&self, path: &str, content: &[u8]) -> Result<()> {
        let packed = pack(content);
        let access = self.server.get(&format!("/api/models/{REPO}/xet-write-token/main"))?;
        let token = access["accessToken"].as_str().context("a token")?;
        let xorb = format!("/xet/v1/xorbs/default/{}", packed.hash());
        let sent = self.server.request("POST", &xorb, token, &[], &packed.xorb)?;
        ensure!(sent.status == 200, "{sent:?}");
        let sent = self.server.request("POST", "/xet/v1/shards", token, &[], &packed.shard())?;
        ensure!(sent.status == 200, "{sent:?}");
        let committed = self.upload(path, content)?;
        ensure!(committed.status == 200, "{committed:?}");
        Ok(())
    }

    fn read(&self, path: &str) -> Result<Answer> {
        self.send("GET", &format!("/{REPO}/resolve/main/{path}"), b"")
    }

    fn reads(&self, path: &str, content: &[u8]) -> Result<()> {
        let found = self.read(path)?;
        ensure!(found.status == 200 && found.body == content, "`{path}`: {}", found.status);
        Ok(())
    }

    /// Asks until the answer is a success, and not for ever.
    fn until_well(&self, ask: impl Fn() -> Result<Answer>) -> Result<()> {
        let mut last = None;
        for _ in 0..TRIES {
            let answer = ask()?;
            if answer.status == 200 {
                return Ok(());
            }
            last = Some(answer);
            // A request that takes a moment: what waits in the server goes on meanwhile.
            self.send("GET", "/health", b"")?;
        }
        bail!("it does not recover: {last:?}")
    }
}

fn first_file() -> Vec<u8> {
    noise(51, 3_000_000)
}

/// A hub with something in it.
fn prepare(server: &Server) -> Result<Hub<'_>> {
    let hub = Hub::new(server);
    ensure!(hub.create("m")?.status == 200);
    let sent = hub.upload("first.bin", &first_file())?;
    ensure!(sent.status == 200, "{sent:?}");
    ensure!(hub.commit("first.txt")?.status == 200);
    Ok(hub)
}

#[test]
fn a_full_disk_refuses_uploads_and_serves_reads_until_there_is_room() -> Result<()> {
    let mut server = Server::unstarted(&Objects::disk())?;
    server.mount("size=400m")?;
    server.set("BALLAST_STORAGE_KEEP_FREE", "32MiB");
    server.expect_in_log(" WARN ");
    // The index's engine, which shares the disk.
    server.expect_in_log(" ERROR sled::");
    server.begin()?;
    let hub = prepare(&server)?;
    for round in 0..3 {
        disk::fill(&server.data())?;
        let refused = hub.upload(&format!("{round}.bin"), &noise(60 + round, 2_000_000))?;
        ensure!(refused.status == 507, "round {round}: {refused:?}");
        ensure!(refused.json()?["message"].is_string(), "{refused:?}");
        let refused = hub.commit(&format!("{round}.txt"))?;
        ensure!(refused.status == 507, "round {round}: {refused:?}");
        hub.reads("first.bin", &first_file())?;
        hub.reads("first.txt", b"first.txt")?;
        disk::free(&server.data())?;
        let content = noise(60 + round, 2_000_000);
        let name = format!("{round}.bin");
        hub.until_well(|| hub.upload(&name, &content))?;
        hub.reads(&name, &content)?;
        hub.until_well(|| hub.commit(&format!("{round}.txt")))?;
    }
    let verified = server.admin(&["verify"])?;
    ensure!(verified["summary"]["damaged"] == json!(0), "{verified:#}");
    server.check_no_panic()?;
    server.stop()
}

#[test]
fn a_disk_without_inodes_refuses_uploads_and_serves_reads_until_there_are_some() -> Result<()> {
    let mut server = Server::unstarted(&Objects::disk())?;
    server.mount("size=400m,nr_inodes=2000")?;
    server.set("BALLAST_STORAGE_KEEP_FREE", "32MiB");
    server.expect_in_log(" WARN ");
    server.begin()?;
    let hub = prepare(&server)?;
    let folder = server.data().join("many");
    fs::create_dir(&folder)?;
    let mut count = 0;
    while fs::write(folder.join(count.to_string()), b"").is_ok() {
        count += 1;
    }
    ensure!(count > 100, "it has only {count} left for others");
    let content = noise(70, 2_000_000);
    let refused = hub.upload("second.bin", &content)?;
    ensure!(refused.status == 507, "{refused:?}");
    let refused = hub.commit("second.txt")?;
    ensure!(refused.status == 507, "{refused:?}");
    hub.reads("first.bin", &first_file())?;
    fs::remove_dir_all(&folder)?;
    hub.until_well(|| hub.upload("second.bin", &content))?;
    hub.reads("second.bin", &content)?;
    server.check_no_panic()?;
    server.stop()
}

#[test]
fn a_read_only_disk_refuses_writes_and_serves_reads_until_it_is_writable() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let place = folder.path().join("objects");
    fs::create_dir(&place)?;
    let disk = Mounted::tmpfs(&place, "size=400m")?;
    let mut server = Server::unstarted(&Objects::disk())?;
    server.set("BALLAST_STORAGE_URL", &format!("file://{}", place.display()));
    server.set("BALLAST_STORAGE_KEEP_FREE", "32MiB");
    server.expect_in_log(" WARN ");
    server.begin()?;
    let hub = prepare(&server)?;
    for round in 0..2 {
        disk.remount("ro")?;
        let content = noise(80 + round, 2_000_000);
        let name = format!("{round}.bin");
        let refused = hub.upload(&name, &content)?;
        ensure!(refused.status == 503, "{refused:?}");
        let refused = hub.commit(&format!("{round}.txt"))?;
        ensure!(refused.status == 503, "{refused:?}");
        let refused = hub.create(&format!("other-{round}"))?;
        ensure!(refused.status == 503, "{refused:?}");
        hub.reads("first.bin", &first_file())?;
        disk.remount("rw")?;
        hub.until_well(|| hub.upload(&name, &content))?;
        hub.reads(&name, &content)?;
        hub.until_well(|| hub.create(&format!("other-{round}")))?;
    }
    server.check_no_panic()?;
    server.stop()
}

#[test]
fn a_dead_store_means_come_again_and_nothing_more_once_it_is_back() -> Result<()> {
    let objects = Objects::s3()?;
    let s3 = objects.s3.clone().context("it is ours")?;
    let mut server = Server::on(&objects)?;
    server.expect_in_log(" WARN ");
    let hub = prepare(&server)?;
    for round in 0..2 {
        s3.set_reachable(false);
        for refused in [
            hub.upload(&format!("{round}.bin"), &noise(90 + round, 2_000_000))?,
            hub.commit(&format!("{round}.txt"))?,
            hub.create(&format!("other-{round}"))?,
            hub.read("first.bin")?,
        ] {
            ensure!(refused.status == 503, "{refused:?}");
        }
        ensure!(hub.send("GET", "/health", b"")?.status == 200);
        s3.set_reachable(true);
        let (name, content) = (format!("{round}.bin"), noise(90 + round, 2_000_000));
        hub.until_well(|| hub.upload(&name, &content))?;
        hub.reads(&name, &content)?;
        hub.reads("first.bin", &first_file())?;
    }
    server.check_no_panic()?;
    server.stop()
}

#[test]
fn a_store_that_fails_once_in_ten_is_no_concern_of_clients() -> Result<()> {
    let objects = Objects::s3()?;
    let s3 = objects.s3.clone().context("it is ours")?;
    let mut server = Server::on(&objects)?;
    server.expect_in_log(" WARN ");
    s3.set_faults(S3Faults { refused: 50, answer_lost: 50, ..S3Faults::default() });
    let client = Python::with("hub-2.4")?;
    let (home, folder) = (server.scratch("home")?, server.scratch("folder")?);
    let hf = |arguments: &[&str]| {
        finish(client.command("hf", &server, &server.token, &home).args(arguments))
    };
    let file = folder.join("w.bin");
    let path = file.to_string_lossy().into_owned();
    for round in 0..5 {
        fs::write(&file, noise(100 + round, 5_000_000))?;
        let (repo, name) = (format!("admin/r{}", round % 2), format!("{round}.bin"));
        hf(&["upload", &repo, &path, &name])?;
        let back = folder.join(format!("back-{round}"));
        hf(&["download", &repo, &name, "--local-dir", &back.to_string_lossy()])?;
        ensure!(fs::read(back.join(&name))? == noise(100 + round, 5_000_000), "other bytes");
    }
    server.stop()?;
    server.restart()?;
    let listed = server.get("/api/models")?;
    ensure!(listed.as_array().is_some_and(|models| models.len() == 2), "{listed}");
    s3.set_faults(S3Faults::default());
    let verified = server.admin(&["verify"])?;
    ensure!(verified["summary"]["damaged"] == json!(0), "{verified:#}");
    server.check_no_panic()?;
    server.stop()
}

#[test]
fn a_store_that_takes_two_seconds_for_everything_is_slow_and_no_more() -> Result<()> {
    let objects = Objects::s3()?;
    let s3 = objects.s3.clone().context("it is ours")?;
    let mut server = Server::on(&objects)?;
    server.expect_in_log(" WARN ");
    let hub = prepare(&server)?;
    s3.set_faults(S3Faults { latency: Duration::from_secs(2), ..S3Faults::default() });
    hub.reads("first.bin", &first_file())?;
    let content = noise(110, 2_000_000);
    hub.upload_xet("second.bin", &content)?;
    hub.reads("second.bin", &content)?;
    server.check_no_panic()?;
    server.stop()
}

#[test]
fn few_file_descriptors_mean_come_again_until_there_are_more() -> Result<()> {
    let mut server = Server::unstarted(&Objects::disk())?;
    server.expect_in_log(" WARN ");
    server.begin()?;
    let hub = prepare(&server)?;
    let pid = server.pid().context("it runs")?.to_string();
    run("prlimit", &["--pid", &pid, "--nofile=64:1024"])?;
    let address = server.endpoint.trim_start_matches("http://").to_owned();
    let idle: Vec<_> = (0..100).map_while(|_| TcpStream::connect(&address).ok()).collect();
    ensure!(idle.len() > 40, "only {} connections stand", idle.len());
    // Over the connection that stands already; a new one would wait in vain.
    let answer = hub.commit("meanwhile.txt")?;
    ensure!([200, 503].contains(&answer.status), "{answer:?}");
    drop(idle);
    // A new client, as that connection may be gone.
    let hub = Hub::new(&server);
    hub.until_well(|| hub.commit("after.txt"))?;
    hub.reads("first.bin", &first_file())?;
    ensure!(server.log().contains("Too many open files"), "there was no shortage");
    server.check_no_panic()?;
    server.stop()
}
