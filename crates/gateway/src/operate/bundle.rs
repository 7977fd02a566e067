//! `POST /api/ballast/v1/bundle/import`: brings a bundle in, from a folder of the hub's machine.
//!
//! The answer is NDJSON: how far it is, each repo that is done, and at last a `summary` or an
//! `error`. What a bundle is, the gateway does not know: the program says who takes one in.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use ballast_node::access::Caller;
use ballast_node::hub::Hub;
use http::StatusCode;
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::mpsc;

use crate::call::Call;
use crate::error::{Answer, Failure};
use crate::reply;

const BODY_BYTES: u64 = 1_000_000;
/// Lines that wait for a slow reader.
const QUEUE: usize = 64;

/// Somebody who takes bundles in.
#[async_trait]
pub trait ImportBundles: fmt::Debug + Send + Sync + 'static {
    /// Brings in the bundle in a folder, which one of these keys (PEM) must have signed. Every line
    /// is told; what comes back is the last one, or why there is none.
    async fn import(
        &self,
        hub: &Arc<Hub>,
        caller: &Caller,
        asked: Asked,
        lines: &mpsc::Sender<Value>,
    ) -> Result<Value, String>;
}

/// What is asked.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    /// The folder.
    pub folder: PathBuf,
    /// The public keys of those whose bundles may come in.
    pub keys: Vec<String>,
}

/// For administrators of the hub.
pub(super) async fn answer(mut call: Call) -> Answer {
    call.caller.user().map_err(|error| Failure::of(error, &call.caller))?;
    if !call.caller.is_admin() {
        let message = "only an administrator of the hub may import a bundle";
        return Err(Failure::new(StatusCode::FORBIDDEN, message));
    }
    let asked: Asked = call.json(BODY_BYTES).await?;
    let importer = call.gateway.settings.bundles.clone().ok_or_else(Failure::no_route)?;
    let (hub, caller) = (Arc::clone(&call.gateway.hub), call.caller.clone());
    Ok(reply::lines_of(hub, "import a bundle", QUEUE, |hub, lines| async move {
        importer.import(&hub, &caller, asked, &lines).await
    }))
}
