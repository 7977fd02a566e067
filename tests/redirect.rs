//! Downloads that go straight to the bucket: for what was authorised, and for nothing beside it.

mod support;

use std::fs;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use support::client::{Python, finish};
use support::noise;
use support::objects::Objects;
use support::server::{Answer, Server};

const LENGTH: usize = 9_000_000;

/// A hub that sends its clients to this bucket.
fn start(objects: &Objects) -> Result<Server> {
    Server::on_set(objects, &[("BALLAST_STORAGE_REDIRECT_DOWNLOADS", "true")])
}

/// The file of the repo, as a Xet client finds it: an address, and the first and last byte.
fn link(server: &Server, repo: &str) -> Result<(String, u64, u64)> {
    let path = format!("/{repo}/resolve/main/model.safetensors");
    let head = server.request("HEAD", &path, &server.token, &[], &[])?;
    let file = head.header("x-xet-hash").context("no hash")?.to_owned();
    let access = server.get(&format!("/api/models/{repo}/xet-read-token/main"))?;
    let text = |name: &str| access[name].as_str().context("no such field");
    let path = format!("{}/v2/reconstructions/{file}", text("casUrl")?);
    let found = server.request("GET", &path, text("accessToken")?, &[], &[])?.json()?;
    let xorbs = found["xorbs"].as_object().context("no xorbs")?;
    let first = &xorbs.values().next().context("no xorb")?[0];
    let bytes = &first["ranges"][0]["bytes"];
    let number = |value: &Value| value.as_u64().context("no number");
    let url = first["url"].as_str().context("no address")?;
    Ok((url.to_owned(), number(&bytes["start"])?, number(&bytes["end"])?))
}

fn range(server: &Server, method: &str, url: &str, range: &str) -> Result<Answer> {
    let headers: &[(&str, &str)] = if range.is_empty() { &[] } else { &[("range", range)] };
    server.request(method, url, "", headers, &[])
}

/// How often a client was sent away.
fn redirects(server: &Server) -> Result<u64> {
    let text = String::from_utf8(server.request("GET", "/metrics", "", &[], &[])?.body)?;
    let name = "gateway_answers_total{dialect=\"xet\",status=\"3xx\"} ";
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    Ok(line.context("no such count")?.parse()?)
}

fn flow(objects: &Objects) -> Result<()> {
    let mut server = start(objects)?;
    let client = Python::with("hub-2.4")?;
    let folder = server.scratch("folder")?;
    fs::write(folder.join("model.safetensors"), noise(4, LENGTH))?;
    let hf = |server: &Server, arguments: &[&str]| {
        // An empty cache each time: nothing is there already.
        let home = tempfile::tempdir()?;
        let mut command = client.command("hf", server, &server.token, home.path());
        finish(command.args(arguments).current_dir(&folder))
    };
    hf(&server, &["upload", "admin/m", "."])?;
    server.stop()?;
    server.restart()?;

    // The first time since the start the hub reads and hashes the bytes itself.
    let before = redirects(&server)?;
    for time in ["first", "second", "third"] {
        let target = server.scratch(time)?;
        hf(&server, &["download", "admin/m", "--local-dir", &target.to_string_lossy()])?;
        let got = fs::read(target.join("model.safetensors"))?;
        ensure!(got == noise(4, LENGTH), "the {time} file is another one");
        ensure!((redirects(&server)? > before) == (time != "first"), "the {time} time");
    }

    let (url, first, last) = link(&server, "admin/m")?;
    let whole = format!("bytes={first}-{last}");
    let sent = range(&server, "GET", &url, &whole)?;
    ensure!(sent.status == 302 && sent.header("cache-control") == Some("no-store"), "{sent:?}");
    let store = sent.header("location").context("no address")?.to_owned();
    ensure!(!store.starts_with(&server.endpoint), "{store}");
    let taken = range(&server, "GET", &store, &whole)?;
    let length = usize::try_from(last - first + 1)?;
    ensure!(taken.status == 206 && taken.body.len() == length, "{}", taken.status);
    // Whoever can't go there gets the same from here.
    let browser = [("range", whole.as_str()), ("origin", "https://page.example.com")];
    let here = server.request("GET", &url, "", &browser, &[])?;
    ensure!(here.status == 206 && here.body == taken.body, "{}", here.status);
    ensure!(range(&server, "HEAD", &url, &whole)?.status == 206, "HEAD is answered here");

    // The address is for these bytes, this object and reading.
    for other in ["", "bytes=0-", &format!("bytes={first}-{}", last + 1), "bytes=0-0"] {
        let refused = range(&server, "GET", &store, other)?;
        ensure!(refused.status == 403, "{other:?}: {}", refused.status);
    }
    for method in ["PUT", "DELETE", "HEAD"] {
        let refused = range(&server, method, &store, &whole)?;
        ensure!(refused.status == 403, "{method}: {}", refused.status);
    }
    let (path, query) = store.split_once('?').context("no query")?;
    let elsewhere = path.rsplit_once('/').context("no path")?.0;
    let refused = range(&server, "GET", &format!("{elsewhere}?{query}"), &whole)?;
    ensure!(refused.status == 403, "another object: {}", refused.status);
    let part = range(&server, "GET", &url, &format!("bytes={first}-{}", first + 99))?;
    let store = part.header("location").context("no address for a part")?.to_owned();
    ensure!(range(&server, "GET", &store, &whole)?.status == 403, "a part opens the whole");
    ensure!(range(&server, "GET", &url, &format!("bytes={first}-{}", last + 1))?.status == 403);
    Ok(())
}

#[test]
fn clients_of_our_s3_server_are_sent_to_it() -> Result<()> {
    flow(&Objects::s3()?)
}

#[test]
fn clients_of_cephs_s3_server_are_sent_to_it() -> Result<()> {
    flow(&Objects::rgw()?)
}

#[test]
fn nobody_is_sent_away_unless_that_is_wanted() -> Result<()> {
    let server = Server::on(&Objects::s3()?)?;
    Python::with("hub-2.4")?.script(&server, "round_trip.py", &["admin/m"])?;
    ensure!(redirects(&server)? == 0, "somebody was sent away");
    Ok(())
}
