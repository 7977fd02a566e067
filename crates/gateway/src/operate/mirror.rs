//! `POST /api/ballast/v1/mirror`: what is brought from the upstream as a job.
//!
//! What is asked is a JSON object with a `verb`; the answer is NDJSON, and ends with a `summary` or
//! an `error`. What a job is, the gateway does not know: the program says who runs them.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use ballast_node::hub::Hub;
use http::StatusCode;
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::mpsc;

use crate::call::Call;
use crate::error::{Answer, Failure};
use crate::reply;

const BODY_BYTES: u64 = 10_000_000;
/// Lines that wait for a slow reader.
const QUEUE: usize = 256;

/// Somebody who mirrors.
#[async_trait]
pub trait RunMirrors: fmt::Debug + Send + Sync + 'static {
    /// Does what is asked. Every line is told; what comes back is the last one, or why there is
    /// none. Whoever asked may go away: then `lines` is closed.
    async fn answer(
        &self,
        hub: &Arc<Hub>,
        asked: Asked,
        lines: &mpsc::Sender<Value>,
    ) -> Result<Value, String>;
}

/// What is asked.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "verb", rename_all = "camelCase", deny_unknown_fields)]
pub enum Asked {
    /// What these would bring.
    Plan {
        /// What to bring.
        wishes: Vec<AskedWish>,
    },
    /// From now on, bring these.
    Add {
        /// What to bring.
        wishes: Vec<AskedWish>,
    },
    /// What there is.
    List,
    /// Run some now: those named, or of a set, or all.
    Run(Chosen),
    /// Remove some.
    Remove(Chosen),
}

/// Some jobs.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Chosen {
    /// By their ids.
    pub jobs: Vec<String>,
    /// By the set that they belong to.
    pub set: Option<String>,
}

/// What to bring.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AskedWish {
    /// Which repos, at which revision.
    pub address: String,
    /// Patterns of files to bring.
    #[serde(default)]
    pub include: Vec<String>,
    /// Patterns of files to leave out.
    #[serde(default)]
    pub exclude: Vec<String>,
    /// The set that the repos belong to.
    #[serde(default)]
    pub set: String,
    /// Seconds from one run to the next; 0 for no next one.
    #[serde(default)]
    pub every_seconds: u64,
}

/// For administrators of the hub.
pub(super) async fn answer(mut call: Call) -> Answer {
    call.caller.user().map_err(|error| Failure::of(error, &call.caller))?;
    if !call.caller.is_admin() {
        let message = "only an administrator of the hub may mirror";
        return Err(Failure::new(StatusCode::FORBIDDEN, message));
    }
    let asked: Asked = call.json(BODY_BYTES).await?;
    let mirrors = call.gateway.settings.mirrors.clone().ok_or_else(|| {
        Failure::invalid("this hub has no upstream\nhint: set `upstream.url`, without `offline`")
    })?;
    let hub = Arc::clone(&call.gateway.hub);
    Ok(reply::lines_of(hub, "mirror", QUEUE, |hub, lines| async move {
        mirrors.answer(&hub, asked, &lines).await
    }))
}
