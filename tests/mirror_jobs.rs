//! Mirror jobs: what they name comes whole, whatever the upstream does, and comes back after a
//! crash where it was.

mod support;

use std::ops::Range;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use ballast_testkit::content::bf16_weights;
use ballast_testkit::hub::{Lie, PublicHub, Redirect, Troubles};
use serde_json::{Value, json};
use support::noise;
use support::objects::Objects;
use support::server::Server;

const LARGE: &str = "weights/model.safetensors";

/// A hub whose upstream is this one.
fn mirror(upstream: &PublicHub, more: &[(&str, &str)]) -> Result<Server> {
    let mut variables = vec![
        ("BALLAST_UPSTREAM_URL", upstream.endpoint()),
        ("BALLAST_UPSTREAM_PRIVATE_NETWORKS", "127.0.0.2/32"),
    ];
    variables.extend(more);
    Server::on_set(&Objects::disk(), &variables)
}

fn job(server: &Server) -> Result<Value> {
    let jobs = server.admin(&["mirror", "status"])?;
    Ok(jobs.as_array().and_then(|jobs| jobs.first()).context("there is no job")?.clone())
}

/// Waits until the hub itself has brought everything.
fn until_complete(server: &Server) -> Result<()> {
    for _ in 0..6_000 {
        if job(server)?["last"]["complete"] == json!(true) {
            return Ok(());
        }
        thread::park_timeout(Duration::from_millis(10));
    }
    bail!("the job never ended: {}", job(server)?)
}

fn bytes(server: &Server, path: &str) -> Result<Vec<u8>> {
    Ok(server.request("GET", path, &server.token, &[], &[])?.body)
}

#[test]
fn an_organisation_comes_whole_by_the_names_that_it_has_there() -> Result<()> {
    let upstream = PublicHub::start(5)?;
    upstream.offer_xet();
    let (first, second) = (noise(1, 20_000_000), noise(2, 300_000));
    let commit = upstream.push("acme/one", &[(LARGE, &first), ("config.json", b"{}")]);
    upstream.push("acme/two", &[(LARGE, &second), ("big.bin", &second)]);
    upstream.push("other/three", &[(LARGE, &second)]);
    upstream.change("acme/one", |repo| repo.licence = Some("apache-2.0"));
    let troubles = Troubles {
        unavailable: 50,
        reset: 30,
        truncated: 50,
        redirect: Redirect::Elsewhere,
        ..Troubles::default()
    };
    upstream.set_troubles(Troubles { redirect: Redirect::Elsewhere, ..Troubles::default() });
    let mut server = mirror(&upstream, &[])?;
    server.expect_in_log("a file could not be fetched");
    let wish = ["mirror", "add", "hf://acme/*", "--exclude", "*.bin", "--set", "prod"];
    let planned = server.admin(&[&wish[..], &["--dry-run"]].concat())?;
    let plan = &planned["plans"][0];
    ensure!(plan["commit"] == json!(commit.to_string()), "{planned}");
    ensure!(plan["licence"] == json!("apache-2.0") && plan["gated"] == json!(false), "{planned}");
    ensure!(plan["missingBytes"] == json!(first.len() + 2), "{planned}");
    ensure!(upstream.sent_in_all() == 0, "a plan moves no file");
    ensure!(server.admin(&["mirror", "list"])? == json!([]), "a plan is no job");

    upstream.set_troubles(troubles);
    let added = server.admin(&wish)?;
    let id = added["jobs"][0]["id"].as_str().context("no id")?.to_owned();
    // It may have begun by itself; in the end all is here either way.
    let _ = server.admin(&["mirror", "run", &id]);
    until_complete(&server)?;
    upstream.set_reachable(false);
    let pinned = bytes(&server, &format!("/acme/one/resolve/{commit}/{LARGE}"))?;
    ensure!(pinned == first, "a pinned commit means the same here");
    ensure!(bytes(&server, &format!("/acme/two/resolve/main/{LARGE}"))? == second);
    ensure!(server.get("/api/models/other/three").is_err(), "nobody asked for it");

    upstream.set_reachable(true);
    upstream.set_troubles(Troubles::default());
    upstream.clear_counts();
    let again = server.admin(&["mirror", "run", "--set", "prod"])?;
    ensure!(again["summary"]["complete"] == json!(true), "{again}");
    ensure!(again["summary"]["fetchedBytes"] == json!(0), "{again}");
    ensure!(upstream.sent_in_all() == 0, "what is here is not fetched again");
    server.admin(&["mirror", "remove", &id])?;
    ensure!(server.admin(&["mirror", "list"])? == json!([]));
    ensure!(server.admin(&["mirror", "remove", &id]).is_err(), "it is gone");
    Ok(())
}

#[test]
fn a_job_survives_a_crash_and_goes_on_where_it_was() -> Result<()> {
    let upstream = PublicHub::start(6)?;
    let content = noise(3, 12_000_000);
    upstream.push("acme/one", &[(LARGE, &content)]);
    // Some four seconds for the whole of it.
    let pause = Some(Duration::from_millis(20));
    upstream.set_troubles(Troubles { pause, ..Troubles::default() });
    let mut server = mirror(&upstream, &[])?;
    let key = format!("acme/one/{LARGE}");
    server.admin(&["mirror", "add", "hf://acme/one"])?;
    let half = content.len() as u64 / 2;
    for _ in 0..60_000 {
        if upstream.sent(&key) > half {
            break;
        }
        thread::park_timeout(Duration::from_millis(1));
    }
    ensure!(upstream.sent(&key) > half, "it never began");
    server.kill()?;
    server.expect_in_log("not stopped cleanly");
    let sent = upstream.sent(&key);
    ensure!(sent < content.len() as u64, "it was cut in the middle");
    upstream.set_troubles(Troubles::default());
    server.restart()?;
    // The claim of the run that was killed is in the way; whoever asks for the file is not.
    ensure!(bytes(&server, &format!("/acme/one/resolve/main/{LARGE}"))? == content);
    let sent = upstream.sent(&key);
    let most = content.len() as u64 * 11 / 10;
    ensure!(sent <= most, "{sent} bytes were sent for {} bytes", content.len());
    Ok(())
}

#[test]
fn what_cannot_be_mirrored_is_said() -> Result<()> {
    let upstream = PublicHub::start(7)?;
    upstream.push("acme/one", &[("config.json", b"{}")]);
    let server = mirror(&upstream, &[])?;
    let error = server.admin(&["mirror", "add", "hf://acme/none"]).expect_err("none");
    ensure!(format!("{error:#}").contains("no such repo"), "{error:#}");
    let error = server.admin(&["mirror", "add", "nonsense"]).expect_err("no address");
    ensure!(format!("{error:#}").contains("hf://namespace/name"), "{error:#}");
    ensure!(server.admin(&["mirror", "run"]).is_err(), "which?");
    let alone = Server::start()?;
    let error = alone.admin(&["mirror", "list"]).expect_err("no upstream");
    ensure!(format!("{error:#}").contains("upstream.url"), "{error:#}");
    Ok(())
}

/// Waits until a hub has stored so many large files of its upstream.
fn until_stored(server: &Server, files: u64) -> Result<()> {
    for _ in 0..60_000 {
        if server.figure("mirror_files_total")? == files {
            return Ok(());
        }
        thread::park_timeout(Duration::from_millis(1));
    }
    bail!("{files} files were never stored")
}

#[test]
fn a_new_version_costs_what_is_new_in_it() -> Result<()> {
    let old = noise(7, 64 << 20);
    let (start, length) = (old.len() / 3, old.len() / 20);
    let mut new = old.clone();
    // A twentieth is other, and what follows stands elsewhere than before.
    new.splice(start..start + length, noise(8, length + 1000));
    let public = PublicHub::start(12)?;
    public.offer_xet();
    public.push("acme/one", &[(LARGE, &old)]);
    let at_once = ("BALLAST_UPSTREAM_REVALIDATE", "0s");
    let mut first = mirror(&public, &[at_once])?;
    // And a mirror of the mirror, which packed the file in its own way.
    let url = format!("http://{}", first.address());
    let second = Server::on_set(&Objects::disk(), &[("BALLAST_UPSTREAM_URL", &url), at_once])?;
    let path = format!("/acme/one/resolve/main/{LARGE}");
    for hub in [&first, &second] {
        ensure!(bytes(hub, &path)? == old, "it is another file");
        until_stored(hub, 1)?;
    }
    public.push("acme/one", &[(LARGE, &new)]);
    public.clear_counts();
    // What is here is known without a memory of how it came.
    first.lose_index()?;
    let came = second.figure("mirror_upstream_bytes_total")?;
    ensure!(bytes(&first, &path)? == new, "it is another file");
    until_stored(&first, 1)?;
    ensure!(bytes(&second, &path)? == new, "it is another file");
    let came = second.figure("mirror_upstream_bytes_total")? - came;
    for came in [public.sent_in_all(), came] {
        ensure!(came * 100 <= new.len() as u64 * 8, "{came} bytes came");
    }
    for hub in [&first, &second] {
        let reused = hub.figure("mirror_reused_bytes_total")?;
        ensure!(reused * 100 >= new.len() as u64 * 92, "{reused} bytes were here");
    }
    Ok(())
}

/// Which xorbs the large file is made of.
fn terms(server: &Server) -> Result<Value> {
    let path = format!("/acme/one/resolve/main/{LARGE}");
    let head = server.request("HEAD", &path, &server.token, &[], &[])?;
    let header = |name: &str| head.header(name).with_context(|| format!("no {name}: {head:?}"));
    let (file, commit) = (header("x-xet-hash")?, header("x-repo-commit")?);
    let token = server.get(&format!("/api/models/acme/one/xet-read-token/{commit}"))?;
    let token = token["accessToken"].as_str().context("no token")?;
    let path = format!("/xet/v2/reconstructions/{file}");
    let answer = server.request("GET", &path, token, &[], &[])?;
    let document: Value = serde_json::from_slice(&answer.body)?;
    ensure!(answer.status == 200 && document["terms"].is_array(), "{document}");
    Ok(document["terms"].clone())
}

#[test]
fn xorbs_that_a_file_uses_as_a_whole_are_the_same_here_and_there() -> Result<()> {
    let content = [noise(4, 60_000_000), bf16_weights(5, 60_000_000)].concat();
    let public = PublicHub::start(15)?;
    // The first hub packs the file itself, in xorbs as large as they get.
    public.push("acme/one", &[(LARGE, &content)]);
    let first = mirror(&public, &[])?;
    let path = format!("/acme/one/resolve/main/{LARGE}");
    ensure!(bytes(&first, &path)? == content, "it is another file");
    until_stored(&first, 1)?;
    let url = format!("http://{}", first.address());
    let second = Server::on_set(&Objects::chosen()?, &[("BALLAST_UPSTREAM_URL", &url)])?;
    ensure!(bytes(&second, &path)? == content, "it is another file");
    until_stored(&second, 1)?;
    let (there, here) = (terms(&first)?, terms(&second)?);
    ensure!(there.as_array().is_some_and(|terms| terms.len() > 1) && here == there, "{here}");
    ensure!(first.figure("mirror_kept_bytes_total")? == 0, "it had no xorbs to keep");
    let kept = second.figure("mirror_kept_bytes_total")?;
    ensure!(kept == content.len() as u64, "{kept} bytes were kept");
    // Here they are whole and what they are called.
    ensure!(bytes(&second, &path)? == content, "it is another file");
    let report = second.admin(&["verify"])?;
    ensure!(report["summary"]["damaged"].as_u64().unwrap_or(0) == 0, "{report}");
    Ok(())
}

#[test]
fn what_has_no_room_on_its_way_is_said() -> Result<()> {
    let public = PublicHub::start(13)?;
    let (small, large) = (noise(1, 3_000_000), noise(2, 6_000_000));
    public.push("acme/one", &[("small.bin", &small), ("large.bin", &large)]);
    let mut server = mirror(&public, &[("BALLAST_UPSTREAM_SPOOL_LIMIT", "5MB")])?;
    server.expect_in_log("could not be fetched");
    let path = |name: &str| format!("/acme/one/resolve/main/{name}");
    let refused = server.request("GET", &path("large.bin"), &server.token, &[], &[])?;
    let text = String::from_utf8_lossy(&refused.body).into_owned();
    ensure!(refused.status == 507 && text.contains("upstream.spool_limit"), "{refused:?}");
    ensure!(public.sent("acme/one/large.bin") == 0, "it was fetched all the same");
    ensure!(bytes(&server, &path("small.bin"))? == small, "it is another file");
    until_stored(&server, 1)
}

/// A part of the large file; nothing while it can't be had.
fn part(server: &Server, range: Range<usize>) -> Result<Option<Vec<u8>>> {
    let range = format!("bytes={}-{}", range.start, range.end - 1);
    let path = format!("/acme/one/resolve/main/{LARGE}");
    let answer = server.request("GET", &path, &server.token, &[("range", &range)], &[])?;
    ensure!(matches!(answer.status, 206 | 503), "{range}: {}", answer.status);
    Ok((answer.status == 206).then_some(answer.body))
}

#[test]
fn a_part_of_a_cold_file_comes_before_the_whole_where_xorbs_prove_it() -> Result<()> {
    let public = PublicHub::start(14)?;
    public.offer_xet();
    let content = noise(3, 100_000_000);
    public.push("acme/one", &[(LARGE, &content)]);
    // A xorb of 4 MiB takes some two seconds, and the whole file six times as long.
    let pause = Some(Duration::from_millis(30));
    public.set_troubles(Troubles { pause, ..Troubles::default() });
    let server = mirror(&public, &[])?;
    for range in [8..100_000, 70_000_000..70_000_010, 70_000_005..70_001_000] {
        let found = part(&server, range.clone())?;
        ensure!(found.as_deref() == Some(&content[range.clone()]), "{range:?}");
    }
    ensure!(server.figure("mirror_files_total")? == 0, "the whole file was waited for");
    public.set_troubles(Troubles::default());
    until_stored(&server, 1)?;

    // Xorbs that do not have their names prove nothing, and who asked waits for the whole file.
    let mut server = mirror(&public, &[])?;
    server.expect_in_log("could not be fetched");
    public.set_troubles(Troubles { lie: Some(Lie::Chunks), ..Troubles::default() });
    let range = 70_000_000..70_000_010;
    for _ in 0..6_000 {
        if let Some(found) = part(&server, range.clone())? {
            ensure!(found == content[range], "other bytes");
            return until_stored(&server, 1);
        }
        thread::park_timeout(Duration::from_millis(10));
    }
    bail!("it never came")
}
