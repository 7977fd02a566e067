//! One function for each command but `serve`.

mod account;
mod audit;
mod backup;
mod bundle;
mod configuration;
mod export;
mod gc;
mod index;
mod key;
mod mirror;
mod node;
mod policy;
mod pull;
mod quota;
mod region;
mod repo;
mod scrub;
mod top;
mod verify;

pub(crate) use account::{org, token, user};
pub(crate) use audit::audit;
pub(crate) use backup::{backup, restore};
pub(crate) use bundle::bundle;
pub(crate) use configuration::check_config;
pub(crate) use export::export;
pub(crate) use gc::gc;
pub(crate) use index::index;
pub(crate) use key::key;
pub(crate) use mirror::mirror;
pub(crate) use node::node;
pub(crate) use policy::policy;
pub(crate) use pull::pull;
pub(crate) use quota::quota;
pub(crate) use region::{region, remote, replicate};
pub(crate) use repo::repo;
pub(crate) use scrub::scrub;
pub(crate) use top::top;
pub(crate) use verify::verify;

use serde_json::Value;

/// A field of an answer as text for a table; nothing for what is not there.
fn text(value: &Value, field: &str) -> String {
    match &value[field] {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        other => other.to_string(),
    }
}
