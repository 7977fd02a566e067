//! One question to an upstream: sent, led on by redirects, and its answer judged.
//!
//! Redirects are followed by hand, since each is checked and none but the upstream itself sees the
//! token. Nothing here believes a status alone: a page of a broken proxy is no hub's answer.

use std::time::Duration;

use ballast_store::env::random_bytes;
use bytes::{Bytes, BytesMut};
use reqwest::header::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, LOCATION,
    RANGE,
};
use reqwest::{Method, Response, StatusCode, Url};
use serde::de::DeserializeOwned;

use super::Upstream;
use super::budget::{Class, told_to_wait};
use super::error::{Denial, Error, Missing, on_the_wire};

/// Redirects that are followed for one question.
const MAX_REDIRECTS: usize = 5;
/// The longest body of an error that is read.
const MAX_ERROR_BYTES: usize = 64 * 1024;
/// The longest part of an upstream's own words that is repeated.
const MAX_WORDS: usize = 200;

/// A question.
#[derive(Clone, Debug)]
pub(super) struct Ask {
    pub(super) method: Method,
    pub(super) url: Url,
    /// What it counts against.
    pub(super) class: Class,
    /// What is asked for, for errors.
    pub(super) what: String,
    /// What a bare 404 would be about.
    pub(super) subject: Missing,
    /// The token to send, other than the upstream's.
    pub(super) bearer: Option<String>,
    /// No token goes with it, wherever it goes.
    pub(super) is_bare: bool,
    /// The value of `Range`.
    pub(super) range: Option<String>,
    /// A JSON body.
    pub(super) body: Option<Bytes>,
    /// Statuses besides success that are an answer, not an error.
    pub(super) answers: &'static [u16],
}

impl Ask {
    /// A `GET` of the API.
    pub(super) fn get(url: Url, what: impl Into<String>, subject: Missing) -> Self {
        Self {
            method: Method::GET,
            url,
            class: Class::Api,
            what: what.into(),
            subject,
            bearer: None,
            is_bare: false,
            range: None,
            body: None,
            answers: &[],
        }
    }
}

/// An answer that is a success, or has a status that was expected.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) response: Response,
    /// `X-Repo-Commit` of the first hop that has it.
    pub(super) commit: Option<String>,
    /// The `ETag` that the upstream itself gave, of the file and not of whoever sends its bytes.
    pub(super) etag: Option<String>,
    /// The size that the upstream itself gave.
    pub(super) size: Option<u64>,
    /// The Xet hash that the upstream gave.
    pub(super) xet_hash: Option<String>,
}

/// Tries of one question.
pub(super) struct Tries<'a> {
    upstream: &'a Upstream,
    failed: u32,
}

impl<'a> Tries<'a> {
    pub(super) fn new(upstream: &'a Upstream) -> Self {
        Self { upstream, failed: 0 }
    }

    /// Waits before the next try, or gives the error back if there is to be none.
    pub(super) async fn rest(&mut self, error: Error) -> Result<(), Error> {
        let patience = self.upstream.patience();
        self.failed += 1;
        if !error.may_pass() || self.failed >= patience.tries {
            return Err(error);
        }
        let env = self.upstream.env();
        let luck = f64::from(u16::from_be_bytes(random_bytes(env.as_ref()))) / 65536.0;
        let wait = if let Error::RateLimited { retry_after } = &error {
            // Whoever waits for the same moment should not come at the same moment.
            *retry_after + Duration::from_secs_f64(luck)
        } else {
            let full = patience.first_wait.saturating_mul(1 << (self.failed - 1).min(16));
            full.min(patience.longest_wait).mul_f64(0.5 + luck / 2.0)
        };
        if wait > patience.longest_wait + Duration::from_secs(1) {
            return Err(error);
        }
        tracing::debug!(%error, attempt = self.failed, ?wait, "asking the upstream again");
        env.sleep(wait).await;
        Ok(())
    }
}

impl Upstream {
    /// Asks until there is an answer or patience ends.
    pub(super) async fn json<T: DeserializeOwned>(
        &self,
        ask: &Ask,
        limit: usize,
    ) -> Result<(T, HeaderMap), Error> {
        let mut tries = Tries::new(self);
        loop {
            match self.json_once(ask, limit).await {
                Ok(found) => return Ok(found),
                Err(error) => tries.rest(error).await?,
            }
        }
    }

    async fn json_once<T: DeserializeOwned>(
        &self,
        ask: &Ask,
        limit: usize,
    ) -> Result<(T, HeaderMap), Error> {
        let mut answer = self.ask(ask).await?;
        let headers = answer.response.headers().clone();
        let body = self.read(&mut answer.response, limit).await?;
        let value = serde_json::from_slice(&body)
            .map_err(|error| Error::lied(format!("its answer about `{}`: {error}", ask.what)))?;
        Ok((value, headers))
    }

    /// Asks once, and follows where it is led.
    pub(super) async fn ask(&self, ask: &Ask) -> Result<Answer, Error> {
        let mut url = ask.url.clone();
        let (mut commit, mut etag, mut size, mut xet_hash) = (None, None, None, None);
        for _ in 0..=MAX_REDIRECTS {
            self.guard.check(&url).await?;
            let response = self.hop(ask, &url).await?;
            let headers = response.headers();
            if self.guard.is_upstream(&url) {
                commit = commit.or_else(|| text(headers, "x-repo-commit"));
                xet_hash = xet_hash.or_else(|| text(headers, "x-xet-hash"));
                etag = etag.or_else(|| text(headers, "x-linked-etag"));
                size = size.or_else(|| text(headers, "x-linked-size")?.parse().ok());
                if response.status().is_success() {
                    etag = etag.or_else(|| text(headers, "etag"));
                }
            }
            let status = response.status();
            if status.is_success() || ask.answers.contains(&status.as_u16()) {
                return Ok(Answer { response, commit, etag, size, xet_hash });
            }
            if !status.is_redirection() {
                return Err(self.refusal(ask, response).await);
            }
            url = next_hop(&url, headers)?;
        }
        Err(Error::lied(format!("`{}` is redirected more than {MAX_REDIRECTS} times", ask.what)))
    }

    async fn hop(&self, ask: &Ask, url: &Url) -> Result<Response, Error> {
        let env = self.env();
        let is_upstream = self.guard.is_upstream(url);
        if is_upstream && let Some(wait) = self.budgets.closed_for(ask.class, env.monotonic()) {
            return Err(Error::RateLimited { retry_after: wait });
        }
        let mut request = self.http.request(ask.method.clone(), url.clone());
        // A compressed file has another length than the one that is checked.
        request = request.header(ACCEPT_ENCODING, "identity").header(ACCEPT, "*/*");
        let same = url.origin() == ask.url.origin();
        match &ask.bearer {
            Some(bearer) if same => {
                request = request.header(AUTHORIZATION, format!("Bearer {bearer}"));
            }
            None if is_upstream
                && !ask.is_bare
                && let Some(token) = &self.token =>
            {
                request = request.header(AUTHORIZATION, token.header());
            }
            _ => {}
        }
        if let Some(range) = &ask.range {
            request = request.header(RANGE, range);
        }
        if let Some(body) = &ask.body {
            request = request.header(CONTENT_TYPE, "application/json").body(body.clone());
        }
        let response = self.within("an answer", self.headers_timeout, request.send()).await?;
        if is_upstream {
            self.budgets.note(ask.class, response.headers(), env.monotonic());
        }
        Ok(response)
    }

    /// Waits for something from the wire for so long.
    pub(super) async fn within<T>(
        &self,
        what: &str,
        limit: Duration,
        work: impl Future<Output = reqwest::Result<T>>,
    ) -> Result<T, Error> {
        tokio::select! {
            biased;
            done = work => done.map_err(on_the_wire),
            () = self.env().sleep(limit) => {
                Err(Error::unavailable(format!("{what} did not come within {} s", limit.as_secs())))
            }
        }
    }

    /// The next bytes of a body.
    pub(super) async fn next_bytes(&self, body: &mut Response) -> Result<Option<Bytes>, Error> {
        self.within("the next byte", self.idle_timeout, body.chunk()).await
    }

    /// Reads a whole body of at most so many bytes.
    pub(super) async fn read(&self, body: &mut Response, limit: usize) -> Result<Bytes, Error> {
        if text(body.headers(), CONTENT_ENCODING.as_str()).is_some_and(|how| how != "identity") {
            return Err(Error::lied("it compressed what was asked for as it is"));
        }
        let mut whole = BytesMut::new();
        while let Some(bytes) = self.next_bytes(body).await? {
            if whole.len() + bytes.len() > limit {
                return Err(Error::lied(format!("an answer is longer than {limit} bytes")));
            }
            whole.extend_from_slice(&bytes);
        }
        Ok(whole.freeze())
    }

    /// What an answer means that is no success.
    async fn refusal(&self, ask: &Ask, mut response: Response) -> Error {
        let status = response.status();
        let headers = response.headers().clone();
        // What cannot be read says nothing.
        let body = self.read(&mut response, MAX_ERROR_BYTES).await.unwrap_or_default();
        let error = judge(ask, status, &headers, &body, self.guard.is_upstream(response.url()));
        if let Error::RateLimited { retry_after } = &error {
            self.budgets.exhausted(ask.class, *retry_after, self.env().monotonic());
        }
        error
    }
}

/// The error that a status, its headers and its body mean.
fn judge(ask: &Ask, status: StatusCode, headers: &HeaderMap, body: &[u8], is_hub: bool) -> Error {
    let what = ask.what.clone();
    let code = text(headers, "x-error-code").unwrap_or_default();
    let said = words(headers, body);
    let message = said.clone().unwrap_or_else(|| "it gives no reason".to_owned());
    let missing = |missing| Error::NotThere { missing, what: what.clone() };
    let denied = |why| Error::Denied { why, what: what.clone() };
    if !is_hub {
        // Whoever sends the bytes says nothing about the repo: a link that expired is asked for
        // anew.
        return match status.as_u16() {
            429 => Error::RateLimited { retry_after: told_to_wait(headers) },
            _ => {
                Error::unavailable(format!("whoever sends the bytes of `{what}` answered {status}"))
            }
        };
    }
    match (status.as_u16(), code.as_str()) {
        (401 | 404, "RepoNotFound") => missing(Missing::Repo),
        (404, "RevisionNotFound") => missing(Missing::Revision),
        (404, "EntryNotFound") => missing(Missing::File),
        (401 | 403, "GatedRepo") => denied(Denial::Gated),
        (403, _) if message == "Access to this resource is disabled." => denied(Denial::Disabled),
        (401, _) => denied(Denial::Token),
        (403 | 451, _) => denied(Denial::Forbidden),
        // A hub says why in JSON. A page of whatever stands before it says nothing.
        (404 | 410, _) if said.is_some() => missing(ask.subject),
        (429, _) => Error::RateLimited { retry_after: told_to_wait(headers) },
        (404 | 408 | 410 | 500.., _) => Error::unavailable(format!("{status}: {message}")),
        (status, _) => Error::Refused { status, what, message },
    }
}

/// An upstream's own words about an error, if it has a hub's.
fn words(headers: &HeaderMap, body: &[u8]) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Told {
        error: Option<String>,
        message: Option<String>,
    }
    let told =
        || serde_json::from_slice::<Told>(body).ok().and_then(|told| told.error.or(told.message));
    let said = text(headers, "x-error-message").or_else(told)?;
    Some(said.chars().filter(|c| !c.is_control()).take(MAX_WORDS).collect())
}

fn next_hop(from: &Url, headers: &HeaderMap) -> Result<Url, Error> {
    text(headers, LOCATION.as_str())
        .and_then(|to| from.join(&to).ok())
        .ok_or_else(|| Error::lied("it leads to what is no address"))
}

/// A header as text.
pub(super) fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name)?.to_str().ok().map(|value| value.trim().to_owned())
}
