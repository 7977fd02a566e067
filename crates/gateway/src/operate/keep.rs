//! `POST /api/ballast/v1/node`: what a node keeps of its hub on its host.
//!
//! What is asked is a JSON object with a `verb`; the answer is NDJSON, and ends with a `summary` or
//! an `error`. How files come, the gateway does not know: the program says who keeps them.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use ballast_node::access::Caller;
use ballast_node::hub::Hub;
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::mpsc;

use crate::call::Call;
use crate::error::{Answer, Failure};
use crate::reply;

const BODY_BYTES: u64 = 100_000;
/// Lines that wait for a slow reader.
const QUEUE: usize = 256;

/// Somebody who keeps files of a hub on this host.
#[async_trait]
pub trait KeepFiles: fmt::Debug + Send + Sync + 'static {
    /// Does what is asked, as far as the caller may have it. Every line is told; what comes back is
    /// the last one, or why there is none.
    async fn answer(
        &self,
        hub: &Arc<Hub>,
        caller: &Caller,
        asked: Asked,
        lines: &mpsc::Sender<Value>,
    ) -> Result<Value, String>;
}

/// What is asked.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "verb", rename_all = "camelCase", deny_unknown_fields)]
pub enum Asked {
    /// All files of a revision here, now.
    Bring(Which),
    /// The same, and they stay here.
    Pin(Which),
    /// They need not stay any more.
    Unpin(Which),
    /// What is here.
    List,
}

/// A revision of a repo.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Which {
    /// `model`, `dataset` or `space`.
    pub kind: String,
    /// Its name.
    pub repo: String,
    /// A branch, a tag or a commit.
    pub revision: String,
}

/// For everybody who may read what they ask for.
pub(super) async fn answer(mut call: Call) -> Answer {
    let hub = Arc::clone(&call.gateway.hub);
    hub.admit(&call.caller).map_err(|error| Failure::of(error, &call.caller))?;
    let asked: Asked = call.json(BODY_BYTES).await?;
    let keeper = call.gateway.settings.keeper.clone().ok_or_else(|| {
        Failure::invalid("this is no node: it keeps nothing of another hub\nhint: `ballast node`")
    })?;
    let caller = call.caller.clone();
    Ok(reply::lines_of(hub, "keep files", QUEUE, |hub, lines| async move {
        keeper.answer(&hub, &caller, asked, &lines).await
    }))
}
