//! The built binary, running `serve` on a folder of its own.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use tempfile::TempDir;

use super::disk::Mounted;
use super::http;
pub use super::http::Answer;
use super::objects::Objects;

/// The binary: cargo names it to tests of its own package; to others it lies next to what they are.
fn binary() -> PathBuf {
    option_env!("CARGO_BIN_EXE_ballast").map_or_else(
        || {
            let test = std::env::current_exe().unwrap_or_default();
            test.ancestors().nth(2).unwrap_or(&test).join("ballast")
        },
        PathBuf::from,
    )
}

/// A hub in a process of its own.
pub struct Server {
    /// What is mounted where its data is; it must go before the folder does.
    disk: Option<Mounted>,
    folder: TempDir,
    child: Option<Child>,
    /// `http://127.0.0.1:PORT`; stays the same over restarts.
    pub endpoint: String,
    /// The token of the administrator that the first start made.
    pub token: String,
    /// What the program is told to be.
    role: &'static str,
    arguments: Vec<String>,
    objects: Objects,
    expected: Vec<String>,
    variables: Vec<(String, String)>,
    days_ahead: u32,
    clock: Option<PathBuf>,
    wrapper: Vec<String>,
    /// Where it listens when it is started for the first time.
    listen: String,
}

impl Server {
    /// Starts a hub on an empty folder.
    pub fn start() -> Result<Self> {
        Self::start_with(&[])
    }

    /// Starts a hub on an empty folder, with further arguments.
    pub fn start_with(arguments: &[&str]) -> Result<Self> {
        let mut server = Self::new(Objects::chosen()?, arguments)?;
        server.launch("127.0.0.1:0")?;
        ensure!(!server.token.is_empty(), "the first start printed no token");
        Ok(server)
    }

    /// Starts a hub on an empty folder, with these settings in its environment.
    pub fn start_set(variables: &[(&str, &str)]) -> Result<Self> {
        Self::on_set(&Objects::chosen()?, variables)
    }

    /// Starts a hub whose objects are there, with these settings in its environment.
    pub fn on_set(objects: &Objects, variables: &[(&str, &str)]) -> Result<Self> {
        let mut server = Self::new(objects.clone(), &[])?;
        for (name, value) in variables {
            server.set(name, value);
        }
        server.launch("127.0.0.1:0")?;
        ensure!(!server.token.is_empty(), "the first start printed no token");
        Ok(server)
    }

    /// Host and port.
    pub fn address(&self) -> &str {
        self.endpoint.rsplit('/').next().unwrap_or_default()
    }

    /// Starts a hub whose objects are there, and nothing is there yet.
    pub fn on(objects: &Objects) -> Result<Self> {
        let mut server = Self::new(objects.clone(), &[])?;
        server.launch("127.0.0.1:0")?;
        ensure!(!server.token.is_empty(), "the first start printed no token");
        Ok(server)
    }

    /// A hub that is not started yet: `begin` does that, once everything is set.
    pub fn unstarted(objects: &Objects) -> Result<Self> {
        Self::new(objects.clone(), &[])
    }

    /// A node of a hub whose door is open, not started yet.
    pub fn node_of(hub: &Self, name: &str) -> Result<Self> {
        let token = hub.admin(&["node", "join-token", name])?;
        let token = token["token"].as_str().context("no token to join with")?;
        let mut node = Self::new(Objects::disk(), &["--join", &hub.endpoint])?;
        node.role = "node";
        node.set("BALLAST_JOIN_TOKEN", token);
        node.set("BALLAST_CLUSTER_LISTEN", "127.0.0.1:0");
        Ok(node)
    }

    /// The first start.
    pub fn begin(&mut self) -> Result<()> {
        let address = self.listen.clone();
        self.launch(&address)
    }

    /// Where it is to listen, before the first start.
    pub fn listen_on(&mut self, address: &str) {
        address.clone_into(&mut self.listen);
    }

    /// Starts another server on the same objects, with an index of its own.
    pub fn beside(&self) -> Result<Self> {
        ensure!(!self.objects.is_disk(), "a folder is not shared");
        let mut server = Self::new(self.objects.clone(), &[])?;
        server.launch("127.0.0.1:0")?;
        server.token.clone_from(&self.token);
        Ok(server)
    }

    fn new(objects: Objects, arguments: &[&str]) -> Result<Self> {
        Ok(Self {
            disk: None,
            folder: tempfile::tempdir()?,
            child: None,
            endpoint: String::new(),
            token: String::new(),
            role: "serve",
            arguments: arguments.iter().map(|&argument| argument.to_owned()).collect(),
            objects,
            expected: Vec::new(),
            variables: Vec::new(),
            days_ahead: 0,
            clock: None,
            wrapper: Vec::new(),
            listen: "127.0.0.1:0".to_owned(),
        })
    }

    /// Sets a setting from the next start on, by its environment variable.
    pub fn set(&mut self, variable: &str, value: &str) {
        self.variables.push((variable.to_owned(), value.to_owned()));
    }

    /// From the next start on its clocks are so many days ahead.
    pub fn pass_days(&mut self, days: u32) {
        self.days_ahead += days;
    }

    /// From the next start on its wall clock is ahead by the seconds that this file says, and
    /// follows when the file changes. Its other clocks run as ever.
    pub fn follow_clock(&mut self, file: &Path) {
        self.clock = Some(file.to_owned());
    }

    /// From the next start on another program starts it, which must become it.
    pub fn wrap(&mut self, command: &[&str]) {
        self.wrapper = command.iter().map(|&part| part.to_owned()).collect();
    }

    /// Mounts a small file system where its data is; the server must not be running.
    pub fn mount(&mut self, options: &str) -> Result<()> {
        fs::create_dir_all(self.data())?;
        self.disk = Some(Mounted::tmpfs(&self.data(), options)?);
        Ok(())
    }

    /// Mounts the file system of an image where its data is; the server must not be running.
    pub fn mount_image(&mut self, image: &Path) -> Result<()> {
        self.disk = Some(Mounted::image(image, &self.data())?);
        Ok(())
    }

    /// What is mounted where its data is.
    pub fn disk(&self) -> Result<&Mounted> {
        self.disk.as_ref().context("nothing is mounted")
    }

    /// The program, with its clocks where they are to be.
    fn program(&self) -> Result<Command> {
        let mut program = match self.wrapper.split_first() {
            None => Command::new(binary()),
            Some((wrapper, arguments)) => {
                let mut program = Command::new(wrapper);
                program.args(arguments).arg(binary());
                program
            }
        };
        if let Some(file) = &self.clock {
            program.env("LD_PRELOAD", faketime(&["-m"])?);
            program.env("FAKETIME_TIMESTAMP_FILE", file).env("FAKETIME_CACHE_DURATION", "1");
            program.env("FAKETIME_DONT_FAKE_MONOTONIC", "1").env("NO_FAKE_STAT", "1");
        } else if self.days_ahead > 0 {
            program.env("LD_PRELOAD", faketime(&[])?);
            program.env("FAKETIME", format!("+{}d", self.days_ahead));
        }
        Ok(program)
    }

    /// Log lines with this text are no reason to fail.
    pub fn expect_in_log(&mut self, text: &str) {
        self.expected.push(text.to_owned());
    }

    /// The data folder.
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// All objects by name, with their sizes.
    pub fn objects(&self) -> Result<BTreeMap<String, u64>> {
        self.objects.list(&self.data())
    }

    /// A scratch folder beside the data.
    pub fn scratch(&self, name: &str) -> Result<PathBuf> {
        let path = self.folder.path().join(name);
        fs::create_dir_all(&path)?;
        Ok(path)
    }

    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Starts again, after `stop` or `kill`, on the same folder and address.
    pub fn restart(&mut self) -> Result<()> {
        let address = self.address().to_owned();
        self.launch(&address)
    }

    /// Asks it to stop, and waits until it has: it must exit with 0.
    pub fn stop(&mut self) -> Result<()> {
        let Some(mut child) = self.child.take() else {
            return Ok(());
        };
        let killed = Command::new("kill").arg("-TERM").arg(child.id().to_string()).status()?;
        ensure!(killed.success(), "could not signal the server");
        let status = child.wait()?;
        ensure!(status.success(), "the server exited with {status}\n{}", self.log());
        Ok(())
    }

    /// Whether it has not ended by itself.
    pub fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// Nothing panicked; the index's engine may, when its disk is full.
    pub fn check_no_panic(&self) -> Result<()> {
        let log = self.log();
        let is_ours = |line: &&str| line.contains("panicked") && !line.contains("/sled-0.34");
        let panics: Vec<&str> = log.lines().filter(is_ours).collect();
        ensure!(panics.is_empty(), "{panics:#?}\n{log}");
        Ok(())
    }

    /// Lets it stand still, or go on.
    pub fn signal(&self, signal: &str) -> Result<()> {
        let pid = self.pid().context("it is not running")?;
        let sent = Command::new("kill").args([signal, &pid.to_string()]).status()?;
        ensure!(sent.success(), "could not signal the server");
        Ok(())
    }

    /// Ends it as a crash would.
    pub fn kill(&mut self) -> Result<()> {
        let Some(mut child) = self.child.take() else {
            return Ok(());
        };
        child.kill()?;
        child.wait()?;
        // What `faketime` keeps for a process stays behind when that is killed, and would tell a
        // later one of the same number another time.
        let pid = child.id();
        for left in [format!("faketime_shm_{pid}"), format!("sem.faketime_sem_{pid}")] {
            let _ = fs::remove_file(Path::new("/dev/shm").join(left));
        }
        Ok(())
    }

    /// Deletes the index; the server must not be running.
    pub fn forget(&self) -> Result<()> {
        ensure!(self.child.is_none(), "the server is running");
        Ok(fs::remove_dir_all(self.data().join("index"))?)
    }

    /// Stops, deletes the index and starts again: nothing may be different afterwards.
    pub fn lose_index(&mut self) -> Result<()> {
        self.stop()?;
        self.forget()?;
        self.restart()
    }

    /// One of its metrics.
    pub fn figure(&self, name: &str) -> Result<u64> {
        let text = String::from_utf8(self.request("GET", "/metrics", "", &[], &[])?.body)?;
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        Ok(line.with_context(|| format!("no `{name}` in {text}"))?.parse()?)
    }

    /// Everything it has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    fn log_path(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    fn launch(&mut self, address: &str) -> Result<()> {
        let log = File::options().create(true).append(true).open(self.log_path())?;
        let mut child = self
            .program()?
            .arg(self.role)
            .args(["--listen", address, "--data"])
            .arg(self.data())
            .args(&self.arguments)
            // Tests write little, and must pass beside builds that leave little room.
            .env("BALLAST_STORAGE_KEEP_FREE", "64MiB")
            .envs(self.objects.variables(self.folder.path())?)
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .env_remove("HF_TOKEN")
            .env_remove("HF_ENDPOINT")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .with_context(|| format!("starting `{}`; is it built?", binary().display()))?;
        let stdout = child.stdout.take().context("standard output is piped")?;
        self.child = Some(child);
        // The address is printed once the server answers, so reading it is waiting for it.
        for line in BufReader::new(stdout).lines() {
            let line = line?;
            if let Some(token) = line.trim().strip_prefix("export HF_TOKEN=") {
                token.clone_into(&mut self.token);
            }
            if let Some(endpoint) = line.trim().strip_prefix("export HF_ENDPOINT=") {
                endpoint.clone_into(&mut self.endpoint);
            }
            if line.starts_with("ready") {
                return Ok(());
            }
        }
        bail!("the server ended before it was ready\n{}", self.log())
    }

    /// Runs an administration command against this hub as its administrator.
    pub fn admin(&self, arguments: &[&str]) -> Result<Value> {
        let output = ballast(arguments)
            .arg("--json")
            .env("HF_ENDPOINT", &self.endpoint)
            .env("HF_TOKEN", &self.token)
            .output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "`ballast {arguments:?}` failed: {error}{text}");
        serde_json::from_str(&text).with_context(|| format!("not JSON: {text}"))
    }

    /// A new user with a token of this role; returns the token.
    pub fn user(&self, name: &str, role: &str) -> Result<String> {
        self.admin(&["user", "create", name])?;
        let answer = self.admin(&["token", "create", "--user", name, "--role", role])?;
        Ok(answer["token"].as_str().context("no token")?.to_owned())
    }

    /// One request; the token may be empty. Any status is an answer.
    pub fn request(
        &self,
        method: &str,
        path: &str,
        token: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Answer> {
        let url = match path.starts_with("http") {
            true => path.to_owned(),
            false => format!("{}{path}", self.endpoint),
        };
        let agent = http::agent(Duration::from_secs(100));
        let answer = http::send(&agent, method, &url, token, headers, body)?;
        self.check_refusal(&answer).with_context(|| format!("{method} {path}"))?;
        Ok(answer)
    }

    /// What goes wrong inside is for the log, not for clients.
    fn check_refusal(&self, answer: &Answer) -> Result<()> {
        if answer.status < 400 {
            return Ok(());
        }
        let body = String::from_utf8_lossy(&answer.body);
        let said = format!("{:?} {body}", answer.headers);
        let folder = self.folder.path().display().to_string();
        for inside in ["panicked", "os error", "backtrace", ".rs:", "crates/", &folder] {
            ensure!(!said.contains(inside), "the answer shows `{inside}`: {said}");
        }
        Ok(())
    }

    /// `GET` that must succeed, as JSON.
    pub fn get(&self, path: &str) -> Result<Value> {
        let answer = self.request("GET", path, &self.token, &[], &[])?;
        ensure!(answer.status == 200, "{path}: {answer:?}");
        answer.json()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.kill();
        if std::thread::panicking() {
            eprintln!("--- the server's log ---\n{}", self.log());
            return;
        }
        let log = self.log();
        let alarming = |line: &&str| {
            let is_alarm = [" ERROR ", " WARN ", "panicked at"].iter().any(|s| line.contains(s));
            is_alarm && !self.expected.iter().any(|text| line.contains(text))
        };
        for secret in [self.token.as_str(), "Bearer ", "X-Amz-Signature="] {
            let is_there = !secret.is_empty() && log.contains(secret);
            assert!(!is_there, "the log holds what nobody may see: `{secret}`");
        }
        let alarms: Vec<&str> = log.lines().filter(alarming).collect();
        assert!(alarms.is_empty(), "the server logged what no test announced: {alarms:#?}");
    }
}

/// Where its library is; the wrapper itself would stand between us and the program.
fn faketime(arguments: &[&str]) -> Result<String> {
    let mut ask = Command::new("faketime");
    ask.args(arguments).args(["-f", "+0d", "printenv", "LD_PRELOAD"]);
    let output = ask.output().context("`faketime` must be installed")?;
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// The program with these arguments and no hub in its environment.
pub fn ballast(arguments: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.args(arguments).env_remove("HF_TOKEN").env_remove("HF_ENDPOINT");
    command
}

/// Every file below a folder.
pub fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}
