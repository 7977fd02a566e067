//! The audit log of the built binary: what is in it, what is not, and what shows that it was
//! changed.

mod support;

use std::fs;
use std::process::Output;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use support::objects::Objects;
use support::server::{Server, ballast};

fn audit(server: &Server, arguments: &[&str]) -> Result<Output> {
    let mut command = ballast(&["audit"]);
    command.args(arguments).env("HF_ENDPOINT", &server.endpoint).env("HF_TOKEN", &server.token);
    Ok(command.output()?)
}

/// The entries of a listing.
fn entries(server: &Server, arguments: &[&str]) -> Result<Vec<Value>> {
    let listed = audit(server, &[&["list", "--json"], arguments].concat())?;
    ensure!(listed.status.success(), "{listed:?}");
    let text = String::from_utf8(listed.stdout)?;
    text.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}

/// A walk: whether it found nothing, and what it printed.
fn walk(server: &Server, arguments: &[&str]) -> Result<(bool, Value)> {
    let walked = audit(server, &[&["verify", "--json"], arguments].concat())?;
    let printed = serde_json::from_slice(&walked.stdout)
        .with_context(|| format!("{}", String::from_utf8_lossy(&walked.stderr)))?;
    Ok((walked.status.success(), printed))
}

/// A hub in which something of everything has happened; the secrets that were seen.
fn scene() -> Result<(Server, Vec<String>)> {
    let mut server = Server::on(&Objects::disk())?;
    let ann = server.user("ann", "write")?;
    server.admin(&["org", "create", "lab"])?;
    server.admin(&["org", "add", "lab", "ann", "--role", "write"])?;
    server.admin(&["quota", "set", "lab", "--bytes", "10GiB", "--repos", "5"])?;
    let shown = server.admin(&["quota", "show", "lab"])?;
    ensure!(shown["bytes"]["limit"] == json!(10_u64 << 30), "{shown}");
    server.admin(&["repo", "create", "lab/net", "--visibility", "private"])?;
    server.admin(&[
        "repo",
        "settings",
        "lab/net",
        "--gated",
        "manual",
        "--visibility",
        "public",
    ])?;
    server.admin(&["repo", "move", "lab/net", "lab/grid"])?;
    let header = json!({"key": "header", "value": {"summary": "add"}});
    let file = json!({"key": "file", "value": {"path": "a", "content": "a"}});
    let commit = format!("{header}\n{file}\n");
    let path = "/api/models/lab/grid/commit/main";
    let committed = server.request("POST", path, &ann, &[], commit.as_bytes())?;
    ensure!(committed.status == 200, "{committed:?}");
    let bert = server.user("bert", "write")?;
    let asked = server.request("POST", "/lab/grid/ask-access", &bert, &[], b"{}")?;
    ensure!(asked.status == 200, "{asked:?}");
    server.admin(&["gc"])?;
    let tokens = server.admin(&["token", "list", "--user", "bert"])?;
    let id = tokens[0]["id"].as_str().context("an id")?.to_owned();
    server.admin(&["token", "revoke", &id])?;
    let guess = "hf_a_guess_that_must_not_be_written_down".to_owned();
    for _ in 0..3 {
        let refused = server.request("GET", "/api/whoami-v2", &guess, &[], &[])?;
        ensure!(refused.status == 401, "{refused:?}");
    }
    server.admin(&["repo", "delete", "lab/grid"])?;
    // What was not written down yet is now.
    server.stop()?;
    server.restart()?;
    let secrets = vec![server.token.clone(), ann, bert, guess];
    Ok((server, secrets))
}

#[test]
fn every_act_is_listed_with_who_did_it_and_no_secret_is() -> Result<()> {
    let (server, secrets) = scene()?;
    let all = entries(&server, &[])?;
    let has = |act: &str, details: Value| -> Result<()> {
        let is = |entry: &&Value| {
            let mut details = details.as_object().into_iter().flatten();
            entry["act"] == json!(act) && details.all(|(name, value)| entry[name] == *value)
        };
        ensure!(all.iter().any(|entry| is(&entry)), "no `{act}` {details} in {all:#?}");
        Ok(())
    };
    let by = json!("admin");
    has("user created", json!({"by": by, "user": "ann", "admin": false}))?;
    has("token created", json!({"by": by, "user": "ann", "role": "write"}))?;
    has("token revoked", json!({"by": by}))?;
    has("organisation created", json!({"by": by, "org": "lab"}))?;
    has("member set", json!({"by": by, "org": "lab", "user": "ann", "role": "write"}))?;
    has("quota set", json!({"by": by, "owner": "lab", "repos": 5, "bytes": 10_u64 << 30}))?;
    has("repo created", json!({"by": by, "repo": "lab/net", "visibility": "private"}))?;
    has("repo settings", json!({"by": by, "gated": "manual", "visibility": "public"}))?;
    has("repo moved", json!({"by": by, "to": "lab/grid"}))?;
    has("access asked for", json!({"by": "bert", "user": "bert"}))?;
    has("repo deleted", json!({"by": by}))?;
    has("garbage collected", json!({"by": by}))?;
    has("logins failed", json!({"by": null, "address": "127.0.0.1", "count": 3}))?;
    let listed = serde_json::to_string(&all)?;
    for secret in &secrets {
        ensure!(!listed.contains(secret.as_str()), "a secret is listed");
        for file in support::server::files(&server.data().join("objects"))? {
            let stored = fs::read(&file)?;
            let is_in = stored.windows(secret.len()).any(|bytes| bytes == secret.as_bytes());
            ensure!(!is_in, "a secret is in {}", file.display());
        }
    }
    let text = String::from_utf8(audit(&server, &["list"])?.stdout)?;
    ensure!(text.lines().count() == all.len(), "a line for each");

    server.admin(&["repo", "create", "lab/again"])?;
    let acts = entries(&server, &["--repo", "lab/again"])?;
    ensure!(acts.iter().any(|entry| entry["act"] == json!("ref set")), "{acts:?}");
    let refused = server.user("cleo", "write")?;
    let body = b"{}".as_slice();
    for path in ["/api/ballast/v1/audit", "/api/ballast/v1/audit/verify"] {
        ensure!(server.request("POST", path, &refused, &[], body)?.status == 403, "{path}");
    }
    Ok(())
}

#[test]
fn a_log_that_somebody_changed_is_named_and_its_cut_end_is_missed() -> Result<()> {
    let (mut server, _) = scene()?;
    let (is_sound, printed) = walk(&server, &[])?;
    ensure!(is_sound && printed["findings"] == json!([]), "{printed}");
    let heads = server.scratch("kept")?.join("heads.json");
    fs::write(&heads, printed.to_string())?;
    let heads = heads.to_string_lossy().into_owned();

    let objects = server.data().join("objects");
    let entry = |number: u64| objects.join(format!("hub/log/accounts/{number:020}"));
    let kept = printed["heads"].as_array().context("heads")?;
    let head = kept.iter().find(|head| head["log"] == json!("log/accounts"));
    let last = head.and_then(|head| head["number"].as_u64()).context("a head of the accounts")?;
    let original = fs::read(entry(3))?;
    let finds = |server: &Server, number: u64, what: &str| -> Result<()> {
        let (is_sound, printed) = walk(server, &[])?;
        let object = printed["findings"][0]["object"].as_str().unwrap_or_default();
        ensure!(
            !is_sound && object.ends_with(&format!("accounts/{number:020}")),
            "{what}: {printed}"
        );
        Ok(())
    };
    fs::remove_file(entry(3))?;
    finds(&server, 3, "an entry that is gone")?;
    let mut changed = original.clone();
    changed[100] ^= 1;
    fs::write(entry(3), &changed)?;
    let (is_sound, printed) = walk(&server, &[])?;
    ensure!(!is_sound, "an entry that was changed: {printed}");
    fs::write(entry(3), &original)?;
    ensure!(walk(&server, &["--heads", &heads])?.0, "all is as it was");

    // Its end is cut off while nobody runs, with all that this server knew of it.
    server.stop()?;
    fs::remove_file(entry(last))?;
    server.forget()?;
    server.restart()?;
    let (is_sound, printed) = walk(&server, &["--heads", &heads])?;
    let problem = printed["findings"][0]["problem"].as_str().unwrap_or_default();
    ensure!(!is_sound && problem.contains("kept"), "{printed}");
    Ok(())
}
