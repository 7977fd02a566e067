//! A file's bytes from an upstream, as a stream that survives broken connections.
//!
//! What arrives is counted and compared with what the upstream said elsewhere: its tree, its
//! headers, its ranges. It is not hashed here; whoever stores it does that.

use ballast_format::hash::ObjectHash;
use ballast_format::name::FilePath;
use bytes::{Buf as _, Bytes};
use futures_util::stream::BoxStream;
use reqwest::{Response, StatusCode, Url};

use super::budget::Class;
use super::error::{Error, Missing};
use super::listing::Entry;
use super::send::{Answer, Ask, Tries, text};
use super::{Repo, Upstream};

/// The bytes of a file, from some offset to its end.
///
/// When the connection breaks it goes on where it was, as often as the upstream's patience says;
/// each byte that arrives makes patience new.
#[derive(Debug)]
pub struct Download {
    upstream: Upstream,
    ask: Ask,
    commit: ObjectHash,
    /// The next byte to hand out.
    at: u64,
    /// Where to stop, if that is before the file's end.
    until: Option<u64>,
    total: Option<u64>,
    etag: Option<String>,
    xet_hash: Option<String>,
    is_ranged: bool,
    body: Option<Body>,
    ended: bool,
}

/// An answer's body.
#[derive(Debug)]
struct Body {
    response: Response,
    /// Bytes before those that were asked for: the upstream does not know ranges.
    to_skip: u64,
}

impl Download {
    /// The file's size, if the upstream has said it.
    pub fn total(&self) -> Option<u64> {
        self.total
    }

    /// The file's `ETag` without quotes, if the upstream has said it: the git object of a small
    /// file, the SHA-256 of a large one.
    pub fn etag(&self) -> Option<&str> {
        self.etag.as_deref()
    }

    /// The commit that it is of.
    pub fn commit(&self) -> ObjectHash {
        self.commit
    }

    /// The file's Xet hash, if the upstream has it so.
    pub fn xet_hash(&self) -> Option<&str> {
        self.xet_hash.as_deref()
    }

    /// Whether the upstream sends the part of the file that it was asked for, and not all of it.
    pub(super) fn is_ranged(&self) -> bool {
        self.is_ranged
    }

    /// Does not stop before the file's end.
    pub(super) fn go_on(&mut self) {
        if self.until.take().is_some() && self.is_ranged {
            // The answer ends where it was asked to.
            self.body = None;
        }
    }

    /// The next bytes, or nothing after the last one of the file.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, Error> {
        let upstream = self.upstream.clone();
        let mut tries = Tries::new(&upstream);
        loop {
            match self.try_chunk().await {
                Ok(bytes) => return Ok(bytes),
                Err(error) => {
                    self.body = None;
                    tries.rest(error).await?;
                }
            }
        }
    }

    /// The same as a stream; nothing comes after an error.
    pub fn into_stream(self) -> BoxStream<'static, Result<Bytes, Error>> {
        let next = |state: Option<Self>| async move {
            let mut download = state?;
            match download.chunk().await {
                Ok(Some(bytes)) => Some((Ok(bytes), Some(download))),
                Ok(None) => None,
                Err(error) => Some((Err(error), None)),
            }
        };
        Box::pin(futures_util::stream::unfold(Some(self), next))
    }

    async fn try_chunk(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            if self.ended || self.total == Some(self.at) || self.until == Some(self.at) {
                return Ok(None);
            }
            if self.body.is_none() {
                self.connect().await?;
                continue;
            }
            let Some(body) = &mut self.body else { continue };
            let Some(mut bytes) = self.upstream.next_bytes(&mut body.response).await? else {
                if self.total.is_some() || body.to_skip > 0 {
                    return Err(Error::unavailable("the file was cut short"));
                }
                self.ended = true;
                continue;
            };
            let skipped = body.to_skip.min(bytes.len() as u64);
            body.to_skip -= skipped;
            bytes.advance(usize::try_from(skipped).unwrap_or(usize::MAX).min(bytes.len()));
            if bytes.is_empty() {
                continue;
            }
            let wanted = self.until.map_or(u64::MAX, |until| until - self.at);
            bytes.truncate(usize::try_from(wanted).unwrap_or(usize::MAX));
            let end = self.at + bytes.len() as u64;
            if self.total.is_some_and(|total| end > total) {
                return Err(Error::lied(format!("`{}` is longer than it said", self.ask.what)));
            }
            self.at = end;
            return Ok(Some(bytes));
        }
    }

    /// Asks for what is still missing.
    async fn connect(&mut self) -> Result<(), Error> {
        self.ask.range = match self.until {
            Some(until) => Some(format!("bytes={}-{}", self.at, until - 1)),
            None => (self.at > 0).then(|| format!("bytes={}-", self.at)),
        };
        let answer = self.upstream.ask(&self.ask).await?;
        let to_skip = self.check(&answer)?;
        self.is_ranged = answer.response.status() != StatusCode::OK;
        if answer.response.status() == StatusCode::RANGE_NOT_SATISFIABLE {
            self.ended = true;
            return Ok(());
        }
        if self.xet_hash.is_none() {
            self.xet_hash = answer.xet_hash;
        }
        self.body = Some(Body { response: answer.response, to_skip });
        Ok(())
    }

    /// Compares an answer's headers with what is known; how many bytes to skip in it.
    fn check(&mut self, answer: &Answer) -> Result<u64, Error> {
        let what = self.ask.what.clone();
        let lied = |how: &str| Error::lied(format!("`{what}` {how}"));
        let headers = answer.response.headers();
        if text(headers, "content-encoding").is_some_and(|how| how != "identity") {
            return Err(lied("is compressed, which was not asked for"));
        }
        let expected = self.commit.to_string();
        if answer.commit.as_ref().is_some_and(|commit| *commit != expected) {
            return Err(lied("is of another commit"));
        }
        let etag = answer.etag.as_deref().map(bare_etag);
        agree(&mut self.etag, etag).map_err(|()| lied("has two ETags"))?;
        agree(&mut self.total, answer.size).map_err(|()| lied("has two sizes"))?;
        let status = answer.response.status();
        let length = answer.response.content_length();
        if status == StatusCode::OK {
            agree(&mut self.total, length).map_err(|()| lied("has two sizes"))?;
            return Ok(self.at);
        }
        let range = text(headers, "content-range");
        let range = range.as_deref().and_then(parse_range);
        match (status, range) {
            (StatusCode::RANGE_NOT_SATISFIABLE, Some((None, total))) if total == self.at => {
                agree(&mut self.total, Some(total)).map_err(|()| lied("has two sizes"))?;
                Ok(0)
            }
            (StatusCode::PARTIAL_CONTENT, Some((Some((first, last)), total))) => {
                agree(&mut self.total, Some(total)).map_err(|()| lied("has two sizes"))?;
                let end = self.until.unwrap_or(total);
                if first != self.at || last.checked_add(1) != Some(end) {
                    return Err(lied("came as another range than was asked for"));
                }
                if length.is_some_and(|length| length != end - first) {
                    return Err(lied("has two sizes"));
                }
                Ok(0)
            }
            _ => Err(lied("came as a range that is none")),
        }
    }
}

/// Keeps what is said first; whether what is said later is the same.
fn agree<T: PartialEq>(known: &mut Option<T>, said: Option<T>) -> Result<(), ()> {
    match (&known, said) {
        (Some(known), Some(said)) if *known != said => Err(()),
        (None, said) => {
            *known = said;
            Ok(())
        }
        _ => Ok(()),
    }
}

/// An `ETag` without its quotes and without the mark of a weak one.
fn bare_etag(text: &str) -> String {
    text.trim_start_matches("W/").trim_matches('"').to_owned()
}

/// Reads `bytes 5-9/10` or `bytes */10`.
fn parse_range(text: &str) -> Option<(Option<(u64, u64)>, u64)> {
    let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    let total = total.parse().ok()?;
    if range == "*" {
        return Some((None, total));
    }
    let (first, last) = range.split_once('-')?;
    let (first, last) = (first.parse().ok()?, last.parse().ok()?);
    (first <= last && last < total).then_some((Some((first, last)), total))
}

impl Upstream {
    /// A file's bytes from an offset on. What is known of the file (its entry in the tree) is
    /// compared with what comes. The first answer is there when this returns.
    pub async fn open(
        &self,
        repo: &Repo,
        commit: ObjectHash,
        path: &FilePath,
        from: u64,
        known: Option<&Entry>,
    ) -> Result<Download, Error> {
        self.open_until(repo, commit, path, (from, None), known).await
    }

    /// The same; the bytes may end before the file does, at an offset behind the first one.
    pub(super) async fn open_until(
        &self,
        repo: &Repo,
        commit: ObjectHash,
        path: &FilePath,
        (from, until): (u64, Option<u64>),
        known: Option<&Entry>,
    ) -> Result<Download, Error> {
        let url = self.file(repo, "resolve", commit, path);
        let what = format!("{repo}@{commit}/{path}");
        let mut download = Download {
            upstream: self.clone(),
            ask: Ask { class: Class::Files, answers: &[416], ..Ask::get(url, what, Missing::File) },
            commit,
            at: from,
            until,
            total: known.map(|entry| entry.size),
            etag: known.map(Entry::etag),
            xet_hash: known.and_then(|entry| entry.xet_hash).map(|hash| hash.to_string()),
            is_ranged: false,
            body: None,
            ended: false,
        };
        if download.total.is_some_and(|total| from >= total) {
            return Ok(download);
        }
        let mut tries = Tries::new(self);
        while let Err(error) = download.connect().await {
            tries.rest(error).await?;
        }
        Ok(download)
    }

    /// A small file as git has it: of a large file, its pointer. At most so many bytes.
    pub async fn raw(
        &self,
        repo: &Repo,
        commit: ObjectHash,
        path: &FilePath,
        limit: usize,
    ) -> Result<Bytes, Error> {
        let url = self.file(repo, "raw", commit, path);
        let what = format!("{repo}@{commit}/{path}");
        let ask = Ask { class: Class::Files, ..Ask::get(url, what, Missing::File) };
        let mut tries = Tries::new(self);
        loop {
            match self.raw_once(&ask, limit).await {
                Ok(bytes) => return Ok(bytes),
                Err(error) => tries.rest(error).await?,
            }
        }
    }

    async fn raw_once(&self, ask: &Ask, limit: usize) -> Result<Bytes, Error> {
        let mut answer = self.ask(ask).await?;
        self.read(&mut answer.response, limit).await
    }

    fn file(&self, repo: &Repo, verb: &str, commit: ObjectHash, path: &FilePath) -> Url {
        let (prefix, name) = (repo.kind.url_prefix().trim_end_matches('/'), repo.name.to_string());
        let commit = commit.to_string();
        let tail = [&name, verb, &commit, path.as_str()];
        match prefix {
            "" => self.url(&tail),
            prefix => self.url(&[&[prefix], &tail[..]].concat()),
        }
    }
}
