//! `POST /api/ballast/v1/regions`: what goes to other regions, what comes from them, and where
//! repos have their homes.
//!
//! What is asked is a JSON object with a `verb`; the answer is NDJSON, and ends with a `summary` or
//! an `error`. How regions speak to each other, the gateway does not know: the program says who
//! does.

use std::fmt;
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
const QUEUE: usize = 256;

/// What is asked.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "verb", rename_all = "camelCase", deny_unknown_fields)]
pub enum Asked {
    /// Join another region's hub by its token, and follow what it offers.
    AddRemote {
        /// What to call it.
        name: String,
        /// The token.
        token: String,
    },
    /// Follow a region no more.
    RemoveRemote {
        /// Which.
        name: String,
    },
    /// Let repos go to another region.
    Create(AskedReplication),
    /// Let a replication rest, or go on.
    Pause {
        /// Which.
        name: String,
        /// Whether it rests.
        paused: bool,
    },
    /// End a replication.
    Remove {
        /// Which.
        name: String,
    },
    /// How far everything is.
    Status,
    /// Compare what came from a region with what it has.
    Verify {
        /// Which.
        remote: String,
    },
    /// Give a repo's home to another region.
    Move {
        /// Which repo.
        repo: AskedRepo,
        /// Which region.
        to: String,
        /// Where clients reach that.
        address: String,
    },
    /// Make this region a repo's home, whatever its home does.
    Promote {
        /// Which repo.
        repo: AskedRepo,
    },
}

/// A repo, as it is asked for.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AskedRepo {
    /// `model`, `dataset` or `space`.
    pub kind: String,
    /// `namespace/name`.
    pub name: String,
}

/// A replication, as it is asked for.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AskedReplication {
    /// Its name.
    pub name: String,
    /// Patterns for names of repos.
    pub patterns: Vec<String>,
    /// Where to.
    pub to: String,
    /// The only regions in which repos that fit may be kept.
    #[serde(default)]
    pub residency: Vec<String>,
    /// Bytes a second at most.
    pub limit: Option<u64>,
    /// Only between these minutes of the day, in UTC.
    pub window: Option<(u32, u32)>,
}

/// Somebody who speaks to other regions.
#[async_trait]
pub trait RunRegions: fmt::Debug + Send + Sync + 'static {
    /// Does what an administrator asks. Every line is told; what comes back is the last one, or why
    /// there is none. Whoever asked may go away: then `lines` is closed.
    async fn answer(
        &self,
        hub: &Arc<Hub>,
        caller: &Caller,
        asked: Asked,
        lines: &mpsc::Sender<Value>,
    ) -> Result<Value, String>;
}

/// For administrators of the hub.
pub(super) async fn answer(mut call: Call) -> Answer {
    call.caller.user().map_err(|error| Failure::of(error, &call.caller))?;
    if !call.caller.is_admin() {
        let message = "only an administrator of the hub may speak of regions";
        return Err(Failure::new(StatusCode::FORBIDDEN, message));
    }
    let asked: Asked = call.json(BODY_BYTES).await?;
    let regions = call.gateway.settings.regions.clone().ok_or_else(|| {
        Failure::invalid("this hub is in no region\nhint: set `region.name` and `cluster.listen`")
    })?;
    let (hub, caller) = (Arc::clone(&call.gateway.hub), call.caller.clone());
    Ok(reply::lines_of(hub, "regions", QUEUE, |hub, lines| async move {
        regions.answer(&hub, &caller, asked, &lines).await
    }))
}
