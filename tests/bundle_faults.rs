//! Bundles that are cut short: by a kill, by a full disk, at any point. Run again, it goes on.

#[path = "support/gap.rs"]
mod gap;
mod support;

use std::fs;
use std::path::Path;
use std::process::{Child, Stdio};

use anyhow::{Context as _, Result, ensure};
use gap::{REPO, World, must_hold, put, read, sound_hub, text};
use serde_json::json;
use support::disk::Mounted;
use support::noise;
use support::objects::Objects;
use support::server::{Server, ballast, files};

/// How many bytes the files below a folder have.
fn bytes_in(folder: &Path) -> u64 {
    let sizes = files(folder).unwrap_or_default().into_iter();
    sizes.filter_map(|file| fs::metadata(file).ok()).map(|metadata| metadata.len()).sum()
}

/// Kills a child once a folder has so many bytes; whether it was still running.
fn kill_at(child: &mut Child, folder: &Path, bytes: u64) -> Result<bool> {
    while bytes_in(folder) < bytes {
        if child.try_wait()?.is_some() {
            return Ok(false);
        }
        std::thread::yield_now();
    }
    let was_running = child.try_wait()?.is_none();
    child.kill()?;
    child.wait()?;
    Ok(was_running)
}

#[test]
fn a_bundle_that_was_killed_while_it_was_made_is_finished_by_the_next_run() -> Result<()> {
    let world = World::new()?;
    let content = noise(11, 60_000_000);
    let commit = put(&world.open, &[("w.bin", &content)])?;
    let folder = world.folder("one")?;
    let (data, key) = (text(&world.open.data()), text(&world.key));
    let mut killed = 0;
    for percent in [0, 3, 10, 30, 50, 70, 90, 97] {
        let mut command = ballast(&[
            "bundle", "create", REPO, "-o", &folder, "--key", &key, "--data", &data, "--split",
            "16MiB",
        ]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let at = content.len() as u64 * percent / 100;
        killed += u32::from(kill_at(&mut child, Path::new(&folder), at)?);
        let is_whole = Path::new(&folder).join("bundle.ballast").exists();
        ensure!(!is_whole || world.verify(&folder)?.ok, "it says that it is whole, and is not");
    }
    ensure!(killed >= 3, "{killed} were killed before they were done");
    let made = world.create(&folder, &[REPO, "--split", "16MiB"])?.sound()?;
    let is_done = made["wasThere"] == json!(true) || made["keptVolumes"].as_u64() > Some(0);
    ensure!(is_done, "nothing was kept: {made}");
    world.verify(&folder)?.sound()?;
    world.import(&folder)?.sound()?;
    must_hold(&world.closed, &commit, &[("w.bin", &content)])
}

#[test]
fn an_import_that_was_killed_shows_nothing_and_goes_on() -> Result<()> {
    let mut world = World::new()?;
    let content = noise(12, 60_000_000);
    let commit = put(&world.open, &[("w.bin", &content)])?;
    let folder = world.folder("one")?;
    world.create(&folder, &[REPO])?.sound()?;
    for percent in [0, 20, 60, 90, 100] {
        let (public, receipt) = (world.public(), world.receipt());
        let mut command =
            ballast(&["bundle", "import", &folder, "--key", &public, "--receipt", &receipt]);
        command.env("HF_ENDPOINT", &world.closed.endpoint).env("HF_TOKEN", &world.closed.token);
        let mut import = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let at = content.len() as u64 * percent / 100;
        while bytes_in(&world.closed.data().join("objects")) < at && import.try_wait()?.is_none() {
            std::thread::yield_now();
        }
        world.closed.kill()?;
        import.wait()?;
        world.closed.restart()?;
        // All of it, or nothing.
        match read(&world.closed, "main", "w.bin")? {
            Ok(found) => ensure!(found == content, "after {percent} %"),
            Err(status) => ensure!(status == 404, "{status} after {percent} %"),
        }
    }
    world.import(&folder)?.sound()?;
    must_hold(&world.closed, &commit, &[("w.bin", &content)])?;
    sound_hub(&world.closed)
}

#[test]
fn a_full_disk_stops_both_and_room_lets_them_go_on() -> Result<()> {
    let mut closed = Server::unstarted(&Objects::disk())?;
    closed.mount("size=60m")?;
    closed.set("BALLAST_STORAGE_KEEP_FREE", "8MiB");
    closed.expect_in_log(" WARN ");
    // The index's engine, which shares the disk.
    closed.expect_in_log(" ERROR sled::");
    closed.begin()?;
    let world = World::with(closed)?;
    let content = noise(13, 60_000_000);
    let commit = put(&world.open, &[("w.bin", &content)])?;
    let place = world.open.scratch("small")?;
    let disk = Mounted::tmpfs(&place, "size=20m")?;
    let folder = text(&place.join("one"));
    let full = world.create(&folder, &[REPO, "--split", "16MiB"])?;
    ensure!(!full.ok && full.error.contains(".ballast"), "{}", full.error);
    ensure!(!world.verify(&folder)?.ok, "half a bundle is none");
    disk.remount("size=200m")?;
    let made = world.create(&folder, &[REPO, "--split", "16MiB"])?.sound()?;
    ensure!(made["keptVolumes"].as_u64() > Some(0), "{made}");
    world.verify(&folder)?.sound()?;

    let full = world.import(&folder)?;
    ensure!(!full.ok && full.error.contains("room"), "{} {}", full.error, full.json);
    ensure!(read(&world.closed, "main", "w.bin")? == Err(404), "half a model shows");
    world.closed.disk()?.remount("size=400m")?;
    let imported = world.import(&folder)?.sound()?;
    ensure!(imported["presentBytes"].as_u64().context("bytes")? > 0, "{imported}");
    must_hold(&world.closed, &commit, &[("w.bin", &content)])?;
    sound_hub(&world.closed)
}
