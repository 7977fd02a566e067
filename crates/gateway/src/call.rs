//! One request as the dialects see it: who calls, what path, which query, and a body that is read
//! only through limits.
//!
//! The path stays percent-encoded until a handler decodes a segment, because `a%2Fb` and `a/b` are
//! different routes. How the body is read is in `intake.rs`; nothing here knows what a route means.

use std::net::IpAddr;
use std::sync::Arc;

use ballast_format::range::RangeRequest;
use ballast_node::access::Caller;
use http::header::{ACCEPT, HOST, IF_RANGE, RANGE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use percent_encoding::percent_decode_str;

use crate::Gateway;
use crate::body::RequestBody;
use crate::error::Failure;
use crate::rate::Flight;

const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// One request.
pub(crate) struct Call {
    /// Who calls; already authenticated.
    pub(crate) caller: Caller,
    /// `GET`, `HEAD`, ….
    pub(crate) method: Method,
    /// The path as it was sent.
    pub(crate) path: Path,
    /// The decoded query.
    pub(crate) query: Query,
    /// The headers as they were sent.
    pub(crate) headers: HeaderMap,
    /// The address that failed logins are counted for.
    pub(crate) peer: IpAddr,
    /// What goes back as `X-Request-Id`.
    pub(crate) request_id: HeaderValue,
    pub(crate) gateway: Arc<Gateway>,
    /// What it is counted for, until its answer is sent.
    pub(crate) flight: Arc<Flight>,
    pub(crate) body: RequestBody,
}

/// A request's path, percent-encoded, cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Path(Uri);

impl Path {
    pub(crate) fn new(uri: Uri) -> Self {
        Self(uri)
    }

    /// The segments between the slashes, still encoded; a slash at the end adds none.
    pub(crate) fn segments(&self) -> Vec<&str> {
        let path = self.0.path();
        let path = path.strip_prefix('/').unwrap_or(path);
        let path = path.strip_suffix('/').unwrap_or(path);
        if path.is_empty() { Vec::new() } else { path.split('/').collect() }
    }

    /// The path without the query.
    pub(crate) fn path(&self) -> &str {
        self.0.path()
    }

    /// The query without the question mark.
    pub(crate) fn query(&self) -> Option<&str> {
        self.0.query()
    }

    /// The path and, after a `?`, the query: as it was sent.
    pub(crate) fn as_str(&self) -> &str {
        self.0.path_and_query().map_or("/", http::uri::PathAndQuery::as_str)
    }
}

/// The text that a percent-encoded segment stands for.
pub(crate) fn decode(segment: &str) -> Result<String, Failure> {
    match percent_decode_str(segment).decode_utf8() {
        Ok(text) if text.contains('\0') => Err(Failure::invalid("the path holds a zero byte")),
        Ok(text) => Ok(text.into_owned()),
        Err(_) => Err(Failure::invalid("the path is not UTF-8")),
    }
}

/// Decoded pairs of a query or a form.
#[derive(Clone, Debug, Default)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    /// Most pairs that are looked at; the paths of a `paths-info` call arrive as a form.
    const MOST_PAIRS: usize = 5_001;

    /// Reads `a=b&c=d` with `+` for a space, as forms write it.
    pub(crate) fn parse(text: &str) -> Result<Self, Failure> {
        let mut pairs = Vec::new();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            if pairs.len() == Self::MOST_PAIRS {
                return Err(Failure::invalid("too many parameters"));
            }
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            pairs.push((Self::decode(name)?, Self::decode(value)?));
        }
        Ok(Self(pairs))
    }

    fn decode(text: &str) -> Result<String, Failure> {
        let spaced = text.replace('+', " ");
        match percent_decode_str(&spaced).decode_utf8() {
            Ok(text) => Ok(text.into_owned()),
            Err(_) => Err(Failure::invalid("a parameter is not UTF-8")),
        }
    }

    /// The first value of `name`.
    pub(crate) fn first(&self, name: &str) -> Option<&str> {
        let mut pairs = self.0.iter().filter(|(key, _)| is_named(key, name));
        pairs.next().map(|(_, value)| value.as_str())
    }

    /// Every value of `name` and of `name[]`, in order.
    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(key, _)| is_named(key, name)).map(|(_, value)| value.as_str())
    }

    /// Whether `name` is given as `1`, `true` or `True`.
    pub(crate) fn flag(&self, name: &str) -> bool {
        matches!(self.first(name), Some("1" | "true" | "True"))
    }

    /// Every pair, in order.
    pub(crate) fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

/// Lists are sent as `name` repeated, by some clients as `name[]`.
fn is_named(key: &str, name: &str) -> bool {
    key == name || key.strip_suffix("[]") == Some(name)
}

impl Call {
    /// A header's value, if it is there and is text.
    pub(crate) fn header(&self, name: impl http::header::AsHeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Whether the client says that it understands `media_type`.
    pub(crate) fn accepts(&self, media_type: &str) -> bool {
        let mut values = self.headers.get_all(ACCEPT).iter().filter_map(|v| v.to_str().ok());
        values.any(|value| value.contains(media_type))
    }

    /// The part of the content that a `GET` asks for, if it has this `etag`. Other methods have no
    /// ranges, units that we do not know are as good as none, and who has the beginning of other
    /// content needs all of this.
    pub(crate) fn range(&self, etag: Option<&HeaderValue>) -> Option<RangeRequest> {
        let is_same = self.headers.get(IF_RANGE).is_none_or(|wanted| Some(wanted) == etag);
        if self.method != Method::GET || !is_same {
            return None;
        }
        RangeRequest::parse(self.header(RANGE)?).ok()
    }

    /// The call goes on in this name, and is counted for its token.
    pub(crate) fn goes_on_as(&mut self, caller: Caller) -> Result<(), Failure> {
        self.flight.count_caller(&caller)?;
        self.caller = caller;
        Ok(())
    }

    /// `scheme://host` as the client wrote it, for the addresses that we hand out.
    pub(crate) fn base(&self) -> String {
        let settings = &self.gateway.settings;
        if let Some(url) = &settings.public_url {
            return url.trim_end_matches('/').to_owned();
        }
        let forwarded = |name| {
            let value = settings.trust_forwarded.then(|| self.header(name)).flatten()?;
            let first = value.split(',').next()?.trim();
            is_authority(first).then_some(first)
        };
        let scheme = match forwarded(FORWARDED_PROTO) {
            Some("https") => "https",
            Some(_) => "http",
            None if settings.tls.is_some() => "https",
            None => "http",
        };
        let host = forwarded(FORWARDED_HOST)
            .or_else(|| self.header(HOST).filter(|host| is_authority(host)))
            .unwrap_or("localhost");
        format!("{scheme}://{host}")
    }
}

/// Whether `text` may stand as a host with a port in an address that we build.
fn is_authority(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b".-_:[]".contains(&b);
    !text.is_empty() && text.len() <= 255 && text.bytes().all(allowed)
}
