//! Uploading: what is sent a second time, and what a crash in the middle leaves.

mod support;

use std::fs;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use support::client::{Python, finish};
use support::noise;
use support::server::Server;

const MIB: usize = 1024 * 1024;

/// Bytes of all xorbs in the store: what uploads have really added.
fn stored(server: &Server) -> Result<u64> {
    let objects = server.objects()?.into_iter();
    Ok(objects.filter(|(name, _)| name.contains("/xorb/")).map(|(_, size)| size).sum())
}

/// `hf upload` from a client that knows nothing yet.
fn upload(server: &Server, client: &Python, repo: &str, file: &Path) -> Result<()> {
    let home = tempfile::tempdir()?;
    let mut command = client.command("hf", server, &server.token, home.path());
    finish(command.args(["upload", repo]).arg(file).arg("w.bin")).map(|_| ())
}

#[test]
fn a_second_version_sends_little_and_a_copy_sends_nothing() -> Result<()> {
    let server = Server::start()?;
    let client = Python::with("hub-2.4")?;
    let size = 1024 * MIB;
    let content = noise(21, size);
    let file = server.scratch("content")?.join("w.bin");
    fs::write(&file, &content)?;
    upload(&server, &client, "admin/first", &file)?;
    let first = stored(&server)?;
    ensure!(first > size as u64 && first < size as u64 + 8 * MIB as u64, "stored {first}");

    upload(&server, &client, "admin/copy", &file)?;
    let copied = stored(&server)? - first;
    ensure!(copied == 0, "an identical file sent {copied}");

    // One per cent changed in the middle.
    let mut second = fs::OpenOptions::new().write(true).open(&file)?;
    second.seek(SeekFrom::Start(size as u64 / 2))?;
    second.write_all(&noise(22, size / 100))?;
    drop(second);
    upload(&server, &client, "admin/first", &file)?;
    let changed = stored(&server)? - first;
    let most = size as u64 * 8 / 100;
    ensure!(changed <= most, "one per cent changed sent {changed} bytes");

    // One MiB inserted at the front.
    fs::write(&file, [noise(23, MIB).as_slice(), &content].concat())?;
    upload(&server, &client, "admin/first", &file)?;
    let inserted = stored(&server)? - first - changed;
    ensure!(inserted <= most, "a MiB at the front sent {inserted} bytes");
    println!("sent again: copy 0, changed {changed}, inserted {inserted} of {size} bytes");
    Ok(())
}

#[test]
fn a_crash_at_any_moment_leaves_whole_commits_and_a_retry_works() -> Result<()> {
    let seed = std::env::var("SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(20_261_124);
    println!("SEED={seed}");
    let mut server = Server::start()?;
    let client = Python::with("hub-2.4")?;
    let moments = noise(seed, 8 * 12);
    let content = server.scratch("content")?;
    server.admin(&["repo", "create", "admin/crash"])?;
    for (round, moment) in moments.chunks(8).enumerate() {
        let file = content.join(format!("{round}.bin"));
        fs::write(&file, noise(100 + round as u64, 6 * MIB))?;
        let home = tempfile::tempdir()?;
        let arguments = |path: &Path| {
            let name = format!("{round}.bin");
            ["upload".into(), "admin/crash".into(), path.to_string_lossy().into_owned(), name]
        };
        let mut command = client.command("hf", &server, &server.token, home.path());
        command.args(arguments(&file)).stdout(Stdio::null()).stderr(Stdio::null());
        let mut running = command.spawn()?;
        let moment = u64::from_le_bytes(moment.try_into()?) % 1600;
        #[expect(clippy::disallowed_methods, reason = "any moment will do for a crash")]
        std::thread::sleep(Duration::from_millis(200 + moment));
        server.kill()?;
        let _ = running.kill();
        let acknowledged = running.wait()?.success();
        server.restart()?;
        let path = format!("/admin/crash/resolve/main/{round}.bin");
        let found = server.request("GET", &path, &server.token, &[], &[])?;
        ensure!(
            !acknowledged || found.status == 200,
            "round {round}: an acknowledged commit is gone"
        );
        if found.status == 200 {
            ensure!(found.body == noise(100 + round as u64, 6 * MIB), "round {round}: other bytes");
        }
        let mut retry = client.command("hf", &server, &server.token, home.path());
        finish(retry.args(arguments(&file)))
            .with_context(|| format!("round {round}: the retry"))?;
        let found = server.request("GET", &path, &server.token, &[], &[])?;
        ensure!(found.body == noise(100 + round as u64, 6 * MIB), "round {round}: after the retry");
    }
    let verified = server.admin(&["verify"])?;
    ensure!(verified["summary"]["damaged"] == json!(0), "{verified}");
    Ok(())
}
