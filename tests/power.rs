//! The power goes: nothing that was acknowledged is lost, and the hub starts by itself.
//!
//! The data folder is on a file system in an image on a disk that can copy files in one instant.
//! Such a copy has what had reached the image and nothing that was still on its way, which is what
//! a disk has after the power went. A writer goes on all the while; from each copy a server is
//! started, and everything that was acknowledged before the copy was made is read and compared.
//!
//! `POWER_CUTS` says how many (30 if nothing is said), `SEED` when. It mounts, so it needs root.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use ballast_testkit::clock::Dice;
use ballast_testkit::xet::sha256;
use serde_json::json;
use support::disk::{Mounted, run};
use support::http;
use support::noise;
use support::objects::Objects;
use support::server::Server;

const REPO: &str = "admin/power";
/// Files that are written at the same time.
const WRITERS: u64 = 3;
/// Of those that were acknowledged before an earlier cut, so many are read again.
const OLD_FILES: usize = 20;
/// How long one more commit may take.
const PATIENCE: Duration = Duration::from_mins(1);

fn setting(name: &str, default: u64) -> Result<u64> {
    let text = std::env::var(name).ok().filter(|text| !text.is_empty());
    text.map_or(Ok(default), |text| text.parse().with_context(|| format!("`{name}` is `{text}`")))
}

/// The disk that can be cut off.
struct Rig {
    disk: PathBuf,
    cut: PathBuf,
    _outer: Mounted,
}

impl Rig {
    fn new(folder: &Path) -> Result<Self> {
        let image = folder.join("outer.img");
        fs::File::create(&image)?.set_len(12 << 30)?;
        run("mkfs.xfs", &["-q", "-m", "reflink=1", &image.to_string_lossy()])?;
        let outer = Mounted::image(&image, &folder.join("outer"))?;
        let disk = outer.place().join("disk.img");
        fs::File::create(&disk)?.set_len(4 << 30)?;
        run("mkfs.ext4", &["-q", &disk.to_string_lossy()])?;
        Ok(Self { disk, cut: outer.place().join("cut.img"), _outer: outer })
    }

    /// What would be on the disk if the power went now.
    fn cut(&self) -> Result<()> {
        let (disk, cut) = (self.disk.to_string_lossy(), self.cut.to_string_lossy());
        run("cp", &["--reflink=always", &disk, &cut])
    }
}

/// A file that was acknowledged.
#[derive(Clone, Debug)]
struct Acked {
    commit: String,
    path: String,
    seed: u64,
    length: usize,
}

#[derive(Default)]
struct Log {
    acked: Mutex<Vec<Acked>>,
    grown: Condvar,
    is_over: AtomicBool,
}

/// Where and as whom to write.
struct Target {
    endpoint: String,
    token: String,
}

impl Target {
    fn of(server: &Server) -> Self {
        Self { endpoint: server.endpoint.clone(), token: server.token.clone() }
    }

    fn send(&self, method: &str, path: &str, body: &[u8]) -> Result<http::Answer> {
        let path = path.strip_prefix(&self.endpoint).unwrap_or(path);
        let token = if path.starts_with("/api/ballast/lfs") { "" } else { &self.token };
        let url = format!("{}{path}", self.endpoint);
        let kind = [("content-type", "application/json")];
        let agent = http::agent(PATIENCE);
        let answer = http::send(&agent, method, &url, token, &kind, body)?;
        ensure!((200..300).contains(&answer.status), "{method} {path}: {answer:?}");
        Ok(answer)
    }

    /// Commits a file, small ones in the commit itself and others by LFS; the commit's id.
    fn commit(&self, path: &str, content: &[u8]) -> Result<String> {
        let value = if content.len() < 5000 {
            let text: String = content.iter().map(|byte| char::from(byte % 64 + 32)).collect();
            json!({"key": "file", "value": {"path": path, "content": text}})
        } else {
            let oid = sha256(content).to_string();
            let objects = json!([{"oid": oid, "size": content.len()}]);
            let asked = json!({"operation": "upload", "objects": objects});
            let batch = format!("/{REPO}.git/info/lfs/objects/batch");
            let answer = self.send("POST", &batch, asked.to_string().as_bytes())?.json()?;
            let href = answer["objects"][0]["actions"]["upload"]["href"].as_str();
            self.send("PUT", href.context("where to send it")?, content)?;
            let size = content.len();
            json!({"key": "lfsFile", "value": {"path": path, "oid": oid, "size": size}})
        };
        let lines = format!("{}\n{value}", json!({"key": "header", "value": {"summary": path}}));
        let answer =
            self.send("POST", &format!("/api/models/{REPO}/commit/main"), lines.as_bytes())?;
        let answer = answer.json()?;
        Ok(answer["commitOid"].as_str().context("a commit has an id")?.to_owned())
    }
}

impl Acked {
    fn check(&self, target: &Target) -> Result<()> {
        let content = noise(self.seed, self.length);
        let content = match self.length {
            ..5000 => content.iter().map(|byte| byte % 64 + 32).collect(),
            _ => content,
        };
        for revision in [self.commit.as_str(), "main"] {
            let path = format!("/{REPO}/resolve/{revision}/{}", self.path);
            let found = target.send("GET", &path, b"")?;
            ensure!(found.body == content, "{path} has other bytes");
        }
        Ok(())
    }
}

fn write(log: &Log, target: &Target, writer: u64, mut dice: Dice) -> Result<()> {
    for serial in 0.. {
        if log.is_over.load(Ordering::Relaxed) {
            break;
        }
        let seed = dice.draw();
        let most = if dice.happens(300) { 200_000 } else { 3000 };
        let length = 1 + usize::try_from(dice.below(most))?;
        let path = format!("{writer}/{serial}");
        let commit = target.commit(&path, &noise(seed, length))?;
        log.acked.lock().expect("no panic").push(Acked { commit, path, seed, length });
        log.grown.notify_all();
    }
    Ok(())
}

/// Cuts the power when some more was acknowledged, and looks at what is there.
fn cut(log: &Log, rig: &Rig, target: &Target, known: usize, dice: &mut Dice) -> Result<usize> {
    let enough = known + usize::try_from(dice.below(12))?;
    let acked = log.acked.lock().expect("no panic");
    let waiting = |acked: &mut Vec<Acked>| acked.len() < enough;
    let waited = log.grown.wait_timeout_while(acked, PATIENCE, waiting).expect("no panic");
    ensure!(!waited.1.timed_out(), "the writers do not get on");
    // Before the cut, so that all of it was acknowledged before.
    let acked = waited.0.clone();
    rig.cut()?;

    let mut server = Server::unstarted(&Objects::disk())?;
    server.mount_image(&rig.cut)?;
    server.begin()?;
    let after = Target { endpoint: server.endpoint.clone(), token: target.token.clone() };
    server.token.clone_from(&target.token);
    let (old, new) = acked.split_at(known.min(acked.len()));
    for file in new {
        file.check(&after).with_context(|| format!("acknowledged since the last cut: {file:?}"))?;
    }
    for _ in 0..OLD_FILES.min(old.len()) {
        let file = &old[usize::try_from(dice.below(old.len() as u64))?];
        file.check(&after).with_context(|| format!("acknowledged long ago: {file:?}"))?;
    }
    let verified = server.admin(&["verify"])?;
    ensure!(verified["summary"]["damaged"] == json!(0), "{verified:#}");
    server.kill()?;
    Ok(acked.len())
}

#[test]
fn what_was_acknowledged_is_there_after_the_power_went() -> Result<()> {
    let (seed, cuts) = (setting("SEED", 20_261_125)?, setting("POWER_CUTS", 30)?);
    println!("SEED={seed} POWER_CUTS={cuts}");
    let folder = tempfile::tempdir()?;
    let rig = Rig::new(folder.path())?;
    let mut server = Server::unstarted(&Objects::disk())?;
    server.mount_image(&rig.disk)?;
    server.begin()?;
    let target = Target::of(&server);
    let body = json!({"type": "model", "name": "power"}).to_string();
    target.send("POST", "/api/repos/create", body.as_bytes())?;
    let log = Log::default();
    let mut dice = Dice::new(seed);
    let result = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let (log, target) = (&log, &target);
                scope.spawn(move || write(log, target, writer, Dice::new(seed + writer + 1)))
            })
            .collect();
        let mut known = 0;
        let mut cut_all = || {
            for number in 0..cuts {
                known = cut(&log, &rig, &target, known, &mut dice)
                    .with_context(|| format!("SEED={seed}, cut {number}"))?;
                fs::remove_file(&rig.cut)?;
            }
            Ok::<(), anyhow::Error>(())
        };
        let result = cut_all();
        log.is_over.store(true, Ordering::Relaxed);
        for writer in writers {
            writer.join().expect("no panic")?;
        }
        result
    });
    result?;
    let acked = log.acked.lock().expect("no panic");
    println!("{cuts} cuts, {} commits acknowledged", acked.len());
    for file in &*acked {
        file.check(&target)?;
    }
    server.stop()
}
