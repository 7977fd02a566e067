//! The Xet dialect: chunks, xorbs and shards up, reconstructions and ranges of xorbs down.
//!
//! Lives under `{base}/xet`, which token answers name as the CAS address. A token is bound to one
//! repo, and every look-up is made in that repo and in its holder's name: a hash is an address,
//! not a secret. What the statuses make clients do is in the protocol's reference; here is only
//! which status means what.

use ballast_format::hash::XorbHash;
use http::Method;

use crate::call::Call;
use crate::error::{Answer, Failure};

mod chunk;
mod document;
mod fetch;
mod reconstruction;
mod shard;
pub(crate) mod telemetry;
pub(crate) mod token;
mod xorb;

/// One request below `/xet`; `segments` begin with the version.
pub(crate) async fn route(call: Call, segments: &[&str]) -> Answer {
    if !call.gateway.settings.xet {
        return Err(Failure::no_route());
    }
    let method = call.method.clone();
    match segments {
        ["v1", "xorbs", "default", hash] => match method {
            Method::POST => xorb::upload(call, hash).await,
            Method::HEAD => xorb::head(call, hash).await,
            _ => Err(Failure::method("POST, HEAD")),
        },
        ["v1", "xorb-grants", "default", hash] => match method {
            Method::POST => xorb::grant(call, hash).await,
            _ => Err(Failure::method("POST")),
        },
        ["v1", "shards"] if method == Method::POST => shard::upload_v1(call).await,
        ["v2", "shards"] if method == Method::POST => shard::upload_v2(call).await,
        ["v1" | "v2", "shards"] => Err(Failure::method("POST")),
        ["v1", "reconstructions", file] if is_read(&method) => {
            reconstruction::of_file(call, file, document::Shape::V1).await
        }
        ["v2", "reconstructions", file] if is_read(&method) => {
            reconstruction::of_file(call, file, document::Shape::V2).await
        }
        ["v1", "reconstructions"] if is_read(&method) => reconstruction::of_files(call).await,
        ["v1", "chunks", "default" | "default-merkledb", hash] if is_read(&method) => {
            chunk::query(call, hash).await
        }
        ["v1", "fetch", link] if is_read(&method) => fetch::answer(call, link).await,
        ["v1" | "v2", "reconstructions", ..] | ["v1", "chunks" | "fetch", ..]
            if !is_read(&method) =>
        {
            Err(Failure::method("GET"))
        }
        ["v1", "telemetry"] => telemetry::answer(call).await,
        // Commits of grants among them: we give no grants that could be committed.
        _ => Err(Failure::no_route()),
    }
}

fn is_read(method: &Method) -> bool {
    method == Method::GET || method == Method::HEAD
}

/// A hash in a path, or 400.
fn hash<T: std::str::FromStr>(text: &str) -> Result<T, Failure> {
    text.parse().map_err(|_| Failure::invalid("a hash is 64 hexadecimal digits"))
}

fn xorb_hash(text: &str) -> Result<XorbHash, Failure> {
    hash(text)
}
