//! `index rebuild`: makes the index anew while the hub is stopped.

use std::fs;
use std::io::ErrorKind;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use ballast_node::hub::Hub;
use ballast_store::backend::Location;
use ballast_store::env::RealEnv;
use serde_json::json;

use crate::args::IndexCommand;
use crate::config::Config;
use crate::output::Output;
use crate::{serve, telemetry};

/// Empties the index's folder and fills it from the store.
pub(crate) fn index(command: &IndexCommand, output: &mut Output) -> Result<ExitCode> {
    let IndexCommand::Rebuild { config, json } = command;
    let config = Config::load(&config.to_config())?;
    telemetry::start(&config.log)?;
    let env = RealEnv::shared();
    let location = config.storage.location(&config.data)?;
    if location == Location::Memory {
        bail!("a hub in memory has no index that outlives it");
    }
    // A hub that runs holds the lock of the folder.
    let (store, locks) = serve::open_store(&config, &location, &env)?;
    let folder = config.data.join("index");
    match fs::remove_dir_all(&folder) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("emptying `{}`", folder.display()));
        }
        _ => {}
    }
    let began = env.monotonic();
    let (index, _) = serve::open_index(&config, &location, &env)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("starting the runtime")?;
    let repos = runtime.block_on(Hub::remake_index(store, index, Arc::clone(&env)))?;
    drop(locks);
    let seconds = (env.monotonic() - began).as_secs_f64();
    if *json {
        output.json(&json!({"repos": repos, "seconds": seconds}))?;
    } else {
        output.line(format!("made the index of {repos} repos anew in {seconds:.1} s"))?;
    }
    Ok(ExitCode::SUCCESS)
}
