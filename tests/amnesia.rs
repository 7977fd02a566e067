//! Every flow again, with the index deleted between any two steps: nothing may be different.

mod support;

use std::fs;

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use support::client::{Python, finish};
use support::noise;
use support::server::Server;

/// What a person can see of the hub, as one value.
fn view(server: &Server, repo: &str) -> Result<Value> {
    // What scans found is of the index too; asking for it scans what was not scanned.
    let mut seen = json!({"policy": server.admin(&["policy", "check", repo])?});
    for path in [
        "/api/whoami-v2".to_owned(),
        "/api/models?full=true&cardData=true".to_owned(),
        format!("/api/models/{repo}?blobs=true"),
        format!("/api/models/{repo}/refs?include_prs=1"),
        format!("/api/models/{repo}/tree/main?recursive=true&expand=true"),
        format!("/api/models/{repo}/commits/main"),
        "/api/ballast/v1/users".to_owned(),
        "/api/ballast/v1/tokens".to_owned(),
    ] {
        seen[&path] = server.get(&path)?;
    }
    Ok(seen)
}

#[test]
fn losing_the_index_between_any_two_steps_changes_no_answer() -> Result<()> {
    let mut server = Server::start()?;
    let client = Python::with("hub-2.4")?;
    let home = server.scratch("home")?;
    let folder = server.scratch("folder")?;
    fs::write(folder.join("README.md"), "---\nlicense: mit\nlanguage: fr\n---\n# Forgetful\n")?;
    fs::write(folder.join("a.safetensors"), noise(11, 2_000_000))?;
    fs::write(folder.join("b.bin"), noise(12, 1_500_000))?;
    let a = folder.join("a.safetensors").to_string_lossy().into_owned();
    let b = folder.join("b.bin").to_string_lossy().into_owned();
    let card = folder.join("README.md").to_string_lossy().into_owned();
    let steps: &[&[&str]] = &[
        &["repos", "create", "admin/forgetful"],
        &["upload", "admin/forgetful", &a, "a.safetensors"],
        &["upload", "admin/forgetful", &b, "b.bin"],
        &["upload", "admin/forgetful", &card, "README.md"],
        &["repos", "tag", "create", "admin/forgetful", "v1"],
        &["repos", "branch", "create", "admin/forgetful", "next"],
        &["repos", "settings", "admin/forgetful", "--gated", "auto"],
        &["repos", "delete-files", "admin/forgetful", "b.bin"],
    ];
    for step in steps {
        finish(client.command("hf", &server, &server.token, &home).args(*step))?;
        let before = view(&server, "admin/forgetful")?;
        server.lose_index()?;
        ensure!(view(&server, "admin/forgetful")? == before, "after {step:?}");
    }
    let whole =
        server.request("GET", "/admin/forgetful/resolve/v1/b.bin", &server.token, &[], &[])?;
    ensure!(whole.body == noise(12, 1_500_000), "the tagged file came back different");
    let verified = server.admin(&["verify"])?;
    ensure!(verified["summary"]["damaged"] == json!(0), "{verified}");
    Ok(())
}

#[test]
fn a_client_may_refer_to_its_earlier_upload_after_the_index_was_lost() -> Result<()> {
    let mut server = Server::start()?;
    let client = Python::with("hub-2.4")?;
    let (home, folder) = (server.scratch("home")?, server.scratch("folder")?);
    let file = folder.join("w.bin");
    fs::write(&file, noise(13, 3_000_000))?;
    let file = file.to_string_lossy().into_owned();
    let upload = |server: &Server, repo: &str| {
        let mut command = client.command("hf", server, &server.token, &home);
        finish(command.args(["upload", repo, &file, "w.bin"]))
    };
    upload(&server, "admin/one")?;
    server.lose_index()?;
    // The same cache folder: the client names the xorbs that it sent before, without asking.
    upload(&server, "admin/two")?;
    let answer = server.request("GET", "/admin/two/resolve/main/w.bin", "", &[], &[])?;
    ensure!(answer.body == noise(13, 3_000_000));
    Ok(())
}
