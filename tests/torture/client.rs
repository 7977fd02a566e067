//! A client that speaks the protocols itself, to whichever server it likes, and looks at what every
//! answer must be.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use ballast_testkit::clock::Dice;
use ballast_testkit::xet::{Packed, unpack};
use serde_json::{Value, json};

use crate::SERVERS;
use crate::support::http::{self, Answer};
use crate::world::World;

/// A server may stand still for some seconds and the store may be slow.
const PATIENCE: Duration = Duration::from_secs(40);
/// Requests of one piece of work that go to another server, of a thousand.
const ELSEWHERE: u32 = 150;

/// Why something was not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// Nobody answered: it may be done or not.
    Unknown,
    /// Come again.
    Busy,
    /// No, and why.
    Refused { status: u16, why: String },
}

pub(crate) type Done<T> = Result<T, Trouble>;

impl Trouble {
    fn odd(why: impl ToString) -> Self {
        Self::Refused {
            status: 200,
            why: format!("an answer that makes no sense: {}", why.to_string()),
        }
    }

    pub(crate) fn status(&self) -> u16 {
        match self {
            Self::Unknown | Self::Busy => 0,
            Self::Refused { status, .. } => *status,
        }
    }
}

/// A request.
pub(crate) struct Ask<'a> {
    /// For the counts.
    pub(crate) what: &'static str,
    pub(crate) method: &'static str,
    /// A path, or the whole address of some server.
    pub(crate) path: &'a str,
    pub(crate) token: &'a str,
    pub(crate) headers: &'a [(&'a str, &'a str)],
    pub(crate) body: &'a [u8],
}

pub(crate) struct Client<'w> {
    pub(crate) world: &'w World,
    pub(crate) dice: Dice,
    agent: ureq::Agent,
    home: usize,
}

impl<'w> Client<'w> {
    pub(crate) fn new(world: &'w World, dice: Dice) -> Self {
        Self { world, dice, agent: http::agent(PATIENCE), home: 0 }
    }

    /// The next piece of work goes mostly to another server.
    pub(crate) fn turn(&mut self) {
        self.home = self.server();
    }

    fn server(&mut self) -> usize {
        usize::try_from(self.dice.below(SERVERS as u64)).expect("few")
    }

    /// Waits a little before trying again.
    pub(crate) fn breathe(&self) {
        self.world.wait(20, Duration::from_millis(500));
    }

    /// Sends a request and holds the answer against what no answer may be.
    pub(crate) fn send(&mut self, ask: &Ask<'_>) -> Done<Answer> {
        let server = if self.dice.happens(ELSEWHERE) { self.server() } else { self.home };
        self.send_to(server, ask)
    }

    pub(crate) fn send_to(&self, server: usize, ask: &Ask<'_>) -> Done<Answer> {
        // Addresses in answers name the server that gave them; any other is as good.
        let path = match ask.path.split_once("://") {
            Some((_, rest)) => rest.find('/').map_or("/", |start| &rest[start..]),
            None => ask.path,
        };
        let url = format!("{}{path}", self.world.endpoint(server));
        let sent = http::send(&self.agent, ask.method, &url, ask.token, ask.headers, ask.body);
        self.world.answered();
        let Ok(answer) = sent else {
            self.world.count(&format!("{}: no answer", ask.what));
            return Err(Trouble::Unknown);
        };
        let (what, status) = (ask.what, answer.status);
        self.world.count(&format!("{what}: {status}"));
        let why = || String::from_utf8_lossy(&answer.body).chars().take(300).collect::<String>();
        match status {
            200..300 => Ok(answer),
            503 if answer.header("retry-after").is_none() => {
                self.world.violated(format!("{what}: 503 without `Retry-After`: {}", why()));
                Err(Trouble::Busy)
            }
            429 | 503 | 507 => Err(Trouble::Busy),
            500.. => {
                let at = self.world.elapsed();
                self.world.violated(format!("{what} at {at:?}: {status} {}: {path}", why()));
                Err(Trouble::Unknown)
            }
            _ => Err(Trouble::Refused { status, why: why() }),
        }
    }

    pub(crate) fn hub(
        &mut self,
        what: &'static str,
        method: &'static str,
        path: &str,
        body: &[u8],
    ) -> Done<Answer> {
        let token = &self.world.token;
        let headers = [("content-type", "application/json")];
        self.send(&Ask { what, method, path, token, headers: &headers, body })
    }

    pub(crate) fn json(&mut self, what: &'static str, path: &str) -> Done<Value> {
        self.hub(what, "GET", path, b"")?.json().map_err(Trouble::odd)
    }

    /// The commit that a branch is at.
    pub(crate) fn tip(&mut self, repo: &str) -> Done<String> {
        let info = self.json("tip", &format!("/api/models/{repo}/revision/main"))?;
        info["sha"].as_str().map(str::to_owned).ok_or_else(|| Trouble::odd(&info))
    }

    /// Sends a file as git-lfs does, unless it need not be sent; whether it was.
    pub(crate) fn send_lfs(&mut self, repo: &str, sha256: &str, content: &[u8]) -> Done<bool> {
        let asked = json!({
            "operation": "upload",
            "transfers": ["basic"],
            "objects": [{"oid": sha256, "size": content.len()}],
        });
        let path = format!("/{repo}.git/info/lfs/objects/batch");
        let answer = self.hub("lfs batch", "POST", &path, asked.to_string().as_bytes())?;
        let answer = answer.json().map_err(Trouble::odd)?;
        let object = &answer["objects"][0];
        let Some(href) = object["actions"]["upload"]["href"].as_str() else {
            if object["error"].is_null() {
                self.world.count("lfs: need not be sent");
                return Ok(false);
            }
            return Err(Trouble::odd(object));
        };
        let what = "lfs put";
        let ask = Ask { what, method: "PUT", path: href, token: "", headers: &[], body: content };
        self.send(&ask).map(|_| true)
    }

    fn xet_token(&mut self, repo: &str, may: &str, revision: &str) -> Done<String> {
        let path = format!("/api/models/{repo}/xet-{may}-token/{revision}");
        let access = self.json("xet token", &path)?;
        access["accessToken"].as_str().map(str::to_owned).ok_or_else(|| Trouble::odd(&access))
    }

    /// Sends a xorb.
    pub(crate) fn send_xorb(&mut self, repo: &str, packed: &Packed) -> Done<()> {
        let token = &self.xet_token(repo, "write", "main")?;
        let path = &format!("/xet/v1/xorbs/default/{}", packed.hash());
        let (what, body) = ("xorb", packed.xorb.as_slice());
        self.send(&Ask { what, method: "POST", path, token, headers: &[], body }).map(|_| ())
    }

    /// Sends a shard; its xorb is there.
    pub(crate) fn send_shard(&mut self, repo: &str, packed: &Packed) -> Done<()> {
        let token = &self.xet_token(repo, "write", "main")?;
        let body = &packed.shard();
        let (what, path) = ("shard", "/xet/v1/shards");
        self.send(&Ask { what, method: "POST", path, token, headers: &[], body }).map(|_| ())
    }

    /// Sends a commit of these lines; its id.
    pub(crate) fn commit(
        &mut self,
        repo: &str,
        parent: Option<&str>,
        operations: &[Value],
    ) -> Done<String> {
        let mut header = json!({"summary": "torture"});
        if let Some(parent) = parent {
            header["parentCommit"] = json!(parent);
        }
        let mut lines = json!({"key": "header", "value": header}).to_string();
        for operation in operations {
            lines.push('\n');
            lines.push_str(&operation.to_string());
        }
        let path = format!("/api/models/{repo}/commit/main");
        let answer = self.hub("commit", "POST", &path, lines.as_bytes())?;
        let answer = answer.json().map_err(Trouble::odd)?;
        answer["commitOid"].as_str().map(str::to_owned).ok_or_else(|| Trouble::odd(&answer))
    }

    /// The paths of a revision, all of them.
    pub(crate) fn paths(&mut self, repo: &str, revision: &str) -> Done<Vec<String>> {
        let mut paths = Vec::new();
        let mut next = Some(format!("/api/models/{repo}/tree/{revision}?recursive=true"));
        while let Some(path) = next {
            let page = self.hub("tree", "GET", &path, b"")?;
            let items = page.json().map_err(Trouble::odd)?;
            let items = items.as_array().ok_or_else(|| Trouble::odd(&items))?;
            let files = items.iter().filter(|item| item["type"] == "file");
            paths.extend(files.filter_map(|item| item["path"].as_str()).map(str::to_owned));
            let link = page.header("link").and_then(|link| link.strip_prefix('<'));
            next = link.and_then(|link| link.split_once('>')).map(|(url, _)| url.to_owned());
        }
        Ok(paths)
    }

    /// A file of a revision, or a part of it.
    pub(crate) fn read(&mut self, repo: &str, revision: &str, path: &str) -> Done<Vec<u8>> {
        let address = format!("/{repo}/resolve/{revision}/{path}");
        Ok(self.hub("read", "GET", &address, b"")?.body)
    }

    pub(crate) fn read_range(
        &mut self,
        repo: &str,
        revision: &str,
        path: &str,
        (start, end): (usize, usize),
    ) -> Done<Vec<u8>> {
        let path = &format!("/{repo}/resolve/{revision}/{path}");
        let range = format!("bytes={start}-{}", end - 1);
        let (what, token, headers) = ("read range", &*self.world.token, &[("range", &*range)]);
        Ok(self.send(&Ask { what, method: "GET", path, token, headers, body: b"" })?.body)
    }

    /// A large file of a revision, as a Xet client reads it; `None` if it is not large.
    pub(crate) fn read_xet(
        &mut self,
        repo: &str,
        revision: &str,
        path: &str,
    ) -> Done<Option<Vec<u8>>> {
        let path = &format!("/{repo}/resolve/{revision}/{path}");
        let head = self.hub("head", "HEAD", path, b"")?;
        let Some(file) = head.header("x-xet-hash") else { return Ok(None) };
        let token = &self.xet_token(repo, "read", revision)?;
        let path = &format!("/xet/v2/reconstructions/{file}");
        let what = "reconstruction";
        let ask = Ask { what, method: "GET", path, token, headers: &[], body: b"" };
        let document = self.send(&ask)?.json().map_err(Trouble::odd)?;
        self.assemble(&document).map(Some)
    }

    fn assemble(&mut self, document: &Value) -> Done<Vec<u8>> {
        let mut content = Vec::new();
        let terms = document["terms"].as_array().ok_or_else(|| Trouble::odd(document))?;
        for term in terms {
            let (url, range, has) = find(document, term).map_err(Trouble::odd)?;
            let (what, headers) = ("fetch", &[("range", &*range)]);
            let ask = Ask { what, method: "GET", path: &url, token: "", headers, body: b"" };
            let fetched = self.send(&ask)?;
            let chunks = unpack(&fetched.body).map_err(Trouble::odd)?;
            let (start, end) = bounds(&term["range"]).map_err(Trouble::odd)?;
            let wanted = chunks.get(start - has..end - has);
            let wanted = wanted.ok_or_else(|| Trouble::odd("fewer chunks than were said"))?;
            content.extend(wanted.concat());
        }
        let offset = document["offset_into_first_range"].as_u64().unwrap_or(0);
        Ok(content.split_off(usize::try_from(offset).unwrap_or(0)))
    }
}

fn bounds(range: &Value) -> Result<(usize, usize)> {
    let number = |name: &str| {
        let number = range[name].as_u64().with_context(|| format!("{range} has no `{name}`"))?;
        Ok::<usize, anyhow::Error>(usize::try_from(number)?)
    };
    let (start, end) = (number("start")?, number("end")?);
    ensure!(start <= end, "{range} ends before it starts");
    Ok((start, end))
}

/// Where a term is to be fetched: the address, the range, and its first chunk.
fn find(document: &Value, term: &Value) -> Result<(String, String, usize)> {
    let hash = term["hash"].as_str().context("a term without a xorb")?;
    let (start, end) = bounds(&term["range"])?;
    let links = document["xorbs"][hash].as_array().context("a xorb without links")?;
    for link in links {
        for range in link["ranges"].as_array().context("a link without ranges")? {
            let (first, last) = bounds(&range["chunks"])?;
            if first <= start && end <= last {
                let (from, to) = bounds(&range["bytes"])?;
                let url = link["url"].as_str().context("a link without an address")?;
                return Ok((url.to_owned(), format!("bytes={from}-{to}"), first));
            }
        }
    }
    anyhow::bail!("no link has the chunks {start}..{end} of `{hash}`")
}
