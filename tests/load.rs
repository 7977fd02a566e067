//! Many clients at once, a mix of what clients do, with idle and slow ones beside them.
//!
//! Requests arrive at a fixed rate whether or not earlier ones are done, and a request's time
//! counts from when it should have begun. Times are printed and not judged here; an error is a
//! failure, and so is a server that grows. By hand, on a quiet machine:
//!
//!     LOAD_CLIENTS=200 LOAD_SECONDS=900 LOAD_IDLE=5000 LOAD_SLOW=500 \
//!         cargo test --release --test load -- --nocapture

#![expect(clippy::print_stdout, reason = "what was measured is what this is for")]

mod support;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use ballast_format::hash::Sha256;
use ballast_store::env::{RealEnv, SharedEnv};
use futures_util::future::{join_all, select};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256 as Hasher};
use support::connection::Http;
use support::noise;
use support::server::Server;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpSocket;

/// The file that all read.
const SHARED: &str = "admin/shared";
const SHARED_BYTES: usize = 64 << 20;
const RANGE_BYTES: usize = 1 << 20;
const UPLOAD_BYTES: usize = 1 << 20;
/// What the server may take at most (goal 5).
const MOST_MEMORY: u64 = 512 << 20;
/// What a slow reader takes a second: more than what is cut.
const SLOW_BYTES: usize = 4096;

/// How much there is of everything.
#[derive(Clone, Copy, Debug)]
struct Plan {
    clients: usize,
    seconds: u64,
    /// Requests a second, of all clients together.
    rate: usize,
    idle: usize,
    slow: usize,
}

impl Plan {
    fn chosen() -> Result<Self> {
        let number = |name: &str, default: usize| -> Result<usize> {
            match std::env::var(name) {
                Ok(text) => text.parse().with_context(|| format!("`{name}` is `{text}`")),
                Err(_) => Ok(default),
            }
        };
        let clients = number("LOAD_CLIENTS", 24)?;
        Ok(Self {
            clients,
            seconds: number("LOAD_SECONDS", 30)? as u64,
            rate: number("LOAD_RATE", clients)?,
            idle: number("LOAD_IDLE", 200)?,
            slow: number("LOAD_SLOW", 20)?,
        })
    }
}

/// What a client does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Act {
    Head,
    Tree,
    List,
    Small,
    Range,
    Xet,
    Commit,
    Upload,
}

/// One of these each time, in turn: how often each is there is its share.
const MIX: [Act; 20] = [
    Act::Head,
    Act::Range,
    Act::Head,
    Act::Tree,
    Act::Head,
    Act::Xet,
    Act::Head,
    Act::List,
    Act::Small,
    Act::Head,
    Act::Range,
    Act::Head,
    Act::Commit,
    Act::Head,
    Act::Tree,
    Act::Xet,
    Act::Head,
    Act::Range,
    Act::Small,
    Act::Upload,
];

/// What came of it.
#[derive(Default)]
struct Results {
    /// Milliseconds.
    times: BTreeMap<Act, Vec<f64>>,
    bytes: u64,
    errors: Vec<String>,
    /// Slow readers that the server let go.
    cut: usize,
}

impl Results {
    fn percentile(times: &mut [f64], part: f64) -> f64 {
        times.sort_by(f64::total_cmp);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "an index of a list in memory"
        )]
        let index = ((times.len() as f64 * part) as usize).min(times.len().saturating_sub(1));
        times.get(index).copied().unwrap_or_default()
    }

    fn report(&mut self, plan: Plan) {
        println!("{plan:?}");
        let mut metadata = Vec::new();
        for (act, times) in &mut self.times {
            let count = times.len();
            let (half, most) = (Self::percentile(times, 0.5), Self::percentile(times, 0.99));
            println!("{act:?}: {count} requests, p50 {half:.1} ms, p99 {most:.1} ms");
            if matches!(act, Act::Head | Act::Tree | Act::List) {
                metadata.extend_from_slice(times);
            }
        }
        let (half, most) =
            (Self::percentile(&mut metadata, 0.5), Self::percentile(&mut metadata, 0.99));
        println!("metadata: p50 {half:.1} ms, p99 {most:.1} ms");
        println!("{} MB read, {} slow readers cut", self.bytes / 1_000_000, self.cut);
    }
}

/// What all tasks share.
struct World {
    env: SharedEnv,
    address: String,
    authorization: String,
    plan: Plan,
    /// The shared file's hash for Xet.
    file: String,
    results: RefCell<Results>,
}

impl World {
    fn ends(&self) -> Duration {
        Duration::from_secs(self.plan.seconds)
    }

    fn failed(&self, error: &anyhow::Error) {
        self.results.borrow_mut().errors.push(format!("{error:#}"));
    }
}

/// A client with a connection and a repo of its own.
struct Client {
    world: Rc<World>,
    http: Http,
    repo: String,
    number: usize,
    done: u64,
}

impl Client {
    /// Does what is this client's to do, when it is to be done.
    async fn run(mut self, start: Duration) {
        let plan = self.world.plan;
        let mut turn = self.number;
        loop {
            let due = Duration::from_micros((turn * 1_000_000 / plan.rate) as u64);
            if due >= self.world.ends() {
                return;
            }
            let now = self.world.env.monotonic() - start;
            self.world.env.sleep(due.saturating_sub(now)).await;
            // The mix is spread over clients and over each one's time.
            let act = MIX[(turn / plan.clients + self.number * 7) % MIX.len()];
            let outcome = self.act(act).await;
            let took = (self.world.env.monotonic() - start).saturating_sub(due);
            match outcome {
                Ok(bytes) => {
                    let mut results = self.world.results.borrow_mut();
                    results.times.entry(act).or_default().push(took.as_secs_f64() * 1000.0);
                    results.bytes += bytes as u64;
                }
                Err(error) => self.world.failed(&error.context(format!("{act:?}"))),
            }
            turn += plan.clients;
            self.done += 1;
        }
    }

    async fn act(&mut self, act: Act) -> Result<usize> {
        let api = format!("/api/models/{SHARED}");
        match act {
            Act::Head => {
                let path = format!("/{SHARED}/resolve/main/model.safetensors");
                self.ask("HEAD", &path, "", b"", &[200, 302]).await
            }
            Act::Tree => self.ask("GET", &format!("{api}/tree/main"), "", b"", &[200]).await,
            Act::List => self.ask("GET", "/api/models?limit=20", "", b"", &[200]).await,
            Act::Small => {
                let path = format!("/{SHARED}/resolve/main/config.json");
                self.ask("GET", &path, "", b"", &[200]).await
            }
            Act::Range => {
                let start = self.random(SHARED_BYTES - RANGE_BYTES);
                let path = format!("/{SHARED}/resolve/main/model.safetensors");
                let range = format!("range: bytes={start}-{}\r\n", start + RANGE_BYTES - 1);
                let length = self.ask("GET", &path, &range, b"", &[206]).await?;
                ensure!(length == RANGE_BYTES, "{length} bytes");
                Ok(length)
            }
            Act::Xet => self.xet().await,
            Act::Commit => {
                let file = json!({"path": "notes.md", "content": format!("{}", self.done)});
                self.commit(&json!({"key": "file", "value": file})).await?;
                Ok(0)
            }
            Act::Upload => self.upload().await,
        }
    }

    /// A request as the client's user; how long the answer's body was.
    async fn ask(
        &mut self,
        method: &str,
        path: &str,
        headers: &str,
        body: &[u8],
        statuses: &[u16],
    ) -> Result<usize> {
        let headers = format!("{}{headers}", self.world.authorization);
        let told = self.http.ask(method, path, &headers, body).await?;
        Ok(told.expect(statuses).with_context(|| format!("{method} {path}"))?.length)
    }

    async fn json(&mut self, method: &str, path: &str, body: &Value) -> Result<Value> {
        let headers = format!("{}content-type: application/json\r\n", self.world.authorization);
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let told = self.http.ask(method, path, &headers, body.as_bytes()).await?;
        told.expect(&[200])?.json()
    }

    /// A number below this, the same in each run.
    fn random(&self, below: usize) -> usize {
        let bytes = noise((self.number as u64) << 32 | self.done, 8);
        let number = bytes.iter().fold(0_usize, |sum, byte| sum << 7 ^ usize::from(*byte));
        number % below
    }

    /// What a Xet client does for a part of the file.
    async fn xet(&mut self) -> Result<usize> {
        let path = format!("/api/models/{SHARED}/xet-read-token/main");
        let access = self.json("GET", &path, &Value::Null).await?;
        let token = access["accessToken"].as_str().context("no token")?;
        let start = self.random(SHARED_BYTES - RANGE_BYTES);
        let headers = format!(
            "authorization: Bearer {token}\r\nrange: bytes={start}-{}\r\n",
            start + RANGE_BYTES - 1
        );
        let path = format!("/xet/v1/reconstructions/{}", self.world.file);
        let found = self.http.ask("GET", &path, &headers, b"").await?.expect(&[200])?.json()?;
        let mut bytes = 0;
        let fetches = found["fetch_info"].as_object().context("no fetches")?;
        for fetch in fetches.values().flat_map(|list| list.as_array().into_iter().flatten()) {
            let url = fetch["url"].as_str().context("no address")?;
            let place = |name: &str| fetch["url_range"][name].as_u64().context("no range");
            let (first, last) = (place("start")?, place("end")?);
            let range = format!("range: bytes={first}-{last}\r\n");
            let told = self.http.ask("GET", url, &range, b"").await?.expect(&[206])?;
            ensure!(told.length as u64 == last - first + 1, "{} bytes", told.length);
            bytes += told.length;
        }
        Ok(bytes)
    }

    async fn commit(&mut self, operation: &Value) -> Result<()> {
        let header = json!({"key": "header", "value": {"summary": "add"}});
        let path = format!("/api/models/{}/commit/main", self.repo);
        let body = format!("{header}\n{operation}\n");
        let headers = "content-type: application/x-ndjson\r\n";
        self.ask("POST", &path, headers, body.as_bytes(), &[200]).await?;
        Ok(())
    }

    /// A file by LFS, as git and plain clients send it.
    async fn upload(&mut self) -> Result<usize> {
        let content = noise((self.number as u64) << 40 | self.done, UPLOAD_BYTES);
        let oid = Sha256::from_bytes(Hasher::digest(&content).into()).to_string();
        let object = json!({"oid": oid, "size": UPLOAD_BYTES});
        let batch = json!({"operation": "upload", "transfers": ["basic"], "objects": [object]});
        let path = format!("/{}.git/info/lfs/objects/batch", self.repo);
        let told = self.json("POST", &path, &batch).await?;
        let action = &told["objects"][0]["actions"]["upload"]["href"];
        let url = action.as_str().context("nowhere to send it")?.to_owned();
        self.http.ask("PUT", &url, "", &content).await?.expect(&[200])?;
        let file = json!({"path": "model.bin", "algo": "sha256", "oid": oid, "size": UPLOAD_BYTES});
        self.commit(&json!({"key": "lfsFile", "value": file})).await?;
        Ok(0)
    }
}

/// A connection that asks as seldom as it may.
async fn idle(world: Rc<World>, number: usize) {
    let mut http = Http::new(&world.address);
    // Not all at one moment.
    world.env.sleep(Duration::from_millis(number as u64 * 2)).await;
    loop {
        if let Err(error) = http.ask("GET", "/health", "", b"").await {
            world.failed(&error.context("idle"));
            return;
        }
        world.env.sleep(Duration::from_secs(45)).await;
    }
}

/// Somebody who asks for all and takes little of it.
async fn slow(world: Rc<World>) {
    loop {
        if let Err(error) = read_slowly(&world).await {
            world.failed(&error.context("slow reader"));
            return;
        }
        world.results.borrow_mut().cut += 1;
    }
}

/// Returns when the server has had enough.
async fn read_slowly(world: &World) -> Result<()> {
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(16 * 1024)?;
    let mut stream = socket.connect(world.address.parse()?).await?;
    let head = format!(
        "GET /{SHARED}/resolve/main/model.safetensors HTTP/1.1\r\nhost: x\r\n{}\r\n",
        world.authorization
    );
    stream.write_all(head.as_bytes()).await?;
    let mut piece = [0; SLOW_BYTES];
    stream.read_exact(&mut piece[..12]).await.context("no answer")?;
    ensure!(&piece[..12] == b"HTTP/1.1 200", "{}", String::from_utf8_lossy(&piece[..12]));
    loop {
        match stream.read(&mut piece).await {
            Ok(0) | Err(_) => return Ok(()),
            Ok(_) => world.env.sleep(Duration::from_secs(1)).await,
        }
    }
}

/// The server's memory now and at its highest, in bytes.
fn memory(pid: u32) -> Result<(u64, u64)> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let value = |name: &str| -> Result<u64> {
        let line =
            status.lines().find_map(|line| line.strip_prefix(name)).context("no such line")?;
        Ok(line.trim().trim_end_matches(" kB").trim().parse::<u64>()? * 1024)
    };
    Ok((value("VmRSS:")?, value("VmHWM:")?))
}

/// Says now and then how much memory the server has.
async fn watch(world: Rc<World>, pid: u32) {
    for second in (0..).step_by(30) {
        if let Ok((now, _)) = memory(pid) {
            println!("after {second} s: {} MiB", now >> 20);
        }
        world.env.sleep(Duration::from_secs(30)).await;
    }
}

/// The repos that are read and written; the hash of the shared file for Xet.
async fn prepare(server: &Server, plan: Plan, authorization: &str) -> Result<String> {
    let mut http = Http::new(server.address());
    let headers = format!("{authorization}content-type: application/json\r\n");
    let names = (0..plan.clients).map(|number| format!("c{number}"));
    for name in names.chain(["shared".to_owned()]) {
        let body = json!({"name": name}).to_string();
        http.ask("POST", "/api/repos/create", &headers, body.as_bytes()).await?.expect(&[200])?;
    }
    let folder = server.scratch("folder")?;
    fs::write(folder.join("config.json"), "{\"model_type\": \"bert\"}\n")?;
    fs::write(folder.join("model.safetensors"), noise(1, SHARED_BYTES))?;
    let (client, home) = (support::client::Python::with("hub-2.4")?, server.scratch("home")?);
    let mut command = client.command("hf", server, &server.token, &home);
    support::client::finish(command.args(["upload", SHARED, "."]).current_dir(&folder))?;
    let path = format!("/{SHARED}/resolve/main/model.safetensors");
    let told = http.ask("HEAD", &path, authorization, b"").await?.expect(&[200, 302])?;
    Ok(told.header("x-xet-hash").context("no hash")?.to_owned())
}

#[test]
fn many_clients_at_once_are_served_without_an_error() -> Result<()> {
    let plan = Plan::chosen()?;
    let room = (plan.clients + plan.idle + plan.slow + 100).to_string();
    let mut server = Server::start_set(&[
        ("BALLAST_LIMITS_CONNECTIONS", &room),
        ("BALLAST_LIMITS_CONNECTIONS_PER_ADDRESS", &room),
        // All of them have one address and one token.
        ("BALLAST_LIMITS_REQUESTS_AT_ONCE", &room),
    ])?;
    let pid = server.pid().context("it is not running")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut results = runtime.block_on(async {
        let authorization = format!("authorization: Bearer {}\r\n", server.token);
        let file = prepare(&server, plan, &authorization).await?;
        let world = Rc::new(World {
            env: RealEnv::shared(),
            address: server.address().to_owned(),
            authorization,
            plan,
            file,
            results: RefCell::default(),
        });
        let start = world.env.monotonic();
        let clients = (0..plan.clients).map(|number| {
            let http = Http::new(&world.address);
            let (world, repo) = (Rc::clone(&world), format!("admin/c{number}"));
            Client { world, http, repo, number, done: 0 }.run(start)
        });
        let clients = std::pin::pin!(join_all(clients));
        let idlers = (0..plan.idle).map(|number| idle(Rc::clone(&world), number));
        let slow = (0..plan.slow).map(|_| slow(Rc::clone(&world)));
        let others = futures_util::future::join3(
            join_all(idlers),
            join_all(slow),
            watch(Rc::clone(&world), pid),
        );
        select(clients, std::pin::pin!(others)).await;
        anyhow::Ok(world.results.take())
    })?;
    results.report(plan);
    let (now, most) = memory(pid)?;
    println!("the server has {} MiB and had {} at most", now >> 20, most >> 20);
    let errors = &results.errors;
    ensure!(errors.is_empty(), "{} errors: {:#?}", errors.len(), &errors[..errors.len().min(10)]);
    ensure!(most < MOST_MEMORY, "it took {most} bytes");
    ensure!(results.cut == 0, "{} readers were cut who were not too slow", results.cut);
    let done: usize = results.times.values().map(Vec::len).sum();
    let wanted = plan.rate * usize::try_from(plan.seconds)?;
    ensure!(done == wanted, "{done} of {wanted} requests were made");
    server.stop()
}
