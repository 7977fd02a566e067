//! Backups of the built binary's stores: taken while it serves, brought back elsewhere.

mod support;

use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, Result, ensure};
use ballast_format::hash::Sha256;
use serde_json::{Value, json};
use sha2::Digest as _;
use support::noise;
use support::objects::Objects;
use support::server::{Server, ballast};

const REPO: &str = "admin/model";

fn create(server: &Server) -> Result<()> {
    server.admin(&["repo", "create", REPO]).map(|_| ())
}

fn sha256(content: &[u8]) -> String {
    Sha256::from_bytes(sha2::Sha256::digest(content).into()).to_string()
}

/// Uploads a large file by LFS.
fn upload(server: &Server, content: &[u8]) -> Result<String> {
    let sha256 = sha256(content);
    let batch = json!({
        "operation": "upload", "transfers": ["basic"], "hash_algo": "sha256",
        "objects": [{"oid": sha256, "size": content.len()}],
    });
    let headers = [("content-type", "application/vnd.git-lfs+json")];
    let path = format!("/{REPO}.git/info/lfs/objects/batch");
    let body = batch.to_string();
    let answer = server.request("POST", &path, &server.token, &headers, body.as_bytes())?.json()?;
    if let Some(href) = answer["objects"][0]["actions"]["upload"]["href"].as_str() {
        let put = server.request("PUT", href, "", &[], content)?;
        ensure!(put.status == 200, "{put:?}");
    }
    Ok(sha256)
}

/// Commits one line of operations; the commit's id.
fn commit(server: &Server, operation: &Value) -> Result<String> {
    let header = json!({"key": "header", "value": {"summary": "a change"}});
    let body = format!("{header}\n{operation}\n");
    let headers = [("content-type", "application/x-ndjson")];
    let path = format!("/api/models/{REPO}/commit/main");
    let answer = server.request("POST", &path, &server.token, &headers, body.as_bytes())?;
    ensure!(answer.status == 200, "{answer:?}");
    Ok(answer.json()?["commitOid"].as_str().context("a commit")?.to_owned())
}

fn put_text(server: &Server, path: &str, content: &str) -> Result<String> {
    let value = json!({"path": path, "content": content, "encoding": "utf-8"});
    commit(server, &json!({"key": "file", "value": value}))
}

fn put_large(server: &Server, path: &str, content: &[u8]) -> Result<String> {
    let (oid, size) = (upload(server, content)?, content.len());
    let value = json!({"path": path, "algo": "sha256", "oid": oid, "size": size});
    commit(server, &json!({"key": "lfsFile", "value": value}))
}

/// What a file holds in a commit.
fn read(server: &Server, commit: &str, path: &str) -> Result<Vec<u8>> {
    let url = format!("/{REPO}/resolve/{commit}/{path}");
    let answer = server.request("GET", &url, &server.token, &[], &[])?;
    ensure!(answer.status == 200, "{url}: {}", answer.status);
    Ok(answer.body)
}

/// Runs a command that works on a store itself; what it printed as JSON.
fn run(arguments: &[&str], variables: &[(String, String)]) -> Result<Value> {
    let variables = variables.iter().map(|(name, value)| (name, value));
    let output = ballast(arguments).arg("--json").envs(variables).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "`ballast {arguments:?}`: {error}{text}");
    serde_json::from_str(&text).with_context(|| format!("not JSON: {text}"))
}

/// A server on an empty disk, stopped, into whose folder a backup was brought back.
fn restored(of: &Server, from: &str, bucket: &[&str]) -> Result<Server> {
    let mut server = Server::on(&Objects::disk())?;
    server.stop()?;
    fs::remove_dir_all(server.data())?;
    let data = text(&server.data());
    let arguments = [&["restore", from, "--data", &data], bucket].concat();
    let report = run(&arguments, &[])?;
    ensure!(report["unsound"] == json!([]) && report["repos"] == json!(1), "{report}");
    let again = ballast(&arguments).output()?;
    let error = String::from_utf8_lossy(&again.stderr).into_owned();
    ensure!(!again.status.success() && error.contains("already"), "{error}");
    server.token.clone_from(&of.token);
    server.restart()?;
    let verified = server.admin(&["verify"])?;
    ensure!(verified["summary"]["damaged"] == json!(0), "{verified}");
    Ok(server)
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

#[test]
fn what_was_acknowledged_before_a_backup_is_in_it_while_writers_go_on() -> Result<()> {
    let mut server = Server::on(&Objects::disk())?;
    create(&server)?;
    let large = noise(1, 2_000_000);
    let first = put_large(&server, "w.bin", &large)?;
    let kept = server.scratch("kept")?;
    let (data, kept) = (text(&server.data()), text(&kept));
    let (stop, done) = (AtomicBool::new(false), Mutex::new(Vec::new()));
    let (mut before, mut reports) = (Vec::new(), Vec::new());
    std::thread::scope(|scope| -> Result<()> {
        let writer = scope.spawn(|| -> Result<()> {
            let mut number = 0_u32;
            while !stop.load(Ordering::Relaxed) {
                number += 1;
                let words = format!("words {number}");
                let commit = put_text(&server, "a.txt", &words)?;
                let mut done = done.lock().map_err(|_| anyhow::anyhow!("a test failed"))?;
                done.push((commit, words));
            }
            Ok(())
        });
        for _ in 0..3 {
            // A few commits between two backups.
            let seen = before.len();
            while before.len() < seen + 5 && !writer.is_finished() {
                before.clone_from(&*done.lock().map_err(|_| anyhow::anyhow!("a test failed"))?);
                std::thread::yield_now();
            }
            reports.push(run(&["backup", &kept, "--data", &data], &[])?);
        }
        stop.store(true, Ordering::Relaxed);
        writer.join().map_err(|_| anyhow::anyhow!("the writer died"))?
    })?;
    let bytes = |report: &Value| report["bytes"].as_u64().unwrap_or(u64::MAX);
    ensure!(bytes(&reports[0]) > 2_000_000, "{reports:?}");
    ensure!(bytes(&reports[1]) < 200_000, "only what is new: {reports:?}");
    ensure!(reports.iter().all(|report| report["unsound"] == json!([])), "{reports:?}");
    server.kill()?;
    fs::remove_dir_all(&data)?;

    let copy = restored(&server, &kept, &[])?;
    ensure!(read(&copy, &first, "w.bin")? == large);
    ensure!(before.len() >= 10, "{} commits", before.len());
    for (commit, words) in &before {
        ensure!(read(&copy, commit, "a.txt")? == words.as_bytes(), "{commit}");
    }
    // The same people get in, and it goes on.
    put_text(&copy, "b.txt", "more")?;
    ensure!(read(&copy, "main", "b.txt")? == b"more");
    // What went its own way is not written over.
    let output = ballast(&["backup", &kept, "--data", &text(&copy.data())]).output()?;
    ensure!(output.status.success(), "a successor may go on with the same place");
    Ok(())
}

#[test]
fn a_hub_goes_from_a_bucket_to_a_folder_and_back() -> Result<()> {
    let objects = Objects::s3()?;
    let server = Server::on(&objects)?;
    create(&server)?;
    let large = noise(2, 1_500_000);
    let commit = put_large(&server, "w.bin", &large)?;
    let (scratch, kept) = (server.scratch("settings")?, server.scratch("kept")?);
    let mut variables = objects.variables(&scratch)?;
    variables.push(("BALLAST_DATA".to_owned(), text(&scratch)));
    let report = run(&["backup", &text(&kept)], &variables)?;
    ensure!(report["unsound"] == json!([]), "{report}");
    let copy = restored(&server, &text(&kept), &[])?;
    ensure!(read(&copy, &commit, "w.bin")? == large);

    // From the folder into another place in the bucket, and from there again.
    let bucket = Objects::s3()?;
    let variables = bucket.variables(&scratch)?;
    let value = |name: &str| {
        let found = variables.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.clone()).context("a setting")
    };
    let flags = [
        "--endpoint".to_owned(),
        value("BALLAST_STORAGE_ENDPOINT")?,
        "--access-key".to_owned(),
        value("BALLAST_STORAGE_ACCESS_KEY")?,
        "--secret-file".to_owned(),
        value("BALLAST_STORAGE_SECRET_FILE")?,
        "--allow-http".to_owned(),
    ];
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let data = text(&copy.data());
    let place = bucket.url().to_owned();
    run(&[&["backup", &place, "--data", &data], &flags[..]].concat(), &[])?;
    let again = restored(&server, &place, &flags)?;
    ensure!(read(&again, &commit, "w.bin")? == large);
    Ok(())
}

#[test]
fn the_index_is_made_anew_while_the_hub_is_stopped() -> Result<()> {
    let mut server = Server::on(&Objects::disk())?;
    create(&server)?;
    let commit = put_large(&server, "w.bin", &noise(3, 600_000))?;
    let data = text(&server.data());
    let refused = ballast(&["index", "rebuild", "--data", &data]).output()?;
    let error = String::from_utf8_lossy(&refused.stderr).into_owned();
    ensure!(!refused.status.success() && error.contains(&data), "it is in use: {error}");
    server.stop()?;
    let report = run(&["index", "rebuild", "--data", &data], &[])?;
    ensure!(report["repos"] == json!(1), "{report}");
    let before = server.log().matches("making the index anew").count();
    server.restart()?;
    ensure!(read(&server, &commit, "w.bin")? == noise(3, 600_000));
    let after = server.log().matches("making the index anew").count();
    ensure!(before == after, "the start believes in it");
    let nothing = server.scratch("nothing")?;
    let refused = ballast(&["index", "rebuild", "--data", &text(&nothing)]).output()?;
    ensure!(!refused.status.success(), "there is no hub");
    Ok(())
}

#[test]
fn the_metadata_says_who_there_is_and_what_and_no_secret() -> Result<()> {
    let server = Server::on(&Objects::disk())?;
    create(&server)?;
    let reader = server.user("reader", "read")?;
    let large = noise(4, 300_000);
    put_large(&server, "w.bin", &large)?;
    let older = put_text(&server, "a.txt", "first")?;
    let newer = put_text(&server, "a.txt", "second")?;
    let export = |token: &str| {
        let mut export = ballast(&["export-metadata"]);
        export.env("HF_ENDPOINT", &server.endpoint).env("HF_TOKEN", token).output()
    };
    let output = export(&server.token)?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let printed = String::from_utf8(output.stdout)?;
    ensure!(!printed.contains(&server.token) && !printed.contains(&reader), "a secret");
    let lines: Vec<Value> = printed.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let count = |kind: &str| lines.iter().filter(|line| line["type"] == json!(kind)).count();
    ensure!((count("user"), count("token"), count("repo")) == (2, 2, 1), "{printed}");
    ensure!(count("ref") == 1 && count("commit") == 4, "{printed}");
    let sha256 = sha256(&large);
    let file = |path: &str, commit: &str| {
        let is = |line: &&Value| line["path"] == json!(path) && line["commit"] == json!(commit);
        lines.iter().find(is)
    };
    let found = file("w.bin", &newer).context("the large file")?;
    ensure!(found["sha256"] == json!(sha256) && found["size"] == json!(300_000), "{found}");
    let (first, second) = (file("a.txt", &older), file("a.txt", &newer));
    let blobs =
        (first.context("first")?["gitBlob"].clone(), second.context("second")?["gitBlob"].clone());
    ensure!(blobs.0 != blobs.1, "{printed}");
    let refused = export(&reader)?;
    ensure!(!refused.status.success() && refused.stdout.is_empty());
    Ok(())
}
