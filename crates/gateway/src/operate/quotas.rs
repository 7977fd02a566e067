//! `/api/ballast/v1/quotas/{name}`: how much a user or an organisation may have, and has.

use ballast_node::quota::{QuotaChange, QuotaView};
use ballast_node::state::accounts::Owner;
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use crate::call::Call;
use crate::error::{Answer, Failure};
use crate::reply;

const BODY_BYTES: u64 = 10_000;

/// What is absent stays; `null` is no limit.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    #[serde(default, deserialize_with = "said")]
    bytes: Option<Option<u64>>,
    #[serde(default, deserialize_with = "said")]
    repos: Option<Option<u64>>,
}

fn said<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Option<u64>>, D::Error> {
    Option::deserialize(from).map(Some)
}

fn view(of: &QuotaView) -> Value {
    let kind = match of.owner {
        Owner::User(_) => "user",
        Owner::Org(_) => "org",
    };
    json!({
        "name": of.name.as_str(),
        "type": kind,
        "bytes": {"used": of.usage.bytes, "limit": of.quota.bytes},
        "repos": {"used": of.usage.repos, "limit": of.quota.repos},
    })
}

/// `GET`
pub(super) async fn show(call: &Call, name: &str) -> Answer {
    let found = call.gateway.hub.quota_of(&call.caller, name).await;
    reply::json(&view(&found.map_err(|error| Failure::of(error, &call.caller))?))
}

/// `PATCH`
pub(super) async fn change(mut call: Call, name: &str) -> Answer {
    let Asked { bytes, repos } = call.json(BODY_BYTES).await?;
    let changed = call.gateway.hub.set_quota(&call.caller, name, QuotaChange { bytes, repos });
    changed.await.map_err(|error| Failure::of(error, &call.caller))?;
    show(&call, name).await
}
