//! Downloading, as clients do it: whole, in ranges, from the cache, by every way there is.

mod support;

use anyhow::{Result, ensure};
use support::client::Python;
use support::objects::Objects;
use support::server::Server;
use support::{noise, server};

/// A model with one large file that came by LFS, and its content.
fn with_file(server: &Server, repo: &str, content: &[u8]) -> Result<String> {
    let name = repo.split('/').next_back().unwrap_or(repo);
    let body = serde_json::json!({"name": name});
    let created = server.request(
        "POST",
        "/api/repos/create",
        &server.token,
        &[("content-type", "application/json")],
        body.to_string().as_bytes(),
    )?;
    ensure!(created.status == 200, "{created:?}");
    let path = server.scratch("content")?.join("file.bin");
    std::fs::write(&path, content)?;
    let home = server.scratch("home")?;
    let mut upload = Python::with("hub-2.4")?.command("hf", server, &server.token, &home);
    upload.args(["upload", repo]).arg(&path).arg("file.bin");
    support::client::finish(&mut upload)?;
    Ok(format!("/{repo}/resolve/main/file.bin"))
}

#[test]
fn any_range_of_a_file_is_what_was_uploaded() -> Result<()> {
    let server = Server::start()?;
    let content = noise(5, 3_000_000);
    let url = with_file(&server, "admin/ranges", &content)?;
    let size = content.len();
    for (range, start, end) in [
        ("bytes=0-0", 0, 1),
        ("bytes=0-", 0, size),
        ("bytes=-1", size - 1, size),
        ("bytes=65535-65537", 65_535, 65_538),
        ("bytes=1000000-2000000", 1_000_000, 2_000_001),
        ("bytes=2999999-9999999", size - 1, size),
    ] {
        let answer = server.request("GET", &url, "", &[("range", range)], &[])?;
        ensure!(answer.status == 206, "{range}: {}", answer.status);
        let expected = format!("bytes {start}-{}/{size}", end - 1);
        ensure!(answer.header("content-range") == Some(&expected), "{range}: {answer:?}");
        ensure!(answer.body == content[start..end], "{range}: wrong bytes");
    }
    let whole = server.request("GET", &url, "", &[], &[])?;
    ensure!(whole.status == 200 && whole.body == content);
    let past = server.request("GET", &url, "", &[("range", "bytes=3000000-")], &[])?;
    ensure!(past.status == 416 && past.header("content-range") == Some("bytes */3000000"));
    Ok(())
}

#[test]
fn damaged_bytes_never_reach_a_client() -> Result<()> {
    // Where a bit can be turned in a file.
    let mut server = Server::on(&Objects::disk())?;
    let content = noise(6, 2_000_000);
    let url = with_file(&server, "admin/damaged", &content)?;
    server.stop()?;
    let files = server::files(&server.data().join("objects/hub/xorb"))?;
    let xorb = files.iter().find(|path| path.metadata().is_ok_and(|found| found.len() > 1_000_000));
    let xorb = xorb.ok_or_else(|| anyhow::anyhow!("no xorb among {files:?}"))?;
    let mut bytes = std::fs::read(xorb)?;
    bytes[1_000_000] ^= 1;
    std::fs::write(xorb, bytes)?;
    server.restart()?;
    for what in ["damaged", "corrupt", "hash"] {
        server.expect_in_log(what);
    }
    // The head says 200 before the bytes are read, so the damage shows as a body cut short.
    let answer = server.request("GET", &url, "", &[], &[]);
    let cut = answer.map_or(true, |answer| answer.status != 200 || answer.body != content);
    ensure!(cut, "the damaged file was served as if it were whole");
    let sound = server.request("GET", &url, "", &[("range", "bytes=0-1000")], &[])?;
    ensure!(sound.body == content[..1001], "what is sound is still served");
    let output = server::ballast(&["verify", "--json"])
        .env("HF_ENDPOINT", &server.endpoint)
        .env("HF_TOKEN", &server.token)
        .output()?;
    let report = String::from_utf8_lossy(&output.stdout);
    ensure!(!output.status.success(), "verify found nothing: {report}");
    ensure!(report.contains("admin/damaged") && report.contains("file.bin"), "{report}");
    Ok(())
}
