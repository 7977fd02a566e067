//! What the repos of an owner take: `settings/repositories`, of a user and of an organisation.
//!
//! Private repos are told of by name here, so it is for the owner, and a token that is for some
//! repos only is told of these.

use std::sync::Arc;

use ballast_format::log::Visibility;
use ballast_format::name::Namespace;
use ballast_node::Error;
use ballast_node::state::catalogue::RepoRecord;
use http::Method;
use serde_json::{Value, json};

use super::commits::date_of;
use crate::Gateway;
use crate::call::{Call, decode};
use crate::error::{Answer, Failure};
use crate::reply;

/// `GET /api/settings/repositories`: the caller's own repos and what they hold.
pub(super) fn of_user(gateway: &Arc<Gateway>, call: &Call) -> Answer {
    let of = |error| Failure::of(error, &call.caller);
    let by = call.caller.user().map_err(of)?;
    let own = Namespace::parse(&by.name).map_err(|error| of(error.into()))?;
    list(gateway, call, &own)
}

/// `GET /api/organizations/{name}/settings/repositories`, for who belongs to it.
pub(super) fn of_organization(gateway: &Arc<Gateway>, call: &Call, name: &str) -> Answer {
    let of = |error| Failure::of(error, &call.caller);
    let by = call.caller.user().map_err(of)?;
    let org = gateway.hub.org_of_name(&decode(name)?).map_err(of)?;
    let belongs = org.members.contains_key(&by.user) || by.admin;
    if !belongs {
        return Err(of(Error::denied(format!("you do not belong to `{}`", org.name))));
    }
    list(gateway, call, &org.name)
}

fn list(gateway: &Arc<Gateway>, call: &Call, owner: &Namespace) -> Answer {
    if call.method != Method::GET && call.method != Method::HEAD {
        return Err(Failure::method("GET, HEAD"));
    }
    let hub = &gateway.hub;
    let records = hub.records(|record| {
        record.name.namespace().folded() == owner.folded() && hub.may_see(&call.caller, record)
    });
    let stored = |record: &RepoRecord| hub.facts(&record.id).used_storage;
    let all: u64 = records.iter().map(|record| stored(record)).sum();
    let mut views: Vec<Value> = Vec::with_capacity(records.len());
    for record in records {
        let storage = stored(&record);
        let percent = storage.saturating_mul(10_000).checked_div(all).unwrap_or(0);
        let private = record.visibility == Visibility::Private;
        views.push(json!({
            "id": record.name.to_string(),
            "type": record.kind.singular(),
            "updatedAt": date_of(record.changed_ms),
            "visibility": if private { "private" } else { "public" },
            "storage": storage,
            "storagePercent": f64::from(u32::try_from(percent).unwrap_or(0)) / 100.0,
        }));
    }
    reply::json(&views)
}
