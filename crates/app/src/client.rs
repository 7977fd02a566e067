//! The administration commands' way to a hub: its API, with a token.
//!
//! Synchronous on purpose: a command makes a handful of calls, one after another.

use std::io::{BufRead as _, BufReader, Read};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustls::crypto::aws_lc_rs;
use serde_json::Value;
use ureq::http::{Request, Response};
use ureq::tls::{RootCerts, TlsConfig};
use ureq::{Agent, Body};

use crate::args::RemoteArgs;

/// An answer longer than this is not one of ours.
const ANSWER_LIMIT: u64 = 64 * 1024 * 1024;
/// Pages of a listing that are followed before something must be wrong.
const PAGE_LIMIT: usize = 10_000;

/// A hub, reached over HTTP.
pub(crate) struct Client {
    agent: Agent,
    endpoint: String,
    token: Option<String>,
}

impl Client {
    /// A client for the hub that these arguments name.
    pub(crate) fn new(remote: &RemoteArgs) -> Self {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let tls = TlsConfig::builder()
            // Those that the machine trusts: a private hub often has a private authority.
            .root_certs(RootCerts::PlatformVerifier)
            .unversioned_rustls_crypto_provider(provider)
            .build();
        let config = Agent::config_builder()
            .tls_config(tls)
            .http_status_as_error(false)
            .timeout_connect(Some(Duration::from_secs(10)))
            .user_agent(concat!("ballast/", env!("CARGO_PKG_VERSION")))
            .build();
        Self {
            agent: config.into(),
            endpoint: remote.endpoint.trim_end_matches('/').to_owned(),
            token: remote.token.clone().filter(|token| !token.is_empty()),
        }
    }

    /// Asks, and reads the answer as JSON; an empty answer is `null`.
    pub(crate) fn call(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value> {
        let url = format!("{}{path}", self.endpoint);
        let mut response = self.send(method, &url, body)?;
        read_json(response.body_mut())
    }

    /// All items of a paginated listing.
    pub(crate) fn list(&self, path: &str) -> Result<Vec<Value>> {
        let mut items = Vec::new();
        let mut next = Some(format!("{}{path}", self.endpoint));
        for _ in 0..PAGE_LIMIT {
            let Some(url) = next else { return Ok(items) };
            let mut response = self.send("GET", &url, None)?;
            next = next_page(&response);
            match read_json(response.body_mut())? {
                Value::Array(page) => items.extend(page),
                other => bail!("expected a list from `{url}`, got `{other}`"),
            }
        }
        bail!("the listing at `{path}` does not end")
    }

    /// Asks for an answer that comes line by line, each a JSON value.
    pub(crate) fn lines(
        &self,
        path: &str,
        body: &Value,
        mut line: impl FnMut(Value) -> Result<()>,
    ) -> Result<()> {
        let url = format!("{}{path}", self.endpoint);
        let response = self.send("POST", &url, Some(body))?;
        for text in BufReader::new(response.into_body().into_reader()).lines() {
            let text = text.context("the answer was cut short")?;
            line(serde_json::from_str(&text).context("reading a line of the answer")?)?;
        }
        Ok(())
    }

    /// The bytes of a file, into somewhere; how many they were.
    pub(crate) fn read(&self, path: &str, into: &mut dyn std::io::Write) -> Result<u64> {
        let response = self.send("GET", &format!("{}{path}", self.endpoint), None)?;
        let mut body = response.into_body().into_reader();
        std::io::copy(&mut body, into).context("a file was cut short; run it again")
    }

    fn send(&self, method: &str, url: &str, body: Option<&Value>) -> Result<Response<Body>> {
        let mut request = Request::builder().method(method).uri(url);
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let sent = match body {
            None => request.body(()).map(|request| self.agent.run(request)),
            Some(body) => request
                .header("content-type", "application/json")
                .body(body.to_string())
                .map(|request| {
                    let any = self.agent.configure_request(request);
                    self.agent.run(any.allow_non_standard_methods(true).build())
                }),
        };
        let response = sent.with_context(|| format!("`{url}` is not an address"))?;
        let mut response = response.with_context(|| {
            format!(
                "cannot reach the hub at `{}`\nhint: name it with --endpoint or HF_ENDPOINT",
                self.endpoint
            )
        })?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let message = read_json(response.body_mut())
            .ok()
            .and_then(|body| body["error"].as_str().map(ToOwned::to_owned))
            .unwrap_or_else(|| format!("the hub answered {status}"));
        let hint = match (status.as_u16(), &self.token) {
            (401 | 403, None) => "\nhint: give an administrator's token in HF_TOKEN",
            (401, Some(_)) => "\nhint: the hub does not accept the token in HF_TOKEN",
            _ => "",
        };
        bail!("{message}{hint}")
    }
}

fn read_json(body: &mut Body) -> Result<Value> {
    let mut text = String::new();
    body.as_reader().take(ANSWER_LIMIT).read_to_string(&mut text).context("reading the answer")?;
    if text.trim().is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_str(&text).context("the answer is not JSON; is this a hub?")
}

/// The address in `Link: <…>; rel="next"`.
fn next_page(response: &Response<Body>) -> Option<String> {
    let link = response.headers().get("link")?.to_str().ok()?;
    let (address, relation) = link.split_once(">;")?;
    let is_next = relation.contains("rel=\"next\"");
    is_next.then(|| address.trim_start_matches('<').to_owned())
}
