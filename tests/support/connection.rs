//! A client that costs little: one connection, kept open, and bodies that are counted or kept.

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

/// Larger bodies are counted and not kept.
const KEPT_BYTES: usize = 4 << 20;

/// A connection to a server, made anew when it was closed.
pub struct Http {
    address: String,
    stream: Option<BufReader<TcpStream>>,
}

/// What was answered.
#[derive(Debug)]
pub struct Told {
    pub status: u16,
    /// In lower case.
    pub head: String,
    pub length: usize,
    /// The beginning of the body.
    pub body: Vec<u8>,
}

impl Told {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    pub fn json(&self) -> Result<Value> {
        serde_json::from_slice(&self.body).context("not JSON")
    }

    /// This, if the status is one of these.
    pub fn expect(self, statuses: &[u16]) -> Result<Self> {
        let body = String::from_utf8_lossy(&self.body[..self.body.len().min(300)]);
        ensure!(statuses.contains(&self.status), "{} {body}", self.status);
        Ok(self)
    }
}

impl Http {
    pub fn new(address: &str) -> Self {
        Self { address: address.to_owned(), stream: None }
    }

    /// One request; `headers` are lines that end with `\r\n`.
    pub async fn ask(
        &mut self,
        method: &str,
        path: &str,
        headers: &str,
        body: &[u8],
    ) -> Result<Told> {
        let is_fresh = self.stream.is_none();
        match self.try_ask(method, path, headers, body).await {
            Ok(told) => Ok(told),
            // A connection that was idle for long may have been closed meanwhile.
            Err(_) if !is_fresh => {
                self.stream = None;
                self.try_ask(method, path, headers, body).await
            }
            Err(error) => Err(error),
        }
        .with_context(|| format!("{method} {path}"))
    }

    async fn try_ask(
        &mut self,
        method: &str,
        path: &str,
        headers: &str,
        body: &[u8],
    ) -> Result<Told> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => BufReader::with_capacity(64 * 1024, TcpStream::connect(&self.address).await?),
        };
        // Addresses that are handed out name the server.
        let path = path.split_once(&self.address).map_or(path, |(_, path)| path);
        let host = &self.address;
        let length = match body.is_empty() {
            true => String::new(),
            false => format!("content-length: {}\r\n", body.len()),
        };
        let head = format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\n{headers}{length}\r\n");
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(body).await?;
        let mut told = read_head(&mut stream).await?;
        if method != "HEAD" && !matches!(told.status, 204 | 304) {
            read_body(&mut stream, &mut told).await?;
        }
        if told.header("connection") != Some("close") {
            self.stream = Some(stream);
        }
        Ok(told)
    }
}

async fn read_head(stream: &mut BufReader<TcpStream>) -> Result<Told> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        ensure!(stream.read_line(&mut head).await? > 0, "no answer");
    }
    let status = head.split(' ').nth(1).context("no status")?.parse()?;
    // Names only; values keep their letters, but none that is looked at has any.
    let head = head.lines().map(|line| match line.split_once(": ") {
        Some((name, value)) => format!("{}: {value}\n", name.to_lowercase()),
        None => format!("{line}\n"),
    });
    Ok(Told { status, head: head.collect(), length: 0, body: Vec::new() })
}

async fn read_body(stream: &mut BufReader<TcpStream>, told: &mut Told) -> Result<()> {
    if let Some(length) = told.header("content-length") {
        let length = length.parse()?;
        return take(stream, told, length).await;
    }
    ensure!(told.header("transfer-encoding") == Some("chunked"), "a body without an end");
    let mut line = String::new();
    loop {
        line.clear();
        stream.read_line(&mut line).await?;
        let length = usize::from_str_radix(line.trim(), 16).context("a chunk's length")?;
        take(stream, told, length).await?;
        stream.read_line(&mut line).await?;
        if length == 0 {
            return Ok(());
        }
    }
}

async fn take(stream: &mut BufReader<TcpStream>, told: &mut Told, length: usize) -> Result<()> {
    let (mut left, mut piece) = (length, vec![0; length.min(256 * 1024)]);
    while left > 0 {
        let most = left.min(piece.len());
        let read = stream.read(&mut piece[..most]).await?;
        if read == 0 {
            bail!("the body ends {left} bytes too early");
        }
        if told.body.len() + read <= KEPT_BYTES {
            told.body.extend_from_slice(&piece[..read]);
        }
        left -= read;
    }
    told.length += length;
    Ok(())
}
