//! Bits that turn by themselves, objects that are cut or gone: found before a byte of them reaches
//! anybody, named with the files that they affect, and mended by whoever sends the file again (R4).

#![expect(clippy::print_stderr, reason = "what was harmed, for whoever has to do it again")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use support::client::{Python, finish};
use support::noise;
use support::objects::Objects;
use support::server::{self, Server};

/// How often something is asked for that comes by itself.
const TRIES: usize = 1000;

/// A hub on a disk, with files of both sizes in two repos.
struct Rot {
    server: Server,
    client: Python,
    files: Vec<(String, Vec<u8>)>,
    dice: u64,
}

/// What happens to an object.
#[derive(Clone, Copy, Debug)]
enum Harm {
    Flip,
    Cut,
    Empty,
    Gone,
}

impl Rot {
    fn new(settings: &[(&str, &str)]) -> Result<Self> {
        let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = seed.unwrap_or_else(|| u64::from(std::process::id()));
        eprintln!("SEED={seed}");
        let mut server = Server::on(&Objects::disk())?;
        for (name, value) in settings {
            server.set(name, value);
        }
        server.stop()?;
        server.restart()?;
        let mut rot = Self { server, client: Python::with("hub-2.4")?, files: vec![], dice: seed };
        for (repo, seed) in [("admin/one", 1), ("admin/two", 2)] {
            rot.upload(repo, "w.bin", &noise(seed, 900_000))?;
            rot.upload(repo, "docs/a.txt", format!("the words of {repo}").as_bytes())?;
        }
        for text in ["damaged", "corrupt", "hash", "could not", "missing", "gone", "set aside"] {
            rot.server.expect_in_log(text);
        }
        for text in ["damage affects", "gc stopped", "went on later", "did not come to its end"] {
            rot.server.expect_in_log(text);
        }
        Ok(rot)
    }

    fn upload(&mut self, repo: &str, name: &str, content: &[u8]) -> Result<()> {
        let path = self.server.scratch("content")?.join("file");
        fs::write(&path, content)?;
        // A client that remembers nothing.
        let number = self.below(u64::MAX);
        let home = self.server.scratch(&format!("home-{number}"))?;
        let mut hf = self.client.command("hf", &self.server, &self.server.token, &home);
        finish(hf.args(["upload", repo]).arg(&path).arg(name))?;
        let url = format!("/{repo}/resolve/main/{name}");
        self.files.retain(|(known, _)| *known != url);
        self.files.push((url, content.to_vec()));
        Ok(())
    }

    fn below(&mut self, most: u64) -> u64 {
        self.dice = self.dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.dice >> 11) % most.max(1)
    }

    /// Stored objects of a kind, the largest first.
    fn stored(&self, kind: &str) -> Result<Vec<PathBuf>> {
        let mut found = server::files(&self.server.data().join("objects/hub").join(kind))?;
        found.sort_by_key(|path| std::cmp::Reverse(path.metadata().map_or(0, |meta| meta.len())));
        Ok(found)
    }

    fn harm(&mut self, path: &Path, harm: Harm) -> Result<()> {
        let mut bytes = fs::read(path)?;
        let length = bytes.len() as u64;
        match harm {
            Harm::Flip => {
                // Not the nonce of a xorb's footer, which means nothing.
                let mut at = self.below(length);
                while (17..=20).contains(&(length - at)) {
                    at = self.below(length);
                }
                let bit = self.below(8);
                bytes[usize::try_from(at)?] ^= 1 << bit;
                eprintln!("bit {bit} of byte {at} of {length}: {}", path.display());
            }
            Harm::Cut => bytes.truncate(usize::try_from(self.below(length))?),
            Harm::Empty => bytes.clear(),
            Harm::Gone => return Ok(fs::remove_file(path)?),
        }
        Ok(fs::write(path, bytes)?)
    }

    /// Reads every file. What comes is right, or nothing comes: how many that are.
    fn read_all(&self) -> Result<usize> {
        let mut refused = 0;
        for (url, content) in &self.files {
            let Ok(answer) = self.server.request("GET", url, &self.server.token, &[], &[]) else {
                refused += 1;
                continue;
            };
            if answer.status == 200 {
                ensure!(answer.body == *content, "{url}: wrong bytes");
                continue;
            }
            // Never a 404: clients would remember that there is no such file.
            ensure!(answer.status == 503, "{url}: {answer:?}");
            refused += 1;
        }
        Ok(refused)
    }

    /// What a command printed as JSON, whether it succeeded or not, and whether it did.
    fn ask(&self, arguments: &[&str]) -> Result<(Value, bool)> {
        let output = server::ballast(arguments)
            .arg("--json")
            .env("HF_ENDPOINT", &self.server.endpoint)
            .env("HF_TOKEN", &self.server.token)
            .output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let value = serde_json::from_str(&text).unwrap_or(Value::Null);
        Ok((value, output.status.success()))
    }
}

/// The key of an object on disk, as it is written in reports.
fn key_of(path: &Path) -> String {
    let path = path.display().to_string();
    path.split_once("/objects/").map_or_else(|| path.clone(), |(_, key)| key.to_owned())
}

fn is_only_copy(path: &Path) -> bool {
    path.parent().and_then(|folder| server::files(folder).ok()).is_some_and(|all| all.len() == 1)
}

#[test]
fn no_byte_of_a_damaged_object_reaches_a_client_and_verify_names_it() -> Result<()> {
    let mut rot = Rot::new(&[("BALLAST_SCRUB_INTERVAL", "")])?;
    for kind in ["xorb", "shard", "pack"] {
        for harm in [Harm::Flip, Harm::Flip, Harm::Cut, Harm::Empty, Harm::Gone] {
            // Small packs, too; of xorbs any. Two repos that were made in one second begin alike,
            // and of such a pack there are two copies: nobody misses one.
            let mut all = rot.stored(kind)?;
            all.retain(|path| is_only_copy(path));
            let path = all[usize::try_from(rot.below(all.len() as u64))?].clone();
            let sound = fs::read(&path)?;
            // Without the index, and with nothing in memory: all is read from the damaged store.
            rot.server.stop()?;
            rot.server.forget()?;
            rot.harm(&path, harm)?;
            rot.server.restart()?;
            rot.read_all().with_context(|| format!("{kind} {harm:?}"))?;
            let (report, is_sound) = rot.ask(&["verify"])?;
            let harmed = key_of(&path);
            ensure!(!is_sound, "{kind} {harm:?} of {harmed}: verify found nothing: {report}");
            let findings = report["findings"].as_array().context("findings")?.clone();
            // Of what is gone without a trace, the hash is named; of the rest the object.
            let hash = path.parent().and_then(Path::file_name).context("a hash")?;
            let hash = hash.to_string_lossy().into_owned();
            let names = |finding: &Value| finding["object"].to_string().contains(&hash);
            let lost = |finding: &Value| finding["problem"].to_string().contains("missing");
            let is_named = findings.iter().any(|finding| names(finding) || lost(finding));
            ensure!(is_named, "{kind} {harm:?} of {harmed}: {report}");
            fs::create_dir_all(path.parent().context("a folder")?)?;
            fs::write(&path, sound)?;
        }
    }
    rot.server.stop()?;
    rot.server.forget()?;
    rot.server.restart()?;
    let (report, is_sound) = rot.ask(&["verify"])?;
    ensure!(is_sound, "what was put back is trusted again: {report}");
    ensure!(rot.read_all()? == 0);
    Ok(())
}

#[test]
fn who_sends_a_damaged_file_again_mends_it() -> Result<()> {
    let mut rot = Rot::new(&[("BALLAST_SCRUB_INTERVAL", "")])?;
    // One after the other: who can't read what a file is made of can't see what is wrong with that.
    for kind in ["xorb", "shard"] {
        rot.server.stop()?;
        for path in rot.stored(kind)? {
            rot.harm(&path, Harm::Flip)?;
        }
        rot.server.restart()?;
        let (report, is_sound) = rot.ask(&["verify"])?;
        ensure!(!is_sound && report["summary"]["filesAffected"] == json!(2), "{kind}: {report}");
        // What is known of damage survives the loss of the index.
        rot.server.lose_index()?;
        for (repo, seed) in [("admin/one", 1), ("admin/two", 2)] {
            rot.upload(repo, "w.bin", &noise(seed, 900_000))?;
        }
        ensure!(rot.read_all()? == 0, "{kind}: both are whole again");
    }
    rot.server.lose_index()?;
    ensure!(rot.read_all()? == 0, "and stay so");
    let (status, is_sound) = rot.ask(&["scrub", "status"])?;
    let damaged = status["damaged"].as_array().context("damaged")?;
    let healed = damaged.iter().filter(|damaged| damaged["healed"] == json!(true)).count();
    ensure!(healed >= 2 && status["affected"] == json!([]) && is_sound, "{status}");
    Ok(())
}

#[test]
fn the_scrub_finds_damage_by_itself_and_names_the_files() -> Result<()> {
    let mut rot = Rot::new(&[("BALLAST_SCRUB_INTERVAL", "1s")])?;
    rot.server.stop()?;
    let path = rot.stored("xorb")?[0].clone();
    rot.harm(&path, Harm::Flip)?;
    // Everything is due again: what was read a moment ago would not be.
    rot.server.pass_days(1);
    rot.server.restart()?;
    for _ in 0..TRIES {
        if rot.server.log().contains("damage affects this file") {
            break;
        }
        rot.ask(&["scrub", "status"])?;
    }
    let status = rot.ask(&["scrub", "status"])?.0;
    let damaged = status["damaged"].to_string();
    ensure!(damaged.contains(&key_of(&path)), "{status}");
    ensure!(status["affected"][0]["path"] == json!("w.bin"), "{status}");
    ensure!(status["affected"][0]["repo"].to_string().contains("admin/"), "{status}");
    let metrics = rot.server.request("GET", "/metrics", "", &[], &[])?;
    let metrics = String::from_utf8_lossy(&metrics.body).into_owned();
    ensure!(metrics.contains("scrub_damaged_objects 1"), "{metrics}");
    let reader = rot.server.user("reader", "read")?;
    for (token, code) in [(reader.as_str(), 403), ("", 401)] {
        let answer = rot.server.request("GET", "/api/ballast/v1/scrub", token, &[], &[])?;
        ensure!(answer.status == code, "{answer:?}");
    }
    Ok(())
}

#[test]
fn a_damaged_log_ends_collection_and_takes_nothing_else_away() -> Result<()> {
    let mut rot = Rot::new(&[("BALLAST_SCRUB_INTERVAL", "")])?;
    // A repo to collect.
    rot.upload("admin/gone", "x.bin", &noise(9, 300_000))?;
    rot.files.pop();
    rot.server.admin(&["repo", "delete", "admin/gone"])?;
    let id = rot.server.get("/api/models/admin/one")?["_id"].as_str().context("an id")?.to_owned();
    rot.server.stop()?;
    rot.server.pass_days(60);
    // Not the last entry of its log: nothing would prove it.
    let entry = rot.server.data().join(format!("objects/hub/log/repo/{id}/{:020}", 2));
    let sound = fs::read(&entry)?;
    rot.harm(&entry, Harm::Flip)?;
    rot.server.forget()?;
    rot.server.restart()?;
    ensure!(rot.read_all()? <= 2, "one repo of two");
    let before = rot.stored("xorb")?;
    let (answer, is_done) = rot.ask(&["gc"])?;
    ensure!(!is_done, "{answer}");
    let (report, is_sound) = rot.ask(&["verify"])?;
    ensure!(!is_sound && report.to_string().contains("/log/repo/"), "{report}");
    // Mended, it goes on, until what it condemned is what is damaged.
    fs::write(&entry, sound)?;
    rot.server.lose_index()?;
    let mut list = None;
    for _ in 0..5 {
        let (answer, _) = rot.ask(&["gc"])?;
        if answer["summary"]["state"] == json!("waiting") {
            list = Some(answer["summary"]["epoch"].as_u64().context("an epoch")?);
            break;
        }
    }
    let epoch = list.context("nothing was condemned")?;
    rot.server.stop()?;
    rot.server.pass_days(10);
    let list = rot.server.data().join(format!("objects/hub/gc/{epoch:020}"));
    let sound = fs::read(&list)?;
    rot.harm(&list, Harm::Flip)?;
    rot.server.restart()?;
    let (answer, is_done) = rot.ask(&["gc"])?;
    ensure!(!is_done, "{answer}");
    ensure!(rot.stored("xorb")? == before, "nothing is deleted on its word");
    ensure!(rot.read_all()? == 0, "reading goes on");
    let (report, is_sound) = rot.ask(&["verify"])?;
    ensure!(!is_sound && report.to_string().contains(&key_of(&list)), "{report}");
    fs::write(&list, sound)?;
    let (answer, is_done) = rot.ask(&["gc"])?;
    ensure!(is_done && answer["summary"]["state"] == json!("done"), "{answer}");
    ensure!(rot.stored("xorb")?.len() < before.len());
    ensure!(rot.read_all()? == 0);
    Ok(())
}
