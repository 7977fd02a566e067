//! The built binary, running `serve` on a folder of its own.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use tempfile::TempDir;

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

/// What an answer was, whatever its status.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    pub fn json(&self) -> Result<Value> {
        serde_json::from_slice(&self.body)
            .with_context(|| format!("not JSON: {}", String::from_utf8_lossy(&self.body)))
    }
}

/// A hub in a process of its own.
pub struct Server {
    folder: TempDir,
    child: Option<Child>,
    /// `http://127.0.0.1:PORT`; stays the same over restarts.
    pub endpoint: String,
    /// The token of the administrator that the first start made.
    pub token: String,
    arguments: Vec<String>,
    objects: Objects,
    expected: Vec<String>,
    variables: Vec<(String, String)>,
    days_ahead: u32,
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
            folder: tempfile::tempdir()?,
            child: None,
            endpoint: String::new(),
            token: String::new(),
            arguments: arguments.iter().map(|&argument| argument.to_owned()).collect(),
            objects,
            expected: Vec::new(),
            variables: Vec::new(),
            days_ahead: 0,
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

    /// The program, with its clocks where they are to be.
    fn program(&self) -> Result<Command> {
        let mut program = Command::new(binary());
        if self.days_ahead > 0 {
            // Where its library is; the wrapper itself would stand between us and the program.
            let ask =
                Command::new("faketime").args(["-f", "+0d", "printenv", "LD_PRELOAD"]).output();
            let library = String::from_utf8(ask.context("`faketime` must be installed")?.stdout)?;
            program.env("LD_PRELOAD", library.trim());
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

    /// Ends it as a crash would.
    pub fn kill(&mut self) -> Result<()> {
        let Some(mut child) = self.child.take() else {
            return Ok(());
        };
        child.kill()?;
        child.wait()?;
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
            .arg("serve")
            .args(["--listen", address, "--data"])
            .arg(self.data())
            .args(&self.arguments)
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
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_global(Some(Duration::from_secs(100)))
            .build()
            .into();
        let mut request = ureq::http::Request::builder().method(method).uri(url);
        if !token.is_empty() {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = agent.configure_request(request.body(body.to_vec())?);
        let response = agent.run(request.allow_non_standard_methods(true).build())?;
        let status = response.status().as_u16();
        let text = |value: &ureq::http::HeaderValue| {
            String::from_utf8_lossy(value.as_bytes()).into_owned()
        };
        let headers =
            response.headers().iter().map(|(k, v)| (k.as_str().to_owned(), text(v))).collect();
        let mut body = Vec::new();
        response.into_body().into_reader().read_to_end(&mut body)?;
        let answer = Answer { status, headers, body };
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
