//! Small file systems that tests mount, fill and cut off. They need root.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

/// What fills a disk.
const FILLER: &str = "filler";

/// A file system that goes when this is dropped.
#[derive(Debug)]
pub struct Mounted {
    place: PathBuf,
}

impl Mounted {
    /// A file system in memory, with options such as `size=64m`.
    pub fn tmpfs(place: &Path, options: &str) -> Result<Self> {
        let place_text = place.to_string_lossy();
        mount(&["-t", "tmpfs", "-o", options, "none", &place_text])?;
        Ok(Self { place: place.to_owned() })
    }

    /// The file system in an image.
    pub fn image(image: &Path, place: &Path) -> Result<Self> {
        fs::create_dir_all(place)?;
        mount(&["-o", "loop", &image.to_string_lossy(), &place.to_string_lossy()])?;
        Ok(Self { place: place.to_owned() })
    }

    /// Mounts it again with other options, such as `ro`.
    pub fn remount(&self, options: &str) -> Result<()> {
        mount(&["-o", &format!("remount,{options}"), &self.place.to_string_lossy()])
    }

    /// Where it is.
    pub fn place(&self) -> &Path {
        &self.place
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Lazily: somebody may still look at it.
        let _ = Command::new("umount").arg("-l").arg(&self.place).status();
    }
}

fn mount(arguments: &[&str]) -> Result<()> {
    run("mount", arguments).context("this test mounts file systems: run it as root")
}

/// Runs a tool that must succeed.
pub fn run(program: &str, arguments: &[&str]) -> Result<()> {
    let output = Command::new(program).args(arguments).output();
    let output = output.with_context(|| format!("`{program}` must be installed"))?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "`{program} {}` failed: {error}", arguments.join(" "));
    Ok(())
}

/// Writes until nothing more fits.
pub fn fill(folder: &Path) -> Result<()> {
    let mut file = File::options().create(true).append(true).open(folder.join(FILLER))?;
    for size in [1 << 20, 1 << 12, 1] {
        let block = vec![7; size];
        while file.write_all(&block).is_ok() {}
    }
    Ok(())
}

/// Takes away what `fill` wrote.
pub fn free(folder: &Path) -> Result<()> {
    Ok(fs::remove_file(folder.join(FILLER))?)
}
