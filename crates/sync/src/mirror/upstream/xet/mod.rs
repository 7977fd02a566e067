//! A file from an upstream that stores xorbs: ranges of them, fetched side by side, each chunk
//! decompressed, and handed on in the file's order. Whoever stores the file hashes it.
//!
//! Memory is bounded by a window of pieces. Whatever goes wrong is an error, and never a reason to
//! give up the file: its bytes can be had without xorbs too.

mod decode;
mod plan;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::ops::Range;

use ballast_format::hash::{FileHash, ObjectHash};
use ballast_node::pool::Pool;
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use reqwest::{StatusCode, Url};
use serde::Deserialize;

use self::decode::{Decoder, Step};
use self::plan::{Plan, Run, Wire};
use super::budget::Class;
use super::error::{Error, Missing};
use super::send::{Ask, Tries};
use super::{Repo, Upstream};

/// Bytes of a file that one reconstruction is asked for.
const PART_BYTES: u64 = 256_000_000;
/// The longest reconstruction.
const MAX_PLAN_BYTES: usize = 64 << 20;
/// The longest answer with a token.
const MAX_TOKEN_BYTES: usize = 64 * 1024;
/// Bytes that are fetched with one request.
const PIECE_BYTES: u64 = 8 << 20;
/// The same for the first one, for which somebody may be waiting.
const FIRST_PIECE_BYTES: u64 = 512 << 10;
/// Requests at once, and so the pieces that are in memory.
const PIECES_AT_ONCE: usize = 4;
/// How long before its end a token is not used any more.
const TOKEN_MARGIN_MS: u64 = 60_000;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireToken {
    access_token: String,
    exp: u64,
    cas_url: String,
}

/// Pieces of ranges, in order; the first of each range says so.
type Pieces = BoxStream<'static, Result<(bool, Bytes), Error>>;

/// Where xorbs are, and what opens them.
#[derive(Debug)]
struct Door {
    url: Url,
    token: String,
    until_ms: u64,
}

/// A file that is wanted by its Xet hash.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) repo: Repo,
    pub(super) commit: ObjectHash,
    pub(super) file: FileHash,
    pub(super) size: u64,
}

/// The bytes of a file, from some offset to its end, out of xorbs.
pub(super) struct XetDownload {
    upstream: Upstream,
    pool: Pool,
    target: Target,
    door: Option<Door>,
    /// Whether the store knows only the first version of reconstructions.
    is_old: bool,
    /// The next byte to hand out, but for those that are ready.
    at: u64,
    ready: VecDeque<Bytes>,
    part: Option<Part>,
    decoder: Option<Decoder>,
    /// Why nothing more comes.
    failed: Option<Error>,
}

/// A part of the file that is being fetched.
struct Part {
    runs: VecDeque<Run>,
    /// Pieces of all runs, in order; which run each is of is told by where it begins.
    pieces: Pieces,
    /// Bytes of the file that the part still has to give.
    left: u64,
}

impl XetDownload {
    pub(super) fn new(upstream: &Upstream, pool: &Pool, target: Target, from: u64) -> Self {
        Self {
            upstream: upstream.clone(),
            pool: pool.clone(),
            target,
            door: None,
            is_old: false,
            at: from,
            ready: VecDeque::new(),
            part: None,
            decoder: Some(Decoder::default()),
            failed: None,
        }
    }

    /// Sees to it that the next bytes are ready, or known not to come.
    pub(super) async fn prepare(mut self) -> Self {
        while self.ready.is_empty() && self.failed.is_none() && self.at < self.target.size {
            self.failed = self.advance().await.err();
        }
        self
    }

    /// The next bytes, or nothing after the last one of the file. After an error nothing more
    /// comes.
    pub(super) async fn chunk(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            if let Some(bytes) = self.ready.pop_front() {
                return Ok(Some(bytes));
            }
            if let Some(error) = self.failed.take() {
                return Err(error);
            }
            if self.at == self.target.size && self.part.is_none() {
                return Ok(None);
            }
            self.advance().await?;
        }
    }

    /// Does one step: asks for the next part, or decodes some more of this one.
    async fn advance(&mut self) -> Result<(), Error> {
        let Some(part) = &mut self.part else { return self.next_part().await };
        let mut decoder =
            self.decoder.take().ok_or_else(|| Error::unavailable("it ended with an error"))?;
        if decoder.is_done() && part.runs.is_empty() {
            if part.left > 0 {
                return Err(Error::lied("a reconstruction is shorter than it says"));
            }
            (self.part, self.decoder) = (None, Some(decoder));
            return Ok(());
        }
        let step = self.pool.run(move || decoder.step().map(|step| (decoder, step))).await;
        let (mut decoder, Step { pieces, needs_more }) =
            step.map_err(|error| Error::unavailable(error.to_string()))??;
        let made: u64 = pieces.iter().map(|piece| piece.len() as u64).sum();
        part.left = part
            .left
            .checked_sub(made)
            .ok_or_else(|| Error::lied("a reconstruction is longer than it says"))?;
        self.at += made;
        if needs_more && !(decoder.is_done() && part.runs.is_empty()) {
            let next = part.pieces.next().await;
            let (begins, bytes) =
                next.unwrap_or_else(|| Err(Error::lied("a range of a xorb ends too early")))?;
            if begins {
                let run = part.runs.pop_front();
                decoder.begin(&run.ok_or_else(|| Error::lied("a xorb has no end"))?)?;
            }
            decoder.feed(&bytes);
        }
        self.ready.extend(pieces);
        self.decoder = Some(decoder);
        Ok(())
    }

    /// Asks what the next part of the file is made of, and begins to fetch it.
    async fn next_part(&mut self) -> Result<(), Error> {
        let end = (self.at + PART_BYTES).min(self.target.size);
        let plan = self.reconstruction(self.at..end).await?;
        let reached = (self.at + plan.length).checked_sub(plan.skip);
        let reached = reached.filter(|&reached| reached >= end && reached <= self.target.size);
        let reached = reached.ok_or_else(|| {
            Error::lied("a reconstruction is not of the range that was asked for")
        })?;
        if let Some(decoder) = &mut self.decoder {
            decoder.skip(plan.skip);
        }
        let pieces = self.pieces(&plan.runs)?;
        self.part = Some(Part { runs: plan.runs.into(), pieces, left: reached - self.at });
        Ok(())
    }

    /// The bytes of all runs, fetched ahead; each first piece of a run says so.
    fn pieces(&self, runs: &[Run]) -> Result<Pieces, Error> {
        let mut asks = Vec::new();
        for run in runs {
            let url: Url =
                run.source.url.parse().map_err(|_| Error::lied("the address of a xorb is none"))?;
            let Range { start, end } = run.source.bytes;
            let mut at = start;
            while at < end {
                let most = if asks.is_empty() { FIRST_PIECE_BYTES } else { PIECE_BYTES };
                let until = (at + most).min(end);
                asks.push((at == start, xorb_ask(url.clone(), at..until), until - at));
                at = until;
            }
        }
        let upstream = self.upstream.clone();
        let fetch = move |(begins, ask, length): (bool, Ask, u64)| {
            let upstream = upstream.clone();
            async move { Ok((begins, upstream.piece(&ask, length).await?)) }
        };
        Ok(stream::iter(asks).map(fetch).buffered(PIECES_AT_ONCE).boxed())
    }

    async fn reconstruction(&mut self, range: Range<u64>) -> Result<Plan, Error> {
        let upstream = self.upstream.clone();
        let mut tries = Tries::new(&upstream);
        loop {
            match self.reconstruction_once(&range).await {
                Ok(plan) => return Ok(plan),
                Err(error) => tries.rest(error).await?,
            }
        }
    }

    async fn reconstruction_once(&mut self, range: &Range<u64>) -> Result<Plan, Error> {
        let now = self.upstream.env().now_ms();
        let door = match self.door.take().filter(|door| door.until_ms > now) {
            Some(door) => door,
            None => self.upstream.door(&self.target).await?,
        };
        let version = if self.is_old { "v1" } else { "v2" };
        let mut url = door.url.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend([version, "reconstructions"]);
            path.push(&self.target.file.to_string());
        }
        let ask = Ask {
            bearer: Some(door.token.clone()),
            range: Some(format!("bytes={}-{}", range.start, range.end - 1)),
            answers: if self.is_old { &[] } else { &[404, 501] },
            ..Ask::get(url, format!("xet {}", self.target.file), Missing::File)
        };
        self.door = Some(door);
        let mut answer = self.upstream.ask(&ask).await?;
        if !answer.response.status().is_success() {
            self.is_old = true;
            return Box::pin(self.reconstruction_once(range)).await;
        }
        let body = self.upstream.read(&mut answer.response, MAX_PLAN_BYTES).await?;
        let parse = move || serde_json::from_slice::<Wire>(&body).map(Plan::of);
        let parsed = self.pool.run(parse).await;
        let parsed = parsed.map_err(|error| Error::unavailable(error.to_string()))?;
        parsed.map_err(|error| Error::lied(format!("a reconstruction: {error}")))?
    }
}

fn xorb_ask(url: Url, bytes: Range<u64>) -> Ask {
    Ask {
        class: Class::Files,
        range: Some(format!("bytes={}-{}", bytes.start, bytes.end - 1)),
        // Its address alone opens it.
        is_bare: true,
        ..Ask::get(url, "a xorb", Missing::File)
    }
}

impl Upstream {
    /// Where the xorbs of a repo are, and a token for them.
    async fn door(&self, target: &Target) -> Result<Door, Error> {
        let commit = target.commit.to_string();
        let url = self.api(&target.repo, "xet-read-token", Some(&commit));
        let ask = Ask::get(url, format!("{}@{commit}", target.repo), Missing::Revision);
        let (wire, _) = self.json::<WireToken>(&ask, MAX_TOKEN_BYTES).await?;
        let fault = || Error::lied("what opens its xorbs is no token");
        let url: Url = wire.cas_url.parse().map_err(|_| fault())?;
        let is_plain = wire.access_token.bytes().all(|byte| byte.is_ascii_graphic());
        if !is_plain || wire.access_token.is_empty() {
            return Err(fault());
        }
        // One that is about to end is used once all the same.
        let until_ms = wire.exp.saturating_mul(1000).saturating_sub(TOKEN_MARGIN_MS);
        Ok(Door { url, token: wire.access_token, until_ms })
    }

    /// Some bytes of a xorb, all of them.
    async fn piece(&self, ask: &Ask, length: u64) -> Result<Bytes, Error> {
        let mut tries = Tries::new(self);
        loop {
            match self.piece_once(ask, length).await {
                Ok(bytes) => return Ok(bytes),
                Err(error) => tries.rest(error).await?,
            }
        }
    }

    async fn piece_once(&self, ask: &Ask, length: u64) -> Result<Bytes, Error> {
        let mut answer = self.ask(ask).await?;
        if answer.response.status() != StatusCode::PARTIAL_CONTENT {
            return Err(Error::lied("whoever sends its xorbs does not know ranges"));
        }
        let limit = usize::try_from(length).unwrap_or(usize::MAX);
        let bytes = self.read(&mut answer.response, limit).await?;
        if bytes.len() as u64 != length {
            return Err(Error::unavailable("a range of a xorb was cut short"));
        }
        Ok(bytes)
    }
}
