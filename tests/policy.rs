//! The policy on the built binary: what scans find in real files, and what rules do about it, to
//! the client that people have.

mod support;

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use support::client::{Python, finish};
use support::root;
use support::server::{Server, ballast};

/// Good and bad weights in this folder.
fn weights(folder: &Path) -> Result<()> {
    let script = root().join("tests/clients/weights.py");
    finish(Command::new("python3").arg(script).arg(folder)).map(|_| ())
}

/// What a command of ours prints for a hub, and whether it succeeds.
fn check(server: &Server, arguments: &[&str]) -> Result<(bool, String, String)> {
    let mut command = ballast(&["policy", "check"]);
    command.args(arguments).env("HF_ENDPOINT", &server.endpoint).env("HF_TOKEN", &server.token);
    let output = command.output()?;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ok((output.status.success(), text(output.stdout), text(output.stderr)))
}

/// Everything that a command said, which must fail.
fn failing(command: &mut Command) -> Result<String> {
    let output = command.output()?;
    ensure!(!output.status.success(), "{command:?} should have failed");
    let both = [output.stdout, output.stderr].concat();
    Ok(String::from_utf8_lossy(&both).into_owned())
}

#[test]
fn what_files_would_run_is_found_and_shown() -> Result<()> {
    let server = Server::start()?;
    let client = Python::with("hub-2.4")?;
    let (home, folder) = (server.scratch("home")?, server.scratch("weights")?);
    weights(&folder)?;
    fs::write(folder.join("config.json"), r#"{"auto_map": {"AutoModel": "code.Model"}}"#)?;
    fs::write(folder.join("cut.pkl"), b"\x80\x04]\x94(K")?;
    let trailing = [fs::read(folder.join("good/words.pkl"))?, b"and more".to_vec()].concat();
    fs::write(folder.join("trailing.pkl"), trailing)?;
    let prefixed = [b"#!/bin/sh\n".to_vec(), fs::read(folder.join("good/model.pt"))?].concat();
    fs::write(folder.join("prefixed.pt"), prefixed)?;
    let mut upload = client.command("hf", &server, &server.token, &home);
    finish(upload.args(["upload", "admin/model"]).arg(&folder).arg("."))?;

    let found = client.script(&server, "security.py", &["admin/model"])?;
    let found: Value = serde_json::from_str(found.trim())?;
    let files = found.as_object().context("an object")?;
    for (path, found) in files {
        let expected = match path.as_str() {
            "config.json" => "caution",
            "cut.pkl" | "trailing.pkl" | "prefixed.pt" => "suspicious",
            path if path.starts_with("bad/") => "unsafe",
            _ => "safe",
        };
        ensure!(found["status"] == json!(expected), "{path}: {found}");
        let imports = found["imports"].as_array().context("a list")?;
        if expected == "unsafe" {
            let is_named =
                |import: &Value| import.as_str().is_some_and(|name| name.ends_with(".system"));
            ensure!(imports.iter().any(is_named), "{path}: {found}");
        } else {
            ensure!(imports.is_empty(), "{path}: {found}");
        }
    }
    ensure!(files.keys().filter(|path| path.starts_with("bad/")).count() == 12, "{found}");
    ensure!(files.contains_key("good/packed.pth") && files.contains_key("good/model.pt"));

    // Nothing is refused where no rule says so.
    let (ok, told, _) = check(&server, &["admin/model"])?;
    ensure!(ok && told.contains("`bad/harm2.pkl` is unsafe: imports `posix.system`"), "{told}");
    Ok(())
}

#[test]
fn rules_refuse_by_name_what_comes_in_and_what_goes_out() -> Result<()> {
    let mut server = Server::start()?;
    let client = Python::with("hub-2.4")?;
    let (home, folder) = (server.scratch("home")?, server.scratch("weights")?);
    weights(&folder)?;
    let hf = |server: &Server, arguments: &[&str]| {
        let mut command = client.command("hf", server, &server.token, &home);
        command.args(arguments);
        command
    };
    let (good, bad) = (folder.join("good"), folder.join("bad"));
    let (good, bad) = (good.to_string_lossy(), bad.to_string_lossy());
    finish(&mut hf(&server, &["upload", "admin/good", &good, "."]))?;
    finish(&mut hf(&server, &["upload", "admin/bad", &bad, "."]))?;

    let rules = server.scratch("rules")?.join("policy.toml");
    fs::write(
        &rules,
        "[[rules]]\nname = \"trusted\"\naction = \"allow\"\nrepos = [\"trusted/*\"]\n\
         [[rules]]\nname = \"no-harm\"\naction = \"deny\"\nscans = [\"unsafe\", \"suspicious\"]\n\
         [[rules]]\nname = \"no-huge-files\"\naction = \"deny\"\nlarger_than = \"3MB\"\n\
         stages = [\"upload\"]\n\
         [[rules]]\nname = \"no-nc\"\naction = \"deny\"\nlicenses = [\"cc-by-nc-4.0\"]\n\
         stages = [\"upload\"]\n",
    )?;
    server.stop()?;
    server.set("BALLAST_POLICY_FILE", &rules.to_string_lossy());
    server.restart()?;

    // Downloads: what is good comes, what is bad is refused on every way there is.
    let target = server.scratch("target")?;
    let target = target.to_string_lossy();
    finish(&mut hf(&server, &["download", "admin/good", "--local-dir", &target]))?;
    for xet in ["0", "1"] {
        let mut download = hf(&server, &["download", "admin/bad", "model.pt"]);
        let said = failing(download.env("HF_HUB_DISABLE_XET", xet))?;
        ensure!(said.contains("403") && said.contains("no-harm"), "{said}");
    }
    for path in ["model.pt", "notes.md"] {
        let path = format!("/admin/bad/resolve/main/{path}");
        let answer = server.request("GET", &path, &server.token, &[], &[])?;
        ensure!(answer.status == 403, "{}", answer.status);
        let message = answer.header("x-error-message").unwrap_or_default();
        ensure!(message.contains("`no-harm`") && message.contains("system"), "{message}");
        ensure!(answer.header("x-error-code") == Some("PolicyRefused"));
    }

    // Uploads: nothing of a commit with a bad file is there.
    let evil = folder.join("bad/model.pt");
    let evil = evil.to_string_lossy();
    let said = failing(&mut hf(&server, &["upload", "admin/good", &evil, "new.pt"]))?;
    ensure!(said.contains("refused by the policy rule `no-harm`"), "{said}");
    let large = folder.join("large.bin");
    fs::write(&large, support::noise(5, 3_100_000))?;
    let large = large.to_string_lossy();
    let said = failing(&mut hf(&server, &["upload", "admin/good", &large, "large.bin"]))?;
    ensure!(said.contains("`no-huge-files`"), "{said}");
    let card = folder.join("README.md");
    fs::write(&card, "---\nlicense: cc-by-nc-4.0\n---\n")?;
    let card = card.to_string_lossy();
    let said = failing(&mut hf(&server, &["upload", "admin/good", &card, "README.md"]))?;
    ensure!(said.contains("`no-nc`"), "{said}");
    let listed = server.get("/api/models/admin/good/tree/main")?;
    ensure!(!listed.to_string().contains("new.pt") && !listed.to_string().contains("large.bin"));
    let fine = folder.join("good/words.pkl");
    finish(&mut hf(&server, &["upload", "admin/good", &fine.to_string_lossy(), "fine.pkl"]))?;

    // The check says the same.
    let (ok, told, _) = check(&server, &["admin/good", "admin/good@main"])?;
    ensure!(ok && told.contains("allowed: admin/good@main"), "{told}");
    let (ok, told, _) = check(&server, &["--all"])?;
    ensure!(
        !ok && told.contains("refused: admin/bad@main") && told.contains("1 refused"),
        "{told}"
    );
    let (ok, told, _) = check(&server, &["--all", "--json"])?;
    let told: Value = serde_json::from_str(&told)?;
    let repos = told["repos"].as_array().context("a list")?;
    let bad = repos.iter().find(|repo| repo["repo"] == json!("admin/bad")).context("it is told")?;
    ensure!(!ok && bad["verdict"] == json!("refused") && bad["filesRefused"] == json!(12), "{bad}");
    let (ok, _, error) = check(&server, &["admin/good@nowhere"])?;
    ensure!(!ok && error.contains("nowhere"), "{error}");
    Ok(())
}

#[test]
fn files_that_nobody_signed_are_told_apart() -> Result<()> {
    let mut server = Server::start()?;
    let client = Python::with("hub-2.4")?;
    let (home, folder) = (server.scratch("home")?, server.scratch("signed")?);
    // What the reference tool signed, its signature, and a file that came later.
    fs::create_dir(folder.join("sub"))?;
    fs::write(folder.join("a.txt"), "hi\n")?;
    fs::write(folder.join("sub/b.bin"), "yo\n")?;
    fs::write(folder.join("late.bin"), support::noise(8, 100_000))?;
    let fixture = |name: &str| root().join("tests/fixtures").join(name);
    fs::copy(fixture("model-signing-1.1.sig"), folder.join("model.sig"))?;
    let mut upload = client.command("hf", &server, &server.token, &home);
    finish(upload.args(["upload", "admin/signed"]).arg(&folder).arg("."))?;

    let settings = server.scratch("settings")?.join("ballast.toml");
    let key = fixture("model-signing-1.1.pub");
    fs::write(
        &settings,
        format!(
            "[[policy.keys]]\nname = \"release\"\nfile = \"{}\"\n[[policy.rules]]\n\
             name = \"only-signed\"\naction = \"deny\"\nformats = [\"bin\"]\n\
             signed_by = [\"none\"]\nstages = [\"download\", \"mirror\"]\n",
            key.display()
        ),
    )?;
    server.stop()?;
    server.set("BALLAST_CONFIG", &settings.to_string_lossy());
    server.restart()?;
    for (path, status) in [("a.txt", 200), ("sub/b.bin", 200), ("late.bin", 403)] {
        let address = format!("/admin/signed/resolve/main/{path}");
        let answer = server.request("GET", &address, &server.token, &[], &[])?;
        ensure!(answer.status == status, "{path}: {answer:?}");
    }
    let (ok, told, _) = check(&server, &["admin/signed", "--stage", "mirror"])?;
    ensure!(!ok && told.contains("signed by `release`: 2 files"), "{told}");
    ensure!(told.contains("`only-signed`: `late.bin` has the format `bin`, and"), "{told}");
    Ok(())
}
