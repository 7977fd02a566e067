//! A repo's settings.

use ballast_format::log::{Gating, Visibility};
use ballast_node::access::Access;
use ballast_node::repo::Settings;
use http::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::place::Context;
use crate::call::Call;
use crate::error::{Answer, Failure};
use crate::reply;

const BODY_BYTES: u64 = 1_000_000;

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Asked {
    visibility: Option<String>,
    private: Option<bool>,
    gated: Option<Value>,
    description: Option<String>,
    discussions_disabled: Option<bool>,
    disabled: Option<bool>,
}

/// `visibility`, or `private` from older clients.
pub(super) fn visibility_of(
    visibility: Option<&str>,
    private: Option<bool>,
) -> Result<Option<Visibility>, Failure> {
    match visibility {
        Some("public") => Ok(Some(Visibility::Public)),
        // Protected is private to strangers, and there is nothing in between here.
        Some("private" | "protected") => Ok(Some(Visibility::Private)),
        Some(other) => {
            Err(Failure::invalid(format!("`{other}` is no visibility: `public` or `private`")))
        }
        None => Ok(private.map(|private| match private {
            true => Visibility::Private,
            false => Visibility::Public,
        })),
    }
}

/// `PUT …/settings`.
pub(super) async fn answer(at: &Context<'_>, mut call: Call) -> Answer {
    if call.method != Method::PUT {
        return Err(Failure::method("PUT"));
    }
    let repo = at.allowed(&call, Access::Admin)?;
    let asked: Asked = call.json(BODY_BYTES).await?;
    let gating = match &asked.gated {
        None | Some(Value::Null) => None,
        Some(Value::Bool(false)) => Some(Gating::None),
        Some(Value::String(text)) if text == "auto" => Some(Gating::Automatic),
        Some(Value::String(text)) if text == "manual" => Some(Gating::Manual),
        Some(_) => return Err(Failure::invalid("`gated` is false, \"auto\" or \"manual\"")),
    };
    let settings = Settings {
        visibility: visibility_of(asked.visibility.as_deref(), asked.private)?,
        gating,
        description: asked.description,
        discussions_disabled: asked.discussions_disabled,
        disabled: asked.disabled,
    };
    let changed = at.hub().change_settings(&call.caller, &repo, &settings).await;
    changed.map_err(|error| Failure::of(error, &call.caller))?;
    let repo = at.allowed(&call, Access::Read)?;
    let private = repo.record.visibility == Visibility::Private;
    reply::json(&json!({"private": private, "gated": gated(repo.record.gating)}))
}

/// Gating as clients read it.
pub(super) fn gated(gating: Gating) -> Value {
    match gating {
        Gating::None => json!(false),
        Gating::Automatic => json!("auto"),
        Gating::Manual => json!("manual"),
    }
}
