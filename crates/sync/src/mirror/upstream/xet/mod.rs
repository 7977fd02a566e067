//! A file from an upstream that stores xorbs: ranges of them, fetched side by side, each chunk
//! decompressed, and handed on in the file's order. Whoever stores the file hashes it.
//!
//! Memory is bounded by a window of pieces. Whatever goes wrong is an error, and never a reason to
//! give up the file: its bytes can be had without xorbs too.

mod decode;
mod here;
mod plan;
mod proof;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use ballast_format::hash::{FileHash, ObjectHash};
use ballast_node::pool::Pool;
use ballast_node::upload::Came;
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use reqwest::{StatusCode, Url};
use serde::Deserialize;

use self::decode::{Decoder, Piece, Step};
use self::here::Spans;
use self::plan::{Plan, Run, Wire};
use super::budget::Class;
use super::error::{Error, Missing};
use super::send::{Ask, Tries};
use super::{Repo, Upstream};

pub(in crate::mirror) use self::here::Here;
pub(in crate::mirror) use self::proof::Proofs;

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
/// Chunks that are read here at once: some 4 MiB.
const CHUNKS_HERE: u64 = 64;
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
type Pieces = BoxStream<'static, Result<(bool, Piece), Error>>;

/// Where a piece comes from.
enum Want {
    There { ask: Box<Ask>, length: u64 },
    Here { file: FileHash, chunks: Range<u64> },
}

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
    /// How many bytes one reconstruction is asked for.
    part_bytes: u64,
    /// What can be handed out, and whether it was here.
    ready: VecDeque<(Bytes, bool)>,
    /// Whether what was handed out last was here.
    was_here: bool,
    here: Option<Here>,
    /// What of that is in which of the upstream's xorbs, when it was asked.
    spans: Option<Arc<Spans>>,
    part: Option<Part>,
    decoder: Option<Decoder>,
    /// What there is to tell of xorbs, of the bytes up to those that are ready.
    came: Vec<Came>,
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
    /// A file from an offset on; what is here of it is not fetched.
    pub(super) fn new(
        upstream: &Upstream,
        pool: &Pool,
        target: Target,
        from: u64,
        here: Option<Here>,
    ) -> Self {
        Self {
            upstream: upstream.clone(),
            pool: pool.clone(),
            target,
            door: None,
            is_old: false,
            at: from,
            part_bytes: PART_BYTES,
            ready: VecDeque::new(),
            was_here: false,
            here,
            spans: None,
            part: None,
            decoder: Some(Decoder::default()),
            came: Vec::new(),
            failed: None,
        }
    }

    /// Sees to it that the next bytes have come and can be decoded, or are known not to come.
    pub(super) async fn prepare(mut self) -> Self {
        let has_come = |decoder: &Option<Decoder>| decoder.as_ref().is_none_or(Decoder::has_bytes);
        while !has_come(&self.decoder) && self.at < self.target.size {
            self.failed = self.advance().await.err();
            if self.failed.is_some() {
                break;
            }
        }
        self
    }

    /// What the file has before the bytes that were prepared. What is fetched goes on with a xorb
    /// that may begin there.
    pub(super) async fn behind(&mut self, front: Vec<Bytes>) {
        let Some(mut decoder) = self.decoder.take() else { return };
        let job = move || {
            decoder.behind(&front.concat());
            decoder
        };
        // A hub that is being stopped fetches nothing either.
        self.decoder = self.pool.run(job).await.ok();
    }

    /// What there is to tell of xorbs. It begins before the bytes that came last.
    pub(super) fn take_came(&mut self) -> Vec<Came> {
        std::mem::take(&mut self.came)
    }

    /// The next bytes, or nothing after the last one of the file. After an error nothing more
    /// comes.
    pub(super) async fn chunk(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            if let Some((bytes, was_here)) = self.ready.pop_front() {
                self.was_here = was_here;
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

    /// Whether the bytes that came last were here, and not fetched.
    pub(super) fn was_here(&self) -> bool {
        self.was_here
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
        let (mut decoder, Step { pieces, is_here, needs_more }) =
            step.map_err(|error| Error::unavailable(error.to_string()))??;
        self.came.append(&mut decoder.take_came());
        let made: u64 = pieces.iter().map(|piece| piece.len() as u64).sum();
        part.left = part
            .left
            .checked_sub(made)
            .ok_or_else(|| Error::lied("a reconstruction is longer than it says"))?;
        self.at += made;
        if needs_more && !(decoder.is_done() && part.runs.is_empty()) {
            let next = part.pieces.next().await;
            let (begins, piece) =
                next.unwrap_or_else(|| Err(Error::lied("a range of a xorb ends too early")))?;
            if begins {
                let run = part.runs.pop_front();
                let run = run.ok_or_else(|| Error::lied("a xorb has no end"))?;
                decoder.begin(&run, self.at)?;
            }
            decoder.feed(piece);
        }
        self.ready.extend(pieces.into_iter().map(|piece| (piece, is_here)));
        self.decoder = Some(decoder);
        Ok(())
    }

    /// Asks what the next part of the file is made of, and begins to fetch it.
    async fn next_part(&mut self) -> Result<(), Error> {
        let end = (self.at + self.part_bytes).min(self.target.size);
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
        let (mut wanted, mut is_first) = (Vec::new(), true);
        for run in runs {
            match run {
                Run::There { source, .. } => {
                    let url: Url = source
                        .url
                        .parse()
                        .map_err(|_| Error::lied("the address of a xorb is none"))?;
                    let Range { start, end } = source.bytes;
                    let mut at = start;
                    while at < end {
                        let most = if is_first { FIRST_PIECE_BYTES } else { PIECE_BYTES };
                        let until = (at + most).min(end);
                        let ask = Box::new(xorb_ask(url.clone(), at..until));
                        wanted.push((at == start, Want::There { ask, length: until - at }));
                        (at, is_first) = (until, false);
                    }
                }
                Run::Here { file, chunks, .. } => {
                    let mut at = chunks.start;
                    while at < chunks.end {
                        let until = (at + CHUNKS_HERE).min(chunks.end);
                        let want = Want::Here { file: *file, chunks: at..until };
                        wanted.push((at == chunks.start, want));
                        at = until;
                    }
                }
            }
        }
        let (upstream, here) = (self.upstream.clone(), self.here.clone());
        let get = move |(begins, want): (bool, Want)| {
            let (upstream, here) = (upstream.clone(), here.clone());
            async move {
                let piece = match (want, here) {
                    (Want::There { ask, length }, _) => {
                        Piece::There(upstream.piece(&ask, length).await?)
                    }
                    (Want::Here { file, chunks }, Some(here)) => {
                        Piece::Here(here.read(file, chunks).await?)
                    }
                    (Want::Here { .. }, None) => {
                        return Err(Error::unavailable("nothing is here"));
                    }
                };
                Ok((begins, piece))
            }
        };
        Ok(stream::iter(wanted).map(get).buffered(PIECES_AT_ONCE).boxed())
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
        let file = self.target.file;
        let mut told = None;
        if !self.is_old {
            told = self.upstream.told(&door, false, file, Some(range)).await?;
            self.is_old = told.is_none();
        }
        let body = match told {
            Some(body) => body,
            None => self.upstream.told(&door, true, file, Some(range)).await?.unwrap_or_default(),
        };
        let spans = match (&self.spans, &self.here) {
            (Some(spans), _) => Arc::clone(spans),
            (None, Some(here)) => {
                Arc::new(here.spans(&self.upstream, &self.pool, &door, self.is_old).await)
            }
            (None, None) => Arc::default(),
        };
        self.spans = Some(Arc::clone(&spans));
        self.door = Some(door);
        let parse =
            move || serde_json::from_slice::<Wire>(&body).map(|wire| Plan::of(wire, &spans));
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
    /// What its store of xorbs says of a file, or of a part; nothing where it does not know the
    /// newer version of that question.
    async fn told(
        &self,
        door: &Door,
        is_old: bool,
        file: FileHash,
        range: Option<&Range<u64>>,
    ) -> Result<Option<Bytes>, Error> {
        let mut url = door.url.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend([if is_old { "v1" } else { "v2" }, "reconstructions"]);
            path.push(&file.to_string());
        }
        let ask = Ask {
            bearer: Some(door.token.clone()),
            range: range.map(|range| format!("bytes={}-{}", range.start, range.end - 1)),
            answers: if is_old { &[] } else { &[404, 501] },
            ..Ask::get(url, format!("xet {file}"), Missing::File)
        };
        let mut answer = self.ask(&ask).await?;
        if !answer.response.status().is_success() {
            return Ok(None);
        }
        self.read(&mut answer.response, MAX_PLAN_BYTES).await.map(Some)
    }

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
