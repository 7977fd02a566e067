//! Taking a bundle in without a hub that runs: its store is opened as a server would open it,
//! before its first start too, and nobody is served meanwhile.

use std::sync::Arc;

use anyhow::{Error, Result};
use ballast_format::id::{TokenId, UserId};
use ballast_format::log::TokenRole;
use ballast_gateway::{AskedImport, BundleImporter as _};
use ballast_node::access::{Caller, UserCaller};
use serde_json::Value;
use tokio::sync::mpsc;

use super::runtime;
use crate::args::StoreArgs;
use crate::config::Config;
use crate::importer::Importer;
use crate::serve::Alone;
use crate::telemetry;

/// Lines that wait to be shown.
const QUEUE: usize = 64;

/// Imports, and hands on what a hub would answer, line by line.
pub(super) fn import(
    store: &StoreArgs,
    asked: AskedImport,
    mut hear: impl FnMut(Value) -> Result<()>,
) -> Result<()> {
    let config = Config::load(&store.to_config())?;
    telemetry::start(&config.log)?;
    runtime()?.block_on(async {
        let alone = Alone::open(&config).await?;
        let (lines, mut told) = mpsc::channel(QUEUE);
        let hub = Arc::clone(&alone.hub);
        let importing = async move { Importer.import(&hub, &nobody(), asked, &lines).await };
        let hearing = async {
            while let Some(line) = told.recv().await {
                hear(line)?;
            }
            Ok::<_, Error>(())
        };
        let (done, heard) = tokio::join!(importing, hearing);
        alone.close().await?;
        heard?;
        hear(done.map_err(Error::msg)?)
    })
}

/// Who does it. The hub may have no account yet, and whoever has its folder needs none.
fn nobody() -> Caller {
    Caller::User(Arc::new(UserCaller {
        user: UserId::from_bytes([0; 16]),
        name: "import".to_owned(),
        admin: true,
        token: TokenId::from_bytes([0; 16]),
        role: TokenRole::Write,
        expires_ms: None,
    }))
}
