//! A hub that is not ours, asked as its clients ask it.
//!
//! It speaks the Hugging Face API: the public hub, another Ballast, Olah or any other by its
//! address. Nothing that it says is trusted: names are parsed, bodies are bounded, what it says
//! twice must agree, and its redirects are checked before they are followed. Hashes are left to
//! whoever stores the bytes.

mod address;
mod budget;
mod error;
mod facts;
mod fetch;
mod file;
mod listing;
mod send;
#[cfg(test)]
mod tests;
mod xet;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ballast_format::hash::Sha256;
use ballast_format::name::{RepoKind, RepoName};
use ballast_store::env::SharedEnv;
use reqwest::Url;

use self::address::{Guard, Resolver};
use self::budget::Budgets;

pub use self::budget::{Budget, Class};
pub use self::error::{Denial, Error, Missing};
pub use self::facts::{Author, CommitFacts, Facts, Gating, Refs, Target};
pub use self::fetch::Fetch;
pub use self::file::Download;
pub use self::listing::{Entry, EntryKind, Large, RepoPages, TreePages};
pub(in crate::mirror) use self::xet::{Here, Proofs};

/// The public hub.
pub const PUBLIC_HUB: &str = "https://huggingface.co";

/// Files whose xorbs are remembered to be wrong.
const DISTRUSTED: usize = 1000;
/// Idle connections that are kept to one host.
const IDLE_CONNECTIONS: usize = 16;

/// A repo as its kind and its name say it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Repo {
    /// What it holds.
    pub kind: RepoKind,
    /// What the upstream calls it.
    pub name: RepoName,
}

impl fmt::Display for Repo {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}{}", self.kind.url_prefix(), self.name)
    }
}

/// A token of an upstream; its `Debug` is blank.
#[derive(Clone)]
pub struct Token(String);

impl Token {
    /// Takes what a token file holds; white space around it is not part of it.
    pub fn new(text: &str) -> Result<Self, Error> {
        let text = text.trim();
        let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
        if !plain {
            return Err(Error::settings(
                "the upstream's token is not one line of plain characters",
            ));
        }
        Ok(Self(text.to_owned()))
    }

    fn header(&self) -> String {
        format!("Bearer {}", self.0)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Token(…)")
    }
}

/// How to reach an upstream.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Its address, like [`PUBLIC_HUB`]; it may have a path.
    pub endpoint: String,
    /// Who we are there.
    pub token: Option<Token>,
    /// Hosts to which it may lead without TLS; an upstream without TLS may lead anywhere so.
    pub plain_hosts: Vec<String>,
    /// Networks, as CIDR, to which it may lead though they are not public.
    pub private_networks: Vec<String>,
    /// Whether its xorbs are fetched where it has some.
    pub xet: bool,
    /// A proxy for everything, if one is needed.
    pub proxy: Option<String>,
    /// How long a connection may take.
    pub connect_timeout: Duration,
    /// How long an answer may take to begin.
    pub headers_timeout: Duration,
    /// How long a body may be silent.
    pub idle_timeout: Duration,
    /// How often and how long it is asked again.
    pub patience: Patience,
}

impl Settings {
    /// The settings of an upstream of which nothing is known but its address.
    pub fn of(endpoint: &str) -> Self {
        Self {
            endpoint: endpoint.to_owned(),
            token: None,
            plain_hosts: Vec::new(),
            private_networks: Vec::new(),
            xet: true,
            proxy: None,
            connect_timeout: Duration::from_secs(10),
            headers_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(30),
            patience: Patience::CLIENT,
        }
    }
}

/// How often and how long an upstream is asked again.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Tries without any progress between them, the first included.
    pub tries: u32,
    /// The first wait; each later one is twice as long.
    pub first_wait: Duration,
    /// The longest wait, also when the upstream tells us to wait: beyond it, the error is given
    /// back.
    pub longest_wait: Duration,
}

impl Patience {
    /// For a client that waits: it will ask again itself.
    pub const CLIENT: Self = Self {
        tries: 3,
        first_wait: Duration::from_millis(250),
        longest_wait: Duration::from_secs(2),
    };

    /// For a job, for which a window of the upstream's limits is not long.
    pub const JOB: Self = Self {
        tries: 8,
        first_wait: Duration::from_secs(1),
        longest_wait: Duration::from_secs(330),
    };
}

/// An upstream. Copies share its connections and what is known of its limits.
#[derive(Clone, Debug)]
pub struct Upstream {
    http: reqwest::Client,
    guard: Arc<Guard>,
    endpoint: Url,
    token: Option<Token>,
    headers_timeout: Duration,
    idle_timeout: Duration,
    patience: Patience,
    budgets: Arc<Budgets>,
    xet: bool,
    distrusted: Arc<quick_cache::sync::Cache<Sha256, ()>>,
    env: SharedEnv,
}

impl Upstream {
    /// An upstream; nothing is sent yet.
    pub fn new(settings: &Settings, env: SharedEnv) -> Result<Self, Error> {
        let endpoint = parse_endpoint(&settings.endpoint)?;
        let guard =
            Guard::new(endpoint.clone(), &settings.plain_hosts, &settings.private_networks)?;
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("ballast/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .retry(reqwest::retry::never())
            .dns_resolver(Resolver(Arc::clone(&guard)))
            .no_proxy()
            .connect_timeout(settings.connect_timeout)
            .pool_max_idle_per_host(IDLE_CONNECTIONS);
        if let Some(proxy) = &settings.proxy {
            let proxy = reqwest::Proxy::all(proxy)
                .map_err(|_| Error::settings("the upstream's `proxy` is not an address"))?;
            builder = builder.proxy(proxy);
        }
        let http = builder.build().map_err(|error| Error::settings(error.to_string()))?;
        Ok(Self {
            http,
            guard,
            endpoint,
            token: settings.token.clone(),
            headers_timeout: settings.headers_timeout,
            idle_timeout: settings.idle_timeout,
            patience: settings.patience,
            budgets: Arc::default(),
            xet: settings.xet,
            distrusted: Arc::new(quick_cache::sync::Cache::new(DISTRUSTED)),
            env,
        })
    }

    /// The same upstream, for somebody with another patience.
    #[must_use]
    pub fn with_patience(&self, patience: Patience) -> Self {
        Self { patience, ..self.clone() }
    }

    /// Its address, without a slash at the end.
    pub fn endpoint(&self) -> &str {
        self.endpoint.as_str().trim_end_matches('/')
    }

    /// What it still lets us ask, for each class of requests of which it has said so.
    pub fn budget(&self) -> Vec<(Class, Budget)> {
        let now = self.env.monotonic();
        let left = |class| self.budgets.left(class, now).map(|budget| (class, budget));
        Class::ALL.into_iter().filter_map(left).collect()
    }

    fn patience(&self) -> Patience {
        self.patience
    }

    fn env(&self) -> &SharedEnv {
        &self.env
    }

    /// An address below the endpoint, of parts that are made safe; each part may have slashes,
    /// which stay.
    fn url(&self, parts: &[&str]) -> Url {
        let mut url = self.endpoint.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty();
            for part in parts {
                path.extend(part.split('/'));
            }
        }
        url
    }

    /// An address of the API about a repo; a revision is one part, however many slashes it has.
    fn api(&self, repo: &Repo, verb: &str, revision: Option<&str>) -> Url {
        let name = repo.name.to_string();
        let mut url = self.url(&["api", repo.kind.plural(), &name]);
        if let Ok(mut path) = url.path_segments_mut() {
            path.push(verb);
            if let Some(revision) = revision {
                path.push(revision);
            }
        }
        url
    }
}

fn parse_endpoint(text: &str) -> Result<Url, Error> {
    let fault = || Error::settings(format!("`{text}` is not the address of an upstream"));
    let url: Url = text.trim().parse().map_err(|_| fault())?;
    let clean = url.username().is_empty() && url.password().is_none() && url.query().is_none();
    let spoken = matches!(url.scheme(), "http" | "https") && url.has_host();
    if clean && spoken && url.fragment().is_none() { Ok(url) } else { Err(fault()) }
}
